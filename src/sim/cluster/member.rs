//! A member of the manager: the shipped machine, and what a daemon does for it.
//!
//! A daemon tells it what came of a proposal when the catalog of its own node has the entry: until then that is kept here. Placement is solved at once.

use super::log::{Outcome, ProposalId};
use super::message::Msg;
use crate::base::{NodeId, Time};
use crate::node::{Member as Machine, MemberInput, MemberOutput};
use crate::protocol::catalog::{Catalog, Command, Event, Refusal};
use crate::protocol::membership::{self, GrantorOutput, Term};
use crate::protocol::placement::solve;
use crate::protocol::steward;
use std::collections::BTreeMap;

/// What a member wants done.
#[derive(Debug)]
pub enum Effect {
    Send {
        to: NodeId,
        message: Msg,
    },
    /// Proposed for the steward under its number, or for a node that will see for itself.
    Propose {
        number: Option<u64>,
        command: Command,
    },
    Confirm {
        term: Term,
        up_to: u64,
    },
    /// A node's clock was found to run out of bounds.
    FoundClock {
        node: NodeId,
    },
}

/// One member, in one start of its node.
pub struct Member {
    machine: Machine,
    /// Proposals in the log that have a number.
    proposals: BTreeMap<ProposalId, u64>,
    /// Those that are committed, and of which the catalog here has not the entry yet.
    awaited: BTreeMap<u64, u64>,
    pub effects: Vec<Effect>,
}

impl Member {
    pub fn start(
        now: Time,
        id: NodeId,
        (off, steward_off): (membership::RulesOff, steward::RulesOff),
        parameters: steward::Parameters,
    ) -> Member {
        let leases = (membership::Parameters::DEFAULT, off);
        let machine = Machine::new(now, id, leases, (parameters, steward_off));
        Member {
            machine: machine.expect("the parameters are sound"),
            proposals: BTreeMap::new(),
            awaited: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        self.machine.deadline()
    }

    pub fn expire(&mut self, now: Time, catalog: &Catalog) {
        let mut out = Vec::new();
        self.machine.expire(now, catalog, &mut out);
        self.take(now, out, catalog);
    }

    /// This member leads; its catalog has everything that earlier leaders committed.
    pub fn lead(&mut self, now: Time, term: u64, catalog: &Catalog) {
        let term = Term(term);
        self.step(now, MemberInput::Lead { term }, catalog);
    }

    pub fn follow(&mut self, now: Time, leader: Option<NodeId>, catalog: &Catalog) {
        self.step(now, MemberInput::Follow { leader }, catalog);
        self.proposals.clear();
        self.awaited.clear();
    }

    /// Its catalog went on without telling what happened.
    pub fn on_snapshot(&mut self, now: Time, catalog: &Catalog) {
        self.step(now, MemberInput::Snapshot, catalog);
    }

    pub fn confirmed(&mut self, now: Time, (term, up_to): (u64, u64), catalog: &Catalog) {
        let term = Term(term);
        self.step(now, MemberInput::Confirmed { term, up_to }, catalog);
    }

    /// The log has taken a proposal, or has not.
    pub fn proposed(
        &mut self,
        now: Time,
        number: Option<u64>,
        id: Option<ProposalId>,
        catalog: &Catalog,
    ) {
        match (number, id) {
            (Some(number), Some(id)) => {
                self.proposals.insert(id, number);
            }
            (Some(number), None) => self.tell(now, number, steward::Outcome::Lost, catalog),
            (None, _) => {}
        }
    }

    pub fn answered(&mut self, now: Time, id: ProposalId, outcome: Outcome, catalog: &Catalog) {
        let Some(number) = self.proposals.remove(&id) else {
            return;
        };
        match outcome {
            Outcome::Committed { index } => {
                self.awaited.insert(index, number);
            }
            Outcome::Unknown => self.tell(now, number, steward::Outcome::Lost, catalog),
        }
    }

    /// The catalog here has everything up to this entry; `results` tells what came of each.
    pub fn applied(
        &mut self,
        now: Time,
        index: u64,
        catalog: &Catalog,
        results: &BTreeMap<u64, Result<Vec<Event>, Refusal>>,
    ) {
        while let Some((&first, &number)) = self.awaited.first_key_value()
            && first <= index
        {
            self.awaited.remove(&first);
            let outcome = match &results[&first] {
                Ok(_) => steward::Outcome::Accepted,
                Err(refusal) => steward::Outcome::Refused(refusal.clone()),
            };
            self.tell(now, number, outcome, catalog);
        }
    }

    pub fn on_events(&mut self, now: Time, events: &[Event], catalog: &Catalog) {
        self.step(now, MemberInput::Events(events), catalog);
    }

    /// A message for the manager.
    pub fn on_message(&mut self, now: Time, from: NodeId, message: &Msg, catalog: &Catalog) {
        let input = match message {
            Msg::Lease(ask) => MemberInput::Ask(*ask),
            Msg::Report(report) => MemberInput::Report { from, report },
            _ => return,
        };
        self.step(now, input, catalog);
    }

    pub fn check(&self) -> Result<(), &'static str> {
        self.machine.check()
    }

    fn tell(&mut self, now: Time, proposal: u64, outcome: steward::Outcome, catalog: &Catalog) {
        let input = MemberInput::Answered { proposal, outcome };
        self.step(now, input, catalog);
    }

    fn step(&mut self, now: Time, input: MemberInput<'_>, catalog: &Catalog) {
        let mut out = Vec::new();
        self.machine.step(now, input, catalog, &mut out);
        self.take(now, out, catalog);
    }

    fn take(&mut self, now: Time, out: Vec<MemberOutput>, catalog: &Catalog) {
        for output in out {
            match output {
                MemberOutput::Answer {
                    to,
                    incarnation,
                    request,
                    term,
                    answer,
                } => self.effects.push(Effect::Send {
                    to,
                    message: Msg::LeaseAnswer {
                        incarnation,
                        request,
                        term,
                        answer,
                    },
                }),
                MemberOutput::Propose { proposal, command } => {
                    let number = proposal;
                    self.effects.push(Effect::Propose { number, command });
                }
                MemberOutput::Confirm { term, up_to } => {
                    self.effects.push(Effect::Confirm { term, up_to });
                }
                MemberOutput::Solve { question, cluster } => {
                    let plan = solve(&cluster);
                    self.step(now, MemberInput::Solved { question, plan }, catalog);
                }
                MemberOutput::Leases(GrantorOutput::ClockOutOfBounds { node }) => {
                    self.effects.push(Effect::FoundClock { node });
                }
                MemberOutput::Leases(_) | MemberOutput::Note(_) => {}
            }
        }
    }
}
