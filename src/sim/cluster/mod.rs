//! The world of many nodes: everything that several daemons and their manager decide, driven together.
//!
//! ```text
//!   swarm, plan (of the seed)    gate: `cargo sim cluster`    shrink: a failing plan, made small
//!                │
//!   clients ──► world: what happens next ◄── strike: what goes wrong, and how all becomes well again
//!   workload     │         ├── setup: what is there before a run;  judging: what the checkers are told, and when they judge;
//!                │         │   snapshots: asked for under load
//!                │         └── coverage: which faults were met;  checkers/: one a promise;  history: one register
//!      ┌─────────┴──────────┐
//!    node: a daemon's       member: the manager's
//!    machines (asks: what   machines on some nodes;  message: what nodes say
//!    they want of shelves)
//!      └──┬──────┬──────┬───┘
//!      network  log  clocks  shelf: what a disk keeps of its replicas;  buffers: payload, as numbers
//!         └──────┴──────┴───┘
//!                │
//!              atlas: which of them may be struck now
//! ```
//!
//! `versions`: frames are bytes on their way, of two versions in some runs.
//!
//! `node` and `member` drive the shipped machines as a daemon does; all around them is simulated. What is below
//! them knows no machine of `protocol/`: messages and commands are type parameters, and what the atlas and the checkers have to know of
//! configurations comes in as plain data. So each part is tested without the others; `tests.rs` drives the leases alone over
//! some of them.
//!
//! As in the rest of the room, nothing reads a clock or draws from anything but the seed.

mod asks;
mod atlas;
mod buffers;
mod checkers;
mod clients;
mod clocks;
mod comparing;
mod contents;
mod coverage;
mod filling;
mod gate;
mod history;
mod judging;
mod links;
mod log;
mod member;
mod mending;
mod message;
mod network;
mod node;
mod operators;
mod plan;
mod setup;
mod shelf;
mod shrink;
mod snapshots;
mod strike;
mod swarm;
#[cfg(test)]
mod tests;
mod versions;
mod workload;
mod world;

pub use gate::run;
