#![forbid(unsafe_code)]
//! The protocols, pure: each a deterministic machine with no clock, no socket, no file.
//!
//! - [`catalog`]: the site's recorded truth, changed by commands and read by everyone;
//! - [`replication`]: one placement group: how a coordinator keeps its copies the same;
//! - [`volume`]: the coordinator, which orders what front ends ask of a volume.

pub mod catalog;
pub mod replication;
#[cfg(test)]
mod stories;
pub mod volume;
