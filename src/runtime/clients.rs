//! The pump of NBD: moves bytes between sockets and sessions, and requests between sessions and the machine.
//!
//! ```text
//!   socket ─► receive ─► take ─► session ─► command ─► desk ─► machine
//!   socket ◄─ send ◄──── gathered ◄── session.reply ◄───────── reply
//! ```
//!
//! The data of a small write is copied once, out of the buffer that it was received into; that of a large one
//! is received where it belongs. All replies of a turn to one client leave in one system call's
//! one message. A client that sends and does not read is not listened to until it does.

use super::connection::{
    Connection, Incoming, Life, Receiving, Stall, ZeroJob, blocks_of, has_payload,
};
use super::desk::{Desk, Owner, Pending, Wanted};
use super::exports::Exports;
use super::handle::ListenError;
use super::served::{ServeError, Visitor};
use super::tags::Completed;
use crate::base::{BLOCK, BufRef, IoError, MapRun, Request, RequestKind, Slab, Time, VolumeId};
use crate::frontend::nbd::{
    Command, Event, Export, ExportInfo, Limits, Purpose, Refusal, Session, Slot, Zeroing,
};
use crate::io::{self, Completion, Expect, FileNo, Message, Part};
use crate::observe::Operation;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Connections of one shard.
const CONNECTIONS: usize = 16 * 1024;
/// Of these, connections that have not finished their handshake.
const STRANGERS: u32 = 1024;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often connections are looked at that may be at rest, and handshakes that may be too slow.
const SWEEP: Duration = Duration::from_secs(5);
/// Listening sockets.
const LISTENERS: usize = 16;
/// Data of a write from which it is received where it belongs, in bytes. Below, one more copy costs less than
/// one more receive.
const DIRECT: u32 = 32 * 1024;
/// Unsent bytes at which a client is not listened to.
const UNSENT: u64 = 4 << 20;
/// A piece of a write of zeroes that must stay allocated, in bytes.
const ZERO_PIECE: u64 = 1 << 20;
/// How long a command of the kernel's nbd may wait for payload memory. After its own time-out the kernel sends it again,
/// on another connection where there is one; the older must not be carried out behind the newer, and what was written after
/// that.
const STALE: Duration = Duration::from_secs(1);
/// Messages that are kept for the next use.
const MESSAGES: usize = 64;

/// What waits for payload memory.
#[derive(Debug, Clone, Copy)]
enum Hungry {
    Command(u32),
    Job(u32, u32),
}

pub(super) struct Clients {
    connections: Slab<Connection>,
    listeners: Vec<FileNo>,
    exports: Arc<Exports>,
    limits: Limits,
    strangers: u32,
    /// Connections to look at, at the end of the turn.
    dirty: Vec<u32>,
    /// Connections that wait for payload memory, first come first served.
    hungry: VecDeque<Hungry>,
    /// Listeners that accept nothing until the next sweep, for lack of files or memory.
    deaf: Vec<u32>,
    awake: Vec<u32>,
    /// Connections that wait for an export that is away.
    waiting: Vec<u32>,
    /// What they want, for the control plane.
    wanted: Vec<VolumeId>,
    sweep_at: Option<Time>,
    /// Empty messages with their memory.
    messages: Vec<Message>,
}

impl Clients {
    pub fn new(limits: Limits) -> Clients {
        Clients {
            connections: Slab::new(CONNECTIONS),
            listeners: Vec::new(),
            exports: Arc::default(),
            limits,
            strangers: 0,
            dirty: Vec::new(),
            hungry: VecDeque::new(),
            deaf: Vec::new(),
            awake: Vec::new(),
            waiting: Vec::new(),
            wanted: Vec::new(),
            sweep_at: None,
            messages: Vec::new(),
        }
    }

    /// Accepts clients from a socket.
    pub fn listen(&mut self, socket: OwnedFd, desk: &mut Desk) -> Result<(), ListenError> {
        if self.listeners.len() == LISTENERS {
            return Err(ListenError::TooMany);
        }
        let file = desk.ring.adopt(socket).map_err(|_| ListenError::TooMany)?;
        let tag = Completed::Accept(self.listeners.len() as u32).tag();
        if desk.ring.accept(file, tag).is_err() {
            desk.ring.drop_file(file);
            return Err(ListenError::TooMany);
        }
        self.listeners.push(file);
        Ok(())
    }

    /// A listening socket has a client, or has failed. The new socket, for whatever shard is to serve it.
    pub fn accepted(&mut self, listener: u32, done: Completion, now: Time) -> Option<OwnedFd> {
        if !done.more() {
            self.deaf.push(listener);
            self.sweep_by(now + Duration::from_millis(100));
        }
        match done.into_socket() {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "an NBD client was not accepted");
                None
            }
        }
    }

    /// Serves a new client.
    pub fn welcome(&mut self, socket: OwnedFd, desk: &mut Desk) {
        if self.strangers >= STRANGERS {
            tracing::warn!("an NBD client was turned away: {STRANGERS} are in their handshake");
            return;
        }
        io::without_delay(&socket);
        let file = match desk.ring.adopt(socket) {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, "an NBD client was turned away");
                return;
            }
        };
        let mut message = self.messages.pop().unwrap_or_default();
        let session = Session::new(self.limits, message.bytes());
        let mut connection = Connection::new(file, session, desk.now);
        connection.gathered = Some(message);
        match self.connections.insert(connection) {
            Ok(key) => {
                self.strangers += 1;
                self.sweep_by(desk.now + SWEEP);
                self.touch(key);
            }
            Err(_) => {
                tracing::warn!("an NBD client was turned away: {CONNECTIONS} are connected");
                desk.ring.drop_file(file);
            }
        }
    }

    /// Serves a client that came under TLS. It says the next word.
    pub fn receive_visitor(
        &mut self,
        socket: OwnedFd,
        visitor: Box<Visitor>,
        desk: &mut Desk,
    ) -> Result<(), ServeError> {
        if self.strangers >= STRANGERS {
            return Err(ServeError::Full);
        }
        let file = desk.ring.adopt(socket);
        let file = file.map_err(|_| ServeError::TooManyFiles)?;
        let session = Session::secured(self.limits, visitor.no_zeroes);
        let mut connection = Connection::new(file, session, desk.now);
        connection.visitor = Some(visitor);
        match self.connections.insert(connection) {
            Ok(key) => {
                self.strangers += 1;
                self.sweep_by(desk.now + SWEEP);
                self.touch(key);
                Ok(())
            }
            Err(_) => {
                desk.ring.drop_file(file);
                Err(ServeError::Full)
            }
        }
    }

    /// Serves a connection of the kernel's nbd, which begins with its first request.
    pub fn take_over(
        &mut self,
        socket: OwnedFd,
        volume: VolumeId,
        ended: oneshot::Sender<()>,
        desk: &mut Desk,
    ) -> Result<(), ServeError> {
        let export = self.exports.by_volume(volume);
        let export = export.ok_or(ServeError::NoSuchVolume)?;
        let session = Session::connected(
            self.limits,
            Export {
                volume,
                size: export.size,
                read_only: export.read_only,
            },
        );
        let file = desk.ring.adopt(socket);
        let file = file.map_err(|_| ServeError::TooManyFiles)?;
        let mut connection = Connection::new(file, session, desk.now);
        connection.volume = Some(volume);
        connection.kernel = Some(ended);
        match self.connections.insert(connection) {
            Ok(key) => {
                desk.shared.attachments.take(volume);
                self.touch(key);
                Ok(())
            }
            Err(_) => {
                desk.ring.drop_file(file);
                Err(ServeError::Full)
            }
        }
    }

    /// Takes a new table of exports, tells live sessions what sizes changed, and answers who waits for an export that is not away any more.
    pub fn set_exports(&mut self, exports: Arc<Exports>, desk: &mut Desk) {
        let mut shut_out = Vec::new();
        for (key, connection) in self.connections.iter_mut() {
            let export = connection
                .volume
                .and_then(|volume| exports.by_volume(volume));
            if let Some(export) = export {
                connection.session.set_size(export.size);
                let visitor = connection.visitor.as_ref();
                if visitor.is_some_and(|one| one.refused_by(&export.clients).is_some()) {
                    shut_out.push(key);
                }
            }
        }
        for key in shut_out {
            if let Some(visitor) = &self.connections[key].visitor {
                tracing::warn!(
                    client = visitor.client,
                    "an NBD client was cut off: it is not on its volume's list any more"
                );
            }
            self.lose(key, desk);
        }
        self.exports = exports;
        for key in std::mem::take(&mut self.waiting) {
            self.open(key, Purpose::Attach, desk);
            self.touch(key);
        }
    }

    /// The next volume that somebody waits for.
    pub fn next_wanted(&mut self) -> Option<VolumeId> {
        self.wanted.pop()
    }

    /// Notes that a connection is to be looked at, at the end of the turn.
    fn touch(&mut self, key: u32) {
        let connection = &mut self.connections[key];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    fn sweep_by(&mut self, time: Time) {
        self.sweep_at = Some(self.sweep_at.map_or(time, |at| at.min(time)));
    }

    /// When [`Clients::sweep`] is to be called.
    pub fn deadline(&self) -> Option<Time> {
        self.sweep_at
    }
}

mod receive;
mod send;
mod settle;
mod zeroes;
