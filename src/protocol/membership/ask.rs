//! A holder asks: refused, kept waiting, or granted.
//!
//! The lease is longer in the grantor's view from the receipt on, whatever becomes of the answer. The answer leaves only
//! when a majority has confirmed, after the receipt, that this member leads (R18). Without it: a leader that was
//! deposed and does not know it extends a lease that the new leader waits out from its election. With it: a member of the
//! majority confirmed before it voted for the new leader, so the send is before the election, and so the holder's end before the
//! new leader's.

use super::clock::Change;
use super::entry::{Entry, LeaseState, Pending, earlier};
use super::grantor::{End, Grantor, GrantorOutput, Role};
use super::message::{Answer, Ask, Incarnation, LeaseNumber, Refusal, Standing, Term, Want};
use super::rounds::Errand;
use super::rule::Rule;
use crate::base::{NodeId, Time};

/// How many clocks have to disagree with the leader's before it is the leader's that is bad.
const BAD_CLOCKS_MIN: usize = 3;

impl Grantor {
    pub(super) fn on_ask(&mut self, now: Time, ask: Ask, out: &mut Vec<GrantorOutput>) {
        if let Role::Following { leader } = self.role {
            let hint = leader.filter(|leader| *leader != self.me);
            return self.answer(&ask, Answer::NotLeader { hint }, out);
        }
        let known = self.nodes.get_mut(&ask.node);
        let Some(entry) = known.filter(|entry| !entry.is_leaving) else {
            return self.refuse(&ask, Refusal::UnknownNode, out);
        };
        if ask.incarnation < entry.recorded || ask.incarnation == Incarnation(0) {
            return self.refuse(&ask, Refusal::OldIncarnation, out);
        }
        if ask.incarnation > entry.recorded {
            entry.waiting = Some(ask);
            let (node, incarnation) = (ask.node, ask.incarnation);
            return out.push(GrantorOutput::Record { node, incarnation });
        }
        self.hear(now, ask, out);
    }

    /// An ask that waited goes on, if what it waited for has come.
    pub(super) fn resume(&mut self, now: Time, node: NodeId, out: &mut Vec<GrantorOutput>) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        let Some(ask) = entry
            .waiting
            .take_if(|ask| ask.incarnation <= entry.recorded)
        else {
            return;
        };
        if ask.incarnation < entry.recorded {
            return self.refuse(&ask, Refusal::OldIncarnation, out);
        }
        let was_heard = entry.heard == ask.incarnation && ask.request <= entry.newest_request;
        match was_heard {
            true => self.grant_or_wait(now, ask, out),
            false => self.hear(now, ask, out),
        }
    }

    /// An ask of the newest start of a node.
    fn hear(&mut self, now: Time, ask: Ask, out: &mut Vec<GrantorOutput>) {
        let Some(entry) = self.nodes.get_mut(&ask.node) else {
            return;
        };
        if entry.heard != ask.incarnation {
            entry.heard = ask.incarnation;
            entry.newest_request = 0;
            entry.clock = Default::default();
        }
        if ask.request <= entry.newest_request {
            return; // late or doubled: a newer one has told everything
        }
        entry.newest_request = ask.request;
        if ask.want == Want::Release {
            return self.on_release(now, ask, out);
        }
        if !self.off.on(Rule::ClocksAreChecked) && !self.clock_serves(now, &ask, out) {
            return self.refuse(&ask, Refusal::ClockOutOfBounds, out);
        }
        self.grant_or_wait(now, ask, out);
    }

    /// Looks at the asker's clock; whether it may have a lease.
    fn clock_serves(&mut self, now: Time, ask: &Ask, out: &mut Vec<GrantorOutput>) -> bool {
        let node = ask.node;
        let Some(entry) = self.nodes.get_mut(&node) else {
            return false;
        };
        match entry
            .clock
            .on_ask(now, ask, self.rounds.term, &self.parameters)
        {
            Change::Nothing => {}
            Change::InBounds => out.push(GrantorOutput::ClockInBounds { node }),
            Change::OutOfBounds => {
                // Its own count may be up to twice as long as it should be; a clock slower than half is not waited for.
                if let LeaseState::Live { until } = entry.state {
                    let until = until + self.parameters.waited(self.parameters.lease);
                    entry.state = LeaseState::Live { until };
                }
                out.push(GrantorOutput::ClockOutOfBounds { node });
                self.suspect_own_clock(out);
            }
        }
        self.nodes
            .get(&node)
            .is_some_and(|entry| !entry.clock.is_out_of_bounds())
    }

    fn suspect_own_clock(&mut self, out: &mut Vec<GrantorOutput>) {
        let measured = |entry: &&Entry| entry.clock.has_measured();
        let bad = |entry: &&Entry| entry.clock.is_out_of_bounds();
        let all = self.nodes.values().filter(measured).count();
        let bad = self.nodes.values().filter(bad).count();
        if bad >= BAD_CLOCKS_MIN && 2 * bad > all && !self.has_told_own_clock {
            self.has_told_own_clock = true;
            out.push(GrantorOutput::OwnClockOutOfBounds);
        }
    }

    fn on_release(&mut self, now: Time, ask: Ask, out: &mut Vec<GrantorOutput>) {
        let Some(entry) = self.nodes.get_mut(&ask.node) else {
            return;
        };
        // This incarnation takes no other lease, so this holds without a confirmation. An earlier one's is waited out.
        let is_its_own = entry.holder == ask.incarnation && !may_be_an_earlier_starts(entry, &ask);
        let is_over = entry.state == LeaseState::Ended;
        self.answer(&ask, Answer::Released, out);
        if is_its_own && !is_over {
            self.end(now, ask.node, End::Released, out);
        }
    }

    /// Grants, unless an earlier lease has to end first.
    fn grant_or_wait(&mut self, now: Time, ask: Ask, out: &mut Vec<GrantorOutput>) {
        let Some(entry) = self.nodes.get_mut(&ask.node) else {
            return;
        };
        let has_to_wait = match entry.state {
            LeaseState::Ended => false,
            LeaseState::Ending { .. } => true,
            // An earlier start may be a stopped process that wakes: it is waited out like any other.
            LeaseState::Live { .. } => {
                entry.holder != ask.incarnation || may_be_an_earlier_starts(entry, &ask)
            }
        };
        if has_to_wait && !self.off.on(Rule::LaterStartWaits) {
            entry.waiting = Some(ask);
            return;
        }
        self.grant(now, ask, out);
    }

    fn grant(&mut self, now: Time, ask: Ask, out: &mut Vec<GrantorOutput>) {
        let (node, incarnation) = (ask.node, ask.incarnation);
        let lease = self.number_for(&ask, out);
        let waited = match self.off.on(Rule::DriftCounts) {
            false => self.parameters.waited(self.parameters.lease),
            true => self.parameters.lease,
        };
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        let until = match entry.state {
            LeaseState::Live { until } => until.max(now + waited),
            LeaseState::Ended | LeaseState::Ending { .. } => now + waited,
        };
        entry.state = LeaseState::Live { until };
        self.next_end = earlier(self.next_end, entry.state);
        (entry.holder, entry.lease, entry.is_inherited) = (incarnation, lease, false);
        entry.renewed = now;
        entry.says_it_holds = ask.standing == Standing::Holds(lease);
        if entry.says_it_holds && entry.told != lease {
            entry.told = lease;
            let live = GrantorOutput::Live {
                node,
                incarnation,
                lease,
            };
            out.push(live);
            self.on_new_lease(node, out);
        }
        self.answer_when_confirmed(ask, lease, out);
    }

    /// The number under which an ask is granted: the old one while it was held without a break, else a new one.
    fn number_for(&mut self, ask: &Ask, out: &mut Vec<GrantorOutput>) -> LeaseNumber {
        let next = LeaseNumber {
            term: self.rounds.term,
            count: self.count + 1,
        };
        if let Some(entry) = self.nodes.get(&ask.node)
            && matches!(entry.state, LeaseState::Live { .. })
        {
            match ask.standing {
                // An earlier leader's, held without a break.
                Standing::Holds(held) if entry.is_inherited && held < entry.lease => return held,
                // It has it, or has not heard of it yet.
                Standing::Holds(held) if held <= entry.lease && !entry.is_inherited => {
                    return entry.lease;
                }
                Standing::Lost(lost) if lost < entry.lease && !entry.is_inherited => {
                    return entry.lease;
                }
                // By its own word: it takes nothing up to this number again.
                Standing::Lost(lost) if lost == entry.lease => {
                    out.push(GrantorOutput::Expired {
                        node: ask.node,
                        incarnation: ask.incarnation,
                        lease: lost,
                        why: End::GivenUp,
                    });
                    self.judge_ended(ask.node, out);
                }
                // Of an earlier leader, who may have an answer on its way: only the wait says what is over.
                Standing::Lost(_) | Standing::Holds(_) => {}
            }
        }
        self.count = next.count;
        next
    }

    fn answer_when_confirmed(
        &mut self,
        ask: Ask,
        lease: LeaseNumber,
        out: &mut Vec<GrantorOutput>,
    ) {
        if self.off.on(Rule::MajorityConfirms) {
            let length = self.parameters.lease;
            return self.answer(&ask, Answer::Granted { lease, length }, out);
        }
        let Some(entry) = self.nodes.get_mut(&ask.node) else {
            return;
        };
        // An older answer whose round is on its way is not held up by a newer ask: it would be again and again.
        let leaves_soon =
            |pending: Pending| self.rounds.has_begun(pending.round) && pending.lease == lease;
        if entry.answer.is_some_and(leaves_soon) {
            return;
        }
        let round = self.rounds.next();
        entry.answer = Some(Pending {
            request: ask.request,
            lease,
            round,
        });
        if !std::mem::replace(&mut entry.has_answer_place, true) {
            self.rounds.push(round, ask.node, Errand::Answer);
        }
    }
}

/// A new leader presumes that the newest start holds the lease. One that never held any shows that it may as well be
/// the start before.
fn may_be_an_earlier_starts(entry: &Entry, ask: &Ask) -> bool {
    entry.is_inherited && ask.standing == Standing::Lost(LeaseNumber::NONE)
}

impl Grantor {
    fn refuse(&self, ask: &Ask, reason: Refusal, out: &mut Vec<GrantorOutput>) {
        self.answer(ask, Answer::Refused { reason }, out);
    }

    fn answer(&self, ask: &Ask, answer: Answer, out: &mut Vec<GrantorOutput>) {
        out.push(GrantorOutput::Answer {
            to: ask.node,
            incarnation: ask.incarnation,
            request: ask.request,
            term: match self.role {
                Role::Leading => self.rounds.term,
                Role::Following { .. } => Term(0),
            },
            answer,
        });
    }
}
