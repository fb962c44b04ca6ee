//! The machine: what it remembers, how inputs reach it, and how steps become commands.
//!
//! Looks at PGs are cheap and happen whenever something about a PG may have changed; most find nothing to do. What is found goes out
//! until `proposals_max` are in flight, what is urgent (a replica is gone) before what is not.

use super::message::{Input, Note, Outcome, Output};
use super::parameters::{Parameters, Unsound};
use super::plan::PoolPlan;
use super::presence::{Opening, Presence};
use super::rule::RulesOff;
use super::words::Words;
use crate::base::{DiskId, NodeId, PgId, Time};
use crate::protocol::catalog::{Catalog, Command, DiskState, Event, Maintenance, Move, Pg, PoolId};
use crate::protocol::membership::Verdict;
use crate::protocol::placement::RackId;
use crate::protocol::replication::{Reconfigure, Role};
use crate::protocol::scrub::compare::Wrong;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// PGs that are looked at in one step, so that a new leader's first look at 100,000 does not keep others waiting (some 5 ms).
const LOOKS_MAX: usize = 8_192;
/// Failures, filled and lost sessions that are remembered, of each kind.
pub(super) const REMEMBERED_MAX: usize = 65_536;

/// What a proposed command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    Pg(PgId),
    /// Begins a move.
    Begin(PgId, Move),
    Disk(DiskId),
    Layout(PoolId),
}

/// What is looked at when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    Pg(PgId),
    Disk(DiskId),
    /// It has been gone for as long as anybody may be.
    Gone(DiskId),
    Pool(PoolId),
    Words,
}

/// Whether people were told that nothing can be done about a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    NotYet,
    Told,
}

/// How often a replica has failed, and when it may join again.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackOff {
    pub tries: u32,
    pub until: Time,
}

/// See the room's door.
#[derive(Debug)]
pub struct Steward {
    pub(super) parameters: Parameters,
    pub(super) off: RulesOff,
    leads: bool,
    pub(super) led_since: Time,
    seen: Time,
    /// Who is there; of whom nothing is here, nothing is known yet.
    pub(super) nodes: BTreeMap<NodeId, Presence>,
    pub(super) disks: BTreeMap<DiskId, Presence>,
    /// The last opening that was reported of each disk.
    pub(super) openings: BTreeMap<DiskId, Opening>,
    /// The disks that have failed for good.
    pub(super) failed: BTreeSet<DiskId>,
    pub(super) suspects: BTreeSet<NodeId>,
    pub(super) words: Words,
    /// Whether they are looked at again.
    pub(super) words_wake: bool,
    /// The sessions that are filled, and those that are lost.
    pub(super) filled: BTreeMap<(PgId, DiskId), u32>,
    pub(super) lost: BTreeMap<(PgId, DiskId), u32>,
    /// Replicas that do not have what they should have, under the version that was named; `Told` once it was said that nothing can be done.
    pub(super) wrong: BTreeMap<(PgId, DiskId), (u32, Wrong, Said)>,
    pub(super) back_off: BTreeMap<(PgId, DiskId), BackOff>,
    /// The PGs that join at each disk, also by what is only proposed; and the disks that each PG joins at.
    pub(super) joining: BTreeMap<DiskId, BTreeSet<PgId>>,
    joins_of: BTreeMap<PgId, Vec<DiskId>>,
    /// The PGs that would join at a disk and found no place.
    waiting: BTreeMap<DiskId, BTreeSet<PgId>>,
    urgent: BTreeSet<PgId>,
    todo: BTreeSet<PgId>,
    pub(super) later: BTreeSet<(Time, Wake)>,
    /// Commands about disks and layouts, which go first: PGs wait for them.
    pub(super) errands: VecDeque<(Errand, Command)>,
    pub(super) in_flight: BTreeMap<u64, Errand>,
    pub(super) busy: BTreeSet<PgId>,
    next_proposal: u64,
    pub(super) next_question: u64,
    pub(super) pools: BTreeMap<PoolId, PoolPlan>,
    /// What of disks and nodes placement depends on, as it was seen last.
    disks_seen: BTreeMap<DiskId, (DiskState, u64)>,
    nodes_seen: BTreeMap<NodeId, (Option<RackId>, Maintenance)>,
}

impl Steward {
    /// A member that does not lead.
    pub fn new(now: Time, parameters: Parameters, off: RulesOff) -> Result<Steward, Unsound> {
        parameters.check()?;
        Ok(Steward {
            parameters,
            off,
            leads: false,
            led_since: now,
            seen: now,
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            openings: BTreeMap::new(),
            failed: BTreeSet::new(),
            suspects: BTreeSet::new(),
            words: Words::default(),
            words_wake: false,
            filled: BTreeMap::new(),
            lost: BTreeMap::new(),
            wrong: BTreeMap::new(),
            back_off: BTreeMap::new(),
            joining: BTreeMap::new(),
            joins_of: BTreeMap::new(),
            waiting: BTreeMap::new(),
            urgent: BTreeSet::new(),
            todo: BTreeSet::new(),
            later: BTreeSet::new(),
            errands: VecDeque::new(),
            in_flight: BTreeMap::new(),
            busy: BTreeSet::new(),
            next_proposal: 1,
            next_question: 1,
            pools: BTreeMap::new(),
            disks_seen: BTreeMap::new(),
            nodes_seen: BTreeMap::new(),
        })
    }

    /// Takes one input. `now` never goes back; `catalog` has everything that was committed.
    pub fn step(&mut self, now: Time, catalog: &Catalog, input: Input, out: &mut Vec<Output>) {
        self.pass(now);
        match input {
            Input::Lead => self.on_lead(now, catalog),
            Input::Follow => self.on_follow(now),
            _ if !self.leads => return,
            Input::Committed(events) => {
                for event in events {
                    self.on_event(now, catalog, event);
                }
            }
            Input::Answered { proposal, outcome } => {
                self.on_answered(now, catalog, proposal, outcome, out);
            }
            Input::Solved { question, plan } => self.on_solved(catalog, question, plan, out),
            Input::Live { node } => self.on_live(catalog, node),
            Input::Expired { node } => self.on_expired(now, catalog, node),
            Input::Verdict(verdict) => self.on_verdict(catalog, verdict, out),
            Input::Accused {
                by,
                pg,
                version,
                disk,
            } => self.on_accused(now, catalog, by, (pg, version), disk),
            Input::DiskOpened {
                disk,
                store,
                before,
                now: opened,
                start,
            } => {
                let opening = Opening {
                    store,
                    before,
                    now: opened,
                    start,
                };
                self.on_disk_opened(catalog, disk, opening, out);
            }
            Input::DiskFailed { disk } => self.on_disk_failed(now, catalog, disk),
            Input::DiskAway { disk } => self.on_disk_away(now, catalog, disk),
            Input::Wrong {
                by,
                pg,
                version,
                disk,
                why,
            } => self.on_wrong(catalog, by, (pg, version), disk, why),
            Input::Filled { pg, disk, session } => {
                remember(&mut self.filled, (pg, disk), session);
                self.todo.insert(pg);
            }
            Input::SessionLost { pg, disk, session } => {
                remember(&mut self.lost, (pg, disk), session);
                self.urgent.insert(pg);
            }
        }
        self.pump(now, catalog, out);
    }

    /// When [`Steward::expire`] wants to be called.
    pub fn deadline(&self) -> Option<Time> {
        let has_room = self.in_flight.len() < self.parameters.proposals_max;
        let waits = !self.urgent.is_empty() || !self.todo.is_empty() || !self.errands.is_empty();
        match self.leads && has_room && waits {
            true => Some(self.seen),
            false => self.later.first().map(|(at, _)| *at),
        }
    }

    /// Time has passed.
    pub fn expire(&mut self, now: Time, catalog: &Catalog, out: &mut Vec<Output>) {
        self.pass(now);
        while let Some((at, wake)) = self.later.pop_first() {
            if at > now {
                self.later.insert((at, wake));
                break;
            }
            match wake {
                Wake::Pg(pg) => {
                    self.todo.insert(pg);
                }
                Wake::Disk(disk) => self.look_after_disk(now, catalog, disk, out),
                Wake::Gone(disk) => self.hurry_to_disk(catalog, disk),
                Wake::Pool(pool) => self.ask(now, catalog, pool, out),
                Wake::Words => self.age_words(now),
            }
        }
        self.pump(now, catalog, out);
    }

    /// Whether there is nothing that this machine would still do by itself: no step, no question, no move.
    pub fn is_at_rest(&self, catalog: &Catalog) -> bool {
        self.urgent.is_empty()
            && self.todo.is_empty()
            && self.errands.is_empty()
            && self.in_flight.is_empty()
            && self.joining.is_empty()
            && catalog.wanted().next().is_none()
            && self.pools.values().all(|pool| pool.is_at_rest())
    }

    /// The invariants of the room's door that the machine alone can hold.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.in_flight.len() > self.parameters.proposals_max
            || self.filled.len().max(self.lost.len()) > REMEMBERED_MAX
            || self.back_off.len().max(self.wrong.len()) > REMEMBERED_MAX
        {
            return Err("bounded");
        }
        let of_pgs = self.in_flight.values().filter_map(|errand| match errand {
            Errand::Pg(pg) | Errand::Begin(pg, _) => Some(*pg),
            Errand::Disk(_) | Errand::Layout(_) => None,
        });
        let pgs: BTreeSet<PgId> = of_pgs.clone().collect();
        match pgs == self.busy && of_pgs.count() == pgs.len() {
            true => Ok(()),
            false => Err("one-change-a-pg"),
        }
    }

    pub(super) fn now(&self) -> Time {
        self.seen
    }

    fn pass(&mut self, now: Time) {
        assert!(now >= self.seen, "time-goes-forward");
        self.seen = now;
    }

    fn on_lead(&mut self, now: Time, catalog: &Catalog) {
        self.on_follow(now);
        self.leads = true;
        for pg in catalog.pgs() {
            self.refresh_joins(pg);
            self.todo.insert(pg.id);
        }
        for disk in catalog.disks() {
            self.disks_seen.insert(disk.id, (disk.state, disk.weight()));
            let due = now + self.parameters.out_after;
            self.later.insert((due, Wake::Disk(disk.id)));
        }
        for node in catalog.nodes() {
            self.nodes_seen
                .insert(node.id, (node.rack, node.maintenance));
        }
        for pool in catalog.pools() {
            self.disturb(pool.id);
        }
    }

    /// What was known under a leadership is worth nothing under another.
    fn on_follow(&mut self, now: Time) {
        let (proposal, question) = (self.next_proposal, self.next_question);
        let fresh = Steward::new(now, self.parameters, self.off);
        *self = fresh.expect("the parameters were checked");
        // Numbers go on, so that a late answer is not taken for another's.
        (self.next_proposal, self.next_question) = (proposal, question);
    }

    fn on_event(&mut self, now: Time, catalog: &Catalog, event: &Event) {
        match event {
            Event::PgChanged { pg } => self.look_again(catalog, pg.id),
            Event::PgsCreated { pool, .. } => self.on_laid_out(now, catalog, *pool),
            Event::DiskAdded { disk, .. } | Event::DiskChanged { disk } => {
                let seen = (disk.state, disk.weight());
                if self.disks_seen.insert(disk.id, seen) != Some(seen) {
                    self.disturb(disk.pool);
                    self.look_at_disk(catalog, disk.id);
                }
                let opened = self.openings.get(&disk.id);
                if opened.is_some_and(|opened| opened.now == disk.incarnation) {
                    self.on_disk_here(catalog, disk.id);
                }
            }
            Event::DiskWithdrawn { disk } | Event::DiskRemoved { disk } => {
                self.disks_seen.remove(disk);
                self.disks.remove(disk);
                self.openings.remove(disk);
                self.failed.remove(disk);
                self.disturb_all(catalog);
            }
            Event::PoolAdded { pool } | Event::PoolChanged { pool } => self.disturb(pool.id),
            Event::NodeAdded { node } | Event::NodeChanged { node } => {
                let seen = (node.rack, node.maintenance);
                if self.nodes_seen.insert(node.id, seen) != Some(seen) {
                    let disks = catalog.disks_of(node.id);
                    for disk in disks {
                        self.disturb(disk.pool);
                        self.later.insert((now, Wake::Disk(disk.id)));
                    }
                }
            }
            Event::NodeRemoved { node } => {
                self.nodes_seen.remove(node);
                self.nodes.remove(node);
                self.suspects.remove(node);
            }
            Event::VolumeCreated { .. }
            | Event::VolumeChanged { .. }
            | Event::VolumeForgotten { .. }
            | Event::Attached { .. }
            | Event::Detached { .. }
            | Event::RangeTaken { .. }
            | Event::RangeGiven { .. }
            | Event::ClientRevoked { .. } => {}
        }
    }

    fn on_answered(
        &mut self,
        now: Time,
        catalog: &Catalog,
        proposal: u64,
        outcome: Outcome,
        out: &mut Vec<Output>,
    ) {
        let Some(errand) = self.in_flight.remove(&proposal) else {
            return; // of an earlier leadership
        };
        // What was refused or lost is looked at again, but not in a circle.
        let pause = now + self.parameters.back_off;
        let is_done = outcome == Outcome::Accepted;
        match errand {
            Errand::Pg(pg) | Errand::Begin(pg, _) => {
                self.busy.remove(&pg);
                match is_done {
                    true => self.look_again(catalog, pg),
                    false => {
                        catalog
                            .pg(pg)
                            .into_iter()
                            .for_each(|pg| self.refresh_joins(pg));
                        self.later.insert((pause, Wake::Pg(pg)));
                        // The rest of the plan may wait for this move: it is made anew.
                        let of = catalog
                            .pg(pg)
                            .filter(|_| matches!(errand, Errand::Begin(..)));
                        if let Some(pool) = of.map(|pg| pg.pool) {
                            self.disturb(pool);
                        }
                    }
                }
            }
            Errand::Disk(disk) if !is_done => {
                let is_lost = outcome == Outcome::Lost;
                let longer = now + self.parameters.back_off_max;
                let due = if is_lost { pause } else { longer };
                self.later.insert((due, Wake::Disk(disk)));
            }
            Errand::Layout(pool) if !is_done => self.disturb(pool),
            Errand::Disk(_) | Errand::Layout(_) => {}
        }
        let Outcome::Refused(refusal) = outcome else {
            return;
        };
        out.push(Output::Note(match errand {
            Errand::Disk(disk) if refusal.field == "last_copies" => {
                Note::LastCopies { disk, refusal }
            }
            _ => Note::Refused { refusal },
        }));
    }

    /// Something about a PG has changed.
    pub(super) fn look_again(&mut self, catalog: &Catalog, pg: PgId) {
        if let Some(pg) = catalog.pg(pg) {
            self.refresh_joins(pg);
            self.todo.insert(pg.id);
        }
    }

    pub(super) fn look_at_disk(&mut self, catalog: &Catalog, disk: DiskId) {
        self.todo.extend(catalog.pgs_on(disk));
    }

    pub(super) fn hurry_to_disk(&mut self, catalog: &Catalog, disk: DiskId) {
        self.urgent.extend(catalog.pgs_on(disk));
    }

    pub(super) fn hurry_to_pg(&mut self, pg: PgId) {
        self.urgent.insert(pg);
    }

    /// Where a PG joins; who waited for a place that is free now is looked at.
    fn refresh_joins(&mut self, pg: &Pg) {
        let joins = |role: Role| matches!(role, Role::Joining { .. });
        let members = pg.configuration.members().iter();
        let joins = members.filter(|member| joins(member.role));
        let now: Vec<DiskId> = joins.map(|member| member.disk).collect();
        let before = self.joins_of.remove(&pg.id).unwrap_or_default();
        for disk in before.iter().filter(|disk| !now.contains(disk)) {
            self.leave(*disk, pg.id);
        }
        for &disk in &now {
            self.joining.entry(disk).or_default().insert(pg.id);
        }
        if !now.is_empty() {
            self.joins_of.insert(pg.id, now);
        }
    }

    fn leave(&mut self, disk: DiskId, pg: PgId) {
        if let Some(pgs) = self.joining.get_mut(&disk) {
            pgs.remove(&pg);
            if pgs.is_empty() {
                self.joining.remove(&disk);
            }
        }
        // As many as may have place. Who finds none waits again.
        for _ in 0..2 {
            let waiting = self.waiting.get_mut(&disk);
            let Some(next) = waiting.and_then(|waiting| waiting.pop_first()) else {
                self.waiting.remove(&disk);
                return;
            };
            self.todo.insert(next);
        }
    }

    pub(super) fn wait_for_place(&mut self, disk: DiskId, pg: PgId) {
        self.waiting.entry(disk).or_default().insert(pg);
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < self.parameters.proposals_max
    }

    pub(super) fn propose(&mut self, errand: Errand, command: Command, out: &mut Vec<Output>) {
        let proposal = self.next_proposal;
        self.next_proposal += 1;
        if let Errand::Pg(pg) | Errand::Begin(pg, _) = errand {
            assert!(self.busy.insert(pg), "one-change-a-pg");
        }
        if let Command::Reconfigure {
            pg,
            change: Reconfigure::Join { disk },
            ..
        } = command
        {
            // Its place is taken from now on.
            self.joining.entry(disk).or_default().insert(pg);
            self.joins_of.entry(pg).or_default().push(disk);
        }
        self.in_flight.insert(proposal, errand);
        out.push(Output::Propose { proposal, command });
    }

    /// Sends what there is to do, as far as there is room.
    fn pump(&mut self, now: Time, catalog: &Catalog, out: &mut Vec<Output>) {
        if !self.leads {
            return;
        }
        while self.has_room()
            && let Some((errand, command)) = self.errands.pop_front()
        {
            self.propose(errand, command, out);
        }
        for _ in 0..LOOKS_MAX {
            if !self.has_room() {
                break;
            }
            let next = self.urgent.pop_first().or_else(|| self.todo.pop_first());
            let Some(id) = next else {
                break;
            };
            // One that is busy is looked at when it is answered.
            if !self.busy.contains(&id)
                && let Some(pg) = catalog.pg(id)
                && let Some(command) = self.decide(now, catalog, pg, out)
            {
                self.propose(Errand::Pg(id), command, out);
            }
        }
        self.begin_moves(catalog, out);
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// A replica has failed: when it may join again.
    pub(super) fn put_off(&mut self, now: Time, pg: PgId, disk: DiskId) {
        if self.back_off.len() >= REMEMBERED_MAX && !self.back_off.contains_key(&(pg, disk)) {
            self.back_off.pop_first();
        }
        let fresh = BackOff {
            tries: 0,
            until: now,
        };
        let one = self.back_off.entry((pg, disk)).or_insert(fresh);
        let Parameters {
            back_off,
            back_off_max,
            ..
        } = self.parameters;
        let wait: Duration = back_off
            .saturating_mul(1 << one.tries.min(16))
            .min(back_off_max);
        one.tries += 1;
        one.until = now + wait;
    }

    fn on_verdict(&mut self, catalog: &Catalog, verdict: Verdict, out: &mut Vec<Output>) {
        match verdict {
            Verdict::Suspect { node, .. } => {
                self.suspects.insert(node);
                self.words.forget(node);
                for disk in catalog.disks_of(node) {
                    self.hurry_to_disk(catalog, disk.id);
                }
            }
            Verdict::Cleared { node } => {
                self.suspects.remove(&node);
                for disk in catalog.disks_of(node) {
                    self.look_at_disk(catalog, disk.id);
                }
            }
            Verdict::Disputed { by, accused } => {
                out.push(Output::Note(Note::Disputed { by, accused }));
            }
        }
    }
}

fn remember(of: &mut BTreeMap<(PgId, DiskId), u32>, key: (PgId, DiskId), session: u32) {
    // What has no room is told again.
    if of.len() < REMEMBERED_MAX || of.contains_key(&key) {
        of.insert(key, session);
    }
}
