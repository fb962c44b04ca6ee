//! The fabric's door: what it is told, and what it wants done.
//!
//! The driver's duties:
//! 1. Carry out [`Output`]s in their order: a value is placed before the reply that follows.
//! 2. Answer each [`StoreAsk`] once, in any order, with the [`StoreAnswer`] of its machine; an ask that the disk failed too.
//! 3. Bring [`Output::Send`] to the node that has the disk, or that asked; also where that is this very shard. It may be lost, or come twice, or late.
//! 4. Hold payload that came against its checksums before it comes in here. What comes in is held in the fabric's book ([`Fabric::holds`](super::Fabric::holds)), and
//!    may be used for something else after its [`Output::Unpin`].
//! 5. Call `expire` at `deadline`; late is safe.
//! 6. Record layers at the disks before [`Order::Layers`] tells of them.

use crate::base::{
    BlockNo, BufRef, ChunkId, DiskId, Epoch, IoError, LayerId, MapRun, Payload, PgId, Request,
    Time, Token, VolumeId,
};
use crate::protocol::replication::fill::Content;
use crate::protocol::replication::replica::{self, Asker, Durable};
use crate::protocol::replication::{Configuration, Room};
use crate::protocol::report::Report;
use crate::protocol::scrub;
use crate::protocol::scrub::compare;
use crate::protocol::volume::groups::{Value, WithoutLease};
use crate::protocol::volume::{OpenVolume, PieceId};
use crate::wire::Frame;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// What the fabric has to know of the stores below it at once.
pub trait Stores {
    /// What survived of a replica; `None`: the store knows of none.
    fn durable(&self, disk: DiskId, pg: PgId) -> Option<Durable>;
    fn room(&self, disk: DiskId) -> Room;
    /// Whether what the store has of a PG is damaged beyond knowing.
    fn is_torn(&self, disk: DiskId, pg: PgId) -> bool;
}

/// What a fabric is told.
#[derive(Debug)]
pub enum Input<'a> {
    Request(Request),
    /// The answer to [`Output::Checksum`].
    Checksummed {
        piece: PieceId,
        crcs: &'a [u32],
    },
    /// A frame has come. `disk` is that of its head.
    Frame {
        from: Asker,
        disk: DiskId,
        frame: Frame,
        payload: Option<Payload>,
    },
    /// The answer to [`Output::Store`], after so long.
    Answered {
        disk: DiskId,
        pg: PgId,
        answer: StoreAnswer,
        took: Duration,
    },
    /// The answer to [`Output::Map`]: the runs.
    Mapped {
        piece: PieceId,
        result: Result<&'a [MapRun], IoError>,
    },
    /// The store found a block damaged, which should have this checksum.
    Damaged {
        disk: DiskId,
        pg: PgId,
        at: ChunkId,
        block: u32,
        crc: u32,
    },
    /// The store found what it has of a PG damaged beyond knowing.
    Torn {
        disk: DiskId,
        pg: PgId,
    },
    /// A disk has become low, or ample again.
    Room {
        disk: DiskId,
        room: Room,
    },
    /// What the node's control plane wants.
    Order(Order),
}

/// What the node's control plane wants of a fabric.
#[derive(Debug, Clone)]
pub enum Order {
    /// This disk of the shard may serve: the manager has recorded its opening.
    Disk {
        disk: DiskId,
    },
    /// It was taken away, and nothing is on it any more.
    NoDisk {
        disk: DiskId,
    },
    /// How many bytes a second a disk may be filled with, or that there is no limit.
    FillLimit {
        disk: DiskId,
        bytes_per_second: Option<u64>,
    },
    /// What the manager says of a PG.
    Configured {
        pg: PgId,
        of: Configuration,
    },
    /// The layers of a volume, each with the one below it: they are recorded at the disks.
    Layers {
        volume: VolumeId,
        layers: Vec<(LayerId, Option<LayerId>)>,
    },
    /// There is a connection to the node that has these disks.
    Connected {
        disks: Vec<DiskId>,
    },
    /// There is none any more.
    Disconnected {
        disks: Vec<DiskId>,
    },
    /// The node holds a lease that it did not hold before, until then.
    Leased {
        until: Time,
    },
    /// Its lease holds until then; it has ended where that is past.
    Extended {
        until: Time,
    },
    /// What becomes of values that are read without a lease, from now on.
    WithoutLease(WithoutLease),
    /// The volume is this node's under `epoch`: it is held until [`Order::Release`].
    Open {
        open: OpenVolume,
        epoch: Epoch,
        /// The node's own disks: reads go there first.
        near: BTreeSet<DiskId>,
    },
    /// The volume is attached here and not open: what is asked waits for a turn.
    Offer(OpenVolume),
    /// What was sent and has no answer is sent again, in whatever layer is the newest then.
    StartOver {
        volume: VolumeId,
    },
    /// The turn has ended; what has no answer, and what comes, waits for the next one.
    Suspend {
        volume: VolumeId,
    },
    /// What has no answer gets none from here.
    Close {
        volume: VolumeId,
    },
    Resize {
        volume: VolumeId,
        size: u64,
    },
    /// Refuse what is new, and let what is in flight end; then [`Output::Drained`].
    Drain {
        volume: VolumeId,
    },
    /// Take nothing new; then [`Output::Drained`].
    Pause {
        volume: VolumeId,
    },
    Resume {
        volume: VolumeId,
    },
    /// What is held goes on.
    Release {
        volume: VolumeId,
    },
    /// What starts from now on goes to this layer; [`Output::Cut`] when nothing is in flight below.
    Switch {
        volume: VolumeId,
        layer: LayerId,
    },
    /// Seal and recover all of these; then [`Output::Settled`].
    Settle {
        volume: VolumeId,
        pgs: Vec<PgId>,
    },
    /// What sources and the manager may have missed is said again.
    SayAgain,
}

/// What a machine wants of a disk's store: its own words, as they stand in its room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAsk {
    /// A fence, a change, a fill; a read, a fetch, a list, a look.
    Replica(replica::Output),
    /// A mend, a look, a salvage.
    Mender(scrub::Output),
    /// A list, a look.
    Comparer(compare::Output),
    /// The replica is no more, with all that is kept of it (R24).
    Forget,
}

/// The other half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAnswer {
    Replica(replica::Input),
    Mender(scrub::Input),
    /// A page of a list.
    Comparer(compare::Input),
    /// What the table has of the chunk that a comparer looks at; `Err`: the store could not look. Whether it is quiet is asked only then.
    Inspected {
        op: u64,
        at: ChunkId,
        found: Result<Inspected, Unread>,
    },
    Forgotten,
}

/// What a table has of a chunk of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// `None`: nothing, not even a tombstone.
    pub content: Option<Content>,
    /// The highest version of a tombstone of the PG that was let go; 0: none was.
    pub forgotten: u32,
}

/// A table could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread;

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// To the node that has this disk.
    Disk(DiskId),
    /// To who asked.
    Asker(Asker),
}

/// What a fabric wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Compute the checksum of each block, at once.
    Checksum {
        piece: PieceId,
        buf: BufRef,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
    },
    Fill {
        buf: BufRef,
        blocks: u32,
    },
    Merge {
        from: BufRef,
        into: BufRef,
        head: u32,
        tail: u32,
    },
    /// These blocks are in use until they are unpinned as often as they were pinned.
    Pin {
        buf: BufRef,
        blocks: u32,
    },
    /// Of those that were pinned, and of payload that was held by [`Fabric::holds`](super::Fabric::holds).
    Unpin {
        buf: BufRef,
        blocks: u32,
    },
    /// What was read goes to where it was asked for.
    Place(Value),
    /// Look what is allocated of `count` chunks from `at` on, at the store of this disk.
    Map {
        piece: PieceId,
        disk: DiskId,
        at: ChunkId,
        count: u32,
    },
    /// The answer to a request; `map` is a part of [`Fabric::map`](super::Fabric::map).
    Reply {
        token: Token,
        result: Result<(), IoError>,
        map: Range<u32>,
    },
    Send {
        to: To,
        /// Of the frame's head.
        disk: DiskId,
        frame: Frame,
        payload: Option<Payload>,
    },
    Store {
        disk: DiskId,
        pg: PgId,
        ask: StoreAsk,
    },
    /// A mark of a range is known at a replica: the store keeps it, lazily.
    Mark {
        disk: DiskId,
        pg: PgId,
        range: VolumeId,
        epoch: Epoch,
        mark: u64,
    },
    Report(Report),
    /// Nothing is in flight any more on a volume that was paused.
    Drained {
        volume: VolumeId,
    },
    /// Nothing is in flight below the layer that was switched to last.
    Cut {
        volume: VolumeId,
    },
    /// What [`Order::Settle`] asked for is done.
    Settled {
        volume: VolumeId,
    },
    /// Something waits for a turn at a volume that is not open here.
    Waits {
        volume: VolumeId,
    },
    /// Rebuilds of a disk have more room than before, or less.
    Paced {
        disk: DiskId,
        how: Pace,
    },
}

/// See [`Output::Paced`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Faster,
    Slower,
}
