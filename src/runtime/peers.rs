//! Where frames go: to a shard of this node by letter, to a shard of another one over a link; and the memory that goes with them.
//!
//! ```text
//!   machine ──Send──► disk of another shard here ──► letter
//!                     disk of another node ───────► link to the shard that has it, or any link to its node: there it goes on by letter
//!                     who asked ──────────────────► the way that the ask has come: letter to its shard, link
//! ```
//!
//! # Payload
//! - What a client writes is not copied: a hold of its buffer goes with the frame, and is let go when the kernel has sent it, or by the shard that it went to.
//! - What lies in the memory that was lent to the machine (what it has read) is copied once before it leaves: that memory has no holds, and its machine uses it again. For an answer
//!   the copy lies in memory of the peers, who have paid for it with their credit; where there is none the answer is dropped, and asked for again.
//! - The answer to an ask over a link comes into a *room*, from memory that nothing else can take ([`Zone::Rooms`](crate::io::Zone::Rooms)). Asks that have none wait here in their order: a room comes back with its
//!   answer, when its ask is forgotten, or when its link goes down. Nothing that holds a room waits for anybody but its peer, so neither clients nor peers' asks can keep answers from coming.
//!
//! *Nothing waits without a bound*: past [`WAITING`] asks one more is dropped, and its machine asks again. What is dropped is counted.
//!
//! It does not know what frames mean, but for which are asks, and which answers name no asker.

use super::asker::Who;
use super::desk::Desk;
use super::links::{LinkId, Links, Outgoing, Peer, room_for};
use super::post::{Letter, Whom};
use crate::base::{BufId, BufRef, DiskId, FixedMap, NodeId, Payload, Span, Time};
use crate::io::Buffers;
use crate::observe::ShardStats;
use crate::protocol::replication::replica::Asker;
use crate::protocol::replication::{Change, Message};
use crate::shard::ShardNo;
use crate::shard::fabric::To;
use crate::wire::{Class, Feature, Frame, Question, Version, instead};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Asks that wait for a room.
const WAITING: usize = 4096;
/// Frames that wait in the tray of another shard.
const LETTERS: usize = 1 << 14;
/// Askers that are remembered because the answers to them name none.
const ASKERS: usize = 4096;
/// How soon a room is looked for again: one that went to another shard comes back without a word.
const AGAIN: Duration = Duration::from_millis(1);

/// A link to a node.
#[derive(Debug, Clone, Copy)]
struct Way {
    shard: ShardNo,
    link: LinkId,
    version: Version,
}

/// A frame of this shard's machine that asks something.
struct Ask {
    disk: DiskId,
    frame: Frame,
    payload: Option<Payload>,
}

/// Where the shard of a disk is.
enum Where {
    Here(ShardNo),
    There(Way),
}

/// Who the shard speaks to.
pub(super) struct Peers {
    me: ShardNo,
    /// Whether the node is one of a cluster; one that is alone has no peers.
    pub is_of_cluster: bool,
    /// The memory that was lent to the machine.
    lent: BufId,
    rooms: Buffers,
    /// By the node; of each the newest last.
    ways: FixedMap<NodeId, Vec<Way>>,
    /// The disks of other nodes.
    disks: FixedMap<DiskId, (NodeId, ShardNo)>,
    /// Whose payload the machine holds, by its buffer.
    came: FixedMap<BufId, LinkId>,
    askers: FixedMap<Question, Asker>,
    /// The same in the order in which they came.
    asked: VecDeque<Question>,
    waiting: VecDeque<Ask>,
    /// What counts as the answer of a peer that has no word for an ask.
    instead: VecDeque<(DiskId, Frame)>,
    stats: Arc<ShardStats>,
}

impl Peers {
    pub fn new(
        me: ShardNo,
        is_of_cluster: bool,
        (lent, rooms): (BufId, Buffers),
        stats: Arc<ShardStats>,
    ) -> Peers {
        Peers {
            me,
            is_of_cluster,
            lent,
            rooms,
            ways: FixedMap::default(),
            disks: FixedMap::default(),
            came: FixedMap::default(),
            askers: FixedMap::default(),
            asked: VecDeque::new(),
            waiting: VecDeque::new(),
            instead: VecDeque::new(),
            stats,
        }
    }

    /// A link is there; whether it is the first one to its node.
    pub fn up(&mut self, link: LinkId, peer: Peer) -> bool {
        let ways = self.ways.entry(peer.node).or_default();
        ways.push(Way {
            shard: peer.shard,
            link,
            version: peer.version,
        });
        ways.len() == 1
    }

    /// A link is gone; whether it was the last one to its node.
    pub fn down(&mut self, link: LinkId, peer: Peer) -> bool {
        let Some(ways) = self.ways.get_mut(&peer.node) else {
            return false;
        };
        let before = ways.len();
        ways.retain(|way| way.link != link);
        let is_last = ways.is_empty() && before > 0;
        if is_last {
            self.ways.remove(&peer.node);
        }
        is_last
    }

    /// To whom there are links.
    pub fn links(&self) -> Vec<Peer> {
        let of = |(node, ways): (&NodeId, &Vec<Way>)| {
            let node = *node;
            let peer = move |way: &Way| Peer {
                node,
                shard: way.shard,
                version: way.version,
            };
            ways.iter().map(peer).collect::<Vec<_>>()
        };
        self.ways.iter().flat_map(of).collect()
    }

    /// These are the disks of a node, each with the shard that has it.
    pub fn know_disks(&mut self, node: NodeId, disks: &[(DiskId, ShardNo)]) {
        self.disks.retain(|_, (of, _)| *of != node);
        let disks = disks.iter();
        self.disks
            .extend(disks.map(|&(disk, shard)| (disk, (node, shard))));
    }

    fn way(&self, disk: DiskId) -> Option<Way> {
        let (node, shard) = self.disks.get(&disk)?;
        let ways = self.ways.get(node)?;
        let to_shard = ways.iter().rfind(|way| way.shard == *shard);
        to_shard.or(ways.last()).copied()
    }

    fn where_is(&self, disk: DiskId, desk: &Desk) -> Option<Where> {
        match desk.router.disk(disk) {
            // Its machine does not have it: it is opening, or failed to.
            Some(shard) if shard == self.me => None,
            Some(shard) => Some(Where::Here(shard)),
            None => self.way(disk).map(Where::There),
        }
    }

    /// Brings a frame of this shard's machine to who it is for.
    pub fn send(
        &mut self,
        (to, disk): (To, DiskId),
        frame: Frame,
        payload: Option<Payload>,
        links: &mut Links,
        desk: &mut Desk,
    ) {
        let asker = match to {
            To::Asker(asker) => Some(asker),
            To::Disk(_) if matches!(frame.class(), Class::Answer) => self.take_asker(&frame, disk),
            To::Disk(disk) => {
                let ask = Ask {
                    disk,
                    frame,
                    payload,
                };
                return self.ask(ask, links, desk);
            }
        };
        let Some(asker) = asker else {
            return self.stats.count_dropped();
        };
        let payload = match payload {
            None => None,
            Some(payload) => {
                let span = span_of(&frame, &payload);
                match bring_out(self.lent, span, |blocks| links.allocate(blocks), desk) {
                    None => return self.stats.count_dropped(),
                    out => out,
                }
            }
        };
        self.answer(asker, disk, (frame, payload), links, desk);
    }

    /// Brings an answer to who asked. `payload` has a hold that goes with it.
    pub fn answer(
        &mut self,
        asker: Asker,
        disk: DiskId,
        (frame, payload): (Frame, Option<Span>),
        links: &mut Links,
        desk: &mut Desk,
    ) {
        let who = Who::of(asker);
        let sent = match who {
            Who::Link(shard, name) if shard == self.me => match links.named(name) {
                Some(link) => {
                    let what = Outgoing {
                        payload,
                        ..Outgoing::plain(disk, frame)
                    };
                    links.send(link, what, desk).is_ok()
                }
                None => false,
            },
            _ => {
                let from = Who::Machine(self.me).asker();
                let to = Whom::Asker(asker);
                self.write(who.shard(), (from, to), disk, (frame, payload), desk)
            }
        };
        if !sent {
            self.let_go(payload, links, desk);
        }
    }

    /// Leaves a letter with a frame; false where there is no room for it.
    pub fn write(
        &mut self,
        shard: ShardNo,
        (from, to): (Asker, Whom),
        disk: DiskId,
        (frame, payload): (Frame, Option<Span>),
        desk: &mut Desk,
    ) -> bool {
        if desk.trays.waiting(shard) >= LETTERS {
            return false;
        }
        let letter = Letter::Frame {
            from,
            to,
            disk,
            frame,
            payload,
        };
        desk.trays.put(shard, letter);
        true
    }

    fn let_go(&self, payload: Option<Span>, links: &mut Links, desk: &mut Desk) {
        self.stats.count_dropped();
        if let Some(payload) = payload {
            links.free(payload.buf.id, desk);
        }
    }

    fn ask(&mut self, ask: Ask, links: &mut Links, desk: &mut Desk) {
        let waits = match self.waiting.is_empty() || !self.needs_memory(&ask) {
            true => self.try_to_ask(ask, links, desk),
            false => Some(ask),
        };
        match waits {
            Some(ask) if self.waiting.len() < WAITING => self.waiting.push_back(ask),
            Some(_) => self.stats.count_dropped(),
            None => {}
        }
    }

    fn needs_memory(&self, ask: &Ask) -> bool {
        room_for(&ask.frame) > 0 || ask.payload.as_ref().is_some_and(|of| self.is_lent(of.at()))
    }

    /// Sends an ask, or drops it where nobody is there; gives it back where it has to wait for memory.
    fn try_to_ask(&mut self, ask: Ask, links: &mut Links, desk: &mut Desk) -> Option<Ask> {
        let Some(to) = self.where_is(ask.disk, desk) else {
            self.stats.count_dropped();
            return None;
        };
        let mut into = None;
        if let Where::There(way) = &to {
            if Feature::of(&ask.frame).is_some_and(|needs| !way.version.has(needs)) {
                let answer = instead(&ask.frame);
                self.instead.extend(answer.map(|answer| (ask.disk, answer)));
                return None;
            }
            let blocks = room_for(&ask.frame);
            if blocks > 0 {
                let Some(id) = self.rooms.allocate(blocks) else {
                    return Some(ask);
                };
                let buf = BufRef { id, block: 0 };
                into = Some(Span { buf, blocks });
            }
        }
        let mut payload = None;
        if let Some(of) = &ask.payload {
            let span = span_of(&ask.frame, of);
            payload = bring_out(self.lent, span, |blocks| self.rooms.allocate(blocks), desk);
            if payload.is_none() {
                into.into_iter()
                    .for_each(|into| links.free(into.buf.id, desk));
                return Some(ask);
            }
        }
        let Ask { disk, frame, .. } = ask;
        match to {
            Where::Here(shard) => {
                let (from, to) = (Who::Machine(self.me).asker(), Whom::Disk);
                if !self.write(shard, (from, to), disk, (frame, payload), desk) {
                    self.let_go(payload, links, desk);
                }
            }
            Where::There(way) => {
                let what = Outgoing {
                    disk,
                    frame,
                    payload,
                    into,
                };
                if links.send(way.link, what, desk).is_err() {
                    into.into_iter()
                        .for_each(|into| links.free(into.buf.id, desk));
                    self.let_go(payload, links, desk);
                }
            }
        }
        None
    }

    /// Has asks go on that wait for memory.
    pub fn feed(&mut self, links: &mut Links, desk: &mut Desk) {
        while let Some(ask) = self.waiting.pop_front() {
            if let Some(ask) = self.try_to_ask(ask, links, desk) {
                return self.waiting.push_front(ask);
            }
        }
    }

    /// When [`Peers::feed`] is to be called again.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        (!self.waiting.is_empty()).then(|| now + AGAIN)
    }

    /// What counts as an answer, from this disk.
    pub fn take_instead(&mut self) -> Option<(DiskId, Frame)> {
        self.instead.pop_front()
    }

    pub fn is_unsettled(&self) -> bool {
        !self.instead.is_empty()
    }

    /// The machine is asked something: who asked is remembered where the answer will not say.
    pub fn remember(&mut self, from: Asker, disk: DiskId, frame: &Frame) {
        if !matches!(frame, Frame::MendAsk(..) | Frame::CompareAsk(..)) {
            return;
        }
        let Some(question) = frame.question(disk) else {
            return;
        };
        if self.askers.insert(question, from).is_some() {
            return; // asked again, by whomever
        }
        self.asked.push_back(question);
        if self.asked.len() > ASKERS
            && let Some(oldest) = self.asked.pop_front()
        {
            self.askers.remove(&oldest);
        }
    }

    fn take_asker(&mut self, answer: &Frame, disk: DiskId) -> Option<Asker> {
        let question = answer.question(disk)?;
        let asker = self.askers.remove(&question)?;
        if self.asked.front() == Some(&question) {
            self.asked.pop_front();
        }
        Some(asker)
    }

    /// The machine was given the payload of an ask that came over a link.
    pub fn gave(&mut self, payload: Span, link: LinkId) {
        let before = self.came.insert(payload.buf.id, link);
        debug_assert!(
            before.is_none(),
            "held-once: each ask has a buffer of its own"
        );
    }

    /// The machine holds payload no more that came with a frame.
    pub fn released(&mut self, payload: Span, links: &mut Links, desk: &mut Desk) {
        match self.came.remove(&payload.buf.id) {
            Some(link) => links.release(link, payload, desk),
            None => links.free(payload.buf.id, desk),
        }
    }

    fn is_lent(&self, at: BufRef) -> bool {
        at.id == self.lent
    }
}

/// The payload of a frame.
fn span_of(frame: &Frame, payload: &Payload) -> Span {
    let blocks = match frame {
        // What a client writes goes in parts.
        Frame::Message(
            _,
            Message::Change {
                change: Change::Write { run, .. },
                ..
            },
        ) => run.count(),
        _ => payload.blocks().unwrap_or(0),
    };
    Span {
        buf: payload.at(),
        blocks,
    }
}

/// Payload as it may leave the shard, with a hold of its own: the same, or a copy of what lies in the `lent` memory. `None`: there is no memory for that now.
fn bring_out(
    lent: BufId,
    payload: Span,
    allocate: impl FnOnce(u32) -> Option<BufId>,
    desk: &Desk,
) -> Option<Span> {
    let arena = desk.buffers.arena();
    if payload.buf.id != lent {
        arena.hold(payload.buf.id, 1);
        return Some(payload);
    }
    let id = allocate(payload.blocks)?;
    let buf = BufRef { id, block: 0 };
    arena.copy_blocks(payload.buf, buf, payload.blocks);
    Some(Span { buf, ..payload })
}
