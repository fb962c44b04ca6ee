//! Which slots are free.
//!
//! Until all of the table is in memory it is not known which of the slots that were ever used are free, so
//! new space comes from behind `mark`, where no slot was used yet, or from slots that were freed since.
//! A freed slot waits until no operation that may still touch it is in flight (store rule 5).

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Allocator {
    slots: u32,
    /// Slots from here on were never used.
    mark: u32,
    /// A bit for each slot that can be given out.
    free: Bits,
    free_count: u32,
    /// A bit for each slot that is known to be in use.
    used: Bits,
    used_count: u32,
    /// Freed slots, each with the number of the operation that must have ended first.
    waiting: VecDeque<(u32, u64)>,
    /// Slots that are on their way to be free: discarded on the device, or zeroed ahead.
    leaving: u32,
    /// Slots below this are of unknown use until the table is loaded.
    unknown_below: u32,
    hint: usize,
}

impl Allocator {
    pub fn new(slots: u32, mark: u32) -> Allocator {
        Allocator {
            slots,
            mark,
            free: Bits::new(slots),
            free_count: 0,
            used: Bits::new(slots),
            used_count: 0,
            waiting: VecDeque::new(),
            leaving: 0,
            unknown_below: mark,
            hint: 0,
        }
    }

    /// Slots that can be given out now or soon.
    pub fn available(&self) -> u32 {
        self.free_count + self.waiting.len() as u32 + self.leaving + (self.slots - self.mark)
    }

    pub fn slots(&self) -> u32 {
        self.slots
    }

    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// Slots that are known to be in use.
    pub fn used(&self) -> u32 {
        self.used_count
    }

    /// The last 1 % of the slots.
    pub fn reserve(&self) -> u32 {
        self.slots / 100
    }

    /// What joiners leave of the reserve, for what replicas in sync are told.
    pub fn reserve_of_joiners(&self) -> u32 {
        self.reserve() - self.reserve() / 3
    }

    /// Notes that a slot was used before the store was opened.
    pub fn touch(&mut self, slot: u32) {
        if slot < self.slots {
            self.mark = self.mark.max(slot + 1);
            self.unknown_below = self.mark;
        }
    }

    /// Gives out a slot.
    pub fn allocate(&mut self) -> Option<u32> {
        let slot = if self.free_count > 0 {
            let slot = self.free.next_set(self.hint)?;
            self.hint = slot as usize / 64;
            self.free.clear(slot);
            self.free_count -= 1;
            slot
        } else if self.mark < self.slots {
            self.mark += 1;
            self.mark - 1
        } else {
            return None;
        };
        let fresh = self.used.set(slot);
        assert!(fresh, "a slot is given out once");
        self.used_count += 1;
        Some(slot)
    }

    /// Takes a run of slots behind the mark, to be zeroed and then [`Allocator::add_zeroed`].
    pub fn take_run(&mut self, count: u32) -> Option<(u32, u32)> {
        let count = count.min(self.slots - self.mark);
        let first = self.mark;
        self.mark += count;
        self.leaving += count;
        (count > 0).then_some((first, count))
    }

    /// Makes a run that was taken free.
    pub fn add_zeroed(&mut self, first: u32, count: u32) {
        self.leaving -= count;
        (first..first + count).for_each(|slot| self.set_free(slot));
    }

    /// Slots that were zeroed and not used since, and those freed.
    pub fn free_now(&self) -> u32 {
        self.free_count
    }

    /// Notes that a slot is in use; false where it was already.
    pub fn mark_used(&mut self, slot: u32) -> bool {
        let fresh = self.used.set(slot);
        self.used_count += u32::from(fresh);
        fresh
    }

    /// Gives a slot back. It is used again when the operation `after` and all before it have ended.
    pub fn release(&mut self, slot: u32, after: u64) {
        assert!(self.used.get(slot), "only a slot in use is given back");
        self.waiting.push_back((slot, after));
    }

    /// A slot whose wait has ended, as all operations before `ended` have: it is to be freed.
    pub fn settle(&mut self, ended: u64) -> Option<u32> {
        let &(slot, after) = self.waiting.front()?;
        if after > ended {
            return None;
        }
        self.waiting.pop_front();
        self.leaving += 1;
        Some(slot)
    }

    /// Makes a slot free that [`Allocator::settle`] named.
    pub fn free(&mut self, slot: u32) {
        self.leaving -= 1;
        self.used.clear(slot);
        self.used_count -= 1;
        self.set_free(slot);
    }

    /// Every slot below the mark that is not in use is free from now on: all of the table is loaded.
    pub fn complete(&mut self) {
        for slot in 0..self.unknown_below {
            if !self.used.get(slot) && !self.free.get(slot) {
                self.set_free(slot);
            }
        }
        self.unknown_below = 0;
    }

    pub fn grow(&mut self, slots: u32) {
        self.slots = slots;
        self.free.grow(slots);
        self.used.grow(slots);
    }

    fn set_free(&mut self, slot: u32) {
        let fresh = self.free.set(slot);
        assert!(fresh && !self.used.get(slot), "a slot is freed once");
        self.free_count += 1;
        self.hint = self.hint.min(slot as usize / 64);
    }
}

/// A bit for each of a number of slots.
#[derive(Debug)]
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    fn new(count: u32) -> Bits {
        Bits {
            words: vec![0; (count as usize).div_ceil(64)],
        }
    }
    fn grow(&mut self, count: u32) {
        self.words.resize((count as usize).div_ceil(64), 0);
    }
    fn get(&self, at: u32) -> bool {
        self.words[at as usize / 64] & (1 << (at % 64)) != 0
    }
    /// Sets the bit; true where it was not set.
    fn set(&mut self, at: u32) -> bool {
        let fresh = !self.get(at);
        self.words[at as usize / 64] |= 1 << (at % 64);
        fresh
    }
    fn clear(&mut self, at: u32) {
        self.words[at as usize / 64] &= !(1 << (at % 64));
    }
    /// The first set bit in or behind the word `from`.
    fn next_set(&self, from: usize) -> Option<u32> {
        let (word, bits) = self
            .words
            .iter()
            .enumerate()
            .skip(from)
            .find(|(_, bits)| **bits != 0)?;
        Some(word as u32 * 64 + bits.trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_unknown_use_are_not_given_out_before_the_table_is_loaded() {
        let mut allocator = Allocator::new(10, 4);
        assert!(allocator.mark_used(1));
        assert_eq!(allocator.allocate(), Some(4));
        allocator.complete();
        let rest: Vec<_> = std::iter::from_fn(|| allocator.allocate()).collect();
        assert_eq!(rest, [0, 2, 3, 5, 6, 7, 8, 9]);
        assert_eq!((allocator.used(), allocator.available()), (10, 0));
    }

    #[test]
    fn a_freed_slot_waits_for_the_operations_that_may_touch_it() {
        let mut allocator = Allocator::new(1, 0);
        let slot = allocator.allocate().unwrap();
        allocator.release(slot, 7);
        assert_eq!((allocator.settle(6), allocator.allocate()), (None, None));
        assert_eq!(allocator.settle(7), Some(slot));
        allocator.free(slot);
        assert_eq!(allocator.allocate(), Some(slot));
    }
}
