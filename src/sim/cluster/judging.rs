//! What the checkers are told while a run goes on, and when they judge.
//!
//! Some judge as it happens (who serves, what is committed, what is fenced), some at a sample of moments (copies in sync have what
//! was acknowledged; nothing is longer than it may be), the rest when all is at rest.

use super::atlas::{Group as AtlasGroup, Standing};
use super::checkers::durable::Ledger;
use super::checkers::in_sync::{Client, Orders};
use super::checkers::linearizable::Histories;
use super::checkers::monotone::Seen;
use super::checkers::room::Rooms;
use super::checkers::single_writer::Turns as Served;
use super::checkers::{Failure, Place, converge};
use super::contents::SECTORS;
use super::history::ZERO;
use super::network::FLOW_MAX;
use super::node::Node;
use super::shelf::{Block, FLYING_MAX, Pg};
use super::world::{Asked, REQUESTS_MAX, World};
use crate::base::{BufId, BufRef, ChunkNo, DiskId, LayerId, PgId, VolumeId};
use crate::protocol::catalog::Event;
use crate::protocol::replication::{Change, Header, MEMBERS_MAX, Message, Role, WINDOW_MAX};
use crate::protocol::volume::pg_of;
use crate::sim::register::Tick;
use std::collections::BTreeMap;

/// Blocks that a moment looks at.
const JUDGED_AT_ONCE: usize = 64;
/// Payload that a node holds at once, and when nobody asks for anything: what a rebuild, a comparison or a mend has on its way.
const PAYLOAD_MAX: usize = 16_384;
const PAYLOAD_AT_REST_MAX: u64 = 64;

/// The checkers that are told as a run goes on.
#[derive(Default)]
pub(super) struct Judges {
    pub(super) histories: Histories,
    pub(super) ledger: Ledger,
    pub(super) orders: Orders,
    pub(super) served: Served,
    pub(super) seen: Seen,
    pub(super) rooms: Rooms,
    /// The buffers of what clients wait for, and when they began to.
    writing: BTreeMap<BufId, Tick>,
}

impl Judges {
    /// A client asks for a write.
    pub(super) fn began(&mut self, asked: &Asked) {
        let Some(value) = asked.value else {
            return;
        };
        if let Some(buffer) = asked.buffer {
            self.writing.insert(buffer.id, asked.began);
        }
        for sector in asked.sectors.clone() {
            self.ledger
                .began((asked.volume, sector), value, asked.began);
        }
    }

    /// It failed, or its client is gone: it may happen all the same.
    pub(super) fn failed(&mut self, asked: &Asked) {
        if asked.value.is_some() {
            self.histories.failed(asked.id);
            self.gave_up(asked);
        }
    }

    /// It was refused, and never happens.
    pub(super) fn never(&mut self, asked: &Asked) {
        if asked.value.is_some() {
            self.histories.never(asked.id);
            self.gave_up(asked);
        }
    }

    fn gave_up(&mut self, asked: &Asked) {
        let Some(buffer) = asked.buffer else {
            return;
        };
        self.writing.remove(&buffer.id);
        for place in blocks(asked) {
            self.orders.given_up(place, asked.began);
        }
    }

    /// It was acknowledged.
    pub(super) fn acknowledged(&mut self, asked: &Asked, now: Tick) {
        self.histories.wrote(asked.id);
        let Some(value) = asked.value else {
            return;
        };
        if let Some(buffer) = asked.buffer {
            self.writing.remove(&buffer.id);
        }
        for sector in asked.sectors.clone() {
            let place = (asked.volume, sector);
            self.ledger.acknowledged(place, asked.began, now);
        }
        for place in blocks(asked) {
            self.orders.acknowledged(place, value, asked.began);
        }
    }

    /// What a last look at sectors, after the power of all was lost, has found.
    pub(super) fn found(&mut self, asked: &Asked, values: &[u64]) -> Result<(), Failure> {
        let mut found = asked.sectors.clone().zip(values);
        found.try_for_each(|(sector, value)| self.ledger.judge((asked.volume, sector), *value))
    }
}

/// The blocks that a request touches.
fn blocks(asked: &Asked) -> impl Iterator<Item = Place> + use<> {
    let (volume, sectors) = (asked.volume, &asked.sectors);
    let blocks = sectors.start / SECTORS..sectors.end.div_ceil(SECTORS);
    blocks.map(move |block| (volume, block))
}

impl World {
    /// A coordinator has numbered a change, and sends it to a replica.
    pub(super) fn issued(&mut self, header: &Header, message: &Message, payload: Option<BufRef>) {
        let Message::Change {
            sequence,
            at,
            change,
        } = message
        else {
            return;
        };
        let volume = header.range;
        if let Change::Zero { .. } | Change::ZeroChunks { .. } = change {
            for (chunk, _) in change.places(*at) {
                let rooms = &mut self.judges.rooms;
                rooms.zeroed((volume, chunk.chunk), self.tick);
            }
        }
        let order = (header.epoch, *sequence);
        let began = payload.and_then(|payload| self.judges.writing.get(&payload.id).copied());
        for (chunk, mask) in change.places(*at) {
            for block in (0..16u32).filter(|block| mask & 1 << block != 0) {
                let value = match (change, payload) {
                    (Change::Write { run, .. }, Some(payload)) => {
                        let place = block - run.first();
                        Block::Data(self.buffers.value(payload.plus(place)))
                    }
                    _ => Block::Zero,
                };
                // A request writes from its own buffer, a recovery from one that it has read into.
                let client = match (began, value) {
                    (Some(began), _) => Client::Waits(began),
                    (None, Block::Data(value)) if value != ZERO => Client::Gone,
                    (None, _) => Client::Unknown,
                };
                let place = (volume, chunk.chunk.0 * 16 + u64::from(block));
                let orders = &mut self.judges.orders;
                orders.issued(place, value, order, client, self.tick);
            }
        }
    }

    /// Judges what was committed.
    pub(super) fn judge_events(&mut self, events: &[Event]) -> Result<(), Failure> {
        for event in events {
            match event {
                Event::PgChanged { pg } => {
                    let now = pg.configuration.in_sync().count();
                    let before = self.standing.insert(pg.id, now);
                    self.counts.evictions += u64::from(before.is_some_and(|before| before > now));
                    self.counts.promotions += u64::from(before.is_some_and(|before| before < now));
                    let mut digest = 0u64;
                    for member in pg.configuration.members() {
                        let role = match member.role {
                            Role::InSync => 1,
                            Role::Joining { session, since } => {
                                2 + u64::from(session) * 64 + u64::from(since)
                            }
                            Role::Out { since } => 3 + u64::from(since) * 8,
                        };
                        digest = crate::base::mix64(digest ^ role ^ u64::from(member.disk.0) << 40);
                    }
                    self.judges.seen.configured(pg.id, pg.version(), digest)?;
                    self.tell_atlas(pg.id);
                }
                Event::VolumeChanged { volume } => self.look_at_layers(volume)?,
                Event::RangeTaken { volume, range } => {
                    self.counts.turns += 1;
                    self.judges.seen.granted(*volume, range.epoch)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn tell_atlas(&mut self, pg: PgId) {
        let Some(of) = self.catalog.pg(pg) else {
            return;
        };
        let pool = self.catalog.pool(of.pool);
        let standing = |role| match role {
            Role::InSync => Standing::InSync,
            Role::Joining { .. } => Standing::Joining,
            Role::Out { .. } => Standing::Out,
        };
        let members = of.configuration.members().iter();
        let group = AtlasGroup {
            pg,
            least: pool.map_or(1, |pool| pool.min_copies as usize),
            wants: pool.map_or(1, |pool| self.operators.least_copies(pool.copies) as usize),
            disks: members
                .map(|member| (member.disk, standing(member.role)))
                .collect(),
        };
        self.atlas.configure(&group);
    }

    /// Judges a moment: one volume's copies, drawn, and how long everything is.
    pub(super) fn judge_moment(&mut self) -> Result<(), Failure> {
        let at = self.prng.below(self.volumes.len() as u64) as usize;
        let from = self.prng.below(self.knobs.volume_blocks[at]);
        self.judge_in_sync(self.volumes[at], from, JUDGED_AT_ONCE)?;
        let flying = self.shelves.values().map(|shelf| shelf.flying()).max();
        let kept = self
            .shelves
            .values()
            .flat_map(|shelf| shelf.kept().pgs.values());
        let longest = kept.map(Pg::longest_window).max();
        let held = self.held();
        let heights = &mut self.counts.heights;
        let mut judge = |name, value: Option<usize>, limit: usize| {
            heights.judge(name, value.unwrap_or(0) as u64, limit as u64)
        };
        judge("requests", Some(self.requests.len()), REQUESTS_MAX)?;
        judge("operations-of-a-disk", flying, FLYING_MAX)?;
        judge("window", longest, MEMBERS_MAX * WINDOW_MAX)?;
        judge("payload", held, PAYLOAD_MAX)?;
        judge(
            "messages-of-a-way",
            Some(self.network.longest_flow()),
            FLOW_MAX,
        )
    }

    /// Every in-sync replica that is what it was has every acknowledged write of so many blocks of a volume.
    fn judge_in_sync(&self, id: VolumeId, from: u64, most: usize) -> Result<(), Failure> {
        let Some(volume) = self.catalog.volume(id) else {
            return Ok(());
        };
        let pgs = self.catalog.pgs_of_volume(volume);
        let layers: Vec<LayerId> = volume.layers.iter().rev().map(|of| of.id).collect();
        for place in self.judges.orders.places_of(id, from).take(most) {
            let chunk = ChunkNo(place.1 / 16);
            let pg = pgs[pg_of(volume.family, chunk.extent(), pgs.len())];
            let of = self.catalog.pg(pg).expect("a volume's PGs are there");
            for disk in of.configuration.in_sync() {
                if !self.atlas.is_there(pg, disk) {
                    continue;
                }
                let kept = self.shelves[&disk].kept().pg(pg);
                let block = kept.as_read(volume.family, &layers, chunk, (place.1 % 16) as u32);
                self.judges.orders.judge(place, disk, block)?;
            }
        }
        Ok(())
    }

    /// Payload that a node holds: the most of all nodes.
    fn held(&self) -> Option<usize> {
        let nodes = self.places.values().filter_map(|place| place.node.as_ref());
        nodes.map(Node::held).max()
    }

    /// At rest the copies are the same, and have what was acknowledged; and payload is held by nobody but, perhaps, a comparison or a mend.
    pub(super) fn judge_copies(&mut self) -> Result<(), Failure> {
        let held = self.held().unwrap_or(0) as u64;
        (self.counts.heights).judge("payload-at-rest", held, PAYLOAD_AT_REST_MAX)?;
        // What nobody has read since its owner died is settled when it is read: all was.
        let layers = self.catalog.volumes().flat_map(|volume| &volume.layers);
        let parents = layers.filter_map(|layer| Some((layer.id, layer.parent?)));
        let parents: BTreeMap<LayerId, LayerId> = parents.collect();
        let pgs: Vec<PgId> = self.catalog.pgs().map(|pg| pg.id).collect();
        for pg in pgs {
            let of = self.catalog.pg(pg).expect("it is there");
            let disks: Vec<DiskId> = of.configuration.in_sync().collect();
            let copies = disks.iter().map(|disk| (*disk, self.shelves[disk].kept()));
            converge::judge(pg, copies, &parents)?;
        }
        let mut volumes = self.volumes.iter();
        volumes.try_for_each(|id| self.judge_in_sync(*id, 0, usize::MAX))?;
        self.judge_frozen()
    }
}
