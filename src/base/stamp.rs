//! What orders writes and fences writers.

use serde::{Deserialize, Serialize};

/// Fences writers: whose turn at a range this is. They are ordered.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Epoch {
    /// Raised only by a forced take-over.
    pub generation: u32,
    pub site: u32,
    pub host: u32,
}

/// What orders two states of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Of the PG in the cluster map.
    pub version: u32,
    pub epoch: Epoch,
    /// Of the coordinator, never used twice in an epoch.
    pub sequence: u64,
}
