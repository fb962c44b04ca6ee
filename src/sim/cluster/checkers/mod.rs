//! The checkers of the cluster: one a promise, one a file, each with the promise's name.
//!
//! Each takes plain data, so that the world feeds it and its tests do without one. What a checker keeps between its questions is
//! bounded by what exists (volumes, replicas, layers), or says that it is full.
//!
//! | checker | promise |
//! |---|---|
//! | linearizable | a volume is one register per block, for all clients at all nodes (promise 1); a snapshot is a cut (R21) |
//! | durable | what was acknowledged before the power of all was lost is there afterwards (promise 2) |
//! | in-sync | every in-sync replica has every acknowledged write (R3, R7, R12) |
//! | converge | at rest, the copies of a PG are the same |
//! | single-writer | no two nodes serve one range at a time (promise 5) |
//! | monotone | epochs and versions only grow (R1, R4, R6, R11) |
//! | frozen | a frozen layer is the same everywhere, and stays so (R21) |
//! | room | space is refused only where there is none, and a full disk evicts nobody |
//! | bounded | nothing grows without bound (R22) |
//! | innocent | whom a comparison of replicas has taken out had lost something (`comparing.rs`) |
//! | heals | when faults stop, all is well and equal in bounded time |

pub mod bounded;
pub mod converge;
pub mod durable;
pub mod frozen;
pub mod heals;
pub mod in_sync;
pub mod linearizable;
pub mod monotone;
pub mod room;
pub mod single_writer;

use crate::base::VolumeId;
use crate::sim::tally::named;
use std::fmt;

/// A block or a sector of a volume.
pub type Place = (VolumeId, u64);

named! {
    /// A promise of the cluster.
    Promise:
    Linearizable = "linearizable",
    Durable = "durable",
    InSync = "in-sync",
    Converge = "converge",
    SingleWriter = "single-writer",
    Monotone = "monotone",
    Frozen = "frozen",
    Room = "room",
    Bounded = "bounded",
    Heals = "heals",
    /// A comparison names only who lost something.
    Innocent = "innocent",
    /// An assertion of the machines' own.
    Invariants = "invariants",
}

/// A promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub promise: Promise,
    pub what: String,
}

impl Failure {
    pub fn new(promise: Promise, what: impl Into<String>) -> Failure {
        Failure {
            promise,
            what: what.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise.name(), self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_promise_and_no_two_have_one_name() {
        let failure = Failure::new(Promise::InSync, "disk 1 has an old block");
        assert_eq!(failure.to_string(), "in-sync: disk 1 has an old block");
        let mut names: Vec<&str> = Promise::ALL.iter().map(|promise| promise.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Promise::ALL.len());
    }
}
