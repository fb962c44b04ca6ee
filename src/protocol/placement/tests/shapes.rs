//! Small and lopsided clusters, where the domain rule leaves little choice.

use super::super::*;
use super::clusters::{append_pgs, cluster, load, settle};
use crate::base::{DiskId, NodeId, PgId};

fn loads(cluster: &Cluster) -> Vec<u32> {
    let disks = cluster.disks.iter();
    disks.map(|disk| load(cluster, disk.id)).collect()
}

#[test]
fn one_node_with_one_copy_shares_by_weight() {
    let mut one = cluster(1, Level::Node, &[&[&[1, 2, 5]]]);
    append_pgs(&mut one, 64);
    settle(&mut one, "one node");
    assert_eq!(loads(&one), [8, 16, 40]);
}

#[test]
fn one_node_refuses_two_copies_on_nodes_and_says_that_disks_would_do() {
    let mut one = cluster(2, Level::Node, &[&[&[1, 1, 1]]]);
    append_pgs(&mut one, 4);
    let refusal = solve(&one).unwrap_err();
    let said = "2 copies need as many failure domains: at level node there are 1 that take replicas; \
                level disk would do";
    assert_eq!(refusal.to_string(), said);
    one.pool.level = Level::Disk;
    settle(&mut one, "at level disk");
}

#[test]
fn fewer_disks_than_copies_are_refused_at_every_level() {
    let mut two = cluster(3, Level::Rack, &[&[&[1]], &[&[1], &[0]]]);
    append_pgs(&mut two, 4);
    let refusal = solve(&two).unwrap_err();
    let expected = Refusal::TooFewDomains {
        level: Level::Rack,
        domains: 2,
        copies: 3,
        would_do: None,
    };
    assert_eq!(refusal, expected);
}

#[test]
fn two_nodes_with_two_copies_hold_one_of_each_pg_whatever_they_weigh() {
    let mut two = cluster(2, Level::Node, &[&[&[1, 1], &[9, 27]]]);
    append_pgs(&mut two, 40);
    settle(&mut two, "two nodes");
    assert_eq!(loads(&two), [20, 20, 10, 30]);
}

#[test]
fn a_giant_disk_holds_one_replica_of_each_pg_and_the_others_share_the_rest() {
    let mut giant = cluster(3, Level::Disk, &[&[&[1000], &[1, 1, 2]]]);
    append_pgs(&mut giant, 100);
    settle(&mut giant, "a giant disk");
    // Of the two copies that are left, disk 3 would have 100 by weight: just all of them.
    assert_eq!(loads(&giant), [100, 50, 50, 100]);
    giant.disks[0].state = DiskState::Gone;
    let plan = settle(&mut giant, "and is lost");
    assert_eq!(loads(&giant), [0, 100, 100, 100]);
    assert_eq!((plan.moved, plan.unavoidable), (100, 100));
}

#[test]
fn unequal_racks_are_capped_one_after_another() {
    let racks: &[&[&[u64]]] = &[&[&[50], &[50]], &[&[20]], &[&[5], &[5]], &[&[10]]];
    let mut unequal = cluster(3, Level::Rack, racks);
    append_pgs(&mut unequal, 60);
    settle(&mut unequal, "unequal racks");
    // The first rack weighs 100 of 140 and is capped; of the others' 40 the second has half of two copies:
    // capped just so.
    assert_eq!(loads(&unequal), [30, 30, 60, 15, 15, 30]);
}

#[test]
fn a_fourth_node_takes_its_share_without_two_replicas_of_one_pg() {
    let mut four = cluster(3, Level::Node, &[&[&[1], &[1], &[1]]]);
    append_pgs(&mut four, 100);
    settle(&mut four, "three nodes");
    let node = four.disks[0];
    four.disks.push(Disk {
        id: DiskId(3),
        node: NodeId(3),
        ..node
    });
    let plan = settle(&mut four, "a fourth");
    assert_eq!(loads(&four), [75; 4]);
    assert_eq!(plan.moved, 75);
}

#[test]
fn a_chain_is_found_where_no_single_move_is_left() {
    // Disk 0 has one PG too many, and all its PGs are on disk 2 already, which alone has room.
    let mut three = cluster(2, Level::Node, &[&[&[1], &[1], &[1]]]);
    let lists: [&[u32]; 6] = [&[0, 1], &[0, 1], &[0, 2], &[0, 2], &[0, 1], &[1]];
    for (at, disks) in lists.iter().enumerate() {
        three.pgs.push(PgReplicas {
            pg: PgId(at as u32),
            disks: disks.iter().map(|&disk| DiskId(disk)).collect(),
        });
    }
    settle(&mut three, "a chain");
    assert_eq!(loads(&three), [4, 4, 4]);
}

#[test]
fn a_pool_without_pgs_has_nothing_to_do() {
    let mut empty = cluster(2, Level::Node, &[&[&[1], &[1]]]);
    let plan = settle(&mut empty, "no PGs");
    assert_eq!(plan.changes, []);
}

#[test]
fn more_copies_are_added_and_fewer_dropped_without_moving_others() {
    let mut pool = cluster(2, Level::Node, &[&[&[1, 1], &[1, 1], &[1, 1], &[1, 1]]]);
    append_pgs(&mut pool, 96);
    settle(&mut pool, "two copies");
    pool.pool.copies = 3;
    let plan = settle(&mut pool, "three copies");
    assert_eq!((plan.moved, plan.changes.len()), (96, 96));
    pool.pool.copies = 2;
    let plan = settle(&mut pool, "two again");
    assert!(plan.moved <= 2, "{}", plan.moved);
}

#[test]
fn a_cluster_that_contradicts_itself_is_refused() {
    let good = cluster(1, Level::Node, &[&[&[1, 1], &[1]]]);
    let refused = |change: &dyn Fn(&mut Cluster)| {
        let mut bad = good.clone();
        append_pgs(&mut bad, 2);
        change(&mut bad);
        solve(&bad).unwrap_err()
    };
    let (disk, pg) = (DiskId(0), PgId(0));
    let unknown = DiskId(9);
    let copies = 4;
    assert_eq!(
        refused(&|bad| bad.disks[1].id = disk),
        Refusal::DiskTwice { disk }
    );
    assert_eq!(refused(&|bad| bad.pgs[1].pg = pg), Refusal::PgTwice { pg });
    assert_eq!(
        refused(&|bad| bad.disks[0].rack = RackId(1)),
        Refusal::NodeInTwoRacks { node: NodeId(0) }
    );
    assert_eq!(
        refused(&|bad| bad.pgs[0].disks.push(unknown)),
        Refusal::UnknownDisk { pg, disk: unknown }
    );
    assert_eq!(
        refused(&|bad| bad.pgs[0].disks = vec![disk, disk]),
        Refusal::Replicas { pg }
    );
    assert_eq!(
        refused(&|bad| bad.disks[0].weight = WEIGHT_MAX + 1),
        Refusal::Weight { disk }
    );
    assert_eq!(
        refused(&|bad| bad.pool.copies = copies),
        Refusal::Copies { copies }
    );
    let most = PGS_MAX as usize;
    assert_eq!(
        refused(&|bad| append_pgs(bad, PGS_MAX)),
        Refusal::TooMany { what: "PGs", most }
    );
}
