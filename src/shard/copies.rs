//! What a shard knows of copies that are being made: what those that it has hold, and how far those are that are filled here. Nothing of it decides
//! anything: it is for who tells people how long a rebuild takes.

use super::machine::Shard;
use crate::base::{DiskId, PgId};

/// A copy that is to be made from one that a disk here has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToFill {
    /// The disk that has it.
    pub from: DiskId,
    pub pg: PgId,
    /// The last version under which the one that is to be made was in sync; 0: it has nothing yet.
    pub since: u32,
}

/// How far a copy is that is being filled here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filling {
    pub disk: DiskId,
    pub pg: PgId,
    /// Chunks that this session has filled.
    pub chunks: u64,
}

/// What a shard says of copies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copies {
    /// Of each that was asked about, in that order: how many chunks it lacks, were nothing of it filled yet. `None`: the disk is not here, or its table is not
    /// loaded.
    pub lacking: Vec<Option<u64>>,
    /// The sessions that are open on its disks.
    pub filling: Vec<Filling>,
    /// How many chunks were filled on each of its disks, since that was opened.
    pub filled: Vec<(DiskId, u64)>,
}

impl Shard {
    /// Looks at copies that are being made. `asked`: those whose sources may be here.
    pub fn copies(&self, asked: &[ToFill]) -> Copies {
        let lacking = asked.iter().map(|asked| {
            let store = self.store(self.disks.slot_of(asked.from)?)?;
            store.chunks_since(asked.pg, asked.since)
        });
        Copies {
            lacking: lacking.collect(),
            filling: self.fabric.filling(),
            filled: self.fabric.chunks_filled().collect(),
        }
    }
}
