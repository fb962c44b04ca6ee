//! How large the map is: as a snapshot, as a delta, in memory, and what a node keeps beside it.

use super::beside;
use super::site::{Shape, build, json};
use super::{World, bytes, ms};
use crate::base::DiskId;
use crate::protocol::catalog::{Catalog, Command};
use crate::protocol::replication::Reconfigure;

/// What was measured of one site; sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Map {
    pub snapshot: u64,
    pub a_pg: u64,
    pub a_disk: u64,
    /// With its attachment and its range.
    pub a_volume: u64,
    pub command: u64,
    pub event: u64,
    pub pgs: u64,
    pub volumes: u64,
}

/// Groups that are made to see what one takes: as many as 100 volumes have in some hundreds of PGs each.
const GROUPS_MAX: usize = 50_000;

/// Prints the two tables.
pub fn print(world: World, sizes: &[u32]) -> Vec<Map> {
    println!(
        "1. The map: 10 disks a node, 32 replicas a disk, 100 volumes of 100 GiB a node, all attached\n"
    );
    println!(
        "| nodes | PGs | volumes | snapshot | a disk | a PG | a volume | delta: command + event | in memory | write it | read it, checked | copy it |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let (mut maps, mut besides) = (Vec::new(), Vec::new());
    for &nodes in sizes {
        let shape = Shape {
            volumes_a_node: 100,
            ..Shape::of(nodes)
        };
        let before = (world.heap)();
        let Ok(mut log) = build(&shape) else {
            continue;
        };
        let memory = (world.heap)().saturating_sub(before);
        maps.push(one(world, nodes, &mut log.catalog, memory));
        if let Some(beside) = beside::measure(world, &log.catalog, GROUPS_MAX) {
            besides.push((nodes, beside, beside::replicas_a_node(&log.catalog) as u64));
        }
    }
    println!("\nBeside it, at a node whose volumes are all written to:\n");
    println!(
        "| nodes | configurations | turns | PGs of a volume | a group | groups | in memory | a range | ranges of a replica | of a node | in memory | marks after a write | a changed PG, 50,000 groups |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for ((nodes, beside, replicas), map) in besides.into_iter().zip(&maps) {
        let groups = 100 * beside.pgs_of_volume;
        let of_replica = map.volumes * beside.pgs_of_volume / map.pgs;
        println!(
            "| {nodes} | {} | {} | {} | {} B | {groups} | {} | {} B | {of_replica} | {} | {} | {} | {:.1} us |",
            bytes(beside.configuration * map.pgs),
            bytes(100 * beside.turn),
            beside.pgs_of_volume,
            beside.group,
            bytes(groups * beside.group),
            beside.range,
            of_replica * replicas,
            bytes(of_replica * replicas * beside.range),
            beside.marks,
            beside.change.as_secs_f64() * 1e6,
        );
    }
    println!();
    maps
}

fn one(world: World, nodes: u32, catalog: &mut Catalog, memory: u64) -> Map {
    let count = |count: usize| (count as u64).max(1);
    let mean = |sum: u64, of: usize| sum / count(of);
    let (pgs, disks) = (catalog.pgs().len(), catalog.disks().count());
    let volumes = catalog.volumes().count();
    let of_volumes = catalog.volumes().map(|volume| {
        let (first, _) = catalog.attachments_of(volume.id);
        let range = catalog.range(volume.id);
        json(volume) + first.map_or(0, json) + range.map_or(0, json)
    });
    let of_volumes = of_volumes.sum();
    let of_pgs = catalog.pgs().map(json).sum();
    let of_disks = catalog.disks().map(json).sum();
    let began = (world.clock)();
    let snapshot = catalog.snapshot();
    let written = (world.clock)();
    let restored = Catalog::restore(&snapshot).expect("what was written can be read");
    let read = (world.clock)();
    assert!(restored == *catalog, "a snapshot is the whole catalog");
    drop(restored);
    let copying = (world.clock)();
    let copy = catalog.clone();
    let copied = (world.clock)();
    drop(copy);
    let (command, event) = delta(catalog);
    let map = Map {
        snapshot: snapshot.len() as u64,
        a_pg: mean(of_pgs, pgs),
        a_disk: mean(of_disks, disks),
        a_volume: mean(of_volumes, volumes),
        command,
        event,
        pgs: pgs as u64,
        volumes: volumes as u64,
    };
    println!(
        "| {nodes} | {pgs} | {volumes} | {} | {} B | {} B | {} B | {command} + {event} B | {} | {} | {} | {} |",
        bytes(map.snapshot),
        map.a_disk,
        map.a_pg,
        map.a_volume,
        bytes(memory),
        ms(written - began),
        ms(read - written),
        ms(copied - copying),
    );
    map
}

/// A replica is taken out: the command, and the event that every node is told.
fn delta(catalog: &mut Catalog) -> (u64, u64) {
    let Some((pg, version, disk)) = catalog.pgs().last().map(|pg| {
        let disk = pg.disks().next().unwrap_or(DiskId(0));
        (pg.id, pg.version(), disk)
    }) else {
        return (0, 0);
    };
    let change = Reconfigure::Evict { disk };
    let evict = Command::Reconfigure {
        pg,
        version,
        change,
    };
    let events = catalog.apply(&evict).expect("two copies are left");
    (json(&evict), events.iter().map(json).sum())
}
