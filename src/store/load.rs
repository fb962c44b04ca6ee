//! Loading the table: an extent's pages when they are needed, and all of them in the background.
//!
//! What the journal holds for an extent waits with it, and is carried out over its pages in the order of
//! the batches, by the code that carried it out before the crash. Only then are the extent's slots counted.

use super::commit::Origin;
use super::door::{DiskFault, DiskOp, IoData, Note, Outbox, Output, StoreError, Torn};
use super::engine::{Ask, Io, State, Store, done};
use super::manifest::PageRef;
use super::page::{NO_SLOT, PageEntry, PageName, decode};
use super::record::Record;
use super::superblock::PAGE_LEN;
use super::table::{LeafId, LeafState, TOMBSTONE};
use crate::base::{Break, CHUNKS_PER_EXTENT, FixedMap, PgId};

/// Pages that the background reads at once.
const LOADS_MAX: u32 = 64;

/// A record that replay found, for an extent that is not loaded yet.
#[derive(Debug)]
pub(super) struct Replayed {
    pub batch: u64,
    pub record: Record,
    pub origin: Origin,
}

/// An extent whose pages are being read.
#[derive(Debug, Default)]
struct Loading {
    left: u16,
    again: u8,
    damaged: Option<u64>,
    entries: Vec<PageEntry>,
    waiting: Vec<Ask>,
}

#[derive(Debug, Default)]
pub(super) struct Loader {
    under_way: FixedMap<LeafId, Loading>,
    /// Of every extent that the journal says something of, in the order of the batches.
    replayed: FixedMap<LeafId, Vec<Replayed>>,
    /// Extents in the background's way that it has not come to.
    cursor: LeafId,
    /// One past the last leaf that was there when the store opened.
    bound: LeafId,
    /// Leaves that are not loaded.
    pub unloaded: u32,
    pub damaged: u32,
    installing: bool,
    finished: bool,
}

impl Loader {
    /// Begins with the leaves that recovery made.
    pub fn begin(&mut self, bound: LeafId, unloaded: u32) {
        self.bound = bound;
        self.unloaded = unloaded;
    }

    /// Keeps a record for its extent.
    pub fn keep(&mut self, leaf: LeafId, replayed: Replayed) {
        self.replayed.entry(leaf).or_default().push(replayed);
    }

    /// Whether the journal says that an extent was emptied.
    fn is_dropped(&self, leaf: LeafId) -> bool {
        let kept = self.replayed.get(&leaf).into_iter().flatten();
        kept.into_iter()
            .any(|kept| matches!(kept.record, Record::DropReplica(_)))
    }

    /// Whether slots may turn out to be free when the rest of the table is loaded.
    pub fn may_find_slots(&self) -> bool {
        !self.finished && self.damaged == 0
    }

    /// Whether every extent was looked at.
    pub fn is_loaded(&self) -> bool {
        self.finished
    }

    /// Whether an extent is being put together, so that slots are not given back.
    pub fn is_installing(&self) -> bool {
        self.installing
    }

    /// What waits for extents; nobody will answer it otherwise.
    pub fn take_waiting(&mut self) -> Vec<Ask> {
        let mut all: Vec<Ask> = self
            .under_way
            .values_mut()
            .flat_map(|loading| loading.waiting.drain(..))
            .collect();
        all.sort_by_key(Ask::op);
        all
    }
}

impl Store {
    /// Lets an operation wait for its extent.
    pub(super) fn load_for(&mut self, leaf: LeafId, ask: Ask, out: &mut Outbox) {
        self.start_load(leaf, out);
        if let Some(loading) = self.loader.under_way.get_mut(&leaf) {
            loading.waiting.push(ask);
        } else {
            // It had no pages, so it is there already.
            self.admit(ask, out);
        }
    }

    /// Loads in the background what nobody asked for yet.
    pub(super) fn step_loader(&mut self, out: &mut Outbox) {
        let takes_part = matches!(self.state, State::Open | State::Closing(..));
        if !takes_part || self.is_resting() || self.loader.finished {
            return;
        }
        while self.loader.under_way.len() < LOADS_MAX as usize
            && self.loader.cursor < self.loader.bound
        {
            let leaf = self.loader.cursor;
            self.loader.cursor += 1;
            if self.table.is_leaf(leaf) && self.table.leaf(leaf).state == LeafState::Unloaded {
                self.start_load(leaf, out);
            }
        }
        if self.loader.cursor >= self.loader.bound && self.loader.unloaded == 0 {
            self.loader.finished = true;
            if self.loader.damaged == 0 {
                self.allocator.complete();
            }
            let pages = self.pages.iter().flatten().count() as u32;
            out.list.push(Output::Note(Note::TableLoaded { pages }));
        }
    }

    /// Has an extent emptied when it is loaded, because its replica was dropped (R24).
    pub(super) fn keep_drop(&mut self, leaf: LeafId, pg: PgId, batch: u64) {
        self.journal.kept_mut(batch).pending += 1;
        let (payload, lost) = (0, 0);
        let dropped = Replayed {
            batch,
            record: Record::DropReplica(pg),
            origin: Origin::Replayed { payload, lost },
        };
        self.loader.keep(leaf, dropped);
    }

    /// An extent that could not be told is empty from now on, because its replica was dropped. Slots that it had are found
    /// by the next opening.
    pub(super) fn mend_leaf(&mut self, leaf: LeafId) {
        for place in 0..CHUNKS_PER_EXTENT as usize {
            let entries: Vec<_> = self.table.versions(leaf, place).collect();
            for entry in entries {
                self.overlays.remove(entry);
                self.table.remove_entry(leaf, place, entry);
            }
        }
        self.table.leaf_mut(leaf).state = LeafState::Loaded;
        self.mark_dirty(leaf);
        self.loader.damaged -= 1;
        if self.loader.finished && self.loader.damaged == 0 {
            self.allocator.complete();
        }
    }

    pub(super) fn start_load(&mut self, leaf: LeafId, out: &mut Outbox) {
        if self.table.leaf(leaf).state != LeafState::Unloaded {
            return;
        }
        self.table.leaf_mut(leaf).state = LeafState::Loading;
        let pages: Vec<u32> = self.table.pages_of(leaf).collect();
        let loading = Loading {
            left: pages.len() as u16,
            ..Loading::default()
        };
        self.loader.under_way.insert(leaf, loading);
        for index in 0..pages.len() {
            self.read_page(leaf, index as u16, out);
        }
        if pages.is_empty() {
            self.install(leaf, out);
        }
    }

    fn read_page(&mut self, leaf: LeafId, index: u16, out: &mut Outbox) {
        let found = self.table.pages_of(leaf).nth(usize::from(index));
        let page = found.expect("a leaf has the page that is read");
        let home = self.pages[page as usize].map_or(0, |page| page.home);
        let offset = self.superblock.geometry.page_at(page, home);
        self.submit(Io::Page { leaf, index }, out, |id| DiskOp::ReadMeta {
            id,
            offset,
            len: PAGE_LEN as u32,
        });
    }

    /// A page has come. One that is damaged is read once more before it is believed.
    pub(super) fn on_page_read(
        &mut self,
        leaf: LeafId,
        index: u16,
        result: Result<IoData<'_>, DiskFault>,
        out: &mut Outbox,
    ) {
        let page = self.table.pages_of(leaf).nth(usize::from(index));
        let page = page.expect("a leaf has the page that was read");
        let Some(of) = self.pages[page as usize] else {
            return;
        };
        let name = PageName {
            store: self.superblock.store,
            page,
            family: of.family,
            extent: of.extent,
            index: of.index,
            lsn: of.lsn,
            pg: of.pg,
        };
        let take_old = self.breaks().on(Break::TakeOldPage);
        let slots = self.superblock.geometry.slots;
        let Some(loading) = self.loader.under_way.get_mut(&leaf) else {
            return;
        };
        let right = match result {
            Ok(IoData::Bytes(bytes)) if take_old => {
                decode_any(bytes, &name, slots, &mut loading.entries)
            }
            Ok(IoData::Bytes(bytes)) => {
                decode(bytes, &name, of.crc, slots, &mut loading.entries).is_some()
            }
            _ => false,
        };
        if !right && loading.again < 2 {
            loading.again += 1;
            return self.read_page(leaf, index, out);
        }
        if !right {
            loading.damaged = Some(self.superblock.geometry.page_at(page, of.home));
        }
        loading.left -= 1;
        if loading.left == 0 {
            self.install(leaf, out);
        }
    }

    /// Puts an extent together from its pages and what the journal says of it.
    fn install(&mut self, leaf: LeafId, out: &mut Outbox) {
        let Some(mut loading) = self.loader.under_way.remove(&leaf) else {
            return;
        };
        self.loader.unloaded -= 1;
        // Nothing of what its pages say is left where its replica was dropped, so they need not be right either.
        if self.loader.is_dropped(leaf) {
            loading.damaged = None;
            loading.entries.clear();
        }
        if let Some(offset) = loading.damaged {
            return self.give_up(leaf, offset, loading, out);
        }
        self.table.leaf_mut(leaf).state = LeafState::Loaded;
        // Oldest first, so that the newest layer becomes the head of its chain.
        loading.entries.sort_by_key(|entry| entry.layer);
        for image in &loading.entries {
            let pg = self.table.leaf(leaf).pg;
            let is_tombstone = image.data | image.zero == 0;
            let is_forgotten = is_tombstone && self.replicas.may_forget(pg, image.stamp);
            if !self.layers.is_alive(image.layer) {
                continue;
            }
            if is_forgotten {
                self.note_let_go(pg, image.stamp);
                continue;
            }
            let entry = self
                .table
                .add_entry(leaf, usize::from(image.place), image.layer);
            self.table.set_stamp(leaf, entry, image.stamp);
            let found = self.table.entry_mut(entry);
            found.slot = image.slot;
            found.data = image.data;
            found.zero = image.zero;
            found.dirty = image.dirty;
            found.crcs = image.crcs;
            found.flags |= if is_tombstone { TOMBSTONE } else { 0 };
        }
        self.carry_out_replayed(leaf, out);
        if !self.count_slots(leaf) {
            let page = self.table.pages_of(leaf).next().unwrap_or(0);
            let offset = self.superblock.geometry.page_at(page, 0);
            return self.give_up(leaf, offset, loading, out);
        }
        loading
            .waiting
            .drain(..)
            .for_each(|ask| self.admit(ask, out));
    }

    fn carry_out_replayed(&mut self, leaf: LeafId, out: &mut Outbox) {
        let Some(mut replayed) = self.loader.replayed.remove(&leaf) else {
            return;
        };
        if self.breaks().on(Break::ReplayTwice)
            && let Some(first) = replayed.first()
        {
            let again = Replayed {
                batch: first.batch,
                record: first.record.clone(),
                origin: first.origin,
            };
            self.journal.kept_mut(again.batch).pending += 1;
            replayed.push(again);
        }
        self.loader.installing = true;
        for Replayed {
            batch,
            record,
            origin,
        } in replayed
        {
            self.journal.kept_mut(batch).pending += record.payload_blocks();
            let alive = match record.place() {
                Some((at, _)) => self.layers.is_alive(at.layer),
                None => true, // the drop of a replica
            };
            if alive {
                self.carry_out(leaf, &record, origin, batch, out);
            } else {
                self.journal.kept_mut(batch).pending -= record.payload_blocks();
            }
            self.journal.kept_mut(batch).pending -= 1;
        }
        self.loader.installing = false;
        self.reserve_pages(leaf);
    }

    /// Entries that replay made need room in pages too. They had it before the crash, so it is there.
    fn reserve_pages(&mut self, leaf: LeafId) {
        let entries = usize::from(self.table.leaf(leaf).entries);
        while usize::from(self.table.leaf(leaf).pages) * super::page::ENTRIES_PER_PAGE < entries {
            let Some(page) = self.free_pages.pop() else {
                return;
            };
            self.table.push_page(leaf, page);
        }
    }

    /// Counts the slots of an extent as used; false where another extent has one of them.
    fn count_slots(&mut self, leaf: LeafId) -> bool {
        let mut right = true;
        for place in 0..CHUNKS_PER_EXTENT as usize {
            let entries: Vec<_> = self.table.versions(leaf, place).collect();
            for entry in entries {
                let own = self.table.entry(entry).slot;
                let slot = match self.overlays.get(entry) {
                    Some(overlay) if own == NO_SLOT => overlay.slot,
                    _ => own,
                };
                right &= slot == NO_SLOT
                    || (slot < self.allocator.mark() && self.allocator.mark_used(slot));
            }
        }
        right
    }

    /// An extent that cannot be told answers with errors from now on.
    fn give_up(&mut self, leaf: LeafId, offset: u64, loading: Loading, out: &mut Outbox) {
        self.table.leaf_mut(leaf).state = LeafState::Damaged;
        self.loader.damaged += 1;
        // Nothing of it will be applied, and the journal need not keep it. Then its pages must never
        // be taken again, should they become readable: they lack what the journal had.
        let replayed = self.loader.replayed.remove(&leaf).unwrap_or_default();
        if !replayed.is_empty() {
            self.condemn(leaf);
        }
        for Replayed { batch, .. } in replayed {
            self.journal.kept_mut(batch).pending -= 1;
        }
        for place in 0..CHUNKS_PER_EXTENT as usize {
            let entries: Vec<_> = self.table.versions(leaf, place).collect();
            entries
                .into_iter()
                .for_each(|entry| self.supersede(entry, u16::MAX, out));
        }
        let (family, extent) = (self.table.family_of(leaf), self.table.leaf(leaf).extent.0);
        out.list.push(Output::Note(Note::DamagedPage {
            family,
            extent,
            offset,
        }));
        out.list
            .push(Output::Torn(Torn::Pg(self.table.leaf(leaf).pg)));
        for ask in loading.waiting {
            done(ask.op(), Err(StoreError::Torn), out);
        }
    }
}

impl Store {
    /// Has the next manifest name the pages of an extent so that none on the disk can match.
    fn condemn(&mut self, leaf: LeafId) {
        if self.table.leaf(leaf).pages == 0
            && let Some(page) = self.free_pages.pop()
        {
            self.table.push_page(leaf, page);
        }
        let (family, extent) = (self.table.family_of(leaf), self.table.leaf(leaf).extent);
        let pg = self.table.leaf(leaf).pg;
        let pages: Vec<u32> = self.table.pages_of(leaf).collect();
        for (index, page) in (0..).zip(pages) {
            let home = self.pages[page as usize].map_or(0, |named| named.home);
            let lost = PageRef {
                family,
                extent,
                index,
                home,
                lsn: u64::MAX,
                crc: 0,
                pg,
            };
            self.name_page(page, Some(lost));
        }
    }
}

/// With the break `TakeOldPage`: any page of this extent, however old.
fn decode_any(bytes: &[u8], name: &PageName, slots: u64, entries: &mut Vec<PageEntry>) -> bool {
    let crc = bytes
        .get(8..12)
        .and_then(|crc| crc.try_into().ok())
        .map_or(0, u32::from_le_bytes);
    let lsn = bytes
        .get(48..56)
        .and_then(|lsn| lsn.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    decode(bytes, &PageName { lsn, ..*name }, crc, slots, entries).is_some()
}
