//! Memory that a guest shares with this process: mapped from the files that its front end sends.
//!
//! The file stays the front end's, and it may cut it short at any time: an access behind its new end is a SIGBUS, which
//! would end the process and every other guest with it. So each mapping stands in a table that the signal's
//! handler looks up: it puts zeroes in the place of the whole mapping, notes that it is broken, and the access goes
//! on. Whoever works on it asks [`GuestMemory::is_broken`] before believing what was read.
//!
//! Mapping and unmapping can take milliseconds for a large guest: never to be done on a shard's thread, but for the
//! last holder's drop, which is kept from being a shard by who hands memory out.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// Mappings of a process at most.
const MAPPINGS: usize = 8192;

/// A mapping as the signal's handler sees it. Empty where `end` is zero.
struct Watched {
    start: AtomicUsize,
    end: AtomicUsize,
    broken: AtomicBool,
}

static WATCHED: [Watched; MAPPINGS] = [const {
    Watched {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        broken: AtomicBool::new(false),
    }
}; MAPPINGS];

/// Places of [`WATCHED`] that were given out at any time: the handler looks no further.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Places that are free again.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// What SIGBUS did before; written once, before the handler is installed.
static mut BEFORE: std::mem::MaybeUninit<libc::sigaction> = std::mem::MaybeUninit::uninit();

/// The watch over a mapping; ends when it is dropped, before the mapping does.
#[derive(Debug)]
struct Watch(usize);

impl Watch {
    fn begin(start: usize, len: usize) -> io::Result<Watch> {
        install();
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match free.pop() {
            Some(place) => place,
            None if USED.load(Ordering::Relaxed) < MAPPINGS => USED.fetch_add(1, Ordering::AcqRel),
            None => return Err(io::ErrorKind::OutOfMemory.into()),
        };
        let watched = &WATCHED[place];
        watched.broken.store(false, Ordering::Relaxed);
        watched.start.store(start, Ordering::Relaxed);
        watched.end.store(start + len, Ordering::Release);
        Ok(Watch(place))
    }

    fn is_broken(&self) -> bool {
        WATCHED[self.0].broken.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED[self.0].end.store(0, Ordering::Release);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.0);
    }
}

/// Installs the handler, once a process.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: zeroes are a valid sigaction, all of whose used fields are set below; the handler only touches
        // atomics and makes system calls. BEFORE is written before the handler can run, and never again.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            let before = (&raw mut BEFORE).cast::<libc::sigaction>();
            libc::sigaction(libc::SIGBUS, std::ptr::null(), before);
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
        }
    });
}

extern "C" fn on_bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel calls this with a valid info, and SIGBUS has an address.
    let at = unsafe { (*info).si_addr() } as usize;
    let used = USED.load(Ordering::Acquire);
    for watched in &WATCHED[..used] {
        let (end, start) = (
            watched.end.load(Ordering::Acquire),
            watched.start.load(Ordering::Relaxed),
        );
        if at < start || at >= end {
            continue;
        }
        watched.broken.store(true, Ordering::Relaxed);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: replaces a mapping of our own, as a whole, by one of the same length and access. mmap is a bare
        // system call, allowed in a handler.
        let map = unsafe { libc::mmap(start as *mut _, end - start, access, flags, -1, 0) };
        if map != libc::MAP_FAILED {
            return;
        }
        break;
    }
    // SAFETY: written before this handler was installed. What was there before is called as the kernel would have, or
    // put back, so that the access faults again and has its usual end.
    unsafe {
        let before = &*(&raw const BEFORE).cast::<libc::sigaction>();
        let handler = before.sa_sigaction;
        if before.sa_flags & libc::SA_SIGINFO != 0 && handler != libc::SIG_DFL {
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(handler);
            handler(signal, info, context);
        } else {
            libc::sigaction(signal, before, std::ptr::null_mut());
        }
    }
}

/// A part of a file that is mapped, readable and writable.
#[derive(Debug)]
pub struct SharedMap {
    watch: Watch,
    map: Arc<MmapRegion<()>>,
}

impl SharedMap {
    /// Maps `len` bytes of a file from `offset` on. Refused where the file is not that long.
    pub fn new(file: OwnedFd, offset: u64, len: u64) -> io::Result<SharedMap> {
        let file = File::from(file);
        let end = offset.checked_add(len);
        let size = file.metadata()?.len();
        // Devices have no length, and are refused by it: guests' memory is a file of memory.
        if len == 0 || end.is_none_or(|end| end > size) {
            let text = format!("{len} bytes at {offset} of a file of {size}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let map = MmapRegion::from_file(FileOffset::new(file, offset), len);
        let map = map.map_err(io::Error::other)?;
        let page = |len: usize| len.next_multiple_of(4096);
        let watch = Watch::begin(map.as_ptr() as usize, page(len))?;
        let map = Arc::new(map);
        Ok(SharedMap { watch, map })
    }

    /// A new file of memory that is mapped, and the file, to be sent to somebody else.
    pub fn create(name: &str, len: u64) -> io::Result<(SharedMap, OwnedFd)> {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&file, len as i64)?;
        let other = file.try_clone()?;
        Ok((SharedMap::new(file, 0, len)?, other))
    }

    pub fn map(&self) -> &Arc<MmapRegion<()>> {
        &self.map
    }

    /// The file that is mapped, where in it the map begins, and how long it is.
    pub fn file(&self) -> io::Result<(OwnedFd, u64, u64)> {
        let file = self.map.file_offset().ok_or(io::ErrorKind::Unsupported)?;
        let copy = file.file().try_clone()?.into();
        Ok((copy, file.start(), self.map.size() as u64))
    }

    /// Whether the file was cut short under the mapping.
    pub fn is_broken(&self) -> bool {
        self.watch.is_broken()
    }
}

/// Memory of a guest: maps at guest addresses.
#[derive(Debug, Default)]
pub struct GuestMemory {
    /// Before `map`: the watch ends before the mappings do.
    parts: Vec<(u64, Arc<SharedMap>)>,
    map: GuestMemoryMmap<()>,
}

impl GuestMemory {
    /// From maps and the guest addresses where they begin. Refused where they overlap.
    pub fn new(mut parts: Vec<(u64, Arc<SharedMap>)>) -> io::Result<GuestMemory> {
        parts.sort_by_key(|(guest, _)| *guest);
        let region = |(guest, part): &(u64, Arc<SharedMap>)| {
            let map = Arc::clone(part.map());
            GuestRegionMmap::with_arc(map, GuestAddress(*guest)).map(Arc::new)
        };
        let regions: Option<Vec<_>> = parts.iter().map(region).collect();
        let regions = regions.ok_or(io::ErrorKind::InvalidInput)?;
        let map = match regions.is_empty() {
            true => GuestMemoryMmap::default(),
            false => GuestMemoryMmap::from_arc_regions(regions).map_err(io::Error::other)?,
        };
        Ok(GuestMemory { parts, map })
    }

    pub fn parts(&self) -> &[(u64, Arc<SharedMap>)] {
        &self.parts
    }

    pub fn map(&self) -> &GuestMemoryMmap<()> {
        &self.map
    }

    /// Whether a file of it was cut short: what was read since may be zeroes that nobody wrote.
    pub fn is_broken(&self) -> bool {
        self.parts.iter().any(|(_, part)| part.is_broken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemoryBackend};

    #[test]
    fn a_file_that_is_cut_short_breaks_its_own_memory_and_nothing_else() {
        let (short, file) = SharedMap::create("short", 1 << 20).unwrap();
        let (whole, _file) = SharedMap::create("whole", 1 << 20).unwrap();
        let (short, whole) = (Arc::new(short), Arc::new(whole));
        let parts = vec![(0, Arc::clone(&short)), (1 << 20, Arc::clone(&whole))];
        let memory = GuestMemory::new(parts).unwrap();
        let far = GuestAddress((1 << 20) - 8);
        memory.map().write_obj(7u64, far).unwrap();
        nix::unistd::ftruncate(&file, 4096).unwrap();
        assert!(!memory.is_broken());
        assert_eq!(memory.map().read_obj::<u64>(far).unwrap(), 0);
        assert!(memory.is_broken() && short.is_broken() && !whole.is_broken());
        memory.map().write_obj(9u64, GuestAddress(1 << 20)).unwrap();
        assert_eq!(memory.map().num_regions(), 2);
    }

    #[test]
    fn what_a_file_does_not_have_is_not_mapped_and_places_are_used_again() {
        let (map, file) = SharedMap::create("small", 8192).unwrap();
        let refused = SharedMap::new(file.try_clone().unwrap(), 4096, 8192);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let overflow = SharedMap::new(file.try_clone().unwrap(), u64::MAX, 4096);
        assert!(overflow.is_err());
        drop(map);
        for _ in 0..2 * MAPPINGS {
            SharedMap::new(file.try_clone().unwrap(), 4096, 4096).unwrap();
        }
    }

    #[test]
    fn maps_that_overlap_are_no_memory() {
        let part = || Arc::new(SharedMap::create("part", 8192).unwrap().0);
        assert!(GuestMemory::new(vec![(0, part()), (4096, part())]).is_err());
        assert!(GuestMemory::new(vec![(8192, part()), (0, part())]).is_ok());
        assert!(GuestMemory::new(vec![(u64::MAX - 4096, part())]).is_err());
    }
}
