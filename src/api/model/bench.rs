//! Load that the daemon makes itself, to measure the path below the front ends.

use serde::{Deserialize, Serialize};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "world", derive(clap::ValueEnum))]
pub enum Workload {
    Read,
    Write,
    #[cfg_attr(feature = "world", value(name = "randread"))]
    RandRead,
    #[cfg_attr(feature = "world", value(name = "randwrite"))]
    RandWrite,
}

impl Workload {
    /// Whether it changes the volume.
    pub fn writes(self) -> bool {
        matches!(self, Workload::Write | Workload::RandWrite)
    }
}

/// `POST /v1/bench`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchRequest {
    pub volume: String,
    pub rw: Workload,
    /// Of each request: a multiple of 512, up to 4 MiB.
    pub block_bytes: u32,
    /// Requests in flight: 1 to 256.
    pub depth: u32,
    /// 0.01 to 3600.
    pub seconds: f64,
    /// Write to a volume though `bench` did not make it.
    #[serde(default)]
    pub overwrite: bool,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchResult {
    pub volume: String,
    pub rw: Workload,
    pub block_bytes: u32,
    pub depth: u32,
    pub seconds: f64,
    pub requests: u64,
    /// The longest time in which no request ended.
    pub longest_gap_us: f64,
    pub iops: f64,
    pub bytes_per_second: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// Of all threads of the daemon.
    pub cpu_us_per_io: f64,
}
