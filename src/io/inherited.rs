//! Descriptors that the process was born with: what a service manager opened for it, or kept for it over a restart, and
//! what the process handed on that was here before (`successor`).
//!
//! The protocol is systemd's: `LISTEN_FDS` says how many descriptors there are from 3 on, `LISTEN_FDNAMES` their
//! names with colons between, `LISTEN_PID` whom they are meant for. They are taken once, before there are other
//! threads; afterwards the environment says nothing of them, and no child gets them.

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::{SFlag, fstat};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// The first descriptor that a service manager passes.
pub(super) const FIRST: RawFd = 3;
/// More than any service has; beyond it, the number is not believed.
const COUNT_MAX: usize = 65_536;
/// What a descriptor is called that has no name.
const NAMELESS: &str = "unknown";

pub(super) const VARIABLES: [&str; 3] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];

/// A descriptor, and what the service manager calls it.
#[derive(Debug)]
pub struct Inherited {
    pub name: String,
    pub fd: OwnedFd,
}

/// What is wrong with a socket that is to be listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotListening {
    /// It is a file, a pipe, or something else.
    NoSocket,
    /// It is of another family or type.
    NotUnixStream,
    /// Nobody called `listen` on it.
    NotListening,
}

impl std::fmt::Display for NotListening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NotListening::NoSocket => "it is not a socket",
            NotListening::NotUnixStream => "it is not a unix stream socket",
            NotListening::NotListening => "it does not listen",
        })
    }
}

/// Takes what the process was born with, out of the environment too.
///
/// To be called once, as the first thing of a process: there must be no other thread yet, and nothing that has
/// opened a descriptor for itself.
pub fn take_inherited() -> Vec<Inherited> {
    let [count, names, pid] = VARIABLES.map(std::env::var_os);
    for variable in VARIABLES {
        // SAFETY: no other thread reads the environment, because there is none (see above).
        unsafe { std::env::remove_var(variable) };
    }
    let passed = names_of(count, names, pid, std::process::id());
    let descriptor = |(at, name): (usize, String)| {
        let raw = FIRST + at as RawFd;
        // A descriptor that is not there must not be owned: its number will be somebody else's.
        // SAFETY: asks for the flags of a number, which is harmless whatever it is.
        if unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
            return None;
        }
        // SAFETY: it is open, and by the protocol it is ours; nobody else has taken it (see above).
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // Neither can fail on an open descriptor. Listening sockets are blocking, as those that are made here: io_uring
        // does not wait at others. What else there is has somebody else at its other end, who chose for both.
        let _ = fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        if getsockopt(&fd, sockopt::AcceptConn) == Ok(true) {
            let flags = fcntl(&fd, FcntlArg::F_GETFL).unwrap_or_default();
            let blocking = OFlag::from_bits_retain(flags) - OFlag::O_NONBLOCK;
            let _ = fcntl(&fd, FcntlArg::F_SETFL(blocking));
        }
        Some(Inherited { name, fd })
    };
    passed
        .into_iter()
        .enumerate()
        .filter_map(descriptor)
        .collect()
}

/// The names of the descriptors that the variables promise to the process `own`.
fn names_of(
    count: Option<OsString>,
    names: Option<OsString>,
    pid: Option<OsString>,
    own: u32,
) -> Vec<String> {
    let number = |text: Option<OsString>| text?.to_str()?.parse::<usize>().ok();
    // Meant for another process, which has passed its environment on.
    if number(pid) != Some(own as usize) {
        return Vec::new();
    }
    let count = number(count)
        .filter(|count| *count <= COUNT_MAX)
        .unwrap_or(0);
    let names = names.unwrap_or_default();
    let mut named = names.as_bytes().split(|byte| *byte == b':');
    let name = |_| match named.next() {
        None | Some([]) => NAMELESS.to_owned(),
        Some(name) => String::from_utf8_lossy(name).into_owned(),
    };
    (0..count).map(name).collect()
}

/// Whether clients can be accepted from a descriptor; the path that they connect to, where it has one.
pub fn check_listening(fd: &OwnedFd) -> Result<Option<PathBuf>, NotListening> {
    let kind = fstat(fd).map_or(0, |stat| stat.st_mode) & SFlag::S_IFMT.bits();
    if kind != SFlag::S_IFSOCK.bits() {
        return Err(NotListening::NoSocket);
    }
    let stream = getsockopt(fd, sockopt::SockType) == Ok(SockType::Stream);
    let duplicate = || -> io::Result<UnixListener> { Ok(fd.as_fd().try_clone_to_owned()?.into()) };
    // The address of another family is not one of ours.
    let address = duplicate().and_then(|listener| listener.local_addr());
    let (true, Ok(address)) = (stream, address) else {
        return Err(NotListening::NotUnixStream);
    };
    match getsockopt(fd, sockopt::AcceptConn) {
        Ok(true) => Ok(address.as_pathname().map(PathBuf::from)),
        _ => Err(NotListening::NotListening),
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_dir::TestDir;
    use super::*;
    use std::os::unix::net::UnixStream;

    fn names(count: &str, names: Option<&str>, pid: &str) -> Vec<String> {
        let own = |text: &str| Some(OsString::from(text));
        names_of(own(count), names.and_then(own), own(pid), 42)
    }

    #[test]
    fn names_belong_to_descriptors_in_their_order_and_may_be_missing() {
        assert_eq!(names("2", Some("a:b"), "42"), ["a", "b"]);
        assert_eq!(names("3", Some("a"), "42"), ["a", "unknown", "unknown"]);
        assert_eq!(names("1", None, "42"), ["unknown"]);
        assert_eq!(names("1", Some("a:b"), "42"), ["a"]);
    }

    #[test]
    fn what_is_meant_for_another_process_or_is_no_number_is_nothing() {
        assert!(names("2", Some("a:b"), "41").is_empty());
        for odd in ["", "-1", "two", "1000000000000", "70000"] {
            assert!(names(odd, Some("a"), "42").is_empty(), "{odd}");
        }
        assert!(names_of(None, None, None, 42).is_empty());
    }

    #[test]
    fn only_a_unix_stream_socket_that_listens_is_taken() {
        let dir = TestDir::new();
        let path = dir.path("s");
        let listener: OwnedFd = UnixListener::bind(&path).unwrap().into();
        assert_eq!(check_listening(&listener), Ok(Some(path)));
        let file: OwnedFd = std::fs::File::create(dir.path("f")).unwrap().into();
        assert_eq!(check_listening(&file), Err(NotListening::NoSocket));
        let tcp: OwnedFd = std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
        assert_eq!(check_listening(&tcp), Err(NotListening::NotUnixStream));
        let (pair, _other) = UnixStream::pair().unwrap();
        assert_eq!(
            check_listening(&pair.into()),
            Err(NotListening::NotListening)
        );
    }
}
