//! never-two, no-false-expiry and comes-back, over seeds; and each of the rules switched off, which must be seen.

use super::super::*;
use super::world::{Knobs, MS, Tally, World};

fn run(seed: u64, knobs: Knobs) -> (Result<(), String>, Tally) {
    let mut world = World::new(seed, knobs);
    let result = world.run();
    (result, world.tally)
}

fn run_all(seeds: u64, knobs: impl Fn(u64) -> Knobs) -> Tally {
    let mut sum = Tally::default();
    for seed in 0..seeds {
        let knobs = knobs(seed);
        let (result, tally) = run(seed, knobs);
        if let Err(broken) = result {
            panic!("seed {seed}: {broken}\n{knobs:?}");
        }
        sum.steps += tally.steps;
        sum.held += tally.held;
        sum.extended += tally.extended;
        sum.fenced += tally.fenced;
        sum.expired += tally.expired;
        sum.replies += tally.replies;
        sum.elections += tally.elections;
        sum.restarts += tally.restarts;
    }
    sum
}

/// How many seeds a test runs: `SARSEN_MEMBERSHIP_SEEDS` by hand, or so many.
fn seeds(usual: u64) -> u64 {
    let wanted = std::env::var("SARSEN_MEMBERSHIP_SEEDS").ok();
    wanted
        .and_then(|wanted| wanted.parse().ok())
        .unwrap_or(usual)
}

#[test]
fn whatever_the_network_does_nobody_believes_in_an_expired_lease_and_everybody_comes_back() {
    let tally = run_all(seeds(1_500), |seed| Knobs::wild(seed, RulesOff::NONE));
    eprintln!("{tally:?}");
    // The runs are worth something: all of it happened, and often.
    assert!(tally.expired > 1_500 && tally.fenced > 1_500 && tally.restarts > 500);
    assert!(tally.extended > 50_000 && tally.replies > 100_000 && tally.elections > 2_000);
}

#[test]
fn where_messages_arrive_in_time_nobody_is_expired_though_leaders_die() {
    let tally = run_all(seeds(500), |seed| Knobs::calm(seed, RulesOff::NONE));
    eprintln!("{tally:?}");
    assert!(tally.elections > 1_000 && tally.extended > 50_000);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let steps = |seed| run(seed, Knobs::wild(seed, RulesOff::NONE)).1;
    for seed in 0..20 {
        assert_eq!(format!("{:?}", steps(seed)), format!("{:?}", steps(seed)));
    }
}

#[test]
fn an_election_that_takes_longer_than_the_parameters_allow_is_seen_as_a_false_expiry() {
    let slow = |seed| Knobs {
        gap: (330 * MS, 380 * MS),
        ..Knobs::calm(seed, RulesOff::NONE)
    };
    let broken = (0..50).find_map(|seed| run(seed, slow(seed)).0.err());
    assert!(broken.is_some_and(|broken| broken.contains("no-false-expiry")));
}

#[test]
fn a_site_whose_faults_never_stop_is_seen_not_to_come_back() {
    let endless = |seed| Knobs {
        heals: false,
        ..Knobs::wild(seed, RulesOff::NONE)
    };
    let broken = (0..50).find_map(|seed| run(seed, endless(seed)).0.err());
    assert!(broken.is_some_and(|broken| broken.starts_with("comes-back")));
}

/// The first seed on which a rule's absence is seen, and what was seen.
#[cfg(feature = "sim")]
fn first_broken(rule: Rule, seeds: u64) -> Option<(u64, String)> {
    let wild = |seed| run(seed, Knobs::wild(seed, RulesOff::only(rule))).0;
    (0..seeds).find_map(|seed| wild(seed).err().map(|broken| (seed, broken)))
}

#[cfg(feature = "sim")]
#[test]
fn each_rule_switched_off_is_found_broken() {
    let never_two = [
        Rule::CountFromSend,
        Rule::DriftCounts,
        Rule::CheckInHand,
        Rule::NewLeaderWaits,
        Rule::MajorityConfirms,
        Rule::ExpiryConfirmed,
        Rule::LaterStartWaits,
    ];
    for rule in never_two {
        let found = first_broken(rule, 1_500);
        eprintln!("{}: {found:?}", rule.name());
        let (_, broken) = found.unwrap_or_else(|| panic!("nobody finds {}", rule.name()));
        assert!(broken.contains("never-two"), "{}: {broken}", rule.name());
    }
}
