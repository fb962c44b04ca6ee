//! What leaves: asks wait for credit, answers for nothing; all of a turn leaves as one message.

use super::Outgoing;
use super::check::Wanted;
use super::link::{ASKED_MAX, Link, Why};
use super::memory::Memory;
use crate::base::{BLOCK, DiskId, Span, Time};
use crate::io::{Message, Part};
use crate::wire::{Class, Credit, Feature, Frame, Unwritten, Version, set_number};
use std::collections::VecDeque;
use std::fmt;

/// Bytes of one message, after which another one is begun.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Unsent bytes at which asks wait, whatever credit there is.
const ENOUGH: u64 = 2 * MESSAGE_BYTES;
/// Memory of a message's bytes that is worth keeping.
const KEPT: usize = 64 * 1024;

/// Why a frame was not taken. What was given with it is still the giver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such link any more.
    Down,
    /// As many asks wait for the peer as may.
    Full,
    /// The peer has no word for it, or it is too long.
    Unwritten(Unwritten),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Down => f.write_str("the link is down"),
            Refused::Full => f.write_str("too much waits for the peer already"),
            Refused::Unwritten(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

/// A message, with what its answers give back to the peer when it is sent.
#[derive(Debug, Default)]
struct Batch {
    message: Message,
    back: Credit,
}

#[derive(Debug, Clone, Copy)]
struct Sending {
    since: Time,
    len: u64,
    back: Credit,
}

/// The way out of a link.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// Asks that wait for credit, in their order.
    waiting: VecDeque<Outgoing>,
    waiting_bytes: u64,
    ready: VecDeque<Batch>,
    filling: Batch,
    /// Bytes in both.
    unsent: u64,
    sending: Option<Sending>,
    /// Frames that were encoded so far, modulo 2^32.
    number: u32,
    /// What the peer grants, and what of it was used.
    granted: Credit,
    used: Credit,
    /// A message whose memory is used again.
    spare: Option<Message>,
    /// Frames that left, for the counters.
    pub frames: u64,
    pub bytes: u64,
    /// Asks that had to wait for credit.
    pub delayed: u64,
}

impl Outbound {
    pub fn sending_since(&self) -> Option<Time> {
        self.sending.map(|sending| sending.since)
    }

    /// Whether there is something to be sent.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.sending.is_none() && self.unsent == 0 && self.waiting.is_empty()
    }

    /// Whether asks wait for credit.
    pub fn is_waiting_for_credit(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes a grant; false where it is less than the one before.
    pub fn granted(&mut self, credit: Credit) -> bool {
        let grows = credit.asks >= self.granted.asks && credit.bytes >= self.granted.bytes;
        self.granted = credit;
        grows
    }

    pub fn let_go(&mut self, memory: &mut impl Memory) {
        assert!(
            self.sending.is_none(),
            "what the kernel sends is not let go"
        );
        for mut batch in self
            .ready
            .drain(..)
            .chain([std::mem::take(&mut self.filling)])
        {
            batch
                .message
                .drain_payloads()
                .for_each(|buf| memory.release(buf));
        }
        for ask in self.waiting.drain(..) {
            let given = [ask.payload, ask.into].into_iter().flatten();
            given.for_each(|payload| memory.release(payload.buf.id));
        }
        self.unsent = 0;
        self.waiting_bytes = 0;
    }

    /// Puts a frame behind what is to be sent.
    fn put(
        &mut self,
        version: Version,
        (disk, frame): (DiskId, &Frame),
        payload: Option<Span>,
    ) -> Result<(), Unwritten> {
        let message = &mut self.filling.message;
        let bytes = message.bytes();
        let start = bytes.len();
        let blocks = payload.map_or(0, |payload| payload.blocks);
        frame.encode(version, disk, blocks, bytes)?;
        set_number(&mut bytes[start..], self.number);
        self.number = self.number.wrapping_add(1);
        self.unsent += (bytes.len() - start) as u64 + u64::from(blocks) * BLOCK;
        if let Some(payload) = payload {
            message.put_payload(Part::blocks(payload.buf, payload.blocks));
        }
        self.frames += 1;
        if message.is_full() || message.len() >= MESSAGE_BYTES {
            self.close();
        }
        Ok(())
    }

    /// Begins another message.
    fn close(&mut self) {
        let message = self.spare.take().unwrap_or_default();
        let next = Batch {
            message,
            back: Credit::default(),
        };
        self.ready
            .push_back(std::mem::replace(&mut self.filling, next));
    }
}

impl Link {
    /// Takes a frame to be sent, and one hold of each buffer that is given with it. An ask that may be answered with payload brings the room for that.
    ///
    /// # Errors
    /// [`Refused`]: nothing was taken.
    pub fn send(
        &mut self,
        now: Time,
        what: Outgoing,
        memory: &mut impl Memory,
    ) -> Result<(), Refused> {
        if !self.is_up() {
            return Err(Refused::Down);
        }
        match what.frame.class() {
            Class::Ask(_) => self.ask(now, what, memory),
            Class::Answer => self.answer(what),
            Class::Credit => unreachable!("credit is the link's own"),
        }
    }

    fn ask(&mut self, now: Time, what: Outgoing, memory: &mut impl Memory) -> Result<(), Refused> {
        let wanted = Wanted::of(&what.frame).blocks();
        let room = what.into.map_or(0, |into| into.blocks);
        assert!(room >= wanted, "an ask brings the room for its answer");
        if let Some(needs) = Feature::of(&what.frame).filter(|needs| !self.version.has(*needs)) {
            return Err(Refused::Unwritten(Unwritten::Newer(needs)));
        }
        let bytes = what.payload_bytes();
        let out = &mut self.outbound;
        let is_full = out.waiting.len() >= self.limits.waiting
            || out.waiting_bytes + bytes > self.limits.waiting_bytes;
        if is_full {
            return Err(Refused::Full);
        }
        if self.asked.is_empty() && out.waiting.is_empty() {
            self.asked_since = now;
        }
        out.waiting.push_back(what);
        out.waiting_bytes += bytes;
        self.send_asks(now, memory);
        self.outbound.delayed += u64::from(!self.outbound.waiting.is_empty());
        Ok(())
    }

    /// Sends the asks that there is credit for, in their order.
    pub fn send_asks(&mut self, now: Time, memory: &mut impl Memory) {
        while self.outbound.unsent < ENOUGH && self.asked.len() < ASKED_MAX {
            let out = &mut self.outbound;
            let Some(first) = out.waiting.front() else {
                return;
            };
            let Class::Ask(cost) = first.frame.class() else {
                unreachable!("asks wait");
            };
            let used = Credit {
                asks: out.used.asks + 1,
                bytes: out.used.bytes + cost.bytes(),
            };
            if used.asks > out.granted.asks || used.bytes > out.granted.bytes {
                return;
            }
            let Some(ask) = out.waiting.pop_front() else {
                return;
            };
            out.used = used;
            out.waiting_bytes -= ask.payload_bytes();
            let put = out.put(self.version, (ask.disk, &ask.frame), ask.payload);
            put.expect("an ask is short, and was held against the version");
            let wanted = Wanted::of(&ask.frame);
            let room = match ask.frame.question(ask.disk) {
                Some(question) => self.note_asked(now, question, (wanted, ask.into)),
                None => ask.into,
            };
            if let Some(room) = room {
                memory.release(room.buf.id);
            }
        }
    }

    fn answer(&mut self, what: Outgoing) -> Result<(), Refused> {
        assert!(what.into.is_none(), "an answer is not answered");
        let out = &mut self.outbound;
        if out.unsent + what.payload_bytes() > self.limits.unsent_bytes {
            self.cut(Why::Slow);
            return Err(Refused::Down);
        }
        let of = (what.disk, &what.frame);
        out.put(self.version, of, what.payload)
            .map_err(Refused::Unwritten)?;
        let back = self.closes(what.frame.question(what.disk));
        // It left with the message that it was put into, which may be closed by now.
        let out = &mut self.outbound;
        let batch = match out.filling.message.is_empty() {
            true => out.ready.back_mut().expect("a message was just closed"),
            false => &mut out.filling,
        };
        batch.back.asks += back.asks;
        batch.back.bytes += back.bytes;
        Ok(())
    }

    /// Tells the peer what it is granted, where that is due.
    pub fn tell_credit(&mut self) {
        if let Some(credit) = self.grant.take_news() {
            let frame = (DiskId(0), &Frame::Credit(credit));
            let put = self.outbound.put(self.version, frame, None);
            put.expect("every version knows credit");
        }
    }

    /// What is to be sent now, as one message; `None` while one is on its way, or there is nothing.
    pub fn next_message(&mut self, now: Time, memory: &mut impl Memory) -> Option<Message> {
        if !self.is_up() || self.outbound.sending.is_some() {
            return None;
        }
        self.send_asks(now, memory);
        self.tell_credit();
        let out = &mut self.outbound;
        if out.ready.is_empty() {
            if out.filling.message.is_empty() {
                return None;
            }
            out.close();
        }
        let batch = out.ready.pop_front()?;
        let len = batch.message.len();
        out.unsent -= len;
        out.sending = Some(Sending {
            since: now,
            len,
            back: batch.back,
        });
        Some(batch.message)
    }

    /// A message was sent: so many bytes of it, or it failed with that error number.
    pub fn sent(
        &mut self,
        result: Result<u32, i32>,
        mut message: Message,
        memory: &mut impl Memory,
    ) {
        let sending = self.outbound.sending.take();
        let sending = sending.expect("what was sent was to be sent");
        message.drain_payloads().for_each(|buf| memory.release(buf));
        if message.bytes().capacity() <= KEPT {
            self.outbound.spare = Some(message);
        }
        match result {
            Ok(bytes) if u64::from(bytes) == sending.len => {
                self.outbound.bytes += sending.len;
                self.grant.give_back(sending.back);
            }
            not_all => self.unsent(not_all),
        }
    }

    /// Something was not sent, or not all of it.
    pub fn unsent(&mut self, result: Result<u32, i32>) {
        match result {
            // The kernel sends all of it, or there is nobody to send it to.
            Ok(_) | Err(libc::EPIPE | libc::ECONNRESET) => self.cut(Why::Closed),
            Err(code) => self.cut(Why::Failed(code)),
        }
    }
}
