//! Clocks beyond the bound: what is found, how soon, and what it is good for.

use super::super::clock::{Change, ClockWatch};
use super::super::*;
use super::world::{Knobs, MS, US, World};
use crate::base::{NodeId, Prng, Time};
use std::time::Duration;

const GOOD: Parameters = Parameters::DEFAULT;

fn bad(seed: u64, ppm: i64, off: RulesOff) -> Knobs {
    Knobs {
        members: 3,
        holders: 3,
        parameters: GOOD,
        delay: (50 * US, 500 * US),
        lateness: 100 * US,
        loss: 0,
        held_back: 0,
        faults: 0,
        elections: false,
        bad_clock: Some(ppm),
        ..Knobs::wild(seed, off)
    }
}

/// Rates of the first node, in parts per million: the bound is 1,000, and two sound clocks differ by 2,000.
const RATES: [i64; 6] = [-400_000, -83_333, -8_000, 8_000, 83_333, 400_000];

#[test]
fn a_clock_beyond_the_bound_is_found_and_from_then_on_believes_nothing_too_long() {
    for seed in 0..150 {
        for ppm in RATES {
            let mut world = World::new(seed, bad(seed, ppm, RulesOff::NONE));
            assert_eq!(world.run(), Ok(()), "seed {seed}, {ppm} ppm");
            let found = world.bad_clock_found;
            // After round trip / excess: 2 ms / 5,000 ppm at the least excess, and two renewals.
            let soon = if ppm.abs() < 50_000 {
                1_200 * MS
            } else {
                600 * MS
            };
            assert!(
                found.is_some_and(|at| at < soon),
                "seed {seed}, {ppm} ppm: {found:?}"
            );
        }
    }
}

#[cfg(feature = "sim")]
#[test]
fn clocks_that_are_not_checked_are_not_found() {
    let mut world = World::new(1, bad(1, -83_333, RulesOff::only(Rule::ClocksAreChecked)));
    assert_eq!(world.run(), Ok(()));
    assert_eq!(world.bad_clock_found, None);
}

/// A node that asks each 100 ms, with the delays and rate of the test.
struct Asker {
    prng: Prng,
    sent: u64,
    elapsed: u64,
    request: u64,
    took: Option<Duration>,
}

impl Asker {
    fn new(seed: u64) -> Asker {
        Asker {
            prng: Prng::new(seed),
            sent: 1_000 * MS,
            elapsed: 0,
            request: 0,
            took: None,
        }
    }

    /// The next ask, and when it is received; `rate` in parts per million of true time.
    fn ask(&mut self, rate: i64, delay_max: u64) -> (Time, Ask) {
        self.sent += 100 * MS;
        self.elapsed += (100 * MS as i64 + 100 * MS as i64 / 1_000_000 * rate) as u64;
        self.request += 1;
        let (there, back) = (self.prng.below(delay_max), self.prng.below(delay_max));
        let ask = Ask {
            node: NodeId(4),
            incarnation: Incarnation(1),
            request: self.request,
            want: Want::Lease,
            standing: Standing::Lost(LeaseNumber::NONE),
            elapsed: Duration::from_nanos(self.elapsed),
            answered: self.took.map(|took| Answered {
                request: self.request - 1,
                term: Term(1),
                took,
            }),
        };
        self.took = Some(Duration::from_nanos(there + back));
        (Time(self.sent + there), ask)
    }
}

#[test]
fn a_clock_at_the_bound_is_never_accused_whatever_the_delays() {
    for seed in 0..40 {
        for rate in [-1_990, 0, 1_990] {
            let (mut watch, mut asker) = (ClockWatch::default(), Asker::new(seed));
            for _ in 0..2_000 {
                let (at, ask) = asker.ask(rate, 30 * MS);
                assert_eq!(watch.on_ask(at, &ask, Term(1), &GOOD), Change::Nothing);
            }
        }
    }
}

#[test]
fn a_slow_drift_is_found_within_a_minute() {
    let (mut watch, mut asker) = (ClockWatch::default(), Asker::new(3));
    // 100 ppm beyond what two sound clocks can differ by, and round trips of up to 2 ms: after 20 s at the latest.
    let found = (0..600).find(|_| {
        let (at, ask) = asker.ask(-2_110, MS);
        watch.on_ask(at, &ask, Term(1), &GOOD) == Change::OutOfBounds
    });
    assert!(
        found.is_some_and(|asks| (30..300).contains(&asks)),
        "{found:?}"
    );
}

#[test]
fn a_clock_that_jumps_is_found_and_after_ten_good_seconds_believed_again() {
    let (mut watch, mut asker) = (ClockWatch::default(), Asker::new(5));
    let mut changes = Vec::new();
    for n in 0..400 {
        if n == 100 {
            asker.elapsed += 3_000 * MS; // its clock goes three seconds in no time
        }
        let (at, ask) = asker.ask(0, MS);
        match watch.on_ask(at, &ask, Term(1), &GOOD) {
            Change::Nothing => {}
            change => changes.push((n, change)),
        }
    }
    assert_eq!(changes[0], (101, Change::OutOfBounds));
    assert!(
        matches!(changes[1..], [(200..=204, Change::InBounds)]),
        "{changes:?}"
    );
}

#[test]
fn a_leader_whose_own_clock_is_bad_says_so_once() {
    let mut grantor = Grantor::new(Time(1), NodeId(1), GOOD, RulesOff::NONE).unwrap();
    let mut out = Vec::new();
    for node in 10..15 {
        let (node, incarnation) = (NodeId(node), Incarnation(1));
        grantor.step(Time(1), GrantorInput::Node { node, incarnation }, &mut out);
    }
    grantor.step(Time(1), GrantorInput::Lead { term: Term(1) }, &mut out);
    let mut askers: Vec<Asker> = (0..5).map(Asker::new).collect();
    for _ in 0..5 {
        // To a leader whose clock is slow by 5 %, all of them are fast.
        let mut asks: Vec<(Time, Ask)> = askers.iter_mut().map(|a| a.ask(50_000, MS)).collect();
        asks.iter_mut()
            .zip(10..)
            .for_each(|((_, ask), node)| ask.node = NodeId(node));
        asks.sort_by_key(|(at, _)| *at);
        for (at, ask) in asks {
            grantor.step(at, GrantorInput::Ask(ask), &mut out);
        }
    }
    let bad = |output: &&GrantorOutput| matches!(output, GrantorOutput::ClockOutOfBounds { .. });
    let own = |output: &&GrantorOutput| **output == GrantorOutput::OwnClockOutOfBounds;
    assert_eq!(out.iter().filter(bad).count(), 5);
    assert_eq!(out.iter().filter(own).count(), 1);
}
