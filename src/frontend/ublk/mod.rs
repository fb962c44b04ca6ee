//! ublk: block devices of this host whose requests the shards carry out. What is said to the driver, as bytes and values.
//!
//! ```text
//!   /dev/ublkbN ── ublk_drv ── descriptors (mapped, read only) ──► Order ──► base::Request ──► shard
//!                     ▲  ▲                                                                      │
//!                     │  └── FETCH, COMMIT_AND_FETCH: one command a tag, in the shard's ring ◄──┘
//!                     └───── /dev/ublk-control: add, set parameters, start, recover, stop, delete
//! ```
//!
//! Data moves by reads and writes of the character device (USER_COPY), into and out of the arena.
//! A device is always recoverable and has its requests issued again after a kill (USER_RECOVERY with
//! REISSUE: with recovery alone the write in flight gets EIO), so a repeated write must be harmless, and is.
//!
//! `control` is what the control device is told, `queue` what a queue's commands and descriptors are. `io` moves the
//! bytes; the runtime's `devices` owns the queues.

#![forbid(unsafe_code)]

mod control;
mod queue;

pub use control::{
    ControlCommand, DeviceInfo, Features, PARAMS_LEN, Params, State, Unsupported, op, sectors,
};
pub use queue::{
    DESCRIPTOR_LEN, Descriptor, IoCommand, Order, copy_position, descriptors_len,
    descriptors_position, errno_of, io_op,
};

/// The longest request, in bytes: what the largest class of payload buffers holds.
pub const MAX_IO_BYTES: u32 = 1 << 20;
/// Requests of one queue.
pub const QUEUE_DEPTH: u16 = 128;
