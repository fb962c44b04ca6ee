//! Which of a series of operations have all ended: for waiting until nobody touches a slot any more.

use std::collections::VecDeque;

/// Operations numbered as they begin, ending in any order.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The number of the first operation that has not ended.
    first: u64,
    /// Whether each from `first` on has ended.
    ended: VecDeque<bool>,
}

impl Order {
    pub fn begin(&mut self) -> u64 {
        self.ended.push_back(false);
        self.next() - 1
    }

    pub fn end(&mut self, number: u64) {
        self.ended[(number - self.first) as usize] = true;
        while self.ended.front() == Some(&true) {
            self.ended.pop_front();
            self.first += 1;
        }
    }

    /// The number that the next operation gets.
    pub fn next(&self) -> u64 {
        self.first + self.ended.len() as u64
    }

    /// Every operation below this has ended.
    pub fn ended(&self) -> u64 {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_counts_as_ended_when_all_before_it_have() {
        let mut order = Order::default();
        let (a, b) = (order.begin(), order.begin());
        let after_both = order.next();
        order.end(b);
        assert!(order.ended() < after_both);
        order.end(a);
        assert_eq!(order.ended(), after_both);
    }
}
