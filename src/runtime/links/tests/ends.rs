//! One end of a connection in a test: a link, its memory, and who answers what it is asked.

use super::frames::{DISK, LINK, PEER, contents, done, value};
use crate::base::{BLOCK, BlockNo, BlockRun, BufId, BufRef, LayerId, Prng, Span, Time, crc};
use crate::io::Message as Bytes;
use crate::protocol::replication::fill::{FillAnswer, FillAsk};
use crate::protocol::replication::{Answer, Change, Message, Room};
use crate::runtime::links::check::Wanted;
use crate::runtime::links::limits::Limits;
use crate::runtime::links::link::Link;
use crate::runtime::links::memory::Memory;
use crate::runtime::links::receive::Want;
use crate::runtime::links::{Event, Outgoing, Refused};
use crate::wire::{Credit, Frame};
use std::collections::{BTreeMap, VecDeque};

/// Memory that counts.
#[derive(Debug, Default)]
pub struct Pool {
    buffers: BTreeMap<u32, (Vec<u8>, u32)>,
    next: u32,
    /// Blocks that peers may have; what is our own comes on top.
    pub peers_max: u32,
    pub peers: BTreeMap<u32, u32>,
}

impl Pool {
    pub fn make(&mut self, bytes: Vec<u8>) -> Span {
        let blocks = (bytes.len() as u64 / BLOCK) as u32;
        self.next += 1;
        self.buffers.insert(self.next, (bytes, 1));
        let id = BufId(self.next);
        Span {
            buf: BufRef { id, block: 0 },
            blocks,
        }
    }

    pub fn room(&mut self, blocks: u32) -> Span {
        self.make(vec![0xee; (u64::from(blocks) * BLOCK) as usize])
    }

    pub fn bytes(&self, payload: Span) -> &[u8] {
        let start = payload.buf.block as usize * BLOCK as usize;
        let len = payload.blocks as usize * BLOCK as usize;
        &self.buffers[&payload.buf.id.0].0[start..start + len]
    }

    pub fn held(&self) -> usize {
        self.buffers.len()
    }
}

impl Memory for Pool {
    fn allocate(&mut self, blocks: u32) -> Option<BufId> {
        let used: u32 = self.peers.values().sum();
        if used + blocks > self.peers_max {
            return None;
        }
        let id = self.room(blocks).buf.id;
        self.peers.insert(id.0, blocks);
        Some(id)
    }

    fn release(&mut self, buf: BufId) {
        let (_, holds) = self.buffers.get_mut(&buf.0).expect("held-once");
        *holds -= 1;
        if *holds == 0 {
            self.buffers.remove(&buf.0);
            self.peers.remove(&buf.0);
        }
    }

    fn copy_in(&mut self, at: BufRef, skip: usize, bytes: &[u8]) {
        let start = at.block as usize * BLOCK as usize + skip;
        let (to, _) = self.buffers.get_mut(&at.id.0).expect("it is held");
        to[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn checksums(
        &self,
        at: BufRef,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
        into: &mut Vec<u32>,
    ) {
        let all = self.bytes(Span { buf: at, blocks });
        let (blocks, _) = all.as_chunks::<4096>();
        let sums = (first.0..).zip(blocks);
        into.extend(sums.map(|(n, block)| crc::of_block(layer, BlockNo(n), block)));
    }
}

/// One end.
pub struct End {
    pub link: Link,
    pub pool: Pool,
    pub events: VecDeque<Event>,
    /// What the kernel is sending.
    pub sending: Option<(Bytes, u32)>,
    /// Bytes on their way to the other end.
    pub wire: VecDeque<u8>,
    /// Asks of the peer that are to be answered.
    pub owed: Vec<Frame>,
    /// Payloads of its asks that are to be let go.
    pub taken: Vec<Span>,
    pub asked: u64,
    pub answered: u64,
    pub now: Time,
}

pub const SMALL: Limits = Limits {
    credit: Credit {
        asks: 3,
        bytes: Limits::LEAST_BYTES,
    },
    ..Limits::USUAL
};

impl End {
    pub fn new(limits: Limits) -> End {
        let now = Time(1_000_000_000);
        let pool = Pool {
            peers_max: 64,
            ..Pool::default()
        };
        End {
            link: Link::new(now, LINK, PEER, limits, limits.credit),
            pool,
            events: VecDeque::new(),
            sending: None,
            wire: VecDeque::new(),
            owed: Vec::new(),
            taken: Vec::new(),
            asked: 0,
            answered: 0,
            now,
        }
    }

    /// Sends a frame with what belongs to it; what was refused is let go.
    pub fn send(&mut self, frame: Frame) -> Result<(), Refused> {
        let payload = match &frame {
            Frame::Message(
                _,
                Message::Change {
                    at,
                    change: Change::Write { run, .. },
                    ..
                },
            ) => Some(self.pool.make(contents(*at, *run).0)),
            _ => None,
        };
        let into = match Wanted::of(&frame).blocks() {
            0 => None,
            blocks => Some(self.pool.room(blocks)),
        };
        self.send_with(frame, payload, into)
    }

    pub fn send_with(
        &mut self,
        frame: Frame,
        payload: Option<Span>,
        into: Option<Span>,
    ) -> Result<(), Refused> {
        let what = Outgoing {
            disk: DISK,
            frame,
            payload,
            into,
        };
        let result = self.link.send(self.now, what, &mut self.pool);
        if result.is_err() {
            for given in [payload, into].into_iter().flatten() {
                self.pool.release(given.buf.id);
            }
        }
        result
    }

    /// The kernel takes the next message, and has sent it.
    pub fn flush(&mut self) {
        while self.begin_send() {
            self.end_send();
        }
    }

    /// The kernel takes the next message: its bytes leave.
    pub fn begin_send(&mut self) -> bool {
        if self.sending.is_some() {
            return false;
        }
        let Some(message) = self.link.next_message(self.now, &mut self.pool) else {
            return false;
        };
        let pool = &self.pool;
        let bytes = message.gathered(|part, into| {
            let blocks = part.len / BLOCK as u32;
            let at = part.at;
            into.extend_from_slice(pool.bytes(Span { buf: at, blocks }));
        });
        assert_eq!(bytes.len() as u64, message.len());
        self.wire.extend(&bytes);
        self.sending = Some((message, bytes.len() as u32));
        true
    }

    pub fn end_send(&mut self) {
        if let Some((message, len)) = self.sending.take() {
            self.link.sent(Ok(len), message, &mut self.pool);
        }
    }

    /// Takes up to `most` bytes off the wire of the other end, as this one wants them. How many.
    pub fn receive(&mut self, wire: &mut VecDeque<u8>, most: usize) -> usize {
        let (limit, into) = match self.link.want() {
            Want::Nothing => return 0,
            Want::Anything { at_most: 0 } => (32 * 1024, None),
            Want::Anything { at_most } => (at_most as usize, None),
            Want::Into { at, skip, len } => (len as usize, Some((at, skip))),
        };
        let count = most.min(limit).min(wire.len());
        if count == 0 {
            return 0;
        }
        let bytes: Vec<u8> = wire.drain(..count).collect();
        match into {
            Some((at, skip)) => {
                self.pool.copy_in(at, skip as usize, &bytes);
                let len = bytes.len() as u32;
                self.link
                    .filled(self.now, len, &mut self.pool, &mut self.events);
            }
            None => self
                .link
                .received(self.now, &bytes, &mut self.pool, &mut self.events),
        }
        count
    }

    /// Looks at what came: what is right is owed an answer, or has got one.
    pub fn look(&mut self) {
        while let Some(event) = self.events.pop_front() {
            match event {
                Event::Ask { frame, payload, .. } => {
                    if let Some(payload) = payload {
                        let Frame::Message(
                            _,
                            Message::Change {
                                at,
                                change: Change::Write { run, .. },
                                ..
                            },
                        ) = &frame
                        else {
                            panic!("only writes have payload");
                        };
                        assert!(self.pool.bytes(payload) == contents(*at, *run).0);
                        self.taken.push(payload);
                    }
                    if frame.question(DISK).is_some() {
                        self.owed.push(frame);
                    }
                }
                Event::Answer {
                    frame,
                    into,
                    blocks,
                    ..
                } => {
                    self.answered += 1;
                    if let Some(into) = into {
                        let got = Span { blocks, ..into };
                        if let Frame::Answer(_, Answer::Value { id, .. }) = frame
                            && blocks > 0
                        {
                            let (at, run) = place_of(id);
                            assert!(self.pool.bytes(got) == contents(at, run).0);
                        }
                        self.pool.release(into.buf.id);
                    }
                }
                Event::Silent { .. } | Event::Up { .. } | Event::Down { .. } => {}
            }
        }
    }

    /// Takes what came without looking into it.
    pub fn look_at_anything(&mut self) {
        while let Some(event) = self.events.pop_front() {
            match event {
                Event::Ask { payload, .. } => self.taken.extend(payload),
                Event::Answer { into, .. } => {
                    into.into_iter()
                        .for_each(|into| self.pool.release(into.buf.id));
                }
                _ => {}
            }
        }
    }

    /// Answers one of the asks that are owed an answer.
    pub fn answer(&mut self, prng: &mut Prng) {
        if self.owed.is_empty() {
            return;
        }
        let which = prng.below(self.owed.len() as u64) as usize;
        let (answer, payload) = match self.owed.swap_remove(which) {
            Frame::Message(header, Message::Read { id, at, run }) => {
                assert_eq!(place_of(id), (at, run));
                let none = prng.one_in(4);
                let frame = match none {
                    true => super::frames::zeroes(id),
                    false => value(id, at, run),
                };
                debug_assert_eq!(header, super::frames::HEADER);
                let payload = (!none).then(|| self.pool.make(contents(at, run).0));
                (frame, payload)
            }
            Frame::Message(_, Message::Change { sequence, .. }) => (done(sequence), None),
            Frame::Message(header, Message::Seal) => {
                let window = Vec::new();
                let room = Room::Ample;
                (Frame::Answer(header, Answer::Sealed { window, room }), None)
            }
            Frame::FillAsk(header, FillAsk::Fetch { .. }) => {
                (Frame::FillAnswer(header, FillAnswer::NotNow), None)
            }
            other => panic!("nobody asks {other:?}"),
        };
        self.send_with(answer, payload, None).unwrap();
    }

    /// Lets go one of the payloads that were taken.
    pub fn let_go(&mut self) {
        if let Some(payload) = self.taken.pop() {
            self.pool.release(payload.buf.id);
            self.link.payload_released(payload.blocks);
        }
    }

    pub fn feed(&mut self) {
        while self.link.feed(&mut self.pool, &mut self.events) {}
    }

    /// Asks something.
    pub fn ask(&mut self, prng: &mut Prng) {
        let id = prng.next_u64();
        let (at, run) = place_of(id);
        let frame = match prng.below(16) {
            0..7 => super::frames::write(id | 1, at, run),
            7..13 => super::frames::read(id, at, run),
            13 => super::frames::mark(),
            14 => super::frames::fetch(id, at),
            _ => super::frames::seal_of(id),
        };
        let is_answered = frame.question(DISK).is_some();
        if self.send(frame).is_ok() && is_answered {
            self.asked += 1;
        }
    }

    /// Ends it, and looks whether everything was let go.
    pub fn end(&mut self) {
        self.link.cut(crate::runtime::links::Why::GivenUp);
        if let Some((message, _)) = self.sending.take() {
            self.link.sent(Err(libc::EPIPE), message, &mut self.pool);
        }
        self.link.let_go(&mut self.pool);
        // What was handed out before is the taker's.
        while let Some(event) = self.events.pop_front() {
            let held = match event {
                Event::Ask { payload, .. } => payload,
                Event::Answer { into, .. } => into,
                _ => None,
            };
            if let Some(held) = held {
                self.pool.release(held.buf.id);
            }
        }
        for payload in std::mem::take(&mut self.taken) {
            self.pool.release(payload.buf.id);
        }
        assert_eq!(self.pool.held(), 0, "held-once");
    }
}

/// What a read of that number reads.
pub fn place_of(id: u64) -> (crate::base::ChunkId, BlockRun) {
    let first = (id % 16) as u32;
    let count = match id >> 8 & 3 {
        0 => 16 - first,
        1 => (16 - first).min(5),
        _ => 1,
    };
    let run = BlockRun::new(first, count).expect("it lies in a chunk");
    (super::frames::at(id >> 16 & 0xff), run)
}
