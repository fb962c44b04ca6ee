//! What the catalog holds, and how it is looked up.

use super::{DEFAULT_POOL, Refusal};
use crate::base::{DiskId, FamilyId, LayerId, NodeId, PgId, StoreId, VolumeId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// A pool in the catalog.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PoolId(pub u32);

/// The identity of a store, written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreName(pub StoreId);

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for StoreName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StoreName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<StoreName, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || serde::de::Error::custom("a store id has 32 hexadecimal digits");
        // The check of each digit also keeps the slices below on character boundaries.
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut id = [0; 16];
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(StoreName(StoreId(id)))
    }
}

/// A running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub name: String,
}

/// What is wanted of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    Serving,
    /// Nothing is asked of it.
    OutOfService,
}

/// A disk that a node keeps a store on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub id: DiskId,
    pub node: NodeId,
    pub pool: PoolId,
    /// Absolute, as the node sees it.
    pub path: String,
    pub store: StoreName,
    /// In bytes.
    pub size: u64,
    pub state: DiskState,
}

/// A set of disks that volumes are given out of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub id: PoolId,
    pub name: String,
    /// How many replicas each PG has.
    pub copies: u32,
    /// How much may be promised of what there is: 100 is not more.
    pub overcommit_percent: u32,
    /// How many bytes of a disk bring one PG; fixed by the first disk, zero before it.
    pub bytes_per_pg: u64,
}

/// A placement group: the unit of placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pg {
    pub id: PgId,
    pub pool: PoolId,
    /// Fences configurations: raised with every change of replicas or in-sync set.
    pub version: u32,
    pub replicas: Vec<DiskId>,
    /// The replicas that have every acknowledged write.
    pub in_sync: Vec<DiskId>,
}

/// Whether a layer takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerState {
    Writable,
    Frozen,
}

/// One state of a volume, and the one that it lies over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub id: LayerId,
    pub parent: Option<LayerId>,
    pub state: LayerState,
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImportMark {
    /// Everything before this byte is in the volume and durable.
    pub through: u64,
    /// The crc32c of those bytes, to know the same source by when the import goes on.
    pub crc32c: u32,
}

/// Where a volume is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    Ready,
    /// Being filled; nobody can attach it.
    Importing {
        mark: ImportMark,
    },
    /// Being given back; nobody can attach it, and nothing brings it back.
    Deleting,
}

/// What a user creates and attaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub id: VolumeId,
    pub name: String,
    pub pool: PoolId,
    pub family: FamilyId,
    /// In bytes.
    pub size: u64,
    /// Of its logical sectors, in bytes.
    pub block_size: u32,
    pub state: VolumeState,
    /// Whether `bench` made it and may write to it.
    pub bench: bool,
    /// From the oldest to the one that takes writes.
    pub layers: Vec<Layer>,
    /// How many PGs the pool had when it was created: its extents hash over the first so many.
    pub pgs: u32,
}

/// One attachment, never used again for another. Zero is one from before there were keys.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct AttachmentKey(pub u64);

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a volume is attached through.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FrontEnd {
    /// Nothing serves it; so are the attachments of the first builds.
    #[default]
    None,
    /// A guest's disk.
    VhostUser {
        /// A path, or `fd:NAME` for a socket that the daemon inherits.
        socket: String,
        queues: u16,
        /// Whether a guest is to arrive here that still runs at the volume's first socket.
        #[serde(default)]
        incoming: bool,
    },
    /// A device of the host, by the kernel's ublk.
    Ublk {
        /// Its number, once it is known: a restart takes the same one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<u32>,
        queues: u16,
    },
    /// A device of the host, by the kernel's nbd.
    Nbd {
        /// See [`FrontEnd::Ublk`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<u32>,
        /// Connections, each with a queue.
        queues: u16,
    },
}

impl FrontEnd {
    /// The socket of a guest's disk.
    pub fn socket(&self) -> Option<&str> {
        match self {
            FrontEnd::VhostUser { socket, .. } => Some(socket),
            FrontEnd::None | FrontEnd::Ublk { .. } | FrontEnd::Nbd { .. } => None,
        }
    }

    /// Whether it is the second one of a live migration.
    pub fn is_incoming(&self) -> bool {
        matches!(self, FrontEnd::VhostUser { incoming: true, .. })
    }

    /// Whether it is a device of the host.
    pub fn is_device(&self) -> bool {
        matches!(self, FrontEnd::Ublk { .. } | FrontEnd::Nbd { .. })
    }

    /// The guest has arrived.
    pub(super) fn arrive(&mut self) {
        if let FrontEnd::VhostUser { incoming, .. } = self {
            *incoming = false;
        }
    }

    pub(super) fn set_device(&mut self, number: u32) {
        if let FrontEnd::Ublk { device, .. } | FrontEnd::Nbd { device, .. } = self {
            *device = Some(number);
        }
    }
}

impl fmt::Display for FrontEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrontEnd::None => f.write_str("held, without a front end"),
            FrontEnd::VhostUser { socket, .. } => write!(f, "vhost-user at {socket}"),
            FrontEnd::Ublk { device: None, .. } => f.write_str("ublk"),
            FrontEnd::Ublk {
                device: Some(number),
                ..
            } => write!(f, "ublk at /dev/ublkb{number}"),
            FrontEnd::Nbd { device: None, .. } => f.write_str("kernel nbd"),
            FrontEnd::Nbd {
                device: Some(number),
                ..
            } => write!(f, "kernel nbd at /dev/nbd{number}"),
        }
    }
}

/// A volume that is wanted on a node, through a front end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    #[serde(default)]
    pub key: AttachmentKey,
    pub volume: VolumeId,
    pub node: NodeId,
    #[serde(default)]
    pub front_end: FrontEnd,
}

/// What each next thing will be called. Counters only grow, so an id is never used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NextIds {
    pub node: u32,
    pub disk: u32,
    pub pool: u32,
    pub pg: u32,
    pub volume: u64,
    pub family: u64,
    pub layer: u64,
    #[serde(default = "first_attachment")]
    pub attachment: u64,
}

/// Where a catalog goes on from that was written before attachments had keys.
fn first_attachment() -> u64 {
    1
}

/// What the manager of a site decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// How many commands were accepted.
    pub(super) applied: u64,
    pub(super) next: NextIds,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) disks: BTreeMap<DiskId, Disk>,
    pub(super) pools: BTreeMap<PoolId, Pool>,
    pub(super) pgs: BTreeMap<PgId, Pg>,
    pub(super) volumes: BTreeMap<VolumeId, Volume>,
    pub(super) attachments: BTreeMap<VolumeId, Attachment>,
    /// The second ones, of live migrations.
    #[serde(default)]
    pub(super) incoming: BTreeMap<VolumeId, Attachment>,
}

impl Default for Catalog {
    /// Nothing but the pool `default`, with one copy.
    fn default() -> Catalog {
        let pool = Pool {
            id: PoolId(1),
            name: DEFAULT_POOL.into(),
            copies: 1,
            overcommit_percent: 2_000,
            bytes_per_pg: 0,
        };
        Catalog {
            applied: 0,
            // From one on: a zero that is read back from a disk was never an id.
            next: NextIds {
                node: 1,
                disk: 1,
                pool: 2,
                pg: 1,
                volume: 1,
                family: 1,
                layer: 1,
                attachment: first_attachment(),
            },
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            pools: BTreeMap::from([(pool.id, pool)]),
            pgs: BTreeMap::new(),
            volumes: BTreeMap::new(),
            attachments: BTreeMap::new(),
            incoming: BTreeMap::new(),
        }
    }
}

impl Catalog {
    /// How many commands were accepted since the first.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// How many volumes were created since the beginning.
    pub fn volumes_ever(&self) -> u64 {
        self.next.volume - 1
    }

    /// In the order of their ids, as all that follow.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.disks.values()
    }

    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    pub fn pgs(&self) -> impl Iterator<Item = &Pg> {
        self.pgs.values()
    }

    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.values()
    }

    /// The first of every volume, then the incoming ones.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values().chain(self.incoming.values())
    }

    /// A volume's own attachment, and the incoming one of a live migration.
    pub fn attachments_of(&self, volume: VolumeId) -> (Option<&Attachment>, Option<&Attachment>) {
        (self.attachments.get(&volume), self.incoming.get(&volume))
    }

    pub fn attachment(&self, key: AttachmentKey) -> Option<&Attachment> {
        self.attachments().find(|attachment| attachment.key == key)
    }

    pub fn disk(&self, id: DiskId) -> Option<&Disk> {
        self.disks.get(&id)
    }

    pub fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.volumes.get(&id)
    }

    pub fn pool_named(&self, name: &str) -> Option<&Pool> {
        self.pools.values().find(|pool| pool.name == name)
    }

    pub fn node_named(&self, name: &str) -> Option<&Node> {
        self.nodes.values().find(|node| node.name == name)
    }

    /// The volume of this name, or a refusal that says that there is none.
    pub fn volume_named(&self, name: &str) -> Result<&Volume, Refusal> {
        let found = self.volumes.values().find(|volume| volume.name == name);
        found.ok_or_else(|| {
            let reason = format!("there is no volume named {name:?}");
            Refusal::not_found("name", reason, "`sarsen volume list` shows what there is")
        })
    }

    /// The PGs that a volume's extents hash over, in the order of their numbers, and the disk that serves
    /// each: the first of its in-sync set.
    pub fn placement(&self, volume: &Volume) -> Vec<(PgId, DiskId)> {
        let of_pool = self.pgs.values().filter(|pg| pg.pool == volume.pool);
        let first = of_pool.take(volume.pgs as usize);
        first.map(|pg| (pg.id, pg.in_sync[0])).collect()
    }

    /// What the pool's disks have, in bytes.
    pub fn capacity(&self, pool: PoolId) -> u64 {
        let sizes = self.disks.values().filter(|disk| disk.pool == pool);
        sizes.map(|disk| disk.size).sum()
    }

    /// What was promised to the pool's volumes, in bytes.
    pub fn promised(&self, pool: PoolId) -> u64 {
        let sizes = self.volumes.values().filter(|volume| volume.pool == pool);
        sizes.map(|volume| volume.size).sum()
    }
}
