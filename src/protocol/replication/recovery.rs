//! What an earlier owner left: found by sealing every member, and written again to all of them (R5, R7).
//!
//! Every block in any window may be on one replica and not on another. Its value is that of the newest write in the windows of replicas that are
//! in sync; a block that only a joining replica's window has is read of one that is in sync, because nothing of it was acknowledged.

use super::window::Entry;
use crate::base::{BlockRun, ChunkId, DiskId, Epoch};
use std::collections::{BTreeMap, BTreeSet};

/// A block in a chunk.
type Block = (ChunkId, u32);

/// The newest write of a block, and which replica that is in sync has it.
type Newest = Option<(Epoch, u64, DiskId)>;

/// One recovery, under one version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Recovery {
    /// Members that have not answered the seal.
    unsealed: BTreeSet<DiskId>,
    /// Blocks in windows.
    found: BTreeMap<Block, Newest>,
    /// Reads by their numbers; `None` until all members are sealed.
    reading: Option<BTreeMap<u64, (DiskId, ChunkId, BlockRun)>>,
}

impl Recovery {
    /// Begins, with the seal sent to these.
    pub fn new(members: impl IntoIterator<Item = DiskId>) -> Recovery {
        Recovery {
            unsealed: members.into_iter().collect(),
            found: BTreeMap::new(),
            reading: None,
        }
    }

    pub fn waits_for(&self, disk: DiskId) -> bool {
        self.unsealed.contains(&disk)
    }

    /// Whether every member is sealed.
    pub fn is_sealed(&self) -> bool {
        self.unsealed.is_empty()
    }

    /// Whether [`Recovery::plan`] was called.
    pub fn is_planned(&self) -> bool {
        self.reading.is_some()
    }

    /// Whether everything that was planned is read.
    pub fn is_read(&self) -> bool {
        self.reading.as_ref().is_some_and(BTreeMap::is_empty)
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

    /// Decides what is read of which replica, in runs; `otherwise` is one that is in sync. `last` is the last number of a read.
    pub fn plan(
        &mut self,
        otherwise: DiskId,
        last: &mut u64,
    ) -> Vec<(DiskId, u64, ChunkId, BlockRun)> {
        let mut masks: BTreeMap<(ChunkId, DiskId), u16> = BTreeMap::new();
        for (&(at, block), newest) in &self.found {
            let from = newest.map_or(otherwise, |(_, _, from)| from);
            *masks.entry((at, from)).or_default() |= 1 << block;
        }
        let mut reads = Vec::new();
        for ((at, from), mask) in masks {
            for run in BlockRun::runs_of(mask) {
                *last += 1;
                reads.push((from, *last, at, run));
            }
        }
        let reading = reads
            .iter()
            .map(|&(from, id, at, run)| (id, (from, at, run)));
        self.reading = Some(reading.collect());
        reads
    }

    /// The reads that a replica has not answered.
    pub fn reads_of(&self, disk: DiskId) -> impl Iterator<Item = (u64, ChunkId, BlockRun)> + '_ {
        let reading = self.reading.iter().flatten();
        reading
            .filter(move |(_, (from, ..))| *from == disk)
            .map(|(&id, &(_, at, run))| (id, at, run))
    }

    /// A block was read: where it belongs, if it was asked for.
    pub fn value(&mut self, from: DiskId, id: u64) -> Option<(ChunkId, BlockRun)> {
        let reading = self.reading.as_mut()?;
        let &(of, at, run) = reading.get(&id)?;
        if of != from {
            return None;
        }
        reading.remove(&id);
        Some((at, run))
    }
}
