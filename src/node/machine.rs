//! The node as a machine.

use super::door::{Input, Output};
use super::openings::{Openings, Step};
use crate::base::{DiskId, DiskSlot, Epoch, NodeId, PgId, Time, VolumeId};
use crate::protocol::catalog::{Catalog, Event, Ownership, Volume};
use crate::protocol::cuts::{self, Cuts, Layers};
use crate::protocol::membership::{self, Holder, HolderInput, Incarnation, LeaseNumber};
use crate::protocol::replication::RulesOff;
use crate::protocol::report::Report;
use crate::protocol::turns::{self, Here, Turns};
use crate::protocol::volume::OpenVolume;
use crate::protocol::volume::groups::WithoutLease;
use crate::shard::Reach;
use crate::shard::fabric::Order;
use crate::wire::Feature;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often what is not answered is told again.
const AGAIN: Duration = Duration::from_millis(100);

/// One start of a node. See the [module](super).
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    incarnation: Incarnation,
    holder: Holder,
    pub(super) turns: Turns,
    pub(super) cuts: Cuts,
    openings: Openings,
    /// Volumes that the fabric has open under an epoch: not those whose turn has ended.
    pub(super) open: BTreeSet<VolumeId>,
    /// Peers whose version has no word for that (R18).
    cannot_confirm: BTreeSet<NodeId>,
    /// Peers that there is a link to.
    linked: BTreeSet<NodeId>,
    has_catalog: bool,
    /// How many bytes a second its disks may be filled with, as the shards were told; without a limit they are told nothing.
    limits: BTreeMap<DiskId, u64>,
    pub(super) again_at: Time,
}

impl Node {
    /// A start of a node. `members`: those of the manager.
    ///
    /// # Errors
    /// The parameters of its lease contradict one another.
    pub fn new(
        now: Time,
        (id, incarnation): (NodeId, Incarnation),
        members: Vec<NodeId>,
        (leases, leases_off): (membership::Parameters, membership::RulesOff),
        off: RulesOff,
    ) -> Result<Node, membership::Unsound> {
        Ok(Node {
            id,
            incarnation,
            holder: Holder::new(now, id, incarnation, members, leases, leases_off)?,
            turns: Turns::new(id),
            cuts: Cuts::new(off),
            openings: Openings::default(),
            open: BTreeSet::new(),
            cannot_confirm: BTreeSet::new(),
            linked: BTreeSet::new(),
            has_catalog: false,
            limits: BTreeMap::new(),
            again_at: now,
        })
    }

    /// Whether it holds its lease: one comparison.
    pub fn is_leased(&self, now: Time) -> bool {
        self.holder.is_valid(now)
    }

    /// The lease that it holds, as far as it has looked.
    pub fn lease(&self) -> Option<LeaseNumber> {
        self.holder.lease()
    }

    /// Whether it was told to stop, and the manager knows that, or has waited its lease out.
    pub fn has_stopped(&self) -> bool {
        self.holder.is_over()
    }

    /// When [`Node::expire`] is to be called.
    pub fn deadline(&self) -> Time {
        let parts = [
            self.holder.deadline(),
            self.turns.deadline(),
            self.cuts.deadline(),
        ];
        let first = parts.into_iter().flatten().min();
        first.map_or(self.again_at, |at| at.min(self.again_at))
    }

    /// The deadline has come.
    pub fn expire(&mut self, now: Time, catalog: &Catalog, out: &mut Vec<Output>) {
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if is_due(self.holder.deadline()) {
            let mut list = Vec::new();
            self.holder.expire(now, &mut list);
            self.take_lease(now, list, catalog, out);
        }
        if is_due(self.turns.deadline()) {
            let mut list = Vec::new();
            self.turns.expire(now, &mut list);
            self.take_turns(now, list, catalog, out);
        }
        if is_due(self.cuts.deadline()) {
            let mut list = Vec::new();
            self.cuts.expire(now, &mut list);
            self.take_cuts(list, catalog, out);
        }
        if self.again_at <= now {
            self.again_at = now + AGAIN;
            let reports = self.openings.reports(self.incarnation);
            out.extend(reports.map(Output::Report));
            out.push(Output::Order(Order::SayAgain));
        }
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(&mut self, now: Time, input: Input<'_>, catalog: &Catalog, out: &mut Vec<Output>) {
        match input {
            Input::Snapshot => self.on_snapshot(now, catalog, out),
            Input::Events(events) => {
                for event in events {
                    self.on_event(now, event, catalog, out);
                }
            }
            Input::Lease(input) => {
                let mut list = Vec::new();
                let input: HolderInput = input;
                self.holder.step(now, input, &mut list);
                self.take_lease(now, list, catalog, out);
            }
            Input::DiskFound { disk, kept } => {
                self.openings.found(disk, kept);
                self.look_at_disk(disk, catalog, out);
            }
            Input::DiskFailed { disk } => {
                if self.openings.failed(disk) {
                    out.push(Output::Report(Report::DiskFailed { disk }));
                }
            }
            Input::Link { peer, link } => self.on_link(peer, link, catalog, out),
            Input::Wanted {
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
                self.turn(now, input, catalog, out);
            }
            Input::Drained { volume } => {
                let left = self.cuts.left(volume);
                self.turn(now, turns::Input::Drained { volume, left }, catalog, out);
            }
            Input::Waits { volume } => {
                self.turn(now, turns::Input::Asked { volume }, catalog, out);
            }
            Input::Cut { volume } => self.cut(now, cuts::Input::Drained { volume }, catalog, out),
            Input::Settled { volume } => {
                self.cut(now, cuts::Input::Settled { volume }, catalog, out);
            }
        }
    }

    /// Asserts the invariants of everything.
    pub fn check(&self) {
        self.cuts.check();
    }

    fn on_link(&mut self, peer: NodeId, link: Reach, catalog: &Catalog, out: &mut Vec<Output>) {
        // Of a peer that is away it is not known what it will be when it comes back: what it was counts.
        if let Reach::There(version) = link {
            match version.has(Feature::Confirm) {
                true => self.cannot_confirm.remove(&peer),
                false => self.cannot_confirm.insert(peer),
            };
            self.say_without_lease(out);
            self.linked.insert(peer);
        } else {
            self.linked.remove(&peer);
        }
        let disks: Vec<DiskId> = catalog.disks_of(peer).map(|disk| disk.id).collect();
        if self.has_catalog && !disks.is_empty() {
            out.push(Output::Order(match link {
                Reach::There(_) => Order::Connected { disks },
                Reach::Gone => Order::Disconnected { disks },
            }));
        }
    }

    fn say_without_lease(&self, out: &mut Vec<Output>) {
        let what = match self.cannot_confirm.is_empty() {
            true => WithoutLease::Confirm,
            false => WithoutLease::Wait,
        };
        out.push(Output::Order(Order::WithoutLease(what)));
    }

    fn on_snapshot(&mut self, now: Time, catalog: &Catalog, out: &mut Vec<Output>) {
        self.has_catalog = true;
        for &peer in &self.linked {
            let disks: Vec<DiskId> = catalog.disks_of(peer).map(|disk| disk.id).collect();
            out.push(Output::Order(Order::Connected { disks }));
        }
        let volumes: Vec<VolumeId> = catalog.volumes().map(|volume| volume.id).collect();
        let layers = volumes.iter().map(|&volume| Output::Layers { volume });
        out.extend(layers);
        for disk in self.openings.disks().collect::<Vec<_>>() {
            match catalog.disk(disk) {
                Some(_) => self.look_at_disk(disk, catalog, out),
                None => self.drop_disk(disk, out),
            }
        }
        self.look_at_limits(catalog, out);
        let pgs = catalog.pgs().map(|pg| pg.id);
        pgs.for_each(|pg| tell_pg(pg, catalog, out));
        for volume in volumes {
            self.look_at_volume(now, volume, catalog, out);
        }
    }

    fn on_event(&mut self, now: Time, event: &Event, catalog: &Catalog, out: &mut Vec<Output>) {
        match event {
            Event::PgChanged { pg } => {
                tell_pg(pg.id, catalog, out);
                // Who freezes a layer that is being cut may be another one now.
                let cutting = catalog.volumes().filter(|of| of.cutting().is_some());
                for volume in cutting.map(|of| of.id).collect::<Vec<_>>() {
                    self.look_at_volume(now, volume, catalog, out);
                }
            }
            Event::VolumeCreated { volume } | Event::VolumeChanged { volume } => {
                let volume = volume.id;
                out.push(Output::Layers { volume });
                self.look_at_volume(now, volume, catalog, out);
            }
            Event::PgsCreated { pgs, .. } => {
                pgs.iter().for_each(|pg| tell_pg(pg.id, catalog, out));
            }
            Event::DiskAdded { disk, pgs, .. } => {
                self.look_at_disk(disk.id, catalog, out);
                if self.linked.contains(&disk.node) {
                    let disks = vec![disk.id];
                    out.push(Output::Order(Order::Connected { disks }));
                }
                pgs.iter().for_each(|pg| tell_pg(pg.id, catalog, out));
            }
            Event::NodeRemoved { node } => {
                self.cannot_confirm.remove(node);
                self.linked.remove(node);
                self.say_without_lease(out);
            }
            Event::PoolChanged { .. } => self.look_at_limits(catalog, out),
            Event::DiskRemoved { disk } => self.drop_disk(*disk, out),
            Event::DiskChanged { disk } => self.look_at_disk(disk.id, catalog, out),
            Event::RangeTaken { volume, .. }
            | Event::RangeGiven { volume, .. }
            | Event::Detached { volume } => self.look_at_volume(now, *volume, catalog, out),
            Event::Attached { attachment } => {
                self.look_at_volume(now, attachment.volume, catalog, out);
            }
            _ => {}
        }
    }

    /// Opens a disk, and serves from it when the manager has recorded that.
    fn look_at_disk(&mut self, disk: DiskId, catalog: &Catalog, out: &mut Vec<Output>) {
        let Some(recorded) = catalog.disk(disk).map(|disk| disk.incarnation) else {
            return;
        };
        for step in self.openings.look_at(disk, recorded, self.incarnation) {
            match step {
                Step::Open(incarnation) => {
                    // What was recorded before this node had the disk is recorded there too.
                    let volumes = catalog.volumes().map(|volume| volume.id);
                    out.extend(volumes.map(|volume| Output::Layers { volume }));
                    out.push(Output::Open { disk, incarnation });
                    self.again_at = Time(0);
                }
                Step::Recorded => {
                    out.push(Output::Recorded { disk });
                    out.push(Output::Order(Order::Disk { disk }));
                    // A shard that had it not open has not heard of it.
                    self.limits.remove(&disk);
                    self.look_at_limits(catalog, out);
                    let pgs: Vec<PgId> = catalog.pgs_on(disk).collect();
                    pgs.into_iter().for_each(|pg| tell_pg(pg, catalog, out));
                }
            }
        }
    }

    /// Tells the shards how fast disks may be filled, where that is new.
    fn look_at_limits(&mut self, catalog: &Catalog, out: &mut Vec<Output>) {
        for disk in self.openings.disks() {
            let of = catalog.disk(disk).and_then(|disk| catalog.pool(disk.pool));
            let wanted = of.and_then(|pool| pool.rebuild_limit);
            if self.limits.get(&disk).copied() == wanted {
                continue;
            }
            match wanted {
                Some(rate) => self.limits.insert(disk, rate),
                None => self.limits.remove(&disk),
            };
            out.push(Output::Order(Order::FillLimit {
                disk,
                bytes_per_second: wanted,
            }));
        }
    }

    /// A disk was taken away: nothing is on it any more.
    fn drop_disk(&mut self, disk: DiskId, out: &mut Vec<Output>) {
        self.openings.forget(disk);
        self.limits.remove(&disk);
        out.push(Output::Order(Order::NoDisk { disk }));
    }

    fn look_at_volume(
        &mut self,
        now: Time,
        volume: VolumeId,
        catalog: &Catalog,
        out: &mut Vec<Output>,
    ) {
        let Some(of) = catalog.volume(volume) else {
            return;
        };
        let freezes = catalog.who_freezes(of) == Some(self.id);
        let is_attached = catalog.attached_at(volume, self.id).is_some();
        let here = match is_attached {
            true if catalog.is_shared(of) => Here::Shared,
            true => Here::Attached,
            false if freezes => Here::ToFreeze,
            false => Here::NotAttached,
        };
        let size = of.size;
        out.push(Output::Order(Order::Resize { volume, size }));
        let range: Option<Ownership> = catalog.range(volume).copied();
        let mut list = Vec::new();
        if let Some(range) = range {
            let input = turns::Input::Owned { volume, range };
            self.turns.step(now, input, &mut list);
        }
        let input = turns::Input::Wanted { volume, here };
        self.turns.step(now, input, &mut list);
        if here == Here::Shared && freezes && !self.open.contains(&volume) {
            let input = turns::Input::Asked { volume };
            self.turns.step(now, input, &mut list);
        }
        self.take_turns(now, list, catalog, out);
        if here == Here::Shared {
            // Also where a turn has ended with the attachment before this one.
            out.push(Output::Order(Order::Offer(open_volume(of, catalog))));
        }
        // After the turns: who is not the owner any more changes no layer.
        let layers = layers_of(of);
        self.cut(now, cuts::Input::Changed { volume, layers }, catalog, out);
    }

    /// The volume is this node's under `epoch`.
    pub(super) fn open(
        &mut self,
        now: Time,
        (volume, epoch): (VolumeId, Epoch),
        catalog: &Catalog,
        out: &mut Vec<Output>,
    ) {
        let Some(of) = catalog.volume(volume) else {
            return;
        };
        let layers = layers_of(of);
        if !self.cuts.may_go_on(volume, layers) {
            self.close_cuts(now, volume);
            out.push(Output::Order(Order::StartOver { volume }));
        }
        self.open.insert(volume);
        out.push(Output::Order(Order::Open {
            open: open_volume(of, catalog),
            epoch,
            near: self.openings.disks().collect(),
        }));
        let left = catalog.range(volume).map(|range| range.left);
        let opened = cuts::Input::Opened {
            volume,
            epoch,
            left: left.unwrap_or_default(),
            layers,
        };
        self.cut(now, opened, catalog, out);
    }

    fn turn(&mut self, now: Time, input: turns::Input, catalog: &Catalog, out: &mut Vec<Output>) {
        let mut list = Vec::new();
        self.turns.step(now, input, &mut list);
        self.take_turns(now, list, catalog, out);
    }

    fn cut(&mut self, now: Time, input: cuts::Input, catalog: &Catalog, out: &mut Vec<Output>) {
        let mut list = Vec::new();
        self.cuts.step(now, input, &mut list);
        self.take_cuts(list, catalog, out);
    }

    /// Told before what is in flight is given up: that is not drained.
    pub(super) fn close_cuts(&mut self, now: Time, volume: VolumeId) {
        let closed = cuts::Input::Closed { volume };
        self.cuts.step(now, closed, &mut Vec::new());
    }
}

fn tell_pg(pg: PgId, catalog: &Catalog, out: &mut Vec<Output>) {
    if let Some(found) = catalog.pg(pg) {
        let of = found.configuration.clone();
        out.push(Output::Order(Order::Configured { pg, of }));
    }
}

/// The end of a volume's chain.
fn layers_of(volume: &Volume) -> Layers {
    Layers {
        newest: volume.layers.last().expect("a volume has a layer").id,
        cutting: volume.cutting(),
    }
}

fn open_volume(of: &Volume, catalog: &Catalog) -> OpenVolume {
    // The disk of an ask is for shards that keep what they coordinate: here the groups say where it goes.
    let pgs = catalog.pgs_of_volume(of).iter();
    OpenVolume {
        id: of.id,
        family: of.family,
        layer: layers_of(of).newest,
        size: of.size,
        pgs: pgs.map(|&pg| (pg, Some(DiskSlot(0)))).collect(),
    }
}
