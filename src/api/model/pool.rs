//! Pools: how many copies there are of what lies in them, and how whole those are.

use serde::{Deserialize, Serialize};

/// How far apart the copies of one thing lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// On different disks.
    Disk,
    /// On different nodes.
    Node,
    /// In different racks.
    Rack,
}

/// How many placement groups are how. One that is moved or rebuilt may be anything else as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolPgs {
    pub all: u32,
    /// They have all copies, and all of them are reached.
    pub whole: u32,
    /// Copies are missing or out of reach; what they have is served.
    pub degraded: u32,
    /// Fewer copies than `min_copies` are reached: writes may wait.
    pub waiting: u32,
    /// No copy is reached: reads and writes wait.
    pub unreachable: u32,
    /// A copy is being made or filled.
    pub filling: u32,
}

/// A pool. `GET /v1/pools/NAME`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub name: String,
    pub copies: u32,
    /// The fewest copies in sync that are left when others are taken out.
    pub min_copies: u32,
    pub level: Level,
    /// How much may be promised of what there is; 100: not more.
    pub overcommit_percent: u32,
    pub disks: u32,
    /// What the disks have, in bytes; of what is promised, each byte takes `copies` of these.
    pub capacity_bytes: u64,
    pub promised_bytes: u64,
    pub pgs: PoolPgs,
    /// Why it is not whole, and what is done about it; empty where it is.
    #[serde(default)]
    pub reason: String,
}

/// `GET /v1/pools`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolList {
    pub pools: Vec<Pool>,
}

/// `PATCH /v1/pools/NAME`: what is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSet {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_copies: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overcommit_percent: Option<u32>,
}

/// `POST /v1/pools`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolCreate {
    pub name: String,
    pub copies: u32,
    #[serde(default = "one")]
    pub min_copies: u32,
    #[serde(default = "node_level")]
    pub level: Level,
}

fn one() -> u32 {
    1
}

fn node_level() -> Level {
    Level::Node
}
