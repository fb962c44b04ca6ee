//! The store's door: what goes in, what comes out. No payload passes it, only the names of buffers.
//!
//! The driver's duties, numbered:
//! 1. Carry out every [`DiskOp`] and answer it once with [`Input::DiskDone`] and its [`IoId`], in any order.
//!    Operations of one drain may run in any order and at the same time.
//! 2. Carry out [`Output::Copy`] and [`Output::Fill`] before an answer that follows them in the outbox.
//! 3. Keep the blocks of a [`Output::Pin`] unchanged until an equal [`Output::Unpin`].
//! 4. Answer a read of blocks with the checksum of each block as it arrived, seeded with the layer and
//!    block number that the operation names.
//! 5. Say [`Input::TurnEnded`] when there is nothing more to step for now: it closes the journal batch.
//! 6. Ask `deadline()` and call `expire()` when it has come.
//! 7. Have no two changes in flight that share a block; a fill of a whole chunk shares all of its blocks. A PG whose
//!    replica is dropped has no change in flight.
//!
//! Slots: the last 1 % of them is the *reserve*. Of a PG that is not replicated new space is taken outside of it only. Of one that is, who coordinates has asked
//! before ([`Input::Look`], [`Levels::slots_free`](super::Levels)), so that a replica in sync takes what it is told to the last slot; a joiner, and a fill, leaves two thirds of the
//! reserve to those. Writes over what is there need no slot of their own; a fill of a whole chunk needs one until it
//! has given the old one back. [`StoreError::NoSpace`] is the answer to what takes new space.
//!
//! A PG is *replicated* for a store from its first [`Input::Fence`] to its [`Input::DropReplica`]. Of such a one the store keeps
//! fences, marks and windows, and what was discarded leaves a tombstone. Of others it keeps nothing but their blocks.

use crate::base::{BlockNo, BlockRun, BufRef, FamilyId, LayerId, MapRun, PgId, VolumeId};
pub use crate::base::{ChunkId, Epoch, Stamp};
use std::ops::Range;

/// The caller's name for an operation that it asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreOp(pub u32);

/// The store's name for an operation that it asked of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId(pub u64);

/// A layer of a volume and the layer that it lies over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerMeta {
    pub id: LayerId,
    pub parent: Option<LayerId>,
    /// A frozen layer takes no more writes.
    pub frozen: bool,
}

/// What a store knows of a volume that it has parts of, so that a lost catalog can be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMeta {
    pub id: VolumeId,
    pub family: FamilyId,
    /// At most 128 bytes.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// The layer that takes writes is the last one.
    pub layers: Vec<LayerMeta>,
}

/// What is asked of a store.
#[derive(Debug)]
pub enum Input<'a> {
    /// Write the blocks `run` of a chunk from `buf`. The caller has no overlapping write in flight.
    Write {
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        buf: BufRef,
        /// Of each block of the run.
        crcs: &'a [u32],
        pg: PgId,
        /// The range whose window the write is in, until a mark passes it. `None`: in no window.
        range: Option<VolumeId>,
        stamp: Stamp,
    },
    /// Make the blocks of a chunk read as zeroes; gives a chunk back that has nothing left in it.
    Zero {
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        pg: PgId,
        range: Option<VolumeId>,
        stamp: Stamp,
    },
    /// The same for `count` whole chunks from `at` on, all in one extent.
    ZeroChunks {
        op: StoreOp,
        at: ChunkId,
        count: u32,
        pg: PgId,
        range: Option<VolumeId>,
        stamp: Stamp,
    },
    /// Make the blocks `blocks` of a chunk what another replica has there: those of `data` as in `buf`, those of `zero`
    /// zeroes, the rest absent. One change, which keeps the stamp that it brings (R15). With all 16 blocks
    /// it goes to a slot of its own, so that what was rotten in the old one is left behind.
    Fill {
        op: StoreOp,
        at: ChunkId,
        pg: PgId,
        blocks: u16,
        /// A part of `blocks`.
        data: u16,
        /// Another part of `blocks`.
        zero: u16,
        /// The chunk: block n of it is n blocks behind this.
        buf: BufRef,
        /// By the places of the blocks; of those that are not data they mean nothing.
        crcs: &'a [u32; 16],
        /// The chunk has this stamp afterwards, or a higher one that it has already and keeps blocks of.
        stamp: Stamp,
        /// The range, where the source holds the chunk in its window, and what it holds of it: at most 16 entries.
        range: Option<VolumeId>,
        window: &'a [WindowEntry],
    },
    /// Take higher fences over, durably (R6). The first one makes the PG a replicated one. A lower version or epoch than
    /// is known changes nothing of it.
    Fence {
        op: StoreOp,
        pg: PgId,
        version: u32,
        /// The version with which this replica joins (R16); 0: it does not.
        session: u32,
        /// At most 1024.
        fences: Vec<(VolumeId, Epoch)>,
    },
    /// Everything of this epoch up to `mark` is acknowledged: it leaves the window. Not answered; made durable with
    /// what is written anyway, so a crash may take it back (R22).
    Mark {
        pg: PgId,
        range: VolumeId,
        epoch: Epoch,
        mark: u64,
    },
    /// Forget a PG: its fences, its windows, its chunks (R24).
    DropReplica { op: StoreOp, pg: PgId },
    /// All replicas of a PG were in sync as of `version`: tombstones up to it may go (R20). Not answered.
    Forget { pg: PgId, version: u32 },
    /// The chunks of a PG that were changed under a version above `since`, by family, chunk and layer, tombstones too;
    /// those behind `after`. Answered with [`Output::Listed`].
    List {
        op: StoreOp,
        pg: PgId,
        since: u32,
        after: Option<ChunkId>,
        /// At most so many, and never more than 1024.
        max: u32,
    },
    /// Read what a layer itself holds of a chunk into `buf`, which has room for all of it: block n to n blocks behind
    /// `buf`. Answered with [`Output::Fetched`], or with an error.
    Fetch {
        op: StoreOp,
        at: ChunkId,
        buf: BufRef,
    },
    /// Read those of `blocks` that a layer itself holds with these checksums, for a replica that lost them; block n to n blocks
    /// behind `buf`. Answered with [`Output::Salvaged`], or with an error. A block that cannot be read fails no other one.
    Salvage {
        op: StoreOp,
        at: ChunkId,
        blocks: u16,
        /// By the places of the blocks.
        crcs: &'a [u32; 16],
        buf: BufRef,
    },
    /// Put the bytes of damaged blocks back, from `buf` (block n is n blocks behind it), which match these checksums. A block whose
    /// checksum is another one by then, or that is no data any more, is left as it is. Nothing else changes: no stamp, no window.
    /// Also in a frozen layer.
    Mend {
        op: StoreOp,
        at: ChunkId,
        blocks: u16,
        /// By the places of the blocks.
        crcs: &'a [u32; 16],
        buf: BufRef,
    },
    /// Read the blocks `run` of a chunk, as seen from its layer, into `buf`.
    Read {
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        buf: BufRef,
    },
    /// The same for another node, which is told the checksums too. Answered with [`Output::Loaded`], or with an error.
    Load {
        op: StoreOp,
        at: ChunkId,
        run: BlockRun,
        buf: BufRef,
    },
    /// Whether a write of data into this chunk of this layer would take a slot. No data is read. Answered with [`Output::Looked`], or with
    /// an error. It holds for the moment of the answer.
    Look { op: StoreOp, at: ChunkId },
    /// What the table has of a chunk of one layer. No data is read. Answered with [`Output::Inspected`], or with an error.
    Inspect { op: StoreOp, at: ChunkId },
    /// Keep the numbers that the manager has for openings of this store (R19), durably, in the superblocks. A few at once; more are told
    /// [`StoreError::Busy`].
    PutOpenings { op: StoreOp, openings: Openings },
    /// What is allocated in `count` chunks from `at` on, all in one extent; answered with [`Output::Mapped`].
    Map {
        op: StoreOp,
        at: ChunkId,
        count: u32,
    },
    /// Record a volume or a change of it (name, size, a new layer).
    PutVolume { op: StoreOp, volume: VolumeMeta },
    /// Forget a volume; its space is given back.
    DropVolume { op: StoreOp, volume: VolumeId },
    /// Take the disk's new length into use.
    Grow { op: StoreOp, bytes: u64 },
    /// Read and compare every block once, from the start.
    Scrub { op: StoreOp },
    /// Checkpoint what is durable now, while I/O goes on. A close soon after has little left to write.
    Checkpoint { op: StoreOp },
    /// Stop taking anything. Answered when the disk can be let go.
    Close { op: StoreOp, how: Closing },
    /// An operation on the disk has ended.
    DiskDone {
        id: IoId,
        result: Result<IoData<'a>, DiskFault>,
    },
    /// The driver has nothing more to step for now.
    TurnEnded,
}

/// What an operation on the disk brought.
#[derive(Debug)]
pub enum IoData<'a> {
    /// Writes, flushes, discards.
    None,
    /// Of [`DiskOp::ReadMeta`].
    Bytes(&'a [u8]),
    /// Of [`DiskOp::ReadBlocks`]: the checksum of each block.
    Crcs(&'a [u32]),
}

/// How the world failed an operation on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// This place could not be read or written (EIO).
    Medium,
    /// The device is gone.
    Gone,
}

/// Whether an operation's data must be on the medium before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is answered, it survives power loss.
    Durable,
    /// It may be lost until a later [`DiskOp::Flush`] is answered.
    Cached,
}

/// What a write is for. It is carried out the same way all the same: drivers only count by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// A batch of the journal: writers wait for it.
    Journal,
    /// Whole chunks, before their record is journaled: writers wait for it.
    Payload,
    /// Payload on its way from the journal to its slot.
    Apply,
    /// Table pages, manifest, root and superblock.
    Checkpoint,
}

/// An operation on the disk. Offsets and lengths are in bytes and multiples of 4096.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskOp {
    /// Write `head` (a part of the outbox's arena) and behind it the blocks of `body` (a part of its spans).
    Write {
        id: IoId,
        offset: u64,
        head: Range<u32>,
        body: Range<u32>,
        durability: Durability,
        kind: WriteKind,
    },
    /// Read blocks of payload into `buf`, which are blocks `first` and following of `layer`.
    ReadBlocks {
        id: IoId,
        offset: u64,
        buf: BufRef,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
    },
    /// Read blocks only to check them: the driver uses a buffer of its own.
    CheckBlocks {
        id: IoId,
        offset: u64,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
    },
    /// Read metadata, which comes in as bytes.
    ReadMeta { id: IoId, offset: u64, len: u32 },
    /// Make everything durable that was answered before.
    Flush { id: IoId },
    /// Tell the device that this range is not in use.
    Discard { id: IoId, offset: u64, len: u64 },
    /// Write zeroes here, so that the extents of a file are written ones.
    ZeroRun { id: IoId, offset: u64, len: u64 },
}

/// What a store wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Disk(DiskOp),
    /// Copy blocks of payload between buffers.
    Copy {
        from: BufRef,
        to: BufRef,
        blocks: u32,
    },
    /// Fill blocks of a buffer with zeroes.
    Fill {
        buf: BufRef,
        blocks: u32,
    },
    /// These blocks are in use until they are unpinned as often as they were pinned.
    Pin {
        buf: BufRef,
        blocks: u32,
    },
    Unpin {
        buf: BufRef,
        blocks: u32,
    },
    /// An operation of the caller has ended.
    Done {
        op: StoreOp,
        result: Result<(), StoreError>,
    },
    /// [`Input::Map`] has ended: the runs (a part of the outbox's map runs).
    Mapped {
        op: StoreOp,
        runs: Range<u32>,
    },
    /// [`Input::List`] has ended: what was found (its place among the outbox's lists).
    Listed {
        op: StoreOp,
        found: u32,
    },
    /// [`Input::Fetch`] has ended: what the layer holds (its place among the outbox's holdings).
    Fetched {
        op: StoreOp,
        holding: u32,
    },
    /// [`Input::Load`] has ended. Of the holding (its place among the outbox's holdings) `data` are the blocks of the run that are in the buffer, with their
    /// checksums as blocks of the layer that was asked for; `zero` are those that read as zeroes. It has no stamp.
    Loaded {
        op: StoreOp,
        holding: u32,
    },
    /// [`Input::Look`] has ended.
    Looked {
        op: StoreOp,
        takes: Takes,
    },
    /// [`Input::Inspect`] has ended: what the table has (its place among the outbox's holdings); `None`: it has nothing of this chunk. Of a
    /// tombstone it has a stamp, and no block.
    Inspected {
        op: StoreOp,
        holding: Option<u32>,
    },
    /// Table or journal was found damaged. Told once for each extent; [`Store::torn`](super::Store::torn) says it again.
    Torn(Torn),
    /// [`Input::Salvage`] has ended: these blocks are in its buffer, and match.
    Salvaged {
        op: StoreOp,
        blocks: u16,
    },
    /// A block of data is damaged beyond doubt; another replica may have what its checksum says. Told at each read that meets it.
    Damaged {
        pg: PgId,
        at: ChunkId,
        /// Its place in the chunk.
        block: u32,
        /// What it should have.
        crc: u32,
    },
    /// Something a person should be able to read afterwards.
    Note(Note),
}

/// A write above a mark, as far as it is in one chunk: what a replica's window holds (R22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowEntry {
    pub at: ChunkId,
    /// A bit for each block that it wrote there.
    pub blocks: u16,
    pub stamp: Stamp,
}

/// What a list found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// A part of the outbox's chunks.
    pub chunks: Range<u32>,
    /// There may be more: go on behind this chunk.
    pub more: Option<ChunkId>,
}

/// What a layer itself holds of a chunk. A block that is neither data nor zero is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holding {
    pub data: u16,
    pub zero: u16,
    /// Of the newest change of the chunk; the lowest one where the layer holds nothing of it.
    pub stamp: Stamp,
    /// By the places of the blocks; of those that are not data they are 0.
    pub crcs: [u32; 16],
}

/// Whether a write of data would take a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// The layer has one for the chunk.
    Nothing,
    Slot,
}

/// What the table or the journal cannot tell any more, because it is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Torn {
    /// Extents of this PG: they answer with errors. [`Input::DropReplica`] makes them empty and sound.
    Pg(PgId),
    /// All that is on this disk, or more PGs than are told one by one. Where [`Store::is_whole`](super::Store::is_whole) says that nothing can be known to be the newest, only a
    /// new format cures it.
    Disk,
}

/// The numbers of a store's openings, as a manager counts them (R19). The store only keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Openings {
    /// Of the last opening; 0: none was told.
    pub last: u64,
    /// Of the last one that the manager is known to have recorded.
    pub recorded: u64,
}

/// Why a store refused or failed an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// The data cannot be read, or does not match its checksum.
    Damaged,
    /// What the table or the journal says of it is damaged: see [`Torn`].
    Torn,
    /// The disk failed; the store is out of service.
    DiskFailed,
    /// No slot or no table page is left.
    NoSpace,
    /// The store takes no writes.
    ReadOnly,
    /// The store is being opened or closed.
    NotOpen,
    /// The same is under way already: one growth and one scrub at a time, a few openings. Or no root could hold the windows: a mark is needed.
    Busy,
    /// This store knows no such layer or volume, or the layer is frozen.
    NoSuchLayer,
    /// The disk is shorter than the store, or longer than it can grow to.
    BadSize,
}

/// Something that happened, for people: bounded, without text of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The store is open. `replayed` batches came from the journal.
    Opened {
        replayed: u64,
    },
    /// A block does not match its checksum, also at the second reading; at this offset of the disk.
    RottenBlock {
        layer: LayerId,
        block: BlockNo,
        offset: u64,
    },
    /// A block could not be read at all.
    UnreadableBlock {
        layer: LayerId,
        block: BlockNo,
        offset: u64,
    },
    /// A table page is damaged: its extent answers with errors.
    DamagedPage {
        family: FamilyId,
        extent: u32,
        offset: u64,
    },
    /// An acknowledged journal batch is damaged: the store is read-only.
    DamagedJournal {
        batch: u64,
        offset: u64,
    },
    /// The disk failed; nothing more is asked of it.
    DiskFailed,
    Checkpoint {
        number: u64,
        pages: u32,
    },
    JournalWrapped {
        batch: u64,
    },
    /// All table pages are loaded.
    TableLoaded {
        pages: u32,
    },
    Scrubbed {
        blocks: u64,
        bad: u64,
    },
    /// Blocks of a chunk were damaged, and have their bytes again.
    Mended {
        layer: LayerId,
        /// The first block of the chunk.
        chunk: BlockNo,
        blocks: u16,
    },
}

impl Note {
    /// A block that cannot be read at all, or does not match its checksum.
    pub(super) fn bad_block(unreadable: bool, layer: LayerId, block: BlockNo, offset: u64) -> Note {
        match unreadable {
            true => Note::UnreadableBlock {
                layer,
                block,
                offset,
            },
            false => Note::RottenBlock {
                layer,
                block,
                offset,
            },
        }
    }
}

/// How a store is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Everything is applied and checkpointed.
    Whole,
    /// At once: what the journal holds is left to the next opening.
    Quick,
}

/// A run of payload blocks, for gathering writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub buf: BufRef,
    pub blocks: u32,
}

/// Where a store puts its outputs. The driver drains it and clears it; it is used again.
#[derive(Debug, Default)]
pub struct Outbox {
    pub list: Vec<Output>,
    /// Metadata that leaves: [`DiskOp::Write`] names ranges of it.
    pub arena: Vec<u8>,
    /// Payload that leaves: [`DiskOp::Write`] names ranges of it.
    pub spans: Vec<Span>,
    /// Answers to maps: [`Output::Mapped`] names ranges of it.
    pub runs: Vec<MapRun>,
    /// Answers to lists: [`Output::Listed`] names places in it, and they ranges of `chunks`.
    pub lists: Vec<Found>,
    pub chunks: Vec<(ChunkId, Stamp)>,
    /// Answers to fetches, loads and looks at the table: [`Output::Fetched`], [`Output::Loaded`] and [`Output::Inspected`] name places in it.
    pub holdings: Vec<Holding>,
}

impl Outbox {
    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.arena.clear();
        self.spans.clear();
        self.runs.clear();
        self.lists.clear();
        self.chunks.clear();
        self.holdings.clear();
    }
}

/// What a store is born with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The length of the disk in bytes.
    pub disk_bytes: u64,
    /// Space in buffers that the store may use itself (recovery reads journaled payload into it), and
    /// how many blocks it has: at least 128.
    pub scratch: BufRef,
    pub scratch_blocks: u32,
    /// Bound of journaled payload that is kept in memory, in bytes.
    pub overlay_bytes: u64,
    /// Whether slots are zeroed ahead of their first use (files: a durable write into an unwritten extent costs twice one into a written extent).
    pub zero_ahead: bool,
    /// Whether the device wants to be told of unused slots.
    pub discard: bool,
    /// A random number, different at each opening.
    pub entropy: [u8; 16],
    pub breaks: crate::base::Breaks,
}

/// Why the bytes on a disk are not a store that can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Neither superblock begins with Sarsen's magic: never formatted, or another thing's disk.
    NotASarsenDisk,
    /// The superblock's format version is not one that this build reads.
    UnknownVersion { found: u32, reads: u32 },
    /// Both superblocks have the magic and neither has a right checksum.
    DamagedSuperblock,
    /// The superblock says that the store is longer than the disk.
    DiskTooShort { needs: u64, has: u64 },
    /// The root of the last checkpoint is damaged in both places where it may be.
    DamagedRoot { offset: u64 },
    /// Superblock and root do not agree, or a value is out of its range.
    Inconsistent { field: &'static str, value: u64 },
    /// The disk failed while it was being opened.
    Disk(DiskFault),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::NotASarsenDisk => f.write_str("there is no Sarsen superblock on it"),
            OpenError::UnknownVersion { found, reads } => {
                write!(
                    f,
                    "its format is version {found}, and this build reads version {reads}"
                )
            }
            OpenError::DamagedSuperblock => f.write_str("both superblocks are damaged"),
            OpenError::DiskTooShort { needs, has } => {
                write!(f, "the store needs {needs} bytes, the disk has {has}")
            }
            OpenError::DamagedRoot { offset } => {
                write!(
                    f,
                    "the root of the last checkpoint, at byte {offset}, is damaged"
                )
            }
            OpenError::Inconsistent { field, value } => {
                write!(f, "the field {field} has the impossible value {value}")
            }
            OpenError::Disk(DiskFault::Medium) => f.write_str("the disk answers with an I/O error"),
            OpenError::Disk(DiskFault::Gone) => f.write_str("the disk is gone"),
        }
    }
}

impl std::error::Error for OpenError {}
