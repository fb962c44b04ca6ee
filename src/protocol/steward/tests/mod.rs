//! The steward's tests: any faults come to rest, rules that are switched off are missed, and stories one by one.

mod world;
mod wrong;

use super::*;
use crate::base::{DiskId, NodeId, PgId};
use crate::protocol::catalog::{Command, DiskState, Maintenance};
use crate::protocol::membership::Verdict;
use crate::protocol::placement::Level;
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
    // What a disk has is not told apart here: the cluster's world misses that nobody is taken out empty.
    let rules = Rule::ALL.iter().filter(|rule| **rule != Rule::Empty);
    for &rule in rules {
        let lives = (0..200).map(|seed| (seed, life(seed, RulesOff::only(rule))));
        let found = lives.into_iter().find(|(_, world)| world.broken.is_some());
        let expected = match rule {
            Rule::R11Version | Rule::R11Words => "nobody-well-is-evicted",
            Rule::R16 | Rule::R19 | Rule::R24 | Rule::Empty => "in-sync-has-everything",
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

#[test]
fn what_was_on_a_lost_disk_is_made_anew_at_more_disks_at_once_than_one_alone_may_serve() {
    let mut world = laid_out(8, 6, 3, 2, RulesOff::NONE);
    let lost = DiskId(1);
    world.order(set_state(1, DiskState::OutOfService)).unwrap();
    let mut most = 0;
    for _ in 0..200 {
        world.ticks(Duration::from_millis(100));
        let wants = world
            .catalog
            .wanted()
            .filter_map(|pg| world.catalog.pg(pg)?.want);
        most = most.max(wants.filter(|want| want.from == Some(lost)).count());
    }
    assert!(most > PARAMETERS.moves_a_disk, "{most} at once");
    assert_eq!(world.catalog.pgs_on(lost).count(), 0);
}

fn set_state(disk: u32, state: DiskState) -> Command {
    let disk = DiskId(disk);
    Command::SetDiskState { disk, state }
}

/// The PGs with a replica in sync on a disk.
fn in_sync_on(world: &World, disk: DiskId) -> Vec<PgId> {
    let is_in_sync = |pg: &PgId| {
        let pg = world.catalog.pg(*pg).unwrap();
        pg.configuration.role(disk) == Some(Role::InSync)
    };
    world.catalog.pgs_on(disk).filter(is_in_sync).collect()
}

#[test]
fn a_node_that_dies_is_taken_out_and_is_back_in_sync_soon_after_it_returns() {
    let mut world = laid_out(1, 4, 3, 2, RulesOff::NONE);
    let had = in_sync_on(&world, DiskId(1));
    world.crash(NodeId(1));
    world.ticks(Duration::from_secs(5));
    assert_eq!(in_sync_on(&world, DiskId(1)), []);
    assert_eq!(world.catalog.pgs_on(DiskId(1)).count(), had.len());
    world.start(NodeId(1));
    world.ticks(Duration::from_secs(30));
    assert_eq!(in_sync_on(&world, DiskId(1)), had);
    assert_eq!(world.removals, 0);
}

#[test]
fn what_a_node_held_that_stays_away_is_made_anew_elsewhere_and_not_while_it_is_worked_at() {
    let mut world = laid_out(2, 5, 3, 1, RulesOff::NONE);
    let maintenance = |maintenance| Command::SetMaintenance {
        node: NodeId(1),
        maintenance,
        until: None,
    };
    world.order(maintenance(Maintenance::On)).unwrap();
    world.crash(NodeId(1));
    world.ticks(3 * PARAMETERS.out_after);
    assert_eq!(world.removals, 0);
    world.order(maintenance(Maintenance::Off)).unwrap();
    world.rest().expect("it comes to rest");
    world.is_whole().unwrap();
    assert_eq!(world.catalog.pgs_on(DiskId(1)).count(), 0);
    let state = |disk| world.catalog.disk(DiskId(disk)).unwrap().state;
    assert_eq!(
        (state(1), state(2)),
        (DiskState::Missing, DiskState::Missing)
    );
}

#[test]
fn a_drained_disk_ends_empty_under_one_leader_after_another() {
    let mut world = laid_out(3, 5, 2, 2, RulesOff::NONE);
    world.order(set_state(1, DiskState::Draining)).unwrap();
    for _ in 0..12 {
        world.ticks(Duration::from_secs(2));
        world.change_leader();
    }
    world.rest().expect("it comes to rest");
    world.is_whole().unwrap();
    assert_eq!(world.catalog.pgs_on(DiskId(1)).count(), 0);
    let id = DiskId(1);
    world.order(Command::RemoveDisk { disk: id }).unwrap();
}

fn set_copies(world: &mut World, copies: u32) {
    let pool = Command::SetPool {
        pool: "default".into(),
        copies,
        min_copies: 1,
        level: Level::Node,
    };
    world.order(pool).unwrap();
}

fn drain(world: &mut World, disk: DiskId) {
    world.order(set_state(disk.0, DiskState::Draining)).unwrap();
}

#[test]
fn more_copies_are_made_and_fewer_are_left_as_the_pool_asks() {
    let mut world = laid_out(4, 4, 1, 1, RulesOff::NONE);
    for copies in [3, 2] {
        set_copies(&mut world, copies);
        world.rest().expect("it comes to rest");
        assert_eq!(world.broken, None);
        world.is_whole().unwrap();
    }
}

#[test]
fn moves_whose_beginning_is_lost_do_not_hold_up_the_rest_of_their_plan() {
    for seed in 0..20 {
        let mut world = laid_out(seed, 6, 2, 1, RulesOff::NONE);
        // Of one PG a replica is to leave, and the other one to move.
        set_copies(&mut world, 1);
        let pg = in_sync_on(&world, DiskId(1))[0];
        let disks: Vec<DiskId> = world.catalog.pg(pg).unwrap().disks().collect();
        for &disk in &disks {
            drain(&mut world, disk);
        }
        world.moves_to_lose = 6;
        world.rest().expect("it comes to rest");
        let mut left = disks.iter().flat_map(|disk| world.catalog.pgs_on(*disk));
        assert_eq!(left.next(), None, "seed {seed}");
        world.is_whole().unwrap();
    }
}

#[test]
fn a_disk_is_emptied_while_the_pool_gets_more_copies() {
    for seed in 0..20 {
        let mut world = laid_out(seed, 8, 2, 1, RulesOff::NONE);
        set_copies(&mut world, 3);
        for disk in [1, 4].map(DiskId) {
            drain(&mut world, disk);
        }
        world.rest().expect("it comes to rest");
        for disk in [1, 4].map(DiskId) {
            let mut left = world.catalog.pgs_on(disk);
            assert_eq!(left.next(), None, "seed {seed}, disk {disk}");
        }
        world.is_whole().unwrap();
    }
}

#[test]
fn a_node_that_is_gone_for_a_moment_loses_nothing_where_nobody_waits_for_it() {
    let mut world = laid_out(9, 4, 3, 1, RulesOff::NONE);
    let before: Vec<_> = world.catalog.pgs().map(|pg| pg.version()).collect();
    let node = NodeId(1);
    world.tell(Input::Expired { node });
    world.ticks(PARAMETERS.grace / 2);
    world.tell(Input::Live { node });
    world.ticks(PARAMETERS.grace / 4);
    let after: Vec<_> = world.catalog.pgs().map(|pg| pg.version()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_node_that_is_gone_is_taken_out_at_once_where_somebody_waits_for_it_and_later_anyhow() {
    for is_accused in [true, false] {
        let mut world = laid_out(9, 4, 3, 1, RulesOff::NONE);
        let (node, disk) = (NodeId(1), DiskId(1));
        let pg = in_sync_on(&world, disk)[0];
        world.crash(node);
        world.tell(Input::Expired { node });
        if is_accused {
            let (by, version) = (NodeId(2), world.catalog.pg(pg).unwrap().version());
            world.tell(Input::Accused {
                by,
                pg,
                version,
                disk,
            });
        }
        world.ticks(PARAMETERS.grace * 3 / 4);
        let is_left = in_sync_on(&world, disk).len();
        assert_eq!(is_left == 0, is_accused, "{is_left}");
        world.ticks(PARAMETERS.grace);
        assert_eq!(in_sync_on(&world, disk), []);
    }
}

#[test]
fn one_that_accuses_everybody_takes_nobody_out() {
    let mut world = laid_out(5, 4, 3, 1, RulesOff::NONE);
    for _ in 0..5 {
        world.accuse_everybody(NodeId(1));
        world.ticks(Duration::from_secs(1));
    }
    assert_eq!(world.evictions, 0);
}

#[test]
fn a_replica_that_answers_nobody_is_taken_out_while_its_node_lives() {
    let mut world = laid_out(6, 4, 3, 2, RulesOff::NONE);
    world.make_sick(DiskId(1));
    world.ticks(Duration::from_secs(20));
    assert!(world.evictions > 0);
    world.heal();
    world.rest().expect("it comes to rest");
    world.is_whole().unwrap();
}

#[test]
fn what_was_said_of_nodes_before_they_returned_takes_nobody_out() {
    let mut world = laid_out(1, 4, 2, 2, RulesOff::NONE);
    let pg = in_sync_on(&world, DiskId(1))[0];
    let of = world.catalog.pg(pg).unwrap();
    let version = of.version();
    let replicas: Vec<DiskId> = of.configuration.in_sync().collect();
    let node = |disk: &DiskId| world.catalog.disk(*disk).unwrap().node;
    let held: Vec<NodeId> = replicas.iter().map(node).collect();
    let nodes = world.catalog.nodes().map(|node| node.id);
    let others: Vec<NodeId> = nodes.filter(|node| !held.contains(node)).collect();
    for disk in replicas {
        for &by in &others {
            world.tell(Input::Accused {
                by,
                pg,
                version,
                disk,
            });
        }
        world.ticks(Duration::from_secs(1));
    }
    for &node in &held {
        world.tell(Input::Live { node });
    }
    set_copies(&mut world, 2); // so that one may be taken out
    let node = held[1];
    world.tell(Input::Verdict(Verdict::Cleared { node })); // so that its PGs are looked at
    world.ticks(Duration::from_secs(4));
    assert_eq!(world.catalog.pg(pg).unwrap().version(), version);
}

#[test]
fn what_one_step_proposes_is_bounded() {
    let mut world = laid_out(7, 6, 3, 1, RulesOff::NONE);
    world.crash(NodeId(1));
    world.crash(NodeId(2));
    for _ in 0..200 {
        world.tick();
        assert_eq!(world.steward.check(), Ok(()));
        assert!(world.catalog.wanted().count() <= PARAMETERS.moves_max);
    }
}
