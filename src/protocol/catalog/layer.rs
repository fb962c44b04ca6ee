//! Commands about layers: snapshots and clones.
//!
//! A snapshot gives the newest layer a name and puts a new one over it. The snapshot has been taken when the layer is *frozen*, which is said by
//! who owns the volume's range, under the epoch of its turn: it has switched, and nothing is in flight below (R21). Until then the layer is
//! *cutting*. Where nobody owns the range, and the last turn left nothing in flight, there is nothing to wait for. Where it may have left
//! something, somebody takes a turn to recover that: see [`Catalog::who_freezes`].
//!
//! A clone is a volume whose first layer lies over a snapshot of another. Its family is that of the other, and with it the map
//! from extents to PGs: what falls through to a layer below is on the same disks.
//!
//! A snapshot that is deleted loses its name at once; its layer goes when the stores have merged it into the one above.

use super::range::Left;
use super::state::{Layer, LayerState, Snapshot, Volume, VolumeState};
use super::volume::{no_volume, not_ready};
use super::{Catalog, Code, Event, LAYERS_MAX, Refusal, check_name};
use crate::base::{Epoch, LayerId, NodeId, VolumeId};

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
        if let Some(layer) = volume.cutting() {
            // One at a time: below the two layers that writes are in flight in, everything stays as it is.
            let reason = format!("a snapshot of {name} is being taken: its layer {layer}");
            let hint = "wait until that is frozen, as `sarsen volume show` says";
            return Err(Refusal::conflict("name", reason, hint));
        }
        let (id, layer) = (volume.id, LayerId(self.next.layer));
        let state = match self.range(id) {
            None => LayerState::Frozen,
            Some(range) if range.owner.is_none() && range.left == Left::Settled => {
                LayerState::Frozen
            }
            Some(_) => LayerState::Cutting,
        };
        self.next.layer += 1;
        self.change(id, |volume| {
            let newest = volume.layers.last_mut();
            let parent = newest.map(|newest| {
                newest.state = state;
                newest.id
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

    /// The owner of a volume's range has switched to the layer above, and nothing is in flight below.
    pub(super) fn freeze_layer(
        &mut self,
        id: VolumeId,
        layer: LayerId,
        (node, epoch): (NodeId, Epoch),
    ) -> Result<Vec<Event>, Refusal> {
        let volume = self.volume(id).ok_or_else(|| no_volume(id))?;
        if volume.cutting() != Some(layer) {
            let reason = format!("no snapshot of {} waits for layer {layer}", volume.name);
            let hint = "`sarsen volume show` lists its layers";
            return Err(Refusal::conflict("layer", reason, hint));
        }
        // Who was its owner may still write to it: it has not heard of the snapshot, or not of its successor.
        self.check_owner(id, node, epoch)?;
        self.change(id, Volume::freeze)
    }

    /// Who takes a turn at a volume because a layer of it is to be frozen, and for nothing else. Where nobody has it attached, the node of the first
    /// replica that is in sync: if that node is gone, another one is first soon. Where it is attached, its own node takes a turn anyway;
    /// where it is shared, nodes do that when something is asked, so the first of them does.
    pub fn who_freezes(&self, volume: &Volume) -> Option<NodeId> {
        volume.cutting()?;
        if volume.state != VolumeState::Ready {
            return None;
        }
        if let (Some(first), _) = self.attachments_of(volume.id) {
            return self.is_shared(volume).then_some(first.node);
        }
        let pg = self.pg(*self.pgs_of_volume(volume).first()?)?;
        let disk = pg.configuration.in_sync().next()?;
        self.disk(disk).map(|disk| disk.node)
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
        let is_frozen = volume.layers[at].state == LayerState::Frozen;
        if is_named || !is_frozen || self.clones_over(volume, layer) > 0 {
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
        if volume.cutting() == Some(layer) {
            let reason = format!("{name}@{snapshot} is still being taken");
            return Err(Refusal::conflict(
                "snapshot",
                reason,
                "try again in a moment",
            ));
        }
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

impl Volume {
    /// The layer that a snapshot is being taken of.
    pub fn cutting(&self) -> Option<LayerId> {
        let below = self.layers.iter().rev().nth(1)?;
        (below.state == LayerState::Cutting).then_some(below.id)
    }

    /// The snapshot has been taken.
    pub(super) fn freeze(&mut self) {
        if let Some(below) = self.layers.iter_mut().rev().nth(1) {
            below.state = LayerState::Frozen;
        }
    }
}

fn check_snapshot_name(name: &str) -> Result<(), Refusal> {
    check_name("snapshot", name).map_err(|refusal| Refusal {
        field: "snapshot".into(),
        ..refusal
    })
}
