//! Who was found wrong, and what is told of it until the manager has acted.

use super::comparer::{Comparer, Output};
use crate::base::{ChunkId, DiskId, PgId, Time};
use crate::protocol::replication::Role;
use std::time::Duration;

/// Replicas that are named at once: more at one disk's word is another trouble.
pub const WRONG_MAX: usize = 256;
/// Chunks that are noted of which nobody knows who is right.
pub const UNKNOWN_MAX: usize = 1024;
/// The manager may have missed it, and a new leader of it has not heard it.
const AGAIN: Duration = Duration::from_secs(1);

/// What is wrong with a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl Comparer {
    /// A replica of the PG that is walked was found wrong. What else it lacks need not be known: it is taken out empty.
    pub(super) fn name(&mut self, now: Time, disk: DiskId, why: Wrong, out: &mut Vec<Output>) {
        let Some(pg) = self.walk.as_ref().map(|walk| walk.pg) else {
            return;
        };
        self.put_name(now, (pg, disk), why, out);
        if disk == self.disk {
            self.stop_walk(pg);
        }
    }

    fn put_name(
        &mut self,
        now: Time,
        (pg, disk): (PgId, DiskId),
        why: Wrong,
        out: &mut Vec<Output>,
    ) {
        let Some(version) = self.pgs.get(&pg).map(|known| known.of.version()) else {
            return;
        };
        let has_room = self.named.len() < WRONG_MAX;
        if self.named.contains_key(&(pg, disk)) || !has_room {
            return;
        }
        let tell = now + AGAIN;
        self.named.insert((pg, disk), Named { version, why, tell });
        out.push(Output::Report {
            pg,
            disk,
            version,
            why,
        });
    }

    pub(super) fn note_unknown(&mut self, at: ChunkId) {
        if let Some(walk) = &self.walk
            && self.unknown.len() < UNKNOWN_MAX
        {
            self.unknown.insert((walk.pg, at));
        }
    }

    /// The configuration of a PG is another one: what was said under the old one is over.
    pub(super) fn review(&mut self, now: Time, pg: PgId, out: &mut Vec<Output>) {
        self.named.retain(|(of, _), _| *of != pg);
        let role = self.role(pg);
        if role != Some(Role::InSync) {
            self.unknown.retain(|(of, _)| *of != pg);
        }
        let Some(&torn) = self.torn.get(&pg) else {
            return;
        };
        let is_emptied = match role {
            Some(Role::Out { since: 0 }) => true,
            // It was emptied and joins already. A session that had begun before is another one: it may be filled, as far as the manager knows.
            Some(Role::Joining { session, since: 0 }) => session > torn,
            _ => false,
        };
        match is_emptied {
            true => {
                self.torn.remove(&pg);
                out.push(Output::Forget { pg });
            }
            false => self.put_name(now, (pg, self.disk), Wrong::Torn, out),
        }
    }

    pub(super) fn on_torn(&mut self, now: Time, pg: PgId, out: &mut Vec<Output>) {
        let Some(version) = self.pgs.get(&pg).map(|known| known.of.version()) else {
            return; // it is told again
        };
        if self.torn.contains_key(&pg) {
            return;
        }
        self.torn.insert(pg, version);
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
                out.push(Output::Report {
                    pg: *pg,
                    disk: *disk,
                    version: of.version,
                    why: of.why,
                });
            }
        }
    }
}
