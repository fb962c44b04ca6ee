//! Clusters to test with, drawn from a seed or spelt out, and what is asked of every one of them.

use super::super::*;
use crate::base::{DiskId, NodeId, PgId, Prng};
use std::collections::BTreeMap;

/// A cluster without PGs: of each rack its nodes, of each node the weights of its disks.
pub fn cluster(copies: u8, level: Level, racks: &[&[&[u64]]]) -> Cluster {
    let mut disks = Vec::new();
    let mut node = 0;
    for (rack, nodes) in racks.iter().enumerate() {
        for weights in *nodes {
            for &weight in *weights {
                disks.push(Disk {
                    id: DiskId(disks.len() as u32),
                    node: NodeId(node),
                    rack: RackId(rack as u32),
                    weight,
                    state: DiskState::Serving,
                });
            }
            node += 1;
        }
    }
    let pool = Pool { copies, level };
    let pgs = Vec::new();
    Cluster { pool, disks, pgs }
}

/// Appends PGs without replicas.
pub fn append_pgs(cluster: &mut Cluster, count: u32) {
    let first = cluster.pgs.iter().map(|pg| pg.pg.0 + 1).max().unwrap_or(0);
    let new = (first..first + count).map(|id| PgReplicas {
        pg: PgId(id),
        disks: Vec::new(),
    });
    cluster.pgs.extend(new);
}

/// As many PGs as such a pool should have.
pub fn append_wanted_pgs(cluster: &mut Cluster) {
    let present = cluster.pgs.len() as u32;
    let wanted = pgs_wanted(&cluster.disks, cluster.pool, present);
    append_pgs(cluster, wanted - present);
}

/// A random cluster without PGs: up to 6 racks of 5 nodes of 5 disks, weights alike, different or wild.
pub fn random(prng: &mut Prng) -> Cluster {
    let level = [Level::Disk, Level::Node, Level::Rack][prng.below(3) as usize];
    let weights = [(4, 4), (2, 6), (1, 1000)][prng.below(3) as usize];
    let (mut disks, mut node) = (Vec::new(), 0);
    for rack in 0..prng.between(1, 6) as u32 {
        for _ in 0..prng.between(1, 5) {
            for _ in 0..prng.between(1, 5) {
                disks.push(Disk {
                    id: DiskId(disks.len() as u32),
                    node: NodeId(node),
                    rack: RackId(rack),
                    weight: prng.between(weights.0, weights.1),
                    state: DiskState::Serving,
                });
            }
            node += 1;
        }
    }
    let copies = prng.between(1, 3) as u8;
    let pool = Pool { copies, level };
    let pgs = Vec::new();
    Cluster { pool, disks, pgs }
}

/// Something that happens to a cluster. A name, for messages.
pub fn random_event(cluster: &mut Cluster, prng: &mut Prng) -> &'static str {
    let at = prng.below(cluster.disks.len() as u64) as usize;
    let picked = cluster.disks[at];
    let next = cluster.disks.iter().map(|disk| disk.id.0 + 1).max();
    let of_node = |disk: &&mut Disk| disk.node == picked.node;
    match prng.below(8) {
        0 => {
            cluster.disks[at].state = DiskState::Gone;
            "a disk is gone"
        }
        1 => {
            let node = cluster.disks.iter_mut().filter(of_node);
            node.for_each(|disk| disk.state = DiskState::Gone);
            "a node is gone"
        }
        2 => {
            cluster.disks[at].weight = 0;
            "a disk is drained by its weight"
        }
        3 => {
            let node = cluster.disks.iter_mut().filter(of_node);
            node.for_each(|disk| disk.state = DiskState::Draining);
            "a node is drained"
        }
        4 => {
            cluster.disks[at].weight = 1 + picked.weight * prng.between(1, 30) / 10;
            "a weight changes"
        }
        5 => {
            let id = DiskId(next.unwrap_or(0));
            let state = DiskState::Serving;
            cluster.disks.push(Disk {
                id,
                state,
                ..picked
            });
            "a disk is added"
        }
        6 => {
            let node = NodeId(1000 + next.unwrap_or(0));
            for id in 0..prng.between(1, 4) as u32 {
                let id = DiskId(next.unwrap_or(0) + id);
                let (state, weight) = (DiskState::Serving, picked.weight.max(1));
                cluster.disks.push(Disk {
                    id,
                    node,
                    state,
                    weight,
                    ..picked
                });
            }
            append_wanted_pgs(cluster);
            "a node is added, and PGs"
        }
        _ => {
            cluster.pool.copies = prng.between(1, 3) as u8;
            cluster.pool.level = [Level::Disk, Level::Node, Level::Rack][prng.below(3) as usize];
            "the pool asks for something else"
        }
    }
}

/// Solves, carries out, and asks for everything that holds of every plan.
pub fn settle(cluster: &mut Cluster, what: &str) -> Plan {
    let plan = solve(cluster).unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    check_steps(cluster, &plan, what);
    apply(cluster, &plan.changes);
    let found = measure(cluster).unwrap();
    assert_eq!(found.broken, 0, "{what}: the domain rule");
    assert!(found.balance.replicas < 1.0, "{what}: {found:?}");
    check_loads(cluster, what);
    let again = solve(cluster).unwrap();
    assert_eq!(again.changes, [], "{what}: what is balanced stays");
    plan
}

/// Loads against shares that are computed here, by pouring rather than by sorting.
fn check_loads(cluster: &Cluster, what: &str) {
    let mut loads = BTreeMap::<DiskId, u32>::new();
    for disk in cluster.pgs.iter().flat_map(|pg| &pg.disks) {
        *loads.entry(*disk).or_default() += 1;
    }
    for (disk, share) in cluster.disks.iter().zip(poured_shares(cluster)) {
        let load = loads.get(&disk.id).copied().unwrap_or(0);
        let off = (f64::from(load) - share).abs();
        assert!(off < 1.0 + 1e-6, "{what}: {disk:?} has {load} of {share}");
        assert!(load == 0 || disk.takes(), "{what}: {disk:?} has {load}");
    }
}

/// Fair shares under the cap, by bisection of the level to which water rises in all domains.
pub fn poured_shares(cluster: &Cluster) -> Vec<f64> {
    let key = |disk: &Disk| domain(cluster, disk);
    let weight = |disk: &Disk| {
        if disk.takes() {
            disk.weight as f64
        } else {
            0.0
        }
    };
    let mut domains = BTreeMap::<u32, f64>::new();
    for disk in &cluster.disks {
        *domains.entry(key(disk)).or_default() += weight(disk);
    }
    let cap = cluster.pgs.len() as f64;
    let wanted = cap * f64::from(cluster.pool.copies);
    let (mut low, mut high) = (0.0, wanted + cap);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        let held = domains.values().map(|weight| cap.min(middle * weight));
        if held.sum::<f64>() < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    let share = |disk: &Disk| match domains[&key(disk)] {
        0.0 => 0.0,
        all => cap.min(high * all) * weight(disk) / all,
    };
    cluster.disks.iter().map(share).collect()
}

/// Every step alone: one replica of one PG, no disk twice, the domain rule not broken further, and no good
/// replica given up before its successor is there.
fn check_steps(cluster: &Cluster, plan: &Plan, what: &str) {
    let mut now = cluster.clone();
    let domains = cluster
        .disks
        .iter()
        .map(|disk| (disk.id, domain(cluster, disk)));
    let domains = domains.collect::<BTreeMap<DiskId, u32>>();
    let places = cluster.pgs.iter().enumerate().map(|(at, pg)| (pg.pg, at));
    let places = places.collect::<BTreeMap<PgId, usize>>();
    for change in &plan.changes {
        let at = places[&change.pg];
        let before = clashes(&now.pgs[at].disks, &domains);
        let count = now.pgs[at].disks.len();
        apply_one(&mut now, at, change);
        let after = clashes(&now.pgs[at].disks, &domains);
        assert!(after <= before, "{what}: {change:?}");
        let copies = usize::from(cluster.pool.copies);
        let left = now.pgs[at].disks.len();
        assert!(left >= count.min(copies), "{what}: {change:?}");
    }
    let mut whole = cluster.clone();
    apply(&mut whole, &plan.changes);
    assert_eq!(now, whole);
    let is_sorted = plan.changes.is_sorted_by_key(|change| change.need);
    assert!(is_sorted, "{what}: need before less need");
}

/// The failure domain of a disk at the level of the pool.
pub fn domain(cluster: &Cluster, disk: &Disk) -> u32 {
    match cluster.pool.level {
        Level::Disk => disk.id.0,
        Level::Node => disk.node.0,
        Level::Rack => disk.rack.0,
    }
}

fn apply_one(cluster: &mut Cluster, at: usize, change: &Change) {
    let disks = &mut cluster.pgs[at].disks;
    if let Some(from) = change.from {
        assert!(disks.contains(&from), "{change:?} moves what is there");
    }
    disks.retain(|&disk| Some(disk) != change.from);
    if let Some(to) = change.to {
        assert!(!disks.contains(&to), "{change:?} puts two on one disk");
        disks.push(to);
    }
}

/// Pairs of replicas in one domain.
fn clashes(disks: &[DiskId], domains: &BTreeMap<DiskId, u32>) -> usize {
    let pairs = (0..disks.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let clash = |&(a, b): &(usize, usize)| domains[&disks[a]] == domains[&disks[b]];
    pairs.filter(clash).count()
}

pub fn load(cluster: &Cluster, disk: DiskId) -> u32 {
    let on_it = cluster.pgs.iter().filter(|pg| pg.disks.contains(&disk));
    on_it.count() as u32
}
