//! The manager: what keeps the catalog of a site, and the only door through which it changes.
//!
//! ```text
//!                    ┌──────────────────────── one node ────────────────────────┐
//!   propose(Command) ─► leads? ──► Raft: durable at a majority ──► own ─┐       │
//!                    │    │                                             ├─► board ──► catalog()
//!                    │    └─► to the node that does             ahead ──┘       ├──► watch(): Applied, Snapshot, Leads, Follows
//!                    │                    a member's deltas ──────┘             └──► deltas for nodes that are no members
//!                    └──────────────────────────────────────────────────────────┘
//! ```
//!
//! # Members and others
//! One, three or five nodes of a site are *members*: they keep one log of commands by Raft, and elect who *leads*. Every node runs
//! the same [`Manager`], so each can be made a member at any time; one that is none asks a member for everything behind what it has,
//! and is answered when there is something (`follow`). What travels is commands: every node carries them out itself, and all come to the
//! same catalog, because [`Catalog`](crate::protocol::catalog::Catalog) is deterministic. [`Manager::propose`] and
//! [`Manager::set_voters`] may be asked on any node.
//!
//! # One entry, two numbers
//! An [`Index`] is a place in the log. [`Catalog::applied`](crate::protocol::catalog::Catalog::applied) counts commands that were accepted.
//! They differ: a command is checked where it is carried out, after it was committed, so a refused one has an index and changes
//! nothing; the first entry of each leader and changes of members have one as well.
//!
//! # What a node's machines need
//! Leases and the steward run where the leader is. [`Manager::watch`] tells them every command and what came of it, in order, and
//! whether this node leads: [`News::Leads`] comes after all that earlier leaders committed. [`Manager::confirm`] has a majority say so
//! once more, after the question. [`Manager::ask`] proposes and says whether the command is in the log, is not, or nobody knows.
//!
//! # Invariants
//! - *log-before-state*: nobody sees a change of the catalog before its command is committed.
//! - *one-at-a-time*: commands are carried out in one order, that of the log, on every node.
//! - *all-or-nothing*: a caller that goes away in the middle leaves a command fully carried out or not at all.
//! - *at-most-once*: a command that may have been taken is not brought to another node.
//! - *shown-never-goes-back*, *no-gap*, *bounded*: of the `board`. *durable-before-answered*, *one-turn-a-life*: of `raft`.
//!
//! # What it does not know
//! Addresses and certificates are the [`Transport`]'s. That a node is a member of the site is what the transport says of who asks.
//!
//! | file | what |
//! |---|---|
//! | `door` | opening and ending; what arrives |
//! | `propose`, `members` | how the catalog and the members change |
//! | `follow` | how a node that is no member keeps its catalog |
//! | `levels` | what builds of other nodes know |
//! | `board`, `watch` | what this node shows, and who is told |
//! | `message`, `transport` | what managers say to one another |
//! | `consensus`, `raft` | the seam, and openraft behind it, which nobody else names |

mod board;
mod consensus;
mod door;
mod follow;
mod levels;
mod members;
mod message;
mod propose;
mod raft;
mod transport;
mod watch;

#[cfg(test)]
mod tests;

pub use consensus::Outcome;
pub use door::{Manager, Members, NotConfirmed, Options, Start, Times};
pub use levels::Levels;
pub use members::MembersError;
pub use message::{Weight, weight};
pub use propose::ProposeError;
pub use raft::OpenError;
pub use transport::{Calling, MESSAGE_MAX, Nobody, Transport, Unreachable};
pub use watch::{Index, News, Watch};
