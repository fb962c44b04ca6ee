//! What clients and operators ask in a run, and how it ends.

use super::contents::SECTORS;
use super::history::ZERO;
use super::swarm::Phase;
use super::workload::Act;
use super::world::{Asked, REQUESTS_MAX, Stage, World};
use crate::base::{
    BufRef, CHUNK, Epoch, IoError, NodeId, Request, RequestKind, SECTOR, Token, VolumeId,
};
use crate::protocol::catalog::{Command, FrontEnd, Sharing};
use std::time::Duration;

/// When it is looked again whether something can be asked.
const IDLE: Duration = Duration::from_micros(200);

impl World {
    /// A client does something.
    pub(super) fn act(&mut self) {
        let pause = Duration::from_micros(1 + self.prng.below(self.knobs.pause_us.max(20)));
        let phase = self.knobs.phase_at(self.now.since(self.round));
        let is_over = self.counts.operations >= self.plan.operations;
        let most = (u64::from(self.knobs.clients) * self.knobs.depth) as usize;
        if self.stage != Stage::Struck
            || is_over
            || matches!(phase, None | Some(Phase::Night(_)))
            || self.requests.len() >= most.min(REQUESTS_MAX)
        {
            // Steps in which nothing can be asked are nobody's.
            self.next_act = self.now + pause.max(IDLE);
            return;
        }
        self.next_act = self.now + pause;
        let act = self.workload.draw(&self.knobs);
        self.carry_out_act(act);
    }

    pub(super) fn carry_out_act(&mut self, act: Act) {
        match act {
            Act::Ask {
                node,
                volume,
                kind,
                sectors,
                ..
            } => {
                let volume = self.volumes[volume as usize];
                self.ask(NodeId(node + 1), volume, kind, sectors);
            }
            Act::Attach { volume, node } => self.attach(volume, node),
            Act::Detach { volume, node } => {
                let volume = self.volumes[volume as usize];
                let at = self.catalog.attached_at(volume, NodeId(node + 1));
                let key = at.map(|one| one.key).filter(|_| self.is_shared(volume));
                self.operate(Command::Detach { volume, key });
            }
            // A guest moves: the volume is attached at both nodes.
            Act::Move { volume, to, .. } if self.is_shared(self.volumes[volume as usize]) => {
                self.attach(volume, to);
            }
            Act::Move { volume, to, .. } => {
                let id = self.volumes[volume as usize];
                self.operate(Command::Detach {
                    volume: id,
                    key: None,
                });
                self.attach(volume, to);
            }
            Act::Snapshot { volume } => self.snapshot_volume(self.volumes[volume as usize]),
        }
    }

    pub(super) fn is_shared(&self, volume: VolumeId) -> bool {
        let volume = self.catalog.volume(volume);
        volume.is_some_and(|volume| volume.sharing == Sharing::Shared)
    }

    fn attach(&mut self, volume: u32, node: u32) {
        self.operate(Command::Attach {
            volume: self.volumes[volume as usize],
            node: NodeId(node + 1),
            front_end: FrontEnd::None,
        });
    }

    /// An operator's command, by whoever leads; lost where nobody does.
    pub(super) fn operate(&mut self, command: Command) {
        if let Some(leader) = self.log.leader() {
            let _ = self.log.propose(self.now, leader, command);
        }
    }

    pub(super) fn ask(
        &mut self,
        id: NodeId,
        volume: VolumeId,
        kind: RequestKind,
        sectors: std::ops::Range<u64>,
    ) {
        let of_chunk = CHUNK / SECTOR;
        let sectors = match kind {
            // It is rounded inwards to whole chunks: what is left over stays as it is.
            RequestKind::Discard => {
                sectors.start.next_multiple_of(of_chunk)..(sectors.end / of_chunk * of_chunk)
            }
            _ => sectors,
        };
        if sectors.is_empty() {
            return;
        }
        let count = sectors.end - sectors.start;
        let is_there = self.places.get(&id).is_some_and(|place| {
            !place.is_paused
                && place
                    .node
                    .as_ref()
                    .is_some_and(|node| node.coordinator().volume(volume).is_some())
        });
        if !is_there {
            // It is not attached there yet, or not any more: the client asks again, a little later.
            self.counts.refused += 1;
            self.next_act = self.now + Duration::from_millis(1);
            return;
        }
        self.counts.operations += 1;
        self.tick += 1;
        let value = match kind {
            RequestKind::Read => None,
            RequestKind::Write => {
                self.values += 1;
                Some(self.values)
            }
            _ => Some(ZERO),
        };
        let (offset, len) = (sectors.start * SECTOR, count * SECTOR);
        let blocks = Request::buffer_blocks(kind, offset, len);
        let buffer = (blocks > 0).then(|| {
            let written = value.filter(|_| kind == RequestKind::Write);
            let first = sectors.start % SECTORS;
            let mut payload = match written {
                Some(value) => self.buffers.blocks_of(first, count, value),
                None => Vec::new(),
            };
            payload.resize(blocks as usize, ZERO);
            self.buffers.put(payload)
        });
        let histories = &mut self.judges.histories;
        let operation = match value {
            Some(value) => histories.write(volume, sectors.clone(), value),
            None => histories.read(volume, sectors.clone()),
        };
        let Ok(operation) = operation else {
            return;
        };
        self.tokens += 1;
        let token = Token(self.tokens);
        self.say(|| {
            format!(
                "client asks node {id}: {kind:?} {volume} {sectors:?}, request {}, value {}",
                token.0, self.values
            )
        });
        let asked = Asked {
            id: operation,
            kind,
            value,
            takes_none: self.takes_none(kind, volume, &sectors),
            disks: self.disks_under(id, volume, &sectors),
            buffer,
            volume,
            sectors,
            began: self.tick,
            at: self.now,
            node: id,
        };
        self.judges.began(&asked);
        self.requests.insert(token, asked);
        let request = Request {
            token,
            volume,
            kind,
            offset,
            len,
            buf: buffer.unwrap_or_default(),
            scratch: buffer.map_or(BufRef::default(), |buf| {
                Request::scratch_of(kind, offset, len, buf)
            }),
        };
        let now = self.clocks.at(id, self.now);
        if let Some(node) = self.places.get_mut(&id).and_then(|it| it.node.as_mut()) {
            node.ask(now, request, &self.shelves, &mut self.buffers);
        }
        self.take_effects(id);
    }

    pub(super) fn replied(
        &mut self,
        token: Token,
        result: Result<(), IoError>,
        volume: VolumeId,
        epoch: Option<Epoch>,
    ) {
        let Some(asked) = self.requests.remove(&token) else {
            return;
        };
        self.tick += 1;
        self.say(|| format!("request {} has ended: {result:?}", token.0));
        if let Err(why) = result {
            self.counts.refused += 1;
            match why {
                IoError::NoSpace => self.refused_for_space(&asked),
                IoError::OutOfRange => self.judges.never(&asked),
                _ => self.judges.failed(&asked),
            }
            return;
        }
        self.counts.answered += 1;
        // Its lease is all that protects a read, and its clock is beyond what leases are made for. What it writes is judged all the same.
        let is_judged = asked.value.is_some() || self.clocks.is_sound(asked.node, asked.at);
        let place = &self.places[&asked.node];
        if let Some(epoch) = epoch {
            let owner = (asked.node, place.incarnation);
            let span = (asked.began, self.tick);
            let served = &mut self.judges.served;
            let served = match is_judged {
                true => served.served(volume, epoch, owner, span),
                false => served.is_of(volume, epoch, owner),
            };
            self.note(served);
        }
        if !is_judged {
            return;
        }
        match (asked.value, asked.buffer) {
            (None, Some(buffer)) => {
                let count = asked.sectors.end - asked.sectors.start;
                let first = asked.sectors.start % SECTORS;
                let values = self.buffers.sectors(buffer, first, count);
                self.say(|| format!("request {} read {values:?}", token.0));
                self.judges.histories.saw(asked.id, &values);
                if self.stage == Stage::LastLook {
                    let found = self.judges.found(&asked, &values);
                    self.note(found);
                }
            }
            _ => self.judges.acknowledged(&asked, self.tick),
        }
    }
}
