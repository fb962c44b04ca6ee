//! The simulator.

mod buffers;
pub mod checkers;
mod clock;
mod disk;
mod errands;
mod fault;
mod formatting;
mod load;
mod medium;
mod model;
mod node;
mod payload;
mod register;
mod swarm;
#[cfg(test)]
mod toy;
mod trace;
mod volumes;
mod workload;
mod world;
