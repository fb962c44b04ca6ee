//! A socket of generic netlink: sends one request and receives until its answer is there. What the bytes mean is
//! `frontend::nbd_device`'s.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The longest answer: what the kernel gathers in one message.
const RECEIVED: usize = 32 * 1024;

/// A socket to the kernel. Its calls wait for what is asked to be done, so they are none for a shard.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> io::Result<Netlink> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // Errors come with the kernel's words, and without a copy of the request.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            super::kernel::set_flag(&socket, libc::SOL_NETLINK, option)?;
        }
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// Sends the request that `make` makes for a sequence, and receives until `read` finds its answer in all
    /// that has come.
    pub fn ask<T>(
        &mut self,
        make: impl FnOnce(u32) -> Vec<u8>,
        mut read: impl FnMut(&[u8], u32) -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        self.sequence += 1;
        let request = make(self.sequence);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut received = Vec::new();
        let mut room = vec![0; RECEIVED];
        loop {
            let len = match recv(self.socket.as_raw_fd(), &mut room, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            received.extend_from_slice(&room[..len]);
            if let Some(answer) = read(&received, self.sequence)? {
                return Ok(answer);
            }
        }
    }
}
