//! The volumes that a store has parts of, and which layer lies over which.

use super::door::{StoreError, VolumeMeta};
use super::root::{NAME_BYTES_MAX, has_a_chain, volume_len};
use crate::base::{FamilyId, FixedMap, LayerId, VolumeId};
use std::collections::BTreeMap;

/// A layer, with the chain that it lies on.
#[derive(Debug)]
pub(super) struct Layer {
    pub family: FamilyId,
    pub frozen: bool,
    /// The chain from the oldest ancestor to the layer itself.
    pub chain: Vec<LayerId>,
}

impl Layer {
    /// Whether anything lies under it.
    pub fn has_parent(&self) -> bool {
        self.chain.len() > 1
    }

    /// How far `other` is from the oldest ancestor, where it is on the chain.
    pub fn depth_of(&self, other: LayerId) -> Option<usize> {
        // Ids grow along a chain, because an id is never used again.
        self.chain.binary_search(&other).ok()
    }
}

/// All volumes and layers that are alive. What a table page holds of another layer is garbage.
#[derive(Debug)]
pub(super) struct Layers {
    pub volumes: BTreeMap<VolumeId, VolumeMeta>,
    layers: FixedMap<LayerId, Layer>,
    bytes: u64,
    /// Bytes that a root has room for.
    room: u64,
}

impl Layers {
    pub fn new(volumes: BTreeMap<VolumeId, VolumeMeta>, room: u64) -> Layers {
        let mut all = Layers {
            volumes,
            layers: FixedMap::default(),
            bytes: 0,
            room,
        };
        all.rebuild();
        all
    }

    pub fn get(&self, layer: LayerId) -> Option<&Layer> {
        self.layers.get(&layer)
    }

    /// Whether a layer is alive and belongs to `family`.
    pub fn has(&self, layer: LayerId, family: FamilyId) -> bool {
        self.get(layer).is_some_and(|found| found.family == family)
    }

    pub fn is_alive(&self, layer: LayerId) -> bool {
        self.layers.contains_key(&layer)
    }

    /// Whether the volume may be recorded: it makes sense, and there is room.
    pub fn check(&self, volume: &VolumeMeta) -> Result<(), StoreError> {
        let sane = volume.name.len() <= NAME_BYTES_MAX && has_a_chain(volume);
        if !sane {
            return Err(StoreError::NoSuchLayer);
        }
        let old = self.volumes.get(&volume.id).map_or(0, volume_len) as u64;
        let new = self.bytes - old + volume_len(volume) as u64;
        if new > self.room {
            Err(StoreError::NoSpace)
        } else {
            Ok(())
        }
    }

    pub fn put(&mut self, volume: VolumeMeta) {
        self.volumes.insert(volume.id, volume);
        self.rebuild();
    }

    pub fn drop(&mut self, volume: VolumeId) {
        self.volumes.remove(&volume);
        self.rebuild();
    }

    fn rebuild(&mut self) {
        self.layers.clear();
        self.bytes = self
            .volumes
            .values()
            .map(|volume| volume_len(volume) as u64)
            .sum();
        for volume in self.volumes.values() {
            let mut chain = Vec::new();
            for layer in &volume.layers {
                chain.push(layer.id);
                let layer_is = Layer {
                    family: volume.family,
                    frozen: layer.frozen,
                    chain: chain.clone(),
                };
                self.layers.insert(layer.id, layer_is);
            }
        }
    }
}
