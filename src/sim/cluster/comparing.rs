//! What replicas are compared for: writes that a disk loses although it said that they were done, and tables that are damaged.
//!
//! # What a lost write strikes
//! A replica that has lost a write, and does not know it, serves old data until it is found: nothing that reads one copy can prevent that, so it is not judged. A loss
//! strikes when a run has healed, before its last look: no client asks then. By the end the copies are the same, and the last look reads what was acknowledged.
//! (The comparers walk all through a run, so that writes in flight, changes of versions and crashes come between their looks: whom they name although
//! nothing was done to it is a failure, *innocent*.) It strikes only a chunk that is settled everywhere, and of which another disk in sync has the same.
//!
//! A table is damaged at any time, where enough others are left: the replica answers with errors, and never with old data.

use super::atlas::Strike;
use super::checkers::{Failure, Promise};
use super::coverage::Fault;
use super::shelf::{Block, Chunk, Content as Blocks};
use super::world::World;
use crate::base::{ChunkId, DiskId, PgId};
use crate::protocol::catalog::Command;
use crate::protocol::replication::{Reconfigure, Role};

/// Lost writes of one run.
const LOSSES_MAX: usize = 6;

/// A write that a disk has lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loss {
    disk: DiskId,
    pg: PgId,
    chunk: ChunkId,
    /// What it should have.
    right: Chunk,
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
