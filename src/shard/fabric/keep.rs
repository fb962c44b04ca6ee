//! The side of the disks: the replicas that the manager has put there.

use super::Fabric;
use super::door::{Output, StoreAnswer, StoreAsk, Stores, To};
use super::pace::Paced;
use crate::base::{DiskId, PgId, Time};
use crate::protocol::replication::replica::{self, Durable, Op, Replica};
use crate::protocol::replication::{Configuration, Role, Room};
use crate::protocol::report::Report;
use crate::protocol::scrub;
use crate::protocol::scrub::Mender;
use crate::protocol::scrub::compare::{self, Comparer};
use crate::wire::Frame;
use std::time::Duration;

impl Fabric {
    pub(super) fn put_disk(&mut self, now: Time, disk: DiskId) {
        if self.disks.insert(disk) {
            let (life, off) = (self.incarnation.0, self.off.scrub);
            let comparer = Comparer::new(disk, life, self.rests, off);
            self.menders.insert(disk, Mender::new(disk, off));
            self.comparers.insert(disk, comparer);
            let limit = self.limits.get(&disk).copied();
            self.paces.insert(disk, Paced::new(now, limit));
        }
    }

    pub(super) fn drop_disk(&mut self, disk: DiskId) {
        self.disks.remove(&disk);
        self.menders.remove(&disk);
        self.comparers.remove(&disk);
        self.paces.remove(&disk);
        self.replicas.retain(|(of, _), _| *of != disk);
        self.filled.retain(|(of, _), _| *of != disk);
        self.lost.retain(|(of, _), _| *of != disk);
        self.progress.retain(|(of, _), _| *of != disk);
    }

    /// Tells the groups of a PG's configuration; makes, tells and ends its replicas that are here.
    pub(super) fn configured(
        &mut self,
        now: Time,
        (pg, of): (PgId, Configuration),
        stores: &dyn Stores,
        out: &mut Vec<Output>,
    ) {
        let of_groups = &mut self.of_groups.list;
        self.groups.configured(now, pg, of.clone(), of_groups);
        self.drain(now, out);
        for disk in self.disks.iter().copied().collect::<Vec<_>>() {
            match of.role(disk) {
                None => self.forget(now, (disk, pg), out),
                Some(role) => self.configure(now, (disk, pg), (&of, role), stores, out),
            }
        }
    }

    /// A replica that the manager lists.
    fn configure(
        &mut self,
        now: Time,
        at: (DiskId, PgId),
        (of, role): (&Configuration, Role),
        stores: &dyn Stores,
        out: &mut Vec<Output>,
    ) {
        let (disk, pg) = at;
        if self.forgetting.contains(&at) {
            return;
        }
        if !self.replicas.contains_key(&at) {
            // Of a PG that was never configured anew nobody has anything that this replica lacks.
            let created = || Durable::created(u32::from(of.version() == 1));
            let durable = stores.durable(disk, pg).unwrap_or_else(created);
            let mut replica = Replica::new((pg, disk), durable, self.off.replication);
            let room = replica::Input::Room(stores.room(disk));
            replica.step(room, &mut self.of_replica);
            self.replicas.insert(at, replica);
            self.tell_pace(at, out);
        }
        self.look_at_limit(now, (at, role), out);
        if !matches!(role, Role::Joining { .. }) {
            self.progress.remove(&at);
        }
        let is_joining =
            |session: u32| matches!(role, Role::Joining { session: of, .. } if of == session);
        let is_open =
            |found: &(DiskId, PgId), session: &mut u32| *found != at || is_joining(*session);
        self.filled.retain(is_open);
        self.lost.retain(is_open);
        let input = replica::Input::Configured(of.clone());
        self.step_replica(at, input, out);
        let input = scrub::Input::Configured { pg, of: of.clone() };
        self.step_mender(now, disk, input, out);
        let input = compare::Input::Configured { pg, of: of.clone() };
        self.step_comparer(now, disk, input, out);
        // A store may find that at its opening.
        if stores.is_torn(disk, pg) {
            self.on_torn(now, at, out);
        }
    }

    pub(super) fn on_connected(&mut self, now: Time, peer: DiskId, out: &mut Vec<Output>) {
        for own in self.menders.keys().copied().collect::<Vec<_>>() {
            self.step_mender(now, own, scrub::Input::Connected { to: peer }, out);
        }
        self.groups.connected(now, peer, &mut self.of_groups.list);
        self.drain(now, out);
    }

    pub(super) fn on_disconnected(&mut self, now: Time, peer: DiskId, out: &mut Vec<Output>) {
        for own in self.menders.keys().copied().collect::<Vec<_>>() {
            self.step_mender(now, own, scrub::Input::Unanswered { from: peer }, out);
            self.step_comparer(now, own, compare::Input::Unanswered { from: peer }, out);
        }
        for at in self.replicas.keys().copied().collect::<Vec<_>>() {
            self.step_replica(at, replica::Input::Unanswered { from: peer }, out);
        }
    }

    /// What the manager may have missed is told again, and what sources may have missed is asked again.
    pub(super) fn say_again(&mut self, out: &mut Vec<Output>) {
        let report = |report| out.push(Output::Report(report));
        let filled = self.filled.iter();
        let filled = filled.map(|(&(disk, pg), &session)| Report::Filled { pg, disk, session });
        let lost = self.lost.iter();
        let lost = lost.map(|(&(disk, pg), &session)| Report::SessionLost { pg, disk, session });
        filled.chain(lost).for_each(report);
        for at in self.replicas.keys().copied().collect::<Vec<_>>() {
            self.step_replica(at, replica::Input::AskAgain, out);
        }
        for disk in self.paces.keys().copied().collect::<Vec<_>>() {
            self.take_turns(disk, out);
        }
    }

    pub(super) fn on_room(&mut self, disk: DiskId, room: Room) {
        self.groups.heard_of_room(disk, room);
        let of_disk = (disk, PgId(0))..=(disk, PgId(u32::MAX));
        for (_, replica) in self.replicas.range_mut(of_disk) {
            replica.step(replica::Input::Room(room), &mut self.of_replica);
            debug_assert!(self.of_replica.is_empty(), "its next answers say so");
        }
    }

    pub(super) fn on_answered(
        &mut self,
        now: Time,
        (at, took): ((DiskId, PgId), Duration),
        answer: StoreAnswer,
        stores: &dyn Stores,
        out: &mut Vec<Output>,
    ) {
        let (disk, pg) = at;
        match answer {
            StoreAnswer::Replica(input) => {
                let op = op_of(&input);
                if let replica::Input::Stored {
                    op: Op::Fill(_),
                    ok: true,
                } = &input
                {
                    self.note_filled(at);
                }
                self.step_replica(at, input, out);
                if let Some(op) = op {
                    self.pace(now, disk, (op, took), out);
                }
            }
            StoreAnswer::Mender(input) => self.step_mender(now, disk, input, out),
            StoreAnswer::Comparer(input) => self.step_comparer(now, disk, input, out),
            StoreAnswer::Inspected {
                op,
                at: chunk,
                found,
            } => {
                self.on_inspected(now, at, (op, chunk), found, out);
            }
            // Where it is on the list again, it begins empty (R24).
            StoreAnswer::Forgotten => {
                self.forgetting.remove(&at);
                if let Some(of) = self.groups.configuration(pg).cloned() {
                    self.configured(now, (pg, of), stores, out);
                }
            }
        }
    }

    pub(super) fn step_replica(
        &mut self,
        at: (DiskId, PgId),
        input: replica::Input,
        out: &mut Vec<Output>,
    ) {
        let Some(replica) = self.replicas.get_mut(&at) else {
            return;
        };
        let range = match &input {
            replica::Input::Frame { header, .. } => Some(header.range),
            _ => None,
        };
        let mut list = std::mem::take(&mut self.of_replica);
        replica.step(input, &mut list);
        // All of its windows: nothing for each frame of a release.
        if cfg!(debug_assertions) {
            replica.check();
        }
        let (disk, pg) = at;
        if let Some(range) = range {
            let (epoch, mark) = replica.mark(range);
            if mark > 0 {
                out.push(Output::Mark {
                    disk,
                    pg,
                    range,
                    epoch,
                    mark,
                });
            }
        }
        for output in list.drain(..) {
            self.take_replica(at, output, out);
        }
        self.of_replica = list;
    }

    fn take_replica(
        &mut self,
        (disk, pg): (DiskId, PgId),
        output: replica::Output,
        out: &mut Vec<Output>,
    ) {
        if let replica::Output::Fill {
            blocks, content, ..
        } = &output
        {
            self.note_held(disk, content.data & blocks);
        }
        out.push(match output {
            replica::Output::Fence { .. }
            | replica::Output::Change { .. }
            | replica::Output::Read { .. }
            | replica::Output::Look { .. }
            | replica::Output::List { .. }
            | replica::Output::Fetch { .. }
            | replica::Output::Fill { .. } => Output::Store {
                disk,
                pg,
                ask: StoreAsk::Replica(output),
            },
            replica::Output::Answer {
                to,
                header,
                answer,
                payload,
            } => Output::Send {
                to: To::Asker(to),
                disk,
                frame: Frame::Answer(header, answer),
                payload,
            },
            replica::Output::FillAnswer {
                to,
                header,
                answer,
                payload,
            } => Output::Send {
                to: To::Asker(to),
                disk,
                frame: Frame::FillAnswer(header, answer),
                payload,
            },
            replica::Output::FillAsk { to, header, ask } => Output::Send {
                to: To::Disk(to),
                disk: to,
                frame: Frame::FillAsk(header, ask),
                payload: None,
            },
            replica::Output::Filled { session, .. } => {
                self.filled.insert((disk, pg), session);
                Output::Report(Report::Filled { pg, disk, session })
            }
            replica::Output::Lost { session } => {
                self.lost.insert((disk, pg), session);
                Output::Report(Report::SessionLost { pg, disk, session })
            }
            // The manager tells everybody.
            replica::Output::Learn { .. } => return,
        });
    }
}

/// The operation that an answer of a store is of.
fn op_of(answer: &replica::Input) -> Option<Op> {
    match *answer {
        replica::Input::Stored { op, .. }
        | replica::Input::NoSpace { op }
        | replica::Input::Loaded { op, .. }
        | replica::Input::Listed { op, .. }
        | replica::Input::Fetched { op, .. }
        | replica::Input::Looked { op, .. }
        | replica::Input::NotLoaded { op } => Some(op),
        _ => None,
    }
}
