//! The manager's log, idealised: what Raft gives to who stands on it, and what it does not.
//!
//! Members propose to the one that leads; a proposal is committed after a while if a majority of the members runs and is reached, and
//! every node gets what is committed in one order, each in its own time. Entries are not lost; everything else is as bad
//! as Raft has it:
//! - When the leader is gone, nothing is committed for the length of an election. What was in flight is lost or committed, a
//!   beginning of it, and its proposer does not learn which: it asks the catalog, or proposes again.
//! - A leader that was deposed does not know it until somebody reaches it. It takes proposals, which are lost, and confirms nothing.
//! - A node that was down, or is far behind, gets a snapshot instead of the entries that it missed.
//!
//! What `membership` asks of its driver is kept: [`Event::Lead`] comes after everything that earlier leaders committed was
//! applied there; [`Log::confirm`] is answered when a majority that follows no later term has said so by messages that left
//! after it was asked.
//!
//! Invariants: *one order*: every node sees the entries in the order of their index, without gap but for a snapshot. *one leader a
//! term*. *a beginning*: of the proposals in flight at an election, those that are committed come before those that are lost.
//!
//! It does not know how messages of Raft travel; it asks [`Reach`] who reaches whom. The catalog is with the world:
//! [`Event::Committed`] tells it first, so that a snapshot is what has been committed at that moment.

mod elect;
#[cfg(test)]
mod tests;

use super::coverage::{Fault, Tally};
use super::links::chance;
use super::network::Network;
use crate::base::{NodeId, Prng, Slab, Time};
use crate::sim::clock::Agenda;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Proposals in flight, and those whose proposer has not heard.
const PROPOSALS_MAX: usize = 256;
/// Rounds of confirmation in flight; older ones are forgotten, and asked again by who needs them.
const ROUNDS_MAX: usize = 256;
const DUE_MAX: usize = 1 << 16;
/// How often it is looked whether there is a leader, and what could not be delivered is tried again.
const LOOK: Duration = Duration::from_millis(5);

/// Who runs, and who reaches whom.
pub trait Reach {
    /// Whether a node runs: it is neither down nor stopped.
    fn is_up(&self, node: NodeId) -> bool;
    /// Whether two nodes run and can speak to one another, both ways.
    fn reaches(&self, now: Time, a: NodeId, b: NodeId) -> bool;
}

impl<M: Clone> Reach for Network<M> {
    fn is_up(&self, node: NodeId) -> bool {
        Network::is_up(self, node)
    }
    fn reaches(&self, now: Time, a: NodeId, b: NodeId) -> bool {
        Network::reaches(self, now, a, b)
    }
}

/// How long things take, in microseconds, and how often they go wrong; one in so many, zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From a proposal to its commit, at most.
    pub commit_us: u64,
    /// From a commit to its arrival at a node, at most.
    pub apply_us: u64,
    /// One in so many entries reaches a node up to so much later.
    pub late_one_in: u64,
    pub late_us: u64,
    /// The proposer of one in so many commits does not learn of it.
    pub unknown_one_in: u64,
    /// From the loss of a leader to the next, at least and at most.
    pub election_us: (u64, u64),
    /// Entries that are kept; who is further behind gets a snapshot.
    pub keep: usize,
}

impl Pace {
    /// Quick, and without faults.
    pub const CALM: Pace = Pace {
        commit_us: 500,
        apply_us: 500,
        late_one_in: 0,
        late_us: 0,
        unknown_one_in: 0,
        election_us: (150_000, 245_000),
        keep: 1_000,
    };
}

/// Entries that come to a node at once, at most.
const ENTRIES_OF_MESSAGE: usize = 16;

/// The name of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposalId(pub u64);

/// What a proposer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Committed {
        index: u64,
    },
    /// It is committed, or lost: nobody can say.
    Unknown,
}

/// Why a proposal was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    NotLeader {
        hint: Option<NodeId>,
    },
    /// Too many are in flight.
    Full,
}

/// What comes out of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<C> {
    /// An entry is committed. Its index is one more than that of the one before, from 1 on.
    Committed { index: u64, term: u64, command: C },
    /// A node gets an entry.
    Apply { at: NodeId, index: u64, command: C },
    /// A node gets all up to this entry at once: it is the last that was committed.
    Snapshot { at: NodeId, index: u64 },
    Answered {
        at: NodeId,
        proposal: ProposalId,
        outcome: Outcome,
    },
    /// A member leads.
    Lead { at: NodeId, term: u64 },
    /// A member hears that another leads.
    Follow {
        at: NodeId,
        term: u64,
        leader: Option<NodeId>,
    },
    /// The answer to [`Log::confirm`].
    Confirmed { at: NodeId, term: u64, up_to: u64 },
}

#[derive(Debug, Default)]
struct Member {
    /// The latest term that it voted in; durable.
    voted: u64,
    /// The latest term of whose leader it has heard.
    told: u64,
    /// The term in which it believes that it leads.
    leads: Option<u64>,
    /// Proposals of its own whose outcome nobody will tell it.
    open: Vec<(ProposalId, Fate)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Committed,
    Lost,
}

#[derive(Debug, Default)]
struct Subscriber {
    /// The last entry that it has.
    has: u64,
    life: u64,
    needs_snapshot: bool,
    is_due: bool,
    is_late: bool,
}

#[derive(Debug)]
struct Proposal<C> {
    id: ProposalId,
    at: Time,
    command: C,
}

#[derive(Debug)]
enum Due {
    /// The first proposal in flight may be committed.
    Commit,
    /// A node may get its next entry.
    Apply { node: NodeId },
    /// Whether there is a leader, and who has not heard of it.
    Look,
    Answer {
        at: NodeId,
        life: u64,
        proposal: ProposalId,
        outcome: Outcome,
    },
    /// A member's answer to a round of confirmation.
    Vote {
        round: (NodeId, u64, u64),
        by: NodeId,
    },
}

/// The log of one manager.
#[derive(Debug)]
pub struct Log<C> {
    pace: Pace,
    prng: Prng,
    members: BTreeMap<NodeId, Member>,
    nodes: BTreeMap<NodeId, Subscriber>,
    term: u64,
    leader: Option<NodeId>,
    /// Since when nobody leads, and how long that lasts.
    leaderless: Option<(Time, Duration)>,
    /// Who shall not be elected next, if another can.
    deposed: Option<NodeId>,
    /// The entries after `trimmed`.
    entries: VecDeque<C>,
    trimmed: u64,
    flying: VecDeque<Proposal<C>>,
    is_commit_due: bool,
    proposals: u64,
    rounds: BTreeMap<(NodeId, u64, u64), BTreeSet<NodeId>>,
    agenda: Agenda,
    due: Slab<Due>,
    ready: VecDeque<Event<C>>,
    pub tally: Tally,
}

impl<C: Clone> Log<C> {
    /// An empty log of `members`, which are among `nodes`; the first election is at once.
    pub fn new(seed: u64, members: &[NodeId], nodes: &[NodeId], pace: Pace) -> Log<C> {
        assert!(!members.is_empty(), "a manager has a member");
        let mut log = Log {
            pace,
            prng: Prng::new(seed ^ 0x6c6f_6700),
            members: members
                .iter()
                .map(|node| (*node, Member::default()))
                .collect(),
            nodes: nodes
                .iter()
                .chain(members)
                .map(|node| (*node, Subscriber::default()))
                .collect(),
            term: 0,
            leader: None,
            leaderless: Some((Time(0), Duration::ZERO)),
            deposed: None,
            entries: VecDeque::new(),
            trimmed: 0,
            flying: VecDeque::new(),
            is_commit_due: false,
            proposals: 0,
            rounds: BTreeMap::new(),
            agenda: Agenda::new(),
            due: Slab::new(DUE_MAX),
            ready: VecDeque::new(),
            tally: Tally::default(),
        };
        log.put(Time(0), Due::Look);
        log
    }

    /// The index of the last entry that is committed.
    pub fn committed(&self) -> u64 {
        self.trimmed + self.entries.len() as u64
    }

    /// Who leads, if anybody does; others may believe that they do.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// A member proposes a command.
    pub fn propose(&mut self, now: Time, at: NodeId, command: C) -> Result<ProposalId, NotTaken> {
        let hint = self.leader;
        let leads = self.members.get(&at).and_then(|member| member.leads);
        let Some(leads) = leads else {
            return Err(NotTaken::NotLeader { hint });
        };
        let open = &mut self.members.get_mut(&at).expect("it was looked up").open;
        if self.flying.len() + open.len() >= PROPOSALS_MAX {
            return Err(NotTaken::Full);
        }
        self.proposals += 1;
        let id = ProposalId(self.proposals);
        if leads < self.term || self.leader != Some(at) {
            // It was deposed and does not know it.
            self.tally.both(Fault::ProposalLost);
            open.push((id, Fate::Lost));
            return Ok(id);
        }
        let took = self.up_to(self.pace.commit_us);
        let last = self.flying.back().map_or(now, |proposal| proposal.at);
        let at = (now + took).max(last);
        self.flying.push_back(Proposal { id, at, command });
        if !std::mem::replace(&mut self.is_commit_due, true) {
            self.put(at, Due::Commit);
        }
        Ok(id)
    }

    /// A member that believes it leads `term` has a majority say so.
    pub fn confirm(&mut self, now: Time, at: NodeId, term: u64, up_to: u64) {
        let round = (at, term, up_to);
        // What a member asked as the leader of an earlier term is answered no more.
        self.rounds
            .retain(|(by, of, _), _| *by != at || *of == term);
        self.rounds.insert(round, BTreeSet::new());
        // Its own earliest one goes: those of a leader that is cut off must not push out those of the next.
        let own = (at, term, 0)..=(at, term, u64::MAX);
        if self.rounds.range(own.clone()).count() > ROUNDS_MAX
            && let Some((&earliest, _)) = self.rounds.range(own).next()
        {
            self.rounds.remove(&earliest);
        }
        let members: Vec<NodeId> = self.members.keys().copied().collect();
        for by in members {
            let took = match by == at {
                true => Duration::ZERO,
                false => self.up_to(self.pace.commit_us),
            };
            self.put(now + took, Due::Vote { round, by });
        }
    }

    fn up_to(&mut self, us: u64) -> Duration {
        Duration::from_nanos(1 + self.prng.below(us * 1_000 + 1))
    }

    fn put(&mut self, when: Time, due: Due) {
        let key = self.due.insert(due);
        let key = key.unwrap_or_else(|_| panic!("bounded: what is due at once"));
        self.agenda.put(when, key);
    }

    /// When something may happen next.
    pub fn next(&self) -> Option<Time> {
        match self.ready.is_empty() {
            true => self.agenda.next(),
            false => Some(Time(0)),
        }
    }

    /// The next thing that happens, by `now`.
    pub fn poll(&mut self, now: Time, reach: &impl Reach) -> Option<Event<C>> {
        while self.ready.is_empty() {
            let key = self.agenda.pop(now)?;
            match self.due.remove(key).expect("what is due was put there") {
                Due::Commit => self.on_commit(now, reach),
                Due::Apply { node } => self.on_apply(now, node, reach),
                Due::Look => self.on_look(now, reach),
                due @ Due::Answer { .. } => self.on_answer(now, due, reach),
                Due::Vote { round, by } => self.on_vote(now, round, by, reach),
            }
        }
        self.ready.pop_front()
    }

    fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Whether a majority follows a leader of this term and is reached by it.
    fn has_majority(&self, now: Time, leader: NodeId, term: u64, reach: &impl Reach) -> bool {
        let follows = |(node, member): &(&NodeId, &Member)| {
            member.voted <= term && reach.reaches(now, leader, **node)
        };
        self.members.iter().filter(follows).count() >= self.majority()
    }

    fn on_commit(&mut self, now: Time, reach: &impl Reach) {
        self.is_commit_due = false;
        let Some(leader) = self.leader.filter(|_| !self.flying.is_empty()) else {
            return;
        };
        let mut next = now + LOOK;
        if self.has_majority(now, leader, self.term, reach) {
            let proposal = self.flying.pop_front().expect("it is not empty");
            let index = self.commit(now, proposal.command);
            let outcome = match chance(&mut self.prng, self.pace.unknown_one_in) {
                true => {
                    self.tally.both(Fault::ProposalUnknown);
                    Outcome::Unknown
                }
                false => Outcome::Committed { index },
            };
            let took = self.up_to(self.pace.commit_us);
            let due = Due::Answer {
                at: leader,
                life: self.nodes[&leader].life,
                proposal: proposal.id,
                outcome,
            };
            self.put(now + took, due);
            match self.flying.front() {
                Some(front) => next = front.at.max(now),
                None => return,
            }
        }
        self.is_commit_due = true;
        self.put(next, Due::Commit);
    }

    /// Commits an entry, and has it brought to all nodes.
    fn commit(&mut self, now: Time, command: C) -> u64 {
        self.entries.push_back(command.clone());
        // The leader has them all, and applies them one by one.
        let of_leader = self
            .leader
            .map_or(u64::MAX, |leader| self.nodes[&leader].has);
        if self.entries.len() > self.pace.keep && self.trimmed < of_leader {
            self.entries.pop_front();
            self.trimmed += 1;
        }
        let (index, term) = (self.committed(), self.term);
        self.ready.push_back(Event::Committed {
            index,
            term,
            command,
        });
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.bring(now, node);
        }
        index
    }

    /// Has a node get its next entry in a while, unless it is about to.
    fn bring(&mut self, now: Time, node: NodeId) {
        let is_late = chance(&mut self.prng, self.pace.late_one_in);
        let mut took = self.up_to(self.pace.apply_us);
        if is_late {
            took += self.up_to(self.pace.late_us);
        }
        let it = self.nodes.get_mut(&node).expect("a node of the log");
        if !std::mem::replace(&mut it.is_due, true) {
            it.is_late = is_late;
            if is_late {
                self.tally.injected(Fault::EntryLate);
            }
            self.put(now + took, Due::Apply { node });
        }
    }

    fn on_apply(&mut self, now: Time, node: NodeId, reach: &impl Reach) {
        let committed = self.committed();
        let may = self
            .leader
            .is_some_and(|leader| reach.reaches(now, leader, node));
        let it = self.nodes.get_mut(&node).expect("a node of the log");
        if !may {
            return self.put(now + LOOK, Due::Apply { node });
        }
        it.is_due = false;
        if std::mem::take(&mut it.is_late) {
            self.tally.consumed(Fault::EntryLate);
        }
        // One message carries many: else a manager that is asked more often than its pace would fall behind for ever.
        for _ in 0..ENTRIES_OF_MESSAGE {
            if self.nodes[&node].has < committed {
                self.bring_one(node);
            }
        }
        if self.nodes[&node].has < committed {
            self.bring(now, node);
        }
    }

    /// Gives a node its next entry, or all of them where it has missed some.
    fn bring_one(&mut self, node: NodeId) {
        let index = self.committed();
        let it = self.nodes.get_mut(&node).expect("a node of the log");
        if std::mem::take(&mut it.needs_snapshot) || it.has < self.trimmed {
            it.has = index;
            self.tally.both(Fault::Snapshot);
            return self.ready.push_back(Event::Snapshot { at: node, index });
        }
        if it.has < index {
            let command = self.entries[(it.has - self.trimmed) as usize].clone();
            it.has += 1;
            let index = it.has;
            let at = node;
            self.ready.push_back(Event::Apply { at, index, command });
        }
    }

    fn on_answer(&mut self, now: Time, due: Due, reach: &impl Reach) {
        let Due::Answer {
            at,
            life,
            proposal,
            outcome,
        } = due
        else {
            return debug_assert!(false, "only an answer is answered");
        };
        if self.nodes[&at].life != life {
            return;
        }
        if !reach.is_up(at) {
            // It is stopped, and hears it when it wakes.
            return self.put(now + LOOK, due);
        }
        self.ready.push_back(Event::Answered {
            at,
            proposal,
            outcome,
        });
    }
}
