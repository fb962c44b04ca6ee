//! A coordinator's side of one PG, for one range: it numbers changes, sends them to every member, counts what is durable where, and takes
//! over what an earlier owner left.
//!
//! ```text
//!   new(epoch) ──► Sealing ──all sealed under one version──► Recovering ──every block written again──► Serving
//!                    ▲   any change of version                  │                                        │
//!                    └──────────────────────────────────────────┘          a change of version: what is in flight is sent again
//!   any ──a replica knows a higher epoch──► Fenced: everything that waits is told
//! ```
//!
//! What is asked before recovery is done waits (R8). The caller has no two overlapping changes in flight (R2), gives a read only to blocks
//! that no change of its own is in flight on or takes the answer late (R9 holds it here), and checks its lease before it replies (R17).

use super::FLYING_MAX;
use super::configuration::{Configuration, Role};
use super::message::{Answer, Asked, Change, Header, Message, Refusal};
use super::recovery::Recovery;
use super::rule::{Rule, RulesOff};
use crate::base::{BlockRun, BufRef, ChunkId, DiskId, Epoch, PgId, VolumeId};
use std::collections::{BTreeMap, VecDeque};

/// Requests that wait until a group serves; more are refused as [`Failure::Busy`].
const WAITING_MAX: usize = 1024;

/// The caller's name for a change or a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// What is asked of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Make this durable everywhere. `payload` stays as it is until the answer.
    Change {
        at: ChunkId,
        change: Change,
        payload: Option<BufRef>,
    },
    Read {
        at: ChunkId,
        run: BlockRun,
    },
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
        payload: Option<BufRef>,
    },
    /// The connection was lost, or an answer is overdue.
    Unanswered { from: DiskId },
    /// Frames to a replica may have been lost, or it was busy: what is not answered is sent again.
    Connected { to: DiskId },
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
        payload: Option<BufRef>,
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
        payload: Option<BufRef>,
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
}

/// A change that is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Flying {
    sequence: u64,
    /// `None`: recovery's own.
    tag: Option<Tag>,
    at: ChunkId,
    change: Change,
    payload: Option<BufRef>,
    /// Who has it durable under the present version.
    durable: Vec<DiskId>,
    ended: bool,
}

/// A read that is not answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reading {
    tag: Tag,
    at: ChunkId,
    run: BlockRun,
    from: DiskId,
    /// Replicas that could not read it.
    failed: Vec<DiskId>,
    /// What was read, held until this change is acknowledged (R9).
    held: Option<Held>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Held {
    until: u64,
    crcs: [u32; 16],
    zeroes: u16,
    payload: Option<BufRef>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Members that have not answered the seal, and what the others told.
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
    reading: BTreeMap<u64, Reading>,
    reads: u64,
    /// What was asked before it serves.
    waiting: VecDeque<(Tag, Ask)>,
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
            reading: BTreeMap::new(),
            reads: 0,
            waiting: VecDeque::new(),
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
            Input::Quiet if self.is_serving() => {
                for to in self.writers() {
                    self.send(to, Message::Mark, None, out);
                }
            }
            Input::Quiet => {}
        }
    }

    /// What stands on each frame.
    fn header(&self) -> Header {
        let mark = match self.phase {
            Phase::Serving => self.mark(),
            _ if self.off.on(Rule::R8) => self.mark(),
            _ => 0,
        };
        Header {
            range: self.range,
            pg: self.pg,
            epoch: self.epoch,
            version: self.configuration.version(),
            mark,
        }
    }

    /// Up to this number everything is acknowledged.
    pub fn mark(&self) -> u64 {
        self.flying
            .front()
            .map_or(self.sequence, |oldest| oldest.sequence - 1)
    }

    fn send(&self, to: DiskId, message: Message, payload: Option<BufRef>, out: &mut Vec<Output>) {
        out.push(Output::Send {
            to,
            header: self.header(),
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

    fn start_recovery(&mut self, out: &mut Vec<Output>) {
        // What recovery wrote under an older version is in windows now, or nowhere.
        self.flying.retain(|flying| flying.tag.is_some());
        let mut members: Vec<DiskId> = self.writers().collect();
        if self.off.on(Rule::R5) {
            members.truncate(1);
        }
        for &disk in &members {
            self.send(disk, Message::Seal, None, out);
        }
        self.phase = Phase::Recovering(Recovery::new(members));
    }

    fn on_configured(&mut self, configuration: Configuration, out: &mut Vec<Output>) {
        if configuration.version() <= self.version() || self.phase == Phase::Fenced {
            return;
        }
        self.configuration = configuration;
        match self.phase {
            Phase::Recovering(_) if self.off.on(Rule::R5) => {}
            // Any change of version restarts the seal (R5).
            Phase::Recovering(_) => return self.start_recovery(out),
            Phase::Serving => {}
            Phase::Fenced => return,
        }
        // Everything in flight starts over, and acknowledgements under the old version do not count (R3).
        let keeps = self.off.on(Rule::R3Answers);
        for flying in &mut self.flying {
            if !keeps {
                flying.durable.clear();
            }
        }
        let members: Vec<DiskId> = self.writers().collect();
        for disk in members {
            self.send_changes(disk, out);
        }
        let ids: Vec<u64> = self.reading.keys().copied().collect();
        for id in ids {
            self.read_again(id, out);
        }
        self.end_changes(out);
    }

    /// Sends every change in flight that a replica has not answered, in their order (R2).
    fn send_changes(&self, to: DiskId, out: &mut Vec<Output>) {
        for flying in &self.flying {
            if !flying.ended && !flying.durable.contains(&to) {
                let (sequence, at, change) = (flying.sequence, flying.at, flying.change);
                let message = Message::Change {
                    sequence,
                    at,
                    change,
                };
                self.send(to, message, flying.payload, out);
            }
        }
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
        for (&id, reading) in &self.reading {
            if reading.from == to && reading.held.is_none() {
                let (at, run) = (reading.at, reading.run);
                self.send(to, Message::Read { id, at, run }, None, out);
            }
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
                if self.flying.len() >= FLYING_MAX {
                    let why = Failure::Busy;
                    return out.push(Output::Failed { tag, why });
                }
                self.change(Some(tag), at, change, payload, out);
            }
            Ask::Read { at, run } => {
                if self.reading.len() >= FLYING_MAX {
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
                    failed: Vec::new(),
                    held: None,
                };
                self.reading.insert(id, reading);
                self.read_again(id, out);
            }
        }
    }

    /// Gives a change its number, and sends it to every member.
    fn change(
        &mut self,
        tag: Option<Tag>,
        at: ChunkId,
        change: Change,
        payload: Option<BufRef>,
        out: &mut Vec<Output>,
    ) {
        let overlaps =
            |other: &Flying| !other.ended && change.overlaps(at, &other.change, other.at);
        assert!(!self.flying.iter().any(overlaps), "no-overlap-in-flight");
        self.sequence += 1;
        let sequence = self.sequence;
        // The header is that of before the change, so its mark cannot pass it.
        let header = self.header_before(sequence);
        for to in self.writers() {
            let message = Message::Change {
                sequence,
                at,
                change,
            };
            out.push(Output::Send {
                to,
                header,
                message,
                payload,
            });
        }
        self.flying.push_back(Flying {
            sequence,
            tag,
            at,
            change,
            payload,
            durable: Vec::new(),
            ended: false,
        });
    }

    fn header_before(&self, sequence: u64) -> Header {
        let header = self.header();
        Header {
            mark: header.mark.min(sequence - 1),
            ..header
        }
    }

    /// Sends a read to a replica that may serve it and has not failed to.
    fn read_again(&mut self, id: u64, out: &mut Vec<Output>) {
        let Some(reading) = self.reading.get(&id) else {
            return;
        };
        let can = |disk: &DiskId| !reading.failed.contains(disk);
        let near = self
            .configuration
            .in_sync()
            .find(|&disk| Some(disk) == self.near)
            .filter(can);
        let from = near.or_else(|| self.configuration.in_sync().find(can));
        let (tag, at, run) = (reading.tag, reading.at, reading.run);
        let Some(from) = from else {
            self.reading.remove(&id);
            let why = Failure::Unreadable;
            return out.push(Output::Failed { tag, why });
        };
        if let Some(reading) = self.reading.get_mut(&id) {
            reading.from = from;
            reading.held = None;
        }
        self.send(from, Message::Read { id, at, run }, None, out);
    }

    fn on_answer(
        &mut self,
        from: DiskId,
        header: Header,
        answer: Answer,
        payload: Option<BufRef>,
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
            Answer::Done { sequence } if is_present || self.off.on(Rule::R3Answers) => {
                self.on_done(from, sequence, out);
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
            Answer::Sealed { window } if is_present || self.off.on(Rule::R5) => {
                let is_in_sync = self.configuration.role(from) == Some(Role::InSync);
                if let Phase::Recovering(recovery) = &mut self.phase {
                    recovery.sealed(from, is_in_sync, &window);
                    self.step_recovery(out);
                }
            }
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
            Refusal::Failed | Refusal::NoReplica if header.version == self.version() => {
                let Asked::Read { id } = what else {
                    return self.accuse(from, out);
                };
                match self.reading.get_mut(&id) {
                    Some(reading) if reading.from == from => {
                        reading.failed.push(from);
                        self.read_again(id, out);
                    }
                    // Recovery needs that block of that replica, or the manager's word that it is out.
                    _ => self.accuse(from, out),
                }
            }
            Refusal::Failed | Refusal::NoReplica => {}
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
        let reads = std::mem::take(&mut self.reading);
        let waiting = std::mem::take(&mut self.waiting);
        let tags = changes
            .into_iter()
            .filter(|flying| !flying.ended)
            .filter_map(|flying| flying.tag)
            .chain(reads.into_values().map(|reading| reading.tag))
            .chain(waiting.into_iter().map(|(tag, _)| tag));
        let why = Failure::Fenced;
        out.extend(tags.map(|tag| Output::Failed { tag, why }));
    }

    fn on_done(&mut self, from: DiskId, sequence: u64, out: &mut Vec<Output>) {
        let place = self
            .flying
            .binary_search_by_key(&sequence, |flying| flying.sequence);
        let Ok(place) = place else {
            return; // acknowledged before: an answer that came twice
        };
        let flying = &mut self.flying[place];
        if !flying.durable.contains(&from) {
            flying.durable.push(from);
        }
        self.end_changes(out);
    }

    /// Acknowledges what every member has durable.
    fn end_changes(&mut self, out: &mut Vec<Output>) {
        let writers: Vec<DiskId> = self.writers().collect();
        for flying in self.flying.iter_mut().filter(|flying| !flying.ended) {
            if writers.iter().all(|disk| flying.durable.contains(disk)) {
                flying.ended = true;
                if let Some(tag) = flying.tag {
                    out.push(Output::Changed { tag });
                }
            }
        }
        while self.flying.front().is_some_and(|oldest| oldest.ended) {
            self.flying.pop_front();
        }
        self.let_reads_go(out);
        self.step_recovery(out);
    }

    fn on_value(
        &mut self,
        from: DiskId,
        id: u64,
        newest: Option<(Epoch, u64)>,
        value: Held,
        out: &mut Vec<Output>,
    ) {
        let has_payload =
            |run: BlockRun| value.payload.is_some() || value.zeroes & run.mask() == run.mask();
        if let Phase::Recovering(recovery) = &mut self.phase
            && let Some((at, run)) = recovery.value(from, id)
        {
            return match has_payload(run) {
                true => self.write_again(at, run, &value, out),
                // What it says is not to be relied on: the manager takes it out, and recovery starts over.
                false => self.accuse(from, out),
            };
        }
        let Some(reading) = self.reading.get_mut(&id) else {
            return;
        };
        if reading.from != from || reading.held.is_some() {
            return; // it was asked of another one since
        }
        if !has_payload(reading.run) {
            reading.failed.push(from);
            return self.read_again(id, out);
        }
        let until = match newest {
            Some((epoch, sequence)) if epoch == self.epoch => sequence,
            _ => 0,
        };
        reading.held = Some(Held { until, ..value });
        self.let_reads_go(out);
    }

    /// Hands out what was read and holds nothing of a change that is still in flight (R9).
    fn let_reads_go(&mut self, out: &mut Vec<Output>) {
        let flies = |sequence: u64| {
            let found = self
                .flying
                .binary_search_by_key(&sequence, |flying| flying.sequence);
            found.is_ok_and(|place| !self.flying[place].ended)
        };
        let holds = !self.off.on(Rule::R9);
        let is_free = |reading: &Reading| {
            reading
                .held
                .as_ref()
                .is_some_and(|held| !holds || !flies(held.until))
        };
        let free: Vec<u64> = self
            .reading
            .iter()
            .filter(|(_, reading)| is_free(reading))
            .map(|(&id, _)| id)
            .collect();
        for id in free {
            let Some(Reading {
                tag,
                held: Some(held),
                ..
            }) = self.reading.remove(&id)
            else {
                continue;
            };
            out.push(Output::Value {
                tag,
                crcs: held.crcs,
                zeroes: held.zeroes,
                payload: held.payload,
            });
        }
    }

    /// Writes what recovery read to all members, under this epoch and version (R7).
    fn write_again(&mut self, at: ChunkId, run: BlockRun, value: &Held, out: &mut Vec<Output>) {
        let zeroes = value.zeroes & run.mask();
        for run in BlockRun::runs_of(zeroes) {
            self.change(None, at, Change::Zero { run }, None, out);
        }
        for part in BlockRun::runs_of(run.mask() & !zeroes) {
            let from = (part.first() - run.first()) as usize;
            let mut crcs = [0; 16];
            let count = part.count() as usize;
            crcs[..count].copy_from_slice(&value.crcs[from..from + count]);
            let payload = value
                .payload
                .map(|payload| payload.plus(part.first() - run.first()));
            self.change(None, at, Change::Write { run: part, crcs }, payload, out);
        }
    }

    /// Goes on with recovery: reads what is lost somewhere, some of it at a time, and serves when all of it is written again.
    fn step_recovery(&mut self, out: &mut Vec<Output>) {
        let own = |flying: &&Flying| flying.tag.is_none() && !flying.ended;
        let writing = self.flying.iter().filter(own).count();
        let Phase::Recovering(recovery) = &mut self.phase else {
            return;
        };
        if !recovery.is_sealed() {
            return;
        }
        if self.off.on(Rule::R7) {
            return self.serve(out);
        }
        let Some(in_sync) = self.configuration.in_sync().next() else {
            return debug_assert!(false, "a configuration has a replica that is in sync");
        };
        let reads = recovery.next_reads(writing, in_sync, &mut self.reads);
        let is_done = recovery.is_read() && writing == 0;
        for (from, id, at, run) in reads {
            self.send(from, Message::Read { id, at, run }, None, out);
        }
        if is_done {
            self.serve(out);
        }
    }

    fn serve(&mut self, out: &mut Vec<Output>) {
        self.phase = Phase::Serving;
        out.push(Output::Serving);
        for (tag, ask) in std::mem::take(&mut self.waiting) {
            self.begin(tag, ask, out);
        }
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
        assert!(self.flying.len() <= FLYING_MAX, "windows-are-bounded");
    }
}
