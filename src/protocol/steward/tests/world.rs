//! An idealised cluster around one steward: a catalog that commits in order, nodes with leases, disks that hold sets of writes, and
//! coordinators that write and accuse. Time goes in ticks of 100 ms.
//!
//! Faults: nodes crash and return, disks are unplugged, fail, are sick (they do not answer) or travel in time, one node at a time has a bad
//! card and accuses everybody, the leader changes, commands are lost, words and reports come late.
//!
//! What is asked after every tick has a name: see [`World::check`] and [`World::after_eviction`].

use super::super::*;
use crate::base::{DiskId, NodeId, PgId, Prng, StoreId, Time};
use crate::protocol::catalog::{Catalog, Command, DiskState, Event, Maintenance, StoreName};
use crate::protocol::membership::{Incarnation, Verdict, Why as Guilt};
use crate::protocol::placement::{Cluster, Level, solve};
use crate::protocol::replication::{Reconfigure, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(100);
const LEASE: Duration = Duration::from_millis(400);
const GIB: u64 = 1 << 30;
/// How long a replica was well until its eviction is nobody's mistake any more.
const WELL: Duration = Duration::from_secs(8);

pub const PARAMETERS: Parameters = Parameters {
    out_after: Duration::from_secs(10),
    grace: Duration::from_secs(1),
    settle: Duration::from_millis(500),
    accusation_age: Duration::from_secs(2),
    back_off: Duration::from_millis(500),
    back_off_max: Duration::from_secs(4),
    proposals_max: 16,
    joins_a_disk: 8,
    moves_a_disk: 2,
    moves_max: 12,
    new_pgs: NewPgs::AsWanted,
};

#[derive(Debug, Clone, Default)]
struct Replica {
    writes: BTreeSet<u32>,
    /// The last version under which it was in sync, by its own memory.
    since: u32,
}

#[derive(Debug, Clone, Default)]
struct Image {
    /// The opening that was written last, and the one that was recorded before it.
    incarnation: u64,
    previous: u64,
    replicas: BTreeMap<PgId, Replica>,
}

#[derive(Debug)]
struct Disk {
    node: NodeId,
    is_plugged: bool,
    has_failed: bool,
    is_sick: bool,
    well_since: Time,
    image: Image,
    /// An old copy that comes back in its place.
    backup: Option<Image>,
    /// What should be there, while an old copy is.
    right: Option<Image>,
    /// What its store found and wrote, while it is open.
    open: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Node {
    is_up: bool,
    start: u64,
    has_bad_card: bool,
    down_since: Time,
    /// Whether this leader was told.
    told: Option<bool>,
}

#[derive(Debug, Default)]
struct Data {
    /// The version under which each write was acknowledged.
    acknowledged: BTreeMap<u32, u32>,
    next: u32,
    /// Writes below are not known to be newer than anything: all replicas on the list were in sync since.
    kept_from: u32,
}

pub struct World {
    pub prng: Prng,
    pub now: Time,
    pub catalog: Catalog,
    pub steward: Steward,
    off: RulesOff,
    nodes: BTreeMap<NodeId, Node>,
    disks: BTreeMap<DiskId, Disk>,
    data: BTreeMap<PgId, Data>,
    proposals: Vec<(Time, u64, u64, Command)>,
    questions: Vec<(Time, u64, u64, Cluster)>,
    words: Vec<(Time, NodeId, PgId, u32, DiskId)>,
    fills: BTreeMap<(PgId, DiskId, u32), Time>,
    filled: Vec<(Time, PgId, DiskId, u32)>,
    term: u64,
    leads_at: Option<Time>,
    led_since: Time,
    pub has_faults: bool,
    /// So many proposals to move something are lost.
    pub moves_to_lose: u32,
    pub broken: Option<&'static str>,
    pub notes: Vec<Note>,
    /// What was committed, for whoever has to find out why.
    pub story: Vec<String>,
    pub evictions: usize,
    pub promotions: usize,
    pub removals: usize,
    pub emptied: usize,
    pub travels: usize,
}

impl World {
    pub fn new(seed: u64, nodes: u32, copies: u32, min_copies: u32, off: RulesOff) -> World {
        let mut catalog = Catalog::default();
        let pool = Command::SetPool {
            pool: "default".into(),
            copies,
            min_copies,
            level: Level::Node,
        };
        catalog.apply(&pool).unwrap();
        let now = Time(1_000_000_000);
        let mut world = World {
            prng: Prng::new(seed),
            now,
            catalog,
            steward: Steward::new(now, PARAMETERS, off).unwrap(),
            off,
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            data: BTreeMap::new(),
            proposals: Vec::new(),
            questions: Vec::new(),
            words: Vec::new(),
            fills: BTreeMap::new(),
            filled: Vec::new(),
            term: 1,
            leads_at: Some(now),
            led_since: now,
            has_faults: false,
            moves_to_lose: 0,
            broken: None,
            notes: Vec::new(),
            story: Vec::new(),
            evictions: 0,
            promotions: 0,
            removals: 0,
            emptied: 0,
            travels: 0,
        };
        for _ in 0..nodes {
            world.add_node();
        }
        world
    }

    pub fn add_node(&mut self) -> NodeId {
        let node = NodeId(self.nodes.len() as u32 + 1);
        let name = format!("n{node}");
        self.order(Command::AddNode { name }).unwrap();
        let fresh = Node {
            is_up: true,
            start: 0,
            has_bad_card: false,
            down_since: self.now,
            told: None,
        };
        self.nodes.insert(node, fresh);
        for at in 0..2 {
            let store = StoreName(StoreId([(node.0 * 2 + at) as u8; 16]));
            let add = Command::AddDisk {
                node,
                path: format!("/d{at}"),
                store,
                size: GIB,
                pool: None,
                incarnation: Incarnation(1),
            };
            self.order(add).unwrap();
            let id = self.catalog.disks().last().unwrap().id;
            let image = Image {
                incarnation: 1,
                previous: 1,
                replicas: BTreeMap::new(),
            };
            let disk = Disk {
                node,
                is_plugged: true,
                has_failed: false,
                is_sick: false,
                well_since: self.now,
                image,
                backup: None,
                right: None,
                open: None,
            };
            self.disks.insert(id, disk);
            self.open(id);
        }
        node
    }

    /// A command of an operator, or of a node.
    pub fn order(&mut self, command: Command) -> Result<(), crate::protocol::catalog::Refusal> {
        let before = self.catalog.clone();
        let events = self.catalog.apply(&command).inspect_err(|_| {
            assert_eq!(before, self.catalog, "a refused command changes nothing");
        })?;
        self.committed(&before, &command, &events);
        Ok(())
    }

    fn committed(&mut self, before: &Catalog, command: &Command, events: &[Event]) {
        self.story.push(format!("{:?} {command:?}", self.now));
        if let Command::Reconfigure { pg, change, .. } = command {
            match change {
                Reconfigure::Evict { disk } => self.after_eviction(before, *pg, *disk),
                Reconfigure::Empty { .. } => self.emptied += 1,
                Reconfigure::Promote { .. } => self.promotions += 1,
                Reconfigure::Remove { .. } => self.removals += 1,
                Reconfigure::Add { .. } | Reconfigure::Join { .. } => {}
            }
        }
        if let Command::OpenDisk { disk, .. } = command {
            // Whatever is there is what is there from now on.
            let disk = self.disks.get_mut(disk).unwrap();
            disk.right = None;
            disk.well_since = self.now;
        }
        self.tell(Input::Committed(events));
    }

    /// *nobody-well-is-evicted*: who is in sync, answers everybody and did so for long, stays; *never-too-few*: and enough are left.
    fn after_eviction(&mut self, before: &Catalog, pg: PgId, disk: DiskId) {
        self.evictions += 1;
        let configuration = &before.pg(pg).unwrap().configuration;
        if configuration.role(disk) != Some(Role::InSync) {
            return;
        }
        let pool = before.pools().next().unwrap();
        let left = self.catalog.pg(pg).unwrap().configuration.in_sync().count();
        if left < pool.min_copies.max(1) as usize {
            self.broken = Some("never-too-few");
        }
        let found = &self.disks[&disk];
        let node = &self.nodes[&found.node];
        let is_well = self.serves(disk) && !found.is_sick && !node.has_bad_card;
        if is_well && self.now.since(found.well_since) > WELL {
            self.story
                .push(format!("well since {:?}: {disk} of {pg}", found.well_since));
            self.broken = Some("nobody-well-is-evicted");
        }
    }

    pub fn tell(&mut self, input: Input) {
        let mut out = Vec::new();
        self.steward.step(self.now, &self.catalog, input, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            let at = self.now + Duration::from_millis(self.prng.below(200));
            match output {
                Output::Propose { proposal, command } => {
                    self.proposals.push((at, self.term, proposal, command));
                }
                Output::Solve { question, cluster } => {
                    let at = at + Duration::from_millis(self.prng.below(400));
                    self.questions.push((at, self.term, question, cluster));
                }
                Output::Note(Note::LastCopies { disk, .. }) => self.bring_the_right_one(disk),
                Output::Note(note) => {
                    self.story.push(format!("{:?} {note:?}", self.now));
                    self.notes.push(note);
                }
            }
        }
    }

    /// The person whom the note is for finds the disk that should be there.
    fn bring_the_right_one(&mut self, id: DiskId) {
        let disk = self.disks.get_mut(&id).unwrap();
        disk.open = None;
        if let Some(right) = disk.right.take() {
            disk.image = right;
        }
        self.open(id);
    }

    fn open(&mut self, id: DiskId) {
        let recorded = self.catalog.disk(id).unwrap().incarnation.0;
        let disk = self.disks.get_mut(&id).unwrap();
        if !self.nodes[&disk.node].is_up || !disk.is_plugged || disk.has_failed {
            return;
        }
        let written = disk.image.incarnation;
        // Of the two that it remembers the one that is recorded.
        let found = match disk.image.previous == recorded {
            true => recorded,
            false => written,
        };
        let now = written.max(recorded) + 1;
        disk.image.previous = found;
        disk.image.incarnation = now;
        disk.open = Some((found, now));
        disk.well_since = self.now;
        self.report(id);
    }

    fn report(&mut self, id: DiskId) {
        if let Some((before, now)) = self.disks[&id].open {
            let store = self.catalog.disk(id).unwrap().store;
            let (before, now) = (Incarnation(before), Incarnation(now));
            let start = Incarnation(self.nodes[&self.disks[&id].node].start);
            self.tell(Input::DiskOpened {
                disk: id,
                store,
                before,
                now,
                start,
            });
        }
    }

    /// Whether replicas on a disk may answer: it is open, and its opening is recorded.
    fn serves(&self, id: DiskId) -> bool {
        let disk = &self.disks[&id];
        let recorded = self.catalog.disk(id).map(|disk| disk.incarnation.0);
        self.nodes[&disk.node].is_up && disk.open.is_some_and(|(_, now)| Some(now) == recorded)
    }

    fn answers(&self, id: DiskId) -> bool {
        self.serves(id)
            && !self.disks[&id].is_sick
            && !self.nodes[&self.disks[&id].node].has_bad_card
    }

    pub fn ticks(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.tick();
        }
        assert_eq!(self.broken, None);
    }

    pub fn make_sick(&mut self, id: DiskId) {
        self.disks.get_mut(&id).unwrap().is_sick = true;
        self.disks.get_mut(&id).unwrap().well_since = self.now;
    }

    pub fn tick(&mut self) {
        self.now = self.now + TICK;
        self.lead();
        self.leases();
        self.commit();
        self.open_again();
        self.solve();
        if self.has_faults {
            self.fault();
        }
        self.write();
        self.fill();
        self.say();
        for _ in 0..100 {
            if self.steward.deadline().is_none_or(|at| at > self.now) {
                break;
            }
            let mut out = Vec::new();
            self.steward.expire(self.now, &self.catalog, &mut out);
            self.take(out);
        }
        self.check();
    }

    fn lead(&mut self) {
        if self.leads_at.is_some_and(|at| at <= self.now) {
            self.leads_at = None;
            self.led_since = self.now;
            self.nodes.values_mut().for_each(|node| node.told = None);
            self.tell(Input::Lead);
            let filled: Vec<_> = self
                .fills
                .iter()
                .filter(|(_, at)| **at <= self.now)
                .collect();
            let filled: Vec<_> = filled.into_iter().map(|(key, _)| *key).collect();
            self.filled.extend(
                filled
                    .into_iter()
                    .map(|(pg, disk, session)| (self.now, pg, disk, session)),
            );
        }
    }

    fn leases(&mut self) {
        if self.leads_at.is_some() {
            return;
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in ids {
            let of = &self.nodes[&node];
            let silent = self.now.since(of.down_since.max(self.led_since)) > LEASE;
            match (of.is_up, of.told) {
                (true, None | Some(false)) => {
                    self.nodes.get_mut(&node).unwrap().told = Some(true);
                    self.tell(Input::Live { node });
                    if self.nodes[&node].has_bad_card {
                        self.suspect(node);
                    }
                    let disks = self.disks.iter().filter(|(_, disk)| disk.node == node);
                    let disks: Vec<DiskId> = disks.map(|(id, _)| *id).collect();
                    for disk in disks {
                        match self.disks[&disk].open {
                            Some(_) => self.report(disk),
                            None => self.tell(Input::DiskAway { disk }),
                        }
                    }
                }
                (false, None | Some(true)) if silent => {
                    self.nodes.get_mut(&node).unwrap().told = Some(false);
                    self.tell(Input::Expired { node });
                }
                _ => {}
            }
        }
    }

    fn suspect(&mut self, node: NodeId) {
        let why = Guilt::AccusesMany { accused: 3 };
        self.tell(Input::Verdict(Verdict::Suspect { node, why }));
    }

    fn commit(&mut self) {
        let (due, later) = std::mem::take(&mut self.proposals)
            .into_iter()
            .partition(|(at, ..)| *at <= self.now);
        self.proposals = later;
        let due: Vec<(Time, u64, u64, Command)> = due;
        for (_, term, proposal, command) in due {
            // Of an earlier leader some are committed all the same.
            let is_lost = match term == self.term && self.leads_at.is_none() {
                true => self.has_faults && self.prng.one_in(40),
                false => self.prng.one_in(2),
            };
            let is_move = matches!(command, Command::WantMove { .. }) && self.moves_to_lose > 0;
            self.moves_to_lose -= u32::from(is_move);
            let outcome = if is_lost || is_move {
                Outcome::Lost
            } else {
                match self.order(command) {
                    Ok(()) => Outcome::Accepted,
                    Err(refusal) => Outcome::Refused(refusal),
                }
            };
            if term == self.term {
                self.tell(Input::Answered { proposal, outcome });
            }
        }
    }

    /// A node whose opening lost against another one opens again.
    fn open_again(&mut self) {
        for id in self.disks.keys().copied().collect::<Vec<_>>() {
            let recorded = self.catalog.disk(id).unwrap().incarnation.0;
            let disk = self.disks.get_mut(&id).unwrap();
            if disk.open.is_some_and(|(_, now)| now < recorded) {
                disk.open = None;
                self.open(id);
            }
        }
    }

    fn solve(&mut self) {
        let (due, later) = std::mem::take(&mut self.questions)
            .into_iter()
            .partition(|(at, ..)| *at <= self.now);
        self.questions = later;
        let due: Vec<(Time, u64, u64, Cluster)> = due;
        for (_, term, question, cluster) in due {
            if term == self.term {
                let plan = solve(&cluster);
                self.tell(Input::Solved { question, plan });
            }
        }
    }

    fn any_disk(&mut self) -> DiskId {
        let at = self.prng.below(self.disks.len() as u64);
        *self.disks.keys().nth(at as usize).unwrap()
    }

    fn any_node(&mut self) -> NodeId {
        NodeId(1 + self.prng.below(self.nodes.len() as u64) as u32)
    }

    pub fn crash(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        node.is_up = false;
        node.down_since = now;
        for disk in self.disks.values_mut().filter(|disk| disk.node == id) {
            disk.open = None;
        }
        let of: Vec<DiskId> = self.catalog.disks_of(id).map(|disk| disk.id).collect();
        self.fills.retain(|(_, disk, _), _| !of.contains(disk));
    }

    pub fn start(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.is_up = true;
        node.start += 1;
        let incarnation = Incarnation(node.start);
        let record = Command::RecordIncarnation {
            node: id,
            incarnation,
        };
        self.order(record).unwrap();
        let of: Vec<DiskId> = self.catalog.disks_of(id).map(|disk| disk.id).collect();
        for disk in of {
            self.open(disk);
        }
    }

    fn fault(&mut self) {
        match self.prng.below(160) {
            0 | 1 => {
                let node = self.any_node();
                if self.nodes[&node].is_up && self.nodes.values().filter(|n| !n.is_up).count() < 2 {
                    self.crash(node);
                }
            }
            2..=5 => {
                let node = self.any_node();
                if !self.nodes[&node].is_up {
                    self.start(node);
                }
            }
            6 | 23 => self.travel(),
            7 | 19..=22 => {
                let disk = self.any_disk();
                let image = self.disks[&disk].image.clone();
                let of = self.disks.get_mut(&disk).unwrap();
                if of.open.is_some() && of.right.is_none() && of.backup.is_none() {
                    of.backup = Some(image);
                }
            }
            8 | 9 => self.unplug_or_plug(),
            10 | 11 => {
                let disk = self.any_disk();
                let now = self.now;
                let of = self.disks.get_mut(&disk).unwrap();
                of.is_sick = !of.is_sick;
                of.well_since = now;
            }
            12 => self.bad_card(),
            13 | 14 => self.change_leader(),
            15 => self.wish(),
            16 => {
                let disk = self.any_disk();
                if !self.disks.values().any(|disk| disk.has_failed)
                    && self.proposals.is_empty()
                    && !self.has_last_copy(disk)
                {
                    let of = self.disks.get_mut(&disk).unwrap();
                    if of.open.take().is_some() {
                        of.has_failed = true;
                        self.tell(Input::DiskFailed { disk });
                    }
                }
            }
            17 | 18 => self.lose_session(),
            _ => {}
        }
    }

    /// Whether a failure of this disk would lose something.
    fn has_last_copy(&self, disk: DiskId) -> bool {
        let is_last = |pg: PgId| {
            let mut in_sync = self.catalog.pg(pg).unwrap().configuration.in_sync();
            !in_sync.any(|other| other != disk && self.answers(other))
        };
        self.catalog.pgs_on(disk).any(is_last)
    }

    pub fn change_leader(&mut self) {
        if self.leads_at.is_none() {
            self.tell(Input::Follow);
            self.term += 1;
            self.leads_at = Some(self.now + Duration::from_millis(300));
        }
    }

    /// A disk comes back as it was some time ago, while its node is down. (A copy that was taken in the same opening would not be
    /// told apart, by R19's own words.)
    fn travel(&mut self) {
        // What the other replicas have may be away, but not for good.
        let is_safe = |pg: PgId, id: DiskId| {
            let mut in_sync = self.catalog.pg(pg).unwrap().configuration.in_sync();
            in_sync.any(|other| other != id && !self.disks[&other].has_failed)
        };
        let is_old = |id: &DiskId, disk: &Disk| {
            let recorded = self.catalog.disk(*id).unwrap().incarnation.0;
            let backup = disk.backup.as_ref();
            disk.open.is_some()
                && disk.right.is_none()
                && backup.is_some_and(|backup| backup.incarnation < recorded)
                && self.catalog.pgs_on(*id).all(|pg| is_safe(pg, *id))
        };
        let mut all = self.disks.iter();
        let Some((&id, _)) = all.find(|(id, disk)| is_old(id, disk)) else {
            return;
        };
        let disk = self.disks.get_mut(&id).unwrap();
        let node = disk.node;
        if let Some(backup) = disk.backup.take() {
            disk.right = Some(std::mem::replace(&mut disk.image, backup));
            self.travels += 1;
            self.crash(node);
            self.start(node);
        }
    }

    fn unplug_or_plug(&mut self) {
        let disk = self.any_disk();
        let is_up = self.nodes[&self.disks[&disk].node].is_up;
        let of = self.disks.get_mut(&disk).unwrap();
        if of.is_plugged && is_up && of.open.take().is_some() {
            of.is_plugged = false;
            self.fills.retain(|(_, other, _), _| *other != disk);
            self.tell(Input::DiskAway { disk });
        } else if !of.is_plugged {
            of.is_plugged = true;
            self.open(disk);
        }
    }

    fn bad_card(&mut self) {
        let bad = self.nodes.iter().find(|(_, node)| node.has_bad_card);
        if let Some((&node, _)) = bad {
            let now = self.now;
            self.nodes.get_mut(&node).unwrap().has_bad_card = false;
            let of = self.disks.values_mut().filter(|disk| disk.node == node);
            of.for_each(|disk| disk.well_since = now);
            self.tell(Input::Verdict(Verdict::Cleared { node }));
            return;
        }
        let node = self.any_node();
        if self.nodes[&node].is_up {
            self.nodes.get_mut(&node).unwrap().has_bad_card = true;
            // Its words come before the verdict on it.
            self.accuse_everybody(node);
            self.suspect(node);
        }
    }

    pub fn accuse_everybody(&mut self, by: NodeId) {
        let pgs: Vec<(PgId, u32, Vec<DiskId>)> = self
            .catalog
            .pgs()
            .map(|pg| (pg.id, pg.version(), pg.configuration.in_sync().collect()))
            .collect();
        for (pg, version, disks) in pgs {
            for disk in disks {
                if self.disks[&disk].node != by {
                    self.tell(Input::Accused {
                        by,
                        pg,
                        version,
                        disk,
                    });
                }
            }
        }
    }

    fn wish(&mut self) {
        let (disk, node) = (self.any_disk(), self.any_node());
        let drains = |state| move |disk: &&crate::protocol::catalog::Disk| disk.state == state;
        let draining = self
            .catalog
            .disks()
            .find(drains(DiskState::Draining))
            .map(|d| d.id);
        let command = match (self.prng.below(4), draining) {
            (0, None) => Command::SetDiskState {
                disk,
                state: DiskState::Draining,
            },
            (0, Some(disk)) => Command::SetDiskState {
                disk,
                state: DiskState::Serving,
            },
            (1, _) => Command::SetMaintenance {
                node,
                maintenance: Maintenance::On,
                until: None,
            },
            (2, _) => Command::SetMaintenance {
                node,
                maintenance: Maintenance::Off,
                until: None,
            },
            _ => Command::SetWeight {
                disk,
                weight: Some(GIB / 2 + self.prng.below(GIB)),
            },
        };
        if let Command::SetDiskState { disk, .. } = &command
            && !self.catalog.disk(*disk).unwrap().state.is_good()
        {
            return;
        }
        let _ = self.order(command);
    }

    fn lose_session(&mut self) {
        let joining = self.sessions();
        if let Some(&(pg, disk, session, _)) = joining.first() {
            self.fills.remove(&(pg, disk, session));
            self.tell(Input::SessionLost { pg, disk, session });
        }
    }

    /// All sessions, with the version that their replica was in sync under last.
    fn sessions(&self) -> Vec<(PgId, DiskId, u32, u32)> {
        let mut found = Vec::new();
        for pg in self.catalog.pgs() {
            for member in pg.configuration.members() {
                if let Role::Joining { session, since } = member.role {
                    found.push((pg.id, member.disk, session, since));
                }
            }
        }
        found
    }

    /// Coordinators write to some PGs, and accuse who does not answer.
    fn write(&mut self) {
        let pgs = self.catalog.pgs().len() as u64;
        if pgs == 0 {
            return;
        }
        for _ in 0..6 {
            let id = self
                .catalog
                .pgs()
                .nth(self.prng.below(pgs) as usize)
                .unwrap()
                .id;
            let pg = self.catalog.pg(id).unwrap();
            let version = pg.version();
            let writers: Vec<DiskId> = pg.configuration.writers().map(|one| one.disk).collect();
            let silent: Vec<DiskId> = writers
                .iter()
                .copied()
                .filter(|disk| !self.answers(*disk))
                .collect();
            if silent.is_empty() {
                let data = self.data.entry(id).or_default();
                let write = data.next;
                data.next += 1;
                data.acknowledged.insert(write, version);
                for disk in writers {
                    let of = self.disks.get_mut(&disk).unwrap();
                    let replica = of.image.replicas.entry(id).or_default();
                    replica.writes.insert(write);
                }
                continue;
            }
            for disk in silent {
                let by: Vec<NodeId> = self
                    .nodes
                    .iter()
                    .filter(|(id, node)| {
                        node.is_up && !node.has_bad_card && **id != self.disks[&disk].node
                    })
                    .map(|(id, _)| *id)
                    .take(2)
                    .collect();
                for by in by {
                    let late = Duration::from_millis(self.prng.below(300));
                    self.words.push((self.now + late, by, id, version, disk));
                    if self.prng.one_in(3) {
                        // And once more, much later.
                        let late = WELL + Duration::from_millis(self.prng.below(20_000));
                        self.words.push((self.now + late, by, id, version, disk));
                    }
                }
            }
        }
        self.remember_versions();
    }

    /// Replicas in sync remember that they are; where all on the list are, nobody has to know any more what is new.
    fn remember_versions(&mut self) {
        for pg in self.catalog.pgs() {
            let members = pg.configuration.members();
            let data = self.data.entry(pg.id).or_default();
            if members.iter().all(|one| one.role == Role::InSync) {
                data.kept_from = data.next;
            }
            for member in members.iter().filter(|one| one.role == Role::InSync) {
                let disk = self.disks.get_mut(&member.disk).unwrap();
                disk.image.replicas.entry(pg.id).or_default().since = pg.version();
            }
        }
    }

    fn fill(&mut self) {
        let sessions = self.sessions();
        for &(pg, disk, session, since) in &sessions {
            let takes = 200 + self.prng.below(1_500);
            let at = self.now + Duration::from_millis(takes);
            if self.fills.contains_key(&(pg, disk, session)) || !self.answers(disk) {
                continue;
            }
            let mut in_sync = self.catalog.pg(pg).unwrap().configuration.in_sync();
            let Some(source) = in_sync.find(|source| self.answers(*source)) else {
                continue;
            };
            // All at once, and said later: what is written meanwhile reaches it as a writer.
            let from = self.disks[&source]
                .image
                .replicas
                .get(&pg)
                .cloned()
                .unwrap_or_default();
            let data = self.data.entry(pg).or_default();
            let into = self.disks.get_mut(&disk).unwrap();
            let into = into.image.replicas.entry(pg).or_default();
            let since = match since == 0 && self.off.on(Rule::R24) {
                true => into.since,
                false => since,
            };
            if since == 0 {
                into.writes = from.writes;
            } else {
                let newer = |write: &u32| {
                    *write >= data.kept_from
                        && data
                            .acknowledged
                            .get(write)
                            .is_none_or(|version| *version > since)
                };
                into.writes
                    .extend(from.writes.iter().copied().filter(newer));
            }
            self.fills.insert((pg, disk, session), at);
            let late = Duration::from_millis(self.prng.below(3_000));
            self.filled.push((at, pg, disk, session));
            self.filled.push((at + late, pg, disk, session));
        }
        let now: BTreeSet<(PgId, DiskId, u32)> = sessions
            .into_iter()
            .map(|(pg, disk, session, _)| (pg, disk, session))
            .collect();
        self.fills.retain(|key, _| now.contains(key));
    }

    /// What was said and is on its way.
    fn say(&mut self) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.words)
            .into_iter()
            .partition(|(at, ..)| *at <= self.now);
        self.words = later;
        for (at, by, pg, version, disk) in due {
            // What comes late is of a configuration that is over, or the network would have to be very slow.
            let is_old = self.catalog.pg(pg).is_some_and(|pg| pg.version() > version);
            if self.nodes[&by].is_up && (is_old || self.now.since(at) < TICK && !self.answers(disk))
            {
                self.tell(Input::Accused {
                    by,
                    pg,
                    version,
                    disk,
                });
            }
        }
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.filled)
            .into_iter()
            .partition(|(at, ..)| *at <= self.now);
        self.filled = later;
        for (_, pg, disk, session) in due {
            if self.serves(disk) {
                self.tell(Input::Filled { pg, disk, session });
            }
            // Said again until it is promoted.
            if self.fills.contains_key(&(pg, disk, session)) {
                self.filled
                    .push((self.now + Duration::from_secs(1), pg, disk, session));
            }
        }
    }

    /// *in-sync-has-everything*: a replica in sync that may be read has every acknowledged write.
    fn check(&mut self) {
        let (mut broken, mut missed) = (None, String::new());
        for pg in self.catalog.pgs() {
            let Some(data) = self.data.get(&pg.id) else {
                continue;
            };
            for disk in pg.configuration.in_sync().filter(|disk| self.serves(*disk)) {
                let replica = self.disks[&disk].image.replicas.get(&pg.id);
                let has = |write: &u32| replica.is_some_and(|of| of.writes.contains(write));
                if !data.acknowledged.keys().all(has) {
                    let lacks: Vec<u32> = data
                        .acknowledged
                        .keys()
                        .copied()
                        .filter(|write| !has(write))
                        .collect();
                    missed = format!("{pg:?}: disk {disk} lacks {lacks:?}");
                    broken = Some("in-sync-has-everything");
                }
            }
        }
        if broken.is_some() {
            self.story.push(missed);
        }
        self.broken = self.broken.or(broken);
        if let Err(name) = self.steward.check() {
            self.broken = Some(name);
        }
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.has_faults = false;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let off = Command::SetMaintenance {
                node: id,
                maintenance: Maintenance::Off,
                until: None,
            };
            self.order(off).unwrap();
            if self.nodes[&id].has_bad_card {
                self.bad_card();
            }
            if !self.nodes[&id].is_up {
                self.start(id);
            }
        }
        let now = self.now;
        for id in self.disks.keys().copied().collect::<Vec<_>>() {
            let disk = self.disks.get_mut(&id).unwrap();
            disk.is_sick = false;
            disk.well_since = now;
            if !disk.is_plugged {
                disk.is_plugged = true;
                self.open(id);
            }
        }
    }

    /// Until the steward has nothing to do, and a while longer. `None` where it never comes to rest.
    pub fn rest(&mut self) -> Option<Duration> {
        let began = self.now;
        let mut quiet = 0;
        for _ in 0..6_000 {
            self.tick();
            let is_at_rest = self.leads_at.is_none() && self.steward.is_at_rest(&self.catalog);
            quiet = if is_at_rest { quiet + 1 } else { 0 };
            if quiet > 30 {
                return Some(self.now.since(began));
            }
        }
        None
    }

    /// *comes-to-rest*: every PG has its copies, in sync, in different domains, on disks that serve; nothing is wanted.
    pub fn is_whole(&self) -> Result<(), String> {
        let pool = self.catalog.pools().next().unwrap();
        for pg in self.catalog.pgs() {
            let disks: Vec<DiskId> = pg.configuration.in_sync().collect();
            let domains: BTreeSet<u32> = disks
                .iter()
                .map(|disk| self.catalog.domain(*disk, pool.level))
                .collect();
            let serve = disks
                .iter()
                .all(|disk| self.catalog.disk(*disk).unwrap().state == DiskState::Serving);
            let whole = disks.len() == pool.copies as usize
                && pg.configuration.members().len() == disks.len()
                && domains.len() == disks.len()
                && serve
                && pg.want.is_none();
            if !whole {
                return Err(format!("{pg:?}"));
            }
        }
        Ok(())
    }
}
