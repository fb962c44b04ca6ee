//! What strikes a run, and how it becomes well again.
//!
//! A stroke that the atlas does not allow is left out. Damage inside a disk (a chunk that cannot be read, a block that rots) strikes only what
//! another disk that is in sync has as well.

use super::atlas::{Atlas, Strike};
use super::checkers::heals::{Ailment, Healing, Verdict};
use super::checkers::{Failure, Promise};
use super::contents::SECTORS;
use super::coverage::Fault;
use super::links::Block;
use super::plan::Stroke;
use super::shelf::Shelf;
use super::world::{Due, HEALS_WITHIN, Stage, World};
use crate::base::{BLOCK, DiskId, NodeId, PgId, RequestKind};
use crate::protocol::catalog::{Command, FrontEnd};
use crate::protocol::replication::Role;
use crate::wire::Version;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long everything has to stay well: two leases.
const SETTLES: Duration = Duration::from_millis(800);

/// How often the last look asks for the same blocks.
const LOOKS_MAX: u32 = 50;

/// So long after it was silent a disk may still be taken out for it.
const TAKEN_OUT_WITHIN: Duration = Duration::from_millis(1_500);

impl World {
    /// What is due of the plan.
    pub(super) fn strike(&mut self) {
        while let Some(&planned) = self.plan.strokes.get(self.next_stroke)
            && planned.at <= self.now.since(self.round)
            && self.stage == Stage::Struck
        {
            self.next_stroke += 1;
            if let Stroke::Wish(wish) = planned.stroke {
                if self.wish(wish) {
                    self.counts.strokes += 1;
                    self.say(|| format!("STROKE {wish:?}"));
                }
                continue;
            }
            let disks = self.struck(planned.stroke);
            let fault = planned.stroke.fault();
            let strike = Atlas::asks_for(fault, &disks, None);
            let may = strike
                .as_ref()
                .map_or(Ok(()), |strike| self.atlas.may(strike));
            if may.is_err() {
                continue;
            }
            if let Some(strike) = &strike {
                self.atlas.struck(strike);
            }
            if let Some(Strike::Silence { disks }) = strike {
                let lasts = planned.stroke.lasts().unwrap_or_default();
                self.put_due(lasts + TAKEN_OUT_WITHIN, Due::Speak(disks));
            }
            self.counts.strokes += 1;
            self.say(|| format!("STROKE {:?}", planned.stroke));
            self.carry_out(planned.stroke);
            let seem_lost = planned.stroke.seem_lost(self.plan.nodes);
            if !seem_lost.is_empty() {
                let after = Duration::from_millis(50 + self.prng.below(900));
                self.put_due(after, Due::Flee(seem_lost));
            }
        }
    }

    fn disks_of(&self, node: u32) -> Vec<DiskId> {
        let place = self.places.get(&NodeId(node + 1));
        place.map_or_else(Vec::new, |place| place.disks.clone())
    }

    /// The disks that a stroke is about.
    fn struck(&self, stroke: Stroke) -> Vec<DiskId> {
        match stroke {
            Stroke::OneWay { nodes: (a, b), .. }
            | Stroke::Flap { nodes: (a, b), .. }
            | Stroke::Disconnect { nodes: (a, b) } => [self.disks_of(a), self.disks_of(b)].concat(),
            Stroke::Partition { side, .. } => {
                let nodes = (0..self.plan.nodes).filter(|node| side & 1 << node != 0);
                nodes.flat_map(|node| self.disks_of(node)).collect()
            }
            Stroke::Crash { node, .. }
            | Stroke::Pause { node, .. }
            | Stroke::ClockStop { node, .. } => self.disks_of(node),
            Stroke::DiskError { disk, .. }
            | Stroke::Rot { disk, .. }
            | Stroke::DiskGone { disk, .. }
            | Stroke::DiskOld { disk } => self.disk(disk).into_iter().collect(),
            // Of whom these strike is decided when they do.
            Stroke::LostWrite { .. }
            | Stroke::TornTable { .. }
            | Stroke::PowerLoss { .. }
            | Stroke::Depose
            | Stroke::Wish(_) => Vec::new(),
        }
    }

    pub(super) fn disk(&self, (node, at): (u32, u32)) -> Option<DiskId> {
        self.disks_of(node).get(at as usize).copied()
    }

    fn carry_out(&mut self, stroke: Stroke) {
        let id = |node: u32| NodeId(node + 1);
        match stroke {
            Stroke::Disconnect { nodes: (a, b) } => {
                self.network.disconnect(self.now, id(a), id(b));
            }
            Stroke::OneWay {
                nodes: (a, b),
                lasts,
            } => self.block(
                Block::OneWay {
                    from: id(a),
                    to: id(b),
                },
                lasts,
            ),
            Stroke::Partition { side, lasts } => {
                let nodes = (0..self.plan.nodes).filter(|node| side & 1 << node != 0);
                let side: BTreeSet<NodeId> = nodes.map(id).collect();
                self.block(Block::Partition { side }, lasts);
            }
            Stroke::Flap {
                nodes: (a, b),
                period,
                lasts,
            } => self.block(
                Block::Flap {
                    between: (id(a), id(b)),
                    since: self.now,
                    period,
                },
                lasts,
            ),
            Stroke::Crash { node, lasts } => match self.prng.one_in(2) {
                true => self.die(id(node), lasts),
                // Amid what it does next.
                false => {
                    if let Some(place) = self.places.get_mut(&id(node)) {
                        place.is_doomed = Some(lasts);
                    }
                }
            },
            Stroke::Pause { node, lasts } => {
                if self.network.pause(id(node)) {
                    if let Some(place) = self.places.get_mut(&id(node)) {
                        place.is_paused = true;
                    }
                    self.put_due(lasts, Due::Wake(id(node)));
                }
            }
            Stroke::PowerLoss { lasts } => {
                self.power_loss();
                for node in self.places.keys().copied().collect::<Vec<_>>() {
                    let late = Duration::from_micros(self.prng.below(200_000));
                    self.put_due(lasts + late, Due::Start(node));
                }
            }
            Stroke::ClockStop { node, lasts } => self.clocks.stop(self.now, id(node), lasts),
            Stroke::Depose => self.log.depose(self.now),
            Stroke::Wish(_) => {} // no fault: see `strike`
            Stroke::DiskError { disk, pick } | Stroke::Rot { disk, pick } => {
                if let Some(disk) = self.disk(disk) {
                    self.damage(disk, stroke.fault(), pick);
                }
            }
            Stroke::LostWrite { disk, pick } => {
                if let Some(disk) = self.disk(disk) {
                    self.plan_loss(disk, pick);
                }
            }
            Stroke::TornTable { disk, pick } => {
                if let Some(disk) = self.disk(disk) {
                    self.tear(disk, pick);
                }
            }
            Stroke::DiskGone { disk, lasts } => {
                if let Some(disk) = self.disk(disk)
                    && let Some(shelf) = self.shelves.get_mut(&disk)
                {
                    shelf.lose();
                    self.put_due(lasts, Due::Replace(disk));
                }
            }
            Stroke::DiskOld { disk: (node, at) } => {
                if let Some(disk) = self.disk((node, at))
                    && self.runs(id(node))
                {
                    self.crash(id(node));
                    if self.shelves.get_mut(&disk).is_some_and(Shelf::age) {
                        self.begins_again(disk);
                    }
                    self.put_due(Duration::from_millis(5), Due::Start(id(node)));
                }
            }
        }
    }

    fn die(&mut self, id: NodeId, lasts: Duration) {
        if self.runs(id) {
            self.counts.met.faults.both(Fault::Crash);
            self.crash(id);
            self.put_due(lasts, Due::Start(id));
        }
    }

    fn runs(&self, id: NodeId) -> bool {
        self.places
            .get(&id)
            .is_some_and(|place| place.node.is_some())
    }

    fn block(&mut self, block: Block, lasts: Duration) {
        if let Some(block) = self.network.block(block) {
            self.put_due(lasts, Due::Lift(block));
        }
    }

    pub(super) fn power_loss(&mut self) {
        self.network.power_loss(self.now);
        self.judges.histories.power_lost();
        for node in self.places.keys().copied().collect::<Vec<_>>() {
            if self.runs(node) {
                self.crash(node);
            }
            self.clocks.reboot(self.now, node);
        }
    }

    pub(super) fn on_due(&mut self, due: Due) {
        match due {
            Due::Start(node) => self.start(node),
            Due::Die(node, lasts) => self.die(node, lasts),
            Due::Wake(node) => self.wake(node),
            Due::Lift(block) => {
                self.network.lift(block);
            }
            Due::Replace(disk) => self.replace(disk),
            Due::Flee(nodes) => {
                for act in self.workload.flee(&nodes) {
                    self.carry_out_act(act);
                }
            }
            Due::Speak(disks) => disks.into_iter().for_each(|disk| self.atlas.speaks(disk)),
            Due::Operators => self.look_at_wishes(),
            Due::Undrain(disk) => self.undrain(disk),
        }
    }

    fn wake(&mut self, id: NodeId) {
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        if !place.is_paused {
            return;
        }
        self.counts.met.faults.consumed(Fault::Pause);
        place.is_paused = false;
        let waiting = std::mem::take(&mut place.waiting);
        self.network.wake(id);
        for done in waiting {
            self.on_shelf(id, done);
        }
    }

    /// An empty disk is in the place of one that was lost; its node starts anew with it.
    fn replace(&mut self, disk: DiskId) {
        if !self.shelves.get(&disk).is_some_and(Shelf::is_gone) {
            return; // it was lost twice, and replaced after the first time
        }
        let holds = |place: &super::world::Place| place.disks.contains(&disk);
        let found = self.places.iter().find(|(_, place)| holds(place));
        let Some((&id, _)) = found else {
            return;
        };
        self.wake(id);
        if self.runs(id) {
            self.crash(id);
        }
        if let Some(shelf) = self.shelves.get_mut(&disk) {
            shelf.replace();
        }
        self.atlas.replaced(disk);
        self.begins_again(disk);
        self.put_due(Duration::from_millis(5), Due::Start(id));
    }

    /// What is on a disk is not what was there: its replicas count as empty, and their fences may be lower.
    fn begins_again(&mut self, disk: DiskId) {
        for pg in self.catalog.pgs_on(disk).collect::<Vec<_>>() {
            self.judges.seen.begins_again((disk, pg));
        }
        self.judges.rooms.began_again(disk, self.tick);
    }

    /// From now on nothing goes wrong.
    pub(super) fn heal(&mut self) {
        self.stage = Stage::Heals;
        self.say(|| "HEAL".to_owned());
        self.network.heal();
        self.clocks.heal(self.now);
        for shelf in self.shelves.values_mut() {
            shelf.heal();
        }
        for place in self.places.values_mut() {
            place.is_doomed = None;
        }
        let due: Vec<Due> = std::mem::take(&mut self.due).into_values().collect();
        due.into_iter().for_each(|due| self.on_due(due));
        // Every other run ends with the power of all nodes cut amid what clients were doing.
        if self.plan.seed.is_multiple_of(2) {
            self.power_loss();
        }
        let is_older = |place: &super::world::Place| place.version < Version::PRESENT;
        let older = self.places.iter().filter(|(_, place)| is_older(place));
        for node in older.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.crash(node);
        }
        for node in self.places.keys().copied().collect::<Vec<_>>() {
            self.start(node);
        }
        self.forget_wakes();
    }

    /// What is not well.
    fn ailments(&mut self) -> Vec<Ailment> {
        let lacking = self.lacking().into_iter();
        let mut ailments: Vec<Ailment> = lacking
            .map(|(pg, disk)| Ailment::Lacks { pg, disk })
            .collect();
        if self.log.leader().is_none() {
            ailments.push(Ailment::NoLeader);
        }
        ailments.extend(self.unfulfilled());
        for (&id, place) in &self.places {
            if self.catalog.node(id).is_none() {
                continue;
            }
            if place.applied < self.log.committed() || place.node.is_none() {
                ailments.push(Ailment::Behind(id));
            }
            let now = self.clocks.at(id, self.now);
            if place.node.as_ref().is_some_and(|it| !it.is_leased(now)) {
                ailments.push(Ailment::NoLease(id));
            }
        }
        for pg in self.catalog.pgs() {
            let has = pg.configuration.in_sync().count();
            let wants = self
                .catalog
                .pool(pg.pool)
                .map_or(0, |pool| pool.copies as usize);
            if has < wants {
                let pg = pg.id;
                ailments.push(Ailment::TooFew { pg, has, wants });
            }
            for member in pg.configuration.members() {
                if member.role != Role::InSync {
                    let (pg, disk) = (pg.id, member.disk);
                    ailments.push(Ailment::NotInSync { pg, disk });
                }
            }
        }
        for attachment in self.catalog.attachments() {
            let node = self.places[&attachment.node].node.as_ref();
            let range = self.catalog.range(attachment.volume);
            let epoch = node.and_then(|node| node.groups().epoch(attachment.volume));
            let is_open = epoch.is_some() && epoch == range.map(|range| range.epoch);
            let has =
                node.is_some_and(|node| node.coordinator().volume(attachment.volume).is_some());
            // A shared one is served where something is asked.
            if !has || !is_open && !self.is_shared(attachment.volume) {
                ailments.push(Ailment::NotServing(attachment.volume));
            }
        }
        for (&disk, shelf) in &self.shelves {
            for (pg, _) in shelf.damaged() {
                let of = self.catalog.pg(pg);
                if of.is_some_and(|of| of.configuration.role(disk).is_some()) {
                    ailments.push(Ailment::Damaged { pg, disk });
                }
            }
        }
        for volume in self.catalog.volumes() {
            if volume.cutting().is_some() {
                ailments.push(Ailment::Cutting(volume.id));
            }
        }
        if !self.requests.is_empty() {
            let requests = self.requests.len();
            ailments.push(Ailment::Unanswered { requests });
        }
        ailments
    }

    /// Whether only a person can help: every in-sync copy of a PG is on a disk that is not what it was, and the manager refuses to take it for one.
    /// That comes of a disk that is lost for good while the other copies are silent long enough to be taken out first: then the lost one is
    /// the last, and whether the others have everything is known to nobody. The same with a disk whose table is damaged.
    pub(super) fn needs_a_person(&self) -> bool {
        let is_refused = |disk: DiskId| {
            let recorded = self.catalog.disk(disk).map(|disk| disk.incarnation.0);
            recorded != Some(self.shelves[&disk].kept().recorded)
        };
        let is_torn = |pg: PgId, disk: DiskId| self.shelves[&disk].torn().any(|of| of == pg);
        self.stage != Stage::Struck
            && self.catalog.pgs().any(|pg| {
                let mut in_sync = pg.configuration.in_sync();
                in_sync.all(|disk| is_refused(disk) || is_torn(pg.id, disk))
            })
    }

    /// Goes on until everything is well.
    pub(super) fn wait_until_well(&mut self) -> Result<(), Failure> {
        let began = self.now;
        let mut healing = Healing::new(self.now, HEALS_WITHIN, SETTLES);
        loop {
            let until = self.now + Duration::from_millis(50);
            while self.now < until {
                self.turn(until)?;
            }
            let ailments = self.ailments();
            // After a while: what is only on its way is not refused.
            if self.now.since(began) > Duration::from_secs(30) && self.needs_a_person() {
                self.counts.persons = 1;
                return Ok(());
            }
            if let Verdict::Healed { took } = healing.judge(self.now, &ailments)? {
                self.counts.healed_after = took.max(self.counts.healed_after);
                return Ok(());
            }
        }
    }

    /// Reads everything once more, at every node in turn for volumes that are attached nowhere.
    pub(super) fn read_all(&mut self) -> Result<(), Failure> {
        self.stage = Stage::LastLook;
        for (at, volume) in self.volumes.clone().into_iter().enumerate() {
            if self.catalog.attachments_of(volume).0.is_none() {
                // The first node stays.
                let node = NodeId(1 + at as u32 % self.plan.nodes);
                let node = self.catalog.node(node).map_or(NodeId(1), |node| node.id);
                self.operate(Command::Attach {
                    volume,
                    node,
                    front_end: FrontEnd::None,
                });
            }
        }
        let until = self.now + Duration::from_millis(200);
        while self.now < until {
            self.turn(until)?;
        }
        self.wait_until_well()?;
        for (at, volume) in self.volumes.clone().into_iter().enumerate() {
            let attached = self.catalog.attachments_of(volume).0.map(|it| it.node);
            let Some(node) = attached else {
                let what = format!("volume {volume} cannot be attached");
                return Err(Failure::new(Promise::Heals, what));
            };
            let size = self.catalog.volume(volume).map_or(0, |volume| volume.size);
            let blocks = self.knobs.volume_blocks[at].min(size / BLOCK);
            let (mut from, mut tries) = (0, 0);
            while from < blocks {
                tries += 1;
                if tries > LOOKS_MAX {
                    let what =
                        format!("volume {volume} is not read at node {node}, where it is attached");
                    return Err(Failure::new(Promise::Heals, what));
                }
                let to = (from + 256).min(blocks);
                let refused = self.counts.refused;
                let sectors = from * SECTORS..to * SECTORS;
                self.ask(node, volume, RequestKind::Read, sectors);
                let until = self.now + Duration::from_millis(20);
                while self.now < until && !self.requests.is_empty() {
                    self.turn(until)?;
                }
                if self.requests.is_empty() && self.counts.refused == refused {
                    (from, tries) = (to, 0);
                } else {
                    self.wait_until_well()?;
                }
            }
        }
        Ok(())
    }
}
