//! vhost-user-blk, without its sockets and threads: the back end of a disk that a guest has.
//!
//! ```text
//!   front end (QEMU) ── message, files ──► message ──► session ── task ──► driver (runtime/guests)
//!                    ◄─ reply ─────────────────────────────┘                  │ starts rings on shards
//!   guest memory ──► vring ── chain ──► request ── Ask ──► base::Request ──► shard
//!                ◄── used ring, status, data ◄──────────── base::Reply ◄──────┘
//!
//!  message   the protocol's messages: bytes and files in, values out, and back
//!  session   one connection: what was negotiated, memory, rings, and what a message asks of the driver
//!  config    the device: its features and its configuration space
//!  vring     one split ring: heads in, used elements out, notifications both ways
//!  chain     a chain of descriptors as parts of guest memory
//!  request   a chain as a request of virtio-blk
//!  inflight  the region that outlives us, by which what was in flight is found again
//!  retell    a connection as the messages that bring another session where it is
//!  handover  the connections that one process hands to the next, as bytes and files
//!
//! ```
//!
//! # What becomes of nonsense
//!
//! The guest, its driver and the front end are all outside. A message that is wrong ends its connection: [`Violation`].
//! A request that is wrong is answered with the status that virtio has for it. A ring on which not even that is
//! possible (no place for a status, an index that jumps, a chain without end) is [`Broken`]: nothing more
//! is taken from it until the front end stops it. Nothing is allocated by a length that was not checked.
//!
//! Guest memory changes at any time, also while it is read: a descriptor is read once and then believed or not, and payload
//! is copied once before anybody else looks at it.
//!
//! # Promises
//!
//! 1. A head that was taken is marked in the in-flight region before it is carried out, and is there until its used
//!    element is visible: so after a crash it is carried out again, or was finished, and is never lost.
//! 2. What is acknowledged is durable, so the device says that it has no volatile cache; a flush has nothing to do.
//!
//! # The driver's duties
//!
//! 1. Give whole messages to [`Session::take`] in their order, carry out the task, then send [`Session::answer`].
//!    Drop the connection at a [`Violation`]. Files are closed by dropping what holds them.
//! 2. After each message start what [`Session::startable`] names.
//! 3. Wait until a ring has nothing in flight before memory is changed under it, or its base is told.
//! 4. Answer every head that [`Vring::next`] gave once, by [`Vring::complete`] or [`Vring::put_back`]; then
//!    [`Vring::publish`], and signal where [`Vring::wants_call`].

#![forbid(unsafe_code)]

mod chain;
mod config;
mod handover;
mod inflight;
mod message;
mod request;
mod retell;
mod session;
mod vring;

#[cfg(test)]
mod tests;

pub use config::{Device, QUEUES_MAX};
pub use handover::{FORM, Handed, Unreadable, read_handed, write_handed};
pub use inflight::Inflight;
pub use message::{HEADER, Header, Message, Region, Reply, RingAddress, Violation, config_change};
pub use request::{Ask, Disk, PAYLOAD_MAX, Request, Status};
pub use retell::{Beside, Told};
pub use session::{InflightArea, Ring, Session, Task};

pub use chain::Part;
pub use vring::{Broken, Outcome, Plan, Vring};
