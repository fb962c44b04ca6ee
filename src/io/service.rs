//! What a service tells its manager, by the datagrams of systemd's `sd_notify`, and what it has kept there:
//! descriptors that outlive the process and come back with the next one.
//!
//! Without `NOTIFY_SOCKET` in the environment nobody listens, and all of this does nothing.

use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Names this process as `ps` and `top` show it: one that was begun by way of `/proc/self/exe` is called `exe` else.
pub fn name_process() {
    // Only people look at it.
    let _ = nix::sys::prctl::set_name(c"sarsen");
}

/// Says `text`, lines of `KEY=VALUE`, to the service manager. False where there is none.
pub fn tell_service_manager(text: &str) -> io::Result<bool> {
    with_socket(|socket| send(socket, text, &[]))
}

/// Has the service manager keep a descriptor under this name: the next process inherits it. False where there is
/// no manager.
pub fn keep_descriptor(name: &str, fd: &OwnedFd) -> io::Result<bool> {
    // Without FDPOLL=0 the manager drops what hangs up, which a listening socket never does.
    with_socket(|socket| send(socket, &format!("FDSTORE=1\nFDNAME={name}\n"), &[fd]))
}

/// Has the service manager forget the descriptors of this name.
pub fn forget_descriptor(name: &str) -> io::Result<bool> {
    with_socket(|socket| send(socket, &format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[]))
}

/// Whether there is a service manager.
pub fn has_service_manager() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty())
}

/// Waits until the service manager has read all that it was told so far, but not longer than this. False where it has not,
/// or there is none.
pub fn catch_up(limit: Duration) -> io::Result<bool> {
    // It closes its end of the pipe when it comes to this message.
    let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    if !with_socket(|socket| send(socket, "BARRIER=1", &[&theirs]))? {
        return Ok(false);
    }
    drop(theirs);
    Ok(super::wait(&[(ours.as_fd(), super::Until::Hangup)], Some(limit))? != 0)
}

/// How often the service manager wants to hear of this process at least; `None` where it does not.
pub fn watchdog_interval() -> Option<Duration> {
    let variable = |name: &str| std::env::var(name).ok();
    interval(
        variable("WATCHDOG_USEC"),
        variable("WATCHDOG_PID"),
        std::process::id(),
    )
}

fn interval(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    // Without a pid it is meant for whoever reads it.
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

fn with_socket(send: impl FnOnce(&OsStr) -> io::Result<()>) -> io::Result<bool> {
    match std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) {
        None => Ok(false),
        Some(socket) => send(&socket).map(|()| true),
    }
}

fn send(socket: &OsStr, text: &str, fds: &[&OwnedFd]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        _ => UnixAddr::new(socket)?,
    };
    let raw: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[] } else { &rights[..] };
    let from = UnixDatagram::unbound()?;
    let text = [IoSlice::new(text.as_bytes())];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg(from.as_raw_fd(), &text, control, flags, Some(&address))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::test_dir::TestDir;
    use super::*;
    use nix::sys::socket::{ControlMessageOwned, recvmsg};
    use std::io::IoSliceMut;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    #[test]
    fn a_notice_arrives_at_a_path_and_at_an_abstract_name() {
        let dir = TestDir::new();
        let path = dir.path("notify");
        let at_path = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1\n", &[]).unwrap();
        let mut text = [0; 32];
        let len = at_path.recv(&mut text).unwrap();
        assert_eq!(&text[..len], b"READY=1\n");

        let name = format!("sarsen-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let at_name = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1\n", &[]).unwrap();
        let len = at_name.recv(&mut text).unwrap();
        assert_eq!(&text[..len], b"STOPPING=1\n");
    }

    #[test]
    fn a_descriptor_arrives_with_its_name() {
        let dir = TestDir::new();
        let path = dir.path("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let listener: OwnedFd = UnixListener::bind(dir.path("s")).unwrap().into();
        send(path.as_os_str(), "FDSTORE=1\nFDNAME=a\n", &[&listener]).unwrap();
        let mut text = [0; 64];
        let mut room = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let mut parts = [IoSliceMut::new(&mut text)];
        let got = recvmsg::<UnixAddr>(
            manager.as_raw_fd(),
            &mut parts,
            Some(&mut room),
            MsgFlags::empty(),
        );
        let got = got.unwrap();
        let fds = got.cmsgs().unwrap().map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.len(),
            _ => 0,
        });
        assert_eq!(fds.sum::<usize>(), 1);
    }

    #[test]
    fn the_watchdog_is_for_this_process_and_has_a_time() {
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(
            interval(own("3000000"), own("7"), 7),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            interval(own("3000000"), None, 7),
            Some(Duration::from_secs(3))
        );
        assert_eq!(interval(own("3000000"), own("8"), 7), None);
        assert_eq!(interval(own("0"), None, 7), None);
        assert_eq!(interval(own("soon"), None, 7), None);
        assert_eq!(interval(None, None, 7), None);
    }
}
