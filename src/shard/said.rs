//! What a shard of a node of a cluster says to that node's control plane: its own words, and those of its driver about links and clients.

use super::route::ShardNo;
use crate::base::{DiskId, NodeId, VolumeId};
use crate::protocol::report::Report;
use crate::wire::Version;

/// What a shard has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub shard: ShardNo,
    /// The last order that this shard had carried out when it said so; 0: none.
    pub upto: u64,
    pub what: What,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// For the manager's leader.
    Report(Report),
    /// See [`fabric::Output`](super::fabric::Output); of the part of the volume that this shard coordinates.
    Drained {
        volume: VolumeId,
    },
    Cut {
        volume: VolumeId,
    },
    Settled {
        volume: VolumeId,
    },
    Waits {
        volume: VolumeId,
    },
    /// The disk failed: nothing more is asked of it.
    DiskFailed {
        disk: DiskId,
    },
    /// A client waits for a volume that this node does not have.
    Wanted {
        volume: VolumeId,
    },
    /// This shard's first link to a node is there, or its last one is gone.
    Link {
        node: NodeId,
        link: Reach,
    },
}

/// Whether a node is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// There is a connection to it, on which this version is spoken.
    There(Version),
    Gone,
}
