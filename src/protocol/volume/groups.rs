//! The groups of the volumes that this node coordinates: one for each PG that one of them has been asked for.
//!
//! ```text
//!   Coordinator ──Ask──► Groups ──► Group of (volume, PG) ──Send──► replicas
//!        ▲                 │                                           │
//!        └─── Answered ────┴──────────────────── answered ◄────────────┘
//! ```
//!
//! A volume is open here under an epoch. When the node has to take a higher one, because its lease had ended, every ask that has no answer
//! is asked again of the group under the new epoch: nobody was told how it went, so it may happen now.
//!
//! What was read is handed out while the lease holds that the volume was opened under (R17). Without it the value waits until every member has confirmed
//! that epoch and version are the newest (R18, `replication/group/confirm.rs`), or for the next epoch: so a node that has lost the
//! manager's majority and has all replicas of a PG goes on reading it. It goes on writing too: what every member has durable needs no lease. A lease that
//! is held anew covers nothing that was opened before it: while there was none, the range may have been another node's.
//!
//! A PG is sealed and recovered when it is first asked for. [`Groups::settle`] does it for all of a volume, which a snapshot needs: a PG
//! that nobody has sealed may still be written to by an earlier owner (R21).
//!
//! Time: an answer that is overdue is asked for again, then its replica is accused; a read that is slow is asked of another replica too; a
//! group that fell silent tells its mark.
//!
//! It does not know where disks are, or how a lease is held.

#[cfg(test)]
mod tests;

use super::{Ask, PieceId, Target};
use crate::base::{
    BlockRun, BufRef, ChunkId, DiskId, Epoch, FixedMap, IoError, Payload, PgId, Slab, Time,
    VolumeId,
};
use crate::protocol::replication::group::{self, Failure, Group, Input, Tag};
use crate::protocol::replication::{
    Answer, Change, Configuration, Header, MEMBERS_MAX, Message, Room, Rule, RulesOff,
};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Asks that have no answer, of all volumes.
const ASKS_MAX: usize = 1 << 20;

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A read that takes longer is asked of another replica too.
    pub slow_read: Duration,
    /// What is not answered for so long is sent again.
    pub send_again: Duration,
    /// And after so long its replica is accused, again and again.
    pub accuse: Duration,
    /// After so long without anything in flight the members are told the mark.
    pub quiet: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            slow_read: Duration::from_millis(5),
            send_again: Duration::from_millis(30),
            accuse: Duration::from_millis(100),
            quiet: Duration::from_millis(200),
        }
    }
}

/// What becomes of a value that is read without a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutLease {
    /// It is handed out when all members have confirmed (R18).
    Confirm,
    /// It waits for the next epoch (R17): a node of this site speaks a version of the wire that has no word for that.
    Wait,
}

/// What the groups want done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Send {
        to: DiskId,
        header: Header,
        message: Message,
        payload: Option<Payload>,
    },
    /// An ask has ended.
    Answered {
        piece: PieceId,
        result: Result<Option<Value>, IoError>,
    },
    /// See [`group::Output::Accuse`].
    Accuse {
        pg: PgId,
        disk: DiskId,
        version: u32,
    },
    /// See [`group::Output::Learn`].
    Learn { pg: PgId, version: u32 },
    /// Another owner has the volume, or part of it. Its asks wait until it is opened under a higher epoch, or closed.
    Fenced { volume: VolumeId, by: Epoch },
    /// What [`Groups::settle`] asked for is done.
    Settled { volume: VolumeId },
}

/// Blocks that were read: those that are not zeroes are at `from`, in their order from the run's first on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub run: BlockRun,
    pub into: BufRef,
    pub from: Option<Payload>,
    pub crcs: [u32; 16],
    /// A bit for each block of the chunk.
    pub zeroes: u16,
}

/// An ask that has no answer.
#[derive(Debug, Clone)]
struct Asked {
    piece: PieceId,
    volume: VolumeId,
    pg: PgId,
    ask: group::Ask,
    /// Where a read goes.
    into: Option<(BlockRun, BufRef)>,
    /// What was read, and is not confirmed.
    unconfirmed: Option<Box<Value>>,
}

/// A volume that is open here.
#[derive(Debug)]
struct Open {
    epoch: Epoch,
    /// How many leases the node had held when it was opened: the last of them covers it.
    leases: u64,
    /// The replicas on this node: reads go there first.
    near: BTreeSet<DiskId>,
    /// Those that it has a group of.
    pgs: BTreeSet<PgId>,
}

/// One group, and what its members owe.
#[derive(Debug)]
struct Entry {
    group: Group,
    /// Since when these members have not answered what they were asked.
    owes: Vec<(DiskId, Time)>,
    /// When what is owed was sent again last.
    sent_again: Time,
    /// The last read that had begun at the last look, and when that was.
    reads_seen: (u64, Time),
    /// Since when nothing is in flight.
    idle_since: Option<Time>,
    /// Whether the members know the mark that it fell silent with.
    is_told: bool,
    /// Whether it is looked at when time passes.
    is_active: bool,
    /// Asks that wait for room in the group, in their order.
    later: VecDeque<u32>,
}

impl Entry {
    /// Since when a member has not answered; from now on, if it has until now.
    fn owes_since(&mut self, disk: DiskId, now: Time) -> Time {
        let known = self.owes.iter().find(|(of, _)| *of == disk);
        known.map(|(_, since)| *since).unwrap_or_else(|| {
            self.owes.push((disk, now));
            now
        })
    }

    /// Keeps the books after a step; whether it is to be looked at from now on.
    fn look_at(&mut self, now: Time) -> bool {
        if !self.group.is_idle() {
            self.idle_since = None;
            self.is_told = false;
        } else if self.is_told {
            return false;
        } else {
            self.idle_since.get_or_insert(now);
            self.owes.clear();
        }
        !std::mem::replace(&mut self.is_active, true)
    }

    /// A member has answered, or owes nothing.
    fn owes_nothing(&mut self, disk: DiskId) {
        self.owes.retain(|(of, _)| *of != disk);
    }
}

/// All groups of one shard. See the [module](self).
#[derive(Debug)]
pub struct Groups {
    patience: Patience,
    volumes: FixedMap<VolumeId, Open>,
    /// The newest that is known.
    configurations: FixedMap<PgId, Configuration>,
    groups: FixedMap<(VolumeId, PgId), Entry>,
    /// Which volumes have a group of a PG.
    by_pg: BTreeSet<(PgId, VolumeId)>,
    /// Those that something is in flight in, or that have a mark to tell.
    active: BTreeSet<(VolumeId, PgId)>,
    /// Those that are to be sealed and recovered, and are not: see [`Groups::settle`].
    unsettled: BTreeSet<(VolumeId, PgId)>,
    asks: Slab<Asked>,
    /// What is read is handed out until then.
    lease: Time,
    /// How many leases were held.
    leases: u64,
    without_lease: WithoutLease,
    next_look: Option<Time>,
    off: RulesOff,
    /// Used again and again, so that nothing is allocated.
    outputs: Vec<group::Output>,
    looked_at: Vec<(VolumeId, PgId)>,
    overdue: Vec<Input>,
}

impl Groups {
    pub fn new(patience: Patience, off: RulesOff) -> Groups {
        Groups {
            patience,
            volumes: FixedMap::default(),
            configurations: FixedMap::default(),
            groups: FixedMap::default(),
            by_pg: BTreeSet::new(),
            active: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            asks: Slab::new(ASKS_MAX),
            lease: Time(0),
            leases: 0,
            without_lease: WithoutLease::Confirm,
            next_look: None,
            off,
            outputs: Vec::new(),
            looked_at: Vec::new(),
            overdue: Vec::new(),
        }
    }

    /// The node holds a lease that it did not hold before, until then by its own clock. It covers what is opened from now on.
    pub fn lease_anew(&mut self, until: Time) {
        self.leases += 1;
        self.lease = until;
    }

    /// The node's lease holds until then, by its own clock; it has ended where that is past.
    pub fn lease(&mut self, until: Time) {
        self.lease = until;
    }

    /// What becomes of values that are read without a lease from now on. Those that are being confirmed go on.
    pub fn without_lease(&mut self, what: WithoutLease) {
        self.without_lease = what;
    }

    /// Whether the range of a volume is surely this node's.
    fn is_covered(&self, now: Time, volume: VolumeId) -> bool {
        let open = self.volumes.get(&volume);
        let is_under = open.is_some_and(|open| open.leases == self.leases);
        now < self.lease && (is_under || self.off.on(Rule::R17Anew))
    }

    /// What the manager says of a PG.
    pub fn configured(
        &mut self,
        now: Time,
        pg: PgId,
        configuration: Configuration,
        out: &mut Vec<Output>,
    ) {
        let known = self.configurations.get(&pg).map_or(0, |of| of.version());
        if configuration.version() <= known {
            return;
        }
        let of_pg = (pg, VolumeId(0))..=(pg, VolumeId(u64::MAX));
        let all: Vec<_> = self.by_pg.range(of_pg).copied().collect();
        for (pg, volume) in all {
            let input = Input::Configured(configuration.clone());
            self.step(now, (volume, pg), input, out);
        }
        self.configurations.insert(pg, configuration);
        // It may have been waited for.
        let waiting = self.unsettled.iter().filter(|of| of.1 == pg);
        let waiting: Vec<_> = waiting.copied().collect();
        for of in waiting {
            if !self.groups.contains_key(&of) {
                self.make(now, of, out);
            }
        }
    }

    /// The configuration of a PG, as far as it is known here.
    pub fn configuration(&self, pg: PgId) -> Option<&Configuration> {
        self.configurations.get(&pg)
    }

    /// The volume is this node's under `epoch`, which nobody has had. What had no answer under an earlier one is asked again.
    pub fn open(
        &mut self,
        now: Time,
        volume: VolumeId,
        epoch: Epoch,
        near: BTreeSet<DiskId>,
        out: &mut Vec<Output>,
    ) {
        self.drop_groups(volume);
        let pgs = BTreeSet::new();
        let leases = self.leases;
        let open = Open {
            epoch,
            leases,
            near,
            pgs,
        };
        self.volumes.insert(volume, open);
        let of_volume = self.asks.iter().filter(|(_, asked)| asked.volume == volume);
        let tags: Vec<u32> = of_volume.map(|(tag, _)| tag).collect();
        for tag in tags {
            self.begin(now, tag, out);
        }
    }

    /// Seals and recovers all of these PGs under the present epoch, those that nothing is asked of too; [`Output::Settled`] says when it is done.
    pub fn settle(
        &mut self,
        now: Time,
        volume: VolumeId,
        pgs: impl IntoIterator<Item = PgId>,
        out: &mut Vec<Output>,
    ) {
        if !self.volumes.contains_key(&volume) {
            return;
        }
        let serves = |pg| {
            let entry = self.groups.get(&(volume, pg));
            entry.is_some_and(|entry| entry.group.is_serving())
        };
        let pgs: Vec<PgId> = pgs.into_iter().filter(|&pg| !serves(pg)).collect();
        if pgs.is_empty() {
            return out.push(Output::Settled { volume });
        }
        self.unsettled.extend(pgs.iter().map(|&pg| (volume, pg)));
        for pg in pgs {
            if !self.groups.contains_key(&(volume, pg)) {
                self.make(now, (volume, pg), out);
            }
        }
    }

    /// A PG of a volume is recovered.
    fn on_serving(&mut self, (volume, pg): (VolumeId, PgId), out: &mut Vec<Output>) {
        let is_last = self.unsettled.remove(&(volume, pg))
            && self.unsettled.range(all_of(volume)).next().is_none();
        if is_last {
            out.push(Output::Settled { volume });
        }
    }

    /// The replica on this node that may be looked at now, past its group: it is in sync, the group serves, and the range is surely this node's.
    pub fn near(&self, now: Time, volume: VolumeId, pg: PgId) -> Option<DiskId> {
        let serves = |entry: &&Entry| entry.group.is_serving() && self.is_covered(now, volume);
        let entry = self.groups.get(&(volume, pg)).filter(serves)?;
        entry.group.near()
    }

    /// A disk of this node has become low, or ample again: its groups need no answer that says so.
    pub fn heard_of_room(&mut self, disk: DiskId, room: Room) {
        if !self.off.on(Rule::Reserve) {
            let groups = self.groups.values_mut();
            groups.for_each(|entry| entry.group.heard_of_room(disk, room));
        }
    }

    /// The epoch under which a volume is open here.
    pub fn epoch(&self, volume: VolumeId) -> Option<Epoch> {
        self.volumes.get(&volume).map(|open| open.epoch)
    }

    /// The volume is not this node's any more, and what has no answer never gets one from here.
    pub fn close(&mut self, volume: VolumeId, out: &mut Vec<Output>) {
        self.drop_groups(volume);
        self.volumes.remove(&volume);
        let of_volume = self.asks.iter().filter(|(_, asked)| asked.volume == volume);
        let tags: Vec<u32> = of_volume.map(|(tag, _)| tag).collect();
        for tag in tags {
            self.answer(tag, Err(IoError::Closed), out);
        }
    }

    /// The volume is not this node's any more, or what is in flight starts over: nothing of it is answered.
    pub fn drop_asks(&mut self, volume: VolumeId) {
        self.drop_groups(volume);
        self.volumes.remove(&volume);
        let of_volume = self.asks.iter().filter(|(_, asked)| asked.volume == volume);
        let tags: Vec<u32> = of_volume.map(|(tag, _)| tag).collect();
        for tag in tags {
            self.asks.remove(tag);
        }
    }

    /// Whether every group of a volume has told its mark, so that who takes it over finds nothing to write again.
    pub fn is_quiet(&self, volume: VolumeId) -> bool {
        !self.active.iter().any(|(of, _)| *of == volume)
    }

    fn drop_groups(&mut self, volume: VolumeId) {
        let open = self.volumes.get_mut(&volume);
        let pgs = open.map(|open| std::mem::take(&mut open.pgs));
        for pg in pgs.into_iter().flatten() {
            self.groups.remove(&(volume, pg));
            self.by_pg.remove(&(pg, volume));
            self.active.remove(&(volume, pg));
        }
        self.unsettled.retain(|of| of.0 != volume);
    }

    /// What the coordinator asks of a chunk. `payload`: of a write, what is at its buffer.
    pub fn ask(
        &mut self,
        now: Time,
        piece: PieceId,
        target: Target,
        (ask, payload): (&Ask, Option<Payload>),
        out: &mut Vec<Output>,
    ) {
        let at = ChunkId {
            family: target.family,
            layer: target.layer,
            chunk: target.chunk,
        };
        let change = |change: Change, payload| group::Ask::Change {
            at,
            change,
            payload,
        };
        let (ask, into) = match *ask {
            Ask::Read { run, buf } => (group::Ask::Read { at, run }, Some((run, buf))),
            Ask::Write { run, crcs, .. } => (change(Change::Write { run, crcs }, payload), None),
            Ask::Zero { run, .. } => (change(Change::Zero { run }, None), None),
            Ask::ZeroChunks { count, .. } => (change(Change::ZeroChunks { count }, None), None),
            Ask::Map { .. } => (group::Ask::Turn, None),
        };
        let asked = Asked {
            piece,
            volume: target.volume,
            pg: target.pg,
            ask,
            into,
            unconfirmed: None,
        };
        match self.asks.insert(asked) {
            Ok(tag) => self.begin(now, tag, out),
            Err(_) => out.push(Output::Answered {
                piece,
                result: Err(IoError::Busy),
            }),
        }
    }

    /// Asks the group; where there is none it is made, and recovers what an earlier owner left.
    fn begin(&mut self, now: Time, tag: u32, out: &mut Vec<Output>) {
        let Some(asked) = self.asks.get_mut(tag) else {
            return;
        };
        // What was read under an earlier epoch is read again.
        asked.unconfirmed = None;
        let (volume, pg, ask) = (asked.volume, asked.pg, asked.ask.clone());
        let of = (volume, pg);
        // What comes waits behind what waits already, and is not refused: front ends do not know of groups.
        if let Some(entry) = self.groups.get_mut(&of)
            && !(entry.later.is_empty() && entry.group.has_room())
        {
            return entry.later.push_back(tag);
        }
        self.ask_group(now, of, (tag, ask), out);
    }

    fn ask_group(
        &mut self,
        now: Time,
        of: (VolumeId, PgId),
        (tag, ask): (u32, group::Ask),
        out: &mut Vec<Output>,
    ) {
        let input = || Input::Ask {
            tag: Tag(u64::from(tag)),
            ask: ask.clone(),
        };
        let is_asked = self.step(now, of, input(), out)
            || (self.make(now, of, out) && self.step(now, of, input(), out));
        if !is_asked {
            self.answer(tag, Err(IoError::Closed), out);
        }
    }

    /// Asks that waited for room in a group go on.
    fn go_on(&mut self, now: Time, of: (VolumeId, PgId), out: &mut Vec<Output>) {
        while let Some(entry) = self.groups.get_mut(&of)
            && entry.group.has_room()
            && let Some(tag) = entry.later.pop_front()
        {
            let asked = self.asks.get(tag).map(|asked| asked.ask.clone());
            if let Some(ask) = asked {
                self.ask_group(now, of, (tag, ask), out);
            }
        }
    }

    /// Makes the group of a PG; whether that could be.
    fn make(&mut self, now: Time, of: (VolumeId, PgId), out: &mut Vec<Output>) -> bool {
        let (Some(open), Some(configuration)) =
            (self.volumes.get_mut(&of.0), self.configurations.get(&of.1))
        else {
            return false;
        };
        let near = configuration
            .in_sync()
            .find(|disk| open.near.contains(disk));
        let mut outputs = std::mem::take(&mut self.outputs);
        let group = Group::new(
            of,
            open.epoch,
            configuration.clone(),
            near,
            self.off,
            &mut outputs,
        );
        let entry = Entry {
            group,
            owes: Vec::new(),
            sent_again: now,
            reads_seen: (0, now),
            idle_since: None,
            is_told: false,
            is_active: true,
            later: VecDeque::new(),
        };
        self.active.insert(of);
        open.pgs.insert(of.1);
        self.by_pg.insert((of.1, of.0));
        self.groups.insert(of, entry);
        self.outputs = outputs;
        self.take(now, of, out);
        true
    }

    /// A replica has answered a frame.
    pub fn answered(
        &mut self,
        now: Time,
        from: DiskId,
        header: Header,
        answer: Answer,
        payload: Option<Payload>,
        out: &mut Vec<Output>,
    ) {
        let of = (header.range, header.pg);
        let input = Input::Answer {
            from,
            header,
            answer,
            payload,
        };
        self.step(now, of, input, out);
    }

    /// There is a new connection to a disk: what was on the old one may be lost.
    pub fn connected(&mut self, now: Time, to: DiskId, out: &mut Vec<Output>) {
        for of in self.active.clone() {
            self.step(now, of, Input::Connected { to }, out);
        }
    }

    /// Tells a group something; whether there is one.
    fn step(
        &mut self,
        now: Time,
        of: (VolumeId, PgId),
        input: Input,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(entry) = self.groups.get_mut(&of) else {
            return false; // of an epoch that is over
        };
        match &input {
            Input::Configured(configuration) => {
                let open = self.volumes.get(&of.0);
                let is_near = |disk: &DiskId| open.is_some_and(|open| open.near.contains(disk));
                entry.group.read_from(configuration.in_sync().find(is_near));
            }
            Input::Answer { from, .. } => entry.owes_nothing(*from),
            _ => {}
        }
        let ends = !matches!(input, Input::Ask { .. }) && !entry.later.is_empty();
        entry.group.step(input, &mut self.outputs);
        self.take(now, of, out);
        if ends {
            self.go_on(now, of, out);
        }
        true
    }

    /// Hands on what a group wants.
    fn take(&mut self, now: Time, of: (VolumeId, PgId), out: &mut Vec<Output>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let mut unconfirmed = Vec::new();
        for output in outputs.drain(..) {
            match output {
                group::Output::Send {
                    to,
                    header,
                    message,
                    payload,
                } => out.push(Output::Send {
                    to,
                    header,
                    message,
                    payload,
                }),
                group::Output::Changed { tag } => self.answer(tag.0 as u32, Ok(None), out),
                group::Output::Value {
                    tag,
                    crcs,
                    zeroes,
                    payload,
                } => {
                    let found = (crcs, zeroes, payload);
                    if !self.on_value(now, tag.0 as u32, found, out) {
                        unconfirmed.push(tag);
                    }
                }
                group::Output::Confirmed { tag } => self.on_confirmed(tag.0 as u32, out),
                group::Output::Failed { tag, why } => match why {
                    // It waits for the next epoch, or for the volume to be closed.
                    Failure::Fenced => {}
                    Failure::Busy => self.answer(tag.0 as u32, Err(IoError::Busy), out),
                    Failure::Unreadable | Failure::Unstored => {
                        self.answer(tag.0 as u32, Err(IoError::Failed), out);
                    }
                    Failure::NoSpace => self.answer(tag.0 as u32, Err(IoError::NoSpace), out),
                },
                group::Output::Serving => self.on_serving(of, out),
                group::Output::Accuse { disk, version } => out.push(Output::Accuse {
                    pg: of.1,
                    disk,
                    version,
                }),
                group::Output::Learn { version } => {
                    out.push(Output::Learn { pg: of.1, version });
                }
                group::Output::Fenced { by } => out.push(Output::Fenced { volume: of.0, by }),
            }
        }
        self.outputs = outputs;
        if let Some(entry) = self.groups.get_mut(&of) {
            for &tag in &unconfirmed {
                entry.group.step(Input::Confirm { tag }, &mut self.outputs);
            }
            if entry.look_at(now) {
                self.active.insert(of);
            }
        }
        if !unconfirmed.is_empty() {
            return self.take(now, of, out);
        }
        if self.next_look.is_none() && !self.active.is_empty() {
            self.next_look = Some(now + self.patience.slow_read);
        }
    }

    /// Blocks were read; whether nothing is to be confirmed.
    fn on_value(
        &mut self,
        now: Time,
        tag: u32,
        (crcs, zeroes, from): ([u32; 16], u16, Option<Payload>),
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(asked) = self.asks.get(tag) else {
            return true; // nobody waits for it
        };
        let volume = asked.volume;
        let value = asked.into.map(|(run, into)| Value {
            run,
            into,
            from,
            crcs,
            zeroes,
        });
        // The lease is checked with the value in hand. Where it has ended, the range may be somebody else's by now (R17).
        if self.is_covered(now, volume) || self.off.on(Rule::R17) {
            self.answer(tag, Ok(value), out);
            return true;
        }
        if self.without_lease == WithoutLease::Wait {
            return true;
        }
        if let Some(asked) = self.asks.get_mut(tag) {
            asked.unconfirmed = value.map(Box::new);
        }
        false
    }

    /// What was read without a lease may be handed out (R18).
    fn on_confirmed(&mut self, tag: u32, out: &mut Vec<Output>) {
        let asked = self.asks.get_mut(tag);
        if let Some(value) = asked.and_then(|asked| asked.unconfirmed.take()) {
            self.answer(tag, Ok(Some(*value)), out);
        }
    }

    fn answer(&mut self, tag: u32, result: Result<Option<Value>, IoError>, out: &mut Vec<Output>) {
        if let Some(Asked { piece, .. }) = self.asks.remove(tag) {
            out.push(Output::Answered { piece, result });
        }
    }

    /// When [`Groups::expire`] is to be called.
    pub fn deadline(&self) -> Option<Time> {
        self.next_look
    }

    /// Looks at every group in which something is in flight.
    pub fn expire(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.next_look.is_none_or(|at| at > now) {
            return;
        }
        let mut looked_at = std::mem::take(&mut self.looked_at);
        let mut overdue = std::mem::take(&mut self.overdue);
        looked_at.extend(&self.active);
        for of in looked_at.drain(..) {
            self.find_overdue(now, of, &mut overdue);
            for input in overdue.drain(..) {
                self.step(now, of, input, out);
            }
        }
        (self.looked_at, self.overdue) = (looked_at, overdue);
        let wait = self.patience.slow_read;
        self.next_look = (!self.active.is_empty()).then_some(now + wait);
    }

    /// What a group is told because time has passed.
    fn find_overdue(&mut self, now: Time, of: (VolumeId, PgId), inputs: &mut Vec<Input>) {
        let Patience {
            slow_read,
            send_again,
            accuse,
            quiet,
        } = self.patience;
        let Some(entry) = self.groups.get_mut(&of) else {
            return;
        };
        if let Some(since) = entry.idle_since {
            if now.since(since) >= quiet {
                self.active.remove(&of);
                entry.is_active = false;
                entry.is_told = true;
                inputs.push(Input::Quiet);
            }
            return;
        }
        let (until, seen) = entry.reads_seen;
        if now.since(seen) >= slow_read {
            inputs.push(Input::Slow { until });
            entry.reads_seen = (entry.group.last_read(), now);
        }
        let sends = now.since(entry.sent_again) >= send_again;
        if sends {
            entry.sent_again = now;
        }
        // Who is a member no more owes nothing.
        let group = &entry.group;
        let is_member = |disk| group.members().any(|member| member == disk);
        entry.owes.retain(|(disk, _)| is_member(*disk));
        for at in 0..MEMBERS_MAX {
            let Some(disk) = entry.group.members().nth(at) else {
                break;
            };
            if !entry.group.waits_for(disk) {
                entry.owes_nothing(disk);
                continue;
            }
            let since = entry.owes_since(disk, now);
            if sends && now.since(since) >= send_again {
                inputs.push(Input::Connected { to: disk });
            }
            if sends && now.since(since) >= accuse {
                inputs.push(Input::Unanswered { from: disk });
            }
        }
    }

    /// Asserts the named invariants of every group.
    pub fn check(&self) {
        self.groups.values().for_each(|entry| entry.group.check());
    }
}

/// The places of a volume's groups.
fn all_of(volume: VolumeId) -> std::ops::RangeInclusive<(VolumeId, PgId)> {
    (volume, PgId(0))..=(volume, PgId(u32::MAX))
}
