//! The manager leader's side: grants leases, extends them, and knows when one is surely over.
//!
//! One value a member of the manager, leading or not. What it knows of leases is lost with the leadership: a new
//! leader takes every node for one that holds a lease which began just now (R18), and so takes nothing from anybody for
//! one full lease, while it extends at once whoever asks.
//!
//! ```text
//!              Ask (new number)                    its time has passed          a majority confirms
//!     Ended ─────────────────────► Live ◄─┐ Ask ──────────────────────► Ending ─────────────────────► Ended
//!       ▲                           │ └───┘ (longer)                                    Expired { RanOut }
//!       └──── Release, GivenUp ─────┘
//! ```
//!
//! Invariants, held by [`Grantor::check`]:
//! - *nothing-ends-unseen*: the next look at the leases is no later than the end of any that is live.
//! - *numbers-grow*: no lease has a number above the last that was given out.
//! - *one-place-each*: the queue of confirmations holds a node at most twice, once for each errand.
//!
//! It does not know what a lease protects, or what the manager does about a node that is gone.

use super::accusations::{Accusations, Verdict};
use super::entry::{Entry, LeaseState, earlier};
use super::message::{Answer, Ask, Incarnation, LeaseNumber, Term};
use super::parameters::{Parameters, Unsound};
use super::rounds::{Begin, Rounds};
use super::rule::RulesOff;
use crate::base::{NodeId, Time};
use std::collections::BTreeMap;

/// Nodes of a site at most: an entry is under 500 bytes, and 1,000 of them renew for less than 1 % of a core.
pub const NODES_MAX: usize = 1_024;

/// What happens to a grantor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantorInput {
    /// This member leads from now on. The driver says so when the catalog has everything that earlier leaders
    /// committed, after the inputs `Node` that this gave.
    Lead { term: Term },
    /// This member does not lead (any more); who does, if it is known.
    Follow { leader: Option<NodeId> },
    /// The catalog has this node, and this is the newest incarnation that is recorded of it.
    Node {
        node: NodeId,
        incarnation: Incarnation,
    },
    /// The catalog has this node no longer: it is refused, and its lease is waited out while this member leads. A catalog
    /// that wants it waited out under any leader forgets a node after its `Expired`.
    Forget { node: NodeId },
    /// A holder asks.
    Ask(Ask),
    /// A majority of the manager's members, this one included, said after the output `Confirm` with this number that
    /// they follow this term.
    Confirmed { term: Term, up_to: u64 },
    /// A node says that another does not answer (R11). It says so again every second while it lasts.
    Accuse { by: NodeId, accused: NodeId },
}

/// Why a lease is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was waited out.
    RanOut,
    /// The holder gave it back.
    Released,
    /// The holder asks again and says that it has fenced itself.
    GivenUp,
}

/// What a grantor wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantorOutput {
    Answer {
        to: NodeId,
        incarnation: Incarnation,
        request: u64,
        /// Of this leader; 0 of one that does not lead.
        term: Term,
        answer: Answer,
    },
    /// Have a majority say that this member leads `term`, by messages that leave from now on; then `Confirmed`.
    Confirm { term: Term, up_to: u64 },
    /// Record this incarnation in the catalog, by compare-and-set upwards; then `Node`. The ask waits for it.
    Record {
        node: NodeId,
        incarnation: Incarnation,
    },
    /// The node said that it holds this lease; told once a number and leader.
    Live {
        node: NodeId,
        incarnation: Incarnation,
        lease: LeaseNumber,
    },
    /// Surely, no start of the node up to this incarnation holds this lease or one with a lower number, or ever will.
    Expired {
        node: NodeId,
        incarnation: Incarnation,
        lease: LeaseNumber,
        why: End,
    },
    /// What the accusations come to (R11).
    Verdict(Verdict),
    /// The node's clock is out of bounds: it is refused.
    ClockOutOfBounds { node: NodeId },
    /// The node's clock runs as it should again.
    ClockInBounds { node: NodeId },
    /// Most clocks disagree with this leader's: it is the bad one and should hand the leadership over. Told once a term.
    OwnClockOutOfBounds,
    /// A node was not taken in: there are [`NODES_MAX`].
    Full { node: NodeId },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Following { leader: Option<NodeId> },
    Leading,
}

/// One member of the manager, as the grantor of leases while it leads.
#[derive(Debug)]
pub struct Grantor {
    pub(super) me: NodeId,
    pub(super) parameters: Parameters,
    pub(super) off: RulesOff,
    pub(super) role: Role,
    pub(super) led_since: Time,
    pub(super) nodes: BTreeMap<NodeId, Entry>,
    /// How many numbers were given out in this term.
    pub(super) count: u64,
    pub(super) rounds: Rounds,
    /// No live lease ends before this. Extensions leave it alone, so that a renewal costs no search: a look that
    /// comes too early finds nothing and sets it anew, some three times a second.
    pub(super) next_end: Option<Time>,
    pub(super) accusations: Accusations,
    pub(super) has_told_own_clock: bool,
    /// Nodes whose leases have ended in this step; kept to be used again.
    pub(super) due: Vec<NodeId>,
    seen: Time,
}

impl Grantor {
    /// A member that follows and knows no node. `me` is the node it runs on.
    pub fn new(
        now: Time,
        me: NodeId,
        parameters: Parameters,
        off: RulesOff,
    ) -> Result<Grantor, Unsound> {
        parameters.check()?;
        Ok(Grantor {
            me,
            parameters,
            off,
            role: Role::Following { leader: None },
            led_since: now,
            nodes: BTreeMap::new(),
            count: 0,
            rounds: Rounds::new(NODES_MAX),
            next_end: None,
            accusations: Accusations::default(),
            has_told_own_clock: false,
            due: Vec::with_capacity(NODES_MAX),
            seen: now,
        })
    }

    /// Takes one input. `now` never goes back.
    pub fn step(&mut self, now: Time, input: GrantorInput, out: &mut Vec<GrantorOutput>) {
        self.pass(now, out);
        match input {
            GrantorInput::Lead { term } => self.on_lead(now, term),
            GrantorInput::Follow { leader } => self.on_follow(leader),
            GrantorInput::Node { node, incarnation } => self.on_node(now, node, incarnation, out),
            GrantorInput::Forget { node } => self.on_forget(node),
            GrantorInput::Ask(ask) => self.on_ask(now, ask, out),
            GrantorInput::Confirmed { term, up_to } => self.on_confirmed(now, term, up_to, out),
            GrantorInput::Accuse { by, accused } => self.on_accuse(now, by, accused, out),
        }
        self.begin_round(now, out);
    }

    /// When [`Grantor::expire`] wants to be called.
    pub fn deadline(&self) -> Option<Time> {
        let parts = [
            self.next_end,
            self.rounds.deadline(),
            self.accusations.deadline(),
        ];
        parts.into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn expire(&mut self, now: Time, out: &mut Vec<GrantorOutput>) {
        self.pass(now, out);
        if let Some(Begin(up_to)) = self.rounds.expire(now, self.parameters.retry) {
            let term = self.rounds.term;
            out.push(GrantorOutput::Confirm { term, up_to });
        }
        if self.accusations.deadline().is_some_and(|at| at <= now) {
            self.judge(now, out);
        }
        self.begin_round(now, out);
    }

    /// The lease of a node, as this leader sees it: its number, and until when somebody may hold it. `None` where
    /// nobody does, or this member does not lead.
    pub fn lease_of(&self, node: NodeId) -> Option<(LeaseNumber, Time)> {
        let entry = self.nodes.get(&node)?;
        match entry.state {
            LeaseState::Live { until } => Some((entry.lease, until)),
            LeaseState::Ended | LeaseState::Ending { .. } => None,
        }
    }

    pub fn is_leading(&self) -> bool {
        self.role == Role::Leading
    }

    /// What its collections have room for, so that a test sees them grow.
    #[cfg(test)]
    pub(super) fn room(&self) -> [usize; 3] {
        [
            self.rounds.capacity(),
            self.due.capacity(),
            self.nodes.len(),
        ]
    }

    /// The invariants in this file's head, by name.
    pub fn check(&self) -> Result<(), &'static str> {
        let last = LeaseNumber {
            term: self.rounds.term,
            count: self.count,
        };
        for entry in self.nodes.values() {
            if let LeaseState::Live { until } = entry.state
                && self.next_end.is_none_or(|next| next > until)
            {
                return Err("nothing-ends-unseen");
            }
            if entry.lease > last {
                return Err("numbers-grow");
            }
        }
        if self.rounds.len() > 2 * NODES_MAX {
            return Err("one-place-each");
        }
        Ok(())
    }

    fn pass(&mut self, now: Time, out: &mut Vec<GrantorOutput>) {
        assert!(now >= self.seen, "time-goes-forward");
        self.seen = now;
        if self.next_end.is_some_and(|at| at <= now) {
            self.end_what_ran_out(now, out);
        }
    }

    fn begin_round(&mut self, now: Time, out: &mut Vec<GrantorOutput>) {
        if let Some(Begin(up_to)) = self.rounds.begin(now, self.parameters.retry) {
            let term = self.rounds.term;
            out.push(GrantorOutput::Confirm { term, up_to });
        }
    }

    fn on_lead(&mut self, now: Time, term: Term) {
        if term <= self.rounds.term {
            return; // told twice
        }
        self.forget_leases();
        self.role = Role::Leading;
        self.led_since = now;
        self.rounds.start_over(term);
        for entry in self.nodes.values_mut() {
            entry.inherit(now, term, &self.parameters, self.off);
            self.next_end = earlier(self.next_end, entry.state);
        }
    }

    fn on_follow(&mut self, leader: Option<NodeId>) {
        self.role = Role::Following { leader };
        self.forget_leases();
    }

    /// What was known of leases is worth nothing outside the term that it was learnt in.
    fn forget_leases(&mut self) {
        self.nodes.retain(|_, entry| !entry.is_leaving);
        for entry in self.nodes.values_mut() {
            *entry = Entry::new(entry.recorded);
        }
        self.count = 0;
        self.rounds.start_over(self.rounds.term);
        self.next_end = None;
        self.accusations = Accusations::default();
        self.has_told_own_clock = false;
    }

    fn on_node(
        &mut self,
        now: Time,
        node: NodeId,
        incarnation: Incarnation,
        out: &mut Vec<GrantorOutput>,
    ) {
        if !self.nodes.contains_key(&node) {
            if self.nodes.len() >= NODES_MAX {
                return out.push(GrantorOutput::Full { node });
            }
            let mut entry = Entry::new(incarnation);
            if self.is_leading() {
                // A node that this leader did not know: counted as the others are.
                let term = self.rounds.term;
                entry.inherit(self.led_since, term, &self.parameters, self.off);
            }
            self.next_end = earlier(self.next_end, entry.state);
            self.nodes.insert(node, entry);
            return;
        }
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.is_leaving = false;
            entry.recorded = entry.recorded.max(incarnation);
            self.resume(now, node, out);
        }
    }

    fn on_forget(&mut self, node: NodeId) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        entry.is_leaving = true;
        entry.waiting = None;
        entry.answer = None;
        if entry.state == LeaseState::Ended {
            self.nodes.remove(&node);
        }
    }
}
