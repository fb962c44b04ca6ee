//! Who hears of links, and what he can do.

use super::super::desk::Desk;
use super::drive::Links;
use super::{Event, LinkId, Refused};
use crate::base::{BLOCK, BufRef, DiskId, Span, Time};
use crate::io::Arena;
use crate::wire::{Frame, Question};
use std::sync::Arc;

/// A frame that is to be sent, with one hold of each buffer that belongs to it.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Of an ask the disk that is meant, of an answer the one that answers.
    pub disk: DiskId,
    pub frame: Frame,
    /// What goes with it.
    pub payload: Option<Span>,
    /// Where the payload of its answer goes: needed where there may be one (reads, fetches, blocks that are lost).
    pub into: Option<Span>,
}

impl Outgoing {
    /// A frame without payload, neither its own nor of its answer.
    pub fn plain(disk: DiskId, frame: Frame) -> Outgoing {
        Outgoing {
            disk,
            frame,
            payload: None,
            into: None,
        }
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload
            .map_or(0, |payload| u64::from(payload.blocks) * BLOCK)
    }
}

/// Who gets what comes of a shard's links in place of its machine: in tests and benches, whatever plays one. Runs on the shard's thread, and does not wait.
pub trait LinkUser: Send {
    fn on_event(&mut self, event: Event, door: &mut Door<'_>);
}

/// What a user of links can do while he is told an event.
pub struct Door<'a> {
    pub(super) links: &'a mut Links,
    pub(super) desk: &'a mut Desk,
}

impl Door<'_> {
    /// Sends a frame, together with all others of this turn. Takes one hold of each buffer that is given.
    ///
    /// # Errors
    /// [`Refused`]: nothing was taken. An answer is refused only where the link is down, or its peer has no word for it.
    pub fn send(&mut self, link: LinkId, what: Outgoing) -> Result<(), Refused> {
        self.links.send(link, what, self.desk)
    }

    /// Lets the payload of an ask go; the peer may send as much again. To be called once for each payload, also when the link is down.
    pub fn release(&mut self, link: LinkId, payload: Span) {
        self.links.release(link, payload, self.desk);
    }

    /// Gives an ask up that was sent and has no answer: its room is the caller's again. `None`: its answer is just coming, or has come, or it still waits for
    /// credit.
    pub fn forget(&mut self, link: LinkId, question: &Question) -> Option<Span> {
        self.links.forget(link, question)
    }

    /// Ends a link. [`Event::Down`] follows.
    pub fn give_up(&mut self, link: LinkId) {
        self.links.give_up(link);
    }

    /// A buffer for the payload of an answer, held once: from the memory that peers are granted, because an answer must not wait for what clients hold.
    pub fn allocate_to_answer(&mut self, blocks: u32) -> Option<BufRef> {
        let id = self.links.allocate(blocks)?;
        Some(BufRef { id, block: 0 })
    }

    /// A buffer for payload of our own asks, or of their answers, held once.
    pub fn allocate(&mut self, blocks: u32) -> Option<BufRef> {
        let id = self.desk.allocate(blocks)?;
        Some(BufRef { id, block: 0 })
    }

    /// Lets a buffer of our own go.
    pub fn free(&mut self, at: BufRef) {
        self.links.free(at.id, self.desk);
    }

    pub fn arena(&self) -> &Arc<Arena> {
        self.desk.buffers.arena()
    }

    /// Of this turn.
    pub fn now(&self) -> Time {
        self.desk.now
    }
}
