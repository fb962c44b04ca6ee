//! The listening sockets of the API and of NBD: made at the start, or taken from the process that was here before, so that
//! no client is refused in between.

use super::config::Config;
use super::start::{self, StartError};
use crate::io::{Inherited, check_listening};
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// What they are called on their way.
const NAMES: [&str; 5] = [
    "sarsen.listen.api",
    "sarsen.listen.nbd",
    "sarsen.listen.tcp",
    "sarsen.listen.api-tcp",
    "sarsen.listen.nbd-tls",
];

/// The sockets that are there.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    inherited: Vec<Inherited>,
    own: Vec<Inherited>,
}

impl Listeners {
    /// Takes out of what was inherited the sockets that the process before left.
    pub fn of(inherited: &mut Vec<Inherited>) -> Listeners {
        let is_ours = |fd: &mut Inherited| NAMES.contains(&fd.name.as_str());
        Listeners {
            inherited: inherited.extract_if(.., is_ours).collect(),
            own: Vec::new(),
        }
    }

    /// The API's socket.
    pub fn api(&mut self, config: &Config) -> Result<OwnedFd, StartError> {
        let path = &config.api.socket;
        let is_it = |fd: &OwnedFd| is_at(fd, path);
        self.take(NAMES[0], is_it, || start::unix(config, path, "api.socket"))
    }

    /// The API's on TCP, where one is wished for.
    pub fn api_tcp(&mut self, config: &Config) -> Result<Option<OwnedFd>, StartError> {
        let Some(address) = config.api.listen else {
            return Ok(None);
        };
        let is_it = |fd: &OwnedFd| is_of(fd, address);
        let make = || {
            let made = crate::io::listen_tcp(address);
            made.map_err(|error| StartError::new("api.listen", error))
        };
        self.take(NAMES[3], is_it, make).map(Some)
    }

    /// That of NBD under TLS, where one is wished for.
    pub fn nbd_tls(&mut self, config: &Config) -> Result<Option<OwnedFd>, StartError> {
        let Some(address) = config.nbd.listen_tls() else {
            return Ok(None);
        };
        // One in the clear that was there before would be in the way.
        self.inherited.retain(|fd| fd.name != NAMES[2]);
        let is_it = |fd: &OwnedFd| is_of(fd, address);
        let make = || {
            let made = crate::io::listen_tcp(address);
            made.map_err(|error| StartError::new("nbd.listen", error))
        };
        self.take(NAMES[4], is_it, make).map(Some)
    }

    /// The sockets of NBD in the clear: a unix one, and of TCP where one is wished for. The last that are asked for.
    pub fn nbd(&mut self, config: &Config) -> Result<Vec<OwnedFd>, StartError> {
        let path = &config.nbd.socket;
        let is_it = |fd: &OwnedFd| is_at(fd, path);
        let unix = self.take(NAMES[1], is_it, || start::unix(config, path, "nbd.socket"))?;
        let mut all = vec![unix];
        let in_the_clear = config.nbd.listen_tls().is_none();
        if let Some(address) = config.nbd.listen.filter(|_| in_the_clear) {
            self.inherited.retain(|fd| fd.name != NAMES[4]);
            let is_it = |fd: &OwnedFd| is_of(fd, address);
            let make =
                || crate::io::listen_tcp(address).map_err(|error| StartError::new("nbd", error));
            all.push(self.take(NAMES[2], is_it, make)?);
        }
        // What nobody took belongs to another configuration: who connects there is to be refused, and not to wait.
        self.inherited.clear();
        Ok(all)
    }

    /// All of them, for the next process.
    pub fn into_inherited(self) -> Vec<Inherited> {
        self.own
    }

    fn take(
        &mut self,
        name: &str,
        is_it: impl Fn(&OwnedFd) -> bool,
        make: impl FnOnce() -> Result<OwnedFd, StartError>,
    ) -> Result<OwnedFd, StartError> {
        let failed = |error: &dyn fmt::Display| StartError::new("sockets", error);
        let found = self.inherited.iter().position(|fd| fd.name == name);
        let found = found.map(|at| self.inherited.swap_remove(at).fd);
        let fd = match found.filter(is_it) {
            Some(fd) => fd,
            None => make()?,
        };
        let copy = fd.try_clone().map_err(|error| failed(&error))?;
        self.own.push(Inherited {
            name: name.into(),
            fd: copy,
        });
        Ok(fd)
    }
}

/// Whether it is what a client finds at this path.
fn is_at(fd: &OwnedFd, path: &Path) -> bool {
    let there = std::fs::symlink_metadata(path).is_ok_and(|at| at.file_type().is_socket());
    there && check_listening(fd) == Ok(Some(path.into()))
}

fn is_of(fd: &OwnedFd, address: SocketAddr) -> bool {
    let listener = fd.try_clone().map(TcpListener::from);
    listener
        .and_then(|listener| listener.local_addr())
        .is_ok_and(|own| own == address)
}
