//! What a coordinator and a replica say to one another. Payload travels beside a message, never in it.

use super::room::{Room, Takes};
use super::window::Entry;
use crate::base::{BlockRun, CHUNKS_PER_EXTENT, ChunkId, ChunkNo, Epoch, PgId, VolumeId};

/// What stands on every frame of a coordinator (R1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// A plain volume is one range.
    pub range: VolumeId,
    pub pg: PgId,
    pub epoch: Epoch,
    /// Of the configuration that the sender knows.
    pub version: u32,
    /// What the addressee is under that version: the number of the session that it joins in; 0: it is in sync (R16).
    pub session: u32,
    /// Up to this number everything of this range and epoch in this PG is acknowledged; 0 before recovery is done (R8, R10).
    pub mark: u64,
}

/// A change of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Blocks of one chunk, with the crc of each.
    Write { run: BlockRun, crcs: [u32; 16] },
    /// Blocks of one chunk read as zeroes.
    Zero { run: BlockRun },
    /// So many whole chunks do, all in one extent: 1 to 64.
    ZeroChunks { count: u32 },
}

impl Change {
    /// The chunks that it changes from `at` on, each with a bit for each block.
    pub fn places(&self, at: ChunkId) -> impl Iterator<Item = (ChunkId, u16)> + use<> {
        let (count, mask) = match *self {
            Change::Write { run, .. } | Change::Zero { run } => (1, run.mask()),
            Change::ZeroChunks { count } => (count, u16::MAX),
        };
        debug_assert!(count <= CHUNKS_PER_EXTENT);
        (0..u64::from(count)).map(move |n| {
            let chunk = ChunkNo(at.chunk.0 + n);
            (ChunkId { chunk, ..at }, mask)
        })
    }

    /// How many chunks it changes.
    pub fn chunks(&self) -> usize {
        match *self {
            Change::Write { .. } | Change::Zero { .. } => 1,
            Change::ZeroChunks { count } => count as usize,
        }
    }

    /// Whether two changes have a block in common.
    pub fn overlaps(&self, at: ChunkId, other: &Change, other_at: ChunkId) -> bool {
        let meets = |(chunk, mask): (ChunkId, u16)| {
            other
                .places(other_at)
                .any(|(of, other_mask)| of == chunk && mask & other_mask != 0)
        };
        self.places(at).any(meets)
    }
}

/// What a coordinator asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    /// Make this durable. `sequence` is of the range, the epoch and the PG, from 1 on, never used twice (R4).
    Change {
        sequence: u64,
        at: ChunkId,
        change: Change,
    },
    /// Read blocks, as seen from the layer. `id` comes back with the answer.
    Read { id: u64, at: ChunkId, run: BlockRun },
    /// Nothing but the mark.
    Mark,
    /// Refuse older epochs, and tell the window (R5).
    Seal,
    /// Say that nothing newer than this epoch and version is known (R18). `id` comes back with the answer.
    Confirm { id: u64 },
    /// Would a write to this chunk take new space? Nothing changes. `id` comes back with the answer.
    Fits { id: u64, at: ChunkId },
}

/// What a replica answers: the range, epoch and version that it was asked under, and this. `room` is how its disk is at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The change of this number is durable, stamped with that version.
    Done {
        sequence: u64,
        room: Room,
    },
    /// Blocks that were read.
    Value {
        id: u64,
        /// The newest write in the window that the blocks may hold a part of (R9); `None`: all of it is acknowledged.
        newest: Option<(Epoch, u64)>,
        /// Of the blocks of the run, in their order.
        crcs: [u32; 16],
        /// A bit for each block of the chunk that reads as zeroes, and has no crc.
        zeroes: u16,
    },
    /// The epoch is taken; what is above the mark.
    Sealed {
        window: Vec<Entry>,
        room: Room,
    },
    /// What a write to the chunk would take; of a replica that joins: nothing, whatever it has.
    Fits {
        id: u64,
        takes: Takes,
        room: Room,
    },
    /// Nothing newer was known when this was asked.
    Confirmed {
        id: u64,
    },
    Refused {
        what: Asked,
        why: Refusal,
    },
}

#[cfg(any(test, feature = "sim"))]
impl Answer {
    /// What a replica says that has nothing yet and ample room; `None`: nothing is answered. For what asks replicas and is tried alone.
    pub fn of_an_empty_replica(message: &Message) -> Option<Answer> {
        let room = Room::Ample;
        match *message {
            Message::Seal => Some(Answer::Sealed {
                window: Vec::new(),
                room,
            }),
            Message::Change { sequence, .. } => Some(Answer::Done { sequence, room }),
            Message::Read { id, .. } => Some(Answer::Value {
                id,
                newest: None,
                crcs: [0; 16],
                zeroes: u16::MAX,
            }),
            Message::Confirm { id } => Some(Answer::Confirmed { id }),
            Message::Fits { id, .. } => Some(Answer::Fits {
                id,
                takes: Takes::Space,
                room,
            }),
            Message::Mark => None,
        }
    }
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    Change { sequence: u64 },
    Read { id: u64 },
    Mark,
    Seal,
    Confirm { id: u64 },
    Fits { id: u64 },
}

impl Message {
    /// The name of this message in a refusal.
    pub fn asked(&self) -> Asked {
        match *self {
            Message::Change { sequence, .. } => Asked::Change { sequence },
            Message::Read { id, .. } => Asked::Read { id },
            Message::Mark => Asked::Mark,
            Message::Seal => Asked::Seal,
            Message::Confirm { id } => Asked::Confirm { id },
            Message::Fits { id, .. } => Asked::Fits { id },
        }
    }
}

/// Why a replica refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Another owner has a higher epoch: this one. That is the end of who asked, and never counted as "does not answer".
    Epoch(Epoch),
    /// It knows a higher version: the coordinator asks the manager what it says.
    Version(u32),
    /// The session that it was asked in has ended with a restart (R16).
    Session,
    /// Too much is waiting or above the mark here; ask again.
    Busy,
    /// Its disk failed, or the block is damaged.
    Failed,
    /// Its disk has no room for it, though nobody had said before that it is low. On the wire it is [`Refusal::Failed`]: only who asks this replica alone does anything else.
    NoSpace,
    /// It holds no such PG.
    NoReplica,
}
