#![forbid(unsafe_code)]
//! The shard: everything that one core of one node decides, as one deterministic value.
//!
//! ```text
//!   Input --> Coordinator --Ask--> Store of the disk that has the extent's PG --> DiskOp
//!             ^        |                |
//!             |        +--> Reply       +-- Done --+
//!             +------------------------------------+
//! ```
//!
//! What replicas ask of their stores is put into the stores' words in [`operation`].
//!
//! It is driven by `runtime` (real) and `sim` (simulated); see `door` for their duties. It owns the stores of its
//! disks and coordinates the extents of every volume whose PGs live on them.

mod control;
mod door;
pub mod fabric;
mod machine;
pub mod operation;
mod route;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

pub use door::{Control, ControlError, ControlId, DiskSlot, Input, Outbox, Output};
pub use machine::Shard;
#[cfg(feature = "sim")]
pub use machine::StoreAnswer;
pub use route::{RouteChange, Router, Routes, ShardNo};
