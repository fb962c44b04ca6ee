//! One queue of a guest on its shard.

use super::super::desk::Desk;
use super::super::tags::Completed;
use crate::base::VolumeId;
use crate::frontend::vhost_user::{Broken, Disk, Plan, Vring};
use crate::io::{self, FileNo, GuestMemory};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Calls that nobody waits for, after which one is waited for. A front end that has its own eventfd wait for room
/// holds up that many writes of the ring, and no shard.
const CALLS: u8 = 64;

/// The queue of a guest, for a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    pub guest: u64,
    pub index: u16,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of guest {}", self.index, self.guest)
    }
}

/// A queue that is to run.
#[derive(Debug)]
pub struct Start {
    pub name: Name,
    pub volume: VolumeId,
    pub disk: Disk,
    pub vring: Vring,
    pub memory: Arc<GuestMemory>,
    pub kick: OwnedFd,
    pub call: Option<OwnedFd>,
    pub call_may_wait: bool,
    pub error: Option<OwnedFd>,
    pub is_enabled: bool,
}

/// What is to be done with a queue at rest.
#[derive(Debug)]
pub enum Wish {
    Memory(Arc<GuestMemory>, Plan, oneshot::Sender<()>),
    Stop(super::Stop),
}

pub struct Queue {
    pub name: Name,
    pub volume: VolumeId,
    pub disk: Disk,
    pub vring: Vring,
    pub memory: Arc<GuestMemory>,
    pub kick: FileNo,
    pub signals: Signals,
    /// Whether a poll of its kicks is in the ring.
    pub is_polled: bool,
    pub is_enabled: bool,
    pub broken: Option<Broken>,
    /// Whether it is on the list of those to look at, at the end of the turn.
    pub is_dirty: bool,
    pub is_hungry: bool,
    /// Whether it waits for its volume, which was closed.
    pub is_waiting: bool,
    /// Whether only what was put back is still carried out, also where it is not enabled any more.
    pub is_draining: bool,
    /// Whether the driver may have made something available without a kick that would tell of it.
    pub has_more: bool,
    pub wish: Option<Wish>,
}

impl Queue {
    /// Whether heads may be taken from it.
    pub fn serves(&self) -> bool {
        let waits = self.is_hungry || self.is_waiting;
        let may = match self.is_draining {
            true => self.vring.has_put_back(),
            false => self.is_enabled,
        };
        may && self.broken.is_none() && self.wish.is_none() && !waits
    }

    /// Whether heads are put back that will be carried out.
    pub fn must_drain(&self) -> bool {
        self.vring.has_put_back() && self.broken.is_none()
    }

    pub fn is_stopping(&self) -> bool {
        matches!(self.wish, Some(Wish::Stop(_)))
    }

    pub fn drop_files(self, desk: &mut Desk) {
        desk.ring.drop_file(self.kick);
        let Signals { call, error, .. } = self.signals;
        let files = call.into_iter().chain(error).chain(self.signals.left);
        files.for_each(|file| desk.ring.drop_file(file));
    }
}

/// The eventfds by which a guest is told of something.
#[derive(Default)]
pub struct Signals {
    call: Option<FileNo>,
    error: Option<FileNo>,
    /// Whether a write to the call may have to wait.
    may_wait: bool,
    /// Whether the guest is to be called.
    pub is_wanted: bool,
    /// A call whose end is waited for, and how many went out since the last such.
    waited: bool,
    unwaited: u8,
    /// A call that was replaced while one was waited for.
    left: Option<FileNo>,
}

impl Signals {
    pub fn new(call: Option<FileNo>, error: Option<FileNo>, may_wait: bool) -> Signals {
        Signals {
            call,
            error,
            may_wait,
            ..Signals::default()
        }
    }

    /// Calls the guest where that is wanted, at most once a turn.
    pub fn call(&mut self, key: u32, desk: &mut Desk) {
        if !self.is_wanted || self.waited {
            return;
        }
        self.is_wanted = false;
        let Some(call) = self.call else {
            return; // it looks by itself
        };
        self.unwaited += 1;
        let tag = (self.may_wait || self.unwaited >= CALLS).then_some(Completed::Call(key).tag());
        if tag.is_some() {
            (self.waited, self.unwaited) = (true, 0);
        }
        if desk.ring.signal(call, self.may_wait, tag).is_err() {
            (self.waited, self.is_wanted) = (false, true); // with the next turn
        }
    }

    /// The call that was waited for has ended.
    pub fn ended(&mut self, desk: &mut Desk) {
        self.waited = false;
        // The front end may have changed that since.
        self.may_wait = self.call.is_some_and(|call| desk.ring.may_wait(call));
        if let Some(left) = self.left.take() {
            desk.ring.drop_file(left);
        }
    }

    pub fn is_waited_for(&self) -> bool {
        self.waited
    }

    /// Tells of an error, where the front end listens for it.
    pub fn fail(&mut self, desk: &mut Desk) {
        if let Some(error) = self.error {
            let waits = desk.ring.may_wait(error);
            let _ = desk.ring.signal(error, waits, None); // the log has said it
        }
    }

    pub fn replace(&mut self, call: Option<OwnedFd>, error: Option<OwnedFd>, desk: &mut Desk) {
        self.may_wait = call.as_ref().is_some_and(io::may_wait);
        let adopt = |file: Option<OwnedFd>, desk: &mut Desk| {
            let file = file.map(|file| desk.ring.adopt(file));
            file.transpose().unwrap_or_else(|error| {
                tracing::error!(%error, "a guest's eventfd was not taken: it is not told of what is done");
                None
            })
        };
        let old = std::mem::replace(&mut self.call, adopt(call, desk));
        if self.waited && self.left.is_none() {
            self.left = old;
        } else if let Some(old) = old {
            desk.ring.drop_file(old);
        }
        if let Some(old) = std::mem::replace(&mut self.error, adopt(error, desk)) {
            desk.ring.drop_file(old);
        }
    }
}
