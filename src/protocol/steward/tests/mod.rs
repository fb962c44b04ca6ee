//! The steward's tests: any faults come to rest, rules that are switched off are missed, and stories one by one.

mod world;

use super::*;
use crate::base::{DiskId, NodeId};
use crate::protocol::catalog::{Command, DiskState};
use crate::protocol::replication::Role;
use std::time::Duration;
use world::{PARAMETERS, World};

/// A cluster whose PGs are made, and which is at rest.
fn laid_out(seed: u64, nodes: u32, copies: u32, min_copies: u32, off: RulesOff) -> World {
    let mut world = World::new(seed, nodes, copies, min_copies, off);
    world.rest().expect("it comes to rest");
    assert!(world.catalog.pgs().len() > 0);
    world
}

/// Faults for a minute or two, then none, until all is at rest.
fn life(seed: u64, off: RulesOff) -> World {
    let nodes = 5 + (seed % 3) as u32;
    let copies = 2 + (seed % 2) as u32;
    let min_copies = 1 + (seed / 2 % u64::from(copies)) as u32;
    let mut world = laid_out(seed, nodes, copies, min_copies, off);
    world.has_faults = true;
    for _ in 0..1_200 {
        world.tick();
        if world.broken.is_some() {
            return world;
        }
    }
    world.heal();
    let rested = world.rest();
    if world.broken.is_none() {
        assert!(
            rested.is_some(),
            "seed {seed}: comes-to-rest:\n{}",
            tail(&world)
        );
        world
            .is_whole()
            .unwrap_or_else(|pg| panic!("seed {seed}: comes-to-rest: {pg}"));
        world.catalog.check().unwrap();
    }
    world
}

/// The end of what happened.
fn tail(world: &World) -> String {
    let from = world.story.len().saturating_sub(400);
    let steward = format!("{:#?}", world.steward);
    let not_whole = world.is_whole();
    format!(
        "{}\n{steward}\n{not_whole:?}",
        world.story[from..].join("\n")
    )
}

#[test]
fn after_any_faults_every_pg_is_whole_again() {
    let (mut evictions, mut promotions, mut removals, mut travels) = (0, 0, 0, 0);
    for seed in 0..40 {
        let world = life(seed, RulesOff::NONE);
        assert_eq!(world.broken, None, "seed {seed}:\n{}", tail(&world));
        evictions += world.evictions;
        promotions += world.promotions;
        removals += world.removals;
        travels += world.travels;
    }
    // Sometimes: what the test is for has happened.
    assert!(
        evictions > 1_000 && promotions > 1_000,
        "{evictions} {promotions}"
    );
    assert!(removals > 100 && travels > 5, "{removals} {travels}");
}

#[cfg(feature = "sim")]
#[test]
fn every_rule_that_is_switched_off_is_missed() {
    for &rule in Rule::ALL {
        let lives = (0..200).map(|seed| (seed, life(seed, RulesOff::only(rule))));
        let found = lives.into_iter().find(|(_, world)| world.broken.is_some());
        let expected = match rule {
            Rule::R11Version | Rule::R11Words => "nobody-well-is-evicted",
            Rule::R16 | Rule::R19 | Rule::R24 => "in-sync-has-everything",
        };
        let name = rule.name();
        let (seed, world) = found.unwrap_or_else(|| panic!("{name} is not missed"));
        assert_eq!(
            world.broken,
            Some(expected),
            "{name}, seed {seed}:\n{}",
            tail(&world)
        );
    }
}
