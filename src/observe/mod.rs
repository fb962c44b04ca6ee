//! What people and monitoring see of a node: counters, histograms, logs.
//!
//! ```text
//!   shard thread ── writes ──► VolumeStats, DiskStats, ShardStats, LinkStats ◄── reads ── Registry ── text ──► /metrics
//! ```
//!
//! Each value has one writer, a shard thread, which stores without a locked instruction; whoever renders adds
//! up the shards. Names are in base units (seconds, bytes).

mod disk;
mod histogram;
mod link;
mod logs;
mod registry;
mod render;
mod shard;
mod volume;

pub use disk::{DiskNumbers, DiskOperation, DiskStats};
pub use histogram::{AtomicHistogram, Buckets, Histogram};
pub use link::{CUTS, LinkNumbers, LinkStats};
pub use logs::{LogFormat, LogsError, start_logs};
pub use registry::Registry;
pub use shard::{ShardNumbers, ShardStats};
pub use volume::{Operation, Stage, VolumeStats, VolumeTotals};

use std::sync::atomic::{AtomicU64, Ordering};

/// Adds to a counter that only this thread writes.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}
