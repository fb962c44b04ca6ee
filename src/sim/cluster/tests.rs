//! Whether the parts fit together: the leases of `membership` over network, log and clocks, under planned faults.
//!
//! A small driver with the duties that `membership` asks for. What it holds is *never-two* for sound clocks, and that
//! everybody comes back when faults stop.

use super::checkers::Failure;
use super::checkers::heals::{Ailment, Healing, Verdict};
use super::clocks::{Clocks, Drift};
use super::coverage::{Coverage, Fault};
use super::links::{Block, BlockId};
use super::log::{self, Log};
use super::network::{self, Network};
use super::plan::{Plan, Stroke};
use super::swarm::Knobs;
use crate::base::{NodeId, Prng, Time};
use crate::protocol::membership::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const STEP: Duration = Duration::from_micros(250);
/// A lease that was not extended before faults stopped runs out within this.
const SETTLES: Duration = Duration::from_millis(500);
const HEALS_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
enum Message {
    Ask(Ask),
    Answer {
        incarnation: Incarnation,
        request: u64,
        term: Term,
        answer: Answer,
    },
}

#[derive(Debug, Clone, Copy)]
struct Record(NodeId, Incarnation);

/// A process of a node.
struct Process {
    holder: Holder,
    grantor: Option<Grantor>,
}

/// What ends again.
enum End {
    Lift(BlockId),
    Start(NodeId),
    Wake(NodeId),
}

struct World {
    now: Time,
    nodes: Vec<NodeId>,
    members: Vec<NodeId>,
    network: Network<Message>,
    log: Log<Record>,
    clocks: Clocks,
    processes: BTreeMap<NodeId, Process>,
    starts: BTreeMap<NodeId, Incarnation>,
    catalog: BTreeMap<NodeId, Incarnation>,
    ends: Vec<(Time, End)>,
    expired: u32,
    off: RulesOff,
    broken: Option<String>,
}

impl World {
    fn new(seed: u64, knobs: &Knobs, off: RulesOff) -> World {
        let nodes: Vec<NodeId> = (1..=knobs.shape.nodes).map(NodeId).collect();
        let members = nodes[..knobs.shape.members as usize].to_vec();
        let of = |node: &NodeId| (*node, Incarnation(0));
        let mut world = World {
            now: Time(0),
            network: Network::new(seed, nodes.clone(), knobs.links),
            log: Log::new(seed, &members, &nodes, knobs.pace),
            clocks: Clocks::draw(
                nodes.clone(),
                Drift::Within,
                &Parameters::DEFAULT,
                Prng::new(seed),
            ),
            processes: BTreeMap::new(),
            starts: nodes.iter().map(of).collect(),
            catalog: nodes.iter().map(of).collect(),
            ends: Vec::new(),
            expired: 0,
            off,
            broken: None,
            members,
            nodes,
        };
        for node in world.nodes.clone() {
            world.start(node);
        }
        world
    }

    fn start(&mut self, node: NodeId) {
        let incarnation = self.starts.get_mut(&node).unwrap();
        incarnation.0 += 1;
        let now = self.clocks.at(node, self.now);
        let (parameters, off) = (Parameters::DEFAULT, self.off);
        let members = self.members.clone();
        let holder = Holder::new(now, node, *incarnation, members, parameters, off).unwrap();
        let is_member = self.members.contains(&node);
        let grantor = is_member.then(|| Grantor::new(now, node, parameters, off).unwrap());
        self.processes.insert(node, Process { holder, grantor });
        self.network.start(self.now, node);
        for other in self.nodes.clone() {
            let incarnation = Incarnation(0);
            let input = GrantorInput::Node {
                node: other,
                incarnation,
            };
            self.grantor(node, |grantor, now, out| grantor.step(now, input, out));
        }
    }

    fn crash(&mut self, node: NodeId) {
        if self.processes.remove(&node).is_some() {
            self.network.crash(self.now, node);
            self.log.down(self.now, node);
            self.clocks.reboot(self.now, node);
        }
    }

    fn strike(&mut self, stroke: Stroke) {
        let node = |n: u32| NodeId(n + 1);
        let block = match stroke {
            Stroke::Disconnect { nodes: (a, b) } => {
                return self.network.disconnect(self.now, node(a), node(b));
            }
            Stroke::Crash { node: n, lasts } => {
                if self.processes.contains_key(&node(n)) {
                    self.crash(node(n));
                    self.ends.push((self.now + lasts, End::Start(node(n))));
                }
                return;
            }
            Stroke::Pause { node: n, lasts } => {
                if self.network.pause(node(n)) {
                    self.ends.push((self.now + lasts, End::Wake(node(n))));
                }
                return;
            }
            Stroke::PowerLoss { lasts } => {
                self.network.power_loss(self.now);
                for node in self.nodes.clone() {
                    if self.processes.contains_key(&node) {
                        self.crash(node);
                        self.ends.push((self.now + lasts, End::Start(node)));
                    }
                }
                return;
            }
            Stroke::Depose => return self.log.depose(self.now),
            Stroke::OneWay {
                nodes: (a, b),
                lasts,
            } => (
                Block::OneWay {
                    from: node(a),
                    to: node(b),
                },
                lasts,
            ),
            Stroke::Partition { side, lasts } => {
                let is_in = |id: &&NodeId| side & 1 << (id.0 - 1) != 0;
                let side = self.nodes.iter().filter(is_in).copied().collect();
                (Block::Partition { side }, lasts)
            }
            Stroke::Flap {
                nodes: (a, b),
                period,
                lasts,
            } => (
                Block::Flap {
                    between: (node(a), node(b)),
                    since: self.now,
                    period,
                },
                lasts,
            ),
            // Disks have no part in this, and clocks are to be sound.
            _ => return,
        };
        if let Some(id) = self.network.block(block.0) {
            self.ends.push((self.now + block.1, End::Lift(id)));
        }
    }

    fn end(&mut self, all: bool) {
        let due = |(at, _): &mut (Time, End)| all || *at <= self.now;
        let ends: Vec<(Time, End)> = self.ends.extract_if(.., due).collect();
        for (_, end) in ends {
            match end {
                End::Lift(id) => drop(self.network.lift(id)),
                End::Start(node) => self.start(node),
                End::Wake(node) => self.network.wake(node),
            }
        }
    }

    /// One step of true time.
    fn pass(&mut self) {
        self.now = self.now + STEP;
        while let Some(event) = self.network.poll(self.now) {
            if let network::Event::Deliver {
                from, to, message, ..
            } = event
            {
                self.on_message(from, to, message);
            }
        }
        while let Some(event) = self.log.poll(self.now, &self.network) {
            self.on_log(event);
        }
        for node in self.nodes.clone() {
            if self.network.is_up(node) {
                self.holder(node, |holder, now, out| {
                    if holder.deadline().is_some_and(|at| at <= now) {
                        holder.expire(now, out);
                    }
                });
                self.grantor(node, |grantor, now, out| {
                    if grantor.deadline().is_some_and(|at| at <= now) {
                        grantor.expire(now, out);
                    }
                });
            }
        }
    }

    fn on_message(&mut self, from: NodeId, to: NodeId, message: Message) {
        match message {
            Message::Ask(ask) => {
                let input = GrantorInput::Ask(ask);
                self.grantor(to, |grantor, now, out| grantor.step(now, input, out));
            }
            Message::Answer {
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
                self.holder(to, |holder, now, out| holder.step(now, input, out));
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        match from == to {
            true => self.on_message(from, to, message),
            // A way that is full loses it here, as a driver may.
            false => drop(self.network.send(self.now, from, to, message)),
        }
    }

    fn on_log(&mut self, event: log::Event<Record>) {
        let (at, inputs) = match event {
            log::Event::Committed { command, .. } => {
                let Record(node, incarnation) = command;
                let of = self.catalog.get_mut(&node).unwrap();
                *of = incarnation.max(*of);
                return;
            }
            log::Event::Apply { at, command, .. } => {
                let Record(node, incarnation) = command;
                (at, vec![GrantorInput::Node { node, incarnation }])
            }
            log::Event::Snapshot { at, .. } => {
                let node = |(node, incarnation): (&NodeId, &Incarnation)| GrantorInput::Node {
                    node: *node,
                    incarnation: *incarnation,
                };
                (at, self.catalog.iter().map(node).collect())
            }
            log::Event::Lead { at, term } => (at, vec![GrantorInput::Lead { term: Term(term) }]),
            log::Event::Follow { at, leader, .. } => (at, vec![GrantorInput::Follow { leader }]),
            log::Event::Confirmed { at, term, up_to } => {
                let term = Term(term);
                (at, vec![GrantorInput::Confirmed { term, up_to }])
            }
            // Whoever waits for a record asks again.
            log::Event::Answered { .. } => return,
        };
        for input in inputs {
            self.grantor(at, |grantor, now, out| grantor.step(now, input, out));
        }
    }

    fn grantor(
        &mut self,
        at: NodeId,
        act: impl FnOnce(&mut Grantor, Time, &mut Vec<GrantorOutput>),
    ) {
        let mut out = Vec::new();
        let process = self.processes.get_mut(&at);
        let Some(grantor) = process.and_then(|process| process.grantor.as_mut()) else {
            return;
        };
        act(grantor, self.clocks.at(at, self.now), &mut out);
        for output in out {
            match output {
                GrantorOutput::Answer {
                    to,
                    incarnation,
                    request,
                    term,
                    answer,
                } => {
                    let message = Message::Answer {
                        incarnation,
                        request,
                        term,
                        answer,
                    };
                    self.send(at, to, message);
                }
                GrantorOutput::Confirm { term, up_to } => {
                    self.log.confirm(self.now, at, term.0, up_to);
                }
                GrantorOutput::Record { node, incarnation } => {
                    let _ = self.log.propose(self.now, at, Record(node, incarnation));
                }
                GrantorOutput::Expired {
                    node,
                    incarnation,
                    lease,
                    ..
                } => self.on_expired(node, incarnation, lease),
                GrantorOutput::ClockOutOfBounds { node } => {
                    self.fail(format!("the clock of node {node} is sound"));
                }
                GrantorOutput::OwnClockOutOfBounds => self.fail("the clocks are sound".to_owned()),
                _ => {}
            }
        }
    }

    fn holder(&mut self, at: NodeId, act: impl FnOnce(&mut Holder, Time, &mut Vec<HolderOutput>)) {
        let mut out = Vec::new();
        let Some(process) = self.processes.get_mut(&at) else {
            return;
        };
        act(&mut process.holder, self.clocks.at(at, self.now), &mut out);
        for output in out {
            if let HolderOutput::Send { to, ask } = output {
                self.send(at, to, Message::Ask(ask));
            }
        }
    }

    fn on_expired(&mut self, node: NodeId, incarnation: Incarnation, lease: LeaseNumber) {
        self.expired += 1;
        let Some(process) = self.processes.get(&node) else {
            return;
        };
        let holder = &process.holder;
        let is_it =
            holder.incarnation() <= incarnation && holder.lease().is_some_and(|of| of <= lease);
        if is_it && holder.is_valid(self.clocks.at(node, self.now)) {
            self.fail(format!(
                "never-two: node {node} believes in {lease:?}, which is expired"
            ));
        }
    }

    fn fail(&mut self, what: String) {
        let at = self.now;
        self.broken.get_or_insert_with(|| format!("{at:?}: {what}"));
    }

    fn ailments(&self) -> Vec<Ailment> {
        let holds = |node: &&NodeId| {
            let process = self.processes.get(node);
            process.is_none_or(|process| !process.holder.is_valid(self.clocks.at(**node, self.now)))
        };
        let mut ailments: Vec<Ailment> = self
            .nodes
            .iter()
            .filter(holds)
            .map(|node| Ailment::NoLease(*node))
            .collect();
        if self.log.leader().is_none() {
            ailments.push(Ailment::NoLeader);
        }
        ailments
    }

    fn heal(&mut self) {
        self.end(true);
        self.network.heal();
        self.clocks.heal(self.now);
    }
}

/// Runs a seed until faults stop; what was broken, if anything was.
fn storm(seed: u64, off: RulesOff) -> (World, Option<String>) {
    let knobs = Knobs::draw(seed);
    let plan = Plan::draw(seed, &knobs);
    let mut world = World::new(seed, &knobs, off);
    let mut strokes = plan.strokes.iter().peekable();
    let stop = Time(0) + knobs.length();
    while world.now < stop && world.broken.is_none() {
        while let Some(planned) = strokes.next_if(|planned| Time(0) + planned.at <= world.now) {
            world.strike(planned.stroke);
        }
        world.end(false);
        world.pass();
    }
    let broken = world.broken.take();
    (world, broken)
}

/// Runs a seed; how long it took to heal.
fn run(seed: u64, coverage: &mut Coverage) -> Result<Duration, Failure> {
    let (mut world, broken) = storm(seed, RulesOff::NONE);
    assert_eq!(broken, None, "seed {seed}");
    let stop = world.now;
    world.heal();
    let mut healing = Healing::new(stop, HEALS_WITHIN, SETTLES);
    let took = loop {
        world.pass();
        // Once all hold a lease, they keep it.
        if let Verdict::Healed { took } = healing.judge(world.now, &world.ailments())?
            && world.now >= stop + HEALS_WITHIN
        {
            break took;
        }
    };
    assert_eq!(world.broken, None, "seed {seed}");
    for tally in [&world.network.tally, &world.log.tally, &world.clocks.tally] {
        coverage.faults.add(tally);
    }
    if world.expired > 0 {
        coverage.branch("a lease expired");
    }
    Ok(took)
}

#[test]
fn leases_hold_over_these_parts_and_everybody_comes_back() {
    let mut coverage = Coverage::default();
    let mut unhealed = BTreeSet::new();
    for seed in 0..100 {
        if let Err(failure) = run(seed, &mut coverage) {
            unhealed.insert((seed, failure.to_string()));
        }
    }
    assert!(unhealed.is_empty(), "{unhealed:#?}");
    let wanted = [
        Fault::Drop,
        Fault::Reorder,
        Fault::Corrupt,
        Fault::SlowLink,
        Fault::Spike,
        Fault::OneWay,
        Fault::Partition,
        Fault::Flap,
        Fault::Crash,
        Fault::Pause,
        Fault::PowerLoss,
        Fault::ClockAtBound,
        Fault::LeaderChange,
        Fault::Snapshot,
    ];
    let missing = coverage.missing(&wanted, &["a lease expired"]);
    assert!(missing.is_empty(), "void: {missing:?}\n{coverage}");
}

/// With a driver that lets no two starts of a node run at once, and clocks within the bound, the other rules cannot be missed.
#[test]
fn rules_of_leases_that_are_switched_off_are_missed_over_these_parts() {
    for rule in [
        Rule::NewLeaderWaits,
        Rule::MajorityConfirms,
        Rule::ExpiryConfirmed,
        Rule::CountFromSend,
    ] {
        let mut seeds = 0..150;
        let is_missed = seeds.any(|seed| storm(seed, RulesOff::only(rule)).1.is_some());
        assert!(is_missed, "{} is not missed", rule.name());
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 17] {
        let once = || {
            let mut coverage = Coverage::default();
            let took = run(seed, &mut coverage);
            (took, coverage)
        };
        assert_eq!(once(), once());
    }
}
