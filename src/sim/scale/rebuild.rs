//! One disk is lost: what is made anew where, how many copies run at once, and how long that takes.

use super::World;
use super::fluid::Limits;
use super::leader::Leader;
use super::site::{Pgs, Shape, build};
use super::{duration, ms};
use crate::base::DiskId;
use crate::protocol::steward::{Input, Parameters};
use std::time::Duration;

/// In use on the disk that is lost, and on each other.
const DISK_BYTES: f64 = 2e12;

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub struct Rebuild {
    pub nodes: u32,
    pub is_whole: bool,
    /// Replicas that were lost.
    pub lost: u64,
    pub at_once: usize,
    /// What the busiest disk read and wrote, as a part of the mean of those that did, and in replicas.
    pub busiest: f64,
    pub busiest_replicas: f64,
    pub refused: u64,
}

pub fn print(world: World, sizes: &[u32]) -> Vec<Rebuild> {
    println!(
        "4. One disk with 2 TB in use is lost: 200 MB/s of a disk and 1 GB/s of a node's link for copies, 3 copies, level node\n"
    );
    println!(
        "| nodes | PGs a disk | replicas lost | of | disks that take part | copies at once | one at full speed | whole after | as one stream | busiest disk, of the mean (replicas) | commands | leader's work | solver |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut rebuilds = Vec::new();
    for pgs in [Pgs::AsWanted, Pgs::ADisk(100)] {
        for &nodes in sizes {
            let shape = Shape {
                pgs,
                ..Shape::of(nodes)
            };
            rebuilds.extend(one(world, &shape));
        }
    }
    println!();
    rebuilds
}

fn one(world: World, shape: &Shape) -> Option<Rebuild> {
    let nodes = shape.nodes;
    let a_disk = match shape.pgs {
        Pgs::AsWanted => "10.7".to_string(),
        Pgs::ADisk(count) => count.to_string(),
    };
    let log = match build(shape) {
        Ok(log) => log,
        Err(refusal) => {
            println!("| {nodes} | {a_disk} | placement refuses: {refusal} | | | | | | | | | | |");
            return None;
        }
    };
    let limits = Limits::DEFAULT;
    let mut leader = Leader::new(log, Parameters::DEFAULT, limits, DISK_BYTES, world.clock);
    let disk = DiskId(1);
    let lost = leader.log.catalog.pgs_on(disk).count() as u64;
    let began = leader.now;
    leader.tell(Input::DiskFailed { disk });
    // The first command makes PGs short.
    leader.run(began + Duration::from_millis(100));
    let is_whole = leader.run_until_whole(began + Duration::from_secs(100 * 86_400));
    let took = leader.now.since(began);
    let at_disks = &leader.copies.at_disks;
    let all: f64 = at_disks.values().sum();
    let most = at_disks.values().copied().fold(0.0, f64::max);
    let busiest = most * at_disks.len() as f64 / all;
    let busiest_replicas = most * lost as f64 / DISK_BYTES;
    let alone = DISK_BYTES / lost as f64 / limits.disk;
    println!(
        "| {nodes} | {a_disk} | {lost} | {:.1} GB | {} | {} | {} | {} | {:.0} MB/s | {busiest:.2} ({busiest_replicas:.0}) | {} | {} | {} |",
        DISK_BYTES / lost as f64 / 1e9,
        at_disks.len(),
        leader.copies.most_at_once,
        duration(Duration::from_secs_f64(alone)),
        duration(took),
        DISK_BYTES / took.as_secs_f64() / 1e6,
        leader.log.commands,
        ms(leader.work),
        ms(leader.solving),
    );
    Some(Rebuild {
        nodes,
        is_whole,
        lost,
        at_once: leader.copies.most_at_once,
        busiest,
        busiest_replicas,
        refused: leader.counts.refused,
    })
}
