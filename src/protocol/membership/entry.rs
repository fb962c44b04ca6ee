//! What a leader knows of one node: fixed in size, and worth nothing outside the term that it was learnt in.

use super::clock::ClockWatch;
use super::message::{Ask, Incarnation, LeaseNumber, Term};
use super::parameters::Parameters;
use super::rule::{Rule, RulesOff};
use crate::base::Time;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseState {
    /// Nobody has it.
    Ended,
    /// Somebody may have it until then.
    Live { until: Time },
    /// Its time has passed; it is over when this round is confirmed.
    Ending { round: u64 },
}

/// A grant that leaves when its round is confirmed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub request: u64,
    pub lease: LeaseNumber,
    pub round: u64,
}

/// What the leader knows of a node. Fixed in size.
#[derive(Debug)]
pub(super) struct Entry {
    /// The newest incarnation that is recorded.
    pub recorded: Incarnation,
    /// Forgotten by the catalog, and here until its lease is over.
    pub is_leaving: bool,
    /// Whose lease it is.
    pub holder: Incarnation,
    pub state: LeaseState,
    /// The number of the lease; where it is inherited, above every number that earlier leaders gave out.
    pub lease: LeaseNumber,
    pub is_inherited: bool,
    /// What the holder last said (and what is presumed of one that a new leader has not heard).
    pub says_it_holds: bool,
    /// When it was granted last; of one that is inherited, when the leadership began.
    pub renewed: Time,
    /// The last number that was told as `Live`.
    pub told: LeaseNumber,
    /// Whose requests and clock these are.
    pub heard: Incarnation,
    pub newest_request: u64,
    pub clock: ClockWatch,
    /// An ask that waits for its incarnation to be recorded, or for an earlier lease to be over.
    pub waiting: Option<Ask>,
    pub answer: Option<Pending>,
    pub has_answer_place: bool,
    pub has_ending_place: bool,
}

impl Entry {
    pub(super) fn new(recorded: Incarnation) -> Entry {
        Entry {
            recorded,
            is_leaving: false,
            holder: Incarnation(0),
            state: LeaseState::Ended,
            lease: LeaseNumber::NONE,
            is_inherited: false,
            says_it_holds: false,
            renewed: Time(0),
            told: LeaseNumber::NONE,
            heard: Incarnation(0),
            newest_request: 0,
            clock: ClockWatch::default(),
            waiting: None,
            answer: None,
            has_answer_place: false,
            has_ending_place: false,
        }
    }

    /// What a new leader presumes: whoever has ever started holds a lease that began as this leader did (R18).
    pub(super) fn inherit(
        &mut self,
        led_since: Time,
        term: Term,
        parameters: &Parameters,
        off: RulesOff,
    ) {
        if self.recorded == Incarnation(0) {
            return; // never started, so never granted anything
        }
        let until = match off.on(Rule::NewLeaderWaits) {
            false => led_since + parameters.waited(parameters.lease),
            true => led_since,
        };
        self.state = LeaseState::Live { until };
        self.holder = self.recorded;
        self.lease = LeaseNumber { term, count: 0 };
        self.is_inherited = true;
        self.says_it_holds = true;
        self.renewed = led_since;
    }
}

/// The earlier of the next end and this one's.
pub(super) fn earlier(next: Option<Time>, state: LeaseState) -> Option<Time> {
    match state {
        LeaseState::Live { until } => Some(next.map_or(until, |next| next.min(until))),
        LeaseState::Ended | LeaseState::Ending { .. } => next,
    }
}
