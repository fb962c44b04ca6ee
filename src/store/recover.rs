//! Opening: superblock, root, manifest, journal. Nothing is written before all of it was read.
//!
//! How the journal is read, and what its end means, is told in `chain`. If only payload of an
//! acknowledged batch is damaged, its blocks answer with errors; if a header is, nothing can be
//! known to be the newest, and the store is read-only and answers with errors.

use super::chain::{self, Chain, Found, Survey};
use super::commit::Origin;
use super::door::{
    DiskFault, DiskOp, IoData, Note, OpenError, Openings, Options, Outbox, Output, Torn,
};
use super::engine::{Io, State, Store};
use super::journal::Journal;
use super::layers::Layers;
use super::load::{Loader, Replayed};
use super::manifest;
use super::record::Record;
use super::replica::Replicas;
use super::root::{ManifestRef, Position, Root};
use super::superblock::{PAGES_PER_MANIFEST_BLOCK, SUPERBLOCK_AT, SUPERBLOCK_LEN, Superblock};
use super::table::{LeafState, Table};
use crate::base::{BLOCK, Break, FixedMap, StoreId, Time};

/// Bytes of one read.
const READ_LEN: u64 = 1024 * 1024;

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Superblock(u8),
    Root(u8),
    /// Pairs of manifest blocks from the first on; or of that one the home that is in use, alone.
    Manifest {
        first: u64,
        alone: bool,
    },
    /// So many bytes of the journal.
    Journal(u64),
}

/// How far opening has come.
#[derive(Debug)]
pub(super) struct Recovery {
    step: Step,
    pub error: Option<OpenError>,
    superblocks: [Option<Result<Superblock, OpenError>>; 2],
    root: Option<Root>,
    manifest_damaged: bool,
    /// Manifest blocks before this one are read alone, because they could not be read together.
    manifest_alone_until: u64,
    chain: Chain,
    replayed: u64,
}

impl Store {
    /// A store of which nothing is known yet.
    pub(super) fn unopened(options: Options) -> Store {
        let start = Superblock::EMPTY.end;
        let recovery = Recovery {
            step: Step::Superblock(0),
            error: None,
            superblocks: [None, None],
            root: None,
            manifest_damaged: false,
            manifest_alone_until: 0,
            chain: Chain::new(&Superblock::EMPTY, start, Survey::Whole),
            replayed: 0,
        };
        Store {
            scratch: super::apply::Scratch::new(options.scratch, options.scratch_blocks),
            options,
            state: State::Opening(Box::new(recovery)),
            now: Time::default(),
            superblock: Superblock::EMPTY,
            openings: Default::default(),
            durable_checkpoint: 0,
            manifest: Vec::new(),
            pages: Vec::new(),
            free_pages: Vec::new(),
            table: Table::new(),
            allocator: super::allocator::Allocator::new(0, 0),
            used_before: 0,
            layers: Layers::new(Default::default(), 0),
            replicas: Replicas::default(),
            listings: Default::default(),
            discards: 0,
            overlays: Default::default(),
            apply_queue: Default::default(),
            applies: 0,
            memory_blocks: 0,
            journal: Journal::new(0, start),
            ios: Store::io_slab(),
            reads: Store::read_slab(),
            holdings: FixedMap::default(),
            salvages: Store::salvage_slab(),
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
            Step::Manifest { first, alone } => self.on_manifest_read(first, alone, bytes, out),
            Step::Journal(len) => self.on_journal_read(len, bytes, out),
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
        let root = bytes
            .ok()
            .and_then(|bytes| Root::decode_named(bytes, &superblock));
        let Some(root) = root else {
            if copy == 0 {
                return self.read_root(1, out);
            }
            let offset = superblock.geometry.root_at(superblock.checkpoint % 2, 0);
            return self.refuse(OpenError::DamagedRoot { offset });
        };
        if let Err(error) = root.check(&superblock.geometry) {
            return self.refuse(error);
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
            return self.begin_replay(out);
        };
        let first = first + next as u64;
        let geometry = self.superblock.geometry;
        let home = u64::from(self.manifest[first as usize].home);
        let alone = first < self.recovery().manifest_alone_until;
        let (at, len) = match alone {
            true => (geometry.manifest_block_at(first, home), BLOCK),
            false => {
                let pairs = self.manifest_pairs(first);
                (geometry.manifest_block_at(first, 0), pairs * 2 * BLOCK)
            }
        };
        self.read_for_recovery(Step::Manifest { first, alone }, at, len, out);
    }

    /// How many pairs of manifest blocks are read at once from `first` on.
    fn manifest_pairs(&self, first: u64) -> u64 {
        (READ_LEN / (2 * BLOCK)).min(self.manifest.len() as u64 - first)
    }

    fn on_manifest_read(
        &mut self,
        first: u64,
        alone: bool,
        bytes: Result<&[u8], DiskFault>,
        out: &mut Outbox,
    ) {
        let pairs = if alone { 1 } else { self.manifest_pairs(first) };
        if bytes.is_err() && !alone {
            // One bad sector, perhaps in a home that nobody needs, must not condemn all of them.
            self.recovery().manifest_alone_until = first + pairs;
            return self.read_manifest(first, out);
        }
        for n in 0..pairs {
            let block = first + n;
            let ManifestRef { crc, home, written } = self.manifest[block as usize];
            if !written {
                continue;
            }
            let before = if alone { 0 } else { n * 2 + u64::from(home) };
            let at = (before * BLOCK) as usize;
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
            self.begin_replay(out);
        }
    }

    /// Everything but the journal is known: what it changes is laid out, then it is read.
    fn begin_replay(&mut self, out: &mut Outbox) {
        let superblock = self.superblock;
        let Some(root) = self.recovery().root.take() else {
            return self.refuse(OpenError::DamagedSuperblock);
        };
        let geometry = superblock.geometry;
        let (volumes, replicas) = Root::rooms(geometry.root_len, geometry.manifest_blocks);
        self.layers = Layers::new(root.volumes, volumes);
        self.replicas = Replicas::new(root.replicas, root.replicas_through, replicas);
        self.allocator = super::allocator::Allocator::new(
            geometry.slots as u32,
            root.touched.min(geometry.slots as u32),
        );
        self.used_before = root.used;
        self.journal = Journal::new(geometry.journal_len, root.tail);
        self.make_leaves();
        self.recovery().chain = Chain::new(&superblock, root.tail, Survey::AsNeeded);
        self.replay(out);
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
                None => {
                    self.table
                        .add_leaf((named.family, named.extent), named.pg, LeafState::Unloaded)
                }
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

    fn on_journal_read(&mut self, len: u64, bytes: Result<&[u8], DiskFault>, out: &mut Outbox) {
        self.recovery().chain.feed(len, bytes.ok());
        self.replay(out);
    }

    /// Takes one batch of the chain after the other, until bytes are missing or it ends.
    fn replay(&mut self, out: &mut Outbox) {
        let journal_at = self.superblock.geometry.journal_at;
        loop {
            match self.recovery().chain.step() {
                chain::Step::Read { offset, len } => {
                    return self.read_for_recovery(
                        Step::Journal(len),
                        journal_at + offset,
                        len,
                        out,
                    );
                }
                chain::Step::Batch(found) => self.take_batch(*found),
                chain::Step::End => return self.end_replay(out),
            }
        }
    }

    fn take_batch(&mut self, found: Found) {
        let at = self.superblock.geometry.journal_at + found.offset;
        self.recovery().replayed += 1;
        self.journal.replayed(found.offset, found.len, found.crc, 0);
        debug_assert_eq!(self.journal.position_next(), self.recovery().chain.next);
        let payload_at = at + found.header_len;
        self.keep_records(found.header.batch, found.records, payload_at, &found.lost);
    }

    /// Hands the records of a batch to the extents that they change.
    fn keep_records(&mut self, batch: u64, records: Vec<Record>, payload_at: u64, lost: &[u32]) {
        let mut block = 0;
        // What the root holds of replicas may be newer than where replay begins.
        let is_news = batch > self.replicas.through;
        for record in records {
            let forgets = record.place().is_some() && self.breaks().on(Break::LoseWindow);
            if is_news && !forgets {
                self.replicas.take(&record);
            }
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
            let Some((at, pg)) = record.place() else {
                self.keep_of_no_chunk(record, batch);
                continue;
            };
            if let Some(slot) = record.slot() {
                self.allocator.touch(slot);
            }
            let extent = at.chunk.extent();
            let leaf = match self.table.leaf_of(at.family, extent) {
                Some(leaf) => leaf,
                None => self
                    .table
                    .add_leaf((at.family, extent), pg, LeafState::Unloaded),
            };
            self.table.set_pg(leaf, pg);
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
        self.replicas.through = self.replicas.through.max(batch);
    }

    /// Carries out what a record says of volumes and replicas.
    fn keep_of_no_chunk(&mut self, record: Record, batch: u64) {
        match record {
            Record::PutVolume(volume) => self.layers.put(*volume),
            Record::DropVolume(volume) => self.layers.drop(volume),
            Record::DropReplica(_) if self.breaks().on(Break::KeepDropped) => {}
            Record::DropReplica(pg) => {
                for leaf in 0..self.table.leaf_bound() {
                    if self.table.leaf(leaf).pg == pg {
                        self.keep_drop(leaf, pg, batch);
                    }
                }
            }
            _ => {}
        }
    }

    fn end_replay(&mut self, out: &mut Outbox) {
        let next = self.journal.position_next();
        let recovery = self.recovery();
        let damaged = recovery.chain.is_broken() || recovery.manifest_damaged;
        let bound = self.table.leaf_bound();
        self.loader.begin(bound, self.table.leaf_count());
        if damaged {
            let offset = self.superblock.geometry.journal_at + next.offset;
            let batch = next.batch;
            out.list
                .push(Output::Note(Note::DamagedJournal { batch, offset }));
            self.state = State::Damaged;
            out.list.push(Output::Torn(Torn::Disk));
            return self.announce(out);
        }
        let seen = self.recovery().chain.incarnation_seen;
        self.superblock.incarnation = self.superblock.incarnation.max(seen) + 1;
        self.superblock.sequence += 1;
        self.superblock.end = next;
        self.superblock.closed = false;
        // What was read may be on the medium's way still, after a kill; it is counted on from here.
        self.submit(Io::Opening { copy: None }, out, |id| DiskOp::Flush { id });
    }

    /// The journal was flushed, or a copy of the superblock was written.
    pub(super) fn on_incarnation_written(&mut self, copy: Option<u8>, ok: bool, out: &mut Outbox) {
        if !ok {
            return self.refuse(OpenError::Disk(DiskFault::Medium));
        }
        let next = match copy {
            None => Some(0),
            Some(0) => Some(1),
            Some(_) => None,
        };
        if let Some(copy) = next {
            return self.submit_superblock(Io::Opening { copy: Some(copy) }, copy, out);
        }
        let recovery = self.recovery();
        let replayed = recovery.replayed;
        self.state = State::Open;
        self.openings.named = self.superblock;
        out.list.push(Output::Note(Note::Opened { replayed }));
        self.journal.unclosed = replayed > 0;
        self.quiet_at = Some(self.now + super::engine::QUIET);
        self.step_loader(out);
    }

    fn announce(&mut self, out: &mut Outbox) {
        out.list.push(Output::Note(Note::Opened { replayed: 0 }));
    }
}

impl Superblock {
    /// What stands in for the superblock until it is read.
    pub(super) const EMPTY: Superblock = Superblock {
        version: super::superblock::FORMAT_VERSION,
        openings: Openings {
            last: 0,
            recorded: 0,
        },
        store: StoreId([0; 16]),
        instance_key: [0; 16],
        sequence: 0,
        incarnation: 0,
        checkpoint: 0,
        root_crc: 0,
        root_bytes: 0,
        end: Position {
            offset: 0,
            batch: 1,
            previous: 0,
        },
        closed: false,
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
