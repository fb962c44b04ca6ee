#![forbid(unsafe_code)]
//! The steward: what the leader of a site's manager decides about replicas, so that nobody has to.
//!
//! ```text
//!   membership: Live, Expired, Verdict ──┐                       ┌──► Propose(Command) ──► log ──► Catalog
//!   nodes: disks opened, failed; filled ─┼──►  Steward  ─────────┤                                    │
//!   coordinators: Accused ───────────────┘   looks at a PG,      └──► Solve(Cluster), off its thread  │
//!            ▲                               says one step                      │                     │
//!            └─────────────── Committed(events), Solved(plan) ◄─────────────────┴─────────────────────┘
//! ```
//!
//! # In short
//! The catalog says how each PG is. The steward knows who is there. From both follows, for each PG, at most one next step, and the
//! steward proposes it; when the catalog has taken it, the steward looks at the PG again. So nothing is kept that a new leader would
//! miss: which move is under way stands with the PG ([`Move`](super::catalog::Move)), and who is there is told anew.
//!
//! What is looked for in a PG, in this order (`decide.rs`):
//! 1. a replica that does not have what it should have is taken out *empty*, where enough are left and one of them is there (`wrong.rs`);
//! 2. a joiner that fails is dropped;
//! 3. a replica in sync that is gone is evicted, where enough are left and one of them is there (R11): at once where somebody waits for it, else after `grace`;
//! 4. a joiner whose session is filled is promoted by its session (R16);
//! 5. a move goes on: the new replica is listed, and when it is in sync the old one is taken off the list;
//! 6. a replica that is out, and is there, joins.
//!
//! Where replicas belong is `placement`'s to say: it is asked when disks come, go, are drained, weigh another thing or were away for
//! `out_after`. Its changes are begun in its order, which is that of need, as many at once as the parameters say (`plan.rs`).
//!
//! # What is promised
//! - *never-too-few*: no eviction leaves fewer than `max(1, min_copies)` in sync (the catalog refuses it too), or nobody there.
//! - *one-change-a-pg*: at most one command about a PG is proposed at a time, and at most one move of it is under way.
//! - *bounded*: commands in flight, joins and moves a disk and in all; what is remembered of words and failures.
//! - *comes-to-rest*: when everybody is there, all PGs have their copies in sync, in different domains, and nothing is wanted.
//!
//! A replica that counts as empty (R19), or that lacks what it should have, is no copy: that takes PGs below `min_copies` where it must.
//!
//! # The driver's duties
//! 1. Hand in the catalog with everything that was committed, and tell what was committed before it tells the answer.
//! 2. Tell `Lead` after that, `Follow` at once, and to a new leader everything that [`Input`] says is repeated.
//! 3. Call `expire` at `deadline`; late is safe.
//! 4. Solve elsewhere: the steward waits for no answer.
//!
//! # What is not here
//! Wishes of operators (drains, weights, maintenance) are commands to the catalog, and reach the steward as events. Starts of nodes are
//! recorded at the membership's word by the driver. Ranges are taken by the nodes themselves.

mod decide;
mod machine;
mod message;
mod parameters;
mod plan;
mod presence;
mod rule;
mod words;
mod wrong;

#[cfg(test)]
mod tests;

pub use machine::Steward;
pub use message::{Input, Note, Outcome, Output, Why};
pub use parameters::{NewPgs, Parameters, Unsound};
pub use plan::cluster_of as question;
pub use rule::{Rule, RulesOff};
