//! The machine of one disk: what is damaged on it is asked for and given to its store, and what others ask for is lent.
//!
//! It lives in memory only. After a restart the next read or scrub finds the damage again.

use super::LENDS_MAX;
use super::lend::Lend;
use super::message::{MendAnswer, MendAsk, MendHeader};
use super::rule::{Rule, RulesOff};
use super::want::{PATIENCE, Phase, WANTS_MAX, Want, sources};
use crate::base::{ChunkId, DiskId, Payload, PgId, Time};
use crate::protocol::replication::{Configuration, Role};
use std::collections::BTreeMap;

/// Chunks that are asked for or mended at once, before the driver has said anything: 256 KiB.
const PACE_FIRST: u32 = 4;
/// The most: 2 MiB.
const PACE_MAX: u32 = 32;

/// What a mender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// What the manager says of a PG that this disk has a replica of.
    Configured { pg: PgId, of: Configuration },
    /// This disk has no replica of it any more.
    Dropped { pg: PgId },
    /// The store found a block damaged, in its place of the chunk, which should have this checksum.
    Damaged {
        pg: PgId,
        at: ChunkId,
        block: u32,
        crc: u32,
    },
    /// Another disk asks.
    Asked { header: MendHeader, ask: MendAsk },
    /// One that was asked answers; the payload, where blocks came, has been held against their checksums.
    Answered {
        from: DiskId,
        header: MendHeader,
        answer: MendAnswer,
        payload: Option<Payload>,
    },
    /// There is a new connection to a disk.
    Connected { to: DiskId },
    /// The connection to a disk was lost.
    Unanswered { from: DiskId },
    /// So many chunks may be on their way at once: what guests' latency leaves room for.
    Pace(u32),
    /// The answer to [`Output::Look`]: what is damaged was told before it. Or the store could not look.
    Looked { op: u64, ok: bool },
    /// The answer to [`Output::Mend`]: the blocks have the bytes, or need them no more; or the store could not.
    Mended { op: u64, ok: bool },
    /// The answer to [`Output::Salvage`]: what could be read of it; `None`: the store could not.
    Salvaged {
        op: u64,
        found: Option<MendAsk>,
        payload: Option<Payload>,
    },
}

/// What a mender wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Ask {
        to: DiskId,
        header: MendHeader,
        ask: MendAsk,
    },
    /// To the disk that the header names.
    Answer {
        header: MendHeader,
        answer: MendAnswer,
        payload: Option<Payload>,
    },
    /// Have the store put these bytes back, each block where it still should have that checksum. The payload has a place for each block
    /// of the chunk, and is not needed when [`Input::Mended`] is there.
    Mend {
        op: u64,
        pg: PgId,
        what: MendAsk,
        payload: Payload,
    },
    /// Have the store read a chunk of a layer once more: nobody had what was wanted of it, and it may not be needed any more.
    Look { op: u64, pg: PgId, at: ChunkId },
    /// Have the store read the blocks that it holds with these checksums.
    Salvage { op: u64, pg: PgId, ask: MendAsk },
}

/// What a mender has done since it was made, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// That were told to be damaged, each once.
    pub damaged: u64,
    /// That the store has put back, or that needed it no more.
    pub mended: u64,
    /// That came with another checksum than was asked for.
    pub wrong: u64,
    /// That were not noted, because too much was wanted.
    pub dropped: u64,
}

type Key = (PgId, ChunkId);

/// The mender of one disk.
#[derive(Debug)]
pub struct Mender {
    disk: DiskId,
    pub(super) pgs: BTreeMap<PgId, Configuration>,
    wants: BTreeMap<Key, Want>,
    /// Which want a question or a mend is of.
    flying: BTreeMap<u64, Key>,
    pub(super) lends: BTreeMap<u64, Lend>,
    last_id: u64,
    pace: u32,
    off: RulesOff,
    counts: Counts,
}

impl Mender {
    pub fn new(disk: DiskId, off: RulesOff) -> Mender {
        Mender {
            disk,
            pgs: BTreeMap::new(),
            wants: BTreeMap::new(),
            flying: BTreeMap::new(),
            lends: BTreeMap::new(),
            last_id: 0,
            pace: PACE_FIRST,
            off,
            counts: Counts::default(),
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Chunks in which blocks are damaged, with a bit for each.
    pub fn wanted(&self) -> impl Iterator<Item = (PgId, ChunkId, u16)> {
        let wants = self.wants.iter();
        wants.map(|((pg, at), want)| (*pg, *at, want.what.blocks))
    }

    /// Those that no other replica could give, where this one is in sync: reads of them fail if the others lack them as well. What a
    /// replica that is not in sync lacks is filled when it joins.
    pub fn lost(&self) -> impl Iterator<Item = (PgId, ChunkId, u16)> {
        let is_in_sync = |pg: &PgId| {
            let of = self.pgs.get(pg);
            of.is_some_and(|of| of.role(self.disk) == Some(Role::InSync))
        };
        let wants = self.wants.iter();
        let lost = wants.filter(move |((pg, _), want)| want.rounds > 0 && is_in_sync(pg));
        lost.map(|((pg, at), want)| (*pg, *at, want.what.blocks))
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Configured { pg, of } => self.on_configured(now, pg, of),
            Input::Dropped { pg } => self.on_dropped(pg),
            Input::Damaged { pg, at, block, crc } => self.on_damaged(now, (pg, at), block, crc),
            Input::Asked { header, ask } => self.on_asked(header, ask, out),
            Input::Answered {
                from,
                header,
                answer,
                payload,
            } => self.on_answer(now, from, header, answer, payload, out),
            Input::Connected { to } => self.on_connected(now, to),
            Input::Unanswered { from } => self.pass_over(now, |_, to| to == from),
            Input::Pace(chunks) => self.pace = chunks.clamp(1, PACE_MAX),
            Input::Mended { op, ok } => self.on_mended(now, op, ok),
            Input::Looked { op, ok } => self.on_looked(now, op, ok),
            Input::Salvaged { op, found, payload } => self.on_salvaged(op, found, payload, out),
        }
        self.ask(now, out);
    }

    /// When [`Mender::expire`] is to be called, if nothing else happens first.
    pub fn deadline(&self) -> Option<Time> {
        let has_room = self.has_room();
        let due = |want: &Want| match want.phase {
            Phase::Waits(at) => has_room.then_some(at),
            Phase::Asks { since, .. } => Some(since + PATIENCE),
            Phase::Mends { .. } | Phase::Looks { .. } => None,
        };
        self.wants.values().filter_map(due).min()
    }

    /// The deadline has come.
    pub fn expire(&mut self, now: Time, out: &mut Vec<Output>) {
        self.pass_over(now, |since, _| since + PATIENCE <= now);
        self.ask(now, out);
    }

    /// Asserts the named invariants.
    pub fn check(&self) {
        assert!(self.wants.len() <= WANTS_MAX, "wants-are-bounded");
        assert!(self.lends.len() <= LENDS_MAX, "wants-are-bounded");
        assert!(self.flying.len() <= PACE_MAX as usize, "wants-are-bounded");
        for (key, want) in &self.wants {
            assert_ne!(want.what.blocks, 0, "nothing is wanted of a chunk");
            if let Phase::Asks { id, .. } | Phase::Mends { id, .. } | Phase::Looks { id, .. } =
                want.phase
            {
                assert_eq!(self.flying.get(&id), Some(key), "an answer finds its want");
            }
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn has_room(&self) -> bool {
        self.flying.len() < self.pace as usize
    }

    fn on_configured(&mut self, now: Time, pg: PgId, of: Configuration) {
        let known = self.pgs.get(&pg).map_or(0, Configuration::version);
        if of.version() > known {
            self.pgs.insert(pg, of);
            let of_pg = |((of, _), _): &(&Key, &mut Want)| *of == pg;
            let wants = self.wants.iter_mut().filter(of_pg);
            wants.for_each(|(_, want)| want.begin_again(now));
        }
    }

    fn on_dropped(&mut self, pg: PgId) {
        self.pgs.remove(&pg);
        self.wants.retain(|(of, _), _| *of != pg);
        self.flying.retain(|_, (of, _)| *of != pg);
    }

    fn on_damaged(&mut self, now: Time, key: Key, block: u32, crc: u32) {
        if self.wants.len() >= WANTS_MAX && !self.wants.contains_key(&key) {
            self.counts.dropped += 1;
            return;
        }
        let want = self
            .wants
            .entry(key)
            .or_insert_with(|| Want::new(key.1, now));
        if want.add(block, crc) {
            self.counts.damaged += 1;
            want.begin_again(now);
        }
    }

    fn on_connected(&mut self, now: Time, to: DiskId) {
        for ((pg, _), want) in &mut self.wants {
            let of = self.pgs.get(pg);
            if of.is_some_and(|of| of.role(to).is_some()) {
                want.begin_again(now);
            }
        }
    }

    /// Asks the next one for what has waited longest, as far as there is room.
    fn ask(&mut self, now: Time, out: &mut Vec<Output>) {
        while self.has_room() {
            let due = |(key, want): (&Key, &Want)| match want.phase {
                Phase::Waits(at) if at <= now => Some((at, *key)),
                _ => None,
            };
            let Some((_, key)) = self.wants.iter().filter_map(due).min() else {
                return;
            };
            let own = self.disk;
            let of = self.pgs.get(&key.0);
            let id = self.last_id + 1;
            let Some(want) = self.wants.get_mut(&key) else {
                return;
            };
            self.last_id = id;
            self.flying.insert(id, key);
            let to = of.and_then(|of| sources(of, own).nth(want.tried));
            let Some(to) = to else {
                want.phase = Phase::Looks { id, still: 0 };
                let (pg, at) = key;
                out.push(Output::Look { op: id, pg, at });
                continue;
            };
            want.tried += 1;
            want.phase = Phase::Asks { id, to, since: now };
            let ask = want.what;
            let header = MendHeader {
                pg: key.0,
                asker: own,
                id,
            };
            out.push(Output::Ask { to, header, ask });
        }
    }

    /// Those who were asked and will not answer are passed over.
    fn pass_over(&mut self, now: Time, is_one: impl Fn(Time, DiskId) -> bool) {
        for want in self.wants.values_mut() {
            if let Phase::Asks { id, to, since } = want.phase
                && is_one(since, to)
            {
                self.flying.remove(&id);
                want.phase = Phase::Waits(now);
            }
        }
    }

    fn on_answer(
        &mut self,
        now: Time,
        from: DiskId,
        header: MendHeader,
        answer: MendAnswer,
        payload: Option<Payload>,
        out: &mut Vec<Output>,
    ) {
        let key = self.flying.get(&header.id).copied();
        let Some((key, want)) = key.and_then(|key| Some((key, self.wants.get_mut(&key)?))) else {
            return; // it was passed over, or its answer came twice
        };
        match want.phase {
            Phase::Asks { id, to, .. } if (id, to) == (header.id, from) => {}
            _ => return,
        }
        let mut got = match answer {
            MendAnswer::Blocks(found) if found.at == want.what.at => found.of(want.what.blocks),
            _ => want.what.of(0),
        };
        if !self.off.on(Rule::Checksum) {
            let differs = |at: &usize| got.crcs[*at] != want.what.crcs[*at];
            let wrong = (0..16)
                .filter(differs)
                .fold(0u16, |mask, at| mask | 1 << at);
            self.counts.wrong += u64::from((got.blocks & wrong).count_ones());
            got = got.of(!wrong);
        }
        match payload {
            Some(payload) if got.blocks != 0 => {
                let op = header.id;
                want.phase = Phase::Mends { id: op, what: got };
                out.push(Output::Mend {
                    op,
                    pg: key.0,
                    what: got,
                    payload,
                });
            }
            _ => {
                self.flying.remove(&header.id);
                want.phase = Phase::Waits(now);
            }
        }
    }

    fn on_mended(&mut self, now: Time, op: u64, ok: bool) {
        let Some(key) = self.flying.remove(&op) else {
            return; // its PG was dropped since
        };
        let Some(want) = self.wants.get_mut(&key) else {
            return debug_assert!(false, "what is mended is wanted");
        };
        let Phase::Mends { what, .. } = want.phase else {
            return debug_assert!(false, "a mend ends a mend");
        };
        if !ok {
            return want.end_round(now);
        }
        let before = want.what.blocks.count_ones();
        want.settle(&what);
        self.counts.mended += u64::from(before - want.what.blocks.count_ones());
        match want.what.blocks {
            0 => {
                self.wants.remove(&key);
            }
            _ => want.phase = Phase::Waits(now),
        }
    }

    fn on_looked(&mut self, now: Time, op: u64, ok: bool) {
        let Some(key) = self.flying.remove(&op) else {
            return; // its PG was dropped since
        };
        let Some(want) = self.wants.get_mut(&key) else {
            return debug_assert!(false, "what is looked at is wanted");
        };
        let Phase::Looks { still, .. } = want.phase else {
            return debug_assert!(false, "a look ends a look");
        };
        if ok {
            let before = want.what.blocks.count_ones();
            want.what = want.what.of(still);
            self.counts.mended += u64::from(before - want.what.blocks.count_ones());
        }
        match want.what.blocks {
            0 => {
                self.wants.remove(&key);
            }
            _ => want.end_round(now),
        }
    }
}
