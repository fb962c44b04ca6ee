//! What only looks at volumes: export, maps, and measurements.

use super::Host;
use super::import::io_error;
use crate::api::model::{
    BenchRequest, BenchResult, DATA_BYTES_MAX, ErrorBody, ErrorCode, Map, MapRun, Workload,
};
use crate::base::{IoError, SECTOR};
use crate::protocol::catalog;
use crate::runtime::{BenchError, BenchSpec, Pattern};
use std::time::Duration;

/// The longest range that one map answers for, in bytes: with every second block a hole it has 262,144 runs.
const MAP_BYTES_MAX: u64 = 1 << 30;
/// Requests in flight that a measurement may ask for.
const DEPTH_MAX: u32 = 256;
/// How long a measurement may be, in seconds.
const SECONDS: std::ops::RangeInclusive<f64> = 0.01..=3_600.0;

impl Host {
    /// Reads a piece of a volume.
    pub async fn data(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>, ErrorBody> {
        let volume = self.ready_volume(name)?;
        if len == 0 || len > DATA_BYTES_MAX {
            let message = format!("{len} is not in 1..={DATA_BYTES_MAX}");
            return Err(ErrorBody::invalid(
                "len",
                message,
                "read at most 4 MiB at a time",
            ));
        }
        check_range(&volume, offset, len)?;
        let _held = self.hold(volume.id).await?;
        let read = self.runtime().read(volume.id, offset, len).await;
        read.map_err(|error| io_error(name, error))
    }

    /// What is allocated from `offset` on; the answer may end before `len`.
    pub async fn map(&self, name: &str, offset: u64, len: u64) -> Result<Map, ErrorBody> {
        let volume = self.ready_volume(name)?;
        check_range(&volume, offset, len)?;
        let _held = self.hold(volume.id).await?;
        let len = len.min(MAP_BYTES_MAX);
        let runs = self.runtime().map(volume.id, offset, len).await;
        let mut at = offset;
        let runs = runs
            .map_err(|error| io_error(name, error))?
            .into_iter()
            .map(|run| {
                let from = at;
                at += run.len;
                MapRun {
                    offset_bytes: from,
                    len_bytes: run.len,
                    zero: run.zero,
                    hole: run.hole,
                }
            });
        Ok(Map {
            runs: runs.collect(),
        })
    }

    /// Puts a load on a volume, and measures it.
    pub async fn bench(&self, bench: BenchRequest) -> Result<BenchResult, ErrorBody> {
        let volume = self.ready_volume(&bench.volume)?;
        check_bench(&bench, &volume)?;
        let _held = self.hold(volume.id).await?;
        let spec = BenchSpec {
            volume: volume.id,
            span_bytes: volume.size,
            pattern: match bench.rw {
                Workload::Read => Pattern::Read,
                Workload::Write => Pattern::Write,
                Workload::RandRead => Pattern::RandRead,
                Workload::RandWrite => Pattern::RandWrite,
            },
            block_bytes: bench.block_bytes,
            depth: bench.depth,
            time: Duration::from_secs_f64(bench.seconds),
            seed: 1,
        };
        let measured = self.runtime().bench(spec).await.map_err(bench_error)?;
        Ok(BenchResult {
            volume: bench.volume,
            rw: bench.rw,
            block_bytes: bench.block_bytes,
            depth: bench.depth,
            seconds: measured.seconds,
            requests: measured.operations,
            iops: measured.iops,
            bytes_per_second: measured.bytes_per_second,
            mean_us: measured.mean_us,
            p50_us: measured.p50_us,
            p99_us: measured.p99_us,
            max_us: measured.max_us,
            longest_gap_us: measured.longest_gap_us,
            cpu_us_per_io: measured.cpu_us_per_io,
        })
    }
}

fn check_range(volume: &catalog::Volume, offset: u64, len: u64) -> Result<(), ErrorBody> {
    if len > 0
        && offset
            .checked_add(len)
            .is_some_and(|end| end <= volume.size)
    {
        return Ok(());
    }
    let message = format!("{len} bytes at {offset} leave a volume of {}", volume.size);
    Err(ErrorBody::invalid(
        "offset",
        message,
        "stay inside the volume",
    ))
}

fn check_bench(bench: &BenchRequest, volume: &catalog::Volume) -> Result<(), ErrorBody> {
    let size = u64::from(bench.block_bytes);
    if size == 0 || !size.is_multiple_of(SECTOR) || size > DATA_BYTES_MAX || size > volume.size {
        let message = format!("{size} bytes a request are not possible");
        let hint = "use a multiple of 512, up to 4 MiB and the volume's size";
        return Err(ErrorBody::invalid("block_bytes", message, hint));
    }
    if !(1..=DEPTH_MAX).contains(&bench.depth) {
        let message = format!("{} is not in 1..={DEPTH_MAX}", bench.depth);
        return Err(ErrorBody::invalid("depth", message, "try 32"));
    }
    if !SECONDS.contains(&bench.seconds) {
        let (least, most) = SECONDS.into_inner();
        let message = format!("{} is not in {least}..={most}", bench.seconds);
        return Err(ErrorBody::invalid("seconds", message, "try 10"));
    }
    if bench.rw.writes() && !volume.bench && !bench.overwrite {
        let message = format!(
            "bench did not make {}, and would write over its data",
            volume.name
        );
        let hint = "name a volume that does not exist yet, or say --overwrite";
        return Err(ErrorBody::conflict("volume", message, hint));
    }
    Ok(())
}

fn bench_error(error: BenchError) -> ErrorBody {
    let message = error.to_string();
    match error {
        BenchError::NoSuchVolume => ErrorBody::conflict("volume", message, "see `sarsen alerts`"),
        BenchError::Busy => ErrorBody::conflict("volume", message, "wait until it has ended"),
        BenchError::Bad { field } => ErrorBody::invalid(field, message, "choose another"),
        BenchError::NoBuffers => {
            let hint = "use less depth or smaller requests, or give the daemon more memory";
            ErrorBody::new(ErrorCode::Exhausted, "depth", message, hint)
        }
        BenchError::Io(IoError::NoSpace) => ErrorBody::new(
            ErrorCode::Exhausted,
            "",
            message,
            "use a smaller volume or add a disk",
        ),
        BenchError::Io(_) => ErrorBody::io(message, "`sarsen alerts` says what is wrong"),
        BenchError::Stopped => ErrorBody::unavailable(message, "try again later"),
    }
}
