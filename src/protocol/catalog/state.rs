//! What the catalog holds, and how it is looked up.

use super::command::Locality;
use super::index::Index;
use super::pg::Pg;
use super::range::Ownership;
use super::{DEFAULT_POOL, Refusal};
use crate::base::{DiskId, FamilyId, LayerId, NodeId, PgId, StoreId, VolumeId};
use crate::protocol::membership::Incarnation;
use crate::protocol::placement::{Level, RackId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// A pool in the catalog.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PoolId(pub u32);

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<RackId>,
    /// The newest start that was recorded; 0: none.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub incarnation: Incarnation,
    #[serde(default, skip_serializing_if = "Maintenance::is_off")]
    pub maintenance: Maintenance,
    /// When maintenance is to end by itself, in seconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<u64>,
    /// Where other nodes reach it, as `host:port`; none where it is alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// How it came in; nothing where it founded the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
}

/// By what a node was let in: who asks again with the same key is the same machine, and a token is good for one key. Both in
/// hexadecimal digits, as who checked them wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub key: String,
    pub token: String,
}

/// Who says which nodes are members of the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MembersBy {
    /// The first three nodes are, as soon as there are three.
    #[default]
    Arrival,
    /// A person, who has named them once.
    Hand,
}

impl MembersBy {
    fn is_arrival(&self) -> bool {
        *self == MembersBy::Arrival
    }
}

/// What a client may do at most; a later one may do all that an earlier one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientRole {
    Reader,
    Operator,
    Admin,
}

/// Who uses the cluster from outside, by its name: with certificates, or with tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The highest that it was issued.
    pub role: ClientRole,
    /// When the last of what it was issued ends, in seconds since 1970 UTC.
    pub until: u64,
    /// Whether nothing that it shows is taken any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// Which clients, by the name that their certificates prove, a volume is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NbdClients {
    /// Nobody who comes over the network: how a volume is made.
    #[default]
    Nobody,
    Anybody,
    /// At least one, in their order.
    Only(Vec<String>),
}

impl NbdClients {
    fn is_nobody(&self) -> bool {
        *self == NbdClients::Nobody
    }
}

/// Whether somebody works at a node and it will be back soon: what it holds is not made anew elsewhere meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Maintenance {
    #[default]
    Off,
    On,
}

impl Maintenance {
    fn is_off(&self) -> bool {
        *self == Maintenance::Off
    }
}

fn is_unknown(incarnation: &Incarnation) -> bool {
    *incarnation == Incarnation(0)
}

/// What is wanted of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    Serving,
    /// It serves, and is being emptied.
    Draining,
    /// It was away for so long that what it held is made anew elsewhere. It serves again when it is opened.
    Missing,
    /// Nothing is asked of it.
    OutOfService,
}

impl DiskState {
    /// Whether replicas on it may be in use.
    pub fn is_good(self) -> bool {
        matches!(self, DiskState::Serving | DiskState::Draining)
    }
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
    /// The opening of its store that was recorded last (R19); 0: none.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub incarnation: Incarnation,
    /// Its part of the pool, where that is not its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_weight: Option<u64>,
    /// Of one that is missing: what it was, if that was not serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns_as: Option<DiskState>,
}

impl Disk {
    /// Its part of the pool: its size in bytes, where nothing else was said.
    pub fn weight(&self) -> u64 {
        self.set_weight.unwrap_or(self.size)
    }
}

/// A set of disks that volumes are given out of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub id: PoolId,
    pub name: String,
    /// How many replicas each PG has.
    pub copies: u32,
    /// The fewest that stay in sync when others are taken out; below it, writes wait.
    #[serde(default = "one")]
    pub min_copies: u32,
    /// No two replicas of a PG lie in one failure domain of this level.
    #[serde(default = "disk_level")]
    pub level: Level,
    /// How much may be promised of what there is: 100 is not more.
    pub overcommit_percent: u32,
    /// How many bytes of a disk bring one PG; fixed by the first disk, zero before it.
    pub bytes_per_pg: u64,
    /// While PGs are made in several commands: how many there were before, which new volumes use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub laid_out: Option<u32>,
    /// How many bytes a second each of its disks may be filled with; else as many as guests leave room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild_limit: Option<u64>,
}

fn one() -> u32 {
    1
}

fn disk_level() -> Level {
    Level::Disk
}

/// Whether a layer takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerState {
    Writable,
    /// A snapshot of it was asked for: new writes go to the layer above, and those that were in flight still come here (R21).
    Cutting,
    /// Nothing changes it any more.
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

/// Whether several nodes may attach a volume at once. Its range goes from one to another as they ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    #[default]
    Exclusive,
    Shared,
}

impl Sharing {
    fn is_exclusive(&self) -> bool {
        *self == Sharing::Exclusive
    }
}

/// A frozen layer that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub name: String,
    pub layer: LayerId,
    /// Of the volume then, in bytes.
    pub size: u64,
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
    /// Its own, from the oldest to the one that takes writes. The oldest of a clone lies over a layer of another volume.
    pub layers: Vec<Layer>,
    /// How many PGs the pool had when it was created: its extents hash over the first so many.
    pub pgs: u32,
    /// The PGs that its extents hash over, where that is not the first `pgs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<PgId>,
    #[serde(default, skip_serializing_if = "Locality::is_spread")]
    pub locality: Locality,
    #[serde(default, skip_serializing_if = "Sharing::is_exclusive")]
    pub sharing: Sharing,
    /// After so many seconds without an answer I/O is answered with an error; else it waits for as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_timeout: Option<u32>,
    /// Which clients may use it over NBD under TLS.
    #[serde(default, skip_serializing_if = "NbdClients::is_nobody")]
    pub clients: NbdClients,
    /// In the order of their layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
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
    #[serde(default = "first_rack")]
    pub rack: u32,
}

fn first_rack() -> u32 {
    1
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
    /// Of shared volumes: those at other nodes than the first one's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) shared: BTreeMap<VolumeId, BTreeMap<NodeId, Attachment>>,
    #[serde(default)]
    pub(super) racks: BTreeMap<RackId, String>,
    #[serde(default, skip_serializing_if = "MembersBy::is_arrival")]
    pub(super) members_by: MembersBy,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) clients: BTreeMap<String, Client>,
    /// Of every range that was taken at least once.
    #[serde(default)]
    pub(super) ranges: BTreeMap<VolumeId, Ownership>,
    /// Follows from all of the above.
    #[serde(skip)]
    pub(super) index: Index,
}

impl Default for Catalog {
    /// Nothing but the pool `default`, with one copy.
    fn default() -> Catalog {
        let pool = Pool {
            id: PoolId(1),
            name: DEFAULT_POOL.into(),
            copies: 1,
            min_copies: 1,
            level: Level::Disk,
            overcommit_percent: 2_000,
            bytes_per_pg: 0,
            laid_out: None,
            rebuild_limit: None,
        };
        let mut catalog = Catalog {
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
                rack: first_rack(),
            },
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            pools: BTreeMap::from([(pool.id, pool)]),
            pgs: BTreeMap::new(),
            volumes: BTreeMap::new(),
            attachments: BTreeMap::new(),
            incoming: BTreeMap::new(),
            shared: BTreeMap::new(),
            racks: BTreeMap::new(),
            members_by: MembersBy::Arrival,
            clients: BTreeMap::new(),
            ranges: BTreeMap::new(),
            index: Index::default(),
        };
        catalog.index = Index::of(&catalog);
        catalog
    }
}

impl Catalog {
    /// How many commands were accepted since the first.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// How many nodes came since the beginning: one with a number up to this that is not there was removed.
    pub fn nodes_ever(&self) -> u32 {
        self.next.node - 1
    }

    /// How many volumes were created since the beginning.
    pub fn volumes_ever(&self) -> u64 {
        self.next.volume - 1
    }

    /// Who says which nodes are members of the manager.
    pub fn members_by(&self) -> MembersBy {
        self.members_by
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

    pub fn pgs(&self) -> impl ExactSizeIterator<Item = &Pg> {
        self.pgs.values()
    }

    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.values()
    }

    /// The first of every volume, then the incoming ones, then those of shared volumes at other nodes.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        let shared = self.shared.values().flat_map(BTreeMap::values);
        let both = self.attachments.values().chain(self.incoming.values());
        both.chain(shared)
    }

    /// What serves a volume at a node, an incoming one aside.
    pub fn attached_at(&self, volume: VolumeId, node: NodeId) -> Option<&Attachment> {
        let first = self.attachments.get(&volume);
        first
            .filter(|one| one.node == node)
            .or_else(|| self.shared.get(&volume)?.get(&node))
    }

    /// Whether several nodes take turns at a volume: it is shared, or a guest moves from one node to another.
    pub fn is_shared(&self, volume: &Volume) -> bool {
        volume.sharing == Sharing::Shared || self.shared.contains_key(&volume.id)
    }

    /// Those at other nodes than the first one's: of a shared volume, and where a guest moves to.
    pub fn shared_at(&self, volume: VolumeId) -> impl Iterator<Item = &Attachment> {
        let of = self.shared.get(&volume).into_iter();
        of.flat_map(BTreeMap::values)
    }

    /// A volume's own attachment, and the incoming one of a live migration.
    pub fn attachments_of(&self, volume: VolumeId) -> (Option<&Attachment>, Option<&Attachment>) {
        (self.attachments.get(&volume), self.incoming.get(&volume))
    }

    pub fn attachment(&self, key: AttachmentKey) -> Option<&Attachment> {
        if key == AttachmentKey::default() {
            // Those from before there were keys all have zero, and are not in the index.
            return self.attachments().find(|one| one.key == key);
        }
        let volume = self.index.keys.get(&key)?;
        let (first, second) = self.attachments_of(*volume);
        let both = first.into_iter().chain(second);
        let mut all = both.chain(self.shared_at(*volume));
        all.find(|one| one.key == key)
    }

    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub fn disk(&self, id: DiskId) -> Option<&Disk> {
        self.disks.get(&id)
    }

    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.get(&id)
    }

    pub fn pg(&self, id: PgId) -> Option<&Pg> {
        self.pgs.get(&id)
    }

    pub fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.volumes.get(&id)
    }

    /// Who owns a volume's range, and its epoch; nothing where it was never taken.
    pub fn range(&self, volume: VolumeId) -> Option<&Ownership> {
        self.ranges.get(&volume)
    }

    pub fn pool_named(&self, name: &str) -> Option<&Pool> {
        self.index.pool_names.get(name).map(|id| &self.pools[id])
    }

    pub fn node_named(&self, name: &str) -> Option<&Node> {
        self.index.node_names.get(name).map(|id| &self.nodes[id])
    }

    /// The name of a rack.
    pub fn rack(&self, id: RackId) -> Option<&str> {
        self.racks.get(&id).map(String::as_str)
    }

    /// The volume of this name, or a refusal that says that there is none.
    pub fn volume_named(&self, name: &str) -> Result<&Volume, Refusal> {
        let found = self.index.volume_names.get(name);
        found.map(|id| &self.volumes[id]).ok_or_else(|| {
            let reason = format!("there is no volume named {name:?}");
            Refusal::not_found("name", reason, "`sarsen volume list` shows what there is")
        })
    }

    /// The disks of a node, in the order of their ids, as all that follow.
    pub fn disks_of(&self, node: NodeId) -> impl Iterator<Item = &Disk> {
        let ids = self.index.disks_of_node.get(&node).into_iter().flatten();
        ids.map(|id| &self.disks[id])
    }

    pub fn disks_of_pool(&self, pool: PoolId) -> impl Iterator<Item = &Disk> {
        let ids = self.index.of_pools.get(&pool).map(|of| &of.disks);
        ids.into_iter().flatten().map(|id| &self.disks[id])
    }

    /// The PGs of a pool, by their numbers; a volume hashes over the first so many.
    pub fn pgs_of(&self, pool: PoolId) -> &[PgId] {
        self.index.of_pools.get(&pool).map_or(&[], |of| &of.pgs)
    }

    /// The PGs that list a disk.
    pub fn pgs_on(&self, disk: DiskId) -> impl Iterator<Item = PgId> + '_ {
        self.index.pgs_on.get(&disk).into_iter().flatten().copied()
    }

    /// The PGs of which something is wanted.
    pub fn wanted(&self) -> impl Iterator<Item = PgId> + '_ {
        self.index.wanted.iter().copied()
    }

    /// The volumes whose range a node owns.
    pub fn owned_by(&self, node: NodeId) -> impl Iterator<Item = VolumeId> + '_ {
        let of = (node, VolumeId(0))..=(node, VolumeId(u64::MAX));
        self.index.owned.range(of).map(|&(_, volume)| volume)
    }

    /// The number that the next PG gets.
    pub fn next_pg(&self) -> PgId {
        PgId(self.next.pg)
    }

    /// The PGs that a volume's extents hash over, in the order of their numbers.
    pub fn pgs_of_volume<'a>(&'a self, volume: &'a Volume) -> &'a [PgId] {
        if !volume.on.is_empty() {
            return &volume.on;
        }
        let of_pool = self.pgs_of(volume.pool);
        &of_pool[..of_pool.len().min(volume.pgs as usize)]
    }

    /// The PGs that a volume's extents hash over, in the order of their numbers, and the disk that serves
    /// each: the first of its in-sync set.
    pub fn placement(&self, volume: &Volume) -> Vec<(PgId, DiskId)> {
        let pgs = self.pgs_of_volume(volume).iter();
        pgs.filter_map(|pg| Some((*pg, self.pgs[pg].configuration.in_sync().next()?)))
            .collect()
    }

    /// What the pool's disks have, in bytes.
    pub fn capacity(&self, pool: PoolId) -> u64 {
        let of = self.index.of_pools.get(&pool);
        of.map_or(0, |of| u64::try_from(of.capacity).unwrap_or(u64::MAX))
    }

    /// What was promised to the pool's volumes, in bytes.
    pub fn promised(&self, pool: PoolId) -> u64 {
        let of = self.index.of_pools.get(&pool);
        of.map_or(0, |of| u64::try_from(of.promised).unwrap_or(u64::MAX))
    }
}
