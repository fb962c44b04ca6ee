//! What is counted of a volume, on one shard.

use super::bump;
use super::histogram::{AtomicHistogram, Buckets};
use crate::base::RequestKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Read,
    Write,
    /// Write-zeroes and discards.
    Unmap,
    Flush,
}

impl Operation {
    pub const ALL: [Operation; 4] = [
        Operation::Read,
        Operation::Write,
        Operation::Unmap,
        Operation::Flush,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Unmap => "unmap",
            Operation::Flush => "flush",
        }
    }

    /// `None` for what is not counted: asking for the map.
    pub fn of(kind: RequestKind) -> Option<Operation> {
        match kind {
            RequestKind::Read => Some(Operation::Read),
            RequestKind::Write => Some(Operation::Write),
            RequestKind::WriteZeroes | RequestKind::Discard => Some(Operation::Unmap),
            RequestKind::Flush => Some(Operation::Flush),
            RequestKind::Map => None,
        }
    }
}

/// Where an operation's time goes. Each has a cure of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// From when its head was read until it is submitted: the client sends its data, or memory is short.
    Front,
    /// From then until the machine answers: overlapping requests, journal, disk.
    Store,
    /// From then until the reply was sent: the client does not read, or the network is slow.
    Send,
}

impl Stage {
    pub const ALL: [Stage; 3] = [Stage::Front, Stage::Store, Stage::Send];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Front => "front",
            Stage::Store => "store",
            Stage::Send => "send",
        }
    }
}

#[derive(Debug, Default)]
struct Counted {
    bytes: AtomicU64,
    errors: AtomicU64,
    stages: [AtomicHistogram; 3],
}

/// The counters of one volume on one shard.
#[derive(Debug, Default)]
pub struct VolumeStats {
    kinds: [Counted; 4],
}

impl VolumeStats {
    /// Counts an operation that the machine has carried out, with the times of its first two stages. By the one
    /// thread that writes these counters, as all of these.
    pub fn succeeded(&self, operation: Operation, bytes: u64, front: Duration, store: Duration) {
        let counted = &self.kinds[operation as usize];
        bump(&counted.bytes, bytes);
        counted.stages[Stage::Front as usize].record(front);
        counted.stages[Stage::Store as usize].record(store);
    }

    /// Counts an operation that failed.
    pub fn failed(&self, operation: Operation) {
        bump(&self.kinds[operation as usize].errors, 1);
    }

    /// Counts replies that were sent.
    pub fn sent(&self, operation: Operation, took: Duration, replies: u32) {
        let stages = &self.kinds[operation as usize].stages;
        stages[Stage::Send as usize].record_often(took, replies);
    }

    /// Adds what was counted so far.
    pub fn add_to(&self, operation: Operation, totals: &mut VolumeTotals) {
        let counted = &self.kinds[operation as usize];
        totals.bytes += counted.bytes.load(Ordering::Relaxed);
        totals.errors += counted.errors.load(Ordering::Relaxed);
        for (from, into) in counted.stages.iter().zip(&mut totals.stages) {
            from.add_to(into);
        }
    }
}

/// One kind of operation of one volume, over all shards.
#[derive(Debug, Clone, Default)]
pub struct VolumeTotals {
    pub bytes: u64,
    pub errors: u64,
    /// In the order of [`Stage::ALL`].
    pub stages: [Buckets; 3],
}

impl VolumeTotals {
    /// Operations that succeeded.
    pub fn operations(&self) -> u64 {
        self.stages[Stage::Store as usize].count()
    }
}
