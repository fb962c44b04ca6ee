//! The only room that makes I/O system calls: the ring, disks, sockets, payload buffers, the clock.
//!
//! ```text
//!   runtime ──► Ring ──► one io_uring of one thread: submit and reap in one system call a turn
//!      │         ▲
//!      │         ├── Disk      a raw device or a file: direct, locked, with its way to be durable
//!      │         ├── socket    listeners of NBD
//!      │         └── Wake      how other threads get a sleeping ring's attention
//!      ├─────► Arena / Cache   payload buffers: 4 KiB aligned, registered where memlock permits
//!      └─────► clock           CLOCK_BOOTTIME, read once a turn
//! ```
//!
//! All `unsafe` of the crate is here. What crosses the door is safe to use in any order, with one
//! exception that the type system cannot hold: memory that an operation in flight points to. [`Ring::push`]
//! is therefore `unsafe`, and its callers say which value owns the memory until the completion.

mod disk;
mod notify;

pub use disk::Disk;
pub use notify::Wake;
