//! The pump of guests' disks: queues of vhost-user-blk on the shards, and what their front ends say, on threads.
//!
//! ```text
//!   front end ── messages, files ──► a thread a guest ── mail ──► the shards that have its queues
//!   guest ── kick (eventfd, polled in the ring) ──► queue ──► desk ──► machine
//!         ◄─ call (eventfd, written by the ring) ── queue ◄────────── reply
//! ```
//!
//! A front end's messages may map or unmap memory of any size, which takes its time: so they are read on a thread
//! of the guest, which sleeps for as long as nothing is said. It waits for shards, and no shard ever waits for it. Queues of a
//! guest are spread over the shards; requests go from the queue straight to the machine of its shard.
//!
//! *Memory does not change under a request*: a queue first comes to rest, then gets its new memory, then goes on.
//! *Nothing of a queue is anywhere else when it is dropped*: no request, no poll, no call that somebody waits for.

mod connection;
mod handover;
mod park;
mod queue;
mod serve;
mod table;
mod thread;

pub(super) use table::GuestTable;
pub use table::{Guest, GuestError, GuestState};

use super::desk::Desk;
use super::tags::Completed;
use crate::base::{Slab, Time};
use crate::frontend::vhost_user::{Broken, Plan};
use crate::io::{Completion, DirtyLog, GuestMemory};
use queue::{Queue, Signals, Wish};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Queues of one shard at most.
const QUEUES: usize = 16 * 1024;
/// After what time requests are tried again that found their volume closed, and a stop that waits for them.
const AGAIN: Duration = Duration::from_millis(50);

/// What a guest's thread asks of a shard that has a queue of it, or is to have one.
#[derive(Debug)]
pub(super) enum GuestMail {
    /// The queue's key, where it was taken.
    Start {
        queue: Box<queue::Start>,
        done: oneshot::Sender<Option<u32>>,
    },
    Change {
        key: u32,
        change: Change,
        done: oneshot::Sender<()>,
    },
    Stop {
        key: u32,
        stop: Stop,
    },
}

/// A queue is to stop, when nothing of it is in flight any more.
#[derive(Debug)]
pub(super) struct Stop {
    /// Not while heads are put back, which are in the in-flight region only: whoever goes on may not have it.
    pub whole: bool,
    /// The index at which it stopped. `None` where it did not: what was put back is carried out first.
    pub done: oneshot::Sender<Option<u16>>,
}

/// A change of a queue that runs.
#[derive(Debug)]
pub(super) enum Change {
    Signals {
        call: Option<OwnedFd>,
        error: Option<OwnedFd>,
    },
    Enable(bool),
    /// Answered when nothing is in flight in the memory that was before.
    Memory(Arc<GuestMemory>, Plan),
    Log(Option<DirtyLog>, Option<u64>),
}

/// The queues of one shard.
pub(super) struct Guests {
    queues: Slab<Queue>,
    /// Queues to look at, at the end of the turn.
    dirty: Vec<u32>,
    /// Queues that wait for payload memory, first come first served.
    hungry: VecDeque<u32>,
    /// When queues are looked at whose volume was closed.
    again_at: Option<Time>,
}

impl Guests {
    pub fn new() -> Guests {
        Guests {
            queues: Slab::new(QUEUES),
            dirty: Vec::new(),
            hungry: VecDeque::new(),
            again_at: None,
        }
    }

    pub fn open_mail(&mut self, mail: GuestMail, desk: &mut Desk) {
        match mail {
            GuestMail::Start { queue, done } => {
                let _ = done.send(self.start(*queue, desk));
            }
            GuestMail::Change { key, change, done } => self.change(key, change, done, desk),
            GuestMail::Stop { key, stop } => {
                let queue = &mut self.queues[key];
                queue.wish = Some(Wish::Stop(stop));
                if queue.is_polled && desk.ring.cancel_all(queue.kick).is_err() {
                    tracing::error!(queue = %queue.name, "the kicks of a queue could not be cancelled");
                }
                self.touch(key);
            }
        }
    }

    fn start(&mut self, start: queue::Start, desk: &mut Desk) -> Option<u32> {
        let adopt = |desk: &mut Desk, file: Option<OwnedFd>| match file {
            Some(file) => desk.ring.adopt(file).map(Some),
            None => Ok(None),
        };
        let kick = desk.ring.adopt(start.kick).ok()?;
        let calls = adopt(desk, start.call).and_then(|call| Ok((call, adopt(desk, start.error)?)));
        let Ok((call, error)) = calls else {
            desk.ring.drop_file(kick);
            return None;
        };
        let queue = Queue {
            name: start.name,
            volume: start.volume,
            disk: start.disk,
            vring: start.vring,
            memory: start.memory,
            kick,
            signals: Signals::new(call, error, start.call_may_wait),
            is_polled: false,
            is_enabled: start.is_enabled,
            broken: None,
            is_dirty: false,
            is_hungry: false,
            is_waiting: false,
            is_draining: false,
            has_more: true,
            wish: None,
        };
        let key = match self.queues.insert(queue) {
            Ok(key) => key,
            Err(queue) => {
                queue.drop_files(desk);
                return None;
            }
        };
        self.listen(key, desk);
        // Whoever had the ring before may have ended between the used index and the call.
        self.queues[key].signals.is_wanted = true;
        self.touch(key);
        Some(key)
    }

    fn change(&mut self, key: u32, change: Change, done: oneshot::Sender<()>, desk: &mut Desk) {
        let queue = &mut self.queues[key];
        match change {
            Change::Signals { call, error } => {
                queue.signals.replace(call, error, desk);
                // Whoever is called from now on may have missed what the last one was called for.
                queue.signals.is_wanted = true;
            }
            Change::Enable(on) => {
                queue.is_enabled = on;
                queue.has_more |= on;
            }
            Change::Log(log, used) => queue.vring.set_log(log, used),
            Change::Memory(memory, plan) => {
                queue.wish = Some(Wish::Memory(memory, plan, done));
                return self.touch(key);
            }
        }
        let _ = done.send(()); // its thread waits, or has gone with the node
        self.touch(key);
    }

    /// Polls the kicks of a queue.
    fn listen(&mut self, key: u32, desk: &mut Desk) {
        let queue = &mut self.queues[key];
        match desk.ring.poll(queue.kick, Completed::Kick(key).tag()) {
            Ok(()) => queue.is_polled = true,
            Err(_) => self.break_queue(key, Broken::Kick, desk),
        }
    }

    /// A guest kicked, or the poll has ended.
    pub fn kicked(&mut self, key: u32, done: Completion, desk: &mut Desk) {
        let queue = &mut self.queues[key];
        if !done.more() {
            queue.is_polled = false;
            if done.outcome().is_err() && queue.wish.is_none() {
                self.break_queue(key, Broken::Kick, desk);
            } else if !queue.is_stopping() {
                // The kernel ends a poll where it had no room for a completion.
                self.listen(key, desk);
            }
        }
        self.serve(key, desk);
        self.touch(key);
    }

    /// A call that was waited for has gone out.
    pub fn called(&mut self, key: u32, desk: &mut Desk) {
        let queue = &mut self.queues[key];
        queue.signals.ended(desk);
        self.touch(key);
    }

    /// Notes that a queue is to be looked at, at the end of the turn.
    fn touch(&mut self, key: u32) {
        let queue = &mut self.queues[key];
        if !queue.is_dirty {
            queue.is_dirty = true;
            self.dirty.push(key);
        }
    }

    /// Lets the guests see what was completed, takes what they still had to ask, and does what is wished of queues at rest.
    pub fn settle(&mut self, desk: &mut Desk) {
        if self.again_at.is_some_and(|at| at <= desk.now) {
            self.again_at = None;
            let waiting = self.queues.iter_mut();
            let waiting = waiting.filter(|(_, queue)| queue.is_waiting);
            let keys: Vec<u32> = waiting.map(|(key, _)| key).collect();
            for key in keys {
                let queue = &mut self.queues[key];
                (queue.is_waiting, queue.has_more) = (false, true);
                self.touch(key);
            }
        }
        if self.dirty.is_empty() {
            return;
        }
        // Settling one may touch it again, for the next turn.
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let queue = &mut self.queues[key];
            queue.is_dirty = false;
            if queue.memory.is_broken() {
                self.break_queue(key, Broken::Memory, desk);
            }
            let queue = &mut self.queues[key];
            queue.vring.publish();
            queue.signals.is_wanted |= queue.vring.wants_call();
            queue.signals.call(key, desk);
            if queue.wish.is_some() {
                self.fulfil(key, desk);
            } else if queue.has_more {
                self.serve(key, desk);
            }
        }
        // Its memory is used again: under load each turn touches some anew.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Whether something waits for the next turn.
    pub fn is_unsettled(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When [`Guests::settle`] is to be called, whatever happens.
    pub fn deadline(&self) -> Option<Time> {
        self.again_at
    }

    /// Does what is wished of a queue, where nothing of it is in flight.
    fn fulfil(&mut self, key: u32, desk: &mut Desk) {
        let queue = &mut self.queues[key];
        if queue.vring.in_flight() > 0 {
            return;
        }
        match queue.wish.take() {
            Some(Wish::Memory(memory, plan, done)) => {
                let moved = queue.vring.move_to(plan, &memory);
                queue.memory = memory;
                queue.has_more = true;
                if let Err(broken) = moved {
                    self.break_queue(key, broken, desk);
                }
                let _ = done.send(());
                self.touch(key);
            }
            Some(wish @ Wish::Stop(_)) if queue.is_polled || queue.signals.is_waited_for() => {
                queue.wish = Some(wish);
            }
            Some(Wish::Stop(Stop { done, whole: true })) if queue.must_drain() => {
                let _ = done.send(None); // its thread asks again, or has gone with the node
                (queue.is_draining, queue.has_more) = (true, true);
                self.listen(key, desk);
                self.touch(key);
            }
            Some(Wish::Stop(Stop { done, .. })) => {
                if let Some(queue) = self.queues.remove(key) {
                    let base = queue.vring.base();
                    self.hungry.retain(|other| *other != key);
                    // Its memory is still held by the guest's thread, so that none is unmapped here.
                    queue.drop_files(desk);
                    let _ = done.send(Some(base));
                }
            }
            None => {}
        }
    }

    /// Takes nothing more from a queue, and tells its guest.
    fn break_queue(&mut self, key: u32, why: Broken, desk: &mut Desk) {
        let queue = &mut self.queues[key];
        if queue.broken.is_some() {
            return;
        }
        tracing::warn!(queue = %queue.name, "a guest's queue is broken: {why}");
        queue.broken = Some(why);
        queue.signals.is_wanted = true;
        queue.signals.fail(desk);
        self.touch(key);
    }
}
