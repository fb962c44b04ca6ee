//! Simulated time: what happens when.
//!
//! The agenda is a heap of events under the time at which they fall due. Events that fall due at the same
//! time come in the order in which they were put in, so that a run depends on its seed alone. What makes
//! completions overtake one another is the latency that the disk draws, not this file.

use crate::base::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events, each with the time at which it happens.
#[derive(Debug)]
pub struct Agenda {
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    order: u64,
}

impl Default for Agenda {
    fn default() -> Agenda {
        Agenda::new()
    }
}

impl Agenda {
    pub fn new() -> Agenda {
        Agenda {
            heap: BinaryHeap::new(),
            order: 0,
        }
    }

    /// Puts the event `what` in, to happen at `when`.
    pub fn put(&mut self, when: Time, what: u32) {
        self.order += 1;
        self.heap.push(Reverse((when, self.order, what)));
    }

    /// When the next event happens.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((when, ..))| *when)
    }

    /// The next event, where it has happened by `now`.
    pub fn pop(&mut self, now: Time) -> Option<u32> {
        self.next().filter(|when| *when <= now)?;
        self.heap.pop().map(|Reverse((_, _, what))| what)
    }

    /// Forgets everything: the power is cut.
    pub fn clear(&mut self) {
        self.heap.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_put_in() {
        let mut agenda = Agenda::new();
        for (when, what) in [(5, 1), (3, 2), (5, 3), (9, 4)] {
            agenda.put(Time(when), what);
        }
        assert_eq!(agenda.next(), Some(Time(3)));
        let due: Vec<u32> = std::iter::from_fn(|| agenda.pop(Time(5))).collect();
        assert_eq!(due, [2, 1, 3]);
        assert_eq!(agenda.pop(Time(8)), None);
    }
}
