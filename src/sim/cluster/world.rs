//! A run of the cluster: nodes, shelves, a network, a manager, clients, and everything that goes wrong.
//!
//! First clients ask and faults strike, as the knobs and the plan say. Then faults stop, everybody who was away comes back, and all has to
//! become well within a bounded time; then everything is read once more, and the copies have to be the same.

use super::atlas::Atlas;
use super::buffers::Buffers;
use super::checkers::bounded::Heights;
use super::checkers::linearizable::OperationId;
use super::checkers::{Failure, Promise};
use super::clocks::Clocks;
use super::comparing::Loss;
use super::coverage::Coverage;
use super::judging::Judges;
use super::links::BlockId;
use super::log::{self, Log};
use super::member::{self, Member};
use super::message::Msg;
use super::network::{self, Network};
use super::node::{self, Node, Whose};
use super::operators::Operators;
use super::plan::Plan;
use super::shelf::{OpId, Operation, Shelf, Stores};
use super::snapshots::Snapshots;
use super::swarm::Knobs;
use super::versions::Versions;
use super::workload::Workload;
use crate::base::{
    Breaks, BufRef, DiskId, LayerId, NodeId, PgId, Prng, RequestKind, Time, Token, VolumeId,
};
use crate::protocol::catalog::{Catalog, Command, Event, Refusal};
use crate::protocol::membership::{self, Incarnation};
use crate::protocol::replication::RulesOff;
use crate::protocol::{scrub, steward};
use crate::shard::Reach;
use crate::shard::fabric::Pace;
use crate::sim::register::Tick;
use crate::wire::Version;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

/// How long healing may take, in simulated time.
pub(super) const HEALS_WITHIN: Duration = Duration::from_secs(90);
/// What is asked in a run at least, if that can be: a plan is played again, up to so often.
const OPERATIONS_MIN: u64 = 2_000;
const ROUNDS_MAX: u32 = 12;
/// Requests of clients in flight in all.
pub(super) const REQUESTS_MAX: usize = 256;
const NEVER: Time = Time(u64::MAX);
/// The moments that are looked at: one of so many steps.
const JUDGED_EVERY: u64 = 4096;
/// The steward's parameters here: nobody waits ten minutes.
pub const STEWARD: steward::Parameters = steward::Parameters {
    out_after: Duration::from_secs(20),
    settle: Duration::from_millis(500),
    back_off: Duration::from_millis(200),
    back_off_max: Duration::from_secs(4),
    // Few, so that what happens happens to them.
    new_pgs: steward::NewPgs::Never,
    ..steward::Parameters::DEFAULT
};

/// What is switched off in a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Off {
    pub replication: RulesOff,
    pub membership: membership::RulesOff,
    pub steward: steward::RulesOff,
    pub scrub: scrub::RulesOff,
    /// Planted in the coordinator.
    pub breaks: Breaks,
    /// What is under the replicas.
    pub stores: Stores,
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub operations: u64,
    pub answered: u64,
    pub refused: u64,
    pub steps: u64,
    pub promotions: u64,
    pub evictions: u64,
    pub turns: u64,
    /// Snapshots that were taken.
    pub snapshots: u64,
    pub strokes: u64,
    /// Chunks that were damaged, and are not any more.
    pub mended: u64,
    /// Runs that only a person could have brought to an end.
    pub persons: u64,
    pub healed_after: Duration,
    pub met: Coverage,
    pub heights: Heights,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.operations += other.operations;
        self.answered += other.answered;
        self.refused += other.refused;
        self.steps += other.steps;
        self.promotions += other.promotions;
        self.evictions += other.evictions;
        self.turns += other.turns;
        self.snapshots += other.snapshots;
        self.strokes += other.strokes;
        self.mended += other.mended;
        self.persons += other.persons;
        self.healed_after = self.healed_after.max(other.healed_after);
        self.met.add(&other.met);
        self.heights.add(&other.heights);
    }
}

/// A client's request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: OperationId,
    pub(super) kind: RequestKind,
    /// What it writes; `None`: it reads.
    pub(super) value: Option<u64>,
    /// The layer in which it took no new space as it was asked, and the disks under it.
    pub(super) takes_none: Option<LayerId>,
    pub(super) disks: Vec<DiskId>,
    pub(super) buffer: Option<BufRef>,
    pub(super) volume: VolumeId,
    pub(super) sectors: Range<u64>,
    pub(super) began: Tick,
    pub(super) at: Time,
    pub(super) node: NodeId,
}

/// A node's place: what runs there, if anything.
#[derive(Default)]
pub(super) struct Place {
    pub(super) node: Option<Node>,
    pub(super) member: Option<Member>,
    pub(super) incarnation: u64,
    /// Of the wire, which this start speaks.
    pub(super) version: Version,
    pub(super) applied: u64,
    pub(super) is_paused: bool,
    /// It dies as soon as it has asked something of a disk, and stays away for so long.
    pub(super) is_doomed: Option<Duration>,
    /// What its disks answered while it was stopped.
    pub(super) waiting: VecDeque<(DiskId, PgId, Whose, super::shelf::Done)>,
    pub(super) disks: Vec<DiskId>,
    /// When time is its input next; not known where something has happened to it since it was looked at.
    pub(super) wakes: Option<Time>,
}

impl Place {
    /// When time is its input next; [`NEVER`] while it is stopped.
    fn wakes(&mut self, id: NodeId, now: Time, clocks: &Clocks) -> Time {
        let Some(node) = self.node.as_ref().filter(|_| !self.is_paused) else {
            return NEVER;
        };
        let member = &self.member;
        *self.wakes.get_or_insert_with(|| {
            let of_member = member.as_ref().and_then(Member::deadline);
            let deadline = of_member.map_or(node.deadline(), |at| at.min(node.deadline()));
            clocks.when(id, now, deadline).unwrap_or(NEVER)
        })
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Clients ask, and faults strike.
    Struck,
    /// Nothing goes wrong any more.
    Heals,
    /// All is well, and everything is read once more.
    LastLook,
}

/// What is due at a time of the world's own.
#[derive(Debug, Clone)]
pub(super) enum Due {
    Start(NodeId),
    Die(NodeId, Duration),
    Wake(NodeId),
    Lift(BlockId),
    Replace(DiskId),
    /// Guests on these nodes, counted from 0, are started elsewhere.
    Flee(BTreeSet<u32>),
    /// What kept these silent is over.
    Speak(Vec<DiskId>),
    /// What operators want is looked at.
    Operators,
    /// A drain ends.
    Undrain(DiskId),
}

/// One run. See the [module](self).
pub struct World {
    pub(super) knobs: Knobs,
    pub(super) plan: Plan,
    pub(super) off: Off,
    pub(super) now: Time,
    pub(super) prng: Prng,
    pub(super) network: Network<Msg>,
    pub(super) log: Log<Command>,
    pub(super) clocks: Clocks,
    pub(super) versions: Versions,
    pub(super) catalog: Catalog,
    /// The catalog before anything was proposed.
    pub(super) results: BTreeMap<u64, Result<Vec<Event>, Refusal>>,
    pub(super) places: BTreeMap<NodeId, Place>,
    pub(super) shelves: BTreeMap<DiskId, Shelf>,
    /// Fences that are on their way to a shelf.
    pub(super) fencing: BTreeSet<(DiskId, OpId)>,
    pub(super) shelf_ops: BTreeMap<(DiskId, OpId), (NodeId, PgId, Whose)>,
    pub(super) buffers: Buffers,
    pub(super) workload: Workload,
    pub(super) judges: Judges,
    pub(super) requests: BTreeMap<Token, Asked>,
    pub(super) tick: Tick,
    pub(super) tokens: u64,
    pub(super) values: u64,
    pub(super) next_act: Time,
    pub(super) next_stroke: usize,
    /// When the plan began last.
    pub(super) round: Time,
    pub(super) hash: u64,
    pub(super) due: BTreeMap<(Time, u64), Due>,
    pub(super) dues: u64,
    pub(super) members: Vec<NodeId>,
    pub(super) volumes: Vec<VolumeId>,
    pub(super) atlas: Atlas,
    pub(super) operators: Operators,
    /// How many replicas of each PG were in sync last.
    pub(super) standing: BTreeMap<PgId, usize>,
    pub(super) snapshots: Snapshots,
    /// Writes that are to be lost when all has healed; and those that are lost.
    pub(super) to_lose: Vec<(DiskId, u64)>,
    pub(super) losses: Vec<Loss>,
    pub(super) stage: Stage,
    /// The first promise that was broken, where it could not be returned at once.
    pub(super) broken: Option<Failure>,
    pub(super) print: bool,
    pub counts: Counts,
}

impl World {
    pub fn new(knobs: Knobs, plan: Plan, off: Off, print: bool) -> World {
        let mut prng = Prng::new(plan.seed ^ 0x776f_726c_6400);
        let shape = &knobs.shape;
        let nodes: Vec<NodeId> = (1..=plan.nodes).map(NodeId).collect();
        let members: Vec<NodeId> = nodes
            .iter()
            .copied()
            .take(shape.members.min(plan.nodes) as usize)
            .collect();
        let network = Network::new(plan.seed, nodes.iter().copied(), knobs.links);
        let log = Log::new(plan.seed, &members, &nodes, knobs.pace);
        let leases = &membership::Parameters::DEFAULT;
        let clocks = Clocks::draw(nodes.iter().copied(), knobs.drift, leases, prng.fork());
        let workload = Workload::new(&knobs, plan.nodes, prng.fork());
        let mut world = World {
            network,
            log,
            clocks,
            versions: Versions::new(plan.seed),
            workload,
            catalog: Catalog::default(),
            results: BTreeMap::new(),
            places: BTreeMap::new(),
            shelves: BTreeMap::new(),
            fencing: BTreeSet::new(),
            shelf_ops: BTreeMap::new(),
            buffers: Buffers::default(),
            judges: Judges::default(),
            requests: BTreeMap::new(),
            tick: 0,
            tokens: 0,
            values: 0,
            next_act: Time(0) + Duration::from_millis(400),
            next_stroke: 0,
            round: Time(0),
            hash: 1,
            due: BTreeMap::new(),
            dues: 0,
            members,
            volumes: Vec::new(),
            atlas: Atlas::default(),
            operators: Operators::default(),
            standing: BTreeMap::new(),
            snapshots: Snapshots::default(),
            to_lose: Vec::new(),
            losses: Vec::new(),
            stage: Stage::Struck,
            broken: None,
            print,
            counts: Counts::default(),
            now: Time(0),
            prng,
            off,
            knobs,
            plan,
        };
        world.set_up(&nodes);
        for node in nodes {
            world.start(node);
        }
        world
    }

    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.print {
            println!("{:>12.3} ms  {}", self.now.0 as f64 / 1e6, what());
        }
    }

    /// A node's process starts.
    pub(super) fn start(&mut self, id: NodeId) {
        let now = self.clocks.at(id, self.now);
        let off = self.off;
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        if place.node.is_some() || self.catalog.node(id).is_none() {
            return;
        }
        place.incarnation += 1;
        place.version = self.versions.draw(self.stage == Stage::Struck);
        (place.is_paused, place.is_doomed) = (false, None);
        place.applied = 0;
        place.waiting.clear();
        let incarnation = Incarnation(place.incarnation);
        let disks = place.disks.clone();
        let node = Node::start(now, (id, incarnation), &self.members, disks, off);
        place.node = Some(node);
        if self.members.contains(&id) {
            let off = (self.off.membership, self.off.steward);
            place.member = Some(Member::start(now, id, off, STEWARD));
        }
        self.network.start(self.now, id);
        // What it knows of the catalog comes from the log; before the first entry there is nothing to hear.
        if self.log.committed() == 0 {
            self.snapshot(id, 0);
        }
        self.say(|| format!("node {id} starts, {incarnation:?}"));
    }

    pub(super) fn crash(&mut self, id: NodeId) {
        self.say(|| format!("node {id} dies"));
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        (place.node, place.member) = (None, None);
        place.waiting.clear();
        for disk in &place.disks {
            self.shelves.get_mut(disk).expect("it has a shelf").crash();
        }
        self.shelf_ops.retain(|_, (node, ..)| *node != id);
        let ops = &self.shelf_ops;
        self.fencing.retain(|of| ops.contains_key(of));
        let gone = self.requests.iter().filter(|(_, asked)| asked.node == id);
        let gone: Vec<Token> = gone.map(|(token, _)| *token).collect();
        for token in gone {
            if let Some(asked) = self.requests.remove(&token) {
                self.judges.failed(&asked);
            }
        }
        self.network.crash(self.now, id);
        self.log.down(self.now, id);
    }

    fn snapshot(&mut self, id: NodeId, index: u64) {
        let now = self.clocks.at(id, self.now);
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        let Some(node) = &mut place.node else {
            return;
        };
        place.applied = index;
        node.on_snapshot(now, &self.catalog, &self.shelves, &mut self.buffers);
        if let Some(member) = &mut place.member {
            member.on_snapshot(now, &node.catalog);
            member.applied(now, index, &node.catalog, &self.results);
        }
        self.take_effects(id);
    }

    pub(super) fn put_due(&mut self, after: Duration, due: Due) {
        self.dues += 1;
        self.due.insert((self.now + after, self.dues), due);
    }

    /// Runs to the end.
    pub fn run(&mut self) -> Result<(), Failure> {
        // The phases and strokes of the plan come again, until enough has been asked.
        for _ in 0..ROUNDS_MAX {
            let end = self.round + self.knobs.length();
            while self.now < end {
                self.turn(end)?;
            }
            if self.counts.operations >= OPERATIONS_MIN.min(self.plan.operations) {
                break;
            }
            self.round = self.now;
            self.next_stroke = 0;
        }
        self.heal();
        self.wait_until_well()?;
        if self.counts.persons == 0 && self.lose_writes() {
            self.wait_until_well()?;
        }
        if self.counts.persons == 0 {
            self.read_all()?;
            self.judge_copies()?;
        }
        self.judges.histories.judge()?;
        self.collect();
        Ok(())
    }

    /// Stands for everything that happened: the same plan leaves the same.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn collect(&mut self) {
        self.counts.met.faults.add(&self.network.tally);
        self.counts.met.faults.add(&self.log.tally);
        self.counts.met.faults.add(&self.clocks.tally);
        for shelf in self.shelves.values() {
            self.counts.met.faults.add(&shelf.tally);
        }
    }

    /// The next thing that happens.
    pub(super) fn turn(&mut self, end: Time) -> Result<(), Failure> {
        let mut next = end.min(self.next_act);
        let mut sooner = |at: Option<Time>| {
            if let Some(at) = at {
                next = next.min(at);
            }
        };
        sooner(self.network.next());
        sooner(self.log.next());
        sooner(self.shelves.values().filter_map(Shelf::next).min());
        sooner(self.due.first_key_value().map(|((at, _), _)| *at));
        if let Some(planned) = self.plan.strokes.get(self.next_stroke)
            && self.stage == Stage::Struck
        {
            sooner(Some(self.round + planned.at));
        }
        for (&id, place) in &mut self.places {
            sooner(Some(place.wakes(id, self.now, &self.clocks)));
        }
        self.now = self.now.max(next);
        self.counts.steps += 1;
        let done = self.counts.answered.rotate_left(20) ^ self.counts.steps;
        self.hash = crate::base::mix64(self.hash ^ self.now.0 ^ done.rotate_left(40));
        self.poll_all()?;
        self.expire_all();
        if self.now >= self.next_act {
            self.act();
        }
        let before = self.counts.strokes;
        self.strike();
        let mut is_struck = self.counts.strokes != before;
        while let Some((&(at, key), _)) = self.due.first_key_value()
            && at <= self.now
        {
            if let Some(due) = self.due.remove(&(at, key)) {
                self.on_due(due);
                is_struck = true;
            }
        }
        if is_struck {
            self.forget_wakes();
        }
        if self.counts.steps.is_multiple_of(1024) {
            // What a disk may come back with.
            let at = self.prng.below(self.shelves.len() as u64) as usize;
            if let Some(shelf) = self.shelves.values_mut().nth(at) {
                shelf.remember();
            }
        }
        if self.counts.steps.is_multiple_of(16 * JUDGED_EVERY) {
            self.judge_frozen()?;
        }
        if self.counts.steps.is_multiple_of(JUDGED_EVERY) {
            self.judge_moment()?;
        }
        if self.counts.steps.is_multiple_of(256) {
            self.shelves.values().for_each(Shelf::check_count);
            for (&id, place) in &mut self.places {
                if let Some(node) = &place.node {
                    node.check();
                }
                let known = place.wakes.take();
                let wakes = place.wakes(id, self.now, &self.clocks);
                let is_right = |known: Time| known.max(self.now) == wakes.max(self.now);
                assert!(known.is_none_or(is_right), "nobody-oversleeps");
                if let Some(Err(name)) = place.member.as_ref().map(Member::check) {
                    return Err(Failure::new(Promise::Invariants, name));
                }
            }
        }
        match self.broken.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Clocks may run otherwise now, and nodes be others.
    pub(super) fn forget_wakes(&mut self) {
        let places = self.places.values_mut();
        places.for_each(|place| place.wakes = None);
    }

    fn poll_all(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.network.poll(self.now) {
            self.on_network(event);
        }
        while let Some(event) = self.log.poll(self.now, &self.network) {
            self.on_log(event)?;
        }
        let disks: Vec<DiskId> = self.shelves.keys().copied().collect();
        for disk in disks {
            while let Some(done) = self.shelves.get_mut(&disk).and_then(|it| it.poll(self.now)) {
                self.look_at_damage(disk);
                self.look_at_room(disk);
                let Some((id, pg, whose)) = self.shelf_ops.remove(&(disk, done.op)) else {
                    continue;
                };
                if self.fencing.remove(&(disk, done.op)) {
                    // What was asked may be lower than what is there: that changes nothing.
                    let kept = self.shelves[&disk].kept().pg(pg);
                    for range in kept.ranges() {
                        let epoch = kept.epoch(range);
                        self.judges
                            .seen
                            .fenced((disk, pg), kept.version, range, epoch)?;
                    }
                }
                self.judge_stored((disk, pg), whose, &done.outcome)?;
                let place = self.places.get_mut(&id).expect("nodes stay");
                match place.is_paused {
                    true => place.waiting.push_back((disk, pg, whose, done)),
                    false => self.on_shelf(id, (disk, pg, whose, done)),
                }
            }
            self.look_at_room(disk);
        }
        Ok(())
    }

    pub(super) fn on_shelf(
        &mut self,
        id: NodeId,
        (disk, pg, whose, done): (DiskId, PgId, Whose, super::shelf::Done),
    ) {
        let now = self.clocks.at(id, self.now);
        self.counts.steps += 1;
        let place = self.places.get_mut(&id).expect("nodes stay");
        let Some(node) = &mut place.node else {
            return;
        };
        let buffers = &mut self.buffers;
        node.on_shelf(now, (disk, pg, whose), done, &self.shelves, buffers);
        self.take_effects(id);
    }

    fn on_network(&mut self, event: network::Event<Msg>) {
        let id = event.at();
        let now = self.clocks.at(id, self.now);
        self.counts.steps += 1;
        let spoken = match event {
            network::Event::Connected { peer, .. } => self.spoken(id, peer),
            _ => Version::PRESENT,
        };
        let place = self.places.get_mut(&id).expect("nodes stay");
        let Some(node) = &mut place.node else {
            return;
        };
        match event {
            network::Event::Connected { peer, .. } => {
                let link = Reach::There(spoken);
                node.on_link(now, (peer, link), &self.shelves, &mut self.buffers);
            }
            network::Event::ConnectionLost { peer, .. } => {
                node.on_link(now, (peer, Reach::Gone), &self.shelves, &mut self.buffers);
            }
            network::Event::Deliver { from, message, .. } => {
                if let Some(member) = &mut place.member {
                    member.on_message(now, from, &message, &node.catalog);
                }
                let message = (from, message);
                node.on_message(now, message, &self.shelves, &mut self.buffers);
            }
        }
        self.take_effects(id);
    }

    fn on_log(&mut self, event: log::Event<Command>) -> Result<(), Failure> {
        self.counts.steps += 1;
        match event {
            log::Event::Committed { index, command, .. } => {
                let result = self.catalog.apply(&command);
                self.say(|| match &result {
                    Ok(_) => format!("committed {index}: {command:?}"),
                    Err(refusal) => format!("refused {index}: {command:?}: {refusal:?}"),
                });
                if let Ok(events) = &result {
                    self.judge_reconfigured(&command)?;
                    self.judge_events(events)?;
                    self.tell_operators(events);
                }
                self.results.insert(index, result);
            }
            log::Event::Apply { at, index, command } => self.apply(at, index, &command),
            log::Event::Snapshot { at, index } => self.snapshot(at, index),
            log::Event::Answered {
                at,
                proposal,
                outcome,
            } => self.with_member(at, |member, now, catalog, results, applied| {
                member.answered(now, proposal, outcome, catalog);
                member.applied(now, applied, catalog, results);
            }),
            log::Event::Lead { at, term } => {
                self.say(|| format!("node {at} leads the manager, term {term}"));
                self.with_member(at, |member, now, catalog, _, _| {
                    member.lead(now, term, catalog);
                });
            }
            log::Event::Follow { at, leader, .. } => {
                self.with_member(at, |member, now, catalog, _, _| {
                    member.follow(now, leader, catalog);
                });
            }
            log::Event::Confirmed { at, term, up_to } => {
                self.with_member(at, |member, now, catalog, _, _| {
                    member.confirmed(now, (term, up_to), catalog);
                });
            }
        }
        Ok(())
    }

    fn with_member(
        &mut self,
        id: NodeId,
        what: impl FnOnce(&mut Member, Time, &Catalog, &BTreeMap<u64, Result<Vec<Event>, Refusal>>, u64),
    ) {
        let now = self.clocks.at(id, self.now);
        let place = self.places.get_mut(&id).expect("nodes stay");
        if let (Some(member), Some(node)) = (&mut place.member, &place.node) {
            what(member, now, &node.catalog, &self.results, place.applied);
        }
        self.take_effects(id);
    }

    fn apply(&mut self, id: NodeId, index: u64, command: &Command) {
        let now = self.clocks.at(id, self.now);
        let place = self.places.get_mut(&id).expect("nodes stay");
        let Some(node) = &mut place.node else {
            return;
        };
        place.applied = index;
        if let Ok(events) = node.catalog.apply(command) {
            if let Some(member) = &mut place.member {
                member.on_events(now, &events, &node.catalog);
            }
            node.on_events(now, &events, &self.shelves, &mut self.buffers);
        }
        if let Some(member) = &mut place.member {
            member.applied(now, index, &node.catalog, &self.results);
        }
        self.take_effects(id);
    }

    fn expire_all(&mut self) {
        let (now, clocks) = (self.now, &self.clocks);
        let places = self.places.iter_mut();
        let due =
            places.filter_map(|(&id, place)| (place.wakes(id, now, clocks) <= now).then_some(id));
        for id in due.collect::<Vec<NodeId>>() {
            let now = self.clocks.at(id, self.now);
            let place = self.places.get_mut(&id).expect("nodes stay");
            let Some(node) = &mut place.node else {
                continue;
            };
            if node.deadline() <= now {
                node.expire(now, &self.shelves, &mut self.buffers);
                self.counts.steps += 1;
            }
            if let Some(member) = &mut place.member
                && member.deadline().is_some_and(|at| at <= now)
            {
                member.expire(now, &node.catalog);
                self.counts.steps += 1;
            }
            self.take_effects(id);
        }
    }

    /// Carries out what a node and its member want.
    pub(super) fn take_effects(&mut self, id: NodeId) {
        loop {
            let Some(place) = self.places.get_mut(&id) else {
                return;
            };
            place.wakes = None;
            let of_node = place
                .node
                .as_mut()
                .map(|node| std::mem::take(&mut node.effects));
            let of_member = place
                .member
                .as_mut()
                .map(|member| std::mem::take(&mut member.effects));
            let (of_node, of_member) = (of_node.unwrap_or_default(), of_member.unwrap_or_default());
            if of_node.is_empty() && of_member.is_empty() {
                return;
            }
            for effect in of_node {
                self.take_node(id, effect);
            }
            for effect in of_member {
                self.take_member(id, effect);
            }
        }
    }

    fn take_node(&mut self, id: NodeId, effect: node::Effect) {
        match effect {
            node::Effect::Send { to, message } => self.send(id, to, message),
            node::Effect::Issued {
                header,
                message,
                payload,
            } => self.issued(&header, &message, payload),
            node::Effect::Shelf {
                disk,
                pg,
                operation,
                whose,
            } => self.ask_shelf(id, (disk, pg), operation, whose),
            node::Effect::Scrub { disk } => {
                self.shelves.get_mut(&disk).expect("it has a shelf").scrub();
                self.look_at_damage(disk);
            }
            node::Effect::Open { disk, incarnation } => {
                let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
                shelf.open(incarnation.0);
            }
            node::Effect::Recorded { disk } => {
                self.shelves
                    .get_mut(&disk)
                    .expect("it has a shelf")
                    .recorded();
            }
            node::Effect::Layer {
                disk,
                layer,
                parent,
            } => {
                let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
                shelf.put_layer(layer, parent);
            }
            node::Effect::Paced(how) => self.counts.met.branch(match how {
                Pace::Faster => "pace-up",
                Pace::Slower => "pace-down",
            }),
            node::Effect::Mark {
                disk,
                pg,
                range,
                epoch,
                mark,
            } => {
                if let Some(shelf) = self.shelves.get_mut(&disk) {
                    shelf.mark(pg, range, epoch, mark);
                }
            }
            node::Effect::Reply {
                token,
                result,
                volume,
                epoch,
            } => self.replied(token, result, volume, epoch),
        }
    }

    fn ask_shelf(
        &mut self,
        id: NodeId,
        (disk, pg): (DiskId, PgId),
        operation: Operation,
        whose: Whose,
    ) {
        let is_fence = matches!(operation, Operation::Fence { .. });
        if operation == Operation::Forget {
            self.judges.seen.begins_again((disk, pg));
        }
        let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
        let number = shelf
            .ask(self.now, pg, operation)
            .expect("replicas bound what they ask");
        if is_fence {
            self.fencing.insert((disk, number));
        }
        self.shelf_ops.insert((disk, number), (id, pg, whose));
        let place = self.places.get_mut(&id).expect("nodes stay");
        if let Some(lasts) = place.is_doomed.take() {
            self.put_due(Duration::ZERO, Due::Die(id, lasts));
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Msg) {
        if let Some(name) = message.branch() {
            self.counts.met.branch(name);
        }
        if from != to {
            self.say(|| format!("{from} to {to}: {message:?}"));
            let Some(message) = self.said(from, to, message) else {
                return;
            };
            // A way that is full loses it: what is not answered is sent again.
            let _ = self.network.send(self.now, from, to, message);
            return;
        }
        let now = self.clocks.at(to, self.now);
        let place = self.places.get_mut(&to).expect("nodes stay");
        if let (Some(member), Some(node)) = (&mut place.member, &mut place.node) {
            member.on_message(now, from, &message, &node.catalog);
            let message = (from, message);
            node.on_message(now, message, &self.shelves, &mut self.buffers);
        }
    }

    fn take_member(&mut self, id: NodeId, effect: member::Effect) {
        match effect {
            member::Effect::Send { to, message } => self.send(id, to, message),
            member::Effect::Propose { number, command } => {
                let taken = self.log.propose(self.now, id, command).ok();
                self.with_member(id, |member, now, catalog, _, _| {
                    member.proposed(now, number, taken, catalog);
                });
            }
            member::Effect::FoundClock { node } => {
                self.clocks.found(node);
            }
            member::Effect::Confirm { term, up_to } => {
                self.log.confirm(self.now, id, term.0, up_to);
            }
        }
    }

    pub(super) fn note(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.broken.get_or_insert(failure);
        }
    }
}
