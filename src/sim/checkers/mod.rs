//! The checkers: one a promise, one a file, each with the promise's name.
//!
//! A checker judges what was seen from outside (replies, bytes, buffers, counts) against the model; none of them
//! knows how a store works. What it finds is a [`Failure`] with its name, and a planted break counts as found only
//! when the checker that it is meant for has found it.

pub mod answered;
pub mod atomic;
pub mod bounded;
pub mod durable;
pub mod intact;
pub mod invariants;
pub mod linearizable;
pub mod never_wrong;
pub mod pins;
pub mod replicas;
pub mod space;

use super::tally::named;
use std::fmt;

named! {
    /// A promise of a shard.
    Checker:
    /// Every sector is one linearizable register.
    Linearizable = "linearizable",
    /// What was acknowledged is there after power loss.
    Durable = "durable",
    /// A write inside one aligned chunk happens as a whole or not at all.
    Atomic = "atomic",
    /// Where a disk destroyed data: an error or the right data, never wrong data.
    NeverWrong = "never-wrong",
    /// Where no disk destroyed anything, nothing fails.
    Intact = "intact",
    /// Every request is answered, once, in bounded time.
    Answered = "answered",
    /// What is given back can be used again, and space is refused only where there is none.
    Space = "space",
    /// Buffers are used only while they are held, and all are let go at rest.
    Pins = "pins",
    /// What a replica was told and given is there: fences, windows, stamps, tombstones.
    Replicas = "replicas",
    /// No assertion of the shard's own fails.
    Invariants = "invariants",
    /// Nothing leaves its bounds: no queue, no memory, no disk.
    Bounded = "bounded",
}

/// A promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub checker: Checker,
    pub what: String,
}

impl Failure {
    pub fn new(checker: Checker, what: impl Into<String>) -> Failure {
        Failure {
            checker,
            what: what.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker.name(), self.what)
    }
}
