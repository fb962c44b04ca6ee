//! What of the kernel is needed: Linux 6.1 or newer, with io_uring allowed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The oldest kernel that has all that is used here: DEFER_TASKRUN came with 6.1.
const OLDEST: (u32, u32) = (6, 1);

/// The first kernel that lets go of a registered file when it is taken out. Older ones let go of such files in turn, and
/// only once every operation on any registered file that began earlier has ended. One that never ends, as the poll of
/// a bell, holds all of them for ever: descriptors leak, and peers never see the end of a connection (seen on 6.12).
const LETS_GO: (u32, u32) = (6, 13);

/// Refuses a kernel that is too old, and says which it must be.
pub fn check() -> io::Result<()> {
    let name = nix::sys::utsname::uname()?;
    let release = name.release().to_string_lossy();
    if version(&release).is_some_and(|found| found < OLDEST) {
        let (major, minor) = OLDEST;
        let text = format!("Linux {major}.{minor} or newer is needed, this is {release}");
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(())
}

/// Whether files may be registered that are taken out again.
pub(super) fn lets_go_of_files() -> bool {
    let name = nix::sys::utsname::uname();
    let found = name
        .ok()
        .and_then(|n| version(&n.release().to_string_lossy()));
    found.is_some_and(|found| found >= LETS_GO)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Why a ring was not made, in words that say what to do.
pub(super) fn explain(error: io::Error) -> io::Error {
    let text = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "io_uring is not allowed here: see the sysctl kernel.io_uring_disabled and the seccomp \
             profile of the container"
        }
        Some(libc::ENOSYS) => "this kernel was built without io_uring",
        Some(libc::ENOMEM) => "not enough lockable memory for a ring: raise RLIMIT_MEMLOCK",
        Some(libc::EMFILE | libc::ENFILE) => "too many open files: raise RLIMIT_NOFILE",
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

/// Raises the soft limits of lockable memory and open files to the hard ones. Where that is refused they stay
/// as they are, and what does not fit is not registered.
pub fn raise_limits() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    for resource in [Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_NOFILE] {
        if let Ok((soft, hard)) = getrlimit(resource)
            && soft < hard
        {
            let _ = setrlimit(resource, hard, hard);
        }
    }
}

/// Whether so many bytes may be locked in memory.
pub(super) fn lets_lock(bytes: u64) -> bool {
    use nix::sys::resource::{Resource, getrlimit};
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    limit >= bytes || nix::unistd::geteuid().is_root()
}

/// Switches on an option of a socket that nix has no name for.
pub(super) fn set_flag(socket: &OwnedFd, level: i32, option: i32) -> io::Result<()> {
    let on: i32 = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option's value is an int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&on).cast(),
            len,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_any_release_name() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.167.4-microsoft"), Some((5, 15)));
        assert_eq!(version("6.18-rc3+"), Some((6, 18)));
        assert_eq!(version("unknown"), None);
        assert!((5, 15) < OLDEST && (6, 1) >= OLDEST && (7, 0) >= OLDEST);
    }
}
