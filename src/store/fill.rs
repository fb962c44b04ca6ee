//! Changes that replicas ask for besides their writes: fills (R15), fences (R6), the end of a replica (R24); from their
//! admission to the table.
//!
//! A fill makes some blocks of a chunk what another replica has there, in one record. All 16 blocks as data go durably to a
//! fresh slot first, as a whole chunk that is written does; anything else goes into the journal with its payload. A fill of
//! the whole chunk never goes to the slot that the chunk had, so that what has rotted there is left behind.

use super::commit::Origin;
use super::door::{Outbox, Output, Stamp, StoreError, StoreOp};
use super::engine::{Ask, ChunkWrite, Store, done};
use super::journal::Act;
use super::overlay::Source;
use super::page::NO_SLOT;
use super::record::{Empty, Fill, Payload, Record};
use super::table::{EntryId, LeafId, LeafState, TOMBSTONE};
use super::write::{For, NO_ENTRY, Short};
use crate::base::{BlockRun, Break, BufRef, CHUNKS_PER_EXTENT, PgId};

impl Store {
    pub(super) fn fill(
        &mut self,
        leaf: LeafId,
        op: StoreOp,
        buf: BufRef,
        mut fill: Box<Fill>,
        out: &mut Outbox,
    ) {
        if !fill.is_sane() {
            return done(op, Err(StoreError::Busy), out);
        }
        let at = fill.at;
        // What another replica has keeps its stamp here as there, whatever may go of what was discarded.
        fill.empty = match self.replicas.has(fill.pg) {
            true => Empty::Tombstone,
            false => Empty::Forgotten,
        };
        let found = self.table.find(leaf, at.chunk.in_extent(), at.layer);
        let leaves_nothing = fill.data | fill.zero == 0 && fill.empty == Empty::Forgotten;
        if found.is_none() && leaves_nothing {
            return done(op, Ok(()), out);
        }
        let reserved = self.reserve_entry(leaf, at).and_then(|entry| {
            let slot = self.slot_for(entry, &fill)?;
            Ok((entry, slot))
        });
        let (entry, slot) = match reserved {
            Ok(reserved) => reserved,
            Err(short) => {
                let ask = Ask::Fill { op, buf, fill };
                return self.put_off(leaf, at, short, ask, out);
            }
        };
        fill.slot = slot;
        let overlay = self.overlay_of(entry, leaf, at);
        overlay.issued += 1;
        if !fill.is_whole() && slot != NO_SLOT {
            overlay.slot = slot;
        }
        if fill.payload == Payload::Slot {
            let write = ChunkWrite {
                op,
                at,
                entry,
                slot,
                buf,
                crcs: fill.crcs,
                pg: fill.pg,
                range: fill.range,
                stamp: fill.stamp,
                fill: Some(fill),
                recorded: false,
            };
            return self.gather(write, out);
        }
        for run in BlockRun::runs_of(fill.data) {
            out.list.push(Output::Pin {
                buf: buf.plus(run.first()),
                blocks: run.count(),
            });
        }
        self.memory_blocks += u64::from(fill.data.count_ones());
        self.push_record(Record::Fill(fill), Act { op, entry, buf });
        self.close_batch_if_full(out);
    }

    /// The slot that a fill goes to; none where it brings no data.
    fn slot_for(&mut self, entry: u32, fill: &Fill) -> Result<u32, Short> {
        if fill.data == 0 {
            return Ok(NO_SLOT);
        }
        let own = self.table.entry(entry).slot;
        let taken = self.overlays.get(entry).map_or(NO_SLOT, |o| o.slot);
        let has = if taken == NO_SLOT { own } else { taken };
        match fill.is_whole() {
            // It gives the slot back that the chunk has.
            true if has != NO_SLOT => self.new_slot(For::Overwrite),
            true => self.new_slot(For::Joiner),
            false if has == NO_SLOT => self.new_slot(For::Joiner),
            false => Ok(has),
        }
    }

    /// Fences, and the end of a replica: records without payload.
    pub(super) fn change_replica(&mut self, ask: Ask, out: &mut Outbox) {
        let (op, record) = match ask {
            Ask::Fence {
                op,
                pg,
                version,
                session,
                fences,
            } => {
                if let Err(why) = self.replicas.check_fences(fences.len()) {
                    return done(op, Err(why), out);
                }
                let record = Record::Fence {
                    pg,
                    version,
                    session,
                    fences,
                };
                (op, record)
            }
            Ask::DropReplica { op, pg } => (op, Record::DropReplica(pg)),
            other => return debug_assert!(false, "no change of a replica: {other:?}"),
        };
        if self.breaks().on(Break::ForgetFence) && matches!(record, Record::Fence { .. }) {
            self.replicas.take(&record);
            return done(op, Ok(()), out);
        }
        let act = Act {
            op,
            entry: NO_ENTRY,
            buf: BufRef::default(),
        };
        self.push_record(record, act);
        self.close_batch_if_full(out);
    }

    /// A chunk, or blocks of it, as another replica has them.
    pub(super) fn carry_out_fill(
        &mut self,
        leaf: LeafId,
        fill: &Fill,
        origin: Origin,
        batch: u64,
        out: &mut Outbox,
    ) {
        let (at, blocks) = (fill.at, fill.blocks);
        if matches!(origin, Origin::Written(_)) {
            self.stats.filled_blocks += u64::from(fill.data.count_ones());
        }
        let place = at.chunk.in_extent();
        let entry = match self.table.find(leaf, place, at.layer) {
            Some(entry) => entry,
            None => self.table.add_entry(leaf, place, at.layer),
        };
        let pending = self.overlays.get(entry).map_or(0, |o| o.pending);
        let found = self.table.entry(entry);
        let kept = (found.data | found.zero | pending) & !blocks;
        match kept {
            0 if !self.breaks().on(Break::KeepStamp) => {
                self.table.set_stamp(leaf, entry, fill.stamp)
            }
            _ => self.table.raise_stamp(leaf, entry, fill.stamp),
        }
        self.supersede(entry, blocks, out);
        let in_slot = fill.payload == Payload::Slot;
        let found = self.table.entry_mut(entry);
        let old = found.slot;
        // As with any small write, what is in the slot stays until what is newer is applied; but not in another slot.
        let stays = if fill.is_whole() { 0 } else { fill.data };
        found.data &= !blocks | stays;
        found.zero = found.zero & !blocks | fill.zero;
        found.flags &= !TOMBSTONE;
        if fill.empty == Empty::Tombstone {
            found.flags |= TOMBSTONE;
        }
        if in_slot {
            found.data = u16::MAX;
            found.crcs = fill.crcs;
        }
        if fill.data != 0 {
            let taken = self.overlays.get(entry).map_or(NO_SLOT, |o| o.slot);
            let found = self.table.entry_mut(entry);
            found.slot = if found.data == 0 { NO_SLOT } else { fill.slot };
            if let Some(overlay) = self.overlays.get_mut(entry) {
                overlay.slot = fill.slot;
            }
            let old = if old == NO_SLOT { taken } else { old };
            if old != NO_SLOT && old != fill.slot {
                self.free_slot(old, out);
            }
        } else {
            self.give_slot_back_if_empty(entry, out);
        }
        if !in_slot {
            self.take_filled(leaf, entry, fill, origin, batch, out);
        }
        self.drop_idle(leaf, place, entry, out);
    }

    /// The payload of a fill that is in its batch.
    fn take_filled(
        &mut self,
        leaf: LeafId,
        entry: EntryId,
        fill: &Fill,
        origin: Origin,
        batch: u64,
        out: &mut Outbox,
    ) {
        let blocks = BlockRun::runs_of(fill.data).flat_map(BlockRun::blocks);
        for (n, block) in blocks.enumerate() {
            let source = match origin {
                Origin::Written(buf) => Source::Memory(buf.plus(block)),
                Origin::Replayed { payload, .. } => Source::Journal(payload + n as u64 * 4096),
            };
            let overlay = self.overlay_of(entry, leaf, fill.at);
            overlay.slot = fill.slot;
            overlay.take(block, source, fill.crcs[block as usize], batch);
            if let Origin::Replayed { lost, .. } = origin
                && lost & (1 << n) != 0
            {
                self.settle_block(entry, block, out);
            }
        }
        self.queue_apply(entry);
    }

    /// Frees the chunks of a PG (R24). What is not loaded is told when it is; until then the journal keeps the record.
    pub(super) fn drop_chunks(&mut self, pg: PgId, batch: u64, out: &mut Outbox) {
        for leaf in 0..self.table.leaf_bound() {
            if !self.table.is_leaf(leaf) || self.table.leaf(leaf).pg != pg {
                continue;
            }
            match self.table.leaf(leaf).state {
                LeafState::Loaded => {
                    let record = Record::DropReplica(pg);
                    let origin = Origin::Written(BufRef::default());
                    self.carry_out(leaf, &record, origin, batch, out);
                }
                LeafState::Damaged => self.mend_leaf(leaf),
                LeafState::Unloaded | LeafState::Loading => self.keep_drop(leaf, pg, batch),
            }
        }
    }

    /// Empties an extent: of no layer is anything left.
    pub(super) fn empty_leaf(&mut self, leaf: LeafId, out: &mut Outbox) {
        for place in 0..CHUNKS_PER_EXTENT as usize {
            let entries: Vec<_> = self.table.versions(leaf, place).collect();
            for entry in entries {
                self.supersede(entry, u16::MAX, out);
                let found = self.table.entry_mut(entry);
                (found.data, found.zero) = (0, 0);
                found.flags &= !TOMBSTONE;
                // It may stay a while yet, for what is being applied: whoever looks finds nothing of the old replica.
                self.table.set_stamp(leaf, entry, Stamp::default());
                self.give_slot_back_if_empty(entry, out);
                self.drop_idle(leaf, place, entry, out);
            }
        }
    }
}
