//! The walk over the chunks of a PG, page by page: one PG at a time, each against another replica than the last time.

use super::check::Check;
use super::comparer::{Comparer, Output};
use super::wrong::UNKNOWN_MAX;
use crate::base::{ChunkId, DiskId, PgId, Time};
use crate::protocol::replication::Configuration;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Chunks of a page.
pub const PAGE_MAX: usize = 256;
/// Between two walks over a PG, where nobody wants it otherwise. A disk of 10 TiB has 168 million chunks: in a week that is 280 chunks a second, with 250 bytes of
/// question and answer each 70 KB/s.
pub const REST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A PG that this disk has a replica of.
#[derive(Debug)]
pub(super) struct Known {
    pub of: Configuration,
    /// When it is walked next.
    pub due: Time,
    /// Walks that have begun: who is compared with next.
    turn: usize,
}

/// The walk that is under way.
#[derive(Debug)]
pub(super) struct Walk {
    pub pg: PgId,
    /// Who is asked first.
    pub peer: DiskId,
    after: Option<ChunkId>,
    page: VecDeque<ChunkId>,
    /// The list that is on its way from the store.
    listing: Option<u64>,
    more: bool,
    /// Chunks of which this walk found that nobody knows who is right, or could not say that it is otherwise.
    unknown: BTreeSet<ChunkId>,
}

impl Walk {
    /// In the end this chunk is still one of which nobody knows.
    pub fn keep_unknown(&mut self, at: ChunkId) {
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.insert(at);
        }
    }
}

impl Comparer {
    pub(super) fn on_configured(
        &mut self,
        now: Time,
        pg: PgId,
        of: Configuration,
        out: &mut Vec<Output>,
    ) {
        let due = now + self.rests.after_change;
        let known = self.pgs.get(&pg);
        if known.is_some_and(|known| known.of.version() >= of.version()) {
            return;
        }
        let turn = known.map_or(0, |known| known.turn);
        self.pgs.insert(pg, Known { of, due, turn });
        self.begin_anew(now, pg);
        self.review(now, pg, out);
    }

    pub(super) fn on_dropped(&mut self, pg: PgId) {
        self.pgs.remove(&pg);
        self.torn.remove(&pg);
        self.named.retain(|(of, _), _| *of != pg);
        self.unknown.retain(|(of, _)| *of != pg);
        self.stop_walk(pg);
    }

    /// The version has changed: the walk goes on from where it is, and what was found under the old version and is not judged counts no more.
    fn begin_anew(&mut self, now: Time, pg: PgId) {
        let Some(of) = self.walk.as_ref().map(|walk| walk.pg) else {
            return;
        };
        if of != pg {
            return;
        }
        let Some((_, others)) = self.others(pg) else {
            return self.stop_walk(pg);
        };
        if let Some(walk) = &mut self.walk
            && !others.contains(&walk.peer)
        {
            walk.peer = others[0];
        }
        self.flying.clear();
        for check in self.checks.values_mut() {
            check.begin_again(now);
        }
    }

    /// The walk over this PG does not go on.
    pub(super) fn stop_walk(&mut self, pg: PgId) {
        if self.walk.as_ref().is_some_and(|walk| walk.pg == pg) {
            self.walk = None;
            self.checks.clear();
            self.flying.clear();
        }
    }

    /// The PG that is walked next, and when.
    pub(super) fn next_walk(&self) -> Option<(Time, PgId)> {
        let can = self
            .pgs
            .iter()
            .filter(|(pg, _)| self.others(**pg).is_some());
        can.map(|(pg, known)| (known.due, *pg)).min()
    }

    /// Goes on as far as there is room.
    pub(super) fn go_on(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.walk.is_none() {
            self.begin_walk(now);
        }
        while self.has_room()
            && let Some(walk) = &mut self.walk
            && let Some(at) = walk.page.pop_front()
        {
            self.checks.insert(at, Check::new(now));
        }
        self.look(now, out);
        let Some(walk) = &mut self.walk else {
            return;
        };
        if !walk.page.is_empty() || walk.listing.is_some() {
            return;
        }
        let (pg, after) = (walk.pg, walk.after);
        if walk.more {
            let op = self.next_id();
            if let Some(walk) = &mut self.walk {
                walk.listing = Some(op);
            }
            return out.push(Output::List { op, pg, after });
        }
        if self.checks.is_empty() {
            self.counts.walks += 1;
            self.replace_unknown();
            self.rest(now);
        }
    }

    /// A walk has come to its end: what it did not find any more is alerted no more, also what is not listed any more.
    fn replace_unknown(&mut self) {
        let Some(Walk { pg, unknown, .. }) = &mut self.walk else {
            return;
        };
        let (pg, found) = (*pg, std::mem::take(unknown));
        self.unknown.retain(|(of, _)| *of != pg);
        let room = UNKNOWN_MAX - self.unknown.len();
        let found = found.into_iter().take(room);
        self.unknown.extend(found.map(|at| (pg, at)));
    }

    fn begin_walk(&mut self, now: Time) {
        let Some((_, pg)) = self.next_walk().filter(|(due, _)| *due <= now) else {
            return;
        };
        let Some((_, others)) = self.others(pg) else {
            return;
        };
        let Some(known) = self.pgs.get_mut(&pg) else {
            return;
        };
        let peer = others[known.turn % others.len()];
        known.turn += 1;
        self.walk = Some(Walk {
            pg,
            peer,
            after: None,
            page: VecDeque::new(),
            listing: None,
            more: true,
            unknown: BTreeSet::new(),
        });
    }

    /// The walk is over, and the next one over this PG is later.
    pub(super) fn rest(&mut self, now: Time) {
        if let Some(pg) = self.walk.as_ref().map(|walk| walk.pg) {
            if let Some(known) = self.pgs.get_mut(&pg) {
                known.due = now + self.rests.between;
            }
            self.stop_walk(pg);
        }
    }

    pub(super) fn on_listed(&mut self, now: Time, op: u64, found: Option<(Vec<ChunkId>, bool)>) {
        let Some(walk) = self.walk.as_mut().filter(|walk| walk.listing == Some(op)) else {
            return; // of a walk that is over
        };
        walk.listing = None;
        let Some((mut chunks, more)) = found else {
            return self.rest(now);
        };
        // What is too much for one page is listed again.
        let is_cut = chunks.len() > PAGE_MAX;
        chunks.truncate(PAGE_MAX);
        walk.more = is_cut || more && !chunks.is_empty();
        walk.after = chunks.last().copied().or(walk.after);
        walk.page.extend(chunks);
    }
}
