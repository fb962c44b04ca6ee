//! Payload memory: one mapping a process, shared by all shards, so that a [`BufId`] means the same on each.
//!
//! A buffer is a run of 4 KiB blocks; its id is the number of its first block, so that finding its memory
//! needs no table. Each buffer counts its holders: the request it was allocated for, and every block
//! that a store has pinned. Who lets go last frees it, on whatever shard that is.
//!
//! Whoever holds a buffer agrees with the other holders on who writes it when (the driver's duties in
//! `store::door`). Nothing here can check that; what is checked, always, is that no access leaves the
//! arena. The mapping is never removed while a ring may still write to it: see `Ring`'s drop.

use super::regions::Regions;
use super::ring::Lent;
use crate::base::{BLOCK, BlockNo, BufId, BufRef, LayerId, crc};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A block in the units of memory.
const UNIT: usize = BLOCK as usize;
/// Pages of 2 MiB: fewer misses of the TLB, and fewer pages to pin for an operation that is not registered.
const HUGE: usize = 2 << 20;

/// A run of bytes in the arena: `len` bytes from `skip` bytes behind a block's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub at: BufRef,
    /// In bytes; may reach over blocks.
    pub skip: u32,
    /// In bytes.
    pub len: u32,
}

impl Part {
    /// Whole blocks.
    pub fn blocks(at: BufRef, blocks: u32) -> Part {
        Part {
            at,
            skip: 0,
            len: blocks * UNIT as u32,
        }
    }
}

/// What is counted of a buffer. Lies under the number of its first block.
#[derive(Debug, Default)]
struct Count {
    holders: AtomicU32,
    /// The length; written when it is allocated.
    blocks: AtomicU32,
}

/// The payload memory of a process.
#[derive(Debug)]
pub struct Arena {
    map: NonNull<u8>,
    map_len: usize,
    base: NonNull<u8>,
    blocks: u32,
    counts: Box<[Count]>,
    regions: Mutex<Regions>,
}

// SAFETY: the mapping belongs to no thread; all access to it goes by copies through the methods below, and
// what else there is, is atomic or behind a lock.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps memory: `bytes` for clients and `driver_bytes` for the driver's own operations, both rounded up
    /// to whole regions of 1 MiB. Nothing is touched yet.
    pub fn new(bytes: u64, driver_bytes: u64) -> io::Result<Arena> {
        Arena::with_peers(bytes, driver_bytes, 0)
    }

    /// The same, with memory for what peers send.
    pub fn with_peers(bytes: u64, driver_bytes: u64, peer_bytes: u64) -> io::Result<Arena> {
        Arena::with_rooms(bytes, driver_bytes, peer_bytes, 0)
    }

    /// The same, with memory for what peers answer.
    pub fn with_rooms(
        bytes: u64,
        driver_bytes: u64,
        peer_bytes: u64,
        room_bytes: u64,
    ) -> io::Result<Arena> {
        let of = |bytes: u64| bytes.div_ceil(Regions::BYTES).min(1 << 16);
        let (driver, peers, rooms) = (of(driver_bytes), of(peer_bytes), of(room_bytes));
        let regions = driver + peers + rooms + bytes.div_ceil(Regions::BYTES).clamp(8, 1 << 20);
        let len = (regions * Regions::BYTES) as usize;
        let map_len = len + HUGE;
        // SAFETY: a new private mapping, wherever the kernel likes; nothing else is touched.
        let map = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), map_len, access, flags, -1, 0)
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let skip = map.as_ptr().align_offset(HUGE);
        // SAFETY: skip < HUGE, so the result lies in the mapping, with `len` bytes behind it.
        let base = unsafe { map.add(skip) };
        // SAFETY: advice on a range of our own mapping. It is only advice: where it fails, nothing is lost.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        let blocks = (len / UNIT) as u32;
        Ok(Arena {
            map,
            map_len,
            base,
            blocks,
            counts: (0..blocks).map(|_| Count::default()).collect(),
            regions: Mutex::new(Regions::new(
                regions as usize,
                (driver as usize, peers as usize, rooms as usize),
            )),
        })
    }

    /// Has the kernel make the memory now and not when it is first used, where it may stay: a few hundred milliseconds for
    /// each GiB, in which nobody else need wait.
    pub fn make(&self) {
        if !super::kernel::lets_lock(self.len()) {
            return;
        }
        let len = self.len() as usize;
        // SAFETY: a range of our own mapping; what is there stays as it is. Where it fails (before Linux 5.14, or without
        // memory) the registration does it.
        unsafe { libc::madvise(self.base.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) };
    }

    /// In bytes.
    pub fn len(&self) -> u64 {
        u64::from(self.blocks) * BLOCK
    }

    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// How often all buffers together are held.
    #[cfg(test)]
    pub fn holds(&self) -> u64 {
        let holders = |count: &Count| u64::from(count.holders.load(Ordering::Relaxed));
        self.counts.iter().map(holders).sum()
    }

    pub(super) fn regions(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a buffer as allocated, held once.
    pub(super) fn begin(&self, id: BufId, blocks: u32) {
        let count = &self.counts[id.0 as usize];
        count.blocks.store(blocks, Ordering::Relaxed);
        count.holders.store(1, Ordering::Relaxed);
    }

    /// The length of a buffer that is held, in blocks.
    pub fn blocks_of(&self, id: BufId) -> u32 {
        self.counts[id.0 as usize].blocks.load(Ordering::Relaxed)
    }

    /// Adds holders to a buffer that somebody holds.
    pub fn hold(&self, id: BufId, times: u32) {
        let before = self.counts[id.0 as usize]
            .holders
            .fetch_add(times, Ordering::Relaxed);
        assert!(before > 0, "a buffer is pinned while it is held");
    }

    /// Takes holders away; true where none is left, so that the caller must free it.
    pub(super) fn let_go(&self, id: BufId, times: u32) -> bool {
        let before = self.counts[id.0 as usize]
            .holders
            .fetch_sub(times, Ordering::AcqRel);
        assert!(
            before >= times,
            "a buffer is let go as often as it was held"
        );
        before == times
    }

    /// The memory of a part.
    ///
    /// Panics where the part leaves the arena: a machine named a block that no buffer has.
    pub(super) fn address(&self, part: Part) -> *mut u8 {
        let start = (part.at.id.0 as usize + part.at.block as usize) * UNIT + part.skip as usize;
        let inside = start + part.len as usize <= self.blocks as usize * UNIT;
        assert!(inside, "a part lies inside the arena");
        // SAFETY: just checked.
        unsafe { self.base.as_ptr().add(start) }
    }

    /// The whole arena, for registering it.
    pub(super) fn whole(&self) -> (*mut u8, usize) {
        (self.base.as_ptr(), self.blocks as usize * UNIT)
    }

    /// Copies `from` into the arena, `skip` bytes behind the block `at`.
    pub fn copy_in(&self, at: BufRef, skip: usize, from: &[u8]) {
        let to = self.address(part(at, skip, from.len()));
        // SAFETY: `address` checked the range; `from` is not in the arena, of which no slice is given out
        // but in `lent`; were it from there, the copy is one that may overlap.
        unsafe { std::ptr::copy(from.as_ptr(), to, from.len()) };
    }

    /// Appends `len` bytes of the arena to `into`.
    pub fn copy_out(&self, at: BufRef, skip: usize, len: usize, into: &mut Vec<u8>) {
        let from = self.address(part(at, skip, len));
        into.reserve(len);
        // SAFETY: `address` checked the source; the room was reserved, and after the copy it is initialised.
        unsafe {
            let to = into.as_mut_ptr().add(into.len());
            std::ptr::copy_nonoverlapping(from, to, len);
            into.set_len(into.len() + len);
        }
    }

    /// Has bytes of a buffer written, `skip` bytes behind the block `at`, by whoever holds it: the payload of a request
    /// that is being put together.
    pub fn fill<T>(
        &self,
        at: BufRef,
        skip: usize,
        len: usize,
        by: impl FnOnce(&mut [u8]) -> T,
    ) -> T {
        let to = self.address(part(at, skip, len));
        // SAFETY: `address` checked the range, all of which is mapped. The request that the buffer belongs to was not
        // submitted, so that nobody else reads or writes it; no slice of it leaves this call.
        by(unsafe { std::slice::from_raw_parts_mut(to, len) })
    }

    /// Has bytes of a buffer read, by whoever holds it: the payload of a request that was answered.
    pub fn look<T>(&self, at: BufRef, skip: usize, len: usize, by: impl FnOnce(&[u8]) -> T) -> T {
        let from = self.address(part(at, skip, len));
        // SAFETY: `address` checked the range, all of which is mapped. Nobody writes the buffer of a request that was
        // answered (store::door, duties 3 and 4); no slice of it leaves this call.
        by(unsafe { std::slice::from_raw_parts(from, len) })
    }

    /// Copies blocks between buffers.
    pub fn copy_blocks(&self, from: BufRef, to: BufRef, blocks: u32) {
        self.copy_bytes(Part::blocks(from, blocks), Part::blocks(to, blocks));
    }

    /// Fills blocks with zeroes.
    pub fn zero_blocks(&self, at: BufRef, blocks: u32) {
        let part = Part::blocks(at, blocks);
        // SAFETY: `address` checked the range.
        unsafe { std::ptr::write_bytes(self.address(part), 0, part.len as usize) };
    }

    /// The first `head` and the last `tail` bytes of the block `from` go over those of the block `into`.
    pub fn merge(&self, from: BufRef, into: BufRef, head: u32, tail: u32) {
        let unit = UNIT as u32;
        assert!(head <= unit && tail <= unit, "a merge lies in one block");
        let ends = [(0, head), (unit - tail, tail)];
        for (skip, len) in ends {
            self.copy_bytes(part_of(from, skip, len), part_of(into, skip, len));
        }
    }

    fn copy_bytes(&self, from: Part, to: Part) {
        debug_assert_eq!(from.len, to.len);
        // SAFETY: `address` checked both ranges; `copy` allows them to overlap.
        unsafe { std::ptr::copy(self.address(from), self.address(to), from.len as usize) };
    }

    /// Appends the checksum of each block from `at` on, which are blocks `first` and following of `layer`.
    pub fn checksums(
        &self,
        at: BufRef,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
        into: &mut Vec<u32>,
    ) {
        for n in 0..blocks {
            let from = self.address(Part::blocks(at.plus(n), 1));
            // SAFETY: `address` checked the range, and the buffer's holders keep from writing it while it
            // is summed (store::door, duties 3 and 4).
            let bytes = unsafe { std::slice::from_raw_parts(from, UNIT) };
            let block = BlockNo(first.0 + u64::from(n));
            into.push(crc::of_block(layer, block, bytes));
        }
    }

    /// The bytes that a socket received.
    pub fn lent<'a>(&'a self, lent: &'a Lent) -> &'a [u8] {
        let part = lent.part;
        // SAFETY: `address` checked the range. The kernel has given this provided buffer back and does not
        // write it until it is provided again, which takes `lent`. Nobody else has the ring's own buffers.
        unsafe { std::slice::from_raw_parts(self.address(part), part.len as usize) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is our own, and rings that may still write to it keep the arena alive.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_len) };
    }
}

fn part(at: BufRef, skip: usize, len: usize) -> Part {
    let fits = u32::try_from(skip).ok().zip(u32::try_from(len).ok());
    let (skip, len) = fits.expect("a part is shorter than 4 GiB");
    part_of(at, skip, len)
}

fn part_of(at: BufRef, skip: u32, len: u32) -> Part {
    Part { at, skip, len }
}
