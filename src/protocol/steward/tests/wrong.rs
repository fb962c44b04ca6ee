//! Replicas that do not have what they should have.

use super::world::World;
use super::{in_sync_on, laid_out};
use crate::base::{DiskId, NodeId, PgId};
use crate::protocol::catalog::{Command, DiskState};
use crate::protocol::membership::{Verdict, Why as Guilt};
use crate::protocol::replication::Role;
use crate::protocol::scrub::compare::Wrong;
use crate::protocol::steward::{Input, Note, RulesOff, Why};
use std::time::Duration;

const LOST: Wrong = Wrong::LostWrite;

/// A PG of disk 1, and the nodes of its replicas that are in sync, that of disk 1 first.
fn pg_of(world: &World) -> (PgId, Vec<NodeId>) {
    let pg = in_sync_on(world, DiskId(1))[0];
    let node = |disk: DiskId| world.catalog.disk(disk).unwrap().node;
    let of = world.catalog.pg(pg).unwrap();
    let mut nodes: Vec<NodeId> = of.configuration.in_sync().map(node).collect();
    nodes.sort_by_key(|of| *of != node(DiskId(1)));
    (pg, nodes)
}

fn say(world: &mut World, by: NodeId, pg: PgId, why: Wrong) {
    let version = world.catalog.pg(pg).unwrap().version();
    say_of(world, version, by, pg, why);
}

fn say_of(world: &mut World, version: u32, by: NodeId, pg: PgId, why: Wrong) {
    let disk = DiskId(1);
    world.tell(Input::Wrong {
        by,
        pg,
        version,
        disk,
        why,
    });
}

fn role(world: &World, pg: PgId) -> Option<Role> {
    world.catalog.pg(pg).unwrap().configuration.role(DiskId(1))
}

#[test]
fn who_lacks_a_write_is_taken_out_empty_and_is_back_in_sync_soon() {
    for why in [Wrong::LostWrite, Wrong::Outvoted, Wrong::Torn] {
        let mut world = laid_out(1, 4, 3, 2, RulesOff::NONE);
        let (pg, nodes) = pg_of(&world);
        let by = if why == Wrong::Torn {
            nodes[0]
        } else {
            nodes[1]
        };
        say(&mut world, by, pg, why);
        world.ticks(Duration::from_millis(300));
        assert_eq!(role(&world, pg), Some(Role::Out { since: 0 }), "{why:?}");
        let noted =
            |note: &Note| matches!(note, Note::Evicted { why: Why::Wrong(of), .. } if *of == why);
        assert!(world.notes.iter().any(noted));
        world.ticks(Duration::from_secs(30));
        assert_eq!(role(&world, pg), Some(Role::InSync));
        assert_eq!((world.emptied, &world.broken), (1, &None));
    }
}

#[test]
fn what_was_said_of_another_version_or_by_one_who_cannot_know_is_not_heard() {
    let mut world = laid_out(1, 4, 3, 2, RulesOff::NONE);
    let (pg, nodes) = pg_of(&world);
    let version = world.catalog.pg(pg).unwrap().version() - 1;
    say_of(&mut world, version, nodes[1], pg, LOST);
    let all = world.catalog.nodes().map(|node| node.id);
    let stranger = all
        .collect::<Vec<_>>()
        .into_iter()
        .find(|node| !nodes.contains(node));
    say(&mut world, stranger.unwrap(), pg, LOST);
    // Nobody but its own node knows that its table is damaged.
    say(&mut world, nodes[1], pg, Wrong::Torn);
    world.ticks(Duration::from_secs(2));
    assert_eq!((role(&world, pg), world.emptied), (Some(Role::InSync), 0));
}

#[test]
fn what_lacks_a_write_is_no_copy_so_min_copies_does_not_keep_it() {
    let mut world = laid_out(1, 4, 2, 2, RulesOff::NONE);
    let (pg, nodes) = pg_of(&world);
    say(&mut world, nodes[1], pg, LOST);
    world.ticks(Duration::from_millis(300));
    assert_eq!(role(&world, pg), Some(Role::Out { since: 0 }));
    world.ticks(Duration::from_secs(30));
    assert_eq!(role(&world, pg), Some(Role::InSync));
}

#[test]
fn one_that_is_suspect_is_believed_against_itself_and_not_against_others() {
    let mut world = laid_out(1, 4, 2, 2, RulesOff::NONE);
    let (pg, nodes) = pg_of(&world);
    for node in &nodes {
        let why = Guilt::Accused { by: 2 };
        let verdict = Verdict::Suspect { node: *node, why };
        world.tell(Input::Verdict(verdict));
    }
    say(&mut world, nodes[1], pg, LOST);
    world.ticks(Duration::from_millis(300));
    assert_eq!(role(&world, pg), Some(Role::InSync));
    let node = nodes[1];
    world.tell(Input::Verdict(Verdict::Cleared { node }));
    say(&mut world, nodes[0], pg, Wrong::Torn);
    world.ticks(Duration::from_millis(300));
    assert_eq!(role(&world, pg), Some(Role::Out { since: 0 }));
}

#[test]
fn of_one_that_stays_people_are_told_once() {
    let mut world = laid_out(1, 4, 2, 2, RulesOff::NONE);
    let (pg, nodes) = pg_of(&world);
    world.crash(nodes[1]);
    world.ticks(Duration::from_secs(2));
    for _ in 0..3 {
        say(&mut world, nodes[0], pg, Wrong::Torn);
        world.ticks(Duration::from_secs(1));
    }
    assert_eq!((role(&world, pg), world.emptied), (Some(Role::InSync), 0));
    let told = |note: &&Note| matches!(note, Note::WrongStays { .. });
    assert_eq!(world.notes.iter().filter(told).count(), 1);
}

#[test]
fn a_replica_whose_last_sound_one_is_not_there_stays() {
    let mut world = laid_out(1, 4, 2, 1, RulesOff::NONE);
    let (pg, nodes) = pg_of(&world);
    world.crash(nodes[1]);
    world.ticks(Duration::from_secs(2));
    say(&mut world, nodes[0], pg, Wrong::Torn);
    world.ticks(Duration::from_secs(2));
    assert_eq!((role(&world, pg), world.emptied), (Some(Role::InSync), 0));
}

#[test]
fn while_who_has_a_write_is_away_who_lacks_it_serves_alone_only_if_a_person_says_so() {
    let mut world = laid_out(1, 4, 2, 1, RulesOff::NONE);
    let (pg, nodes) = pg_of(&world);
    // A new leader has heard of nobody yet.
    world.crash(nodes[1]);
    world.change_leader();
    world.ticks(Duration::from_millis(310));
    say(&mut world, nodes[1], pg, LOST);
    world.ticks(Duration::from_secs(5));
    let sound = world.catalog.pg(pg).unwrap().disks();
    let sound = sound.filter(|disk| *disk != DiskId(1)).collect::<Vec<_>>()[0];
    let of = |world: &World, disk| world.catalog.pg(pg).unwrap().configuration.role(disk);
    assert_eq!((role(&world, pg), world.emptied), (Some(Role::InSync), 0));
    assert_eq!(of(&world, sound), Some(Role::InSync));
    let state = DiskState::OutOfService;
    let command = Command::SetDiskState { disk: sound, state };
    world.order(command).unwrap();
    world.ticks(Duration::from_secs(1));
    assert_ne!(of(&world, sound), Some(Role::InSync));
    assert_eq!(role(&world, pg), Some(Role::InSync));
}
