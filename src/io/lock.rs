//! The locks on a disk: flock, and of a block device also the kernel's own. Both end with the process, whatever way it
//! ends.

use super::disk_error::Problem;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// How long a lock is tried for: after a clean stop as after kill -9 the kernel ends the ring of the dead process in the
/// background, and only then lets its files go (milliseconds; more than a second, seen once, where it served ublk). After an exec
/// that is a ring of this very process.
const PATIENCE: Duration = Duration::from_secs(4);

/// Takes the exclusive lock of an open disk, which is held until the last duplicate of `file` is closed.
pub(super) fn exclusive(file: &File) -> Result<(), Problem> {
    let begun = Instant::now();
    loop {
        // SAFETY: no memory is passed.
        let failed = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        if failed == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EWOULDBLOCK) {
            return Err(Problem::of(error));
        }
        if begun.elapsed() >= PATIENCE {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(match holder(file) {
        Some(pid) if pid == std::process::id() => Problem::OpenHere,
        pid => Problem::InUse { pid },
    })
}

/// Opens a block device exclusively (O_EXCL), which the kernel refuses with EBUSY for as long as somebody has it.
pub(super) fn open_exclusive(open: impl Fn() -> io::Result<File>) -> io::Result<File> {
    let begun = Instant::now();
    loop {
        match open() {
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && begun.elapsed() < PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// The process that holds the flock of this file, where /proc/locks tells it.
fn holder(file: &File) -> Option<u32> {
    let meta = file.metadata().ok()?;
    let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
    let name = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 4242 fe:00:131 0 EOF
        let fields: Vec<&str> = line.split_whitespace().collect();
        let found = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&name.as_str());
        found.then(|| fields[4].parse().ok())?
    })
}
