//! Links: what one shard says to the shards of other nodes, and hears of them, over connections whose handshake is done.
//!
//! ```text
//!   user ── send ──► credit? ──► batch ──► one sendmsg a turn ──► socket     bytes, and payload where it lies
//!        ◄─ event ── check ◄──── frame ◄── receive ◄───────────── socket     large payload where it belongs
//!                                  │
//!   user ── release ──► grant ─────┴──► told to the peer
//! ```
//!
//! A `Link` (`link.rs`, `send.rs`, `receive.rs`) is one connection as a machine: bytes, completions and the time go in, events and wishes come out: what
//! is to be received next, and what to be sent. It sees no socket. `drive.rs` is its driver on the shard's ring, with `cover.rs` between the two where there is TLS.
//! [`LinkUser`] is who gets the events.
//!
//! # Credit
//! Why nobody must buffer without a bound, and nobody can wait for ever, is told [here](crate::docs::decisions::credits_between_peers). In short: an ask is sent where
//! the peer has granted it; its answer needs no grant, because the asker brings the room for it, and is always read. What a peer's asks carry lies in memory of its own
//! ([`crate::io::Zone::Peers`]), which no client can take.
//!
//! # Invariants
//! - *answers-always-flow*: a link stops reading for one reason only, that there is no memory for an ask's payload; that memory comes back without anything from the network.
//! - *asks-within-credit*: nothing is sent, and nothing is taken, above what was granted.
//! - *checked-before-it-is-seen*: no payload is handed out whose blocks have not the checksums that its frame says.
//! - *held-once*: a buffer that is given to a link is let go once: when the kernel has sent it, with the answer that it was for, or when the link is down.
//! - *nothing-after-down*: [`Event::Down`] is the last event of a link, and comes once.
//!
//! It does not know who a peer is, nor connects: that is the control plane's. It does not know what frames mean, but for what they cost and which answer is whose.

mod check;
mod cover;
mod drive;
mod limits;
mod link;
mod memory;
mod receive;
mod send;
mod user;

#[cfg(test)]
mod tests;

pub use cover::Cover;
pub use drive::LinkError;
pub(super) use drive::Links;
pub use limits::Limits;
pub use link::Why;
pub use send::Refused;
pub use user::{Door, LinkUser, Outgoing};

use crate::base::{DiskId, NodeId, Span, Time};
use crate::shard::ShardNo;
use crate::wire::{Frame, Version};
use std::fmt;

/// A link of this shard. A number is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    place: u32,
    life: u32,
}

impl LinkId {
    /// Its place among the links of its shard, below 1,024, and its number, of which no two that live have the lower bits in common.
    pub(super) fn parts(self) -> (u32, u32) {
        (self.place, self.life)
    }
}

/// How many blocks the answer to a frame may bring, for which it needs a place.
pub(super) fn room_for(frame: &Frame) -> u32 {
    check::Wanted::of(frame).blocks()
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.place, self.life)
    }
}

/// Who is at the other end, as the handshake has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeId,
    pub shard: ShardNo,
    /// What both speak.
    pub version: Version,
}

/// What comes of a link.
#[derive(Debug)]
pub enum Event {
    Up {
        link: LinkId,
        peer: Peer,
    },
    /// The peer asks. The payload is held for the taker, who gives it to [`Door::release`].
    Ask {
        link: LinkId,
        disk: DiskId,
        frame: Frame,
        payload: Option<Span>,
    },
    /// The peer answers.
    Answer {
        link: LinkId,
        disk: DiskId,
        frame: Frame,
        /// What was given along with the ask, where there was something: the taker's again.
        into: Option<Span>,
        /// So many blocks of payload came, and lie at its beginning.
        blocks: u32,
    },
    /// Something was asked, or waits for the peer's credit, and nothing was heard since then. Told once; what is to be done is the owner's. It need not be the peer's
    /// doing: a link reads nothing while an ask waits for memory here.
    Silent {
        link: LinkId,
        since: Time,
    },
    /// Nothing of it is in flight any more, and what was given to it is let go.
    Down {
        link: LinkId,
        peer: Peer,
        why: Why,
    },
}
