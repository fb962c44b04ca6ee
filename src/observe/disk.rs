//! What is known of a disk's store, as gauges that its shard sets now and then.

use super::histogram::{AtomicHistogram, Buckets};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is asked of a disk, as far as it is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskOperation {
    /// Blocks that somebody reads.
    Read,
    /// Blocks that a scrub reads.
    Scrub,
    /// Table pages, journal and superblocks that are read: at the start, and on demand.
    Load,
    /// A batch of the journal.
    Journal,
    /// Whole chunks on their way to their slots.
    Write,
    /// Journaled payload on its way to its slots.
    Apply,
    /// Table pages, manifests and superblocks that are written.
    Checkpoint,
    Flush,
    Discard,
    /// Zeroes ahead of the first use of a slot.
    Zero,
}

impl DiskOperation {
    pub const ALL: [DiskOperation; 10] = [
        DiskOperation::Read,
        DiskOperation::Scrub,
        DiskOperation::Load,
        DiskOperation::Journal,
        DiskOperation::Write,
        DiskOperation::Apply,
        DiskOperation::Checkpoint,
        DiskOperation::Flush,
        DiskOperation::Discard,
        DiskOperation::Zero,
    ];

    pub fn name(self) -> &'static str {
        match self {
            DiskOperation::Read => "read",
            DiskOperation::Scrub => "scrub",
            DiskOperation::Load => "load",
            DiskOperation::Journal => "journal",
            DiskOperation::Write => "write",
            DiskOperation::Apply => "apply",
            DiskOperation::Checkpoint => "checkpoint",
            DiskOperation::Flush => "flush",
            DiskOperation::Discard => "discard",
            DiskOperation::Zero => "zero",
        }
    }
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $field:ident => $name:literal, $kind:ident, $help:literal;)*) => {
        /// The numbers of one disk at one time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct DiskNumbers {
            $($(#[$doc])* pub $field: u64,)*
        }

        /// The same where others can read them.
        #[derive(Debug, Default)]
        pub struct DiskStats {
            $($field: AtomicU64,)*
            latencies: [AtomicHistogram; DiskOperation::ALL.len()],
        }

        impl DiskStats {
            /// Counts an operation that succeeded. By the one thread that writes them.
            pub fn took(&self, operation: DiskOperation, time: Duration) {
                self.latencies[operation as usize].record(time);
            }

            pub(super) fn latency(&self, operation: DiskOperation) -> Buckets {
                let mut buckets = Buckets::default();
                self.latencies[operation as usize].add_to(&mut buckets);
                buckets
            }

            /// Sets all of them. By the one thread that writes them.
            pub fn set(&self, numbers: &DiskNumbers) {
                $(self.$field.store(numbers.$field, Ordering::Relaxed);)*
            }

            pub fn get(&self) -> DiskNumbers {
                DiskNumbers { $($field: self.$field.load(Ordering::Relaxed),)* }
            }
        }

        impl DiskNumbers {
            /// Name in base units, kind, help and value of each.
            pub(super) fn list(&self) -> Vec<(&'static str, Kind, &'static str, u64)> {
                vec![$(($name, Kind::$kind, $help, self.$field),)*]
            }
        }
    };
}

/// Whether a number only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

numbers! {
    /// Bytes of payload that the disk has room for.
    capacity_bytes => "sarsen_disk_capacity_bytes", Gauge, "Room for payload";
    /// Bytes of payload slots in use.
    used_bytes => "sarsen_disk_used_bytes", Gauge, "Payload slots in use";
    journal_bytes => "sarsen_disk_journal_size_bytes", Gauge, "Length of the journal ring";
    /// Bytes between the journal's tail and head.
    journal_used_bytes => "sarsen_disk_journal_used_bytes", Gauge, "Journal in use";
    /// Bytes of journaled payload that is kept in memory.
    overlay_bytes => "sarsen_disk_overlay_bytes", Gauge, "Journaled payload in memory";
    checksum_errors => "sarsen_disk_checksum_errors", Counter, "Blocks whose checksum is wrong";
    media_errors => "sarsen_disk_media_errors", Counter, "Reads and writes that the disk failed";
    batches => "sarsen_disk_journal_batches", Counter, "Journal batches written";
    checkpoints => "sarsen_disk_checkpoints", Counter, "Checkpoints written";
    wraps => "sarsen_disk_journal_wraps", Counter, "Times that the journal began anew";
    applied_bytes => "sarsen_disk_applied_bytes", Counter, "Payload moved from journal to slots";
    /// 1 while one runs.
    checkpoint_running => "sarsen_disk_checkpoint_running", Gauge, "Whether a checkpoint runs";
    scrubbed_bytes => "sarsen_disk_scrubbed_bytes", Counter, "Payload that scrubs compared";
    /// 1 while one runs.
    scrub_running => "sarsen_disk_scrub_running", Gauge, "Whether a scrub runs";
    filled_bytes => "sarsen_disk_filled_bytes", Counter, "Payload that other copies filled this one with";
    trimmed_bytes => "sarsen_disk_trimmed_bytes", Counter, "Slots given back";
}
