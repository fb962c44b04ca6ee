#![forbid(unsafe_code)]
//! The protocols, pure: each a deterministic machine with no clock, no socket, no file.
//!
//! - [`catalog`]: the site's recorded truth, changed by commands and read by everyone;
//! - [`membership`]: who is alive: one lease a node with the manager, clocks, accusations;
//! - [`volume`]: the coordinator, which orders what front ends ask of a volume.

pub mod catalog;
pub mod membership;
pub mod volume;
