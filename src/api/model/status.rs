//! The state of things: nodes and alerts.

use serde::{Deserialize, Serialize};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    /// Of the daemon, on its host.
    pub pid: u32,
    /// `serving`, `starting` or `stopping`.
    pub state: String,
    pub version: String,
    pub uptime_seconds: u64,
    pub shards: u32,
}

/// `GET /v1/nodes`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeList {
    pub nodes: Vec<NodeStatus>,
}

/// Something that a person should know and can do something about. It is there as long as its cause is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What it is, for programs: `disk-failed`, `rotten-block`, ...
    pub name: String,
    /// What it is about: a disk, a volume, a pool.
    pub subject: String,
    /// Seconds since 1970-01-01 UTC.
    pub since_unix_seconds: u64,
    pub reason: String,
    pub cure: String,
    /// How often it was seen since.
    pub count: u64,
}

/// `GET /v1/alerts`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertList {
    pub alerts: Vec<Alert>,
}

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the process that answers: another one has another, whatever its pid.
    #[serde(default)]
    pub instance: String,
    pub nodes: Vec<NodeStatus>,
    pub disks: u32,
    /// Of these, disks that do not serve.
    #[serde(default)]
    pub failed_disks: u32,
    pub volumes: u32,
    /// Of these, volumes that are not whole.
    #[serde(default)]
    pub degraded_volumes: u32,
    /// Front-end connections of all volumes.
    pub connections: u64,
    /// Volumes that are attached, as guests' disks or devices.
    #[serde(default)]
    pub attachments: u32,
    /// Of these, attachments that nothing serves.
    #[serde(default)]
    pub failed_attachments: u32,
    /// What the disks of the pool have.
    pub capacity_bytes: u64,
    /// What was promised to volumes.
    pub promised_bytes: u64,
    /// What of the capacity that is, with all copies.
    #[serde(default)]
    pub taken_bytes: u64,
    /// The socket that NBD clients connect to.
    pub nbd_socket: String,
    /// The other nodes; nothing where this one is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<super::ClusterStatus>,
    /// Those that are not whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded_pools: Vec<super::Pool>,
    /// Those that are whole, and of which copies move to other disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moving_pools: Vec<super::Pool>,
    pub alerts: Vec<Alert>,
}
