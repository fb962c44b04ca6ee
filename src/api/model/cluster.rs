//! The cluster: its nodes, and how one comes to it.

use super::Maintenance;
use serde::{Deserialize, Serialize};

/// `GET /v1/cluster`, and part of the status: the cluster as the node that answers sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// 32 hexadecimal digits.
    pub id: String,
    /// The name of the node that answers.
    pub node: String,
    /// Who leads the manager; nothing where this node hears of nobody who does, and then the catalog takes no changes.
    pub leader: Option<String>,
    pub nodes: Vec<ClusterNode>,
    /// What would be changed, where this answers `dry_run` of a change of the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<MembersChange>,
}

/// How the manager's members would change, by the names of nodes. Most of them answer the node that was asked; else it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersChange {
    /// All of them, as they would be.
    pub members: Vec<String>,
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// Of `members`, those that do not answer.
    pub silent: Vec<String>,
}

/// A node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNode {
    pub id: u32,
    pub name: String,
    /// Where others reach it, as `host:port`.
    pub addresses: Vec<String>,
    /// `member` (it has a vote), `learner` (it is about to get one) or `follower`.
    pub role: String,
    pub leads: bool,
    /// `this`, `reachable`, `unreachable` or `unknown` (nobody has looked yet).
    pub state: String,
    /// Since when it is `reachable` or `unreachable`: seconds since 1970-01-01 UTC.
    pub since_unix_seconds: Option<u64>,
    /// Why it is `unreachable`; empty else.
    pub reason: String,
    /// How many entries of the manager's log its catalog was behind when it was last asked.
    pub lag: Option<u64>,
    pub version: Option<String>,
    /// Not there where nobody works at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
}

/// `POST /v1/cluster`: a cluster was made of this node, or was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFounded {
    pub id: String,
    /// Where other nodes reach this one.
    pub address: String,
    /// Whether it was there before, and nothing has changed.
    pub existed: bool,
}

/// `POST /v1/cluster/tokens`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterTokenMake {
    pub expires_seconds: u64,
}

/// A token, with which one machine may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterToken {
    pub token: String,
    /// When it ends, for people.
    pub expires: String,
    /// Whom a joiner asks, as `host:port`.
    pub address: String,
}

/// `POST /v1/cluster/join`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterJoin {
    /// Of a member, as `host:port`.
    pub address: String,
    pub token: String,
}

/// The daemon is of the cluster, and starts again for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterJoined {
    /// Its number.
    pub node: u32,
    pub name: String,
}

/// `PUT /v1/cluster/members`: these nodes, by name or number, are the manager's members from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterMembersSet {
    pub nodes: Vec<String>,
    /// Nothing is changed: who would be added and removed is answered, or why it cannot be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}
