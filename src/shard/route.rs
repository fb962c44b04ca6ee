//! Which shard of this node coordinates an extent: on a node that is alone the one that has the disk of its PG, on one of a cluster that
//! of the PG's number ([`coordinator_of`]).
//!
//! Each shard has a router of its own, and the control plane has one; all are told the same changes. A router that
//! is behind sends a request to a shard that does not coordinate the extent, which refuses it: *a wrong
//! way is an error, never wrong data*.

use super::remote::coordinator_of;
use crate::base::{ChunkNo, DiskId, EXTENT, FamilyId, FixedMap, PgId, VolumeId};
use crate::protocol::volume::pg_of;
use std::time::Duration;

/// A shard's place among those of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardNo(pub u16);

/// What a router is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChange {
    /// A shard has this disk.
    Place { disk: DiskId, shard: ShardNo },
    /// A volume is served, or has another size; its PGs in the order of their numbers.
    Open {
        volume: VolumeId,
        family: FamilyId,
        /// In bytes.
        size: u64,
        pgs: Vec<(PgId, DiskId)>,
    },
    /// The same on a node of a cluster, of so many shards.
    Serve {
        volume: VolumeId,
        family: FamilyId,
        /// In bytes.
        size: u64,
        pgs: Vec<PgId>,
        shards: u16,
    },
    /// A volume is not served any more.
    Close { volume: VolumeId },
    /// After this time without an answer, requests of a volume are answered with an error; without one they wait.
    TimeOut {
        volume: VolumeId,
        after: Option<Duration>,
    },
}

/// The shards of every open volume's PGs. Requests are split at extents only where their volume lies on several
/// shards.
#[derive(Debug, Clone, Default)]
pub struct Router {
    disks: FixedMap<DiskId, ShardNo>,
    volumes: FixedMap<VolumeId, Routes>,
    timeouts: FixedMap<VolumeId, Duration>,
}

/// The shards of one volume.
#[derive(Debug, Clone)]
pub struct Routes {
    family: FamilyId,
    size: u64,
    shards: Vec<ShardNo>,
    /// The only shard, where there is one.
    only: Option<ShardNo>,
}

impl Router {
    /// Takes a change in. What lies on a disk that no shard has is answered, with an error, by a shard that serves the
    /// rest of the volume.
    pub fn apply(&mut self, change: &RouteChange) {
        match change {
            RouteChange::Place { disk, shard } => {
                self.disks.insert(*disk, *shard);
            }
            RouteChange::Open {
                volume,
                family,
                size,
                pgs,
            } => {
                let known = || pgs.iter().map(|(_, disk)| self.disk(*disk));
                let other = known().flatten().next().unwrap_or(ShardNo(0));
                let shards: Vec<_> = known().map(|shard| shard.unwrap_or(other)).collect();
                let routes = Routes::new(*family, *size, shards);
                self.volumes.insert(*volume, routes);
            }
            RouteChange::Serve {
                volume,
                family,
                size,
                pgs,
                shards,
            } => {
                let of = |&pg: &PgId| coordinator_of(pg, *shards);
                let routes = Routes::new(*family, *size, pgs.iter().map(of).collect());
                self.volumes.insert(*volume, routes);
            }
            RouteChange::Close { volume } => {
                self.volumes.remove(volume);
            }
            RouteChange::TimeOut { volume, after } => match after {
                Some(after) => drop(self.timeouts.insert(*volume, *after)),
                None => drop(self.timeouts.remove(volume)),
            },
        }
    }

    /// The shard that has a disk.
    pub fn disk(&self, disk: DiskId) -> Option<ShardNo> {
        self.disks.get(&disk).copied()
    }

    /// Whether any volume's requests do not wait for ever.
    pub fn has_timeouts(&self) -> bool {
        !self.timeouts.is_empty()
    }

    /// After what time requests of a volume are answered with an error.
    pub fn timeout(&self, volume: VolumeId) -> Option<Duration> {
        self.timeouts.get(&volume).copied()
    }

    /// The shards of a volume that is open.
    pub fn volume(&self, volume: VolumeId) -> Option<&Routes> {
        self.volumes.get(&volume)
    }
}

impl Routes {
    fn new(family: FamilyId, size: u64, shards: Vec<ShardNo>) -> Routes {
        let first = shards.first().copied();
        Routes {
            family,
            size,
            only: first.filter(|first| shards.iter().all(|shard| shard == first)),
            shards,
        }
    }

    /// The volume's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Every shard that has a part of the volume, each once, in their order.
    pub fn shards(&self) -> Vec<ShardNo> {
        let mut shards = self.shards.clone();
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// Whether a shard has a part of the volume.
    pub fn is_on(&self, shard: ShardNo) -> bool {
        self.shards.contains(&shard)
    }

    /// The shard for the byte at `offset`, and up to which byte it is the same one: `end`, where that is so for all of
    /// the range.
    pub fn run(&self, offset: u64, end: u64) -> (ShardNo, u64) {
        if let Some(only) = self.only {
            return (only, end);
        }
        let shard = self.shard_of(offset);
        let mut until = (offset / EXTENT + 1) * EXTENT;
        while until < end && self.shard_of(until) == shard {
            until += EXTENT;
        }
        (shard, until.min(end))
    }

    fn shard_of(&self, offset: u64) -> ShardNo {
        // A volume without PGs has no shard of its own: the first one refuses what is asked of it.
        if self.shards.is_empty() {
            return ShardNo(0);
        }
        let extent = ChunkNo::of_byte(offset).extent();
        self.shards[pg_of(self.family, extent, self.shards.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(disks: &[(u32, u16)], pgs: u32) -> Router {
        let mut router = Router::default();
        for &(disk, shard) in disks {
            let (disk, shard) = (DiskId(disk), ShardNo(shard));
            router.apply(&RouteChange::Place { disk, shard });
        }
        let disk = |n: u32| DiskId(disks[n as usize % disks.len()].0);
        router.apply(&RouteChange::Open {
            volume: VolumeId(1),
            family: FamilyId(1),
            size: 1 << 30,
            pgs: (0..pgs).map(|n| (PgId(n), disk(n))).collect(),
        });
        router
    }

    #[test]
    fn a_volume_on_one_shard_is_not_split() {
        let mut router = router(&[(4, 1)], 2);
        let routes = router.volume(VolumeId(1)).unwrap();
        assert_eq!(routes.run(123, 1 << 30), (ShardNo(1), 1 << 30));
        assert_eq!(routes.shards(), [ShardNo(1)]);
        assert!(router.volume(VolumeId(2)).is_none());
        let volume = VolumeId(1);
        router.apply(&RouteChange::Close { volume });
        assert!(router.volume(volume).is_none());
    }

    #[test]
    fn in_a_cluster_an_extent_goes_to_the_shard_of_its_pgs_number_wherever_its_disks_are() {
        let mut router = Router::default();
        let volume = VolumeId(1);
        router.apply(&RouteChange::Serve {
            volume,
            family: FamilyId(1),
            size: 1 << 30,
            pgs: [5, 8, 11, 12].map(PgId).to_vec(),
            shards: 3,
        });
        let routes = router.volume(volume).unwrap();
        assert_eq!(routes.shards(), [ShardNo(0), ShardNo(2)]);
        for extent in 0..64 {
            let place = pg_of(FamilyId(1), ChunkNo::of_byte(extent * EXTENT).extent(), 4);
            let shard = ShardNo([2, 2, 2, 0][place]);
            assert_eq!(routes.run(extent * EXTENT, extent * EXTENT + 1).0, shard);
        }
    }

    #[test]
    fn an_extent_goes_to_the_shard_that_has_its_disk() {
        let router = router(&[(0, 0), (1, 1)], 32);
        let routes = router.volume(VolumeId(1)).unwrap();
        let end = 100 * EXTENT;
        let (mut at, mut seen) = (5, [0; 2]);
        while at < end {
            let (shard, until) = routes.run(at, end);
            assert!(until > at && until <= end);
            assert!(until == end || until.is_multiple_of(EXTENT));
            // Neighbours of one shard are one run, and what follows is another shard's.
            for extent in at / EXTENT..until.div_ceil(EXTENT) {
                let (same, _) = routes.run(extent * EXTENT, extent * EXTENT + 1);
                assert_eq!(same, shard);
            }
            assert!(until == end || routes.run(until, end).0 != shard);
            seen[usize::from(shard.0)] += 1;
            at = until;
        }
        assert!(seen.iter().all(|runs| *runs > 10), "{seen:?}");
        assert_eq!(routes.shards(), [ShardNo(0), ShardNo(1)]);
    }

    #[test]
    fn what_lies_on_a_disk_that_no_shard_has_goes_to_a_shard_of_the_volume() {
        let mut router = router(&[(7, 3)], 4);
        let pgs = [7, 8, 9].map(|disk| (PgId(disk), DiskId(disk)));
        router.apply(&RouteChange::Open {
            volume: VolumeId(1),
            family: FamilyId(1),
            size: 1 << 30,
            pgs: pgs.to_vec(),
        });
        assert_eq!(router.volume(VolumeId(1)).unwrap().shards(), [ShardNo(3)]);
    }

    #[test]
    fn a_range_inside_one_extent_is_one_run() {
        let router = router(&[(0, 0), (1, 1)], 32);
        let routes = router.volume(VolumeId(1)).unwrap();
        assert_eq!(routes.run(EXTENT + 1, EXTENT + 2).1, EXTENT + 2);
        assert_eq!(routes.run(7, 7).1, 7);
    }
}
