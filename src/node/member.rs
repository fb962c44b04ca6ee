//! A member of the manager: what the leader decides for all nodes.
//!
//! ```text
//!   leases ──► Grantor ──Live, Expired, Verdict──► Steward ──Propose──► the log ──► every node's Catalog
//!                 │ which leases have ended             ▲
//!                 ▼                                     │ Answered, Events
//!   Take, Give ─► a range is taken, where it may be ────┴──────────────────────
//! ```
//!
//! # The driver's duties
//! 1. `Lead` only when the catalog has everything that earlier leaders committed; `Follow` at once.
//! 2. Tell the events of a command before its answer.
//! 3. Solve beside the member's work: it waits for no answer.
//! 4. For `Confirm`, ask a majority by messages that leave after it.

use crate::base::{NodeId, Time};
use crate::protocol::catalog::{Catalog, Command, Event, GiveWhy, Left, TakeWhy};
use crate::protocol::membership::{
    self, Answer, Ask, Grantor, GrantorInput, GrantorOutput, Incarnation, LeaseNumber, Term,
};
use crate::protocol::placement::{Cluster, Plan, Refusal};
use crate::protocol::report::Report;
use crate::protocol::steward::{self, Steward};
use std::collections::BTreeMap;

/// What a member is told.
#[derive(Debug)]
pub enum MemberInput<'a> {
    Lead {
        term: Term,
    },
    Follow {
        leader: Option<NodeId>,
    },
    /// Its catalog went on without telling what happened: a leader looks at everything anew.
    Snapshot,
    Events(&'a [Event]),
    /// A majority has said that this member leads.
    Confirmed {
        term: Term,
        up_to: u64,
    },
    /// What became of a proposal that had a number.
    Answered {
        proposal: u64,
        outcome: steward::Outcome,
    },
    Solved {
        question: u64,
        plan: Result<Plan, Refusal>,
    },
    /// A node asks for its lease.
    Ask(Ask),
    /// A node reports; who does not lead does not listen.
    Report {
        from: NodeId,
        report: &'a Report,
    },
}

/// What a member wants done.
#[derive(Debug)]
pub enum MemberOutput {
    /// To a node that asked for its lease.
    Answer {
        to: NodeId,
        incarnation: Incarnation,
        request: u64,
        term: Term,
        answer: Answer,
    },
    /// Without a number: who wants it sees for himself, and asks again.
    Propose {
        proposal: Option<u64>,
        command: Command,
    },
    Confirm {
        term: Term,
        up_to: u64,
    },
    Solve {
        question: u64,
        cluster: Box<Cluster>,
    },
    /// For people: what was decided about replicas, and why.
    Note(steward::Note),
    /// For people: a clock, or too many nodes.
    Leases(GrantorOutput),
}

/// One member, in one start of its node.
#[derive(Debug)]
pub struct Member {
    grantor: Grantor,
    steward: Steward,
    /// The highest lease of each node that has surely ended, since this one leads.
    ended: BTreeMap<NodeId, LeaseNumber>,
    /// The term that it leads.
    leads: Option<Term>,
}

/// Why a member was not made: its parameters contradict one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsound {
    Leases(membership::Unsound),
    Steward(steward::Unsound),
}

impl Member {
    /// # Errors
    /// The parameters contradict one another.
    pub fn new(
        now: Time,
        id: NodeId,
        (leases, leases_off): (membership::Parameters, membership::RulesOff),
        (parameters, off): (steward::Parameters, steward::RulesOff),
    ) -> Result<Member, Unsound> {
        let grantor = Grantor::new(now, id, leases, leases_off);
        let steward = Steward::new(now, parameters, off);
        Ok(Member {
            grantor: grantor.map_err(Unsound::Leases)?,
            steward: steward.map_err(Unsound::Steward)?,
            ended: BTreeMap::new(),
            leads: None,
        })
    }

    /// When [`Member::expire`] is to be called.
    pub fn deadline(&self) -> Option<Time> {
        let parts = [self.grantor.deadline(), self.steward.deadline()];
        parts.into_iter().flatten().min()
    }

    /// The deadline has come.
    pub fn expire(&mut self, now: Time, catalog: &Catalog, out: &mut Vec<MemberOutput>) {
        if self.grantor.deadline().is_some_and(|at| at <= now) {
            let mut list = Vec::new();
            self.grantor.expire(now, &mut list);
            self.take_grantor(now, list, catalog, out);
        }
        if self.steward.deadline().is_some_and(|at| at <= now) {
            let mut list = Vec::new();
            self.steward.expire(now, catalog, &mut list);
            take_steward(list, out);
        }
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(
        &mut self,
        now: Time,
        input: MemberInput<'_>,
        catalog: &Catalog,
        out: &mut Vec<MemberOutput>,
    ) {
        match input {
            MemberInput::Lead { term } => self.lead(now, term, catalog, out),
            MemberInput::Follow { leader } => self.follow(now, leader, catalog, out),
            MemberInput::Snapshot => {
                if let Some(term) = self.leads {
                    self.follow(now, None, catalog, out);
                    self.lead(now, term, catalog, out);
                }
            }
            MemberInput::Events(events) => self.on_events(now, events, catalog, out),
            MemberInput::Confirmed { term, up_to } => {
                let input = GrantorInput::Confirmed { term, up_to };
                self.grant(now, input, catalog, out);
            }
            MemberInput::Answered { proposal, outcome } => {
                let input = steward::Input::Answered { proposal, outcome };
                self.tell_steward(now, input, catalog, out);
            }
            MemberInput::Solved { question, plan } => {
                let input = steward::Input::Solved { question, plan };
                self.tell_steward(now, input, catalog, out);
            }
            MemberInput::Ask(ask) => self.grant(now, GrantorInput::Ask(ask), catalog, out),
            MemberInput::Report { from, report } => {
                if self.leads.is_some() {
                    self.on_report(now, (from, report), catalog, out);
                }
            }
        }
    }

    /// Asserts the invariants of both machines.
    ///
    /// # Errors
    /// The name of the one that is broken.
    pub fn check(&self) -> Result<(), &'static str> {
        self.grantor.check()?;
        self.steward.check()
    }

    /// Its catalog has everything that earlier leaders committed.
    fn lead(&mut self, now: Time, term: Term, catalog: &Catalog, out: &mut Vec<MemberOutput>) {
        self.leads = Some(term);
        self.ended.clear();
        for node in catalog.nodes() {
            let (node, incarnation) = (node.id, node.incarnation);
            let input = GrantorInput::Node { node, incarnation };
            self.grant(now, input, catalog, out);
        }
        self.grant(now, GrantorInput::Lead { term }, catalog, out);
        self.tell_steward(now, steward::Input::Lead, catalog, out);
    }

    fn follow(
        &mut self,
        now: Time,
        leader: Option<NodeId>,
        catalog: &Catalog,
        out: &mut Vec<MemberOutput>,
    ) {
        self.leads = None;
        self.grant(now, GrantorInput::Follow { leader }, catalog, out);
        self.tell_steward(now, steward::Input::Follow, catalog, out);
    }

    fn on_events(
        &mut self,
        now: Time,
        events: &[Event],
        catalog: &Catalog,
        out: &mut Vec<MemberOutput>,
    ) {
        for event in events {
            let input = match event {
                Event::NodeAdded { node } | Event::NodeChanged { node } => GrantorInput::Node {
                    node: node.id,
                    incarnation: node.incarnation,
                },
                Event::NodeRemoved { node } => GrantorInput::Forget { node: *node },
                _ => continue,
            };
            self.grant(now, input, catalog, out);
        }
        self.tell_steward(now, steward::Input::Committed(events), catalog, out);
    }

    fn on_report(
        &mut self,
        now: Time,
        (from, report): (NodeId, &Report),
        catalog: &Catalog,
        out: &mut Vec<MemberOutput>,
    ) {
        let by = from;
        let input = match *report {
            Report::Accused { pg, disk, version } => {
                if let Some(accused) = catalog.disk(disk).map(|disk| disk.node)
                    && accused != from
                {
                    let input = GrantorInput::Accuse { by, accused };
                    self.grant(now, input, catalog, out);
                }
                steward::Input::Accused {
                    by,
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
                by,
                pg,
                version,
                disk,
                why,
            },
            Report::Filled { pg, disk, session } => steward::Input::Filled { pg, disk, session },
            Report::SessionLost { pg, disk, session } => {
                steward::Input::SessionLost { pg, disk, session }
            }
            Report::Take { .. }
            | Report::Give { .. }
            | Report::Hand { .. }
            | Report::Frozen { .. } => {
                let command = self.command_of(from, report, catalog);
                out.extend(command.map(|command| MemberOutput::Propose {
                    proposal: None,
                    command,
                }));
                return;
            }
        };
        self.tell_steward(now, input, catalog, out);
    }

    /// What a node asks to be recorded of a volume; the catalog takes it or refuses it.
    fn command_of(&self, node: NodeId, report: &Report, catalog: &Catalog) -> Option<Command> {
        Some(match *report {
            Report::Take {
                volume,
                lease,
                after,
            } => {
                let owner = catalog.range(volume).and_then(|range| range.owner);
                let why = match owner.filter(|owner| owner.node != node) {
                    None => TakeWhy::Free,
                    Some(owner) => match self.ended.get(&owner.node) {
                        Some(&lease) if lease >= owner.lease => TakeWhy::LeaseEnded { lease },
                        // It may be live: the taker asks again.
                        _ => return None,
                    },
                };
                Command::TakeRange {
                    volume,
                    node,
                    lease,
                    after,
                    why,
                }
            }
            Report::Give {
                volume,
                epoch,
                left,
            } => Command::GiveRange {
                volume,
                node,
                epoch,
                why: match left {
                    Left::Settled => GiveWhy::Drained,
                    Left::Unsettled => GiveWhy::Undrained,
                },
            },
            Report::Hand {
                volume,
                epoch,
                to,
                left,
            } => Command::HandRange {
                volume,
                node,
                epoch,
                to,
                left,
            },
            Report::Frozen {
                volume,
                layer,
                epoch,
            } => Command::FreezeLayer {
                volume,
                layer,
                node,
                epoch,
            },
            _ => return None,
        })
    }

    fn grant(
        &mut self,
        now: Time,
        input: GrantorInput,
        catalog: &Catalog,
        out: &mut Vec<MemberOutput>,
    ) {
        let mut list = Vec::new();
        self.grantor.step(now, input, &mut list);
        self.take_grantor(now, list, catalog, out);
    }

    fn take_grantor(
        &mut self,
        now: Time,
        list: Vec<GrantorOutput>,
        catalog: &Catalog,
        out: &mut Vec<MemberOutput>,
    ) {
        for output in list {
            let input = match output {
                GrantorOutput::Answer {
                    to,
                    incarnation,
                    request,
                    term,
                    answer,
                } => {
                    out.push(MemberOutput::Answer {
                        to,
                        incarnation,
                        request,
                        term,
                        answer,
                    });
                    continue;
                }
                GrantorOutput::Confirm { term, up_to } => {
                    out.push(MemberOutput::Confirm { term, up_to });
                    continue;
                }
                GrantorOutput::Record { node, incarnation } => {
                    out.push(MemberOutput::Propose {
                        proposal: None,
                        command: Command::RecordIncarnation { node, incarnation },
                    });
                    continue;
                }
                GrantorOutput::Live { node, .. } => steward::Input::Live { node },
                GrantorOutput::Expired { node, lease, .. } => {
                    let ended = self.ended.entry(node).or_insert(lease);
                    *ended = (*ended).max(lease);
                    steward::Input::Expired { node }
                }
                GrantorOutput::Verdict(verdict) => steward::Input::Verdict(verdict),
                GrantorOutput::ClockOutOfBounds { .. }
                | GrantorOutput::ClockInBounds { .. }
                | GrantorOutput::OwnClockOutOfBounds
                | GrantorOutput::Full { .. } => {
                    out.push(MemberOutput::Leases(output));
                    continue;
                }
            };
            self.tell_steward(now, input, catalog, out);
        }
    }

    fn tell_steward(
        &mut self,
        now: Time,
        input: steward::Input<'_>,
        catalog: &Catalog,
        out: &mut Vec<MemberOutput>,
    ) {
        let mut list = Vec::new();
        self.steward.step(now, catalog, input, &mut list);
        take_steward(list, out);
    }
}

fn take_steward(list: Vec<steward::Output>, out: &mut Vec<MemberOutput>) {
    out.extend(list.into_iter().map(|output| match output {
        steward::Output::Propose { proposal, command } => MemberOutput::Propose {
            proposal: Some(proposal),
            command,
        },
        steward::Output::Solve { question, cluster } => MemberOutput::Solve {
            question,
            cluster: Box::new(cluster),
        },
        steward::Output::Note(note) => MemberOutput::Note(note),
    }));
}
