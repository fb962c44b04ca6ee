//! What this shard counts of its volumes' operations.
//!
//! Kept by the desk, so that whoever makes requests and answers them can count. The registry is asked once a volume.

use crate::base::{FixedMap, VolumeId};
use crate::observe::{Registry, VolumeStats};
use crate::shard::ShardNo;
use std::sync::Arc;

pub(super) struct Counters {
    registry: Arc<Registry>,
    volumes: FixedMap<VolumeId, Arc<VolumeStats>>,
}

impl Counters {
    pub fn new(registry: Arc<Registry>) -> Counters {
        Counters {
            registry,
            volumes: FixedMap::default(),
        }
    }

    /// The counters of a volume that the shard `me` writes.
    pub fn of(&mut self, volume: VolumeId, me: ShardNo) -> &VolumeStats {
        if !self.volumes.contains_key(&volume) {
            // Volumes that were deleted are known here only.
            self.volumes.retain(|_, stats| Arc::strong_count(stats) > 1);
            let stats = self.registry.volume(volume, usize::from(me.0));
            self.volumes.insert(volume, stats);
        }
        &self.volumes[&volume]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Operation;

    #[test]
    fn what_is_counted_is_found_in_the_registry_and_deleted_volumes_are_forgotten() {
        let registry = Arc::new(Registry::default());
        let me = ShardNo(3);
        let mut counters = Counters::new(Arc::clone(&registry));
        counters.of(VolumeId(1), me).failed(Operation::Read);
        counters.of(VolumeId(1), me).failed(Operation::Read);
        assert_eq!(registry.totals(VolumeId(1), Operation::Read).errors, 2);
        registry.forget_volume(VolumeId(1));
        counters.of(VolumeId(2), me);
        assert_eq!(counters.volumes.len(), 1);
    }
}
