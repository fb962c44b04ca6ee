//! What is counted of a volume, on one shard.

use super::bump;
use super::histogram::{AtomicHistogram, Histogram};
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

#[derive(Debug, Default)]
struct Counted {
    bytes: AtomicU64,
    errors: AtomicU64,
    latency: AtomicHistogram,
}

/// The counters of one volume on one shard.
#[derive(Debug, Default)]
pub struct VolumeStats {
    kinds: [Counted; 4],
}

impl VolumeStats {
    /// Counts an operation that has ended. By the one thread that writes these counters.
    pub fn record(&self, operation: Operation, bytes: u64, took: Duration, failed: bool) {
        let counted = &self.kinds[operation as usize];
        if failed {
            bump(&counted.errors, 1);
            return;
        }
        bump(&counted.bytes, bytes);
        counted.latency.record(took);
    }

    /// Adds what was counted so far.
    pub fn add_to(&self, operation: Operation, totals: &mut VolumeTotals) {
        let counted = &self.kinds[operation as usize];
        totals.bytes += counted.bytes.load(Ordering::Relaxed);
        totals.errors += counted.errors.load(Ordering::Relaxed);
        counted.latency.add_to(&mut totals.latency);
    }
}

/// One kind of operation of one volume, over all shards.
#[derive(Debug, Clone, Default)]
pub struct VolumeTotals {
    pub bytes: u64,
    pub errors: u64,
    /// Also counts the operations that succeeded.
    pub latency: Histogram,
}
