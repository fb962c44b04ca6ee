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

/// How many placement groups of a pool or volume are how. `whole`, `degraded`, `waiting` and `unreachable` are all of them; the others count some of these again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgStates {
    pub all: u32,
    /// They have all copies, and all of them are reached.
    pub whole: u32,
    /// Copies are missing or out of reach; what they have is served.
    pub degraded: u32,
    /// Fewer copies than `min_copies` are reached: writes may wait.
    pub waiting: u32,
    /// No copy is reached: reads and writes wait.
    pub unreachable: u32,
    /// Of `unreachable`, those whose last copies were on disks that were taken out of service: waiting alone does not bring them back.
    #[serde(default)]
    pub lost: u32,
    /// A copy is being made or filled.
    pub filling: u32,
    /// Of `filling`, those that are whole: a copy moves to another disk.
    #[serde(default)]
    pub moving: u32,
}

impl PgStates {
    /// Those that are not whole.
    pub fn lacking(&self) -> u32 {
        self.all - self.whole.min(self.all)
    }
}

/// Why a disk does not give its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// It was taken out of service.
    OutOfService,
    /// It was away for so long that its copies are made anew elsewhere.
    Missing,
    /// Its node does not answer the one that was asked.
    NodeUnreachable,
    /// Its copies were left out, because it failed or fell behind, and are not filled yet.
    LeftOut,
    /// Its copies are being filled.
    Filling,
}

/// A disk whose copies are lacking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LackingDisk {
    pub disk: u32,
    pub node: String,
    pub why: Lack,
    /// How many placement groups lack the copy there.
    pub pgs: u32,
}

/// A disk on which copies are being made or filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilledDisk {
    pub disk: u32,
    pub node: String,
    pub pgs: u32,
}

/// Copies that are being made, or follow by themselves, and how long that takes. Bytes are those of chunks, of 64 KiB each, however much of one was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// How many copies of placement groups are to be made or filled.
    pub copies: u32,
    /// Of these, those of which a node that answers knows what they lack.
    pub known_copies: u32,
    /// What is to be filled at most; nothing where that is not known of all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_bytes_max: Option<u64>,
    /// What was filled a second, at all nodes together, over the last half minute; nothing where nothing was filled, or not for 3 s yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// How long it takes still, where both are known and it goes on like that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
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
    /// How many bytes a second each of its disks may be filled with, whatever for; nothing: as many as guests leave room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild_limit_bytes_per_second: Option<u64>,
    pub disks: u32,
    /// What the disks have, in bytes; of what is promised, each byte takes `copies` of these.
    pub capacity_bytes: u64,
    pub promised_bytes: u64,
    pub pgs: PgStates,
    /// Why it is not whole, and what is done about it; empty where it is.
    #[serde(default)]
    pub reason: String,
    /// Since when it is not whole, as this daemon first saw it: seconds since 1970-01-01 UTC. Nothing where it is whole, or was not looked at since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_seconds: Option<u64>,
    /// What placement groups that are not whole hold at most: their part of what volumes were promised, where these are written evenly.
    #[serde(default)]
    pub lacking_bytes_max: u64,
    /// Of placement groups that are not whole, where copies are lacking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<LackingDisk>,
    /// Where copies are being made or filled, of placement groups that are whole too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<FilledDisk>,
    /// The copies that are being made, whether it is whole or not; nothing where there are none, and where this is how it would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<Rebuild>,
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
    /// How many bytes a second each of its disks may be filled with; 0 for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild_limit_bytes_per_second: Option<u64>,
    /// Nothing is changed: how the pool would be is answered, or why it cannot be so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
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
    /// As in [`PoolSet`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

fn one() -> u32 {
    1
}

fn node_level() -> Level {
    Level::Node
}
