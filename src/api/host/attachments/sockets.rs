//! The listening sockets of guests.
//!
//! A socket is made at the path that was asked for, or was inherited by name (`fd:NAME`). It lives as long as its
//! attachment: what serves a guest gets a duplicate, so that it can be started again, and where there is a service
//! manager that keeps descriptors (`FileDescriptorStoreMax=` in the unit), that has one too and gives it to the next
//! process. A guest that connects while there is no process waits in the socket's queue.

use super::super::lock;
use crate::api::model::ErrorBody;
use crate::io::{
    GuestSocketError, Inherited, check_listening, forget_descriptor, keep_descriptor,
    listen_for_guest,
};
use crate::protocol::catalog::AttachmentKey;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What an inherited socket is asked for by.
const INHERITED: &str = "fd:";
/// What the service manager keeps our own sockets under; the attachment's key follows.
const KEPT: &str = "sarsen.guest.";

/// The sockets of a node's guests.
#[derive(Debug)]
pub struct Sockets {
    /// Where those are made that have no path of their own.
    folder: PathBuf,
    mode: u32,
    group: Option<u32>,
    /// By the name that the service manager gave them; several may have the same.
    inherited: BTreeMap<String, Vec<OwnedFd>>,
    /// Ours, by attachment.
    own: Mutex<BTreeMap<AttachmentKey, OwnedFd>>,
}

impl Sockets {
    pub fn new(folder: &Path, mode: u32, group: Option<u32>, inherited: Vec<Inherited>) -> Sockets {
        let mut named: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
        let mut own = BTreeMap::new();
        for Inherited { name, fd } in inherited {
            let key = name.strip_prefix(KEPT).and_then(|key| key.parse().ok());
            match key {
                // Of two under one key, the newer is the one that is served.
                Some(key) => drop(own.insert(AttachmentKey(key), fd)),
                None => named.entry(name).or_default().push(fd),
            }
        }
        Sockets {
            folder: folder.into(),
            mode,
            group,
            inherited: named,
            own: Mutex::new(own),
        }
    }

    /// The path of a socket for which none was named.
    pub(super) fn path_for(&self, volume: &str) -> String {
        let path = self.folder.join(format!("{volume}.sock"));
        path.display().to_string()
    }

    /// A listening socket for this attachment; the same one for as long as it is not closed.
    pub(super) fn open(&self, key: AttachmentKey, socket: &str) -> Result<OwnedFd, ErrorBody> {
        let opened = match socket.strip_prefix(INHERITED) {
            Some(name) => return self.inherited(name),
            None => self.kept(key, socket),
        };
        if let Some(kept) = opened {
            return duplicate(&kept, socket);
        }
        let path = Path::new(socket);
        if path.parent() == Some(&self.folder) {
            let made = std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&self.folder);
            made.map_err(|error| {
                refused(&self.folder.display().to_string(), &error.to_string(), "")
            })?;
        }
        let made = listen_for_guest(path, self.mode, self.group);
        let made = made.map_err(|error| not_made(socket, error))?;
        if let Err(error) = keep_descriptor(&kept_as(key), &made) {
            tracing::warn!(socket, %error, "systemd does not keep the socket: guests connect anew after a restart");
        }
        let given = duplicate(&made, socket)?;
        lock(&self.own).insert(key, made);
        Ok(given)
    }

    /// The end of an attachment: the socket and its path go, unless somebody else made it.
    pub(super) fn close(&self, key: AttachmentKey, socket: &str) {
        if socket.starts_with(INHERITED) || lock(&self.own).remove(&key).is_none() {
            return;
        }
        self.forget(key);
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(socket, %error, "the socket was not removed");
            }
            _ => {}
        }
    }

    /// Gives up the sockets of attachments that are not wanted any more: their end was cut short by a crash.
    pub(super) fn retain(&self, wanted: impl Fn(AttachmentKey) -> bool) {
        let mut own = lock(&self.own);
        let gone: Vec<_> = own.keys().copied().filter(|key| !wanted(*key)).collect();
        for key in gone {
            let socket = own.remove(&key);
            self.forget(key);
            let path = socket.and_then(|socket| check_listening(&socket).ok().flatten());
            if let Some(path) = path
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "the socket was not removed");
            }
        }
    }

    /// Where a client finds a socket; `None` where it is not known.
    pub(super) fn path_of(&self, socket: &str) -> Option<String> {
        let Some(name) = socket.strip_prefix(INHERITED) else {
            return Some(socket.to_owned());
        };
        let fd = self.inherited.get(name)?.first()?;
        let path = check_listening(fd).ok().flatten()?;
        Some(path.display().to_string())
    }

    /// Duplicates of all that there are, under the names by which the next process takes them. A socket that was given by
    /// the service manager keeps its own.
    pub fn for_the_next(&self) -> io::Result<Vec<Inherited>> {
        let own = lock(&self.own);
        let own = own.iter().map(|(key, fd)| (kept_as(*key), fd));
        let given = self.inherited.iter();
        let given = given.flat_map(|(name, fds)| fds.iter().map(move |fd| (name.clone(), fd)));
        let copy = |(name, fd): (String, &OwnedFd)| {
            Ok(Inherited {
                name,
                fd: fd.try_clone()?,
            })
        };
        own.chain(given).map(copy).collect()
    }

    fn forget(&self, key: AttachmentKey) {
        if let Err(error) = forget_descriptor(&kept_as(key)) {
            tracing::warn!(%error, "systemd could not be told to forget a socket");
        }
    }

    /// The socket that we have already, where it is still what a client finds at its path.
    fn kept(&self, key: AttachmentKey, socket: &str) -> Option<OwnedFd> {
        let mut own = lock(&self.own);
        let kept = own.get(&key)?;
        let listens = check_listening(kept);
        let there = std::fs::symlink_metadata(socket).is_ok_and(|at| at.file_type().is_socket());
        if there && listens == Ok(Some(PathBuf::from(socket))) {
            return kept.try_clone().ok();
        }
        tracing::warn!(
            socket,
            ?listens,
            there,
            "the socket that was kept is of no use any more"
        );
        own.remove(&key);
        drop(own);
        self.forget(key);
        None
    }

    fn inherited(&self, name: &str) -> Result<OwnedFd, ErrorBody> {
        let socket = format!("{INHERITED}{name}");
        let hint =
            "a systemd socket unit gives it: FileDescriptorName=NAME and Service=sarsen.service";
        let fd = match self.inherited.get(name).map(Vec::as_slice) {
            Some([one]) => one,
            Some(several) => {
                let why = format!(
                    "the daemon inherited {} sockets of that name",
                    several.len()
                );
                return Err(refused(&socket, &why, "give each a name of its own"));
            }
            None => {
                let names: Vec<&str> = self.inherited.keys().map(String::as_str).collect();
                let why = match names.is_empty() {
                    true => "the daemon inherited no sockets".to_owned(),
                    false => format!("the daemon inherited only {}", names.join(", ")),
                };
                return Err(refused(&socket, &why, hint));
            }
        };
        check_listening(fd).map_err(|why| refused(&socket, &why.to_string(), hint))?;
        duplicate(fd, &socket)
    }
}

fn kept_as(key: AttachmentKey) -> String {
    format!("{KEPT}{key}")
}

fn duplicate(fd: &OwnedFd, socket: &str) -> Result<OwnedFd, ErrorBody> {
    let hint = "raise LimitNOFILE";
    fd.try_clone()
        .map_err(|error| refused(socket, &error.to_string(), hint))
}

fn not_made(socket: &str, error: GuestSocketError) -> ErrorBody {
    let hint = match error {
        GuestSocketError::NoSocket => "name a path where nothing is",
        GuestSocketError::Alive => "name another path, or end what listens there",
        GuestSocketError::NotOurs => "remove it, or name another path",
        GuestSocketError::NoFolder => "make its folder first",
        GuestSocketError::System(_) => "the daemon's user must be able to make a socket there",
    };
    refused(socket, &error.to_string(), hint)
}

fn refused(socket: &str, why: &str, hint: &str) -> ErrorBody {
    ErrorBody::conflict("socket", format!("{socket}: {why}"), hint)
}
