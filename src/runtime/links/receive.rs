//! What comes: bytes in any pieces become frames; payload goes where it belongs, is checked, and is handed out with its frame.

use super::Event;
use super::check::{Wanted, is_right};
use super::link::{Link, Why};
use super::memory::Memory;
use crate::base::{BLOCK, BufRef, DiskId, Span, Time};
use crate::wire::{BODY_MAX, Class, Frame, HEAD_LEN, Head, decode};
use std::collections::VecDeque;

/// Payload from which it is received where it belongs, in bytes. Below, one more copy costs less than one more receive.
const DIRECT: u32 = 16 * 1024;
/// What is received at once where a frame with much payload is likely the next: a head and the longest body of such a frame, and little of the payload.
const SHORT: u32 = 192;
/// Memory of a frame in pieces that is worth keeping.
const KEPT: usize = 8192;

/// What a link wants to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Nothing: it is down, or waits for memory.
    Nothing,
    /// Whatever comes, at most so many bytes; 0: as many as there are.
    Anything { at_most: u32 },
    /// `len` bytes, `skip` behind that place.
    Into { at: BufRef, skip: u32, len: u32 },
}

/// Whose payload is coming.
#[derive(Debug, Clone, Copy)]
enum Side {
    Ask,
    Answer {
        wanted: Wanted,
        into: Span,
    },
    /// Of an answer that nobody waits for: it is read and dropped.
    Nobody,
}

/// A frame whose payload is coming.
#[derive(Debug)]
struct Incoming {
    disk: DiskId,
    frame: Frame,
    side: Side,
    /// Where it goes; `None`: nowhere.
    at: Option<BufRef>,
    blocks: u32,
    /// Bytes that are there.
    filled: u32,
}

impl Incoming {
    fn left(&self) -> u32 {
        self.blocks * BLOCK as u32 - self.filled
    }

    /// Whether it waits for memory.
    fn is_hungry(&self) -> bool {
        self.at.is_none() && matches!(self.side, Side::Ask)
    }
}

/// The way in of a link.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// `None`: a head is next, or the rest of a frame.
    incoming: Option<Incoming>,
    /// A frame of which not all is there, and its head if that is.
    pieces: Vec<u8>,
    head: Option<Head>,
    /// What came behind a frame that waits for memory.
    rest: Vec<u8>,
    /// Of the next frame.
    number: u32,
    /// Whether the last frame had much payload.
    is_large: bool,
    scratch: Vec<u32>,
    pub frames: u64,
    pub bytes: u64,
}

impl Inbound {
    /// Whether it waits for memory.
    pub fn is_hungry(&self) -> bool {
        self.incoming.as_ref().is_some_and(Incoming::is_hungry)
    }

    /// Whether the stream is between two frames.
    fn is_between(&self) -> bool {
        self.incoming.is_none() && self.pieces.is_empty()
    }

    pub fn let_go(&mut self, memory: &mut impl Memory) {
        if let Some(at) = self.incoming.take().and_then(|incoming| incoming.at) {
            memory.release(at.id);
        }
        self.rest = Vec::new();
        self.pieces = Vec::new();
    }
}

impl Link {
    /// What it wants to receive next.
    pub fn want(&self) -> Want {
        let inbound = &self.inbound;
        if !self.is_up() {
            return Want::Nothing;
        }
        match &inbound.incoming {
            Some(incoming) if incoming.is_hungry() => Want::Nothing,
            Some(incoming) => match incoming.at {
                Some(at) if incoming.left() >= DIRECT => Want::Into {
                    at,
                    skip: incoming.filled,
                    len: incoming.left(),
                },
                _ => Want::Anything { at_most: 0 },
            },
            None => Want::Anything {
                at_most: match inbound.is_large && inbound.pieces.is_empty() {
                    true => SHORT,
                    false => 0,
                },
            },
        }
    }

    /// Bytes came.
    pub fn received(
        &mut self,
        now: Time,
        bytes: &[u8],
        memory: &mut impl Memory,
        events: &mut VecDeque<Event>,
    ) {
        self.hear(now);
        self.inbound.bytes += bytes.len() as u64;
        self.take(bytes, memory, events);
    }

    /// So many bytes came where [`Want::Into`] wanted them.
    pub fn filled(
        &mut self,
        now: Time,
        bytes: u32,
        memory: &mut impl Memory,
        events: &mut VecDeque<Event>,
    ) {
        if !self.is_up() {
            return; // it is let go with all the rest
        }
        self.hear(now);
        self.inbound.bytes += u64::from(bytes);
        self.advance(bytes, memory, events);
    }

    /// The peer sends no more.
    pub fn ended(&mut self) {
        let why = match self.inbound.is_between() {
            true => Why::Closed,
            false => Why::Truncated,
        };
        self.cut(why);
    }

    /// Memory may be there for what waits for it. True where it goes on.
    pub fn feed(&mut self, memory: &mut impl Memory, events: &mut VecDeque<Event>) -> bool {
        let is_up = self.is_up();
        let Some(incoming) = self
            .inbound
            .incoming
            .as_mut()
            .filter(|of| of.is_hungry() && is_up)
        else {
            return false;
        };
        let Some(id) = memory.allocate(incoming.blocks) else {
            return false;
        };
        incoming.at = Some(BufRef { id, block: 0 });
        let rest = std::mem::take(&mut self.inbound.rest);
        self.take(&rest, memory, events);
        true
    }

    fn take(&mut self, bytes: &[u8], memory: &mut impl Memory, events: &mut VecDeque<Event>) {
        let mut left = bytes;
        while !left.is_empty() && self.is_up() {
            match &self.inbound.incoming {
                Some(incoming) if incoming.is_hungry() => {
                    // At most what was received at once: nothing more is wanted meanwhile.
                    self.inbound.rest.extend_from_slice(left);
                    return;
                }
                Some(incoming) => {
                    let here = left.len().min(incoming.left() as usize);
                    let (data, behind) = left.split_at(here);
                    if let Some(at) = incoming.at {
                        memory.copy_in(at, incoming.filled as usize, data);
                    }
                    left = behind;
                    self.advance(here as u32, memory, events);
                }
                None => left = self.take_frame(left, memory, events),
            }
        }
    }

    /// Takes from the beginning of a head, or from amid of it or its body. What is behind the frame, or nothing.
    fn take_frame<'a>(
        &mut self,
        bytes: &'a [u8],
        memory: &mut impl Memory,
        events: &mut VecDeque<Event>,
    ) -> &'a [u8] {
        // Mostly all of it is there, and is read where it lies.
        if self.inbound.pieces.is_empty()
            && let Some((head, behind)) = bytes.split_first_chunk()
        {
            let Some(head) = self.read_head(head) else {
                return &[];
            };
            if let Some((body, behind)) = behind.split_at_checked(head.body_len as usize) {
                self.read_body(&head, body, memory, events);
                return behind;
            }
            self.inbound.head = Some(head);
        }
        let mut left = bytes;
        loop {
            let body_len = |head: &Head| head.body_len as usize;
            let pieces = &mut self.inbound.pieces;
            let whole = HEAD_LEN + self.inbound.head.as_ref().map_or(0, body_len);
            debug_assert!(whole <= HEAD_LEN + BODY_MAX, "bounded by the head");
            let here = left.len().min(whole - pieces.len());
            pieces.extend_from_slice(&left[..here]);
            left = &left[here..];
            if pieces.len() < whole {
                return left;
            }
            let Some(head) = self.inbound.head.take() else {
                let bytes: &[u8; HEAD_LEN] =
                    pieces[..].try_into().expect("as many bytes as a head has");
                let bytes = *bytes;
                let Some(head) = self.read_head(&bytes) else {
                    return &[];
                };
                self.inbound.head = Some(head);
                continue;
            };
            let mut pieces = std::mem::take(pieces);
            self.read_body(&head, &pieces[HEAD_LEN..], memory, events);
            if pieces.capacity() <= KEPT {
                pieces.clear();
                self.inbound.pieces = pieces;
            }
            return left;
        }
    }

    fn read_head(&mut self, bytes: &[u8; HEAD_LEN]) -> Option<Head> {
        let head = match Head::decode(self.version, bytes) {
            Ok(head) => head,
            Err(malformed) => {
                self.cut(Why::Malformed(malformed));
                return None;
            }
        };
        let (expected, found) = (self.inbound.number, head.number);
        if expected != found {
            self.cut(Why::OutOfOrder { expected, found });
            return None;
        }
        self.inbound.number = expected.wrapping_add(1);
        Some(head)
    }

    fn read_body(
        &mut self,
        head: &Head,
        body: &[u8],
        memory: &mut impl Memory,
        events: &mut VecDeque<Event>,
    ) {
        let frame = match decode(self.version, head, body) {
            Ok(frame) => frame,
            Err(malformed) => return self.cut(Why::Malformed(malformed)),
        };
        self.inbound.frames += 1;
        self.inbound.is_large = head.payload_len >= DIRECT;
        let (disk, blocks) = (head.disk, head.payload_blocks());
        match frame.class() {
            Class::Credit => {
                if let Frame::Credit(credit) = frame
                    && !self.outbound.granted(credit)
                {
                    self.cut(Why::CreditTakenBack);
                }
            }
            Class::Ask(cost) => {
                if !self.grant.take(cost) {
                    return self.cut(Why::OverCredit);
                }
                self.note_open(frame.question(disk), cost);
                self.begin_ask(disk, frame, blocks, memory, events);
            }
            Class::Answer => self.begin_answer(disk, frame, blocks, events),
        }
    }

    fn begin_ask(
        &mut self,
        disk: DiskId,
        frame: Frame,
        blocks: u32,
        memory: &mut impl Memory,
        events: &mut VecDeque<Event>,
    ) {
        let link = self.id;
        if blocks == 0 {
            return events.push_back(Event::Ask {
                link,
                disk,
                frame,
                payload: None,
            });
        }
        let at = memory.allocate(blocks).map(|id| BufRef { id, block: 0 });
        self.inbound.incoming = Some(Incoming {
            disk,
            frame,
            side: Side::Ask,
            at,
            blocks,
            filled: 0,
        });
    }

    fn begin_answer(
        &mut self,
        disk: DiskId,
        frame: Frame,
        blocks: u32,
        events: &mut VecDeque<Event>,
    ) {
        let question = frame.question(disk);
        let asked = question.and_then(|question| self.asked.remove(&question));
        if let Some(asked) = asked
            && !asked.wanted.fits(&frame, blocks)
        {
            // Its room is let go with all the rest.
            let question = question.expect("it was found by that");
            self.asked.insert(question, asked);
            return self.cut(Why::Mismatch);
        }
        // That a mark is refused answers no question, and is handed out all the same.
        let is_unasked = asked.is_none() && question.is_some();
        self.unasked += u64::from(is_unasked);
        let (link, into) = (self.id, asked.and_then(|asked| asked.into));
        if blocks == 0 && is_unasked {
            return;
        }
        if blocks == 0 {
            return events.push_back(Event::Answer {
                link,
                disk,
                frame,
                into,
                blocks,
            });
        }
        let (side, at) = match (asked, into) {
            (Some(asked), Some(into)) => {
                let wanted = asked.wanted;
                (Side::Answer { wanted, into }, Some(into.buf))
            }
            _ => (Side::Nobody, None),
        };
        self.inbound.incoming = Some(Incoming {
            disk,
            frame,
            side,
            at,
            blocks,
            filled: 0,
        });
    }

    /// So many bytes of payload are where they belong.
    fn advance(&mut self, bytes: u32, memory: &mut impl Memory, events: &mut VecDeque<Event>) {
        let Some(incoming) = &mut self.inbound.incoming else {
            return debug_assert!(false, "payload comes where it is wanted");
        };
        incoming.filled += bytes;
        if incoming.left() == 0
            && let Some(incoming) = self.inbound.incoming.take()
        {
            self.finish(incoming, memory, events);
        }
    }

    fn finish(
        &mut self,
        incoming: Incoming,
        memory: &mut impl Memory,
        events: &mut VecDeque<Event>,
    ) {
        let Incoming {
            disk,
            frame,
            side,
            at,
            blocks,
            ..
        } = incoming;
        let Some(at) = at else {
            return; // nobody waits for it
        };
        let wanted = match side {
            Side::Answer { wanted, .. } => wanted,
            Side::Ask | Side::Nobody => Wanted::Nothing,
        };
        let payload = Span { buf: at, blocks };
        let scratch = &mut self.inbound.scratch;
        if !is_right(&frame, wanted, payload, memory, scratch) {
            memory.release(at.id);
            return self.cut(Why::Checksum);
        }
        let link = self.id;
        events.push_back(match side {
            Side::Answer { into, .. } => Event::Answer {
                link,
                disk,
                frame,
                into: Some(into),
                blocks,
            },
            Side::Ask | Side::Nobody => Event::Ask {
                link,
                disk,
                frame,
                payload: Some(payload),
            },
        });
    }
}
