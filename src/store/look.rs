//! Looks into the table that read no data: whether a write would take a slot, and what a layer holds of a chunk.
//!
//! A page may have to be loaded for it. A look tells what is durable, applied or not; but a slot that a write by way of the journal has taken counts as the
//! chunk's own while that is in flight. One of a whole chunk counts only when it is recorded.

use super::door::{ChunkId, Holding, Outbox, Output, StoreError, StoreOp, Takes};
use super::engine::{Ask, Store, done};
use super::page::NO_SLOT;
use super::table::{EntryId, LeafId, LeafState};
use crate::base::Break;

/// What is there of a chunk.
pub(super) enum Sought<T> {
    Here(T),
    /// It cannot be told.
    Never(StoreError),
    /// Its extent has to be loaded.
    Later(LeafId),
}

impl Store {
    /// The extent of a chunk, loaded; `None`: there is none. Not for reads, which have their own: it is measured.
    pub(super) fn reach(&self, at: ChunkId) -> Sought<Option<LeafId>> {
        if !self.layers.has(at.layer, at.family) {
            return Sought::Never(StoreError::NoSuchLayer);
        }
        let Some(leaf) = self.table.leaf_of(at.family, at.chunk.extent()) else {
            return Sought::Here(None);
        };
        match self.table.leaf(leaf).state {
            LeafState::Loaded => Sought::Here(Some(leaf)),
            LeafState::Damaged => Sought::Never(StoreError::Torn),
            LeafState::Unloaded | LeafState::Loading => Sought::Later(leaf),
        }
    }

    fn seek(&self, at: ChunkId) -> Sought<Option<EntryId>> {
        let find = |leaf| self.table.find(leaf, at.chunk.in_extent(), at.layer);
        match self.reach(at) {
            Sought::Here(leaf) => Sought::Here(leaf.and_then(find)),
            Sought::Never(why) => Sought::Never(why),
            Sought::Later(leaf) => Sought::Later(leaf),
        }
    }

    pub(super) fn on_look(&mut self, op: StoreOp, at: ChunkId, out: &mut Outbox) {
        let entry = match self.seek(at) {
            Sought::Here(entry) => entry,
            Sought::Never(why) => return done(op, Err(why), out),
            Sought::Later(leaf) => return self.load_for(leaf, Ask::Look { op, at }, out),
        };
        let takes = match entry.is_some_and(|entry| self.has_slot(entry)) {
            true => Takes::Nothing,
            false if self.breaks().on(Break::LookPastSlots) && entry.is_some() => Takes::Nothing,
            false => Takes::Slot,
        };
        out.list.push(Output::Looked { op, takes });
    }

    pub(super) fn on_inspect(&mut self, op: StoreOp, at: ChunkId, out: &mut Outbox) {
        let entry = match self.seek(at) {
            Sought::Here(entry) => entry,
            Sought::Never(why) => return done(op, Err(why), out),
            Sought::Later(leaf) => return self.load_for(leaf, Ask::Inspect { op, at }, out),
        };
        let holding = entry.and_then(|entry| self.held(entry)).map(|holding| {
            out.holdings.push(holding);
            out.holdings.len() as u32 - 1
        });
        out.list.push(Output::Inspected { op, holding });
    }

    /// Where a block of data lies in its slot, in bytes of the disk, for who wants to damage it there; `None`: it waits to be applied, or is none.
    #[cfg(feature = "sim")]
    pub fn place_of(&self, at: ChunkId, block: u32) -> Option<u64> {
        let Sought::Here(Some(entry)) = self.seek(at) else {
            return None;
        };
        let found = self.table.entry(entry);
        let overlay = self.overlays.get(entry);
        let on_its_way = overlay.map_or(0, |overlay| overlay.pending | overlay.applying);
        let is_here = found.data & !on_its_way & 1 << block != 0;
        let slot_at = self.superblock.geometry.slot_at(found.slot);
        is_here.then_some(slot_at + u64::from(block) * crate::base::BLOCK)
    }

    /// All that is held of a PG, for checkers that look at everything at once; what is not loaded is not among it.
    #[cfg(feature = "sim")]
    pub fn holdings(&self, pg: crate::base::PgId) -> Vec<(ChunkId, Holding)> {
        let mut all = Vec::new();
        for leaf in 0..self.table.leaf_bound() {
            if !self.table.is_leaf(leaf) || self.table.leaf(leaf).pg != pg {
                continue;
            }
            let (family, extent) = (self.table.family_of(leaf), self.table.leaf(leaf).extent);
            for place in 0..crate::base::CHUNKS_PER_EXTENT as usize {
                for entry in self.table.versions(leaf, place) {
                    let layer = self.table.layer_of(entry);
                    let chunk = extent.chunk(place);
                    let at = ChunkId {
                        family,
                        layer,
                        chunk,
                    };
                    all.extend(self.held(entry).map(|holding| (at, holding)));
                }
            }
        }
        all
    }

    /// Whether an entry has a slot, or a write by way of the journal has taken one for it.
    pub(super) fn has_slot(&self, entry: EntryId) -> bool {
        let taken = self.overlays.get(entry).map_or(NO_SLOT, |o| o.slot);
        self.table.entry(entry).slot != NO_SLOT || taken != NO_SLOT
    }

    /// What an entry says; `None` where it is there only because a change is on its way.
    pub(super) fn held(&self, entry: EntryId) -> Option<Holding> {
        let found = self.table.entry(entry);
        let overlay = self.overlays.get(entry);
        let pending = overlay.map_or(0, |overlay| overlay.pending);
        if found.data | found.zero | pending == 0 && !found.is_tombstone() {
            return None;
        }
        let crc = |place: usize| match (overlay, 1u16 << place) {
            (Some(overlay), bit) if pending & bit != 0 => overlay.crc[place],
            (_, bit) if found.data & bit != 0 => found.crcs[place],
            _ => 0,
        };
        Some(Holding {
            data: found.data | pending,
            zero: found.zero & !pending,
            stamp: self.table.stamp_of(entry),
            crcs: std::array::from_fn(crc),
        })
    }
}
