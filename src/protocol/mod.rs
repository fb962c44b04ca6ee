#![forbid(unsafe_code)]
//! The protocols, pure: each a deterministic machine with no clock, no socket, no file.
//!
//! - [`catalog`]: the site's recorded truth, changed by commands and read by everyone;
//! - [`cuts`]: when a volume changes its layer for a snapshot, and when the snapshot has been taken;
//! - [`membership`]: liveness of nodes: one lease a node with the manager, and who is believed when nodes accuse one another;
//! - [`placement`]: which disks hold the replicas of which placement group;
//! - [`replication`]: one placement group: how a coordinator keeps its copies the same;
//! - [`report`]: what a node tells the manager's leader;
//! - [`scrub`]: damage: what one replica has lost, another gives back;
//! - [`steward`]: what the manager's leader decides about replicas: who is taken out, who joins, what moves;
//! - [`turns`]: which volumes a node serves, and under which epoch;
//! - [`volume`]: the coordinator, which orders what front ends ask of a volume.

pub mod catalog;
pub mod cuts;
pub mod membership;
pub mod placement;
pub mod replication;
pub mod report;
pub mod scrub;
pub mod steward;
#[cfg(test)]
mod stories;
pub mod turns;
pub mod volume;
