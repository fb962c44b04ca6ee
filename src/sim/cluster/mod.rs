//! The world of many nodes: what its driver stands on.
//!
//! ```text
//!        swarm, plan (of the seed)            shrink: a failing plan, made small
//!                |
//!   workload -> the world: nodes, a manager -- coverage: which faults and branches were met
//!                |      |       |      |
//!            network   log   clocks  shelf: what a disk keeps of its replicas
//!                |______|_______|______|
//!                          |
//!                        atlas: which of them may be struck now
//!
//!   checkers/: one a promise, each takes plain data; history: whether one register was linearizable
//! ```
//!
//! Nothing here knows the machines of `protocol/`: messages and commands are type parameters, and what the atlas and the
//! checkers have to know of configurations comes in as plain data. So each part is tested without the others; `tests.rs` drives the
//! leases of `membership` over some of them, to see that they fit.
//!
//! As in the rest of the room, nothing reads a clock or draws from anything but the seed.

//! The world of many nodes: what its driver stands on.
//!
//! ```text
//!        swarm, plan (of the seed)            shrink: a failing plan, made small
//!                |
//!   workload -> the world: nodes, a manager -- coverage: which faults and branches were met
//!                |      |       |      |
//!            network   log   clocks  shelf: what a disk keeps of its replicas
//!                |______|_______|______|
//!                          |
//!                        atlas: which of them may be struck now
//!
//!   checkers/: one a promise, each takes plain data; history: whether one register was linearizable
//! ```
//!
//! Nothing here knows the machines of `protocol/`: messages and commands are type parameters, and what the atlas and the
//! checkers have to know of configurations comes in as plain data. So each part is tested without the others; `tests.rs` drives the
//! leases of `membership` over some of them, to see that they fit.
//!
//! As in the rest of the room, nothing reads a clock or draws from anything but the seed.

#![cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "the world of the cluster, which drives all of this, comes next"
    )
)]

mod atlas;
mod buffers;
mod carry;
mod checkers;
mod clients;
mod clocks;
mod coverage;
mod gate;
mod history;
mod links;
mod log;
mod member;
mod network;
mod node;
mod plan;
mod setup;
mod shelf;
mod shrink;
mod snapshots;
mod strike;
mod swarm;
#[cfg(test)]
mod tests;
mod workload;
mod world;

pub use gate::run;
