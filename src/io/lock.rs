//! The locks on a disk: flock, and of a block device also the kernel's own. Both end with the process, whatever way it
//! ends.

use super::disk_error::Problem;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another process that lives may take to let a disk go: it may be ending.
const LIVING_MAX: Duration = Duration::from_secs(1);
/// How long a ring may take that has no process any more. After a clean stop as after kill -9 the kernel ends it in the background,
/// and only then lets its files go: milliseconds, and more than a second (seen once) where it served ublk. After an exec
/// it looks as if it were this very process that has the disk.
const RING_MAX: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

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
        let holder = holder(file);
        if begun.elapsed() >= holder.map_or(RING_MAX, |pid| patience(file, pid)) {
            return Err(match holder {
                Some(pid) if pid == std::process::id() => Problem::OpenHere,
                pid => Problem::InUse { pid },
            });
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// How long who has the lock of a disk may take to let it go: no time where it is this process, and means to have it.
fn patience(file: &File, holder: u32) -> Duration {
    match holder == std::process::id() {
        true if is_open_twice(file) => Duration::ZERO,
        false if lives(holder) => LIVING_MAX,
        _ => RING_MAX,
    }
}

/// Whether a process goes on: one that was killed and that nobody has waited for runs no program any more.
fn lives(pid: u32) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    !program.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether this process has the disk open elsewhere, too.
fn is_open_twice(file: &File) -> bool {
    let identity = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let Ok(disk) = file.metadata().map(identity) else {
        return false;
    };
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return false;
    };
    let same = |path| {
        std::fs::metadata(path)
            .map(identity)
            .is_ok_and(|found| found == disk)
    };
    open.flatten().filter(|entry| same(entry.path())).count() > 1
}

/// Opens a block device exclusively (O_EXCL), which the kernel refuses with EBUSY for as long as somebody has it: a daemon, which
/// has the lock too, or somebody else, as a mount.
pub(super) fn open_exclusive(path: &Path, open: impl Fn() -> io::Result<File>) -> io::Result<File> {
    let begun = Instant::now();
    loop {
        let error = match open() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => error,
            opened => return opened,
        };
        let patience = File::open(path).map(|file| match holder(&file) {
            Some(pid) => patience(&file, pid),
            None => LIVING_MAX,
        });
        if begun.elapsed() >= patience.unwrap_or(LIVING_MAX) {
            return Err(error);
        }
        std::thread::sleep(LOOK_AGAIN);
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
