//! Replicas that are compared: what the comparers of a node want done; writes that a disk loses although it said that they were done, and tables that are damaged.
//!
//! # What a lost write strikes
//! A replica that has lost a write, and does not know it, serves old data until it is found: nothing that reads one copy can prevent that, so it is not judged. A loss
//! strikes when a run has healed, before its last look: no client asks then. By the end the copies are the same, and the last look reads what was acknowledged.
//! (The comparers walk all through a run, so that writes in flight, changes of versions and crashes come between their looks: whom they name although
//! nothing was done to it is a failure, *innocent*.) It strikes only a chunk that is settled everywhere, and of which another disk in sync has the same.
//!
//! A table is damaged at any time, where enough others are left: the replica answers with errors, and never with old data.

use super::atlas::Strike;
use super::buffers::Buffers;
use super::checkers::{Failure, Promise};
use super::coverage::Fault;
use super::message::{Msg, Report};
use super::node::{Effect, Node, Whose, crc_of};
use super::shelf::{Block, Chunk, Content as Blocks, Operation, Outcome};
use super::world::World;
use crate::base::{ChunkId, DiskId, LayerId, PgId, Time};
use crate::protocol::catalog::Command;
use crate::protocol::replication::fill::Content;
use crate::protocol::replication::{Reconfigure, Role};
use crate::protocol::scrub;
use crate::protocol::scrub::compare::{Below, Found, Input, Motion, Output, Rests};
use std::time::Duration;

/// Nobody waits a week here.
pub const RESTS: Rests = Rests {
    between: Duration::from_millis(1_500),
    after_change: Duration::from_millis(200),
};
/// Chunks of a page.
const PAGE: usize = 32;
/// Lost writes of one run.
const LOSSES_MAX: usize = 6;

/// What a comparer asked of its shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparing {
    List(u64),
    Look(u64, ChunkId),
}

/// A write that a disk has lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loss {
    disk: DiskId,
    pg: PgId,
    chunk: ChunkId,
    /// What it should have.
    right: Chunk,
}

impl Node {
    pub(super) fn expire_comparers(&mut self, now: Time) {
        for disk in self.comparers.keys().copied().collect::<Vec<_>>() {
            let mut out = Vec::new();
            if let Some(comparer) = self.comparers.get_mut(&disk)
                && comparer.deadline().is_some_and(|at| at <= now)
            {
                comparer.expire(now, &mut out);
            }
            self.take_comparer(now, disk, out);
        }
    }

    pub(super) fn step_comparer(&mut self, now: Time, disk: DiskId, input: Input) {
        let mut out = Vec::new();
        if let Some(comparer) = self.comparers.get_mut(&disk) {
            comparer.step(now, input, &mut out);
        }
        self.take_comparer(now, disk, out);
    }

    fn take_comparer(&mut self, now: Time, disk: DiskId, out: Vec<Output>) {
        for output in out {
            match output {
                Output::List { op, pg, after } => {
                    let operation = Operation::List {
                        since: 0,
                        after,
                        most: PAGE,
                    };
                    self.ask_for_comparer((disk, pg), operation, Comparing::List(op));
                }
                Output::Look { op, pg, at } => {
                    let operation = Operation::Inspect { chunk: at };
                    self.ask_for_comparer((disk, pg), operation, Comparing::Look(op, at));
                }
                Output::Ask { to, header, at } => {
                    if let Some(node) = self.catalog.disk(to).map(|disk| disk.node) {
                        self.send(node, Msg::CompareAsk { to, header, at });
                    }
                }
                Output::Answer { header, answer } => {
                    let from = disk;
                    if let Some(node) = self.catalog.disk(header.asker).map(|disk| disk.node) {
                        let message = Msg::CompareAnswer {
                            from,
                            header,
                            answer,
                        };
                        self.send(node, message);
                    }
                }
                Output::Report {
                    pg,
                    disk,
                    version,
                    why,
                } => self.report(Report::Wrong {
                    pg,
                    disk,
                    version,
                    why,
                }),
                Output::Forget { pg } => self.forget(now, (disk, pg)),
            }
        }
    }

    /// The manager has emptied a replica whose table is damaged: what is left of it is forgotten, and it is made anew.
    fn forget(&mut self, now: Time, of: (DiskId, PgId)) {
        let (disk, pg) = of;
        if self.replicas.remove(&of).is_some() {
            self.forgetting.insert(of);
            self.filled.remove(&of);
            self.lost.remove(&of);
            self.effects.push(Effect::Forget { disk, pg });
            self.dropped.push(of);
            self.step_comparer(now, disk, Input::Dropped { pg });
        }
    }

    /// The menders of replicas that were forgotten are told.
    pub(super) fn tell_menders(&mut self, now: Time, buffers: &mut Buffers) {
        for (disk, pg) in std::mem::take(&mut self.dropped) {
            self.step_mender(now, disk, scrub::Input::Dropped { pg }, buffers);
        }
    }

    fn ask_for_comparer(
        &mut self,
        (disk, pg): (DiskId, PgId),
        operation: Operation,
        comparing: Comparing,
    ) {
        self.effects.push(Effect::Shelf {
            disk,
            pg,
            operation,
            whose: Whose::Comparer(comparing),
        });
    }

    /// A shelf has answered a comparer.
    pub(super) fn on_comparing(
        &mut self,
        now: Time,
        (disk, pg): (DiskId, PgId),
        comparing: Comparing,
        outcome: Outcome,
        buffers: &mut Buffers,
    ) {
        self.note_failed(disk, &outcome);
        self.note_torn(now, (disk, pg), &outcome);
        let input = match (comparing, outcome) {
            (Comparing::List(op), Outcome::Chunks { chunks, more }) => {
                let found = Some((chunks, more));
                Input::Listed { op, found }
            }
            (Comparing::List(op), _) => Input::Listed { op, found: None },
            (Comparing::Look(op, at), Outcome::Chunk(found)) => {
                let found = self.found((disk, pg), at, found);
                Input::Looked { op, found }
            }
            (Comparing::Look(op, _), _) => Input::Looked { op, found: None },
        };
        self.step_comparer(now, disk, input);
        self.tell_menders(now, buffers);
        self.settle(now, buffers);
    }

    /// What is told of a look: nothing of a layer that this node does not know. Whether the chunk is quiet is asked only now.
    fn found(&self, of: (DiskId, PgId), at: ChunkId, found: Option<Chunk>) -> Option<Found> {
        let replica = self.replicas.get(&of)?;
        let below = self.below(at.layer)?;
        let motion = match replica.is_quiet(at) {
            true => Motion::Quiet,
            false => Motion::Moving,
        };
        Some(Found {
            content: found.map(|chunk| content_of(&chunk)),
            below,
            motion,
            version: replica.version(),
            // A shelf keeps its tombstones.
            forgotten: 0,
        })
    }

    fn below(&self, layer: LayerId) -> Option<Below> {
        let mut layers = self.catalog.volumes().flat_map(|volume| &volume.layers);
        let found = layers.find(|of| of.id == layer)?;
        Some(match found.parent {
            Some(_) => Below::Layers,
            None => Below::Nothing,
        })
    }

    /// A store that finds its table damaged says so.
    pub(super) fn note_torn(&mut self, now: Time, of: (DiskId, PgId), outcome: &Outcome) {
        if *outcome == Outcome::Failed(super::shelf::Failure::Torn) {
            self.tell_torn(now, of);
        }
    }

    /// With the highest version that the replica has answered under: what the comparer knows may be older.
    pub(super) fn tell_torn(&mut self, now: Time, (disk, pg): (DiskId, PgId)) {
        let replica = self.replicas.get(&(disk, pg));
        let version = replica.map_or(0, |replica| replica.version());
        self.step_comparer(now, disk, Input::Torn { pg, version });
    }
}

fn content_of(chunk: &Chunk) -> Content {
    let mut of = Content {
        stamp: chunk.stamp,
        data: 0,
        zeroes: 0,
        crcs: [0; 16],
    };
    for (place, block) in chunk.content.iter().enumerate() {
        match block {
            Block::Data(value) => {
                of.data |= 1 << place;
                of.crcs[place] = crc_of(*value);
            }
            Block::Zero => of.zeroes |= 1 << place,
            Block::Absent => {}
        }
    }
    of
}

/// The blocks as a reader of one layer alone tells them apart.
fn blocks(chunk: Option<&Chunk>) -> Blocks {
    let content = chunk.map(|chunk| chunk.content).unwrap_or_default();
    content.map(|block| match block {
        Block::Absent => Block::Zero,
        block => block,
    })
}

impl World {
    /// The table of a replica is damaged, where enough others are left.
    pub(super) fn tear(&mut self, disk: DiskId, pick: u64) {
        let pgs: Vec<PgId> = self.catalog.pgs_on(disk).collect();
        if pgs.is_empty() || self.shelves[&disk].is_gone() {
            return;
        }
        let pg = pgs[(pick % pgs.len() as u64) as usize];
        let strike = Strike::Tear { disk, pg };
        if self.atlas.may(&strike).is_ok() {
            self.atlas.struck(&strike);
            self.say(|| format!("TEAR disk {disk}, PG {pg}"));
            let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
            shelf.tear(pg);
        }
    }

    /// A write is to be lost when all has healed.
    pub(super) fn plan_loss(&mut self, disk: DiskId, pick: u64) {
        if self.to_lose.len() < LOSSES_MAX {
            self.to_lose.push((disk, pick));
        }
    }

    /// Disks forget writes, as planned; whether any did.
    pub(super) fn lose_writes(&mut self) -> bool {
        for (disk, pick) in std::mem::take(&mut self.to_lose) {
            self.lose_write(disk, pick);
        }
        !self.losses.is_empty()
    }

    fn lose_write(&mut self, disk: DiskId, pick: u64) {
        let shelf = &self.shelves[&disk];
        let may = |(pg, chunk): &(PgId, ChunkId)| self.may_be_lost(disk, *pg, *chunk);
        let may: Vec<(PgId, ChunkId)> = shelf.changed().filter(may).collect();
        if may.is_empty() {
            return;
        }
        let (pg, chunk) = may[(pick % may.len() as u64) as usize];
        let strike = Strike::Tear { disk, pg };
        if self.atlas.may(&strike).is_err() {
            return;
        }
        self.atlas.struck(&strike);
        let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
        let right = shelf.lose_change(pg, chunk);
        self.losses.push(Loss {
            disk,
            pg,
            chunk,
            right,
        });
        self.say(|| format!("LOST disk {disk}, PG {pg}, {chunk:?}: {right:?}"));
    }

    /// Whether the last change of a chunk may be forgotten: all in sync have it, are there, and have nothing of the chunk in a window; and a reader would miss it.
    fn may_be_lost(&self, disk: DiskId, pg: PgId, chunk: ChunkId) -> bool {
        let Some(of) = self.catalog.pg(pg) else {
            return false;
        };
        let has = |disk: DiskId| self.shelves[&disk].kept().pg(pg).chunks.get(&chunk);
        let is_settled = |disk: DiskId| {
            let kept = self.shelves[&disk].kept().pg(pg);
            let mut entries = kept.ranges().flat_map(|range| kept.window(range));
            self.atlas.is_reached(pg, disk) && !entries.any(|entry| entry.at == chunk)
        };
        let mut layers = self.catalog.volumes().flat_map(|volume| &volume.layers);
        let (own, before) = (has(disk), self.shelves[&disk].before(pg, chunk));
        let is_newer = own.map(|own| own.stamp) > before.map(|before| before.stamp);
        layers.any(|layer| layer.id == chunk.layer)
            && of.configuration.role(disk) == Some(Role::InSync)
            && is_newer
            && blocks(own) != blocks(before)
            && of
                .configuration
                .in_sync()
                .all(|disk| is_settled(disk) && has(disk) == own)
    }

    /// The losses that are there still: a replica in sync does not have what it should have.
    pub(super) fn lacking(&mut self) -> Vec<(PgId, DiskId)> {
        let (shelves, catalog) = (&mut self.shelves, &self.catalog);
        let is_listed = |(pg, disk): &(PgId, DiskId)| {
            let of = catalog.pg(*pg);
            of.is_some_and(|of| of.configuration.role(*disk).is_some())
        };
        self.losses.retain(|loss| {
            if !is_listed(&(loss.pg, loss.disk)) {
                return false; // its copy was moved
            }
            let shelf = shelves.get_mut(&loss.disk).expect("it has a shelf");
            let has = shelf.kept().pg(loss.pg).chunks.get(&loss.chunk);
            let lacks = blocks(has) != blocks(Some(&loss.right));
            if !lacks {
                shelf.tally.consumed(Fault::LostWrite);
            }
            lacks
        });
        let lacking = self.losses.iter().map(|loss| (loss.pg, loss.disk));
        let torn = self.shelves.iter();
        let torn = torn.flat_map(|(disk, shelf)| shelf.torn().map(|pg| (pg, *disk)));
        lacking.chain(torn.filter(is_listed)).collect()
    }

    /// Who was filled lacks what those lacked that it was filled from.
    fn inherit_losses(&mut self, pg: PgId, promoted: DiskId) {
        let Some(of) = self.catalog.pg(pg) else {
            return;
        };
        let is_source =
            |disk| disk != promoted && of.configuration.role(disk) == Some(Role::InSync);
        let disk = promoted;
        let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
        let lacks = |loss: &&Loss| {
            let has = shelf.kept().pg(pg).chunks.get(&loss.chunk);
            loss.pg == pg && is_source(loss.disk) && blocks(has) != blocks(Some(&loss.right))
        };
        let lost = self.losses.iter().filter(lacks);
        let lost: Vec<Loss> = lost.map(|loss| Loss { disk, ..*loss }).collect();
        if !lost.is_empty() {
            shelf.strike(pg);
            self.losses.extend(lost);
        }
    }

    /// *innocent*: whom a comparison has taken out has lost something. What was done to a replica is an excuse until it was emptied, or is in sync
    /// again with what others have; one that was forgotten has none either (`shelf.rs`).
    pub(super) fn judge_reconfigured(&mut self, command: &Command) -> Result<(), Failure> {
        let &Command::Reconfigure { pg, change, .. } = command else {
            return Ok(());
        };
        let (Reconfigure::Empty { disk } | Reconfigure::Promote { disk, .. }) = change else {
            return Ok(());
        };
        let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
        // Its node may have died before its store had forgotten what was damaged.
        let is_struck = shelf.is_struck(pg);
        shelf.absolve(pg);
        if let Reconfigure::Promote { .. } = change {
            self.inherit_losses(pg, disk);
            return Ok(());
        }
        self.counts.met.branch("emptied");
        match is_struck {
            true => Ok(()),
            false => {
                let what =
                    format!("disk {disk} is taken out of PG {pg}, and nothing was done to it");
                Err(Failure::new(Promise::Innocent, what))
            }
        }
    }
}
