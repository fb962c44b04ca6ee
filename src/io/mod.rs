//! The only room that makes I/O system calls: the ring, disks, sockets, payload buffers, the clock.
//!
//! ```text
//!   runtime ──► Ring ──► one io_uring of one thread: submit and reap in one system call a turn
//!      │         ▲
//!      │         ├── Disk      a raw device or a file: direct, locked, with its way to be durable
//!      │         ├── ublk      descriptors that the kernel writes; control commands, off the shards
//!      │         ├── netlink   the kernel's nbd; off the shards too
//!      │         ├── socket    listeners of NBD and of guests, and inherited ones
//!      │         └── Wake      how other threads get a sleeping ring's attention
//!      ├─────► GuestMemory     memory that guests share, and FdStream, by which it comes
//!      ├─────► Arena / Cache   payload buffers: 4 KiB aligned, registered where memlock permits
//!      └─────► clock           CLOCK_BOOTTIME, read once a turn
//! ```
//!
//! All `unsafe` of the data plane is here. What crosses the door is safe to use in any order: operations name
//! memory of the [`Arena`], which outlives them, and not addresses.

mod arena;
mod buffers;
pub mod clock;
mod disk;
mod disk_error;
mod disk_facts;
mod fd_stream;
mod guest_memory;
mod guest_span;
mod inherited;
mod kernel;
mod lock;
mod message;
mod netlink;
mod notify;
mod openers;
mod parcel;
mod provided;
mod regions;
mod ring;
mod scratch;
mod service;
mod socket;
mod successor;
#[cfg(test)]
pub(crate) mod test_dir;
mod ublk;

pub use arena::{Arena, Part};
pub use buffers::Buffers;
pub use disk::{Access, Commit, Disk, DiskKind};
pub use disk_error::{DiskError, Problem};
pub use disk_facts::length_now;
pub use fd_stream::{FILES, FdStream, Until, is_eventfd, may_wait, wait, without_waiting};
pub use guest_memory::{GuestMemory, SharedMap};
pub use guest_span::{DirtyLog, Span, full_fence};
pub use inherited::{Inherited, NotListening, check_listening, take_inherited};
pub use kernel::raise_limits;
pub use message::Message;
pub use netlink::Netlink;
pub use notify::{Nudge, Wake};
pub use openers::{Opener, openers};
pub use parcel::{Parcel, scratch_file, sealed, unsealed};
pub use regions::Zone;
pub use ring::{Completion, Expect, FileNo, Lent, PIECES, Ring, SendNo, Tag, Wait};
pub use service::{
    catch_up, forget_descriptor, has_service_manager, keep_descriptor, name_process,
    tell_service_manager, watchdog_interval,
};
pub use socket::{
    GuestSocketError, connected_pair, listen_for_guest, listen_tcp, listen_unix, with_patience,
    with_waiting, without_delay,
};
pub use successor::become_next;
pub use ublk::{Descriptors, control_ublk, open_ublk};
