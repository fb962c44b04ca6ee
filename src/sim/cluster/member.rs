//! A member of the manager: what the leader decides, put together as a daemon does it.
//!
//! ```text
//!   leases ──► Grantor ──Live, Expired, Verdict──► Steward ──Propose──► the log ──► every node's Catalog
//!                 │ which leases have ended             ▲
//!                 ▼                                     │ Committed
//!   Take, Give ─► a range is taken, where it may be ────┴──────────────────────
//! ```

use super::log::{Outcome, ProposalId};
use super::message::{Msg, Report};
use crate::base::{NodeId, Time};
use crate::protocol::catalog::{
    Catalog, Command, Event, GiveWhy, Left, Refusal, StoreName, TakeWhy,
};
use crate::protocol::membership::{self, Grantor, GrantorInput, GrantorOutput, LeaseNumber, Term};
use crate::protocol::placement::solve;
use crate::protocol::steward::{self, Steward};
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
    id: NodeId,
    grantor: Grantor,
    steward: Steward,
    /// The highest lease of each node that has surely ended, since this one leads.
    ended: BTreeMap<NodeId, LeaseNumber>,
    /// The steward's proposals in the log.
    proposals: BTreeMap<ProposalId, u64>,
    /// Those that are committed, and of which the catalog here has not the entry yet.
    awaited: BTreeMap<u64, u64>,
    /// The term that it leads.
    leads: Option<u64>,
    pub effects: Vec<Effect>,
}

impl Member {
    pub fn start(
        now: Time,
        id: NodeId,
        (off, steward_off): (membership::RulesOff, steward::RulesOff),
        parameters: steward::Parameters,
    ) -> Member {
        let grantor = Grantor::new(now, id, membership::Parameters::DEFAULT, off);
        let steward = Steward::new(now, parameters, steward_off);
        Member {
            id,
            grantor: grantor.expect("the parameters are sound"),
            steward: steward.expect("the parameters are sound"),
            ended: BTreeMap::new(),
            proposals: BTreeMap::new(),
            awaited: BTreeMap::new(),
            leads: None,
            effects: Vec::new(),
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        let parts = [self.grantor.deadline(), self.steward.deadline()];
        parts.into_iter().flatten().min()
    }

    pub fn expire(&mut self, now: Time, catalog: &Catalog) {
        if self.grantor.deadline().is_some_and(|at| at <= now) {
            let mut out = Vec::new();
            self.grantor.expire(now, &mut out);
            self.take_grantor(now, catalog, out);
        }
        if self.steward.deadline().is_some_and(|at| at <= now) {
            let mut out = Vec::new();
            self.steward.expire(now, catalog, &mut out);
            self.take_steward(now, catalog, out);
        }
    }

    /// This member leads; its catalog has everything that earlier leaders committed.
    pub fn lead(&mut self, now: Time, term: u64, catalog: &Catalog) {
        self.leads = Some(term);
        self.ended.clear();
        let nodes: Vec<_> = catalog
            .nodes()
            .map(|node| (node.id, node.incarnation))
            .collect();
        for (node, incarnation) in nodes {
            self.grant(now, catalog, GrantorInput::Node { node, incarnation });
        }
        self.grant(now, catalog, GrantorInput::Lead { term: Term(term) });
        self.steward(now, catalog, steward::Input::Lead);
    }

    pub fn follow(&mut self, now: Time, leader: Option<NodeId>, catalog: &Catalog) {
        self.leads = None;
        self.grant(now, catalog, GrantorInput::Follow { leader });
        self.steward(now, catalog, steward::Input::Follow);
        self.proposals.clear();
        self.awaited.clear();
    }

    /// Its catalog went on without telling what happened: a leader looks at everything anew.
    pub fn on_snapshot(&mut self, now: Time, catalog: &Catalog) {
        if let Some(term) = self.leads {
            self.follow(now, None, catalog);
            self.lead(now, term, catalog);
        }
    }

    pub fn confirmed(&mut self, now: Time, (term, up_to): (u64, u64), catalog: &Catalog) {
        let term = Term(term);
        self.grant(now, catalog, GrantorInput::Confirmed { term, up_to });
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
            (Some(proposal), None) => {
                let outcome = steward::Outcome::Lost;
                self.steward(now, catalog, steward::Input::Answered { proposal, outcome });
            }
            (None, _) => {}
        }
    }

    pub fn answered(&mut self, now: Time, id: ProposalId, outcome: Outcome, catalog: &Catalog) {
        let Some(proposal) = self.proposals.remove(&id) else {
            return;
        };
        match outcome {
            Outcome::Committed { index } => {
                self.awaited.insert(index, proposal);
            }
            Outcome::Unknown => {
                let outcome = steward::Outcome::Lost;
                self.steward(now, catalog, steward::Input::Answered { proposal, outcome });
            }
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
        while let Some((&first, &proposal)) = self.awaited.first_key_value()
            && first <= index
        {
            self.awaited.remove(&first);
            let outcome = match &results[&first] {
                Ok(_) => steward::Outcome::Accepted,
                Err(refusal) => steward::Outcome::Refused(refusal.clone()),
            };
            self.steward(now, catalog, steward::Input::Answered { proposal, outcome });
        }
    }

    pub fn on_events(&mut self, now: Time, events: &[Event], catalog: &Catalog) {
        for event in events {
            let input = match event {
                Event::NodeAdded { node } | Event::NodeChanged { node } => GrantorInput::Node {
                    node: node.id,
                    incarnation: node.incarnation,
                },
                Event::NodeRemoved { node } => GrantorInput::Forget { node: *node },
                _ => continue,
            };
            self.grant(now, catalog, input);
        }
        self.steward(now, catalog, steward::Input::Committed(events));
    }

    /// A message for the manager.
    pub fn on_message(&mut self, now: Time, from: NodeId, message: &Msg, catalog: &Catalog) {
        match message {
            Msg::Lease(ask) => self.grant(now, catalog, GrantorInput::Ask(*ask)),
            Msg::Report(report) if self.leads.is_some() => {
                self.on_report(now, from, report, catalog)
            }
            _ => {}
        }
    }

    fn on_report(&mut self, now: Time, from: NodeId, report: &Report, catalog: &Catalog) {
        let input = match *report {
            Report::Accused { pg, disk, version } => {
                if let Some(accused) = catalog.disk(disk).map(|disk| disk.node)
                    && accused != from
                {
                    let by = from;
                    self.grant(now, catalog, GrantorInput::Accuse { by, accused });
                }
                steward::Input::Accused {
                    by: from,
                    pg,
                    version,
                    disk,
                }
            }
            Report::DiskOpened {
                disk,
                before,
                now,
                start,
            } => {
                let Some(store) = catalog.disk(disk).map(|disk| disk.store) else {
                    return;
                };
                let store: StoreName = store;
                steward::Input::DiskOpened {
                    disk,
                    store,
                    before,
                    now,
                    start,
                }
            }
            Report::DiskFailed { disk } => steward::Input::DiskAway { disk },
            Report::Wrong {
                pg,
                disk,
                version,
                why,
            } => steward::Input::Wrong {
                by: from,
                pg,
                version,
                disk,
                why,
            },
            Report::Filled { pg, disk, session } => steward::Input::Filled { pg, disk, session },
            Report::SessionLost { pg, disk, session } => {
                steward::Input::SessionLost { pg, disk, session }
            }
            Report::Take {
                volume,
                lease,
                after,
            } => {
                let owner = catalog.range(volume).and_then(|range| range.owner);
                let why = match owner.filter(|owner| owner.node != from) {
                    None => TakeWhy::Free,
                    Some(owner) => match self.ended.get(&owner.node) {
                        Some(&lease) if lease >= owner.lease => TakeWhy::LeaseEnded { lease },
                        // It may be live: the taker asks again.
                        _ => return,
                    },
                };
                let node = from;
                return self.effects.push(Effect::Propose {
                    number: None,
                    command: Command::TakeRange {
                        volume,
                        node,
                        lease,
                        after,
                        why,
                    },
                });
            }
            Report::Hand {
                volume,
                epoch,
                to,
                left,
            } => {
                let node = from;
                return self.effects.push(Effect::Propose {
                    number: None,
                    command: Command::HandRange {
                        volume,
                        node,
                        epoch,
                        to,
                        left,
                    },
                });
            }
            Report::Frozen {
                volume,
                layer,
                epoch,
            } => {
                let node = from;
                return self.effects.push(Effect::Propose {
                    number: None,
                    command: Command::FreezeLayer {
                        volume,
                        layer,
                        node,
                        epoch,
                    },
                });
            }
            Report::Give {
                volume,
                epoch,
                left,
            } => {
                let node = from;
                let why = match left {
                    Left::Settled => GiveWhy::Drained,
                    Left::Unsettled => GiveWhy::Undrained,
                };
                return self.effects.push(Effect::Propose {
                    number: None,
                    command: Command::GiveRange {
                        volume,
                        node,
                        epoch,
                        why,
                    },
                });
            }
        };
        self.steward(now, catalog, input);
    }

    fn grant(&mut self, now: Time, catalog: &Catalog, input: GrantorInput) {
        let mut out = Vec::new();
        self.grantor.step(now, input, &mut out);
        self.take_grantor(now, catalog, out);
    }

    fn take_grantor(&mut self, now: Time, catalog: &Catalog, outputs: Vec<GrantorOutput>) {
        for output in outputs {
            match output {
                GrantorOutput::Answer {
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
                GrantorOutput::Confirm { term, up_to } => {
                    self.effects.push(Effect::Confirm { term, up_to });
                }
                GrantorOutput::Record { node, incarnation } => {
                    self.effects.push(Effect::Propose {
                        number: None,
                        command: Command::RecordIncarnation { node, incarnation },
                    });
                }
                GrantorOutput::Live { node, .. } => {
                    self.steward(now, catalog, steward::Input::Live { node });
                }
                GrantorOutput::Expired { node, lease, .. } => {
                    let ended = self.ended.entry(node).or_insert(lease);
                    *ended = (*ended).max(lease);
                    self.steward(now, catalog, steward::Input::Expired { node });
                }
                GrantorOutput::Verdict(verdict) => {
                    self.steward(now, catalog, steward::Input::Verdict(verdict));
                }
                GrantorOutput::ClockOutOfBounds { node } => {
                    self.effects.push(Effect::FoundClock { node });
                }
                GrantorOutput::ClockInBounds { .. }
                | GrantorOutput::OwnClockOutOfBounds
                | GrantorOutput::Full { .. } => {}
            }
        }
    }

    fn steward(&mut self, now: Time, catalog: &Catalog, input: steward::Input<'_>) {
        let mut out = Vec::new();
        self.steward.step(now, catalog, input, &mut out);
        self.take_steward(now, catalog, out);
    }

    fn take_steward(&mut self, now: Time, catalog: &Catalog, outputs: Vec<steward::Output>) {
        for output in outputs {
            match output {
                steward::Output::Propose { proposal, command } => {
                    let number = Some(proposal);
                    self.effects.push(Effect::Propose { number, command });
                }
                steward::Output::Solve { question, cluster } => {
                    let plan = solve(&cluster);
                    self.steward(now, catalog, steward::Input::Solved { question, plan });
                }
                steward::Output::Note(_) => {}
            }
        }
        let _ = self.id;
    }

    pub fn check(&self) -> Result<(), &'static str> {
        self.grantor.check()?;
        self.steward.check()
    }
}
