//! Rounds of confirmation: a majority of the manager says that this leader still leads, for many things at once.
//!
//! What happens while a round is on its way waits for the next, as writes do for a journal's batch: the cost
//! is one round at a time however many nodes ask. A round confirms only what came before it began, so each thing has the number
//! of the first round that begins after it.
//!
//! Invariant, *one-place-each*: a node is in the queue at most once for its answer and once for its ending.

use super::message::Term;
use crate::base::{NodeId, Time};
use std::collections::VecDeque;
use std::time::Duration;

/// What waits for a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    Answer,
    Ending,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    round: u64,
    node: NodeId,
    errand: Errand,
}

/// A round to be begun: its number, in this term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin(pub u64);

/// The rounds of one term, and what waits for them.
#[derive(Debug)]
pub(super) struct Rounds {
    pub(super) term: Term,
    begun: u64,
    confirmed: u64,
    queue: VecDeque<Waiting>,
    retry_at: Option<Time>,
}

impl Rounds {
    /// Room for an answer and an ending of each of `nodes`, so that no renewal allocates.
    pub(super) fn new(nodes: usize) -> Rounds {
        Rounds {
            term: Term(0),
            begun: 0,
            confirmed: 0,
            queue: VecDeque::with_capacity(2 * nodes),
            retry_at: None,
        }
    }

    /// Forgets what waits: another term.
    pub(super) fn start_over(&mut self, term: Term) {
        (self.term, self.begun, self.confirmed) = (term, 0, 0);
        self.queue.clear();
        self.retry_at = None;
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.retry_at
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// The first round that begins from now on.
    pub(super) fn next(&self) -> u64 {
        self.begun + 1
    }

    /// Whether the round that this number names has begun already.
    pub(super) fn has_begun(&self, round: u64) -> bool {
        round <= self.begun
    }

    pub(super) fn is_confirmed(&self, round: u64) -> bool {
        round <= self.confirmed
    }

    /// Puts a node in the queue.
    pub(super) fn push(&mut self, round: u64, node: NodeId, errand: Errand) {
        self.queue.push_back(Waiting {
            round,
            node,
            errand,
        });
    }

    /// Begins a round if something waits and none is on its way; `retry` is how long its confirmation may take.
    pub(super) fn begin(&mut self, now: Time, retry: Duration) -> Option<Begin> {
        let is_on_its_way = self.begun > self.confirmed && self.retry_at.is_some();
        if self.queue.is_empty() || is_on_its_way {
            return None;
        }
        Some(self.begin_another(now, retry))
    }

    fn begin_another(&mut self, now: Time, retry: Duration) -> Begin {
        self.begun += 1;
        self.retry_at = Some(now + retry);
        Begin(self.begun)
    }

    /// Begins another round where one was not confirmed in time. It covers what the lost one did, and what came since.
    pub(super) fn expire(&mut self, now: Time, retry: Duration) -> Option<Begin> {
        if self.retry_at.is_none_or(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        (!self.queue.is_empty()).then(|| self.begin_another(now, retry))
    }

    /// A majority confirmed this leader after round `up_to` had begun.
    pub(super) fn on_confirmed(&mut self, term: Term, up_to: u64) {
        if term != self.term || up_to > self.begun {
            return;
        }
        self.confirmed = self.confirmed.max(up_to);
        if self.confirmed == self.begun {
            self.retry_at = None;
        }
    }

    /// Takes the next that need not wait any longer.
    pub(super) fn pop(&mut self) -> Option<(NodeId, Errand)> {
        let front = self.queue.front()?;
        if !self.is_confirmed(front.round) {
            return None;
        }
        self.queue
            .pop_front()
            .map(|front| (front.node, front.errand))
    }
}
