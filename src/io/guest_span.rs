//! Places in memory that somebody else works on at the same time: checked once, then read and written by
//! volatile and atomic accesses only. And the log of what was written, which a live migration reads.

use super::guest_memory::{GuestMemory, SharedMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering, fence};
use vm_memory::{
    ByteValued, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MmapRegion, VolatileMemory,
};

/// A run of bytes that lies in one mapping.
#[derive(Debug, Clone)]
pub struct Span {
    map: Arc<MmapRegion<()>>,
    at: usize,
    len: usize,
}

impl Span {
    /// All bytes of a map.
    pub fn of(map: &SharedMap) -> Span {
        let map = Arc::clone(map.map());
        let len = map.size();
        Span { map, at: 0, len }
    }

    /// A part of it; `None` where it is not that long.
    pub fn part(&self, at: usize, len: usize) -> Option<Span> {
        let end = at.checked_add(len)?;
        (end <= self.len).then(|| Span {
            map: Arc::clone(&self.map),
            at: self.at + at,
            len,
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes from `at` on lie in the mapping. Panics where they leave the span: places in it are computed
    /// from numbers that were checked when it was made.
    fn place(&self, at: usize, len: usize) -> usize {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.len),
            "an access stays inside its span"
        );
        self.at + at
    }

    fn atomic<T: vm_memory::AtomicInteger>(&self, at: usize) -> &T {
        let place = self.place(at, size_of::<T>());
        let found = self.map.get_atomic_ref(place);
        found
            .expect("spans of rings and regions are aligned, which was checked when they were made")
    }

    /// Whether its beginning is aligned so.
    pub fn is_aligned(&self, to: usize) -> bool {
        (self.map.as_ptr() as usize + self.at).is_multiple_of(to)
    }

    pub fn load_u16(&self, at: usize) -> u16 {
        u16::from_le(self.atomic::<AtomicU16>(at).load(Ordering::Acquire))
    }

    /// Everything that was written before is seen by whoever sees this.
    pub fn store_u16(&self, at: usize, value: u16) {
        self.atomic::<AtomicU16>(at)
            .store(value.to_le(), Ordering::Release);
    }

    pub fn load_u8(&self, at: usize) -> u8 {
        self.atomic::<AtomicU8>(at).load(Ordering::Acquire)
    }

    pub fn store_u8(&self, at: usize, value: u8) {
        self.atomic::<AtomicU8>(at).store(value, Ordering::Release);
    }

    /// Takes what is there and leaves a zero, as a front end does with the marks of a log.
    #[cfg(test)]
    pub fn take_u8(&self, at: usize) -> u8 {
        self.atomic::<AtomicU8>(at).swap(0, Ordering::AcqRel)
    }

    pub fn load_u64(&self, at: usize) -> u64 {
        u64::from_le(self.atomic::<AtomicU64>(at).load(Ordering::Acquire))
    }

    pub fn store_u64(&self, at: usize, value: u64) {
        self.atomic::<AtomicU64>(at)
            .store(value.to_le(), Ordering::Release);
    }

    /// A structure, read once.
    pub fn read<T: ByteValued>(&self, at: usize) -> T {
        let place = self.place(at, size_of::<T>());
        let found = self.map.get_ref(place);
        found.expect("the place was checked").load()
    }

    pub fn write<T: ByteValued>(&self, at: usize, value: T) {
        let place = self.place(at, size_of::<T>());
        let found = self.map.get_ref(place);
        found.expect("the place was checked").store(value);
    }
}

/// What was written before is seen by others before anything that is read after this is read. For the
/// two sides of a ring, who each write an index and then look at the other's.
pub fn full_fence() {
    fence(Ordering::SeqCst);
}

impl GuestMemory {
    /// A run of bytes that lies in one part of the memory.
    pub fn span(&self, guest: u64, len: usize) -> Option<Span> {
        let (region, at) = self.map().to_region_addr(GuestAddress(guest))?;
        let map = region.get_mmap();
        let at = at.0 as usize;
        let end = at.checked_add(len)?;
        (end as u64 <= region.len()).then_some(Span { map, at, len })
    }

    /// Whether the guest has all of these bytes.
    pub fn has(&self, guest: u64, len: usize) -> bool {
        let slice = self.map().get_slice(GuestAddress(guest), len);
        slice.is_ok() || self.map().check_range(GuestAddress(guest), len)
    }

    /// Copies out of the guest's memory. False where it does not have all of it; what there is was copied then.
    pub fn read(&self, guest: u64, into: &mut [u8]) -> bool {
        if let Ok(slice) = self.map().get_slice(GuestAddress(guest), into.len()) {
            return slice.copy_to(into) == into.len();
        }
        let (mut done, whole) = (0, into.len());
        let slices = self.map().get_slices(GuestAddress(guest), whole);
        for slice in slices {
            let Ok(slice) = slice else { return false };
            done += slice.copy_to(&mut into[done..]);
        }
        done == whole
    }

    /// Copies into the guest's memory. False where it does not have all of it.
    pub fn write(&self, guest: u64, from: &[u8]) -> bool {
        if let Ok(slice) = self.map().get_slice(GuestAddress(guest), from.len()) {
            slice.copy_from(from);
            return true;
        }
        let (mut done, whole) = (0, from.len());
        let slices = self.map().get_slices(GuestAddress(guest), whole);
        for slice in slices {
            let Ok(slice) = slice else { return false };
            slice.copy_from(&from[done..]);
            done += slice.len();
        }
        done == whole
    }
}

/// Which pages of a guest were written, a bit each, where its front end can see it.
#[derive(Debug, Clone)]
pub struct DirtyLog {
    map: Arc<SharedMap>,
}

/// Bytes of a page of the log (VHOST_LOG_PAGE).
const PAGE: u64 = 4096;

impl DirtyLog {
    pub fn new(map: SharedMap) -> DirtyLog {
        DirtyLog { map: Arc::new(map) }
    }

    pub fn map(&self) -> &SharedMap {
        &self.map
    }

    /// Notes that the guest's memory was written. What the log has no room for is left out.
    pub fn mark(&self, guest: u64, len: u64) {
        if len == 0 {
            return;
        }
        let map = self.map.map();
        for page in guest / PAGE..=guest.saturating_add(len - 1) / PAGE {
            let Ok(byte) = usize::try_from(page / 8) else {
                return;
            };
            let Ok(byte) = map.get_atomic_ref::<AtomicU8>(byte) else {
                return;
            };
            byte.fetch_or(1 << (page % 8), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        let part = |len| Arc::new(SharedMap::create("part", len).unwrap().0);
        GuestMemory::new(vec![
            (0, part(8192)),
            (8192, part(4096)),
            (65536, part(4096)),
        ])
        .unwrap()
    }

    #[test]
    fn memory_is_copied_over_the_border_of_its_parts_and_not_behind_them() {
        let memory = memory();
        let data: Vec<u8> = (0..200).collect();
        assert!(memory.write(8092, &data) && memory.has(8092, 200));
        let mut back = vec![0; 200];
        assert!(memory.read(8092, &mut back) && back == data);
        assert!(!memory.has(12_288 - 8, 9) && memory.has(12_288 - 8, 8));
        assert!(!memory.read(12_280, &mut back) && !memory.write(12_280, &data));
        assert!(!memory.has(u64::MAX - 4, 8) && !memory.has(40_000, 1));
        assert!(memory.span(8190, 4).is_none() && memory.span(8188, 4).is_some());
        assert!(memory.span(u64::MAX, usize::MAX).is_none());
    }

    #[test]
    fn the_log_has_a_bit_for_each_page_that_was_touched() {
        let (map, _file) = SharedMap::create("log", 4096).unwrap();
        let span = Span::of(&map);
        let log = DirtyLog::new(map);
        log.mark(4095, 2);
        log.mark(9 * 4096, 4096);
        log.mark(u64::MAX - 1, 9);
        log.mark(0, 0);
        assert_eq!((span.load_u8(0), span.load_u8(1)), (3, 2));
    }
}
