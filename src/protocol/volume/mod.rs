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
//! A volume exists here while it is open. Its newest layer may change while requests are in flight: see `coordinator.rs`. An [`Ask`] names the
//! disk of the PG's replica where the shard keeps what it coordinates; where there are several replicas, [`groups`] says where it goes.
//!
//! Invariants: *no overlap in flight* (R2); *no number twice* (R4); *answered once*.

mod coordinator;
pub mod groups;
mod overlap;
mod split;
#[cfg(test)]
mod tests;

pub use coordinator::{Ask, Coordinator, OpenVolume, Output, PieceId, Target};
pub use split::{pg_of, pgs_with_extents};
