//! What operators do in the middle of everything else: disks and nodes are added, emptied and taken away, disks weigh another thing, the pool
//! has more or fewer copies, volumes grow.
//!
//! A stroke changes what is wanted, if what is wanted then can be had. The world compares that with the catalog again and again, and asks
//! for the next step, as an operator does, or a script that must be safe to interrupt and repeat. When all has healed everything that is wanted must be there.

use super::checkers::heals::Ailment;
use super::coverage::Fault;
use super::setup::{DISK_SIZE, add_disk, name_of, store_of};
use super::shelf::{Shelf, Stores};
use super::swarm::Knobs;
use super::world::{Due, World};
use crate::base::{BLOCK, DiskId, NodeId, Prng, VolumeId};
use crate::protocol::catalog::{Command, Disk, DiskState, Event, Pg};
use crate::protocol::placement::Level;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often what is wanted is compared with what is.
const LOOKS_EVERY: Duration = Duration::from_millis(40);
/// Disks that are added in a run, and those of one node.
const ADDED_MAX: u32 = 12;
const DISKS_OF_NODE_MAX: usize = 5;
/// With more PGs the number of copies stays.
const PGS_MAX: usize = 128;

/// What an operator wants. Nodes are counted from 0, disks within their node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing is to be on a disk, for so long.
    Drain {
        disk: (u32, u32),
        lasts: Duration,
    },
    /// A disk goes for good.
    RemoveDisk {
        disk: (u32, u32),
    },
    AddDisk {
        node: u32,
    },
    /// A disk is to have so many quarters of what it has by its size.
    Weigh {
        disk: (u32, u32),
        quarters: u64,
    },
    Copies {
        copies: u32,
        min_copies: u32,
    },
    /// A volume gets the second half of its size.
    Grow {
        volume: u32,
    },
    /// The last node, which is not there yet.
    AddNode,
    RemoveNode {
        node: u32,
    },
}

impl Wish {
    /// The wish of a class: the disk at `place` of `node`.
    pub fn draw(
        fault: Fault,
        knobs: &Knobs,
        (disk, lasts): ((u32, u32), Duration),
        prng: &mut Prng,
    ) -> Option<Wish> {
        Some(match fault {
            Fault::Drain => Wish::Drain { disk, lasts },
            Fault::DiskRemoved => Wish::RemoveDisk { disk },
            Fault::DiskAdded => Wish::AddDisk { node: disk.0 },
            Fault::Weight => Wish::Weigh {
                disk,
                quarters: prng.between(1, 12),
            },
            Fault::Copies => {
                let copies = prng.between(1, 3) as u32;
                let min_copies = 1 + prng.below(u64::from(copies.min(2))) as u32;
                Wish::Copies { copies, min_copies }
            }
            Fault::Grown => Wish::Grow {
                volume: prng.below(knobs.volumes.into()) as u32,
            },
            Fault::NodeAdded => Wish::AddNode,
            Fault::NodeRemoved => Wish::RemoveNode { node: disk.0 },
            _ => return None,
        })
    }

    /// The class that it belongs to.
    pub fn fault(&self) -> Fault {
        match self {
            Wish::Drain { .. } => Fault::Drain,
            Wish::RemoveDisk { .. } => Fault::DiskRemoved,
            Wish::AddDisk { .. } => Fault::DiskAdded,
            Wish::Weigh { .. } => Fault::Weight,
            Wish::Copies { .. } => Fault::Copies,
            Wish::Grow { .. } => Fault::Grown,
            Wish::AddNode => Fault::NodeAdded,
            Wish::RemoveNode { .. } => Fault::NodeRemoved,
        }
    }

    /// Whether it means something among so many nodes.
    pub fn fits(&self, nodes: u32) -> bool {
        match *self {
            Wish::Drain {
                disk: (node, _), ..
            }
            | Wish::RemoveDisk { disk: (node, _) }
            | Wish::Weigh {
                disk: (node, _), ..
            }
            | Wish::AddDisk { node }
            | Wish::RemoveNode { node } => node < nodes,
            Wish::Copies { .. } | Wish::Grow { .. } | Wish::AddNode => true,
        }
    }
}

/// What operators want, and what of it was not seen to have an effect yet.
#[derive(Debug, Default)]
pub(super) struct Operators {
    /// Somebody has wanted something: it is looked at until the run ends.
    is_looking: bool,
    /// Disks that are to be empty, with how many wishes want that; those that held something then.
    drained: BTreeMap<DiskId, u32>,
    emptied: BTreeSet<DiskId>,
    /// Disks and nodes that are to go, and are not gone.
    going: BTreeSet<DiskId>,
    leaving: BTreeSet<NodeId>,
    /// The node that is to come, and whether it may by now.
    late: Option<(NodeId, bool)>,
    /// Disks that are to come, by the number of their store.
    coming: BTreeMap<u32, NodeId>,
    last_number: u32,
    added: u32,
    weights: BTreeMap<DiskId, u64>,
    weighed: BTreeSet<DiskId>,
    copies: Option<(u32, u32)>,
    /// PGs are to become of so many copies, and none has yet.
    reshaping: Option<u32>,
    sizes: BTreeMap<VolumeId, u64>,
    /// Disks and nodes that have come, and held no copy yet.
    new: BTreeSet<DiskId>,
    new_nodes: BTreeSet<NodeId>,
}

impl Operators {
    /// The node that joins while a run goes on: it is not there at its start.
    pub(super) fn expect_late(&mut self, node: NodeId) {
        self.late = Some((node, false));
    }

    /// The least that is wanted, or will be.
    pub(super) fn least_copies(&self, copies: u32) -> u32 {
        self.copies.map_or(copies, |(wanted, _)| wanted.min(copies))
    }

    /// The next disk's.
    pub(super) fn next_number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }
}

impl World {
    /// Wants something, where that can be had; says whether it is new.
    pub(super) fn wish(&mut self, wish: Wish) -> bool {
        if !self.take_wish(wish) {
            return false;
        }
        self.counts.met.faults.injected(wish.fault());
        if !self.operators.is_looking {
            self.operators.is_looking = true;
            self.put_due(Duration::ZERO, Due::Operators);
        }
        true
    }

    fn take_wish(&mut self, wish: Wish) -> bool {
        let copies = self.copies_wanted();
        match wish {
            Wish::Drain { disk, lasts } => {
                let Some(disk) = self.spare(disk, copies) else {
                    return false;
                };
                *self.operators.drained.entry(disk).or_default() += 1;
                if self.catalog.pgs_on(disk).next().is_some() {
                    self.operators.emptied.insert(disk);
                }
                // Long enough for something to be moved.
                self.put_due(4 * lasts, Due::Undrain(disk));
            }
            Wish::RemoveDisk { disk } => {
                let Some(disk) = self.spare(disk, copies) else {
                    return false;
                };
                return self.operators.going.insert(disk);
            }
            Wish::AddDisk { node } => {
                let node = NodeId(node + 1);
                let own = self.catalog.disks_of(node).count();
                let coming = self.operators.coming.values().filter(|of| **of == node);
                if self.catalog.node(node).is_none()
                    || self.operators.leaving.contains(&node)
                    || own + coming.count() >= DISKS_OF_NODE_MAX
                    || self.operators.added >= ADDED_MAX
                {
                    return false;
                }
                self.operators.added += 1;
                self.want_disk(node);
            }
            Wish::Weigh { disk, quarters } => {
                let of = self.disk(disk).and_then(|disk| self.catalog.disk(disk));
                let Some(disk) = of.map(|disk| disk.id) else {
                    return false;
                };
                self.operators
                    .weights
                    .insert(disk, DISK_SIZE / 4 * quarters);
            }
            Wish::Copies { copies, min_copies } => {
                // In a pool of one copy every disk has many PGs of its own.
                if !self.can_spare(&[], copies) || self.catalog.pgs().len() > PGS_MAX {
                    return false;
                }
                // What leaves then may be the sound copy of what is damaged: two failures at once.
                let is_less = self.catalog.pools().any(|pool| pool.copies > copies);
                if is_less && !self.atlas.is_unharmed() {
                    return false;
                }
                self.operators.copies = Some((copies, min_copies));
                self.tell_atlas_all();
            }
            Wish::Grow { volume } => {
                let id = self.volumes[volume as usize];
                let size = self.knobs.volume_blocks[volume as usize] * BLOCK;
                let has = self.catalog.volume(id).map(|volume| volume.size);
                if has.is_none_or(|has| has >= size) {
                    return false;
                }
                return self.operators.sizes.insert(id, size).is_none();
            }
            Wish::AddNode => match &mut self.operators.late {
                Some((_, may)) if !*may => *may = true,
                _ => return false,
            },
            Wish::RemoveNode { node } => {
                let id = NodeId(node + 1);
                let disks: Vec<DiskId> = self.catalog.disks_of(id).map(|disk| disk.id).collect();
                let is_there = self.catalog.node(id).is_some();
                if self.members.contains(&id) || !is_there || !self.can_spare(&disks, copies) {
                    return false;
                }
                if self.catalog.nodes().count() <= 3 || !self.operators.leaving.insert(id) {
                    return false;
                }
                self.operators.coming.retain(|_, of| *of != id);
                for act in self.workload.leave(node) {
                    self.carry_out_act(act);
                }
            }
        }
        true
    }

    fn tell_atlas_all(&mut self) {
        let pgs: Vec<_> = self.catalog.pgs().map(|pg| pg.id).collect();
        pgs.into_iter().for_each(|pg| self.tell_atlas(pg));
    }

    fn want_disk(&mut self, node: NodeId) {
        let number = self.operators.next_number();
        self.operators.coming.insert(number, node);
    }

    /// The most that is wanted now, or still has to be kept.
    fn copies_wanted(&self) -> u32 {
        let has = self.catalog.pools().map(|pool| pool.copies).max();
        let wanted = self.operators.copies.map(|(copies, _)| copies);
        has.max(wanted).unwrap_or(1)
    }

    /// A disk that can be spared.
    fn spare(&self, disk: (u32, u32), copies: u32) -> Option<DiskId> {
        let disk = self.disk(disk)?;
        self.can_spare(&[disk], copies).then_some(disk)
    }

    /// Whether without these disks, and without those that are drained or going, there are enough nodes for so many copies.
    fn can_spare(&self, disks: &[DiskId], copies: u32) -> bool {
        let stays = |disk: &&Disk| {
            let operators = &self.operators;
            !disks.contains(&disk.id)
                && !operators.drained.contains_key(&disk.id)
                && !operators.going.contains(&disk.id)
                && !operators.leaving.contains(&disk.node)
        };
        let nodes: BTreeSet<NodeId> = self
            .catalog
            .disks()
            .filter(stays)
            .map(|disk| disk.node)
            .collect();
        nodes.len() >= copies as usize
    }

    /// A drain is over.
    pub(super) fn undrain(&mut self, disk: DiskId) {
        let left = self.operators.drained.get_mut(&disk);
        if left.is_some_and(|left| {
            *left -= 1;
            *left == 0
        }) {
            self.operators.drained.remove(&disk);
        }
        self.operators.emptied.remove(&disk);
    }

    /// Asks for the next steps towards what is wanted.
    pub(super) fn look_at_wishes(&mut self) {
        let steps = self.next_steps();
        steps.into_iter().for_each(|command| self.operate(command));
        self.put_due(LOOKS_EVERY, Due::Operators);
    }

    /// What operators want, and is not so.
    pub(super) fn unfulfilled(&self) -> Option<Ailment> {
        let operators = &self.operators;
        let going = operators
            .going
            .first()
            .map(|disk| format!("{disk} is to go"));
        let leaving = || {
            operators
                .leaving
                .first()
                .map(|node| format!("{node} is to leave"))
        };
        let step = || self.next_steps().first().map(|step| format!("{step:?}"));
        going
            .or_else(leaving)
            .or_else(step)
            .map(Ailment::Unfulfilled)
    }

    fn next_steps(&self) -> Vec<Command> {
        let operators = &self.operators;
        let mut steps = Vec::new();
        if let Some((node, true)) = operators.late
            && self.catalog.node(node).is_none()
        {
            let name = name_of(node);
            steps.push(Command::AddNode { name });
        }
        let coming = operators.coming.iter();
        steps.extend(coming.map(|(&number, &node)| add_disk(node, number)));
        for disk in self.catalog.disks() {
            let id = disk.id;
            let goes = operators.going.contains(&id) || operators.leaving.contains(&disk.node);
            let state = match goes || operators.drained.contains_key(&id) {
                true => DiskState::Draining,
                false => DiskState::Serving,
            };
            if goes && self.catalog.pgs_on(id).next().is_none() {
                steps.push(Command::RemoveDisk { disk: id });
            } else if disk.state.is_good() && disk.state != state {
                steps.push(Command::SetDiskState { disk: id, state });
            }
        }
        for &node in &operators.leaving {
            let at = self.catalog.attachments().filter(|at| at.node == node);
            steps.extend(at.map(|at| Command::Detach {
                volume: at.volume,
                key: Some(at.key),
            }));
            if self.catalog.disks_of(node).next().is_none() {
                steps.push(Command::RemoveNode { node });
            }
        }
        for (&disk, &weight) in &operators.weights {
            let weight = Some(weight);
            steps.push(Command::SetWeight { disk, weight });
        }
        if let Some((copies, min_copies)) = operators.copies {
            let pool = self.catalog.pool_named("default");
            if pool.is_some_and(|pool| (pool.copies, pool.min_copies) != (copies, min_copies)) {
                steps.push(Command::SetPool {
                    pool: "default".to_owned(),
                    copies,
                    min_copies,
                    level: Level::Node,
                });
            }
        }
        for (&volume, &size) in &operators.sizes {
            if let Some(volume) = self.catalog.volume(volume) {
                let name = volume.name.clone();
                steps.push(Command::ResizeVolume { name, size });
            }
        }
        steps
    }

    /// What was committed may be what was wanted.
    pub(super) fn tell_operators(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::NodeAdded { node } => {
                    self.operators.new_nodes.insert(node.id);
                    self.operators.late = None;
                    self.workload.admit(node.id.0 - 1);
                    for _ in 0..self.knobs.shape.disks[node.id.0 as usize - 1] {
                        self.want_disk(node.id);
                    }
                    // It has nothing of the catalog: it begins with a snapshot.
                    self.log.down(self.now, node.id);
                    self.put_due(Duration::ZERO, Due::Start(node.id));
                }
                Event::NodeRemoved { node } => {
                    self.operators.leaving.remove(node);
                    self.counts.met.faults.consumed(Fault::NodeRemoved);
                }
                Event::DiskAdded { disk, pgs } => {
                    pgs.iter().for_each(|pg| self.tell_atlas(pg.id));
                    let coming = &mut self.operators.coming;
                    coming.retain(|number, _| store_of(*number) != disk.store);
                    self.operators.new.insert(disk.id);
                    self.put_disk(disk.node, disk.id);
                }
                Event::DiskRemoved { disk } => {
                    self.operators.going.remove(disk);
                    self.operators.weights.remove(disk);
                    self.operators.drained.remove(disk);
                    self.counts.met.faults.consumed(Fault::DiskRemoved);
                    self.take_disk_away(*disk);
                }
                Event::DiskChanged { disk } => {
                    let wanted = self.operators.weights.get(&disk.id);
                    if wanted == Some(&disk.weight()) {
                        self.operators.weights.remove(&disk.id);
                        self.operators.weighed.insert(disk.id);
                    }
                }
                Event::PoolChanged { pool } => {
                    self.operators.reshaping = Some(pool.copies);
                    self.tell_atlas_all();
                }
                Event::PgsCreated { pgs, .. } => {
                    pgs.iter().for_each(|pg| self.tell_atlas(pg.id));
                }
                Event::PgChanged { pg } => self.look_at_change(pg),
                Event::VolumeChanged { volume } => {
                    let wanted = self.operators.sizes.get(&volume.id);
                    if wanted == Some(&volume.size) {
                        self.operators.sizes.remove(&volume.id);
                        self.counts.met.faults.consumed(Fault::Grown);
                    }
                }
                _ => {}
            }
        }
    }

    /// A PG has changed: what operators wanted may have come of it.
    fn look_at_change(&mut self, pg: &Pg) {
        let operators = &mut self.operators;
        let faults = &mut self.counts.met.faults;
        for disk in pg.configuration.in_sync() {
            if operators.new.remove(&disk) {
                faults.consumed(Fault::DiskAdded);
            }
            let node = self.catalog.disk(disk).map(|disk| disk.node);
            if node.is_some_and(|node| operators.new_nodes.remove(&node)) {
                faults.consumed(Fault::NodeAdded);
            }
        }
        if let Some(copies) = operators.reshaping
            && pg.configuration.in_sync().count() == copies as usize
            && pg.want.is_none()
        {
            operators.reshaping = None;
            faults.consumed(Fault::Copies);
        }
        if let Some(want) = pg.want {
            for disk in want.from.into_iter().chain(want.to) {
                if operators.weighed.remove(&disk) {
                    faults.consumed(Fault::Weight);
                }
            }
        }
        let is_empty = |disk: &DiskId| self.catalog.pgs_on(*disk).next().is_none();
        let emptied = operators.emptied.iter().copied().find(is_empty);
        if let Some(disk) = emptied {
            operators.emptied.remove(&disk);
            faults.consumed(Fault::Drain);
        }
    }

    /// A disk of a node, empty.
    pub(super) fn put_disk(&mut self, node: NodeId, disk: DiskId) {
        let prng = self.prng.fork();
        let (manner, breaks) = (self.knobs.manner, self.off.breaks);
        let shelf = match self.off.stores {
            Stores::Whole => Shelf::whole(prng, manner, breaks),
            Stores::Shelves => {
                let mut shelf = Shelf::new(prng, manner);
                shelf.breaks = breaks;
                shelf
            }
        };
        self.shelves.insert(disk, shelf);
        let place = self.places.get_mut(&node).expect("nodes stay");
        place.disks.push(disk);
    }

    /// Its shelf stays, so that whoever has not heard of it finds what was there.
    fn take_disk_away(&mut self, disk: DiskId) {
        for place in self.places.values_mut() {
            place.disks.retain(|of| *of != disk);
        }
    }
}
