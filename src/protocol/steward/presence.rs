//! Who is there: nodes by their leases, disks by their nodes' reports.
//!
//! Of whom nothing is known after a change of leaders is neither there nor gone: it is not evicted and nothing joins at it. A node that
//! holds no lease will be called expired by the membership; a disk that its node says nothing of for `out_after` is away.

use super::machine::{Errand, Steward, Wake};
use super::message::{Note, Output, Why};
use super::rule::Rule;
use crate::base::{DiskId, NodeId, PgId, Time};
use crate::protocol::catalog::{Catalog, Command, DiskState, LastCopies, Maintenance, StoreName};
use crate::protocol::membership::Incarnation;

/// What is known of a node or disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    Away { since: Time },
}

/// What a node has said of a disk that it has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opening {
    pub store: StoreName,
    pub before: Incarnation,
    pub now: Incarnation,
    pub start: Incarnation,
}

impl Steward {
    /// Why a replica on a disk is not to be waited for.
    pub(super) fn gone(&self, catalog: &Catalog, disk: DiskId) -> Option<Why> {
        let Some(found) = catalog.disk(disk) else {
            return Some(Why::DiskGone);
        };
        let is_away = |presence: Option<&Presence>| matches!(presence, Some(Presence::Away { .. }));
        if is_away(self.nodes.get(&found.node)) {
            Some(Why::NodeGone)
        } else if !found.state.is_good() || is_away(self.disks.get(&disk)) {
            Some(Why::DiskGone)
        } else if self.suspects.contains(&found.node) {
            Some(Why::NodeSuspect)
        } else {
            None
        }
    }

    /// Whether a replica that is gone stays in sync for now: it has not been gone for long, and nobody waits for it. Who waits accuses it; the membership calls
    /// its node suspect then, and all that the node has goes at once.
    pub(super) fn is_spared(&self, now: Time, catalog: &Catalog, disk: DiskId) -> bool {
        let Some(found) = catalog.disk(disk) else {
            return false;
        };
        let away = |presence: Option<&Presence>| match presence {
            Some(Presence::Away { since }) => Some(*since),
            _ => None,
        };
        let of_node = || away(self.nodes.get(&found.node));
        let since = away(self.disks.get(&disk)).or_else(of_node);
        let is_fresh = since.is_some_and(|since| now < since + self.parameters.grace);
        let is_wanted =
            self.suspects.contains(&found.node) || self.words.accusers(disk).next().is_some();
        is_fresh && !is_wanted && found.state.is_good()
    }

    /// Whether a replica on a disk surely is there.
    pub(super) fn is_here(&self, catalog: &Catalog, disk: DiskId) -> bool {
        let node = catalog.disk(disk).map(|disk| disk.node);
        let is_here = |presence: Option<&Presence>| presence == Some(&Presence::Here);
        self.gone(catalog, disk).is_none()
            && is_here(self.disks.get(&disk))
            && is_here(node.and_then(|node| self.nodes.get(&node)))
    }

    fn is_away(&self, node: NodeId) -> bool {
        matches!(self.nodes.get(&node), Some(Presence::Away { .. }))
    }

    pub(super) fn on_live(&mut self, catalog: &Catalog, node: NodeId) {
        self.nodes.insert(node, Presence::Here);
        for disk in catalog.disks_of(node) {
            // What was said before it held this lease was of another life.
            self.words.absolve(disk.id);
            self.look_at_disk(catalog, disk.id);
        }
    }

    pub(super) fn on_expired(&mut self, now: Time, catalog: &Catalog, node: NodeId) {
        if self.is_away(node) {
            return; // of a later lease that was never used
        }
        self.nodes.insert(node, Presence::Away { since: now });
        for disk in catalog.disks_of(node) {
            // It is opened anew, or said to be open still, before it counts again.
            self.on_disk_away(now, catalog, disk.id);
        }
    }

    pub(super) fn on_disk_away(&mut self, now: Time, catalog: &Catalog, disk: DiskId) {
        if catalog.disk(disk).is_none() {
            return;
        }
        if !matches!(self.disks.get(&disk), Some(Presence::Away { .. })) {
            self.disks.insert(disk, Presence::Away { since: now });
        }
        // What it was before is told again when it is back.
        self.openings.remove(&disk);
        let due = now + self.parameters.out_after;
        self.later.insert((due, Wake::Disk(disk)));
        let over = now + self.parameters.grace;
        self.later.insert((over, Wake::Gone(disk)));
        self.hurry_to_disk(catalog, disk);
    }

    pub(super) fn on_disk_failed(&mut self, now: Time, catalog: &Catalog, disk: DiskId) {
        self.on_disk_away(now, catalog, disk);
        let is_known = catalog.disk(disk);
        if is_known.is_some() {
            self.failed.insert(disk);
        }
        if is_known.is_some_and(|disk| disk.state != DiskState::OutOfService) {
            self.set_state(disk, DiskState::OutOfService);
        }
    }

    fn set_state(&mut self, disk: DiskId, state: DiskState) {
        let command = Command::SetDiskState { disk, state };
        self.order(disk, command);
    }

    /// A command about a disk. A disk has one that waits at most, the newest.
    fn order(&mut self, disk: DiskId, command: Command) {
        let errand = Errand::Disk(disk);
        self.errands.retain(|(other, _)| *other != errand);
        self.errands.push_back((errand, command));
    }

    /// What was ordered about a disk did not come to be, or it was away for `out_after`; perhaps.
    pub(super) fn look_after_disk(
        &mut self,
        now: Time,
        catalog: &Catalog,
        id: DiskId,
        out: &mut Vec<Output>,
    ) {
        let Some(disk) = catalog.disk(id) else {
            return;
        };
        if self.failed.contains(&id) {
            if disk.state != DiskState::OutOfService {
                self.set_state(id, DiskState::OutOfService);
            }
            return;
        }
        if let Some(opening) = self.openings.get(&id).copied()
            && opening.now > disk.incarnation
            && !self.is_away(disk.node)
        {
            // It is there: what it waits for is a commit, or a person.
            self.record_opening(catalog, id, opening);
            return;
        }
        let since = match (self.disks.get(&id), self.nodes.get(&disk.node)) {
            (Some(Presence::Here), _) => return,
            (Some(Presence::Away { since }), _) => *since,
            // Its node has said nothing of it since the leadership began. (A node of which nothing is known yet will be live
            // or expired.)
            (None, Some(Presence::Here)) => self.led_since,
            (None, _) => return,
        };
        let due = since + self.parameters.out_after;
        let node = catalog.node(disk.node);
        let is_held = node.is_some_and(|node| node.maintenance == Maintenance::On);
        if !disk.state.is_good() || is_held {
            return; // it is looked at again when the maintenance ends
        }
        if due > now {
            self.later.insert((due, Wake::Disk(id)));
            return;
        }
        self.disks.insert(id, Presence::Away { since });
        self.set_state(id, DiskState::Missing);
        out.push(Output::Note(Note::DiskMissing { disk: id }));
    }

    pub(super) fn on_disk_opened(
        &mut self,
        catalog: &Catalog,
        id: DiskId,
        opening: Opening,
        out: &mut Vec<Output>,
    ) {
        let Some(disk) = catalog.disk(id) else {
            return;
        };
        if opening.now < disk.incarnation {
            let (disk, now) = (id, opening.now);
            out.push(Output::Note(Note::OldOpening { disk, now }));
            return;
        }
        let told = self.openings.insert(id, opening);
        self.failed.remove(&id);
        let is_here = self.disks.get(&id) == Some(&Presence::Here);
        if told == Some(opening)
            && is_here
            && disk.incarnation == opening.now
            && disk.state.is_good()
        {
            return; // said again, and nothing is new: looking at all its PGs would cost 0.2 ms a report
        }
        if opening.now == disk.incarnation && opening.store == disk.store {
            self.on_disk_here(catalog, id);
            return;
        }
        self.record_opening(catalog, id, opening);
    }

    fn record_opening(&mut self, catalog: &Catalog, id: DiskId, opening: Opening) {
        let (mut store, mut before) = (opening.store, opening.before);
        if let Some(disk) = catalog.disk(id).filter(|_| self.off.on(Rule::R19)) {
            (store, before) = (disk.store, disk.incarnation);
        }
        let command = Command::OpenDisk {
            disk: id,
            store,
            before,
            now: opening.now,
            start: opening.start,
            last_copies: LastCopies::Refuse,
        };
        self.order(id, command);
    }

    /// A disk is open, and that is recorded.
    pub(super) fn on_disk_here(&mut self, catalog: &Catalog, id: DiskId) {
        self.disks.insert(id, Presence::Here);
        if let Some(disk) = catalog
            .disk(id)
            .filter(|disk| disk.state == DiskState::Missing)
        {
            // Either the way to it was cut and it is the same opening, or it was called missing by a command that was
            // committed after the one of its return.
            self.set_state(id, disk.returns_as.unwrap_or(DiskState::Serving));
        }
        self.look_at_disk(catalog, id);
    }

    pub(super) fn on_accused(
        &mut self,
        now: Time,
        catalog: &Catalog,
        by: NodeId,
        (pg, version): (PgId, u32),
        disk: DiskId,
    ) {
        let has_voice = !self.is_away(by) && !self.suspects.contains(&by);
        let found = catalog.pg(pg).filter(|pg| pg.has(disk));
        let is_present = found.is_some_and(|pg| pg.version() == version);
        if !has_voice || !(is_present || self.off.on(Rule::R11Version) && found.is_some()) {
            return;
        }
        self.words.hear(now, by, disk, pg, version);
        if !self.words_wake {
            self.words_wake = true;
            let due = now + self.parameters.accusation_age;
            self.later.insert((due, Wake::Words));
        }
        if self.gone(catalog, disk).is_some() {
            // Somebody waits for it: it is spared no longer.
            return self.hurry_to_disk(catalog, disk);
        }
        // One more accuser may be what the words about other PGs of the disk lacked.
        let accused: Vec<PgId> = self.words.pgs(disk).collect();
        accused.into_iter().for_each(|pg| self.hurry_to_pg(pg));
    }

    pub(super) fn age_words(&mut self, now: Time) {
        let next = self.words.age(now, self.parameters.accusation_age);
        self.words_wake = next.is_some();
        if let Some(next) = next {
            self.later.insert((next, Wake::Words));
        }
    }

    /// Whether the words against a replica are to be believed (R11).
    pub(super) fn is_accused(
        &self,
        catalog: &Catalog,
        id: PgId,
        version: u32,
        disk: DiskId,
    ) -> Belief {
        let has_voice = |by: &NodeId| !self.suspects.contains(by) && !self.is_away(*by);
        let of_now = |of: u32| of == version || self.off.on(Rule::R11Version);
        let mut against = self.words.against(disk, id);
        if !against.any(|(by, of)| has_voice(&by) && of_now(of)) {
            return Belief::None;
        }
        let node = catalog.disk(disk).map(|disk| disk.node);
        let mut by_itself = self.words.accusers(disk).filter(|by| Some(*by) == node);
        let accusers = self.words.accusers(disk).filter(has_voice).count();
        match accusers >= 2 || by_itself.next().is_some() || self.off.on(Rule::R11Words) {
            true => Belief::Enough,
            false => Belief::One,
        }
    }
}

/// What words against a replica come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belief {
    None,
    /// Enough against one that joins.
    One,
    Enough,
}
