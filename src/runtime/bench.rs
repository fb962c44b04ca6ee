//! Load made inside a shard, with no front end before it: what the store and the loop alone can carry.

use super::desk::{Desk, Owner, Pending, Wanted};
use super::handle::BenchError;
use crate::base::{BLOCK, BufId, BufRef, IoError, Prng, RequestKind, SECTOR, Time, VolumeId};
use crate::io::clock;
use crate::observe::Histogram;
use std::time::Duration;
use tokio::sync::oneshot;

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

/// The most requests in flight.
const DEPTH: u32 = 1024;
/// The largest request, in bytes.
const LARGEST: u32 = 32 << 20;
/// The longest measurement.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl Spec {
    fn check(&self) -> Result<(), BenchError> {
        let bad = |field| Err(BenchError::Bad { field });
        if self.block_bytes == 0 || !u64::from(self.block_bytes).is_multiple_of(SECTOR) {
            return bad("block_bytes");
        }
        if self.block_bytes > LARGEST || u64::from(self.block_bytes) > self.span_bytes {
            return bad("block_bytes");
        }
        if self.depth == 0 || self.depth > DEPTH {
            return bad("depth");
        }
        if self.time.is_zero() || self.time > LONGEST {
            return bad("time");
        }
        Ok(())
    }
}

type Done = oneshot::Sender<Result<Measurement, BenchError>>;

/// A load that runs.
pub(super) struct Load {
    spec: Spec,
    done: Done,
    prng: Prng,
    /// What writes write: random, so that it compresses nowhere.
    payload: BufId,
    blocks: u32,
    next: u64,
    in_flight: u32,
    /// Places whose next request waits for payload memory.
    hungry: Vec<u32>,
    started: Time,
    cpu: Duration,
    last: Time,
    gap: Duration,
    bytes: u64,
    latency: Histogram,
    failed: Option<IoError>,
}

impl Load {
    /// Starts a load; where that cannot be, says why to whom it asked.
    pub fn start(spec: Spec, done: Done, desk: &mut Desk) -> Option<Load> {
        let refused = match Load::prepare(&spec, desk) {
            Ok((payload, blocks)) => return Some(Load::begin(spec, done, payload, blocks, desk)),
            Err(error) => error,
        };
        let _ = done.send(Err(refused)); // nobody waits any more: nothing to be done
        None
    }

    fn prepare(spec: &Spec, desk: &mut Desk) -> Result<(BufId, u32), BenchError> {
        spec.check()?;
        let longest = u64::from(spec.block_bytes);
        // Requests are aligned to their own size, which may be no multiple of a block.
        let ragged = if longest.is_multiple_of(BLOCK) { 0 } else { 3 };
        let blocks = longest.div_ceil(BLOCK) as u32 + ragged;
        let id = desk.buffers.allocate(blocks).ok_or(BenchError::NoBuffers)?;
        let mut bytes = vec![0; blocks as usize * BLOCK as usize];
        Prng::new(spec.seed).fill(&mut bytes);
        desk.buffers
            .arena()
            .copy_in(BufRef { id, block: 0 }, 0, &bytes);
        Ok((id, blocks))
    }

    fn begin(spec: Spec, done: Done, payload: BufId, blocks: u32, desk: &mut Desk) -> Load {
        let mut load = Load {
            prng: Prng::new(spec.seed),
            payload,
            blocks,
            next: 0,
            in_flight: 0,
            hungry: Vec::new(),
            started: desk.now,
            cpu: clock::process_cpu(),
            last: desk.now,
            gap: Duration::ZERO,
            bytes: 0,
            latency: Histogram::default(),
            failed: None,
            spec,
            done,
        };
        (0..load.spec.depth).for_each(|place| load.submit(place, desk));
        load
    }

    fn submit(&mut self, place: u32, desk: &mut Desk) {
        let Some(buf) = self.buffer(desk) else {
            return self.hungry.push(place);
        };
        let len = u64::from(self.spec.block_bytes);
        let places = self.spec.span_bytes / len;
        let (kind, random) = match self.spec.pattern {
            Pattern::Read => (RequestKind::Read, false),
            Pattern::RandRead => (RequestKind::Read, true),
            Pattern::Write => (RequestKind::Write, false),
            Pattern::RandWrite => (RequestKind::Write, true),
        };
        if random {
            self.next = self.prng.below(places);
        }
        let offset = self.next % places * len;
        self.next = self.next.wrapping_add(1);
        let wanted = Wanted {
            owner: Owner::Load(place),
            volume: self.spec.volume,
            kind,
            offset,
            len,
            buf: Some(buf),
            begun: desk.now,
        };
        match desk.submit(wanted) {
            Ok(()) => self.in_flight += 1,
            Err(error) => {
                desk.release(buf, 1);
                self.failed = Some(error);
            }
        }
    }

    /// Memory for a request. Writes of whole blocks share one payload, which nobody changes; the ends of others are
    /// filled up in their own memory.
    fn buffer(&self, desk: &mut Desk) -> Option<BufId> {
        let writes = matches!(self.spec.pattern, Pattern::Write | Pattern::RandWrite);
        let whole = u64::from(self.spec.block_bytes).is_multiple_of(BLOCK);
        if writes && whole {
            desk.buffers.arena().hold(self.payload, 1);
            return Some(self.payload);
        }
        let buf = desk.buffers.allocate(self.blocks)?;
        if writes {
            let of = |id| BufRef { id, block: 0 };
            let arena = desk.buffers.arena();
            arena.copy_blocks(of(self.payload), of(buf), self.blocks);
        }
        Some(buf)
    }

    /// The machine answered a request. True where the load has ended.
    pub fn reply(
        &mut self,
        place: u32,
        pending: &Pending,
        result: Result<(), IoError>,
        desk: &mut Desk,
    ) -> bool {
        pending.buf.into_iter().for_each(|buf| desk.release(buf, 1));
        self.in_flight -= 1;
        self.gap = self.gap.max(desk.now.since(self.last));
        self.last = desk.now;
        match result {
            Err(error) => self.failed = Some(error),
            Ok(()) => {
                self.latency.record(desk.now.since(pending.since));
                self.bytes += pending.len;
            }
        }
        let over = self.failed.is_some() || desk.now.since(self.started) >= self.spec.time;
        if over {
            self.hungry.clear();
        } else {
            self.submit(place, desk);
        }
        self.in_flight == 0 && self.hungry.is_empty()
    }

    /// Goes on with what waited for payload memory.
    pub fn feed(&mut self, desk: &mut Desk) {
        for place in std::mem::take(&mut self.hungry) {
            self.submit(place, desk);
        }
    }

    /// Tells what was measured.
    pub fn finish(self, desk: &mut Desk) {
        desk.release(self.payload, 1);
        let result = match self.failed {
            Some(error) => Err(BenchError::Io(error)),
            None => Ok(self.measured()),
        };
        let _ = self.done.send(result); // nobody waits any more: nothing to be done
    }

    fn measured(&self) -> Measurement {
        let seconds = self.last.since(self.started).as_secs_f64().max(1e-9);
        let operations = self.latency.count();
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let cpu = us(clock::process_cpu().saturating_sub(self.cpu));
        Measurement {
            operations,
            seconds,
            iops: operations as f64 / seconds,
            bytes_per_second: self.bytes as f64 / seconds,
            mean_us: us(self.latency.mean()),
            p50_us: us(self.latency.quantile(0.5)),
            p99_us: us(self.latency.quantile(0.99)),
            max_us: us(self.latency.max()),
            cpu_us_per_io: cpu / operations.max(1) as f64,
            longest_gap_us: us(self.gap),
        }
    }
}
