//! Pools that are not whole, and in which words.

use super::look::{Domains, Look, look};
use super::{changes, tried, words};
use crate::api::model::{ErrorCode, Lack, Level as ModelLevel, PgStates, PoolSet};
use crate::base::{DiskId, NodeId, PgId, StoreId};
use crate::protocol::catalog::{
    Batch, Catalog, Command, DiskState, Locality, Maintenance, Purpose, StoreName,
};
use crate::protocol::membership::Incarnation;
use crate::protocol::placement::Level;
use crate::protocol::replication::Reconfigure;

fn apply(catalog: &mut Catalog, command: Command) {
    catalog.apply(&command).unwrap();
}

/// As many nodes, with a disk of 1 GiB each of the same number, and a pool of so many copies; no PGs.
fn nodes(count: u8, copies: u32) -> Catalog {
    let mut catalog = Catalog::default();
    for n in 1..=count {
        let name = format!("n{n}");
        apply(&mut catalog, Command::AddNode { name });
    }
    let set = Command::SetPool {
        pool: "default".into(),
        copies,
        min_copies: 1,
        level: Level::Node,
    };
    apply(&mut catalog, set);
    for n in 1..=count {
        let add = Command::AddDisk {
            node: NodeId(n.into()),
            path: format!("/d{n}"),
            store: StoreName(StoreId([n; 16])),
            size: 1 << 30,
            pool: None,
            incarnation: Incarnation(0),
        };
        apply(&mut catalog, add);
    }
    catalog
}

/// The same with four PGs of two copies, all of them on the first two disks.
fn catalog(count: u8) -> Catalog {
    let mut catalog = nodes(count, 2);
    let create = Command::CreatePgs {
        pool: catalog.pools().next().unwrap().id,
        first: PgId(1),
        replicas: vec![vec![DiskId(1), DiskId(2)]; 4],
        batch: Batch::Last,
    };
    apply(&mut catalog, create);
    catalog
}

fn seen(catalog: &Catalog, away: &[u32]) -> Look {
    let pool = catalog.pools().next().unwrap();
    let away = away.iter().map(|&node| NodeId(node)).collect();
    look(catalog, pool, &away)
}

fn reason(catalog: &Catalog, away: &[u32]) -> String {
    let (pool, seen) = (catalog.pools().next().unwrap(), seen(catalog, away));
    let bytes = seen.lacking_bytes_max(catalog, pool);
    words::reason(catalog, pool, &seen, bytes)
}

fn says(catalog: &Catalog, away: &[u32], all: &[&str]) {
    let reason = reason(catalog, away);
    for words in all {
        assert!(reason.contains(words), "{words:?} in {reason:?}");
    }
}

fn change(catalog: &mut Catalog, pg: u32, change: Reconfigure) {
    let pg = PgId(pg);
    let version = catalog.pg(pg).unwrap().version();
    let command = Command::Reconfigure {
        pg,
        version,
        change,
    };
    apply(catalog, command);
}

fn state(catalog: &mut Catalog, disk: u32, state: DiskState) {
    let disk = DiskId(disk);
    apply(catalog, Command::SetDiskState { disk, state });
}

fn want(catalog: &mut Catalog, pg: u32, from: u32, to: u32) {
    let pg = PgId(pg);
    let version = catalog.pg(pg).unwrap().version();
    let (from, to) = (Some(DiskId(from)), Some(DiskId(to)));
    let command = Command::WantMove {
        pg,
        version,
        from,
        to,
    };
    apply(catalog, command);
}

fn volume(catalog: &mut Catalog, name: &str, size: u64, locality: Locality) {
    let create = Command::CreateVolume {
        name: name.into(),
        size,
        block_size: 4096,
        purpose: Purpose::Use,
        pool: None,
        locality,
    };
    apply(catalog, create);
}

const WHOLE: PgStates = PgStates {
    all: 4,
    whole: 4,
    degraded: 0,
    waiting: 0,
    unreachable: 0,
    lost: 0,
    filling: 0,
    moving: 0,
};

#[test]
fn a_pool_is_whole_while_all_copies_are_there_and_reached() {
    let catalog = catalog(2);
    assert_eq!(seen(&catalog, &[]).pgs, WHOLE);
    assert_eq!(reason(&catalog, &[]), "");
    let one = seen(&catalog, &[2]);
    let degraded = PgStates {
        whole: 0,
        degraded: 4,
        ..WHOLE
    };
    assert_eq!(one.pgs, degraded);
    assert_eq!(one.lacking[&DiskId(2)], (Lack::NodeUnreachable, 4));
    let none = PgStates {
        whole: 0,
        unreachable: 4,
        ..WHOLE
    };
    assert_eq!(seen(&catalog, &[1, 2]).pgs, none);
    says(&catalog, &[1, 2], &["I/O there waits"]);
}

#[test]
fn a_node_alone_with_one_copy_is_whole_whatever_becomes_of_its_disk() {
    let mut catalog = nodes(1, 1);
    assert_eq!(
        (seen(&catalog, &[]).pgs.all, reason(&catalog, &[])),
        (32, String::new())
    );
    assert_eq!(seen(&catalog, &[]).pgs.whole, 32);
    state(&mut catalog, 1, DiskState::Draining);
    assert_eq!(seen(&catalog, &[]).pgs.whole, 32);
}

#[test]
fn what_was_taken_out_is_missing_until_it_is_in_sync_again() {
    let mut catalog = catalog(2);
    let disk = DiskId(2);
    change(&mut catalog, 1, Reconfigure::Evict { disk });
    let out = seen(&catalog, &[]);
    let degraded = PgStates {
        whole: 3,
        degraded: 1,
        ..WHOLE
    };
    assert_eq!(out.pgs, degraded);
    assert_eq!(out.lacking[&disk], (Lack::LeftOut, 1));
    change(&mut catalog, 1, Reconfigure::Join { disk });
    let joins = seen(&catalog, &[]);
    assert_eq!(
        joins.pgs,
        PgStates {
            filling: 1,
            ..degraded
        }
    );
    assert_eq!(
        (joins.lacking[&disk], joins.filled[&disk]),
        ((Lack::Filling, 1), 1)
    );
    says(
        &catalog,
        &[],
        &[
            "1 of 4 placement groups",
            "1 are being filled: 1 at disk 2 of node n2",
        ],
    );
    let session = catalog.pg(PgId(1)).unwrap().version();
    change(&mut catalog, 1, Reconfigure::Promote { disk, session });
    assert_eq!(seen(&catalog, &[]).pgs, WHOLE);
}

#[test]
fn fewer_than_min_copies_wait() {
    let mut catalog = catalog(2);
    let set = PoolSet {
        min_copies: Some(2),
        ..PoolSet::default()
    };
    let commands = changes(catalog.pools().next().unwrap(), &set);
    commands
        .into_iter()
        .for_each(|one| apply(&mut catalog, one));
    let waits = PgStates {
        whole: 0,
        waiting: 4,
        ..WHOLE
    };
    assert_eq!(seen(&catalog, &[2]).pgs, waits);
    says(&catalog, &[2], &["of 4 fewer than min_copies"]);
}

#[test]
fn the_last_copies_are_lost_only_where_no_disk_with_one_is_counted_on() {
    let mut catalog = catalog(2);
    change(&mut catalog, 1, Reconfigure::Evict { disk: DiskId(2) });
    state(&mut catalog, 1, DiskState::Missing);
    let away = seen(&catalog, &[]);
    assert_eq!((away.pgs.unreachable, away.pgs.lost), (1, 0));
    state(&mut catalog, 1, DiskState::OutOfService);
    let gone = seen(&catalog, &[]);
    assert_eq!(
        (gone.pgs.degraded, gone.pgs.unreachable, gone.pgs.lost),
        (3, 1, 1)
    );
    assert_eq!(gone.lacking[&DiskId(1)], (Lack::OutOfService, 4));
    says(
        &catalog,
        &[],
        &["of 1 the last copies", "disk 1 of node n1 (out of service)"],
    );
}

#[test]
fn a_copy_that_moves_is_no_copy_less() {
    let mut catalog = catalog(3);
    want(&mut catalog, 1, 2, 3);
    let moves = PgStates {
        filling: 1,
        moving: 1,
        ..WHOLE
    };
    assert_eq!(seen(&catalog, &[]).pgs, moves);
    assert_eq!(seen(&catalog, &[]).filled[&DiskId(3)], 1);
    assert_eq!(reason(&catalog, &[]), "");
    let disk = DiskId(3);
    change(&mut catalog, 1, Reconfigure::Add { disk });
    change(&mut catalog, 1, Reconfigure::Join { disk });
    assert_eq!(seen(&catalog, &[]).pgs, moves);
    let session = catalog.pg(PgId(1)).unwrap().version();
    change(&mut catalog, 1, Reconfigure::Promote { disk, session });
    // The old copy is still to end, which makes nothing.
    assert_eq!(seen(&catalog, &[]).pgs, WHOLE);
}

#[test]
fn what_is_to_come_depends_on_who_is_left() {
    let two = catalog(2);
    says(
        &two,
        &[2],
        &["filled when it serves again", "such are reached in 1 only"],
    );
    let three = catalog(3);
    says(&three, &[2], &["made anew elsewhere after 10 minutes"]);
    let mut held = catalog(3);
    let node = NodeId(2);
    let maintenance = Maintenance::On;
    let set = Command::SetMaintenance {
        node,
        maintenance,
        until: None,
    };
    apply(&mut held, set);
    says(&held, &[2], &["during maintenance of n2"]);
    let mut few = catalog(2);
    state(&mut few, 2, DiskState::OutOfService);
    assert_eq!(seen(&few, &[]).domains, Domains { all: 1, reached: 1 });
    says(
        &few,
        &[],
        &[
            "2 copies need disks on as many nodes",
            "another to be added elsewhere",
        ],
    );
}

#[test]
fn copies_that_are_asked_for_later_are_missing_until_they_are_made() {
    let mut catalog = nodes(2, 1);
    let all = seen(&catalog, &[]).pgs.all;
    let set = PoolSet {
        copies: Some(2),
        ..PoolSet::default()
    };
    let commands = changes(catalog.pools().next().unwrap(), &set);
    commands
        .into_iter()
        .for_each(|one| apply(&mut catalog, one));
    let wants = seen(&catalog, &[]);
    assert_eq!((wants.pgs.degraded, wants.short), (all, all));
    says(&catalog, &[], &["the others follow, some at a time"]);
}

#[test]
fn a_pool_whose_copies_have_no_places_says_so_and_one_without_disks_nothing() {
    assert_eq!(reason(&nodes(0, 2), &[]), "");
    says(&nodes(1, 2), &[], &["no placement groups yet", "in 1 only"]);
    says(&nodes(2, 2), &[], &["about to be laid out"]);
}

#[test]
fn a_volume_is_as_whole_as_its_own_placement_groups() {
    let mut catalog = catalog(3);
    volume(&mut catalog, "old", 4 << 20, Locality::Spread);
    let pool = catalog.pools().next().unwrap().id;
    let create = Command::CreatePgs {
        pool,
        first: PgId(5),
        replicas: vec![vec![DiskId(1), DiskId(3)]; 4],
        batch: Batch::Last,
    };
    apply(&mut catalog, create);
    volume(&mut catalog, "new", 8 << 20, Locality::Spread);
    let home = NodeId(3);
    volume(&mut catalog, "local", 16 << 20, Locality::Local { home });
    let of = |away: &[u32], name: &str| {
        let look = seen(&catalog, away);
        let states = look.of_volume(&catalog, catalog.volume_named(name).unwrap());
        assert_eq!(states.all - states.lacking(), states.whole);
        (states.all, states.degraded)
    };
    assert_eq!(of(&[3], "old"), (4, 0));
    assert_eq!(of(&[3], "new"), (8, 4));
    assert_eq!(of(&[3], "local"), (4, 4));
    assert_eq!(of(&[2], "old"), (4, 4));
    assert_eq!(of(&[2], "local"), (4, 0));
    assert_eq!(of(&[], "new"), (8, 0));
    let bytes = |away: &[u32]| {
        let pool = catalog.pool(pool).unwrap();
        seen(&catalog, away).lacking_bytes_max(&catalog, pool)
    };
    assert_eq!(bytes(&[]), 0);
    assert_eq!(bytes(&[3]), (4 << 20) + (16 << 20));
    assert_eq!(bytes(&[2]), (4 << 20) + (4 << 20));
    says(
        &catalog,
        &[3],
        &["4 of 8 placement groups", "hold 20 MiB at most"],
    );
}

#[test]
fn what_is_changed_of_a_pool_is_what_was_named() {
    let catalog = nodes(2, 1);
    let pool = catalog.pools().next().unwrap();
    assert!(changes(pool, &PoolSet::default()).is_empty());
    let set = PoolSet {
        copies: Some(2),
        level: Some(ModelLevel::Disk),
        overcommit_percent: Some(99),
        ..PoolSet::default()
    };
    let commands = changes(pool, &set);
    assert!(matches!(
        commands.as_slice(),
        [
            Command::SetPool {
                copies: 2,
                min_copies: 1,
                level: Level::Disk,
                ..
            },
            Command::SetOvercommit { percent: 99, .. }
        ]
    ));
    let refused = tried(&catalog, &commands).unwrap_err();
    let named = (refused.code, refused.field.as_str());
    assert_eq!(named, (ErrorCode::Invalid, "overcommit_percent"));
}
