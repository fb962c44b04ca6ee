//! The daemon's replacement by another binary.

use serde::{Deserialize, Serialize};

/// `POST /v1/upgrade`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// By default what lies now where the running binary came from.
    #[serde(default)]
    pub binary: Option<String>,
}

/// What the next binary says of itself: the answer of `sarsen daemon --check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub version: String,
    /// The forms of a hand-over that it reads.
    pub handover_forms: Vec<u32>,
}

/// An upgrade that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrading {
    pub binary: String,
    pub from_version: String,
    pub to_version: String,
    /// Whether guests' connections are handed over; where they are not, guests connect again.
    pub hands_over: bool,
}
