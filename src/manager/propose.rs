//! The door for changes: a command is taken to whoever leads, and answered when it is committed.
//!
//! A command is sent on only where it is certain that nothing was done with it before. So it is carried out once or, where nobody
//! knows, perhaps: then the caller is told that.

use super::Manager;
use super::consensus::{Consensus, Outcome};
use super::door::ToAsk;
use super::message::{self, Propose, Proposed, Ticket, Unanswered};
use super::transport::Unreachable;
use crate::base::NodeId;
use crate::protocol::catalog::{Command, Event, Refusal};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The longest command, in bytes of JSON: four times one that makes as many PGs as a command may.
pub(super) const COMMAND_MAX: usize = 400 << 10;
/// Between two looks for a leader.
const LOOK: Duration = Duration::from_millis(20);
/// How many tickets are remembered. A repeated message comes at once or never: connections do not repeat, only tests do.
const TICKETS_MAX: usize = 4_096;

/// Why a command did not become part of the catalog, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposeError {
    /// It was checked and not accepted; nothing has changed.
    Refused(Refusal),
    /// Nothing has changed: nobody could take it. It may be asked again.
    Unavailable(String),
    /// It may have been carried out, or may come to be: look before asking again.
    Unknown(String),
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProposeError::Refused(refusal) => refusal.fmt(f),
            ProposeError::Unavailable(why) => write!(f, "the catalog takes no changes: {why}"),
            ProposeError::Unknown(why) => {
                write!(f, "it is not known whether the catalog has changed: {why}")
            }
        }
    }
}

impl std::error::Error for ProposeError {}

impl From<Refusal> for ProposeError {
    fn from(refusal: Refusal) -> ProposeError {
        ProposeError::Refused(refusal)
    }
}

/// The tickets that were taken lately.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    taken: BTreeSet<(NodeId, Ticket)>,
    order: VecDeque<(NodeId, Ticket)>,
}

impl Tickets {
    /// Whether it is the first with this ticket.
    pub fn take(&mut self, from: NodeId, ticket: Ticket) -> Result<(), String> {
        if !self.taken.insert((from, ticket)) {
            return Err("the same message came before".into());
        }
        self.order.push_back((from, ticket));
        if self.order.len() > TICKETS_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.taken.remove(&first);
        }
        Ok(())
    }
}

/// Whether a command is short enough. A longer one would be in the log and in no message, and the group would stop at it.
fn fits(command: &Command) -> Result<(), String> {
    match message::json(command).len() {
        0..=COMMAND_MAX => Ok(()),
        bytes => Err(format!(
            "the command takes {bytes} bytes, and at most {COMMAND_MAX} are taken"
        )),
    }
}

/// What came of one attempt.
enum Attempt {
    Ended(Outcome),
    /// Nothing was done with it; this one may lead.
    Elsewhere(Option<NodeId>, String),
}

impl Manager {
    /// Asks for a change, on whichever node. Answered when it is committed: durable at a majority of the members, and on a node that
    /// leads visible in [`Manager::catalog`]. On another it is visible shortly after.
    pub async fn propose(&self, command: Command) -> Result<Vec<Event>, ProposeError> {
        self.shared.is_known_to_all(&command)?;
        match self.ask(command).await {
            Outcome::Committed { index, result } => {
                self.shows(index.0).await;
                result.map_err(ProposeError::Refused)
            }
            Outcome::Lost { why } => Err(ProposeError::Unavailable(why)),
            Outcome::Unknown { why } => Err(ProposeError::Unknown(why)),
        }
    }

    /// Asks for a change, and says what is known of it and where in the log it is. Does not wait until this node shows it.
    pub async fn ask(&self, command: Command) -> Outcome {
        let known = self.shared.is_known_to_all(&command);
        let takes = known.map_err(|refusal| refusal.reason);
        if let Err(why) = takes.and_then(|()| fits(&command)) {
            return Outcome::Lost { why };
        }
        let until = Instant::now() + self.shared.times.propose;
        let mut hint = None;
        let mut turn = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let attempt = self.attempt(command.clone(), hint, turn, left).await;
            let (leader, why) = match attempt {
                Attempt::Ended(outcome) => return outcome,
                Attempt::Elsewhere(leader, why) => (leader, why),
            };
            if self.shared.is_alone() || Instant::now() + LOOK >= until {
                return Outcome::Lost { why };
            }
            let is_new = leader.is_some() && leader != hint && leader != Some(self.node());
            hint = leader;
            turn += 1;
            if !is_new {
                sleep(LOOK).await;
            }
        }
    }

    async fn attempt(
        &self,
        command: Command,
        hint: Option<NodeId>,
        turn: usize,
        within: Duration,
    ) -> Attempt {
        let standing = self.shared.group.standing();
        if standing.does_lead || self.shared.is_alone() {
            return match self.shared.group.propose(command, within).await {
                Outcome::Lost { why } => Attempt::Elsewhere(None, why),
                outcome => Attempt::Ended(outcome),
            };
        }
        let to = match self.shared.leader_to_ask(hint, turn) {
            Some(ToAsk::Leader(to)) => to,
            Some(ToAsk::Anybody(to)) if self.shared.answers(to).await => to,
            Some(ToAsk::Anybody(to)) => {
                return Attempt::Elsewhere(
                    None,
                    format!("nobody is known to lead, and node {to} does not answer"),
                );
            }
            None => return Attempt::Elsewhere(None, "no member of the manager is known".into()),
        };
        let ticket = self.shared.ticket();
        let body = message::propose(&Propose { ticket, command });
        let answer = self.shared.transport.call(to, body, within).await;
        let answer = match &answer {
            Ok(answer) => message::read_reply_json::<Proposed>(answer),
            Err(Unreachable::NotSent(why)) => {
                return Attempt::Elsewhere(None, format!("node {to} is not reached: {why}"));
            }
            // It may have arrived all the same.
            Err(Unreachable::NoAnswer(why)) => {
                let why = format!("node {to} did not answer: {why}");
                return Attempt::Ended(Outcome::Unknown { why });
            }
        };
        match answer {
            Ok(Proposed::Committed { index, result }) => {
                Attempt::Ended(Outcome::Committed { index, result })
            }
            Ok(Proposed::Unknown { why }) => Attempt::Ended(Outcome::Unknown { why }),
            Ok(Proposed::Lost { why }) => Attempt::Elsewhere(None, why),
            Ok(Proposed::NotLeader { leader }) => Attempt::Elsewhere(
                leader,
                format!("node {to} does not lead, and nobody is known to"),
            ),
            Err(Unanswered::NotTaken(why)) => Attempt::Elsewhere(None, format!("node {to}: {why}")),
            Err(Unanswered::Unclear(why)) => {
                let why = format!("node {to}: {why}");
                Attempt::Ended(Outcome::Unknown { why })
            }
        }
    }

    /// Waits a while until what is shown has this entry.
    async fn shows(&self, index: u64) {
        let mut shown = self.shared.board.watch_index();
        let has = shown.wait_for(|shown| *shown >= index);
        // Where it takes longer, this node is cut off; that is no reason to leave the caller without its answer.
        let _ = tokio::time::timeout(self.shared.times.propose, has).await;
    }

    /// What another node proposes.
    pub(super) async fn take_proposal(&self, from: NodeId, asked: Propose) -> Proposed {
        let standing = self.shared.group.standing();
        if !standing.does_lead {
            let leader = standing.leader.filter(|leader| *leader != self.node());
            return Proposed::NotLeader { leader };
        }
        // Not every build may hold itself to the same bound.
        if let Err(why) = fits(&asked.command) {
            return Proposed::Lost { why };
        }
        let is_first = self.shared.tickets().take(from, asked.ticket);
        if let Err(why) = is_first {
            return Proposed::Unknown { why };
        }
        let within = self.shared.times.propose;
        self.shared
            .group
            .propose(asked.command, within)
            .await
            .into()
    }
}
