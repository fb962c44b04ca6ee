//! What moves when disks come, go and change, measured by the definitions of the door, which know nothing of
//! rounding.

use super::super::*;
use super::clusters::{append_wanted_pgs, load, poured_shares, settle};
use crate::base::{DiskId, NodeId, Prng};

/// 1,000 disks of different weights: 100 nodes of 10 in racks of 10, three copies.
fn thousand(level: Level) -> Cluster {
    let mut prng = Prng::new(5);
    let disk = |id: u32| Disk {
        id: DiskId(id),
        node: NodeId(id / 10),
        rack: RackId(id / 100),
        weight: prng.between(200, 400),
        state: DiskState::Serving,
    };
    let mut cluster = Cluster {
        pool: Pool { copies: 3, level },
        disks: (0..1000).map(disk).collect(),
        pgs: Vec::new(),
    };
    append_wanted_pgs(&mut cluster);
    settle(&mut cluster, "full solve");
    cluster
}

fn assert_balanced(cluster: &Cluster) {
    let found = measure(cluster).unwrap();
    println!("{found:?}");
    assert!(found.balance.percent <= 5.0, "{found:?}");
    assert!(found.balance.percent_of_node <= 5.0, "{found:?}");
    let partners = found.partners;
    assert!(partners.above <= 4.0 + 0.5 * partners.expected, "{found:?}");
    assert_eq!(found.local.short, []);
}

fn assert_at_most_a_tenth_more(moved: u32, unavoidable: f64) {
    println!("{moved} moved of {unavoidable:.1}");
    assert!(
        f64::from(moved) <= 1.1 * unavoidable,
        "{moved} {unavoidable}"
    );
}

#[test]
fn partners_stay_spread_in_clusters_of_every_size() {
    for (nodes, copies) in [(9, 3), (12, 2), (24, 3), (60, 3), (60, 2), (150, 3)] {
        let mut prng = Prng::new(u64::from(nodes));
        let disk = |id: u32| Disk {
            id: DiskId(id),
            node: NodeId(id / 4),
            rack: RackId(0),
            weight: prng.between(200, 400),
            state: DiskState::Serving,
        };
        let level = Level::Node;
        let mut cluster = Cluster {
            pool: Pool { copies, level },
            disks: (0..4 * nodes).map(disk).collect(),
            pgs: Vec::new(),
        };
        append_wanted_pgs(&mut cluster);
        for lost in 0..4 {
            settle(&mut cluster, "partners");
            assert_balanced(&cluster);
            let disks = cluster.disks.iter_mut();
            for disk in disks.filter(|disk| disk.node.0 % 5 == lost / 2 && disk.id.0 % 4 < 2) {
                disk.state = match lost % 2 {
                    0 => DiskState::Draining,
                    _ => DiskState::Serving,
                };
            }
        }
    }
}

#[test]
fn of_a_lost_node_only_what_lay_on_it_is_made_again() {
    for level in [Level::Disk, Level::Node, Level::Rack] {
        let mut cluster = thousand(level);
        assert_balanced(&cluster);
        let node = cluster.disks.iter_mut().filter(|disk| disk.node.0 == 17);
        node.for_each(|disk| disk.state = DiskState::Gone);
        let gone = cluster.disks.iter().filter(|disk| disk.node.0 == 17);
        let on_it = gone.map(|disk| load(&cluster, disk.id)).sum::<u32>();
        let plan = settle(&mut cluster, "a node is gone");
        assert_at_most_a_tenth_more(plan.moved, f64::from(on_it));
        assert_balanced(&cluster);
        let first = plan.changes.iter().take(on_it as usize);
        assert!(first.into_iter().all(|change| change.need == Need::Repair));
    }
}

#[test]
fn a_rack_that_is_drained_ends_empty_and_nothing_else_moves() {
    let mut cluster = thousand(Level::Rack);
    let rack = cluster.disks.iter_mut().filter(|disk| disk.rack.0 == 4);
    rack.for_each(|disk| disk.state = DiskState::Draining);
    let on_it = rack_load(&cluster, 4);
    let plan = settle(&mut cluster, "a rack is drained");
    assert_eq!(rack_load(&cluster, 4), 0);
    assert_at_most_a_tenth_more(plan.moved, f64::from(on_it));
    assert_balanced(&cluster);
}

fn rack_load(cluster: &Cluster, rack: u32) -> u32 {
    let disks = cluster.disks.iter().filter(|disk| disk.rack.0 == rack);
    disks.map(|disk| load(cluster, disk.id)).sum()
}

#[test]
fn an_added_node_gets_its_fair_share_and_nothing_else_moves() {
    for level in [Level::Disk, Level::Node, Level::Rack] {
        let mut cluster = thousand(level);
        for id in 0..10 {
            cluster.disks.push(Disk {
                id: DiskId(1000 + id),
                node: NodeId(100),
                rack: RackId(3),
                weight: 333,
                state: DiskState::Serving,
            });
        }
        let share = poured_shares(&cluster)[1000..].iter().sum::<f64>();
        let plan = settle(&mut cluster, "a node is added");
        assert_at_most_a_tenth_more(plan.moved, share);
        let arrived = plan.changes.iter().filter_map(|change| change.to);
        let on_it = arrived.filter(|disk| disk.0 >= 1000).count();
        assert!(on_it as f64 >= 0.95 * share, "{on_it} of {share}");
        assert_balanced(&cluster);
    }
}

#[test]
fn weights_that_change_move_what_shares_grow() {
    let mut cluster = thousand(Level::Node);
    let before = poured_shares(&cluster);
    for disk in cluster.disks.iter_mut().filter(|disk| disk.id.0 % 7 == 0) {
        disk.weight = disk.weight * 5 / 4;
    }
    let after = poured_shares(&cluster);
    let growth = before
        .iter()
        .zip(&after)
        .map(|(old, new)| (new - old).max(0.0));
    let plan = settle(&mut cluster, "weights change");
    assert_at_most_a_tenth_more(plan.moved, growth.sum());
    assert_balanced(&cluster);
}

#[test]
fn a_long_life_keeps_the_map_balanced_and_partners_spread() {
    let mut cluster = thousand(Level::Node);
    for round in 0..20 {
        let node = cluster.disks.iter_mut().filter(|disk| disk.node.0 == round);
        node.for_each(|disk| disk.state = DiskState::Gone);
        for id in 0..10 {
            cluster.disks.push(Disk {
                id: DiskId(1000 + 10 * round + id),
                node: NodeId(100 + round),
                rack: RackId(round / 10),
                weight: 300,
                state: DiskState::Serving,
            });
        }
        let lay_there = cluster.disks.iter().filter(|disk| disk.node.0 == round);
        let lost = lay_there.map(|disk| load(&cluster, disk.id)).sum::<u32>();
        let plan = settle(&mut cluster, "a node is replaced");
        assert_at_most_a_tenth_more(plan.moved, f64::from(lost.max(plan.unavoidable)));
        assert_balanced(&cluster);
    }
}

#[test]
fn appended_pgs_leave_the_old_ones_spread_over_the_new_disks() {
    let mut cluster = thousand(Level::Node);
    let old = cluster.pgs.len();
    let double = cluster.disks.clone().into_iter().map(|disk| Disk {
        id: DiskId(1000 + disk.id.0),
        node: NodeId(100 + disk.node.0),
        rack: RackId(10 + disk.rack.0),
        ..disk
    });
    cluster.disks.extend(double);
    append_wanted_pgs(&mut cluster);
    assert!(cluster.pgs.len() > old * 19 / 10);
    settle(&mut cluster, "twice as large");
    let mut only_old = cluster.clone();
    only_old.pgs.truncate(old);
    let found = measure(&only_old).unwrap();
    assert!(found.balance.replicas < 1.0, "{found:?}");
}
