//! TLS between a link's machine, which speaks in the clear, and the ring.
//!
//! ```text
//!   next_message ──► records of 16 KiB ──► seal ──┐
//!   what TLS itself says (keys, alerts) ──────────┴─► one sendmsg at a time ──► socket
//!   received ◄────────────────────────── open ◄────── provided buffers ◄─────── socket
//! ```
//!
//! It is done by the shard in its turn: handing bytes to another thread and back takes longer than sealing a block. Payload is copied once more than on a bare link, and
//! large payload does not come straight to where it belongs.
//!
//! # Invariants
//! - *in-its-order*: what is sealed is sent in that order, each record once. So nothing is sealed while a message is on its way.

use super::Event;
use super::link::{Link, Why};
use super::memory::Memory;
use crate::base::Time;
use crate::io::{Arena, Message};
use std::collections::VecDeque;
use std::fmt::Debug;

/// Bytes of a record in the clear: the most that TLS allows.
const RECORD: usize = 16 << 10;
/// Memory of a sealed message that is worth keeping.
const KEPT: usize = 64 * 1024;

/// What a link's bytes are covered with, whoever does it.
pub trait Cover: Send + Debug {
    /// Seals bytes, at most 16 KiB, and appends what is to be sent to `out`.
    ///
    /// # Errors
    /// Why nothing can be sealed any more.
    fn seal(&mut self, clear: &[u8], out: &mut Vec<u8>) -> Result<(), String>;

    /// Opens what came, as far as it is whole, and shows that to `take`. What the cover itself answers is appended to `out`.
    ///
    /// # Errors
    /// Where it is not the other side's, or that has ended: from then on always. What was shown before counts.
    fn open(
        &mut self,
        came: &[u8],
        out: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String>;
}

/// A link's cover, with what is between it and the ring.
pub(super) struct Covered {
    cover: Box<dyn Cover>,
    /// What the cover itself has to say.
    own: Vec<u8>,
    /// What is on its way: its bytes, and the message of the link that they are, if they are one.
    sealed: u64,
    clear: Option<Message>,
    record: Vec<u8>,
    /// A message whose memory is used again.
    spare: Option<Message>,
}

impl Covered {
    pub fn new(cover: Box<dyn Cover>) -> Covered {
        Covered {
            cover,
            own: Vec::new(),
            sealed: 0,
            clear: None,
            record: Vec::new(),
            spare: None,
        }
    }

    /// What is to be sent: what the cover has to say, and behind it a message of the link. `None`: nothing. Not to be called while something is on its way.
    pub fn seal(
        &mut self,
        message: Option<Message>,
        arena: &Arena,
        link: &mut Link,
        memory: &mut impl Memory,
    ) -> Option<Message> {
        if message.is_none() && self.own.is_empty() {
            return None;
        }
        let mut sealed = self.spare.take().unwrap_or_default();
        sealed.bytes().append(&mut self.own);
        if let Some(message) = message {
            let (cover, out) = (&mut self.cover, sealed.bytes());
            let seal = |clear: &[u8]| cover.seal(clear, out);
            if let Err(why) = message.in_pieces(arena, RECORD, &mut self.record, seal) {
                self.own.append(sealed.bytes());
                over(link, &why);
                link.sent(Err(libc::EPROTO), message, memory);
                return None;
            }
            self.clear = Some(message);
        }
        self.sealed = sealed.len();
        Some(sealed)
    }

    /// What the cover still has to say of a link that is down: why.
    pub fn last_words(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.own)
    }

    /// What was on its way was sent, or was not.
    pub fn sent(
        &mut self,
        result: Result<u32, i32>,
        mut sealed: Message,
        link: &mut Link,
        memory: &mut impl Memory,
    ) {
        let is_all = result.is_ok_and(|bytes| u64::from(bytes) == self.sealed);
        match self.clear.take() {
            Some(clear) => {
                // The link counts what it has said itself; a part of it is as good as nothing.
                let all = clear.len() as u32;
                let result = result.map(|_| if is_all { all } else { 0 });
                link.sent(result, clear, memory);
            }
            None if is_all => {}
            None => link.unsent(result),
        }
        sealed.bytes().clear();
        if sealed.bytes().capacity() <= KEPT {
            self.spare = Some(sealed);
        }
    }

    /// Bytes came; or none, where the cover may hold some from the beginning.
    pub fn received(
        &mut self,
        now: Time,
        bytes: &[u8],
        link: &mut Link,
        memory: &mut impl Memory,
        events: &mut VecDeque<Event>,
    ) {
        link.hear(now);
        let mut take = |clear: &[u8]| link.received(now, clear, memory, events);
        if let Err(why) = self.cover.open(bytes, &mut self.own, &mut take) {
            over(link, &why);
        }
    }
}

fn over(link: &mut Link, why: &str) {
    tracing::warn!(node = %link.peer.node, shard = link.peer.shard.0, why, "the TLS of a link is over");
    link.cut(Why::Tls);
}
