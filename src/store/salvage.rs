//! Salvaging: what another replica has lost is read here, block by block.
//!
//! The asker says which checksums the blocks should have. A block is handed over when its bytes, as they came, have that one. So it does not matter
//! what happens to the chunk meanwhile, and no second reading is needed: what does not match is not handed over. A fetch
//! fails as a whole where one block cannot be read; here each block is for itself, so two replicas with different blocks
//! of a chunk damaged can mend one another.

use super::door::{ChunkId, DiskFault, DiskOp, IoData, Outbox, Output, StoreError, StoreOp};
use super::engine::{Ask, Io, Store, done};
use super::overlay::Source;
use super::table::{EntryId, LeafState};
use crate::base::{BLOCK, BlockRun, BufRef};

/// At once; more are told to ask again.
pub(super) const SALVAGES_MAX: usize = 64;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Salvage {
    at: ChunkId,
    blocks: u16,
    crcs: [u32; 16],
    buf: BufRef,
}

impl Salvage {
    pub fn new(at: ChunkId, blocks: u16, crcs: &[u32; 16], buf: BufRef) -> Salvage {
        Salvage {
            at,
            blocks,
            crcs: *crcs,
            buf,
        }
    }
}

/// What is being read for another replica.
#[derive(Debug)]
pub(super) struct Salvaging {
    op: StoreOp,
    of: Salvage,
    /// Blocks that have come, and match.
    got: u16,
    /// Operations on the disk that are under way.
    left: u8,
}

/// Where a block is that may be the one that is asked for.
#[derive(Debug, Clone, Copy)]
enum Place {
    Memory(BufRef),
    Disk(u64),
}

impl Store {
    pub(super) fn on_salvage(&mut self, op: StoreOp, of: Box<Salvage>, out: &mut Outbox) {
        let at = of.at;
        if !self.layers.has(at.layer, at.family) {
            return done(op, Err(StoreError::NoSuchLayer), out);
        }
        let Some(leaf) = self.table.leaf_of(at.family, at.chunk.extent()) else {
            return out.list.push(Output::Salvaged { op, blocks: 0 });
        };
        match self.table.leaf(leaf).state {
            LeafState::Loaded => {}
            LeafState::Damaged => return done(op, Err(StoreError::Torn), out),
            _ => return self.load_for(leaf, Ask::Salvage { op, salvage: of }, out),
        }
        let entry = self.table.find(leaf, at.chunk.in_extent(), at.layer);
        let mut places = [None; 16];
        if let Some(entry) = entry {
            for block in BlockRun::runs_of(of.blocks).flat_map(BlockRun::blocks) {
                let crc = of.crcs[block as usize];
                places[block as usize] = self.place_with(entry, block, crc);
            }
        }
        let (buf, job) = (
            of.buf,
            Salvaging {
                op,
                of: *of,
                got: 0,
                left: 0,
            },
        );
        let Ok(key) = self.salvages.insert(job) else {
            return done(op, Err(StoreError::Busy), out);
        };
        let mut block = 0;
        while block < 16 {
            let count = match places[block as usize] {
                None => 1,
                Some(Place::Memory(from)) => {
                    let to = buf.plus(block);
                    let blocks = 1;
                    out.list.push(Output::Copy { from, to, blocks });
                    self.salvages[key].got |= 1 << block;
                    1
                }
                Some(Place::Disk(offset)) => {
                    let follows = |n: &u32| {
                        let behind = offset + u64::from(*n - block) * BLOCK;
                        matches!(places[*n as usize], Some(Place::Disk(at)) if at == behind)
                    };
                    let count = 1 + (block + 1..16).take_while(follows).count() as u32;
                    self.salvage_run(key, (block, count), offset, out);
                    count
                }
            };
            block += count;
        }
        self.end_salvage(key, out);
    }

    /// Where a block with this checksum is, if anywhere: its newest payload, else what is in the slot.
    fn place_with(&self, entry: EntryId, block: u32, crc: u32) -> Option<Place> {
        let bit = 1 << block;
        let found = self.table.entry(entry);
        let overlay = self.overlays.get(entry);
        if let Some(overlay) = overlay.filter(|overlay| overlay.pending & bit != 0)
            && overlay.crc[block as usize] == crc
        {
            return Some(match overlay.source(block) {
                Source::Memory(buf) => Place::Memory(buf),
                Source::Journal(offset) => Place::Disk(offset),
            });
        }
        let is_here = found.data & bit != 0 && found.crcs[block as usize] == crc;
        let slot_at = self.superblock.geometry.slot_at(found.slot);
        is_here.then_some(Place::Disk(slot_at + u64::from(block) * BLOCK))
    }

    fn salvage_run(&mut self, job: u32, (block, count): (u32, u32), offset: u64, out: &mut Outbox) {
        let of = &mut self.salvages[job];
        of.left += 1;
        let (at, buf) = (of.of.at, of.of.buf.plus(block));
        let io = Io::Salvage {
            job,
            first: block as u8,
            count: count as u8,
            sequence: self.slot_ios.begin(),
            offset,
        };
        self.submit(io, out, |id| DiskOp::ReadBlocks {
            id,
            offset,
            buf,
            blocks: count,
            layer: at.layer,
            first: at.chunk.block(block),
        });
    }

    /// A run of blocks has come. One that cannot be read is read block by block: one bad sector must not cost its neighbours.
    pub(super) fn on_salvaged(
        &mut self,
        key: u32,
        (first, count): (u8, u8),
        offset: u64,
        result: Result<IoData<'_>, DiskFault>,
        out: &mut Outbox,
    ) {
        let job = &mut self.salvages[key];
        job.left -= 1;
        match result {
            Ok(IoData::Crcs(crcs)) => {
                for (n, crc) in crcs.iter().enumerate().take(count.into()) {
                    let block = usize::from(first) + n;
                    job.got |= u16::from(job.of.crcs[block] == *crc) << block;
                }
            }
            _ if count > 1 && !self.is_failed() => {
                for n in 0..u32::from(count) {
                    let at = offset + u64::from(n) * BLOCK;
                    self.salvage_run(key, (u32::from(first) + n, 1), at, out);
                }
            }
            _ => {}
        }
        self.end_salvage(key, out);
    }

    fn end_salvage(&mut self, key: u32, out: &mut Outbox) {
        if self.salvages[key].left > 0 {
            return;
        }
        let Some(Salvaging { op, got, .. }) = self.salvages.remove(key) else {
            return;
        };
        self.stats.salvaged_blocks += u64::from(got.count_ones());
        match self.is_failed() {
            true => done(op, Err(StoreError::DiskFailed), out),
            false => out.list.push(Output::Salvaged { op, blocks: got }),
        }
    }
}
