//! A node: the shipped machines of one start of a daemon, put together as a daemon does it.
//!
//! ```text
//!   clients ─► Coordinator ─► Groups ──┐                      ┌──► Replica (disk, PG) ──► its shelf
//!                 ▲                    ├── to the disk's node ─┤
//!   Turns ── open, close ──────────────┘                      └──► the same on other nodes
//!     ▲   ▲
//!     │   └ Holder: the lease          a member of the manager also: Catalog, Grantor, Steward (`member.rs`)
//!   Catalog, as far as this node has heard
//! ```
//!
//! What it wants done leaves as [`Effect`]s. It knows no time but its own clock's, and nothing of other nodes but what arrives.

use super::buffers::Buffers;
use super::carry::layer_of;
use super::comparing::{Comparing, RESTS};
use super::mending::Mending;
use super::message::{Msg, Report};
use super::replicas::{Pace, durable_of};
use super::shelf::{self, Operation, Outcome};
use super::world::Off;
use crate::base::{
    BlockRun, BufRef, DiskId, DiskSlot, Epoch, IoError, LayerId, NodeId, PgId, Request, Time,
    Token, VolumeId,
};
use crate::protocol::catalog::{Catalog, Event, Ownership, Sharing, Volume, next_opening};
use crate::protocol::cuts::{self, Cuts, Layers};
use crate::protocol::membership::{self, Holder, HolderInput, Incarnation};
use crate::protocol::replication::replica::{self, Asker, Op, Replica};
use crate::protocol::replication::{Header, Message, Role, RulesOff};
use crate::protocol::scrub::compare::{self, Comparer};
use crate::protocol::scrub::{self, Mender};
use crate::protocol::turns::{self, Here, Turns};
use crate::protocol::volume::groups::{Groups, Patience};
use crate::protocol::volume::{Coordinator, OpenVolume};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How often what is not answered is asked and told again.
const AGAIN: Duration = Duration::from_millis(100);
/// Frames that wait until the node has heard of their layer; more are lost, and asked again.
const EARLY_MAX: usize = 1024;

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
    /// Ask a shelf of this node. Its answer comes back with the number.
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
    /// A replica is no more: its shelf forgets it.
    Forget {
        disk: DiskId,
        pg: PgId,
    },
    /// A layer lies over another: a disk is told before anything of it is asked there.
    Layer {
        disk: DiskId,
        layer: LayerId,
        parent: LayerId,
    },
    /// A disk's rebuilds go faster or slower: the branch that this is.
    Paced {
        name: &'static str,
    },
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

/// Who asked a shelf for something, and is told how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Replica(Op),
    Mender(Mending),
    Comparer(Comparing),
    /// The node, which forgets a replica.
    Node,
}

/// A disk of this node.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// The opening that was recorded last, as far as the disk knows, and this one; `None`: it is not opened yet.
    pub(super) opening: Option<(Incarnation, Incarnation)>,
    /// The manager has recorded this opening (R19).
    is_known: bool,
    pub(super) has_failed: bool,
}

/// One start of a node. See the [module](self).
pub struct Node {
    pub id: NodeId,
    pub incarnation: Incarnation,
    pub(super) members: Vec<NodeId>,
    pub(super) off: RulesOff,
    pub(super) holder: Holder,
    pub(super) turns: Turns,
    pub(super) cuts: Cuts,
    pub coordinator: Coordinator,
    pub groups: Groups,
    pub replicas: BTreeMap<(DiskId, PgId), Replica>,
    pub(super) menders: BTreeMap<DiskId, Mender>,
    pub(super) comparers: BTreeMap<DiskId, Comparer>,
    /// Replicas that were forgotten; their disks' menders are not told yet.
    pub(super) dropped: Vec<(DiskId, PgId)>,
    pub(super) mends_off: scrub::RulesOff,
    pub(super) paces: BTreeMap<DiskId, Pace>,
    pub(super) disks: BTreeMap<DiskId, Disk>,
    /// Frames whose layer the catalog here does not have yet.
    early: VecDeque<(NodeId, Msg)>,
    /// Replicas that are being forgotten: no new one is made before that is done.
    pub(super) forgetting: BTreeSet<(DiskId, PgId)>,
    pub catalog: Catalog,
    pub(super) has_catalog: bool,
    /// Sessions that are filled and not promoted, and those that are lost.
    pub(super) filled: BTreeMap<(DiskId, PgId), u32>,
    pub(super) lost: BTreeMap<(DiskId, PgId), u32>,
    pub(super) volumes_of: BTreeMap<Token, VolumeId>,
    /// Runs that shelves are reading.
    pub(super) reading: BTreeMap<(DiskId, PgId, Op), BlockRun>,
    pub(super) again_at: Time,
    pub(super) local: VecDeque<Msg>,
    pub effects: Vec<Effect>,
}

impl Node {
    /// A start of a node whose disks were opened.
    pub fn start(
        now: Time,
        (id, incarnation): (NodeId, Incarnation),
        members: &[NodeId],
        disks: impl IntoIterator<Item = DiskId>,
        off: Off,
    ) -> Node {
        let parameters = membership::Parameters::DEFAULT;
        let holder = Holder::new(
            now,
            id,
            incarnation,
            members.to_vec(),
            parameters,
            off.membership,
        );
        let mut node = Node {
            id,
            incarnation,
            members: members.to_vec(),
            off: off.replication,
            holder: holder.expect("the parameters are sound"),
            turns: Turns::new(id),
            cuts: Cuts::new(off.replication),
            coordinator: Coordinator::new(off.breaks),
            groups: Groups::new(Patience::default(), off.replication),
            replicas: BTreeMap::new(),
            menders: BTreeMap::new(),
            comparers: BTreeMap::new(),
            dropped: Vec::new(),
            mends_off: off.scrub,
            disks: BTreeMap::new(),
            paces: BTreeMap::new(),
            early: VecDeque::new(),
            forgetting: BTreeSet::new(),
            catalog: Catalog::default(),
            has_catalog: false,
            filled: BTreeMap::new(),
            lost: BTreeMap::new(),
            volumes_of: BTreeMap::new(),
            reading: BTreeMap::new(),
            again_at: now,
            local: VecDeque::new(),
            effects: Vec::new(),
        };
        for disk in disks {
            node.put_disk(now, disk);
        }
        node
    }

    fn put_disk(&mut self, now: Time, disk: DiskId) {
        let comparer = Comparer::new(disk, self.incarnation.0, RESTS, self.mends_off);
        self.menders.insert(disk, Mender::new(disk, self.mends_off));
        self.comparers.insert(disk, comparer);
        self.paces.insert(disk, Pace::new(now));
        self.disks.insert(disk, Disk::default());
    }

    /// Takes disks that were added to it.
    fn look_for_disks(&mut self, now: Time, shelves: &BTreeMap<DiskId, shelf::Shelf>) {
        let own = self.catalog.disks_of(self.id).map(|disk| disk.id);
        let new = own.filter(|disk| self.disks.get(disk).is_none_or(|of| of.opening.is_none()));
        for disk in new.collect::<Vec<_>>() {
            if !self.disks.contains_key(&disk) {
                self.put_disk(now, disk);
            }
            let volumes: Vec<VolumeId> = self.catalog.volumes().map(|volume| volume.id).collect();
            volumes.iter().for_each(|&volume| self.tell_layers(volume));
            self.look_at_disk(disk, shelves);
        }
    }

    /// A disk was taken away: nothing is on it any more.
    fn drop_disk(&mut self, disk: DiskId) {
        self.disks.remove(&disk);
        self.menders.remove(&disk);
        self.comparers.remove(&disk);
        self.paces.remove(&disk);
        self.replicas.retain(|(of, _), _| *of != disk);
        self.filled.retain(|(of, _), _| *of != disk);
        self.lost.retain(|(of, _), _| *of != disk);
    }

    /// When [`Node::expire`] is to be called, by its own clock.
    pub fn deadline(&self) -> Time {
        let parts = [
            self.holder.deadline(),
            self.turns.deadline(),
            self.cuts.deadline(),
            self.groups.deadline(),
            self.menders.values().filter_map(Mender::deadline).min(),
            self.comparers.values().filter_map(Comparer::deadline).min(),
            Some(self.again_at),
        ];
        parts.into_iter().flatten().min().unwrap_or(self.again_at)
    }

    pub fn expire(&mut self, now: Time, buffers: &mut Buffers) {
        if self.holder.deadline().is_some_and(|at| at <= now) {
            let mut out = Vec::new();
            self.holder.expire(now, &mut out);
            self.take_lease(now, out, buffers);
        }
        if self.turns.deadline().is_some_and(|at| at <= now) {
            let mut out = Vec::new();
            self.turns.expire(now, &mut out);
            self.take_turns(now, out, buffers);
        }
        if self.cuts.deadline().is_some_and(|at| at <= now) {
            let mut out = Vec::new();
            self.cuts.expire(now, &mut out);
            self.take_cuts(now, out, buffers);
        }
        let mut out = Vec::new();
        self.groups.expire(now, &mut out);
        self.take_groups(now, out, buffers);
        self.expire_menders(now, buffers);
        self.expire_comparers(now);
        if self.again_at <= now {
            self.again_at = now + AGAIN;
            self.tell_again(buffers);
        }
        self.settle(now, buffers);
    }

    pub(super) fn report(&mut self, report: Report) {
        for to in self.members.clone() {
            self.send(to, Msg::Report(report.clone()));
        }
    }

    pub(super) fn send(&mut self, to: NodeId, message: Msg) {
        // What it says to itself as a member of the manager goes the same way as what others say.
        match to == self.id && !matches!(message, Msg::Report(_) | Msg::Lease(_)) {
            true => self.local.push_back(message),
            false => self.effects.push(Effect::Send { to, message }),
        }
    }

    /// Takes what it says to itself.
    pub(super) fn settle(&mut self, now: Time, buffers: &mut Buffers) {
        while let Some(message) = self.local.pop_front() {
            self.receive(now, self.id, message, buffers);
        }
    }

    /// A message has arrived.
    pub fn on_message(&mut self, now: Time, from: NodeId, message: Msg, buffers: &mut Buffers) {
        self.receive(now, from, message, buffers);
        self.settle(now, buffers);
    }

    fn receive(&mut self, now: Time, from: NodeId, message: Msg, buffers: &mut Buffers) {
        match message {
            Msg::Lease(_) | Msg::Report(_) => {} // for a member
            Msg::Want {
                volume,
                epoch,
                by,
                missed,
            } => {
                let input = turns::Input::WantedBy {
                    volume,
                    epoch,
                    by,
                    missed,
                };
                let mut out = Vec::new();
                self.turns.step(now, input, &mut out);
                self.take_turns(now, out, buffers);
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
                let mut out = Vec::new();
                self.holder.step(now, input, &mut out);
                self.take_lease(now, out, buffers);
            }
            Msg::ToReplica {
                disk,
                header,
                message,
                payload,
            } => {
                if layer_of(&message).is_some_and(|layer| self.volume_of(layer).is_none()) {
                    // Without its parent what it does not have would read as nothing.
                    if self.early.len() < EARLY_MAX {
                        let frame = Msg::ToReplica {
                            disk,
                            header,
                            message,
                            payload,
                        };
                        self.early.push_back((from, frame));
                    }
                    return;
                }
                let of = (disk, header.pg);
                let input = replica::Input::Frame {
                    from: Asker(from.0),
                    header,
                    message,
                    payload,
                };
                // A replica that is not there yet: its coordinator asks again.
                self.step_replica(of, input, buffers);
            }
            Msg::FromReplica {
                disk,
                header,
                answer,
                payload,
            } => {
                let mut out = Vec::new();
                self.groups
                    .answered(now, disk, header, answer, payload, &mut out);
                self.take_groups(now, out, buffers);
            }
            Msg::FillAsk {
                from: joiner,
                to,
                header,
                ask,
            } => {
                let input = replica::Input::FillAsk {
                    from: Asker(joiner.0),
                    header,
                    ask,
                };
                self.step_replica((to, header.pg), input, buffers);
            }
            Msg::MendAsk { to, header, ask } => {
                self.step_mender(now, to, scrub::Input::Asked { header, ask }, buffers);
            }
            Msg::MendAnswer {
                from,
                header,
                answer,
                payload,
            } => {
                let input = scrub::Input::Answered {
                    from,
                    header,
                    answer,
                    payload,
                };
                self.step_mender(now, header.asker, input, buffers);
            }
            Msg::CompareAsk { to, header, at } => {
                self.step_comparer(now, to, compare::Input::Asked { header, at });
            }
            Msg::CompareAnswer {
                from,
                header,
                answer,
            } => {
                let input = compare::Input::Answered {
                    from,
                    header,
                    answer,
                };
                self.step_comparer(now, header.asker, input);
            }
            Msg::FillAnswer {
                to,
                header,
                answer,
                payload,
            } => {
                let input = replica::Input::FillAnswer {
                    header,
                    answer,
                    payload,
                };
                self.step_replica((to, header.pg), input, buffers);
            }
        }
    }

    /// Everything that is committed, at once.
    pub fn on_snapshot(
        &mut self,
        now: Time,
        catalog: &Catalog,
        shelves: &BTreeMap<DiskId, shelf::Shelf>,
        buffers: &mut Buffers,
    ) {
        self.catalog = catalog.clone();
        self.has_catalog = true;
        let pgs: Vec<PgId> = self.catalog.pgs().map(|pg| pg.id).collect();
        let disks: Vec<DiskId> = self.disks.keys().copied().collect();
        for disk in disks {
            match self.catalog.disk(disk) {
                Some(_) => self.look_at_disk(disk, shelves),
                None => self.drop_disk(disk),
            }
        }
        self.look_for_disks(now, shelves);
        let volumes: Vec<VolumeId> = self.catalog.volumes().map(|volume| volume.id).collect();
        volumes.iter().for_each(|&volume| self.tell_layers(volume));
        for pg in pgs {
            self.look_at_pg(now, pg, shelves, buffers);
        }
        for volume in volumes {
            self.look_at_volume(now, volume, buffers);
        }
        self.take_early(now, buffers);
        self.settle(now, buffers);
    }

    /// A command was applied; these are its events.
    pub fn on_events(
        &mut self,
        now: Time,
        events: &[Event],
        shelves: &BTreeMap<DiskId, shelf::Shelf>,
        buffers: &mut Buffers,
    ) {
        for event in events {
            match event {
                Event::PgChanged { pg } => {
                    self.look_at_pg(now, pg.id, shelves, buffers);
                    // Who freezes a layer that is being cut may be another one now.
                    let cutting = |volume: &&Volume| volume.cutting().is_some();
                    let volumes = self.catalog.volumes().filter(cutting);
                    for volume in volumes.map(|volume| volume.id).collect::<Vec<_>>() {
                        self.look_at_volume(now, volume, buffers);
                    }
                }
                Event::VolumeCreated { volume } | Event::VolumeChanged { volume } => {
                    self.tell_layers(volume.id);
                    self.look_at_volume(now, volume.id, buffers);
                    self.take_early(now, buffers);
                }
                Event::PgsCreated { pgs, .. } | Event::DiskAdded { pgs, .. } => {
                    self.look_for_disks(now, shelves);
                    for pg in pgs {
                        self.look_at_pg(now, pg.id, shelves, buffers);
                    }
                }
                Event::DiskRemoved { disk } => self.drop_disk(*disk),
                Event::DiskChanged { disk } => {
                    self.look_at_disk(disk.id, shelves);
                    let pgs: Vec<PgId> = self.catalog.pgs_on(disk.id).collect();
                    for pg in pgs {
                        self.look_at_pg(now, pg, shelves, buffers);
                    }
                }
                Event::RangeTaken { volume, .. }
                | Event::RangeGiven { volume, .. }
                | Event::Detached { volume } => self.look_at_volume(now, *volume, buffers),
                Event::Attached { attachment } => {
                    self.look_at_volume(now, attachment.volume, buffers);
                }
                _ => {}
            }
        }
        self.settle(now, buffers);
    }

    /// Opens a disk, and serves from it when the manager has recorded that.
    ///
    /// An opening has a number that the manager records (R19). The disk keeps the number that is known to be recorded, and that of an opening
    /// that may be: until that is known nothing is served, so the next opening takes the same number. A disk that knows neither
    /// of what is recorded has travelled in time, or is another one.
    fn look_at_disk(&mut self, disk: DiskId, shelves: &BTreeMap<DiskId, shelf::Shelf>) {
        let Some(recorded) = self.catalog.disk(disk).map(|disk| disk.incarnation) else {
            return;
        };
        let Some(own) = self.disks.get_mut(&disk) else {
            return;
        };
        if let Some((_, now)) = own.opening {
            if recorded == now && !own.is_known {
                own.is_known = true;
                self.effects.push(Effect::Recorded { disk });
            }
            return;
        }
        let kept = shelves[&disk].kept();
        if recorded.0 < kept.recorded {
            return; // what is known here of the catalog is older than that
        }
        let knows = recorded.0 == kept.recorded || recorded.0 == kept.incarnation;
        let incarnation = match knows && kept.incarnation > kept.recorded {
            true => kept.incarnation,
            false => {
                let above = kept.incarnation.max(recorded.0);
                next_opening(above, self.incarnation)
                    .expect("a run is short")
                    .0
            }
        };
        let (before, incarnation) = (Incarnation(kept.recorded), Incarnation(incarnation));
        own.opening = Some((before, incarnation));
        self.effects.push(Effect::Open { disk, incarnation });
        self.again_at = Time(0);
        // It was recorded before the last start had heard of it.
        if recorded == incarnation {
            own.is_known = true;
            self.effects.push(Effect::Recorded { disk });
        }
    }

    /// Makes, tells and ends the replicas of a PG that are on this node.
    fn look_at_pg(
        &mut self,
        now: Time,
        pg: PgId,
        shelves: &BTreeMap<DiskId, shelf::Shelf>,
        buffers: &mut Buffers,
    ) {
        let Some(configuration) = self.catalog.pg(pg).map(|pg| pg.configuration.clone()) else {
            return;
        };
        let mut out = Vec::new();
        self.groups
            .configured(now, pg, configuration.clone(), &mut out);
        self.take_groups(now, out, buffers);
        let disks: Vec<DiskId> = self.disks.keys().copied().collect();
        for disk in disks {
            let of = (disk, pg);
            let role = configuration.role(disk);
            let is_known = self.disks[&disk].is_known;
            if role.is_none() && self.replicas.remove(&of).is_some() {
                self.forgetting.insert(of);
                self.effects.push(Effect::Forget { disk, pg });
                self.step_mender(now, disk, scrub::Input::Dropped { pg }, buffers);
                self.step_comparer(now, disk, compare::Input::Dropped { pg });
            }
            if role.is_some() && is_known && !self.forgetting.contains(&of) {
                if !self.replicas.contains_key(&of) {
                    let durable = durable_of(&shelves[&disk], pg, &configuration, disk);
                    let replica = Replica::new((pg, disk), durable, self.off);
                    self.replicas.insert(of, replica);
                    self.tell_pace(of, buffers);
                    self.on_room(disk, shelves[&disk].room());
                }
                let is_joining = |session: u32| matches!(role, Some(Role::Joining { session: of, .. }) if of == session);
                self.filled
                    .retain(|at, session| *at != of || is_joining(*session));
                self.lost
                    .retain(|at, session| *at != of || is_joining(*session));
                let input = replica::Input::Configured(configuration.clone());
                self.step_replica(of, input, buffers);
                let of = configuration.clone();
                let input = scrub::Input::Configured { pg, of };
                self.step_mender(now, disk, input, buffers);
                let of = configuration.clone();
                let input = compare::Input::Configured { pg, of };
                self.step_comparer(now, disk, input);
                // A store finds that at its opening.
                if shelves[&disk].torn().any(|of| of == pg) {
                    self.tell_torn(now, (disk, pg));
                }
                self.tell_menders(now, buffers);
            }
        }
    }

    fn look_at_volume(&mut self, now: Time, volume: VolumeId, buffers: &mut Buffers) {
        let Some(of) = self.catalog.volume(volume) else {
            return;
        };
        let freezes = self.catalog.who_freezes(of) == Some(self.id);
        let is_attached = self.catalog.attached_at(volume, self.id).is_some();
        let here = match is_attached {
            true if of.sharing == Sharing::Shared => Here::Shared,
            true => Here::Attached,
            false if freezes => Here::ToFreeze,
            false => Here::NotAttached,
        };
        let layers = layers_of(of);
        self.coordinator.resize(volume, of.size);
        let range: Option<Ownership> = self.catalog.range(volume).copied();
        let mut out = Vec::new();
        if let Some(range) = range {
            let input = turns::Input::Owned { volume, range };
            self.turns.step(now, input, &mut out);
        }
        let input = turns::Input::Wanted { volume, here };
        self.turns.step(now, input, &mut out);
        if here == Here::Shared && freezes && self.groups.epoch(volume).is_none() {
            let input = turns::Input::Asked { volume };
            self.turns.step(now, input, &mut out);
        }
        self.take_turns(now, out, buffers);
        self.hold_if_shared(volume, here);
        // After the turns: who is not the owner any more changes no layer.
        let mut out = Vec::new();
        let input = cuts::Input::Changed { volume, layers };
        self.cuts.step(now, input, &mut out);
        self.take_cuts(now, out, buffers);
    }

    /// Requests of a shared volume wait for a turn; also where one ended with the attachment before this one.
    fn hold_if_shared(&mut self, volume: VolumeId, here: Here) {
        if here == Here::Shared
            && self.coordinator.volume(volume).is_none()
            && let Some(of) = self.catalog.volume(volume)
        {
            let open = self.open_volume(of);
            self.coordinator.open_held(open, &mut Vec::new());
        }
    }

    /// Takes frames whose layer was not known.
    fn take_early(&mut self, now: Time, buffers: &mut Buffers) {
        for (from, message) in std::mem::take(&mut self.early) {
            self.receive(now, from, message, buffers);
        }
    }

    pub(super) fn open(
        &mut self,
        now: Time,
        volume: VolumeId,
        epoch: Epoch,
        buffers: &mut Buffers,
    ) {
        let near: BTreeSet<DiskId> = self.disks.keys().copied().collect();
        let Some(of) = self.catalog.volume(volume).cloned() else {
            return;
        };
        let layers = layers_of(&of);
        let mut out = Vec::new();
        if !self.cuts.may_go_on(volume, layers) {
            let closed = cuts::Input::Closed { volume };
            self.cuts.step(now, closed, &mut Vec::new());
            self.groups.drop_asks(volume);
            let mut out = Vec::new();
            self.coordinator.start_over(volume, &mut out);
            self.take_coordinator(now, out, buffers);
        }
        self.groups.open(now, volume, epoch, near, &mut out);
        self.take_groups(now, out, buffers);
        let left = self.catalog.range(volume).map(|range| range.left);
        let open = self.open_volume(&of);
        let (mut out, mut of_cuts) = (Vec::new(), Vec::new());
        self.coordinator.open_held(open, &mut out);
        let opened = cuts::Input::Opened {
            volume,
            epoch,
            left: left.unwrap_or_default(),
            layers,
        };
        self.cuts.step(now, opened, &mut of_cuts);
        self.take_coordinator(now, out, buffers);
        self.take_cuts(now, of_cuts, buffers);
    }

    fn open_volume(&self, of: &Volume) -> OpenVolume {
        // The disk of an ask is for shards that keep what they coordinate: here the groups say where it goes.
        let pgs = self.catalog.pgs_of_volume(of).iter();
        OpenVolume {
            id: of.id,
            family: of.family,
            layer: layers_of(of).newest,
            size: of.size,
            pgs: pgs.map(|&pg| (pg, Some(DiskSlot(0)))).collect(),
        }
    }

    /// A client asks.
    pub fn ask(&mut self, now: Time, request: Request, buffers: &mut Buffers) {
        self.volumes_of.insert(request.token, request.volume);
        let mut out = Vec::new();
        let volume = request.volume;
        self.coordinator.request(request, &mut out);
        self.take_coordinator(now, out, buffers);
        if self.groups.epoch(volume).is_none() && self.coordinator.is_waited_for(volume) {
            let mut out = Vec::new();
            let asked = turns::Input::Asked { volume };
            self.turns.step(now, asked, &mut out);
            self.take_turns(now, out, buffers);
        }
        self.settle(now, buffers);
    }

    pub(super) fn step_replica(
        &mut self,
        of: (DiskId, PgId),
        input: replica::Input,
        buffers: &mut Buffers,
    ) {
        let Some(replica) = self.replicas.get_mut(&of) else {
            return;
        };
        let mut out = Vec::new();
        let header = match &input {
            replica::Input::Frame { header, .. } => Some(*header),
            _ => None,
        };
        replica.step(input, &mut out);
        replica.check();
        if let Some(header) = header {
            let (epoch, mark) = replica.mark(header.range);
            if mark > 0 {
                self.effects.push(Effect::Mark {
                    disk: of.0,
                    pg: of.1,
                    range: header.range,
                    epoch,
                    mark,
                });
            }
        }
        for output in out {
            self.take_replica(of, output, buffers);
        }
    }

    /// A shelf has forgotten a replica; where it is on the list again, it begins empty (R24).
    pub fn on_forgotten(
        &mut self,
        now: Time,
        (disk, pg): (DiskId, PgId),
        shelves: &BTreeMap<DiskId, shelf::Shelf>,
        buffers: &mut Buffers,
    ) {
        self.forgetting.remove(&(disk, pg));
        self.look_at_pg(now, pg, shelves, buffers);
        self.settle(now, buffers);
    }

    /// A shelf has answered.
    pub fn on_shelf(
        &mut self,
        now: Time,
        (disk, pg): (DiskId, PgId),
        op: Op,
        done: shelf::Done,
        buffers: &mut Buffers,
    ) {
        let shelf::Done { outcome, took, .. } = done;
        self.note_failed(disk, &outcome);
        self.note_torn(now, (disk, pg), &outcome);
        self.tell_menders(now, buffers);
        let input = match outcome {
            Outcome::Stored => replica::Input::Stored { op, ok: true },
            Outcome::Failed(_) => match op {
                Op::Fence | Op::Change { .. } | Op::Fill(_) => {
                    replica::Input::Stored { op, ok: false }
                }
                _ => replica::Input::NotLoaded { op },
            },
            Outcome::Value(content) => {
                let Some(run) = self.reading.remove(&(disk, pg, op)) else {
                    return;
                };
                let (zeroes, crcs, payload) = buffers.read(&content, run);
                replica::Input::Loaded {
                    op,
                    crcs,
                    zeroes,
                    payload,
                }
            }
            Outcome::Looked(takes) => replica::Input::Looked { op, takes },
            Outcome::Salvaged(_) => return debug_assert!(false, "a replica salvages nothing"),
            Outcome::Chunks { chunks, more } => replica::Input::Listed { op, chunks, more },
            Outcome::Chunk(found) => {
                let (content, payload) = buffers.fetched(found);
                replica::Input::Fetched {
                    op,
                    content,
                    payload,
                }
            }
        };
        self.step_replica((disk, pg), input, buffers);
        self.pace(now, disk, (op, took), buffers);
        self.settle(now, buffers);
    }

    pub(super) fn note_failed(&mut self, disk: DiskId, outcome: &Outcome) {
        if *outcome == Outcome::Failed(shelf::Failure::Gone)
            && let Some(own) = self.disks.get_mut(&disk)
            && !own.has_failed
        {
            own.has_failed = true;
            self.report(Report::DiskFailed { disk });
        }
    }

    /// Asserts the invariants of everything.
    pub fn check(&self) {
        self.menders.values().for_each(Mender::check);
        self.comparers.values().for_each(Comparer::check);
        self.groups.check();
        self.cuts.check();
    }
}

/// The end of a volume's chain.
fn layers_of(volume: &Volume) -> Layers {
    Layers {
        newest: volume.layers.last().expect("a volume has a layer").id,
        cutting: volume.cutting(),
    }
}

/// A block's checksum here.
pub fn crc_of(value: u64) -> u32 {
    value as u32
}
