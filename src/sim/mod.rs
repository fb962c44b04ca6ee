#![forbid(unsafe_code)]
//! The simulator: the other driver of a shard, and the reason why its promises are believed.
//!
//! One run is one seed. It draws the knobs (`swarm`), makes disks that fail in the ways that `disk` tells, drives a
//! whole shard over them through its door (`node`), asks of it what users ask (`workload`, `load`, `errands`, `replicas`), cuts
//! its power at any point, and holds every answer against a model that knows nothing of stores.
//!
//! ```text
//!             swarm (knobs of the seed)
//!                |
//!   workload -> world: lives of a node, load, errands ---- model, register: what may be read
//!                |                                              |
//!              node: a shard and its driver's duties      checkers/: one a promise
//!                |         |
//!            buffers     disk, medium, fault: the fault model
//!
//!   crash_states: every way in which a power cut could have left the disk of a run
//!   breaks, regressions/: faults of our own, each found by its own checker
//!   gate, arguments: `cargo sim store`
//!   cluster/: what a world of many nodes stands on
//!   scale/: how large sites can be: `cargo sim scale`
//! ```
//!
//! Nothing here reads a clock, draws from anything but the seed or depends on the order of a hash map: the same
//! seed leaves the same trace hash.

mod arguments;
mod breaks;
mod buffers;
mod checkers;
mod clock;
mod cluster;
mod crash_states;
mod disk;
mod errands;
mod fault;
mod formatting;
mod gate;
mod load;
mod medium;
mod model;
mod node;
mod payload;
mod register;
mod replicas;
mod scale;
mod swarm;
mod tally;
#[cfg(test)]
mod toy;
mod trace;
mod volumes;
mod workload;
mod world;

pub use arguments::Misunderstood;

use crate::shard::Shard;
use std::time::Duration;

/// What is taken from the world: it is printed and decides nothing.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// The time since the program began.
    pub clock: fn() -> Duration,
    /// What the program has on its heap, in bytes; 0 where nobody counts.
    pub heap: fn() -> u64,
}

/// Runs the command line `words` (without the program's name); whether everything passed.
pub fn run(words: impl Iterator<Item = String>, world: World) -> Result<bool, Misunderstood> {
    let mut words = words.peekable();
    if words.next_if(|word| word == "cluster").is_some() {
        return cluster::run(words, world.clock);
    }
    if words.next_if(|word| word == "scale").is_some() {
        return scale::run(words, world);
    }
    let arguments = arguments::Arguments::parse(words)?;
    Ok(gate::run::<Shard>(&arguments, world.clock))
}
