//! What can be asked of the catalog, and what it answers. Both are kept as JSON in the manager's log: a field
//! may be added with a default, none may change its meaning.

use super::state::{
    Attachment, AttachmentKey, Disk, DiskState, FrontEnd, ImportMark, Node, Pg, Pool, StoreName,
    Volume,
};
use crate::base::{DiskId, NodeId, VolumeId};
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

/// A change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    AddNode {
        name: String,
    },
    /// A disk that carries the store `store` already.
    AddDisk {
        node: NodeId,
        /// Absolute, as the node sees it.
        path: String,
        store: StoreName,
        /// In bytes.
        size: u64,
    },
    /// Takes back the disk that was added last, before any volume was spread over it.
    WithdrawDisk {
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
    /// How much may be promised of what a pool has.
    SetOvercommit {
        pool: String,
        /// 100: not more than there is.
        percent: u32,
    },
    CreateVolume {
        name: String,
        /// In bytes.
        size: u64,
        /// Of its logical sectors, in bytes: 512 or 4096.
        block_size: u32,
        purpose: Purpose,
    },
    ResizeVolume {
        name: String,
        /// In bytes.
        size: u64,
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
}

/// What an accepted command changed, with what it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    NodeAdded { node: Node },
    DiskAdded { disk: Disk, pgs: Vec<Pg> },
    DiskWithdrawn { disk: DiskId },
    DiskChanged { disk: Disk },
    PoolChanged { pool: Pool },
    VolumeCreated { volume: Volume },
    VolumeChanged { volume: Volume },
    VolumeForgotten { volume: VolumeId },
    Attached { attachment: Attachment },
    Detached { volume: VolumeId },
}
