//! A replica's window of one range: the writes above the commit mark, which other replicas may not have.
//!
//! It answers two questions: which blocks a new owner has to write again (R7), and whether a frame that comes again was
//! carried out already. For the second an entry stays until a mark passes it, also where a later write of the same epoch covers
//! all of its blocks: without it, a late duplicate would land on top (R10).

use crate::base::{ChunkId, Epoch};

/// Entries of one window, one for each chunk of a write. Two groups' worth of writes in flight, see [`super::FLYING_MAX`]; a run of zeroes
/// over whole chunks takes one for each.
pub const WINDOW_MAX: usize = 1024;

/// One chunk of a write above the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    pub epoch: Epoch,
    pub sequence: u64,
    pub at: ChunkId,
    /// A bit for each block whose newest write here this is.
    pub blocks: u16,
    /// The version that it is stamped with.
    pub version: u32,
}

/// The window of one range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Window {
    /// In the order in which they became durable.
    entries: Vec<Entry>,
}

impl Window {
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether `more` entries still fit into the room of so many windows.
    pub fn has_room(&self, more: usize, windows: usize) -> bool {
        self.entries.len() + more <= windows * WINDOW_MAX
    }

    /// The version that a write is stamped with; `None`: it is not here.
    pub fn version_of(&self, epoch: Epoch, sequence: u64) -> Option<u32> {
        let is_it = |entry: &&Entry| (entry.epoch, entry.sequence) == (epoch, sequence);
        self.entries.iter().find(is_it).map(|entry| entry.version)
    }

    /// Takes a write that is durable, or stamps it anew.
    pub fn put(
        &mut self,
        (epoch, sequence, version): (Epoch, u64, u32),
        places: impl Iterator<Item = (ChunkId, u16)>,
    ) {
        self.entries
            .retain(|entry| (entry.epoch, entry.sequence) != (epoch, sequence));
        for (at, blocks) in places {
            for older in self.entries.iter_mut().filter(|older| older.at == at) {
                debug_assert!(
                    (older.epoch, older.sequence) < (epoch, sequence) || older.blocks & blocks == 0,
                    "no-overlap-in-flight: writes of a block come in their order"
                );
                older.blocks &= !blocks;
            }
            self.entries.push(Entry {
                epoch,
                sequence,
                at,
                blocks,
                version,
            });
        }
        // Of an epoch that is fenced, no duplicate is taken any more.
        self.entries
            .retain(|entry| entry.blocks != 0 || entry.epoch == epoch);
    }

    /// Everything of `epoch` up to `mark` is acknowledged (R10).
    pub fn pass(&mut self, epoch: Epoch, mark: u64) {
        self.entries
            .retain(|entry| entry.epoch != epoch || entry.sequence > mark);
    }

    /// The newest write of any of these blocks.
    pub fn newest(&self, at: ChunkId, blocks: u16) -> Option<(Epoch, u64)> {
        let meets = |entry: &&Entry| entry.at == at && entry.blocks & blocks != 0;
        self.entries
            .iter()
            .filter(meets)
            .map(|entry| (entry.epoch, entry.sequence))
            .max()
    }
}
