//! Payload that somebody holds: a place in a buffer that is not used for anything else until the last holder has dropped it.
//!
//! Machines hand payload on, keep it while a frame waits, and forget it on many ways: an answer that is late, a session that ends, a volume that closes. So
//! holding is not said but owned: whoever has a [`Payload`] holds the buffer, and when the last one is gone the driver finds it among what was
//! [given back](Holds::take_dropped). Counting costs a few nanoseconds and no allocation once a book has grown.
//!
//! What is held is the buffer; that nobody writes into it meanwhile is its owner's to see to.

use super::BufRef;
use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

/// How often each payload is held.
#[derive(Debug, Default)]
struct Book {
    /// By keys; those in `free` mean nothing.
    counts: Vec<(Span, u32)>,
    free: Vec<u32>,
    dropped: Vec<Span>,
}

/// Blocks of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub buf: BufRef,
    pub blocks: u32,
}

/// What is held on one shard. Clones are the same book.
#[derive(Debug, Clone, Default)]
pub struct Holds(Rc<RefCell<Book>>);

/// Payload that is held: a place in a buffer that is not used for anything else until the last clone is dropped.
pub struct Payload {
    at: BufRef,
    /// `None`: of a driver that never uses a buffer again.
    hold: Option<(Rc<RefCell<Book>>, u32)>,
}

impl Holds {
    /// Holds these blocks for the first time; who hands them out does that once for each time that they are to be given back.
    pub fn hold(&self, span: Span) -> Payload {
        let mut book = self.0.borrow_mut();
        let key = match book.free.pop() {
            Some(key) => {
                book.counts[key as usize] = (span, 1);
                key
            }
            None => {
                book.counts.push((span, 1));
                book.counts.len() as u32 - 1
            }
        };
        Payload {
            at: span.buf,
            hold: Some((Rc::clone(&self.0), key)),
        }
    }

    /// How many are held.
    pub fn held(&self) -> usize {
        let book = self.0.borrow();
        book.counts.len() - book.free.len()
    }

    /// Whether there is something that nobody holds any more.
    pub fn has_dropped(&self) -> bool {
        !self.0.borrow().dropped.is_empty()
    }

    /// What nobody holds any more, since the last time: put behind what is in `into`.
    pub fn take_dropped(&self, into: &mut Vec<Span>) {
        into.append(&mut self.0.borrow_mut().dropped);
    }
}

impl Payload {
    /// A place in a buffer that is never used again.
    pub fn kept(at: BufRef) -> Payload {
        Payload { at, hold: None }
    }

    /// Where its first block is.
    pub fn at(&self) -> BufRef {
        self.at
    }

    /// How many blocks were held, from its place on; `None`: of a driver that never uses a buffer again.
    pub fn blocks(&self) -> Option<u32> {
        let (book, key) = self.hold.as_ref()?;
        let (span, _) = book.borrow().counts[*key as usize];
        Some(span.blocks - (self.at.block - span.buf.block))
    }

    /// The same from so many blocks further on.
    pub fn plus(&self, blocks: u32) -> Payload {
        let mut behind = self.clone();
        behind.at = self.at.plus(blocks);
        behind
    }
}

impl Clone for Payload {
    fn clone(&self) -> Payload {
        if let Some((book, key)) = &self.hold {
            book.borrow_mut().counts[*key as usize].1 += 1;
        }
        Payload {
            at: self.at,
            hold: self.hold.clone(),
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let Some((book, key)) = &self.hold else {
            return;
        };
        let mut book = book.borrow_mut();
        let (span, count) = &mut book.counts[*key as usize];
        *count -= 1;
        if *count == 0 {
            let span = *span;
            book.dropped.push(span);
            book.free.push(*key);
        }
    }
}

// What a payload is, is where it is: machines are compared, and searched, by that.

impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self.at == other.at
    }
}

impl Eq for Payload {}

impl Hash for Payload {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.at.hash(hasher);
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.at.id.0, self.at.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BufId;

    fn span(id: u32) -> Span {
        let buf = BufRef {
            id: BufId(id),
            block: 3,
        };
        Span { buf, blocks: 2 }
    }

    fn dropped(holds: &Holds) -> Vec<Span> {
        let mut list = Vec::new();
        holds.take_dropped(&mut list);
        list
    }

    #[test]
    fn a_payload_is_given_back_once_when_the_last_holder_has_dropped_it() {
        let holds = Holds::default();
        let one = holds.hold(span(1));
        let other = one.clone();
        drop(one);
        assert_eq!(dropped(&holds), []);
        assert_eq!(other.at(), span(1).buf);
        assert_eq!((other.blocks(), other.plus(1).blocks()), (Some(2), Some(1)));
        assert!(!holds.has_dropped());
        drop(other);
        assert!(holds.has_dropped());
        assert_eq!(dropped(&holds), [span(1)]);
        assert_eq!((dropped(&holds), holds.held()), (vec![], 0));
    }

    #[test]
    fn a_buffer_that_is_held_twice_is_given_back_twice() {
        let holds = Holds::default();
        let all: Vec<Payload> = (0..3).map(|_| holds.hold(span(7))).collect();
        assert_eq!(holds.held(), 3);
        drop(all);
        assert_eq!(dropped(&holds), [span(7); 3]);
        // Places in the book are used again.
        let next = holds.hold(span(8));
        assert_eq!((holds.held(), holds.0.borrow().counts.len()), (1, 3));
        drop(next);
        assert_eq!(dropped(&holds), [span(8)]);
    }

    #[test]
    fn what_is_kept_for_ever_is_not_given_back() {
        let holds = Holds::default();
        drop(Payload::kept(span(1).buf).clone());
        assert_eq!(dropped(&holds), []);
    }
}
