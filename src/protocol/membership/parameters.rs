//! How long things take, in one place, and the check that they fit together.
//!
//! # The lease
//! Every sound clock runs between `1 - drift` and `1 + drift` times true time. The holder counts
//! `lease * (1 - drift)` from its send: at most `lease` of true time. The grantor counts `lease * (1 + drift)` from its
//! receipt: at least `lease` of true time. The receipt is after the send, so the grantor's view ends later.
//! With 400 ms and 1 in 1,000 the holder counts 399.6 ms, the grantor 400.4.
//!
//! # A living node keeps its lease through an election
//! The last ask that the old leader answered was sent at most `renewal` before it died; the new one leads within
//! `election`; the asker then has at most two retries before it (one at the dead member, one that falls into the
//! election) and two round trips (one to a member that says who leads):
//! 100 + 250 + 2 * 20 + 2 * 2 = 394 ms, which is less than 399.6. The retry is short because of this sum.
//!
//! # A dead node is replaced within a second
//! Where it led the manager too: an election, the new leader's wait, one round of confirmation, change and re-send:
//! 250 + 400.4 + 2 + 100 = 752.4 ms; where it did not, 502.4. The target is p99 <= 1 s.
//!
//! # Where the drift comes from
//! A quartz clock is off by 100 parts in a million at the worst, and the kernel's NTP slews CLOCK_BOOTTIME by up
//! to 500 (`man adjtimex`): 1 in 1,000 is more than their sum. **chronyd slews by up to 83,333 unless its
//! configuration says `maxslewrate 500`** (chrony.conf(5)), which is beyond the bound: where it does, the node
//! is found and refused until it is over (see [the clocks](super#clocks)). A step of the wall clock does not move CLOCK_BOOTTIME.

use std::time::Duration;

/// The least and the most that a lease may last: below, the round trips of a busy host would end it; above, a dead
/// node holds everyone up.
const LEASE_MIN: Duration = Duration::from_millis(10);
const LEASE_MAX: Duration = Duration::from_secs(60);
/// Drift beyond one in ten is no clock.
const DRIFT_PPM_MAX: u32 = 100_000;
const MILLION: u128 = 1_000_000;

/// How long things take. All of a site's nodes have the same; the length of a lease comes with each grant, so a
/// rolling change of it is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// A lease before drift: 10 ms to 60 s.
    pub lease: Duration,
    /// From one answered ask to the next.
    pub renewal: Duration,
    /// From an unanswered ask to the next, at another member.
    pub retry: Duration,
    /// The most that a round trip to the manager takes, its confirmation included, in good times.
    pub round_trip: Duration,
    /// How far a clock may be from true time, in parts per million; 1 to 100,000.
    pub drift_ppm: u32,
    /// The most that the manager is without a leader after one died.
    pub election: Duration,
    /// To commit a changed placement group and to send again what was in flight.
    pub change: Duration,
    /// The most that may pass from a death to serving again.
    pub outage: Duration,
    /// From the first accusation of a living node to a verdict, so that the accused is heard too.
    pub hearing: Duration,
    /// How long one node alone accuses a living one before it is called a dispute.
    pub patience: Duration,
    /// How long an accusation counts that is not repeated.
    pub accusation_age: Duration,
}

/// A parameter that does not fit the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsound {
    /// The field of [`Parameters`].
    pub field: &'static str,
    pub must: &'static str,
}

impl Parameters {
    /// What Sarsen uses: the sums in this file's head come out with these.
    pub const DEFAULT: Parameters = Parameters {
        lease: Duration::from_millis(400),
        renewal: Duration::from_millis(100),
        retry: Duration::from_millis(20),
        round_trip: Duration::from_millis(2),
        drift_ppm: 1_000,
        election: Duration::from_millis(250),
        change: Duration::from_millis(100),
        outage: Duration::from_secs(1),
        hearing: Duration::from_millis(50),
        patience: Duration::from_secs(1),
        accusation_age: Duration::from_secs(2),
    };

    /// Whether the parameters fit together: the sums in this file's head.
    pub const fn check(&self) -> Result<(), Unsound> {
        let (lease, retry) = (self.lease.as_nanos(), self.retry.as_nanos());
        let (renewal, round_trip) = (self.renewal.as_nanos(), self.round_trip.as_nanos());
        let election = self.election.as_nanos();
        if lease < LEASE_MIN.as_nanos() || lease > LEASE_MAX.as_nanos() {
            return unsound("lease", "be from 10 ms to 60 s");
        }
        if self.drift_ppm == 0 || self.drift_ppm > DRIFT_PPM_MAX {
            return unsound("drift_ppm", "be from 1 to 100,000");
        }
        if round_trip == 0 || round_trip > retry {
            return unsound("round_trip", "be more than nothing, and at most `retry`");
        }
        if retry > renewal {
            return unsound("retry", "be at most `renewal`");
        }
        let kept = renewal + election + 2 * retry + 2 * round_trip;
        if kept > self.held(self.lease).as_nanos() {
            return unsound(
                "renewal",
                "leave a lease alive through an election: renewal + election + 2 retries + 2 round trips within it",
            );
        }
        let waited = self.waited(self.lease).as_nanos();
        if election + waited + round_trip + self.change.as_nanos() > self.outage.as_nanos() {
            return unsound(
                "outage",
                "be at least election + lease + round trip + change",
            );
        }
        if self.hearing.as_nanos() > self.patience.as_nanos() {
            return unsound("hearing", "be at most `patience`");
        }
        if self.patience.as_nanos() >= self.accusation_age.as_nanos() {
            return unsound("patience", "be less than `accusation_age`");
        }
        Ok(())
    }

    /// How long a holder counts a lease of this length, from its send: `length * (1 - drift)`, rounded down.
    pub const fn held(&self, length: Duration) -> Duration {
        let parts = MILLION - self.drift_ppm as u128;
        nanoseconds(length.as_nanos() * parts / MILLION)
    }

    /// How long a grantor waits for a lease of this length, from its receipt: `length * (1 + drift)`, rounded up.
    pub const fn waited(&self, length: Duration) -> Duration {
        let parts = MILLION + self.drift_ppm as u128;
        nanoseconds((length.as_nanos() * parts).div_ceil(MILLION))
    }
}

const fn unsound(field: &'static str, must: &'static str) -> Result<(), Unsound> {
    Err(Unsound { field, must })
}

/// Durations here are under two minutes, or come off the wire and are cut to what u64 holds.
const fn nanoseconds(nanoseconds: u128) -> Duration {
    let most = u64::MAX as u128;
    let cut = if nanoseconds > most {
        most
    } else {
        nanoseconds
    };
    Duration::from_nanos(cut as u64)
}

// parameters-fit: what is shipped holds the sums above, or it does not compile.
const _: () = assert!(Parameters::DEFAULT.check().is_ok());

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Parameters = Parameters::DEFAULT;

    fn field(parameters: Parameters) -> &'static str {
        parameters
            .check()
            .expect_err("these do not fit together")
            .field
    }

    #[test]
    fn the_grantor_counts_longer_than_the_holder_by_the_drift_of_both() {
        assert_eq!(GOOD.held(GOOD.lease), Duration::from_micros(399_600));
        assert_eq!(GOOD.waited(GOOD.lease), Duration::from_micros(400_400));
        let odd = Duration::from_nanos(1_001);
        assert_eq!(GOOD.held(odd), Duration::from_nanos(999));
        assert_eq!(GOOD.waited(odd), Duration::from_nanos(1_003));
    }

    #[test]
    fn a_parameter_that_does_not_fit_is_named() {
        let ms = Duration::from_millis;
        #[rustfmt::skip]
        let cases = [
            ("lease", Parameters { lease: ms(9), ..GOOD }),
            ("lease", Parameters { lease: ms(60_001), ..GOOD }),
            ("drift_ppm", Parameters { drift_ppm: 0, ..GOOD }),
            ("drift_ppm", Parameters { drift_ppm: 100_001, ..GOOD }),
            ("round_trip", Parameters { round_trip: ms(0), ..GOOD }),
            ("round_trip", Parameters { round_trip: ms(21), ..GOOD }),
            ("retry", Parameters { retry: ms(101), ..GOOD }),
            ("renewal", Parameters { renewal: ms(106), ..GOOD }),
            ("renewal", Parameters { election: ms(256), ..GOOD }),
            ("outage", Parameters { change: ms(348), ..GOOD }),
            ("hearing", Parameters { hearing: ms(1_001), ..GOOD }),
            ("patience", Parameters { patience: ms(2_000), ..GOOD }),
        ];
        for (name, parameters) in cases {
            assert_eq!(field(parameters), name);
        }
        let (renewal, change) = (ms(105), ms(347));
        let most = Parameters {
            renewal,
            change,
            ..GOOD
        };
        assert_eq!(most.check(), Ok(()));
    }
}
