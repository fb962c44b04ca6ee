//! How much of a disk rebuilding may take: what guests leave, told by how long their own I/O takes.
//!
//! ```text
//!   the disk's answers ── guest(took) ──► rounds ──p99 against the baseline──► window: chunks at once, of all sessions of the disk
//!                      └─ rebuilt() ────►                                        │ shared out as replica::Input::Pace
//! ```
//!
//! A rate that is fixed is wrong on every disk but one, and at every hour but one. A queue that grows shows in the latency of who shares it, before
//! anything is lost: that is the signal of TCP Vegas (Brakmo and Peterson, 1995) and of LEDBAT (RFC 6817), which give way to all others in the same way.
//! As there, what it is compared with is what it was without us, and the window grows by one and shrinks by a factor (Chiu and Jain, 1989), so that
//! several disks that a rebuild goes through come to fair shares.
//!
//! # The law, round by round
//! A round is `SAMPLES` answers to guests, or `ROUND` with at least `SAMPLES_MIN` of them, or `ROUND_MAX`. With p the 99th percentile of a round and b the baseline:
//!
//! | | the window |
//! |---|---|
//! | p at most 1.25 b | grows by 1 |
//! | up to 1.75 b | stays (hysteresis: the band is wider than what one chunk more or less does) |
//! | above that | is halved |
//! | above 4 b | falls to the floor |
//! | `QUIET` without any guest | doubles: with nobody asking it is at the ceiling after six of them |
//!
//! So guests' p99 stays near twice what it was: rounds end on either side of the limit. With 16 channels loaded to 5, 20, 40, 60 and 80 % by guests it is 1.5 to 2.2
//! times what it was, and the rebuild takes 87 to 68 % of what guests leave (`pace/tests.rs` prints it).
//!
//! *The baseline* is the p99 of rounds in which nothing is rebuilt, moved by an eighth of the difference each round, and held between `BASE_MIN` and `BASE_MAX`. A
//! rebuild may begin before anything is known, or last for hours in which the guests change. So every `PROBE_EVERY` rounds of rebuilding, and at its beginning
//! where there is no baseline, the window is at the floor for two rounds, and the second one counts as one without (as BBR's ProbeRTT, Cardwell et al.
//! 2016). It does not creep upwards by that: what is measured there is always the guests and the floor, never the window that the baseline allowed.
//!
//! # Invariants
//! - *rebuilds-go-on*: the window is at least [`FLOOR`], whatever guests do: redundancy comes back. At the floor, a disk that takes 10 ms for a chunk still rebuilds
//!   6.5 MB/s; what that does to guests is the wait for one chunk at a time.
//! - *window-is-bounded*: it is at most [`CEILING`].
//!
//! It does not know what a chunk is, who rebuilds, or what time it is but by what it is told.

#[cfg(test)]
mod tests;

use crate::base::Time;
use std::time::Duration;

/// Chunks at once, at the least.
pub const FLOOR: u32 = 1;
/// And at the most, of all sessions of a disk: 4 MiB, enough for any disk's full rate.
pub const CEILING: u32 = 64;

/// Where a disk begins that nothing is known of.
const FIRST: u32 = 4;
/// Answers to guests in a round: enough for a 99th percentile that is not the slowest one.
const SAMPLES: usize = 256;
/// So many are a round as well, when they took long to come.
const SAMPLES_MIN: usize = 32;
/// How long a round lasts at the least where guests ask little.
const ROUND: Duration = Duration::from_millis(250);
/// And at the most: a few answers say little of a percentile, and where guests ask little there is little to protect.
const ROUND_MAX: Duration = Duration::from_secs(1);
/// After so long without an answer to a guest there is none.
const QUIET: Duration = Duration::from_millis(250);
/// Rounds of rebuilding between two probes of the baseline.
const PROBE_EVERY: u32 = 128;
/// Bounds of the baseline: below the first, twice of it is noise; above the second a disk is about to be accused.
const BASE_MIN: Duration = Duration::from_micros(20);
const BASE_MAX: Duration = Duration::from_millis(50);
/// The baseline moves by one in so many of the difference, a round.
const BASE_SLOWNESS: i64 = 8;

/// Where a probe is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// Rounds until the next one.
    In(u32),
    /// At the floor, while the queue of before drains.
    Drains,
    /// At the floor, and measured.
    Measures,
}

/// The pace of one disk. See the [module](self).
#[derive(Debug)]
pub struct Pacer {
    /// In microseconds; `None`: nothing is known yet.
    base_us: Option<u32>,
    /// But for probes.
    window: u32,
    probe: Probe,
    /// In microseconds, of this round.
    samples: Vec<u32>,
    /// When the round began, and when a guest was answered last.
    began: Time,
    guest: Time,
    /// Something was rebuilt in this round.
    is_rebuilding: bool,
    /// When it was quiet, and the window doubled, last.
    doubled: Time,
}

impl Pacer {
    /// The pace of a disk of which nothing is known.
    pub fn new(now: Time) -> Pacer {
        Pacer {
            base_us: None,
            window: FIRST,
            probe: Probe::In(0),
            samples: Vec::with_capacity(SAMPLES),
            began: now,
            guest: now,
            is_rebuilding: false,
            doubled: now,
        }
    }

    /// How many chunks may be on their way to or from this disk at once, of all sessions.
    pub fn window(&self) -> u32 {
        match self.probe {
            Probe::In(_) => self.window,
            Probe::Drains | Probe::Measures => FLOOR,
        }
    }

    /// What each of so many sessions may have on its way. 0: fewer are allowed than there are sessions, which take turns.
    pub fn share(&self, sessions: u32) -> u32 {
        self.window() / sessions.max(1)
    }

    /// What guests' latency is held against; `None`: nothing is known yet.
    pub fn baseline(&self) -> Option<Duration> {
        let us = self.base_us?;
        Some(Duration::from_micros(us.into()))
    }

    /// The disk has answered a guest's read or write.
    pub fn guest(&mut self, now: Time, took: Duration) {
        self.guest = now;
        let us = took.as_micros().min(u128::from(u32::MAX)) as u32;
        self.samples.push(us);
        let (lasts, count) = (now.since(self.began), self.samples.len());
        let is_round = lasts >= ROUND && count >= SAMPLES_MIN;
        if count >= SAMPLES || is_round || lasts >= ROUND_MAX {
            self.end_round(now);
        }
    }

    /// A chunk was read or written for a rebuild.
    pub fn rebuilt(&mut self, now: Time) {
        self.is_rebuilding = true;
        if now.since(self.guest.max(self.doubled)) < QUIET {
            return;
        }
        // Nobody asks: there is nobody to give way to, and nothing to measure.
        self.doubled = now;
        self.window = (self.window * 2).min(CEILING);
        self.samples.clear();
        self.began = now;
        if matches!(self.probe, Probe::Drains | Probe::Measures) {
            self.probe = Probe::In(0);
        }
    }

    fn end_round(&mut self, now: Time) {
        let last = self.samples.len() - 1;
        let place = last * 99 / 100;
        let p99 = *self.samples.select_nth_unstable(place).1;
        self.samples.clear();
        self.began = now;
        if !std::mem::take(&mut self.is_rebuilding) {
            return self.learn(p99);
        }
        match self.probe {
            Probe::In(0) => self.probe = Probe::Drains,
            Probe::Drains => self.probe = Probe::Measures,
            Probe::Measures => self.learn(p99),
            Probe::In(left) => {
                self.probe = Probe::In(left - 1);
                self.steer(p99);
            }
        }
    }

    fn learn(&mut self, p99: u32) {
        let bounds = (BASE_MIN.as_micros() as u32, BASE_MAX.as_micros() as u32);
        let known = self.base_us.map_or(i64::from(p99), |base| {
            let base = i64::from(base);
            base + (i64::from(p99) - base) / BASE_SLOWNESS
        });
        self.base_us = Some((known as u32).clamp(bounds.0, bounds.1));
        self.probe = Probe::In(PROBE_EVERY);
    }

    fn steer(&mut self, p99: u32) {
        let (base, p99) = (u64::from(self.base_us.unwrap_or(1)), u64::from(p99));
        self.window = match () {
            _ if p99 * 4 <= base * 5 => self.window + 1,
            _ if p99 * 4 <= base * 7 => self.window,
            _ if p99 <= base * 4 => self.window / 2,
            _ => FLOOR,
        };
        self.window = self.window.clamp(FLOOR, CEILING);
    }

    /// Asserts the named invariants.
    pub fn check(&self) {
        assert!(self.window() >= FLOOR, "rebuilds-go-on");
        assert!(self.window <= CEILING, "window-is-bounded");
        assert!(self.samples.len() <= SAMPLES, "a round has an end");
    }
}
