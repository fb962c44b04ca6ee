//! Disks that fill up: who hears of it, and what the judge of space is told.

use super::checkers::Failure;
use super::checkers::room::{Needs, Refused, judge_full};
use super::coverage::Fault;
use super::history::ZERO;
use super::node::Whose;
use super::shelf::{self, Outcome};
use super::world::{Asked, World};
use crate::base::{
    CHUNK, ChunkId, ChunkNo, DiskId, LayerId, NodeId, PgId, RequestKind, SECTOR, VolumeId,
};
use crate::protocol::replication::Role;
use crate::protocol::replication::replica::Op;
use crate::protocol::volume::pg_of;
use std::collections::BTreeSet;
use std::ops::Range;

impl World {
    /// A disk that has become low, or ample again, says so to its node.
    pub(super) fn look_at_room(&mut self, disk: DiskId) {
        let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
        let (measured, turned) = (shelf.measured(), shelf.turned());
        if let Some((free, marks)) = measured {
            let said = shelf.room();
            let judged = (self.judges.rooms).free(disk, (free, marks), said, self.tick);
            self.note(judged);
        }
        let Some(room) = turned else {
            return;
        };
        self.say(|| format!("{disk} is {room:?}"));
        let has_it = |(_, place): &(&_, &mut super::world::Place)| place.disks.contains(&disk);
        let found = self.places.iter_mut().find(has_it);
        if let Some((&id, place)) = found
            && let Some(node) = &mut place.node
        {
            let now = self.clocks.at(id, self.now);
            node.on_room(now, (disk, room), &self.shelves, &mut self.buffers);
        }
    }

    /// What a shelf has answered a replica, before that hears of it.
    pub(super) fn judge_stored(
        &self,
        (disk, pg): (DiskId, PgId),
        whose: Whose,
        outcome: &Outcome,
    ) -> Result<(), Failure> {
        let is_full = *outcome == Outcome::Failed(shelf::Failure::NoSpace);
        // A member of an older version says neither that it is low nor what a write would take (`docs/upgrade.md`).
        let may_be = self.versions.are_mixed();
        if !is_full || may_be || !matches!(whose, Whose::Replica(Op::Change { .. })) {
            return Ok(());
        }
        let of = self.catalog.pg(pg);
        let role = of.and_then(|of| of.configuration.role(disk));
        // One that was promoted this moment has the session on its disk still.
        let has_session = self.shelves[&disk].kept().pg(pg).session != 0;
        judge_full((disk, pg), role == Some(Role::InSync) && !has_session)
    }

    /// A client was told that there is no space.
    pub(super) fn refused_for_space(&mut self, asked: &Asked) {
        self.counts.met.faults.consumed(Fault::DiskFull);
        let took_none = self.takes_no_space(asked.volume, &asked.sectors);
        // Who refuses may not have heard that a replica has left.
        let mut disks = self.disks_under(asked.node, asked.volume, &asked.sectors);
        disks.extend(&asked.disks);
        let refused = Refused {
            volume: asked.volume,
            began: asked.began,
            needs: Needs::of(asked.kind, &asked.sectors),
            disks,
            chunks: chunks(&asked.sectors).collect(),
            took_none: took_none.is_some() && took_none == asked.takes_none,
        };
        let judged = self.judges.rooms.judge_refusal(&refused);
        self.note(judged);
        // Of several chunks some may have been written, and of zeroes the ends are written by themselves.
        match refused.chunks.len() == 1 && asked.value != Some(ZERO) {
            true => self.judges.never(asked),
            false => self.judges.failed(asked),
        }
    }

    /// The disks of all replicas that take writes, of the PGs that these sectors are in, as the manager and the asked node know them; nothing where
    /// no disk fills up. Nobody asks a replica that is out whether something fits.
    pub(super) fn disks_under(
        &self,
        asked: NodeId,
        volume: VolumeId,
        sectors: &Range<u64>,
    ) -> Vec<DiskId> {
        if self.knobs.manner.room == usize::MAX {
            return Vec::new();
        }
        let pgs: BTreeSet<PgId> = self.places_of(volume, sectors).map(|(pg, _)| pg).collect();
        let node = self.places.get(&asked).and_then(|it| it.node.as_ref());
        let catalogs = [Some(&self.catalog), node.map(|node| &node.catalog)];
        let of_pgs = catalogs
            .into_iter()
            .flatten()
            .flat_map(|of| pgs.iter().filter_map(|pg| of.pg(*pg)));
        let members = of_pgs.flat_map(|pg| pg.configuration.writers());
        members.map(|member| member.disk).collect()
    }

    fn places_of(
        &self,
        volume: VolumeId,
        sectors: &Range<u64>,
    ) -> impl Iterator<Item = (PgId, ChunkId)> + use<'_> {
        let chunks = chunks(sectors);
        let of = self.catalog.volume(volume).into_iter();
        of.flat_map(move |of| {
            let pgs = self.catalog.pgs_of_volume(of);
            let layer = of.layers.last().map_or(LayerId(0), |layer| layer.id);
            let family = of.family;
            chunks.clone().map(move |chunk| {
                let pg = pgs[pg_of(family, chunk.extent(), pgs.len())];
                let chunk = ChunkId {
                    family,
                    layer,
                    chunk,
                };
                (pg, chunk)
            })
        })
    }

    /// The newest layer of a volume, where every in-sync replica has data of all these chunks in it.
    pub(super) fn takes_no_space(&self, volume: VolumeId, sectors: &Range<u64>) -> Option<LayerId> {
        let newest = self.catalog.volume(volume)?.layers.last()?.id;
        let is_there = |(pg, chunk): (PgId, ChunkId)| {
            let of = self.catalog.pg(pg);
            let disks = of.into_iter().flat_map(|of| of.configuration.in_sync());
            disks
                .map(|disk| self.shelves[&disk].kept().pg(pg))
                .all(|kept| kept.has_data(chunk))
        };
        self.places_of(volume, sectors)
            .all(is_there)
            .then_some(newest)
    }
}

impl World {
    /// The same of a request that is asked now. One that gives chunks back may come in between, whichever of the two is asked first: then nothing is said of
    /// the other.
    pub(super) fn takes_none(
        &mut self,
        kind: RequestKind,
        volume: VolumeId,
        sectors: &Range<u64>,
    ) -> Option<LayerId> {
        let gives_back = |kind| matches!(kind, RequestKind::WriteZeroes | RequestKind::Discard);
        let (mut meets, own) = (false, chunks(sectors));
        for asked in self.requests.values_mut() {
            let others = chunks(&asked.sectors);
            if asked.volume == volume && own.clone().any(|own| others.clone().any(|of| of == own)) {
                meets |= gives_back(asked.kind);
                if gives_back(kind) {
                    asked.takes_none = None;
                }
            }
        }
        match meets {
            true => None,
            false => self.takes_no_space(volume, sectors),
        }
    }
}

fn chunks(sectors: &Range<u64>) -> impl Iterator<Item = ChunkNo> + Clone + use<> {
    let of_chunk = CHUNK / SECTOR;
    (sectors.start / of_chunk..sectors.end.div_ceil(of_chunk)).map(ChunkNo)
}
