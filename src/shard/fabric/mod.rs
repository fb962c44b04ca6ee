#![forbid(unsafe_code)]
//! The fabric: what a shard decides above its stores, wired together. Coordinators of volumes, and the replicas on the shard's disks.
//!
//! ```text
//!   front ends ──Request──► Coordinator ──Ask──► Groups ──┐                       ┌──► Replica (disk, PG) ──► its store
//!                                                         ├── Send: to the node ──┤
//!                           Replica, Mender, Comparer ────┘   that has the disk   ├──► Mender, Comparer of the disk ──► its store
//!                                                                                 └──► Groups, Replica: answers
//!   the node's control plane ──Order──► all of them;  they ──Report, Drained, Settled, ...──► the node's control plane
//! ```
//!
//! One machine's output is another one's input, a frame to somebody, or something for the driver. Nothing is decided here that a machine could decide; what is,
//! is who is made, who is told, and who is forgotten:
//! - a replica is made when its disk may serve, the manager lists it, and nothing of an earlier one is left at the store (R24);
//! - a frame about a layer that the disks have not recorded waits: without its parent what it does not hold would read as nothing;
//! - what a disk leaves room for is shared by its replicas (`pace.rs`), and so is what a limit allows (`limit.rs`).
//!
//! A frame for a disk of this very shard leaves as any other, and the driver hands it back in: one way for all.
//!
//! Invariants are those of the machines: [`Fabric::check`] asserts them. It does not know nodes, connections, bytes, the catalog, or what a store does.

mod compare;
mod coordinate;
mod door;
mod keep;
mod limit;
mod mend;
mod orders;
mod pace;
#[cfg(test)]
mod tests;

pub use door::{Input, Inspected, Order, Output, Pace, StoreAnswer, StoreAsk, Stores, To, Unread};

use crate::base::{
    Breaks, ChunkId, DiskId, Holds, LayerId, MapRun, Payload, PgId, Span, Time, VolumeId,
};
use crate::protocol::membership::Incarnation;
use crate::protocol::replication::replica::{self, Asker, Replica};
use crate::protocol::replication::{Header, Message, RulesOff};
use crate::protocol::scrub;
use crate::protocol::scrub::Mender;
use crate::protocol::scrub::compare::{self as comparison, Comparer, Rests};
use crate::protocol::volume::groups::{self, Groups, Patience};
use crate::protocol::volume::{self, Coordinator, PieceId};
use crate::wire::Frame;
use pace::Paced;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Frames that wait until their layer is known; more are lost, and asked again.
const EARLY_MAX: usize = 1024;

/// What is switched off, and what is planted, to show that it is missed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Off {
    pub replication: RulesOff,
    pub scrub: scrub::RulesOff,
    pub breaks: Breaks,
}

/// Outputs of a machine that wait to be taken; their room is used again.
#[derive(Debug)]
struct Queue<T> {
    list: Vec<T>,
    spare: Vec<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue {
            list: Vec::new(),
            spare: Vec::new(),
        }
    }
}

impl<T> Queue<T> {
    fn take(&mut self) -> Vec<T> {
        std::mem::replace(&mut self.list, std::mem::take(&mut self.spare))
    }

    fn give_back(&mut self, used: Vec<T>) {
        self.spare = used;
    }
}

/// A frame of a coordinator that came before its layer.
#[derive(Debug)]
struct Early {
    from: Asker,
    disk: DiskId,
    header: Header,
    message: Message,
    payload: Option<Payload>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Fabric {
    incarnation: Incarnation,
    rests: Rests,
    off: Off,
    coordinator: Coordinator,
    groups: Groups,
    /// The layers that the disks have recorded, and whether anything is below them.
    layers: BTreeMap<LayerId, comparison::Below>,
    /// Disks of this shard that may serve.
    disks: BTreeSet<DiskId>,
    replicas: BTreeMap<(DiskId, PgId), Replica>,
    menders: BTreeMap<DiskId, Mender>,
    comparers: BTreeMap<DiskId, Comparer>,
    paces: BTreeMap<DiskId, Paced>,
    /// How many bytes a second disks may be filled with that have a limit, whether they may serve yet or not.
    limits: BTreeMap<DiskId, u64>,
    early: VecDeque<Early>,
    /// Replicas that stores are forgetting: no new one is made before that is done.
    forgetting: BTreeSet<(DiskId, PgId)>,
    /// Sessions that are filled and not promoted, and those that are lost.
    filled: BTreeMap<(DiskId, PgId), u32>,
    lost: BTreeMap<(DiskId, PgId), u32>,
    /// How many chunks were filled in a session: its number, and the count.
    progress: BTreeMap<(DiskId, PgId), (u32, u64)>,
    of_coordinator: Queue<volume::Output>,
    of_groups: Queue<groups::Output>,
    of_replica: Vec<replica::Output>,
    holds: Holds,
    dropped: Vec<Span>,
    /// Maps that are asked for, and what those brought that were answered in the last step.
    mapping: BTreeMap<PieceId, Mapping>,
    map: Vec<MapRun>,
}

/// What is to be looked at for a map.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    volume: VolumeId,
    pg: PgId,
    at: ChunkId,
    count: u32,
}

impl Fabric {
    /// Of one start of a node.
    pub fn new(incarnation: Incarnation, rests: Rests, off: Off) -> Fabric {
        Fabric {
            incarnation,
            rests,
            off,
            coordinator: Coordinator::new(off.breaks),
            groups: Groups::new(Patience::default(), off.replication),
            layers: BTreeMap::new(),
            disks: BTreeSet::new(),
            replicas: BTreeMap::new(),
            menders: BTreeMap::new(),
            comparers: BTreeMap::new(),
            paces: BTreeMap::new(),
            limits: BTreeMap::new(),
            early: VecDeque::new(),
            forgetting: BTreeSet::new(),
            filled: BTreeMap::new(),
            lost: BTreeMap::new(),
            progress: BTreeMap::new(),
            of_coordinator: Queue::default(),
            of_groups: Queue::default(),
            of_replica: Vec::new(),
            holds: Holds::default(),
            dropped: Vec::new(),
            mapping: BTreeMap::new(),
            map: Vec::new(),
        }
    }

    /// What maps found that were answered since the turn began.
    pub fn map(&self) -> &[MapRun] {
        &self.map
    }

    /// The book of payload that is held here.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(
        &mut self,
        now: Time,
        input: Input<'_>,
        stores: &dyn Stores,
        out: &mut Vec<Output>,
    ) {
        match input {
            Input::Request(request) => self.on_request(now, request, out),
            Input::Checksummed { piece, crcs } => {
                (self.coordinator).checksummed(piece, crcs, &mut self.of_coordinator.list);
            }
            Input::Frame {
                from,
                disk,
                frame,
                payload,
            } => self.on_frame(now, (from, disk), frame, payload, out),
            Input::Answered {
                disk,
                pg,
                answer,
                took,
            } => self.on_answered(now, ((disk, pg), took), answer, stores, out),
            Input::Mapped { piece, result } => self.on_mapped(now, piece, result),
            Input::Damaged {
                disk,
                pg,
                at,
                block,
                crc,
            } => {
                if self.replicas.contains_key(&(disk, pg)) {
                    let input = scrub::Input::Damaged { pg, at, block, crc };
                    self.step_mender(now, disk, input, out);
                }
            }
            Input::Torn { disk, pg } => self.on_torn(now, (disk, pg), out),
            Input::Room { disk, room } => self.on_room(disk, room),
            Input::Order(order) => self.on_order(now, order, stores, out),
        }
        self.drain(now, out);
    }

    /// When [`Fabric::expire`] is to be called, if nothing else happens first.
    pub fn deadline(&self) -> Option<Time> {
        let parts = [
            self.groups.deadline(),
            self.menders.values().filter_map(Mender::deadline).min(),
            self.comparers.values().filter_map(Comparer::deadline).min(),
            self.shares_out_at(),
        ];
        parts.into_iter().flatten().min()
    }

    /// The deadline has come.
    pub fn expire(&mut self, now: Time, out: &mut Vec<Output>) {
        self.groups.expire(now, &mut self.of_groups.list);
        self.drain(now, out);
        self.expire_menders(now, out);
        self.expire_comparers(now, out);
        self.expire_limits(now, out);
        self.drain(now, out);
    }

    /// The driver has nothing more to step for now: what nobody holds any more is unpinned.
    pub fn turn_ended(&mut self, out: &mut Vec<Output>) {
        self.map.clear();
        self.holds.take_dropped(&mut self.dropped);
        let unpin = |Span { buf, blocks }| Output::Unpin { buf, blocks };
        out.extend(self.dropped.drain(..).map(unpin));
    }

    /// Asserts the invariants of everything.
    pub fn check(&self) {
        self.menders.values().for_each(Mender::check);
        self.comparers.values().for_each(Comparer::check);
        self.groups.check();
    }

    fn on_frame(
        &mut self,
        now: Time,
        (from, disk): (Asker, DiskId),
        frame: Frame,
        payload: Option<Payload>,
        out: &mut Vec<Output>,
    ) {
        match frame {
            Frame::Message(header, message) => {
                if layer_of(&message).is_some_and(|layer| !self.layers.contains_key(&layer)) {
                    if self.early.len() < EARLY_MAX {
                        self.early.push_back(Early {
                            from,
                            disk,
                            header,
                            message,
                            payload,
                        });
                    }
                    return;
                }
                let input = replica::Input::Frame {
                    from,
                    header,
                    message,
                    payload,
                };
                // A replica that is not there yet: its coordinator asks again.
                self.step_replica((disk, header.pg), input, out);
            }
            Frame::Answer(header, answer) => {
                let of_groups = &mut self.of_groups.list;
                (self.groups).answered(now, disk, header, answer, payload, of_groups);
            }
            Frame::FillAsk(header, ask) => {
                let input = replica::Input::FillAsk { from, header, ask };
                self.step_replica((disk, header.pg), input, out);
                self.take_turns(disk, out);
            }
            Frame::FillAnswer(header, answer) => {
                let is_it = |own: &DiskId| {
                    let replica = self.replicas.get(&(*own, header.pg));
                    replica.is_some_and(|replica| replica.session() == Some(header.session))
                };
                let Some(joiner) = self.disks.iter().copied().find(is_it) else {
                    return; // its session is over
                };
                let input = replica::Input::FillAnswer {
                    header,
                    answer,
                    payload,
                };
                self.step_replica((joiner, header.pg), input, out);
            }
            Frame::MendAsk(header, ask) => {
                self.step_mender(now, disk, scrub::Input::Asked { header, ask }, out);
            }
            Frame::MendAnswer(header, answer) => {
                let input = scrub::Input::Answered {
                    from: disk,
                    header,
                    answer,
                    payload,
                };
                self.step_mender(now, header.asker, input, out);
            }
            Frame::CompareAsk(header, at) => {
                self.step_comparer(now, disk, comparison::Input::Asked { header, at }, out);
            }
            // The link's own, which it keeps to itself.
            Frame::Credit(_) => {}
            Frame::CompareAnswer(header, answer) => {
                let input = comparison::Input::Answered {
                    from: disk,
                    header,
                    answer,
                };
                self.step_comparer(now, header.asker, input, out);
            }
        }
    }

    /// Takes frames whose layer was not known.
    fn take_early(&mut self, now: Time, out: &mut Vec<Output>) {
        for early in std::mem::take(&mut self.early) {
            let frame = Frame::Message(early.header, early.message);
            self.on_frame(now, (early.from, early.disk), frame, early.payload, out);
        }
    }

    /// Carries out what coordinator and groups want of one another, until they want nothing more.
    fn drain(&mut self, now: Time, out: &mut Vec<Output>) {
        while !(self.of_coordinator.list.is_empty() && self.of_groups.list.is_empty()) {
            let mut list = self.of_coordinator.take();
            for output in list.drain(..) {
                self.take_coordinator(now, output, out);
            }
            self.of_coordinator.give_back(list);
            let mut list = self.of_groups.take();
            for output in list.drain(..) {
                self.take_groups(now, output, out);
            }
            self.of_groups.give_back(list);
        }
    }
}

/// The layer that a frame is about.
fn layer_of(message: &Message) -> Option<LayerId> {
    let at: &ChunkId = match message {
        Message::Change { at, .. } | Message::Read { at, .. } | Message::Fits { at, .. } => at,
        Message::Mark | Message::Seal | Message::Confirm { .. } => return None,
    };
    Some(at.layer)
}
