//! Opening: superblock, root, manifest, journal. Nothing is written before all of it was read.
//!
//! The journal is read twice. The first pass looks at every header in the ring and learns up to which batch
//! everything was durable once; the second follows the chain from the tail. Where the chain ends behind
//! that point, the end is a torn write of the crash. Where it ends before, an acknowledged batch is damaged: if only
//! payload is, its blocks answer with errors; if a header is, nothing can be known to be the newest, and the
//! store is read-only and answers with errors.

use super::batch::{self, BATCH_LEN_MAX, Header, Record};
use super::commit::Origin;
use super::door::{DiskFault, DiskOp, IoData, Note, OpenError, Options, Outbox, Output};
use super::engine::{Io, State, Store};
use super::journal::Journal;
use super::layers::Layers;
use super::load::{Loader, Replayed};
use super::manifest;
use super::root::{ManifestRef, Root};
use super::superblock::{PAGES_PER_MANIFEST_BLOCK, SUPERBLOCK_AT, SUPERBLOCK_LEN, Superblock};
use super::table::{LeafState, Table};
use crate::base::{BLOCK, FixedMap, StoreId, Time};

/// Bytes of one read.
const READ_LEN: u64 = 1024 * 1024;

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Superblock(u8),
    Root(u8),
    Manifest(u64),
    /// Looking at headers from this offset of the ring on.
    Survey(u64),
    /// Following the chain.
    Replay,
}

/// How far opening has come.
#[derive(Debug)]
pub(super) struct Recovery {
    step: Step,
    pub error: Option<OpenError>,
    superblocks: [Option<Result<Superblock, OpenError>>; 2],
    root: Option<Root>,
    manifest_damaged: bool,
    /// Every batch up to this one was durable, as some header says.
    durable_once: u64,
    /// A header was written under a newer checkpoint than the superblock names.
    checkpoint_lost: bool,
    /// The end of the survey's last read, whose header may go on in the next.
    carry: Vec<u8>,
    /// Bytes of the ring from `window_at` on, for the replay.
    window: Vec<u8>,
    window_at: u64,
    /// Replay tries the ring's start, because no batch follows where the last one ended.
    at_start: bool,
    replayed: u64,
}

impl Store {
    /// A store of which nothing is known yet.
    pub(super) fn unopened(options: Options) -> Store {
        let recovery = Recovery {
            step: Step::Superblock(0),
            error: None,
            superblocks: [None, None],
            root: None,
            manifest_damaged: false,
            durable_once: 0,
            checkpoint_lost: false,
            carry: Vec::new(),
            window: Vec::new(),
            window_at: 0,
            at_start: false,
            replayed: 0,
        };
        let start = super::root::Position {
            offset: 0,
            batch: 1,
            previous: 0,
        };
        Store {
            scratch: super::apply::Scratch::new(options.scratch, options.scratch_blocks),
            options,
            state: State::Opening(Box::new(recovery)),
            now: Time::default(),
            superblock: Superblock::EMPTY,
            durable_checkpoint: 0,
            manifest: Vec::new(),
            pages: Vec::new(),
            free_pages: Vec::new(),
            table: Table::new(),
            allocator: super::allocator::Allocator::new(0, 0),
            layers: Layers::new(Default::default(), 0),
            overlays: Default::default(),
            apply_queue: Default::default(),
            applies: 0,
            memory_blocks: 0,
            journal: Journal::new(0, start),
            ios: Store::io_slab(),
            reads: Store::read_slab(),
            slot_ios: Default::default(),
            stalled: Default::default(),
            gathered: Vec::new(),
            overfull: Default::default(),
            loader: Loader::default(),
            dirty: Vec::new(),
            checkpoint: Default::default(),
            scrub: None,
            sweep: None,
            quiet_at: None,
            idle: true,
            zeroing: false,
            stats: Default::default(),
        }
    }

    pub(super) fn start_recovery(&mut self, out: &mut Outbox) {
        self.read_for_recovery(Step::Superblock(0), SUPERBLOCK_AT[0], SUPERBLOCK_LEN, out);
    }

    fn recovery(&mut self) -> &mut Recovery {
        match &mut self.state {
            State::Opening(recovery) => recovery,
            _ => unreachable!("recovery reads only while the store is being opened"),
        }
    }

    fn read_for_recovery(&mut self, step: Step, offset: u64, len: u64, out: &mut Outbox) {
        self.recovery().step = step;
        let len = len as u32;
        self.submit(Io::Recovery, out, |id| DiskOp::ReadMeta { id, offset, len });
    }

    fn refuse(&mut self, error: OpenError) {
        self.recovery().error = Some(error);
    }

    pub(super) fn on_recovery_read(
        &mut self,
        result: Result<IoData<'_>, DiskFault>,
        out: &mut Outbox,
    ) {
        let State::Opening(recovery) = &self.state else {
            return;
        };
        let step = recovery.step;
        let bytes = match result {
            Ok(IoData::Bytes(bytes)) => Ok(bytes),
            Ok(_) => Err(DiskFault::Medium),
            Err(fault) => Err(fault),
        };
        if bytes == Err(DiskFault::Gone) {
            return self.refuse(OpenError::Disk(DiskFault::Gone));
        }
        match step {
            Step::Superblock(copy) => self.on_superblock_read(copy, bytes, out),
            Step::Root(copy) => self.on_root_read(copy, bytes, out),
            Step::Manifest(first) => self.on_manifest_read(first, bytes, out),
            Step::Survey(offset) => self.on_survey_read(offset, bytes, out),
            Step::Replay => self.on_replay_read(bytes, out),
        }
    }

    fn on_superblock_read(&mut self, copy: u8, bytes: Result<&[u8], DiskFault>, out: &mut Outbox) {
        let decoded = match bytes {
            Ok(bytes) => Superblock::decode(bytes),
            Err(_) => Err(OpenError::DamagedSuperblock),
        };
        self.recovery().superblocks[usize::from(copy)] = Some(decoded);
        if copy == 0 {
            let at = SUPERBLOCK_AT[1];
            return self.read_for_recovery(Step::Superblock(1), at, SUPERBLOCK_LEN, out);
        }
        let disk_bytes = self.options.disk_bytes;
        let [a, b] = std::mem::take(&mut self.recovery().superblocks);
        let missing = || Err(OpenError::DamagedSuperblock);
        match Superblock::choose(
            a.unwrap_or_else(missing),
            b.unwrap_or_else(missing),
            disk_bytes,
        ) {
            Ok(chosen) => {
                self.superblock = chosen;
                self.durable_checkpoint = chosen.checkpoint;
                self.read_root(0, out);
            }
            Err(error) => self.refuse(error),
        }
    }

    fn read_root(&mut self, copy: u8, out: &mut Outbox) {
        let at = self
            .superblock
            .geometry
            .root_at(self.superblock.checkpoint % 2, u64::from(copy));
        self.read_for_recovery(
            Step::Root(copy),
            at,
            u64::from(self.superblock.root_bytes),
            out,
        );
    }

    fn on_root_read(&mut self, copy: u8, bytes: Result<&[u8], DiskFault>, out: &mut Outbox) {
        let superblock = self.superblock;
        let root = bytes.ok().and_then(Root::decode).filter(|(root, crc)| {
            *crc == superblock.root_crc
                && root.store == superblock.store
                && root.checkpoint == superblock.checkpoint
        });
        let Some((root, _)) = root else {
            if copy == 0 {
                return self.read_root(1, out);
            }
            let offset = superblock.geometry.root_at(superblock.checkpoint % 2, 0);
            return self.refuse(OpenError::DamagedRoot { offset });
        };
        if root.manifest.len() as u64 != superblock.geometry.manifest_blocks {
            let value = root.manifest.len() as u64;
            return self.refuse(OpenError::Inconsistent {
                field: "manifest blocks",
                value,
            });
        }
        if root.tail.offset > superblock.geometry.journal_len || root.tail.batch == 0 {
            let value = root.tail.offset;
            return self.refuse(OpenError::Inconsistent {
                field: "journal tail",
                value,
            });
        }
        self.pages = vec![None; superblock.geometry.pages as usize];
        self.manifest.clone_from(&root.manifest);
        self.recovery().root = Some(root);
        self.read_manifest(0, out);
    }

    /// Reads the next manifest blocks from `first` on of which any was ever written.
    fn read_manifest(&mut self, first: u64, out: &mut Outbox) {
        let written = |block: &ManifestRef| block.written;
        let next = self.manifest[first as usize..].iter().position(written);
        let Some(next) = next else {
            return self.survey(0, out);
        };
        let first = first + next as u64;
        let pairs = (READ_LEN / (2 * BLOCK)).min(self.manifest.len() as u64 - first);
        let at = self.superblock.geometry.manifest_block_at(first, 0);
        self.read_for_recovery(Step::Manifest(first), at, pairs * 2 * BLOCK, out);
    }

    fn on_manifest_read(&mut self, first: u64, bytes: Result<&[u8], DiskFault>, out: &mut Outbox) {
        let pairs = (READ_LEN / (2 * BLOCK)).min(self.manifest.len() as u64 - first);
        for n in 0..pairs {
            let block = first + n;
            let ManifestRef { crc, home, written } = self.manifest[block as usize];
            if !written {
                continue;
            }
            let at = ((n * 2 + u64::from(home)) * BLOCK) as usize;
            let decoded = bytes.ok().and_then(|bytes| {
                manifest::decode(
                    bytes.get(at..at + BLOCK as usize)?,
                    self.superblock.store,
                    block,
                    crc,
                )
            });
            let Some(pages) = decoded else {
                self.recovery().manifest_damaged = true;
                let offset = self
                    .superblock
                    .geometry
                    .manifest_block_at(block, u64::from(home));
                let family = crate::base::FamilyId(0);
                out.list.push(Output::Note(Note::DamagedPage {
                    family,
                    extent: u32::MAX,
                    offset,
                }));
                continue;
            };
            let from = (block * PAGES_PER_MANIFEST_BLOCK) as usize;
            for (page, named) in self.pages[from..].iter_mut().zip(pages) {
                *page = named;
            }
        }
        let next = first + pairs;
        if next < self.manifest.len() as u64 {
            self.read_manifest(next, out);
        } else {
            self.survey(0, out);
        }
    }

    /// The first pass over the journal: every header, wherever it lies.
    fn survey(&mut self, offset: u64, out: &mut Outbox) {
        let len = READ_LEN.min(self.superblock.geometry.journal_len - offset);
        let at = self.superblock.geometry.journal_at + offset;
        self.read_for_recovery(Step::Survey(offset), at, len, out);
    }

    fn on_survey_read(&mut self, offset: u64, bytes: Result<&[u8], DiskFault>, out: &mut Outbox) {
        let superblock = self.superblock;
        let recovery = self.recovery();
        match bytes {
            Ok(bytes) => recovery.carry.extend_from_slice(bytes),
            // A place that cannot be read holds no header that we could learn from.
            Err(_) => recovery.carry.clear(),
        }
        let ring_len = superblock.geometry.journal_len;
        let end = offset + READ_LEN.min(ring_len - offset);
        let mut at = 0;
        while at + BLOCK as usize <= recovery.carry.len() {
            let block = &recovery.carry[at..];
            let Some(len) = batch::claimed_len(block) else {
                at += BLOCK as usize;
                continue;
            };
            if len > block.len() && end < ring_len {
                break; // it goes on in the next read
            }
            let header = block.get(..len).and_then(batch::decode);
            if let Some((header, ..)) = header.filter(|(h, ..)| is_of(h, &superblock)) {
                recovery.durable_once = recovery.durable_once.max(header.durable_through);
                recovery.checkpoint_lost |= header.checkpoint > superblock.checkpoint;
            }
            at += BLOCK as usize;
        }
        recovery.carry.drain(..at);
        if end < ring_len {
            return self.survey(end, out);
        }
        recovery.carry = Vec::new();
        self.begin_replay(out);
    }

    fn begin_replay(&mut self, out: &mut Outbox) {
        let Some(root) = self.recovery().root.take() else {
            return self.refuse(OpenError::DamagedSuperblock);
        };
        let geometry = self.superblock.geometry;
        let room = Root::volume_room(geometry.root_len, geometry.manifest_blocks);
        self.layers = Layers::new(root.volumes, room);
        self.allocator = super::allocator::Allocator::new(
            geometry.slots as u32,
            root.touched.min(geometry.slots as u32),
        );
        self.journal = Journal::new(geometry.journal_len, root.tail);
        self.make_leaves();
        let recovery = self.recovery();
        recovery.window_at = root.tail.offset;
        self.fill_window(out);
    }

    /// A leaf for every extent that has pages, and its pages in their order.
    fn make_leaves(&mut self) {
        let mut of: FixedMap<u32, Vec<(u16, u32)>> = FixedMap::default();
        for page in 0..self.pages.len() as u32 {
            let Some(named) = self.pages[page as usize] else {
                continue;
            };
            let leaf = match self.table.leaf_of(named.family, named.extent) {
                Some(leaf) => leaf,
                None => self
                    .table
                    .add_leaf(named.family, named.extent, LeafState::Unloaded),
            };
            of.entry(leaf).or_default().push((named.index, page));
        }
        for leaf in 0..self.table.leaf_bound() {
            let mut pages = of.remove(&leaf).unwrap_or_default();
            pages.sort_unstable();
            pages
                .iter()
                .for_each(|&(_, page)| self.table.push_page(leaf, page));
        }
        let is_free = |page: &u32| self.pages[*page as usize].is_none();
        // From the end, so that pages are given out in the order of their places.
        self.free_pages = (0..self.pages.len() as u32).rev().filter(is_free).collect();
    }

    /// Reads on, until a whole batch must be in the window or the ring ends.
    fn fill_window(&mut self, out: &mut Outbox) {
        let ring_len = self.superblock.geometry.journal_len;
        let journal_at = self.superblock.geometry.journal_at;
        let recovery = self.recovery();
        let have = recovery.window.len() as u64;
        let next = recovery.window_at + have;
        if have >= BATCH_LEN_MAX || next >= ring_len {
            return self.replay(out);
        }
        let len = READ_LEN.min(ring_len - next);
        self.read_for_recovery(Step::Replay, journal_at + next, len, out);
    }

    fn on_replay_read(&mut self, bytes: Result<&[u8], DiskFault>, out: &mut Outbox) {
        let ring_len = self.superblock.geometry.journal_len;
        let recovery = self.recovery();
        match bytes {
            Ok(bytes) => recovery.window.extend_from_slice(bytes),
            Err(_) => {
                // What cannot be read is as good as zeroes: it holds no batch.
                let next = recovery.window_at + recovery.window.len() as u64;
                let len = READ_LEN.min(ring_len - next) as usize;
                recovery.window.resize(recovery.window.len() + len, 0);
            }
        }
        self.fill_window(out);
    }

    /// The second pass: takes the next batch of the chain, or ends.
    fn replay(&mut self, out: &mut Outbox) {
        loop {
            let ring_len = self.superblock.geometry.journal_len;
            let recovery = self.recovery();
            let enough = recovery.window.len() as u64 >= BATCH_LEN_MAX
                || recovery.window_at + recovery.window.len() as u64 >= ring_len;
            if !enough {
                return self.fill_window(out);
            }
            if let Some(taken) = self.take_batch() {
                let recovery = self.recovery();
                recovery.window.drain(..taken);
                recovery.window_at += taken as u64;
                recovery.at_start = false;
                recovery.replayed += 1;
                continue;
            }
            let recovery = self.recovery();
            if recovery.at_start || recovery.window_at == 0 {
                return self.end_replay(out);
            }
            // Too long for the ring's end: it may lie at the start.
            recovery.at_start = true;
            recovery.window.clear();
            recovery.window_at = 0;
            return self.fill_window(out);
        }
    }

    /// Takes the batch that the window begins with, where it is the next of the chain; returns its length.
    fn take_batch(&mut self) -> Option<usize> {
        let superblock = self.superblock;
        let expected = self.journal.position_next();
        let recovery = self.recovery();
        let (offset, durable_once) = (recovery.window_at, recovery.durable_once);
        let window = &recovery.window;
        let header_len = batch::claimed_len(window)?;
        let (header, crc, records) = batch::decode(window.get(..header_len)?)?;
        let is_next = is_of(&header, &superblock)
            && header.batch == expected.batch
            && header.previous == expected.previous
            && header.offset == offset;
        if !is_next {
            return None;
        }
        let len = header_len + (u64::from(header.payload_blocks) * BLOCK) as usize;
        let payload = window.get(header_len..len)?;
        let lost = damaged_blocks(&records, payload);
        if !lost.is_empty() && header.batch > durable_once {
            return None; // it was torn by the crash
        }
        let payload_at = superblock.geometry.journal_at + offset + header_len as u64;
        self.journal.replayed(offset, len as u64, crc, 0);
        self.keep_records(header.batch, records, payload_at, &lost);
        Some(len)
    }

    /// Hands the records of a batch to the extents that they change.
    fn keep_records(&mut self, batch: u64, records: Vec<Record>, payload_at: u64, lost: &[u32]) {
        let mut block = 0;
        for record in records {
            let first = block;
            let blocks = record.payload_blocks();
            block += blocks;
            let mask = lost
                .iter()
                .filter(|&&at| (first..first + blocks).contains(&at))
                .fold(0u16, |mask, at| mask | 1 << (at - first));
            let payload = payload_at + u64::from(first) * BLOCK;
            let origin = Origin::Replayed {
                payload,
                lost: mask,
            };
            let (at, slot) = match &record {
                Record::PutVolume(volume) => {
                    self.layers.put((**volume).clone());
                    continue;
                }
                Record::DropVolume(volume) => {
                    self.layers.drop(*volume);
                    continue;
                }
                Record::Data { at, slot, .. } | Record::Chunk { at, slot, .. } => {
                    (*at, Some(*slot))
                }
                Record::Zero { at, .. } | Record::ZeroChunks { at, .. } => (*at, None),
            };
            if let Some(slot) = slot {
                self.allocator.touch(slot);
            }
            let extent = at.chunk.extent();
            let leaf = match self.table.leaf_of(at.family, extent) {
                Some(leaf) => leaf,
                None => self.table.add_leaf(at.family, extent, LeafState::Unloaded),
            };
            self.journal.kept_mut(batch).pending += 1;
            self.loader.keep(
                leaf,
                Replayed {
                    batch,
                    record,
                    origin,
                },
            );
        }
    }

    fn end_replay(&mut self, out: &mut Outbox) {
        let next = self.journal.position_next();
        let recovery = self.recovery();
        recovery.window = Vec::new();
        let durable_once = recovery.durable_once;
        let (checkpoint_lost, manifest_damaged) =
            (recovery.checkpoint_lost, recovery.manifest_damaged);
        let bound = self.table.leaf_bound();
        self.loader.begin(bound, self.table.leaf_count());
        if durable_once >= next.batch || checkpoint_lost || manifest_damaged {
            let offset = self.superblock.geometry.journal_at + next.offset;
            let batch = next.batch;
            out.list
                .push(Output::Note(Note::DamagedJournal { batch, offset }));
            self.state = State::Damaged;
            return self.announce(out);
        }
        self.superblock.incarnation += 1;
        self.superblock.sequence += 1;
        self.write_incarnation(0, out);
    }

    fn write_incarnation(&mut self, copy: u8, out: &mut Outbox) {
        let head = out.arena.len() as u32;
        self.superblock.encode(&mut out.arena);
        let head = head..out.arena.len() as u32;
        let offset = SUPERBLOCK_AT[usize::from(copy)];
        self.submit(Io::Opening { copy }, out, |id| DiskOp::Write {
            id,
            offset,
            head,
            body: 0..0,
            durability: super::door::Durability::Durable,
        });
    }

    pub(super) fn on_incarnation_written(&mut self, copy: u8, ok: bool, out: &mut Outbox) {
        if !ok {
            return self.refuse(OpenError::Disk(DiskFault::Medium));
        }
        if copy == 0 {
            return self.write_incarnation(1, out);
        }
        let recovery = self.recovery();
        let replayed = recovery.replayed;
        self.state = State::Open;
        out.list.push(Output::Note(Note::Opened { replayed }));
        self.journal.unclosed = replayed > 0;
        self.quiet_at = Some(self.now + super::engine::QUIET);
        self.step_loader(out);
    }

    fn announce(&mut self, out: &mut Outbox) {
        out.list.push(Output::Note(Note::Opened { replayed: 0 }));
    }
}

/// Whether a header was written by this store, in this life of its disk.
fn is_of(header: &Header, superblock: &Superblock) -> bool {
    header.store == superblock.store
        && header.instance_key == superblock.instance_key
        && header.incarnation <= superblock.incarnation
}

/// The payload blocks that do not match the checksums in their records, counted from the first.
fn damaged_blocks(records: &[Record], payload: &[u8]) -> Vec<u32> {
    let mut damaged = Vec::new();
    let mut blocks = payload.chunks_exact(BLOCK as usize).zip(0..);
    for record in records {
        let Record::Data { at, run, crcs, .. } = record else {
            continue;
        };
        for ((block, crc), (bytes, n)) in run.blocks().zip(crcs).zip(&mut blocks) {
            if crate::base::crc::of_block(at.layer, at.chunk.block(block), bytes) != *crc {
                damaged.push(n);
            }
        }
    }
    damaged
}

impl Superblock {
    /// What stands in for the superblock until it is read.
    const EMPTY: Superblock = Superblock {
        store: StoreId([0; 16]),
        instance_key: [0; 16],
        sequence: 0,
        incarnation: 0,
        checkpoint: 0,
        root_crc: 0,
        root_bytes: 0,
        geometry: super::superblock::Geometry {
            root_len: 0,
            manifest_at: 0,
            manifest_blocks: 0,
            journal_at: 0,
            journal_len: 0,
            table_at: 0,
            pages: 0,
            slots_at: 0,
            slots: 0,
        },
    };
}
