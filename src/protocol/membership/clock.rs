//! One node's clock, compared with the grantor's: does it run at a rate that a sound clock can have?
//!
//! Each ask says how long the asker's clock has run; the grantor knows how long its own ran between the receipts of two
//! asks. What makes the two differ in good order is that asks are on their way for a while, which was not the same
//! while for both. How long an ask was on its way is at most the round trip that the asker measured for it, and
//! tells with its next ask. So with two asks `a` before `b`, rates within `1 ± drift`, and `ratio = (1 + drift) / (1 - drift)`:
//!
//! ```text
//!   ours   <= (theirs + round trip of b) * ratio      broken: the node's clock is too slow (it holds too long)
//!   theirs <= ours * ratio + round trip of a          broken: it is too fast
//! ```
//!
//! One broken inequality is proof: no delay explains it. A rate that is off by `e` beyond the bound is proven after
//! `round trip / e`: with 1 ms round trips, 10 % after two renewals, 1 in 1,000 after one second; over the longest
//! comparison (a minute) everything above 17 parts in a million. Not seen: less than that; a
//! burst that is over sooner; and a clock that stands still once (a virtual machine that was paused with its clock)
//! before the first ask after it. Proof is against the grantor's clock, which may be the bad one: [`Grantor`](super::Grantor)
//! says so when most nodes disagree with it.
//!
//! A verdict is lifted after [`TRIAL`] in which the clock ran as it should.

use super::message::{Ask, Term};
use super::parameters::Parameters;
use crate::base::Time;
use std::time::Duration;

/// How long one base of comparison serves before a newer one takes over; comparisons go over one to two of these.
const SPAN: Duration = Duration::from_secs(30);
/// How long a clock that was out of bounds has to run well.
const TRIAL: Duration = Duration::from_secs(10);
/// A round trip that took longer says too little, and could be claimed by a clock that is badly off.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(200);

/// What an ask changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    OutOfBounds,
    InBounds,
}

/// A request as the grantor saw it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    request: u64,
    elapsed: Duration,
    received: Time,
}

/// A request whose time on its way is bounded.
#[derive(Debug, Clone, Copy)]
struct Measured {
    elapsed: Duration,
    received: Time,
    round_trip: Duration,
}

/// What the grantor knows of one incarnation's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClockWatch {
    last: Option<Seen>,
    /// What newer requests are compared with; `older` is replaced by `newer` every [`SPAN`].
    older: Option<Measured>,
    newer: Option<Measured>,
    out_of_bounds: bool,
}

impl ClockWatch {
    pub(super) fn is_out_of_bounds(&self) -> bool {
        self.out_of_bounds
    }

    /// Whether there was anything to compare yet.
    pub(super) fn has_measured(&self) -> bool {
        self.older.is_some()
    }

    /// Takes an ask that was received at `now`; asks come in the order of their requests.
    pub(super) fn on_ask(
        &mut self,
        now: Time,
        ask: &Ask,
        term: Term,
        parameters: &Parameters,
    ) -> Change {
        let seen = Seen {
            request: ask.request,
            elapsed: ask.elapsed,
            received: now,
        };
        let Some(measured) = self
            .last
            .replace(seen)
            .and_then(|last| measure(last, ask, term))
        else {
            return Change::Nothing;
        };
        let (Some(older), Some(newer)) = (self.older, self.newer) else {
            (self.older, self.newer) = (Some(measured), Some(measured));
            return Change::Nothing;
        };
        let sound = |base: Measured| is_sound(base, measured, parameters);
        if !sound(older) || !sound(newer) {
            // The trial begins, or begins anew.
            (self.older, self.newer) = (Some(measured), Some(measured));
            return match std::mem::replace(&mut self.out_of_bounds, true) {
                true => Change::Nothing,
                false => Change::OutOfBounds,
            };
        }
        if self.out_of_bounds {
            if measured.received.since(older.received) < TRIAL {
                return Change::Nothing;
            }
            self.out_of_bounds = false;
            return Change::InBounds;
        }
        if measured.received.since(newer.received) >= SPAN {
            (self.older, self.newer) = (Some(newer), Some(measured));
        }
        Change::Nothing
    }
}

/// The request before this ask, if the ask says how long its round trip was: to this leader. A copy of a request that
/// an earlier leader answered may have been on its way for much longer than the round trip that its sender knows.
fn measure(last: Seen, ask: &Ask, term: Term) -> Option<Measured> {
    let answered = ask.answered?;
    let is_this = answered.request == last.request && answered.term == term;
    let serves = is_this && answered.took <= ROUND_TRIP_MAX;
    serves.then_some(Measured {
        elapsed: last.elapsed,
        received: last.received,
        round_trip: answered.took,
    })
}

/// Whether two sound clocks can have given these: the inequalities in this file's head.
fn is_sound(a: Measured, b: Measured, parameters: &Parameters) -> bool {
    // Both clocks are read in whole nanoseconds, and so is each end of what is compared.
    const ROUNDING: u128 = 4;
    let drift = u128::from(parameters.drift_ppm);
    let (slow, fast) = (1_000_000 - drift, 1_000_000 + drift);
    let ours = b.received.since(a.received).as_nanos();
    let Some(theirs) = b.elapsed.checked_sub(a.elapsed) else {
        return false; // it ran backwards
    };
    let theirs = theirs.as_nanos();
    let too_slow = ours * slow > (theirs + b.round_trip.as_nanos() + ROUNDING) * fast;
    let on_its_way = a.round_trip.as_nanos() + ROUNDING;
    let too_fast = theirs.saturating_sub(on_its_way) * slow > ours * fast;
    !too_slow && !too_fast
}
