//! Load made inside the shards, with no front end before it: what the store and the loop alone can carry.
//!
//! Each shard that has a part of the volume makes its share of the load, over the whole volume where it is random, so
//! that requests go between shards as those of clients do; a sequential load is cut into as many stretches.

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

/// The part of a load that one shard makes.
#[derive(Debug, Clone)]
pub(super) struct Share {
    /// With the depth and the seed of this part.
    spec: Spec,
    /// Of a sequential load, the stretch that it goes over: its first place, and how many.
    stretch: (u64, u64),
}

impl Spec {
    /// The shares of so many shards, or fewer where the depth or the span has not enough for all.
    pub(super) fn shares(self, shards: usize) -> Result<Vec<Share>, BenchError> {
        self.check()?;
        let places = self.span_bytes / u64::from(self.block_bytes);
        let count = (shards as u64).min(u64::from(self.depth)).min(places);
        let share = |n: u64| {
            let part_of = |whole: u64| whole * (n + 1) / count - whole * n / count;
            Share {
                spec: Spec {
                    depth: part_of(u64::from(self.depth)) as u32,
                    seed: self.seed.wrapping_add(n),
                    ..self.clone()
                },
                stretch: (places * n / count, part_of(places)),
            }
        };
        Ok((0..count).map(share).collect())
    }
}

/// What one shard measured.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    latency: Histogram,
    bytes: u64,
    time: Duration,
    /// CPU time of the whole process meanwhile.
    cpu: Duration,
    gap: Duration,
}

/// What all shards measured together. Their gaps are each shard's own: the longest of them is no shorter than the longest
/// of all.
pub(super) fn together(all: &[Measured]) -> Measurement {
    let mut latency = Histogram::default();
    all.iter().for_each(|one| latency.add(&one.latency));
    let longest = |of: fn(&Measured) -> Duration| all.iter().map(of).max().unwrap_or_default();
    let seconds = longest(|one| one.time).as_secs_f64().max(1e-9);
    let operations = latency.count();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    Measurement {
        operations,
        seconds,
        iops: operations as f64 / seconds,
        bytes_per_second: all.iter().map(|one| one.bytes).sum::<u64>() as f64 / seconds,
        mean_us: us(latency.mean()),
        p50_us: us(latency.quantile(0.5)),
        p99_us: us(latency.quantile(0.99)),
        max_us: us(latency.max()),
        cpu_us_per_io: us(longest(|one| one.cpu)) / operations.max(1) as f64,
        longest_gap_us: us(longest(|one| one.gap)),
    }
}

type Done = oneshot::Sender<Result<Measured, BenchError>>;

/// A load that runs.
pub(super) struct Load {
    spec: Spec,
    stretch: (u64, u64),
    done: Done,
    prng: Prng,
    /// What writes write: random, so that it compresses nowhere.
    payload: Option<BufId>,
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
    pub fn start(share: Share, done: Done, desk: &mut Desk) -> Option<Load> {
        let longest = u64::from(share.spec.block_bytes);
        // Requests are aligned to their own size, which may be no multiple of a block.
        let ragged = if longest.is_multiple_of(BLOCK) { 0 } else { 3 };
        let blocks = longest.div_ceil(BLOCK) as u32 + ragged;
        if blocks <= desk.buffers.largest() {
            return Some(Load::begin(share, done, blocks, desk));
        }
        let _ = done.send(Err(BenchError::NoBuffers)); // nobody waits any more: nothing to be done
        None
    }

    fn begin(share: Share, done: Done, blocks: u32, desk: &mut Desk) -> Load {
        let Share { spec, stretch } = share;
        let mut load = Load {
            prng: Prng::new(spec.seed),
            payload: None,
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
            stretch,
            done,
        };
        (0..load.spec.depth).for_each(|place| load.submit(place, desk));
        load
    }

    fn submit(&mut self, seat: u32, desk: &mut Desk) {
        let Some(buf) = self.buffer(desk) else {
            return self.hungry.push(seat);
        };
        let len = u64::from(self.spec.block_bytes);
        let (kind, random) = match self.spec.pattern {
            Pattern::Read => (RequestKind::Read, false),
            Pattern::RandRead => (RequestKind::Read, true),
            Pattern::Write => (RequestKind::Write, false),
            Pattern::RandWrite => (RequestKind::Write, true),
        };
        let (first, places) = self.stretch;
        let place = match random {
            true => self.prng.below(self.spec.span_bytes / len),
            false => first + self.next % places,
        };
        let offset = place * len;
        self.next = self.next.wrapping_add(1);
        let wanted = Wanted {
            owner: Owner::Load(seat),
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
    fn buffer(&mut self, desk: &mut Desk) -> Option<BufId> {
        if !matches!(self.spec.pattern, Pattern::Write | Pattern::RandWrite) {
            return desk.allocate(self.blocks);
        }
        let payload = self.payload(desk)?;
        if u64::from(self.spec.block_bytes).is_multiple_of(BLOCK) {
            desk.buffers.arena().hold(payload, 1);
            return Some(payload);
        }
        let buf = desk.allocate(self.blocks)?;
        let of = |id| BufRef { id, block: 0 };
        let arena = desk.buffers.arena();
        arena.copy_blocks(of(payload), of(buf), self.blocks);
        Some(buf)
    }

    /// What writes write, made for the first of them.
    fn payload(&mut self, desk: &mut Desk) -> Option<BufId> {
        if self.payload.is_none() {
            let id = desk.allocate(self.blocks)?;
            let mut bytes = vec![0; self.blocks as usize * BLOCK as usize];
            Prng::new(self.spec.seed).fill(&mut bytes);
            desk.buffers
                .arena()
                .copy_in(BufRef { id, block: 0 }, 0, &bytes);
            self.payload = Some(id);
        }
        self.payload
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

    /// Whether it waits for payload memory.
    pub fn is_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// Goes on with what waited for payload memory.
    pub fn feed(&mut self, desk: &mut Desk) {
        for place in std::mem::take(&mut self.hungry) {
            self.submit(place, desk);
        }
    }

    /// Tells what was measured.
    pub fn finish(self, desk: &mut Desk) {
        self.payload.into_iter().for_each(|id| desk.release(id, 1));
        let result = match self.failed {
            Some(error) => Err(BenchError::Io(error)),
            None => Ok(self.measured()),
        };
        let _ = self.done.send(result); // nobody waits any more: nothing to be done
    }

    fn measured(&self) -> Measured {
        Measured {
            latency: self.latency.clone(),
            bytes: self.bytes,
            time: self.last.since(self.started),
            cpu: clock::process_cpu().saturating_sub(self.cpu),
            gap: self.gap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(depth: u32) -> Spec {
        Spec {
            volume: VolumeId(1),
            span_bytes: 10 * 4096 + 100,
            pattern: Pattern::Read,
            block_bytes: 4096,
            depth,
            time: Duration::from_secs(1),
            seed: 1,
        }
    }

    #[test]
    fn shares_are_the_whole_load_and_none_is_idle() {
        let shares = spec(7).shares(3).unwrap();
        let depths: Vec<u32> = shares.iter().map(|share| share.spec.depth).collect();
        assert_eq!(depths, [2, 2, 3]);
        let stretches: Vec<_> = shares.iter().map(|share| share.stretch).collect();
        assert_eq!(stretches, [(0, 3), (3, 3), (6, 4)]);
        assert_eq!(spec(2).shares(64).unwrap().len(), 2);
        let refused = spec(0).shares(2).unwrap_err();
        assert_eq!(refused, BenchError::Bad { field: "depth" });
    }

    #[test]
    fn what_shards_measured_is_added_up() {
        let one = |us: u64, seconds: u64| {
            let mut latency = Histogram::default();
            latency.record(Duration::from_micros(us));
            Measured {
                latency,
                bytes: 4096,
                time: Duration::from_secs(seconds),
                cpu: Duration::from_micros(40),
                gap: Duration::from_micros(us),
            }
        };
        let all = together(&[one(100, 1), one(300, 2)]);
        assert_eq!((all.operations, all.seconds), (2, 2.0));
        assert_eq!((all.cpu_us_per_io, all.longest_gap_us), (20.0, 300.0));
        assert!((190.0..210.0).contains(&all.mean_us), "{}", all.mean_us);
    }
}
