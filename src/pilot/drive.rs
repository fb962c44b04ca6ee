//! The pilot's thread: brings news, answers and time to the machines, and carries out what they want.

use super::door::{self, Door, Parts, Shards, lock};
use super::message::{self, Answered, Want};
use super::orders::{Keep, Next, Orders};
use super::seat::{Asker, Seat};
use super::silence::Silence;
use super::view::{Role, View};
use crate::base::{DiskId, NodeId, Time, VolumeId};
use crate::calls::{Calls, Service};
use crate::manager::{self, Index, Manager, News, Watch};
use crate::node::{self, Member, Node, Numbers};
use crate::protocol::catalog::{Catalog, Command, Event, VolumeState};
use crate::protocol::membership::{self, Answer, Ask, HolderInput, Incarnation, Term};
use crate::protocol::placement;
use crate::protocol::replication;
use crate::protocol::report::Report;
use crate::protocol::steward;
use crate::shard::{Reach, Said, ShardNo, What};
use crate::store::Openings;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

/// How often it is looked who the members are. Nothing that waits here waits longer for the clock either, so a machine that slept is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// How long it is tried to give the lease back.
const GIVE_BACK: Duration = Duration::from_millis(300);
/// How often it is looked whether there is a connection to every member.
const NEAR: Duration = Duration::from_secs(1);
/// How often an opening is told that stands in the catalog.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// What another pilot has said.
#[derive(Debug)]
pub(super) enum Heard {
    Ask { ask: Ask, asker: Asker },
    Reports { from: NodeId, reports: Vec<Report> },
    Want(Want),
}

/// Words to another node.
#[derive(Debug)]
pub(super) struct Told {
    pub to: NodeId,
    pub service: Service,
    pub body: Vec<u8>,
}

/// What joins the thread to the rest.
pub(super) struct Ways {
    pub doors: mpsc::Receiver<Door>,
    pub heard: mpsc::Receiver<Heard>,
    pub tells: mpsc::Sender<Told>,
    /// The control plane's runtime.
    pub main: Handle,
    pub view: Arc<Mutex<View>>,
    pub served: watch::Sender<BTreeSet<VolumeId>>,
}

/// What was begun has ended.
pub(super) enum Done {
    /// A member has answered an ask, or has not.
    Answered {
        from: NodeId,
        request: u64,
        answer: Option<Answered>,
    },
    Proposed {
        number: Option<u64>,
        outcome: manager::Outcome,
    },
    Confirmed {
        term: Term,
        up_to: u64,
    },
    NotConfirmed,
    /// A member was dialled, or was there.
    Connected,
    Solved {
        question: u64,
        plan: Result<placement::Plan, placement::Refusal>,
    },
    Kept {
        keep: Keep,
        result: Result<(), String>,
    },
}

/// See the [module](self).
pub(super) struct Driver<S> {
    pub me: NodeId,
    incarnation: Incarnation,
    pub manager: Manager,
    calls: Calls,
    pub shards: Arc<S>,
    clock: door::Clock,
    pub leases: membership::Parameters,
    pub steward: steward::Parameters,
    pub main: Handle,
    tells: mpsc::Sender<Told>,
    pub view: Arc<Mutex<View>>,
    pub served: watch::Sender<BTreeSet<VolumeId>>,
    pub tasks: JoinSet<Done>,
    pub machine: Node,
    pub seat: Option<Seat>,
    pub role: Role,
    pub members: Vec<NodeId>,
    look_at: Time,
    near_at: Time,
    pub joined: node::Shards,
    pub orders: Orders,
    /// As of the last news that the machines were told.
    pub catalog: Arc<Catalog>,
    pub index: u64,
    /// The catalog has this node: before, it is not this cluster's yet.
    has_catalog: bool,
    /// Disks that are there, with what their stores keep.
    pub found: BTreeMap<DiskId, Openings>,
    /// What they were given to keep in this start.
    pub opened: BTreeMap<DiskId, Openings>,
    /// To be told to the members at the end of the turn.
    reports: Vec<Report>,
    /// When openings were told that stand in the catalog: a new leader has not heard of them.
    pub openings_told: BTreeMap<DiskId, Time>,
    pub silence: Silence,
}

/// The node's machine.
pub(super) fn node<S>(
    parts: &Parts<S>,
    now: Time,
    members: Vec<NodeId>,
) -> Result<Node, node::Unsound> {
    let of = (parts.manager.node(), parts.incarnation);
    let leases = (parts.leases, membership::RulesOff::NONE);
    let node = Node::new(now, of, members, leases, replication::RulesOff::NONE);
    node.map_err(node::Unsound::Leases)
}

/// The machine of a member.
pub(super) fn member(
    now: Time,
    me: NodeId,
    leases: membership::Parameters,
    steward: steward::Parameters,
) -> Result<Member, node::Unsound> {
    let leases = (leases, membership::RulesOff::NONE);
    Member::new(now, me, leases, (steward, steward::RulesOff::NONE))
}

/// Runs until it is told to end.
pub(super) async fn run<S: Shards>(parts: Parts<S>, mut ways: Ways) {
    let mut early = Vec::new();
    let Some(members) = meet(&parts.manager, &mut ways.doors, &mut early).await else {
        return;
    };
    let now = (parts.clock)();
    let machine = node(&parts, now, members.clone()).expect("it was made once before");
    let Ways {
        doors,
        heard,
        tells,
        main,
        view,
        served,
    } = ways;
    lock(&view).members.clone_from(&members);
    let driver = Driver {
        me: parts.manager.node(),
        incarnation: parts.incarnation,
        joined: node::Shards::new(parts.shards.count()),
        shards: Arc::new(parts.shards),
        calls: parts.calls,
        clock: parts.clock,
        leases: parts.leases,
        steward: parts.steward,
        main,
        tells,
        view,
        served,
        tasks: JoinSet::new(),
        machine,
        seat: None,
        role: Role::Follows(None),
        members,
        look_at: now,
        near_at: now,
        orders: Orders::default(),
        catalog: Arc::default(),
        index: 0,
        has_catalog: false,
        found: BTreeMap::new(),
        opened: BTreeMap::new(),
        reports: Vec::new(),
        openings_told: BTreeMap::new(),
        silence: Silence::default(),
        manager: parts.manager,
    };
    let watch = driver.manager.watch();
    let ins = Ins {
        doors,
        heard,
        said: Some(parts.said),
        watch,
    };
    driver.live(early, ins).await;
}

/// Waits until it is known who the members are: a node that has just joined has to hear of them first. What is told meanwhile is kept.
async fn meet(
    manager: &Manager,
    doors: &mut mpsc::Receiver<Door>,
    early: &mut Vec<Door>,
) -> Option<Vec<NodeId>> {
    loop {
        let voters = manager.members().voters;
        if !voters.is_empty() {
            return Some(voters.into_iter().collect());
        }
        tokio::select! {
            // As many as this node has disks and shards; more than that are not taken before it can look at them.
            door = doors.recv(), if early.len() < 4_096 => match door {
                None | Some(Door::End) => return None,
                Some(door) => early.push(door),
            },
            () = sleep(LOOK) => {}
        }
    }
}

/// From where things come.
struct Ins {
    doors: mpsc::Receiver<Door>,
    heard: mpsc::Receiver<Heard>,
    /// `None`: the shards have ended.
    said: Option<mpsc::Receiver<Said>>,
    watch: Watch,
}

/// The next that a shard says; never, where they have ended.
async fn next_said(said: &mut Option<mpsc::Receiver<Said>>) -> Option<Said> {
    match said {
        Some(said) => said.recv().await,
        None => std::future::pending().await,
    }
}

impl<S: Shards> Driver<S> {
    async fn live(mut self, early: Vec<Door>, mut ins: Ins) {
        for door in early {
            self.on_door(door);
        }
        loop {
            self.turn();
            self.finish();
            let wait = self.deadline().since((self.clock)()).min(LOOK);
            tokio::select! {
                door = ins.doors.recv() => match door {
                    None => return,
                    Some(Door::End) => return self.give_back(ins).await,
                    Some(door) => self.on_door(door),
                },
                Some(heard) = ins.heard.recv() => self.on_heard(heard),
                said = next_said(&mut ins.said) => match said {
                    Some(said) => self.on_said(said),
                    None => ins.said = None,
                },
                news = ins.watch.next(), if !self.orders.is_full() => self.on_news(news),
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => self.on_done(done),
                () = sleep(wait) => {}
            }
        }
    }

    /// The shards have ended. Gives the lease back, so that nobody has to wait until it has run out, where a member answers soon.
    async fn give_back(&mut self, mut ins: Ins) {
        let now = self.turn();
        self.silence.shards_have_ended();
        self.step(now, node::Input::Lease(HolderInput::Stop));
        let give_up = now + GIVE_BACK;
        while !self.machine.has_stopped() {
            let now = self.turn();
            self.finish();
            if now >= give_up {
                return;
            }
            let wait = self.deadline().min(give_up).since(now);
            tokio::select! {
                Some(heard) = ins.heard.recv() => self.on_heard(heard),
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => self.on_done(done),
                () = sleep(wait) => {}
            }
        }
    }

    /// Begins a turn: the time, and first of all what has run out by then.
    fn turn(&mut self) -> Time {
        let now = (self.clock)();
        if self.machine.deadline() <= now {
            let mut out = Vec::new();
            self.machine.expire(now, &self.catalog, &mut out);
            self.take(now, out);
        }
        self.expire_seat(now);
        if self.look_at <= now {
            self.look_at = now + LOOK;
            self.look_at_members(now);
        }
        if self.near_at <= now {
            self.near_at = now + NEAR;
            self.keep_near();
        }
        now
    }

    /// Ends a turn: what may go to shards, stores and members goes.
    fn finish(&mut self) {
        while let Some(next) = self.orders.next() {
            match next {
                Next::Give(order) => self.give(order),
                Next::Begin(keep) => self.begin(keep),
            }
        }
        let reports = std::mem::take(&mut self.reports);
        for some in reports.chunks(message::REPORTS_MAX) {
            let body = message::reports(some);
            for to in self.members.clone() {
                self.tell(to, Service::Report, body.clone());
            }
        }
        lock(&self.view).orders_waiting = self.orders.waiting();
        if cfg!(debug_assertions) {
            self.machine.check();
            self.joined.check();
            self.check_seat();
        }
    }

    fn deadline(&self) -> Time {
        let seat = self.seat.as_ref().and_then(|seat| seat.machine.deadline());
        let own = self.machine.deadline().min(self.look_at);
        seat.map_or(own, |at| at.min(own))
    }

    fn on_door(&mut self, door: Door) {
        let now = self.turn();
        match door {
            Door::DiskFound { disk, kept } => {
                self.orders.found();
                self.found.insert(disk, kept);
                self.look_for_disks(now);
            }
            Door::End => {}
        }
    }

    fn link(&mut self, now: Time, shard: ShardNo, peer: NodeId, link: Reach) {
        for link in self.joined.linked(shard, peer, link) {
            self.step(now, node::Input::Link { peer, link });
        }
    }

    fn on_said(&mut self, said: Said) {
        let now = self.turn();
        let Said { shard, upto, what } = said;
        let joined = match what {
            What::Report(report) => return self.report(now, report),
            What::DiskFailed { disk } => {
                return self.step(now, node::Input::DiskFailed { disk });
            }
            // A client's wish is the host's to see to.
            What::Wanted { .. } => return,
            What::Waits { volume } => return self.step(now, node::Input::Waits { volume }),
            What::Link { node, link } => return self.link(now, shard, node, link),
            What::Drained { volume } => node::Said::Drained { volume },
            What::Cut { volume } => node::Said::Cut { volume },
            What::Settled { volume } => node::Said::Settled { volume },
        };
        let input = match self.joined.said(shard, upto, joined) {
            Some(node::Said::Drained { volume }) => node::Input::Drained { volume },
            Some(node::Said::Cut { volume }) => node::Input::Cut { volume },
            Some(node::Said::Settled { volume }) => node::Input::Settled { volume },
            None => return,
        };
        self.step(now, input);
    }

    fn on_heard(&mut self, heard: Heard) {
        let now = self.turn();
        match heard {
            Heard::Want(Want {
                volume,
                epoch,
                by,
                missed,
            }) => self.step(
                now,
                node::Input::Wanted {
                    volume,
                    epoch,
                    by,
                    missed,
                },
            ),
            Heard::Ask { ask, asker } => self.on_ask(now, ask, asker),
            Heard::Reports { from, reports } => self.on_reports(now, from, &reports),
        }
    }

    fn on_done(&mut self, done: Result<Done, JoinError>) {
        let now = self.turn();
        let done = match done {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The control plane's runtime is ending.
                Err(_) => return,
            },
        };
        match done {
            Done::Answered {
                from,
                request,
                answer,
            } => {
                if let Some(answer) = answer {
                    self.on_answer(now, from, request, answer);
                }
            }
            Done::Kept { keep, result } => self.on_kept(now, &keep, result),
            of_seat => self.on_seat_done(now, of_seat),
        }
    }

    fn on_answer(&mut self, now: Time, from: NodeId, request: u64, answered: Answered) {
        let Answered { term, answer } = answered;
        let refused = match answer {
            Answer::Refused { reason } => Some(reason),
            Answer::Granted { .. } => None,
            Answer::NotLeader { .. } | Answer::Released => lock(&self.view).refused,
        };
        let before = std::mem::replace(&mut lock(&self.view).refused, refused);
        match refused {
            Some(reason) if before != refused => {
                tracing::warn!(?reason, member = %from, "this node is refused its lease");
            }
            _ => {}
        }
        let input = HolderInput::Answer {
            from,
            incarnation: self.incarnation,
            request,
            term,
            answer,
        };
        self.step(now, node::Input::Lease(input));
    }

    fn on_news(&mut self, news: News) {
        let now = self.turn();
        match news {
            News::Snapshot { index, catalog } => {
                (self.index, self.catalog) = (index.0, catalog);
                if self.knows_itself() {
                    self.on_snapshot(now);
                }
            }
            News::Applied {
                index,
                command,
                result,
            } => self.on_applied(now, index, &command, result.is_ok()),
            News::Leads { term } => self.set_role(now, Role::Leads(term)),
            News::Follows { leader } => self.set_role(now, Role::Follows(leader)),
        }
        self.look_at_members(now);
    }

    /// Whether the catalog is that of a cluster with this node.
    fn knows_itself(&mut self) -> bool {
        self.has_catalog |= self.catalog.node(self.me).is_some();
        self.has_catalog
    }

    fn on_snapshot(&mut self, now: Time) {
        self.look_for_disks(now);
        self.step(now, node::Input::Snapshot);
        self.seat_snapshot(now);
        self.seat_applied(now);
    }

    fn on_applied(&mut self, now: Time, index: Index, command: &Command, was_taken: bool) {
        // The machines are told with the catalog as it is after this entry; the manager's may be further.
        let result = Arc::make_mut(&mut self.catalog).apply(command);
        self.index = index.0;
        assert_eq!(result.is_ok(), was_taken, "own-catalog");
        let events = result.unwrap_or_default();
        let had_catalog = self.has_catalog;
        if !self.knows_itself() {
            return;
        }
        if !had_catalog {
            return self.on_snapshot(now);
        }
        if !events.is_empty() {
            for event in &events {
                if let Event::VolumeForgotten { volume } = event {
                    self.orders.forget(*volume);
                }
            }
            self.look_for_disks(now);
            self.step(now, node::Input::Events(&events));
            self.seat_events(now, &events);
        }
        self.seat_applied(now);
    }

    /// Tells of disks that are not opened yet.
    fn look_for_disks(&mut self, now: Time) {
        if !self.has_catalog {
            return;
        }
        for (disk, kept) in self.found.clone() {
            let kept = Numbers {
                recorded: Incarnation(kept.recorded),
                last: Incarnation(kept.last),
            };
            self.step(now, node::Input::DiskFound { disk, kept });
        }
    }

    /// Looks who the members are, and whether this node is one.
    fn look_at_members(&mut self, now: Time) {
        let voters: Vec<NodeId> = self.manager.members().voters.into_iter().collect();
        if !voters.is_empty() && voters != self.members {
            self.members.clone_from(&voters);
            lock(&self.view).members.clone_from(&voters);
            let input = HolderInput::Members(voters);
            self.step(now, node::Input::Lease(input));
        }
        self.look_at_seat(now);
    }

    /// Has a connection to every member: after an election the next one is asked, and a handshake then would take from the lease what the election has left of it.
    fn keep_near(&mut self) {
        for to in self.members.clone() {
            let calls = self.calls.clone();
            self.tasks.spawn(async move {
                if let Err(error) = calls.connect(to, Service::Lease).await {
                    tracing::debug!(node = %to, "no connection for leases: {error}");
                }
                Done::Connected
            });
        }
    }

    pub fn step(&mut self, now: Time, input: node::Input<'_>) {
        let mut out = Vec::new();
        self.machine.step(now, input, &self.catalog, &mut out);
        self.take(now, out);
    }

    /// What the node's machine wants done.
    fn take(&mut self, now: Time, out: Vec<node::Output>) {
        for output in out {
            match output {
                node::Output::Order(order) => self.order(now, order),
                node::Output::Report(report) => self.report(now, report),
                node::Output::Ask { to, ask } => self.ask(now, to, ask),
                node::Output::Want {
                    to,
                    volume,
                    epoch,
                    by,
                    missed,
                } => {
                    let want = Want {
                        volume,
                        epoch,
                        by,
                        missed,
                    };
                    self.tell(to, Service::Node, message::want(&want));
                }
                node::Output::Open { disk, incarnation } => {
                    let kept = self.found.get(&disk).copied().unwrap_or_default();
                    let of = Openings {
                        last: incarnation.0,
                        ..kept
                    };
                    self.opened.insert(disk, of);
                    self.orders.keep(Keep::Opened { disk, of });
                }
                node::Output::Recorded { disk } => {
                    if let Some(of) = self.opened.get_mut(&disk) {
                        of.recorded = of.last;
                        let of = *of;
                        self.orders.keep(Keep::Recorded { disk, of });
                    }
                }
                node::Output::Layers { volume } => {
                    // Stores forget one that is being deleted, and must not hear of it again after that.
                    let of = self.catalog.volume(volume);
                    if let Some(of) = of.filter(|of| of.state != VolumeState::Deleting) {
                        self.orders.keep(Keep::Volume(door::meta(of)));
                    }
                }
            }
        }
    }

    fn report(&mut self, now: Time, report: Report) {
        let may_go = match report {
            Report::DiskOpened {
                disk, now: opening, ..
            } => self.orders.may_tell(disk) && self.is_to_be_told(now, disk, opening),
            _ => true,
        };
        if may_go {
            self.reports.push(report);
        }
    }

    /// Whether an opening, which the machine says every 100 ms, is told again. One that stands in the catalog is only for a leader that has not heard of it.
    fn is_to_be_told(&mut self, now: Time, disk: DiskId, opening: Incarnation) -> bool {
        let recorded = self.catalog.disk(disk).map(|disk| disk.incarnation);
        let told = self.openings_told.get(&disk).copied();
        let is_due = told.is_none_or(|told| now.since(told) >= TELL_AGAIN);
        if recorded == Some(opening) && !is_due {
            return false;
        }
        self.openings_told.insert(disk, now);
        true
    }

    /// Another member may lead, and has heard nothing of this node.
    pub(super) fn tell_openings_again(&mut self) {
        self.openings_told.clear();
    }

    fn ask(&mut self, now: Time, to: NodeId, ask: Ask) {
        if !self.silence.may_ask(now) {
            return;
        }
        let (calls, within) = (self.calls.clone(), self.leases.lease);
        // On this runtime: see the room's door.
        self.tasks.spawn(async move {
            let body = message::ask(&ask);
            let answer = calls.call(to, Service::Lease, body, within).await;
            let answer = answer.map_err(|error| error.to_string());
            let answer = answer.and_then(|answer| message::read_answered(&answer));
            if let Err(why) = &answer {
                tracing::debug!(node = %to, why, "no answer to an ask for a lease");
            }
            Done::Answered {
                from: to,
                request: ask.request,
                answer: answer.ok(),
            }
        });
    }

    fn tell(&mut self, to: NodeId, service: Service, body: Vec<u8>) {
        if self.tells.try_send(Told { to, service, body }).is_err() {
            lock(&self.view).words_dropped += 1;
        }
    }
}
