//! The golden stories in `testscripts/`, of clusters that change:
//!
//! ```text
//!   > pool copies 2 level node
//!   > node 1 rack 1 disks 100 100       numbers disks from 1 on
//!   > pgs 8                             appends PGs
//!   > state 3 gone | weight 3 200       of a disk
//!   > solve                             and carries it out; then `> map` and `> measure` show what is
//! ```

use super::super::*;
use super::clusters::append_pgs;
use crate::base::{DiskId, NodeId};
use crate::protocol::stories;
use std::fmt::Write;

#[test]
fn the_stories_come_out_as_they_are_told() {
    stories::play("placement", empty, |cluster, command| {
        let mut said = String::new();
        step(cluster, command, &mut said);
        said
    });
}

fn empty() -> Cluster {
    let pool = Pool {
        copies: 1,
        level: Level::Node,
    };
    Cluster {
        pool,
        disks: Vec::new(),
        pgs: Vec::new(),
    }
}

fn step(cluster: &mut Cluster, command: &str, out: &mut String) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    match words[0] {
        "pool" => {
            let copies = number(2) as u8;
            let level = level(words[4]);
            cluster.pool = Pool { copies, level };
        }
        "node" => add_node(cluster, number(1), number(3), &words[5..]),
        "pgs" => append_pgs(cluster, number(1) as u32),
        "state" => {
            disk(cluster, number(1)).state = match words[2] {
                "serving" => DiskState::Serving,
                "draining" => DiskState::Draining,
                "gone" => DiskState::Gone,
                other => panic!("no such state: {other}"),
            }
        }
        "weight" => disk(cluster, number(1)).weight = number(2),
        "forget" => cluster
            .disks
            .retain(|disk| u64::from(disk.id.0) != number(1)),
        "solve" => show_plan(cluster, out),
        "map" => show_map(cluster, out),
        "measure" => show_measure(cluster, out),
        "wanted" => {
            let present = cluster.pgs.len() as u32;
            let wanted = pgs_wanted(&cluster.disks, cluster.pool, present);
            writeln!(out, "{present} PGs, {wanted} wanted").unwrap();
        }
        other => panic!("no such step: {other}"),
    }
}

fn level(word: &str) -> Level {
    let levels = [Level::Disk, Level::Node, Level::Rack];
    let found = levels.into_iter().find(|level| level.to_string() == word);
    found.unwrap()
}

fn disk(cluster: &mut Cluster, id: u64) -> &mut Disk {
    let mut disks = cluster.disks.iter_mut();
    disks.find(|disk| u64::from(disk.id.0) == id).unwrap()
}

fn add_node(cluster: &mut Cluster, node: u64, rack: u64, weights: &[&str]) {
    for weight in weights {
        let id = cluster.disks.iter().map(|disk| disk.id.0).max();
        cluster.disks.push(Disk {
            id: DiskId(id.unwrap_or(0) + 1),
            node: NodeId(node as u32),
            rack: RackId(rack as u32),
            weight: weight.parse().unwrap(),
            state: DiskState::Serving,
        });
    }
}

fn show_plan(cluster: &mut Cluster, out: &mut String) {
    let plan = match solve(cluster) {
        Ok(plan) => plan,
        Err(refusal) => return writeln!(out, "refused: {refusal}").unwrap(),
    };
    for change in &plan.changes {
        let need = format!("{:?}", change.need).to_lowercase();
        write!(out, "{need}: PG {}", change.pg).unwrap();
        match (change.from, change.to) {
            (Some(from), Some(to)) => writeln!(out, " disk {from} -> {to}").unwrap(),
            (None, Some(to)) => writeln!(out, " on disk {to}").unwrap(),
            (from, None) => writeln!(out, " off disk {}", from.unwrap()).unwrap(),
        }
    }
    let Plan {
        placed,
        moved,
        unavoidable,
        ..
    } = plan;
    writeln!(
        out,
        "placed {placed}, moved {moved}, unavoidable {unavoidable}"
    )
    .unwrap();
    apply(cluster, &plan.changes);
}

fn show_map(cluster: &Cluster, out: &mut String) {
    for disk in &cluster.disks {
        let on_it = cluster.pgs.iter().filter(|pg| pg.disks.contains(&disk.id));
        let on_it = on_it.map(|pg| pg.pg.to_string());
        let on_it = on_it.collect::<Vec<String>>();
        let Disk { id, node, .. } = disk;
        let (count, list) = (on_it.len(), on_it.join(" "));
        writeln!(out, "disk {id} of node {node}: {count} PGs: {list}").unwrap();
    }
}

fn show_measure(cluster: &Cluster, out: &mut String) {
    match measure(cluster) {
        Ok(found) => writeln!(
            out,
            "broken {}, a disk is off by {:.2} replicas, two nodes share at most {} PGs, a node has at least {} partners and {} PGs",
            found.broken,
            found.balance.replicas,
            found.partners.most,
            found.partners.fewest,
            found.local.fewest
        )
        .unwrap(),
        Err(refusal) => writeln!(out, "refused: {refusal}").unwrap(),
    }
}
