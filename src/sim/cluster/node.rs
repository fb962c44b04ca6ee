//! A node: one start of a daemon. What the shipped machines want is carried out here, or handed to the world.
//!
//! ```text
//!   clients ─► Fabric ──Send──► other nodes, or itself         a member of the manager also: `member.rs`
//!               ▲  │
//!        Order  │  └──Store──► its shelves (`asks.rs`)
//!              Node ◄── Catalog, as far as this node has heard
//! ```
//!
//! What it wants done leaves as [`Effect`]s. It knows no time but its own clock's, and nothing of other nodes but what arrives.

use super::asks::Asks;
use super::buffers::Buffers;
use super::message::Msg;
use super::shelf::{self, Damaged, Operation, Shelf};
use super::world::Off;
use crate::base::VolumeId;
use crate::base::{
    BufRef, DiskId, Epoch, Holds, IoError, LayerId, NodeId, Payload, PgId, Request, Span, Time,
    Token,
};
use crate::node::{self, Numbers, Said, Shards};
use crate::protocol::catalog::{Catalog, Event};
use crate::protocol::membership::{self, HolderInput, Incarnation};
use crate::protocol::replication::replica::{Asker, Durable};
use crate::protocol::replication::{Entry, Header, Message, Room};
use crate::protocol::report::Report;
use crate::protocol::scrub::compare::Rests;
use crate::protocol::volume::Coordinator;
use crate::protocol::volume::groups::Groups;
use crate::shard::Reach;
use crate::shard::ShardNo;
use crate::shard::fabric::{self, Fabric, Order, Output, Pace, Stores, To};
use crate::wire::Frame;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use super::asks::Whose;

/// Nobody waits a week here.
const RESTS: Rests = Rests {
    between: Duration::from_millis(1_500),
    after_change: Duration::from_millis(200),
};

/// The shelves of a run.
pub type Shelves = BTreeMap<DiskId, Shelf>;

/// What a node wants done, or has done.
#[derive(Debug)]
pub enum Effect {
    Send {
        to: NodeId,
        message: Msg,
    },
    /// A change of blocks was numbered, and goes to a replica.
    Issued {
        header: Header,
        message: Message,
        payload: Option<BufRef>,
    },
    /// Ask a shelf of this node. Its answer comes back with who asked.
    Shelf {
        disk: DiskId,
        pg: PgId,
        operation: Operation,
        whose: Whose,
    },
    /// The background scrub of a disk has come round.
    Scrub {
        disk: DiskId,
    },
    /// A disk is opened, under this number.
    Open {
        disk: DiskId,
        incarnation: Incarnation,
    },
    /// The manager has recorded its opening.
    Recorded {
        disk: DiskId,
    },
    /// A layer lies over another: a disk is told before anything of it is asked there.
    Layer {
        disk: DiskId,
        layer: LayerId,
        parent: LayerId,
    },
    /// A disk's rebuilds go faster or slower.
    Paced(Pace),
    /// A mark of a range is known at a replica.
    Mark {
        disk: DiskId,
        pg: PgId,
        range: VolumeId,
        epoch: Epoch,
        mark: u64,
    },
    /// A client's request has ended.
    Reply {
        token: Token,
        result: Result<(), IoError>,
        volume: VolumeId,
        epoch: Option<Epoch>,
    },
}

/// One start of a node. See the [module](self).
pub struct Node {
    pub id: NodeId,
    members: Vec<NodeId>,
    machine: node::Node,
    /// Of one shard.
    shards: Shards,
    fabric: Fabric,
    asks: Asks,
    disks: BTreeSet<DiskId>,
    pub catalog: Catalog,
    volumes_of: BTreeMap<Token, VolumeId>,
    local: VecDeque<Msg>,
    pub effects: Vec<Effect>,
}

/// What the fabric has to know of the shelves.
struct View<'a>(&'a Shelves);

impl Stores for View<'_> {
    fn durable(&self, disk: DiskId, pg: PgId) -> Option<Durable> {
        let kept = self.0[&disk].kept().pg(pg);
        let ranges = kept.ranges().map(|range| {
            let (epoch, mark) = kept.mark_of(range);
            let entries: Vec<Entry> = kept.window(range);
            (range, epoch, mark, entries)
        });
        (kept.version != 0).then(|| Durable::found(kept.version, kept.session, ranges))
    }

    fn room(&self, disk: DiskId) -> Room {
        self.0[&disk].room()
    }

    fn is_torn(&self, disk: DiskId, pg: PgId) -> bool {
        self.0[&disk].torn().any(|of| of == pg)
    }
}

impl Node {
    /// A start of a node with these disks.
    pub fn start(
        now: Time,
        (id, incarnation): (NodeId, Incarnation),
        members: &[NodeId],
        disks: impl IntoIterator<Item = DiskId>,
        off: Off,
    ) -> Node {
        let leases = (membership::Parameters::DEFAULT, off.membership);
        let (of, members) = ((id, incarnation), members.to_vec());
        let machine = node::Node::new(now, of, members.clone(), leases, off.replication);
        let fabric_off = fabric::Off {
            replication: off.replication,
            scrub: off.scrub,
            breaks: off.breaks,
        };
        Node {
            id,
            members,
            machine: machine.expect("the parameters are sound"),
            shards: Shards::new(1),
            fabric: Fabric::new(incarnation, RESTS, fabric_off),
            asks: Asks::new(off.scrub),
            disks: disks.into_iter().collect(),
            catalog: Catalog::default(),
            volumes_of: BTreeMap::new(),
            local: VecDeque::new(),
            effects: Vec::new(),
        }
    }

    pub fn coordinator(&self) -> &Coordinator {
        self.fabric.coordinator()
    }

    pub fn groups(&self) -> &Groups {
        self.fabric.groups()
    }

    /// Whether it believes that it holds its lease.
    pub fn is_leased(&self, now: Time) -> bool {
        self.machine.is_leased(now)
    }

    /// When [`Node::expire`] is to be called, by its own clock.
    pub fn deadline(&self) -> Time {
        let of_fabric = self.fabric.deadline();
        let own = self.machine.deadline();
        of_fabric.map_or(own, |at| at.min(own))
    }

    pub fn expire(&mut self, now: Time, shelves: &Shelves, buffers: &mut Buffers) {
        if self.machine.deadline() <= now {
            let mut out = Vec::new();
            self.machine.expire(now, &self.catalog, &mut out);
            self.take_node(now, out, shelves, buffers);
        }
        let mut out = Vec::new();
        self.fabric.expire(now, &mut out);
        self.take_fabric(now, out, shelves, buffers);
        self.settle(now, shelves, buffers);
    }

    fn report(&mut self, report: Report) {
        for to in self.members.clone() {
            self.send(to, Msg::Report(report.clone()));
        }
    }

    fn send(&mut self, to: NodeId, message: Msg) {
        // What it says to itself as a member of the manager goes the same way as what others say.
        match to == self.id && !matches!(message, Msg::Report(_) | Msg::Lease(_)) {
            true => self.local.push_back(message),
            false => self.effects.push(Effect::Send { to, message }),
        }
    }

    /// Takes what it says to itself.
    fn settle(&mut self, now: Time, shelves: &Shelves, buffers: &mut Buffers) {
        while let Some(message) = self.local.pop_front() {
            self.receive(now, self.id, message, shelves, buffers);
        }
        self.fabric.turn_ended(&mut Vec::new());
    }

    /// A message has arrived.
    pub fn on_message(
        &mut self,
        now: Time,
        (from, message): (NodeId, Msg),
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        self.receive(now, from, message, shelves, buffers);
        self.settle(now, shelves, buffers);
    }

    fn receive(
        &mut self,
        now: Time,
        from: NodeId,
        message: Msg,
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        match message {
            Msg::Lease(_) | Msg::Report(_) => {} // for a member
            Msg::Want {
                volume,
                epoch,
                by,
                missed,
            } => {
                let input = node::Input::Wanted {
                    volume,
                    epoch,
                    by,
                    missed,
                };
                self.tell_node(now, input, shelves, buffers);
            }
            Msg::LeaseAnswer {
                incarnation,
                request,
                term,
                answer,
            } => {
                let input = HolderInput::Answer {
                    from,
                    incarnation,
                    request,
                    term,
                    answer,
                };
                self.tell_node(now, node::Input::Lease(input), shelves, buffers);
            }
            Msg::Frame {
                disk,
                frame,
                payload,
            } => {
                let from = Asker(from.0);
                let payload = payload.map(|at| hold(self.fabric.holds(), at));
                let input = fabric::Input::Frame {
                    from,
                    disk,
                    frame,
                    payload,
                };
                self.tell_fabric(now, input, shelves, buffers);
            }
        }
    }

    /// A connection to a node is new, or gone.
    pub fn on_link(
        &mut self,
        now: Time,
        (peer, link): (NodeId, Reach),
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        for link in self.shards.linked(ShardNo(0), peer, link) {
            let input = node::Input::Link { peer, link };
            self.tell_node(now, input, shelves, buffers);
        }
        self.settle(now, shelves, buffers);
    }

    /// Everything that is committed, at once.
    pub fn on_snapshot(
        &mut self,
        now: Time,
        catalog: &Catalog,
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        self.catalog = catalog.clone();
        self.look_for_disks(now, shelves, buffers);
        self.tell_node(now, node::Input::Snapshot, shelves, buffers);
        self.settle(now, shelves, buffers);
    }

    /// A command was applied; these are its events.
    pub fn on_events(
        &mut self,
        now: Time,
        events: &[Event],
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        self.look_for_disks(now, shelves, buffers);
        self.tell_node(now, node::Input::Events(events), shelves, buffers);
        self.settle(now, shelves, buffers);
    }

    /// Tells of disks that are not opened yet, also of those that were added.
    fn look_for_disks(&mut self, now: Time, shelves: &Shelves, buffers: &mut Buffers) {
        let own = self.catalog.disks_of(self.id).map(|disk| disk.id);
        self.disks.extend(own);
        for disk in self.disks.clone() {
            let kept = shelves[&disk].kept();
            let kept = Numbers {
                recorded: Incarnation(kept.recorded),
                last: Incarnation(kept.incarnation),
            };
            let input = node::Input::DiskFound { disk, kept };
            self.tell_node(now, input, shelves, buffers);
        }
    }

    /// A client asks.
    pub fn ask(&mut self, now: Time, request: Request, shelves: &Shelves, buffers: &mut Buffers) {
        self.volumes_of.insert(request.token, request.volume);
        self.tell_fabric(now, fabric::Input::Request(request), shelves, buffers);
        self.settle(now, shelves, buffers);
    }

    /// A disk has become low, or ample again.
    pub fn on_room(
        &mut self,
        now: Time,
        (disk, room): (DiskId, Room),
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        self.tell_fabric(now, fabric::Input::Room { disk, room }, shelves, buffers);
    }

    /// A shelf has found damage.
    pub fn on_damaged(
        &mut self,
        now: Time,
        (disk, found): (DiskId, Vec<Damaged>),
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        for (pg, at, block, crc) in found {
            let input = fabric::Input::Damaged {
                disk,
                pg,
                at,
                block,
                crc,
            };
            self.tell_fabric(now, input, shelves, buffers);
        }
        self.settle(now, shelves, buffers);
    }

    /// A shelf has answered.
    pub fn on_shelf(
        &mut self,
        now: Time,
        (disk, pg, whose): (DiskId, PgId, Whose),
        done: shelf::Done,
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        match done.outcome {
            shelf::Outcome::Failed(shelf::Failure::Gone) => {
                self.tell_node(now, node::Input::DiskFailed { disk }, shelves, buffers);
            }
            shelf::Outcome::Failed(shelf::Failure::Torn) => {
                self.tell_fabric(now, fabric::Input::Torn { disk, pg }, shelves, buffers);
            }
            _ => {}
        }
        let shelf::Done { outcome, took, .. } = done;
        let holds = self.fabric.holds().clone();
        let answer = (self.asks).answer((disk, pg, whose), outcome, (buffers, &holds));
        if let Some(answer) = answer {
            let input = fabric::Input::Answered {
                disk,
                pg,
                answer,
                took,
            };
            self.tell_fabric(now, input, shelves, buffers);
        }
        self.settle(now, shelves, buffers);
    }

    /// Payload that is held: in flight, or waiting.
    pub fn held(&self) -> usize {
        self.fabric.holds().held()
    }

    /// Asserts the invariants of everything.
    pub fn check(&self) {
        self.fabric.check();
        self.machine.check();
        self.shards.check();
    }

    fn tell_node(
        &mut self,
        now: Time,
        input: node::Input<'_>,
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        let mut out = Vec::new();
        self.machine.step(now, input, &self.catalog, &mut out);
        self.take_node(now, out, shelves, buffers);
    }

    fn take_node(
        &mut self,
        now: Time,
        out: Vec<node::Output>,
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        for output in out {
            match output {
                node::Output::Order(order) => {
                    if let Order::NoDisk { disk } = order {
                        self.disks.remove(&disk);
                    }
                    if matches!(order, Order::SayAgain) {
                        let scrubs = self.disks.iter();
                        let scrubs = scrubs.map(|&disk| Effect::Scrub { disk });
                        self.effects.extend(scrubs);
                    }
                    self.order(now, order, shelves, buffers);
                }
                node::Output::Report(report) => self.report(report),
                node::Output::Ask { to, ask } => self.send(to, Msg::Lease(ask)),
                node::Output::Want {
                    to,
                    volume,
                    epoch,
                    by,
                    missed,
                } => {
                    let wanted = Msg::Want {
                        volume,
                        epoch,
                        by,
                        missed,
                    };
                    self.send(to, wanted);
                }
                node::Output::Open { disk, incarnation } => {
                    self.effects.push(Effect::Open { disk, incarnation });
                }
                node::Output::Recorded { disk } => self.effects.push(Effect::Recorded { disk }),
                node::Output::Layers { volume } => {
                    self.tell_layers(now, volume, shelves, buffers);
                }
            }
        }
    }

    /// Tells the disks which layer lies over which, and then the fabric.
    fn tell_layers(
        &mut self,
        now: Time,
        volume: VolumeId,
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        let Some(of) = self.catalog.volume(volume) else {
            return;
        };
        let layers: Vec<_> = of.layers.iter().map(|of| (of.id, of.parent)).collect();
        for &(layer, parent) in &layers {
            let effect = |parent| {
                let of_disk = move |&disk| Effect::Layer {
                    disk,
                    layer,
                    parent,
                };
                self.disks.iter().map(of_disk)
            };
            self.effects.extend(parent.into_iter().flat_map(effect));
        }
        self.order(now, Order::Layers { volume, layers }, shelves, buffers);
    }

    fn order(&mut self, now: Time, order: Order, shelves: &Shelves, buffers: &mut Buffers) {
        self.shards.ordered(&order);
        self.tell_fabric(now, fabric::Input::Order(order), shelves, buffers);
    }

    /// The one shard has carried out every order that was given.
    fn said(&mut self, now: Time, said: Said, shelves: &Shelves, buffers: &mut Buffers) {
        let joined = self.shards.said(ShardNo(0), self.shards.last(), said);
        let input = match joined {
            Some(Said::Drained { volume }) => node::Input::Drained { volume },
            Some(Said::Cut { volume }) => node::Input::Cut { volume },
            Some(Said::Settled { volume }) => node::Input::Settled { volume },
            None => return,
        };
        self.tell_node(now, input, shelves, buffers);
    }

    fn tell_fabric(
        &mut self,
        now: Time,
        input: fabric::Input<'_>,
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        let mut out = Vec::new();
        self.fabric.step(now, input, &View(shelves), &mut out);
        self.take_fabric(now, out, shelves, buffers);
    }

    fn take_fabric(
        &mut self,
        now: Time,
        out: Vec<Output>,
        shelves: &Shelves,
        buffers: &mut Buffers,
    ) {
        for output in out {
            match output {
                Output::Checksum {
                    piece, buf, blocks, ..
                } => {
                    let crcs: Vec<u32> = buffers.values(buf, blocks).map(crc_of).collect();
                    let crcs = &crcs[..];
                    let input = fabric::Input::Checksummed { piece, crcs };
                    self.tell_fabric(now, input, shelves, buffers);
                }
                Output::Fill { buf, blocks } => buffers.zero(buf, blocks),
                Output::Merge {
                    from,
                    into,
                    head,
                    tail,
                } => buffers.merge(from, into, head, tail),
                Output::Place(value) => buffers.place(&value),
                // No client of this world asks what is allocated.
                Output::Map { piece, .. } => {
                    let result = Err(IoError::Failed);
                    let input = fabric::Input::Mapped { piece, result };
                    self.tell_fabric(now, input, shelves, buffers);
                }
                // Buffers are never used again here.
                Output::Pin { .. } | Output::Unpin { .. } => {}
                Output::Reply { token, result, .. } => {
                    let volume = self.volumes_of.remove(&token).unwrap_or_default();
                    let epoch = self.groups().epoch(volume);
                    self.effects.push(Effect::Reply {
                        token,
                        result,
                        volume,
                        epoch,
                    });
                }
                Output::Send {
                    to,
                    disk,
                    frame,
                    payload,
                } => self.send_frame(to, disk, frame, payload.map(|of| of.at())),
                Output::Store { disk, pg, ask } => {
                    let (operation, whose) = self.asks.operation((disk, pg), ask, buffers);
                    self.effects.push(Effect::Shelf {
                        disk,
                        pg,
                        operation,
                        whose,
                    });
                }
                Output::Mark {
                    disk,
                    pg,
                    range,
                    epoch,
                    mark,
                } => self.effects.push(Effect::Mark {
                    disk,
                    pg,
                    range,
                    epoch,
                    mark,
                }),
                Output::Report(report) => self.report(report),
                Output::Paced { how, .. } => self.effects.push(Effect::Paced(how)),
                Output::Drained { volume } => {
                    self.said(now, Said::Drained { volume }, shelves, buffers);
                }
                Output::Cut { volume } => {
                    self.said(now, Said::Cut { volume }, shelves, buffers);
                }
                Output::Settled { volume } => {
                    self.said(now, Said::Settled { volume }, shelves, buffers);
                }
                Output::Waits { volume } => {
                    self.tell_node(now, node::Input::Waits { volume }, shelves, buffers);
                }
            }
        }
    }

    fn send_frame(&mut self, to: To, disk: DiskId, frame: Frame, payload: Option<BufRef>) {
        let node = match to {
            To::Disk(disk) => self.catalog.disk(disk).map(|disk| disk.node),
            To::Asker(asker) => Some(NodeId(asker.0)),
        };
        let Some(node) = node else {
            return;
        };
        if let Frame::Message(header, message @ Message::Change { .. }) = frame {
            self.effects.push(Effect::Issued {
                header,
                message,
                payload,
            });
        }
        let message = Msg::Frame {
            disk,
            frame,
            payload,
        };
        self.send(node, message);
    }
}

/// Payload that a fabric is given; of how many blocks means nothing here.
pub(super) fn hold(holds: &Holds, buf: BufRef) -> Payload {
    holds.hold(Span { buf, blocks: 1 })
}

/// A block's checksum here.
pub fn crc_of(value: u64) -> u32 {
    value as u32
}
