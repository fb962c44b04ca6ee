//! What a site says while nothing happens: leases, their rounds, and what repeated reports would cost.

use super::World;
use super::fluid::Limits;
use super::leader::Leader;
use super::leases::{Counts, Leases, MEMBERS};
use super::site::{Shape, build};
use crate::base::DiskId;
use crate::protocol::steward::Parameters;
use std::time::Duration;

/// Counted after as long.
const SECONDS: u64 = 5;

/// What was counted in a second.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    pub nodes: u32,
    pub counts: Counts,
}

pub fn print(world: World, sizes: &[u32]) -> Vec<Steady> {
    println!(
        "2. Steady state: one renewal a node each 100 ms, {MEMBERS} members, 100 us a way, 200 us a round\n"
    );
    println!(
        "| nodes | asks/s | answers/s | rounds/s | their messages/s | messages/s at the leader | a node | steps/s | grantor's work a second | all disks told again |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut all = Vec::new();
    for &nodes in sizes {
        let mut leases = Leases::new(nodes, world.clock);
        let began = leases.now() + Duration::from_secs(1);
        leases.run(began);
        leases.start_over();
        leases.run(began + Duration::from_secs(SECONDS));
        let of = |count: u64| count / SECONDS;
        let counts = Counts {
            asks: of(leases.counts.asks),
            answers: of(leases.counts.answers),
            rounds: of(leases.counts.rounds),
            confirms: of(leases.counts.confirms),
            accusations: of(leases.counts.accusations),
            steps: of(leases.counts.steps),
        };
        assert!(
            leases.said.is_empty(),
            "a quiet site says {:?}",
            leases.said
        );
        let work = leases.work / SECONDS as u32;
        println!(
            "| {nodes} | {} | {} | {} | {} | {} | {} | {} | {:.1} ms | {:.1} ms |",
            counts.asks,
            counts.answers,
            counts.rounds,
            counts.confirms,
            counts.messages(),
            (counts.asks + counts.answers) / u64::from(nodes),
            counts.steps,
            work.as_secs_f64() * 1e3,
            told_again(world, nodes).as_secs_f64() * 1e3,
        );
        all.push(Steady { nodes, counts });
    }
    println!();
    all
}

/// What the steward takes when every node says once more of each of its disks that it is open.
fn told_again(world: World, nodes: u32) -> Duration {
    let Ok(log) = build(&Shape::of(nodes)) else {
        return Duration::ZERO;
    };
    let parameters = Parameters::DEFAULT;
    let mut leader = Leader::new(log, parameters, Limits::DEFAULT, 0.0, world.clock);
    let disks: Vec<DiskId> = leader.log.catalog.disks().map(|disk| disk.id).collect();
    disks.into_iter().for_each(|disk| leader.tell_opened(disk));
    leader.run(leader.now + Duration::from_millis(10));
    leader.work
}
