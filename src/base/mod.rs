#![forbid(unsafe_code)]
//! What every room speaks: ids, block ranges, time as a value, checksums, bounded collections, and
//! the one `Request` and `Reply` that all front ends turn their dialect into.
//!
//! Nothing here decides anything, and nothing here touches the world.

mod block;
mod bounded;
mod buffer;
pub mod bytes;
pub mod crc;
mod faults;
mod ids;
mod map;
mod payload;
mod prng;
mod request;
mod stamp;
mod switches;
mod time;

pub use block::{
    BLOCK, BLOCKS_PER_CHUNK, BlockNo, BlockRun, CHUNK, CHUNKS_PER_EXTENT, ChunkId, ChunkNo, EXTENT,
    ExtentNo, SECTOR,
};
pub use bounded::{Ring, Slab};
pub use buffer::{BufId, BufRef};
pub use faults::{Break, Breaks};
pub use ids::{ClusterId, DiskId, DiskSlot, FamilyId, LayerId, NodeId, PgId, StoreId, VolumeId};
pub use map::FixedMap;
pub use payload::{Holds, Payload, Span};
pub use prng::{Prng, mix64};
pub use request::{IoError, MapRun, Reply, Request, RequestKind, Token};
pub use stamp::{Epoch, Stamp};
pub(crate) use switches::switches;
pub use time::Time;
