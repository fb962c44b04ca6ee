//! Reads: where each block of a run is, as seen from a layer, and whether what came is what was written.
//!
//! Looked up for each block: payload that waits to be applied, then the slot, then zeroes, then the next older
//! layer. A fetch is a read of what one layer itself holds; a load is a read that tells its checksums. A checksum that does not match is no proof of rot: the block may have been applied while the
//! read was under way. The read is looked up again; it is rot when the same expectation fails twice.

use super::door::{
    ChunkId, DiskFault, DiskOp, Holding, IoData, Note, Outbox, Output, StoreError, StoreOp,
};
use super::engine::{Ask, Io, Store, done};
use super::look::Sought;
use super::overlay::Source;
use super::table::{LeafId, LeafState};
use crate::base::{BLOCK, BlockRun, Break, BufRef, LayerId, MapRun, crc};

/// After so many attempts a block that keeps changing under the reader counts as unreadable. One
/// is changed at most once an apply, so in practice the second attempt finds it in memory.
const ATTEMPTS_MAX: u8 = 16;

/// A read under way.
#[derive(Debug)]
pub(super) struct ReadJob {
    op: StoreOp,
    at: ChunkId,
    run: BlockRun,
    buf: BufRef,
    looks: Looks,
    /// Operations on the disk that are under way.
    left: u8,
    attempt: u8,
    /// Blocks of this attempt that did not arrive right.
    failed: u16,
    /// Those of the attempt before, and where and with what checksum they were expected then.
    before: u16,
    /// Blocks that could not be read at all.
    unreadable: u16,
    expected: [Place; 16],
    expected_before: [Place; 16],
}

/// What a read looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// The layer and those below it.
    Through,
    /// The same, and the checksums are told too: a load.
    ThroughAndTells,
    /// The layer alone: a fetch. What it holds at this attempt is among the store's holdings.
    Alone,
}

/// Where a block is expected, by its place in the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On the disk at this offset, with this checksum, in this layer.
    Disk {
        offset: u64,
        crc: u32,
        layer: LayerId,
    },
    Memory {
        from: BufRef,
        crc: u32,
        layer: LayerId,
    },
    Zero {
        hole: bool,
    },
}

impl Store {
    pub(super) fn on_fetch(&mut self, op: StoreOp, at: ChunkId, buf: BufRef, out: &mut Outbox) {
        match self.reach(at) {
            Sought::Here(_) => {}
            Sought::Never(why) => return done(op, Err(why), out),
            Sought::Later(leaf) => return self.load_for(leaf, Ask::Fetch { op, at, buf }, out),
        }
        self.begin_read(op, at, BlockRun::WHOLE, (buf, Looks::Alone), out);
    }

    pub(super) fn on_read(
        &mut self,
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        buf: BufRef,
        out: &mut Outbox,
    ) {
        if !self.layers.has(at.layer, at.family) {
            return done(op, Err(StoreError::NoSuchLayer), out);
        }
        let Some(leaf) = self.table.leaf_of(at.family, at.chunk.extent()) else {
            out.list.push(Output::Fill {
                buf,
                blocks: run.count(),
            });
            return done(op, Ok(()), out);
        };
        match self.table.leaf(leaf).state {
            LeafState::Loaded => {}
            LeafState::Damaged => return done(op, Err(StoreError::Torn), out),
            _ => return self.load_for(leaf, Ask::Read { op, at, run, buf }, out),
        }
        self.begin_read(op, at, run, (buf, Looks::Through), out);
    }

    /// As a read, for another node.
    pub(super) fn on_load(
        &mut self,
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        buf: BufRef,
        out: &mut Outbox,
    ) {
        match self.reach(at) {
            Sought::Here(_) => {}
            Sought::Never(why) => return done(op, Err(why), out),
            Sought::Later(leaf) => return self.load_for(leaf, Ask::Load { op, at, run, buf }, out),
        }
        self.begin_read(op, at, run, (buf, Looks::ThroughAndTells), out);
    }

    /// Inlined, or the job of 850 bytes is moved once more: about 10 ns a read (`cargo bench --bench steps`).
    #[inline(always)]
    fn begin_read(
        &mut self,
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        (buf, looks): (BufRef, Looks),
        out: &mut Outbox,
    ) {
        let none = [Place::Zero { hole: true }; 16];
        let job = ReadJob {
            op,
            at,
            run,
            buf,
            looks,
            left: 0,
            attempt: 0,
            failed: 0,
            before: 0,
            unreadable: 0,
            expected: none,
            expected_before: none,
        };
        let job = self
            .reads
            .insert(job)
            .expect("reads in flight are bounded by their callers");
        self.attempt_read(job, out);
    }

    /// Looks every block up, and starts what has to come from the disk.
    fn attempt_read(&mut self, key: u32, out: &mut Outbox) {
        let job = &mut self.reads[key];
        job.attempt += 1;
        job.left = 0;
        job.before = job.failed;
        job.expected_before = job.expected;
        job.failed = 0;
        let (at, run, buf) = (job.at, job.run, job.buf);
        let looks = job.looks;
        let mut places = [Place::Zero { hole: true }; 16];
        if let Some(leaf) = self.table.leaf_of(at.family, at.chunk.extent()) {
            self.look_up_for(looks, leaf, at, run.mask(), &mut places);
        }
        if looks == Looks::Alone {
            let holding = self.holding(at);
            self.holdings.insert(key, holding);
        }
        let mut block = run.first();
        while block < run.end() {
            let count = joined(&places, block, run.end());
            let to = buf.plus(block - run.first());
            match places[block as usize] {
                Place::Zero { .. } if looks == Looks::Alone => {}
                Place::Zero { .. } => out.list.push(Output::Fill {
                    buf: to,
                    blocks: count,
                }),
                Place::Memory { from, .. } => {
                    out.list.push(Output::Copy {
                        from,
                        to,
                        blocks: count,
                    });
                }
                Place::Disk { offset, layer, .. } => {
                    let sequence = self.slot_ios.begin();
                    self.reads[key].left += 1;
                    let io = Io::Read {
                        job: key,
                        first: block as u8,
                        count: count as u8,
                        sequence,
                    };
                    let first = at.chunk.block(block);
                    self.submit(io, out, |id| DiskOp::ReadBlocks {
                        id,
                        offset,
                        buf: to,
                        blocks: count,
                        layer,
                        first,
                    });
                }
            }
            block += count;
        }
        let job = &mut self.reads[key];
        job.expected = places;
        if job.left == 0 {
            self.end_read(key, Ok(()), out);
        }
    }

    #[inline]
    fn look_up_for(
        &self,
        looks: Looks,
        leaf: LeafId,
        at: ChunkId,
        mask: u16,
        places: &mut [Place; 16],
    ) {
        if looks != Looks::Alone {
            return self.look_up(leaf, at, mask, places);
        }
        if let Some(entry) = self.table.find(leaf, at.chunk.in_extent(), at.layer) {
            self.look_up_in(entry, mask, places);
        }
    }

    /// What a layer itself holds of a chunk now.
    fn holding(&self, at: ChunkId) -> Holding {
        let leaf = self.table.leaf_of(at.family, at.chunk.extent());
        let entry = leaf.and_then(|leaf| self.table.find(leaf, at.chunk.in_extent(), at.layer));
        entry.and_then(|entry| self.held(entry)).unwrap_or_default()
    }

    /// Fills in where the blocks of `mask` are, as seen from the layer of `at`.
    fn look_up(&self, leaf: LeafId, at: ChunkId, mask: u16, places: &mut [Place; 16]) {
        let Some(layer) = self.layers.get(at.layer) else {
            return;
        };
        let place = at.chunk.in_extent();
        let mut left = mask;
        // The versions of the chunk that lie on this layer's chain, newest layer first. Without
        // snapshots there is one; with them, what a read costs depends on the versions of this chunk only.
        let mut below = usize::MAX;
        while left != 0 {
            let next = self
                .table
                .versions(leaf, place)
                .filter_map(|entry| Some((layer.depth_of(self.table.layer_of(entry))?, entry)))
                .filter(|&(depth, _)| depth < below)
                .max_by_key(|&(depth, _)| depth);
            let Some((depth, entry)) = next else { return };
            below = depth;
            left = self.look_up_in(entry, left, places);
        }
    }

    /// Looks the blocks of `mask` up in one version; returns those that it does not decide.
    fn look_up_in(&self, entry: super::table::EntryId, mask: u16, places: &mut [Place; 16]) -> u16 {
        let found = self.table.entry(entry);
        let layer = self.table.layer_of(entry);
        let overlay = self.overlays.get(entry);
        let pending = overlay.map_or(0, |overlay| overlay.pending);
        let decided = mask & (pending | found.data | found.zero);
        for block in BlockRun::runs_of(decided).flat_map(BlockRun::blocks) {
            let bit = 1 << block;
            places[block as usize] = match overlay {
                Some(overlay) if pending & bit != 0 => match overlay.source(block) {
                    Source::Memory(from) => Place::Memory {
                        from,
                        crc: overlay.crc[block as usize],
                        layer,
                    },
                    Source::Journal(offset) => Place::Disk {
                        offset,
                        crc: overlay.crc[block as usize],
                        layer,
                    },
                },
                _ if found.data & bit != 0 => Place::Disk {
                    offset: self.superblock.geometry.slot_at(found.slot) + u64::from(block) * BLOCK,
                    crc: found.crcs[block as usize],
                    layer,
                },
                _ => Place::Zero { hole: false },
            };
        }
        mask & !decided
    }

    /// A part of a read has come.
    pub(super) fn on_blocks_read(
        &mut self,
        key: u32,
        (first, count): (u8, u8),
        result: Result<IoData<'_>, DiskFault>,
        out: &mut Outbox,
    ) {
        let skip_crc = self.breaks().on(Break::SkipCrc);
        let job = &mut self.reads[key];
        for n in 0..usize::from(count) {
            let block = usize::from(first) + n;
            let right = match (&result, job.expected[block]) {
                (Ok(IoData::Crcs(crcs)), Place::Disk { crc, .. }) => crcs[n] == crc || skip_crc,
                _ => false,
            };
            if !right {
                job.failed |= 1 << block;
            }
            if result.is_err() {
                job.unreadable |= 1 << block;
            }
        }
        job.left -= 1;
        if job.left > 0 {
            return;
        }
        if self.is_failed() {
            return self.end_read(key, Err(StoreError::DiskFailed), out);
        }
        if self.reads[key].failed == 0 {
            return self.end_read(key, Ok(()), out);
        }
        let leaf = {
            let at = self.reads[key].at;
            self.table.leaf_of(at.family, at.chunk.extent())
        };
        match leaf.map_or((0, 0), |leaf| self.rotten_blocks(key, leaf)) {
            (0, _) => self.attempt_read(key, out),
            (rotten, surely) => self.report_rot(key, leaf, (rotten, surely), out),
        }
    }

    /// The blocks that are rotten, and those of them of which there is no doubt: they failed twice, with the same expectation then and
    /// now. The others only change too often to be read.
    fn rotten_blocks(&self, key: u32, leaf: LeafId) -> (u16, u16) {
        let job = &self.reads[key];
        let mut now = [Place::Zero { hole: true }; 16];
        self.look_up_for(job.looks, leaf, job.at, job.failed, &mut now);
        let (mut rotten, mut surely) = (0, 0);
        for block in BlockRun::runs_of(job.failed).flat_map(BlockRun::blocks) {
            let at = block as usize;
            let on_disk = matches!(job.expected[at], Place::Disk { .. });
            let twice = job.before & (1 << block) != 0
                && job.expected[at] == job.expected_before[at]
                && job.expected[at] == now[at];
            rotten |= u16::from(on_disk && (twice || job.attempt >= ATTEMPTS_MAX)) << block;
            surely |= u16::from(on_disk && twice) << block;
        }
        (rotten, surely)
    }

    fn report_rot(
        &mut self,
        key: u32,
        leaf: Option<LeafId>,
        (rotten, surely): (u16, u16),
        out: &mut Outbox,
    ) {
        let job = &self.reads[key];
        let (of, expected, unreadable) = (job.at, job.expected, job.unreadable);
        let pg = leaf.map_or_else(Default::default, |leaf| self.table.leaf(leaf).pg);
        for block in BlockRun::runs_of(rotten).flat_map(BlockRun::blocks) {
            let Place::Disk { offset, crc, layer } = expected[block as usize] else {
                continue;
            };
            let bit = 1 << block;
            let unreadable = unreadable & bit != 0;
            self.stats.checksum_errors += u64::from(!unreadable);
            let number = of.chunk.block(block);
            out.list.push(Output::Note(Note::bad_block(
                unreadable, layer, number, offset,
            )));
            if surely & bit != 0 {
                let at = ChunkId { layer, ..of };
                out.list.push(Output::Damaged { pg, at, block, crc });
            }
        }
        self.end_read(key, Err(StoreError::Damaged), out);
    }

    fn end_read(&mut self, key: u32, result: Result<(), StoreError>, out: &mut Outbox) {
        let Some(job) = self.reads.remove(key) else {
            return;
        };
        let op = job.op;
        let found = match job.looks {
            Looks::Through => return done(op, result, out),
            Looks::ThroughAndTells => Some(job.loaded()),
            Looks::Alone => self.holdings.remove(&key),
        };
        let (Some(found), Ok(())) = (found, result) else {
            return done(op, result, out);
        };
        out.holdings.push(found);
        let holding = out.holdings.len() as u32 - 1;
        out.list.push(match job.looks {
            Looks::Alone => Output::Fetched { op, holding },
            _ => Output::Loaded { op, holding },
        });
    }

    /// Answers what is allocated in some chunks of one extent.
    pub(super) fn on_map(&mut self, op: StoreOp, at: ChunkId, count: u32, out: &mut Outbox) {
        let leaf = match self.reach(at) {
            Sought::Here(leaf) => leaf,
            Sought::Never(why) => return done(op, Err(why), out),
            Sought::Later(leaf) => return self.load_for(leaf, Ask::Map { op, at, count }, out),
        };
        let start = out.runs.len();
        for n in 0..count {
            let chunk = ChunkId {
                chunk: crate::base::ChunkNo(at.chunk.0 + u64::from(n)),
                ..at
            };
            let mut places = [Place::Zero { hole: true }; 16];
            if let Some(leaf) = leaf {
                self.look_up(leaf, chunk, u16::MAX, &mut places);
            }
            for place in places {
                let (zero, hole) = match place {
                    Place::Zero { hole } => (true, hole),
                    _ => (false, false),
                };
                push_run(
                    &mut out.runs,
                    start,
                    MapRun {
                        len: BLOCK,
                        zero,
                        hole,
                    },
                );
            }
        }
        out.list.push(Output::Mapped {
            op,
            runs: start as u32..out.runs.len() as u32,
        });
    }
}

impl ReadJob {
    /// What was read, with the checksums that the blocks have in the layer that was asked for, whichever one they come from.
    fn loaded(&self) -> Holding {
        let mut found = Holding::default();
        for block in self.run.blocks() {
            let number = self.at.chunk.block(block);
            match self.expected[block as usize] {
                Place::Zero { .. } => found.zero |= 1 << block,
                Place::Disk { crc, layer, .. } | Place::Memory { crc, layer, .. } => {
                    found.data |= 1 << block;
                    found.crcs[block as usize] = match layer == self.at.layer {
                        true => crc,
                        false => {
                            let (old, new) =
                                (crc::seed(layer, number), crc::seed(self.at.layer, number));
                            crc::reseed(crc, old, new, BLOCK as usize)
                        }
                    };
                }
            }
        }
        found
    }
}

/// How many blocks from `first` on lie together with it.
fn joined(places: &[Place; 16], first: u32, end: u32) -> u32 {
    let follows = |n: u32| match (places[(n - 1) as usize], places[n as usize]) {
        (Place::Zero { .. }, Place::Zero { .. }) => true,
        (Place::Memory { from: a, .. }, Place::Memory { from: b, .. }) => b == a.plus(1),
        (
            Place::Disk {
                offset: a,
                layer: x,
                ..
            },
            Place::Disk {
                offset: b,
                layer: y,
                ..
            },
        ) => b == a + BLOCK && x == y,
        _ => false,
    };
    (first + 1..end).take_while(|&n| follows(n)).count() as u32 + 1
}

/// Appends a run, joined to the last one where they are alike.
fn push_run(runs: &mut Vec<MapRun>, start: usize, run: MapRun) {
    let joins = runs.len() > start;
    match runs.last_mut() {
        Some(last) if joins && (last.zero, last.hole) == (run.zero, run.hole) => {
            last.len += run.len
        }
        _ => runs.push(run),
    }
}
