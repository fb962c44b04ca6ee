//! Commands about volumes: from creation, through import and resize, to the last byte given back.

use super::command::Locality;
use super::state::{
    ImportMark, Layer, LayerState, NbdClients, PoolId, Sharing, Volume, VolumeState,
};
use super::{
    CLIENTS_OF_VOLUME_MAX, Catalog, Code, DEFAULT_POOL, Event, IO_TIMEOUT_MAX, LOCAL_PGS_MAX,
    Purpose, Refusal, VOLUME_BYTES_MAX, VOLUMES_MAX, check_name,
};
use crate::base::{BLOCK, FamilyId, LayerId, NodeId, PgId, SECTOR, VolumeId};
use std::collections::BTreeSet;

/// A volume that is to be made.
pub(super) struct NewVolume<'a> {
    pub name: &'a str,
    pub size: u64,
    pub block_size: u32,
    pub purpose: Purpose,
    pub pool: Option<&'a str>,
    pub locality: Locality,
}

impl Catalog {
    pub(super) fn create_volume(&mut self, new: &NewVolume) -> Result<Vec<Event>, Refusal> {
        self.check_new_volume(new.name)?;
        check_block_size(new.block_size)?;
        check_size(new.size, new.block_size)?;
        let pool = self.pool_with_room(new.pool.unwrap_or(DEFAULT_POOL), new.size)?;
        let (pool, count) = (pool.id, self.pgs_open(pool.id));
        let on = match new.locality {
            Locality::Spread => Vec::new(),
            Locality::Local { home } => self.pgs_at(pool, home)?,
        };
        let volume = Volume {
            id: VolumeId(self.next.volume),
            name: new.name.into(),
            pool,
            family: FamilyId(self.next.family),
            size: new.size,
            block_size: new.block_size,
            state: match new.purpose {
                Purpose::Import => VolumeState::Importing {
                    mark: ImportMark::default(),
                },
                Purpose::Use | Purpose::Bench => VolumeState::Ready,
            },
            bench: new.purpose == Purpose::Bench,
            layers: vec![Layer {
                id: LayerId(self.next.layer),
                parent: None,
                state: LayerState::Writable,
            }],
            pgs: match on.is_empty() {
                true => count,
                false => on.len() as u32,
            },
            on,
            locality: new.locality,
            sharing: Sharing::Exclusive,
            io_timeout: None,
            clients: NbdClients::Nobody,
            snapshots: Vec::new(),
        };
        self.next.volume += 1;
        self.next.family += 1;
        self.next.layer += 1;
        self.put_volume(volume.clone());
        Ok(vec![Event::VolumeCreated { volume }])
    }

    /// Whether there is room for one more volume, of this name.
    pub(super) fn check_new_volume(&self, name: &str) -> Result<(), Refusal> {
        check_name("volume", name)?;
        if let Ok(other) = self.volume_named(name) {
            return Err(name_taken(other));
        }
        if self.volumes.len() >= VOLUMES_MAX {
            let reason = format!("there are {VOLUMES_MAX} volumes already");
            return Err(Refusal::new(
                Code::Exhausted,
                "name",
                reason,
                "delete one that is not used",
            ));
        }
        Ok(())
    }

    /// How many PGs of a pool new volumes hash over: all but those of a layout that is not complete.
    fn pgs_open(&self, pool: PoolId) -> u32 {
        let all = self.pgs_of(pool).len() as u32;
        let laid_out = self.pools[&pool].laid_out.filter(|&count| count > 0);
        laid_out.map_or(all, |count| count.min(all))
    }

    /// The PGs that a local volume hashes over: those with a replica on its home now. It keeps them, because where its data lies
    /// must not depend on what moves later. Of many an even choice: so many are enough to spread its load.
    fn pgs_at(&self, pool: PoolId, home: NodeId) -> Result<Vec<PgId>, Refusal> {
        self.known_node(home)?;
        let open = self.pgs_open(pool) as usize;
        let last = self.pgs_of(pool)[..open]
            .last()
            .copied()
            .unwrap_or_default();
        let disks = self.disks_of(home).filter(|disk| disk.pool == pool);
        let pgs: BTreeSet<PgId> = disks.flat_map(|disk| self.pgs_on(disk.id)).collect();
        let pgs: Vec<PgId> = pgs.into_iter().filter(|pg| *pg <= last).collect();
        if pgs.is_empty() {
            let reason = format!("no disk of node {home} has a part of the pool");
            let hint = "add a disk there, or make the volume spread";
            return Err(Refusal::conflict("locality", reason, hint));
        }
        let count = pgs.len().min(LOCAL_PGS_MAX);
        Ok((0..count).map(|at| pgs[at * pgs.len() / count]).collect())
    }

    pub(super) fn set_sharing(
        &mut self,
        name: &str,
        sharing: Sharing,
    ) -> Result<Vec<Event>, Refusal> {
        let volume = self.volume_named(name)?;
        if volume.state != VolumeState::Ready {
            return Err(not_ready(volume));
        }
        let id = volume.id;
        if let (Some(_), _) = self.attachments_of(id) {
            let reason = format!("{name} is attached");
            return Err(Refusal::conflict("name", reason, "detach it first"));
        }
        self.change(id, |volume| volume.sharing = sharing)
    }

    pub(super) fn set_io_timeout(
        &mut self,
        name: &str,
        seconds: Option<u32>,
    ) -> Result<Vec<Event>, Refusal> {
        let id = self.volume_named(name)?.id;
        if let Some(odd) = seconds.filter(|seconds| !(1..=IO_TIMEOUT_MAX).contains(seconds)) {
            let reason = format!("{odd} s is not from 1 s to {IO_TIMEOUT_MAX} s, which is a day");
            let hint = "without a time-out I/O waits for as long as it takes";
            return Err(Refusal::invalid("io_timeout", reason, hint));
        }
        self.change(id, |volume| volume.io_timeout = seconds)
    }

    /// The names need not be clients' yet: who is admitted later is on the list already.
    pub(super) fn set_clients(
        &mut self,
        name: &str,
        clients: &NbdClients,
    ) -> Result<Vec<Event>, Refusal> {
        let id = self.volume_named(name)?.id;
        if let NbdClients::Only(names) = clients {
            if !(1..=CLIENTS_OF_VOLUME_MAX).contains(&names.len()) {
                let reason = format!("{} names are not 1 to {CLIENTS_OF_VOLUME_MAX}", names.len());
                return Err(Refusal::invalid("clients", reason, "or say any, or none"));
            }
            names
                .iter()
                .try_for_each(|name| check_name("client", name))?;
            if !names.is_sorted_by(|one, next| one < next) {
                let reason = "the names are not in their order, each once";
                return Err(Refusal::invalid("clients", reason, "sort them"));
            }
        }
        let clients = clients.clone();
        self.change(id, |volume| volume.clients = clients)
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
        self.pool_with_room(&self.pools[&volume.pool].name, more)?;
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
        let name = &volume.name;
        if let Some(wanted) = self.attachments.get(&volume.id) {
            let node = wanted.node;
            let reason = format!("{name} is attached to node {node}: {}", wanted.front_end);
            return Err(Refusal::conflict("name", reason, "detach it first"));
        }
        if let Some(owner) = self.range(volume.id).and_then(|range| range.owner) {
            let reason = format!("{name} is in use on node {}", owner.node);
            return Err(Refusal::conflict("name", reason, "detach it first"));
        }
        if let Some(snapshot) = volume.snapshots.first() {
            let reason = format!("{name} has the snapshot {}", snapshot.name);
            return Err(Refusal::conflict(
                "name",
                reason,
                "delete its snapshots first",
            ));
        }
        match self.has_clones(volume) {
            true => {
                let reason = format!("clones lie over {name}");
                Err(Refusal::conflict("name", reason, "delete those first"))
            }
            false => Ok(()),
        }
    }

    pub(super) fn forget_volume(&mut self, id: VolumeId) -> Result<Vec<Event>, Refusal> {
        let volume = self.volume(id).ok_or_else(|| no_volume(id))?;
        if volume.state != VolumeState::Deleting {
            let reason = format!("{} is not being deleted", volume.name);
            return Err(Refusal::conflict("volume", reason, "delete it first"));
        }
        self.drop_volume(id);
        Ok(vec![Event::VolumeForgotten { volume: id }])
    }

    pub(super) fn change(
        &mut self,
        id: VolumeId,
        change: impl FnOnce(&mut Volume),
    ) -> Result<Vec<Event>, Refusal> {
        let mut volume = self.volume(id).ok_or_else(|| no_volume(id))?.clone();
        change(&mut volume);
        self.put_volume(volume.clone());
        Ok(vec![Event::VolumeChanged { volume }])
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
