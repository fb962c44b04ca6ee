//! Which shard serves a byte of a volume.
//!
//! The table is read when a client attaches and for requests of the control plane, never on the path of a
//! client's request: those remember the answer.

use crate::base::VolumeId;
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// A shard's place in the runtime's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardNo(pub usize);

/// The shards of the volumes that are open.
#[derive(Debug, Default)]
pub struct Routes {
    home: RwLock<BTreeMap<VolumeId, ShardNo>>,
}

impl Routes {
    /// The shard that a request of `volume` at `offset` goes to; `None` where the volume is not open.
    ///
    /// A volume lives on the shard that opened it. Where its PGs are on disks of several shards,
    /// the answer will depend on the offset's extent.
    pub fn route(&self, volume: VolumeId, _offset: u64) -> Option<ShardNo> {
        let home = self.home.read().unwrap_or_else(PoisonError::into_inner);
        home.get(&volume).copied()
    }

    pub fn open(&self, volume: VolumeId, shard: ShardNo) {
        let mut home = self.home.write().unwrap_or_else(PoisonError::into_inner);
        home.insert(volume, shard);
    }

    pub fn close(&self, volume: VolumeId) {
        let mut home = self.home.write().unwrap_or_else(PoisonError::into_inner);
        home.remove(&volume);
    }
}
