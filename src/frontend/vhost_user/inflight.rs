//! The in-flight region of one split ring: what was taken and not given back, kept where our end does not reach it.
//!
//! The layout and the order of writes are those of the vhost-user specification ("Inflight I/O tracking"):
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | features, zero |
//! | 8 | 2 | version, 1; 0 where nothing was written yet |
//! | 10 | 2 | descriptors, the size of the ring |
//! | 12 | 2 | the head that was given back last |
//! | 14 | 2 | the used index up to which the marks below are right |
//! | 16 + 16 i | 1 | whether head i is in flight |
//! | 22 + 16 i | 2 | the head that was given back before it |
//! | 24 + 16 i | 8 | when it was taken: a counter |
//!
//! A batch is given back so: each of its heads is linked before the last one, the used index of the ring is made visible,
//! the marks are taken away, the used index is noted here. Cut short anywhere, the difference of the two used
//! indices says how many of the linked heads were given back and are still marked.

use crate::io::Span;

const VERSION: u16 = 1;
const HEADER: usize = 16;
const EACH: usize = 16;
/// Rings' parts of a region begin at multiples of that.
const ALIGNMENT: usize = 64;

/// The tracking of one ring.
#[derive(Debug)]
pub struct Inflight {
    span: Span,
    size: u16,
    /// Of the next head that is taken.
    counter: u64,
}

impl Inflight {
    /// Bytes that rings of this size need.
    pub fn bytes(queues: u16, size: u16) -> u64 {
        let one = HEADER + EACH * usize::from(size);
        one.next_multiple_of(ALIGNMENT) as u64 * u64::from(queues)
    }

    /// The part of ring `index` in a region for so many rings; `None` where it does not fit a ring of this size.
    pub fn open(region: &Span, index: u16, queues: u16, size: u16) -> Option<Inflight> {
        let each = region.len().checked_div(usize::from(queues))?;
        let needed = HEADER + EACH * usize::from(size);
        if index >= queues || each < needed {
            return None;
        }
        let span = region.part(usize::from(index) * each, needed)?;
        // Its numbers are written as a whole.
        span.is_aligned(8).then_some(Inflight {
            span,
            size,
            counter: 0,
        })
    }

    /// What was in flight when it was last written, in the order in which it was taken; `used` is the index of the ring's
    /// used elements. `None` where the region says what cannot be.
    pub fn recover(&mut self, used: u16) -> Option<Vec<u16>> {
        match (self.span.load_u16(8), self.span.load_u16(10)) {
            (0, _) => {
                self.begin(used);
                return Some(Vec::new());
            }
            (VERSION, size) if size == self.size => {}
            _ => return None,
        }
        let batch = used.wrapping_sub(self.span.load_u16(14));
        if batch > self.size {
            return None;
        }
        let mut head = self.span.load_u16(12);
        for _ in 0..batch {
            let at = self.at(head)?;
            self.span.store_u8(at, 0);
            head = self.span.load_u16(at + 6);
        }
        self.span.store_u16(14, used);
        let marked = (0..self.size).filter(|&head| self.is_marked(head));
        let mut found: Vec<(u64, u16)> = marked.map(|head| (self.counter_of(head), head)).collect();
        found.sort_unstable();
        // A counter at the end of its numbers was not written by us; it begins again, with what is in flight in order.
        self.counter = found.last().map_or(0, |(last, _)| last.wrapping_add(1));
        Some(found.into_iter().map(|(_, head)| head).collect())
    }

    fn begin(&self, used: u16) {
        self.span.store_u64(0, 0);
        self.span.store_u16(10, self.size);
        self.span.store_u16(12, 0);
        self.span.store_u16(14, used);
        (0..self.size).for_each(|head| {
            if let Some(at) = self.at(head) {
                self.span.store_u8(at, 0);
            }
        });
        self.span.store_u16(8, VERSION);
    }

    /// Where a head's part begins.
    fn at(&self, head: u16) -> Option<usize> {
        (head < self.size).then(|| HEADER + EACH * usize::from(head))
    }

    fn is_marked(&self, head: u16) -> bool {
        self.at(head).is_some_and(|at| self.span.load_u8(at) == 1)
    }

    fn counter_of(&self, head: u16) -> u64 {
        self.at(head).map_or(0, |at| self.span.load_u64(at + 8))
    }

    /// A head was taken.
    pub fn took(&mut self, head: u16) {
        let Some(at) = self.at(head) else { return };
        self.span.store_u64(at + 8, self.counter);
        self.counter = self.counter.wrapping_add(1);
        self.span.store_u8(at, 1);
    }

    /// A head is about to be given back with the next used index.
    pub fn giving(&mut self, head: u16) {
        let Some(at) = self.at(head) else { return };
        self.span.store_u16(at + 6, self.span.load_u16(12));
        self.span.store_u16(12, head);
    }

    /// The heads of a batch were given back: the ring's used index says so.
    pub fn gave(&mut self, batch: &[u16], used: u16) {
        for head in batch {
            if let Some(at) = self.at(*head) {
                self.span.store_u8(at, 0);
            }
        }
        self.span.store_u16(14, used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SharedMap;

    fn region(queues: u16, size: u16) -> Span {
        Span::of(
            &SharedMap::create("inflight", Inflight::bytes(queues, size))
                .unwrap()
                .0,
        )
    }

    fn open(region: &Span) -> Inflight {
        Inflight::open(region, 1, 2, 8).unwrap()
    }

    #[test]
    fn what_was_taken_and_not_given_back_comes_in_the_order_in_which_it_was_taken() {
        let region = region(2, 8);
        let mut first = open(&region);
        assert_eq!(first.recover(5), Some(vec![]));
        for head in [3, 7, 1, 0] {
            first.took(head);
        }
        first.giving(7);
        first.gave(&[7], 6);
        first.took(7);
        assert_eq!(open(&region).recover(6), Some(vec![3, 1, 0, 7]));
    }

    #[test]
    fn a_batch_that_was_cut_short_is_settled_by_the_used_index() {
        let region = region(2, 8);
        let mut first = open(&region);
        first.recover(0);
        for head in [0, 1, 2, 3] {
            first.took(head);
        }
        first.giving(2);
        first.giving(0);
        // Before the ring's index was visible, nothing was given back.
        assert_eq!(open(&region).recover(0), Some(vec![0, 1, 2, 3]));
        // After it, both were.
        assert_eq!(open(&region).recover(2), Some(vec![1, 3]));
        // And once only: settled again, it stays so.
        assert_eq!(open(&region).recover(2), Some(vec![1, 3]));
    }

    #[test]
    fn a_region_that_says_what_cannot_be_is_refused() {
        let region = region(2, 8);
        open(&region).recover(0);
        assert_eq!(open(&region).recover(9), None);
        let mine = region.part(region.len() / 2, 144).unwrap();
        mine.store_u16(12, 8);
        assert_eq!(open(&region).recover(1), None);
        mine.store_u16(10, 16);
        assert_eq!(open(&region).recover(0), None);
        assert!(Inflight::open(&region, 2, 2, 8).is_none());
        assert!(Inflight::open(&region, 0, 2, 64).is_none());
        assert!(Inflight::open(&region, 0, 0, 8).is_none());
    }
}
