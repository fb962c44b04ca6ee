#![forbid(unsafe_code)]
//! The pilot: a node's control plane in a cluster. It drives [`node::Node`](crate::node::Node), and [`node::Member`](crate::node::Member) while this node is
//! a member of the manager, over the real manager, real calls and the shards.
//!
//! ```text
//!     Manager::watch ──news──► ┌────────────── a thread of its own ─────────────┐ ──orders──► shards (a trait: `Shards`)
//!     Manager::ask, confirm ◄─ │ own catalog ─► Node ─► Orders: kept first, then │ ◄──said─────
//!                              │            └─► Seat (Member), while a member    │ ──keep────► stores
//!     calls: Lease ◄─────────► │                                                 │
//!     calls: Report, Node ◄──► └─────────────────────────────────────────────────┘ ──► View
//! ```
//!
//! # Which thread does what
//! The pilot's thread has a runtime of its own, and does nothing but this: leases are asked for in time while the control plane is busy with something else. The
//! connections on which it asks are dialled there and so worked there ([`Class::Lease`](crate::calls::Class)). On the control plane's runtime remain: what others ask
//! of this node, since connections are worked where the listener is; confirmations and proposals, which are Raft's; reports and wishes, which may be lost; placement,
//! which is solved on a thread for work that blocks. So a control plane that stands still costs a member's answers, and no node its lease where another member leads.
//!
//! # What comes first
//! Each turn reads the clock (CLOCK_BOOTTIME) and ends what has run out before it looks at anything else: a process that was stopped, or a machine that slept, hears
//! nothing before it knows that its lease is over. Shards hold the end of the lease against the clock themselves. Where a lease ends before its time
//! (the manager refuses it), its grantor hears of that with the next ask, and would let others take over at once, though a shard may have heard nothing yet: so
//! nothing is asked until the end that shards were told of last has passed.
//!
//! # Invariants
//! - *kept-first*: orders do not overtake what stores have to keep before them; an opening is told to the manager when it is durable.
//! - *own-catalog*: the machines see the catalog as it is after the entry that they are told of, never one that is further.
//! - *speaks-for-itself*: what is said in another node's name is refused.
//! - *bounded*: what waits of peers, shards, orders, proposals, reports and notes; where there is too much, what is said again by itself is dropped and counted, and
//!   news of the catalog waits.
//!
//! # What it does not know
//! Links, addresses and stores; what an order does; why a volume is attached.
//!
//! | file | what |
//! |---|---|
//! | `door` | starting and ending; the shards as a trait; what arrives |
//! | `drive` | the thread: news, answers and time for the machines, and what they want done |
//! | `give` | orders, given to shards, and what stores keep before them |
//! | `lead` | the same for a member: asks, reports, proposals |
//! | `orders` | what waits for stores, and what does not |
//! | `seat` | what is kept for a member |
//! | `silence` | what is not asked after a lease that ended early |
//! | `message` | what pilots say to one another |
//! | `starts` | the number of this start |
//! | `view` | what is shown |

mod door;
mod drive;
mod give;
mod lead;
mod message;
mod orders;
mod seat;
mod silence;
mod starts;
mod view;

#[cfg(test)]
mod tests;

pub use door::{Parts, Pilot, Shards, StartError, meta};
pub use starts::{NoStart, next_start};
pub use view::{Lease, Noted, Role, View};
