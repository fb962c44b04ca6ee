//! The catalog and the node in the API's words.

use super::cluster::name_of;
use super::health::Health;
use super::pools::Look;
use super::{Host, Phase, lock};
use crate::api::model::{
    AlertList, Attachment, AttachmentState, Disk, DiskList, ErrorBody, ErrorCode, ImportState,
    Layer, NbdClients, NodeList, NodeStatus, Status, Volume, VolumeList, VolumeState, crc_text,
};
use crate::base::DiskId;
use crate::protocol::catalog::{self, Catalog, DiskState, LayerState, PoolId, Refusal, Sharing};
use std::collections::BTreeMap;

impl Host {
    pub fn volumes(&self) -> VolumeList {
        let catalog = self.manager().catalog();
        let looked = self.look_at_pgs(&catalog);
        let mut volumes: Vec<Volume> = catalog
            .volumes()
            .map(|volume| self.view_volume(&catalog, &looked, volume))
            .collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        VolumeList { volumes }
    }

    pub fn volume(&self, name: &str) -> Result<Volume, ErrorBody> {
        let catalog = self.manager().catalog();
        let looked = self.look_at_pgs(&catalog);
        Ok(self.view_volume(&catalog, &looked, catalog.volume_named(name)?))
    }

    pub fn disks(&self) -> DiskList {
        let catalog = self.manager().catalog();
        let disks = catalog.disks().map(|disk| self.view_disk(&catalog, disk));
        DiskList {
            disks: disks.collect(),
        }
    }

    pub fn disk(&self, id: DiskId) -> Result<Disk, ErrorBody> {
        let catalog = self.manager().catalog();
        let disk = catalog.disk(id).ok_or_else(|| no_disk(id))?;
        Ok(self.view_disk(&catalog, disk))
    }

    pub fn nodes(&self) -> NodeList {
        let catalog = self.manager().catalog();
        let this = catalog
            .nodes()
            .find(|node| node.id == self.inner.parts.node);
        let node = |node: &catalog::Node| NodeStatus {
            name: node.name.clone(),
            pid: std::process::id(),
            state: match self.phase() {
                Phase::Starting => "starting",
                Phase::Serving => "serving",
                Phase::Stopping => "stopping",
            }
            .into(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.inner.started.elapsed().as_secs(),
            shards: self.runtime().shards() as u32,
        };
        NodeList {
            nodes: this.map(node).into_iter().collect(),
        }
    }

    pub fn status(&self) -> Status {
        let catalog = self.manager().catalog();
        let connections = |volume: &catalog::Volume| self.runtime().connections(volume.id) as u64;
        let disks = catalog.disks().map(|disk| self.view_disk(&catalog, disk));
        let looked = self.look_at_pgs(&catalog);
        let lacks = |volume: &catalog::Volume| {
            let look = looked.get(&volume.pool);
            look.is_some_and(|look| look.of_volume(&catalog, volume).lacking() > 0)
        };
        let harmed = |volume: &&catalog::Volume| {
            lacks(volume) || self.health(&catalog, volume) != Health::Whole
        };
        let attachments = self.attachments().attachments;
        let (degraded_pools, moving_pools) = self.restless_pools();
        let failed = |one: &&Attachment| one.state == AttachmentState::Failed;
        Status {
            instance: format!("{:x}", self.inner.instance.0),
            nodes: self.nodes().nodes,
            disks: catalog.disks().count() as u32,
            failed_disks: disks.filter(|disk| disk.state == "failed").count() as u32,
            volumes: catalog.volumes().count() as u32,
            degraded_volumes: catalog.volumes().filter(harmed).count() as u32,
            connections: catalog.volumes().map(connections).sum(),
            attachments: attachments.len() as u32,
            failed_attachments: attachments.iter().filter(failed).count() as u32,
            capacity_bytes: catalog.pools().map(|pool| catalog.capacity(pool.id)).sum(),
            promised_bytes: catalog.pools().map(|pool| catalog.promised(pool.id)).sum(),
            taken_bytes: catalog
                .pools()
                .map(|pool| catalog.promised(pool.id).saturating_mul(pool.copies.into()))
                .fold(0, u64::saturating_add),
            cluster: self.cluster_seen(),
            degraded_pools,
            moving_pools,
            nbd_socket: self.inner.parts.nbd_socket.display().to_string(),
            alerts: self.alerts().list(),
        }
    }

    pub fn alert_list(&self) -> AlertList {
        AlertList {
            alerts: self.alerts().list(),
        }
    }

    fn view_volume(
        &self,
        catalog: &Catalog,
        looked: &BTreeMap<PoolId, Look>,
        volume: &catalog::Volume,
    ) -> Volume {
        let layers = volume.layers.iter().map(|layer| Layer {
            id: layer.id.0,
            parent: layer.parent.map(|parent| parent.0),
            state: match layer.state {
                LayerState::Writable => "writable",
                LayerState::Cutting => "cutting",
                LayerState::Frozen => "frozen",
            }
            .into(),
        });
        let pool = catalog.pools().find(|pool| pool.id == volume.pool);
        let (state, reason) = self.state_of(catalog, volume);
        Volume {
            id: volume.id.0,
            name: volume.name.clone(),
            node: self.who_has(catalog, volume),
            pool: pool.map(|pool| pool.name.clone()).unwrap_or_default(),
            size_bytes: volume.size,
            block_size_bytes: volume.block_size,
            state,
            reason,
            connections: self.runtime().connections(volume.id) as u64,
            bench: volume.bench,
            shared: volume.sharing == Sharing::Shared,
            io_timeout_seconds: volume.io_timeout,
            clients: shown_clients(&volume.clients),
            pgs: volume.pgs,
            pg_states: (looked.get(&volume.pool)).map(|look| look.of_volume(catalog, volume)),
            layers: layers.collect(),
            import: self.import_mark(volume).map(|mark| ImportState {
                through_bytes: mark.through,
                crc32c: crc_text(mark.crc32c),
            }),
            attachments: self.attachments_of(catalog, volume),
            uri: nbd_uri(
                &volume.name,
                &self.inner.parts.nbd_socket.display().to_string(),
            ),
        }
    }

    /// The name of the node that has a volume; nothing where none has it.
    fn who_has(&self, catalog: &Catalog, volume: &catalog::Volume) -> String {
        if !self.is_of_cluster() {
            return name_of(catalog, self.inner.parts.node);
        }
        let owner = catalog.range(volume.id).and_then(|range| range.owner);
        owner.map_or_else(String::new, |owner| name_of(catalog, owner.node))
    }

    /// Where a volume is in its life, and why it is not whole or not served where that is so.
    fn state_of(&self, catalog: &Catalog, volume: &catalog::Volume) -> (VolumeState, String) {
        let state = match volume.state {
            catalog::VolumeState::Ready => VolumeState::Ready,
            catalog::VolumeState::Importing { .. } => VolumeState::Importing,
            catalog::VolumeState::Deleting => VolumeState::Deleting,
        };
        let unavailable = lock(&self.inner.unavailable).get(&volume.id).cloned();
        match (state, self.health(catalog, volume), unavailable) {
            (VolumeState::Ready, Health::Failed(why), _) => (VolumeState::Failed, why),
            (VolumeState::Ready, _, Some(why)) => (VolumeState::Failed, why),
            (VolumeState::Ready, Health::Degraded(why), None) => (VolumeState::Degraded, why),
            (state, Health::Whole, _) => (state, String::new()),
            (state, Health::Degraded(why) | Health::Failed(why), _) => (state, why),
        }
    }

    pub(super) fn view_disk(&self, catalog: &Catalog, disk: &catalog::Disk) -> Disk {
        let failed = lock(&self.inner.disks)
            .get(&disk.id)
            .and_then(|now| now.failed.clone());
        let node = catalog.nodes().find(|node| node.id == disk.node);
        let pool = catalog.pools().find(|pool| pool.id == disk.pool);
        Disk {
            id: disk.id.0,
            node: node.map(|node| node.name.clone()).unwrap_or_default(),
            pool: pool.map(|pool| pool.name.clone()).unwrap_or_default(),
            path: disk.path.clone(),
            store: disk.store.to_string(),
            size_bytes: disk.size,
            state: match (disk.state, &failed) {
                (DiskState::OutOfService, _) => "out_of_service",
                (DiskState::Missing, _) => "missing",
                (DiskState::Draining, None) => "draining",
                _ if disk.node != self.inner.parts.node => "elsewhere",
                (DiskState::Serving | DiskState::Draining, Some(_)) => "failed",
                (DiskState::Serving, None) => "serving",
            }
            .into(),
            reason: failed.unwrap_or_default(),
            pgs: catalog.pgs_on(disk.id).count() as u32,
            moves: None,
            arrival: None,
        }
    }
}

/// Where an NBD client finds a volume.
pub fn nbd_uri(name: &str, socket: &str) -> String {
    let mut query = String::new();
    for byte in socket.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' | b'~' => {
                query.push(byte.into());
            }
            other => query.push_str(&format!("%{other:02X}")),
        }
    }
    format!("nbd+unix:///{name}?socket={query}")
}

pub(super) fn no_disk(id: DiskId) -> ErrorBody {
    let hint = "`sarsen disk list` shows what there is";
    ErrorBody::new(
        ErrorCode::NotFound,
        "disk",
        format!("there is no disk {id}"),
        hint,
    )
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> ErrorBody {
        use catalog::Code;
        let code = match refusal.code {
            Code::Invalid => ErrorCode::Invalid,
            Code::NotFound => ErrorCode::NotFound,
            Code::Exists => ErrorCode::Exists,
            Code::Conflict => ErrorCode::Conflict,
            Code::Exhausted => ErrorCode::Exhausted,
        };
        ErrorBody::new(code, &refusal.field, refusal.reason, &refusal.hint)
    }
}

fn shown_clients(clients: &catalog::NbdClients) -> Option<NbdClients> {
    match clients {
        catalog::NbdClients::Nobody => None,
        catalog::NbdClients::Anybody => Some(NbdClients::Any),
        catalog::NbdClients::Only(names) => Some(NbdClients::Only(names.clone())),
    }
}
