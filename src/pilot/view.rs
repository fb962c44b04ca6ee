//! What a pilot shows of itself: for status, alerts and metrics.

use crate::base::{Epoch, NodeId, Time, VolumeId};
use crate::protocol::membership::{LeaseNumber, Refusal, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Notes that are kept.
const NOTES_MAX: usize = 64;

/// The lease of this node. Times are of its own CLOCK_BOOTTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// Held until then, where nothing extends it.
    Held {
        lease: Option<LeaseNumber>,
        since: Time,
        until: Time,
    },
    NotHeld {
        since: Time,
    },
}

impl Lease {
    /// Whether it is held at `now`.
    pub fn is_held(&self, now: Time) -> bool {
        matches!(self, Lease::Held { until, .. } if now < *until)
    }
}

/// What this node is to the manager, as it was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads, and decides of leases and replicas.
    Leads(Term),
    /// Who does, as far as it has heard.
    Follows(Option<NodeId>),
}

/// What was decided about replicas, or found of clocks, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    pub at: Time,
    pub text: String,
}

/// How a pilot stands.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub lease: Lease,
    /// Why the leader refuses a lease, where it does.
    pub refused: Option<Refusal>,
    pub role: Role,
    /// Of the manager; this node asks them for its lease.
    pub members: Vec<NodeId>,
    /// Volumes that are served here, each with the epoch of its last turn; of one that is shared there may have been none yet.
    pub volumes: BTreeMap<VolumeId, Option<Epoch>>,
    /// While this node leads: nodes whose clocks run out of bounds, and which are refused.
    pub clocks_out_of_bounds: BTreeSet<NodeId>,
    /// Most clocks disagree with this node's, while it leads: the leadership belongs elsewhere.
    pub own_clock_out_of_bounds: bool,
    /// The latest, the oldest first; at most 64.
    pub notes: VecDeque<Noted>,
    /// Orders that wait for stores.
    pub orders_waiting: usize,
    /// What a store said that did not keep what it was given: orders wait for that.
    pub store_fails: Option<String>,
    /// Words to other nodes that were dropped because too many waited; they are said again.
    pub words_dropped: u64,
}

impl View {
    pub(super) fn new(now: Time) -> View {
        View {
            lease: Lease::NotHeld { since: now },
            refused: None,
            role: Role::Follows(None),
            members: Vec::new(),
            volumes: BTreeMap::new(),
            clocks_out_of_bounds: BTreeSet::new(),
            own_clock_out_of_bounds: false,
            notes: VecDeque::new(),
            orders_waiting: 0,
            store_fails: None,
            words_dropped: 0,
        }
    }

    pub(super) fn note(&mut self, at: Time, text: String) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(Noted { at, text });
    }
}
