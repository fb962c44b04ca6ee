//! Listening sockets of front ends: unix ones for those in the group, TCP on loopback only.

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, chown, geteuid};
use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Connections of a guest's socket that may wait to be accepted: one, and another while it is given up.
const GUEST_BACKLOG: i32 = 8;

/// Why there is no socket for a guest at a path. What was there is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestSocketError {
    /// Something is there that is no socket.
    NoSocket,
    /// A process listens there.
    Alive,
    /// Its folder does not exist.
    NoFolder,
    /// A socket that nobody listens on, and that another user has made.
    NotOurs,
    /// The system refused it.
    System(Errno),
}

impl fmt::Display for GuestSocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuestSocketError::NoSocket => f.write_str("it exists and is not a socket"),
            GuestSocketError::Alive => f.write_str("another process listens there"),
            GuestSocketError::NoFolder => f.write_str("its folder does not exist"),
            GuestSocketError::NotOurs => f.write_str("another user has left a socket there"),
            GuestSocketError::System(error) => f.write_str(error.desc()),
        }
    }
}

impl std::error::Error for GuestSocketError {}

/// Listens on a unix socket at a path that somebody chose, with these permissions and, where one is given, this
/// group. A socket that an earlier process of this user left behind is replaced, and nothing else.
pub fn listen_for_guest(
    path: &Path,
    mode: u32,
    group: Option<u32>,
) -> Result<OwnedFd, GuestSocketError> {
    use GuestSocketError::System;
    let (family, stream) = (AddressFamily::Unix, SockType::Stream);
    let address = UnixAddr::new(path).map_err(System)?;
    make_way(path, &address)?;
    // Blocking: io_uring answers EAGAIN at once for a socket that is not, in place of waiting for a client.
    let flags = SockFlag::SOCK_CLOEXEC;
    let made = socket(family, stream, flags, None).map_err(System)?;
    // The file gets the mode that the socket has before it is bound: there is no moment in which others may connect.
    fchmod(&made, Mode::from_bits_truncate(0o600)).map_err(System)?;
    bind(made.as_raw_fd(), &address).map_err(|error| match error {
        Errno::ENOENT => GuestSocketError::NoFolder,
        error => System(error),
    })?;
    let ready = || -> nix::Result<()> {
        if let Some(group) = group {
            chown(path, None, Some(Gid::from_raw(group)))?;
        }
        listen(&made, Backlog::new(GUEST_BACKLOG)?)
    };
    let shown = || std::fs::set_permissions(path, Permissions::from_mode(mode));
    let done = ready().and_then(|()| shown().map_err(|error| errno_of(&error)));
    done.map_err(|error| {
        // It was made a moment ago, by us, and nobody could use it yet.
        let _ = std::fs::remove_file(path);
        System(error)
    })?;
    Ok(made)
}

/// Removes what a dead process of this user left at `path`, or says why it stays.
fn make_way(path: &Path, address: &UnixAddr) -> Result<(), GuestSocketError> {
    let old = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(GuestSocketError::System(errno_of(&error))),
        Ok(old) => old,
    };
    if !old.file_type().is_socket() {
        return Err(GuestSocketError::NoSocket);
    }
    let (family, stream) = (AddressFamily::Unix, SockType::Stream);
    // Not blocking: a listener whose queue is full is alive, and must not hold us up.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(family, stream, flags, None).map_err(GuestSocketError::System)?;
    match connect(probe.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => {}
        Err(error @ (Errno::EACCES | Errno::EPERM)) => return Err(GuestSocketError::System(error)),
        _ => return Err(GuestSocketError::Alive),
    }
    if old.uid() != geteuid().as_raw() {
        return Err(GuestSocketError::NotOurs);
    }
    std::fs::remove_file(path).map_err(|error| GuestSocketError::System(errno_of(&error)))
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Listens on a unix socket with these permissions (normally 0660) and, where one is given, this group.
/// A socket that a dead process left behind is replaced; one that somebody answers is not.
pub fn listen_unix(path: &Path, mode: u32, group: Option<u32>) -> io::Result<OwnedFd> {
    let old = std::fs::symlink_metadata(path);
    if old.is_ok_and(|meta| meta.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            let text = format!("{}: another process listens here", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    if let Some(group) = group {
        chown(path, None, Some(Gid::from_raw(group)))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(listener.into())
}

/// Listens on TCP. Without TLS that is for this host alone, so another address than loopback is refused.
pub fn listen_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    if !address.ip().is_loopback() {
        let text = format!("{address}: without TLS only loopback addresses are served");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let listener = TcpListener::bind(address)
        .map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))?;
    Ok(listener.into())
}

/// Two unix sockets that are connected with one another.
pub fn connected_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((ours.into(), theirs.into()))
}

/// Sends small replies at once. Unix sockets have no such option and need none.
pub fn without_delay(socket: &OwnedFd) {
    let _ = nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::TcpNoDelay, &true);
}

/// Has the kernel end a TCP connection whose other side has not confirmed anything for that long, also where nothing is said. Unix sockets need no such thing, and
/// where it cannot be set a dead peer is found out later.
pub fn with_patience(socket: &impl AsRawFd, patience: std::time::Duration) {
    let third = (patience.as_secs() / 3).clamp(1, 3600) as libc::c_int;
    let whole = patience.as_millis().min(1 << 30) as libc::c_int;
    for (level, name, value) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, third),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, third),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, whole),
    ] {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the socket is open, and the value lives until the call returns.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                len,
            )
        };
    }
}

/// Has operations on a socket wait: the ring answers EAGAIN at once for one that does not, and those of an async runtime do not.
pub fn with_waiting(socket: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::test_dir::TestDir;
    use super::*;

    #[test]
    fn a_left_socket_is_replaced_and_a_live_one_is_not() {
        let dir = TestDir::new();
        let path = dir.path("s");
        let first = listen_unix(&path, 0o660, None).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let busy = listen_unix(&path, 0o660, None).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen_unix(&path, 0o600, None).unwrap();
    }

    #[test]
    fn a_guest_s_socket_replaces_a_dead_one_of_ours_and_nothing_else() {
        let dir = TestDir::new();
        let path = dir.path("g");
        let first = listen_for_guest(&path, 0o660, None).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(UnixStream::connect(&path).is_ok());
        let alive = listen_for_guest(&path, 0o660, None).unwrap_err();
        assert_eq!(alive, GuestSocketError::Alive);
        drop(first);
        drop(listen_for_guest(&path, 0o600, None).unwrap());
        let file = dir.path("f");
        std::fs::write(&file, "precious").unwrap();
        let link = dir.path("l");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for other in [&file, &link] {
            let refused = listen_for_guest(other, 0o660, None).unwrap_err();
            assert_eq!(refused, GuestSocketError::NoSocket, "{}", other.display());
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
        let nowhere = listen_for_guest(&dir.path("no/g"), 0o660, None).unwrap_err();
        assert_eq!(nowhere, GuestSocketError::NoFolder);
    }

    #[test]
    fn tcp_beyond_loopback_is_refused() {
        assert!(listen_tcp("0.0.0.0:0".parse().unwrap()).is_err());
        assert!(listen_tcp("127.0.0.1:0".parse().unwrap()).is_ok());
    }
}
