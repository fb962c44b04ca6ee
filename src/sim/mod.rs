//! The simulator.

mod buffers;
mod clock;
mod disk;
mod fault;
mod medium;
mod model;
mod payload;
mod register;
