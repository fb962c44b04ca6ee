//! Allocation of payload buffers on one shard: free pieces are kept at hand by class, so that the path
//! of a 4 KiB request takes no lock. Bounded by the arena: none left is an answer, and the caller waits.

use super::arena::Arena;
use super::regions::{CLASSES, Zone, class_of};
use crate::base::BufId;
use std::sync::Arc;

/// Free memory of one class that a shard keeps for itself, in blocks: 2 MiB.
const KEPT_BLOCKS: usize = 512;

/// One shard's way to allocate from the arena that all share.
#[derive(Debug)]
pub struct Buffers {
    arena: Arc<Arena>,
    zone: Zone,
    /// The blocks of the zone. What is freed here and lies elsewhere goes back there at once, and is not kept.
    own: std::ops::Range<u32>,
    /// By class, the first blocks of free pieces. The last freed is used first: it is in the CPU's cache.
    free: [Vec<u32>; CLASSES],
}

/// How many pieces of a class are kept at most.
fn kept(class: usize) -> usize {
    (KEPT_BLOCKS >> class).max(4)
}

impl Buffers {
    pub fn new(arena: Arc<Arena>, zone: Zone) -> Buffers {
        let free = std::array::from_fn(|class| Vec::with_capacity(kept(class) + 1));
        let own = arena.regions().blocks(zone);
        Buffers {
            arena,
            zone,
            own,
            free,
        }
    }

    /// Whether a buffer comes from this zone.
    pub fn is_own(&self, id: BufId) -> bool {
        self.own.contains(&id.0)
    }

    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// A buffer of at least so many blocks (at least one), held once; `None` where there is no room for it now.
    pub fn allocate(&mut self, blocks: u32) -> Option<BufId> {
        let first = match class_of(blocks) {
            Some(class) => self.piece(class)?,
            None => self.large(blocks)?,
        };
        self.arena.begin(BufId(first), blocks.max(1));
        Some(BufId(first))
    }

    /// Lets a buffer go as often as is said, and frees it where nobody holds it any more: true then.
    pub fn release(&mut self, id: BufId, times: u32) -> bool {
        if !self.arena.let_go(id, times) {
            return false;
        }
        let blocks = self.arena.blocks_of(id);
        match class_of(blocks) {
            Some(class) if self.own.contains(&id.0) => self.keep(class, id.0),
            Some(class) => self.arena.regions().give_piece(class, id.0),
            None => self.arena.regions().give_large(id.0, blocks),
        }
        true
    }

    fn piece(&mut self, class: usize) -> Option<u32> {
        if let Some(first) = self.free[class].pop() {
            return Some(first);
        }
        let batch = (kept(class) / 4).max(1);
        self.arena
            .regions()
            .take_pieces(self.zone, class, batch, &mut self.free[class]);
        if self.free[class].is_empty() {
            // What this shard keeps of other classes may be all that stands between it and a free region.
            self.give_all_back();
            self.arena
                .regions()
                .take_pieces(self.zone, class, 1, &mut self.free[class]);
        }
        self.free[class].pop()
    }

    fn large(&mut self, blocks: u32) -> Option<u32> {
        let found = self.arena.regions().take_large(self.zone, blocks);
        if found.is_some() {
            return found;
        }
        self.give_all_back();
        self.arena.regions().take_large(self.zone, blocks)
    }

    fn keep(&mut self, class: usize, first: u32) {
        let pieces = &mut self.free[class];
        pieces.push(first);
        if pieces.len() > kept(class) {
            let mut regions = self.arena.regions();
            // The oldest half goes: the newest are warm.
            for first in pieces.drain(..kept(class) / 2) {
                regions.give_piece(class, first);
            }
        }
    }

    /// Gives back what is kept at hand, for others to allocate from. True where there was anything.
    pub fn give_all_back(&mut self) -> bool {
        let kept = self.free.iter().any(|pieces| !pieces.is_empty());
        let mut regions = self.arena.regions();
        for (class, pieces) in self.free.iter_mut().enumerate() {
            pieces
                .drain(..)
                .for_each(|first| regions.give_piece(class, first));
        }
        kept
    }

    /// The largest buffer there can be, in blocks.
    pub fn largest(&self) -> u32 {
        self.arena.regions().largest(self.zone)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        self.give_all_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockNo, BufRef, LayerId, Prng, crc};

    fn buffers(mib: u64) -> Buffers {
        Buffers::new(Arc::new(Arena::new(mib << 20, 0).unwrap()), Zone::Clients)
    }

    #[test]
    fn buffers_do_not_overlap_and_all_memory_comes_back() {
        let mut buffers = buffers(64);
        let mut prng = Prng::new(3);
        let mut held: Vec<(BufId, u32)> = Vec::new();
        let mut owner = vec![false; 64 * 256];
        for _ in 0..20_000 {
            if prng.one_in(2) && !held.is_empty() {
                let (id, blocks) = held.swap_remove(prng.below(held.len() as u64) as usize);
                owner[id.0 as usize..][..blocks as usize].fill(false);
                assert!(buffers.release(id, 1));
                continue;
            }
            let blocks = match prng.below(20) {
                0 => prng.between(257, 2000) as u32,
                1..4 => prng.between(1, 256) as u32,
                _ => 1,
            };
            let Some(id) = buffers.allocate(blocks) else {
                continue;
            };
            let place = &mut owner[id.0 as usize..][..blocks as usize];
            assert!(place.iter().all(|used| !used), "a block is in two buffers");
            place.fill(true);
            held.push((id, blocks));
        }
        for (id, _) in held {
            buffers.release(id, 1);
        }
        let arena = Arc::clone(buffers.arena());
        drop(buffers);
        assert_eq!(arena.regions().free(), 64);
    }

    #[test]
    fn a_pinned_buffer_is_freed_by_the_last_unpin() {
        let mut buffers = buffers(8);
        let id = buffers.allocate(4).unwrap();
        buffers.arena().hold(id, 3);
        assert!(!buffers.release(id, 1), "the request was answered");
        assert!(!buffers.release(id, 2));
        assert!(buffers.release(id, 1));
    }

    #[test]
    fn what_clients_hold_leaves_the_driver_its_own() {
        let arena = Arc::new(Arena::new(8 << 20, 2 << 20).unwrap());
        let mut clients = Buffers::new(Arc::clone(&arena), Zone::Clients);
        let (shard, shards) = (0, 1);
        let only = Zone::Driver { shard, shards };
        let mut driver = Buffers::new(arena, only);
        let taken = std::iter::from_fn(|| clients.allocate(1)).count();
        assert_eq!(taken, 8 * 256);
        let own = driver.allocate(256).unwrap();
        assert!(driver.allocate(2).is_some() && driver.allocate(300).is_none());
        assert!(driver.release(own, 1));
        assert!(clients.allocate(1).is_none());
    }

    #[test]
    fn one_shards_driver_cannot_take_what_is_another_shards() {
        let arena = Arc::new(Arena::new(8 << 20, 3 << 20).unwrap());
        let shards = 2;
        let zone = |shard| Zone::Driver { shard, shards };
        let mut first = Buffers::new(Arc::clone(&arena), zone(0));
        let mut second = Buffers::new(arena, zone(1));
        let (one, two) = (first.largest(), second.largest());
        assert_eq!((one, two), (256, 512));
        assert_eq!(std::iter::from_fn(|| first.allocate(256)).count(), 1);
        assert_eq!(std::iter::from_fn(|| second.allocate(256)).count(), 2);
    }

    #[test]
    fn what_is_freed_by_another_zone_s_hands_goes_back_to_its_own() {
        let arena = Arc::new(Arena::with_peers(8 << 20, 0, 2 << 20).unwrap());
        let (shard, shards) = (0, 1);
        let mut peers = Buffers::new(Arc::clone(&arena), Zone::Peers { shard, shards });
        let mut clients = Buffers::new(arena, Zone::Clients);
        for _ in 0..3 {
            let all: Vec<BufId> = std::iter::from_fn(|| peers.allocate(1)).collect();
            assert_eq!(all.len(), 2 * 256);
            all.iter().for_each(|id| {
                clients.release(*id, 1);
            });
            let taken: Vec<BufId> = std::iter::from_fn(|| clients.allocate(1)).collect();
            assert_eq!(
                taken.len(),
                8 * 256,
                "none of the peers' came to the clients"
            );
            taken.iter().for_each(|id| {
                peers.release(*id, 1);
            });
        }
    }

    #[test]
    fn a_full_arena_refuses_and_serves_again_after_a_release() {
        let mut buffers = buffers(8);
        let all: Vec<BufId> = std::iter::from_fn(|| buffers.allocate(256)).collect();
        assert_eq!(all.len(), 8);
        assert!(buffers.allocate(1).is_none() && buffers.allocate(300).is_none());
        buffers.release(all[0], 1);
        assert!(buffers.allocate(1).is_some());
    }

    #[test]
    fn bytes_are_copied_merged_zeroed_and_summed_in_place() {
        let mut buffers = buffers(8);
        let (a, b) = (buffers.allocate(2).unwrap(), buffers.allocate(1).unwrap());
        let (a, b) = (BufRef { id: a, block: 0 }, BufRef { id: b, block: 0 });
        let arena = Arc::clone(buffers.arena());
        arena.copy_in(a, 0, &[1; 8192]);
        arena.copy_in(b, 0, &[2; 4096]);
        arena.merge(b, a.plus(1), 10, 6);
        let mut out = Vec::new();
        arena.copy_out(a, 4096, 4096, &mut out);
        let mut want = vec![1; 4096];
        want[..10].fill(2);
        want[4090..].fill(2);
        assert!(out == want);
        let mut crcs = Vec::new();
        arena.checksums(a, 2, LayerId(7), BlockNo(5), &mut crcs);
        assert_eq!(crcs[1], crc::of_block(LayerId(7), BlockNo(6), &want));
        arena.zero_blocks(a, 1);
        arena.copy_blocks(a, b, 1);
        out.clear();
        arena.copy_out(b, 0, 4096, &mut out);
        assert!(out == [0; 4096]);
    }

    #[test]
    #[should_panic(expected = "inside the arena")]
    fn a_block_outside_the_arena_is_not_touched() {
        let buffers = buffers(8);
        let beyond = BufRef {
            id: BufId(8 * 256),
            block: 0,
        };
        buffers.arena().zero_blocks(beyond, 1);
    }
}
