//! What a node keeps beside the catalog, by the shipped machines: configurations and groups of what it coordinates, turns, and
//! the fences and marks of the replicas that it serves.
//!
//! Sizes are differences of the heap's, before and after; they are nothing where the caller does not count it.

use super::World;
use crate::base::{
    BlockRun, BufRef, DiskId, DiskSlot, EXTENT, Epoch, ExtentNo, FamilyId, LayerId, NodeId, PgId,
    Time, VolumeId,
};
use crate::protocol::catalog::{Catalog, Volume};
use crate::protocol::membership::LeaseNumber;
use crate::protocol::replication::replica::{Durable, Replica};
use crate::protocol::replication::{Answer, RulesOff};
use crate::protocol::turns::{self, Here, Turns};
use crate::protocol::volume::groups::{Groups, Output, Patience};
use crate::protocol::volume::{Ask, PieceId, Target, pg_of};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// See each field; sizes in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside {
    /// PGs that have blocks of one volume, when all of it is written.
    pub pgs_of_volume: u64,
    /// A configuration, as the groups of a node keep it.
    pub configuration: u64,
    /// The turn at a volume.
    pub turn: u64,
    /// A group (a volume in a PG) that has nothing in flight.
    pub group: u64,
    /// A range's fence and mark at a replica.
    pub range: u64,
    /// Frames that a group sends when it falls silent, so that its members know its mark.
    pub marks: u64,
    /// What one change of a PG costs a coordinator that has so many groups, in all of which there is nothing to do.
    pub change: Duration,
    pub groups: u64,
}

/// The PGs that a volume's extents lie in.
pub fn pgs_of(catalog: &Catalog, volume: &Volume) -> BTreeSet<PgId> {
    let pgs = catalog.pgs_of_volume(volume);
    let extents = 0..(volume.size / EXTENT) as u32;
    let of = extents.map(|extent| pgs[pg_of(volume.family, ExtentNo(extent), pgs.len())]);
    of.collect()
}

/// Measures at a site that has a volume at least; at most `groups_max` groups are made.
pub fn measure(world: World, catalog: &Catalog, groups_max: usize) -> Option<Beside> {
    let volume = catalog.volumes().next()?;
    let of_volume: Vec<PgId> = pgs_of(catalog, volume).into_iter().collect();
    let mut beside = Beside {
        pgs_of_volume: of_volume.len() as u64,
        ..Beside::default()
    };
    turns(world, catalog, &mut beside);
    groups(world, catalog, volume, &of_volume, groups_max, &mut beside);
    ranges(world, of_volume[0], &mut beside);
    Some(beside)
}

fn each(bytes: u64, count: usize) -> u64 {
    bytes / count.max(1) as u64
}

fn turns(world: World, catalog: &Catalog, beside: &mut Beside) {
    const VOLUMES: usize = 1_000;
    let before = (world.heap)();
    let mut turns = Turns::new(NodeId(1));
    let mut out = Vec::with_capacity(2 * VOLUMES);
    turns.step(Time(1), turns::Input::Leased(LeaseNumber::NONE), &mut out);
    let volumes: Vec<VolumeId> = (1..=VOLUMES as u64).map(VolumeId).collect();
    let range = catalog.range(VolumeId(1)).copied();
    for &volume in &volumes {
        let here = Here::Attached;
        turns.step(Time(1), turns::Input::Wanted { volume, here }, &mut out);
        if let Some(range) = range {
            turns.step(Time(1), turns::Input::Owned { volume, range }, &mut out);
        }
        out.clear();
    }
    let lists = (out.capacity() * size_of::<turns::Output>() + VOLUMES * 8) as u64;
    beside.turn = each((world.heap)().saturating_sub(before + lists), VOLUMES);
}

fn groups(
    world: World,
    catalog: &Catalog,
    volume: &Volume,
    pgs: &[PgId],
    groups_max: usize,
    beside: &mut Beside,
) {
    let (now, mut out) = (Time(1), Vec::with_capacity(4_096));
    let before = (world.heap)();
    let mut groups = Groups::new(Patience::default(), RulesOff::NONE);
    for pg in catalog.pgs() {
        groups.configured(now, pg.id, pg.configuration.clone(), &mut out);
    }
    let known = (world.heap)();
    beside.configuration = each(known.saturating_sub(before), catalog.pgs().len());
    groups.lease_anew(now + Duration::from_secs(3_600));
    let mut made = 0;
    // As many volumes as it takes.
    for number in 0.. {
        let count = pgs.len().min(groups_max - made);
        let of = VolumeId(volume.id.0 + number);
        let epoch = Epoch {
            host: 1,
            ..Epoch::default()
        };
        groups.open(now, of, epoch, BTreeSet::new(), &mut out);
        for &pg in &pgs[..count] {
            write(&mut groups, now, of, pg, &mut out);
        }
        made += count;
        if made >= groups_max {
            break;
        }
    }
    // Silent: every group tells its mark.
    let quiet = now + Duration::from_secs(1);
    let mut told = 0;
    while let Some(at) = groups.deadline().filter(|at| *at <= quiet) {
        groups.expire(at, &mut out);
        told += out.len();
        out.clear();
    }
    beside.groups = made as u64;
    beside.marks = each((told + made / 2) as u64, made);
    beside.group = each((world.heap)().saturating_sub(known), made);
    let changes: Vec<_> = catalog.pgs().take(20).collect();
    let began = (world.clock)();
    for pg in &changes {
        let mut configuration = pg.configuration.clone();
        let disk = configuration.in_sync().next().unwrap_or(DiskId(0));
        let evict = crate::protocol::replication::Reconfigure::Evict { disk };
        if configuration
            .apply(configuration.version(), evict, 1)
            .is_ok()
        {
            groups.configured(quiet, pg.id, configuration, &mut out);
        }
    }
    beside.change = ((world.clock)() - began) / changes.len().max(1) as u32;
}

/// Writes a block of a PG's chunk, and has every replica answer.
fn write(groups: &mut Groups, now: Time, volume: VolumeId, pg: PgId, out: &mut Vec<Output>) {
    let target = Target {
        volume,
        disk: DiskSlot(0),
        pg,
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: crate::base::ChunkNo(0),
    };
    let ask = Ask::Write {
        run: BlockRun::new(0, 1).expect("a block is a run"),
        buf: BufRef::default(),
        crcs: [0; 16],
        sequence: 1,
    };
    groups.ask(now, PieceId(pg.0), target, (&ask, None), out);
    let mut is_done = false;
    while !out.is_empty() {
        for output in std::mem::take(out) {
            match output {
                Output::Send {
                    to,
                    header,
                    message,
                    ..
                } => {
                    if let Some(answer) = Answer::of_an_empty_replica(&message) {
                        groups.answered(now, to, header, answer, None, out);
                    }
                }
                Output::Answered { result, .. } => is_done = result.is_ok(),
                _ => {}
            }
        }
    }
    assert!(is_done, "a write that everybody has is acknowledged");
}

fn ranges(world: World, pg: PgId, beside: &mut Beside) {
    const RANGES: usize = 10_000;
    let before = (world.heap)();
    let epoch = Epoch {
        host: 1,
        ..Epoch::default()
    };
    let ranges = (1..=RANGES as u64).map(|volume| (VolumeId(volume), epoch, 1, Vec::new()));
    let durable = Durable::found(1, 0, ranges);
    let replica = Replica::new((pg, DiskId(1)), durable, RulesOff::NONE);
    beside.range = each((world.heap)().saturating_sub(before), RANGES);
    drop(replica);
}

/// How many replicas each node has, at most.
pub fn replicas_a_node(catalog: &Catalog) -> usize {
    let mut of: BTreeMap<NodeId, usize> = BTreeMap::new();
    for disk in catalog.disks() {
        *of.entry(disk.node).or_default() += catalog.pgs_on(disk.id).count();
    }
    of.into_values().max().unwrap_or(0)
}
