//! What a run has met: faults by class, injected and consumed, and branches of the protocols by name.
//!
//! A fault counts as consumed where it had an effect: the message was really lost, the block that had rotted was read, the entry
//! came late. A run in which a class was switched on and never consumed has shown nothing about it, and is *void*: see
//! [`Coverage::missing`].
//!
//! Branches are names that the machines or the world hand in as they pass there. Who wants to know whether one was never
//! taken hands in the list of all, because a name that is never seen is not known here.

use crate::sim::tally::{self, named};
use std::collections::BTreeMap;
use std::fmt;

named! {
    /// A class of faults of the cluster.
    Fault:
    /// A message that never arrived: its connection was cut, or fell silent.
    Drop = "drop",
    /// A message that arrived twice: on the connection that was cut, and on the next.
    Duplicate = "duplicate",
    /// A message of an old connection that arrived after a newer connection was there.
    Reorder = "reorder",
    /// A frame whose crc was wrong: it cuts the connection.
    Corrupt = "corrupt",
    /// A message over a link that is always slow.
    SlowLink = "slow-link",
    /// A message that took much longer than others of its link.
    Spike = "spike",
    /// A message held up because nothing passes that way, while the other way is open.
    OneWay = "one-way",
    /// A message held up because a set of nodes is cut off.
    Partition = "partition",
    /// A message held up by a link that comes and goes.
    Flap = "flap",
    /// A node that lost its process with something in flight to or from it.
    Crash = "crash",
    /// A node that was stopped, and woke with messages waiting.
    Pause = "pause",
    /// The power of all nodes was cut.
    PowerLoss = "power-loss",
    /// A clock that runs at the edge of the bound.
    ClockAtBound = "clock-at-bound",
    /// A clock that runs faster or slower than the bound.
    ClockBeyond = "clock-beyond",
    /// A clock that stood still, as that of a virtual machine that was paused.
    ClockStopped = "clock-stopped",
    /// A disk operation that took a hundred times as long.
    DiskSlow = "disk-slow",
    /// A chunk that cannot be read.
    DiskError = "disk-error",
    /// A block that has rotted, and was read.
    Rot = "rot",
    /// A change that a disk said was done, and forgot: its table is right for what it has.
    LostWrite = "lost-write",
    /// A replica whose table is damaged: its store answers with errors.
    TornTable = "torn-table",
    /// A disk that answers nothing but that it is gone.
    DiskGone = "disk-gone",
    /// A disk that came back with an older state.
    DiskOld = "disk-old",
    /// A disk that became low, and a request that was refused because of it.
    DiskFull = "disk-full",
    /// An operation in flight at a crash that happened all the same.
    CrashKept = "crash-kept",
    /// An operation in flight at a crash that did not happen.
    CrashDropped = "crash-dropped",
    /// Another member leads the manager.
    LeaderChange = "leader-change",
    /// A proposal that was lost with its leader.
    ProposalLost = "proposal-lost",
    /// A proposal that was committed while its proposer was told that nobody knows.
    ProposalUnknown = "proposal-unknown",
    /// An entry that reached a node much later than others.
    EntryLate = "entry-late",
    /// A node that missed entries and got a snapshot.
    Snapshot = "snapshot",
    /// A disk that an operator had emptied, with what was on it moved elsewhere.
    Drain = "drain",
    /// A disk that an operator took away for good.
    DiskRemoved = "disk-removed",
    /// A disk that an operator added, and that has a copy.
    DiskAdded = "disk-added",
    /// A disk that weighs another thing, so that something moves.
    Weight = "weight",
    /// A pool with another number of copies, which its PGs have got.
    Copies = "copies",
    /// A volume that has grown.
    Grown = "grown",
    /// A node that joined, and has a copy.
    NodeAdded = "node-added",
    /// A node that left for good.
    NodeRemoved = "node-removed",
}

/// How many faults of each class there were.
pub type Tally = tally::Tally<Fault, { Fault::ALL.len() }>;

/// What one run, or many, have met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    pub faults: Tally,
    branches: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// A branch of a protocol was taken.
    pub fn branch(&mut self, name: &'static str) {
        *self.branches.entry(name).or_default() += 1;
    }

    pub fn add(&mut self, other: &Coverage) {
        self.faults.add(&other.faults);
        for (name, count) in &other.branches {
            *self.branches.entry(name).or_default() += count;
        }
    }

    /// The classes of `wanted` that were never consumed, and the branches of `branches` that were never taken.
    pub fn missing(&self, wanted: &[Fault], branches: &[&'static str]) -> Vec<&'static str> {
        let unmet = wanted.iter().filter(|fault| self.faults.of(**fault).1 == 0);
        let untaken = branches
            .iter()
            .filter(|name| !self.branches.contains_key(*name));
        unmet
            .map(|fault| fault.name())
            .chain(untaken.copied())
            .collect()
    }
}

impl fmt::Display for Coverage {
    /// A table of all classes, and of the branches that were taken.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults                    injected   consumed")?;
        for &fault in Fault::ALL {
            let (injected, consumed) = self.faults.of(fault);
            writeln!(f, "    {:<18} {injected:>10} {consumed:>10}", fault.name())?;
        }
        writeln!(f, "branches                               taken")?;
        for (name, count) in &self.branches {
            writeln!(f, "    {name:<29} {count:>10}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_that_was_never_consumed_is_missing_though_it_was_injected() {
        let mut coverage = Coverage::default();
        coverage.faults.both(Fault::Drop);
        coverage.faults.injected(Fault::Rot);
        coverage.branch("seal");
        let missing = coverage.missing(&[Fault::Drop, Fault::Rot], &["seal", "fill"]);
        assert_eq!(missing, ["rot", "fill"]);
    }

    #[test]
    fn runs_add_up_and_are_printed_as_a_table() {
        let (mut one, mut other) = (Coverage::default(), Coverage::default());
        one.faults.both(Fault::Rot);
        one.branch("seal");
        other.faults.injected(Fault::Rot);
        other.branch("seal");
        other.branch("fill");
        one.add(&other);
        assert_eq!(one.faults.of(Fault::Rot), (2, 1));
        let table = one.to_string();
        let words = |name: &str| -> Vec<String> {
            let line = table
                .lines()
                .find(|line| line.trim_start().starts_with(name));
            let line = line.unwrap_or_default().split_whitespace();
            line.map(str::to_owned).collect()
        };
        assert_eq!(words("rot"), ["rot", "2", "1"]);
        assert_eq!(words("seal"), ["seal", "2"]);
        assert_eq!(words("fill"), ["fill", "1"]);
    }
}
