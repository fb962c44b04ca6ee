//! Changes: writes, zeroes, and records of volumes, from their admission until they stand in a batch.
//!
//! A write smaller than a chunk goes into the open batch with its payload. A whole chunk is written durably to a fresh
//! slot first, and only then recorded, so that replay never reads a slot. Slots and table pages are
//! reserved here: what was admitted cannot run out of space any more.

use super::door::{
    ChunkId, DiskOp, Durability, Outbox, Output, Span, Stamp, StoreError, StoreOp, WriteKind,
};
use super::engine::{Ask, ChunkWrite, Io, Store, done};
use super::journal::Act;
use super::page::{ENTRIES_PER_PAGE, NO_SLOT};
use super::record::{Empty, FENCES_MAX, Payload, Record, fill_len};
use super::table::{EntryId, LeafId, LeafState, OVERLAID};
use crate::base::{BLOCK, BlockRun, Break, BufRef, CHUNKS_PER_EXTENT, LayerId, PgId, VolumeId};

/// Whole chunks that one write to the disk carries: 1 MiB.
const CHUNKS_OF_WRITE_MAX: usize = 16;
/// Why there is no room for a change.
pub(super) enum Short {
    /// Slots or pages are on their way back, or are not counted yet: it waits.
    Now,
    /// It is refused.
    Ever,
}

/// What a slot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// A chunk that has one, which is given back.
    Overwrite,
    /// New space of a PG that is not replicated.
    New,
    /// New space of a replica in sync: it was asked about before.
    InSync,
    /// New space of a joiner, and what is filled.
    Joiner,
}

/// What a change says of itself: its PG, its range, its stamp.
type Whose = (PgId, Option<VolumeId>, Stamp);

/// Whether a frozen layer takes a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frozen {
    Taken,
    Refused,
}

/// A write that has to wait.
fn waiting(
    (op, at, (pg, range, stamp)): (StoreOp, ChunkId, Whose),
    (run, buf): (BlockRun, BufRef),
    crcs: [u32; 16],
) -> Ask {
    Ask::Write {
        op,
        at,
        run,
        buf,
        crcs,
        pg,
        range,
        stamp,
    }
}

/// The entry of a record that has none.
pub(super) const NO_ENTRY: EntryId = u32::MAX;

impl Store {
    /// Starts a change, or puts it where it waits: for its extent to be loaded, for memory, for the journal.
    pub(super) fn on_change(&mut self, ask: Ask, out: &mut Outbox) {
        if !self.has_room_for(&ask) {
            self.stalled.push_back(ask);
            return;
        }
        match &ask {
            Ask::Write { at, pg, .. }
            | Ask::Zero { at, pg, .. }
            | Ask::ZeroChunks { at, pg, .. } => self.change_chunk(*at, *pg, ask, out),
            Ask::Fill { fill, .. } => self.change_chunk(fill.at, fill.pg, ask, out),
            Ask::Mend { .. } => self.on_mend(ask, out),
            Ask::Fence { .. } | Ask::DropReplica { .. } => self.change_replica(ask, out),
            _ => self.change_volume(ask, out),
        }
    }

    #[inline]
    fn change_chunk(&mut self, at: ChunkId, pg: PgId, ask: Ask, out: &mut Outbox) {
        let frozen = match &ask {
            // A layer that is frozen at its coordinator is filled all the same, and recovery writes again what all have (R21): what may change it is for the
            // replica's fences to say.
            Ask::Fill { .. }
            | Ask::Write { range: Some(_), .. }
            | Ask::Zero { range: Some(_), .. }
            | Ask::ZeroChunks { range: Some(_), .. } => Frozen::Taken,
            _ => Frozen::Refused,
        };
        match self.writable_leaf(at, pg, frozen) {
            Err(why) => done(ask.op(), Err(why), out),
            Ok(leaf) => match self.table.leaf(leaf).state {
                LeafState::Loaded => self.change_loaded(leaf, ask, out),
                LeafState::Damaged => done(ask.op(), Err(StoreError::Torn), out),
                LeafState::Unloaded | LeafState::Loading => self.load_for(leaf, ask, out),
            },
        }
    }

    /// Tries those that wait, in their order, until one has to wait on.
    pub(super) fn retry_stalled(&mut self, out: &mut Outbox) {
        // Each once: one that lacks a slot goes to the end of the queue, and others may still go on.
        for _ in 0..self.stalled.len() {
            if !self
                .stalled
                .front()
                .is_some_and(|ask| self.has_room_for(ask))
            {
                return;
            }
            if let Some(ask) = self.stalled.pop_front() {
                self.admit(ask, out);
            }
            self.close_batch_if_full(out);
        }
    }

    /// Whether memory and the open batch have room for a change.
    fn has_room_for(&self, ask: &Ask) -> bool {
        let (record_len, payload) = match ask {
            Ask::Write { run, .. } if !run.is_whole() => (256, run.count()),
            Ask::Fill { fill, .. } => (
                fill_len(fill.data, fill.window.len()),
                match fill.payload {
                    Payload::Batch => fill.data.count_ones(),
                    Payload::Slot => 0,
                },
            ),
            Ask::Mend { mend, .. } => (fill_len(mend.blocks, 0), mend.blocks.count_ones()),
            Ask::PutVolume { volume, .. } => (super::root::volume_len(volume) + 16, 0),
            // A fence too long is refused when it is looked at.
            Ask::Fence { fences, .. } => (32 + fences.len().min(FENCES_MAX) * 24, 0),
            _ => (256, 0),
        };
        self.has_room(record_len, payload)
    }

    /// The same for a record of so many bytes, with so many blocks of payload.
    fn has_room(&self, record_len: usize, payload: u32) -> bool {
        let memory = (self.memory_blocks + u64::from(payload)) * BLOCK;
        self.journal.open.fits(record_len, payload)
            && (payload == 0 || memory <= self.options.overlay_bytes)
    }

    /// The leaf for a change of the chunk `at`; it is made where there is none.
    fn writable_leaf(
        &mut self,
        at: ChunkId,
        pg: PgId,
        frozen: Frozen,
    ) -> Result<LeafId, StoreError> {
        let layer = self.layers.get(at.layer).ok_or(StoreError::NoSuchLayer)?;
        let takes = !layer.frozen || frozen == Frozen::Taken;
        if !takes || layer.family != at.family {
            return Err(StoreError::NoSuchLayer);
        }
        let extent = at.chunk.extent();
        Ok(match self.table.leaf_of(at.family, extent) {
            Some(leaf) => leaf,
            None => {
                let leaf = self
                    .table
                    .add_leaf((at.family, extent), pg, LeafState::Loaded);
                self.listings.add(pg, at.family, extent);
                leaf
            }
        })
    }

    fn change_loaded(&mut self, leaf: LeafId, ask: Ask, out: &mut Outbox) {
        if !self.has_window_for(&ask) {
            // The extent may have been made for this: the next checkpoint looks whether it is needed.
            self.mark_dirty(leaf);
            return done(ask.op(), Err(StoreError::Busy), out);
        }
        match ask {
            Ask::Write {
                op,
                at,
                run,
                buf,
                crcs,
                pg,
                range,
                stamp,
            } => {
                let of = (op, at, (pg, range, stamp));
                match run.is_whole() {
                    true => self.write_chunk(leaf, of, buf, crcs, out),
                    false => self.write_blocks(leaf, of, (run, buf), crcs, out),
                }
            }
            Ask::Zero {
                op,
                at,
                run,
                pg,
                range,
                stamp,
            } => {
                self.zero_blocks(leaf, (op, at, (pg, range, stamp)), run, out);
            }
            Ask::ZeroChunks {
                op,
                at,
                count,
                pg,
                range,
                stamp,
            } => {
                self.zero_chunks(leaf, (op, at, (pg, range, stamp)), count, out);
            }
            Ask::Fill { op, buf, fill } => self.fill(leaf, op, buf, fill, out),
            other => debug_assert!(false, "no change of a chunk: {other:?}"),
        }
    }

    /// Whether the window has room for a change, in the root of the next checkpoint too.
    #[inline]
    fn has_window_for(&self, ask: &Ask) -> bool {
        let (pg, range, entries) = match ask {
            Ask::Write { pg, range, .. } | Ask::Zero { pg, range, .. } => (*pg, *range, 1),
            Ask::ZeroChunks {
                pg, range, count, ..
            } => (*pg, *range, *count),
            Ask::Fill { fill, .. } => (fill.pg, fill.range, fill.window.len() as u32),
            _ => return true,
        };
        self.replicas.has_room(pg, range, entries)
    }

    /// Puts a record of a change into the open batch.
    #[inline]
    pub(super) fn push_record(&mut self, record: Record, act: Act) {
        self.replicas.reserve(self.replicas.cost(&record));
        self.journal.open.push(record, act);
    }

    /// What becomes of a chunk of a PG in which a change of this stamp leaves nothing.
    pub(super) fn empty_of(&self, pg: PgId, stamp: Stamp) -> Empty {
        match self.replicas.may_forget(pg, stamp) {
            true => Empty::Forgotten,
            false => Empty::Tombstone,
        }
    }

    /// A small write: into the open batch, its payload pinned until it is applied.
    fn write_blocks(
        &mut self,
        leaf: LeafId,
        (op, at, whose): (StoreOp, ChunkId, Whose),
        (run, buf): (BlockRun, BufRef),
        crcs: [u32; 16],
        out: &mut Outbox,
    ) {
        let (pg, range, stamp) = whose;
        let reserved = self.reserve_entry(leaf, at).and_then(|entry| {
            let slot = self
                .overlays
                .get(entry)
                .map_or(NO_SLOT, |overlay| overlay.slot);
            let kept = if slot == NO_SLOT {
                self.table.entry(entry).slot
            } else {
                slot
            };
            let kept = if kept == NO_SLOT {
                self.new_slot(self.new_space_of(pg))?
            } else {
                kept
            };
            Ok((entry, kept))
        });
        let (entry, slot) = match reserved {
            Ok(reserved) => reserved,
            Err(short) => {
                let ask = waiting((op, at, whose), (run, buf), crcs);
                return self.put_off(leaf, at, short, ask, out);
            }
        };
        let push = |store: &mut Store, op: StoreOp, run: BlockRun, out: &mut Outbox| {
            let overlay = store.overlay_of(entry, leaf, at);
            overlay.slot = slot;
            overlay.issued += 1;
            out.list.push(Output::Pin {
                buf,
                blocks: run.count(),
            });
            store.memory_blocks += u64::from(run.count());
            let record = Record::Data {
                at,
                run,
                slot,
                pg,
                range,
                stamp,
                crcs,
            };
            store.push_record(record, Act { op, entry, buf });
        };
        if self.breaks().on(Break::TearWrite) && self.journal.can_close() {
            let first = run.blocks().start;
            if let Some(first) = BlockRun::new(first, 1).filter(|_| run.count() > 1) {
                push(self, Act::NOBODY.op, first, out);
                self.close_batch_if_possible(out);
            }
        }
        push(self, op, run, out);
        if self.breaks().on(Break::AckBeforeDurable) {
            done(op, Ok(()), out);
        }
        self.close_batch_if_full(out);
    }

    /// A whole chunk: its payload durably into a fresh slot, the record when it is there.
    fn write_chunk(
        &mut self,
        leaf: LeafId,
        (op, at, whose): (StoreOp, ChunkId, Whose),
        buf: BufRef,
        crcs: [u32; 16],
        out: &mut Outbox,
    ) {
        let (pg, range, stamp) = whose;
        let reserved = self.reserve_entry(leaf, at).and_then(|entry| {
            let what = match self.table.entry(entry).slot != NO_SLOT {
                true => For::Overwrite,
                false => self.new_space_of(pg),
            };
            Ok((entry, self.new_slot(what)?))
        });
        if let Err(Short::Ever) = reserved
            && let Some(entry) = self.table.find(leaf, at.chunk.in_extent(), at.layer)
            && self.has_slot(entry)
        {
            return self.overwrite_chunk(leaf, (op, at, whose), buf, crcs, out);
        }
        let (entry, slot) = match reserved {
            Ok(reserved) => reserved,
            Err(short) => {
                let ask = waiting((op, at, whose), (BlockRun::WHOLE, buf), crcs);
                return self.put_off(leaf, at, short, ask, out);
            }
        };
        self.overlay_of(entry, leaf, at).issued += 1;
        self.gather(
            ChunkWrite {
                op,
                at,
                entry,
                slot,
                buf,
                crcs,
                pg,
                range,
                stamp,
                fill: None,
                recorded: self.breaks().on(Break::RecordBeforeData),
            },
            out,
        );
    }

    /// A whole chunk over one that is there, on a disk without a free slot: by way of the journal, as smaller writes go.
    fn overwrite_chunk(
        &mut self,
        leaf: LeafId,
        of: (StoreOp, ChunkId, Whose),
        buf: BufRef,
        crcs: [u32; 16],
        out: &mut Outbox,
    ) {
        let run = BlockRun::WHOLE;
        match self.has_room(256, run.count()) {
            true => self.write_blocks(leaf, of, (run, buf), crcs, out),
            false => self.stalled.push_back(waiting(of, (run, buf), crcs)),
        }
    }

    /// Puts a whole chunk to those that are written together.
    pub(super) fn gather(&mut self, write: ChunkWrite, out: &mut Outbox) {
        if write.recorded {
            self.record_chunk(&write, out);
        }
        let joins = self
            .gathered
            .last()
            .is_none_or(|last| last.slot + 1 == write.slot);
        if !joins {
            self.write_gathered(out);
        }
        self.gathered.push(write);
        if self.gathered.len() == CHUNKS_OF_WRITE_MAX {
            self.write_gathered(out);
        }
    }

    /// Writes the whole chunks that were gathered: their slots lie side by side, so it is one durable
    /// write, where sixteen would each wait for the medium.
    pub(super) fn write_gathered(&mut self, out: &mut Outbox) {
        let Some(first) = self.gathered.first() else {
            return;
        };
        let offset = self.superblock.geometry.slot_at(first.slot);
        let cached = first.recorded || self.breaks().on(Break::NoDsync);
        let durability = if cached {
            Durability::Cached
        } else {
            Durability::Durable
        };
        let start = out.spans.len() as u32;
        out.spans.extend(self.gathered.iter().map(|write| Span {
            buf: write.buf,
            blocks: 16,
        }));
        let body = start..out.spans.len() as u32;
        let writes = std::mem::take(&mut self.gathered);
        self.submit(Io::Chunks(writes), out, |id| DiskOp::Write {
            id,
            offset,
            head: 0..0,
            body,
            durability,
            kind: WriteKind::Payload,
        });
    }

    /// The payload of whole chunks is durable in their slots: now they are recorded.
    pub(super) fn on_chunks_written(
        &mut self,
        writes: Vec<ChunkWrite>,
        ok: bool,
        out: &mut Outbox,
    ) {
        for write in writes {
            if !ok || self.is_failed() {
                done(write.op, Err(StoreError::DiskFailed), out);
            } else if !write.recorded {
                self.record_chunk(&write, out);
            }
        }
    }

    fn record_chunk(&mut self, write: &ChunkWrite, out: &mut Outbox) {
        let ChunkWrite {
            op,
            at,
            entry,
            slot,
            crcs,
            pg,
            range,
            stamp,
            ..
        } = *write;
        let record = match &write.fill {
            Some(fill) => Record::Fill(fill.clone()),
            None => Record::Chunk {
                at,
                slot,
                pg,
                range,
                stamp,
                crcs,
            },
        };
        if !self.journal.open.fits(record.len(), 0) {
            self.overfull.push_back((record, op, entry));
            return;
        }
        self.push_record(
            record,
            Act {
                op,
                entry,
                buf: BufRef::default(),
            },
        );
        self.close_batch_if_full(out);
    }

    /// Zeroes of some blocks of one chunk.
    fn zero_blocks(
        &mut self,
        leaf: LeafId,
        (op, at, whose): (StoreOp, ChunkId, Whose),
        run: BlockRun,
        out: &mut Outbox,
    ) {
        let (pg, range, stamp) = whose;
        let empty = self.empty_of(pg, stamp);
        // Of a replicated PG there is a record in any case: the change is in a window.
        let keeps = self.has_parent(at.layer) || self.replicas.has(pg);
        let found = self.table.find(leaf, at.chunk.in_extent(), at.layer);
        if found.is_none() && !keeps {
            // Nothing is there to hide and nothing to give back, durably so.
            return done(op, Ok(()), out);
        }
        let entry = match self.reserve_entry(leaf, at) {
            Ok(entry) => entry,
            Err(short) => {
                let ask = Ask::Zero {
                    op,
                    at,
                    run,
                    pg,
                    range,
                    stamp,
                };
                return self.put_off(leaf, at, short, ask, out);
            }
        };
        self.overlay_of(entry, leaf, at).issued += 1;
        let buf = BufRef::default();
        let record = Record::Zero {
            at,
            run,
            pg,
            range,
            stamp,
            empty,
        };
        self.push_record(record, Act { op, entry, buf });
        self.close_batch_if_full(out);
    }

    /// Zeroes of whole chunks of one extent.
    fn zero_chunks(
        &mut self,
        leaf: LeafId,
        (op, at, whose): (StoreOp, ChunkId, Whose),
        count: u32,
        out: &mut Outbox,
    ) {
        let first = at.chunk.in_extent();
        assert!(
            first + count as usize <= CHUNKS_PER_EXTENT as usize,
            "chunks of one extent"
        );
        let (pg, range, stamp) = whose;
        let empty = self.empty_of(pg, stamp);
        // Of a replicated PG there is a record in any case: the change is in a window.
        let keeps = self.has_parent(at.layer) || self.replicas.has(pg);
        let mut touched = 0;
        for place in first..first + count as usize {
            let one = ChunkId {
                chunk: at.chunk.extent().chunk(place),
                ..at
            };
            if !keeps && self.table.find(leaf, place, at.layer).is_none() {
                continue;
            }
            match self.reserve_entry(leaf, one) {
                Ok(entry) => self.overlay_of(entry, leaf, one).issued += 1,
                Err(short) => {
                    self.unissue(leaf, at.layer, first..place, out);
                    let ask = Ask::ZeroChunks {
                        op,
                        at,
                        count,
                        pg,
                        range,
                        stamp,
                    };
                    return self.put_off(leaf, at, short, ask, out);
                }
            }
            touched += 1;
        }
        if touched == 0 {
            return done(op, Ok(()), out);
        }
        let act = Act {
            op,
            entry: NO_ENTRY,
            buf: BufRef::default(),
        };
        let record = Record::ZeroChunks {
            at,
            count,
            pg,
            range,
            stamp,
            empty,
        };
        self.push_record(record, act);
        self.close_batch_if_full(out);
    }

    /// Takes back what [`Store::zero_chunks`] had reserved.
    fn unissue(
        &mut self,
        leaf: LeafId,
        layer: LayerId,
        places: std::ops::Range<usize>,
        out: &mut Outbox,
    ) {
        for place in places {
            if let Some(entry) = self.table.find(leaf, place, layer) {
                if let Some(overlay) = self.overlays.get_mut(entry) {
                    overlay.issued -= 1;
                }
                self.drop_idle(leaf, place, entry, out);
            }
        }
    }

    fn change_volume(&mut self, ask: Ask, out: &mut Outbox) {
        let (op, record) = match ask {
            Ask::PutVolume { op, volume } => {
                if let Err(why) = self.layers.check(&volume) {
                    return done(op, Err(why), out);
                }
                if self.layers.volumes.get(&volume.id) == Some(&*volume) {
                    return done(op, Ok(()), out);
                }
                (op, Record::PutVolume(volume))
            }
            Ask::DropVolume { op, volume } => {
                if !self.layers.volumes.contains_key(&volume) {
                    return done(op, Ok(()), out);
                }
                (op, Record::DropVolume(volume))
            }
            other => return debug_assert!(false, "no change of a volume: {other:?}"),
        };
        self.journal.open.push(
            record,
            Act {
                op,
                entry: NO_ENTRY,
                buf: BufRef::default(),
            },
        );
        self.close_batch_if_full(out);
    }

    /// Whether anything lies under a layer.
    pub(super) fn has_parent(&self, layer: LayerId) -> bool {
        self.layers
            .get(layer)
            .is_some_and(|layer| layer.has_parent())
    }

    /// The entry of a chunk; where it has none, one is made, with room for it in a table page.
    pub(super) fn reserve_entry(&mut self, leaf: LeafId, at: ChunkId) -> Result<EntryId, Short> {
        let place = at.chunk.in_extent();
        if let Some(entry) = self.table.find(leaf, place, at.layer) {
            return Ok(entry);
        }
        let entries = usize::from(self.table.leaf(leaf).entries) + 1;
        while usize::from(self.table.leaf(leaf).pages) * ENTRIES_PER_PAGE < entries {
            let Some(page) = self.free_pages.pop() else {
                let coming = self.are_pages_coming();
                return Err(self.short(coming));
            };
            self.table.push_page(leaf, page);
        }
        Ok(self.table.add_entry(leaf, place, at.layer))
    }

    /// Whether a checkpoint gives pages back: the one that is under way, or the next, which is wanted then.
    fn are_pages_coming(&mut self) -> bool {
        if self.checkpoint.frees_pages() {
            return true;
        }
        let table = &self.table;
        let is_spare = |&leaf: &LeafId| {
            let leaf = table.leaf(leaf);
            let needed = usize::from(leaf.entries).div_ceil(ENTRIES_PER_PAGE);
            leaf.state == LeafState::Loaded && usize::from(leaf.pages) > needed
        };
        self.checkpoint.wanted |= self.dirty.iter().any(is_spare);
        self.checkpoint.wanted
    }

    /// What becomes of a change for which there is no room now. A store that closes lets nothing wait.
    fn short(&self, coming: bool) -> Short {
        let is_open = matches!(self.state, super::engine::State::Open);
        match self.loader.may_find_slots() || (is_open && (coming || self.sweep.is_some())) {
            true => Short::Now,
            false => Short::Ever,
        }
    }

    /// A change that gets no slot or page now waits for one, or is refused.
    pub(super) fn put_off(
        &mut self,
        leaf: LeafId,
        at: ChunkId,
        short: Short,
        ask: Ask,
        out: &mut Outbox,
    ) {
        self.drop_if_empty(leaf, at, out);
        match short {
            Short::Now => self.stalled.push_back(ask),
            Short::Ever => done(ask.op(), Err(StoreError::NoSpace), out),
        }
    }

    /// What new space of a PG is.
    fn new_space_of(&self, pg: PgId) -> For {
        match self.replicas.get(pg) {
            None => For::New,
            Some(replica) if replica.session == 0 => For::InSync,
            Some(_) => For::Joiner,
        }
    }

    /// A slot for new data; the last of them are not for everything.
    pub(super) fn new_slot(&mut self, what: For) -> Result<u32, Short> {
        let kept = match what {
            For::Overwrite | For::InSync => 0,
            For::Joiner => self.allocator.reserve_of_joiners(),
            For::New => self.allocator.reserve(),
        };
        if self.allocator.available() > kept {
            // Where none is free at this moment, some are on their way back.
            return self.allocator.allocate().ok_or(Short::Now);
        }
        Err(self.short(false))
    }

    /// The overlay of an entry; where it has none, one is made.
    pub(super) fn overlay_of(
        &mut self,
        entry: EntryId,
        leaf: LeafId,
        at: ChunkId,
    ) -> &mut super::overlay::Overlay {
        if self.overlays.get(entry).is_none() {
            let slot = self.table.entry(entry).slot;
            self.table.entry_mut(entry).flags |= OVERLAID;
            self.overlays.add(entry, leaf, (at.chunk, at.layer), slot);
        }
        self.overlays.get_mut(entry).expect("it was just made")
    }

    /// Lets go of an entry that an admission made and then could not use.
    fn drop_if_empty(&mut self, leaf: LeafId, at: ChunkId, out: &mut Outbox) {
        // The next checkpoint looks at it, and gives back the leaf and pages that it does not need.
        self.mark_dirty(leaf);
        if let Some(entry) = self.table.find(leaf, at.chunk.in_extent(), at.layer) {
            self.drop_idle(leaf, at.chunk.in_extent(), entry, out);
        }
    }

    /// Lets go of an overlay that nothing keeps, and of an entry with nothing in it.
    pub(super) fn drop_idle(
        &mut self,
        leaf: LeafId,
        place: usize,
        entry: EntryId,
        out: &mut Outbox,
    ) {
        if let Some(overlay) = self.overlays.get(entry).filter(|overlay| overlay.is_idle()) {
            let slot = overlay.slot;
            self.overlays.remove(entry);
            let found = self.table.entry_mut(entry);
            found.flags &= !OVERLAID;
            if found.slot == NO_SLOT && slot != NO_SLOT {
                // All that was to go there was given up, as its layer was dropped.
                self.free_slot(slot, out);
            }
        }
        if self.table.entry(entry).is_empty() {
            self.table.remove_entry(leaf, place, entry);
        }
    }

    /// Zeroes free slots ahead of their use, so that a durable write does not wait for the file system.
    pub(super) fn zero_ahead(&mut self, out: &mut Outbox) {
        /// Kept zeroed: 64 MiB, a quarter of a second of the fastest writer seen.
        const AHEAD: u32 = 1024;
        const RUN: u32 = 64;
        if !self.options.zero_ahead
            || self.is_resting()
            || self.zeroing
            || self.allocator.free_now() >= AHEAD
        {
            return;
        }
        let Some((first, count)) = self.allocator.take_run(RUN) else {
            return;
        };
        self.zeroing = true;
        let offset = self.superblock.geometry.slot_at(first);
        let len = u64::from(count) * crate::base::CHUNK;
        self.submit(Io::ZeroRun { first, count }, out, |id| DiskOp::ZeroRun {
            id,
            offset,
            len,
        });
    }

    pub(super) fn is_failed(&self) -> bool {
        matches!(self.state, super::engine::State::Failed)
    }
}
