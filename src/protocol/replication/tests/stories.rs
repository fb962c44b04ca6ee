//! The golden stories in `testscripts/`: owners, replicas and a manager, in which nothing moves unless a step says so.
//!
//! Blocks hold letters. Disks are fast: what a replica asks of its disk has happened when the step ends.

use crate::base::{
    BlockRun, BufId, BufRef, ChunkId, ChunkNo, DiskId, Epoch, FamilyId, LayerId, PgId, VolumeId,
};
use crate::protocol::replication::RulesOff;
use crate::protocol::replication::group::{self, Group, Tag};
use crate::protocol::replication::replica::{self, Asker, Durable, Replica};
use crate::protocol::replication::{
    Answer, Change, Configuration, Header, Message, Reconfigure, Role,
};
use crate::protocol::stories;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

#[test]
fn the_stories_come_out_as_they_are_told() {
    stories::play("replication", Site::default, Site::step);
}

enum Frame {
    To(u32, DiskId, Header, Message, Option<BufRef>),
    From(DiskId, u32, Header, Answer, Option<BufRef>),
}

#[derive(Default)]
struct Site {
    manager: Option<Configuration>,
    replicas: BTreeMap<DiskId, Replica>,
    /// What each disk holds: a letter a block; `.`: zeroes.
    blocks: BTreeMap<(DiskId, u32), u32>,
    owners: BTreeMap<u32, Group>,
    frames: Vec<Frame>,
    /// Frames to and from these wait.
    cut_off: BTreeSet<DiskId>,
    /// Frames to and from these, too.
    stopped: BTreeSet<u32>,
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

fn buf(value: u32) -> BufRef {
    BufRef {
        id: BufId(value),
        block: 0,
    }
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
                self.frames.retain(|frame| frame.owner() != owner);
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
            ["owner", owner, "is", "quiet"] => self.owner(number(owner), group::Input::Quiet),
            ["owner", owner, "connects", "to", disk] => {
                let to = DiskId(number(disk));
                self.owner(number(owner), group::Input::Connected { to });
            }
            ["manager", "evicts", disk] => self.evict(DiskId(number(disk))),
            ["replica", disk, "is", "cut", "off"] => {
                self.cut_off.insert(DiskId(number(disk)));
            }
            ["replica", disk, "is", "reached"] => {
                self.cut_off.remove(&DiskId(number(disk)));
            }
            ["replica", disk, "loses", "power"] => {
                let disk = DiskId(number(disk));
                let durable = self.replicas[&disk].durable();
                let replica = Replica::new(PgId(1), durable, RulesOff::NONE);
                self.replicas.insert(disk, replica);
                self.frames.retain(|frame| frame.disk() != disk);
            }
            ["run"] => self.run(),
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
            let replica = Replica::new(PgId(1), Durable::created(1), RulesOff::NONE);
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

    fn evict(&mut self, disk: DiskId) {
        let manager = self.manager.as_mut().expect("a PG");
        let done = manager.apply(manager.version(), Reconfigure::Evict { disk }, 1);
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
        let (tag, run) = (self.tag(), block(at));
        let (change, payload) = match letter(value) {
            '.' => (Change::Zero { run }, None),
            _ => {
                let crcs = [0; 16];
                (Change::Write { run, crcs }, Some(buf(value)))
            }
        };
        let at = AT;
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
                        words_of(&message, payload)
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
                    let value = letter(value.map_or(0, |payload| payload.id.0));
                    format!("answers request {} with {value}", tag.0)
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

    /// Delivers everything that can be, in its order, until nothing moves any more.
    fn run(&mut self) {
        loop {
            let (cut_off, stopped) = (&self.cut_off, &self.stopped);
            let place = self.frames.iter().position(|frame| {
                !cut_off.contains(&frame.disk()) && !stopped.contains(&frame.owner())
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
                    op, version, epoch, ..
                } => {
                    self.say(&format!(
                        "replica {disk} is fenced, on disk: epoch {}, version {version}",
                        epoch.host
                    ));
                    replica::Input::Stored { op, ok: true }
                }
                replica::Output::Change {
                    op,
                    change,
                    payload,
                    stamp,
                    ..
                } => {
                    let (Change::Write { run, .. } | Change::Zero { run }) = change else {
                        unreachable!("stories change blocks");
                    };
                    let value = payload.map_or(0, |payload| payload.id.0);
                    self.blocks.insert((disk, run.first()), value);
                    self.say(&format!(
                        "replica {disk} has {} on disk, stamped {}.{}.{}",
                        letter(value),
                        stamp.version,
                        stamp.epoch.host,
                        stamp.sequence
                    ));
                    replica::Input::Stored { op, ok: true }
                }
                replica::Output::Read { op, run, .. } => {
                    let value = self.blocks.get(&(disk, run.first())).copied().unwrap_or(0);
                    replica::Input::Loaded {
                        op,
                        crcs: [0; 16],
                        zeroes: if value == 0 { run.mask() } else { 0 },
                        payload: buf(value),
                    }
                }
                replica::Output::Answer {
                    to,
                    header,
                    answer,
                    payload,
                } => {
                    self.hear(disk, &answer, payload);
                    self.frames
                        .push(Frame::From(disk, to.0, header, answer, payload));
                    continue;
                }
            };
            self.replica(disk, input);
        }
    }

    fn hear(&mut self, disk: DiskId, answer: &Answer, payload: Option<BufRef>) {
        let what = match answer {
            Answer::Done { sequence } => format!("done {sequence}"),
            Answer::Value { newest, zeroes, .. } => {
                let value = payload.filter(|_| *zeroes == 0);
                let value = letter(value.map_or(0, |payload| payload.id.0));
                match newest {
                    Some((epoch, sequence)) => {
                        format!("{value}, which may be of change {}.{sequence}", epoch.host)
                    }
                    None => value.to_string(),
                }
            }
            Answer::Sealed { window } => {
                let entries: Vec<String> = window
                    .iter()
                    .map(|entry| format!("{}.{}", entry.epoch.host, entry.sequence))
                    .collect();
                format!("sealed, window [{}]", entries.join(" "))
            }
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
    fn owner(&self) -> u32 {
        match self {
            Frame::To(owner, ..) | Frame::From(_, owner, ..) => *owner,
        }
    }

    fn disk(&self) -> DiskId {
        match self {
            Frame::To(_, disk, ..) | Frame::From(disk, ..) => *disk,
        }
    }
}

fn words_of(message: &Message, payload: Option<BufRef>) -> String {
    match *message {
        Message::Change {
            sequence, change, ..
        } => {
            let (Change::Write { run, .. } | Change::Zero { run }) = change else {
                unreachable!("stories change blocks");
            };
            let value = letter(payload.map_or(0, |payload| payload.id.0));
            format!("change {sequence}, {value} to block {}", run.first())
        }
        Message::Read { run, .. } => format!("read block {}", run.first()),
        Message::Mark => "mark".to_owned(),
        Message::Seal => "seal".to_owned(),
    }
}
