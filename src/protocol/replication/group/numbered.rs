//! What has a number, from small ones to larger ones, and ends in nearly that order.
//!
//! A ring with gaps: it begins with one that has not ended, what ended behind it leaves a gap, and where gaps become many the ring is closed up. So
//! nothing is allocated in steady state, what is looked for is found by halving, and it is walked in the order of the numbers.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

/// Gaps that are left alone, whatever else is in the ring.
const GAPS_MIN: usize = 64;

/// See the [module](self).
#[derive(Debug, Clone)]
pub(super) struct Numbered<T> {
    /// In the order of their numbers; the front one is there.
    ring: VecDeque<(u64, Option<T>)>,
    /// Those that are there.
    len: usize,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered {
            ring: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> Numbered<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds one with a number above all others.
    pub fn push(&mut self, number: u64, what: T) {
        debug_assert!(self.ring.back().is_none_or(|last| last.0 < number));
        self.ring.push_back((number, Some(what)));
        self.len += 1;
    }

    pub fn get(&self, number: u64) -> Option<&T> {
        self.ring[self.place_of(number)?].1.as_ref()
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let place = self.place_of(number)?;
        self.ring[place].1.as_mut()
    }

    pub fn remove(&mut self, number: u64) -> Option<T> {
        let place = self.place_of(number)?;
        let what = self.ring[place].1.take()?;
        self.len -= 1;
        self.close_gaps();
        Some(what)
    }

    /// Takes out those that are chosen, in the order of their numbers.
    pub fn take_where(&mut self, is_it: impl Fn(&T) -> bool, mut taken: impl FnMut(T)) {
        for (_, place) in &mut self.ring {
            if place.as_ref().is_some_and(&is_it) {
                self.len -= 1;
                place.take().into_iter().for_each(&mut taken);
            }
        }
        self.close_gaps();
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let ring = self.ring.iter();
        ring.filter_map(|(number, what)| what.as_ref().map(|what| (*number, what)))
    }

    /// In the order of their numbers.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.ring.iter().filter_map(|(_, what)| what.as_ref())
    }

    /// In the order of their numbers, up to this one.
    pub fn iter_mut_until(&mut self, until: u64) -> impl Iterator<Item = (u64, &mut T)> {
        let there = self.ring.iter_mut();
        let there = there.take_while(move |(number, _)| *number <= until);
        there.filter_map(|(number, what)| what.as_mut().map(|what| (*number, what)))
    }

    fn place_of(&self, number: u64) -> Option<usize> {
        // Most often it is the oldest.
        if self.ring.front()?.0 == number {
            return Some(0);
        }
        self.ring.binary_search_by_key(&number, |one| one.0).ok()
    }

    fn close_gaps(&mut self) {
        while self.ring.front().is_some_and(|(_, what)| what.is_none()) {
            self.ring.pop_front();
        }
        if self.ring.len() > 2 * self.len + GAPS_MIN {
            self.ring.retain(|(_, what)| what.is_some());
        }
    }
}

impl<T: PartialEq> PartialEq for Numbered<T> {
    fn eq(&self, other: &Numbered<T>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Eq> Eq for Numbered<T> {}

impl<T: Hash> Hash for Numbered<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len.hash(state);
        self.iter().for_each(|one| one.hash(state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_does_not_make_it_grow() {
        let mut numbered = Numbered::default();
        numbered.push(1, 'a');
        for number in 2..10_000 {
            numbered.push(number, 'b');
            assert_eq!(numbered.remove(number), Some('b'));
            assert_eq!(numbered.remove(number), None);
        }
        assert!(numbered.ring.len() <= 3 + GAPS_MIN);
        assert_eq!((numbered.len(), numbered.get(1)), (1, Some(&'a')));
    }

    #[test]
    fn gaps_do_not_tell_two_of_them_apart() {
        let (mut one, mut other) = (Numbered::default(), Numbered::default());
        (1..=3).for_each(|number| one.push(number, 'x'));
        one.remove(2);
        other.push(1, 'x');
        other.push(3, 'x');
        assert_eq!(one, other);
    }

    #[test]
    fn what_is_taken_comes_in_the_order_of_the_numbers() {
        let mut numbered = Numbered::default();
        (1..=6).for_each(|number| numbered.push(number, number));
        let mut taken = Vec::new();
        numbered.take_where(|what| what % 2 == 0, |what| taken.push(what));
        assert_eq!(taken, [2, 4, 6]);
        let left: Vec<u64> = numbered.iter().map(|(number, _)| number).collect();
        assert_eq!(left, [1, 3, 5]);
    }
}
