//! The shard's door: what one core of one node is told, and what it wants done.
//!
//! The driver's duties are those of the store's door (`store::door`), for each disk, and:
//! 1. Answer [`Output::Checksum`] at once with [`Input::Checksummed`].
//! 2. Keep a request's buffer until its [`Output::Reply`], and its pinned blocks until they are unpinned.
//! 3. Say [`Input::TurnEnded`] once a turn, when all that was gathered has been stepped.
//!
//! That of a shard of a node of a cluster, besides:
//!
//! 4. Hold what goes with [`fabric::Output::Send`] until it has left, and drop it then; what lies in the memory that was lent ([`Input::Memory`]) is the shard's again from then on, also while
//!    others still look at it: it has to be copied.
//! 5. Keep the payload of an [`Input::Frame`] until its [`Output::Release`], and its pinned blocks until they are unpinned.
//! 6. Take another turn where [`Shard::wants_turn`](super::Shard::wants_turn) says so.

use super::fabric;
pub use crate::base::DiskSlot;
use crate::base::{
    BlockNo, BufRef, DiskId, IoError, LayerId, MapRun, PgId, Request, Span, Token, VolumeId,
};
use crate::protocol::replication::replica::Asker;
use crate::store::{self, DiskFault, DiskOp, IoData, IoId, Note, VolumeMeta};
use crate::wire::Frame;
use std::ops::Range;

/// The caller's name for a control operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlId(pub u64);

/// What one core is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// A front end asks something of a volume.
    Request(Request),
    /// The answer to [`Output::Checksum`]: a checksum for each block.
    Checksummed {
        op: u32,
        crcs: &'a [u32],
    },
    Disk {
        disk: DiskSlot,
        id: IoId,
        result: Result<IoData<'a>, DiskFault>,
    },
    Control {
        id: ControlId,
        control: Control,
    },
    /// So many blocks are lent to the shard for as long as it lives: it reads there what it hands on. Said once, before anything is asked.
    Memory {
        buf: BufRef,
        blocks: u32,
    },
    /// What the node's control plane wants. Numbers rise, from 1 on.
    Order {
        number: u64,
        order: fabric::Order,
    },
    /// A frame of another shard. `disk` is that of its head.
    Frame {
        from: Asker,
        disk: DiskId,
        frame: Frame,
        payload: Option<Span>,
    },
    TurnEnded,
}

/// What the control plane asks of a shard.
#[derive(Debug, Clone)]
pub enum Control {
    /// Open the store on a disk. Answered when it serves.
    OpenDisk {
        disk: DiskId,
        slot: DiskSlot,
        options: store::Options,
    },
    /// Have the store keep the numbers of its openings, durably.
    PutOpenings {
        disk: DiskId,
        openings: store::Openings,
    },
    /// Have every store that is open record a volume. Serves nothing. A store that takes no changes is passed over.
    PutVolume {
        meta: VolumeMeta,
    },
    /// On a node that is alone: serve a volume: its PGs, in the order of their numbers, and the disk of each. Records the volume on
    /// every disk. Said again, it changes name, size or layers of a volume that is open.
    OpenVolume {
        meta: VolumeMeta,
        pgs: Vec<(PgId, DiskId)>,
    },
    /// Let the requests in flight on a volume end, and have new ones wait until it is opened again or resumed. Answered
    /// when nothing is in flight. For a change that must be a cut over several shards.
    HoldVolume {
        volume: VolumeId,
    },
    /// Let a volume that is held go on as it was.
    ResumeVolume {
        volume: VolumeId,
    },
    /// Stop serving a volume; requests in flight end first, later ones are refused.
    CloseVolume {
        volume: VolumeId,
    },
    /// Close a volume and give its space back.
    DropVolume {
        volume: VolumeId,
    },
    Grow {
        disk: DiskId,
        bytes: u64,
    },
    Scrub {
        disk: DiskId,
    },
    /// Checkpoint every disk while I/O goes on, so that a close soon after is short.
    Checkpoint,
    /// Drain and close every disk.
    Close {
        how: store::Closing,
    },
}

/// Why a control operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlError {
    Store(store::StoreError),
    /// The disk holds no store that can be opened, and why.
    Open(store::OpenError),
    NoSuchVolume,
    NoSuchDisk,
    /// The node is one of a cluster: orders open its volumes.
    OfCluster,
}

/// What one core wants done.
#[derive(Debug, Clone)]
pub enum Output {
    Disk {
        disk: DiskSlot,
        op: DiskOp,
    },
    /// For an unaligned write: the first `head` bytes and the last `tail` bytes of the block at `from` (what was
    /// there) go over the same bytes of the block at `into`.
    Merge {
        from: BufRef,
        into: BufRef,
        head: u32,
        tail: u32,
    },
    /// Compute the checksum of each block from `buf` on, which are blocks `first` and following of `layer`.
    Checksum {
        op: u32,
        buf: BufRef,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
    },
    Copy {
        from: BufRef,
        to: BufRef,
        blocks: u32,
    },
    Fill {
        buf: BufRef,
        blocks: u32,
    },
    Pin {
        buf: BufRef,
        blocks: u32,
    },
    Unpin {
        buf: BufRef,
        blocks: u32,
    },
    /// The payload of an [`Input::Frame`] is the driver's again, but for blocks that are pinned.
    Release {
        payload: Span,
    },
    /// The answer to a request; `map` is a part of [`Outbox::map`].
    Reply {
        token: Token,
        result: Result<(), IoError>,
        map: Range<u32>,
    },
    ControlDone {
        id: ControlId,
        result: Result<(), ControlError>,
    },
    Note {
        disk: DiskSlot,
        note: Note,
    },
}

/// Where a shard puts its outputs. The driver drains it in order and clears it; it is used again.
#[derive(Debug, Default)]
pub struct Outbox {
    pub list: Vec<Output>,
    /// For other shards, and for who drives this node; after what is in the list. Empty on a node that is alone.
    pub fabric: Vec<fabric::Output>,
    /// Arena, spans and runs of the stores' outputs; its list is empty when a step returns.
    pub store: store::Outbox,
    pub map: Vec<MapRun>,
}

impl Outbox {
    pub fn clear(&mut self) {
        self.list.clear();
        self.fabric.clear();
        self.store.clear();
        self.map.clear();
    }
}
