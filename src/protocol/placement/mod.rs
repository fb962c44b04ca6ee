#![forbid(unsafe_code)]
//! Placement: which disks hold the replicas of which PG of a pool.

mod assignment;
mod change;
mod cluster;
mod count;
mod fill;
mod layout;
mod measure;
mod pairs;
mod repair;
mod replicas;
mod share;
mod shed;
mod solve;
mod weighted;

#[cfg(test)]
mod tests;

pub use change::{Change, Need, apply};
pub use cluster::{
    COPIES_MAX, Cluster, DISKS_MAX, Disk, DiskState, Level, NODES_MAX, PGS_MAX, PgReplicas, Pool,
    RackId, REPLICAS_MAX, Refusal, WEIGHT_MAX,
};
pub use count::{GROWTH_MAX, LOCAL_PGS_MIN, REPLICAS_A_DISK, REPLICAS_MIN, pgs_wanted};
pub use measure::{Balance, Local, Measure, Partners, measure};
pub use solve::{Plan, solve};
