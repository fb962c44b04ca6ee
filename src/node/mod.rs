#![forbid(unsafe_code)]
//! What one node decides besides its shards: its lease, whose turn it is at volumes, cuts for snapshots, openings of its disks; and what a member of the
//! manager decides for all nodes.
//!
//! ```text
//!                   ┌─────────────────────── Node ───────────────────────┐
//!   catalog ──────► │  Holder: the lease        Turns: which volumes     │ ──Order──► fabrics of its shards
//!   fabrics ──────► │  Openings of disks        Cuts: when a layer ends  │ ──Report─► who leads the manager
//!   lease answers ► │                                                    │ ──Ask────► the manager's members
//!                   └────────────────────────────────────────────────────┘
//!                   ┌────────────────────── Member ──────────────────────┐
//!   Ask, Report ──► │  Grantor: leases of all   Steward: replicas of all │ ──Propose─► the log ──► everybody's catalog
//!                   └────────────────────────────────────────────────────┘
//! ```
//!
//! Both are put together from the machines of [`protocol`](crate::protocol), and decide little themselves: what one machine says is handed to the next one. The
//! catalog is the driver's; it is handed in as far as this node has heard of it.
//!
//! # The driver's duties
//! 1. Hand in what was committed, in its order, with the catalog as it is after it; or a snapshot of everything.
//! 2. Carry out [`Output::Order`]s at the node's fabric in their order, and bring back at once what it says ([`Input::Drained`], ...).
//! 3. Bring reports to every member of the manager; who leads takes them. They may be lost.
//! 4. Call `expire` at `deadline`; late is safe.
//!
//! A node of several shards joins what they say (*drained*, *cut*, *settled*) in [`Shards`] before it is told here.

mod door;
mod machine;
mod member;
mod openings;
mod shards;
mod take;

pub use door::{Input, Output};
pub use machine::Node;
pub use member::{Member, MemberInput, MemberOutput, Unsound};
pub use openings::Numbers;
pub use shards::{Said, Shards};
