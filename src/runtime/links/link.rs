//! One connection as a machine: its state, its credit, what it waits for, and its end.

use super::check::Wanted;
use super::limits::Limits;
use super::memory::Memory;
use super::receive::Inbound;
use super::send::Outbound;
use super::{Event, LinkId, Peer};
use crate::base::{BLOCK, FixedMap, Span, Time};
use crate::wire::{Cost, Credit, Malformed, Question, Version};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Why a link is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its owner has given it up.
    GivenUp,
    /// The peer closed it between two frames.
    Closed,
    /// The peer closed it in the middle of a frame.
    Truncated,
    /// The socket failed: the error number of the system.
    Failed(i32),
    /// What came is no frame.
    Malformed(Malformed),
    /// A frame came out of its turn, or again.
    OutOfOrder { expected: u32, found: u32 },
    /// Blocks came that have not the checksums that their frame says.
    Checksum,
    /// More was asked than was granted.
    OverCredit,
    /// Less is granted than was granted before.
    CreditTakenBack,
    /// An answer is none to what was asked.
    Mismatch,
    /// The peer did not read for too long, or left too much.
    Slow,
    /// What came is not what the peer has sealed, or nothing can be sealed any more; the log has the reason.
    Tls,
}

impl Why {
    /// Its place in [`crate::observe::CUTS`].
    pub fn place(self) -> usize {
        match self {
            Why::GivenUp => 0,
            Why::Closed => 1,
            Why::Truncated => 2,
            Why::Failed(_) => 3,
            Why::Malformed(_) => 4,
            Why::OutOfOrder { .. } => 5,
            Why::Checksum => 6,
            Why::OverCredit => 7,
            Why::CreditTakenBack => 8,
            Why::Mismatch => 9,
            Why::Slow => 10,
            Why::Tls => 11,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::GivenUp => f.write_str("it was given up here"),
            Why::Closed => f.write_str("the peer closed it"),
            Why::Truncated => f.write_str("the peer closed it in the middle of a frame"),
            Why::Failed(code) => std::io::Error::from_raw_os_error(*code).fmt(f),
            Why::Malformed(malformed) => write!(f, "what came is no frame: {malformed}"),
            Why::OutOfOrder { expected, found } => {
                write!(f, "frame {found} came where {expected} is the next")
            }
            Why::Checksum => f.write_str("blocks came with wrong checksums"),
            Why::OverCredit => f.write_str("the peer asked more than was granted"),
            Why::CreditTakenBack => f.write_str("the peer took granted credit back"),
            Why::Mismatch => f.write_str("an answer is none to what was asked"),
            Why::Slow => f.write_str("the peer does not read what it is sent"),
            Why::Tls => f.write_str("its TLS is over"),
        }
    }
}

/// What the peer was granted, and how far it got.
#[derive(Debug)]
pub(super) struct Grant {
    /// What it may have sent by now; it comes to know of it with the next frame of credit.
    total: Credit,
    told: Credit,
    taken: Credit,
    limit: Credit,
}

impl Grant {
    fn new(limit: Credit) -> Grant {
        Grant {
            total: limit,
            told: Credit::default(),
            taken: Credit::default(),
            limit,
        }
    }

    /// Takes an ask in; false where it was not granted.
    pub fn take(&mut self, cost: Cost) -> bool {
        self.taken.asks += 1;
        self.taken.bytes += cost.bytes();
        self.taken.asks <= self.told.asks && self.taken.bytes <= self.told.bytes
    }

    /// Something that was taken is let go.
    pub fn give_back(&mut self, what: Credit) {
        self.total.asks += what.asks;
        self.total.bytes += what.bytes;
        let held = |total: u64, limit: u64, taken: u64| limit + taken >= total;
        debug_assert!(
            held(self.total.asks, self.limit.asks, self.taken.asks)
                && held(self.total.bytes, self.limit.bytes, self.taken.bytes),
            "asks-within-credit: no more comes back than was taken"
        );
    }

    /// Whether the peer is to be told: a quarter has come back, or it is the first time.
    pub fn has_news(&self) -> bool {
        let asks = self.total.asks - self.told.asks;
        let bytes = self.total.bytes - self.told.bytes;
        asks >= (self.limit.asks / 4).max(1) || bytes >= self.limit.bytes / 4
    }

    /// What the peer is to be told now.
    pub fn take_news(&mut self) -> Option<Credit> {
        self.has_news().then(|| {
            self.told = self.total;
            self.total
        })
    }

    #[cfg(test)]
    pub fn is_whole(&self) -> bool {
        self.total.asks - self.taken.asks == self.limit.asks
            && self.total.bytes - self.taken.bytes == self.limit.bytes
    }
}

/// An ask of ours that has no answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub wanted: Wanted,
    /// Where its payload goes.
    pub into: Option<Span>,
    round: u32,
    /// When it was asked last.
    since: Time,
}

/// An ask of the peer's that has no answer.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// For its answer.
    bytes: u64,
    round: u32,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub id: LinkId,
    pub peer: Peer,
    pub version: Version,
    pub limits: Limits,
    pub why: Option<Why>,
    pub inbound: Inbound,
    pub outbound: Outbound,
    pub grant: Grant,
    pub asked: FixedMap<Question, Asked>,
    open: FixedMap<Question, Open>,
    /// When something was last received.
    heard: Time,
    /// When the first of what is asked was asked, or began to wait for credit.
    pub asked_since: Time,
    is_silence_told: bool,
    /// Rounds of forgetting, and when the next one begins.
    round: u32,
    round_at: Time,
    /// Answers that nobody waited for.
    pub unasked: u64,
    /// Rooms of asks that were forgotten, to be let go.
    forgotten: Vec<Span>,
}

/// How long an ask keeps the room for its answer: well above the time after which silence is told, which asks without an answer are needed for.
const ROOM_FOR: Duration = Duration::from_secs(3);
/// Asks without an answer at most, whatever the peer grants.
pub(super) const ASKED_MAX: usize = 4096;

impl Link {
    /// A connection that is fresh. `credit` is what the peer is granted, at most that of the limits.
    pub fn new(now: Time, id: LinkId, peer: Peer, limits: Limits, credit: Credit) -> Link {
        assert!(
            credit.asks > 0 && credit.bytes >= Limits::LEAST_BYTES,
            "with less credit an ask could wait for ever"
        );
        let mut link = Link {
            id,
            peer,
            version: peer.version,
            limits,
            why: None,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            grant: Grant::new(credit),
            asked: FixedMap::default(),
            open: FixedMap::default(),
            heard: now,
            asked_since: now,
            is_silence_told: false,
            round: 0,
            round_at: now + limits.forget_after / 2,
            unasked: 0,
            forgotten: Vec::new(),
        };
        link.tell_credit();
        link
    }

    /// Ends the link. What is in flight has to end before [`Link::let_go`].
    pub fn cut(&mut self, why: Why) {
        self.why.get_or_insert(why);
    }

    pub fn is_up(&self) -> bool {
        self.why.is_none()
    }

    /// Notes an ask of ours that leaves. One that is asked again takes the place of the earlier one, whose room is let go.
    pub fn note_asked(
        &mut self,
        now: Time,
        question: Question,
        (wanted, into): (Wanted, Option<Span>),
    ) -> Option<Span> {
        if self.asked.is_empty() {
            // One that has waited was heard of with its credit.
            self.asked_since = now;
        }
        let round = self.round;
        let asked = Asked {
            wanted,
            into,
            round,
            since: now,
        };
        self.asked.insert(question, asked)?.into
    }

    /// Notes an ask of the peer's. One that is asked again while it is open gives its credit back at once.
    pub fn note_open(&mut self, question: Option<Question>, cost: Cost) {
        let (asks, bytes) = (1, cost.answer);
        let Some(question) = question else {
            return self.grant.give_back(Credit { asks, bytes });
        };
        let round = self.round;
        if let Some(before) = self.open.insert(question, Open { bytes, round }) {
            let bytes = before.bytes;
            self.grant.give_back(Credit { asks, bytes });
        }
    }

    /// What comes back with an answer when it is sent.
    pub fn closes(&mut self, question: Option<Question>) -> Credit {
        let open = question.and_then(|question| self.open.remove(&question));
        open.map_or(Credit::default(), |open| Credit {
            asks: 1,
            bytes: open.bytes,
        })
    }

    /// The payload of an ask was let go by its taker.
    pub fn payload_released(&mut self, blocks: u32) {
        let bytes = u64::from(blocks) * BLOCK;
        self.grant.give_back(Credit { asks: 0, bytes });
    }

    /// Something was received.
    pub fn hear(&mut self, now: Time) {
        self.heard = now;
        self.is_silence_told = false;
    }

    /// An ask is given up: its room comes back, and its answer is dropped should it come. `None` where its payload is coming in just now, or it has its answer.
    pub fn forget(&mut self, question: &Question) -> Option<Span> {
        self.asked.remove(question)?.into
    }

    /// Whether time matters to it.
    pub fn is_waiting(&self) -> bool {
        let is_sending = self.outbound.sending_since().is_some();
        is_sending || self.wants_answers() || !self.open.is_empty()
    }

    /// Whether the peer's word is waited for: an answer, or credit to ask.
    pub fn wants_answers(&self) -> bool {
        !self.asked.is_empty() || self.outbound.is_waiting_for_credit()
    }

    /// Looks at what took too long.
    pub fn expire(&mut self, now: Time, events: &mut VecDeque<Event>) {
        if !self.is_up() {
            return;
        }
        let has_passed = |since: Time, time: Duration| now.since(since) >= time;
        let is_slow = |since| has_passed(since, self.limits.slow_after);
        if self.outbound.sending_since().is_some_and(is_slow) {
            return self.cut(Why::Slow);
        }
        let since = self.heard.max(self.asked_since);
        if self.wants_answers()
            && !self.is_silence_told
            && has_passed(since, self.limits.silent_after)
        {
            self.is_silence_told = true;
            let link = self.id;
            events.push_back(Event::Silent { link, since });
        }
        self.forget_rooms(now);
        if now >= self.round_at {
            self.round_at = now + self.limits.forget_after / 2;
            self.begin_round();
        }
    }

    /// Asks that hold room, and were not asked again for long, are forgotten: who still wants the answer asks again much sooner. Else a peer that hangs would keep the
    /// rooms of all that was ever asked of it, and nothing could be asked of others.
    fn forget_rooms(&mut self, now: Time) {
        let forgotten = &mut self.forgotten;
        self.asked.retain(|_, asked| {
            let is_old = now.since(asked.since) >= ROOM_FOR;
            let room = asked.into.filter(|_| is_old);
            forgotten.extend(room);
            room.is_none()
        });
    }

    /// What was there two rounds before the last one began is forgotten. Of an ask that holds room that is let go: its answer is read and dropped should it come.
    fn begin_round(&mut self) {
        self.round += 1;
        let round = self.round;
        let is_old = |since: u32| round - since > 2;
        let forgotten = &mut self.forgotten;
        self.asked.retain(|_, asked| {
            let keeps = !is_old(asked.round);
            forgotten.extend(asked.into.filter(|_| !keeps));
            keeps
        });
        let mut back = Credit::default();
        self.open.retain(|_, open| {
            let keeps = !is_old(open.round);
            if !keeps {
                back.asks += 1;
                back.bytes += open.bytes;
            }
            keeps
        });
        self.grant.give_back(back);
    }

    /// Lets the rooms go of asks that were forgotten.
    pub fn let_forgotten_go(&mut self, memory: &mut impl Memory) {
        let forgotten = self.forgotten.drain(..);
        forgotten.for_each(|room| memory.release(room.buf.id));
    }

    /// Lets go of everything that was given to it, once it is down and nothing of it is in flight.
    pub fn let_go(&mut self, memory: &mut impl Memory) {
        assert!(!self.is_up(), "a link that is up keeps what it has");
        self.outbound.let_go(memory);
        self.inbound.let_go(memory);
        self.let_forgotten_go(memory);
        for (_, asked) in self.asked.drain() {
            if let Some(into) = asked.into {
                memory.release(into.buf.id);
            }
        }
    }
}
