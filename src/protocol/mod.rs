#![forbid(unsafe_code)]
//! The protocols, pure: each a deterministic machine with no clock, no socket, no file.
//!
//! - [`catalog`]: the site's recorded truth, changed by commands and read by everyone;
//! - [`placement`]: which disks hold the replicas of which PG;
//! - [`volume`]: the coordinator, which orders what front ends ask of a volume.

pub mod catalog;
pub mod placement;
pub mod volume;
