//! What an earlier owner left: found by sealing every member, and written again to all of them (R5, R7).
//!
//! Every block in any window may be on one replica and not on another. Its value is that of the newest write in the windows of replicas that are
//! in sync; a block that only a joining replica's window has is read of one that is in sync, because nothing of it was acknowledged.

use crate::base::{BlockRun, ChunkId, DiskId, Epoch};
use crate::protocol::replication::window::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Runs of blocks that are read, or written again, at once.
const AT_ONCE: usize = 64;

/// A block in a chunk.
type Block = (ChunkId, u32);

/// The newest write of a block, and which replica that is in sync has it.
type Newest = Option<(Epoch, u64, DiskId)>;

/// One recovery, under one version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Recovery {
    /// Members that have not answered the seal.
    unsealed: BTreeSet<DiskId>,
    /// Blocks in windows that are not being read yet.
    found: BTreeMap<Block, Newest>,
    /// Reads by their numbers.
    reading: BTreeMap<u64, (DiskId, ChunkId, BlockRun)>,
}

impl Recovery {
    /// Begins, with the seal sent to these.
    pub fn new(members: impl IntoIterator<Item = DiskId>) -> Recovery {
        Recovery {
            unsealed: members.into_iter().collect(),
            found: BTreeMap::new(),
            reading: BTreeMap::new(),
        }
    }

    pub fn waits_for(&self, disk: DiskId) -> bool {
        self.unsealed.contains(&disk)
    }

    /// Whether every member is sealed.
    pub fn is_sealed(&self) -> bool {
        self.unsealed.is_empty()
    }

    /// Whether everything that was found is read.
    pub fn is_read(&self) -> bool {
        self.is_sealed() && self.found.is_empty() && self.reading.is_empty()
    }

    /// A member told its window.
    pub fn sealed(&mut self, from: DiskId, is_in_sync: bool, window: &[Entry]) {
        if !self.unsealed.remove(&from) {
            return; // its answer came twice
        }
        for entry in window {
            for block in (0..16).filter(|block| entry.blocks & (1 << block) != 0) {
                let newest = self.found.entry((entry.at, block)).or_default();
                if is_in_sync {
                    *newest = (*newest).max(Some((entry.epoch, entry.sequence, from)));
                }
            }
        }
    }

    /// What is read next of which replica, where so many runs are being written: runs of blocks that one replica has the newest
    /// value of; `otherwise` is one that is in sync. `last` is the last number of a read.
    pub fn next_reads(
        &mut self,
        writing: usize,
        otherwise: DiskId,
        last: &mut u64,
    ) -> Vec<(DiskId, u64, ChunkId, BlockRun)> {
        let mut reads = Vec::new();
        while self.reading.len() + writing < AT_ONCE {
            let Some((&(at, first), &newest)) = self.found.iter().next() else {
                break;
            };
            let of = |newest: Newest| newest.map_or(otherwise, |(_, _, from)| from);
            let from = of(newest);
            let mut count = 0;
            while let Some(&newest) = self.found.get(&(at, first + count))
                && of(newest) == from
            {
                self.found.remove(&(at, first + count));
                count += 1;
            }
            let run = BlockRun::new(first, count).expect("blocks of one chunk, in their order");
            *last += 1;
            self.reading.insert(*last, (from, at, run));
            reads.push((from, *last, at, run));
        }
        reads
    }

    /// The reads that a replica has not answered.
    pub fn reads_of(&self, disk: DiskId) -> impl Iterator<Item = (u64, ChunkId, BlockRun)> + '_ {
        self.reading
            .iter()
            .filter(move |(_, (from, ..))| *from == disk)
            .map(|(&id, &(_, at, run))| (id, at, run))
    }

    /// A block was read: where it belongs, if it was asked for.
    pub fn value(&mut self, from: DiskId, id: u64) -> Option<(ChunkId, BlockRun)> {
        let &(of, at, run) = self.reading.get(&id)?;
        if of != from {
            return None;
        }
        self.reading.remove(&id);
        Some((at, run))
    }
}
