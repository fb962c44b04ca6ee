#![forbid(unsafe_code)]
//! What nodes say to one another, as bytes. Pure: it is handed bytes and hands out bytes.
//!
//! ```text
//!   Hello ────────► both sides: magic, versions that are spoken, cluster, node; the highest common version counts
//!   Frame ────────► head, 64 bytes, with its own crc │ body, with a crc in the head │ payload, whole blocks
//! ```
//!
//! All numbers are little endian. The *head* has a fixed size, so that a receiver knows from its first 64 bytes how much follows and where
//! the payload goes: into buffers of blocks, never through this room. A block of payload has no crc of the frame's; each
//! block's own crc, which says where it belongs, stands in the body, and is checked against the bytes that came.
//!
//! # Versions
//! | version | what |
//! |---|---|
//! | 1 | replication: changes, reads, marks, seals, and their answers |
//!
//! A build speaks its own version and the one before, so that nodes are upgraded one after the other.
//!
//! Every length is checked against a bound before anything is taken; a byte that has no meaning is zero, or the frame is refused with the
//! name of the field ([`Malformed`]). A peer that sends such a frame is cut off: the machines behind never see it.

mod answer;
mod frame;
mod hello;
mod message;

#[cfg(test)]
mod tests;

pub use frame::{
    BODY_MAX, Frame, HEAD_LEN, Head, Kind, Malformed, PAYLOAD_MAX, decode, encode_answer,
    encode_message,
};
pub use hello::{HELLO_LEN, Hello, VERSION_MAX, VERSION_MIN, agree};
