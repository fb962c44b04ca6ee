//! A world of three disks with a replica each: blocks rot, writes arrive at each disk in its own time, messages are late, twice or lost, menders
//! forget everything, stores are slow. Bytes are numbers here, and a number is its own checksum.
//!
//! *Always*: bytes that are not called damaged are those of the write that the disk took last. *In the end*: nothing is damaged, as long as one copy
//! of each block was spared. *Sometimes*: each thing that the machine can meet, counted.

use crate::base::{
    BlockRun, BufId, BufRef, ChunkId, ChunkNo, DiskId, FamilyId, LayerId, Payload, PgId,
};
use crate::base::{Prng, Time};
use crate::protocol::replication::Configuration;
use crate::protocol::scrub::*;
use std::collections::BTreeMap;
use std::time::Duration;

const PG: PgId = PgId(1);
const DISKS: usize = 3;
const CHUNKS: u64 = 2;
const BLOCKS: u32 = 4;

type Place = (u64, u32);

/// What a disk has in one place: what its table says, what the medium says, whether that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    table: u64,
    bytes: u64,
    rotten: bool,
}

/// A mend on its way to the medium.
struct Mending {
    op: u64,
    what: MendAsk,
    bytes: Payload,
    /// Blocks whose checksum was right when it was asked for.
    right: u16,
}

enum Message {
    Ask(usize, MendHeader, MendAsk),
    Answer(usize, DiskId, MendHeader, MendAnswer, Option<Payload>),
}

#[derive(Debug, Default)]
struct Seen {
    mended: u64,
    overtaken: u64,
    forgot: u64,
    lost: u64,
    wrong: u64,
}

struct World {
    prng: Prng,
    now: Time,
    off: RulesOff,
    menders: Vec<Mender>,
    tables: Vec<BTreeMap<Place, Block>>,
    /// Writes that a disk has not taken yet.
    coming: Vec<Vec<(Place, u64)>>,
    mending: Vec<Vec<Mending>>,
    messages: Vec<Message>,
    buffers: Vec<[u64; 16]>,
    last_value: u64,
    seen: Seen,
}

fn chunk(number: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(number),
    }
}

impl World {
    fn new(seed: u64, off: RulesOff) -> World {
        let mut world = World {
            prng: Prng::new(seed),
            now: Time(0),
            off,
            menders: Vec::new(),
            tables: vec![BTreeMap::new(); DISKS],
            coming: vec![Vec::new(); DISKS],
            mending: (0..DISKS).map(|_| Vec::new()).collect(),
            messages: Vec::new(),
            buffers: Vec::new(),
            last_value: 0,
            seen: Seen::default(),
        };
        world.menders = (0..DISKS).map(|disk| world.mender(disk)).collect();
        world
    }

    fn mender(&self, disk: usize) -> Mender {
        let mut mender = Mender::new(DiskId(disk as u32), self.off);
        let of = Configuration::new((0..DISKS as u32).map(DiskId));
        mender.step(self.now, Input::Configured { pg: PG, of }, &mut Vec::new());
        mender
    }

    fn input(&mut self, disk: usize, input: Input) {
        let mut out = Vec::new();
        self.menders[disk].step(self.now, input, &mut out);
        self.take(disk, out);
    }

    fn take(&mut self, disk: usize, out: Vec<Output>) {
        self.menders[disk].check();
        for output in out {
            match output {
                Output::Ask { to, header, ask } => {
                    self.messages.push(Message::Ask(to.0 as usize, header, ask));
                }
                Output::Answer {
                    header,
                    answer,
                    payload,
                } => {
                    let (to, from) = (header.asker.0 as usize, DiskId(disk as u32));
                    self.messages
                        .push(Message::Answer(to, from, header, answer, payload));
                }
                Output::Look { op, at, .. } => {
                    for block in 0..BLOCKS {
                        self.look(disk, (at.chunk.0, block));
                    }
                    self.input(disk, Input::Looked { op, ok: true });
                }
                Output::Salvage { op, ask, .. } => {
                    let (found, payload) = self.salvage(disk, &ask);
                    let found = Some(found);
                    self.input(disk, Input::Salvaged { op, found, payload });
                }
                Output::Mend {
                    op, what, payload, ..
                } => {
                    let right = self.right(disk, &what);
                    self.mending[disk].push(Mending {
                        op,
                        what,
                        bytes: payload,
                        right,
                    });
                }
            }
        }
    }

    fn salvage(&mut self, disk: usize, ask: &MendAsk) -> (MendAsk, Option<Payload>) {
        let (mut bytes, mut found) = ([0; 16], *ask);
        let mut got = 0;
        for block in BlockRun::runs_of(ask.blocks).flat_map(BlockRun::blocks) {
            let (at, place) = (block as usize, (ask.at.chunk.0, block));
            let Some(of) = self.tables[disk].get(&place) else {
                continue;
            };
            let is_it = of.bytes as u32 == ask.crcs[at];
            if !of.rotten && (is_it || self.off.on(Rule::Checksum)) {
                got |= 1 << block;
                bytes[at] = of.bytes;
                found.crcs[at] = of.bytes as u32;
            }
        }
        self.buffers.push(bytes);
        let payload = Payload::kept(BufRef {
            id: BufId(self.buffers.len() as u32 - 1),
            block: 0,
        });
        (found.of(got), (got != 0).then_some(payload))
    }

    /// The blocks of a mend whose checksum the table has now.
    fn right(&self, disk: usize, what: &MendAsk) -> u16 {
        let is_right = |block: &u32| {
            let of = self.tables[disk].get(&(what.at.chunk.0, *block));
            of.is_some_and(|of| of.table as u32 == what.crcs[*block as usize])
        };
        let blocks = BlockRun::runs_of(what.blocks).flat_map(BlockRun::blocks);
        blocks
            .filter(is_right)
            .fold(0, |mask, block| mask | 1 << block)
    }

    fn mend(&mut self, disk: usize, of: Mending) {
        let now = self.right(disk, &of.what);
        let right = match (self.off.on(Rule::Checksum), self.off.on(Rule::Newer)) {
            (true, _) => of.what.blocks,
            (_, true) => of.right,
            _ => now,
        };
        self.seen.overtaken += u64::from(of.right & !now != 0);
        for block in BlockRun::runs_of(right).flat_map(BlockRun::blocks) {
            let bytes = self.buffers[of.bytes.at().id.0 as usize][block as usize];
            let place = (of.what.at.chunk.0, block);
            let found = self.tables[disk].get_mut(&place).expect("it was written");
            // Without the rules the table would have to say what the bytes say.
            *found = Block {
                table: bytes,
                bytes,
                rotten: false,
            };
            self.seen.mended += 1;
        }
        self.input(
            disk,
            Input::Mended {
                op: of.op,
                ok: true,
            },
        );
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Ask(to, header, ask) => self.input(to, Input::Asked { header, ask }),
            Message::Answer(to, from, header, answer, payload) => self.input(
                to,
                Input::Answered {
                    from,
                    header,
                    answer,
                    payload,
                },
            ),
        }
    }

    /// A read or a scrub finds what is damaged.
    fn look(&mut self, disk: usize, place: Place) {
        let of = self.tables[disk].get(&place).copied();
        if let Some(of) = of.filter(|of| of.rotten) {
            self.input(
                disk,
                Input::Damaged {
                    pg: PG,
                    at: chunk(place.0),
                    block: place.1,
                    crc: of.table as u32,
                },
            );
        }
    }

    fn any_place(&mut self) -> (usize, Place) {
        let disk = self.prng.below(DISKS as u64) as usize;
        let block = self.prng.below(u64::from(BLOCKS)) as u32;
        (disk, (self.prng.below(CHUNKS), block))
    }

    fn take_write(&mut self, disk: usize) {
        if !self.coming[disk].is_empty() {
            let (place, value) = self.coming[disk].remove(0);
            let block = Block {
                table: value,
                bytes: value,
                rotten: false,
            };
            self.tables[disk].insert(place, block);
        }
    }

    /// Anything may happen.
    fn turn(&mut self) {
        let (disk, place) = self.any_place();
        match self.prng.below(16) {
            0 => {
                self.last_value += 1;
                let value = self.last_value;
                self.coming
                    .iter_mut()
                    .for_each(|all| all.push((place, value)));
            }
            1..4 => self.take_write(disk),
            4 => {
                // One copy of each block is spared.
                let is_spared = (place.0 + u64::from(place.1)) % DISKS as u64 == disk as u64;
                if !is_spared && let Some(of) = self.tables[disk].get_mut(&place) {
                    of.rotten = true;
                }
            }
            5..7 => self.look(disk, place),
            7..12 if !self.messages.is_empty() => {
                let at = self.prng.below(self.messages.len() as u64) as usize;
                let message = self.messages.remove(at);
                if self.prng.one_in(8)
                    && let Message::Ask(to, header, ask) = message
                {
                    self.messages.push(Message::Ask(to, header, ask)); // twice
                    self.deliver(Message::Ask(to, header, ask));
                } else if !self.prng.one_in(8) {
                    self.deliver(message);
                }
            }
            12..14 if !self.mending[disk].is_empty() => {
                let mending = self.mending[disk].remove(0);
                self.mend(disk, mending);
            }
            14 if self.prng.one_in(20) => {
                // A restart: the store knows of its mends no more, answers of old questions are still on their way.
                self.seen.forgot += u64::from(self.menders[disk].wanted().next().is_some());
                self.menders[disk] = self.mender(disk);
                self.mending[disk].clear();
            }
            _ => self.pass(Duration::from_millis(300)),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for disk in 0..DISKS {
            let mut out = Vec::new();
            let due = self.menders[disk].deadline();
            if due.is_some_and(|at| at <= self.now) {
                self.menders[disk].expire(self.now, &mut out);
            }
            self.take(disk, out);
            self.seen.lost += self.menders[disk].lost().count() as u64;
        }
    }

    /// What a disk would return: whether it is what it should be.
    fn judge(&self, newest: &[BTreeMap<Place, u64>]) -> Result<(), String> {
        for (disk, newest) in newest.iter().enumerate() {
            for (place, of) in &self.tables[disk] {
                let is_right = of.bytes == of.table && newest.get(place) == Some(&of.table);
                if !of.rotten && !is_right {
                    return Err(format!("never-spread: disk {disk} {place:?} {of:?}"));
                }
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), String> {
        // What each disk took last, as nobody but the judge knows it.
        let mut newest = vec![BTreeMap::new(); DISKS];
        for _ in 0..3_000 {
            let before: Vec<_> = self.coming.iter().map(|all| all.first().copied()).collect();
            let lens: Vec<usize> = self.coming.iter().map(Vec::len).collect();
            self.turn();
            let taken = self.coming.iter().zip(lens).zip(before);
            for (((coming, len), before), newest) in taken.zip(&mut newest) {
                if coming.len() < len
                    && let Some((place, value)) = before
                {
                    newest.insert(place, value);
                }
            }
            self.judge(&newest)?;
        }
        // Everything arrives, and everything is looked at.
        for (disk, newest) in newest.iter_mut().enumerate() {
            while let Some(&(place, value)) = self.coming[disk].first() {
                newest.insert(place, value);
                self.take_write(disk);
            }
        }
        for _ in 0..40 {
            for disk in 0..DISKS {
                for place in self.tables[disk].keys().copied().collect::<Vec<_>>() {
                    self.look(disk, place);
                }
            }
            for _ in 0..20 {
                while let Some(message) = self.messages.pop() {
                    self.deliver(message);
                }
                for disk in 0..DISKS {
                    while let Some(mending) = self.mending[disk].pop() {
                        self.mend(disk, mending);
                    }
                }
            }
            self.pass(Duration::from_secs(30));
            self.judge(&newest)?;
        }
        self.seen.wrong += self.menders.iter().map(|it| it.counts().wrong).sum::<u64>();
        for disk in 0..DISKS {
            let rotten = self.tables[disk].values().filter(|of| of.rotten).count();
            let wanted = self.menders[disk].wanted().count();
            if rotten + wanted > 0 {
                return Err(format!("disk {disk}: {rotten} damaged, {wanted} wanted"));
            }
        }
        Ok(())
    }
}

#[test]
fn whatever_comes_between_no_wrong_byte_is_taken_and_in_the_end_nothing_is_damaged() {
    let mut all = Seen::default();
    for seed in 0..400 {
        let mut world = World::new(seed, RulesOff::NONE);
        if let Err(why) = world.run() {
            panic!("seed {seed}: {why}");
        }
        let Seen {
            mended,
            overtaken,
            forgot,
            lost,
            wrong,
        } = world.seen;
        all.mended += mended;
        all.overtaken += overtaken;
        all.forgot += forgot;
        all.lost += lost;
        all.wrong += wrong;
    }
    let sometimes = [all.mended, all.overtaken, all.forgot, all.lost];
    assert!(sometimes.iter().all(|count| *count > 0), "{all:?}");
}

#[cfg(feature = "sim")]
#[test]
fn each_rule_of_repair_that_is_switched_off_is_missed() {
    for rule in [Rule::Checksum, Rule::Newer] {
        let found = (0..200).find_map(|seed| {
            let mut world = World::new(seed, RulesOff::only(rule));
            world.run().err()
        });
        let why = found.unwrap_or_else(|| panic!("{} is not missed", rule.name()));
        assert!(why.starts_with("never-spread"), "{}: {why}", rule.name());
    }
}
