//! What part of the arena is free: the slow path of allocation, behind one lock.
//!
//! The arena is cut into regions of 1 MiB. A region is free, or carved into pieces of one size class (a power
//! of two blocks), or part of a buffer larger than a class. Pieces come from the low end and large buffers from
//! the high end, so that small ones do not break up the room for large ones.

use crate::base::BLOCK;

/// The largest class: 2^8 blocks, a region.
pub(super) const CLASSES: usize = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Free,
    /// Pieces of 2^n blocks.
    Pieces(u8),
    Large,
}

#[derive(Debug, Clone)]
struct Region {
    what: Use,
    /// A bit for each piece that is free.
    free: [u64; 4],
    free_count: u16,
}

/// Who a buffer is for. What clients hold can never keep the disks from moving, because the driver's own
/// buffers (heads of journal batches, metadata) come from regions of their own, and each shard's from its share
/// of them: a driver that waits for memory waits for nobody but itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    Clients,
    /// Of one shard among so many.
    Driver {
        shard: u16,
        shards: u16,
    },
    /// The same, for what its peers were granted to send. What clients hold may wait for peers, so peers must not wait for what
    /// clients hold.
    Peers {
        shard: u16,
        shards: u16,
    },
    /// The same, for what peers answer, and copies of what is said to them. Neither clients nor the asks of peers can take it, so that an ask that has its place
    /// waits for its answer only.
    Rooms {
        shard: u16,
        shards: u16,
    },
}

/// The regions of an arena.
#[derive(Debug)]
pub(super) struct Regions {
    list: Vec<Region>,
    /// The first so many are the driver's.
    driver: usize,
    /// So many behind them are for peers.
    peers: usize,
    /// So many behind those for rooms.
    rooms: usize,
}

/// The class of a buffer of so many blocks; `None` where it is larger than a region.
pub(super) fn class_of(blocks: u32) -> Option<usize> {
    let class = blocks.max(1).next_power_of_two().trailing_zeros() as usize;
    (class < CLASSES).then_some(class)
}

impl Regions {
    /// The size of a region, in bytes.
    pub const BYTES: u64 = 1 << 20;
    /// The same in blocks.
    pub const BLOCKS: u32 = (Regions::BYTES / BLOCK) as u32;

    pub fn new(count: usize, (driver, peers, rooms): (usize, usize, usize)) -> Regions {
        let free = Region {
            what: Use::Free,
            free: [0; 4],
            free_count: 0,
        };
        Regions {
            list: vec![free; count],
            driver,
            peers,
            rooms,
        }
    }

    fn range(&self, zone: Zone) -> std::ops::Range<usize> {
        let share = |all: usize, shard: u16, shards: u16| {
            let from = |shard| all * usize::from(shard) / usize::from(shards);
            from(shard)..from(shard + 1)
        };
        match zone {
            Zone::Driver { shard, shards } => share(self.driver, shard, shards),
            Zone::Peers { shard, shards } => {
                let of = share(self.peers, shard, shards);
                self.driver + of.start..self.driver + of.end
            }
            Zone::Rooms { shard, shards } => {
                let (of, before) = (share(self.rooms, shard, shards), self.driver + self.peers);
                before + of.start..before + of.end
            }
            Zone::Clients => self.driver + self.peers + self.rooms..self.list.len(),
        }
    }

    /// The blocks that are for a zone.
    pub fn blocks(&self, zone: Zone) -> std::ops::Range<u32> {
        let of = self.range(zone);
        of.start as u32 * Regions::BLOCKS..of.end as u32 * Regions::BLOCKS
    }

    fn find(&self, zone: Zone, wanted: impl Fn(&Region) -> bool) -> Option<usize> {
        self.range(zone).find(|&at| wanted(&self.list[at]))
    }

    /// The largest buffer of a zone there can be, in blocks.
    pub fn largest(&self, zone: Zone) -> u32 {
        self.range(zone).len() as u32 * Regions::BLOCKS
    }

    /// Appends up to `count` pieces of a class to `into`: the numbers of their first blocks.
    pub fn take_pieces(&mut self, zone: Zone, class: usize, count: usize, into: &mut Vec<u32>) {
        let mut missing = count;
        while missing > 0 {
            let Some(region) = self.region_with_pieces(zone, class) else {
                return;
            };
            missing -= self.take_from(region, class, missing, into);
        }
    }

    /// A region of this class with a free piece, carved for it where there is none.
    fn region_with_pieces(&mut self, zone: Zone, class: usize) -> Option<usize> {
        let what = Use::Pieces(class as u8);
        let partial = |r: &Region| r.what == what && r.free_count > 0;
        if let Some(found) = self.find(zone, partial) {
            return Some(found);
        }
        let found = self.find(zone, |r| r.what == Use::Free)?;
        let pieces = pieces_of(class);
        let region = &mut self.list[found];
        region.what = what;
        region.free_count = pieces as u16;
        for (n, word) in region.free.iter_mut().enumerate() {
            let bits = pieces.saturating_sub(n * 64).min(64);
            *word = if bits == 64 {
                u64::MAX
            } else {
                (1 << bits) - 1
            };
        }
        Some(found)
    }

    fn take_from(&mut self, at: usize, class: usize, most: usize, into: &mut Vec<u32>) -> usize {
        let region = &mut self.list[at];
        let first = at as u32 * Regions::BLOCKS;
        let mut taken = 0;
        for (n, word) in region.free.iter_mut().enumerate() {
            while *word != 0 && taken < most {
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                into.push(first + ((n as u32 * 64 + bit) << class));
                taken += 1;
            }
        }
        region.free_count -= taken as u16;
        taken
    }

    /// Takes a piece of a class back.
    pub fn give_piece(&mut self, class: usize, block: u32) {
        let region = &mut self.list[(block / Regions::BLOCKS) as usize];
        assert_eq!(
            region.what,
            Use::Pieces(class as u8),
            "a piece goes back to its region"
        );
        let piece = (block % Regions::BLOCKS) >> class;
        let (word, bit) = (&mut region.free[piece as usize / 64], 1 << (piece % 64));
        assert_eq!(*word & bit, 0, "a piece is freed once");
        *word |= bit;
        region.free_count += 1;
        if usize::from(region.free_count) == pieces_of(class) {
            region.what = Use::Free;
        }
    }

    /// A buffer of several regions: the number of its first block.
    pub fn take_large(&mut self, zone: Zone, blocks: u32) -> Option<u32> {
        let wanted = blocks.div_ceil(Regions::BLOCKS) as usize;
        let mut run = 0;
        for at in self.range(zone).rev() {
            run = if self.list[at].what == Use::Free {
                run + 1
            } else {
                0
            };
            if run == wanted {
                let regions = &mut self.list[at..at + wanted];
                regions.iter_mut().for_each(|r| r.what = Use::Large);
                return Some(at as u32 * Regions::BLOCKS);
            }
        }
        None
    }

    pub fn give_large(&mut self, block: u32, blocks: u32) {
        let (at, count) = (block / Regions::BLOCKS, blocks.div_ceil(Regions::BLOCKS));
        for region in &mut self.list[at as usize..(at + count) as usize] {
            assert_eq!(region.what, Use::Large, "a large buffer is freed once");
            region.what = Use::Free;
        }
    }

    /// How many regions nothing is in.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.list.iter().filter(|r| r.what == Use::Free).count()
    }
}

fn pieces_of(class: usize) -> usize {
    Regions::BLOCKS as usize >> class
}
