//! Memory that sockets receive into: a ring of buffers that the kernel picks from when there is something to
//! receive, so that a connection that says nothing has none.

use super::arena::{Arena, Part};
use crate::base::BufRef;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// Buffers; a power of two.
const COUNT: u16 = 64;
/// Of one buffer: seven 4 KiB writes of a client at once. Together 2 MiB, so that they stay in the cache.
const BUFFER_BLOCKS: u32 = 8;

/// The ring of buffers, and where they lie.
pub(super) struct Provided {
    entries: *mut BufRingEntry,
    buffers: BufRef,
    tail: u16,
    published: u16,
}

impl Provided {
    /// The group that receives pick from.
    pub const GROUP: u16 = 0;
    /// Memory that is needed: one block for the ring, the buffers behind it.
    pub const BLOCKS: u32 = 1 + COUNT as u32 * BUFFER_BLOCKS;

    /// Registers a buffer of [`Provided::BLOCKS`], which must not be used for anything else as long as the
    /// arena lives.
    pub fn register(uring: &IoUring, arena: &Arena, memory: BufRef) -> io::Result<Provided> {
        let needed = Part::blocks(memory, Provided::BLOCKS);
        let entries = arena.address(needed).cast::<BufRingEntry>();
        let submitter = uring.submitter();
        // SAFETY: COUNT entries of 16 bytes fit the first block, which stays mapped as long as the ring lives.
        unsafe {
            submitter.register_buf_ring_with_flags(entries as u64, COUNT, Provided::GROUP, 0)?;
        }
        let mut provided = Provided {
            entries,
            buffers: memory.plus(1),
            tail: 0,
            published: 0,
        };
        (0..COUNT).for_each(|buffer| provided.give(buffer));
        provided.publish();
        Ok(provided)
    }

    /// The first `len` bytes of a buffer.
    pub fn part(&self, buffer: u16, len: u32) -> Part {
        assert!(
            len <= BUFFER_BLOCKS * 4096,
            "the kernel receives no more than there is room"
        );
        let at = self.buffers.plus(u32::from(buffer) * BUFFER_BLOCKS);
        Part { at, skip: 0, len }
    }

    /// Provides a buffer again, with the next turn.
    pub fn give(&mut self, buffer: u16) {
        let place = usize::from(self.tail % COUNT);
        // SAFETY: one of the COUNT entries; the kernel does not read it before it is published, because no more
        // than COUNT buffers are ever provided at a time.
        let entry = unsafe { &mut *self.entries.add(place) };
        entry.set_addr(self.address_of(buffer));
        entry.set_len(BUFFER_BLOCKS * 4096);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn address_of(&self, buffer: u16) -> u64 {
        // The buffers lie behind the block of the entries.
        self.entries as u64 + 4096 + u64::from(buffer) * u64::from(BUFFER_BLOCKS) * 4096
    }

    /// Lets the kernel see what was given.
    pub fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        // SAFETY: the tail lies in the first entry, which is mapped; the kernel only reads it.
        let tail = unsafe { &*BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
        self.published = self.tail;
    }
}
