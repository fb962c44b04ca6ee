//! Raft by openraft 0.9. Nobody outside this folder names it: 0.10 changes its interfaces, and only this folder then changes.
//!
//! ```text
//!   Group ──► openraft::Raft ──► LogStore ──┐
//!     │              │                      ├──► Store (one redb file)
//!     │              ├─────► Machine ───────┘
//!     │              │          └──► Board: the catalog, and everyone who watches it
//!     │              └─────► Network ──► Transport
//!     └── append, vote and snapshot that arrive
//! ```
//!
//! | file | what |
//! |---|---|
//! | `store` | the redb file: its layout, its transactions, what is found in it at opening |
//! | `old_format` | files from before Raft, which are taken over |
//! | `log` | the log and the vote, as openraft wants them |
//! | `machine` | the catalog as openraft's state machine, and its snapshots |
//! | `network` | what openraft sends, as messages of [`Transport`](super::Transport) |
//! | `stand` | when a member stands for election |
//! | `group` | openraft's handle, as [`Consensus`](super::consensus::Consensus) |
//!
//! Invariants:
//! - *durable-before-answered*: a vote, and an entry, is durable before anyone hears that it is taken.
//! - *one-turn-a-life*: a member that starts again does not go on with a term that it led. openraft would; then two lives of a
//!   process would lead one term, and leases count by terms.

mod group;
mod log;
mod machine;
mod network;
mod old_format;
mod stand;
mod store;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use group::COMPACT_EVERY;
pub(super) use group::{Group, Opening};
pub use store::OpenError;
pub(super) use store::Source;

use crate::base::NodeId;
use crate::protocol::catalog::{Command, Event, Refusal};
use serde::{Deserialize, Serialize};
use std::io::Cursor;

/// What an entry came to where it is applied. Only the member that proposed it reads this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It was no command: a leader's first entry, or a change of members.
    Nothing,
    /// A refused command is an entry as well: it is in the log, and changes nothing on any node.
    Result(Result<Vec<Event>, Refusal>),
}

openraft::declare_raft_types!(
    /// With what openraft works here.
    pub(super) Types:
        D = Command,
        R = Answer,
        // Of 64 bits, because openraft's own tests want to make one of them; ours have 32.
        NodeId = u64,
        // Where a node is reached is the transport's to know.
        Node = openraft::EmptyNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

type Entry = openraft::Entry<Types>;
type LogId = openraft::LogId<u64>;
type Vote = openraft::Vote<u64>;
type StoredMembership = openraft::StoredMembership<u64, openraft::EmptyNode>;
type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::EmptyNode>;
type StorageError = openraft::StorageError<u64>;

/// The node with this number in openraft; none has more than 32 bits, as they are made from ours.
fn node(id: u64) -> NodeId {
    NodeId(u32::try_from(id).unwrap_or(u32::MAX))
}
