//! A world of two or three replicas with one coordinator: writes reach each disk in their own time, marks follow, looks are slow, messages are late, twice
//! or lost, replicas are taken out and filled, configurations are heard of late, comparers forget everything. And now and then a disk forgets an
//! acknowledged write, one at a time.
//!
//! *Always, nobody-innocent*: whom the manager takes out for what a comparer says has lost a write and has not got it back. *In the end*: the copies are the
//! same, or it is said of which chunk nobody knows. *Sometimes*: each thing that the machine can meet, counted.

use crate::base::{ChunkId, ChunkNo, DiskId, FamilyId, LayerId, PgId, Prng, Stamp, Time};
use crate::protocol::replication::fill::Content;
use crate::protocol::replication::{Configuration, Member, Role};
#[cfg(feature = "sim")]
use crate::protocol::scrub::Rule;
use crate::protocol::scrub::RulesOff;
use crate::protocol::scrub::compare::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PG: PgId = PgId(1);
const CHUNKS: u64 = 3;
const BLOCKS: usize = 2;
const RESTS: Rests = Rests {
    between: Duration::from_millis(300),
    after_change: Duration::from_millis(50),
};

/// A stamp's version and sequence, and the blocks.
type Held = (u32, u64, [u32; BLOCKS]);

#[derive(Debug, Clone, Copy)]
struct Write {
    version: u32,
    sequence: u64,
    chunk: u64,
    block: usize,
    value: u32,
}

/// What a replica has.
#[derive(Debug, Clone, Default)]
struct Copy {
    chunks: BTreeMap<u64, Held>,
    /// What a chunk was before its last change.
    before: BTreeMap<u64, Option<Held>>,
    /// Frames that are on their way to it; then on the way to the disk, which may have them already.
    coming: Vec<Write>,
    storing: Vec<(Write, bool)>,
    window: Vec<Write>,
    mark: u64,
}

impl Copy {
    fn take(&mut self, write: &Write) {
        let old = self.chunks.get(&write.chunk).copied();
        self.before.insert(write.chunk, old);
        let (version, sequence, mut blocks) = old.unwrap_or_default();
        blocks[write.block] = write.value;
        let stamp = (version, sequence).max((write.version, write.sequence));
        self.chunks.insert(write.chunk, (stamp.0, stamp.1, blocks));
    }

    fn motion(&self, chunk: u64) -> Motion {
        let mut storing = self.storing.iter().map(|(write, _)| write);
        let is_of = |write: &Write| write.chunk == chunk;
        match storing.any(is_of) || self.window.iter().any(is_of) {
            true => Motion::Moving,
            false => Motion::Quiet,
        }
    }
}

/// A look that is under way; the table was read where `held` is there.
struct Looking {
    op: u64,
    chunk: u64,
    held: Option<Option<Held>>,
}

enum Message {
    Ask(usize, CompareHeader, ChunkId),
    Answer(usize, DiskId, CompareHeader, CompareAnswer),
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    acknowledged: u64,
    losses: u64,
    found: u64,
    outvoted: u64,
    unknown: u64,
    late_reports: u64,
    unsettled: u64,
    overwritten: u64,
}

struct World {
    prng: Prng,
    now: Time,
    off: RulesOff,
    count: usize,
    comparers: Vec<Comparer>,
    copies: Vec<Copy>,
    looking: Vec<Vec<Looking>>,
    messages: Vec<Message>,
    reports: Vec<(DiskId, u32, Wrong)>,
    /// What the manager has recorded.
    configuration: Configuration,
    /// Writes that the coordinator waits for, each with who has it.
    waits: BTreeMap<u64, (Write, BTreeSet<usize>)>,
    sequence: u64,
    lives: u64,
    /// The loss that is not mended yet.
    loss: Option<(usize, u64)>,
    /// Who has lost a write since it was filled: what it lost may have been written anew since.
    struck: BTreeSet<usize>,
    is_over: bool,
    /// Losses, fills and changes of the configuration, with the content of that time.
    story: Vec<String>,
    seen: Seen,
}

fn chunk(number: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(number),
    }
}

fn content((version, sequence, blocks): &Held) -> Content {
    let mut of = Content {
        stamp: Stamp {
            version: *version,
            sequence: *sequence,
            ..Stamp::default()
        },
        data: 0,
        zeroes: 0,
        crcs: [0; 16],
    };
    for (at, value) in blocks.iter().enumerate().filter(|(_, value)| **value != 0) {
        of.data |= 1 << at;
        of.crcs[at] = *value;
    }
    of
}

impl World {
    fn new(seed: u64, off: RulesOff) -> World {
        let mut prng = Prng::new(seed);
        let count = 2 + prng.below(2) as usize;
        let configuration = Configuration::new((0..count as u32).map(DiskId));
        let mut world = World {
            now: Time(0),
            off,
            count,
            comparers: Vec::new(),
            copies: vec![Copy::default(); count],
            looking: (0..count).map(|_| Vec::new()).collect(),
            messages: Vec::new(),
            reports: Vec::new(),
            configuration,
            waits: BTreeMap::new(),
            sequence: 0,
            lives: 1,
            loss: None,
            struck: BTreeSet::new(),
            is_over: false,
            story: Vec::new(),
            seen: Seen::default(),
            prng,
        };
        for disk in 0..count {
            let comparer = Comparer::new(DiskId(disk as u32), 1, RESTS, off);
            world.comparers.push(comparer);
            world.configure(disk);
        }
        world
    }

    fn configure(&mut self, disk: usize) {
        let of = self.configuration.clone();
        self.input(disk, Input::Configured { pg: PG, of });
    }

    fn is_in_sync(&self, disk: usize) -> bool {
        self.configuration.role(DiskId(disk as u32)) == Some(Role::InSync)
    }

    fn input(&mut self, disk: usize, input: Input) {
        let mut out = Vec::new();
        self.comparers[disk].step(self.now, input, &mut out);
        self.take(disk, out);
    }

    fn take(&mut self, disk: usize, out: Vec<Output>) {
        self.comparers[disk].check();
        for output in out {
            match output {
                Output::List { op, after, .. } => {
                    let behind = |at: &u64| after.is_none_or(|after| *at > after.chunk.0);
                    let all = self.copies[disk].chunks.keys().copied().filter(behind);
                    let chunks: Vec<ChunkId> = all.take(2).map(chunk).collect();
                    let more = chunks.len() == 2;
                    let found = (!self.prng.one_in(20)).then_some((chunks, more));
                    self.input(disk, Input::Listed { op, found });
                }
                Output::Look { op, at, .. } => {
                    let (chunk, held) = (at.chunk.0, None);
                    self.looking[disk].push(Looking { op, chunk, held });
                }
                Output::Ask { to, header, at } => {
                    self.messages.push(Message::Ask(to.0 as usize, header, at));
                }
                Output::Answer { header, answer } => {
                    let to = header.asker.0 as usize;
                    let from = DiskId(disk as u32);
                    self.messages
                        .push(Message::Answer(to, from, header, answer));
                }
                Output::Report {
                    disk, version, why, ..
                } => self.reports.push((disk, version, why)),
                Output::Forget { .. } => panic!("no table is damaged here"),
            }
        }
    }

    /// A look goes on: the table is read, and some time later it is told whether the chunk is quiet.
    fn look_on(&mut self, disk: usize, at: usize) {
        let copy = &self.copies[disk];
        let looking = &mut self.looking[disk][at];
        let Some(held) = looking.held else {
            looking.held = Some(copy.chunks.get(&looking.chunk).copied());
            return;
        };
        let Looking { op, chunk, .. } = self.looking[disk].remove(at);
        let found = Found {
            content: held.as_ref().map(content),
            below: Below::Nothing,
            motion: self.copies[disk].motion(chunk),
            version: 0,
            forgotten: 0,
        };
        let found = (!self.prng.one_in(30)).then_some(found);
        self.input(disk, Input::Looked { op, found });
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Ask(to, header, at) => self.input(to, Input::Asked { header, at }),
            Message::Answer(to, from, header, answer) => {
                let input = Input::Answered {
                    from,
                    header,
                    answer,
                };
                self.input(to, input);
            }
        }
    }

    fn write(&mut self) {
        let (chunk, block) = (self.prng.below(CHUNKS), self.prng.below(BLOCKS as u64));
        let block = block as usize;
        let mut waits = self.waits.values();
        if waits.any(|(write, _)| (write.chunk, write.block) == (chunk, block)) {
            return; // no overlap in flight
        }
        self.sequence += 1;
        let write = Write {
            version: self.configuration.version(),
            sequence: self.sequence,
            chunk,
            block,
            value: self.sequence as u32,
        };
        self.waits.insert(self.sequence, (write, BTreeSet::new()));
        for disk in (0..self.count)
            .filter(|disk| self.is_in_sync(*disk))
            .collect::<Vec<_>>()
        {
            self.copies[disk].coming.push(write);
        }
    }

    /// A frame goes one step further at a replica: to the disk, onto it, into the window.
    fn advance(&mut self, disk: usize) {
        let pick = self.prng.next_u64() as usize;
        let copy = &mut self.copies[disk];
        if !copy.storing.is_empty() && !pick.is_multiple_of(3) {
            let at = pick / 3 % copy.storing.len();
            let (write, is_there) = copy.storing[at];
            if !is_there {
                copy.take(&write);
                copy.storing[at].1 = true;
                return;
            }
            copy.storing.remove(at);
            if write.sequence > copy.mark {
                copy.window.push(write);
            }
            if let Some((of, has)) = self.waits.get_mut(&write.sequence)
                && of.version == write.version
            {
                has.insert(disk);
            }
        } else if !copy.coming.is_empty() {
            let at = pick / 3 % copy.coming.len();
            let write = copy.coming.remove(at);
            copy.storing.push((write, false));
        }
        self.acknowledge();
    }

    fn acknowledge(&mut self) {
        let members: BTreeSet<usize> = (0..self.count).filter(|at| self.is_in_sync(*at)).collect();
        let before = self.waits.len();
        self.waits.retain(|_, (_, has)| !has.is_superset(&members));
        self.seen.acknowledged += (before - self.waits.len()) as u64;
    }

    /// A mark reaches a replica.
    fn mark(&mut self, disk: usize) {
        let first = self.waits.keys().next().copied();
        let mark = first.map_or(self.sequence, |first| first - 1);
        let copy = &mut self.copies[disk];
        copy.mark = copy.mark.max(mark);
        copy.window.retain(|write| write.sequence > mark);
    }

    /// The manager changes the configuration; what is in flight starts over under it (R3).
    fn reconfigure(&mut self, disk: usize, role: Role) {
        let version = self.configuration.version() + 1;
        self.story.push(format!("v{version}: {disk} {role:?}"));
        let mut members: Vec<Member> = self.configuration.members().to_vec();
        members[disk].role = role;
        self.configuration = Configuration::recorded(version, members).unwrap();
        let waits: Vec<u64> = self.waits.keys().copied().collect();
        for sequence in waits {
            let Some((write, has)) = self.waits.get_mut(&sequence) else {
                continue;
            };
            write.version = version;
            has.clear();
            let write = *write;
            for at in (0..self.count)
                .filter(|at| self.is_in_sync(*at))
                .collect::<Vec<_>>()
            {
                let copy = &mut self.copies[at];
                // What is on its way already is the same change, under a version that does not count any more.
                copy.coming.retain(|of| of.sequence != sequence);
                let mut storing = copy.storing.iter_mut();
                match storing.find(|(of, _)| of.sequence == sequence) {
                    Some(storing) => *storing = (write, false),
                    None => copy.coming.push(write),
                }
            }
        }
    }

    /// A replica that is out has been filled: with all that one that is in sync has, and what comes to that one comes to it.
    fn fill(&mut self, disk: usize) {
        // Not from who has lost a write, if it can be: two copies of that would outvote the third.
        let lost = self.loss.map(|(lost, _)| lost);
        let in_sync = (0..self.count).filter(|at| self.is_in_sync(*at));
        let source = in_sync.max_by_key(|at| Some(*at) != lost).unwrap();
        self.story.push(format!("fill {disk} from {source}"));
        self.copies[disk] = self.copies[source].clone();
        if self.loss.is_some_and(|(lost, _)| lost == disk) {
            self.loss = None;
        }
        self.struck.remove(&disk);
        self.reconfigure(disk, Role::InSync);
    }

    fn on_report(&mut self, (disk, version, why): (DiskId, u32, Wrong)) -> Result<(), String> {
        let of = disk.0 as usize;
        if version != self.configuration.version() {
            self.seen.late_reports += 1;
            return Ok(());
        }
        if !self.is_in_sync(of) || self.configuration.in_sync().count() < 2 {
            return Ok(());
        }
        if !self.struck.contains(&of) {
            let held: Vec<_> = self.copies.iter().map(|copy| &copy.chunks).collect();
            return Err(format!(
                "nobody-innocent: disk {disk}, {why:?}; lost {:?}, struck {:?}, {held:?}, {:?}, {:?}",
                self.loss, self.struck, self.configuration, self.story
            ));
        }
        match why {
            Wrong::LostWrite => self.seen.found += 1,
            _ => self.seen.outvoted += 1,
        }
        self.reconfigure(of, Role::Out { since: 0 });
        Ok(())
    }

    /// A disk forgets the last change of a chunk, which is settled everywhere.
    fn lose(&mut self, disk: usize, at: u64) {
        let of = self.copies[disk].chunks.get(&at).copied();
        let is_settled = (0..self.count).all(|other| {
            let copy = &self.copies[other];
            let coming = copy.coming.iter().any(|write| write.chunk == at);
            self.is_in_sync(other)
                && copy.chunks.get(&at).copied() == of
                && copy.motion(at) == Motion::Quiet
                && !coming
        });
        if of.is_none() || !is_settled || self.loss.is_some() {
            return;
        }
        let copy = &mut self.copies[disk];
        let Some(before) = copy.before.remove(&at) else {
            return;
        };
        match before {
            Some(before) => copy.chunks.insert(at, before),
            None => copy.chunks.remove(&at),
        };
        self.story
            .push(format!("lost {disk} chunk {at}: {of:?} is {before:?}"));
        self.loss = Some((disk, at));
        self.struck.insert(disk);
        self.seen.losses += 1;
    }

    /// What was lost was written anew.
    fn look_at_loss(&mut self) {
        let Some((disk, at)) = self.loss else {
            return;
        };
        let blocks = |of: usize| self.copies[of].chunks.get(&at).map(|held| held.2);
        let others = (0..self.count).filter(|other| *other != disk);
        let is_settled = (0..self.count).all(|of| {
            let copy = &self.copies[of];
            copy.motion(at) == Motion::Quiet && copy.coming.iter().all(|write| write.chunk != at)
        });
        if is_settled
            && others
                .into_iter()
                .all(|other| blocks(other) == blocks(disk))
        {
            self.story.push(format!("overwritten {disk} chunk {at}"));
            self.loss = None;
            self.seen.overwritten += 1;
        }
    }

    fn turn(&mut self) -> Result<(), String> {
        let disk = self.prng.below(self.count as u64) as usize;
        match self.prng.below(24) {
            0 if !self.is_over => self.write(),
            0..8 => self.advance(disk),
            8..10 => self.mark(disk),
            10..14 if !self.looking[disk].is_empty() => {
                let at = self.prng.below(self.looking[disk].len() as u64) as usize;
                self.look_on(disk, at);
            }
            14..18 if !self.messages.is_empty() => {
                let at = self.prng.below(self.messages.len() as u64) as usize;
                let message = self.messages.remove(at);
                if self.prng.one_in(10)
                    && let Message::Ask(to, header, at) = message
                {
                    self.messages.push(Message::Ask(to, header, at)); // twice
                    self.deliver(Message::Ask(to, header, at));
                } else if !self.prng.one_in(10) {
                    self.deliver(message);
                }
            }
            18 if !self.reports.is_empty() => {
                let at = self.prng.below(self.reports.len() as u64) as usize;
                let report = self.reports.remove(at);
                self.on_report(report)?;
            }
            19 => self.configure(disk),
            20 if !self.is_in_sync(disk) => self.fill(disk),
            21 if !self.is_over && self.prng.one_in(4) => {
                let at = self.prng.below(CHUNKS);
                self.lose(disk, at);
            }
            22 if !self.is_over && self.prng.one_in(60) => match self.prng.below(2) {
                0 => {
                    self.seen.unsettled += self.comparers[disk].counts().skipped;
                    self.lives += 1;
                    self.comparers[disk] =
                        Comparer::new(DiskId(disk as u32), self.lives, RESTS, self.off);
                    self.looking[disk].clear();
                    self.configure(disk);
                }
                // Taken out for another reason. Not while a loss is there: that would be two failures at once.
                _ if self.loss.is_none()
                    && self.is_in_sync(disk)
                    && self.configuration.in_sync().count() > 1 =>
                {
                    let since = self.configuration.version();
                    self.reconfigure(disk, Role::Out { since });
                }
                _ => {}
            },
            _ => self.pass(Duration::from_millis(5)),
        }
        self.look_at_loss();
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for disk in 0..self.count {
            let mut out = Vec::new();
            let due = self.comparers[disk].deadline();
            if due.is_some_and(|at| at <= self.now) {
                self.comparers[disk].expire(self.now, &mut out);
            }
            self.take(disk, out);
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..6_000 {
            self.turn()?;
        }
        // Everything arrives, and there is time for walks. What nobody knows of may stay.
        self.is_over = true;
        for _ in 0..12_000 {
            self.turn()?;
        }
        let mut unknown = BTreeSet::new();
        for comparer in &self.comparers {
            unknown.extend(comparer.unknown().map(|(_, at)| at.chunk.0));
            self.seen.unsettled += comparer.counts().skipped;
        }
        self.seen.unknown += unknown.len() as u64;
        for at in (0..CHUNKS).filter(|at| !unknown.contains(at)) {
            let blocks = |disk: &usize| self.copies[*disk].chunks.get(&at).map(|held| held.2);
            let in_sync = (0..self.count).filter(|disk| self.is_in_sync(*disk));
            let all: BTreeSet<Option<[u32; BLOCKS]>> = in_sync.map(|disk| blocks(&disk)).collect();
            if all.len() != 1 {
                return Err(format!("in-the-end: chunk {at} differs: {all:?}"));
            }
        }
        Ok(())
    }
}

#[test]
fn only_who_lost_a_write_is_named_and_in_the_end_every_loss_is_mended_or_told() {
    let mut all = Seen::default();
    for seed in 0..400 {
        let mut world = World::new(seed, RulesOff::NONE);
        if let Err(why) = world.run() {
            panic!("seed {seed}: {why}");
        }
        let of = world.seen;
        all.acknowledged += of.acknowledged;
        all.losses += of.losses;
        all.found += of.found;
        all.outvoted += of.outvoted;
        all.unknown += of.unknown;
        all.late_reports += of.late_reports;
        all.unsettled += of.unsettled;
        all.overwritten += of.overwritten;
    }
    let sometimes = [
        all.acknowledged,
        all.losses,
        all.found,
        all.outvoted,
        all.unknown,
        all.late_reports,
        all.unsettled,
        all.overwritten,
    ];
    println!("{all:?}");
    assert!(sometimes.iter().all(|count| *count > 0), "{all:?}");
}

#[cfg(feature = "sim")]
#[test]
fn without_the_rule_of_quiet_the_innocent_are_named() {
    let found = (0..200).find_map(|seed| {
        let mut world = World::new(seed, RulesOff::only(Rule::Quiet));
        world.run().err()
    });
    let why = found.expect("it is missed");
    assert!(why.starts_with("nobody-innocent"), "{why}");
}
