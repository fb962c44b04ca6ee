//! Where all counters of a process are found.

use super::disk::DiskStats;
use super::link::{LinkNumbers, LinkStats};
use super::shard::{ShardNumbers, ShardStats};
use super::volume::{Operation, VolumeStats, VolumeTotals};
use crate::base::{DiskId, VolumeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Of each volume, those of each shard, and what people call it.
    pub volumes: BTreeMap<VolumeId, (String, BTreeMap<usize, Arc<VolumeStats>>)>,
    pub disks: BTreeMap<DiskId, (String, Arc<DiskStats>)>,
    pub shards: BTreeMap<usize, Arc<ShardStats>>,
    /// Of the shards that have links.
    pub links: BTreeMap<usize, Arc<LinkStats>>,
}

/// All metrics of a process. Locked only when something is added or rendered, never on the path of an I/O.
#[derive(Debug, Default)]
pub struct Registry {
    tables: Mutex<Tables>,
}

impl Registry {
    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of a volume that one shard writes.
    pub fn volume(&self, volume: VolumeId, shard: usize) -> Arc<VolumeStats> {
        let mut tables = self.tables();
        let (_, shards) = tables.volumes.entry(volume).or_default();
        Arc::clone(shards.entry(shard).or_default())
    }

    /// Says what a volume is called in metrics. Until then it is its number.
    pub fn name_volume(&self, volume: VolumeId, name: &str) {
        self.tables().volumes.entry(volume).or_default().0 = name.to_owned();
    }

    /// Forgets a volume's counters.
    pub fn forget_volume(&self, volume: VolumeId) {
        self.tables().volumes.remove(&volume);
    }

    /// What one kind of operation of a volume came to, over all shards.
    pub fn totals(&self, volume: VolumeId, operation: Operation) -> VolumeTotals {
        let mut totals = VolumeTotals::default();
        if let Some((_, shards)) = self.tables().volumes.get(&volume) {
            shards
                .values()
                .for_each(|stats| stats.add_to(operation, &mut totals));
        }
        totals
    }

    /// The numbers of a disk, which its shard sets.
    pub fn disk(&self, disk: DiskId) -> Arc<DiskStats> {
        Arc::clone(&self.tables().disks.entry(disk).or_default().1)
    }

    /// Says where a disk is, for metrics.
    pub fn name_disk(&self, disk: DiskId, path: &str) {
        self.tables().disks.entry(disk).or_default().0 = path.to_owned();
    }

    /// The counters that a shard writes.
    pub fn shard(&self, shard: usize) -> Arc<ShardStats> {
        Arc::clone(self.tables().shards.entry(shard).or_default())
    }

    /// The counters of a shard's links.
    pub fn links(&self, shard: usize) -> Arc<LinkStats> {
        Arc::clone(self.tables().links.entry(shard).or_default())
    }

    /// What the links of each shard have counted, in their order.
    pub fn link_numbers(&self) -> Vec<LinkNumbers> {
        self.tables()
            .links
            .values()
            .map(|stats| stats.get())
            .collect()
    }

    /// What each shard has counted, in their order.
    pub fn shards(&self) -> Vec<ShardNumbers> {
        self.tables()
            .shards
            .values()
            .map(|stats| stats.get())
            .collect()
    }

    /// All metrics as OpenMetrics text.
    pub fn render(&self) -> String {
        super::render::render(self)
    }
}
