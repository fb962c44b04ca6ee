//! Who was found wrong, and what is told of it until the manager has acted.
//!
//! Others are named as far as there is room: what is not named now is found by a later walk. What this disk says of itself, that its table is damaged,
//! nobody else finds, and a damaged journal tears all its PGs at once. So that has a place for each PG that it has a replica of.

use super::comparer::{Comparer, Output};
use crate::base::{ChunkId, DiskId, PgId, Time};
use crate::protocol::replication::Role;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Replicas that are named at once for what a comparison found: more at one disk's word is another trouble.
pub const WRONG_MAX: usize = 256;
/// Chunks that are noted of which nobody knows who is right.
pub const UNKNOWN_MAX: usize = 1024;
/// The manager may have missed it, and a new leader of it has not heard it.
const AGAIN: Duration = Duration::from_secs(1);

/// What is wrong with a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It lacks a write that was acknowledged.
    LostWrite,
    /// It has other content at the same stamp than more than half of the others.
    Outvoted,
    /// Its own store says that its table or journal is damaged.
    Torn,
}

/// A replica that is wrong, as long as the configuration has this version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    version: u32,
    pub why: Wrong,
    /// When it is told again.
    pub tell: Time,
}

/// A PG whose table here is damaged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Torn {
    /// The highest version that was known when it was found, here or to the replica.
    at: u32,
    /// When it is told again.
    pub tell: Time,
}

/// What the manager is told of a replica.
fn report(pg: PgId, disk: DiskId, version: u32, why: Wrong) -> Output {
    Output::Report {
        pg,
        disk,
        version,
        why,
    }
}

impl Comparer {
    /// A replica of the PG that is walked was found wrong. What else it lacks need not be known: it is taken out empty.
    pub(super) fn name(&mut self, now: Time, disk: DiskId, why: Wrong, out: &mut Vec<Output>) {
        let Some(pg) = self.walk.as_ref().map(|walk| walk.pg) else {
            return;
        };
        let Some(version) = self.pgs.get(&pg).map(|known| known.of.version()) else {
            return;
        };
        let has_room = self.named.len() < WRONG_MAX;
        if has_room && !self.named.contains_key(&(pg, disk)) {
            let tell = now + AGAIN;
            self.named.insert((pg, disk), Named { version, why, tell });
            out.push(report(pg, disk, version, why));
        }
        if disk == self.disk {
            // Where there was no room for it, it would be walked again at once.
            self.rest(now);
        }
    }

    pub(super) fn note_unknown(&mut self, at: ChunkId) {
        if let Some(walk) = &self.walk
            && self.unknown.len() < UNKNOWN_MAX
        {
            self.unknown.insert((walk.pg, at));
        }
        if let Some(walk) = &mut self.walk {
            walk.keep_unknown(at);
        }
    }

    /// A chunk could not be compared: what was known of it stands.
    pub(super) fn keep_unknown(&mut self, at: ChunkId) {
        if let Some(walk) = &mut self.walk
            && self.unknown.contains(&(walk.pg, at))
        {
            walk.keep_unknown(at);
        }
    }

    /// The configuration of a PG is another one: what was said under the old one is over.
    pub(super) fn review(&mut self, now: Time, pg: PgId, out: &mut Vec<Output>) {
        self.named.retain(|(of, _), _| *of != pg);
        let role = self.role(pg);
        if role != Some(Role::InSync) {
            self.unknown.retain(|(of, _)| *of != pg);
        }
        let (Some(torn), Some(known)) = (self.torn.get_mut(&pg), self.pgs.get(&pg)) else {
            return;
        };
        let is_emptied = match role {
            // If the replica has answered under a newer version, that is an older emptying: it may be in sync by now.
            Some(Role::Out { since: 0 }) => known.of.version() >= torn.at,
            // It was emptied and joins already. A session that had begun before is another one: it may be filled, as far as the manager knows.
            Some(Role::Joining { session, since: 0 }) => session > torn.at,
            _ => false,
        };
        match is_emptied {
            true => {
                self.torn.remove(&pg);
                out.push(Output::Forget { pg });
            }
            false => {
                torn.tell = now + AGAIN;
                out.push(report(pg, self.disk, known.of.version(), Wrong::Torn));
            }
        }
    }

    pub(super) fn on_torn(&mut self, now: Time, pg: PgId, version: u32, out: &mut Vec<Output>) {
        let Some(known) = self.pgs.get(&pg).map(|known| known.of.version()) else {
            return; // it is told again
        };
        if self.torn.contains_key(&pg) {
            return;
        }
        let torn = Torn {
            at: known.max(version),
            tell: now + AGAIN,
        };
        self.torn.insert(pg, torn);
        // What this replica said of others it said from that table.
        self.named.retain(|(of, _), _| *of != pg);
        self.stop_walk(pg);
        self.review(now, pg, out);
    }

    /// What has not been acted on is told again.
    pub(super) fn tell_again(&mut self, now: Time, out: &mut Vec<Output>) {
        for ((pg, disk), of) in &mut self.named {
            if of.tell <= now {
                of.tell = now + AGAIN;
                out.push(report(*pg, *disk, of.version, of.why));
            }
        }
        for (pg, torn) in &mut self.torn {
            if let Some(known) = self.pgs.get(pg)
                && torn.tell <= now
            {
                torn.tell = now + AGAIN;
                out.push(report(*pg, self.disk, known.of.version(), Wrong::Torn));
            }
        }
    }
}
