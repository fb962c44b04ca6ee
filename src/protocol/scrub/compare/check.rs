//! The comparison of one chunk: a look here, then the others, one after the other.
//!
//! The first one that is asked nearly always has the same, and that is all. Where it differs at the same stamp, every other replica in sync is
//! asked too, against the same look, and the most common content counts if more than half have it.

use super::comparer::{Comparer, Output};
use super::summary::{Below, CompareAnswer, CompareHeader, Motion, Opinion, Summary};
use super::wrong::Wrong;
use crate::base::{ChunkId, DiskId, PgId, Time};
use crate::protocol::replication::fill::Content;
use crate::protocol::scrub::rule::Rule;
use std::time::Duration;

/// Who has not answered after so long is asked again later. A round trip and a look take milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// So often a chunk is looked at that does not come to rest; then the next walk sees to it.
pub const TRIES_MAX: u32 = 6;
/// Between the first two looks; twice as long each time. Marks follow writes by milliseconds where a coordinator goes on.
const AGAIN: Duration = Duration::from_millis(20);

/// What a look finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// `None`: the table has no entry of the chunk.
    pub content: Option<Content>,
    pub below: Below,
    pub motion: Motion,
    /// The highest version that the replica has answered under.
    pub version: u32,
    /// The highest version of a tombstone of this PG that was let go here; 0: none was.
    pub forgotten: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is looked at from then on.
    Waits(Time),
    Looks {
        op: u64,
    },
    Asks {
        header: CompareHeader,
        to: DiskId,
        since: Time,
    },
}

/// One chunk that is compared.
#[derive(Debug)]
pub(super) struct Check {
    pub phase: Phase,
    /// What was found here, quiet.
    own: Option<Summary>,
    /// What it came to with those that were asked.
    told: Vec<(DiskId, Opinion)>,
    tries: u32,
}

impl Check {
    pub fn new(now: Time) -> Check {
        Check {
            phase: Phase::Waits(now),
            own: None,
            told: Vec::new(),
            tries: 0,
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Waits(at) => Some(at),
            Phase::Asks { since, .. } => Some(since + PATIENCE),
            Phase::Looks { .. } => None,
        }
    }

    /// The number of what is under way.
    pub fn flying(&self) -> Option<u64> {
        match self.phase {
            Phase::Waits(_) => None,
            Phase::Looks { op } => Some(op),
            Phase::Asks { header, .. } => Some(header.id),
        }
    }

    /// What was found so far counts no more.
    pub fn begin_again(&mut self, at: Time) {
        self.phase = Phase::Waits(at);
        self.own = None;
        self.told.clear();
    }
}

impl Comparer {
    /// Looks at what waits for it.
    pub(super) fn look(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(pg) = self.walk.as_ref().map(|walk| walk.pg) else {
            return;
        };
        let due = |(at, check): (&ChunkId, &Check)| match check.phase {
            Phase::Waits(when) if when <= now => Some(*at),
            _ => None,
        };
        for at in self.checks.iter().filter_map(due).collect::<Vec<_>>() {
            self.look_at(pg, at, out);
        }
    }

    fn look_at(&mut self, pg: PgId, at: ChunkId, out: &mut Vec<Output>) {
        let op = self.next_id();
        if let Some(check) = self.checks.get_mut(&at) {
            check.phase = Phase::Looks { op };
            self.flying.insert(op, at);
            out.push(Output::Look { op, pg, at });
        }
    }

    pub(super) fn on_looked(
        &mut self,
        now: Time,
        op: u64,
        found: Option<Found>,
        out: &mut Vec<Output>,
    ) {
        let Some(at) = self.flying.remove(&op) else {
            return; // of a walk, or of a version, that is over
        };
        let walk = self.walk.as_ref().map(|walk| (walk.pg, walk.peer));
        let others = walk.and_then(|(pg, _)| self.others(pg));
        let (Some((_, peer)), Some((version, others))) = (walk, others) else {
            return debug_assert!(false, "one-configuration");
        };
        let voters = others.len() + 1;
        let Some(found) = found else {
            return self.unsettled(now, at);
        };
        let Some(content) = found.content else {
            return self.end(at); // it was given back since it was listed
        };
        let is_quiet = found.motion == Motion::Quiet && found.version <= version;
        if !is_quiet && !self.off.on(Rule::Quiet) {
            return self.unsettled(now, at);
        }
        let Some(check) = self.checks.get_mut(&at) else {
            return;
        };
        let own = Some(Summary::of(&content, found.below));
        match check.told.is_empty() {
            true => {
                check.own = own;
                self.ask(now, at, peer, out);
            }
            false if check.own == own => self.vote(now, at, voters, out),
            false => self.unsettled(now, at),
        }
    }

    fn ask(&mut self, now: Time, at: ChunkId, to: DiskId, out: &mut Vec<Output>) {
        let Some(pg) = self.walk.as_ref().map(|walk| walk.pg) else {
            return;
        };
        let Some((version, _)) = self.others(pg) else {
            return;
        };
        let header = CompareHeader {
            pg,
            version,
            asker: self.disk,
            life: self.life,
            id: self.next_id(),
        };
        if let Some(check) = self.checks.get_mut(&at) {
            check.phase = Phase::Asks {
                header,
                to,
                since: now,
            };
            self.flying.insert(header.id, at);
            out.push(Output::Ask { to, header, at });
        }
    }

    pub(super) fn on_answer(
        &mut self,
        now: Time,
        from: DiskId,
        header: CompareHeader,
        answer: CompareAnswer,
        out: &mut Vec<Output>,
    ) {
        let Some(&at) = self.flying.get(&header.id) else {
            return; // it was passed over, its answer came twice, or its version is over
        };
        let Some(check) = self.checks.get_mut(&at) else {
            return;
        };
        match (check.phase, check.own) {
            // The whole header: an answer of another life, PG or version may have the same number.
            (Phase::Asks { header: of, to, .. }, Some(own)) if (of, to) == (header, from) => {
                self.flying.remove(&of.id);
                let opinion = own.against(&answer);
                self.on_opinion(now, at, from, opinion, out);
            }
            _ => {} // nobody was asked that
        }
    }

    fn on_opinion(
        &mut self,
        now: Time,
        at: ChunkId,
        from: DiskId,
        opinion: Opinion,
        out: &mut Vec<Output>,
    ) {
        let Some(check) = self.checks.get_mut(&at) else {
            return;
        };
        let is_first = check.told.is_empty();
        match opinion {
            Opinion::Same if is_first => {
                self.counts.same += 1;
                self.end_known(at);
            }
            Opinion::Same | Opinion::Differs(_) => {
                check.told.push((from, opinion));
                self.ask_next(now, at, out);
            }
            Opinion::Lacks => {
                self.counts.wrong += 1;
                self.name(now, from, Wrong::LostWrite, out);
                self.end_known(at);
            }
            Opinion::Unsettled => self.unsettled(now, at),
        }
    }

    /// Somebody differs: whoever is in sync and was not asked yet is asked too.
    fn ask_next(&mut self, now: Time, at: ChunkId, out: &mut Vec<Output>) {
        let Some(pg) = self.walk.as_ref().map(|walk| walk.pg) else {
            return;
        };
        let Some((_, others)) = self.others(pg) else {
            return;
        };
        let Some(check) = self.checks.get(&at) else {
            return;
        };
        let is_asked = |disk: &DiskId| check.told.iter().any(|(told, _)| told == disk);
        match others.iter().copied().find(|disk| !is_asked(disk)) {
            Some(next) => self.ask(now, at, next, out),
            // All were asked, and somebody differs at the same stamp. A write with a lower number than the stamp can have come between the reading of
            // the table here and the moment at which the chunk was quiet. What is read from now on has it, and has to be what was held against the others.
            None => self.look_at(pg, at, out),
        }
    }

    /// All were asked: what more than half of them have is right.
    fn vote(&mut self, now: Time, at: ChunkId, voters: usize, out: &mut Vec<Output>) {
        let Some(told) = self.checks.get(&at).map(|check| check.told.clone()) else {
            return;
        };
        // Its own content is in the votes as `None`.
        let content = |opinion: &Opinion| match opinion {
            Opinion::Differs(what) => Some(*what),
            _ => None,
        };
        let votes = std::iter::once((self.disk, None));
        let votes = votes.chain(told.iter().map(|(disk, opinion)| (*disk, content(opinion))));
        let votes: Vec<(DiskId, Option<Option<Summary>>)> = votes.collect();
        let count = |what: &Option<Option<Summary>>| {
            let same = votes.iter().filter(|(_, other)| other == what);
            same.count()
        };
        let most = votes.iter().find(|(_, what)| 2 * count(what) > voters);
        match most.map(|(_, what)| *what) {
            Some(right) => {
                self.counts.wrong += 1;
                let outvoted = votes.iter().filter(|(_, what)| *what != right);
                for disk in outvoted.map(|(disk, _)| *disk).collect::<Vec<_>>() {
                    self.name(now, disk, Wrong::Outvoted, out);
                }
                self.end_known(at);
            }
            None => {
                self.counts.unknown += 1;
                self.note_unknown(at);
                self.end(at);
            }
        }
    }

    /// Something came between: later once more, if it was not so often already.
    pub(super) fn unsettled(&mut self, now: Time, at: ChunkId) {
        let Some(check) = self.checks.get_mut(&at) else {
            return;
        };
        check.tries += 1;
        if check.tries >= TRIES_MAX {
            self.counts.skipped += 1;
            self.keep_unknown(at);
            return self.end(at);
        }
        check.begin_again(now + AGAIN * (1 << check.tries.min(8)));
    }

    /// Those who were asked and will not answer are asked later.
    pub(super) fn pass_over(&mut self, now: Time, is_one: impl Fn(Time, DiskId) -> bool) {
        let over = |(at, check): (&ChunkId, &Check)| match check.phase {
            Phase::Asks { header, to, since } if is_one(since, to) => Some((*at, header.id)),
            _ => None,
        };
        for (at, id) in self.checks.iter().filter_map(over).collect::<Vec<_>>() {
            self.flying.remove(&id);
            self.unsettled(now, at);
        }
    }

    /// A chunk is compared, and it is known who is right.
    fn end_known(&mut self, at: ChunkId) {
        if let Some(walk) = &self.walk {
            self.unknown.remove(&(walk.pg, at));
        }
        self.end(at);
    }

    /// A chunk is compared.
    pub(super) fn end(&mut self, at: ChunkId) {
        if let Some(id) = self.checks.remove(&at).and_then(|check| check.flying()) {
            self.flying.remove(&id);
        }
    }
}
