//! The store as a machine: what it holds, and which operation answers which input.

use super::allocator::Allocator;
use super::apply::Scratch;
use super::checkpoint::Checkpoint;
use super::door::{
    ChunkId, Closing, DiskFault, DiskOp, Epoch, Holding, Input, IoData, IoId, Note, OpenError,
    Options, Outbox, Output, Stamp, StoreError, StoreOp, Torn, VolumeMeta,
};
use super::journal::{Act, Journal};
use super::layers::Layers;
use super::list::{ListJob, Listings};
use super::load::Loader;
use super::manifest::PageRef;
use super::openings::OpeningsPut;
use super::overlay::Overlays;
use super::read::ReadJob;
use super::record::{Fill, Mend};
use super::recover::Recovery;
use super::replica::{Replica, Replicas};
use super::root::ManifestRef;
use super::salvage::{SALVAGES_MAX, Salvage, Salvaging};
use super::scrub::{Scrub, Sweep};
use super::stats::Stats;
use super::superblock::Superblock;
use super::table::{LeafState, Table};
use crate::base::{
    BlockRun, Break, Breaks, BufRef, CHUNK, FixedMap, LayerId, PgId, Slab, Time, VolumeId,
};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How long a journal may be quiet before it is closed by an empty batch (store rule 1).
pub(super) const QUIET: Duration = Duration::from_millis(10);
/// Operations in flight on the disk. The callers are bounded by far less.
const IOS_MAX: usize = 1 << 16;
/// Discards in flight on the disk.
const DISCARDS_MAX: u32 = 256;
/// PGs that are told one by one as torn.
const TORN_MAX: usize = 1024;
/// Reads in flight.
const READS_MAX: usize = 1 << 16;

/// What the store can do now.
#[derive(Debug)]
pub(super) enum State {
    Opening(Box<Recovery>),
    Open,
    /// An acknowledged batch is lost: nothing can be known to be the newest.
    Damaged,
    /// Everything is being written out; who is told.
    Closing(StoreOp, Closing),
    Closed,
    /// The disk failed.
    Failed,
}

/// What an operation on the disk is for.
#[derive(Debug)]
pub(super) enum Io {
    Recovery,
    /// Before the store serves: the superblock with its new incarnation, one copy or the other; `None`: the flush before them.
    Opening {
        copy: Option<u8>,
    },
    /// The superblock that says that the store is closed, one copy or the other.
    Closing {
        copy: u8,
    },
    /// The superblock with other numbers of openings, one copy or the other.
    Openings {
        copy: u8,
    },
    Page {
        leaf: super::table::LeafId,
        index: u16,
    },
    Read {
        job: u32,
        first: u8,
        count: u8,
        sequence: u64,
    },
    /// The payload of whole chunks, on its way into fresh slots.
    Chunks(Vec<ChunkWrite>),
    Batch {
        number: u64,
    },
    Apply(super::apply::Applying),
    /// Blocks that another replica asked for.
    Salvage {
        job: u32,
        first: u8,
        count: u8,
        sequence: u64,
        offset: u64,
    },
    Checkpoint,
    Scrub(super::scrub::Checking),
    ZeroRun {
        first: u32,
        count: u32,
    },
    Discard {
        slot: u32,
    },
}

/// A write of a whole chunk whose payload is on its way.
#[derive(Debug)]
pub(super) struct ChunkWrite {
    pub op: StoreOp,
    pub at: ChunkId,
    pub entry: super::table::EntryId,
    pub slot: u32,
    pub buf: BufRef,
    pub crcs: [u32; 16],
    pub pg: PgId,
    pub range: Option<VolumeId>,
    pub stamp: Stamp,
    /// It is what another replica has.
    pub fill: Option<Box<Fill>>,
    /// It is already in the journal (only with the break `RecordBeforeData`).
    pub recorded: bool,
}

/// What a caller asked, kept while it has to wait.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Write {
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        buf: BufRef,
        crcs: [u32; 16],
        pg: PgId,
        range: Option<VolumeId>,
        stamp: Stamp,
    },
    Zero {
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        pg: PgId,
        range: Option<VolumeId>,
        stamp: Stamp,
    },
    ZeroChunks {
        op: StoreOp,
        at: ChunkId,
        count: u32,
        pg: PgId,
        range: Option<VolumeId>,
        stamp: Stamp,
    },
    /// Its slot is found when it is admitted.
    Fill {
        op: StoreOp,
        buf: BufRef,
        fill: Box<Fill>,
    },
    Fence {
        op: StoreOp,
        pg: PgId,
        version: u32,
        session: u32,
        fences: Vec<(VolumeId, Epoch)>,
    },
    DropReplica {
        op: StoreOp,
        pg: PgId,
    },
    List {
        op: StoreOp,
        job: Box<ListJob>,
    },
    Fetch {
        op: StoreOp,
        at: ChunkId,
        buf: BufRef,
    },
    Salvage {
        op: StoreOp,
        salvage: Box<Salvage>,
    },
    Mend {
        op: StoreOp,
        buf: BufRef,
        mend: Box<Mend>,
    },
    Read {
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        buf: BufRef,
    },
    Load {
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        buf: BufRef,
    },
    Look {
        op: StoreOp,
        at: ChunkId,
    },
    Inspect {
        op: StoreOp,
        at: ChunkId,
    },
    Map {
        op: StoreOp,
        at: ChunkId,
        count: u32,
    },
    PutVolume {
        op: StoreOp,
        volume: Box<VolumeMeta>,
    },
    DropVolume {
        op: StoreOp,
        volume: VolumeId,
    },
}

impl Ask {
    pub fn op(&self) -> StoreOp {
        match self {
            Ask::Write { op, .. }
            | Ask::Zero { op, .. }
            | Ask::ZeroChunks { op, .. }
            | Ask::Fill { op, .. }
            | Ask::Fence { op, .. }
            | Ask::DropReplica { op, .. }
            | Ask::List { op, .. }
            | Ask::Fetch { op, .. }
            | Ask::Salvage { op, .. }
            | Ask::Mend { op, .. }
            | Ask::Read { op, .. }
            | Ask::Load { op, .. }
            | Ask::Look { op, .. }
            | Ask::Inspect { op, .. }
            | Ask::Map { op, .. }
            | Ask::PutVolume { op, .. }
            | Ask::DropVolume { op, .. } => *op,
        }
    }

    /// Whether it changes nothing.
    pub fn reads(&self) -> bool {
        matches!(
            self,
            Ask::Read { .. }
                | Ask::Load { .. }
                | Ask::Look { .. }
                | Ask::Inspect { .. }
                | Ask::Map { .. }
                | Ask::List { .. }
                | Ask::Fetch { .. }
                | Ask::Salvage { .. }
        )
    }
}

/// One disk.
pub struct Store {
    pub(super) options: Options,
    pub(super) state: State,
    pub(super) now: Time,
    pub(super) superblock: Superblock,
    pub(super) openings: OpeningsPut,
    /// The newest checkpoint whose superblock is durable in both copies.
    pub(super) durable_checkpoint: u64,
    /// The manifest as the next checkpoint will write it.
    pub(super) manifest: Vec<ManifestRef>,
    pub(super) pages: Vec<Option<PageRef>>,
    pub(super) free_pages: Vec<u32>,
    pub(super) table: Table,
    pub(super) allocator: Allocator,
    /// Slots that were in use as the last root was written, of before this opening.
    pub(super) used_before: u32,
    pub(super) layers: Layers,
    pub(super) replicas: Replicas,
    pub(super) listings: Listings,
    pub(super) overlays: Overlays,
    /// Entries with payload to apply, oldest first.
    pub(super) apply_queue: VecDeque<super::table::EntryId>,
    pub(super) applies: u32,
    pub(super) scratch: Scratch,
    /// Journaled payload in memory, durable or on its way, in blocks.
    pub(super) memory_blocks: u64,
    pub(super) journal: Journal,
    pub(super) ios: Slab<Io>,
    pub(super) reads: Slab<ReadJob>,
    /// Of fetches in flight: what the layer holds, by the read's place.
    pub(super) holdings: FixedMap<u32, Holding>,
    /// Blocks on their way to other replicas.
    pub(super) salvages: Slab<Salvaging>,
    pub(super) slot_ios: super::order::Order,
    /// Writes that wait for memory or for room in the journal, in order.
    pub(super) stalled: VecDeque<Ask>,
    /// Whole chunks of this turn, in slots that lie side by side.
    pub(super) gathered: Vec<ChunkWrite>,
    /// Records of whole chunks that found the open batch full.
    pub(super) overfull: VecDeque<(super::record::Record, StoreOp, super::table::EntryId)>,
    pub(super) loader: Loader,
    pub(super) dirty: Vec<super::table::LeafId>,
    pub(super) checkpoint: Checkpoint,
    pub(super) scrub: Option<Scrub>,
    /// Where the search for entries of dropped layers stands.
    pub(super) sweep: Option<Sweep>,
    /// When the quiet journal is to be closed and applied.
    pub(super) quiet_at: Option<Time>,
    /// The journal has been quiet: apply what is left.
    pub(super) idle: bool,
    pub(super) zeroing: bool,
    /// Discards in flight on the disk.
    pub(super) discards: u32,
    pub(super) stats: Stats,
}

impl Store {
    /// Begins to open the store on a disk. It serves after [`Note::Opened`]; if it cannot be opened,
    /// [`Store::open_error`] says why.
    pub fn open(options: Options, out: &mut Outbox) -> Store {
        let mut store = Store::unopened(options);
        store.start_recovery(out);
        store
    }

    /// Why it could not be opened.
    pub fn open_error(&self) -> Option<&OpenError> {
        match &self.state {
            State::Opening(recovery) => recovery.error.as_ref(),
            _ => None,
        }
    }

    /// Whether it serves requests.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Damaged)
    }

    /// The volumes that it has parts of.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeMeta> {
        self.layers.volumes.values()
    }

    /// Whether a layer is one of a volume that was recorded here and not dropped.
    pub fn has_layer(&self, layer: LayerId) -> bool {
        self.layers.is_alive(layer)
    }

    /// The replica of a PG; `None` where it was never fenced. Right after an opening it is what is durable: a window may
    /// hold more than what was above the mark, never less (R22).
    pub fn replica(&self, pg: PgId) -> Option<&Replica> {
        self.replicas.get(pg)
    }

    /// The replicas that it has, by PG.
    pub fn replicas(&self) -> impl Iterator<Item = (PgId, &Replica)> {
        self.replicas.iter()
    }

    /// Whether what it holds can be known to be the newest. If not, it serves nothing and takes nothing: its replicas are to be
    /// made anew on a store that is formatted.
    pub fn is_whole(&self) -> bool {
        !matches!(self.state, State::Damaged)
    }

    /// What table and journal cannot tell any more: PGs, or all of the disk where that is not known, or where they are too many. Complete once the
    /// table is loaded; [`Output::Torn`] tells what is found until then.
    pub fn torn(&self) -> BTreeSet<Torn> {
        if !self.is_whole() {
            return [Torn::Disk].into();
        }
        let mut torn = BTreeSet::new();
        let leaves = match self.loader.damaged {
            0 => 0,
            _ => self.table.leaf_bound(),
        };
        for leaf in (0..leaves).filter(|&leaf| self.table.is_leaf(leaf)) {
            let leaf = self.table.leaf(leaf);
            if leaf.state == LeafState::Damaged {
                torn.insert(Torn::Pg(leaf.pg));
            }
            if torn.len() > TORN_MAX {
                return [Torn::Disk].into();
            }
        }
        torn
    }

    /// The identity and shape of the store, once its superblock is read.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox) {
        self.now = now;
        match input {
            Input::Write {
                op,
                at,
                run,
                buf,
                crcs,
                pg,
                range,
                stamp,
            } => {
                let mut all = [0; 16];
                all[..crcs.len()].copy_from_slice(crcs);
                self.ask(
                    Ask::Write {
                        op,
                        at,
                        run,
                        buf,
                        crcs: all,
                        pg,
                        range,
                        stamp,
                    },
                    out,
                );
            }
            Input::Zero {
                op,
                at,
                run,
                pg,
                range,
                stamp,
            } => {
                self.ask(
                    Ask::Zero {
                        op,
                        at,
                        run,
                        pg,
                        range,
                        stamp,
                    },
                    out,
                );
            }
            Input::ZeroChunks {
                op,
                at,
                count,
                pg,
                range,
                stamp,
            } => {
                self.ask(
                    Ask::ZeroChunks {
                        op,
                        at,
                        count,
                        pg,
                        range,
                        stamp,
                    },
                    out,
                );
            }
            Input::Read { op, at, run, buf } => match self.state {
                // Nothing that it would wait for as an ask.
                State::Open => self.on_read(op, at, run, buf, out),
                _ => self.ask(Ask::Read { op, at, run, buf }, out),
            },
            Input::Load { op, at, run, buf } => self.ask(Ask::Load { op, at, run, buf }, out),
            Input::Look { op, at } => self.ask(Ask::Look { op, at }, out),
            Input::Inspect { op, at } => self.ask(Ask::Inspect { op, at }, out),
            Input::PutOpenings { op, openings } => self.on_put_openings(op, openings, out),
            Input::Map { op, at, count } => self.ask(Ask::Map { op, at, count }, out),
            Input::PutVolume { op, volume } => {
                self.ask(
                    Ask::PutVolume {
                        op,
                        volume: Box::new(volume),
                    },
                    out,
                );
            }
            Input::DropVolume { op, volume } => self.ask(Ask::DropVolume { op, volume }, out),
            Input::Fill {
                op,
                at,
                pg,
                blocks,
                data,
                zero,
                buf,
                crcs,
                stamp,
                range,
                window,
            } => {
                let fill = Fill::new(at, (pg, range, stamp), (blocks, data, zero), crcs, window);
                let fill = Box::new(fill);
                self.ask(Ask::Fill { op, buf, fill }, out);
            }
            Input::Fence {
                op,
                pg,
                version,
                session,
                fences,
            } => {
                self.ask(
                    Ask::Fence {
                        op,
                        pg,
                        version,
                        session,
                        fences,
                    },
                    out,
                );
            }
            Input::Mark {
                pg,
                range,
                epoch,
                mark,
            } => self.replicas.mark(pg, range, epoch, mark),
            Input::DropReplica { op, pg } => self.ask(Ask::DropReplica { op, pg }, out),
            Input::Forget { pg, version } => {
                if self.replicas.forget(pg, version) {
                    self.sweep = Some(Sweep::default());
                }
            }
            Input::List {
                op,
                pg,
                since,
                after,
                max,
            } => {
                let job = Box::new(ListJob::new(pg, since, after, max));
                self.ask(Ask::List { op, job }, out);
            }
            Input::Fetch { op, at, buf } => self.ask(Ask::Fetch { op, at, buf }, out),
            Input::Salvage {
                op,
                at,
                blocks,
                crcs,
                buf,
            } => {
                let salvage = Box::new(Salvage::new(at, blocks, crcs, buf));
                self.ask(Ask::Salvage { op, salvage }, out);
            }
            Input::Mend {
                op,
                at,
                blocks,
                crcs,
                buf,
            } => {
                let mend = Box::new(Mend::new(at, blocks, crcs));
                self.ask(Ask::Mend { op, buf, mend }, out);
            }
            Input::Grow { op, bytes } => self.on_grow(op, bytes, out),
            Input::Scrub { op } => self.on_scrub(op, out),
            Input::Checkpoint { op } => self.on_checkpoint_wanted(op, out),
            Input::Close { op, how } => self.on_close(op, how, out),
            Input::DiskDone { id, result } => self.on_disk_done(id, result, out),
            Input::TurnEnded => self.on_turn_ended(out),
        }
        self.stats.steps += 1;
    }

    /// When [`Store::expire`] is to be called, if nothing else happens first.
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Open if self.sweep.is_some() => Some(self.now),
            State::Open => self.quiet_at,
            _ => None,
        }
    }

    /// The deadline has come.
    pub fn expire(&mut self, now: Time, out: &mut Outbox) {
        self.now = now;
        if self.quiet_at.is_some_and(|at| at <= now) {
            self.quiet_at = None;
            self.on_quiet(out);
        }
        self.step_sweep(out);
    }

    /// An operation of a caller: reads go at once, writes behind those that wait.
    fn ask(&mut self, ask: Ask, out: &mut Outbox) {
        let op = ask.op();
        match self.state {
            State::Open => {}
            State::Damaged => {
                let why = if ask.reads() {
                    StoreError::Torn
                } else {
                    StoreError::ReadOnly
                };
                return done(op, Err(why), out);
            }
            State::Failed => return done(op, Err(StoreError::DiskFailed), out),
            State::Opening(_) | State::Closing(..) | State::Closed => {
                return done(op, Err(StoreError::NotOpen), out);
            }
        }
        match ask {
            _ if ask.reads() => self.admit(ask, out),
            _ if !self.stalled.is_empty() => self.stalled.push_back(ask),
            _ => self.admit(ask, out),
        }
    }

    /// Starts an operation, or puts it where it waits.
    pub(super) fn admit(&mut self, ask: Ask, out: &mut Outbox) {
        match ask {
            Ask::Read { op, at, run, buf } => self.on_read(op, at, run, buf, out),
            Ask::Load { op, at, run, buf } => self.on_load(op, at, run, buf, out),
            Ask::Look { op, at } => self.on_look(op, at, out),
            Ask::Inspect { op, at } => self.on_inspect(op, at, out),
            Ask::Map { op, at, count } => self.on_map(op, at, count, out),
            Ask::List { op, job } => self.on_list(op, job, out),
            Ask::Fetch { op, at, buf } => self.on_fetch(op, at, buf, out),
            Ask::Salvage { op, salvage } => self.on_salvage(op, salvage, out),
            other => self.on_change(other, out),
        }
    }

    fn on_disk_done(&mut self, id: IoId, result: Result<IoData<'_>, DiskFault>, out: &mut Outbox) {
        let Some(io) = self.ios.remove(id.0 as u32) else {
            debug_assert!(false, "an operation is answered once");
            return;
        };
        if let Err(fault) = &result {
            self.stats.disk_errors += 1;
            let fatal = *fault == DiskFault::Gone || io.is_write();
            if fatal && !matches!(self.state, State::Opening(_)) {
                self.fail(out);
            }
        }
        match io {
            Io::Recovery => self.on_recovery_read(result, out),
            Io::Opening { copy } => self.on_incarnation_written(copy, result.is_ok(), out),
            Io::Closing { copy } => self.on_close_written(copy, result.is_ok(), out),
            Io::Openings { copy } => self.on_openings_written(copy, result.is_ok(), out),
            Io::Page { leaf, index } => self.on_page_read(leaf, index, result, out),
            Io::Read {
                job,
                first,
                count,
                sequence,
            } => {
                self.end_slot_io(sequence, out);
                self.on_blocks_read(job, (first, count), result, out);
            }
            Io::Salvage {
                job,
                first,
                count,
                sequence,
                offset,
            } => {
                self.end_slot_io(sequence, out);
                self.on_salvaged(job, (first, count), offset, result, out);
            }
            Io::Chunks(writes) => self.on_chunks_written(writes, result.is_ok(), out),
            Io::Batch { number } => self.on_batch_written(number, result.is_ok(), out),
            Io::Apply(applying) => self.on_apply_done(applying, result, out),
            Io::Checkpoint => self.on_checkpoint_io(result.is_ok(), out),
            Io::Scrub(checking) => self.on_checked(checking, result, out),
            Io::ZeroRun { first, count } => {
                self.zeroing = false;
                if result.is_ok() {
                    self.allocator.add_zeroed(first, count);
                }
            }
            // A device may ignore or refuse it: the slot is free all the same.
            Io::Discard { slot } => {
                self.discards -= 1;
                self.allocator.free(slot);
                if !self.is_failed() {
                    self.settle_freed(out);
                }
            }
        }
        if matches!(self.state, State::Failed) {
            self.release_if_quiet(out);
        }
    }

    fn on_turn_ended(&mut self, out: &mut Outbox) {
        if !matches!(self.state, State::Open | State::Closing(..)) {
            return;
        }
        self.retry_stalled(out);
        self.write_gathered(out);
        self.close_batch_if_possible(out);
        self.step_openings(out);
        self.step_quick_close(out);
        self.zero_ahead(out);
        self.step_checkpoint(out);
        self.step_apply(out);
        self.step_loader(out);
    }

    /// The disk failed: everything that only waits is answered, what is in flight when it ends.
    pub(super) fn fail(&mut self, out: &mut Outbox) {
        let before = std::mem::replace(&mut self.state, State::Failed);
        if let State::Failed = before {
            return;
        }
        out.list.push(Output::Note(Note::DiskFailed));
        // What is left of dropped layers is found again by the next opening.
        self.sweep = None;
        if let State::Closing(op, _) = before {
            done(op, Err(StoreError::DiskFailed), out);
        }
        let mut told: Vec<StoreOp> = self.stalled.drain(..).map(|ask| ask.op()).collect();
        told.extend(self.gathered.drain(..).map(|write| write.op));
        told.extend(self.overfull.drain(..).map(|(_, op, _)| op));
        told.extend(self.loader.take_waiting().iter().map(Ask::op));
        let batches = self.journal.flying.iter().chain([&self.journal.open]);
        let acts = batches.flat_map(|batch| &batch.acts);
        told.extend(acts.map(|act| act.op).filter(|&op| op != Act::NOBODY.op));
        told.extend(self.checkpoint.take_waiting());
        told.extend(self.openings.take_waiting());
        told.into_iter()
            .for_each(|op| done(op, Err(StoreError::DiskFailed), out));
        if let Some(scrub) = self.scrub.take() {
            done(scrub.op, Err(StoreError::DiskFailed), out);
        }
    }

    /// After a failure, when nothing is in flight any more, no buffer is needed.
    fn release_if_quiet(&mut self, out: &mut Outbox) {
        if !self.ios.is_empty() {
            return;
        }
        self.release_memory(out);
    }

    /// Starts an operation on the disk.
    pub(super) fn submit(&mut self, io: Io, out: &mut Outbox, op: impl FnOnce(IoId) -> DiskOp) {
        let key = self
            .ios
            .insert(io)
            .expect("operations in flight are bounded by their callers");
        out.list.push(Output::Disk(op(IoId(u64::from(key)))));
    }

    /// A number for an operation that touches a slot; see [`super::order::Order`].
    pub(super) fn end_slot_io(&mut self, sequence: u64, out: &mut Outbox) {
        self.slot_ios.end(sequence);
        self.settle_freed(out);
    }

    /// Gives a slot back: it is free when nothing that is in flight now can touch it any more.
    pub(super) fn release_slot(&mut self, slot: u32, out: &mut Outbox) {
        let after = if self.breaks().on(Break::ReuseSlotTooEarly) {
            0
        } else {
            self.slot_ios.next()
        };
        self.allocator.release(slot, after);
        self.settle_freed(out);
    }

    /// Slots whose last reader is gone are discarded on a device that wants to know, and are free.
    fn settle_freed(&mut self, out: &mut Outbox) {
        // A replica that is dropped frees thousands of slots at once; the device is told of a few at a time.
        while self.discards < DISCARDS_MAX
            && let Some(slot) = self.allocator.settle(self.slot_ios.ended())
        {
            self.stats.freed_slots += 1;
            if self.options.discard && !self.is_resting() {
                self.discards += 1;
                let offset = self.superblock.geometry.slot_at(slot);
                self.submit(Io::Discard { slot }, out, |id| DiskOp::Discard {
                    id,
                    offset,
                    len: CHUNK,
                });
            } else {
                self.allocator.free(slot);
            }
        }
    }

    pub(super) fn breaks(&self) -> Breaks {
        self.options.breaks
    }

    pub(super) fn read_slab() -> Slab<ReadJob> {
        Slab::new(READS_MAX)
    }

    pub(super) fn salvage_slab() -> Slab<Salvaging> {
        Slab::new(SALVAGES_MAX)
    }

    pub(super) fn io_slab() -> Slab<Io> {
        Slab::new(IOS_MAX)
    }
}

impl Io {
    /// Whether its failure takes the disk out of service.
    fn is_write(&self) -> bool {
        match self {
            Io::Recovery
            | Io::Page { .. }
            | Io::Read { .. }
            | Io::Salvage { .. }
            | Io::Scrub(_)
            | Io::Discard { .. } => false,
            Io::Apply(applying) => !applying.is_fetching(),
            _ => true,
        }
    }
}

/// Answers an operation of a caller.
pub(super) fn done(op: StoreOp, result: Result<(), StoreError>, out: &mut Outbox) {
    out.list.push(Output::Done { op, result });
}
