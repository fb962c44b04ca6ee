//! What happened, as one number and, where asked for, as a line an event.
//!
//! Everything that goes into a shard and everything that comes out is mixed into the hash, so two runs of one
//! seed that differ anywhere differ in it.

use crate::base::{Time, mix64};
use std::fmt;

/// The record of one run.
#[derive(Debug, Clone)]
pub struct Trace {
    hash: u64,
    print: bool,
}

impl Trace {
    pub fn new(print: bool) -> Trace {
        Trace { hash: 1, print }
    }

    /// Takes one event, as numbers for the hash and as words for a reader.
    #[inline]
    pub fn event(&mut self, now: Time, numbers: [u64; 4], words: impl Fn() -> String) {
        let [a, b, c, d] = numbers;
        self.hash = mix64(self.hash ^ now.0 ^ a.rotate_left(48))
            .wrapping_add(b.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .rotate_left(31)
            ^ mix64(c ^ d.rotate_left(32));
        if self.print {
            self.line(now, &words());
        }
    }

    /// A line for readers alone.
    pub fn say(&self, now: Time, words: impl Fn() -> String) {
        if self.print {
            self.line(now, &words());
        }
    }

    fn line(&self, now: Time, words: &str) {
        println!("{:>13.3} us  {words}", now.0 as f64 / 1000.0);
    }

    pub fn hash(&self) -> TraceHash {
        TraceHash(self.hash)
    }
}

/// The number that stands for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceHash(pub u64);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
