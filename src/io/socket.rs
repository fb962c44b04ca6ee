//! Listening sockets of front ends: unix ones for those in the group, TCP on loopback only.

use nix::unistd::{Gid, chown};
use std::fs::Permissions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

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
    fn tcp_beyond_loopback_is_refused() {
        assert!(listen_tcp("0.0.0.0:0".parse().unwrap()).is_err());
        assert!(listen_tcp("127.0.0.1:0".parse().unwrap()).is_ok());
    }
}
