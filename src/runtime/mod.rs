//! The real driver: shard threads, each one loop over one ring, and the handle by which the control
//! plane speaks to them.
//!
//! ```text
//!   control plane            shard thread (one a core)
//!   Handle ──── Mail ──────► mailbox ─┐
//!                                     ▼            outputs
//!   NBD clients ◄─ sockets ─► pump ──► shard::Shard ───────► perform ──► ring ──► disks
//!   guests ◄─ shared memory ─► queues ─┘                                   │
//!                              ▲      ▲                                   │
//!              other shards ◄──┴──────┴──────── completions ◄─────────────┘
//!                        letters
//! ```
//!
//! Disks are spread over the shards, and so are clients. Each shard coordinates the extents whose PG has its disk; what
//! a client asks of another shard's extents goes there by letter, once a turn, and its answer comes back
//! the same way (`desk`, `joins`, `post`, `letters`). Payload is not copied: all shards work on one arena.
//!
//! On a node of a cluster ([`Config::cluster`]) what is said to shards of other nodes, and heard of them, goes over [`links`], which the control plane hands in when their handshake is done;
//! frames between shards of this node go by letter (`cluster`, `peers`). The control plane gives orders ([`Handle::order`]) and hears what comes of them ([`Runtime::said`]).
//!
//! A guest's disk has a thread for what its front end says, and queues on the shards (`guests`); their requests take the same way.
//!
//! Nothing here decides: what is done, and in which order, is what the shard said. A turn gathers the
//! completions, reads the clock once, steps the shard, carries out its outputs, and submits in the
//! same system call that waits for the next completions.

mod asker;
mod asks;
mod bench;
mod clients;
mod cluster;
mod connection;
mod core_loop;
mod counters;
mod desk;
mod devices;
mod disks;
mod exports;
mod guests;
mod handle;
mod joins;
mod late;
mod letters;
pub mod links;
mod machine;
mod mailbox;
mod peers;
mod perform;
mod places;
mod post;
mod said;
mod served;
mod start;
mod tags;
#[cfg(test)]
mod tests;
mod transfer;

pub use bench::{Measurement, Pattern, Spec as BenchSpec};
pub use exports::{Admits, Export};
pub use guests::{Guest, GuestError, GuestState};
pub use handle::{AttachError, BenchError, Config, Handle, ListenError, Notes, Runtime};
pub use said::SaidReceiver;
pub use served::{Ended, Queue, ServeError, Visitor};
