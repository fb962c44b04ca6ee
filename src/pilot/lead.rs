//! The driver of this node's seat among the members: asks and reports of all nodes, proposals, confirmations, placement.

use super::door::{Shards, lock};
use super::drive::{self, Done, Driver};
use super::message::Answered;
use super::seat::{Asker, Seat};
use super::view::Role;
use crate::base::{NodeId, Time};
use crate::node::{MemberInput, MemberOutput};
use crate::protocol::catalog::Event;
use crate::protocol::membership::{Ask, GrantorOutput};
use crate::protocol::placement;
use crate::protocol::report::Report;
use crate::protocol::steward::Note;

impl<S: Shards> Driver<S> {
    pub(super) fn on_ask(&mut self, now: Time, ask: Ask, asker: Asker) {
        // Where there is no seat, the asker is told so by its end.
        if let Some(seat) = &mut self.seat {
            seat.wait(&ask, asker);
            self.step_seat(now, MemberInput::Ask(ask));
        }
    }

    pub(super) fn on_reports(&mut self, now: Time, from: NodeId, reports: &[Report]) {
        for report in reports {
            self.step_seat(now, MemberInput::Report { from, report });
        }
    }

    /// What the manager says of this node's part in it.
    pub(super) fn set_role(&mut self, now: Time, role: Role) {
        self.look_at_seat(now);
        if std::mem::replace(&mut self.role, role) == role {
            return;
        }
        self.tell_openings_again();
        let before = {
            let mut view = lock(&self.view);
            if matches!(role, Role::Follows(_)) {
                // It knows no clocks any more.
                view.clocks_out_of_bounds.clear();
                view.own_clock_out_of_bounds = false;
            }
            std::mem::replace(&mut view.role, role)
        };
        if matches!((before, role), (Role::Leads(_), _) | (_, Role::Leads(_))) {
            tracing::info!(?role, "who decides of leases and replicas");
        }
        match self.seat.is_some() {
            true => self.tell_role(now),
            // It leads, so it is a member.
            false => self.look_at_seat(now),
        }
    }

    /// Takes a seat, or leaves it.
    pub(super) fn look_at_seat(&mut self, now: Time) {
        let leads = matches!(self.role, Role::Leads(_));
        let is_member = leads || self.members.contains(&self.me);
        match (&self.seat, is_member) {
            (None, true) => {
                let machine = drive::member(now, self.me, self.leases, self.steward);
                let machine = machine.expect("it was made once before");
                self.seat = Some(Seat::new(machine));
                self.tell_role(now);
            }
            (Some(_), false) => self.seat = None,
            _ => {}
        }
    }

    fn tell_role(&mut self, now: Time) {
        let input = match self.role {
            Role::Leads(term) => MemberInput::Lead { term },
            Role::Follows(leader) => {
                if let Some(seat) = &mut self.seat {
                    seat.follows();
                }
                MemberInput::Follow { leader }
            }
        };
        self.step_seat(now, input);
    }

    pub(super) fn seat_snapshot(&mut self, now: Time) {
        self.step_seat(now, MemberInput::Snapshot);
    }

    pub(super) fn seat_events(&mut self, now: Time, events: &[Event]) {
        self.step_seat(now, MemberInput::Events(events));
    }

    /// The machines were told of everything up to this entry.
    pub(super) fn seat_applied(&mut self, now: Time) {
        let mut out = Vec::new();
        if let Some(seat) = &mut self.seat {
            seat.applied(now, (&self.catalog, self.index), &mut out);
        }
        self.take_seat(now, out);
    }

    pub(super) fn expire_seat(&mut self, now: Time) {
        let mut out = Vec::new();
        if let Some(seat) = &mut self.seat
            && seat.machine.deadline().is_some_and(|at| at <= now)
        {
            seat.machine.expire(now, &self.catalog, &mut out);
        }
        self.take_seat(now, out);
    }

    pub(super) fn check_seat(&self) {
        if let Some(seat) = &self.seat {
            let sound = seat.machine.check();
            assert_eq!(sound, Ok(()), "the member's machines");
        }
    }

    pub(super) fn on_seat_done(&mut self, now: Time, done: Done) {
        match done {
            Done::Proposed { number, outcome } => {
                let mut out = Vec::new();
                if let Some(seat) = &mut self.seat {
                    let proposed = (number, outcome);
                    seat.proposed(now, proposed, (&self.catalog, self.index), &mut out);
                }
                self.take_seat(now, out);
            }
            Done::Confirmed { term, up_to } => {
                self.step_seat(now, MemberInput::Confirmed { term, up_to });
            }
            Done::Solved { question, plan } => {
                self.step_seat(now, MemberInput::Solved { question, plan });
            }
            // A round that is not confirmed is begun again by the machine.
            Done::NotConfirmed => {}
            Done::Connected | Done::Answered { .. } | Done::Kept { .. } => {}
        }
    }

    fn step_seat(&mut self, now: Time, input: MemberInput<'_>) {
        let mut out = Vec::new();
        if let Some(seat) = &mut self.seat {
            seat.machine.step(now, input, &self.catalog, &mut out);
        }
        self.take_seat(now, out);
    }

    /// What the member's machine wants done.
    fn take_seat(&mut self, now: Time, out: Vec<MemberOutput>) {
        for output in out {
            match output {
                MemberOutput::Answer {
                    to,
                    incarnation,
                    request,
                    term,
                    answer,
                } => {
                    if let Some(seat) = &mut self.seat {
                        seat.answer((to, incarnation, request), Answered { term, answer });
                    }
                }
                MemberOutput::Propose { proposal, command } => {
                    let number = proposal;
                    let seat = self.seat.as_mut();
                    if seat.is_some_and(|seat| seat.may_propose(number)) {
                        let manager = self.manager.clone();
                        let asks = async move {
                            let outcome = manager.ask(command).await;
                            Done::Proposed { number, outcome }
                        };
                        self.tasks.spawn_on(asks, &self.main);
                    }
                }
                MemberOutput::Confirm { term, up_to } => {
                    let manager = self.manager.clone();
                    let confirms = async move {
                        match manager.confirm(term).await {
                            Ok(()) => Done::Confirmed { term, up_to },
                            Err(_) => Done::NotConfirmed,
                        }
                    };
                    self.tasks.spawn_on(confirms, &self.main);
                }
                MemberOutput::Solve { question, cluster } => {
                    let solves = move || {
                        let plan = placement::solve(&cluster);
                        Done::Solved { question, plan }
                    };
                    self.tasks.spawn_blocking_on(solves, &self.main);
                }
                MemberOutput::Note(note) => {
                    match note {
                        // What was decided on an older view is decided anew by itself.
                        Note::Refused { .. } => tracing::debug!(?note, "the steward"),
                        _ => tracing::info!(?note, "the steward"),
                    }
                    lock(&self.view).note(now, format!("{note:?}"));
                }
                MemberOutput::Leases(found) => self.on_clock(now, found),
            }
        }
    }

    fn on_clock(&mut self, now: Time, found: GrantorOutput) {
        let mut view = lock(&self.view);
        let text = match found {
            GrantorOutput::ClockOutOfBounds { node } => {
                view.clocks_out_of_bounds.insert(node);
                format!("the clock of node {node} is out of bounds: it is refused its lease")
            }
            GrantorOutput::ClockInBounds { node } => {
                view.clocks_out_of_bounds.remove(&node);
                format!("the clock of node {node} runs as it should again")
            }
            GrantorOutput::OwnClockOutOfBounds => {
                view.own_clock_out_of_bounds = true;
                "most clocks disagree with this node's, which leads".into()
            }
            GrantorOutput::Full { node } => {
                format!("node {node} gets no lease: there are too many nodes")
            }
            _ => return,
        };
        tracing::warn!("{text}");
        view.note(now, text);
    }
}
