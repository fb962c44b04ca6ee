//! Group commit: batches close, become durable in their order, and their records are carried out.
//!
//! `carry_out` is the one place where a durable record changes the table. Replay uses it too, for
//! the records of an extent when the extent is loaded, so both come to the same state.

use super::batch::{Header, encode};
use super::door::{ChunkId, DiskOp, Durability, Outbox, Output, Stamp, WriteKind};
use super::engine::{Io, QUIET, Store, done};
use super::journal::Act;
use super::overlay::Source;
use super::page::NO_SLOT;
use super::record::{Empty, Record};
use super::scrub::Sweep;
use super::table::{EntryId, LeafId, TOMBSTONE};
use crate::base::{BlockRun, Break, BufRef, PgId};

/// How a record comes to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was just written. Its payload is in memory from here on.
    Written(BufRef),
    /// It was replayed. Its payload is in the journal from this offset of the disk on, and the blocks of
    /// this mask (counted from the first of its payload) are damaged there.
    Replayed { payload: u64, lost: u16 },
}

impl Store {
    /// Sends the open batch, if it has records and there is room in flight and in the ring.
    pub(super) fn close_batch_if_possible(&mut self, out: &mut Outbox) {
        self.take_overfull();
        while !self.journal.open.is_empty() && self.journal.can_close() {
            self.close_batch(out);
            self.take_overfull();
        }
    }

    /// Sends the open batch without waiting for the turn's end, where nothing more fits.
    pub(super) fn close_batch_if_full(&mut self, out: &mut Outbox) {
        if !self.journal.open.fits(256, 16) {
            self.close_batch_if_possible(out);
        }
    }

    /// Whole chunks that found the open batch full come first into the next.
    fn take_overfull(&mut self) {
        while let Some((record, ..)) = self.overfull.front() {
            if !self.journal.open.fits(record.len(), 0) {
                return;
            }
            if let Some((record, op, entry)) = self.overfull.pop_front() {
                self.push_record(
                    record,
                    Act {
                        op,
                        entry,
                        buf: BufRef::default(),
                    },
                );
            }
        }
    }

    /// Puts marks that no record has yet into the space that the header takes anyway. What finds none there goes with a later
    /// batch, or the next checkpoint: a mark that is lost makes a window larger, and nothing wrong (R22).
    fn add_marks(&mut self) {
        while self.journal.open.has_slack(super::record::MARK_LEN)
            && let Some(mark) = self.replicas.next_mark()
        {
            self.journal.open.push(mark, Act::NOBODY);
        }
    }

    fn close_batch(&mut self, out: &mut Outbox) {
        if !self.journal.open.is_empty() {
            self.add_marks();
        }
        let (offset, previous) = self.journal.place();
        let wraps = self.journal.wraps;
        let open = &self.journal.open;
        let number = open.number;
        let header = Header {
            store: self.superblock.store,
            instance_key: self.superblock.instance_key,
            batch: number,
            offset,
            previous,
            payload_blocks: open.payload_blocks,
            tail: self.journal.tail,
            durable_through: self.journal.durable_through,
            incarnation: self.superblock.incarnation,
            checkpoint: self.durable_checkpoint,
        };
        let head = out.arena.len() as u32;
        let crc = encode(&header, open.records.iter(), &mut out.arena);
        let head = head..out.arena.len() as u32;
        let body = out.spans.len() as u32;
        out.spans.extend_from_slice(&open.spans);
        let body = body..out.spans.len() as u32;
        self.journal.close(crc);
        if self.journal.wraps != wraps {
            out.list
                .push(Output::Note(super::door::Note::JournalWrapped {
                    batch: number,
                }));
        }
        let durability = if self.breaks().on(Break::NoDsync) {
            Durability::Cached
        } else {
            Durability::Durable
        };
        let offset = self.superblock.geometry.journal_at + offset;
        self.stats.batches += 1;
        self.submit(Io::Batch { number }, out, |id| DiskOp::Write {
            id,
            offset,
            head,
            body,
            durability,
            kind: WriteKind::Journal,
        });
    }

    /// A batch is on disk. Those that are durable with all before them are carried out.
    pub(super) fn on_batch_written(&mut self, number: u64, ok: bool, out: &mut Outbox) {
        if !ok || self.is_failed() {
            return;
        }
        let flying = &mut self.journal.flying;
        if let Some(batch) = flying.iter_mut().find(|batch| batch.number == number) {
            batch.durable = true;
        }
        if self.options.breaks.on(Break::AckOutOfOrder)
            && let Some(at) = flying.iter().position(|batch| batch.durable)
        {
            flying.swap(0, at);
        }
        while self
            .journal
            .flying
            .front()
            .is_some_and(|batch| batch.durable)
        {
            let Some(mut batch) = self.journal.flying.pop_front() else {
                break;
            };
            self.journal.durable_through = self.journal.durable_through.max(batch.number);
            if !batch.is_empty() {
                self.quiet_at = Some(self.now + QUIET);
                self.idle = false;
            }
            let told_already = self.breaks().on(Break::AckBeforeDurable);
            for (record, act) in batch.records.drain(..).zip(batch.acts.drain(..)) {
                let told = told_already && matches!(record, Record::Data { .. });
                let op = act.op;
                let silent = told || op == Act::NOBODY.op;
                self.replicas.unreserve(self.replicas.cost(&record));
                self.replicas.take(&record);
                self.carry_out_written(record, act, batch.number, out);
                if !silent {
                    done(op, Ok(()), out);
                }
            }
            self.replicas.through = batch.number;
            self.journal.recycle(batch);
        }
        self.close_batch_if_possible(out);
        self.step_checkpoint(out);
    }

    fn carry_out_written(&mut self, record: Record, act: Act, batch: u64, out: &mut Outbox) {
        match record {
            Record::PutVolume(volume) => self.layers.put(*volume),
            Record::DropVolume(volume) => {
                self.layers.drop(volume);
                self.sweep = Some(Sweep::default());
            }
            Record::ZeroChunks { at, count, .. } => {
                let Some(leaf) = self.table.leaf_of(at.family, at.chunk.extent()) else {
                    return;
                };
                let first = at.chunk.in_extent();
                for place in first..first + count as usize {
                    if let Some(entry) = self.table.find(leaf, place, at.layer) {
                        self.end_issue(entry);
                    }
                }
                self.carry_out(leaf, &record, Origin::Written(act.buf), batch, out);
            }
            Record::Fence { .. } | Record::Mark { .. } => {}
            Record::DropReplica(pg) => self.drop_chunks(pg, batch, out),
            Record::Data { .. }
            | Record::Chunk { .. }
            | Record::Zero { .. }
            | Record::Fill(_)
            | Record::Mend(_) => {
                let Some((at, _)) = record.place() else {
                    return;
                };
                let Some(leaf) = self.table.leaf_of(at.family, at.chunk.extent()) else {
                    return;
                };
                self.end_issue(act.entry);
                self.carry_out(leaf, &record, Origin::Written(act.buf), batch, out);
            }
        }
    }

    /// An extent belongs to a PG as a whole: the one that its newest change names.
    #[inline]
    fn belongs(&mut self, leaf: LeafId, pg: PgId) {
        if self.table.leaf(leaf).pg != pg {
            self.table.set_pg(leaf, pg);
            let (family, extent) = (self.table.family_of(leaf), self.table.leaf(leaf).extent);
            self.listings.add(pg, family, extent);
        }
    }

    fn end_issue(&mut self, entry: EntryId) {
        if let Some(overlay) = self.overlays.get_mut(entry) {
            overlay.issued -= 1;
        }
    }

    /// Changes the table by a durable record of a loaded extent.
    pub(super) fn carry_out(
        &mut self,
        leaf: LeafId,
        record: &Record,
        origin: Origin,
        batch: u64,
        out: &mut Outbox,
    ) {
        self.mark_dirty(leaf);
        if let Some((_, pg)) = record.place()
            && !matches!(record, Record::Mend(_))
        {
            self.belongs(leaf, pg);
        }
        match record {
            Record::Data {
                at,
                run,
                slot,
                stamp,
                crcs,
                ..
            } => {
                self.carry_out_data(leaf, *at, (*run, *slot, *stamp), crcs, origin, batch, out);
            }
            Record::Chunk {
                at,
                slot,
                stamp,
                crcs,
                ..
            } => {
                self.carry_out_chunk(leaf, *at, *slot, *stamp, crcs, out);
            }
            Record::Zero {
                at,
                run,
                stamp,
                empty,
                ..
            } => {
                self.carry_out_zero(leaf, *at, run.mask(), (*stamp, *empty), out);
            }
            Record::ZeroChunks {
                at,
                count,
                stamp,
                empty,
                ..
            } => {
                let first = at.chunk.in_extent();
                for place in first..first + *count as usize {
                    let at = ChunkId {
                        chunk: at.chunk.extent().chunk(place),
                        ..*at
                    };
                    let last = place + 1 == first + *count as usize;
                    let short = last && self.breaks().on(Break::OffByOneRange);
                    let mask = if short { u16::MAX >> 1 } else { u16::MAX };
                    self.carry_out_zero(leaf, at, mask, (*stamp, *empty), out);
                }
            }
            Record::Fill(fill) => self.carry_out_fill(leaf, fill, origin, batch, out),
            Record::Mend(mend) => self.carry_out_mend(leaf, mend, origin, batch, out),
            Record::DropReplica(_) => self.empty_leaf(leaf, out),
            Record::PutVolume(_) | Record::DropVolume(_) => {}
            Record::Fence { .. } | Record::Mark { .. } => {}
        }
    }

    #[allow(clippy::too_many_arguments)] // the parts of one record, which a struct would only rename
    fn carry_out_data(
        &mut self,
        leaf: LeafId,
        at: ChunkId,
        (run, slot, stamp): (BlockRun, u32, Stamp),
        crcs: &[u32; 16],
        origin: Origin,
        batch: u64,
        out: &mut Outbox,
    ) {
        let place = at.chunk.in_extent();
        let entry = match self.table.find(leaf, place, at.layer) {
            Some(entry) => entry,
            None => self.table.add_entry(leaf, place, at.layer),
        };
        match run.is_whole() {
            true => self.table.set_stamp(leaf, entry, stamp),
            false => self.table.raise_stamp(leaf, entry, stamp),
        }
        self.table.entry_mut(entry).flags &= !TOMBSTONE;
        if let Origin::Replayed { .. } = origin {
            // The page may be older or newer than this record; the last record's slot is the right one.
            let found = self.table.entry_mut(entry);
            if found.data != 0 {
                found.slot = slot;
            }
        }
        self.supersede(entry, run.mask(), out);
        self.overlay_of(entry, leaf, at).slot = slot;
        for (n, block) in run.blocks().enumerate() {
            let source = match origin {
                Origin::Written(buf) => Source::Memory(buf.plus(n as u32)),
                Origin::Replayed { payload, .. } => Source::Journal(payload + n as u64 * 4096),
            };
            let overlay = self.overlay_of(entry, leaf, at);
            overlay.take(block, source, crcs[n], batch);
            if let Origin::Replayed { lost, .. } = origin
                && lost & (1 << n) != 0
            {
                // Its checksum stays, over a slot that does not match it: a read fails, as it should.
                self.settle_block(entry, block, out);
            }
        }
        self.queue_apply(entry);
    }

    fn carry_out_chunk(
        &mut self,
        leaf: LeafId,
        at: ChunkId,
        slot: u32,
        stamp: Stamp,
        crcs: &[u32; 16],
        out: &mut Outbox,
    ) {
        let place = at.chunk.in_extent();
        let entry = match self.table.find(leaf, place, at.layer) {
            Some(entry) => entry,
            None => self.table.add_entry(leaf, place, at.layer),
        };
        self.supersede(entry, u16::MAX, out);
        self.table.set_stamp(leaf, entry, stamp);
        let found = self.table.entry_mut(entry);
        found.flags &= !TOMBSTONE;
        let mut old = found.slot;
        found.slot = slot;
        found.data = u16::MAX;
        found.zero = 0;
        found.crcs = *crcs;
        if let Some(overlay) = self.overlays.get_mut(entry) {
            if old == NO_SLOT {
                old = overlay.slot;
            }
            overlay.slot = slot;
        }
        if old != NO_SLOT && old != slot {
            self.free_slot(old, out);
        }
        self.drop_idle(leaf, place, entry, out);
    }

    fn carry_out_zero(
        &mut self,
        leaf: LeafId,
        at: ChunkId,
        mask: u16,
        (stamp, empty): (Stamp, Empty),
        out: &mut Outbox,
    ) {
        let place = at.chunk.in_extent();
        let falls_through = self.breaks().on(Break::DiscardFallsThrough);
        let has_parent = self
            .layers
            .get(at.layer)
            .is_some_and(|layer| layer.has_parent())
            && !falls_through;
        let entry = match self.table.find(leaf, place, at.layer) {
            Some(entry) => entry,
            None if has_parent || empty == Empty::Tombstone => {
                self.table.add_entry(leaf, place, at.layer)
            }
            None => return,
        };
        self.supersede(entry, mask, out);
        self.table.raise_stamp(leaf, entry, stamp);
        let found = self.table.entry_mut(entry);
        found.data &= !mask;
        found.zero = if has_parent {
            found.zero | mask
        } else {
            found.zero & !mask
        };
        found.flags &= !TOMBSTONE;
        if empty == Empty::Tombstone {
            found.flags |= TOMBSTONE;
        }
        self.give_slot_back_if_empty(entry, out);
        self.drop_idle(leaf, place, entry, out);
    }

    /// Of a chunk without data the slot is free, unless a write goes there.
    pub(super) fn give_slot_back_if_empty(&mut self, entry: EntryId, out: &mut Outbox) {
        let found = self.table.entry(entry);
        if found.data == 0 {
            let slot = found.slot;
            let wanted = self
                .overlays
                .get(entry)
                .is_some_and(|o| o.pending != 0 || o.issued != 0);
            let taken = self
                .overlays
                .get(entry)
                .map_or(NO_SLOT, |overlay| overlay.slot);
            let freed = if slot != NO_SLOT { slot } else { taken };
            if !wanted {
                self.table.entry_mut(entry).slot = NO_SLOT;
                if let Some(overlay) = self.overlays.get_mut(entry) {
                    overlay.slot = NO_SLOT;
                }
                if freed != NO_SLOT {
                    self.free_slot(freed, out);
                }
            } else {
                // A write that is under way goes to this slot: it stays with the overlay.
                self.table.entry_mut(entry).slot = NO_SLOT;
            }
        }
    }

    /// A slot that a durable record freed. While an extent is being loaded, slots are only
    /// counted when its last record is carried out.
    pub(super) fn free_slot(&mut self, slot: u32, out: &mut Outbox) {
        if !self.loader.is_installing() {
            self.release_slot(slot, out);
        }
    }

    /// Blocks of `mask` in the overlay are not the newest any more: they need not be applied.
    pub(super) fn supersede(&mut self, entry: EntryId, mask: u16, out: &mut Outbox) {
        let Some(overlay) = self.overlays.get_mut(entry) else {
            return;
        };
        let gone = overlay.pending & mask;
        overlay.pending &= !mask;
        for block in BlockRun::runs_of(gone).flat_map(BlockRun::blocks) {
            let Some(overlay) = self.overlays.get(entry) else {
                return;
            };
            self.journal.kept_mut(overlay.batch[block as usize]).pending -= 1;
            if let Source::Memory(buf) = overlay.source(block) {
                out.list.push(Output::Unpin { buf, blocks: 1 });
                self.memory_blocks -= 1;
            }
        }
    }

    /// A block of the overlay is in its slot: its checksum goes into the entry.
    pub(super) fn settle_block(&mut self, entry: EntryId, block: u32, out: &mut Outbox) {
        let Some(overlay) = self.overlays.get(entry) else {
            return;
        };
        let (crc, slot, leaf) = (overlay.crc[block as usize], overlay.slot, overlay.leaf);
        let found = self.table.entry_mut(entry);
        debug_assert!(
            found.slot == NO_SLOT || found.slot == slot,
            "a chunk has one slot"
        );
        found.slot = slot;
        found.data |= 1 << block;
        found.zero &= !(1 << block);
        found.crcs[block as usize] = crc;
        self.supersede(entry, 1 << block, out);
        self.mark_dirty(leaf);
    }

    /// The next checkpoint writes this leaf's pages.
    pub(super) fn mark_dirty(&mut self, leaf: LeafId) {
        let found = self.table.leaf_mut(leaf);
        if !found.dirty {
            found.dirty = true;
            self.dirty.push(leaf);
        }
    }

    /// Nothing was written for a while: the journal is closed, and what it holds is applied.
    pub(super) fn on_quiet(&mut self, out: &mut Outbox) {
        if !matches!(self.state, super::engine::State::Open) {
            return;
        }
        self.idle = true;
        if self.journal.unclosed && self.journal.open.is_empty() && self.journal.can_close() {
            self.close_batch(out);
        }
        self.step_apply(out);
    }
}
