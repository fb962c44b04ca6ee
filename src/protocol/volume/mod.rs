#![forbid(unsafe_code)]
//! The coordinator of volumes: it orders what front ends ask, and turns it into what stores can do.
//!
//! ```text
//!   Request --split--> pieces (one chunk each) --overlap--> may go on, one after another where they overlap
//!       read   --------------------------------------------------------------------> Ask::Read
//!       write  --ragged ends--> Ask::Read of what was there --> Merge --> Checksum --> Ask::Write
//!       zeroes --ragged ends--> the same over zeroes; whole blocks and chunks ------> Ask::Zero, ZeroChunks
//!   answers to all pieces --> Reply
//! ```
//!
//! A volume exists here while it is open. Its newest layer changes only when nothing is in flight on it, so
//! a snapshot is a cut. PGs have one replica so far: an [`Ask`] names the disk that it goes to.
//!
//! Invariants: *no overlap in flight* (R2); *no number twice* (R4); *answered once*.

mod coordinator;
pub mod groups;
mod overlap;
mod split;

pub use coordinator::{Ask, Coordinator, OpenVolume, Output, PieceId, Target};
pub use split::pg_of;
