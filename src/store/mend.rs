//! Mending: blocks whose bytes were damaged get them back, as another replica has them.
//!
//! What the table says of a block is what it should be: its checksum, seeded with where it belongs. So a mend changes nothing that the
//! table says. It brings bytes for a checksum, by way of the journal, and counts for a block only as long as that is the block's
//! checksum: when it is admitted, when its record is durable, and at each replay of it. A write that came between has another one,
//! and a mend of what it wrote over is left out. So a mend needs no stamp, no fence and no order among other changes, and
//! the caller's duty to have no two changes of a block in flight does not hold for it.
//!
//! The bytes go into the slot that the chunk has: writing a place anew is what has a disk lay a bad one aside, and where the disk refuses
//! that it fails, as with any other write.
//!
//! Invariant, *a mend changes no meaning*: checksums, masks and stamps are what they were.

use super::commit::Origin;
use super::door::{Note, Outbox, Output, StoreError, StoreOp};
use super::engine::{Ask, Store, done};
use super::journal::Act;
use super::overlay::Source;
use super::record::{Mend, Record};
use super::table::{EntryId, LeafId, LeafState};
use crate::base::{BLOCK, BlockRun, BufRef};

impl Store {
    pub(super) fn on_mend(&mut self, ask: Ask, out: &mut Outbox) {
        let Ask::Mend { op, buf, mend } = ask else {
            return debug_assert!(false, "only a mend is mended");
        };
        let at = mend.at;
        if !self.layers.has(at.layer, at.family) {
            return done(op, Err(StoreError::NoSuchLayer), out);
        }
        let Some(leaf) = self.table.leaf_of(at.family, at.chunk.extent()) else {
            return done(op, Ok(()), out);
        };
        match self.table.leaf(leaf).state {
            LeafState::Loaded => self.mend(leaf, (op, buf), *mend, out),
            LeafState::Damaged => done(op, Err(StoreError::Torn), out),
            _ => self.load_for(leaf, Ask::Mend { op, buf, mend }, out),
        }
    }

    fn mend(&mut self, leaf: LeafId, (op, buf): (StoreOp, BufRef), mend: Mend, out: &mut Outbox) {
        let at = mend.at;
        let entry = self.table.find(leaf, at.chunk.in_extent(), at.layer);
        let takes = |block: &u32| {
            let crc = mend.crcs[*block as usize];
            entry.is_some_and(|entry| self.takes_mend(entry, *block, crc))
        };
        let blocks = BlockRun::runs_of(mend.blocks).flat_map(BlockRun::blocks);
        let blocks = blocks
            .filter(takes)
            .fold(0, |mask, block| mask | 1 << block);
        let (Some(entry), true) = (entry, blocks != 0) else {
            return done(op, Ok(()), out); // nothing is to be done any more
        };
        let mut mend = mend.of(blocks);
        mend.pg = self.table.leaf(leaf).pg;
        // It keeps the entry and its slot until the record is carried out.
        self.overlay_of(entry, leaf, at).issued += 1;
        for run in BlockRun::runs_of(blocks) {
            out.list.push(Output::Pin {
                buf: buf.plus(run.first()),
                blocks: run.count(),
            });
        }
        self.memory_blocks += u64::from(blocks.count_ones());
        self.push_record(Record::Mend(Box::new(mend)), Act { op, entry, buf });
        self.close_batch_if_full(out);
    }

    /// Whether bytes with this checksum are what a block should be, and are not in memory anyway.
    fn takes_mend(&self, entry: EntryId, block: u32, crc: u32) -> bool {
        let bit = 1 << block;
        let found = self.table.entry(entry);
        match self.overlays.get(entry) {
            Some(overlay) if overlay.pending & bit != 0 => {
                let is_read = matches!(overlay.source(block), Source::Journal(_));
                is_read && overlay.crc[block as usize] == crc
            }
            _ => found.data & bit != 0 && found.crcs[block as usize] == crc,
        }
    }

    pub(super) fn carry_out_mend(
        &mut self,
        leaf: LeafId,
        mend: &Mend,
        origin: Origin,
        batch: u64,
        out: &mut Outbox,
    ) {
        let (at, place) = (mend.at, mend.at.chunk.in_extent());
        let entry = self.table.find(leaf, place, at.layer);
        let mut mended = 0u16;
        let blocks = BlockRun::runs_of(mend.blocks).flat_map(BlockRun::blocks);
        for (n, block) in blocks.enumerate() {
            let crc = mend.crcs[block as usize];
            let source = match origin {
                Origin::Written(buf) => Source::Memory(buf.plus(block)),
                Origin::Replayed { payload, .. } => Source::Journal(payload + n as u64 * BLOCK),
            };
            let is_lost = matches!(origin, Origin::Replayed { lost, .. } if lost & (1 << n) != 0);
            match entry {
                Some(entry) if !is_lost && self.takes_mend(entry, block, crc) => {
                    self.supersede(entry, 1 << block, out);
                    self.overlay_of(entry, leaf, at)
                        .take(block, source, crc, batch);
                    mended |= 1 << block;
                }
                _ => self.leave_out(source, batch, out),
            }
        }
        if let (Origin::Written(_), true) = (origin, mended != 0) {
            self.stats.mended_blocks += u64::from(mended.count_ones());
            out.list.push(Output::Note(Note::Mended {
                layer: at.layer,
                chunk: at.chunk.block(0),
                blocks: mended,
            }));
        }
        if let Some(entry) = entry {
            self.queue_apply(entry);
            self.drop_idle(leaf, place, entry, out);
        }
    }

    /// A block of payload that nothing needs: its batch has one less to wait for.
    fn leave_out(&mut self, source: Source, batch: u64, out: &mut Outbox) {
        self.journal.kept_mut(batch).pending -= 1;
        if let Source::Memory(buf) = source {
            out.list.push(Output::Unpin { buf, blocks: 1 });
            self.memory_blocks -= 1;
        }
    }
}
