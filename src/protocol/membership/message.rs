//! What a holder and a grantor say to one another.
//!
//! An [`Ask`] is numbered by its sender and an answer names the number it answers, so one that is late, doubled or
//! out of order is told apart by the number alone. Nothing here is a time of day: an ask carries how long its
//! sender's clock has run, of which only differences are used.
//!
//! It does not know how a frame looks, or who may speak for a node: the wire authenticates the sender and
//! drops an ask whose node is not the peer.

use crate::base::NodeId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which start of a node this is; grows with every start and is durable at the node. 0: not started yet (R19).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

/// A turn of one leader of the manager, as Raft numbers them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Term(pub u64);

/// The number of one unbroken holding of a lease: an extension keeps it, and what was held under an ended one is
/// void (as O2 has it for sites). It grows from term to term, and in a term.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct LeaseNumber {
    pub term: Term,
    pub count: u64,
}

impl LeaseNumber {
    /// Below every number that is given out.
    pub const NONE: LeaseNumber = LeaseNumber {
        term: Term(0),
        count: 0,
    };
}

/// What a holder has as it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// This lease, still valid at the send.
    Holds(LeaseNumber),
    /// Nothing, and it will never again take this number or a lower one.
    Lost(LeaseNumber),
}

/// What a holder wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// To have the lease, or to have it longer.
    Lease,
    /// To give it back: it has fenced itself and this incarnation will take no other.
    Release,
}

/// An earlier request that was answered, and how long the round trip took by the asker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    pub request: u64,
    /// Of the leader that answered. A copy of the request that reaches a later one is not this one's round trip.
    pub term: Term,
    pub took: Duration,
}

/// A holder asks a member of the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// Grows with every ask of an incarnation; from 1.
    pub request: u64,
    pub want: Want,
    pub standing: Standing,
    /// How long the asker's clock has run since it began to ask. From the beginning and not since the last ask, so
    /// that a lost ask loses no measurement.
    pub elapsed: Duration,
    /// The newest request that was answered: its round trip bounds how long it was on its way.
    pub answered: Option<Answered>,
}

/// Why a leader refuses a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The catalog has no such node (any more).
    UnknownNode,
    /// A later start of the same node is recorded: this one must never serve again.
    OldIncarnation,
    /// Its clock runs at a rate, against the leader's, that no two sound clocks have.
    ClockOutOfBounds,
}

/// What a member of the manager answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The lease is good for `length` counted from the send of the request, less the drift.
    Granted {
        lease: LeaseNumber,
        length: Duration,
    },
    /// Another member leads, perhaps this one.
    NotLeader { hint: Option<NodeId> },
    /// The leader refuses.
    Refused { reason: Refusal },
    /// The lease was given back.
    Released,
}
