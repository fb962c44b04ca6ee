//! Damage: what strikes, and how it is found.

use super::atlas::Strike;
use super::coverage::Fault;
use super::world::World;
use crate::base::DiskId;

impl World {
    /// Damages what is on a disk that may be reached, where another disk that is in sync has the same, and may be reached too.
    pub(super) fn damage(&mut self, disk: DiskId, fault: Fault, pick: u64) {
        // Who speaks the older version cannot be asked for what is lost: until it is upgraded, the next failure would be the second one.
        if self.versions.are_mixed() {
            return;
        }
        let shelf = &self.shelves[&disk];
        let Some((pg, chunk, block)) = shelf.any_data(pick) else {
            return;
        };
        let blocks = match fault {
            Fault::Rot => 1 << block,
            _ => shelf.data_of(pg, chunk),
        };
        let strike = Strike::Damage { disk, pg, chunk };
        let Some(of) = self.catalog.pg(pg) else {
            return;
        };
        let has_it = |other: &DiskId| {
            *other != disk
                && self.atlas.is_reached(pg, *other)
                && self.shelves[other].has_the_same(shelf, (pg, chunk), blocks)
        };
        // While it is away its damage is not mended, and the others may come to differ and be taken out: two failures at once.
        let is_mended_soon = self.atlas.is_reached(pg, disk);
        let is_elsewhere = of.configuration.in_sync().any(|it| has_it(&it));
        if self.atlas.may(&strike).is_err() || !is_mended_soon || !is_elsewhere {
            return;
        }
        self.atlas.struck(&strike);
        let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
        match fault {
            Fault::Rot => shelf.rot(pg, chunk, block),
            _ => shelf.fail_chunk(pg, chunk),
        };
    }

    /// What a disk has found damaged is told to its node, if that runs; and what is mended to the atlas.
    pub(super) fn look_at_damage(&mut self, disk: DiskId) {
        let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
        let found = shelf.take_found();
        for (pg, chunk) in self.atlas.damaged_on(disk) {
            if !shelf.is_damaged(pg, chunk) {
                self.atlas.mended(disk, pg, chunk);
                self.counts.mended += 1;
            }
        }
        if found.is_empty() {
            return;
        }
        let has_it = |(_, place): &(&_, &super::world::Place)| place.disks.contains(&disk);
        let Some(id) = self.places.iter().find(has_it).map(|(id, _)| *id) else {
            return;
        };
        let now = self.clocks.at(id, self.now);
        let place = self.places.get_mut(&id).expect("nodes stay");
        if let Some(node) = &mut place.node
            && !place.is_paused
        {
            node.on_damaged(now, (disk, found), &self.shelves, &mut self.buffers);
            self.take_effects(id);
        }
    }
}
