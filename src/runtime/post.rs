//! What shards tell one another, and the trays in which it waits for the end of a turn.
//!
//! Letters go out once a turn, with one wake for each shard that they go to. Where a box is full the rest stays in its
//! tray, in order: the sender goes on with its turns, so two shards whose boxes are full for each other
//! both still read theirs. *Nothing is dropped*, and trays are bounded by what is in flight: each letter belongs to a
//! request, to its reply, to an accepted socket, or to a round of memory, of which there is one a turn. But for frames of the machines, which may be lost: who puts them looks
//! how many letters wait already ([`Trays::waiting`]).

use super::handle::Shared;
use super::mailbox::Undelivered;
use crate::base::{DiskId, IoError, MapRun, Request, Span};
use crate::protocol::replication::replica::Asker;
use crate::shard::ShardNo;
use crate::wire::Frame;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A part of a request that another shard has: the shard that has the request, the request's name there, and which
/// part of it this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartOf {
    pub origin: ShardNo,
    pub whole: u32,
    pub place: u32,
}

/// Whom a frame is for at the shard that gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// The disk of its head, which the shard has.
    Disk,
    /// Who asked: the shard's machine, or a link of it.
    Asker(Asker),
}

/// What one shard tells another.
#[derive(Debug)]
pub(super) enum Letter {
    /// Extents that the receiver coordinates are asked for. The payload stays where it is; its buffer is held by
    /// the sender until the answer.
    Ask { part: PartOf, request: Request },
    /// The answer to that.
    Answer {
        part: PartOf,
        result: Result<(), IoError>,
        map: Vec<MapRun>,
    },
    /// A client that the receiver is to serve.
    Client(OwnedFd),
    /// A frame of the sender's machine, or one that came over a link of the sender. Its payload is held once for the receiver.
    Frame {
        from: Asker,
        to: Whom,
        disk: DiskId,
        frame: Frame,
        payload: Option<Span>,
    },
    /// The sender waits for payload memory: what the receiver keeps at hand is to be given back.
    Hungry,
    /// There is payload memory: the receiver takes what it waits for, and so do as many others that wait after it.
    Memory { left: u8 },
}

/// The letters of one shard that wait for the end of its turn.
pub(super) struct Trays {
    me: ShardNo,
    shared: Arc<Shared>,
    /// By the shard they go to.
    trays: Vec<VecDeque<Letter>>,
    /// The trays that are not empty, a bit each.
    filled: u64,
}

impl Trays {
    pub fn new(me: ShardNo, shared: Arc<Shared>) -> Trays {
        let trays = shared.lines.iter().map(|_| VecDeque::new()).collect();
        Trays {
            me,
            shared,
            trays,
            filled: 0,
        }
    }

    pub fn put(&mut self, to: ShardNo, letter: Letter) {
        debug_assert_ne!(to, self.me, "a shard writes no letters to itself");
        self.filled |= 1 << to.0;
        self.trays[usize::from(to.0)].push_back(letter);
    }

    /// How many letters wait for a shard.
    pub fn waiting(&self, to: ShardNo) -> usize {
        self.trays[usize::from(to.0)].len()
    }

    /// Puts a letter for every other shard.
    pub fn put_for_all(&mut self, letter: impl Fn() -> Letter) {
        for to in (0..self.trays.len() as u16).map(ShardNo) {
            if to != self.me {
                self.put(to, letter());
            }
        }
    }

    /// Sends what there is room for. To be called at the end of a turn.
    pub fn send(&mut self) {
        let mut filled = self.filled;
        while filled != 0 {
            let to = filled.trailing_zeros() as usize;
            filled &= filled - 1;
            self.send_to(to);
            if self.trays[to].is_empty() {
                self.filled &= !(1 << to);
            }
        }
    }

    fn send_to(&mut self, to: usize) {
        let (tray, postbox) = (&mut self.trays[to], &self.shared.lines[to].postbox);
        let (mut sent, mut asked) = (false, false);
        while let Some(letter) = tray.pop_front() {
            match postbox.post(letter) {
                Ok(()) => sent = true,
                // Once more after it was asked: room that came before that is not told of.
                Err(Undelivered::Full(letter)) => {
                    tray.push_front(letter);
                    if asked {
                        break;
                    }
                    postbox.ask_for_room(self.me);
                    asked = true;
                }
                // The node stops: nobody waits for these any more.
                Err(Undelivered::Ended) => tray.clear(),
            }
        }
        if sent {
            postbox.wake();
        }
    }
}
