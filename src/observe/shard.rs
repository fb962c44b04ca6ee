//! The counters of one shard.

use super::bump;
use std::sync::atomic::{AtomicU64, Ordering};

/// Written by its shard alone.
#[derive(Debug, Default)]
pub struct ShardStats {
    requests: AtomicU64,
    foreign: AtomicU64,
    dropped: AtomicU64,
}

/// What a shard has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardNumbers {
    /// Requests, and parts of requests, that it coordinated.
    pub requests: u64,
    /// Those of them that other shards asked for.
    pub foreign: u64,
    /// Frames that could not be brought to who they were for; what matters is asked again.
    pub dropped: u64,
}

impl ShardStats {
    pub fn count_request(&self) {
        bump(&self.requests, 1);
    }

    pub fn count_foreign(&self) {
        bump(&self.foreign, 1);
    }

    pub fn count_dropped(&self) {
        bump(&self.dropped, 1);
    }

    pub fn get(&self) -> ShardNumbers {
        ShardNumbers {
            requests: self.requests.load(Ordering::Relaxed),
            foreign: self.foreign.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

impl ShardNumbers {
    /// Names in metrics, what they mean, and the values.
    pub(super) fn list(&self) -> [(&'static str, &'static str, u64); 3] {
        [
            (
                "sarsen_shard_requests",
                "Requests and parts of requests that a shard coordinated",
                self.requests,
            ),
            (
                "sarsen_shard_foreign_requests",
                "Those of them that came from other shards",
                self.foreign,
            ),
            (
                "sarsen_shard_dropped_frames",
                "Frames of a shard, or for it, that could not be brought to who they were for",
                self.dropped,
            ),
        ]
    }
}
