#![forbid(unsafe_code)]
//! The cluster as one node sees it: how it is founded and joined, who the other nodes are and how they are, and the wires over which their
//! managers speak.
//!
//! ```text
//!   found ──► authority, certificate ─┐                   ┌──► wires ──► manager (its Transport)
//!   join ───► certificate of a member ┴─► kept ─► begin ──┼──► handlers: manager, joins, renewals, authority, presence
//!                                                         └──► tend: addresses, members, authority, certificate; look: who is there
//! ```
//!
//! A daemon without a `[cluster]` section, or with one that was neither founded nor joined, is a node alone: its manager is a group of one, and
//! nothing here listens. Founding changes nothing of that but that others may come: the catalog stays. Joining gives up
//! the catalog of the lone node (it is empty, or the join is refused) for that of the cluster, in another file; the
//! daemon starts itself again for that.
//!
//! # Invariants
//! - *kept-last*: `cluster.json` is what says that this node is of a cluster, and it is written when everything else is durable. Whatever is interrupted
//!   before can be said again.
//! - *once-a-machine*: who repeats a join with the same key is the same node; a token is good for one key. Both stand in the catalog.
//! - *authority-at-members*: the authority's key is given to members of the manager only, over TLS only.
//! - *bounded*: addresses, nodes, seeds, calls and their times have the bounds of `calls` and of the catalog; one look at the others is under way at a time.
//!
//! # What it does not know
//! Volumes and disks. That a host that has some does not join is the API's to refuse.
//!
//! | file | what |
//! |---|---|
//! | `settings` | what the configuration says |
//! | `kept` | what is on disk |
//! | `site` | the door: open, found, join, tokens, members, end |
//! | `clients` | who uses the cluster from outside |
//! | `serve` | what other nodes ask of this one |
//! | `tend` | what is done by itself |
//! | `look` | who is there, since when |
//! | `view` | all of it, to be shown |
//! | `work` | what each says of its disks, and of copies that are made there |
//! | `wires` | calls as the manager's transport |
//! | `error` | why not, and what to do |

mod clients;
mod error;
mod kept;
mod look;
mod serve;
mod settings;
mod site;
mod tend;
#[cfg(test)]
mod tests;
mod view;
mod wires;
mod work;

pub use clients::{CLIENT_LIFE_MAX, IssuedClient, IssuedToken, NotAdmitted, TOKEN_LIFE_MAX};
pub use error::ClusterError;
pub use look::Places;
pub use settings::{Protection, Settings};
pub use site::{Cluster, Founded, Issued, Join, MembersChange};
pub use view::{Place, Presence, View, Viewed, date_of};
pub use work::{DiskWork, PoolWork, Work};
