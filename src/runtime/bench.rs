//! Load made inside a shard, with no front end before it: what the store and the loop alone can carry.

use crate::base::VolumeId;
use std::time::Duration;

/// What the load does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    Read,
    Write,
    RandRead,
    RandWrite,
}

/// A load to measure with.
#[derive(Debug, Clone)]
pub struct Spec {
    pub volume: VolumeId,
    /// Bytes of the volume that the load uses, from its start; at most the volume's size.
    pub span_bytes: u64,
    pub pattern: Pattern,
    /// Bytes a request: a multiple of 512, at most 32 MiB.
    pub block_bytes: u32,
    /// Requests in flight.
    pub depth: u32,
    pub time: Duration,
    /// Of the offsets and the payload.
    pub seed: u64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    pub operations: u64,
    pub seconds: f64,
    pub iops: f64,
    pub bytes_per_second: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// CPU time of the whole process, workers of the kernel included, by operation.
    pub cpu_us_per_io: f64,
    /// The longest time in which no operation ended.
    pub longest_gap_us: f64,
}
