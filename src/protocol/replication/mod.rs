#![forbid(unsafe_code)]
//! Replication of one placement group: how a coordinator keeps its copies the same.
//!
//! ```text
//!   front ends                 the manager
//!       │ write, read              │ Configuration: version, who is in sync, who joins
//!       ▼                          ▼
//!   ┌─ Group ──────────────────────────────┐    Header: range, PG, epoch, version, mark
//!   │ numbers, sends, counts answers, seals│ ─────────────────────────────────────────┐
//!   └──────────────────────────────────────┘                                          ▼
//!              ▲          Answer                                     ┌─ Replica ───────────────┐
//!              └──────────────────────────────────────────────────── │ fences, window, its store│
//!                                                                    └─────────────────────────┘
//! ```
//!
//! # In short
//! The node that a volume is attached to coordinates its writes. It holds one [`Group`] for each PG that the volume has
//! blocks in; each replica of the PG is a [`Replica`] at its disk. A write goes to every member at once and is acknowledged when
//! all have it durable. There is no leader among the replicas and nothing that they vote on: one writer a range, fenced by
//! its *epoch*, and one configuration of a PG, fenced by its *version*, which only the manager changes.
//!
//! # What can happen
//! - *A replica does not answer.* The coordinator accuses it ([`group::Output::Accuse`]), the manager takes it out under version + 1, and every
//!   write in flight starts over under the new version with those that are left (R3).
//! - *The coordinator dies.* Who takes the range over has a higher epoch. It *seals* every member: each takes the epoch durably, refuses
//!   the old one from then on, and tells its *window*, the writes above the last mark, which may be on some replicas and not on
//!   others. Each block in any window is written again to all members, with the newest value that an in-sync one has (R7). Then it serves.
//! - *A replica comes back.* The manager has it join under version + 1: from then on its acknowledgement is needed (R12), and it takes nothing
//!   before an in-sync replica has handed over its fences (R13). Behind what it takes it is filled with what was written since it was
//!   last in sync (R14, R15); then the manager promotes that very session (R16).
//! - *A disk is nearly full.* Its replicas say so with every answer, and from then on their coordinators ask all members before a write that may take
//!   new space: it goes to all of them, or is refused before anything has changed (`room.rs`).
//! - *Both at once, in any order, with frames that come late or twice.* The fences decide: a replica refuses what is older
//!   than it has seen (R1), and an answer counts only for the epoch and version that asked.
//!
//! # Invariants
//! - *fences-only-grow*: a replica's version, and its epoch of a range, never become lower, restart or not (R6).
//! - *no-overlap-in-flight*: a group has no two overlapping writes in flight (R2); its caller sees to it, and it asserts.
//! - *acknowledged-by-all*: a write is acknowledged when every member of the present version has said that it is durable
//!   under that version (R3, R12).
//! - *refused-is-not-sent*: a write that is refused for want of space was sent to nobody.
//! - *windows-are-bounded*: a replica takes at most [`WINDOW_MAX`] entries of a range (amid a recovery as many of each member), a group has
//!   at most [`FLYING_MAX`] writes in flight (R22).
//!
//! # What is not here yet
//! Snapshots (R21: [`cuts`](super::cuts)), leases (R17, R18: the caller asks `membership` before it replies, and the group where there is none). The machines do not know where frames travel, how long anything takes, or what a block holds.

mod configuration;
pub mod fill;
pub mod group;
pub mod limit;
mod message;
pub mod pace;
pub mod replica;
mod room;
mod rule;
mod window;

#[cfg(test)]
mod tests;

pub use configuration::{Configuration, Member, Reconfigure, Refused, Role};
pub use group::Group;
pub use message::{Answer, Asked, Change, Header, Message, Refusal};
pub use replica::Replica;
pub use room::{Gauge, Room, Takes};
pub use rule::{Rule, RulesOff};
pub use window::{Entry, WINDOW_MAX};

/// Writes that one group has in flight; more wait with the caller. A window holds twice as many, because a mark reaches a replica with a
/// later frame only.
pub const FLYING_MAX: usize = 512;
/// The most members of a PG: `copies` is at most 3, and while replicas move there is one more for each.
pub const MEMBERS_MAX: usize = 8;
