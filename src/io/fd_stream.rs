//! A unix stream socket that carries files, for threads that are no shards: nothing here blocks but [`wait`].

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, accept4, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Files of one message at most; the kernel drops those above.
pub const FILES: usize = 64;

/// A connected stream socket.
#[derive(Debug)]
pub struct FdStream(OwnedFd);

impl FdStream {
    pub fn new(socket: OwnedFd) -> FdStream {
        FdStream(socket)
    }

    /// The socket, to be given to somebody else.
    pub fn into_file(self) -> OwnedFd {
        self.0
    }

    /// The next client of a listening socket; `None` where there is none now.
    pub fn accept(listener: &OwnedFd) -> io::Result<Option<FdStream>> {
        use nix::sys::socket::SockFlag;
        match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            // SAFETY: the kernel made this descriptor just now; nobody else knows it.
            Ok(raw) => Ok(Some(FdStream(unsafe { OwnedFd::from_raw_fd(raw) }))),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives at most as much as `into` holds, and the files that come with it. `None` where there is nothing
    /// now; zero bytes at the end of the stream.
    pub fn receive(&self, into: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<Option<usize>> {
        let mut space = nix::cmsg_space!([RawFd; FILES]);
        let mut pieces = [IoSliceMut::new(into)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let got = recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut pieces, Some(&mut space), flags);
        let got = match got {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            other => other?,
        };
        let lost = got.flags.contains(MsgFlags::MSG_CTRUNC);
        if let Ok(messages) = got.cmsgs() {
            for message in messages {
                if let ControlMessageOwned::ScmRights(raw) = message {
                    // SAFETY: the kernel made these descriptors for this message; nobody else knows them.
                    let owned = raw
                        .into_iter()
                        .map(|raw| unsafe { OwnedFd::from_raw_fd(raw) });
                    files.extend(owned);
                }
            }
        }
        match lost {
            true => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "files that came with a message were lost: too many at once, or RLIMIT_NOFILE is too low",
            )),
            false => Ok(Some(got.bytes)),
        }
    }

    /// Sends what goes at once, the file with its first byte. `None` where nothing goes now.
    pub fn send(&self, bytes: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<Option<usize>> {
        let raw = file.map(|file| [file.as_raw_fd()]);
        let rights: Vec<_> = raw
            .iter()
            .map(|raw| ControlMessage::ScmRights(raw))
            .collect();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let pieces = [IoSlice::new(bytes)];
        match sendmsg::<UnixAddr>(self.0.as_raw_fd(), &pieces, &rights, flags, None) {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            sent => Ok(Some(sent?)),
        }
    }
}

impl AsFd for FdStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a file is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Readable,
    Writable,
    /// Only its end or an error.
    Hangup,
}

/// Waits until something is so, or has ended: which, by place. Nothing is, where the time ran out.
pub fn wait(on: &[(BorrowedFd<'_>, Until)], most: Option<Duration>) -> io::Result<u64> {
    let events = |until: Until| match until {
        Until::Readable => PollFlags::POLLIN,
        Until::Writable => PollFlags::POLLOUT,
        Until::Hangup => PollFlags::empty(),
    };
    let mut polled: Vec<PollFd<'_>> = on
        .iter()
        .map(|&(fd, until)| PollFd::new(fd, events(until)))
        .collect();
    let most = match most {
        None => PollTimeout::NONE,
        // A whole millisecond at least, or what is not yet due would be asked for over and over.
        Some(most) => {
            PollTimeout::try_from(most.as_millis() as i32 + 1).unwrap_or(PollTimeout::MAX)
        }
    };
    match poll(&mut polled, most) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(0),
        Err(error) => return Err(error.into()),
    }
    let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
    let ready = polled.iter().enumerate().filter(|(_, fd)| ready(fd));
    Ok(ready.map(|(place, _)| 1 << place).sum())
}

/// Has a listening socket answer at once where nobody waits: one that was inherited may be set to wait.
pub fn without_waiting(socket: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Whether a file is an eventfd, which can be polled and written from a shard without fear: another file's driver
/// could wait there for as long as it likes.
pub fn is_eventfd(file: &OwnedFd) -> bool {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventfd]")
}

/// Whether writes to a file may wait.
pub fn may_wait(file: &OwnedFd) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = fcntl(file, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    !flags.is_ok_and(|flags| flags.contains(OFlag::O_NONBLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn pair() -> (FdStream, FdStream) {
        let (a, b) = UnixStream::pair().unwrap();
        (FdStream::new(a.into()), FdStream::new(b.into()))
    }

    #[test]
    fn files_come_with_the_bytes_that_they_were_sent_with() {
        let (a, b) = pair();
        let event = nix::sys::eventfd::EventFd::new().unwrap();
        a.send(b"first", None).unwrap();
        a.send(b"second", Some(event.as_fd())).unwrap();
        let (mut bytes, mut files) = ([0; 5], Vec::new());
        assert_eq!(b.receive(&mut bytes, &mut files).unwrap(), Some(5));
        assert_eq!((&bytes, files.len()), (b"first", 0));
        assert_eq!(b.receive(&mut bytes, &mut files).unwrap(), Some(5));
        assert_eq!((&bytes, files.len()), (b"secon", 1));
        assert!(is_eventfd(&files[0]) && may_wait(&files[0]));
        assert_eq!(b.receive(&mut bytes, &mut files).unwrap(), Some(1));
        assert_eq!(b.receive(&mut bytes, &mut files).unwrap(), None);
        drop(a);
        assert_eq!(b.receive(&mut bytes, &mut files).unwrap(), Some(0));
    }

    #[test]
    fn a_wait_says_which_of_them_is_ready() {
        let (a, b) = pair();
        let on = [(a.as_fd(), Until::Readable), (b.as_fd(), Until::Readable)];
        assert_eq!(wait(&on, Some(Duration::from_millis(1))).unwrap(), 0);
        a.send(b"x", None).unwrap();
        assert_eq!(wait(&on, None).unwrap(), 2);
        assert_eq!(wait(&[(a.as_fd(), Until::Writable)], None).unwrap(), 1);
    }
}
