//! What a store counts, for metrics and for the simulator's checkers.

use super::engine::Store;
use crate::base::PgId;

/// Counters since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub steps: u64,
    pub batches: u64,
    pub checkpoints: u64,
    pub applied_blocks: u64,
    /// Blocks whose checksum did not match at the second reading.
    pub checksum_errors: u64,
    pub disk_errors: u64,
    /// Slots that were given back and are free.
    pub freed_slots: u64,
    /// Blocks that a scrub looked at.
    pub scrubbed_blocks: u64,
    /// Blocks of data that other replicas filled this one with.
    pub filled_blocks: u64,
    /// Damaged blocks that got their bytes back from another replica.
    pub mended_blocks: u64,
    /// Blocks that other replicas got from here.
    pub salvaged_blocks: u64,
}

/// What a store holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// How long the disk may become, in bytes.
    pub disk_bytes_max: u64,
    pub slots: u64,
    /// Exact once the table is loaded.
    pub slots_used: u64,
    /// Slots that can be given out now or soon. Until the table is loaded, at most so many; a table that is damaged in places hides some.
    pub slots_free: u64,
    /// Those of them that are kept for what nobody has asked about: with fewer free the disk is low.
    pub slots_reserve: u64,
    pub pages: u64,
    pub pages_used: u64,
    /// Bytes of the journal's ring that replay would still need.
    pub journal_used: u64,
    pub journal_len: u64,
    pub journal_wraps: u64,
    /// Journaled payload in memory, in bytes.
    pub overlay_bytes: u64,
    pub overlays: u64,
    pub entries: u64,
    pub leaves: u64,
    pub leaves_unloaded: u64,
    pub leaves_damaged: u64,
    pub stalled: u64,
    pub ios: u64,
    pub checkpoint_running: bool,
    pub scrubbing: bool,
    pub sweeping: bool,
}

impl Store {
    /// Until the table is loaded the last root says how many are used.
    fn slots_free(&self) -> u32 {
        let known = self.allocator.available();
        match self.loader.is_loaded() {
            true => known,
            false => {
                let used = self.used_before.max(self.allocator.used());
                known.max(self.allocator.slots().saturating_sub(used))
            }
        }
    }

    /// The slots that can be given out now or soon, as in [`Levels::slots_free`], and all of them.
    pub fn slots_left(&self) -> (u64, u64) {
        let all = u64::from(self.allocator.slots());
        (u64::from(self.slots_free()), all)
    }

    /// How many chunks of a PG, layer by layer, are stamped with a version above `since`: what a replica is to be filled with from here that was in sync
    /// under that one. `None`: not all of the table is loaded, so that nobody knows.
    pub fn chunks_since(&self, pg: PgId, since: u32) -> Option<u64> {
        let is_known = self.is_open() && self.loader.unloaded == 0 && self.loader.damaged == 0;
        is_known.then(|| self.table.stamped_since(pg, since))
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    pub fn levels(&self) -> Levels {
        Levels {
            disk_bytes_max: self.disk_bytes_max(),
            slots: u64::from(self.allocator.slots()),
            slots_used: u64::from(self.allocator.used()),
            slots_free: u64::from(self.slots_free()),
            slots_reserve: u64::from(self.allocator.reserve()),
            pages: self.superblock.geometry.pages,
            pages_used: self.superblock.geometry.pages - self.free_pages.len() as u64,
            journal_used: self.journal.used(),
            journal_len: self.journal.ring_len(),
            journal_wraps: self.journal.wraps,
            overlay_bytes: self.memory_blocks * crate::base::BLOCK,
            overlays: self.overlays.len() as u64,
            entries: u64::from(self.table.entry_count()),
            leaves: u64::from(self.table.leaf_count()),
            leaves_unloaded: u64::from(self.loader.unloaded),
            leaves_damaged: u64::from(self.loader.damaged),
            stalled: self.stalled.len() as u64,
            ios: self.ios.len() as u64,
            checkpoint_running: !self.checkpoint.is_idle(),
            scrubbing: self.scrub.is_some(),
            sweeping: self.sweep.is_some(),
        }
    }
}
