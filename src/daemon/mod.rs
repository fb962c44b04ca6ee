//! The daemon: what runs on a host, put together in the order in which it starts.
//!
//! ```text
//!   config ─► log ─► cluster ─► catalog ─► shards ─► disks ─► volumes ─► exports ─► attachments ─► API and NBD listen ─► READY
//!                                                                                                             │
//!   exit ◄─ shards end ◄─ stores checkpoint and close ◄─ API ends ◄─ SIGTERM or SIGINT ◄──────────────────────┘
//! ```
//!
//! Nobody can connect before everything that was promised is served, and a signal in any phase leaves nothing
//! that the next start does not heal. An upgrade stops in the same way, but keeps sockets and guests' connections open and
//! ends with another binary in place of this one. A second signal ends the process at once, which costs the next start
//! a replay of the journal and nothing else.

mod config;
mod fleet;
mod handover;
mod links;
mod listeners;
mod nbd_tls;
mod notify;
mod run;
mod start;

pub use config::{
    Api, Cluster, Config, ConfigError, DiskConfig, LogFormat, Nbd, Security, VhostUser,
};
pub use run::{Ready, check, run};
pub use start::StartError;
