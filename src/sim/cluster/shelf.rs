//! What a disk keeps of its replicas, in memory: the simulated store under a replica.
//!
//! # What it promises, as a real store does
//! - An operation happens as a whole or not at all. One that was answered is durable; one in flight at a crash happened or not.
//! - A change is durable as one with its stamp and its entry in the window; fences are durable when they are answered. Marks are kept
//!   lazily: after a crash they may be behind, and the window a superset (R22).
//! - Operations in flight overtake one another, and take effect anywhere between their beginning and their end. Whoever needs an order
//!   waits for the answer.
//!
//! # What goes wrong
//! It is slow; a chunk cannot be read until something of it is written; a block has rotted, which is found as a crc that is
//! wrong when it is read; it is gone, and answers so; it comes back with an older state, incarnation and all (R19); it is
//! full, and refuses what takes space: data in a chunk that has none. Before that it is low: only its reserve is left. Joiners get no more than a third of
//! that, so that replicas in sync have room for what is on its way to them.
//!
//! A block's data is a number, unique to its write. It does not know what a replica is: it keeps fences and windows and
//! compares nothing with them.

mod state;
#[cfg(test)]
mod tests;
mod whole;
mod wrong;

pub use state::{Block, Chunk, Content, Kept, Pg};

use super::checkers::room::Marks;
use super::coverage::{Fault, Tally};
use super::links::chance;
use crate::base::{
    BlockRun, Break, Breaks, ChunkId, Epoch, PgId, Prng, Slab, Stamp, Time, VolumeId,
};
use crate::protocol::replication::fill::Place;
use crate::protocol::replication::{Entry, Gauge, Room, Takes as Space};
use crate::protocol::scrub::MendAsk;
use crate::sim::clock::Agenda;
use crate::store::Openings;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use whole::Whole;

/// Operations in flight.
pub const FLYING_MAX: usize = 4096;
/// How much longer a slow operation takes.
const SLOW_TIMES: u32 = 100;

/// How a disk is: a rate is one in so many operations, zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// An operation takes this long, up to twice; in microseconds.
    pub took_us: u64,
    pub slow_one_in: u64,
    /// Chunks of data that it has room for.
    pub room: usize,
    /// So many of them are its reserve: with fewer free it is low.
    pub reserve: usize,
}

impl Manner {
    /// What joiners leave of the reserve.
    fn left_by_joiners(&self) -> usize {
        self.reserve - self.reserve / 3
    }

    /// So much must be free again before a disk that was low is not any more.
    fn ample_from(&self) -> u64 {
        (self.reserve + self.room.saturating_sub(self.reserve) / 4) as u64 + 1
    }

    /// Quick, and with room.
    #[cfg(test)]
    pub const CALM: Manner = Manner {
        took_us: 20,
        slow_one_in: 0,
        room: usize::MAX,
        reserve: 0,
    };
}

/// What is changed in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Each block of the run has its value, which stands in its place in the chunk.
    Data {
        run: BlockRun,
        values: [u64; 16],
    },
    Zero {
        run: BlockRun,
    },
    /// So many whole chunks from this one on.
    ZeroChunks {
        count: u32,
    },
}

/// What is asked of the store of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Make fences durable, as one (R6). They only grow.
    Fence {
        version: u32,
        session: u32,
        fences: Vec<(VolumeId, Epoch)>,
    },
    /// Make a change durable, with its stamp, as one with its entry in the window.
    Change {
        range: VolumeId,
        at: ChunkId,
        what: What,
        stamp: Stamp,
    },
    /// The blocks of a run, as seen from their layer.
    Read { at: ChunkId, run: BlockRun },
    /// Chunks that were stamped under a version above `since`, in the order of their places, from behind one on (R14).
    List {
        since: u32,
        after: Option<ChunkId>,
        most: usize,
    },
    /// A chunk of one layer as it is, with its stamp (R15).
    Fetch { chunk: ChunkId },
    /// Whether data in this chunk would take space.
    Look { chunk: ChunkId },
    /// What the table has of a chunk of one layer: no data is read.
    Inspect { chunk: ChunkId },
    /// Blocks of a chunk come from another replica and keep that one's stamp; a bit for each block that does (R15).
    Fill {
        chunk: ChunkId,
        blocks: u16,
        content: Box<Content>,
        stamp: Stamp,
        entries: Vec<(VolumeId, Entry)>,
    },
    /// The replica is no more, with all that is kept of it (R24).
    Forget,
    /// Blocks of a layer with these checksums, or whatever is in their places.
    Salvage { ask: MendAsk, gives: Gives },
    /// The bytes of blocks that are damaged: they count where the chunk should have them.
    Mend {
        what: MendAsk,
        values: Box<[u64; 16]>,
        takes: Takes,
    },
}

/// What is salvaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    Matching,
    /// A rule is off.
    Anything,
}

/// What is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// What has the right checksum when it takes effect.
    ByChecksum,
    /// A rule is off: these blocks, whatever they should have.
    Blocks(u16),
}

/// The name of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A damaged block, in its place of the chunk, and the checksum that it should have.
pub type Damaged = (PgId, ChunkId, u32, u32);

/// Why an operation failed. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The chunk cannot be read.
    Error,
    /// A block is not what was written.
    Mismatch,
    NoSpace,
    /// The table is damaged.
    Torn,
    Gone,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Stored,
    /// To [`Operation::Read`]: in the places of the run.
    Value(Content),
    /// To [`Operation::List`].
    Chunks {
        chunks: Vec<ChunkId>,
        more: bool,
    },
    /// To [`Operation::Fetch`] and [`Operation::Inspect`]; `None`: nothing of this chunk is kept.
    Chunk(Option<Chunk>),
    /// To [`Operation::Look`].
    Looked(Space),
    /// To [`Operation::Salvage`]: those that are there, in their places.
    Salvaged([Option<u64>; 16]),
    Failed(Failure),
}

/// An operation has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub op: OpId,
    pub pg: PgId,
    pub outcome: Outcome,
    /// Since it was asked.
    pub took: Duration,
}

/// Too much is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

#[derive(Debug)]
struct Flying {
    op: OpId,
    pg: PgId,
    operation: Operation,
    is_slow: bool,
    /// `Some` once it has taken effect.
    outcome: Option<Outcome>,
    began: Time,
    ends: Time,
}

/// What is under a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stores {
    /// What this file keeps in memory.
    #[default]
    Shelves,
    /// Whole stores on simulated disks ([`whole`]).
    Whole,
}

/// One disk.
#[derive(Debug)]
pub struct Shelf {
    manner: Manner,
    prng: Prng,
    /// The store that is here instead; then `kept` is what it says.
    whole: Option<Box<Whole>>,
    began: BTreeMap<OpId, Time>,
    /// What is on the medium.
    kept: Kept,
    /// An earlier state, to come back with.
    older: Option<Kept>,
    is_gone: bool,
    unreadable: BTreeSet<(PgId, ChunkId, u8)>,
    rotten: BTreeSet<(PgId, ChunkId, u8)>,
    /// PGs whose table is damaged.
    torn: BTreeSet<PgId>,
    /// PGs that something was done to here: what is here of them is not what was put here.
    struck: BTreeSet<PgId>,
    /// What a chunk was before its last change.
    before: BTreeMap<(PgId, ChunkId), Option<Chunk>>,
    /// Damage that was found, and not told yet.
    found: Vec<Damaged>,
    ops: u64,
    flying: Slab<Flying>,
    agenda: Agenda,
    gauge: Gauge,
    /// Chunks with data, where they were counted since something has changed.
    counted: Cell<Option<usize>>,
    /// Faults of our own: what a store under a replica could do wrong.
    pub breaks: Breaks,
    /// With [`Break::NoDsync`]: what the medium really has.
    synced: Kept,
    pub tally: Tally,
}

impl Shelf {
    /// An empty disk.
    pub fn new(prng: Prng, manner: Manner) -> Shelf {
        Shelf {
            manner,
            prng,
            whole: None,
            began: BTreeMap::new(),
            kept: Kept::default(),
            older: None,
            is_gone: false,
            unreadable: BTreeSet::new(),
            rotten: BTreeSet::new(),
            torn: BTreeSet::new(),
            struck: BTreeSet::new(),
            before: BTreeMap::new(),
            found: Vec::new(),
            ops: 0,
            flying: Slab::new(FLYING_MAX),
            agenda: Agenda::new(),
            counted: Cell::new(None),
            gauge: Gauge::with_marks(manner.reserve as u64, manner.ample_from()),
            breaks: Breaks::NONE,
            synced: Kept::default(),
            tally: Tally::default(),
        }
    }

    /// A disk with a whole store.
    pub fn whole(mut prng: Prng, manner: Manner, breaks: Breaks) -> Shelf {
        let of = prng.fork();
        let mut shelf = Shelf::new(prng, manner);
        shelf.breaks = breaks;
        shelf.whole = Some(Box::new(Whole::new(of, &manner, breaks)));
        shelf
    }

    /// The store is opened, under this number; durable at once (R19).
    pub fn open(&mut self, incarnation: u64) {
        self.kept.incarnation = incarnation;
        self.put_openings();
    }

    /// The manager has recorded this opening; durable at once, before anything is served.
    pub fn recorded(&mut self) {
        self.kept.recorded = self.kept.incarnation;
        self.put_openings();
    }

    /// What is durable now.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Begins an operation on what is kept of a PG's replica.
    pub fn ask(&mut self, now: Time, pg: PgId, operation: Operation) -> Result<OpId, Full> {
        if let Some(whole) = &mut self.whole {
            self.ops += 1;
            let op = OpId(self.ops);
            self.began.insert(op, now);
            whole.ask(now, (op, pg), &operation);
            return Ok(op);
        }
        let is_slow = chance(&mut self.prng, self.manner.slow_one_in);
        let us = self.manner.took_us + self.prng.below(self.manner.took_us.max(1));
        let mut took = Duration::from_micros(us.max(1));
        if is_slow {
            took *= SLOW_TIMES;
        }
        // A replica is dropped when nothing of it is on its way any more: else it would land on the next one.
        let mut not_before = Duration::ZERO;
        if operation == Operation::Forget {
            let of_pg = self.flying.iter().filter(|(_, other)| other.pg == pg);
            let last = of_pg.map(|(_, other)| other.ends).max();
            not_before = last.map_or(Duration::ZERO, |last| last.since(now));
            took += not_before;
        }
        let op = OpId(self.ops + 1);
        let flying = Flying {
            op,
            pg,
            operation,
            is_slow,
            outcome: None,
            began: now,
            ends: now + took,
        };
        let key = self.flying.insert(flying).map_err(|_| Full)?;
        self.ops += 1;
        if self.breaks.on(Break::NoDsync) && self.ops.is_multiple_of(64) {
            self.synced = self.kept.clone();
        }
        if is_slow {
            self.tally.injected(Fault::DiskSlow);
        }
        let effect = self.prng.below((took - not_before).as_nanos() as u64 + 1);
        let effect = not_before + Duration::from_nanos(effect);
        self.agenda.put(now + effect, key);
        Ok(op)
    }

    /// The mark of a range, kept in memory until something of the replica is changed.
    pub fn mark(&mut self, pg: PgId, range: VolumeId, epoch: Epoch, mark: u64) {
        if let Some(whole) = &mut self.whole {
            whole.mark(pg, range, epoch, mark);
            return self.look(pg);
        }
        self.kept.pg_mut(pg).mark(range, epoch, mark);
    }

    /// How full it is, as it was looked at last.
    pub fn room(&self) -> Room {
        self.gauge.room()
    }

    /// Chunks that are free.
    pub fn free(&self) -> usize {
        let chunks = self.counted.get().unwrap_or_else(|| {
            let counted = self.kept.chunks();
            self.counted.set(Some(counted));
            counted
        });
        self.manner.room.saturating_sub(chunks)
    }

    /// Asserts that what was counted is still so.
    pub fn check_count(&self) {
        let counted = self.counted.get();
        assert!(
            counted.is_none_or(|counted| counted == self.kept.chunks()),
            "chunks are counted anew"
        );
    }

    /// Chunks that are free, and what makes it low; nothing where it is not and never can be.
    pub fn measured(&self) -> Option<(u64, Marks)> {
        let marks = Marks {
            low_below: self.manner.reserve as u64,
            ample_from: self.manner.ample_from(),
        };
        let is_endless = self.manner.room == usize::MAX && self.gauge.room() == Room::Ample;
        (!is_endless).then_some((self.free() as u64, marks))
    }

    /// How full it has become since it was asked last, if that is another word.
    pub fn turned(&mut self) -> Option<Room> {
        if self.manner.room == usize::MAX && self.gauge.room() == Room::Ample {
            return None;
        }
        let turned = self.gauge.free(self.free() as u64);
        if turned == Some(Room::Low) {
            self.tally.injected(Fault::DiskFull);
        }
        turned
    }

    /// How many operations are in flight.
    pub fn flying(&self) -> usize {
        match &self.whole {
            Some(whole) => whole.flying(),
            None => self.flying.len(),
        }
    }

    /// When something may end.
    pub fn next(&self) -> Option<Time> {
        match &self.whole {
            Some(whole) => whole.next(),
            None => self.agenda.next(),
        }
    }

    /// An operation that has ended by `now`.
    pub fn poll(&mut self, now: Time) -> Option<Done> {
        if let Some(whole) = &mut self.whole {
            let (op, pg, outcome) = whole.poll(now)?;
            let took = self
                .began
                .remove(&op)
                .map_or(Duration::ZERO, |at| now.since(at));
            self.look(pg);
            self.look_at_damage(&outcome);
            if self.is_gone {
                self.gone();
            }
            return Some(Done {
                op,
                pg,
                outcome,
                took,
            });
        }
        loop {
            let key = self.agenda.pop(now)?;
            let has_happened = self.flying[key].outcome.is_some();
            if !has_happened {
                self.happen(key);
                let ends = self.flying[key].ends;
                self.agenda.put(ends, key);
                continue;
            }
            let flying = self.flying.remove(key)?;
            if flying.is_slow {
                self.tally.consumed(Fault::DiskSlow);
            }
            let outcome = match self.is_gone {
                true => self.gone(),
                false => flying.outcome?,
            };
            let Flying { op, pg, .. } = flying;
            let took = flying.ends.since(flying.began);
            return Some(Done {
                op,
                pg,
                outcome,
                took,
            });
        }
    }

    /// Looks what the store has of a PG.
    fn look(&mut self, pg: PgId) {
        if let Some(whole) = &self.whole {
            match whole.kept(pg) {
                Some(found) => self.kept.pgs.insert(pg, found),
                None => self.kept.pgs.remove(&pg),
            };
            self.counted.set(None);
        }
    }

    fn put_openings(&mut self) {
        if let Some(whole) = &mut self.whole {
            whole.put_openings(Openings {
                last: self.kept.incarnation,
                recorded: self.kept.recorded,
            });
        }
    }

    /// Looks at all that the store has, after it was opened.
    fn look_at_all(&mut self) {
        let Some(whole) = &self.whole else {
            return;
        };
        let openings = whole.openings();
        let pgs = whole.pgs();
        (self.kept.incarnation, self.kept.recorded) = (openings.last, openings.recorded);
        self.kept.pgs.clear();
        pgs.into_iter().for_each(|pg| self.look(pg));
        self.began.clear();
        self.counted.set(None);
    }

    fn gone(&mut self) -> Outcome {
        self.tally.consumed(Fault::DiskGone);
        Outcome::Failed(Failure::Gone)
    }

    /// An operation takes effect.
    fn happen(&mut self, key: u32) {
        let flying = &self.flying[key];
        let (pg, operation) = (flying.pg, flying.operation.clone());
        let outcome = match self.is_gone {
            true => Outcome::Failed(Failure::Gone),
            false => self.carry_out(pg, operation),
        };
        self.counted.set(None);
        self.flying[key].outcome = Some(outcome);
    }

    fn carry_out(&mut self, pg: PgId, operation: Operation) -> Outcome {
        if self.torn.contains(&pg) && operation != Operation::Forget {
            self.tally.consumed(Fault::TornTable);
            return Outcome::Failed(Failure::Torn);
        }
        match operation {
            Operation::Fence {
                version,
                session,
                fences,
            } => {
                self.kept.pg_mut(pg).fence(version, session, &fences);
                Outcome::Stored
            }
            Operation::Change {
                range,
                at,
                what,
                stamp,
            } => {
                let is_data = matches!(what, What::Data { .. });
                // A joiner may lack what others only write over.
                let left = match self.kept.pg(pg).session {
                    0 => 0,
                    _ => self.manner.left_by_joiners(),
                };
                if is_data && !self.has_room(pg, at, left) {
                    return Outcome::Failed(Failure::NoSpace);
                }
                for (chunk, mask) in places(at, what) {
                    self.overwritten(pg, chunk, mask);
                    let before = self.kept.pg(pg).chunks.get(&chunk).copied();
                    self.before.insert((pg, chunk), before);
                }
                self.kept.pg_mut(pg).change(range, at, what, stamp);
                Outcome::Stored
            }
            Operation::Read { at, run } => self.read(pg, at, run),
            Operation::List { since, after, most } => {
                let after = after.map(Place::from);
                let is_listed = |place: &Place, chunk: &Chunk| {
                    chunk.stamp.version > since && after.is_none_or(|after| *place > after)
                };
                let chunks = self.kept.pg(pg).chunks.iter();
                let places = chunks.map(|(id, chunk)| (Place::from(*id), chunk));
                let listed = places.filter(|(place, chunk)| is_listed(place, chunk));
                let mut listed: Vec<Place> = listed.map(|(place, _)| place).collect();
                listed.sort_unstable();
                let more = listed.len() > most;
                listed.truncate(most);
                let chunks = listed.into_iter().map(ChunkId::from).collect();
                Outcome::Chunks { chunks, more }
            }
            Operation::Fetch { chunk } => match self.check(pg, chunk, u16::MAX) {
                Err(failure) => Outcome::Failed(failure),
                Ok(()) => Outcome::Chunk(self.kept.pg(pg).chunks.get(&chunk).copied()),
            },
            Operation::Inspect { chunk } => {
                Outcome::Chunk(self.kept.pg(pg).chunks.get(&chunk).copied())
            }
            Operation::Fill {
                chunk,
                blocks,
                content,
                stamp,
                entries,
            } => {
                let fills = |place: usize| {
                    blocks & 1 << place != 0 && matches!(content[place], Block::Data(_))
                };
                let left = self.manner.left_by_joiners();
                if (0..16).any(fills) && !self.has_room(pg, chunk, left) {
                    return Outcome::Failed(Failure::NoSpace);
                }
                self.before.remove(&(pg, chunk));
                self.overwritten(pg, chunk, blocks);
                let of = self.kept.pg_mut(pg);
                of.fill(chunk, blocks, &content, stamp);
                of.adopt(chunk, blocks, entries);
                Outcome::Stored
            }
            Operation::Look { chunk } => Outcome::Looked(match self.kept.pg(pg).has_data(chunk) {
                true => Space::Nothing,
                false => Space::Space,
            }),
            Operation::Forget => {
                self.kept.pgs.remove(&pg);
                self.torn.remove(&pg);
                self.struck.remove(&pg);
                self.before.retain(|(of, _), _| *of != pg);
                self.unreadable.retain(|(of, ..)| *of != pg);
                self.rotten.retain(|(of, ..)| *of != pg);
                Outcome::Stored
            }
            Operation::Salvage { ask, gives } => self.salvage(pg, &ask, gives),
            Operation::Mend {
                what,
                values,
                takes,
            } => {
                let blocks = match takes {
                    Takes::ByChecksum => self.matching(pg, &what),
                    Takes::Blocks(blocks) => blocks & what.blocks,
                };
                self.mend(pg, what.at, blocks, &values);
                Outcome::Stored
            }
        }
    }

    /// Whether there is room for data in a chunk, with so much left over.
    fn has_room(&self, pg: PgId, chunk: ChunkId, left: usize) -> bool {
        self.kept.pg(pg).has_data(chunk) || self.free() > left
    }

    /// What was damaged in these blocks is not any more.
    fn overwritten(&mut self, pg: PgId, chunk: ChunkId, mask: u16) {
        let is_over = |block: u8| mask & 1 << block != 0;
        for damaged in [&mut self.unreadable, &mut self.rotten] {
            damaged.retain(|&(of, at, block)| (of, at) != (pg, chunk) || !is_over(block));
        }
    }

    fn read(&mut self, pg: PgId, at: ChunkId, run: BlockRun) -> Outcome {
        let mut content = [Block::Absent; 16];
        for block in run.blocks() {
            // From layer to layer, until one has it.
            let mut layer = Some(at.layer);
            while let Some(of) = layer {
                let chunk = ChunkId { layer: of, ..at };
                if let Err(failure) = self.check(pg, chunk, 1 << block) {
                    return Outcome::Failed(failure);
                }
                content[block as usize] = self.kept.pg(pg).block(chunk, block);
                if content[block as usize] != Block::Absent {
                    break;
                }
                layer = self.kept.parents.get(&of).copied();
            }
        }
        Outcome::Value(content)
    }

    /// Whether these blocks can be read and are what was written. Those that are not are noted.
    fn check(&mut self, pg: PgId, chunk: ChunkId, mask: u16) -> Result<(), Failure> {
        let blocks = (0..16u8).filter(|block| mask & 1 << block != 0);
        let mut failure = None;
        for block in blocks {
            let place = (pg, chunk, block);
            let why = match (
                self.unreadable.contains(&place),
                self.rotten.contains(&place),
            ) {
                (true, _) => Failure::Error,
                (_, true) => Failure::Mismatch,
                _ => continue,
            };
            failure.get_or_insert(why);
            self.note_damaged(place);
        }
        match failure {
            None => return Ok(()),
            Some(Failure::Error) => self.tally.consumed(Fault::DiskError),
            Some(_) => self.tally.consumed(Fault::Rot),
        }
        Err(failure.unwrap_or(Failure::Error))
    }

    fn note_damaged(&mut self, (pg, chunk, block): (PgId, ChunkId, u8)) {
        if let Block::Data(value) = self.kept.pg(pg).block(chunk, block.into()) {
            self.found.push((pg, chunk, block.into(), value as u32));
        }
    }

    fn salvage(&mut self, pg: PgId, ask: &MendAsk, gives: Gives) -> Outcome {
        let mut found = [None; 16];
        for (place, found) in (0..16u8).zip(&mut found) {
            let at = (pg, ask.at, place);
            let is_asked = ask.blocks & 1 << place != 0;
            let is_damaged = self.unreadable.contains(&at) || self.rotten.contains(&at);
            if let Block::Data(value) = self.kept.pg(pg).block(ask.at, place.into())
                && is_asked
                && !is_damaged
                && (gives == Gives::Anything || value as u32 == ask.crcs[usize::from(place)])
            {
                *found = Some(value);
            }
        }
        Outcome::Salvaged(found)
    }

    /// The blocks whose checksum is the one that is said.
    pub fn matching(&self, pg: PgId, what: &MendAsk) -> u16 {
        let is_it = |place: &u32| {
            let block = self.kept.pg(pg).block(what.at, *place);
            matches!(block, Block::Data(value) if value as u32 == what.crcs[*place as usize])
        };
        let asked = (0..16u32).filter(|place| what.blocks & 1 << place != 0);
        asked.filter(is_it).fold(0, |mask, at| mask | 1 << at)
    }

    fn mend(&mut self, pg: PgId, chunk: ChunkId, blocks: u16, values: &[u64; 16]) {
        self.overwritten(pg, chunk, blocks);
        if let Some(of) = self.kept.pg_mut(pg).chunks.get_mut(&chunk) {
            for place in (0..16).filter(|place| blocks & 1 << place != 0) {
                of.content[place] = Block::Data(values[place]);
            }
        }
    }
}

/// The chunks that a change touches, with a bit for each block.
fn places(at: ChunkId, what: What) -> Vec<(ChunkId, u16)> {
    let (count, mask) = match what {
        What::Data { run, .. } | What::Zero { run } => (1, run.mask()),
        What::ZeroChunks { count } => (count, u16::MAX),
    };
    let chunk = |n: u32| ChunkId {
        chunk: crate::base::ChunkNo(at.chunk.0 + u64::from(n)),
        ..at
    };
    (0..count).map(|n| (chunk(n), mask)).collect()
}
