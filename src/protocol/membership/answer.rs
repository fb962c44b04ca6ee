//! A member answers a holder: what its answer is worth, and who is asked next.
//!
//! An answer is worth what was counted from the send of its request, and nothing once its lease is fenced. So late, doubled
//! and reordered answers are harmless, and so are those of an earlier leader.

use super::holder::{Holder, HolderOutput, Loss, Phase, REMEMBERED, Sent};
use super::message::{Answer, Answered, LeaseNumber, Refusal, Term};
use super::rule::Rule;
use crate::base::{NodeId, Time};
use std::time::Duration;

impl Holder {
    /// The request that an answer is to; `None` where it was answered already, or is too old.
    pub(super) fn take_sent(&mut self, now: Time, request: u64, term: Term) -> Option<Sent> {
        let place = &mut self.sent[(request % REMEMBERED as u64) as usize];
        let sent = place.take_if(|sent| sent.request == request)?;
        if self.answered.is_none_or(|newest| newest.request < request) {
            let took = now.since(sent.at);
            self.answered = Some(Answered {
                request,
                term,
                took,
            });
        }
        Some(sent)
    }

    pub(super) fn on_answer(
        &mut self,
        now: Time,
        from: NodeId,
        sent: Sent,
        answer: Answer,
        out: &mut Vec<HolderOutput>,
    ) {
        match (answer, self.phase) {
            (_, Phase::Over) => {}
            (Answer::Released, Phase::Stopping { .. }) => self.finish(true, out),
            (Answer::Released, Phase::Running) => {} // nobody asked for it
            (Answer::NotLeader { hint }, _) => self.on_not_leader(now, from, sent, hint, out),
            (Answer::Refused { reason }, _) => self.on_refused(sent, reason, out),
            (Answer::Granted { lease, length }, Phase::Running) => {
                self.answered_by_leader(from, sent);
                self.on_granted(now, sent, lease, length, out);
            }
            (Answer::Granted { .. }, Phase::Stopping { .. }) => {} // granted before the release came
        }
    }

    /// The leader answered: the next ask goes to it, a renewal after this one.
    fn answered_by_leader(&mut self, from: NodeId, sent: Sent) {
        if let Some(place) = self.members.iter().position(|member| *member == from) {
            (self.target, self.turn) = (place, place);
        }
        self.is_waiting = false;
        // Never sooner than a retry after the last: late answers, one for each retry, would each ask again.
        let soonest = self.last_send + self.parameters.retry;
        self.next_ask = (sent.at + self.parameters.renewal).max(soonest);
    }

    fn on_granted(
        &mut self,
        now: Time,
        sent: Sent,
        lease: LeaseNumber,
        length: Duration,
        out: &mut Vec<HolderOutput>,
    ) {
        // A grantor with a longer lease does not make this node's longer than what it was configured to fear.
        let length = length.min(self.parameters.lease);
        let held = match self.off.on(Rule::DriftCounts) {
            false => self.parameters.held(length),
            true => length,
        };
        let until = match self.off.on(Rule::CountFromSend) {
            false => sent.at + held,
            true => now + held,
        };
        if until <= now || lease <= self.lost {
            return; // it was on its way too long, or this number is fenced
        }
        match self.lease {
            Some(mine) if mine > lease => return, // of an old leader
            Some(mine) if mine == lease => {
                if until > self.valid_until {
                    self.valid_until = until;
                    out.push(HolderOutput::Extended { until });
                }
                return;
            }
            Some(_) => self.fence(Loss::Replaced, out),
            None => {}
        }
        (self.lease, self.valid_until) = (Some(lease), until);
        out.push(HolderOutput::Held { lease, until });
    }

    /// Goes where the hint says, at once; but two members that name each other are not followed in circles: then
    /// the timer decides.
    fn on_not_leader(
        &mut self,
        now: Time,
        from: NodeId,
        sent: Sent,
        hint: Option<NodeId>,
        out: &mut Vec<HolderOutput>,
    ) {
        if sent.request != self.request || self.redirects >= self.members.len() {
            return;
        }
        let hinted = hint.and_then(|hint| self.members.iter().position(|member| *member == hint));
        if let Some(place) = hinted
            && self.members[place] != from
        {
            self.redirects += 1;
            self.target = place;
            self.ask(now, out);
        }
    }

    fn on_refused(&mut self, sent: Sent, reason: Refusal, out: &mut Vec<HolderOutput>) {
        out.push(HolderOutput::Refused { reason });
        match reason {
            // A leader that was deposed may not know a node that is new: what is held is held, another is asked.
            Refusal::UnknownNode => {
                self.try_another();
                self.is_waiting = false;
            }
            Refusal::OldIncarnation => {
                self.fence(Loss::Refused(reason), out);
                self.phase = Phase::Over;
                return;
            }
            // What it counts is worth nothing if the clock is not.
            Refusal::ClockOutOfBounds => {
                self.fence(Loss::Refused(reason), out);
                self.is_waiting = false;
            }
        }
        let soonest = self.last_send + self.parameters.retry;
        self.next_ask = (sent.at + self.parameters.renewal).max(soonest);
    }
}
