//! The golden stories in `testscripts/`: owners, replicas and a manager, in which nothing moves unless a step says so.
//!
//! Blocks hold letters. Disks are fast: what a replica asks of its disk has happened when the step ends.

use crate::base::{
    BlockRun, BufId, BufRef, ChunkId, ChunkNo, DiskId, Epoch, FamilyId, LayerId, Payload, PgId,
    Stamp, VolumeId,
};
use crate::protocol::replication::RulesOff;
use crate::protocol::replication::fill::{Content, FillAnswer, FillAsk, FillHeader};
use crate::protocol::replication::group::{self, Group, Tag};
use crate::protocol::replication::replica::{self, Asker, Durable, Replica};
use crate::protocol::replication::{
    Answer, Change, Configuration, Header, Message, Reconfigure, Role, Room, Takes,
};
use crate::protocol::stories;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

#[test]
fn the_stories_come_out_as_they_are_told() {
    stories::play("replication", Site::default, Site::step);
}

enum Frame {
    To(u32, DiskId, Header, Message, Option<Payload>),
    From(DiskId, u32, Header, Answer, Option<Payload>),
    /// From a joiner to its source, and back.
    Ask(DiskId, DiskId, FillHeader, FillAsk),
    Fill(DiskId, DiskId, FillHeader, FillAnswer, Option<Payload>),
}

#[derive(Default)]
struct Site {
    manager: Option<Configuration>,
    replicas: BTreeMap<DiskId, Replica>,
    /// What each disk holds: a letter a block; `.`: zeroes.
    blocks: BTreeMap<(DiskId, u32), u32>,
    stamps: BTreeMap<DiskId, Stamp>,
    owners: BTreeMap<u32, Group>,
    frames: Vec<Frame>,
    /// Frames to and from these wait.
    cut_off: BTreeSet<DiskId>,
    /// Frames to and from these, too.
    stopped: BTreeSet<u32>,
    /// What these read has to be confirmed, and what is not confirmed yet.
    unleased: BTreeSet<u32>,
    unconfirmed: BTreeMap<Tag, char>,
    asked: u64,
    said: String,
}

const AT: ChunkId = ChunkId {
    family: FamilyId(1),
    layer: LayerId(1),
    chunk: ChunkNo(0),
};

fn letter(value: u32) -> char {
    match char::from_u32(value) {
        Some(letter) if value > 0 => letter,
        _ => '.',
    }
}

fn buf(value: u32) -> Payload {
    Payload::kept(BufRef {
        id: BufId(value),
        block: 0,
    })
}

fn block(at: u32) -> BlockRun {
    BlockRun::new(at, 1).expect("a block of the chunk")
}

impl Site {
    fn step(&mut self, step: &str) -> String {
        let words: Vec<&str> = step.split_whitespace().collect();
        let number = |word: &str| word.parse::<u32>().unwrap_or_else(|_| panic!("{step:?}"));
        match words[..] {
            ["pg", "has", "replicas", ref disks @ ..] => self.begin(disks),
            ["owner", owner, "attaches"] => self.attach(number(owner)),
            ["owner", owner, "writes", what, "to", "block", at] => {
                let value = what.chars().next().map_or(0, u32::from);
                self.change(number(owner), value, number(at));
            }
            ["owner", owner, "reads", "block", at] => {
                let (tag, run) = (self.tag(), block(number(at)));
                self.owner(
                    number(owner),
                    group::Input::Ask {
                        tag,
                        ask: group::Ask::Read { at: AT, run },
                    },
                );
            }
            ["owner", owner, "learns"] => {
                let now = self.manager.clone().expect("a PG");
                self.owner(number(owner), group::Input::Configured(now));
            }
            ["owner", owner, "dies"] => {
                let owner = number(owner);
                self.owners.remove(&owner);
                self.frames.retain(|frame| frame.owner() != Some(owner));
            }
            ["owner", owner, "is", "stopped"] => {
                self.stopped.insert(number(owner));
            }
            ["owner", owner, "wakes", "up"] => {
                self.stopped.remove(&number(owner));
            }
            ["owner", owner, "has", "no", "answer", "of", disk] => {
                let from = DiskId(number(disk));
                self.owner(number(owner), group::Input::Unanswered { from });
            }
            ["owner", owner, "has", "no", "lease"] => {
                self.unleased.insert(number(owner));
            }
            ["owner", owner, "is", "quiet"] => self.owner(number(owner), group::Input::Quiet),
            ["owner", owner, "connects", "to", disk] => {
                let to = DiskId(number(disk));
                self.owner(number(owner), group::Input::Connected { to });
            }
            ["manager", "evicts", disk] => {
                let disk = DiskId(number(disk));
                self.reconfigure(Reconfigure::Evict { disk });
            }
            ["manager", "joins", disk] => {
                let disk = DiskId(number(disk));
                self.reconfigure(Reconfigure::Join { disk });
            }
            ["manager", "promotes", disk, "of", "session", session] => {
                let (disk, session) = (DiskId(number(disk)), number(session));
                self.reconfigure(Reconfigure::Promote { disk, session });
            }
            ["replica", disk, "learns"] => {
                let now = self.manager.clone().expect("a PG");
                self.replica(DiskId(number(disk)), replica::Input::Configured(now));
            }
            ["replica", disk, "is", room @ ("low" | "ample")] => {
                let room = match room {
                    "low" => Room::Low,
                    _ => Room::Ample,
                };
                self.replica(DiskId(number(disk)), replica::Input::Room(room));
            }
            ["owner", owner, "writes", what, "to", "chunk", at] => {
                let value = what.chars().next().map_or(0, u32::from);
                let owner = number(owner);
                let chunk = ChunkNo(u64::from(number(at)));
                self.change_at(owner, value, ChunkId { chunk, ..AT }, 0);
            }
            ["owner", owner, "discards", "chunk", at] => {
                let owner = number(owner);
                let chunk = ChunkNo(u64::from(number(at)));
                self.change_at(owner, 0, ChunkId { chunk, ..AT }, 0);
            }
            ["replica", disk, "asks", "again"] => {
                self.replica(DiskId(number(disk)), replica::Input::AskAgain);
            }
            ["replica", disk, "is", "cut", "off"] => {
                self.cut_off.insert(DiskId(number(disk)));
            }
            ["replica", disk, "is", "reached"] => {
                self.cut_off.remove(&DiskId(number(disk)));
            }
            ["replica", disk, "loses", "power"] => {
                let disk = DiskId(number(disk));
                let durable = self.replicas[&disk].durable();
                let replica = Replica::new((PgId(1), disk), durable, RulesOff::NONE);
                self.replicas.insert(disk, replica);
                self.frames.retain(|frame| !frame.disks().contains(&disk));
            }
            ["run"] => self.run(usize::MAX),
            ["run", frames] => self.run(number(frames) as usize),
            ["last", "frame", "overtakes"] => {
                let last = self.frames.pop().expect("a frame");
                self.frames.insert(0, last);
            }
            ["blocks"] => self.show(),
            _ => panic!("{step:?} is no step"),
        }
        std::mem::take(&mut self.said)
    }

    fn say(&mut self, what: &str) {
        writeln!(self.said, "  {what}").expect("a string");
    }

    fn begin(&mut self, disks: &[&str]) {
        let disks: Vec<DiskId> = disks
            .iter()
            .map(|disk| DiskId(disk.parse().expect("a number")))
            .collect();
        self.manager = Some(Configuration::new(disks.iter().copied()));
        for disk in disks {
            let replica = Replica::new((PgId(1), disk), Durable::created(1), RulesOff::NONE);
            self.replicas.insert(disk, replica);
        }
    }

    fn attach(&mut self, owner: u32) {
        let now = self.manager.clone().expect("a PG");
        let epoch = Epoch {
            host: owner,
            ..Epoch::default()
        };
        let mut out = Vec::new();
        let of = (VolumeId(1), PgId(1));
        let group = Group::new(of, epoch, now, None, RulesOff::NONE, &mut out);
        self.owners.insert(owner, group);
        self.take(owner, out);
    }

    fn reconfigure(&mut self, change: Reconfigure) {
        let manager = self.manager.as_mut().expect("a PG");
        let done = manager.apply(manager.version(), change, 1);
        let members: Vec<String> = manager
            .members()
            .iter()
            .map(|member| match member.role {
                Role::InSync => format!("{} in sync", member.disk),
                Role::Joining { session, .. } => format!("{} joins ({session})", member.disk),
                Role::Out { since } => format!("{} out since {since}", member.disk),
            })
            .collect();
        let version = manager.version();
        match done {
            Ok(()) => self.say(&format!("version {version}: {}", members.join(", "))),
            Err(why) => self.say(&format!("refused: {why}")),
        }
    }

    fn tag(&mut self) -> Tag {
        self.asked += 1;
        Tag(self.asked)
    }

    fn change(&mut self, owner: u32, value: u32, at: u32) {
        self.change_at(owner, value, AT, at);
    }

    fn change_at(&mut self, owner: u32, value: u32, at: ChunkId, block_at: u32) {
        let (tag, run) = (self.tag(), block(block_at));
        let (change, payload) = match letter(value) {
            '.' => (Change::Zero { run }, None),
            _ => {
                let crcs = [0; 16];
                (Change::Write { run, crcs }, Some(buf(value)))
            }
        };
        self.owner(
            owner,
            group::Input::Ask {
                tag,
                ask: group::Ask::Change {
                    at,
                    change,
                    payload,
                },
            },
        );
    }

    fn owner(&mut self, owner: u32, input: group::Input) {
        let mut out = Vec::new();
        let group = self.owners.get_mut(&owner).expect("an owner that attached");
        group.step(input, &mut out);
        group.check();
        self.take(owner, out);
    }

    fn take(&mut self, owner: u32, out: Vec<group::Output>) {
        for output in out {
            let what = match output {
                group::Output::Send {
                    to,
                    header,
                    message,
                    payload,
                } => {
                    let what = format!(
                        "sends {to}, version {}, mark {}: {}",
                        header.version,
                        header.mark,
                        words_of(&message, payload.clone())
                    );
                    self.frames
                        .push(Frame::To(owner, to, header, message, payload));
                    what
                }
                group::Output::Changed { tag } => format!("acknowledges request {}", tag.0),
                group::Output::Value {
                    tag,
                    zeroes,
                    payload,
                    ..
                } => {
                    let value = payload.filter(|_| zeroes == 0);
                    let value = letter(value.map_or(0, |payload| payload.at().id.0));
                    if self.unleased.contains(&owner) {
                        self.unconfirmed.insert(tag, value);
                        self.say(&format!("owner {owner} has {value} for request {}", tag.0));
                        self.owner(owner, group::Input::Confirm { tag });
                        continue;
                    }
                    format!("answers request {} with {value}", tag.0)
                }
                group::Output::Confirmed { tag } => {
                    let value = self.unconfirmed.remove(&tag).expect("it was read");
                    format!("answers request {} with {value}, confirmed", tag.0)
                }
                group::Output::Failed { tag, why } => format!("fails request {}: {why:?}", tag.0),
                group::Output::Serving => "serves".to_owned(),
                group::Output::Accuse { disk, version } => {
                    format!("tells the manager that {disk} does not answer under version {version}")
                }
                group::Output::Learn { version } => {
                    format!("asks the manager for version {version}")
                }
                group::Output::Fenced { by } => format!("is fenced by epoch {}", by.host),
            };
            self.say(&format!("owner {owner} {what}"));
        }
    }

    /// Delivers what can be, in its order, until nothing moves any more, or so many frames.
    fn run(&mut self, most: usize) {
        for _ in 0..most {
            let (cut_off, stopped) = (&self.cut_off, &self.stopped);
            let place = self.frames.iter().position(|frame| {
                let is_cut_off = frame.disks().iter().any(|disk| cut_off.contains(disk));
                !is_cut_off && frame.owner().is_none_or(|owner| !stopped.contains(&owner))
            });
            let Some(place) = place else { return };
            match self.frames.remove(place) {
                Frame::To(owner, disk, header, message, payload) => {
                    let input = replica::Input::Frame {
                        from: Asker(owner),
                        header,
                        message,
                        payload,
                    };
                    self.replica(disk, input);
                }
                Frame::From(from, owner, header, answer, payload) => {
                    let input = group::Input::Answer {
                        from,
                        header,
                        answer,
                        payload,
                    };
                    self.owner(owner, input);
                }
                Frame::Ask(from, to, header, ask) => {
                    let from = Asker(from.0);
                    self.replica(to, replica::Input::FillAsk { from, header, ask });
                }
                Frame::Fill(_, to, header, answer, payload) => {
                    let input = replica::Input::FillAnswer {
                        header,
                        answer,
                        payload,
                    };
                    self.replica(to, input);
                }
            }
        }
    }

    fn replica(&mut self, disk: DiskId, input: replica::Input) {
        let mut out = Vec::new();
        let replica = self.replicas.get_mut(&disk).expect("a replica");
        replica.step(input, &mut out);
        replica.check();
        for output in out {
            let input = match output {
                replica::Output::Fence {
                    op,
                    version,
                    session,
                    fences,
                } => {
                    let epochs: Vec<String> = fences
                        .iter()
                        .map(|(_, epoch)| format!("epoch {}, ", epoch.host))
                        .collect();
                    let session = match session {
                        0 => String::new(),
                        session => format!(", session {session}"),
                    };
                    self.say(&format!(
                        "replica {disk} is fenced, on disk: {}version {version}{session}",
                        epochs.concat()
                    ));
                    replica::Input::Stored { op, ok: true }
                }
                replica::Output::Change {
                    op,
                    at,
                    change,
                    payload,
                    stamp,
                    ..
                } => {
                    let (Change::Write { run, .. } | Change::Zero { run }) = change else {
                        unreachable!("stories change blocks");
                    };
                    let value = payload.map_or(0, |payload| payload.at().id.0);
                    self.stamps.insert(disk, stamp);
                    self.blocks.insert((disk, place_of(at, run)), value);
                    self.say(&format!(
                        "replica {disk} has {} on disk, stamped {}.{}.{}",
                        letter(value),
                        stamp.version,
                        stamp.epoch.host,
                        stamp.sequence
                    ));
                    replica::Input::Stored { op, ok: true }
                }
                replica::Output::Read { op, at, run } => {
                    let place = (disk, place_of(at, run));
                    let value = self.blocks.get(&place).copied().unwrap_or(0);
                    replica::Input::Loaded {
                        op,
                        crcs: [0; 16],
                        zeroes: if value == 0 { run.mask() } else { 0 },
                        payload: buf(value),
                    }
                }
                replica::Output::Look { op, at } => {
                    let first = place_of(at, block(0));
                    let mut blocks = self.blocks.range((disk, first)..(disk, first + 16));
                    let takes = match blocks.any(|(_, value)| *value > 0) {
                        true => Takes::Nothing,
                        false => Takes::Space,
                    };
                    replica::Input::Looked { op, takes }
                }
                replica::Output::Answer {
                    to,
                    header,
                    answer,
                    payload,
                } => {
                    self.hear(disk, &answer, payload.clone());
                    self.frames
                        .push(Frame::From(disk, to.0, header, answer, payload));
                    continue;
                }
                filling => match self.fill(disk, filling) {
                    Some(input) => input,
                    None => continue,
                },
            };
            self.replica(disk, input);
        }
    }

    /// Carries out what belongs to joining; what the disk answers.
    fn fill(&mut self, disk: DiskId, output: replica::Output) -> Option<replica::Input> {
        let stamp = self.stamps.get(&disk).copied().unwrap_or_default();
        match output {
            replica::Output::List { op, since, .. } => Some(replica::Input::Listed {
                op,
                chunks: (stamp.version > since).then_some(AT).into_iter().collect(),
                more: false,
            }),
            replica::Output::Fetch { op, .. } => {
                let held = |at: &u32| {
                    self.blocks
                        .get(&(disk, *at))
                        .is_some_and(|value| *value > 0)
                };
                let data = (0..16).filter(held).fold(0, |mask, at| mask | 1 << at);
                Some(replica::Input::Fetched {
                    op,
                    content: Content {
                        stamp,
                        data,
                        zeroes: 0,
                        crcs: [0; 16],
                    },
                    // Where it is: the blocks of this disk.
                    payload: Some(buf(disk.0)),
                })
            }
            replica::Output::Fill {
                op,
                blocks,
                content,
                payload,
                ..
            } => {
                let source = DiskId(payload.expect("every chunk here has data").at().id.0);
                for at in (0..16).filter(|at| blocks & 1 << at != 0) {
                    let value = self.blocks.get(&(source, at)).copied().unwrap_or(0);
                    let of_source = if content.data & 1 << at != 0 {
                        value
                    } else {
                        0
                    };
                    self.blocks.insert((disk, at), of_source);
                }
                let stamp = match blocks {
                    u16::MAX => content.stamp,
                    _ => content.stamp.max(stamp),
                };
                self.stamps.insert(disk, stamp);
                self.say(&format!(
                    "replica {disk} has the chunk as {source} has it, but for {} blocks, stamped {}.{}.{}",
                    (!blocks).count_ones(),
                    stamp.version,
                    stamp.epoch.host,
                    stamp.sequence
                ));
                Some(replica::Input::Stored { op, ok: true })
            }
            replica::Output::FillAsk { to, header, ask } => {
                let what = match ask {
                    FillAsk::Fences { .. } => "its fences".to_owned(),
                    FillAsk::List { since, .. } => format!("what is newer than version {since}"),
                    FillAsk::Fetch { .. } => "the chunk".to_owned(),
                };
                let (session, version) = (header.session, header.version);
                self.say(&format!(
                    "replica {disk} asks {to} for {what}: session {session}, version {version}"
                ));
                self.frames.push(Frame::Ask(disk, to, header, ask));
                None
            }
            replica::Output::FillAnswer {
                to,
                header,
                answer,
                payload,
            } => {
                let what = match &answer {
                    FillAnswer::Fences { fences, .. } => {
                        let epochs: Vec<String> = fences
                            .iter()
                            .map(|(_, epoch)| format!("epoch {}", epoch.host))
                            .collect();
                        format!("its fences [{}]", epochs.join(", "))
                    }
                    FillAnswer::Listed { chunks, .. } => format!("{} chunks", chunks.len()),
                    FillAnswer::Content { entries, .. } => {
                        let entries: Vec<String> = entries
                            .iter()
                            .map(|(_, entry)| format!("{}.{}", entry.epoch.host, entry.sequence))
                            .collect();
                        format!("the chunk, window [{}]", entries.join(" "))
                    }
                    FillAnswer::Version(version) => format!("it has version {version} by now"),
                    FillAnswer::NotNow => "not now".to_owned(),
                };
                let to = DiskId(to.0);
                self.say(&format!("replica {disk} answers {to}: {what}"));
                self.frames
                    .push(Frame::Fill(disk, to, header, answer, payload));
                None
            }
            replica::Output::Learn { version } => {
                self.say(&format!(
                    "replica {disk} asks the manager for version {version}"
                ));
                None
            }
            replica::Output::Filled { session, .. } => {
                self.say(&format!(
                    "replica {disk} tells the manager: session {session} is filled"
                ));
                None
            }
            replica::Output::Lost { session } => {
                self.say(&format!(
                    "replica {disk} tells the manager: session {session} is lost"
                ));
                None
            }
            other => unreachable!("{other:?} is carried out above"),
        }
    }

    fn hear(&mut self, disk: DiskId, answer: &Answer, payload: Option<Payload>) {
        let what = match answer {
            Answer::Done { sequence, room } => format!("done {sequence}{}", of_room(*room)),
            Answer::Fits { takes, room, .. } => {
                let takes = match takes {
                    Takes::Nothing => "it takes nothing",
                    Takes::Space => "it takes space",
                };
                format!("{takes}{}", of_room(*room))
            }
            Answer::Value { newest, zeroes, .. } => {
                let value = payload.filter(|_| *zeroes == 0);
                let value = letter(value.map_or(0, |payload| payload.at().id.0));
                match newest {
                    Some((epoch, sequence)) => {
                        format!("{value}, which may be of change {}.{sequence}", epoch.host)
                    }
                    None => value.to_string(),
                }
            }
            Answer::Sealed { window, room } => {
                let entries: Vec<String> = window
                    .iter()
                    .map(|entry| format!("{}.{}", entry.epoch.host, entry.sequence))
                    .collect();
                format!("sealed, window [{}]{}", entries.join(" "), of_room(*room))
            }
            Answer::Confirmed { .. } => "confirmed".to_owned(),
            Answer::Refused { why, .. } => format!("refused, {why:?}"),
        };
        self.say(&format!("replica {disk} answers: {what}"));
    }

    /// What is on the disks.
    fn show(&mut self) {
        let disks: Vec<DiskId> = self.replicas.keys().copied().collect();
        for disk in disks {
            let of = |at: u32| letter(self.blocks.get(&(disk, at)).copied().unwrap_or(0));
            let blocks: String = (0..4).map(of).collect();
            self.say(&format!("replica {disk}: {blocks}"));
        }
    }
}

impl Frame {
    fn owner(&self) -> Option<u32> {
        match self {
            Frame::To(owner, ..) | Frame::From(_, owner, ..) => Some(*owner),
            Frame::Ask(..) | Frame::Fill(..) => None,
        }
    }

    /// The replicas that it goes to and comes from.
    fn disks(&self) -> [DiskId; 2] {
        match *self {
            Frame::To(_, disk, ..) | Frame::From(disk, ..) => [disk, disk],
            Frame::Ask(from, to, ..) | Frame::Fill(from, to, ..) => [from, to],
        }
    }
}

fn words_of(message: &Message, payload: Option<Payload>) -> String {
    match *message {
        Message::Change {
            sequence,
            at,
            change,
        } => {
            let (Change::Write { run, .. } | Change::Zero { run }) = change else {
                unreachable!("stories change blocks");
            };
            let value = letter(payload.map_or(0, |payload| payload.at().id.0));
            match at.chunk.0 {
                0 => format!("change {sequence}, {value} to block {}", run.first()),
                chunk => format!("change {sequence}, {value} to chunk {chunk}"),
            }
        }
        Message::Read { run, .. } => format!("read block {}", run.first()),
        Message::Mark => "mark".to_owned(),
        Message::Seal => "seal".to_owned(),
        Message::Confirm { id } => format!("confirm {id}"),
        Message::Fits { at, .. } => format!("does a write to chunk {} fit?", at.chunk.0),
    }
}

fn of_room(room: Room) -> &'static str {
    match room {
        Room::Ample => "",
        Room::Low => "; its disk is low",
    }
}

/// Where the first block of a run is kept: by its number in the volume.
fn place_of(at: ChunkId, run: BlockRun) -> u32 {
    at.chunk.0 as u32 * 16 + run.first()
}
