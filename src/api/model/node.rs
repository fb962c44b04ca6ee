//! Nodes, and what operators do with them.

use super::ClusterNode;
use serde::{Deserialize, Serialize};

/// Somebody works at a node: what it holds is not made anew elsewhere meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// When it ends by itself, in seconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_seconds: Option<u64>,
}

/// What a node's disks hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeData {
    /// It has no disk.
    None,
    /// Some of its disks take data.
    Taking,
    /// No disk takes more, and what they hold is moved or made anew elsewhere.
    Leaving,
    /// Nothing is on its disks, and nothing comes.
    Left,
}

/// A node of the catalog, as the node that answers sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The same as in the cluster's status. A node that is alone has the role `alone`.
    #[serde(flatten)]
    pub seen: ClusterNode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// By their numbers.
    pub disks: Vec<u32>,
    /// Of its disks together.
    pub size_bytes: u64,
    /// How many replicas of placement groups are on its disks.
    pub pgs: u32,
    pub data: NodeData,
    /// Volumes that are attached to it, or that it serves, by name.
    pub volumes: Vec<String>,
    /// What would move, where this answers `dry_run` of a drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<super::Moves>,
}

/// `GET /v1/cluster/nodes`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    pub nodes: Vec<Node>,
}

/// `POST /v1/cluster/nodes/NAME/drain`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeDrain {
    /// Its disks are to stay after all.
    #[serde(default)]
    pub undo: bool,
    /// Nothing is changed: what would move is answered, or why it cannot be.
    #[serde(default)]
    pub dry_run: bool,
}

/// Whether somebody works at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    On,
    Off,
}

/// `POST /v1/cluster/nodes/NAME/maintenance`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeMaintenance {
    pub maintenance: Switch,
    /// After how long it ends by itself, counted from now; half an hour where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// Nothing is changed: only whether it could be is answered.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/cluster/nodes/NAME/rack`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRack {
    /// None where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
}

/// The parameters of `DELETE /v1/cluster/nodes/NAME`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRemove {
    /// The node does not answer, and will not come back.
    #[serde(default)]
    pub force: bool,
    /// Nothing is changed: only whether it could be is answered.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRemoved {
    pub name: String,
    /// Whether the cluster has it no more. If not: it was a dry run, or `pgs` are made anew elsewhere first; ask again then.
    pub removed: bool,
    /// How many replicas are on its disks.
    pub pgs: u32,
}
