//! What a joining replica and the one that fills it say to one another. The joiner asks; the source only answers.
//!
//! ```text
//!   joiner                                   source, in sync
//!     │ Fences { after }                        │ takes the version over, durably (R13)
//!     │ ──────────────────────────────────────► │
//!     │ ◄──────────── Fences { fences, more } ─ │
//!     │ its own: durable, with the session; from here on it takes what coordinators send
//!     │ List { since, after }                   │ chunks stamped under a later version (R14)
//!     │ ──────────────────────────────────────► │
//!     │ ◄──────────── Listed { chunks, more } ─ │
//!     │ Fetch { at }, several at a time         │ the chunk, its stamp, and its entries of the window (R15)
//!     │ ──────────────────────────────────────► │
//!     │ ◄──────────────────────────── Content ─ │
//!     │ all there: Filled, to the manager
//! ```

use super::window::Entry;
use crate::base::{ChunkId, Epoch, PgId, Stamp, VolumeId};

/// Fences, or chunks of a list, that one answer holds.
pub const PAGE_MAX: usize = 256;

/// What stands on every frame between a joiner and its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FillHeader {
    pub pg: PgId,
    /// Of the joiner when it asked. An answer is given, and counts, where both have this version (R15).
    pub version: u32,
    /// Of the joiner.
    pub session: u32,
    /// The joiner's number of the question, which comes back with the answer.
    pub id: u64,
}

/// What a joiner asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FillAsk {
    /// The fences of all ranges, in their order, from behind this one on.
    Fences { after: Option<VolumeId> },
    /// The chunks that are stamped with a version above `since`, in the order of [`Place`], from behind this one on.
    List { since: u32, after: Option<ChunkId> },
    /// One chunk of one layer.
    Fetch { at: ChunkId },
}

/// What a source answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FillAnswer {
    Fences {
        fences: Vec<(VolumeId, Epoch)>,
        /// Whether there are more behind the last one.
        more: bool,
    },
    Listed {
        chunks: Vec<ChunkId>,
        more: bool,
    },
    Content {
        at: ChunkId,
        content: Content,
        /// What the source's windows have of the chunk, with the range of each.
        entries: Vec<(VolumeId, Entry)>,
    },
    /// The source has this version by now: nothing is answered under an older one.
    Version(u32),
    /// It cannot read that, or has too much to do.
    NotNow,
}

/// What one layer holds of a chunk by itself. A block in neither mask is absent (R20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content {
    pub stamp: Stamp,
    /// Blocks with payload.
    pub data: u16,
    /// Blocks that read as zeroes.
    pub zeroes: u16,
    /// Of each block with payload.
    pub crcs: [u32; 16],
}

/// The order of chunks in a list: that in which a store keeps them, the layers of a chunk together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    family: u64,
    chunk: u64,
    layer: u64,
}

impl From<ChunkId> for Place {
    fn from(at: ChunkId) -> Place {
        Place {
            family: at.family.0,
            chunk: at.chunk.0,
            layer: at.layer.0,
        }
    }
}

impl From<Place> for ChunkId {
    fn from(place: Place) -> ChunkId {
        ChunkId {
            family: crate::base::FamilyId(place.family),
            layer: crate::base::LayerId(place.layer),
            chunk: crate::base::ChunkNo(place.chunk),
        }
    }
}
