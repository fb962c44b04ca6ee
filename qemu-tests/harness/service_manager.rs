//! A service manager, as far as a daemon sees one: it is told things, keeps descriptors, and gives them to the next process.

use super::daemon::{Start, text};
use super::{Room, Step};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A service manager whose words are read one by one.
pub struct Manager {
    pub socket: UnixDatagram,
}

impl Manager {
    pub fn new(room: &Room) -> Step<(Manager, String)> {
        let path = room.path("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok((Manager { socket }, text(&path)))
    }

    /// What it is told next, with the descriptors that come along.
    pub fn hears(&self) -> Step<(String, Vec<OwnedFd>)> {
        let mut room = nix::cmsg_space!([RawFd; 4]);
        let mut bytes = [0; 512];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let got = recvmsg::<UnixAddr>(self.socket.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
        let mut fds = Vec::new();
        for message in got.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: they came with this message, and nobody else has them.
                fds.extend(
                    raw.into_iter()
                        .map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }),
                );
            }
        }
        let len = got.bytes;
        Ok((String::from_utf8_lossy(&bytes[..len]).into_owned(), fds))
    }

    /// Listens until it is told this.
    pub fn waits_for(&self, what: &str) -> Step<(String, Vec<OwnedFd>)> {
        loop {
            let (told, fds) = self.hears()?;
            if told.contains(what) {
                return Ok((told, fds));
            }
        }
    }
}

/// What it keeps, by name: several may have the same.
type Kept = Arc<Mutex<Vec<(String, Arc<OwnedFd>)>>>;

/// A service manager that keeps descriptors, as systemd does with `FileDescriptorStoreMax=`.
pub struct Store {
    kept: Kept,
    notify: String,
}

impl Store {
    /// Listens until the program ends.
    pub fn new(room: &Room) -> Step<Store> {
        let (manager, notify) = Manager::new(room)?;
        manager.socket.set_read_timeout(None)?;
        let kept = Kept::default();
        let into = Arc::clone(&kept);
        std::thread::spawn(move || {
            while let Ok((told, fds)) = manager.hears() {
                take_in(&into, &told, fds);
            }
        });
        Ok(Store { kept, notify })
    }

    /// How it starts the daemon: with everything that it keeps.
    pub fn start(&self, start: &Start) -> Start {
        let kept = self
            .kept
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        let start = start.clone().with_variable("NOTIFY_SOCKET", &self.notify);
        kept.iter().fold(start, |start, (name, fd)| {
            start.with_descriptor(name, Arc::clone(fd))
        })
    }

    /// Closes what it keeps under this name.
    pub fn lose(&self, name: &str) {
        let mut kept = self
            .kept
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        kept.retain(|(other, _)| other != name);
    }

    /// The names of what it keeps.
    pub fn names(&self) -> Vec<String> {
        let kept = self
            .kept
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        kept.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Does what it is told. What comes with other words is closed, which is what a barrier waits for.
fn take_in(kept: &Kept, told: &str, fds: Vec<OwnedFd>) {
    let name = told.lines().find_map(|line| line.strip_prefix("FDNAME="));
    let mut kept = kept.lock().unwrap_or_else(|broken| broken.into_inner());
    let Some(name) = name else { return };
    if told.contains("FDSTOREREMOVE=1") {
        kept.retain(|(other, _)| other != name);
    } else if told.contains("FDSTORE=1") {
        kept.extend(fds.into_iter().map(|fd| (name.to_owned(), Arc::new(fd))));
    }
}
