//! Checkpoints: the table goes to disk, and the journal's tail moves.
//!
//! In order: wait until every batch up to a target is applied; write the pages that changed, the manifest blocks
//! that name them and a root that names those, each into the home that the last checkpoint does not use;
//! flush once; write the superblock that names the root, one copy after the other. Before the first
//! copy is durable the old checkpoint holds; after it the new one does. Guests' I/O goes on throughout: a
//! page may hold what is newer than the target, because replay carries that out again.

use super::door::{
    Closing, DiskOp, Durability, Note, Outbox, Output, StoreError, StoreOp, WriteKind,
};
use super::engine::{Io, State, Store, done};
use super::manifest::{self, PageRef};
use super::page::{self, ENTRIES_PER_PAGE, NO_SLOT, PageEntry, PageName};
use super::root::{ManifestRef, Root};
use super::superblock::{PAGES_PER_MANIFEST_BLOCK, SUPERBLOCK_AT, Superblock};
use super::table::{LeafId, LeafState};
use crate::base::{Break, CHUNK, CHUNKS_PER_EXTENT};
use std::collections::BTreeSet;

/// Pages in flight at once, so that a checkpoint does not crowd out the guests.
const WRITES_MAX: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Idle,
    /// Until every batch up to the target is applied.
    Applying,
    Pages,
    Manifest,
    Flushing,
    /// All is durable; the superblock is being written for another reason.
    Waiting,
    Superblock(u8),
}

#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    phase: Phase,
    target: u64,
    /// Leaves whose pages are still to be written.
    leaves: Vec<LeafId>,
    /// Manifest blocks that change.
    blocks: BTreeSet<u64>,
    in_flight: u32,
    /// Pages that nobody holds once this checkpoint is durable.
    freed: Vec<u32>,
    /// Leaves that may be empty.
    emptied: Vec<LeafId>,
    written: u32,
    /// A change waits for pages that the next checkpoint gives back.
    pub wanted: bool,
    /// The disk is to grow to so many slots; who is told.
    pub growing: Option<(StoreOp, u64)>,
    /// Who waits for the next checkpoint, and for the one under way.
    asked: Option<StoreOp>,
    answers: Option<StoreOp>,
}

impl Checkpoint {
    pub fn waits_for_apply(&self) -> bool {
        self.phase == Phase::Applying
    }

    /// Whether the checkpoint that is under way gives pages back, or may still do so.
    pub fn frees_pages(&self) -> bool {
        self.phase != Phase::Idle && !(self.leaves.is_empty() && self.freed.is_empty())
    }

    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether it writes the superblock now.
    pub fn is_naming(&self) -> bool {
        matches!(self.phase, Phase::Superblock(_))
    }

    /// Who waits for a checkpoint; nobody will answer it otherwise.
    pub fn take_waiting(&mut self) -> impl Iterator<Item = StoreOp> + use<> {
        let growing = self.growing.take().map(|(op, _)| op);
        [growing, self.asked.take(), self.answers.take()]
            .into_iter()
            .flatten()
    }
}

impl Store {
    /// Takes the checkpoint as far as it goes now, and starts one where one is due.
    pub(super) fn step_checkpoint(&mut self, out: &mut Outbox) {
        if !matches!(self.state, State::Open | State::Closing(..)) {
            return;
        }
        if self.checkpoint.phase == Phase::Idle && self.is_checkpoint_due() {
            self.checkpoint.phase = Phase::Applying;
            self.checkpoint.target = self.journal.durable_through;
            self.checkpoint.answers = self.checkpoint.asked.take();
            self.step_apply(out);
        }
        if self.checkpoint.phase == Phase::Applying {
            let early = self.breaks().on(Break::TrimTooEarly);
            if early || self.journal.applied_through() >= self.checkpoint.target {
                self.checkpoint.phase = Phase::Pages;
                self.checkpoint.leaves = std::mem::take(&mut self.dirty);
                self.checkpoint.wanted = false;
                if self.breaks().on(Break::LoseTablePage) {
                    self.checkpoint.leaves.pop();
                }
            }
        }
        if self.checkpoint.phase == Phase::Pages {
            self.write_pages(out);
        }
    }

    fn is_checkpoint_due(&self) -> bool {
        match self.state {
            State::Closing(_, Closing::Whole) => self.is_drained(),
            State::Closing(_, Closing::Quick) => {
                self.checkpoint.growing.is_some() || self.checkpoint.asked.is_some()
            }
            _ => {
                self.journal.wants_checkpoint()
                    || self.checkpoint.growing.is_some()
                    || self.checkpoint.wanted
                    || self.checkpoint.asked.is_some()
            }
        }
    }

    fn write_pages(&mut self, out: &mut Outbox) {
        while self.checkpoint.in_flight < WRITES_MAX {
            let Some(leaf) = self.checkpoint.leaves.pop() else {
                break;
            };
            if self.table.is_leaf(leaf) && self.table.leaf(leaf).state == LeafState::Loaded {
                self.write_leaf(leaf, out);
            }
        }
        if self.checkpoint.in_flight == 0 && self.checkpoint.leaves.is_empty() {
            self.checkpoint.phase = Phase::Manifest;
            self.write_manifest(out);
        }
    }

    /// Writes the pages of one extent as its entries are now.
    fn write_leaf(&mut self, leaf: LeafId, out: &mut Outbox) {
        self.table.leaf_mut(leaf).dirty = false;
        let entries = self.page_entries(leaf);
        let count = entries.len().div_ceil(ENTRIES_PER_PAGE);
        let reserved = usize::from(self.table.leaf(leaf).entries).div_ceil(ENTRIES_PER_PAGE);
        while usize::from(self.table.leaf(leaf).pages) > reserved.max(count) {
            let Some(page) = self.table.pop_page(leaf) else {
                break;
            };
            self.name_page(page, None);
            self.checkpoint.freed.push(page);
        }
        let pages: Vec<u32> = self.table.pages_of(leaf).collect();
        assert!(
            pages.len() >= count,
            "room in pages is reserved when an entry is made"
        );
        for (index, &page) in pages.iter().enumerate() {
            let from = (index * ENTRIES_PER_PAGE).min(entries.len());
            let to = (from + ENTRIES_PER_PAGE).min(entries.len());
            if from == to {
                self.name_page(page, None);
            } else {
                self.write_page(leaf, page, index as u16, &entries[from..to], out);
            }
        }
        if self.table.leaf(leaf).entries == 0 {
            self.checkpoint.emptied.push(leaf);
        }
    }

    fn write_page(
        &mut self,
        leaf: LeafId,
        page: u32,
        index: u16,
        entries: &[PageEntry],
        out: &mut Outbox,
    ) {
        let home = self.pages[page as usize].map_or(0, |old| old.home ^ 1);
        let (family, extent) = (self.table.family_of(leaf), self.table.leaf(leaf).extent);
        let (store, lsn) = (self.superblock.store, self.checkpoint.target);
        let pg = self.table.leaf(leaf).pg;
        let name = PageName {
            store,
            page,
            family,
            extent,
            index,
            lsn,
            pg,
        };
        let head = out.arena.len() as u32;
        let crc = page::encode(&name, entries, &mut out.arena);
        self.name_page(
            page,
            Some(PageRef {
                family,
                extent,
                index,
                home,
                lsn,
                crc,
                pg,
            }),
        );
        self.checkpoint.written += 1;
        self.write_part(self.superblock.geometry.page_at(page, home), head, out);
    }

    /// Writes the arena from `head` on to `offset`, as a part of the checkpoint.
    fn write_part(&mut self, offset: u64, head: u32, out: &mut Outbox) {
        self.checkpoint.in_flight += 1;
        let head = head..out.arena.len() as u32;
        let durability = Durability::Cached;
        self.submit(Io::Checkpoint, out, |id| DiskOp::Write {
            id,
            offset,
            head,
            body: 0..0,
            durability,
            kind: WriteKind::Checkpoint,
        });
    }

    /// The entries of an extent as they go to disk: applied state only.
    fn page_entries(&self, leaf: LeafId) -> Vec<PageEntry> {
        let mut entries = Vec::new();
        for place in 0..CHUNKS_PER_EXTENT as usize {
            for id in self.table.versions(leaf, place) {
                let (entry, layer) = (self.table.entry(id), self.table.layer_of(id));
                let lost = self.breaks().on(Break::LoseTombstone);
                let is_tombstone = entry.is_tombstone() && !lost;
                let is_nothing = (entry.data | entry.zero) == 0 && !is_tombstone;
                if is_nothing || !self.layers.is_alive(layer) {
                    continue;
                }
                entries.push(PageEntry {
                    place: place as u8,
                    layer,
                    slot: if entry.data == 0 { NO_SLOT } else { entry.slot },
                    data: entry.data,
                    zero: entry.zero,
                    dirty: entry.dirty,
                    stamp: self.table.stamp_of(id),
                    crcs: entry.crcs,
                });
            }
        }
        entries
    }

    /// Changes what the next manifest says of a page.
    pub(super) fn name_page(&mut self, page: u32, named: Option<PageRef>) {
        self.pages[page as usize] = named;
        self.checkpoint
            .blocks
            .insert(u64::from(page) / PAGES_PER_MANIFEST_BLOCK);
    }

    fn write_manifest(&mut self, out: &mut Outbox) {
        let number = self.superblock.checkpoint + 1;
        for block in std::mem::take(&mut self.checkpoint.blocks) {
            let first = (block * PAGES_PER_MANIFEST_BLOCK) as usize;
            let last = (first + PAGES_PER_MANIFEST_BLOCK as usize).min(self.pages.len());
            let before = self.manifest[block as usize];
            let home = if before.written { before.home ^ 1 } else { 0 };
            let head = out.arena.len() as u32;
            let pages = &self.pages[first..last];
            let crc = manifest::encode(self.superblock.store, block, number, pages, &mut out.arena);
            self.manifest[block as usize] = ManifestRef {
                crc,
                home,
                written: true,
            };
            let offset = self
                .superblock
                .geometry
                .manifest_block_at(block, u64::from(home));
            self.write_part(offset, head, out);
        }
        self.replicas.check();
        let root = Root {
            store: self.superblock.store,
            checkpoint: number,
            tail: self.journal.position_after(self.checkpoint.target),
            touched: self.allocator.mark(),
            // What is not loaded is not counted yet.
            used: match self.loader.is_loaded() {
                true => self.allocator.used(),
                false => self.allocator.used().max(self.used_before),
            },
            manifest: std::mem::take(&mut self.manifest),
            volumes: std::mem::take(&mut self.layers.volumes),
            replicas: self.replicas.lend(),
            replicas_through: self.replicas.through,
        };
        for copy in 0..2 {
            let head = out.arena.len() as u32;
            self.superblock.root_crc = root.encode(&mut out.arena);
            self.superblock.root_bytes = out.arena.len() as u32 - head;
            let offset = self.superblock.geometry.root_at(number % 2, copy);
            self.write_part(offset, head, out);
        }
        self.manifest = root.manifest;
        self.layers.volumes = root.volumes;
        self.replicas.give_back(root.replicas);
        self.replicas.is_saved();
        self.superblock.checkpoint = number;
    }

    /// A part of the checkpoint is done.
    pub(super) fn on_checkpoint_io(&mut self, ok: bool, out: &mut Outbox) {
        self.checkpoint.in_flight -= 1;
        if !ok || self.is_failed() {
            return;
        }
        match self.checkpoint.phase {
            Phase::Pages => self.write_pages(out),
            Phase::Manifest if self.checkpoint.in_flight == 0 => {
                if self.breaks().on(Break::NoFlush) {
                    return self.write_superblock(0, out);
                }
                self.checkpoint.phase = Phase::Flushing;
                self.checkpoint.in_flight += 1;
                self.submit(Io::Checkpoint, out, |id| DiskOp::Flush { id });
            }
            Phase::Flushing => self.write_superblock(0, out),
            Phase::Superblock(0) => self.write_superblock(1, out),
            Phase::Superblock(_) => self.end_checkpoint(out),
            Phase::Idle | Phase::Applying | Phase::Manifest | Phase::Waiting => {}
        }
    }

    /// The superblock is free again: a checkpoint that waits for it goes on.
    pub(super) fn name_checkpoint(&mut self, out: &mut Outbox) {
        if self.checkpoint.phase == Phase::Waiting {
            self.write_superblock(0, out);
        }
    }

    /// Whether nothing is written after the checkpoint under way, and the journal behind it is empty.
    fn is_last_checkpoint(&self) -> bool {
        let all = self.checkpoint.target + 1 == self.journal.open.number;
        matches!(self.state, State::Closing(_, Closing::Whole)) && all && self.is_drained()
    }

    fn write_superblock(&mut self, copy: u8, out: &mut Outbox) {
        if copy == 0 {
            if self.openings.is_writing() {
                self.checkpoint.phase = Phase::Waiting;
                return;
            }
            if let Some((_, slots)) = self.checkpoint.growing {
                self.superblock.geometry.slots = slots;
            }
            self.superblock.sequence += 1;
            self.superblock.closed = self.is_last_checkpoint();
            if self.superblock.closed {
                self.superblock.end = self.journal.position_next();
            }
            self.openings.named = self.superblock;
        }
        self.checkpoint.phase = Phase::Superblock(copy);
        self.checkpoint.in_flight += 1;
        self.submit_superblock(Io::Checkpoint, copy, out);
    }

    /// Writes one copy of the superblock as it is now.
    pub(super) fn submit_superblock(&mut self, io: Io, copy: u8, out: &mut Outbox) {
        let superblock = self.superblock;
        self.submit_copy(&superblock, io, copy, out);
    }

    pub(super) fn submit_copy(&mut self, of: &Superblock, io: Io, copy: u8, out: &mut Outbox) {
        let head = out.arena.len() as u32;
        of.encode(&mut out.arena);
        let head = head..out.arena.len() as u32;
        let offset = SUPERBLOCK_AT[usize::from(copy)];
        self.submit(io, out, |id| DiskOp::Write {
            id,
            offset,
            head,
            body: 0..0,
            durability: Durability::Durable,
            kind: WriteKind::Checkpoint,
        });
    }

    fn end_checkpoint(&mut self, out: &mut Outbox) {
        self.checkpoint.phase = Phase::Idle;
        self.durable_checkpoint = self.superblock.checkpoint;
        self.journal.trim(self.checkpoint.target);
        self.free_pages.append(&mut self.checkpoint.freed);
        for leaf in std::mem::take(&mut self.checkpoint.emptied) {
            self.remove_if_empty(leaf);
        }
        let pages = std::mem::take(&mut self.checkpoint.written);
        self.stats.checkpoints += 1;
        let number = self.superblock.checkpoint;
        out.list
            .push(Output::Note(Note::Checkpoint { number, pages }));
        // Asked for while this checkpoint was under way, the new size may have missed its superblock.
        let is_recorded =
            |&mut (_, slots): &mut (StoreOp, u64)| slots == self.superblock.geometry.slots;
        if let Some((op, slots)) = self.checkpoint.growing.take_if(is_recorded) {
            self.allocator.grow(slots as u32);
            done(op, Ok(()), out);
        }
        if let Some(op) = self.checkpoint.answers.take() {
            done(op, Ok(()), out);
        }
        self.step_openings(out);
        self.retry_stalled(out);
        self.close_batch_if_possible(out);
        if let State::Closing(op, how) = self.state {
            let whole = how == Closing::Whole && self.journal.used() == 0;
            if whole && self.dirty.is_empty() && self.is_drained() {
                self.state = State::Closed;
                return done(op, Ok(()), out);
            }
            self.step_checkpoint(out);
        }
    }

    /// An extent with nothing in it gives its leaf back; its pages it gave back before.
    fn remove_if_empty(&mut self, leaf: LeafId) {
        if !self.table.is_leaf(leaf) {
            return;
        }
        let found = self.table.leaf(leaf);
        if found.entries == 0 && found.pages == 0 && !found.dirty {
            self.table.remove_leaf(leaf);
        }
    }

    /// A checkpoint is wanted now, whatever the journal holds.
    pub(super) fn on_checkpoint_wanted(&mut self, op: StoreOp, out: &mut Outbox) {
        match self.state {
            State::Open if self.checkpoint.asked.is_some() => {
                done(op, Err(StoreError::Busy), out);
            }
            State::Open => {
                self.checkpoint.asked = Some(op);
                self.step_checkpoint(out);
            }
            State::Damaged => done(op, Err(StoreError::ReadOnly), out),
            State::Failed => done(op, Err(StoreError::DiskFailed), out),
            State::Opening(_) | State::Closing(..) | State::Closed => {
                done(op, Err(StoreError::NotOpen), out);
            }
        }
    }

    /// The disk has become longer.
    pub(super) fn on_grow(&mut self, op: StoreOp, bytes: u64, out: &mut Outbox) {
        if !matches!(self.state, State::Open) {
            return done(op, Err(StoreError::NotOpen), out);
        }
        if self.checkpoint.growing.is_some() {
            return done(op, Err(StoreError::Busy), out);
        }
        let geometry = &self.superblock.geometry;
        let slots = bytes.saturating_sub(geometry.slots_at) / CHUNK;
        if slots < geometry.slots || slots > self.slots_max() {
            return done(op, Err(StoreError::BadSize), out);
        }
        self.options.disk_bytes = bytes;
        self.checkpoint.growing = Some((op, slots));
        self.step_checkpoint(out);
    }

    /// How many slots the store can grow to. Pages are laid out at format; they serve four times the space that
    /// they were made for.
    fn slots_max(&self) -> u64 {
        let geometry = &self.superblock.geometry;
        let most = geometry.pages * super::format::SLOTS_PER_PAGE_GROWN;
        most.max(geometry.slots)
    }

    /// The length in bytes of the longest disk that the store can make use of. What is left of a last slot is
    /// not used.
    pub(super) fn disk_bytes_max(&self) -> u64 {
        self.superblock.geometry.slots_at + (self.slots_max() + 1) * CHUNK - 1
    }
}
