//! The simulator.

mod buffers;
pub mod checkers;
mod clock;
mod disk;
mod fault;
mod medium;
mod model;
mod node;
mod payload;
mod register;
mod trace;
