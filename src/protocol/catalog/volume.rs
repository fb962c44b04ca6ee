//! Commands about volumes: from creation, through import and resize, to the last byte given back.

use super::state::{ImportMark, Layer, LayerState, Pool, Volume, VolumeState};
use super::{
    Catalog, Code, DEFAULT_POOL, Event, Purpose, Refusal, VOLUME_BYTES_MAX, VOLUMES_MAX, check_name,
};
use crate::base::{BLOCK, FamilyId, LayerId, SECTOR, VolumeId};

impl Catalog {
    pub(super) fn create_volume(
        &mut self,
        name: &str,
        size: u64,
        block_size: u32,
        purpose: Purpose,
    ) -> Result<Vec<Event>, Refusal> {
        check_name("volume", name)?;
        if let Some(other) = self.volumes.values().find(|volume| volume.name == name) {
            return Err(name_taken(other));
        }
        check_block_size(block_size)?;
        check_size(size, block_size)?;
        if self.volumes.len() == VOLUMES_MAX {
            let reason = format!("there are {VOLUMES_MAX} volumes already");
            return Err(Refusal::new(
                Code::Exhausted,
                "name",
                reason,
                "delete one that is not used",
            ));
        }
        let pool = self.pool_with_room(size)?.id;
        let volume = Volume {
            id: VolumeId(self.next.volume),
            name: name.into(),
            pool,
            family: FamilyId(self.next.family),
            size,
            block_size,
            state: match purpose {
                Purpose::Import => VolumeState::Importing {
                    mark: ImportMark::default(),
                },
                Purpose::Use | Purpose::Bench => VolumeState::Ready,
            },
            bench: purpose == Purpose::Bench,
            layers: vec![Layer {
                id: LayerId(self.next.layer),
                parent: None,
                state: LayerState::Writable,
            }],
            pgs: self.pgs.values().filter(|pg| pg.pool == pool).count() as u32,
        };
        self.next.volume += 1;
        self.next.family += 1;
        self.next.layer += 1;
        self.volumes.insert(volume.id, volume.clone());
        Ok(vec![Event::VolumeCreated { volume }])
    }

    pub(super) fn resize_volume(&mut self, name: &str, size: u64) -> Result<Vec<Event>, Refusal> {
        let volume = self.volume_named(name)?;
        if volume.state != VolumeState::Ready {
            return Err(not_ready(volume));
        }
        check_size(size, volume.block_size)?;
        if size < volume.size {
            let reason = format!(
                "{name} has {} bytes, and a volume cannot shrink",
                volume.size
            );
            let hint = "create a smaller volume and copy what is needed";
            return Err(Refusal::invalid("size", reason, hint));
        }
        let (id, more) = (volume.id, size - volume.size);
        self.pool_with_room(more)?;
        self.change(id, |volume| volume.size = size)
    }

    pub(super) fn record_import(
        &mut self,
        id: VolumeId,
        mark: ImportMark,
    ) -> Result<Vec<Event>, Refusal> {
        let (volume, before) = self.importing(id)?;
        if mark.through < before.through || mark.through > volume.size {
            let reason = format!(
                "{} is not in {}..={}",
                mark.through, before.through, volume.size
            );
            return Err(Refusal::invalid("mark", reason, "an import only goes on"));
        }
        self.change(id, |volume| volume.state = VolumeState::Importing { mark })
    }

    pub(super) fn finish_import(&mut self, id: VolumeId) -> Result<Vec<Event>, Refusal> {
        self.importing(id)?;
        self.change(id, |volume| volume.state = VolumeState::Ready)
    }

    pub(super) fn delete_volume(
        &mut self,
        name: &str,
        connections: u64,
    ) -> Result<Vec<Event>, Refusal> {
        let volume = self.volume_named(name)?;
        if connections > 0 {
            let reason = format!("{name} is connected: {connections} client(s) use it");
            return Err(Refusal::conflict(
                "name",
                reason,
                "disconnect the clients first",
            ));
        }
        self.may_delete(volume)?;
        let id = volume.id;
        self.change(id, |volume| volume.state = VolumeState::Deleting)
    }

    /// Refuses the deletion of a volume that is attached.
    pub fn may_delete(&self, volume: &Volume) -> Result<(), Refusal> {
        let Some(wanted) = self.attachments.get(&volume.id) else {
            return Ok(());
        };
        let (name, node) = (&volume.name, wanted.node);
        let reason = format!("{name} is attached to node {node}: {}", wanted.front_end);
        Err(Refusal::conflict("name", reason, "detach it first"))
    }

    pub(super) fn forget_volume(&mut self, id: VolumeId) -> Result<Vec<Event>, Refusal> {
        let volume = self.volume(id).ok_or_else(|| no_volume(id))?;
        if volume.state != VolumeState::Deleting {
            let reason = format!("{} is not being deleted", volume.name);
            return Err(Refusal::conflict("volume", reason, "delete it first"));
        }
        self.volumes.remove(&id);
        Ok(vec![Event::VolumeForgotten { volume: id }])
    }

    fn change(
        &mut self,
        id: VolumeId,
        change: impl FnOnce(&mut Volume),
    ) -> Result<Vec<Event>, Refusal> {
        let volume = self.volumes.get_mut(&id).ok_or_else(|| no_volume(id))?;
        change(volume);
        Ok(vec![Event::VolumeChanged {
            volume: volume.clone(),
        }])
    }

    fn importing(&self, id: VolumeId) -> Result<(&Volume, ImportMark), Refusal> {
        let volume = self.volume(id).ok_or_else(|| no_volume(id))?;
        match volume.state {
            VolumeState::Importing { mark } => Ok((volume, mark)),
            VolumeState::Ready | VolumeState::Deleting => {
                let reason = format!("{} is not being imported", volume.name);
                Err(Refusal::conflict(
                    "volume",
                    reason,
                    "import into a new volume",
                ))
            }
        }
    }

    /// The pool, where `more` bytes may still be promised out of it.
    fn pool_with_room(&self, more: u64) -> Result<&Pool, Refusal> {
        let Some(pool) = self.pool_named(DEFAULT_POOL) else {
            return Err(Refusal::not_found(
                "pool",
                "there is no pool",
                "add a disk first",
            ));
        };
        let capacity = self.capacity(pool.id);
        if capacity == 0 {
            let reason = format!("the pool {} has no disk", pool.name);
            let hint = "add one: sarsen disk add PATH";
            return Err(Refusal::new(Code::Exhausted, "size", reason, hint));
        }
        let limit = u128::from(capacity) * u128::from(pool.overcommit_percent) / 100;
        let promised = u128::from(self.promised(pool.id)) + u128::from(more);
        if promised > limit {
            let reason = format!(
                "volumes of {promised} bytes would be promised, of at most {limit} ({} % of {capacity})",
                pool.overcommit_percent
            );
            let hint = "add a disk, or raise overcommit_percent in the configuration";
            return Err(Refusal::new(Code::Exhausted, "size", reason, hint));
        }
        Ok(pool)
    }
}

fn check_block_size(block_size: u32) -> Result<(), Refusal> {
    if [SECTOR, BLOCK].contains(&u64::from(block_size)) {
        return Ok(());
    }
    let reason = format!("blocks of {block_size} bytes are not served");
    Err(Refusal::invalid("block_size", reason, "use 512 or 4096"))
}

fn check_size(size: u64, block_size: u32) -> Result<(), Refusal> {
    let reason = if size == 0 {
        "a volume cannot be empty".into()
    } else if size > VOLUME_BYTES_MAX {
        format!("{size} bytes are more than a volume can have")
    } else if !size.is_multiple_of(u64::from(block_size)) {
        format!("{size} bytes are not a multiple of the block size {block_size}")
    } else {
        return Ok(());
    };
    let hint = "a size is a multiple of the block size, up to 16 PiB";
    Err(Refusal::invalid("size", reason, hint))
}

fn name_taken(other: &Volume) -> Refusal {
    let (reason, hint) = match other.state {
        VolumeState::Ready => ("exists already", "choose another name, or delete it first"),
        VolumeState::Importing { .. } => (
            "is being imported",
            "import into it again to go on, or delete it first",
        ),
        VolumeState::Deleting => ("is still being deleted", "try again in a moment"),
    };
    Refusal::new(
        Code::Exists,
        "name",
        format!("the volume {} {reason}", other.name),
        hint,
    )
}

pub(super) fn not_ready(volume: &Volume) -> Refusal {
    let (reason, hint) = match volume.state {
        VolumeState::Importing { .. } => ("is being imported", "finish the import or delete it"),
        VolumeState::Ready | VolumeState::Deleting => ("is being deleted", "create a new volume"),
    };
    Refusal::conflict("name", format!("the volume {} {reason}", volume.name), hint)
}

pub(super) fn no_volume(id: VolumeId) -> Refusal {
    let hint = "`sarsen volume list` shows what there is";
    Refusal::not_found(
        "volume",
        format!("there is no volume with the id {id}"),
        hint,
    )
}
