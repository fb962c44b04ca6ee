//! Overlap: a change never runs while another one of the same blocks is in flight, and a read waits for the
//! changes before it (rules R2 and R9). What waits is started in the order of its coming.

use crate::base::{ChunkNo, FixedMap, VolumeId};
use std::collections::VecDeque;

/// A chunk of a volume that something is in flight on.
type Place = (VolumeId, ChunkNo);

/// What is in flight on one chunk, and what waits for it.
#[derive(Debug, Default)]
struct Busy {
    /// Blocks with a change in flight.
    changing: u16,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    piece: u32,
    mask: u16,
    is_read: bool,
}

/// Blocks with changes in flight.
#[derive(Debug, Default)]
pub(super) struct Overlap {
    busy: FixedMap<Place, Busy>,
    /// Pieces that can go on, in their order.
    released: VecDeque<u32>,
}

impl Overlap {
    /// Whether a piece may go on now. A change then holds its blocks until [`Overlap::leave`]; a read holds
    /// nothing. Where it may not, it is released later.
    pub fn enter(&mut self, at: Place, mask: u16, is_read: bool, piece: u32) -> bool {
        if is_read {
            let Some(busy) = self.busy.get_mut(&at) else {
                return true;
            };
            if !busy.conflicts(mask, busy.waiting.len()) {
                return true;
            }
            busy.waiting.push_back(Waiter {
                piece,
                mask,
                is_read,
            });
            return false;
        }
        let busy = self.busy.entry(at).or_default();
        if busy.conflicts(mask, busy.waiting.len()) {
            busy.waiting.push_back(Waiter {
                piece,
                mask,
                is_read,
            });
            return false;
        }
        busy.changing |= mask;
        true
    }

    /// A change is no longer in flight.
    pub fn leave(&mut self, at: Place, mask: u16) {
        let Some(busy) = self.busy.get_mut(&at) else {
            return;
        };
        debug_assert_eq!(busy.changing & mask, mask, "a change holds its blocks");
        busy.changing &= !mask;
        let mut n = 0;
        while n < busy.waiting.len() {
            let waiter = busy.waiting[n];
            if busy.conflicts(waiter.mask, n) {
                n += 1;
                continue;
            }
            busy.waiting.remove(n);
            if !waiter.is_read {
                busy.changing |= waiter.mask;
            }
            self.released.push_back(waiter.piece);
        }
        if busy.changing == 0 && busy.waiting.is_empty() {
            self.busy.remove(&at);
        }
    }

    /// The next piece that waited and can go on.
    pub fn released(&mut self) -> Option<u32> {
        self.released.pop_front()
    }
}

impl Busy {
    /// Whether blocks are in flight, or wanted by one of the first `ahead` that wait.
    fn conflicts(&self, mask: u16, ahead: usize) -> bool {
        self.changing & mask != 0
            || self
                .waiting
                .iter()
                .take(ahead)
                .any(|waiter| waiter.mask & mask != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Place = (VolumeId(1), ChunkNo(2));

    #[test]
    fn a_change_waits_for_the_one_that_it_overlaps_and_no_other() {
        let mut overlap = Overlap::default();
        assert!(overlap.enter(AT, 0b0011, false, 1));
        assert!(overlap.enter(AT, 0b1100, false, 2));
        assert!(!overlap.enter(AT, 0b0110, false, 3));
        overlap.leave(AT, 0b0011);
        assert_eq!(overlap.released(), None);
        overlap.leave(AT, 0b1100);
        assert_eq!(overlap.released(), Some(3));
    }

    #[test]
    fn what_waits_is_not_overtaken_by_what_overlaps_it() {
        let mut overlap = Overlap::default();
        assert!(overlap.enter(AT, 0b01, false, 1));
        assert!(!overlap.enter(AT, 0b11, false, 2));
        assert!(!overlap.enter(AT, 0b10, false, 3), "3 would overtake 2");
        overlap.leave(AT, 0b01);
        assert_eq!((overlap.released(), overlap.released()), (Some(2), None));
        overlap.leave(AT, 0b11);
        assert_eq!(overlap.released(), Some(3));
    }

    #[test]
    fn a_read_waits_for_a_change_and_holds_nothing() {
        let mut overlap = Overlap::default();
        assert!(overlap.enter(AT, 1, true, 1));
        assert!(overlap.enter(AT, 1, false, 2));
        assert!(!overlap.enter(AT, 1, true, 3));
        overlap.leave(AT, 1);
        assert_eq!(overlap.released(), Some(3));
        assert!(overlap.busy.is_empty());
    }
}
