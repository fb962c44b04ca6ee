//! The units of space: sector, block, chunk, extent, and runs of blocks inside one chunk.

use super::ids::{FamilyId, LayerId};
use serde::{Deserialize, Serialize};

/// A logical sector, the smallest unit a front end may address, in bytes.
pub const SECTOR: u64 = 512;
/// A block, the unit of checksums and of everything below the coordinator, in bytes.
pub const BLOCK: u64 = 4096;
/// A chunk, the unit of allocation on a disk and of write atomicity, in bytes.
pub const CHUNK: u64 = 64 * 1024;
/// An extent, the unit that is mapped to a placement group as a whole, in bytes.
pub const EXTENT: u64 = 4 * 1024 * 1024;
/// Blocks in a chunk.
pub const BLOCKS_PER_CHUNK: u32 = (CHUNK / BLOCK) as u32;
/// Chunks in an extent.
pub const CHUNKS_PER_EXTENT: u32 = (EXTENT / CHUNK) as u32;

/// A block of a volume, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockNo(pub u64);

/// A chunk of a volume, counted from its start.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ChunkNo(pub u64);

/// A chunk of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId {
    pub family: FamilyId,
    pub layer: LayerId,
    pub chunk: ChunkNo,
}

/// An extent of a volume, counted from its start: 32 bits hold a volume of 16 PiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExtentNo(pub u32);

impl ChunkNo {
    /// The chunk that holds the byte at `offset` of a volume.
    pub fn of_byte(offset: u64) -> ChunkNo {
        ChunkNo(offset / CHUNK)
    }

    /// The extent that holds this chunk.
    pub fn extent(self) -> ExtentNo {
        ExtentNo((self.0 / u64::from(CHUNKS_PER_EXTENT)) as u32)
    }

    /// This chunk's place in its extent, 0 to 63.
    pub fn in_extent(self) -> usize {
        (self.0 % u64::from(CHUNKS_PER_EXTENT)) as usize
    }

    /// The block at place `index` (0 to 15) of this chunk.
    pub fn block(self, index: u32) -> BlockNo {
        debug_assert!(index < BLOCKS_PER_CHUNK);
        BlockNo(self.0 * u64::from(BLOCKS_PER_CHUNK) + u64::from(index))
    }
}

impl ExtentNo {
    /// The chunk at place `index` (0 to 63) of this extent.
    pub fn chunk(self, index: usize) -> ChunkNo {
        ChunkNo(u64::from(self.0) * u64::from(CHUNKS_PER_EXTENT) + index as u64)
    }
}

/// A non-empty run of blocks inside one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRun {
    first: u8,
    count: u8,
}

impl BlockRun {
    /// All 16 blocks of a chunk.
    pub const WHOLE: BlockRun = BlockRun {
        first: 0,
        count: BLOCKS_PER_CHUNK as u8,
    };

    /// Blocks `first .. first + count`; `None` where that is empty or leaves the chunk.
    pub fn new(first: u32, count: u32) -> Option<BlockRun> {
        let inside = count > 0 && first < BLOCKS_PER_CHUNK && count <= BLOCKS_PER_CHUNK - first;
        inside.then_some(BlockRun {
            first: first as u8,
            count: count as u8,
        })
    }

    /// The first block's place in the chunk, 0 to 15.
    pub fn first(self) -> u32 {
        u32::from(self.first)
    }

    /// How many blocks, 1 to 16.
    pub fn count(self) -> u32 {
        u32::from(self.count)
    }

    /// One past the last block's place, 1 to 16.
    pub fn end(self) -> u32 {
        self.first() + self.count()
    }

    /// Whether this is the chunk as a whole.
    pub fn is_whole(self) -> bool {
        self.count() == BLOCKS_PER_CHUNK
    }

    /// A bit for each block of the run.
    pub fn mask(self) -> u16 {
        (((1u32 << self.count) - 1) << self.first) as u16
    }

    /// The places of the run's blocks.
    pub fn blocks(self) -> std::ops::Range<u32> {
        self.first()..self.end()
    }

    /// The runs of consecutive set bits of `mask`, in order.
    pub fn runs_of(mask: u16) -> impl Iterator<Item = BlockRun> {
        let mut left = u32::from(mask);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let first = left.trailing_zeros();
            let count = (left >> first).trailing_ones();
            let run = BlockRun {
                first: first as u8,
                count: count as u8,
            };
            left &= !u32::from(run.mask());
            Some(run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_refused_where_it_leaves_the_chunk() {
        assert!(BlockRun::new(0, 0).is_none());
        assert!(BlockRun::new(16, 1).is_none());
        assert!(BlockRun::new(15, 2).is_none());
        assert!(BlockRun::new(1, u32::MAX).is_none());
        assert_eq!(BlockRun::new(0, 16), Some(BlockRun::WHOLE));
    }

    #[test]
    fn the_runs_of_a_mask_cover_it_exactly_once() {
        for mask in 0..=u16::MAX {
            let mut seen = 0u16;
            for run in BlockRun::runs_of(mask) {
                assert_eq!(seen & run.mask(), 0);
                seen |= run.mask();
            }
            assert_eq!(seen, mask);
        }
    }

    #[test]
    fn a_chunk_knows_its_extent_and_place() {
        let chunk = ChunkNo::of_byte(3 * EXTENT + 5 * CHUNK + 17);
        assert_eq!((chunk.extent(), chunk.in_extent()), (ExtentNo(3), 5));
        assert_eq!(chunk.extent().chunk(5), chunk);
        assert_eq!(chunk.block(2).0, chunk.0 * 16 + 2);
    }
}
