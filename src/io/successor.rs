//! Becoming the next process: the same pid with another binary, which inherits descriptors as from a service manager.

use super::inherited::{FIRST, Inherited, VARIABLES};
use nix::errno::Errno;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Runs another binary in the place of this one, with these descriptors: the first of these that the kernel takes. Returns
/// only where it takes none, and tells of each that failed.
///
/// To be called when nothing else of the process goes on: numbers from 3 on get other files.
pub fn become_next(
    binaries: &[&Path],
    arguments: &[OsString],
    fds: Vec<Inherited>,
    mut failed: impl FnMut(&Path, &io::Error),
) {
    if let Err(error) = place(&fds) {
        binaries.iter().for_each(|binary| failed(binary, &error));
        return;
    }
    let names: Vec<&str> = fds.iter().map(|fd| fd.name.as_str()).collect();
    let [count, named, pid] = VARIABLES;
    for binary in binaries {
        let mut command = Command::new(binary);
        command
            .args(arguments)
            .env(count, names.len().to_string())
            .env(named, names.join(":"))
            .env(pid, std::process::id().to_string());
        failed(binary, &command.exec());
    }
    // Their numbers have other files now.
    fds.into_iter().for_each(|fd| std::mem::forget(fd.fd));
}

/// Gives duplicates of the descriptors the numbers from [`FIRST`] on, where they outlive an exec.
fn place(fds: &[Inherited]) -> io::Result<()> {
    let end = FIRST + fds.len() as RawFd;
    // Out of the way first: one of them may lie where another has to be.
    let mut moved: Vec<OwnedFd> = Vec::with_capacity(fds.len());
    for Inherited { fd, .. } in fds {
        moved.push(duplicate_from(fd, end)?);
    }
    for (at, fd) in (FIRST..).zip(&moved) {
        // SAFETY: what had that number belongs to nobody who goes on (see above).
        if unsafe { libc::dup2(fd.as_raw_fd(), at) } < 0 {
            return Err(Errno::last().into());
        }
    }
    Ok(())
}

fn duplicate_from(fd: &OwnedFd, least: RawFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: duplicates a descriptor that is open.
    let raw = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    if raw < 0 {
        return Err(Errno::last().into());
    }
    // SAFETY: the kernel made it just now.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
