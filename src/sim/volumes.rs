//! The volumes of a run as a catalog would keep them: what outlives the node.
//!
//! A change is decided here first and then told to the shard, as the real catalog does, so after a power cut
//! the volumes are opened with what was decided, whether the shard had heard of it or not.

use crate::base::{CHUNK, DiskId, FamilyId, LayerId, PgId, VolumeId};
use crate::store::{LayerMeta, VolumeMeta};
use std::collections::BTreeSet;
use std::ops::Range;

/// One volume.
#[derive(Debug, Clone)]
pub struct Volume {
    pub meta: VolumeMeta,
    pub pgs: Vec<(PgId, DiskId)>,
    /// Its number in the model.
    pub model: usize,
    /// Takes requests.
    pub open: bool,
    /// How long it is for those who ask: less than in `meta` while a resize is under way.
    pub served: u64,
    /// A control operation of it is under way.
    pub busy: bool,
    /// Is being dropped: requests may be refused.
    pub dropping: bool,
    /// Dropped, and nothing is left.
    pub gone: bool,
}

impl Volume {
    pub fn writable(&self) -> bool {
        self.meta.layers.last().is_some_and(|layer| !layer.frozen)
    }

    pub fn layers(&self) -> Vec<LayerId> {
        self.meta.layers.iter().map(|layer| layer.id).collect()
    }

    /// Whether requests may be sent.
    pub fn serves(&self) -> bool {
        self.open && !self.dropping && !self.gone
    }

    /// Whether a control operation may be sent.
    pub fn at_ease(&self) -> bool {
        self.serves() && !self.busy
    }
}

/// All volumes that there ever were.
#[derive(Debug, Clone, Default)]
pub struct Volumes {
    pub list: Vec<Volume>,
    next: u64,
    /// Chunks that layers may have of their own.
    chunks: BTreeSet<(LayerId, u64)>,
}

impl Volumes {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A new, empty volume with a family of its own.
    pub fn create(&mut self, model: usize, bytes: u64, pgs: Vec<(PgId, DiskId)>) -> usize {
        let id = VolumeId(self.number());
        let top = self.new_layer(None);
        let family = FamilyId(self.number());
        self.add(id, family, bytes, vec![top], pgs, model)
    }

    /// A volume over the frozen layers of another. Without a layer of its own it is a snapshot.
    pub fn branch(&mut self, source: usize, bytes: u64, model: usize, own_layer: bool) -> usize {
        let Volume { meta, pgs, .. } = self.list[source].clone();
        let mut layers = meta.layers;
        layers.pop();
        if own_layer {
            let parent = layers.last().map(|layer| layer.id);
            layers.push(self.new_layer(parent));
        }
        let id = VolumeId(self.number());
        self.add(id, meta.family, bytes, layers, pgs, model)
    }

    fn add(
        &mut self,
        id: VolumeId,
        family: FamilyId,
        size: u64,
        layers: Vec<LayerMeta>,
        pgs: Vec<(PgId, DiskId)>,
        model: usize,
    ) -> usize {
        self.list.push(Volume {
            meta: VolumeMeta {
                id,
                family,
                name: format!("volume-{id}"),
                size,
                layers,
            },
            pgs,
            model,
            open: false,
            served: size,
            busy: false,
            dropping: false,
            gone: false,
        });
        self.list.len() - 1
    }

    fn new_layer(&mut self, parent: Option<LayerId>) -> LayerMeta {
        LayerMeta {
            id: LayerId(self.number()),
            parent,
            frozen: false,
        }
    }

    /// Freezes a volume's top layer and starts another.
    pub fn freeze(&mut self, volume: usize) {
        let parent = self.list[volume].meta.layers.last().map(|layer| layer.id);
        let layer = self.new_layer(parent);
        let layers = &mut self.list[volume].meta.layers;
        if let Some(top) = layers.last_mut() {
            top.frozen = true;
        }
        layers.push(layer);
    }

    /// The volumes that exist.
    pub fn living(&self) -> impl Iterator<Item = (usize, &Volume)> {
        self.list
            .iter()
            .enumerate()
            .filter(|(_, volume)| !volume.gone)
    }

    /// A write may take slots.
    pub fn wrote(&mut self, volume: usize, range: &Range<u64>) {
        // It may land in the layer that a snapshot has just frozen, too.
        let layers = &self.list[volume].meta.layers;
        let busy = self.list[volume].busy;
        for layer in layers.iter().rev().take(1 + usize::from(busy)) {
            let chunks = range.start / CHUNK..range.end.div_ceil(CHUNK);
            self.chunks.extend(chunks.map(|chunk| (layer.id, chunk)));
        }
    }

    /// A volume is gone: the layers that no other has hold nothing any more.
    pub fn dropped(&mut self, volume: usize) {
        self.list[volume].gone = true;
        self.list[volume].open = false;
        let living: BTreeSet<LayerId> = self
            .living()
            .flat_map(|(_, other)| other.layers())
            .collect();
        self.chunks.retain(|(layer, _)| living.contains(layer));
    }

    /// The most chunks that may be in use.
    pub fn chunks_max(&self) -> u64 {
        self.chunks.len() as u64
    }

    /// The node is gone: nothing is open.
    pub fn power_cut(&mut self) {
        for volume in &mut self.list {
            volume.open = false;
            volume.busy = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_shares_the_frozen_layers_and_their_chunks_live_as_long_as_either() {
        let mut volumes = Volumes::default();
        let first = volumes.create(0, 1 << 20, vec![(PgId(0), DiskId(0))]);
        volumes.wrote(first, &(0..CHUNK));
        volumes.freeze(first);
        let second = volumes.branch(first, 1 << 20, 1, true);
        volumes.wrote(second, &(CHUNK - 1..CHUNK + 1));
        assert_eq!(
            volumes.list[first].layers()[0],
            volumes.list[second].layers()[0]
        );
        assert_ne!(
            volumes.list[first].layers()[1],
            volumes.list[second].layers()[1]
        );
        assert_eq!(volumes.chunks_max(), 3);
        volumes.dropped(first);
        assert_eq!(volumes.chunks_max(), 3);
        volumes.dropped(second);
        assert_eq!(volumes.chunks_max(), 0);
    }
}
