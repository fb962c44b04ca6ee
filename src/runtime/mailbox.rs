//! What shards are told by the control plane and by one another, through one bounded queue a shard.

use super::bench::{Measurement, Spec};
use super::exports::Exports;
use super::handle::{AttachError, BenchError, ListenError};
use crate::base::{IoError, MapRun, RequestKind, VolumeId};
use crate::io;
use crate::shard::{Control, ControlError, DiskSlot};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use tokio::sync::oneshot;

/// A message to a shard. Those of the control plane carry the place for their answer.
#[derive(Debug)]
pub(super) enum Mail {
    AttachDisk {
        slot: DiskSlot,
        disk: io::Disk,
        done: oneshot::Sender<Result<(), AttachError>>,
    },
    Control {
        control: Box<Control>,
        done: oneshot::Sender<Result<(), ControlError>>,
    },
    Exports {
        exports: Arc<Exports>,
        done: oneshot::Sender<()>,
    },
    Listen {
        socket: OwnedFd,
        done: oneshot::Sender<Result<(), ListenError>>,
    },
    Ask(Ask),
    Bench {
        spec: Box<Spec>,
        done: oneshot::Sender<Result<Measurement, BenchError>>,
    },
}

/// A request of the control plane.
#[derive(Debug)]
pub(super) struct Ask {
    pub kind: RequestKind,
    pub volume: VolumeId,
    pub offset: u64,
    pub len: u64,
    /// The payload of a write; for a read, the memory that the answer comes in.
    pub data: Vec<u8>,
    pub done: oneshot::Sender<Result<Answer, IoError>>,
}

/// What an [`Ask`] brought.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub data: Vec<u8>,
    pub map: Vec<MapRun>,
}

/// Letters that a shard's mailbox holds.
const LETTERS: usize = 1024;

/// The end of a mailbox that letters go into; other threads have clones of it.
#[derive(Debug, Clone)]
pub(super) struct Postbox {
    letters: SyncSender<Mail>,
    wake: Arc<io::Wake>,
    stop: Arc<AtomicBool>,
}

/// The end of a mailbox that its shard reads.
#[derive(Debug)]
pub(super) struct Mailbox {
    letters: Receiver<Mail>,
    wake: Arc<io::Wake>,
    stop: Arc<AtomicBool>,
}

/// A new mailbox. Its shard keeps a poll on [`Mailbox::wake`] in its ring.
pub(super) fn mailbox() -> std::io::Result<(Postbox, Mailbox)> {
    let (send, receive) = sync_channel(LETTERS);
    let wake = Arc::new(io::Wake::new()?);
    let stop = Arc::new(AtomicBool::new(false));
    let postbox = Postbox {
        letters: send,
        wake: Arc::clone(&wake),
        stop: Arc::clone(&stop),
    };
    let mailbox = Mailbox {
        letters: receive,
        wake,
        stop,
    };
    Ok((postbox, mailbox))
}

impl Postbox {
    /// Leaves a letter and wakes the shard where it sleeps. Gives the letter back where there is no room
    /// for it or the shard has gone.
    pub fn send(&self, mail: Mail) -> Result<(), Mail> {
        self.letters
            .try_send(mail)
            .map_err(|refused| match refused {
                TrySendError::Full(mail) | TrySendError::Disconnected(mail) => mail,
            })?;
        self.wake.ring();
        Ok(())
    }

    /// Tells the shard to end. Needs no room in the mailbox.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.ring();
    }
}

impl Mailbox {
    pub fn wake(&self) -> &io::Wake {
        &self.wake
    }

    /// Called before the letters are taken, so that a letter which comes after that wakes again.
    pub fn listen_again(&self) {
        self.wake.heard();
    }

    pub fn take(&self) -> Option<Mail> {
        self.letters.try_recv().ok()
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}
