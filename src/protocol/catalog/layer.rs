//! Commands about layers: snapshots and clones.
//!
//! A snapshot freezes the newest layer under a name and puts a new one over it (when the coordinator makes the cut is R21's, not
//! ours). A clone is a volume whose first layer lies over a snapshot of another. Its family is that of the other, and with it the map
//! from extents to PGs: what falls through to a layer below is on the same disks.
//!
//! A snapshot that is deleted loses its name at once; its layer goes when the stores have merged it into the one above.

use super::state::{Layer, LayerState, Snapshot, Volume, VolumeState};
use super::volume::{no_volume, not_ready};
use super::{Catalog, Code, Event, LAYERS_MAX, Refusal, check_name};
use crate::base::{LayerId, VolumeId};

impl Catalog {
    pub(super) fn snapshot_volume(
        &mut self,
        name: &str,
        snapshot: &str,
    ) -> Result<Vec<Event>, Refusal> {
        check_snapshot_name(snapshot)?;
        let volume = self.volume_named(name)?;
        if volume.state != VolumeState::Ready {
            return Err(not_ready(volume));
        }
        if volume.snapshots.iter().any(|other| other.name == snapshot) {
            let reason = format!("{name} has a snapshot named {snapshot:?} already");
            let hint = "give it another name";
            return Err(Refusal::new(Code::Exists, "snapshot", reason, hint));
        }
        if volume.layers.len() >= LAYERS_MAX {
            let reason = format!("{name} has {LAYERS_MAX} layers already");
            let hint = "delete snapshots, and wait until they are merged";
            return Err(Refusal::new(Code::Exhausted, "snapshot", reason, hint));
        }
        let (id, layer) = (volume.id, LayerId(self.next.layer));
        self.next.layer += 1;
        self.change(id, |volume| {
            let frozen = volume.layers.last_mut();
            let parent = frozen.map(|frozen| {
                frozen.state = LayerState::Frozen;
                frozen.id
            });
            if let Some(layer) = parent {
                volume.snapshots.push(Snapshot {
                    name: snapshot.into(),
                    layer,
                    size: volume.size,
                });
            }
            volume.layers.push(Layer {
                id: layer,
                parent,
                state: LayerState::Writable,
            });
        })
    }

    pub(super) fn delete_snapshot(
        &mut self,
        name: &str,
        snapshot: &str,
    ) -> Result<Vec<Event>, Refusal> {
        let (volume, at) = self.snapshot_named(name, snapshot)?;
        let (id, layer) = (volume.id, volume.snapshots[at].layer);
        if self.clones_over(volume, layer) > 0 {
            let reason = format!("clones lie over {name}@{snapshot}");
            return Err(Refusal::conflict("snapshot", reason, "delete those first"));
        }
        self.change(id, |volume| {
            volume.snapshots.remove(at);
        })
    }

    pub(super) fn forget_layer(
        &mut self,
        id: VolumeId,
        layer: LayerId,
    ) -> Result<Vec<Event>, Refusal> {
        let volume = self.volume(id).ok_or_else(|| no_volume(id))?;
        let found = volume.layers.iter().position(|one| one.id == layer);
        let Some(at) = found else {
            let reason = format!("{} has no layer {layer}", volume.name);
            let hint = "`sarsen volume show` lists its layers";
            return Err(Refusal::not_found("layer", reason, hint));
        };
        let is_named = volume.snapshots.iter().any(|one| one.layer == layer);
        let is_newest = at + 1 == volume.layers.len();
        if is_named || is_newest || self.clones_over(volume, layer) > 0 {
            let reason = format!("the layer {layer} of {} is in use", volume.name);
            let hint = "a layer goes when its snapshot and all clones over it are deleted";
            return Err(Refusal::conflict("layer", reason, hint));
        }
        self.change(id, |volume| {
            let gone = volume.layers.remove(at);
            volume.layers[at].parent = gone.parent;
        })
    }

    pub(super) fn clone_volume(
        &mut self,
        name: &str,
        snapshot: &str,
        clone: &str,
    ) -> Result<Vec<Event>, Refusal> {
        self.check_new_volume(clone).map_err(|refusal| Refusal {
            field: "clone".into(),
            ..refusal
        })?;
        let (volume, at) = self.snapshot_named(name, snapshot)?;
        let Snapshot { layer, size, .. } = volume.snapshots[at];
        self.pool_with_room(&self.pools[&volume.pool].name, size)?;
        let clone = Volume {
            id: VolumeId(self.next.volume),
            name: clone.into(),
            size,
            bench: false,
            layers: vec![Layer {
                id: LayerId(self.next.layer),
                parent: Some(layer),
                state: LayerState::Writable,
            }],
            snapshots: Vec::new(),
            ..volume.clone()
        };
        self.next.volume += 1;
        self.next.layer += 1;
        self.put_volume(clone.clone());
        Ok(vec![Event::VolumeCreated { volume: clone }])
    }

    /// A volume that is ready, and the place of a snapshot of it.
    fn snapshot_named(&self, name: &str, snapshot: &str) -> Result<(&Volume, usize), Refusal> {
        let volume = self.volume_named(name)?;
        if volume.state != VolumeState::Ready {
            return Err(not_ready(volume));
        }
        let at = volume.snapshots.iter().position(|one| one.name == snapshot);
        let at = at.ok_or_else(|| {
            let reason = format!("{name} has no snapshot named {snapshot:?}");
            let hint = "`sarsen volume show` lists its snapshots";
            Refusal::not_found("snapshot", reason, hint)
        })?;
        Ok((volume, at))
    }

    /// How many layers of other volumes lie over a layer of this one.
    fn clones_over(&self, volume: &Volume, layer: LayerId) -> u32 {
        let own = volume.layers.iter().filter(|one| one.parent == Some(layer));
        let all = self.index.children.get(&layer).copied().unwrap_or(0);
        all - own.count() as u32
    }

    pub(super) fn has_clones(&self, volume: &Volume) -> bool {
        let layers = volume.layers.iter();
        layers
            .map(|layer| layer.id)
            .any(|layer| self.clones_over(volume, layer) > 0)
    }
}

fn check_snapshot_name(name: &str) -> Result<(), Refusal> {
    check_name("snapshot", name).map_err(|refusal| Refusal {
        field: "snapshot".into(),
        ..refusal
    })
}
