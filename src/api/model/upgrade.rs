//! The daemon's replacement by another binary.

use serde::{Deserialize, Serialize};

/// `POST /v1/upgrade`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// By default what lies now where the running binary came from.
    #[serde(default)]
    pub binary: Option<String>,
    /// The binary is tried, and nothing is done: what would become of it is answered, and whether I/O would wait.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What the next binary says of itself: the answer of `sarsen daemon --check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub version: String,
    /// The forms of a hand-over that it reads.
    pub handover_forms: Vec<u32>,
}

/// Whether a node may be away for a moment: the truth that its maintenance goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Why I/O would wait for as long as it is away; empty where it would not, but for the pause of what is used on it.
    pub reason: String,
    /// The placement groups that would wait, by their numbers, and the volumes that have a part of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pgs: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Pools that lack copies now. Where nothing waits all the same, it is better to wait until they are whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools_lacking: Vec<String>,
}

/// An upgrade that has begun, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrading {
    pub binary: String,
    pub from_version: String,
    pub to_version: String,
    /// Whether guests' connections are handed over; where they are not, guests connect again.
    pub hands_over: bool,
    /// Where this answers `dry_run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
}
