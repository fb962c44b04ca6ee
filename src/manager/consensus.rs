//! What the manager needs of a consensus, in words of its own: the seam behind which openraft stands.

use super::board::Verdict;
use super::watch::Index;
use crate::base::NodeId;
use crate::protocol::catalog::Command;
use crate::protocol::membership::Term;
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

/// What came of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log for good, and was carried out or refused there.
    Committed { index: Index, result: Verdict },
    /// It is not in the log and will not be. It may be proposed again.
    Lost { why: String },
    /// Nobody knows, or not in time: it may be there now, come to be there later, or never.
    Unknown { why: String },
}

/// Where this node stands in the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub term: Term,
    pub does_lead: bool,
    /// Whom it last heard to lead; it may be dead.
    pub leader: Option<NodeId>,
    /// It leads and a majority has answered lately, or it has heard the leader lately.
    pub is_current: bool,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// The entry that says who the members are.
    pub members_at: u64,
    /// Why it takes part no more, until the daemon starts again.
    pub stopped: Option<String>,
}

/// What a node asks of another in the consensus' own language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letter {
    Append,
    Vote,
    Snapshot,
}

/// How far a learner has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lag {
    /// How many entries it has to get yet; nothing where it has not answered.
    pub entries: Option<u64>,
}

/// One node's part in a group that keeps one log.
pub(super) trait Consensus: Send + Sync + 'static {
    fn standing(&self) -> Standing;

    /// Proposes where this node leads; `Lost` where it does not.
    fn propose(&self, command: Command, within: Duration) -> impl Future<Output = Outcome> + Send;

    /// Has a majority say, after this question, that this node still leads this term.
    fn confirm(
        &self,
        term: Term,
        within: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Takes a node in that gets everything and has no vote.
    fn add_learner(&self, node: NodeId) -> impl Future<Output = Result<(), String>> + Send;

    /// Ends a node that has no vote.
    fn drop_learner(&self, node: NodeId) -> impl Future<Output = Result<(), String>> + Send;

    fn lag(&self, node: NodeId) -> Lag;

    /// Makes these, who are all in the group already, the voters; whoever else was one is out of the group.
    fn set_voters(
        &self,
        voters: BTreeSet<NodeId>,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Never stands for election again in this life: it was told that it is out.
    fn stand_no_more(&self);

    /// Answers what another node's consensus asks.
    fn take(
        &self,
        from: NodeId,
        letter: Letter,
        body: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, String>> + Send;

    /// Ends, and lets the file go.
    fn end(&self) -> impl Future<Output = ()> + Send;
}
