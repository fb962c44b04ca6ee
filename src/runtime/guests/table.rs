//! The guests that are served, as the control plane and their threads see them.

use super::super::exports::{Export, Exports};
use super::super::handle::Handle;
use super::thread;
use crate::base::VolumeId;
use crate::frontend::vhost_user::{Handed, QUEUES_MAX};
use crate::io::{self, Nudge};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// A guest that is to be served.
#[derive(Debug)]
pub struct Guest {
    /// The number of its attachment.
    pub key: u64,
    pub volume: VolumeId,
    /// A unix socket that listens.
    pub listener: OwnedFd,
    pub queues: u16,
    /// Whether it comes from another host while it still runs there. Its queues run when no other guest of the volume has
    /// any that do, as is so for every guest; this says only that there may be another.
    pub incoming: bool,
    /// The front end that the process before handed over.
    pub handed: Option<Handed<OwnedFd>>,
}

/// How far a guest has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestState {
    /// Nobody is connected.
    Listening,
    /// A front end is there, but its driver is not.
    Connected,
    /// A driver uses the disk.
    Running,
}

/// Why a guest is not served, or goes on being served.
#[derive(Debug)]
pub enum GuestError {
    /// The key is in use.
    Exists,
    /// There is no guest with that key.
    NoSuchGuest,
    /// 1 to 128 queues can be had.
    Queues(u16),
    /// A driver uses the disk.
    InUse,
    /// It is being ended already.
    Ending,
    /// A thread or a file that is needed could not be had.
    System(std::io::Error),
    /// The shards have stopped.
    Stopped,
}

impl fmt::Display for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GuestState::Listening => "listening",
            GuestState::Connected => "connected",
            GuestState::Running => "running",
        })
    }
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuestError::Exists => f.write_str("a guest of that number is served already"),
            GuestError::NoSuchGuest => f.write_str("no guest of that number is served"),
            GuestError::Queues(count) => {
                write!(f, "{count} queues: 1 to {QUEUES_MAX} can be had")
            }
            GuestError::InUse => f.write_str(
                "the guest's driver uses it: unplug the disk or stop the guest, or force it",
            ),
            GuestError::Ending => f.write_str("it is being ended already"),
            GuestError::System(error) => write!(f, "{error}: see the limits of files and threads"),
            GuestError::Stopped => f.write_str("the node is stopping"),
        }
    }
}

impl std::error::Error for GuestError {}

/// What of a guest its thread and everybody else share.
#[derive(Debug)]
pub struct Entry {
    pub key: u64,
    pub volume: VolumeId,
    pub queues: u16,
    nudge: Nudge,
    life: Mutex<Life>,
}

#[derive(Debug)]
struct Life {
    state: GuestState,
    is_to_end: bool,
    /// Whether its front end goes to the next process, and what of it is ready to go.
    hands_over: bool,
    handed: Option<Handed<OwnedFd>>,
    /// Told when it has ended; taken by who waits for that.
    ended: Option<oneshot::Receiver<()>>,
}

impl Entry {
    pub fn nudge(&self) -> &Nudge {
        &self.nudge
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        // Changes are single assignments: what a panic leaves behind is whole.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_to_end(&self) -> bool {
        self.life().is_to_end
    }

    /// Whether its front end is to go to the next process.
    pub fn hands_over(&self) -> bool {
        self.life().hands_over
    }

    /// Whether no other front end is to be served here.
    pub fn is_to_go(&self) -> bool {
        let life = self.life();
        life.is_to_end || life.hands_over
    }

    /// Leaves a front end for who asked that it goes to the next process.
    pub fn hand(&self, handed: Handed<OwnedFd>) {
        self.life().handed = Some(handed);
    }

    /// Notes how far it is. False where it is to end: then it must not get further.
    pub fn advance(&self, state: GuestState) -> bool {
        let mut life = self.life();
        if life.is_to_end {
            return false;
        }
        life.state = state;
        true
    }

    fn end(&self) {
        self.life().is_to_end = true;
        self.nudge.ring();
    }
}

/// All guests of a node.
#[derive(Debug, Default)]
pub struct GuestTable {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    guests: BTreeMap<u64, (Arc<Entry>, JoinHandle<()>)>,
    exports: Arc<Exports>,
    /// Which guest's queues run, by volume.
    running: BTreeMap<VolumeId, u64>,
    is_stopped: bool,
}

impl GuestTable {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volumes as they are now; every guest looks whether its own has changed.
    pub fn set_exports(&self, exports: Arc<Exports>) {
        let mut inner = self.inner();
        inner.exports = exports;
        inner.nudge_all();
    }

    /// The volume as front ends may see it; `None` where it is not there.
    pub fn export(&self, volume: VolumeId) -> Option<Export> {
        self.inner().exports.by_volume(volume).cloned()
    }

    /// Takes the volume for one guest's queues. False while another's run: it is nudged when they do not any more.
    pub fn claim(&self, volume: VolumeId, key: u64) -> bool {
        let mut inner = self.inner();
        *inner.running.entry(volume).or_insert(key) == key
    }

    /// Gives the volume back, where this guest has it.
    pub fn give_up(&self, volume: VolumeId, key: u64) {
        let mut inner = self.inner();
        if inner.running.get(&volume) == Some(&key) {
            inner.running.remove(&volume);
            inner.nudge_all();
        }
    }

    /// Tells all threads to end.
    pub fn stop(&self) {
        let mut inner = self.inner();
        inner.is_stopped = true;
        inner.guests.values().for_each(|(entry, _)| entry.end());
    }

    /// Waits for the ends of all threads; the front ends that are ready for the next process.
    pub fn join(&self) -> Vec<Handed<OwnedFd>> {
        let guests = std::mem::take(&mut self.inner().guests);
        let ended = guests.into_values().filter_map(|(entry, thread)| {
            let _ = thread.join(); // a panic was said by itself
            entry.life().handed.take()
        });
        ended.collect()
    }
}

impl Inner {
    fn nudge_all(&self) {
        self.guests
            .values()
            .for_each(|(entry, _)| entry.nudge.ring());
    }
}

impl Handle {
    /// Serves a volume to a guest by vhost-user-blk, one front end after another, until [`Handle::end_guest`].
    pub async fn serve_guest(&self, guest: Guest) -> Result<(), GuestError> {
        let Guest {
            key,
            volume,
            listener,
            queues,
            incoming,
            handed,
        } = guest;
        if !(1..=QUEUES_MAX).contains(&queues) {
            return Err(GuestError::Queues(queues));
        }
        io::without_waiting(&listener).map_err(GuestError::System)?;
        let (done, ended) = oneshot::channel();
        let entry = Arc::new(Entry {
            key,
            volume,
            queues,
            nudge: Nudge::new().map_err(GuestError::System)?,
            life: Mutex::new(Life {
                state: GuestState::Listening,
                is_to_end: false,
                hands_over: false,
                handed: None,
                ended: Some(ended),
            }),
        });
        let mut inner = self.shared.guests.inner();
        if inner.is_stopped {
            return Err(GuestError::Stopped);
        }
        if inner.guests.contains_key(&key) {
            return Err(GuestError::Exists);
        }
        let ran = handed.as_ref().is_some_and(|handed| handed.ran);
        let (handle, mine) = (self.clone(), Arc::clone(&entry));
        let thread = std::thread::Builder::new()
            .name(format!("guest-{key}"))
            .stack_size(256 * 1024)
            .spawn(move || {
                thread::live(handle, mine, listener, handed);
                let _ = done.send(()); // nobody need wait for it
            });
        let thread = thread.map_err(GuestError::System)?;
        if ran {
            // Before its thread or another guest of the volume can.
            inner.running.entry(volume).or_insert(key);
        }
        inner.guests.insert(key, (entry, thread));
        tracing::debug!(guest = key, %volume, queues, incoming, "a guest is served");
        Ok(())
    }

    /// Ends a guest's connection, when what is in flight has ended, and listens no more. Without `force` refused while a
    /// driver uses it.
    pub async fn end_guest(&self, key: u64, force: bool) -> Result<(), GuestError> {
        let ended = {
            let inner = self.shared.guests.inner();
            let (entry, _) = inner.guests.get(&key).ok_or(GuestError::NoSuchGuest)?;
            let mut life = entry.life();
            if life.state == GuestState::Running && !force {
                return Err(GuestError::InUse);
            }
            let ended = life.ended.take().ok_or(GuestError::Ending)?;
            life.is_to_end = true;
            entry.nudge.ring();
            ended
        };
        let _ = ended.await; // gone without a word is gone, too
        self.shared.guests.inner().guests.remove(&key);
        Ok(())
    }

    /// Stops the rings of all guests and accepts no more front ends, but closes no connection: [`super::super::Runtime::stop`]
    /// has them. Answered when nothing of them is in flight. One that does not come to rest until the shards stop is closed.
    pub async fn hand_over_guests(&self) {
        let ended: Vec<_> = {
            let mut inner = self.shared.guests.inner();
            inner.is_stopped = true;
            let entries = inner.guests.values();
            let told = entries.filter_map(|(entry, _)| {
                let mut life = entry.life();
                life.hands_over = true;
                life.ended.take()
            });
            let ended = told.collect();
            inner.nudge_all();
            ended
        };
        for ended in ended {
            let _ = ended.await; // gone without a word is gone, too
        }
    }

    /// How far a guest has got; `None` where there is none with that key.
    pub fn guest_state(&self, key: u64) -> Option<GuestState> {
        let inner = self.shared.guests.inner();
        let (entry, _) = inner.guests.get(&key)?;
        Some(entry.life().state)
    }
}
