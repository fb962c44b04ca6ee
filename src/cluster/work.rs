//! What each node says of its disks and of copies that are being made there, once a second with its being there: what one node alone could not tell people of a
//! rebuild. An older build says nothing of it, and takes no harm from what it does not know.

use super::site::{Cluster, lock};
use crate::base::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one node says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Its disks that are open, by their numbers.
    #[serde(default)]
    pub disks: BTreeMap<u32, DiskWork>,
    /// By the numbers of pools.
    #[serde(default)]
    pub pools: BTreeMap<u32, PoolWork>,
}

/// How full a disk is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskWork {
    /// Room for payload.
    pub capacity_bytes: u64,
    /// Of it, what is in use.
    pub used_bytes: u64,
}

/// Copies of one pool that are being made from, or at, one node. Bytes are those of chunks: 64 KiB each, however much of one was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolWork {
    /// Copies that are to be made from ones of this node, and of which it knows what they lack.
    pub known: u32,
    /// What these lack, were nothing of them filled yet.
    pub lacking_bytes: u64,
    /// What copies that are being filled at this node have got.
    pub filled_bytes: u64,
    /// What was filled at this node a second, over the last while; nothing where that was too short to say, or nothing was filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled_bytes_per_second: Option<u64>,
}

impl Cluster {
    /// Tells others from now on what is done here.
    pub fn set_work(&self, work: Work) {
        *lock(&self.0.work) = work;
    }

    /// What is done at this node, and at those that answer and say it.
    pub fn work(&self) -> BTreeMap<NodeId, Work> {
        let seen = lock(&self.0.seen);
        let answering = seen.iter().filter(|(_, seen)| seen.silent.is_none());
        let said = answering.filter_map(|(node, seen)| Some((*node, seen.here.clone()?.work?)));
        let mut all: BTreeMap<NodeId, Work> = said.collect();
        drop(seen);
        if let Some(me) = self.node() {
            all.insert(me, lock(&self.0.work).clone());
        }
        all
    }
}
