//! The loss of a rack, of twenty: from the last renewal to the last copy.
//!
//! First the leases alone, with the coordinators that are left accusing what does not answer; then the steward, with what the leases said, until
//! every PG has its copies again.

use super::World;
use super::fluid::Limits;
use super::leader::Leader;
use super::leases::Leases;
use super::site::{Shape, build};
use super::{bytes, duration, ms};
use crate::base::{DiskId, NodeId, PgId, Time};
use crate::protocol::membership::{GrantorOutput, Verdict};
use crate::protocol::placement::Level;
use crate::protocol::replication::Role;
use crate::protocol::steward::{Input, Parameters};
use std::collections::BTreeSet;
use std::time::Duration;

const RACKS: u32 = 20;
/// In use on each disk.
const DISK_BYTES: f64 = 2e12;
/// PGs in which a coordinator has something in flight as the rack is lost.
const BUSY: u32 = 32;
/// A coordinator accuses what has not answered for 100 ms, and looks at it each 30 ms (`protocol::volume::groups::Patience`); what it says
/// stays the same.
const ACCUSES_AFTER: Duration = Duration::from_millis(120);
const ACCUSES_AGAIN: Duration = Duration::from_millis(30);

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    pub nodes: u32,
    pub is_whole: bool,
    /// Replicas that were lost, and so PGs that have lost one.
    pub lost: u64,
    pub expired: u64,
    pub suspects_alive: u64,
    pub evictions: u64,
    pub joins: u64,
    pub commands: u64,
    pub refused: u64,
}

pub fn print(world: World, sizes: &[u32]) -> Vec<Loss> {
    println!(
        "3. A rack of {RACKS} is lost: pools at level rack, 2 TB in use a disk, no volumes; a coordinator on each node left, busy in {BUSY} PGs\n"
    );
    let mut losses = Vec::new();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for &nodes in sizes {
        if let Some(loss) = one(world, nodes, &mut first, &mut second) {
            losses.push(loss);
        }
    }
    println!(
        "| nodes | gone | PGs a copy short | accusations | messages, accusation to end | leases over after | evictions done after | commands | log | events to each node | leader's work |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    first.iter().for_each(|line| println!("{line}"));
    println!("\nAfter 600 s they are called missing, and what they held is made anew:\n");
    println!(
        "| nodes | moves planned | planned after | last begun after | whole after | copies at once | commands | of a move | refused | log | events to each node | leader's work | solver |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    second.iter().for_each(|line| println!("{line}"));
    println!();
    losses
}

/// The PGs that a coordinator is busy in: its own share of all, spread evenly.
fn busy(node: u32, pgs: u32) -> impl Iterator<Item = PgId> {
    (0..BUSY).map(move |n| PgId(1 + (node * 7_919 + n * (pgs / BUSY).max(1)) % pgs))
}

fn one(
    world: World,
    nodes: u32,
    first: &mut Vec<String>,
    second: &mut Vec<String>,
) -> Option<Loss> {
    let shape = Shape {
        level: Level::Rack,
        racks: RACKS,
        ..Shape::of(nodes)
    };
    let log = build(&shape).ok()?;
    let parameters = Parameters::DEFAULT;
    let mut leader = Leader::new(log, parameters, Limits::DEFAULT, DISK_BYTES, world.clock);
    let gone: BTreeSet<NodeId> = (0..nodes)
        .filter(|n| n % RACKS == 0)
        .map(|n| NodeId(n + 1))
        .collect();
    let lost: Vec<DiskId> = gone
        .iter()
        .flat_map(|node| leader.log.catalog.disks_of(*node))
        .map(|disk| disk.id)
        .collect();
    let lost = lost
        .iter()
        .map(|disk| leader.log.catalog.pgs_on(*disk).count() as u64);
    let lost: u64 = lost.sum();

    let mut leases = Leases::new(nodes, world.clock);
    let died = leases.now() + Duration::from_secs(1);
    leases.run(died);
    leases.start_over();
    gone.iter().for_each(|node| leases.lose(*node));
    let words = accuse(&leader, &mut leases, &gone, nodes, died);
    // Long enough for the leases, and for verdicts on who accused.
    leases.run(died + Duration::from_secs(3));
    let (said, accusations) = (leases.said.clone(), leases.counts.accusations);
    let is_expired =
        |said: &&(Time, GrantorOutput)| matches!(said.1, GrantorOutput::Expired { .. });
    let expired = said.iter().filter(is_expired).count() as u64;
    let over = said.iter().filter(is_expired).map(|said| said.0).max()?;
    let suspects_alive = said.iter().filter(|said| match said.1 {
        GrantorOutput::Verdict(Verdict::Suspect { node, .. }) => !gone.contains(&node),
        _ => false,
    });
    let suspects_alive = suspects_alive.count() as u64;

    let zero = leader.now;
    let mut to_tell: Vec<(Time, Said)> = said
        .into_iter()
        .map(|(at, said)| (at, Said::Grantor(said)))
        .chain(words)
        .collect();
    to_tell.sort_by_key(|(at, _)| *at);
    for (at, said) in to_tell {
        leader.run(zero + at.since(died));
        match said {
            Said::Grantor(GrantorOutput::Expired { node, .. }) => {
                leader.tell(Input::Expired { node });
            }
            Said::Grantor(GrantorOutput::Verdict(verdict)) => {
                leader.tell(Input::Verdict(verdict));
            }
            Said::Grantor(_) => {}
            Said::Word { by, pg, disk } => {
                // Who was told of the new configuration says nothing more.
                let version = 1;
                if leader
                    .log
                    .catalog
                    .pg(pg)
                    .is_some_and(|pg| pg.version() == version)
                {
                    leader.tell(Input::Accused {
                        by,
                        pg,
                        version,
                        disk,
                    });
                }
            }
        }
    }
    leader.run(zero + Duration::from_secs(30));
    let after = |at: Time| at.since(zero);
    first.push(format!(
        "| {nodes} | {} nodes, {} disks | {lost} | {accusations} | {} | {} | {} | {} | {} | {} | {} |",
        gone.len(),
        gone.len() * 10,
        leases.counts.messages(),
        ms(over.since(died)),
        ms(after(leader.evicted)),
        leader.log.commands,
        bytes(leader.log.bytes),
        bytes(leader.log.event_bytes),
        ms(leader.work + leases.work),
    ));
    let evictions = leader.counts.evictions;
    let before = leader.log.commands;
    let (log_before, events_before) = (leader.log.bytes, leader.log.event_bytes);
    leader.work = Duration::ZERO;
    let is_whole = leader.run_until_whole(zero + Duration::from_secs(100 * 86_400));
    let commands = leader.log.commands - before;
    second.push(format!(
        "| {nodes} | {} | {} | {} | {} | {} | {commands} | {:.2} | {} | {} | {} | {} | {} |",
        leader.counts.planned,
        duration(after(leader.planned)),
        duration(after(leader.begun)),
        duration(after(leader.now)),
        leader.copies.most_at_once,
        commands as f64 / lost as f64,
        leader.counts.refused,
        bytes(leader.log.bytes - log_before),
        bytes(leader.log.event_bytes - events_before),
        ms(leader.work),
        ms(leader.solving),
    ));
    Some(Loss {
        nodes,
        is_whole,
        lost,
        expired,
        suspects_alive,
        evictions,
        joins: leader.counts.joins,
        commands: leader.log.commands,
        refused: leader.counts.refused,
    })
}

/// What the steward is told.
enum Said {
    Grantor(GrantorOutput),
    Word { by: NodeId, pg: PgId, disk: DiskId },
}

/// Each coordinator that is left accuses the replicas that do not answer it, until the leases are over.
fn accuse(
    leader: &Leader,
    leases: &mut Leases,
    gone: &BTreeSet<NodeId>,
    nodes: u32,
    died: Time,
) -> Vec<(Time, Said)> {
    let (catalog, mut words) = (&leader.log.catalog, Vec::new());
    let pgs = catalog.pgs().len() as u32;
    for by in (1..=nodes).map(NodeId).filter(|node| !gone.contains(node)) {
        for pg in busy(by.0, pgs) {
            let members = catalog.pg(pg).into_iter();
            let silent = members
                .flat_map(|pg| pg.configuration.members())
                .filter(|member| {
                    let node = catalog.disk(member.disk).map(|disk| disk.node);
                    member.role == Role::InSync && node.is_some_and(|node| gone.contains(&node))
                });
            for disk in silent.map(|member| member.disk) {
                let Some(accused) = catalog.disk(disk).map(|disk| disk.node) else {
                    continue;
                };
                // Spread over a look, so that they do not all speak at once.
                let spread = ACCUSES_AGAIN * (by.0 % 30) / 30;
                let mut at = died + ACCUSES_AFTER + spread;
                while at < died + Duration::from_millis(400) {
                    leases.accuse(at, by, accused);
                    words.push((at, Said::Word { by, pg, disk }));
                    at = at + ACCUSES_AGAIN;
                }
            }
        }
    }
    words
}
