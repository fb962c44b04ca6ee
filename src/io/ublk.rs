//! ublk's system calls: control commands, and the descriptors that the kernel writes for a queue.
//!
//! The commands of the queues themselves go through the shard's [`super::Ring`].

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// How long a control command may take: a start waits for all queues, a removal for requests in flight. After that the
/// ring is closed, which has the kernel give up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Carries out one command of `/dev/ublk-control`: NotFound where the kernel has no ublk. `make` is given address and
/// length of `buffer`, which the kernel reads or writes. Waits until it is done, so it is nothing for a shard.
///
/// Each has a ring of its own, because the arguments are longer than an entry of the shards' rings; commands are few.
pub fn control_ublk(
    op: u32,
    buffer: &mut Vec<u8>,
    make: impl FnOnce(u64, u16) -> [u8; 80],
) -> io::Result<i32> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/ublk-control")?;
    let mut uring = IoUring::<squeue::Entry128>::builder()
        .build(4)
        .map_err(super::kernel::explain)?;
    // Owned here, so that it can be left to the kernel where that does not answer.
    let mut owned = std::mem::take(buffer);
    let cmd = make(owned.as_mut_ptr() as u64, owned.len() as u16);
    let entry = opcode::UringCmd80::new(Fd(device.as_raw_fd()), op)
        .cmd(cmd)
        .build();
    // SAFETY: the command names `owned` alone, which lives until it has completed, or else for good.
    let pushed = unsafe { uring.submission().push(&entry) };
    pushed.map_err(|_| io::ErrorKind::OutOfMemory)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let time = Timespec::from(deadline.saturating_duration_since(Instant::now()));
        let args = SubmitArgs::new().timespec(&time);
        let waited = uring.submitter().submit_with_args(1, &args);
        if let Some(done) = uring.completion().next() {
            *buffer = owned;
            return match done.result() {
                result @ 0.. => Ok(result),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            };
        }
        match waited {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                std::mem::forget(owned);
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => {
                std::mem::forget(owned);
                return Err(error);
            }
            Ok(_) => {}
        }
    }
}

/// Opens the character device of a queue's owner. There is one opener at a time: EBUSY where another process serves.
pub fn open_ublk(number: u32) -> io::Result<OwnedFd> {
    // Without O_NONBLOCK the ring would hand each copy of data to a worker thread.
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(format!("/dev/ublkc{number}"))?;
    Ok(device.into())
}

/// The descriptors of one queue: memory that the kernel writes before it hands out a request.
#[derive(Debug)]
pub struct Descriptors {
    map: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread; it is only read, by volatile reads.
unsafe impl Send for Descriptors {}

impl Descriptors {
    /// Maps `len` bytes of the character device from `position` on.
    pub fn map(device: BorrowedFd<'_>, position: u64, len: usize) -> io::Result<Descriptors> {
        // SAFETY: a new mapping wherever the kernel likes, read only.
        let map = unsafe {
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            let (access, fd) = (libc::PROT_READ, device.as_raw_fd());
            libc::mmap(
                std::ptr::null_mut(),
                len,
                access,
                flags,
                fd,
                position as libc::off_t,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Descriptors { map, len })
    }

    /// The `N` bytes of descriptor number `place`. The kernel has written them before it completed the command of
    /// that tag, and writes them again only after the next one; were it otherwise, the bytes would be wrong, and no more.
    ///
    /// Panics where there is no such descriptor.
    pub fn read<const N: usize>(&self, place: u16) -> [u8; N] {
        let start = usize::from(place) * N;
        assert!(start + N <= self.len, "a descriptor lies in its queue");
        // SAFETY: just checked; the pages stay mapped as long as this lives, and any bytes are an array.
        unsafe { self.map.add(start).cast::<[u8; N]>().read_volatile() }
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of which nothing is given out.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.len) };
    }
}
