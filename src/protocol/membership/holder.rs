//! A node's side of its lease: asks in time, and stops believing in time.
//!
//! ```text
//!   starts ──ask──► waits for a grant ──Granted──► holds ──Granted, same number──► holds longer
//!                        ▲                           │
//!                        └── asks on ── Fenced ◄─────┘ ran out, replaced, refused, stopped
//! ```
//!
//! What it holds is counted from its own send of the request that was answered, less the drift: the grantor received
//! it later, and counts longer. So whatever the network does to an answer, it is only ever worth less.
//!
//! Invariants, held by [`Holder::check`]:
//! - *fenced-stays-fenced*: a lease number that was fenced is never held again; what is taken is above it.
//! - *counts-from-send*: what is held ends no later than the newest send plus the length.
//! - *one-end*: the machine holds a number exactly while it has an end for it.
//!
//! It does not know Raft: members are asked in turn until one grants. It does not know what the lease protects: the one
//! who serves asks [`Holder::is_valid`] with the value in hand (R17).

use super::message::{
    Answer, Answered, Ask, Incarnation, LeaseNumber, Refusal, Standing, Term, Want,
};
use super::parameters::{Parameters, Unsound};
use super::rule::{Rule, RulesOff};
use crate::base::{NodeId, Time};

/// Members of a manager at most: it has 1, 3 or 5.
pub const MEMBERS_MAX: usize = 5;
/// How many requests are remembered: at one a retry, 160 ms of them. An answer to an older one is worth little.
pub(super) const REMEMBERED: usize = 8;

/// What happens to a holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HolderInput {
    /// A member answered a request.
    Answer {
        from: NodeId,
        incarnation: Incarnation,
        request: u64,
        /// Of the leader that answers.
        term: Term,
        answer: Answer,
    },
    /// The manager has other members now: 1 to [`MEMBERS_MAX`]; what is beyond is not asked.
    Members(Vec<NodeId>),
    /// The node stops cleanly: fence at once, give the lease back.
    Stop,
}

/// Why a lease is not held any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// No answer came in time.
    RanOut,
    /// The grantor gave another number, so it had ended this one.
    Replaced,
    /// The grantor refused with a reason that holds at once.
    Refused(Refusal),
    /// The node stops.
    Stopped,
}

/// What a holder wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HolderOutput {
    Send {
        to: NodeId,
        ask: Ask,
    },
    /// A lease is held that was not before: what was held under an earlier number is void.
    Held {
        lease: LeaseNumber,
        until: Time,
    },
    /// The lease is held longer.
    Extended {
        until: Time,
    },
    /// The lease is not held any more: nothing is served from here on.
    Fenced {
        lease: LeaseNumber,
        why: Loss,
    },
    /// The leader refuses, and says why; told each time.
    Refused {
        reason: Refusal,
    },
    /// The stop is done: the lease was given back, or nobody answered until it had run out.
    Stopped {
        released: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// Gives back what it may have, until answered or until then.
    Stopping {
        give_up: Time,
    },
    /// Asks nothing any more.
    Over,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) request: u64,
    pub(super) at: Time,
}

/// One start of a node, as the holder of its lease.
#[derive(Debug)]
pub struct Holder {
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) parameters: Parameters,
    pub(super) off: RulesOff,
    pub(super) members: Vec<NodeId>,
    /// Which member is asked next.
    pub(super) target: usize,
    /// Whose turn it is where members are tried one after the other. A hint does not move it: a hint that is out of
    /// date would lead back to a dead member each time, and never past it.
    pub(super) turn: usize,
    pub(super) phase: Phase,
    pub(super) lease: Option<LeaseNumber>,
    /// When what is held ends; `Time(0)` while nothing is. Read before each reply.
    pub(super) valid_until: Time,
    /// The highest number that was fenced.
    pub(super) lost: LeaseNumber,
    pub(super) sent: [Option<Sent>; REMEMBERED],
    pub(super) request: u64,
    pub(super) began: Time,
    pub(super) last_send: Time,
    pub(super) next_ask: Time,
    /// The last ask has no answer yet.
    pub(super) is_waiting: bool,
    /// Hints that were followed since the last timer.
    pub(super) redirects: usize,
    pub(super) answered: Option<Answered>,
    /// The newest time it was told.
    pub(super) seen: Time,
}

impl Holder {
    /// A node that has just started and will ask at once. `members` are 1 to [`MEMBERS_MAX`]; `incarnation` is
    /// durable and higher than any that this node had before.
    pub fn new(
        now: Time,
        node: NodeId,
        incarnation: Incarnation,
        members: Vec<NodeId>,
        parameters: Parameters,
        off: RulesOff,
    ) -> Result<Holder, Unsound> {
        parameters.check()?;
        assert!(
            incarnation > Incarnation(0),
            "a node that started has an incarnation"
        );
        let mut holder = Holder {
            node,
            incarnation,
            parameters,
            off,
            members: Vec::new(),
            target: 0,
            turn: 0,
            phase: Phase::Running,
            lease: None,
            valid_until: Time(0),
            lost: LeaseNumber::NONE,
            sent: [None; REMEMBERED],
            request: 0,
            began: now,
            last_send: now,
            next_ask: now,
            is_waiting: false,
            redirects: 0,
            answered: None,
            seen: now,
        };
        holder.on_members(members);
        Ok(holder)
    }

    /// Whether the lease is held at `now`, the time read with the value in hand: one comparison. It says no from the
    /// moment the lease ran out, whether or not this machine was stepped since: also after a suspend or a SIGSTOP.
    #[inline]
    pub fn is_valid(&self, now: Time) -> bool {
        now < self.valid_until
    }

    /// When what is held ends, for one who keeps a copy of it; `Time(0)` while nothing is held.
    pub fn valid_until(&self) -> Time {
        self.valid_until
    }

    /// The lease that is held, if the machine has not fenced it yet; whether it is still valid says `is_valid`.
    pub fn lease(&self) -> Option<LeaseNumber> {
        self.lease
    }

    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Takes one input. `now` never goes back.
    pub fn step(&mut self, now: Time, input: HolderInput, out: &mut Vec<HolderOutput>) {
        self.pass(now, out);
        match input {
            HolderInput::Answer {
                from,
                incarnation,
                request,
                term,
                answer,
            } if incarnation == self.incarnation => {
                if let Some(sent) = self.take_sent(now, request, term) {
                    self.on_answer(now, from, sent, answer, out);
                }
            }
            HolderInput::Answer { .. } => {} // to an earlier start of this node
            HolderInput::Members(members) => self.on_members(members),
            HolderInput::Stop => self.on_stop(now, out),
        }
    }

    /// Whether it has stopped, and says nothing any more.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// When [`Holder::expire`] wants to be called.
    pub fn deadline(&self) -> Option<Time> {
        let ask = (self.phase != Phase::Over).then_some(self.next_ask);
        let end = self.lease.map(|_| self.valid_until);
        ask.into_iter().chain(end).min()
    }

    /// Time has passed.
    pub fn expire(&mut self, now: Time, out: &mut Vec<HolderOutput>) {
        self.pass(now, out);
        if now < self.next_ask || self.phase == Phase::Over {
            return;
        }
        if let Phase::Stopping { give_up } = self.phase
            && now >= give_up
        {
            return self.finish(false, out);
        }
        if self.is_waiting {
            self.try_another();
        }
        self.redirects = 0;
        self.ask(now, out);
    }

    /// The invariants in this file's head, by name.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.lease.is_some_and(|lease| lease <= self.lost) {
            return Err("fenced-stays-fenced");
        }
        let most = self.last_send + self.parameters.lease;
        if !self.off.on(Rule::CountFromSend) && self.valid_until > most {
            return Err("counts-from-send");
        }
        if self.lease.is_some() != (self.valid_until > Time(0)) {
            return Err("one-end");
        }
        Ok(())
    }

    /// Fences what has run out, before anything else is looked at: an answer that comes later finds nothing to extend.
    fn pass(&mut self, now: Time, out: &mut Vec<HolderOutput>) {
        assert!(now >= self.seen, "time-goes-forward");
        self.seen = now;
        if !self.is_valid(now) {
            self.fence(Loss::RanOut, out);
        }
    }

    pub(super) fn fence(&mut self, why: Loss, out: &mut Vec<HolderOutput>) {
        if let Some(lease) = self.lease.take() {
            self.valid_until = Time(0);
            self.lost = lease;
            out.push(HolderOutput::Fenced { lease, why });
        }
    }

    pub(super) fn try_another(&mut self) {
        self.turn = (self.turn + 1) % self.members.len();
        self.target = self.turn;
    }

    pub(super) fn ask(&mut self, now: Time, out: &mut Vec<HolderOutput>) {
        self.request += 1;
        let sent = Sent {
            request: self.request,
            at: now,
        };
        self.sent[(self.request % REMEMBERED as u64) as usize] = Some(sent);
        self.is_waiting = true;
        self.last_send = now;
        self.next_ask = now + self.parameters.retry;
        let ask = Ask {
            node: self.node,
            incarnation: self.incarnation,
            request: self.request,
            want: match self.phase {
                Phase::Running => Want::Lease,
                Phase::Stopping { .. } | Phase::Over => Want::Release,
            },
            standing: match self.lease {
                Some(lease) => Standing::Holds(lease),
                None => Standing::Lost(self.lost),
            },
            elapsed: now.since(self.began),
            answered: self.answered,
        };
        let to = self.members[self.target];
        out.push(HolderOutput::Send { to, ask });
    }

    fn on_members(&mut self, members: Vec<NodeId>) {
        assert!(!members.is_empty(), "a manager has a member");
        let asked = self.members.get(self.target).copied();
        self.members = members;
        self.members.truncate(MEMBERS_MAX);
        let place = self
            .members
            .iter()
            .position(|member| Some(*member) == asked);
        self.target = place.unwrap_or(0);
        self.turn = self.target;
    }

    fn on_stop(&mut self, now: Time, out: &mut Vec<HolderOutput>) {
        if self.phase != Phase::Running {
            return;
        }
        self.fence(Loss::Stopped, out);
        if self.request == 0 {
            return self.finish(true, out); // it never asked: nothing was granted
        }
        // An answer that is lost may have granted one: after this the grantor has waited it out by itself.
        let give_up = self.last_send + self.parameters.waited(self.parameters.lease);
        self.phase = Phase::Stopping { give_up };
        self.ask(now, out);
    }

    pub(super) fn finish(&mut self, released: bool, out: &mut Vec<HolderOutput>) {
        self.phase = Phase::Over;
        out.push(HolderOutput::Stopped { released });
    }
}
