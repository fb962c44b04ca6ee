//! Who the members are, changed while they work.
//!
//! ```text
//!   set_voters ──► to the leader ──► may it be? ──► learners, until they have caught up ──► joint vote ──► the new members
//! ```
//!
//! One change of all at once (openraft's joint consensus): to add, remove or replace members is to name those that shall be it. A change that
//! was interrupted is asked again in the same words.
//!
//! Refused, with the reason: a number that is not 1, 3 or 5; a node that the catalog does not have; a new member that does not catch up;
//! and members of whom too few answer to be a majority.

use super::Manager;
use super::consensus::Consensus;
use super::door::ToAsk;
use super::message::{self, SetVoters, VotersSet};
use super::transport::Unreachable;
use crate::base::NodeId;
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// How long a new member may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(60);
/// And the change itself, once it has.
const CHANGE: Duration = Duration::from_secs(20);
/// How few entries may be missing where a learner counts as caught up.
const LAG_MAX: u64 = 16;
/// How long a leader may take to hear a majority.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at how far a learner is.
const LOOK: Duration = Duration::from_millis(20);
/// A manager has one, three or five members.
const SIZES: [usize; 3] = [1, 3, 5];

/// Why the members are as they were, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembersError {
    /// Nothing was begun.
    Refused(String),
    /// It was begun, and may have been done in part. It can be asked again in the same words.
    Interrupted(String),
}

impl fmt::Display for MembersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MembersError::Refused(why) => {
                write!(f, "the manager's members stay as they are: {why}")
            }
            MembersError::Interrupted(why) => write!(
                f,
                "the change of the manager's members may be done in part, and can be asked again: {why}"
            ),
        }
    }
}

impl std::error::Error for MembersError {}

impl Manager {
    /// Makes these nodes the members, on whichever node it is asked. They may be all others than before: who is new is filled first.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembersError> {
        self.set_voters_instead(voters, None).await
    }

    /// The same, and where `instead_of` is said, only if these are the members at the leader.
    pub(super) async fn set_voters_instead(
        &self,
        voters: BTreeSet<NodeId>,
        instead_of: Option<BTreeSet<NodeId>>,
    ) -> Result<(), MembersError> {
        if self.shared.group.standing().does_lead {
            return self.set_voters_here(voters, instead_of).await;
        }
        let mut hint = None;
        for turn in 0..2 * SIZES[2] {
            let refused = || MembersError::Refused("nobody is known to lead the manager".into());
            let to = self.shared.leader_to_ask(hint, turn).ok_or_else(refused)?;
            let (ToAsk::Leader(to) | ToAsk::Anybody(to)) = to;
            let ticket = self.shared.ticket();
            let question = message::set_voters(&SetVoters {
                ticket,
                voters: voters.clone(),
                instead_of: instead_of.clone(),
            });
            let within = CATCH_UP + 2 * CHANGE;
            let answer = self.shared.transport.call(to, question, within).await;
            let answer = match answer {
                Ok(answer) => message::read_reply_json(&answer),
                Err(Unreachable::NotSent(_)) => {
                    hint = None;
                    sleep(LOOK).await;
                    continue;
                }
                Err(Unreachable::NoAnswer(why)) => {
                    let why = format!("node {to} did not answer: {why}");
                    return Err(MembersError::Interrupted(why));
                }
            };
            match answer {
                Ok(VotersSet::Done) => return Ok(()),
                Ok(VotersSet::Refused { why }) => return Err(MembersError::Refused(why)),
                Ok(VotersSet::Interrupted { why }) => return Err(MembersError::Interrupted(why)),
                Ok(VotersSet::NotLeader { leader }) => hint = leader,
                Err(error) => return Err(MembersError::Interrupted(error.to_string())),
            }
            sleep(LOOK).await;
        }
        Err(MembersError::Refused("nobody leads the manager".into()))
    }

    /// Whether these could be made the members now, as this node sees it, and which of them do not answer it. Nothing is changed. That who is new would catch up is
    /// not known before.
    pub async fn may_set_voters(
        &self,
        voters: &BTreeSet<NodeId>,
    ) -> Result<BTreeSet<NodeId>, MembersError> {
        self.are_possible(voters)?;
        if !self.hears_leader() {
            let why = "this node hears of nobody who leads the manager";
            return Err(MembersError::Refused(why.into()));
        }
        self.enough_answer(&self.members().voters, voters).await
    }

    /// Puts a new member in the place of another, dead or alive.
    pub async fn replace_member(&self, old: NodeId, new: NodeId) -> Result<(), MembersError> {
        let before = self.members().voters;
        let mut voters = before.clone();
        if !voters.remove(&old) {
            // It may have been replaced by an earlier asking.
            return match voters.contains(&new) {
                true => Ok(()),
                false => Err(MembersError::Refused(format!("node {old} is no member"))),
            };
        }
        if !voters.insert(new) {
            return Err(MembersError::Refused(format!(
                "node {new} is a member already"
            )));
        }
        // This node's view may be old, and would undo what was changed since.
        self.set_voters_instead(voters, Some(before)).await
    }

    pub(super) async fn take_set_voters(&self, from: NodeId, asked: SetVoters) -> VotersSet {
        let standing = self.shared.group.standing();
        if !standing.does_lead {
            let leader = standing.leader.filter(|leader| *leader != self.node());
            return VotersSet::NotLeader { leader };
        }
        let is_first = self.shared.tickets().take(from, asked.ticket);
        if let Err(why) = is_first {
            return VotersSet::Interrupted { why };
        }
        match self.set_voters_here(asked.voters, asked.instead_of).await {
            Ok(()) => VotersSet::Done,
            Err(MembersError::Refused(why)) => VotersSet::Refused { why },
            Err(MembersError::Interrupted(why)) => VotersSet::Interrupted { why },
        }
    }

    /// Whether the members are those that a change is to start from.
    fn are_still(&self, instead_of: Option<&BTreeSet<NodeId>>) -> Result<(), MembersError> {
        let found = self.shared.group.standing().voters;
        match instead_of.is_none_or(|meant| *meant == found) {
            true => Ok(()),
            false => Err(MembersError::Refused(
                "they are others by now than the change was meant for; look at them and ask again"
                    .into(),
            )),
        }
    }

    async fn set_voters_here(
        &self,
        voters: BTreeSet<NodeId>,
        instead_of: Option<BTreeSet<NodeId>>,
    ) -> Result<(), MembersError> {
        let before = self.shared.group.standing().voters;
        self.are_still(instead_of.as_ref())?;
        self.are_possible(&voters)?;
        self.has_majority().await?;
        self.enough_answer(&before, &voters).await?;
        for node in voters.difference(&before) {
            self.take_in(*node, &before, &voters).await?;
        }
        // Catching up takes a while.
        self.are_still(instead_of.as_ref())?;
        let change = self.shared.group.set_voters(voters);
        let done = timeout(CHANGE, change).await;
        done.unwrap_or_else(|_| Err(format!("it took more than {CHANGE:?}")))
            .map_err(MembersError::Interrupted)
    }

    /// Whether they are as many as there may be, and nodes of the catalog.
    fn are_possible(&self, voters: &BTreeSet<NodeId>) -> Result<(), MembersError> {
        if !SIZES.contains(&voters.len()) {
            return Err(MembersError::Refused(format!(
                "a manager has 1, 3 or 5 members, not {}",
                voters.len()
            )));
        }
        let catalog = self.catalog();
        match voters.iter().find(|node| catalog.node(**node).is_none()) {
            Some(unknown) => Err(MembersError::Refused(format!("there is no node {unknown}"))),
            None => Ok(()),
        }
    }

    /// Whether the members as they are could decide it: a change that is begun without them would stay half done. A leader that is new has
    /// not heard them yet.
    async fn has_majority(&self) -> Result<(), MembersError> {
        let until = Instant::now() + PATIENCE;
        while !self.shared.group.standing().is_current {
            if Instant::now() >= until {
                let why = "most of those that there are do not answer the leader";
                return Err(MembersError::Refused(why.into()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether the new members could decide anything; who of them does not answer. A member that is to stay need not as long as enough others do; a new one must.
    async fn enough_answer(
        &self,
        before: &BTreeSet<NodeId>,
        after: &BTreeSet<NodeId>,
    ) -> Result<BTreeSet<NodeId>, MembersError> {
        let mut silent = BTreeSet::new();
        for node in after {
            if !self.shared.answers(*node).await {
                silent.insert(*node);
            }
        }
        if let Some(new) = silent.iter().find(|node| !before.contains(node)) {
            return Err(MembersError::Refused(format!("node {new} does not answer")));
        }
        let majority = after.len() / 2 + 1;
        let answering = after.len() - silent.len();
        if answering < majority {
            return Err(MembersError::Refused(format!(
                "of the {} members that there would be only {answering} answer, and {majority} are a majority; replace those that do not",
                after.len()
            )));
        }
        Ok(silent)
    }

    /// Makes a node a learner and fills it; one that does not catch up is out again.
    async fn take_in(
        &self,
        node: NodeId,
        before: &BTreeSet<NodeId>,
        after: &BTreeSet<NodeId>,
    ) -> Result<(), MembersError> {
        let added = timeout(CHANGE, self.shared.group.add_learner(node)).await;
        added
            .unwrap_or_else(|_| Err(format!("it took more than {CHANGE:?}")))
            .map_err(MembersError::Interrupted)?;
        let until = Instant::now() + CATCH_UP;
        while Instant::now() < until && self.shared.group.standing().does_lead {
            let lag = self.shared.group.lag(node);
            if lag.entries.is_some_and(|lag| lag <= LAG_MAX) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        for learner in after.difference(before) {
            let dropped = timeout(CHANGE, self.shared.group.drop_learner(*learner)).await;
            if !matches!(dropped, Ok(Ok(()))) {
                let why = format!("node {node} does not catch up, and is still a learner");
                return Err(MembersError::Interrupted(why));
            }
            if *learner == node {
                break;
            }
        }
        Err(MembersError::Refused(format!(
            "node {node} does not catch up within {CATCH_UP:?}"
        )))
    }
}
