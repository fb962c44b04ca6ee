//! The machine of one disk: what it is told, what it wants done, and what it remembers.
//!
//! It lives in memory only. After a restart its walks begin anew, and find again what was found.

use super::check::{Check, Found};
use super::summary::{CompareAnswer, CompareHeader, Motion, Summary};
use super::walk::{Known, Walk};
use super::wrong::{Named, Torn, UNKNOWN_MAX, WRONG_MAX, Wrong};
use crate::base::{ChunkId, DiskId, PgId, Time};
use crate::protocol::replication::{Configuration, Role};
use crate::protocol::scrub::rule::RulesOff;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Chunks that are compared at once before the driver has said anything. Each costs two looks into a table and one round trip, and no data.
const PACE_FIRST: u32 = 4;
/// The most.
pub const PACE_MAX: u32 = 32;
/// Questions of others that are at the store at once.
pub const LENDS_MAX: usize = 32;

/// What a comparer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// What the manager says of a PG that this disk has a replica of.
    Configured { pg: PgId, of: Configuration },
    /// This disk has no replica of it any more.
    Dropped { pg: PgId },
    /// The store found its own table or journal damaged: what it has of this PG is not known. `version` is the highest that the replica has answered under: it may
    /// be filled, or in sync, under one that was not heard of here yet.
    Torn { pg: PgId, version: u32 },
    /// Another disk asks.
    Asked { header: CompareHeader, at: ChunkId },
    /// One that was asked answers.
    Answered {
        from: DiskId,
        header: CompareHeader,
        answer: CompareAnswer,
    },
    /// The connection to a disk was lost.
    Unanswered { from: DiskId },
    /// So many chunks may be compared at once: what guests' latency leaves room for.
    Pace(u32),
    /// The answer to [`Output::List`]; `None`: the store could not.
    Listed {
        op: u64,
        found: Option<(Vec<ChunkId>, bool)>,
    },
    /// The answer to [`Output::Look`]; `None`: nothing can be said of it.
    Looked { op: u64, found: Option<Found> },
}

/// What a comparer wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The chunks of a PG that the store keeps anything of, tombstones too, in the order of lists, from behind `after` on: a page of at most
    /// [`PAGE_MAX`](super::PAGE_MAX).
    List {
        op: u64,
        pg: PgId,
        after: Option<ChunkId>,
    },
    /// What the table has of a chunk of a layer, and then whether it is quiet. No data is read.
    Look { op: u64, pg: PgId, at: ChunkId },
    /// To another disk. Its answer is told with the header as it came back ([`Input::Answered`]). Where the connection to it is lost that is told
    /// ([`Input::Unanswered`]), for each disk behind it; else each chunk that is asked about there waits for [`PATIENCE`](super::PATIENCE).
    Ask {
        to: DiskId,
        header: CompareHeader,
        at: ChunkId,
    },
    /// To the disk that the header names.
    Answer {
        header: CompareHeader,
        answer: CompareAnswer,
    },
    /// To the manager: a replica does not have what it should have. It counts for this version only.
    Report {
        pg: PgId,
        disk: DiskId,
        version: u32,
        why: Wrong,
    },
    /// The manager has emptied this disk's replica, whose table is damaged: the store forgets all of it, and it is made anew.
    Forget { pg: PgId },
}

/// What a comparer has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Walks over a PG that came to their end.
    pub walks: u64,
    /// Chunks that were the same.
    pub same: u64,
    /// Chunks that somebody lacked, and those that were outvoted.
    pub wrong: u64,
    /// Chunks of which nobody knows who is right.
    pub unknown: u64,
    /// Chunks that did not come to rest.
    pub skipped: u64,
}

/// How often a PG is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rests {
    /// Between two walks over it.
    pub between: Duration,
    /// From a change of its configuration to the next walk.
    pub after_change: Duration,
}

/// The comparer of one disk. See the [module](super).
#[derive(Debug)]
pub struct Comparer {
    pub(super) disk: DiskId,
    pub(super) rests: Rests,
    pub(super) pgs: BTreeMap<PgId, Known>,
    pub(super) walk: Option<Walk>,
    /// Of the PG that is walked.
    pub(super) checks: BTreeMap<ChunkId, Check>,
    /// Which chunk a look or a question is of.
    pub(super) flying: BTreeMap<u64, ChunkId>,
    /// Questions of others that are at the store.
    lends: BTreeMap<u64, CompareHeader>,
    pub(super) named: BTreeMap<(PgId, DiskId), Named>,
    pub(super) unknown: BTreeSet<(PgId, ChunkId)>,
    /// PGs whose table here is damaged: no more than `pgs`.
    pub(super) torn: BTreeMap<PgId, Torn>,
    pub(super) off: RulesOff,
    pub(super) counts: Counts,
    pub(super) life: u64,
    pace: u32,
    last_id: u64,
    /// See [`Comparer::deadline`].
    deadline: Option<Time>,
}

impl Comparer {
    /// `life` is the number of this start of its node, another one at each; a disk gets one comparer in a life. So no two questions have one header. An answer to a question
    /// of an earlier life, taken for one of this life, would say what was there before the look that it is held against.
    pub fn new(disk: DiskId, life: u64, rests: Rests, off: RulesOff) -> Comparer {
        Comparer {
            disk,
            rests,
            pgs: BTreeMap::new(),
            walk: None,
            checks: BTreeMap::new(),
            flying: BTreeMap::new(),
            lends: BTreeMap::new(),
            named: BTreeMap::new(),
            unknown: BTreeSet::new(),
            torn: BTreeMap::new(),
            off,
            counts: Counts::default(),
            pace: PACE_FIRST,
            life,
            last_id: 0,
            deadline: None,
        }
    }

    /// What it has done since it was made. They only grow, and begin at zero with each life: whoever keeps them longer adds up the differences.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The replicas that were found wrong and are not taken out yet.
    pub fn wrong(&self) -> impl Iterator<Item = (PgId, DiskId, Wrong)> {
        let named = self.named.iter();
        let named = named.map(|((pg, disk), of)| (*pg, *disk, of.why));
        let torn = self.torn.keys();
        named.chain(torn.map(|pg| (*pg, self.disk, Wrong::Torn)))
    }

    /// Chunks that differ, and nobody knows who is right. Of these an alert is made. A chunk is in here from when it is found until it is known who is right, or a
    /// walk over its PG came to the end and did not find it any more; at most [`UNKNOWN_MAX`].
    pub fn unknown(&self) -> impl Iterator<Item = (PgId, ChunkId)> {
        self.unknown.iter().copied()
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Configured { pg, of } => self.on_configured(now, pg, of, out),
            Input::Dropped { pg } => self.on_dropped(pg),
            Input::Torn { pg, version } => self.on_torn(now, pg, version, out),
            Input::Asked { header, at } => self.on_asked(header, at, out),
            Input::Answered {
                from,
                header,
                answer,
            } => self.on_answer(now, from, header, answer, out),
            Input::Unanswered { from } => self.pass_over(now, |_, to| to == from),
            Input::Pace(chunks) => self.pace = chunks.clamp(1, PACE_MAX),
            Input::Listed { op, found } => self.on_listed(now, op, found),
            Input::Looked { op, found } => match self.lends.remove(&op) {
                Some(header) => self.on_lent(header, found, out),
                None => self.on_looked(now, op, found, out),
            },
        }
        self.go_on(now, out);
        self.deadline = self.next_deadline();
    }

    /// When [`Comparer::expire`] is to be called, if nothing else happens first.
    pub fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Of all PGs: so it is not looked for at each turn of a shard, but kept.
    fn next_deadline(&self) -> Option<Time> {
        let checks = self.checks.values().filter_map(Check::deadline);
        let named = self.named.values().map(|of| of.tell);
        let walk = match self.walk {
            Some(_) => None,
            None => self.next_walk().map(|(due, _)| due),
        };
        let torn = self.torn.values().map(|of| of.tell);
        checks.chain(named).chain(torn).chain(walk).min()
    }

    /// The deadline has come.
    pub fn expire(&mut self, now: Time, out: &mut Vec<Output>) {
        self.pass_over(now, |since, _| since + super::PATIENCE <= now);
        self.tell_again(now, out);
        self.go_on(now, out);
        self.deadline = self.next_deadline();
    }

    /// Asserts the named invariants.
    pub fn check(&self) {
        let bounded = "comparisons-are-bounded";
        assert!(self.checks.len() <= PACE_MAX as usize, "{bounded}");
        assert!(self.flying.len() <= PACE_MAX as usize, "{bounded}");
        assert!(self.lends.len() <= LENDS_MAX, "{bounded}");
        assert!(self.named.len() <= WRONG_MAX, "{bounded}");
        assert!(self.unknown.len() <= UNKNOWN_MAX, "{bounded}");
        let mut torn = self.torn.keys();
        assert!(torn.all(|pg| self.pgs.contains_key(pg)), "{bounded}");
        assert!(
            self.walk.is_some() || self.checks.is_empty(),
            "chunks are compared on a walk"
        );
        for (at, check) in &self.checks {
            if let Some(id) = check.flying() {
                assert_eq!(self.flying.get(&id), Some(at), "an answer finds its chunk");
            }
        }
        if let Some(walk) = &self.walk {
            assert!(self.others(walk.pg).is_some(), "one-configuration");
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn has_room(&self) -> bool {
        self.checks.len() < self.pace as usize
    }

    /// What the configuration says of this disk.
    pub(super) fn role(&self, pg: PgId) -> Option<Role> {
        self.pgs.get(&pg).and_then(|known| known.of.role(self.disk))
    }

    /// The version under which this replica can be compared, and the others that are in sync; `None`: it is not in sync, is alone, or is said to be wrong.
    pub(super) fn others(&self, pg: PgId) -> Option<(u32, Vec<DiskId>)> {
        let known = self.pgs.get(&pg)?;
        let is_sound = !self.torn.contains_key(&pg) && !self.named.contains_key(&(pg, self.disk));
        if self.role(pg) != Some(Role::InSync) || !is_sound {
            return None;
        }
        let others = known.of.in_sync().filter(|disk| *disk != self.disk);
        let others: Vec<DiskId> = others.collect();
        (!others.is_empty()).then_some((known.of.version(), others))
    }

    /// Whether a question of this header may be answered now.
    fn may_answer(&self, header: &CompareHeader) -> bool {
        let others = self.others(header.pg);
        others.is_some_and(|(version, others)| {
            version == header.version && others.contains(&header.asker)
        })
    }

    fn on_asked(&mut self, header: CompareHeader, at: ChunkId, out: &mut Vec<Output>) {
        if !self.may_answer(&header) || self.lends.len() >= LENDS_MAX {
            let answer = CompareAnswer::NotNow;
            return out.push(Output::Answer { header, answer });
        }
        // The look begins after the question has come: that is what it stands on.
        let op = self.next_id();
        self.lends.insert(op, header);
        let pg = header.pg;
        out.push(Output::Look { op, pg, at });
    }

    fn on_lent(&mut self, header: CompareHeader, found: Option<Found>, out: &mut Vec<Output>) {
        let may = self.may_answer(&header);
        let answer = match found.filter(|found| may && found.version <= header.version) {
            None => CompareAnswer::NotNow,
            Some(found) => match (found.content, found.motion) {
                (Some(content), motion) => CompareAnswer::Held {
                    summary: Summary::of(&content, found.below),
                    motion,
                },
                (None, Motion::Quiet) => CompareAnswer::Nothing {
                    below: found.below,
                    forgotten: found.forgotten,
                },
                // What is on its way to the disk may be the very first of the chunk.
                (None, Motion::Moving) => CompareAnswer::NotNow,
            },
        };
        out.push(Output::Answer { header, answer });
    }
}
