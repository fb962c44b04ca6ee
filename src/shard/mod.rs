#![forbid(unsafe_code)]
//! The shard: everything that one core of one node decides, as one deterministic value.
//!
//! ```text
//!   Request ──► fabric: Coordinator ─► Group ──frame──► Replica ──asks──► Store of the disk ──► DiskOp
//!                            ▲           ▲                │  ▲              │
//!                 Reply ◄────┘           └────answer──────┘  └────answer────┘
//! ```
//!
//! A frame to a disk of this shard is handed back in at once; others leave ([`Outbox::fabric`]). What the machines of the fabric ask of stores is put into
//! the stores' words in [`operation`]; blocks that are read go to memory of the shard's own first (`pool`).
//!
//! It is driven by `runtime` (real) and `sim` (simulated); see `door` for their duties. It owns the stores of its
//! disks and coordinates the extents of every volume whose PGs live on them.
//!
//! On a node that is alone ([`Shard::alone`]) each PG has one replica for ever, the lease never ends, and [`Control::OpenVolume`] says what orders of
//! the node's control plane say to a shard of a node of a cluster ([`Shard::of_node`], `remote`).

mod asks;
mod control;
mod copies;
mod disks;
mod door;
pub mod fabric;
mod machine;
pub mod operation;
mod pool;
mod remote;
mod route;
mod said;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

pub use copies::{Copies, Filling, ToFill};
pub use door::{Control, ControlError, ControlId, DiskSlot, Input, Outbox, Output};
pub use machine::Shard;
#[cfg(feature = "sim")]
pub use machine::StoreAnswer;
pub use remote::coordinator_of;
pub use route::{RouteChange, Router, Routes, ShardNo};
pub use said::{Reach, Said, What};
