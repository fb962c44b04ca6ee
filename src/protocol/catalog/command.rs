//! What can be asked of the catalog, and what it answers. Both are kept as JSON in the manager's log: a field
//! may be added with a default, none may change its meaning.
//!
//! A command says what was decided, never how to decide: a placement comes in solved, a lease's end with its number. So a log
//! gives the same catalog in every build, whatever its solver has learnt since.

use super::pg::Pg;
use super::range::{GiveWhy, Left, Owner, Ownership, TakeWhy};
use super::state::{
    Attachment, AttachmentKey, ClientRole, Disk, DiskState, Entry, FrontEnd, ImportMark,
    Maintenance, MembersBy, NbdClients, Node, Pool, PoolId, Sharing, StoreName, Volume,
};
use crate::base::{DiskId, Epoch, LayerId, NodeId, PgId, VolumeId};
use crate::protocol::membership::{Incarnation, LeaseNumber};
use crate::protocol::placement::Level;
use crate::protocol::replication::Reconfigure;
use serde::{Deserialize, Serialize};

/// What a new volume is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To be used at once.
    Use,
    /// To be filled by an import first; nobody can attach it until that has ended.
    Import,
    /// To be measured: `bench` may write to it without being asked twice.
    Bench,
}

/// Where a new volume's data is to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// On all disks of the pool.
    #[default]
    Spread,
    /// With one copy on this node.
    Local { home: NodeId },
}

impl Locality {
    pub(super) fn is_spread(&self) -> bool {
        *self == Locality::Spread
    }
}

/// What is done where a replica that counts as empty is the last copy of its PG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastCopies {
    /// The disk is not opened.
    #[default]
    Refuse,
    /// What is on the disk is the truth from now on, however old it is. The other replicas of the disk count as empty.
    TakeAsFound,
}

/// Whether more PGs of the same layout follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// Volumes that are made meanwhile do not use the new ones.
    MoreFollow,
    Last,
}

fn is_unknown(incarnation: &Incarnation) -> bool {
    *incarnation == Incarnation(0)
}

fn is_refuse(last_copies: &LastCopies) -> bool {
    *last_copies == LastCopies::Refuse
}

/// A change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    AddNode {
        name: String,
    },
    /// A machine that has shown a token. One whose key is known is the node that it was, and has other addresses now.
    JoinNode {
        name: String,
        addresses: Vec<String>,
        entry: Entry,
    },
    /// Where other nodes reach a node from now on.
    SetAddresses {
        node: NodeId,
        addresses: Vec<String>,
    },
    /// Says who names the members of the manager from now on. (Who they are is the log's own, and not in the catalog.)
    ChooseMembers {
        by: MembersBy,
    },
    /// A certificate or token is issued to a client: what it shows of that name is taken from now on, up to this role.
    AdmitClient {
        name: String,
        role: ClientRole,
        /// The time of day of who issues it, and when it ends: seconds since 1970 UTC.
        now: u64,
        until: u64,
    },
    /// Nothing that shows this name is taken any more.
    RevokeClient {
        name: String,
    },
    /// Ends a node that has no disk, attachment, range or local volume.
    RemoveNode {
        node: NodeId,
    },
    /// Says in which rack a node stands. A name that is new makes a rack.
    SetRack {
        node: NodeId,
        rack: Option<String>,
    },
    /// Records a start of a node (R19); it only grows.
    RecordIncarnation {
        node: NodeId,
        incarnation: Incarnation,
    },
    /// Says whether somebody works at a node, and when that is to end by itself, in seconds since 1970 UTC. The catalog has no clock: who leads looks at
    /// it. `Off` with a time ends only what was to end then, so that who ends it does not end what was prolonged meanwhile.
    SetMaintenance {
        node: NodeId,
        maintenance: Maintenance,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
    },
    /// A disk that carries the store `store` already.
    AddDisk {
        node: NodeId,
        /// Absolute, as the node sees it.
        path: String,
        store: StoreName,
        /// In bytes.
        size: u64,
        /// The default one where it is not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pool: Option<String>,
        /// Of the store as it was formatted; 0: not known, and the first opening is believed.
        #[serde(default, skip_serializing_if = "is_unknown")]
        incarnation: Incarnation,
    },
    /// Takes back the disk that was added last, before any volume was spread over it.
    WithdrawDisk {
        disk: DiskId,
    },
    /// Ends a disk that no PG lists.
    RemoveDisk {
        disk: DiskId,
    },
    GrowDisk {
        disk: DiskId,
        /// In bytes.
        size: u64,
    },
    SetDiskState {
        disk: DiskId,
        state: DiskState,
    },
    /// The disk's part of the pool; its size where nothing is said.
    SetWeight {
        disk: DiskId,
        weight: Option<u64>,
    },
    /// A store was opened (R19): it found the incarnation `before` on the disk and wrote `now`.
    OpenDisk {
        disk: DiskId,
        store: StoreName,
        before: Incarnation,
        now: Incarnation,
        /// The start of the node that opened it: what an earlier start asked for and comes late is refused.
        #[serde(default, skip_serializing_if = "is_unknown")]
        start: Incarnation,
        #[serde(default, skip_serializing_if = "is_refuse")]
        last_copies: LastCopies,
    },
    CreatePool {
        name: String,
        copies: u32,
        min_copies: u32,
        level: Level,
    },
    SetPool {
        pool: String,
        copies: u32,
        min_copies: u32,
        level: Level,
    },
    /// How much may be promised of what a pool has.
    SetOvercommit {
        pool: String,
        /// 100: not more than there is.
        percent: u32,
    },
    /// How many bytes a second each disk of a pool may be filled with: [`REBUILD_LIMIT`](super::REBUILD_LIMIT), or as much as guests leave.
    SetRebuildLimit {
        pool: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes_per_second: Option<u64>,
    },
    /// New PGs of a pool, each with the disks of its replicas. The first has the number `first`, or another command came between.
    CreatePgs {
        pool: PoolId,
        first: PgId,
        replicas: Vec<Vec<DiskId>>,
        batch: Batch,
    },
    /// Changes one replica of a PG that has this version (R11).
    Reconfigure {
        pg: PgId,
        version: u32,
        change: Reconfigure,
    },
    /// A replica is to be made at `to`, and then the one at `from` to end.
    WantMove {
        pg: PgId,
        version: u32,
        from: Option<DiskId>,
        to: Option<DiskId>,
    },
    /// What was wanted of a PG is not any more. The replicas stay as they are.
    DropMove {
        pg: PgId,
        version: u32,
    },
    CreateVolume {
        name: String,
        /// In bytes.
        size: u64,
        /// Of its logical sectors, in bytes: 512 or 4096.
        block_size: u32,
        purpose: Purpose,
        /// The default one where it is not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pool: Option<String>,
        #[serde(default, skip_serializing_if = "Locality::is_spread")]
        locality: Locality,
    },
    ResizeVolume {
        name: String,
        /// In bytes.
        size: u64,
    },
    /// Whether several nodes may attach a volume at once.
    SetSharing {
        name: String,
        sharing: Sharing,
    },
    /// After how many seconds I/O is answered with an error, or that it waits: 1 to [`IO_TIMEOUT_MAX`](super::IO_TIMEOUT_MAX).
    SetIoTimeout {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u32>,
    },
    /// Which clients may use a volume over NBD under TLS.
    SetClients {
        name: String,
        clients: NbdClients,
    },
    /// Gives the newest layer a name and puts one over it. The snapshot has been taken when that layer is frozen.
    SnapshotVolume {
        name: String,
        snapshot: String,
    },
    /// Takes a snapshot's name away. Its layer stays until the stores have merged it.
    DeleteSnapshot {
        name: String,
        snapshot: String,
    },
    /// The owner of a volume's range has switched to the newest layer, and nothing is in flight in this one.
    FreezeLayer {
        volume: VolumeId,
        layer: LayerId,
        node: NodeId,
        /// Of its turn.
        epoch: Epoch,
    },
    /// The stores have merged a frozen layer without a name into the one above it.
    ForgetLayer {
        volume: VolumeId,
        layer: LayerId,
    },
    /// A new volume that lies over a snapshot.
    CloneVolume {
        name: String,
        snapshot: String,
        clone: String,
    },
    /// How far an import has come, durably.
    RecordImport {
        volume: VolumeId,
        mark: ImportMark,
    },
    FinishImport {
        volume: VolumeId,
    },
    /// Begins to delete: from here on the volume cannot be used, and its space may be given back.
    DeleteVolume {
        name: String,
        /// Of front ends, as the caller has just seen them.
        connections: u64,
    },
    /// Ends a deletion: every store has given the volume's space back.
    ForgetVolume {
        volume: VolumeId,
    },
    /// Wants the volume attached to a node. (Passing attachments, as NBD clients take them, are not stored.)
    Attach {
        volume: VolumeId,
        node: NodeId,
        /// Nothing where it is not said: the first builds only held the volume.
        #[serde(default)]
        front_end: FrontEnd,
    },
    /// Which device of the node has come to serve an attachment.
    RecordDevice {
        key: AttachmentKey,
        device: u32,
    },
    /// Ends an attachment. When it is the volume's first, an incoming one takes its place.
    Detach {
        volume: VolumeId,
        /// Which of two; the first where it is not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<AttachmentKey>,
    },
    /// A node that holds `lease` takes a volume's range, which has the epoch `after` until now.
    TakeRange {
        volume: VolumeId,
        node: NodeId,
        lease: LeaseNumber,
        after: Option<Epoch>,
        why: TakeWhy,
    },
    /// Ends a turn at a range.
    GiveRange {
        volume: VolumeId,
        node: NodeId,
        epoch: Epoch,
        why: GiveWhy,
    },
    /// The owner of a shared volume's range, which it has drained, hands it to a node that waits for it: a turn ends, and the next begins.
    HandRange {
        volume: VolumeId,
        node: NodeId,
        epoch: Epoch,
        to: Owner,
        left: Left,
    },
    /// Takes a range from an owner of whom nothing is known, on a person's word that it is fenced. Raises the generation.
    ForceTakeRange {
        volume: VolumeId,
        node: NodeId,
        lease: LeaseNumber,
        after: Option<Epoch>,
    },
}

/// Which commands a build knows: each that [`Command::since`] gives at most this. It grows with each build that has a new one, or a new field in one that older builds would
/// refuse.
pub const LEVEL: u32 = 1;

impl Command {
    /// The first [`LEVEL`] that knows it. As long as a node's build has a lower one, it is not proposed.
    pub fn since(&self) -> u32 {
        match self {
            Command::AddNode { .. }
            | Command::JoinNode { .. }
            | Command::SetAddresses { .. }
            | Command::ChooseMembers { .. }
            | Command::AdmitClient { .. }
            | Command::RevokeClient { .. }
            | Command::RemoveNode { .. }
            | Command::SetRack { .. }
            | Command::RecordIncarnation { .. }
            | Command::SetMaintenance { .. }
            | Command::AddDisk { .. }
            | Command::WithdrawDisk { .. }
            | Command::RemoveDisk { .. }
            | Command::GrowDisk { .. }
            | Command::SetDiskState { .. }
            | Command::SetWeight { .. }
            | Command::OpenDisk { .. }
            | Command::CreatePool { .. }
            | Command::SetPool { .. }
            | Command::SetOvercommit { .. }
            | Command::SetRebuildLimit { .. }
            | Command::CreatePgs { .. }
            | Command::Reconfigure { .. }
            | Command::WantMove { .. }
            | Command::DropMove { .. }
            | Command::CreateVolume { .. }
            | Command::ResizeVolume { .. }
            | Command::SetSharing { .. }
            | Command::SetIoTimeout { .. }
            | Command::SnapshotVolume { .. }
            | Command::DeleteSnapshot { .. }
            | Command::FreezeLayer { .. }
            | Command::ForgetLayer { .. }
            | Command::CloneVolume { .. }
            | Command::RecordImport { .. }
            | Command::FinishImport { .. }
            | Command::DeleteVolume { .. }
            | Command::ForgetVolume { .. }
            | Command::Attach { .. }
            | Command::RecordDevice { .. }
            | Command::Detach { .. }
            | Command::TakeRange { .. }
            | Command::GiveRange { .. }
            | Command::HandRange { .. }
            | Command::ForceTakeRange { .. } => 0,
            Command::SetClients { .. } => 1,
        }
    }
}

/// What an accepted command changed, with what it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    NodeAdded { node: Node },
    NodeChanged { node: Node },
    NodeRemoved { node: NodeId },
    DiskAdded { disk: Disk, pgs: Vec<Pg> },
    DiskWithdrawn { disk: DiskId },
    DiskRemoved { disk: DiskId },
    DiskChanged { disk: Disk },
    PoolAdded { pool: Pool },
    PoolChanged { pool: Pool },
    PgsCreated { pool: PoolId, pgs: Vec<Pg> },
    PgChanged { pg: Pg },
    VolumeCreated { volume: Volume },
    VolumeChanged { volume: Volume },
    VolumeForgotten { volume: VolumeId },
    Attached { attachment: Attachment },
    Detached { volume: VolumeId },
    RangeTaken { volume: VolumeId, range: Ownership },
    RangeGiven { volume: VolumeId, range: Ownership },
    ClientRevoked { name: String },
}
