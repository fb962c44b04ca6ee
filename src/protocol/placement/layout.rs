//! A cluster that was checked, with dense numbers for ids: disks sorted by rack, node and id, so that every node
//! and every failure domain is a run of neighbours; PGs sorted by id.
//!
//! The sorting is what makes the answer independent of the order of the question.
//!
//! Invariants: a domain is a range of disks; the disks of a node have consecutive numbers. It does not know how
//! many replicas a disk should have.

use super::cluster::{
    COPIES_MAX, Cluster, DISKS_MAX, Disk, Level, NODES_MAX, PGS_MAX, PgReplicas, Pool,
    REPLICAS_MAX, Refusal, WEIGHT_MAX,
};
use super::replicas::Replicas;
use crate::base::{DiskId, FixedMap, NodeId, PgId};
use std::ops::Range;

/// Disks and PGs by dense numbers.
#[derive(Debug)]
pub(super) struct Layout {
    pub pool: Pool,
    pub disks: Vec<Disk>,
    /// The failure domain of each disk, by number.
    pub domain_of: Vec<u32>,
    /// The disks of each domain.
    pub domains: Vec<Range<usize>>,
    /// The node of each disk, by number.
    pub node_of: Vec<u32>,
    pub nodes: Vec<NodeId>,
    pub pgs: Vec<PgId>,
    /// The replicas that each PG is listed with.
    pub present: Vec<Replicas>,
}

impl Layout {
    /// Checks a cluster and numbers it.
    pub fn new(cluster: &Cluster) -> Result<Layout, Refusal> {
        let disks = sorted_disks(&cluster.disks)?;
        check_domains(cluster.pool, &disks)?;
        let (node_of, node_ranges) = runs(&disks, |disk| u64::from(disk.node.0));
        let (domain_of, domains) = runs(&disks, |disk| domain_key(disk, cluster.pool.level));
        let nodes = node_ranges.iter().map(|range| disks[range.start].node);
        let nodes = nodes.collect::<Vec<NodeId>>();
        if nodes.len() > NODES_MAX {
            return Err(Refusal::TooMany {
                what: "nodes",
                most: NODES_MAX,
            });
        }
        let numbers = disks
            .iter()
            .enumerate()
            .map(|(at, disk)| (disk.id, at as u32));
        let (pgs, present) = sorted_pgs(&cluster.pgs, &numbers.collect())?;
        Ok(Layout {
            pool: cluster.pool,
            disks,
            domain_of,
            domains,
            node_of,
            nodes,
            pgs,
            present,
        })
    }

    pub fn copies(&self) -> usize {
        usize::from(self.pool.copies)
    }

    /// Whether a replica in the failure domain of `disk` is among `replicas`.
    pub fn has_domain(&self, replicas: &Replicas, disk: u32) -> bool {
        let domain = self.domain_of[disk as usize];
        replicas
            .iter()
            .any(|other| self.domain_of[other as usize] == domain)
    }
}

/// What tells the domains of a level apart.
fn domain_key(disk: &Disk, level: Level) -> u64 {
    u64::from(match level {
        Level::Disk => disk.id.0,
        Level::Node => disk.node.0,
        Level::Rack => disk.rack.0,
    })
}

/// Numbers the runs of neighbours with the same key: of each disk its run, and of each run its disks.
fn runs(disks: &[Disk], key: impl Fn(&Disk) -> u64) -> (Vec<u32>, Vec<Range<usize>>) {
    let (mut of, mut ranges) = (Vec::with_capacity(disks.len()), Vec::<Range<usize>>::new());
    for (at, disk) in disks.iter().enumerate() {
        match ranges.last_mut() {
            Some(last) if key(&disks[last.start]) == key(disk) => last.end = at + 1,
            _ => ranges.push(at..at + 1),
        }
        of.push(ranges.len() as u32 - 1);
    }
    (of, ranges)
}

fn sorted_disks(disks: &[Disk]) -> Result<Vec<Disk>, Refusal> {
    if disks.len() > DISKS_MAX {
        return Err(Refusal::TooMany {
            what: "disks",
            most: DISKS_MAX,
        });
    }
    if let Some(disk) = disks.iter().find(|disk| disk.weight > WEIGHT_MAX) {
        return Err(Refusal::Weight { disk: disk.id });
    }
    let mut sorted = disks.to_vec();
    sorted.sort_unstable_by_key(|disk| disk.id);
    if let Some(two) = sorted.windows(2).find(|two| two[0].id == two[1].id) {
        return Err(Refusal::DiskTwice { disk: two[0].id });
    }
    sorted.sort_unstable_by_key(|disk| (disk.node, disk.rack));
    let torn = |two: &&[Disk]| two[0].node == two[1].node && two[0].rack != two[1].rack;
    if let Some(two) = sorted.windows(2).find(torn) {
        return Err(Refusal::NodeInTwoRacks { node: two[0].node });
    }
    sorted.sort_unstable_by_key(|disk| (disk.rack, disk.node, disk.id));
    Ok(sorted)
}

/// How many domains of a level take replicas. `disks` are sorted as in a layout.
pub(super) fn domains_that_take(disks: &[Disk], level: Level) -> usize {
    let mut keys = disks
        .iter()
        .filter(|disk| disk.takes())
        .map(|disk| domain_key(disk, level))
        .collect::<Vec<u64>>();
    keys.sort_unstable();
    keys.dedup();
    keys.len()
}

fn check_domains(pool: Pool, disks: &[Disk]) -> Result<(), Refusal> {
    let Pool { copies, level } = pool;
    if !(1..=COPIES_MAX).contains(&copies) {
        return Err(Refusal::Copies { copies });
    }
    let domains = domains_that_take(disks, level);
    if domains >= usize::from(copies) {
        return Ok(());
    }
    let lower = [Level::Rack, Level::Node, Level::Disk];
    let would_do = lower
        .into_iter()
        .filter(|other| *other < level)
        .find(|other| domains_that_take(disks, *other) >= usize::from(copies));
    Err(Refusal::TooFewDomains {
        level,
        domains,
        copies,
        would_do,
    })
}

fn sorted_pgs(
    pgs: &[PgReplicas],
    numbers: &FixedMap<DiskId, u32>,
) -> Result<(Vec<PgId>, Vec<Replicas>), Refusal> {
    if pgs.len() > PGS_MAX as usize {
        return Err(Refusal::TooMany {
            what: "PGs",
            most: PGS_MAX as usize,
        });
    }
    let mut order = pgs.iter().collect::<Vec<&PgReplicas>>();
    order.sort_unstable_by_key(|pg| pg.pg);
    if let Some(two) = order.windows(2).find(|two| two[0].pg == two[1].pg) {
        return Err(Refusal::PgTwice { pg: two[0].pg });
    }
    let mut present = Vec::with_capacity(pgs.len());
    for PgReplicas { pg, disks } in order.iter().copied() {
        let pg = *pg;
        let mut numbered = Vec::with_capacity(REPLICAS_MAX);
        for disk in disks {
            let number = numbers.get(disk);
            let unknown = Refusal::UnknownDisk { pg, disk: *disk };
            numbered.push(*number.ok_or(unknown)?);
        }
        numbered.sort_unstable();
        let twice = numbered.windows(2).any(|two| two[0] == two[1]);
        if twice || numbered.len() > REPLICAS_MAX {
            return Err(Refusal::Replicas { pg });
        }
        present.push(Replicas::of(&numbered));
    }
    Ok((order.iter().map(|pg| pg.pg).collect(), present))
}
