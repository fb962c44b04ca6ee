//! The store: one disk.

mod door;

pub use door::{
    ChunkId, DiskFault, DiskOp, Durability, Epoch, Input, IoData, IoId, LayerMeta, Note, OpenError,
    Options, Outbox, Output, Span, Stamp, StoreError, StoreOp, VolumeMeta,
};
