//! Snapshots in a run: they are asked for under load, and judged when they are answered and ever after (R21).
//!
//! A snapshot is answered when the manager has recorded that its layer is frozen. What it holds then is one more read of the whole volume, by a
//! client of its own (`checkers/linearizable.rs`); and from then on all in-sync copies of the layer stay equal (`checkers/frozen.rs`).

use super::checkers::Failure;
use super::checkers::frozen::{Frozen, digest, view};
use super::contents::SECTORS;
use super::world::World;
use crate::base::{DiskId, LayerId, PgId, VolumeId};
use crate::protocol::catalog::{Command, LayerState, Volume};
use crate::sim::register::Tick;
use std::collections::BTreeMap;

/// Snapshots of one volume in a run; each costs a reader a layer more.
const SNAPSHOTS_MAX: usize = 24;

/// What is known of the snapshots of a run.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// When each was asked for, by its name; they are numbered.
    asked: BTreeMap<String, Tick>,
    count: u64,
    frozen: Frozen,
    /// The layers that are frozen, with their volumes.
    layers: BTreeMap<LayerId, VolumeId>,
}

impl World {
    /// An operator asks for a snapshot of a volume.
    pub(super) fn snapshot_volume(&mut self, volume: VolumeId) {
        let Some(of) = self.catalog.volume(volume) else {
            return;
        };
        if of.layers.len() >= SNAPSHOTS_MAX {
            return;
        }
        let name = of.name.clone();
        self.snapshots.count += 1;
        let snapshot = format!("snapshot-{}", self.snapshots.count);
        let asked = self.judges.histories.tick();
        self.snapshots.asked.insert(snapshot.clone(), asked);
        self.operate(Command::SnapshotVolume { name, snapshot });
    }

    /// A volume has changed: a snapshot of it may have been taken.
    pub(super) fn look_at_layers(&mut self, volume: &Volume) -> Result<(), Failure> {
        for layer in &volume.layers {
            let is_new = layer.state == LayerState::Frozen
                && self.snapshots.layers.insert(layer.id, volume.id).is_none();
            if is_new {
                self.counts.snapshots += 1;
                self.judge_layer(layer.id, volume.id)?;
                self.read_snapshot(volume, layer.id);
            }
        }
        Ok(())
    }

    /// What a snapshot holds, as a read that began when it was asked for and has ended now. Where all copies of a part are on disks that are not what
    /// they were, nothing can be said.
    fn read_snapshot(&mut self, volume: &Volume, layer: LayerId) {
        let snapshot = volume.snapshots.iter().find(|one| one.layer == layer);
        let asked = snapshot.and_then(|one| self.snapshots.asked.get(&one.name));
        let Some(&asked) = asked else {
            return;
        };
        let chain = chain(volume, layer);
        let mut values = BTreeMap::new();
        for &pg in self.catalog.pgs_of_volume(volume) {
            let Some(disk) = self.copies(pg).next() else {
                return;
            };
            let kept = self.shelves[&disk].kept();
            let of_family = view(kept, pg, &chain).into_iter();
            let of_family = of_family.filter(|((family, _), _)| *family == volume.family);
            for ((_, block), value) in of_family {
                let sectors = self.buffers.contents.sectors(value);
                values.extend((block * SECTORS..).zip(sectors));
            }
        }
        self.judges.histories.snapshot(volume.id, asked, &values);
    }

    /// The in-sync copies of a PG whose disks are what the manager takes them for.
    fn copies(&self, pg: PgId) -> impl Iterator<Item = DiskId> + '_ {
        let of = self.catalog.pg(pg).into_iter();
        let in_sync = of.flat_map(|pg| pg.configuration.in_sync());
        in_sync.filter(move |disk| {
            let recorded = self.catalog.disk(*disk).map(|disk| disk.incarnation.0);
            let shelf = &self.shelves[disk];
            recorded == Some(shelf.kept().recorded)
                && self.atlas.is_there(pg, *disk)
                && !shelf.is_gone()
        })
    }

    fn judge_layer(&mut self, layer: LayerId, volume: VolumeId) -> Result<(), Failure> {
        let Some(of) = self.catalog.volume(volume) else {
            return Ok(());
        };
        let chain = chain(of, layer);
        for &pg in self.catalog.pgs_of_volume(of) {
            let copies: Vec<DiskId> = self.copies(pg).collect();
            for disk in copies {
                let digest = digest(self.shelves[&disk].kept(), pg, &chain);
                self.snapshots.frozen.judge(layer, pg, disk, digest)?;
            }
        }
        Ok(())
    }

    /// Judges every layer that is frozen.
    pub(super) fn judge_frozen(&mut self) -> Result<(), Failure> {
        for (layer, volume) in self.snapshots.layers.clone() {
            self.judge_layer(layer, volume)?;
        }
        Ok(())
    }
}

/// A layer of a volume and all below it, from the oldest on. There are no clones here.
fn chain(volume: &Volume, layer: LayerId) -> Vec<LayerId> {
    let layers = volume.layers.iter().map(|of| of.id);
    layers.take_while(|id| *id <= layer).collect()
}
