#![forbid(unsafe_code)]
//! Damage between replicas: what one has lost, another gives back.
//!
//! ```text
//!   store: Damaged ──► Mender of its disk ── MendAsk ──► Mender of another disk ──► its store: Salvage
//!                            ▲                                                          │
//!   store: Mend ◄── matches ─┴──────── MendAnswer, the blocks ◄─────────────────────────┘
//! ```
//!
//! # Repair by checksum
//! A replica's table says what each block should be: a checksum, seeded with the layer and the number of the block. A block that does not match it, or
//! cannot be read, is asked for at the other replicas of its PG *by that checksum*: one that has such a block hands it over, one that has not says so. What
//! comes counts only if it has the checksum that was asked for, and the store takes it only if that is what its table says at that very moment. So a repair
//! needs no epoch, no version and no stamp, raises no fence and acknowledges nothing, and it works on frozen layers, on volumes that nobody
//! has attached, from and to replicas that are not in sync. A write that came between has changed the checksum, and there is nothing to repair.
//! The decision is told in `docs/decisions/repair_by_checksum.md`.
//!
//! # What can happen
//! - *The first that is asked has not got it, or is damaged there too*: the next one is asked. In sync first, then who joins, then who is out.
//! - *Nobody has it*: it stays wanted, is asked for again slowly, and stands in [`Mender::lost`], of which the alert is made. Its reads fail.
//! - *The table itself is damaged*: then nobody here knows what the blocks should be. That is for the manager: see [`compare`].
//!
//! # What replicas find only together
//! A lost write (old table and old data agree) is seen by no replica alone: [`compare`] finds it.
//!
//! # Invariants
//! - *never-spread*: what a store takes has the checksum that its table says, so bad bytes, or good ones of another time, go nowhere.
//! - *wants-are-bounded*: at most [`WANTS_MAX`] chunks are wanted, so many are on their way, so many are lent. What is dropped is told again by the
//!   next read or scrub.
//!
//! It does not know what a block holds, where disks are, or how a store finds damage.

pub mod compare;
mod lend;
mod mender;
mod message;
mod rule;
#[cfg(test)]
mod tests;
mod want;

pub use lend::LENDS_MAX;
pub use mender::{Counts, Input, Mender, Output};
pub use message::{MendAnswer, MendAsk, MendHeader};
pub use rule::{Rule, RulesOff};
pub use want::{GATHER, PATIENCE, RETRY_FIRST, RETRY_MAX, WANTS_MAX};
