//! Draws by weight from numbers whose weights change: a binary indexed tree (Fenwick, 1994), so that a draw and
//! a change cost one step for each doubling of the numbers.
//!
//! Invariant: the tree's sums are those of the weights. It does not know what it draws.

use crate::base::Prng;
use std::ops::Range;

/// Weights of the numbers `0 .. len`, and their prefix sums.
#[derive(Debug)]
pub(super) struct Weighted {
    weights: Vec<u32>,
    /// Of place `i`, counted from 1: the sum of the `i & -i` weights that end there.
    sums: Vec<u64>,
    total: u64,
}

impl Weighted {
    pub fn new(weights: Vec<u32>) -> Weighted {
        let mut sums = vec![0u64; weights.len() + 1];
        for at in 1..sums.len() {
            sums[at] += u64::from(weights[at - 1]);
            let parent = at + lowest_bit(at);
            if parent < sums.len() {
                sums[parent] += sums[at];
            }
        }
        let total = weights.iter().map(|&weight| u64::from(weight)).sum();
        Weighted {
            weights,
            sums,
            total,
        }
    }

    pub fn get(&self, number: usize) -> u32 {
        self.weights[number]
    }

    pub fn set(&mut self, number: usize, weight: u32) {
        let (old, new) = (u64::from(self.weights[number]), u64::from(weight));
        self.weights[number] = weight;
        self.total = self.total + new - old;
        let mut at = number + 1;
        while at < self.sums.len() {
            self.sums[at] = self.sums[at] + new - old;
            at += lowest_bit(at);
        }
    }

    /// A number, each as often as it weighs; nothing where nothing weighs anything.
    pub fn draw(&self, prng: &mut Prng) -> Option<usize> {
        (self.total > 0).then(|| self.at_sum(prng.below(self.total)))
    }

    /// The same among the numbers of a range.
    pub fn draw_in(&self, range: &Range<usize>, prng: &mut Prng) -> Option<usize> {
        let (before, through) = (self.sum_before(range.start), self.sum_before(range.end));
        let within = through - before;
        (within > 0).then(|| self.at_sum(before + prng.below(within)))
    }

    fn sum_before(&self, number: usize) -> u64 {
        let (mut at, mut sum) = (number, 0);
        while at > 0 {
            sum += self.sums[at];
            at -= lowest_bit(at);
        }
        sum
    }

    /// The number in whose part of the line the point `sum` lies.
    fn at_sum(&self, mut sum: u64) -> usize {
        let mut at = 0;
        let mut step = self.weights.len().next_power_of_two();
        while step > 0 {
            let next = at + step;
            if next < self.sums.len() && self.sums[next] <= sum {
                sum -= self.sums[next];
                at = next;
            }
            step /= 2;
        }
        at
    }
}

fn lowest_bit(at: usize) -> usize {
    at & at.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_drawn_as_often_as_they_weigh() {
        let mut weighted = Weighted::new(vec![5, 0, 10, 1, 4]);
        weighted.set(3, 0);
        weighted.set(4, 5);
        let (mut prng, mut seen) = (Prng::new(1), [0u32; 5]);
        for _ in 0..20_000 {
            seen[weighted.draw(&mut prng).unwrap()] += 1;
        }
        assert_eq!((seen[1], seen[3]), (0, 0));
        let expected = [5_000, 0, 10_000, 0, 5_000];
        let near = |(seen, wanted): (&u32, u32)| seen.abs_diff(wanted) < 400;
        assert!(seen.iter().zip(expected).all(near), "{seen:?}");
    }

    #[test]
    fn a_draw_in_a_range_stays_there_and_an_empty_range_gives_nothing() {
        let weighted = Weighted::new(vec![1, 2, 0, 0, 3, 7]);
        let mut prng = Prng::new(2);
        let mut draw = |range| weighted.draw_in(&range, &mut prng);
        assert!((0..100).all(|_| matches!(draw(1..5), Some(1 | 4))));
        assert_eq!(draw(2..4), None);
        assert_eq!(Weighted::new(vec![0, 0]).draw(&mut prng), None);
    }
}
