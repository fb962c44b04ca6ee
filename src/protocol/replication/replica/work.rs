//! Chunks that are being filled, or fetched for a joiner. What changes such a chunk waits: what is handed over with a chunk, or written with it, is
//! what its window says at that moment.

use super::{Asker, Frame, HELD_MAX, Op, Output, Replica, refuse};
use crate::base::{ChunkId, Payload, VolumeId};
use crate::protocol::replication::fill::{Content, FillHeader};
use crate::protocol::replication::message::{Change, Refusal};
use crate::protocol::replication::window::Entry;
use std::collections::VecDeque;

/// Chunks at once; a joiner that asks for more is told to ask again.
const WORKS_MAX: usize = 256;

/// What is done with a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// It is fetched for a joiner.
    Fetch { to: Asker, header: FillHeader },
    /// It is filled here.
    Fill(Filling),
}

/// What a source handed over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Filling {
    /// Of the question.
    pub id: u64,
    pub blocks: u16,
    pub content: Content,
    pub entries: Vec<(VolumeId, Entry)>,
    pub payload: Option<Payload>,
}

/// A chunk that must not change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Work {
    id: u64,
    pub at: ChunkId,
    pub what: What,
    /// It begins when no change of the chunk is on its way to the disk.
    begun: bool,
    /// Frames of changes that wait.
    pub blocked: VecDeque<Frame>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Works {
    list: Vec<Work>,
    /// Frames that wait for any of them: at most [`HELD_MAX`].
    blocked: usize,
}

impl Works {
    /// Keeps the frame of a change until the work on a chunk that it meets has ended, or refuses it where too many wait. Gives it back where it
    /// meets none.
    pub fn block(
        &mut self,
        at: ChunkId,
        change: &Change,
        frame: Frame,
        out: &mut Vec<Output>,
    ) -> Option<Frame> {
        let meets = |work: &&mut Work| change.places(at).any(|(chunk, _)| chunk == work.at);
        let Some(work) = self.list.iter_mut().find(meets) else {
            return Some(frame);
        };
        if self.blocked < HELD_MAX {
            self.blocked += 1;
            work.blocked.push_back(frame);
        } else {
            refuse(&frame, Refusal::Busy, out);
        }
        None
    }

    /// The entries of the window of a range that come with what is being filled.
    pub fn entries_of(&self, range: VolumeId) -> usize {
        let fills = self.list.iter().filter_map(|work| match &work.what {
            What::Fill(filling) => Some(&filling.entries),
            What::Fetch { .. } => None,
        });
        fills.flatten().filter(|(of, _)| *of == range).count()
    }

    /// Whether there is room for one more.
    pub fn have_room(&self) -> bool {
        self.list.len() < WORKS_MAX
    }

    /// Chunks that are being read for joiners.
    pub fn fetching(&self) -> usize {
        let fetches = |work: &&Work| matches!(work.what, What::Fetch { .. });
        self.list.iter().filter(fetches).count()
    }

    /// Whether a chunk is being read for this question.
    pub fn are_fetching(&self, to: Asker, header: &FillHeader) -> bool {
        let is_it = |work: &Work| matches!(&work.what, What::Fetch { to: of, header: own } if *of == to && own == header);
        self.list.iter().any(is_it)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a chunk is being filled.
    pub fn are_filling(&self) -> bool {
        let fills = |work: &Work| matches!(work.what, What::Fill(_));
        self.list.iter().any(fills)
    }

    /// Begins one, as soon as it can be.
    pub fn add(&mut self, at: ChunkId, what: What) {
        let id = self.list.last().map_or(1, |last| last.id + 1);
        self.list.push(Work {
            id,
            at,
            what,
            begun: false,
            blocked: VecDeque::new(),
        });
    }

    /// Ends one.
    pub fn end(&mut self, id: u64) -> Option<Work> {
        let place = self.list.iter().position(|work| work.id == id)?;
        let work = self.list.remove(place);
        self.blocked -= work.blocked.len();
        Some(work)
    }

    /// Asserts what holds at any time.
    pub fn check(&self) {
        let blocked: usize = self.list.iter().map(|work| work.blocked.len()).sum();
        assert_eq!(blocked, self.blocked, "frames that wait are counted");
        assert!(blocked <= HELD_MAX, "windows-are-bounded");
    }
}

impl Replica {
    /// Begins what waited for changes to be on the disk.
    pub(super) fn start_works(&mut self, out: &mut Vec<Output>) {
        for work in &mut self.works.list {
            let at = work.at;
            let meets = || {
                self.storing
                    .values()
                    .any(|storing| storing.meets(at, u16::MAX))
            };
            if work.begun || meets() {
                continue;
            }
            work.begun = true;
            out.push(match &work.what {
                What::Fetch { .. } => Output::Fetch {
                    op: Op::Fetch(work.id),
                    at,
                },
                What::Fill(filling) => Output::Fill {
                    op: Op::Fill(work.id),
                    at,
                    blocks: filling.blocks,
                    content: filling.content,
                    entries: filling.entries.clone(),
                    payload: filling.payload.clone(),
                },
            });
        }
    }

    /// What waited for a chunk passes the gates once more.
    pub(super) fn unblock(&mut self, blocked: VecDeque<Frame>, out: &mut Vec<Output>) {
        for frame in blocked {
            self.admit(super::gates::Waiting::Frame(frame), out);
        }
    }
}
