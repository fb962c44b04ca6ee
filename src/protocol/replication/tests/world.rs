//! A small world of the shipped machines: one block of one PG, a network that delays and reorders at will, disks that are as slow as they like, a
//! manager that evicts when it likes, owners that never die. What it does next is somebody else's choice.
//!
//! The block holds the number of the write that it was written by; 0: none.

use crate::base::{
    BlockRun, BufId, BufRef, ChunkId, ChunkNo, DiskId, Epoch, FamilyId, LayerId, Payload, PgId,
    Stamp, VolumeId,
};
use crate::protocol::replication::fill::{Content, FillAnswer, FillAsk, FillHeader};
use crate::protocol::replication::group::{self, Group, Tag};
use crate::protocol::replication::replica::{self, Asker, Durable, Op, Replica};
use crate::protocol::replication::{Answer, Change, Configuration, Header, Message, Reconfigure};
use crate::protocol::replication::{Role, Room, Rule, RulesOff, Takes};
use std::hash::{DefaultHasher, Hash, Hasher};

const RANGE: VolumeId = VolumeId(1);
const PG: PgId = PgId(1);
const AT: ChunkId = ChunkId {
    family: FamilyId(1),
    layer: LayerId(1),
    chunk: ChunkNo(0),
};

/// How much of each kind may happen.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub replicas: u32,
    pub epochs: u32,
    /// Of all owners together.
    pub writes: u64,
    pub versions: u32,
    /// Of each owner, while it has the range.
    pub reads: u8,
    /// Whether whoever has the range reads in every state as well, of every replica, with nothing in between.
    pub looks: bool,
    /// Frames that arrive twice.
    pub duplicates: u8,
    pub crashes: u8,
    /// How often a replica that joins loses power, and nothing that was sent to it is lost.
    pub restarts: u8,
    /// How often a disk becomes low, or ample again.
    pub turns: u8,
    /// What a disk is asked happens later; else at once.
    pub slow_disks: bool,
    /// Whether replicas that are out come back.
    pub joins: bool,
    /// Owners that have no lease any more go on reading, and have it confirmed (R18).
    pub confirms: bool,
    /// What has happened already, each with everything that follows from it.
    pub begins: &'static [Event],
}

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The frame at this place arrives; it stays, and arrives again.
    Frame {
        at: usize,
        twice: bool,
    },
    Answer {
        at: usize,
    },
    /// The disk has carried this out.
    Disk {
        at: usize,
    },
    Evict {
        disk: u32,
    },
    Join {
        disk: u32,
    },
    /// The session that this replica says is filled.
    Promote {
        at: usize,
    },
    /// A replica hears of the newest configuration.
    Tell {
        disk: usize,
    },
    /// A joiner asks, or is answered.
    FillAsk {
        at: usize,
    },
    FillAnswer {
        at: usize,
    },
    /// An owner hears of the newest configuration.
    Learn {
        owner: usize,
    },
    /// The range has another owner; the lease of the one before has run out.
    Attach,
    Write {
        owner: usize,
    },
    /// An owner is asked to read, of this replica if it may.
    Read {
        owner: usize,
        near: u32,
    },
    /// A disk becomes low, or ample again.
    Turn {
        disk: usize,
    },
    /// A replica loses power: what is on its way to its disk is lost.
    Crash {
        disk: usize,
    },
    /// One that joins does.
    Restart {
        disk: usize,
    },
    /// An owner sends again what it has no answer to.
    Connect {
        owner: usize,
        disk: usize,
    },
}

impl Event {
    /// What a walk gives a weight to.
    pub fn kind(&self) -> usize {
        match self {
            Event::Frame { .. } => 0,
            Event::Answer { .. } => 1,
            Event::Disk { .. } => 2,
            Event::Evict { .. } | Event::Attach => 3,
            Event::Crash { .. } | Event::Restart { .. } => 3,
            Event::Turn { .. } => 5,
            Event::Write { .. } | Event::Read { .. } => 4,
            Event::Learn { .. } | Event::Connect { .. } => 5,
            Event::Join { .. } | Event::Promote { .. } | Event::Tell { .. } => 6,
            Event::FillAsk { .. } | Event::FillAnswer { .. } => 7,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Frame {
    owner: usize,
    disk: usize,
    sequence_of_kind: u64,
    header: HeaderKey,
    message: Message2,
    payload: Option<u32>,
}

/// Headers and messages in an order, so that the network is a set whatever came first.
type HeaderKey = (Epoch, u32, u32, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message2 {
    Change { sequence: u64, zero: bool },
    Read { id: u64 },
    Mark,
    Seal,
    Confirm { id: u64 },
    Fits { id: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reply {
    owner: usize,
    disk: usize,
    header: Header,
    answer: Answer,
    payload: Option<Payload>,
}

/// A question of a joiner, and an answer of its source.
type Question = (usize, Asker, FillHeader, FillAsk);
type FillReply = (usize, FillHeader, FillAnswer, Option<Payload>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    Fence,
    Change {
        value: u32,
        stamp: Stamp,
    },
    Read,
    Look,
    List {
        since: u32,
    },
    Fetch,
    Fill {
        value: u32,
        stamp: Stamp,
        is_all: bool,
    },
}

/// A write or a read of a user, with when it began and ended in the order of all such moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Asked {
    owner: usize,
    is_read: bool,
    /// Written or read.
    value: u32,
    began: u32,
    ended: Option<u32>,
}

/// All of it, as one value.
#[derive(Debug, Clone)]
pub struct World {
    replicas: Vec<Replica>,
    /// What each disk holds, and how its chunk is stamped.
    blocks: Vec<(u32, Stamp)>,
    owners: Vec<Group>,
    manager: Configuration,
    frames: Vec<Frame>,
    answers: Vec<Reply>,
    fill_asks: Vec<Question>,
    fill_answers: Vec<FillReply>,
    /// What the manager was told: these sessions are filled.
    filled: Vec<(u32, u32)>,
    /// What each replica was told of last.
    told: Vec<u32>,
    disks: Vec<(usize, Op, Work)>,
    history: Vec<Asked>,
    moment: u32,
    duplicates: u8,
    crashes: u8,
    restarts: u8,
    connects: u8,
    /// How each disk is, and how often one changes yet.
    rooms: Vec<Room>,
    turns: u8,
    /// Whether a write was refused because a disk is low.
    refused: bool,
    slow_disks: bool,
    looks: bool,
    confirms: bool,
    /// What reads have found that is not confirmed.
    found: Vec<(Tag, u32)>,
    off: RulesOff,
}

impl Asked {
    /// Tags are places, so it stays as a place that nobody looks at.
    fn never_mind(&mut self) {
        (self.began, self.ended, self.value) = (0, Some(0), u32::MAX);
    }
}

/// The same for the same things in any order.
fn set<T: Hash>(things: &[T]) -> u64 {
    let each = things.iter().map(|thing| {
        let mut hasher = DefaultHasher::new();
        thing.hash(&mut hasher);
        hasher.finish()
    });
    each.fold(0, u64::wrapping_add)
}

fn run() -> BlockRun {
    BlockRun::new(0, 1).expect("a block")
}

fn buf(value: u32) -> Payload {
    Payload::kept(BufRef {
        id: BufId(value),
        block: 0,
    })
}

fn epoch(owner: usize) -> Epoch {
    Epoch {
        generation: 0,
        site: 0,
        host: owner as u32 + 1,
    }
}

impl World {
    pub fn new(bounds: &Bounds, off: RulesOff) -> World {
        let disks = 0..bounds.replicas;
        let mut world = World {
            replicas: disks
                .clone()
                .map(|disk| Replica::new((PG, DiskId(disk)), Durable::created(1), off))
                .collect(),
            blocks: disks.clone().map(|_| (0, Stamp::default())).collect(),
            told: disks.clone().map(|_| 1).collect(),
            fill_asks: Vec::new(),
            fill_answers: Vec::new(),
            filled: Vec::new(),
            owners: Vec::new(),
            manager: Configuration::new(disks.map(DiskId)),
            frames: Vec::new(),
            answers: Vec::new(),
            disks: Vec::new(),
            history: Vec::new(),
            moment: 0,
            duplicates: bounds.duplicates,
            crashes: bounds.crashes,
            restarts: bounds.restarts,
            connects: bounds.crashes,
            rooms: vec![Room::Ample; bounds.replicas as usize],
            turns: bounds.turns,
            refused: false,
            slow_disks: bounds.slow_disks,
            looks: bounds.looks,
            confirms: bounds.confirms,
            found: Vec::new(),
            off,
        };
        world.attach();
        world.settle();
        for &event in bounds.begins {
            world.happen(event).expect("a beginning is sound");
            world.settle();
        }
        world
    }

    /// Lets everything arrive, until nothing is on its way and everybody knows the newest configuration.
    fn settle(&mut self) {
        loop {
            let now = self.manager.version();
            let behind = |group: &Group| group.version() < now;
            let event = if !self.disks.is_empty() {
                Event::Disk { at: 0 }
            } else if !self.frames.is_empty() {
                Event::Frame {
                    at: 0,
                    twice: false,
                }
            } else if !self.answers.is_empty() {
                Event::Answer { at: 0 }
            } else if !self.fill_asks.is_empty() {
                Event::FillAsk { at: 0 }
            } else if !self.fill_answers.is_empty() {
                Event::FillAnswer { at: 0 }
            } else if let Some(disk) = self.told.iter().position(|told| *told < now) {
                Event::Tell { disk }
            } else if let Some(owner) = self.owners.iter().position(behind) {
                Event::Learn { owner }
            } else {
                return;
            };
            self.happen(event).expect("a beginning is sound");
        }
    }

    /// Everything that can happen now.
    pub fn events(&self, bounds: &Bounds) -> Vec<Event> {
        let mut events = Vec::new();
        for at in 0..self.frames.len() {
            events.push(Event::Frame { at, twice: false });
            if self.duplicates > 0 {
                events.push(Event::Frame { at, twice: true });
            }
        }
        events.extend((0..self.answers.len()).map(|at| Event::Answer { at }));
        events.extend((0..self.disks.len()).map(|at| Event::Disk { at }));
        if self.manager.version() < bounds.versions && self.manager.in_sync().count() > 1 {
            events.extend(
                self.manager
                    .in_sync()
                    .map(|disk| Event::Evict { disk: disk.0 }),
            );
        }
        if bounds.joins {
            self.joining_events(bounds, &mut events);
        }
        for (owner, group) in self.owners.iter().enumerate() {
            if self.is_gone(owner) {
                continue;
            }
            if group.version() < self.manager.version() {
                events.push(Event::Learn { owner });
            }
            let count = |is_read| {
                let of = |asked: &&Asked| asked.owner == owner && asked.is_read == is_read;
                self.history.iter().filter(of).count()
            };
            let in_flight = |asked: &Asked| asked.owner == owner && asked.ended.is_none();
            let writes = self.history.iter().filter(|asked| !asked.is_read).count() as u64;
            let writing = self
                .history
                .iter()
                .any(|asked| !asked.is_read && in_flight(asked));
            if writes < bounds.writes && !writing {
                events.push(Event::Write { owner });
            }
            let is_last = owner + 1 == self.owners.len();
            let reads = is_last || self.confirms;
            if count(true) < usize::from(bounds.reads) && reads {
                let near = 0..self.replicas.len() as u32;
                events.extend(near.map(|near| Event::Read { owner, near }));
            }
            if self.connects > 0 {
                events.extend((0..self.replicas.len()).map(|disk| Event::Connect { owner, disk }));
            }
        }
        if self.owners.len() < bounds.epochs as usize {
            events.push(Event::Attach);
        }
        if self.crashes > 0 {
            events.extend((0..self.replicas.len()).map(|disk| Event::Crash { disk }));
        }
        if self.turns > 0 {
            events.extend((0..self.replicas.len()).map(|disk| Event::Turn { disk }));
        }
        events
    }

    fn joining_events(&self, bounds: &Bounds, events: &mut Vec<Event>) {
        let now = self.manager.version();
        for member in self.manager.members() {
            let disk = member.disk.0;
            if now < bounds.versions && matches!(member.role, Role::Out { .. }) {
                events.push(Event::Join { disk });
            }
            // A joiner that fails is dropped.
            if now < bounds.versions && matches!(member.role, Role::Joining { .. }) {
                events.push(Event::Evict { disk });
            }
            if self.told[disk as usize] < now {
                let disk = disk as usize;
                events.push(Event::Tell { disk });
            }
            if self.restarts > 0 && self.replicas[disk as usize].is_rebuilding() {
                let disk = disk as usize;
                events.push(Event::Restart { disk });
            }
        }
        if now < bounds.versions {
            events.extend((0..self.filled.len()).map(|at| Event::Promote { at }));
        }
        events.extend((0..self.fill_asks.len()).map(|at| Event::FillAsk { at }));
        events.extend((0..self.fill_answers.len()).map(|at| Event::FillAnswer { at }));
    }

    /// What tells this world from others in which something else can follow. What is on its way is a set, whatever was sent first, and of the moments
    /// of what was asked only their order counts.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.replicas, &self.blocks, &self.told).hash(&mut hasher);
        self.manager.hash(&mut hasher);
        for (owner, group) in self.owners.iter().enumerate() {
            Some(group)
                .filter(|_| !self.is_gone(owner))
                .hash(&mut hasher);
        }
        (&self.frames, &self.fill_asks, &self.found).hash(&mut hasher);
        (set(&self.answers), set(&self.fill_answers)).hash(&mut hasher);
        (set(&self.filled), set(&self.disks)).hash(&mut hasher);
        (self.duplicates, self.crashes, self.restarts, self.connects).hash(&mut hasher);
        (&self.rooms, self.turns).hash(&mut hasher);
        let moments = |asked: &Asked| [Some(asked.began), asked.ended];
        let mut order: Vec<u32> = self.history.iter().flat_map(moments).flatten().collect();
        order.sort_unstable();
        order.dedup();
        for asked in &self.history {
            let place = |moment: u32| order.binary_search(&moment);
            let moments = (place(asked.began), asked.ended.map(place));
            (asked.owner, asked.is_read, asked.value, moments).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Lets one thing happen; what is wrong with what a user saw, if anything is.
    pub fn step(&mut self, event: Event) -> Result<(), String> {
        let result = self.happen(event);
        self.forget_what_is_stale();
        if self.looks && result.is_ok() {
            return self.look();
        }
        result
    }

    /// Whoever has the range reads, of each replica, and has the answer at once. What it reads for the first time is kept: later readers are held to it.
    /// So there is a read in every state, and none on its way in any.
    fn look(&mut self) -> Result<(), String> {
        let owner = self.owners.len() - 1;
        if !self.owners[owner].is_serving() {
            return Ok(());
        }
        for near in 0..self.replicas.len() as u32 {
            let mut then = self.clone();
            then.happen(Event::Read { owner, near })?;
            let id = then.owners[owner].last_read();
            let is_sent =
                |frame: &Frame| frame.owner == owner && frame.message == Message2::Read { id };
            let Some(at) = then.frames.iter().position(is_sent) else {
                continue;
            };
            then.happen(Event::Frame { at, twice: false })?;
            // The one that was asked last is this one's.
            if let Some(at) = then
                .disks
                .iter()
                .rposition(|(.., work)| *work == Work::Read)
            {
                then.happen(Event::Disk { at })?;
            }
            let is_told = |reply: &Reply| {
                reply.owner == owner
                    && matches!(reply.answer, Answer::Value { id: of, .. } if of == id)
            };
            let Some(at) = then.answers.iter().position(is_told) else {
                continue;
            };
            then.happen(Event::Answer { at })?;
            let Some(read) = then.history.pop().filter(|read| read.ended.is_some()) else {
                continue; // it is held (R9)
            };
            let is_known = |asked: &Asked| {
                asked.is_read && (asked.owner, asked.value) == (read.owner, read.value)
            };
            if !self.history.iter().any(is_known) {
                self.moment = then.moment;
                self.history.push(read);
            }
        }
        Ok(())
    }

    /// Drops what would change nothing any more: frames that the fences refuse, and answers to what was asked again
    /// since. All that their arrival does is to end an owner that is fenced, and one that never does anything again is among those
    /// that are searched. With many fewer states, the same worlds are searched.
    fn forget_what_is_stale(&mut self) {
        if !self.off.on(Rule::R1) {
            let replicas = &self.replicas;
            self.frames.retain(|frame| {
                let (epoch, version, ..) = frame.header;
                let replica = &replicas[frame.disk];
                epoch >= replica.epoch(RANGE) && version >= replica.version()
            });
        }
        if !self.off.on(Rule::R3Answers) && !self.off.on(Rule::R5) {
            let owners = &self.owners;
            self.answers.retain(|reply| {
                let owner = &owners[reply.owner];
                let is_present = reply.header.version == owner.version();
                is_present
                    && match &reply.answer {
                        Answer::Refused { .. } => false,
                        Answer::Sealed { .. } => !owner.is_serving(),
                        Answer::Done { sequence, .. } => *sequence > owner.mark(),
                        Answer::Value { .. } | Answer::Confirmed { .. } => true,
                        Answer::Fits { .. } => true,
                    }
            });
        }
        self.forget_reads();
        self.forget_fills();
    }

    /// What a joiner asked that has ended, or what is answered under an older version, is looked at by nobody.
    fn forget_fills(&mut self) {
        if self.off.on(Rule::R15Versions) {
            return;
        }
        let replicas = &self.replicas;
        self.fill_asks.retain(|(to, from, header, _)| {
            let (source, joiner) = (&replicas[*to], &replicas[from.0 as usize]);
            // It raises the source's version, whoever asks.
            let raises = header.version > source.version();
            raises || (header.version == source.version() && joiner.waits_for(header))
        });
        self.fill_answers.retain(|(to, header, answer, _)| {
            let says_no = matches!(answer, FillAnswer::Version(_) | FillAnswer::NotNow);
            !says_no && replicas[*to].waits_for(header)
        });
    }

    /// Whether nothing that an owner does, or could, changes anything: every replica is fenced by a later one, and nothing is on its way to it.
    fn is_gone(&self, owner: usize) -> bool {
        let is_fenced = |replica: &Replica| replica.epoch(RANGE) > epoch(owner);
        let holds = !self.off.on(Rule::R1) && !self.off.on(Rule::R6);
        holds
            && self.replicas.iter().all(is_fenced)
            && self.answers.iter().all(|reply| reply.owner != owner)
    }

    /// Once the range has another owner, nobody looks at what the one before reads (R17). And which replica reads go to is said with each of them.
    fn forget_reads(&mut self) {
        if self.confirms {
            return;
        }
        let last = self.owners.len() - 1;
        let is_looked_at =
            |reply: &Reply| reply.owner == last || !matches!(reply.answer, Answer::Value { .. });
        self.answers.retain(is_looked_at);
        for asked in &mut self.history {
            if asked.is_read && asked.owner != last && asked.ended.is_none() {
                asked.never_mind();
            }
        }
        for (owner, group) in self.owners.iter_mut().enumerate() {
            let is_reading = |asked: &Asked| asked.is_read && asked.ended.is_none();
            let mut of_owner = self.history.iter().filter(|asked| asked.owner == owner);
            if !of_owner.any(is_reading) {
                group.read_from(None);
            }
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Frame { at, twice } => {
                let frame = match twice {
                    true => {
                        self.duplicates -= 1;
                        self.frames[at].clone()
                    }
                    false => self.frames.remove(at),
                };
                self.deliver(&frame);
                Ok(())
            }
            Event::Answer { at } => {
                let Reply {
                    owner,
                    disk,
                    header,
                    answer,
                    payload,
                } = self.answers.remove(at);
                let from = DiskId(disk as u32);
                let input = group::Input::Answer {
                    from,
                    header,
                    answer,
                    payload,
                };
                self.step_owner(owner, input)
            }
            Event::Disk { at } => {
                self.carry_out(at);
                Ok(())
            }
            Event::Evict { disk } => {
                let change = Reconfigure::Evict { disk: DiskId(disk) };
                let version = self.manager.version();
                self.manager
                    .apply(version, change, 1)
                    .map_err(|refused| refused.to_string())
            }
            Event::Join { disk } => {
                let change = Reconfigure::Join { disk: DiskId(disk) };
                let version = self.manager.version();
                self.manager
                    .apply(version, change, 1)
                    .map_err(|refused| refused.to_string())
            }
            Event::Promote { at } => {
                let (disk, session) = self.filled.remove(at);
                let disk = DiskId(disk);
                let version = self.manager.version();
                // Refused where that session is over.
                let _ = self
                    .manager
                    .apply(version, Reconfigure::Promote { disk, session }, 1);
                Ok(())
            }
            Event::Tell { disk } => {
                self.told[disk] = self.manager.version();
                let input = replica::Input::Configured(self.manager.clone());
                self.step_replica(disk, input);
                Ok(())
            }
            Event::FillAsk { at } => {
                let (disk, from, header, ask) = self.fill_asks.remove(at);
                self.step_replica(disk, replica::Input::FillAsk { from, header, ask });
                Ok(())
            }
            Event::FillAnswer { at } => {
                let (disk, header, answer, payload) = self.fill_answers.remove(at);
                let input = replica::Input::FillAnswer {
                    header,
                    answer,
                    payload,
                };
                self.step_replica(disk, input);
                Ok(())
            }
            Event::Learn { owner } => {
                let configuration = self.manager.clone();
                self.step_owner(owner, group::Input::Configured(configuration))
            }
            Event::Attach => {
                self.attach();
                Ok(())
            }
            Event::Write { owner } => self.write(owner),
            Event::Read { owner, near } => {
                self.owners[owner].read_from(Some(DiskId(near)));
                self.read(owner)
            }
            Event::Turn { disk } => {
                self.turns -= 1;
                self.rooms[disk] = match self.rooms[disk] {
                    Room::Ample => Room::Low,
                    Room::Low => Room::Ample,
                };
                self.step_replica(disk, replica::Input::Room(self.rooms[disk]));
                Ok(())
            }
            Event::Crash { disk } => {
                self.crashes -= 1;
                self.crash(disk);
                Ok(())
            }
            Event::Restart { disk } => {
                self.restarts -= 1;
                self.crash(disk);
                Ok(())
            }
            Event::Connect { owner, disk } => {
                self.connects -= 1;
                let to = DiskId(disk as u32);
                self.step_owner(owner, group::Input::Connected { to })
            }
        }
    }

    fn crash(&mut self, disk: usize) {
        self.disks.retain(|(of, ..)| *of != disk);
        let durable = self.replicas[disk].durable();
        self.replicas[disk] = Replica::new((PG, DiskId(disk as u32)), durable, self.off);
        self.told[disk] = 0;
        self.step_replica(disk, replica::Input::Room(self.rooms[disk]));
    }

    fn now(&mut self) -> u32 {
        self.moment += 1;
        self.moment
    }

    fn attach(&mut self) {
        let mut out = Vec::new();
        let epoch = epoch(self.owners.len());
        let configuration = self.manager.clone();
        let group = Group::new((RANGE, PG), epoch, configuration, None, self.off, &mut out);
        self.owners.push(group);
        let owner = self.owners.len() - 1;
        self.take(owner, out)
            .expect("nothing was asked of it so far");
    }

    fn ask(&mut self, owner: usize, is_read: bool, value: u32) -> Tag {
        let (began, ended) = (self.now(), None);
        self.history.push(Asked {
            owner,
            is_read,
            value,
            began,
            ended,
        });
        Tag(self.history.len() as u64 - 1)
    }

    fn write(&mut self, owner: usize) -> Result<(), String> {
        let value = 1 + self.history.iter().filter(|asked| !asked.is_read).count() as u32;
        let tag = self.ask(owner, false, value);
        let change = Change::Write {
            run: run(),
            crcs: [0; 16],
        };
        let payload = Some(buf(value));
        let at = AT;
        self.step_owner(
            owner,
            group::Input::Ask {
                tag,
                ask: group::Ask::Change {
                    at,
                    change,
                    payload,
                },
            },
        )
    }

    fn read(&mut self, owner: usize) -> Result<(), String> {
        let tag = self.ask(owner, true, u32::MAX);
        let (at, run) = (AT, run());
        self.step_owner(
            owner,
            group::Input::Ask {
                tag,
                ask: group::Ask::Read { at, run },
            },
        )
    }

    fn step_owner(&mut self, owner: usize, input: group::Input) -> Result<(), String> {
        let mut out = Vec::new();
        self.owners[owner].step(input, &mut out);
        self.owners[owner].check();
        self.take(owner, out)
    }

    /// Carries out what an owner wants.
    fn take(&mut self, owner: usize, out: Vec<group::Output>) -> Result<(), String> {
        for output in out {
            match output {
                group::Output::Send {
                    to,
                    header,
                    message,
                    payload,
                } => self.send(owner, to.0 as usize, &header, &message, payload),
                group::Output::Changed { tag } => {
                    let now = self.now();
                    self.history[tag.0 as usize].ended = Some(now);
                }
                group::Output::Value {
                    tag,
                    zeroes,
                    payload,
                    ..
                } => {
                    let written = payload.map_or(0, |payload| payload.at().id.0);
                    let value = if zeroes & 1 != 0 { 0 } else { written };
                    self.found(owner, tag, value)?;
                }
                group::Output::Confirmed { tag } => {
                    let place = self.found.iter().position(|(of, _)| *of == tag);
                    let (_, value) = self.found.remove(place.expect("it was found"));
                    self.saw(tag, value)?;
                }
                group::Output::Failed {
                    tag,
                    why: group::Failure::NoSpace,
                } => {
                    // It never happens, so nobody may read it.
                    self.history[tag.0 as usize].never_mind();
                    self.refused = true;
                }
                // The manager evicts when it likes, and owners learn when they like.
                group::Output::Accuse { .. }
                | group::Output::Learn { .. }
                | group::Output::Serving
                | group::Output::Fenced { .. }
                | group::Output::Failed { .. } => {}
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        owner: usize,
        disk: usize,
        header: &Header,
        message: &Message,
        payload: Option<Payload>,
    ) {
        let (sequence_of_kind, message) = match *message {
            Message::Change {
                sequence, change, ..
            } => {
                let zero = matches!(change, Change::Zero { .. });
                (sequence, Message2::Change { sequence, zero })
            }
            Message::Read { id, .. } => (id, Message2::Read { id }),
            Message::Mark => (0, Message2::Mark),
            Message::Seal => (0, Message2::Seal),
            Message::Confirm { id } => (id, Message2::Confirm { id }),
            Message::Fits { id, .. } => (id, Message2::Fits { id }),
        };
        let frame = Frame {
            owner,
            disk,
            sequence_of_kind,
            header: (header.epoch, header.version, header.session, header.mark),
            message,
            payload: payload.map(|payload| payload.at().id.0),
        };
        let place = self.frames.partition_point(|other| *other < frame);
        self.frames.insert(place, frame);
    }

    fn deliver(&mut self, frame: &Frame) {
        let (epoch, version, session, mark) = frame.header;
        let header = Header {
            range: RANGE,
            pg: PG,
            epoch,
            version,
            session,
            mark,
        };
        let (at, run) = (AT, run());
        let message = match frame.message {
            Message2::Change { sequence, zero } => {
                let crcs = [0; 16];
                let change = match zero {
                    true => Change::Zero { run },
                    false => Change::Write { run, crcs },
                };
                Message::Change {
                    sequence,
                    at,
                    change,
                }
            }
            Message2::Read { id } => Message::Read { id, at, run },
            Message2::Mark => Message::Mark,
            Message2::Seal => Message::Seal,
            Message2::Confirm { id } => Message::Confirm { id },
            Message2::Fits { id } => Message::Fits { id, at },
        };
        let input = replica::Input::Frame {
            from: Asker(frame.owner as u32),
            header,
            message,
            payload: frame.payload.map(buf),
        };
        self.step_replica(frame.disk, input);
    }

    fn step_replica(&mut self, disk: usize, input: replica::Input) {
        let mut out = Vec::new();
        self.replicas[disk].step(input, &mut out);
        self.replicas[disk].check();
        for output in out {
            match output {
                replica::Output::Fence { op, .. } => self.disks.push((disk, op, Work::Fence)),
                replica::Output::Change {
                    op,
                    change,
                    payload,
                    stamp,
                    ..
                } => {
                    let value = match change {
                        Change::Write { .. } => payload.expect("a write has payload").at().id.0,
                        _ => 0,
                    };
                    self.begin_change(disk, op, Work::Change { value, stamp });
                }
                replica::Output::Fill {
                    op,
                    content,
                    payload,
                    blocks,
                    ..
                } => {
                    let stamp = content.stamp;
                    let is_all = blocks == u16::MAX;
                    let data = payload.filter(|_| content.data & 1 != 0);
                    let value = match blocks & 1 != 0 {
                        true => data.map_or(0, |payload| payload.at().id.0),
                        false => self.blocks[disk].0,
                    };
                    let work = Work::Fill {
                        value,
                        stamp,
                        is_all,
                    };
                    self.begin_change(disk, op, work);
                }
                replica::Output::Read { op, .. } => self.disks.push((disk, op, Work::Read)),
                replica::Output::Look { op, .. } => self.disks.push((disk, op, Work::Look)),
                replica::Output::Fetch { op, .. } => self.disks.push((disk, op, Work::Fetch)),
                replica::Output::List { op, since, after } => {
                    assert_eq!(after, None, "there is one chunk, so one page");
                    self.disks.push((disk, op, Work::List { since }));
                }
                replica::Output::Answer {
                    to,
                    header,
                    answer,
                    payload,
                } => self.answers.push(Reply {
                    owner: to.0 as usize,
                    disk,
                    header,
                    answer,
                    payload,
                }),
                replica::Output::FillAsk { to, header, ask } => {
                    let question = (to.0 as usize, Asker(disk as u32), header, ask);
                    let place = self.fill_asks.partition_point(|other| *other < question);
                    self.fill_asks.insert(place, question);
                }
                replica::Output::FillAnswer {
                    to,
                    header,
                    answer,
                    payload,
                } => self
                    .fill_answers
                    .push((to.0 as usize, header, answer, payload)),
                replica::Output::Filled { session, .. } => {
                    let what = (disk as u32, session);
                    if !self.filled.contains(&what) {
                        self.filled.push(what);
                    }
                }
                // Replicas hear of configurations, and the manager drops them, when they like.
                replica::Output::Learn { .. } | replica::Output::Lost { .. } => {}
            }
        }
        if !self.slow_disks && !self.disks.is_empty() {
            self.carry_out(0);
        }
    }

    fn begin_change(&mut self, disk: usize, op: Op, work: Work) {
        let overlaps = |(of, _, work): &(usize, Op, Work)| {
            *of == disk && matches!(work, Work::Change { .. } | Work::Fill { .. })
        };
        assert!(
            !self.disks.iter().any(overlaps),
            "a store has no overlapping changes in flight"
        );
        self.disks.push((disk, op, work));
    }

    fn carry_out(&mut self, at: usize) {
        let (disk, op, work) = self.disks.remove(at);
        let ok = true;
        let (value, stamp) = self.blocks[disk];
        let input = match work {
            Work::Fence => replica::Input::Stored { op, ok },
            Work::Change { value, stamp } => {
                self.blocks[disk] = (value, stamp);
                replica::Input::Stored { op, ok }
            }
            Work::Fill {
                value,
                stamp: of,
                is_all,
            } => {
                let stamp = if is_all { of } else { of.max(stamp) };
                self.blocks[disk] = (value, stamp);
                replica::Input::Stored { op, ok }
            }
            Work::Read => replica::Input::Loaded {
                op,
                crcs: [0; 16],
                zeroes: u16::from(value == 0),
                payload: buf(value),
            },
            Work::Look => replica::Input::Looked {
                op,
                takes: match value {
                    0 => Takes::Space,
                    _ => Takes::Nothing,
                },
            },
            Work::List { since } => replica::Input::Listed {
                op,
                chunks: (stamp.version > since).then_some(AT).into_iter().collect(),
                more: false,
            },
            Work::Fetch => replica::Input::Fetched {
                op,
                content: Content {
                    stamp,
                    data: u16::from(value != 0),
                    zeroes: 0,
                    crcs: [0; 16],
                },
                payload: (value != 0).then(|| buf(value)),
            },
        };
        self.step_replica(disk, input);
    }

    /// A value is in hand. The lease is checked now (R17): where the range has another owner, it has to be confirmed, or nobody gets it.
    fn found(&mut self, owner: usize, tag: Tag, value: u32) -> Result<(), String> {
        if owner + 1 == self.owners.len() {
            return self.saw(tag, value);
        }
        if !self.confirms {
            self.history[tag.0 as usize].never_mind();
            return Ok(());
        }
        self.found.push((tag, value));
        self.step_owner(owner, group::Input::Confirm { tag })
    }

    /// A read has ended. Whether what it returned can be, given everything that was seen before.
    fn saw(&mut self, tag: Tag, value: u32) -> Result<(), String> {
        let read = self.history[tag.0 as usize];
        let now = self.now();
        let written = |value: u32| {
            let is_it = |asked: &&Asked| !asked.is_read && asked.value == value;
            self.history.iter().find(is_it)
        };
        if value != 0 && written(value).is_none() {
            return Err(format!("read {value}, which was refused"));
        }
        // When a value was there at the latest; the first one always was.
        let there = |value: u32| match value {
            0 => Some(0),
            _ => written(value).and_then(|write| write.ended),
        };
        for other in &self.history {
            let ended_before = other
                .ended
                .is_some_and(|ended| ended > 0 && ended < read.began);
            if !ended_before {
                continue;
            }
            if other.value == value || other.value == u32::MAX {
                continue;
            }
            // `other` was acknowledged or read before this read began, so nothing that had gone before it may be seen.
            let since = written(other.value).map_or(0, |write| write.began);
            if other.value != 0 && there(value).is_some_and(|there| there < since) {
                return Err(format!(
                    "read {value} after {} was there: {other:?}",
                    other.value
                ));
            }
            let epoch_of = |value: u32| written(value).map(|write| write.owner);
            let came_back = epoch_of(value).is_some_and(|of| of < other.owner);
            if other.is_read && came_back {
                return Err(format!(
                    "read {value} of an owner that was fenced when {other:?} ended"
                ));
            }
            let gone = other.is_read && other.value != 0 && value == 0;
            if gone {
                return Err(format!("read 0 after {other:?}"));
            }
        }
        let asked = &mut self.history[tag.0 as usize];
        (asked.value, asked.ended) = (value, Some(now));
        Ok(())
    }

    /// An event, with what it is about.
    pub fn tell(&self, event: Event) -> String {
        match event {
            Event::Frame { at, .. } => format!("{event:?} {:?}", self.frames[at]),
            Event::Answer { at } => format!("{event:?} {:?}", self.answers[at]),
            Event::Disk { at } => format!("{event:?} {:?}", self.disks[at]),
            Event::FillAsk { at } => format!("{event:?} {:?}", self.fill_asks[at]),
            Event::FillAnswer { at } => format!("{event:?} {:?}", self.fill_answers[at]),
            Event::Promote { at } => format!("{event:?} {:?}", self.filled[at]),
            Event::Tell { .. } | Event::Learn { .. } => {
                format!("{event:?} {:?}", self.manager)
            }
            _ => format!("{event:?} {:?}", self.blocks),
        }
    }

    /// Whether this world has come to something: for *sometimes* properties.
    pub fn has(&self, what: &str) -> bool {
        match what {
            "a write was acknowledged" => self.is_any(|a| !a.is_read && a.ended.is_some()),
            "a second owner serves" => self.owners.len() > 1 && self.owners[1].is_serving(),
            "a read saw a write" => self
                .is_any(|a| a.is_read && a.ended.is_some() && a.value != 0 && a.value != u32::MAX),
            "an owner without a lease saw something" => self.is_any(|asked| {
                asked.is_read && asked.owner + 1 < self.owners.len() && asked.ended > Some(0)
            }),
            "one replica is left" => self.manager.in_sync().count() == 1,
            "a write was refused for want of space" => self.refused,
            "a replica came back" => {
                self.manager.version() > 3 && self.manager.in_sync().count() == self.replicas.len()
            }
            _ => unreachable!("{what}"),
        }
    }

    fn is_any(&self, is_it: impl Fn(&Asked) -> bool) -> bool {
        self.history.iter().any(is_it)
    }
}
