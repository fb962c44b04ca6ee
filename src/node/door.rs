//! The node's door.

use crate::base::{DiskId, Epoch, NodeId, VolumeId};
use crate::protocol::catalog::{Event, Owner};
use crate::protocol::membership::{Ask, HolderInput, Incarnation};
use crate::protocol::report::Report;
use crate::shard::Reach;
use crate::shard::fabric::Order;

use super::openings::Numbers;

/// What a node is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// The catalog is what it is, whatever it was before.
    Snapshot,
    /// A command was applied; these are its events.
    Events(&'a [Event]),
    /// An answer of a member of the manager to an [`Output::Ask`].
    Lease(HolderInput),
    /// A disk of this node is there, with what its store keeps of its openings. Told again, it changes nothing once it is opened.
    DiskFound {
        disk: DiskId,
        kept: Numbers,
    },
    /// It is gone, or fails everything.
    DiskFailed {
        disk: DiskId,
    },
    /// A connection to a node is new, or gone.
    Link {
        peer: NodeId,
        link: Reach,
    },
    /// Another node waits for its turn at a shared volume.
    Wanted {
        volume: VolumeId,
        epoch: Epoch,
        by: Owner,
        missed: u32,
    },
    /// What the node's fabric says: see [`fabric::Output`](crate::shard::fabric::Output).
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
}

/// What a node wants done.
#[derive(Debug, Clone)]
pub enum Output {
    Order(Order),
    Report(Report),
    /// For a lease.
    Ask {
        to: NodeId,
        ask: Ask,
    },
    /// Tell the owner of a shared volume that this node waits for its turn: [`Input::Wanted`] there.
    Want {
        to: NodeId,
        volume: VolumeId,
        epoch: Epoch,
        by: Owner,
        missed: u32,
    },
    /// Have the store keep the number of this opening, durably (R19).
    Open {
        disk: DiskId,
        incarnation: Incarnation,
    },
    /// Have it keep that the manager has recorded it, durably and before the orders that follow.
    Recorded {
        disk: DiskId,
    },
    /// Have all disks record the layers of a volume, which stand in the catalog; then tell the fabric ([`Order::Layers`]).
    Layers {
        volume: VolumeId,
    },
}
