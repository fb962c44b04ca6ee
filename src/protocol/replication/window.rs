//! A replica's window of one range: the writes above the commit mark, which other replicas may not have.
//!
//! It answers two questions: which blocks a new owner has to write again (R7), and whether a frame that comes again was
//! carried out already. For the second an entry stays until a mark passes it, also where a later write of the same epoch covers
//! all of its blocks: without it, a late duplicate would land on top (R10).
//!
//! What a joiner held before its session stands apart: no mark clears that, only a fill of the chunk or a write over the blocks does.

use super::MEMBERS_MAX;
use crate::base::{ChunkId, Epoch};
use std::collections::VecDeque;

/// Entries of one window, one for each chunk of a write. Two groups' worth of writes in flight, see [`super::FLYING_MAX`]; a run of zeroes
/// over whole chunks takes one for each.
pub const WINDOW_MAX: usize = 1024;
/// All that one window may come to: amid a recovery, which writes what any member had, with what was filled, and what was held before a session.
/// An answer to a seal tells no more, and the wire carries so many.
pub(super) const TOLD_MAX: usize = MEMBERS_MAX * WINDOW_MAX;

/// One chunk of a write above the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    pub epoch: Epoch,
    pub sequence: u64,
    pub at: ChunkId,
    /// A bit for each block whose newest write here this is.
    pub blocks: u16,
    /// The version that it is stamped with; 0: it came with a fill, see the window's `adopt`.
    pub version: u32,
}

impl Entry {
    fn name(&self) -> (Epoch, u64) {
        (self.epoch, self.sequence)
    }
}

/// The window of one range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Window {
    /// In the order of their epochs and numbers, in which they come but for a few places; marks take them from the front.
    entries: VecDeque<Entry>,
    /// What a joiner held before its session.
    before: Vec<Entry>,
}

impl Window {
    /// From what a store found, in any order.
    pub fn found(mut entries: Vec<Entry>) -> Window {
        entries.sort_unstable_by_key(|entry| (entry.name(), entry.at));
        Window {
            entries: entries.into(),
            before: Vec::new(),
        }
    }

    /// Everything that may not be everywhere.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.before.iter().chain(&self.entries)
    }

    /// What was held before the session, and is not filled yet.
    pub fn before(&self) -> &[Entry] {
        &self.before
    }

    /// Whether `more` entries still fit into the room of so many windows. What was held before the session has a room of its own, as far as an
    /// answer to a seal can tell all of it: else a joiner that was dropped a few times would take no writes until it is filled.
    pub fn has_room(&self, more: usize, windows: usize) -> bool {
        self.entries.len() + more <= windows * WINDOW_MAX && self.len() + more <= TOLD_MAX
    }

    /// Whether `more` entries still fit when these blocks of a chunk are filled, which clears what was held of them before.
    pub fn has_room_for_fill(&self, (at, blocks): (ChunkId, u16), more: usize) -> bool {
        let goes = |entry: &&Entry| entry.at == at && entry.blocks & !blocks == 0;
        let cleared = self.before.iter().filter(goes).count();
        self.len() + more - cleared <= TOLD_MAX
    }

    /// All entries, those that have no blocks any more among them.
    fn len(&self) -> usize {
        self.before.len() + self.entries.len()
    }

    /// The version that a write is stamped with; `None`: it is not here.
    pub fn version_of(&self, epoch: Epoch, sequence: u64) -> Option<u32> {
        let place = self.place_of((epoch, sequence));
        let found = self.entries.get(place)?;
        (found.name() == (epoch, sequence)).then_some(found.version)
    }

    /// Takes a write that is durable, or stamps it anew.
    pub fn put(
        &mut self,
        (epoch, sequence, version): (Epoch, u64, u32),
        places: impl Iterator<Item = (ChunkId, u16)>,
    ) {
        let name = (epoch, sequence);
        self.remove(name);
        for (at, blocks) in places {
            for older in self.before.iter_mut().filter(|older| older.at == at) {
                older.blocks &= !blocks;
            }
            for older in self.entries.iter_mut().filter(|older| older.at == at) {
                debug_assert!(
                    older.name() < name || older.blocks & blocks == 0,
                    "no-overlap-in-flight: writes of a block come in their order"
                );
                older.blocks &= !blocks;
            }
            self.insert(Entry {
                epoch,
                sequence,
                at,
                blocks,
                version,
            });
        }
        if !self.before.is_empty() {
            self.before.retain(|entry| entry.blocks != 0);
        }
        // Of an epoch that is fenced, no duplicate is taken any more.
        if self
            .entries
            .front()
            .is_some_and(|first| first.epoch < epoch)
        {
            self.entries
                .retain(|entry| entry.blocks != 0 || entry.epoch == epoch);
        }
    }

    /// Everything of `epoch` up to `mark` is acknowledged (R10).
    pub fn pass(&mut self, epoch: Epoch, mark: u64) {
        let from = self.place_of((epoch, 0));
        let until = self.place_behind((epoch, mark));
        self.entries.drain(from..until);
    }

    /// The newest write of any of these blocks.
    pub fn newest(&self, at: ChunkId, blocks: u16) -> Option<(Epoch, u64)> {
        let meets = |entry: &&Entry| entry.at == at && entry.blocks & blocks != 0;
        self.entries().filter(meets).map(Entry::name).max()
    }

    /// A session begins: no mark clears what is here now.
    pub fn begin_session(&mut self) {
        self.before.extend(self.entries.drain(..));
        self.before.retain(|entry| entry.blocks != 0);
    }

    /// These blocks of a chunk were filled, and nothing that was held of them before is here any more.
    pub fn filled(&mut self, at: ChunkId, blocks: u16) {
        for entry in self.before.iter_mut().filter(|entry| entry.at == at) {
            entry.blocks &= !blocks;
        }
        self.before.retain(|entry| entry.blocks != 0);
    }

    /// Takes an entry over with what was filled (R15): a new owner has to write these blocks again. It does not say that the write as such was
    /// carried out here. Other blocks of it may be missing: those that an earlier write of this session kept the fill off, and other chunks.
    pub fn adopt(&mut self, entry: Entry) {
        if entry.blocks == 0 {
            return;
        }
        let entry = Entry {
            version: 0,
            ..entry
        };
        let place = self.place_of(entry.name());
        let same = self
            .entries
            .range(place..)
            .take_while(|other| other.name() == entry.name())
            .any(|other| other.at == entry.at);
        if !same {
            self.insert(entry);
        }
    }

    /// Where the first entry of that name, or of a later one, stands.
    fn place_of(&self, name: (Epoch, u64)) -> usize {
        match self.entries.back() {
            Some(last) if last.name() < name => self.entries.len(),
            _ => self.entries.partition_point(|entry| entry.name() < name),
        }
    }

    /// Where the first entry of a later name stands.
    fn place_behind(&self, name: (Epoch, u64)) -> usize {
        match self.entries.back() {
            Some(last) if last.name() <= name => self.entries.len(),
            _ => self.entries.partition_point(|entry| entry.name() <= name),
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.entries.insert(self.place_behind(entry.name()), entry);
    }

    fn remove(&mut self, name: (Epoch, u64)) {
        let (from, until) = (self.place_of(name), self.place_behind(name));
        if from < until {
            self.entries.drain(from..until);
        }
    }
}
