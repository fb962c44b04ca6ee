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
//!
//!   who receives asks ──── Credit ───► who sends them
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
//! | 1 | replication: changes, reads, marks, seals, fills of joiners, and the answers to each; credit |
//! | 2 | damaged blocks ([`Feature::Mend`]); reads without a lease ([`Feature::Confirm`]); full disks ([`Feature::Fits`]); comparisons of replicas ([`Feature::Compare`]) |
//!
//! A build speaks its own version and the one before, so that nodes are upgraded one after the other. The hello has both sides find the
//! highest version that they have in common before the first frame ([`agree_with`]), so no frame says its version: [`Head::decode`], [`decode`] and [`Frame::encode`] are
//! told what was agreed. Which version can say what stands in `version.rs`, a line for each feature; what a peer's version has no word for is refused to its writer, who does
//! what stands there instead, and a peer that says it all the same is cut off. Only a hint is left out instead ([`Feature::hinted`]): *done* goes to a peer that cannot hear
//! that the disk is low. The golden bytes of each version stay in `fixtures/` as long as it is spoken. How a site is upgraded node by node is told [here](crate::docs::upgrade).
//!
//! Neither version was on a network yet. Kinds 5 and 6, which the first golden bytes of version 1 had, went to version 2; credit (kind 9) and the number of a frame came to both, where
//! a head had zeroes. All of that was an edit of the fixtures; from the first release on a line of a fixture is never changed.
//!
//! # Invariants
//! - *nothing-is-believed*: every length and count is held against a bound, and against the bytes that are there, before room is taken; a
//!   byte that has no meaning is zero, or the frame is refused with the name of the field ([`Malformed`]). A peer that sends such a
//!   frame is cut off: the machines behind never see it.
//! - *one-spelling*: a frame has one form in bytes. What is read, and written again, is the same bytes.
//! - *what-is-written-can-be-read*: more than a frame holds is refused to its writer ([`Unwritten::TooMany`]); a frame that a peer would refuse for
//!   another reason is a mistake of our own, which tests and simulation assert.
//! - *nobody-says-what-is-not-understood*: on a connection of a version nothing is written, and nothing is read, that a later one brought.
//!
//! It does not know connections, who may speak for a node, or whether a frame is too old: the machines' fences tell that.

mod answer;
mod compare;
mod credit;
mod field;
mod fill;
mod frame;
mod hello;
mod instead;
mod mend;
mod message;
mod question;
mod version;

#[cfg(test)]
mod tests;

pub use credit::{Class, Cost, Credit};
pub use field::Malformed;
pub use frame::{
    BODY_MAX, Frame, HEAD_LEN, Head, Kind, PAYLOAD_MAX, TooMany, Unwritten, decode, set_number,
};
pub use hello::{HELLO_LEN, Hello, VERSION_MAX, VERSION_MIN};
pub use instead::instead;
pub use question::Question;
pub use version::{Apart, Feature, Version, agree, agree_with};

use crate::protocol::replication::{MEMBERS_MAX, WINDOW_MAX};

/// Entries that one frame holds: a window that is told whole, amid a recovery of all members' windows.
pub const ENTRIES_MAX: usize = MEMBERS_MAX * WINDOW_MAX;
