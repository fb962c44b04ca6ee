//! What the steward is told and what it says.

use crate::base::{DiskId, NodeId, PgId};
use crate::protocol::catalog::{Command, Event, PoolId, Refusal, StoreName};
use crate::protocol::membership::{Incarnation, Verdict};
use crate::protocol::placement::{self, Cluster, Plan};
use crate::protocol::scrub::compare::Wrong;

/// What became of a command that the steward proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was committed; its events were told before this.
    Accepted,
    /// The catalog refused it.
    Refused(Refusal),
    /// It was not committed, or nobody knows.
    Lost,
}

/// What happens to the steward. Reports of nodes are repeated to a new leader: of every node that it is live, of every open disk
/// that it is open, of every session that is filled and not promoted.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<'a> {
    /// This member leads the manager, and its catalog has all that was committed.
    Lead,
    Follow,
    /// A command was committed, whoever proposed it.
    Committed(&'a [Event]),
    Answered {
        proposal: u64,
        outcome: Outcome,
    },
    /// The answer to `Solve`.
    Solved {
        question: u64,
        plan: Result<Plan, placement::Refusal>,
    },
    /// A node holds a lease, by the membership's word.
    Live {
        node: NodeId,
    },
    /// Surely no start of the node holds one.
    Expired {
        node: NodeId,
    },
    Verdict(Verdict),
    /// A coordinator says that a replica does not answer. It says so again every second while it lasts.
    Accused {
        by: NodeId,
        pg: PgId,
        /// Of the configuration that the coordinator uses.
        version: u32,
        disk: DiskId,
    },
    /// A node has opened a disk: its store found the incarnation `before` and wrote `now`. Told again, as it was, when the node gets
    /// a new lease and when the leader changes.
    DiskOpened {
        disk: DiskId,
        store: StoreName,
        before: Incarnation,
        now: Incarnation,
        /// Of the node that opened it.
        start: Incarnation,
    },
    /// Its node has taken it out of service, for good.
    DiskFailed {
        disk: DiskId,
    },
    /// Its node lives and does not see it.
    DiskAway {
        disk: DiskId,
    },
    /// A replica does not have what it should have: another one that is in sync says so of it, or it itself. Said again every second while
    /// that is so; it counts for the version that it names.
    Wrong {
        by: NodeId,
        pg: PgId,
        version: u32,
        disk: DiskId,
        why: Wrong,
    },
    /// A joining replica has everything.
    Filled {
        pg: PgId,
        disk: DiskId,
        session: u32,
    },
    /// A joining replica was restarted, or its source gave up.
    SessionLost {
        pg: PgId,
        disk: DiskId,
        session: u32,
    },
}

/// What the steward wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Answered by `Answered` with the same number.
    Propose {
        proposal: u64,
        command: Command,
    },
    /// Solve this, beside the manager's work: it takes up to seconds. Answered by `Solved` with the same number.
    Solve {
        question: u64,
        cluster: Cluster,
    },
    Note(Note),
}

/// Why a replica is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its node's lease is over.
    NodeGone,
    /// Its node is the faulty one, by the membership's verdict.
    NodeSuspect,
    /// Its disk does not serve.
    DiskGone,
    /// It does not answer coordinators.
    Accused,
    /// It joins, and its session is lost.
    SessionLost,
    /// It does not have what it should have: it counts as empty.
    Wrong(Wrong),
}

/// What people should be able to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    Evicted {
        pg: PgId,
        disk: DiskId,
        why: Why,
    },
    /// It was away for so long that its replicas are made anew elsewhere.
    DiskMissing {
        disk: DiskId,
    },
    /// A disk is not as it was last, and has the last copy of something: a person decides (`OpenDisk` with `last_copies`).
    LastCopies {
        disk: DiskId,
        refusal: Refusal,
    },
    /// A report of an opening that is not newer than what is recorded: its node opens the disk again.
    OldOpening {
        disk: DiskId,
        now: Incarnation,
    },
    /// The pool cannot hold what is asked of it.
    CannotPlace {
        pool: PoolId,
        refusal: placement::Refusal,
    },
    /// A broken link between two living nodes; nobody is taken out for it.
    Disputed {
        by: NodeId,
        accused: NodeId,
    },
    /// A replica does not have what it should have, and too few others are in sync, or there, to take it out (R11): told once for each version.
    WrongStays {
        pg: PgId,
        disk: DiskId,
        why: Wrong,
    },
    /// So many replicas are to move.
    Moves {
        pool: PoolId,
        count: usize,
    },
    /// The catalog refused what was decided on an older view of it; it is decided anew.
    Refused {
        refusal: Refusal,
    },
}
