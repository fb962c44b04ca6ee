#![forbid(unsafe_code)]
//! The store: one disk that loses nothing to power loss and never returns rotten data.
//!
//! ```text
//!   asked by the coordinator                         asked of the disk
//!   ------------------------                         -----------------
//!   Write < 64 KiB --> write -> [open batch] --close--> journal ring   (one durable write a batch)
//!   Write = 64 KiB --> write ------------------------> fresh slot, durable; then a record in a batch
//!   Zero, PutVolume -> write -> [open batch]
//!                               commit: batch durable -> Done, the table or an overlay knows it
//!                               apply:  overlay ------> slots          (cached, in the background)
//!                               checkpoint -----------> pages, manifest, root; flush; superblocks
//!   Read  -----------> read: overlay, else entry ----> slot, checked against its crc
//! ```
//!
//! On disk: two superblocks, four places for a root, the manifest, the journal ring, the table's pages, the
//! slots; `docs/disk_format.md` has the tables. Rooms inside:
//!
//! - the disk's structures as bytes: `superblock`, `root`, `manifest`, `page`, `batch`, `record`, and `codec` below them;
//!   `chain` reads the journal as it lies there;
//! - what is held in memory: `table` (applied state), `overlay` (durable, not applied), `allocator`, `layers`, `journal`,
//!   `replica` (fences, marks, windows);
//! - operations: `write`, `fill`, `read`, `look`, `list`, `commit`, `apply`, `checkpoint`, `load`, `recover`, `scrub`, `openings`,
//!   `salvage` and `mend` (what was damaged comes from another replica);
//! - without a machine: `format`, `check`, `inspect`.
//!
//! Invariants, by the names that the assertions use: *a slot has one owner*; *what is acknowledged is durable, with all
//! before it*; *a page holds applied state only*; *the tail passes nothing that is not applied*; *a freed slot
//! waits for its readers*; *windows-are-bounded*.
//!
//! What it does not know: other disks, other replicas, clocks, files, and what payload says.

mod allocator;
mod apply;
mod batch;
mod chain;
mod check;
mod checkpoint;
mod close;
mod codec;
mod commit;
mod door;
mod engine;
mod fill;
mod format;
mod inspect;
mod journal;
mod layers;
mod list;
mod load;
mod look;
mod manifest;
mod mend;
mod openings;
mod order;
mod overlay;
mod page;
mod read;
mod record;
mod recover;
mod replica;
mod root;
mod salvage;
mod scrub;
mod stats;
mod superblock;
mod table;
#[cfg(test)]
mod tests;
mod write;

#[cfg(feature = "sim")]
pub use apply::APPLYING_BLOCKS_MAX;
pub use check::{Counts, Finding, Place, ReadAt, Report, Severity, Wrong, check};
pub use door::{
    ChunkId, Closing, DiskFault, DiskOp, Durability, Epoch, Found, Holding, Input, IoData, IoId,
    LayerMeta, Note, OpenError, Openings, Options, Outbox, Output, Span, Stamp, StoreError,
    StoreOp, Takes, Torn, VolumeMeta, WindowEntry, WriteKind,
};
pub use engine::Store;
pub use format::{Formatted, Plan, TooSmall, format};
pub use inspect::{
    GeometrySeen, Inspection, JournalSeen, LayerSeen, ReplicaSeen, SpaceSeen, SuperblockSeen,
    VolumeSeen, inspect,
};
pub use replica::{Replica, ReplicaRange};
pub use stats::{Levels, Stats};
pub use superblock::{FORMAT_VERSION, Geometry, SUPERBLOCK_AT, SUPERBLOCK_LEN, Superblock};

#[doc = include_str!("../docs/disk_format.md")]
pub mod disk_format {}
