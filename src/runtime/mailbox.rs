//! What shards are told: by the control plane in one bounded queue, by one another in a second one, so that neither
//! can crowd the other out.
//!
//! *No wake is lost*: a shard that is about to sleep says so first ([`Mailbox::doze`]) and looks into its box after
//! that; who leaves letters looks after that whether the shard sleeps. One of the two sees the other. A sender
//! whose letters do not fit says so in the same way ([`Postbox::ask_for_room`]), and is rung when there is room.

use super::bench::{Measured, Share};
use super::exports::Exports;
use super::guests::GuestMail;
use super::handle::{AttachError, BenchError, ListenError};
use super::links::{Cover, LinkError, LinkId, Peer};
use super::post::Letter;
use super::served::{Queue, ServeError, Visitor};
use crate::base::{DiskId, IoError, MapRun, NodeId, RequestKind, VolumeId};
use crate::io;
use crate::shard::{Control, ControlError, Copies, DiskSlot, RouteChange, ShardNo, ToFill};
use crate::store::Openings;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use tokio::sync::oneshot;

/// A message of the control plane to a shard, with the place for its answer.
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
    Route {
        change: Box<RouteChange>,
        done: oneshot::Sender<()>,
    },
    Exports {
        exports: Arc<Exports>,
        done: oneshot::Sender<()>,
    },
    Listen {
        socket: OwnedFd,
        done: oneshot::Sender<Result<(), ListenError>>,
    },
    /// A client of NBD under TLS, behind STARTTLS.
    Visitor {
        socket: OwnedFd,
        visitor: Box<Visitor>,
        done: oneshot::Sender<Result<(), ServeError>>,
    },
    /// A connection of the kernel's nbd, past any handshake.
    Connected {
        socket: OwnedFd,
        volume: VolumeId,
        /// Dropped when the connection is closed and nothing of it is in flight.
        ended: oneshot::Sender<()>,
        done: oneshot::Sender<Result<(), ServeError>>,
    },
    /// A queue of a ublk device.
    Queue {
        queue: Box<Queue>,
        /// Dropped when the queue is closed and nothing of it is in flight.
        ended: oneshot::Sender<()>,
        done: oneshot::Sender<Result<(), ServeError>>,
    },
    Guest(GuestMail),
    /// A connection to a shard of a peer, past its handshake.
    Link {
        socket: OwnedFd,
        cover: Option<Box<dyn Cover>>,
        peer: Peer,
        done: oneshot::Sender<Result<LinkId, LinkError>>,
    },
    /// A link is to end.
    GiveUp {
        link: LinkId,
        done: oneshot::Sender<()>,
    },
    /// To whom are there links?
    Links {
        done: oneshot::Sender<Vec<Peer>>,
    },
    /// These are the disks of a node.
    PeerDisks {
        node: NodeId,
        disks: Vec<(DiskId, ShardNo)>,
        done: oneshot::Sender<()>,
    },
    /// What does the store of a disk keep of its openings?
    Openings {
        disk: DiskId,
        done: oneshot::Sender<Option<Openings>>,
    },
    /// Which volumes does the store of a disk know?
    Volumes {
        disk: DiskId,
        done: oneshot::Sender<Vec<VolumeId>>,
    },
    /// How far are the copies that are being made, and what do the sources of these hold?
    Copies {
        asked: Arc<[ToFill]>,
        done: oneshot::Sender<Copies>,
    },
    Ask(Ask),
    /// The payload memory is made, and can be registered.
    Memory,
    /// Answered in the turn that reads it.
    Turn {
        done: oneshot::Sender<()>,
    },
    Bench {
        share: Box<Share>,
        done: oneshot::Sender<Result<Measured, BenchError>>,
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

/// Messages of the control plane that a mailbox holds; its permits keep them below that.
const MAIL: usize = 1024;
/// Letters of other shards that a mailbox holds. Few in tests, so that full boxes are the rule there.
const LETTERS: usize = if cfg!(test) { 4 } else { 1024 };

/// What both ends of a mailbox see.
#[derive(Debug)]
struct Bell {
    wake: io::Wake,
    stop: AtomicBool,
    /// Whether the shard is to be woken for a letter.
    dozing: AtomicBool,
    /// The shards whose letters did not fit, a bit each.
    crowded_out: AtomicU64,
}

/// Why a letter was not taken.
#[derive(Debug)]
pub(super) enum Undelivered {
    /// There is no room for it now.
    Full(Letter),
    /// The shard has ended, and so does the node.
    Ended,
}

/// The end of a mailbox that messages go into; other threads have clones of it.
#[derive(Debug, Clone)]
pub(super) struct Postbox {
    mail: SyncSender<Mail>,
    letters: SyncSender<Letter>,
    bell: Arc<Bell>,
}

/// The end of a mailbox that its shard reads.
#[derive(Debug)]
pub(super) struct Mailbox {
    mail: Receiver<Mail>,
    letters: Receiver<Letter>,
    /// A letter that was looked at and not taken.
    seen: Option<Letter>,
    bell: Arc<Bell>,
}

/// A new mailbox. Its shard keeps a poll on [`Mailbox::wake`] in its ring.
pub(super) fn mailbox() -> std::io::Result<(Postbox, Mailbox)> {
    let (mail_in, mail) = sync_channel(MAIL);
    let (letters_in, letters) = sync_channel(LETTERS);
    let bell = Arc::new(Bell {
        wake: io::Wake::new()?,
        stop: AtomicBool::new(false),
        dozing: AtomicBool::new(false),
        crowded_out: AtomicU64::new(0),
    });
    let postbox = Postbox {
        mail: mail_in,
        letters: letters_in,
        bell: Arc::clone(&bell),
    };
    let mailbox = Mailbox {
        mail,
        letters,
        seen: None,
        bell,
    };
    Ok((postbox, mailbox))
}

impl Postbox {
    /// Leaves a message of the control plane and wakes the shard where it sleeps. Gives it back where there is no
    /// room for it or the shard has gone.
    pub fn send(&self, mail: Mail) -> Result<(), Mail> {
        self.mail.try_send(mail).map_err(|refused| match refused {
            TrySendError::Full(mail) | TrySendError::Disconnected(mail) => mail,
        })?;
        self.bell.wake.ring();
        Ok(())
    }

    /// Leaves a letter of another shard. [`Postbox::wake`] is to follow when all that go together are there.
    #[expect(
        clippy::result_large_err,
        reason = "a letter goes back to its tray as it came, without an allocation"
    )]
    pub fn post(&self, letter: Letter) -> Result<(), Undelivered> {
        self.letters
            .try_send(letter)
            .map_err(|refused| match refused {
                TrySendError::Full(letter) => Undelivered::Full(letter),
                TrySendError::Disconnected(_) => Undelivered::Ended,
            })
    }

    /// Wakes the shard for the letters that were left, where it sleeps.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.bell.dozing.load(Ordering::Relaxed) {
            self.bell.wake.ring();
        }
    }

    /// Asks to be rung when there is room. To be tried once more after that.
    pub fn ask_for_room(&self, asker: ShardNo) {
        self.bell
            .crowded_out
            .fetch_or(1 << asker.0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Has the shard take another turn.
    pub fn ring(&self) {
        self.bell.wake.ring();
    }

    /// Tells the shard to end. Needs no room in the mailbox.
    pub fn stop(&self) {
        self.bell.stop.store(true, Ordering::Release);
        self.bell.wake.ring();
    }
}

impl Mailbox {
    pub fn wake(&self) -> &io::Wake {
        &self.bell.wake
    }

    /// Called before the messages are taken, so that one which comes after that wakes again.
    pub fn listen_again(&self) {
        self.bell.wake.heard();
    }

    pub fn take(&self) -> Option<Mail> {
        self.mail.try_recv().ok()
    }

    /// The next letter of another shard.
    pub fn take_letter(&mut self) -> Option<Letter> {
        self.seen.take().or_else(|| self.letters.try_recv().ok())
    }

    /// Says that the shard is about to sleep: letters wake it from here on. False where one is there already.
    pub fn doze(&mut self) -> bool {
        self.bell.dozing.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.seen = self.take_letter();
        self.seen.is_none()
    }

    /// The shard is awake, and looks for letters by itself.
    pub fn wake_up(&self) {
        self.bell.dozing.store(false, Ordering::Relaxed);
    }

    /// The shards that wait for room, a bit each. Asked when letters have been taken; tells of each once.
    pub fn crowded_out(&self) -> u64 {
        fence(Ordering::SeqCst);
        match self.bell.crowded_out.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.bell.crowded_out.swap(0, Ordering::SeqCst),
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.bell.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(left: u8) -> Letter {
        Letter::Memory { left }
    }

    #[test]
    fn a_full_box_refuses_and_tells_who_asked_for_room_once() {
        let (postbox, mut mailbox) = mailbox().unwrap();
        for left in 0..LETTERS as u8 {
            postbox.post(memory(left)).unwrap();
        }
        let refused = postbox.post(memory(99)).unwrap_err();
        assert!(matches!(
            refused,
            Undelivered::Full(Letter::Memory { left: 99 })
        ));
        assert_eq!(mailbox.crowded_out(), 0);
        postbox.ask_for_room(ShardNo(3));
        assert!(matches!(
            mailbox.take_letter(),
            Some(Letter::Memory { left: 0 })
        ));
        assert_eq!((mailbox.crowded_out(), mailbox.crowded_out()), (8, 0));
        postbox.post(memory(9)).unwrap();
        drop(mailbox);
        assert!(matches!(postbox.post(memory(1)), Err(Undelivered::Ended)));
    }

    #[test]
    fn a_shard_that_has_a_letter_does_not_sleep_and_keeps_the_order() {
        let (postbox, mut mailbox) = mailbox().unwrap();
        assert!(mailbox.doze());
        mailbox.wake_up();
        postbox.post(memory(1)).unwrap();
        postbox.post(memory(2)).unwrap();
        assert!(!mailbox.doze() && !mailbox.doze());
        assert!(matches!(
            mailbox.take_letter(),
            Some(Letter::Memory { left: 1 })
        ));
        assert!(matches!(
            mailbox.take_letter(),
            Some(Letter::Memory { left: 2 })
        ));
        assert!(mailbox.take_letter().is_none());
    }
}
