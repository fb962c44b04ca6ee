#![forbid(unsafe_code)]
//! What nodes say to one another, as bytes. Pure: it is handed bytes and hands out bytes.
//!
//! ```text
//!   Hello ────────► both sides: magic, versions that are spoken, cluster, node; the highest common version counts
//!   Frame ────────► head, 72 bytes, with its own crc │ body, with a crc in the head │ payload, whole blocks
//!
//!   coordinator ──── Message ───► replica          joiner ──── FillAsk ────► source
//!               ◄─── Answer ─────                         ◄─── FillAnswer ──
//!
//!   disk that lost blocks ──── MendAsk ────► disk that may have them
//!                         ◄─── MendAnswer ──
//!
//!   replica in sync ──── CompareAsk ────► another one
//!                   ◄─── CompareAnswer ──
//! ```
//!
//! The bytes stand in `docs/wire_format.md`, in tables from which a decoder can be written; `tests/layout.rs` holds them against the code.
//! The *head* has a fixed size, so that a receiver knows from its first bytes whose replica is meant, how much follows and where
//! the payload goes: into buffers of blocks, never through this room. A block of payload has no crc of the frame's; each
//! block's own crc, which says where it belongs, stands in the body, and is checked against the bytes that came.
//!
//! # Versions
//! | version | what |
//! |---|---|
//! | 1 | replication: changes, reads, marks, seals, fills of joiners, damaged blocks, comparisons of replicas, and the answers to each |
//!
//! A build speaks its own version and the one before, so that nodes are upgraded one after the other. The hello has both sides find the
//! highest version that they have in common before the first frame, so no frame says its version. Version 1 is the only one, and reading needs no
//! argument for it. The first frame that differs brings one: [`Head::decode`], [`decode`] and [`Frame::encode`] are then told what was agreed, read
//! the older one into the same values, and refuse to write in it what it cannot say. What the older one had no word for is not asked of such a peer.
//! The golden bytes of each version stay in `fixtures/` as long as it is spoken.
//!
//! # Invariants
//! - *nothing-is-believed*: every length and count is held against a bound, and against the bytes that are there, before room is taken; a
//!   byte that has no meaning is zero, or the frame is refused with the name of the field ([`Malformed`]). A peer that sends such a
//!   frame is cut off: the machines behind never see it.
//! - *one-spelling*: a frame has one form in bytes. What is read, and written again, is the same bytes.
//! - *what-is-written-can-be-read*: more than a frame holds is refused to its writer ([`TooMany`]); a frame that a peer would refuse for
//!   another reason is a mistake of our own, which tests and simulation assert.
//!
//! It does not know connections, who may speak for a node, or whether a frame is too old: the machines' fences tell that.

mod answer;
mod compare;
mod field;
mod fill;
mod frame;
mod hello;
mod mend;
mod message;

#[cfg(test)]
mod tests;

pub use field::Malformed;
pub use frame::{BODY_MAX, Frame, HEAD_LEN, Head, Kind, PAYLOAD_MAX, TooMany, decode};
pub use hello::{HELLO_LEN, Hello, VERSION_MAX, VERSION_MIN, agree};

use crate::protocol::replication::{MEMBERS_MAX, WINDOW_MAX};

/// Entries that one frame holds: a window that is told whole, amid a recovery of all members' windows.
pub const ENTRIES_MAX: usize = MEMBERS_MAX * WINDOW_MAX;
