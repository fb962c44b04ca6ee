//! Words of coordinators against replicas (R11).
//!
//! A replica whose node is gone is gone without a word. Of one that lives, a word counts for the configuration that it names, and it
//! takes two accusers of its disk, or its own node. One that joins is dropped on one word: no copy is lost with it, and while it
//! does not answer, no write is acknowledged.
//!
//! Invariants: *bounded*: [`WORDS_MAX`] accusers, [`PGS_OF_WORD_MAX`] PGs of each; *aging*: what is not repeated is forgotten.

use crate::base::{DiskId, NodeId, PgId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Pairs of disk and accuser that are kept: where there are more, the site has another trouble.
pub(super) const WORDS_MAX: usize = 4_096;
/// PGs that are kept of one pair; more are heard with the next repetition.
pub(super) const PGS_OF_WORD_MAX: usize = 1_024;

#[derive(Debug)]
struct Word {
    last: Time,
    /// The version that it named of each.
    pgs: BTreeMap<PgId, u32>,
}

/// The words that are fresh.
#[derive(Debug, Default)]
pub(super) struct Words {
    of: BTreeMap<(DiskId, NodeId), Word>,
}

impl Words {
    /// Takes a word; whether it was taken.
    pub fn hear(&mut self, now: Time, by: NodeId, disk: DiskId, pg: PgId, version: u32) -> bool {
        if self.of.len() >= WORDS_MAX && !self.of.contains_key(&(disk, by)) {
            return false;
        }
        let word = self.of.entry((disk, by)).or_insert(Word {
            last: now,
            pgs: BTreeMap::new(),
        });
        word.last = now;
        if word.pgs.len() >= PGS_OF_WORD_MAX && !word.pgs.contains_key(&pg) {
            return false;
        }
        word.pgs.insert(pg, version);
        true
    }

    /// Forgets what one has said, who is the faulty one: it counts no more when that is over.
    pub fn forget(&mut self, node: NodeId) {
        self.of.retain(|(_, by), _| *by != node);
    }

    /// Forgets what was said against a disk.
    pub fn absolve(&mut self, disk: DiskId) {
        self.of.retain(|(of, _), _| *of != disk);
    }

    /// Forgets what is old. When to look again.
    pub fn age(&mut self, now: Time, age: Duration) -> Option<Time> {
        self.of.retain(|_, word| now.since(word.last) < age);
        self.of.values().map(|word| word.last + age).min()
    }

    /// Who accuses a disk.
    pub fn accusers(&self, disk: DiskId) -> impl Iterator<Item = NodeId> + '_ {
        self.range(disk).map(|(by, _)| by)
    }

    /// Who accuses the replica of a PG on a disk, and under which version.
    pub fn against(&self, disk: DiskId, pg: PgId) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.range(disk)
            .filter_map(move |(by, word)| Some((by, *word.pgs.get(&pg)?)))
    }

    /// The PGs that anybody accuses a disk for.
    pub fn pgs(&self, disk: DiskId) -> impl Iterator<Item = PgId> + '_ {
        self.range(disk)
            .flat_map(|(_, word)| word.pgs.keys().copied())
    }

    fn range(&self, disk: DiskId) -> impl Iterator<Item = (NodeId, &Word)> + '_ {
        let of = (disk, NodeId(0))..=(disk, NodeId(u32::MAX));
        self.of.range(of).map(|(&(_, by), word)| (by, word))
    }
}
