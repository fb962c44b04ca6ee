//! Which shard of this node coordinates an extent: the one that has the disk of its PG.

use crate::base::{ChunkNo, DiskId, EXTENT, FamilyId, FixedMap, PgId, VolumeId};
use crate::protocol::volume::pg_of;

/// The shards of every open volume's PGs. Front ends split a request at extents only where its
/// volume lies on several shards.
#[derive(Debug, Clone, Default)]
pub struct Router {
    disks: FixedMap<DiskId, u16>,
    volumes: FixedMap<VolumeId, Routes>,
}

#[derive(Debug, Clone)]
struct Routes {
    family: FamilyId,
    shards: Vec<u16>,
    /// The only shard, where there is one.
    only: Option<u16>,
}

impl Router {
    /// Notes which shard has a disk.
    pub fn place_disk(&mut self, disk: DiskId, shard: u16) {
        self.disks.insert(disk, shard);
    }

    /// Notes a volume with its PGs; a disk that no shard has answers on shard 0, with an error.
    pub fn open(&mut self, volume: VolumeId, family: FamilyId, pgs: &[(PgId, DiskId)]) {
        let shard = |disk| self.disks.get(disk).copied().unwrap_or(0);
        let shards: Vec<u16> = pgs.iter().map(|(_, disk)| shard(disk)).collect();
        let only = shards
            .first()
            .copied()
            .filter(|first| shards.iter().all(|s| s == first));
        self.volumes.insert(
            volume,
            Routes {
                family,
                shards,
                only,
            },
        );
    }

    pub fn close(&mut self, volume: VolumeId) {
        self.volumes.remove(&volume);
    }

    /// The shard for the byte at `offset`, and up to which byte of the volume it is the same one.
    pub fn shard_of(&self, volume: VolumeId, offset: u64) -> Option<(u16, u64)> {
        let routes = self.volumes.get(&volume)?;
        if let Some(only) = routes.only {
            return Some((only, u64::MAX));
        }
        let extent = ChunkNo::of_byte(offset).extent();
        let pg = pg_of(routes.family, extent, routes.shards.len());
        Some((routes.shards[pg], (u64::from(extent.0) + 1) * EXTENT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_on_one_shard_is_not_split() {
        let mut router = Router::default();
        router.place_disk(DiskId(4), 1);
        router.open(
            VolumeId(1),
            FamilyId(1),
            &[(PgId(0), DiskId(4)), (PgId(1), DiskId(4))],
        );
        assert_eq!(router.shard_of(VolumeId(1), 123), Some((1, u64::MAX)));
        assert_eq!(router.shard_of(VolumeId(2), 0), None);
    }

    #[test]
    fn an_extent_goes_to_the_shard_that_has_its_disk() {
        let mut router = Router::default();
        router.place_disk(DiskId(0), 0);
        router.place_disk(DiskId(1), 1);
        let pgs: Vec<_> = (0..32).map(|n| (PgId(n), DiskId(n % 2))).collect();
        router.open(VolumeId(1), FamilyId(1), &pgs);
        let shards: Vec<_> = (0..100)
            .map(|n| router.shard_of(VolumeId(1), n * EXTENT + 5).unwrap())
            .collect();
        assert!(shards.iter().any(|s| s.0 == 0) && shards.iter().any(|s| s.0 == 1));
        assert_eq!(shards[3].1, 4 * EXTENT);
    }
}
