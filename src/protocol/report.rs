//! What a node tells the manager's leader. Everything here may be lost or come twice: whoever says it says it again until the catalog shows that it was heard.

use super::catalog::{Left, Owner};
use super::membership::{Incarnation, LeaseNumber};
use super::scrub::compare::Wrong;
use crate::base::{DiskId, Epoch, LayerId, PgId, VolumeId};
use serde::{Deserialize, Serialize};

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// A coordinator has waited too long for a replica.
    Accused {
        pg: PgId,
        disk: DiskId,
        version: u32,
    },
    /// A disk was opened (R19): under `now`, and before that under `before`, by this start of the node.
    DiskOpened {
        disk: DiskId,
        before: Incarnation,
        now: Incarnation,
        start: Incarnation,
    },
    DiskFailed {
        disk: DiskId,
    },
    /// A replica does not have what it should have.
    Wrong {
        pg: PgId,
        disk: DiskId,
        version: u32,
        why: Wrong,
    },
    /// A joiner has everything (R16).
    Filled {
        pg: PgId,
        disk: DiskId,
        session: u32,
    },
    /// A joiner's session cannot go on.
    SessionLost {
        pg: PgId,
        disk: DiskId,
        session: u32,
    },
    /// The node asks for a range.
    Take {
        volume: VolumeId,
        lease: LeaseNumber,
        after: Option<Epoch>,
    },
    /// Its turn has ended.
    Give {
        volume: VolumeId,
        epoch: Epoch,
        left: Left,
    },
    /// A layer is as it will stay (R21).
    Frozen {
        volume: VolumeId,
        layer: LayerId,
        epoch: Epoch,
    },
    /// Its turn has ended, and the next one is another node's.
    Hand {
        volume: VolumeId,
        epoch: Epoch,
        to: Owner,
        left: Left,
    },
}
