//! A coordinator's side of one PG, for one range: it numbers changes, sends them to every member, counts what is durable where, and takes
//! over what an earlier owner left.
//!
//! ```text
//!   new(epoch) ──► Recovering ──all sealed under one version, every block in a window written again──► Serving
//!                    ▲      │ any change of version                                                      │
//!                    └──────┘                               a change of version: what is in flight is sent again
//!   any ──a replica knows a higher epoch──► Fenced: everything that waits is told
//! ```
//!
//! What is asked before recovery is done waits (R8). The caller has no two overlapping changes in flight (R2), gives a read only to blocks
//! that no change of its own is in flight on or takes the answer late (R9 holds it here), and checks its lease before it replies (R17). Where it has
//! none, it has the members confirm that the range is still this owner's ([`Input::Confirm`], R18).

mod alone;
mod confirm;
mod numbered;
mod read;
mod recover;
mod recovery;
mod room;
mod write;

use super::configuration::{Configuration, Role};
use super::message::{Answer, Asked, Change, Header, Message, Refusal};
use super::rule::{Rule, RulesOff};
use super::{FLYING_MAX, WINDOW_MAX};
use crate::base::{BlockRun, CHUNK, ChunkId, DiskId, EXTENT, Epoch, Payload, PgId, VolumeId};
use confirm::Confirms;
use numbered::Numbered;
use read::{Held, Reading};
use recovery::Recovery;
use room::Fitting;
use std::collections::VecDeque;
use write::Flying;

/// Requests that wait until a group serves; more are refused as [`Failure::Busy`].
const WAITING_MAX: usize = 1024;
/// Chunks of one change, at most: those of an extent.
const CHUNKS_MAX: usize = (EXTENT / CHUNK) as usize;

/// The caller's name for a change or a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// What is asked of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Make this durable everywhere. `payload` stays as it is until the answer.
    Change {
        at: ChunkId,
        change: Change,
        payload: Option<Payload>,
    },
    Read {
        at: ChunkId,
        run: BlockRun,
    },
    /// Nothing: [`Output::Changed`] says when the group serves.
    Turn,
}

impl Ask {
    /// How many chunks it changes.
    fn chunks(&self) -> usize {
        match self {
            Ask::Change { change, .. } => change.chunks(),
            Ask::Read { .. } | Ask::Turn => 0,
        }
    }
}

/// What a group is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// What the manager says of the PG. An older version than is known is ignored.
    Configured(Configuration),
    /// A front end asks.
    Ask { tag: Tag, ask: Ask },
    /// A replica's answer to a frame of this group.
    Answer {
        from: DiskId,
        header: Header,
        answer: Answer,
        payload: Option<Payload>,
    },
    /// The connection was lost, or an answer is overdue.
    Unanswered { from: DiskId },
    /// Frames to a replica may have been lost, or it was busy: what is not answered is sent again.
    Connected { to: DiskId },
    /// Reads that were begun before this number, at the latest, are slow: another replica is asked too.
    Slow { until: u64 },
    /// The value of this read is in hand, and no lease covers it: the members are asked whether it may be handed out (R18).
    Confirm { tag: Tag },
    /// Nothing was asked for a while: the members are told the mark, and forget what is below (R10).
    Quiet,
}

/// What a group wants done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    Send {
        to: DiskId,
        header: Header,
        message: Message,
        payload: Option<Payload>,
    },
    /// A change is durable on every member.
    Changed {
        tag: Tag,
    },
    /// Blocks were read; `payload` is where the replica's answer put them.
    Value {
        tag: Tag,
        crcs: [u32; 16],
        zeroes: u16,
        payload: Option<Payload>,
    },
    /// What was read under this tag may be handed out, without a lease.
    Confirmed {
        tag: Tag,
    },
    Failed {
        tag: Tag,
        why: Failure,
    },
    /// Everything that earlier owners left is settled.
    Serving,
    /// The manager is told that a replica does not answer, or cannot (R11).
    Accuse {
        disk: DiskId,
        version: u32,
    },
    /// The manager is asked for the configuration: a replica knows this version.
    Learn {
        version: u32,
    },
    /// Another owner has a higher epoch. Nothing is served from here on.
    Fenced {
        by: Epoch,
    },
}

/// Why a change or a read was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Another owner has the range.
    Fenced,
    /// Too much is waiting or in flight.
    Busy,
    /// No replica that is in sync can read these blocks.
    Unreadable,
    /// The only replica cannot store it, or not be taken over. It has happened or not.
    Unstored,
    /// It takes new space, and the disk of a member has none: nothing has changed, anywhere, and nothing will.
    NoSpace,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Every member is sealed, and what they have in their windows is written again.
    Recovering(Recovery),
    Serving,
    Fenced,
}

/// A coordinator's side of a PG. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    range: VolumeId,
    pg: PgId,
    epoch: Epoch,
    configuration: Configuration,
    /// The replica that reads go to, if it is in sync: the one on this node.
    near: Option<DiskId>,
    phase: Phase,
    /// The last number that was given out.
    sequence: u64,
    /// In the order of their numbers; the front one is not ended.
    flying: VecDeque<Flying>,
    /// The chunks that they change: as many entries as a replica's window has of them.
    flying_chunks: usize,
    reading: Numbered<Reading>,
    /// How many of them are held.
    held: usize,
    /// The last number of a read.
    reads: u64,
    /// Changes that wait to hear whether they fit, and the last number of one.
    fitting: Numbered<Fitting>,
    fits: u64,
    /// Members whose disks are low, as far as they have said.
    low: Vec<DiskId>,
    /// What was asked before it serves.
    waiting: VecDeque<(Tag, Ask)>,
    confirms: Confirms,
    off: RulesOff,
}

impl Group {
    /// Takes the range over under `epoch`, which nobody has had: seals, recovers, and then serves.
    pub fn new(
        (range, pg): (VolumeId, PgId),
        epoch: Epoch,
        configuration: Configuration,
        near: Option<DiskId>,
        off: RulesOff,
        out: &mut Vec<Output>,
    ) -> Group {
        let mut group = Group {
            range,
            pg,
            epoch,
            configuration,
            near,
            phase: Phase::Fenced,
            sequence: 0,
            flying: VecDeque::new(),
            flying_chunks: 0,
            reading: Numbered::default(),
            held: 0,
            reads: 0,
            fitting: Numbered::default(),
            fits: 0,
            low: Vec::new(),
            waiting: VecDeque::new(),
            confirms: Confirms::default(),
            off,
        };
        group.start_recovery(out);
        group
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn version(&self) -> u32 {
        self.configuration.version()
    }

    /// Reads go to this replica from now on, as long as it is in sync: it is on this node, or the fastest.
    pub fn read_from(&mut self, near: Option<DiskId>) {
        self.near = near;
    }

    /// The replica that reads go to first, if it is in sync.
    pub fn near(&self) -> Option<DiskId> {
        let near = self.near;
        self.configuration
            .in_sync()
            .find(|disk| Some(*disk) == near)
    }

    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(&mut self, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Configured(configuration) => self.on_configured(configuration, out),
            Input::Ask { tag, ask } => self.on_asked(tag, ask, out),
            Input::Answer {
                from,
                header,
                answer,
                payload,
            } => self.on_answer(from, header, answer, payload, out),
            Input::Unanswered { from } => self.accuse(from, out),
            Input::Connected { to } => self.send_again(to, out),
            Input::Slow { until } => self.hedge(until, out),
            Input::Confirm { tag } => self.confirm(tag, out),
            Input::Quiet if self.is_serving() => {
                for to in self.writers() {
                    self.send(to, Message::Mark, None, out);
                }
            }
            Input::Quiet => {}
        }
    }

    /// Whether anything waits for an answer of this replica.
    pub fn waits_for(&self, disk: DiskId) -> bool {
        let bit = self.configuration.bit(disk);
        let lacks = |flying: &Flying| !flying.ended && flying.durable & bit == 0;
        let reads = |reading: &Reading| reading.held.is_none() && reading.is_of(disk);
        match &self.phase {
            Phase::Fenced => return false,
            Phase::Serving => {}
            Phase::Recovering(recovery) => {
                if recovery.waits_for(disk) || recovery.reads_of(disk).next().is_some() {
                    return true;
                }
            }
        }
        (bit != 0 && self.flying.iter().any(lacks))
            || self.reading.values().any(reads)
            || self.fitting.values().any(|of| bit != 0 && of.lacks(bit))
            || self.confirms.waits_for(bit)
    }

    /// Whether one more ask is taken, whatever it is.
    pub fn has_room(&self) -> bool {
        // What waits for the group to serve begins then, all of it.
        let waiting = self.waiting.len();
        let chunks = self.waiting.iter().map(|(_, ask)| ask.chunks());
        let chunks = chunks.sum::<usize>() + self.flying_chunks;
        waiting + self.flying.len() + self.fitting.len() < FLYING_MAX
            && chunks + CHUNKS_MAX <= WINDOW_MAX
            && waiting + self.reading.len() + self.confirms.len() < FLYING_MAX
    }

    /// Whether nothing is in flight, and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.is_serving()
            && self.flying.is_empty()
            && self.reading.is_empty()
            && self.fitting.is_empty()
            && self.confirms.is_empty()
    }

    /// The members that a change needs.
    pub fn members(&self) -> impl Iterator<Item = DiskId> + '_ {
        self.writers()
    }

    /// What stands on each frame.
    fn header(&self, to: DiskId) -> Header {
        let mark = match self.phase {
            Phase::Serving if self.off.on(Rule::Mark) => self.sequence,
            Phase::Serving => self.mark(),
            _ if self.off.on(Rule::R8) => self.mark(),
            _ => 0,
        };
        Header {
            range: self.range,
            pg: self.pg,
            epoch: self.epoch,
            version: self.configuration.version(),
            session: self.configuration.session(to),
            mark,
        }
    }

    /// Up to this number everything is acknowledged.
    pub fn mark(&self) -> u64 {
        self.flying
            .front()
            .map_or(self.sequence, |oldest| oldest.sequence - 1)
    }

    fn send(&self, to: DiskId, message: Message, payload: Option<Payload>, out: &mut Vec<Output>) {
        out.push(Output::Send {
            to,
            header: self.header(to),
            message,
            payload,
        });
    }

    /// The members that a change goes to.
    fn writers(&self) -> impl Iterator<Item = DiskId> + '_ {
        self.configuration
            .writers()
            .filter(|member| member.role == Role::InSync || !self.off.on(Rule::R12))
            .map(|member| member.disk)
    }

    fn on_configured(&mut self, configuration: Configuration, out: &mut Vec<Output>) {
        if configuration.version() <= self.version() || self.phase == Phase::Fenced {
            return;
        }
        self.configuration = configuration;
        self.forget_room_of_others();
        match self.phase {
            Phase::Recovering(_) if self.off.on(Rule::R5) => {}
            // Any change of version restarts the seal (R5).
            Phase::Recovering(_) => return self.start_recovery(out),
            Phase::Serving => {}
            Phase::Fenced => return,
        }
        // Everything in flight starts over, and acknowledgements under the old version do not count (R3).
        let keeps = self.off.on(Rule::R3Answers);
        if !keeps {
            self.flying.iter_mut().for_each(|flying| flying.durable = 0);
        }
        let members: Vec<DiskId> = self.writers().collect();
        for disk in members {
            self.send_changes(disk, out);
        }
        let ids: Vec<u64> = self.reading.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.read_again(id, out);
        }
        self.confirm_again(out);
        self.ask_anew_whether_they_fit(out);
        self.end_changes(out);
    }

    /// A replica is there again: it is sent what it has not answered.
    fn send_again(&mut self, to: DiskId, out: &mut Vec<Output>) {
        if !self.writers().any(|disk| disk == to) {
            return;
        }
        if let Phase::Recovering(recovery) = &self.phase {
            if recovery.waits_for(to) {
                self.send(to, Message::Seal, None, out);
            }
            for (id, at, run) in recovery.reads_of(to) {
                self.send(to, Message::Read { id, at, run }, None, out);
            }
        }
        self.send_changes(to, out);
        self.ask_again_whether_they_fit(to, out);
        for (id, reading) in self.reading.iter() {
            if reading.is_of(to) && reading.held.is_none() {
                let (at, run) = (reading.at, reading.run);
                self.send(to, Message::Read { id, at, run }, None, out);
            }
        }
        if self.confirms.waits_for(self.configuration.bit(to)) {
            let id = self.confirms.round;
            self.send(to, Message::Confirm { id }, None, out);
        }
    }

    fn on_asked(&mut self, tag: Tag, ask: Ask, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Fenced => {
                let why = Failure::Fenced;
                out.push(Output::Failed { tag, why });
            }
            Phase::Recovering(_) if !self.off.on(Rule::R8) => {
                if self.waiting.len() >= WAITING_MAX {
                    let why = Failure::Busy;
                    return out.push(Output::Failed { tag, why });
                }
                self.waiting.push_back((tag, ask));
            }
            _ => self.begin(tag, ask, out),
        }
    }

    fn begin(&mut self, tag: Tag, ask: Ask, out: &mut Vec<Output>) {
        match ask {
            Ask::Change {
                at,
                change,
                payload,
            } => {
                if self.flying.len() + self.fitting.len() >= FLYING_MAX {
                    let why = Failure::Busy;
                    return out.push(Output::Failed { tag, why });
                }
                if self.may_not_fit(&change) {
                    return self.ask_whether_it_fits(tag, (at, change), payload, out);
                }
                self.change(Some(tag), at, change, payload, out);
            }
            Ask::Turn => out.push(Output::Changed { tag }),
            Ask::Read { at, run } => {
                if self.reading.len() + self.confirms.len() >= FLYING_MAX {
                    let why = Failure::Busy;
                    return out.push(Output::Failed { tag, why });
                }
                self.reads += 1;
                let id = self.reads;
                let reading = Reading {
                    tag,
                    at,
                    run,
                    from: DiskId(0),
                    hedge: None,
                    failed: Vec::new(),
                    held: None,
                };
                self.reading.push(id, reading);
                self.read_again(id, out);
            }
        }
    }

    fn on_answer(
        &mut self,
        from: DiskId,
        header: Header,
        answer: Answer,
        payload: Option<Payload>,
        out: &mut Vec<Output>,
    ) {
        if header.epoch != self.epoch || self.phase == Phase::Fenced {
            return;
        }
        if let Answer::Refused { what, why } = answer {
            return self.on_refused(from, header, what, why, out);
        }
        let is_present = header.version == self.version();
        match answer {
            Answer::Done { sequence, room } if is_present || self.off.on(Rule::R3Answers) => {
                self.heard_of_room(from, room);
                self.on_done(from, sequence, out);
            }
            Answer::Fits { id, takes, room } if is_present => {
                self.heard_of_room(from, room);
                self.on_fits(from, id, (takes, room), out);
            }
            Answer::Value {
                id,
                newest,
                crcs,
                zeroes,
            } if is_present => {
                let value = Held {
                    until: 0,
                    crcs,
                    zeroes,
                    payload,
                };
                self.on_value(from, id, newest, value, out);
            }
            Answer::Sealed { window, room } if is_present || self.off.on(Rule::R5) => {
                self.heard_of_room(from, room);
                let is_in_sync = self.configuration.role(from) == Some(Role::InSync);
                if let Phase::Recovering(recovery) = &mut self.phase {
                    recovery.sealed(from, is_in_sync, &window);
                    self.step_recovery(out);
                }
            }
            Answer::Confirmed { id } if is_present => self.on_confirmed(from, id, out),
            _ => {} // of an older version: it was asked again
        }
    }

    fn on_refused(
        &mut self,
        from: DiskId,
        header: Header,
        what: Asked,
        why: Refusal,
        out: &mut Vec<Output>,
    ) {
        match why {
            Refusal::Epoch(by) => self.on_fenced(by, out),
            Refusal::Version(version) if version > self.version() => {
                out.push(Output::Learn { version });
            }
            Refusal::Version(_) => {} // it was asked again under that version
            Refusal::Busy => {}       // the driver asks again with `Connected`, later
            Refusal::Session if header.version == self.version() => self.accuse(from, out),
            Refusal::Failed | Refusal::NoSpace | Refusal::NoReplica
                if header.version == self.version() =>
            {
                let Asked::Read { id } = what else {
                    self.accuse(from, out);
                    if self.is_alone(from) {
                        self.failed_alone(from, (what, why), out);
                    }
                    return;
                };
                match self.reading.get(id) {
                    Some(reading) if reading.is_of(from) => self.read_failed(id, from, out),
                    _ if self.is_alone(from) => self.failed_alone(from, (what, why), out),
                    // Recovery needs that block of that replica, or the manager's word that it is out.
                    _ => self.accuse(from, out),
                }
            }
            Refusal::Session | Refusal::Failed | Refusal::NoSpace | Refusal::NoReplica => {}
        }
    }

    fn accuse(&self, disk: DiskId, out: &mut Vec<Output>) {
        if self.writers().any(|writer| writer == disk) && self.phase != Phase::Fenced {
            let version = self.version();
            out.push(Output::Accuse { disk, version });
        }
    }

    fn on_fenced(&mut self, by: Epoch, out: &mut Vec<Output>) {
        self.phase = Phase::Fenced;
        out.push(Output::Fenced { by });
        let changes = std::mem::take(&mut self.flying);
        self.flying_chunks = 0;
        let reads = std::mem::take(&mut self.reading);
        let fitting = std::mem::take(&mut self.fitting);
        self.held = 0;
        let waiting = std::mem::take(&mut self.waiting);
        let confirms = std::mem::take(&mut self.confirms);
        let tags = changes
            .into_iter()
            .filter(|flying| !flying.ended)
            .filter_map(|flying| flying.tag)
            .chain(reads.values().map(|reading| reading.tag))
            .chain(waiting.into_iter().map(|(tag, _)| tag))
            .chain(fitting.values().map(|fitting| fitting.tag))
            .chain(confirms.into_tags());
        let why = Failure::Fenced;
        out.extend(tags.map(|tag| Output::Failed { tag, why }));
    }

    /// Asserts the named invariants.
    pub fn check(&self) {
        let flying = || self.flying.iter();
        assert!(
            flying().is_sorted_by(|a, b| a.sequence < b.sequence),
            "changes in flight are in the order of their numbers"
        );
        assert!(
            flying().all(|one| one.sequence <= self.sequence),
            "no number was used that was not given out"
        );
        assert!(
            self.flying.front().is_none_or(|oldest| !oldest.ended),
            "the mark passes what is acknowledged"
        );
        assert!(
            self.flying.len() + self.fitting.len() <= FLYING_MAX,
            "windows-are-bounded"
        );
        assert!(
            self.reading.len() + self.confirms.len() <= FLYING_MAX,
            "windows-are-bounded"
        );
        let is_member = |low: &DiskId| self.configuration.writers().any(|one| one.disk == *low);
        assert!(self.low.iter().all(is_member), "who is low is a member");
        let chunks = self.flying.iter().map(Flying::chunks);
        assert_eq!(
            chunks.sum::<usize>(),
            self.flying_chunks,
            "chunks in flight are counted"
        );
        let held = self.reading.values().filter(|read| read.held.is_some());
        assert_eq!(held.count(), self.held, "held reads are counted");
        self.confirms.check();
    }
}
