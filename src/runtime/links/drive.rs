//! The links of a shard on its ring: sockets, completions, and the end of a turn, when every link that something happened to sends and receives.

use super::super::asker::LinkName;
use super::super::desk::Desk;
use super::super::tags::Completed;
use super::cover::{Cover, Covered};
use super::limits::Limits;
use super::link::{Link, Why};
use super::memory::{Memory, Real};
use super::receive::Want;
use super::user::{Door, LinkUser, Outgoing};
use super::{Event, LinkId, Peer, Refused};
use crate::base::{BufId, Slab, Span, Time};
use crate::io::{self, Buffers, Completion, Expect, FileNo, Message, Part, SendNo};
use crate::observe::{LinkNumbers, LinkStats};
use crate::wire::{Credit, Question};
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Links of one shard.
const LINKS: usize = 1024;
/// Bytes of memory that a byte of credit may take: buffers have a power of two of blocks, so that one is less than half empty.
const MEMORY_OF_CREDIT: u64 = 2;
/// How long the peer's kernel may be silent until the link is given up: longer than any lease, so that nothing waits for that.
const DEAD_AFTER: Duration = Duration::from_secs(6);
/// How often those are looked at that wait for something.
const SWEEP: Duration = Duration::from_millis(250);
/// How soon memory is looked for again: what frees it may be another shard, which tells nobody.
const HUNGER: Duration = Duration::from_millis(1);

/// Why a link was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkError {
    /// The shard has as many links as it may (1,024).
    TooMany,
    /// The process may not open more files, or the socket is none.
    Socket,
    /// What peers may send has no room: `link_bytes` of the configuration is too little for so many links.
    NoMemory,
    /// The shards have stopped.
    Stopped,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::TooMany => write!(f, "the shard has {LINKS} links, which is its limit"),
            LinkError::Socket => f.write_str("the connection cannot be taken over"),
            LinkError::NoMemory => f.write_str("there is no memory for what its peer may send"),
            LinkError::Stopped => f.write_str("the shards have stopped"),
        }
    }
}

impl std::error::Error for LinkError {}

/// What the ring does for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    No,
    Anything,
    Into,
}

struct Held {
    link: Link,
    /// Where it has TLS.
    covered: Option<Covered>,
    file: FileNo,
    receiving: Receiving,
    /// Whether the socket had more at the last receive.
    has_more: bool,
    sending: Option<SendNo>,
    /// What the peer was granted, in bytes.
    credit_bytes: u64,
    is_dirty: bool,
    is_shut: bool,
}

/// The links of a shard.
pub(in super::super) struct Links {
    held: Slab<Held>,
    /// Of the next link.
    life: u32,
    limits: Limits,
    buffers: Buffers,
    /// Bytes of them that no credit stands for.
    free_bytes: u64,
    dirty: Vec<u32>,
    /// Links that wait for memory.
    hungry: Vec<u32>,
    events: VecDeque<Event>,
    sweep_at: Option<Time>,
    feed_at: Option<Time>,
    counted: LinkNumbers,
    stats: Arc<LinkStats>,
}

impl Links {
    /// `buffers` are what peers are granted, all links of the shard together.
    pub fn new(buffers: Buffers, limits: Limits, stats: Arc<LinkStats>) -> Links {
        let free_bytes = u64::from(buffers.largest()) * crate::base::BLOCK;
        Links {
            held: Slab::new(LINKS),
            life: 0,
            limits,
            buffers,
            free_bytes,
            dirty: Vec::new(),
            hungry: Vec::new(),
            events: VecDeque::new(),
            sweep_at: None,
            feed_at: None,
            counted: LinkNumbers::default(),
            stats,
        }
    }

    /// Takes a connection whose handshake is done, and of which nothing was read behind it but what `cover` holds.
    pub fn welcome(
        &mut self,
        socket: OwnedFd,
        cover: Option<Box<dyn Cover>>,
        peer: Peer,
        desk: &mut Desk,
    ) -> Result<LinkId, LinkError> {
        if self.held.is_full() {
            return Err(LinkError::TooMany);
        }
        let bytes = self
            .limits
            .credit
            .bytes
            .min(self.free_bytes / MEMORY_OF_CREDIT);
        if bytes < Limits::LEAST_BYTES {
            return Err(LinkError::NoMemory);
        }
        io::with_waiting(&socket).map_err(|_| LinkError::Socket)?;
        io::without_delay(&socket);
        io::with_patience(&socket, DEAD_AFTER);
        let file = desk.ring.adopt(socket);
        let file = file.map_err(|_| LinkError::Socket)?;
        let credit = Credit {
            bytes,
            ..self.limits.credit
        };
        let life = self.life;
        let nowhere = LinkId { place: 0, life };
        let held = Held {
            link: Link::new(desk.now, nowhere, peer, self.limits, credit),
            covered: cover.map(Covered::new),
            file,
            receiving: Receiving::No,
            has_more: true,
            sending: None,
            credit_bytes: bytes,
            is_dirty: false,
            is_shut: false,
        };
        let Ok(place) = self.held.insert(held) else {
            unreachable!("there is room for it");
        };
        let link = LinkId { place, life };
        self.held[place].link.id = link;
        self.life = self.life.wrapping_add(1);
        self.free_bytes -= bytes * MEMORY_OF_CREDIT;
        self.counted.links += 1;
        self.events.push_back(Event::Up { link, peer });
        self.came(place, &[], desk);
        self.touch(place);
        Ok(link)
    }

    fn find(&mut self, link: LinkId) -> Option<&mut Held> {
        let held = self.held.get_mut(link.place)?;
        (held.link.id == link).then_some(held)
    }

    pub fn send(&mut self, link: LinkId, what: Outgoing, desk: &mut Desk) -> Result<(), Refused> {
        let now = desk.now;
        let held = self.held.get_mut(link.place);
        let held = held.filter(|held| held.link.id == link);
        let held = held.ok_or(Refused::Down)?;
        let mut memory = Real {
            peers: &mut self.buffers,
            desk,
        };
        let result = held.link.send(now, what, &mut memory);
        self.touch(link.place);
        result
    }

    pub fn release(&mut self, link: LinkId, payload: Span, desk: &mut Desk) {
        if let Some(held) = self.find(link) {
            held.link.payload_released(payload.blocks);
            self.touch(link.place);
        }
        self.free(payload.buf.id, desk);
    }

    /// An ask is dropped, and gets no answer: what it was granted comes back.
    pub fn drop_ask(&mut self, link: LinkId, question: Option<Question>) {
        if let Some(held) = self.find(link) {
            let back = held.link.closes(question);
            held.link.grant.give_back(back);
            self.touch(link.place);
        }
    }

    /// The payload of an ask is somebody else's from now on, who frees it: the peer may send as much again where there is memory for it.
    pub fn hand_on(&mut self, link: LinkId, blocks: u32) {
        if let Some(held) = self.find(link) {
            held.link.payload_released(blocks);
            self.touch(link.place);
        }
    }

    /// Memory of what peers are granted, for an answer: they have paid for that as well.
    pub fn allocate(&mut self, blocks: u32) -> Option<BufId> {
        self.buffers.allocate(blocks)
    }

    /// Lets one hold of a buffer go, wherever it is from.
    pub fn free(&mut self, id: BufId, desk: &mut Desk) {
        let peers = &mut self.buffers;
        Real { peers, desk }.release(id);
    }

    /// The link that an asker names; `None`: it is gone.
    pub fn named(&self, name: LinkName) -> Option<LinkId> {
        let link = self.held.get(name.place)?.link.id;
        (LinkName::of(link) == name).then_some(link)
    }

    pub fn forget(&mut self, link: LinkId, question: &Question) -> Option<Span> {
        self.find(link)?.link.forget(question)
    }

    pub fn give_up(&mut self, link: LinkId) {
        if let Some(held) = self.find(link) {
            held.link.cut(Why::GivenUp);
            self.touch(link.place);
        }
    }

    /// A receive has ended.
    pub fn received(&mut self, place: u32, done: Completion, desk: &mut Desk) {
        let now = desk.now;
        let held = &mut self.held[place];
        let was = std::mem::replace(&mut held.receiving, Receiving::No);
        held.has_more = done.socket_has_more();
        match (done.outcome(), done.provided()) {
            (Ok(0), buffer) => {
                if let Some(buffer) = buffer {
                    let lent = desk.ring.lent(buffer, 0);
                    desk.ring.provide_again(lent);
                }
                held.link.ended();
            }
            (Ok(len), Some(buffer)) => {
                let lent = desk.ring.lent(buffer, len);
                let arena = Arc::clone(self.buffers.arena());
                self.came(place, arena.lent(&lent), desk);
                desk.ring.provide_again(lent);
            }
            (Ok(len), None) => {
                debug_assert_eq!(was, Receiving::Into);
                let mut memory = Real {
                    peers: &mut self.buffers,
                    desk,
                };
                held.link.filled(now, len, &mut memory, &mut self.events);
            }
            (Err(error), buffer) => {
                if let Some(buffer) = buffer {
                    let lent = desk.ring.lent(buffer, 0);
                    desk.ring.provide_again(lent);
                }
                match error.raw_os_error() {
                    // All provided buffers were in use: there is something to receive.
                    Some(libc::ENOBUFS) => held.has_more = true,
                    Some(libc::EINTR | libc::EAGAIN) => {}
                    Some(libc::ECONNRESET) => held.link.ended(),
                    code => held.link.cut(Why::Failed(code.unwrap_or(libc::EIO))),
                }
            }
        }
        self.note_hunger(place, now);
        self.touch(place);
    }

    /// Bytes came, or may lie in the cover already.
    fn came(&mut self, place: u32, bytes: &[u8], desk: &mut Desk) {
        let (held, events, now) = (&mut self.held[place], &mut self.events, desk.now);
        let mut memory = Real {
            peers: &mut self.buffers,
            desk,
        };
        match &mut held.covered {
            None => held.link.received(now, bytes, &mut memory, events),
            Some(covered) => covered.received(now, bytes, &mut held.link, &mut memory, events),
        }
    }

    fn note_hunger(&mut self, place: u32, now: Time) {
        if self.held[place].link.inbound.is_hungry() && !self.hungry.contains(&place) {
            self.hungry.push(place);
            self.counted.hungry += 1;
            self.feed_at = Some(now + HUNGER);
        }
    }

    /// A message was sent, or could not be.
    pub fn sent(&mut self, place: u32, done: &Completion, desk: &mut Desk) {
        let number = self.held[place].sending.take();
        let number = number.expect("a link sends what completes");
        let message = desk.ring.sent(number);
        let result = done
            .outcome()
            .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
        self.was_sent(place, result, message, desk);
        self.touch(place);
    }

    fn was_sent(
        &mut self,
        place: u32,
        result: Result<u32, i32>,
        message: Message,
        desk: &mut Desk,
    ) {
        let held = &mut self.held[place];
        let mut memory = Real {
            peers: &mut self.buffers,
            desk,
        };
        match &mut held.covered {
            None => held.link.sent(result, message, &mut memory),
            Some(covered) => covered.sent(result, message, &mut held.link, &mut memory),
        }
    }

    /// The next event, for the user.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Tells a user all that has happened, and what comes of what he does.
    pub fn tell(&mut self, user: &mut dyn LinkUser, desk: &mut Desk) {
        while let Some(event) = self.next_event() {
            let mut door = Door { links: self, desk };
            user.on_event(event, &mut door);
        }
    }

    /// Notes that a link is to be looked at, at the end of the turn.
    fn touch(&mut self, place: u32) {
        let held = &mut self.held[place];
        if !held.is_dirty {
            held.is_dirty = true;
            self.dirty.push(place);
        }
    }

    /// Whether something waits for the next turn.
    pub fn is_unsettled(&self) -> bool {
        !self.dirty.is_empty() || !self.events.is_empty()
    }

    /// When [`Links::sweep`] is to be called.
    pub fn deadline(&self) -> Option<Time> {
        [self.sweep_at, self.feed_at].into_iter().flatten().min()
    }

    /// Looks at what waits: for memory, and for time to pass.
    pub fn sweep(&mut self, desk: &mut Desk) {
        let now = desk.now;
        // Also where the one that was hungry is gone: else its time would stay, and pass.
        if self.feed_at.is_some() {
            self.feed(desk);
        }
        if self.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        self.sweep_at = None;
        let mut touched = Vec::new();
        for (place, held) in self.held.iter_mut() {
            held.link.expire(now, &mut self.events);
            held.link.let_forgotten_go(&mut Real {
                peers: &mut self.buffers,
                desk,
            });
            let is_up = held.link.is_up();
            // Credit of what was forgotten is told though nothing else happens: the peer may wait for just that.
            if !is_up || held.link.grant.has_news() {
                touched.push(place);
            }
            if is_up && held.link.is_waiting() {
                self.sweep_at = Some(now + SWEEP);
            }
        }
        touched.into_iter().for_each(|place| self.touch(place));
    }

    fn feed(&mut self, desk: &mut Desk) {
        let mut hungry = std::mem::take(&mut self.hungry);
        hungry.retain(|&place| {
            let held = &mut self.held[place];
            let mut memory = Real {
                peers: &mut self.buffers,
                desk,
            };
            while held.link.feed(&mut memory, &mut self.events) {}
            let is_hungry = held.link.is_up() && held.link.inbound.is_hungry();
            if !is_hungry {
                self.touch(place);
            }
            is_hungry
        });
        self.hungry = hungry;
        self.feed_at = (!self.hungry.is_empty()).then(|| desk.now + HUNGER);
    }

    /// Settles all links that something happened to.
    pub fn settle(&mut self, desk: &mut Desk) {
        if self.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for place in dirty.drain(..) {
            self.held[place].is_dirty = false;
            self.send_next(place, desk);
            self.receive_next(place, desk);
            let held = &mut self.held[place];
            count(&mut self.counted, &mut held.link);
            if !held.link.is_up() {
                self.close(place, desk);
            } else if held.link.is_waiting() && self.sweep_at.is_none() {
                self.sweep_at = Some(desk.now + SWEEP);
            }
        }
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        self.stats.set(&self.counted);
    }

    fn send_next(&mut self, place: u32, desk: &mut Desk) {
        let held = &mut self.held[place];
        if held.sending.is_some() || !held.link.is_up() {
            return;
        }
        let now = desk.now;
        let arena = Arc::clone(self.buffers.arena());
        let mut memory = Real {
            peers: &mut self.buffers,
            desk,
        };
        let mut message = held.link.next_message(now, &mut memory);
        if let Some(covered) = &mut held.covered {
            message = covered.seal(message, &arena, &mut held.link, &mut memory);
        }
        let Some(message) = message else {
            return;
        };
        let tag = Completed::LinkSend(place).tag();
        match desk.ring.send(held.file, message, tag) {
            Ok(number) => held.sending = Some(number),
            Err((error, message)) => {
                let code = error.raw_os_error().unwrap_or(libc::EIO);
                self.was_sent(place, Err(code), message, desk);
            }
        }
    }

    fn receive_next(&mut self, place: u32, desk: &mut Desk) {
        let held = &mut self.held[place];
        if held.receiving != Receiving::No {
            return;
        }
        let (file, tag) = (held.file, Completed::LinkReceive(place).tag());
        let want = match (&held.covered, held.link.want()) {
            // What comes is to be opened first.
            (Some(_), Want::Into { .. } | Want::Anything { .. }) => Want::Anything { at_most: 0 },
            (_, want) => want,
        };
        let (receiving, pushed) = match want {
            Want::Nothing => return,
            Want::Into { at, skip, len } => {
                let part = Part { at, skip, len };
                (Receiving::Into, desk.ring.receive_into(file, part, tag))
            }
            Want::Anything { at_most } => {
                let expect = match held.has_more {
                    true => Expect::Now,
                    false => Expect::Later,
                };
                let pushed = desk.ring.receive_some(file, (expect, at_most), tag);
                (Receiving::Anything, pushed)
            }
        };
        match pushed {
            Ok(()) => held.receiving = receiving,
            Err(error) => held
                .link
                .cut(Why::Failed(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    /// Ends what is in flight of a link that is down, and the link when nothing is.
    fn close(&mut self, place: u32, desk: &mut Desk) {
        let held = &mut self.held[place];
        if !held.is_shut {
            held.is_shut = true;
            if let (Some(covered), None) = (&mut held.covered, held.sending) {
                desk.ring.say_at_once(held.file, &covered.last_words());
            }
            desk.ring.shutdown(held.file);
        }
        if held.receiving != Receiving::No || held.sending.is_some() {
            return;
        }
        let Some(mut held) = self.held.remove(place) else {
            return;
        };
        desk.ring.drop_file(held.file);
        self.hungry.retain(|&other| other != place);
        let mut memory = Real {
            peers: &mut self.buffers,
            desk,
        };
        held.link.let_go(&mut memory);
        self.free_bytes += held.credit_bytes * MEMORY_OF_CREDIT;
        let (link, peer) = (held.link.id, held.link.peer);
        let why = held.link.why.expect("a link that is closed is down");
        self.counted.links -= 1;
        self.counted.cut[why.place()] += 1;
        if why != Why::GivenUp && why != Why::Closed {
            tracing::warn!(node = %peer.node, shard = peer.shard.0, %why, "a link was cut off");
        }
        self.events.push_back(Event::Down { link, peer, why });
    }
}

/// Adds what a link has counted since the last time.
fn count(numbers: &mut LinkNumbers, link: &mut Link) {
    let (inbound, outbound) = (&mut link.inbound, &mut link.outbound);
    for (all, one) in [
        (&mut numbers.frames_received, &mut inbound.frames),
        (&mut numbers.bytes_received, &mut inbound.bytes),
        (&mut numbers.frames_sent, &mut outbound.frames),
        (&mut numbers.bytes_sent, &mut outbound.bytes),
        (&mut numbers.delayed, &mut outbound.delayed),
        (&mut numbers.unasked, &mut link.unasked),
    ] {
        *all += std::mem::take(one);
    }
}
