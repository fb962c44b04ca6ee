//! A lease ends: waited out and confirmed, given back, or given up.
//!
//! That its time has passed by this member's clock says only that nothing this member granted is held any more. A
//! leader that was deposed and does not know it would call everybody expired, while the new leader extends them. So a majority
//! is asked first: one of it confirms before it votes for a new leader, so what is over by then is over before that leader
//! can extend it, and a holder takes no number that it has fenced.

use super::entry::{LeaseState, Pending, earlier};
use super::grantor::{End, Grantor, GrantorOutput};
use super::message::{Answer, Term};
use super::rounds::Errand;
use super::rule::Rule;
use crate::base::{NodeId, Time};

impl Grantor {
    /// Looks at all leases, and sets when to look again.
    pub(super) fn end_what_ran_out(&mut self, now: Time, out: &mut Vec<GrantorOutput>) {
        let mut due = std::mem::take(&mut self.due);
        self.next_end = None;
        for (node, entry) in &self.nodes {
            match entry.state {
                LeaseState::Live { until } if until <= now => due.push(*node),
                state => self.next_end = earlier(self.next_end, state),
            }
        }
        for node in due.drain(..) {
            match self.off.on(Rule::ExpiryConfirmed) {
                false => self.begin_ending(node),
                true => self.end(now, node, End::RanOut, out),
            }
        }
        self.due = due;
    }

    fn begin_ending(&mut self, node: NodeId) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        let round = self.rounds.next();
        entry.state = LeaseState::Ending { round };
        entry.says_it_holds = false;
        entry.answer = None; // it would come too late to be worth anything
        if !std::mem::replace(&mut entry.has_ending_place, true) {
            self.rounds.push(round, node, Errand::Ending);
        }
    }

    /// The lease is over, surely.
    pub(super) fn end(&mut self, now: Time, node: NodeId, why: End, out: &mut Vec<GrantorOutput>) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        entry.state = LeaseState::Ended;
        entry.says_it_holds = false;
        entry.answer = None;
        out.push(GrantorOutput::Expired {
            node,
            incarnation: entry.holder,
            lease: entry.lease,
            why,
        });
        if entry.is_leaving {
            self.nodes.remove(&node);
        }
        self.judge_ended(node, out);
        self.resume(now, node, out);
    }

    pub(super) fn on_confirmed(
        &mut self,
        now: Time,
        term: Term,
        up_to: u64,
        out: &mut Vec<GrantorOutput>,
    ) {
        self.rounds.on_confirmed(term, up_to);
        while let Some((node, errand)) = self.rounds.pop() {
            match errand {
                Errand::Answer => self.answer_now(node, out),
                Errand::Ending => self.end_now(now, node, out),
            }
        }
    }

    fn answer_now(&mut self, node: NodeId, out: &mut Vec<GrantorOutput>) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        entry.has_answer_place = false;
        let Some(Pending {
            request,
            lease,
            round,
        }) = entry.answer
        else {
            return;
        };
        if !self.rounds.is_confirmed(round) {
            entry.has_answer_place = true;
            return self.rounds.push(round, node, Errand::Answer);
        }
        entry.answer = None;
        let length = self.parameters.lease;
        out.push(GrantorOutput::Answer {
            to: node,
            incarnation: entry.holder,
            request,
            term: self.rounds.term,
            answer: Answer::Granted { lease, length },
        });
    }

    fn end_now(&mut self, now: Time, node: NodeId, out: &mut Vec<GrantorOutput>) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        entry.has_ending_place = false;
        let LeaseState::Ending { round } = entry.state else {
            return; // given back meanwhile
        };
        if !self.rounds.is_confirmed(round) {
            entry.has_ending_place = true;
            return self.rounds.push(round, node, Errand::Ending);
        }
        self.end(now, node, End::RanOut, out);
    }
}
