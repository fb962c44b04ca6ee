//! A small world: members of a manager, nodes, a network that does what it likes, clocks, and the three properties.
//!
//! Raft is here only what matters to leases: a member that voted in a term confirms no leader of an earlier one, a majority
//! elects, and what a deposed leader proposes is not committed. Everything is drawn from the seed.

mod faults;
mod knobs;

pub use knobs::Knobs;

use super::super::*;
use crate::base::{NodeId, Prng, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000 * US;
/// When faults stop, and when the run ends.
const HEAL: u64 = 2_200 * MS;
const END: u64 = 3_200 * MS;

/// A clock that began at some time and runs at a rate of its own.
#[derive(Debug, Clone, Copy)]
struct Clock {
    offset: u64,
    ppm: i64,
}

impl Clock {
    fn at(self, t: u64) -> Time {
        let off = i128::from(t) * i128::from(self.ppm) / 1_000_000;
        Time((i128::from(self.offset) + i128::from(t) + off) as u64)
    }

    /// The first true time at which the clock shows at least this.
    fn when(self, shown: Time) -> u64 {
        let run = i128::from(shown.0) - i128::from(self.offset);
        let guess = run * 1_000_000 / (1_000_000 + i128::from(self.ppm));
        let mut t = (guess.max(2) - 2) as u64;
        while self.at(t) < shown {
            t += 1;
        }
        t
    }
}

/// One start of a node.
struct Process {
    node: NodeId,
    holder: Holder,
    clock: Clock,
    is_running: bool,
    /// A later start of the node exists.
    is_old: bool,
    stopped_until: u64,
    sends_from: u64,
    hears_from: u64,
    wake_at: u64,
}

struct Member {
    grantor: Grantor,
    clock: Clock,
    /// The newest term it voted or confirmed in.
    voted: u64,
    /// Cut off from the other members until then; from everybody.
    alone_until: u64,
    dead_until: u64,
    wake_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Process(usize),
    Member(usize),
}

#[derive(Debug, Clone)]
enum Event {
    Wake(To),
    Ask(usize, Ask),
    Answer(usize, NodeId, Incarnation, (u64, Term), Answer),
    AskConfirm(usize, usize, u64, u64),
    Confirm(usize, usize, u64, u64),
    Elect,
    /// A member neither hears nor speaks until then.
    Die(usize, u64),
    /// A member hears no other member until then, while nodes still reach it.
    CutOff(usize, u64),
    Lead(usize, u64),
    Follow(usize, u64, Option<NodeId>),
    Commit(usize, u64, NodeId, Incarnation),
    Recorded(usize, NodeId),
    Fault,
    Restart(NodeId),
    Admit(usize),
    Reply(usize, LeaseNumber),
    Heal,
}

/// What a run came to, so that a test can see that it was worth something.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub steps: u64,
    pub held: u64,
    pub extended: u64,
    pub fenced: u64,
    pub expired: u64,
    pub replies: u64,
    pub elections: u64,
    pub restarts: u64,
    pub bad_clocks: u64,
}

pub struct World {
    knobs: Knobs,
    prng: Prng,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    serial: u64,
    members: Vec<Member>,
    processes: Vec<Process>,
    /// The catalog: the newest recorded incarnation.
    recorded: BTreeMap<NodeId, Incarnation>,
    newest: BTreeMap<NodeId, Incarnation>,
    term: u64,
    acks: BTreeMap<(usize, u64, u64), u32>,
    /// What was called expired: up to this incarnation and number.
    expired: BTreeMap<NodeId, (Incarnation, LeaseNumber)>,
    is_healed: bool,
    /// Since when the bad clock is known to be bad.
    pub bad_clock_found: Option<u64>,
    pub tally: Tally,
    broken: Option<String>,
}

impl World {
    pub fn new(seed: u64, knobs: Knobs) -> World {
        let mut world = World {
            knobs,
            prng: Prng::new(seed),
            now: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            serial: 0,
            members: Vec::new(),
            processes: Vec::new(),
            recorded: BTreeMap::new(),
            newest: BTreeMap::new(),
            term: 0,
            acks: BTreeMap::new(),
            expired: BTreeMap::new(),
            is_healed: false,
            bad_clock_found: None,
            tally: Tally::default(),
            broken: None,
        };
        for member in 0..knobs.members {
            let clock = world.clock();
            let grantor = Grantor::new(clock.at(0), member_id(member), knobs.parameters, knobs.off);
            world.members.push(Member {
                grantor: grantor.expect("the parameters fit"),
                clock,
                voted: 0,
                alone_until: 0,
                dead_until: 0,
                wake_at: u64::MAX,
            });
        }
        for node in 0..knobs.holders {
            let node = NodeId(100 + node as u32);
            world.recorded.insert(node, Incarnation(0));
            for member in 0..knobs.members {
                world.tell_node(member, node);
            }
            world.start(node);
        }
        world.push(0, Event::Elect);
        world.push(HEAL, Event::Heal);
        if knobs.faults > 0 {
            let first = world.prng.below(600 * MS);
            world.push(first, Event::Fault);
        }
        world
    }

    /// Runs the whole story; what was broken, if anything.
    pub fn run(&mut self) -> Result<(), String> {
        while let Some(Reverse((at, _, place))) = self.queue.pop() {
            let event = self.events[place]
                .take()
                .expect("an event that was put there");
            self.free.push(place);
            if at > END || self.broken.is_some() {
                break;
            }
            self.now = at;
            self.on_event(event);
        }
        match self.broken.take() {
            Some(broken) => Err(broken),
            None if self.knobs.bad_clock.is_some() => Ok(()),
            None => self.everybody_came_back(),
        }
    }

    fn everybody_came_back(&self) -> Result<(), String> {
        for process in &self.processes {
            let runs = process.is_running && !process.is_old;
            if runs && !process.holder.is_valid(process.clock.at(END)) {
                return Err(format!("comes-back: node {} did not", process.node));
            }
        }
        Ok(())
    }

    fn fail(&mut self, what: String) {
        let at = self.now / US;
        self.broken.get_or_insert(format!("{at} us: {what}"));
    }

    fn clock(&mut self) -> Clock {
        let bound = i64::from(self.knobs.parameters.drift_ppm);
        let ppm = match self.prng.below(4) {
            0 => -bound,
            1 => bound,
            _ => self.prng.between(0, 2 * bound as u64) as i64 - bound,
        };
        Clock {
            offset: self.prng.between(1, 1 << 50),
            ppm,
        }
    }

    fn push(&mut self, at: u64, event: Event) {
        self.serial += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                self.events.len() - 1
            }
        };
        self.queue.push(Reverse((at, self.serial, place)));
    }

    /// A message through the network.
    fn send(&mut self, event: Event) {
        let knobs = self.knobs;
        if !self.is_healed && knobs.loss > 0 && self.prng.one_in(knobs.loss) {
            return;
        }
        let mut times = 1;
        if knobs.doubled > 0 && self.prng.one_in(knobs.doubled) {
            times = 2;
        }
        for _ in 0..times {
            let (least, most) = match self.is_healed {
                true => (20 * US, 200 * US),
                false => knobs.delay,
            };
            let mut delay = self.prng.between(least, most);
            if !self.is_healed && knobs.held_back > 0 && self.prng.one_in(knobs.held_back) {
                delay += self.prng.below(600 * MS);
            }
            self.push(self.now + delay, event.clone());
        }
    }

    fn start(&mut self, node: NodeId) {
        let incarnation = self.newest.entry(node).or_default();
        incarnation.0 += 1;
        let incarnation = *incarnation;
        let mut clock = self.clock();
        if let Some(ppm) = self.knobs.bad_clock.filter(|_| node == NodeId(100)) {
            clock.ppm = ppm;
        }
        for old in self.processes.iter_mut().filter(|old| old.node == node) {
            old.is_old = true;
        }
        let members = (0..self.knobs.members).map(member_id).collect();
        let Knobs {
            parameters, off, ..
        } = self.knobs;
        let now = clock.at(self.now);
        let holder = Holder::new(now, node, incarnation, members, parameters, off);
        self.processes.push(Process {
            node,
            holder: holder.expect("the parameters fit"),
            clock,
            is_running: true,
            is_old: false,
            stopped_until: 0,
            sends_from: 0,
            hears_from: 0,
            wake_at: u64::MAX,
        });
        let process = self.processes.len() - 1;
        self.wake_later(To::Process(process));
        self.push(self.now + MS, Event::Admit(process));
    }

    fn wake_later(&mut self, to: To) {
        let (deadline, clock, wake_at) = match to {
            To::Process(i) => {
                let process = &self.processes[i];
                (process.holder.deadline(), process.clock, process.wake_at)
            }
            To::Member(i) => {
                let member = &self.members[i];
                (member.grantor.deadline(), member.clock, member.wake_at)
            }
        };
        let Some(deadline) = deadline else {
            return;
        };
        let at = clock.when(deadline).max(self.now) + self.prng.below(self.knobs.lateness + 1);
        if at >= wake_at {
            return;
        }
        match to {
            To::Process(i) => self.processes[i].wake_at = at,
            To::Member(i) => self.members[i].wake_at = at,
        }
        self.push(at, Event::Wake(to));
    }

    fn on_event(&mut self, event: Event) {
        self.tally.steps += 1;
        let now = self.now;
        match event {
            Event::Wake(To::Process(i)) => self.wake_process(i),
            Event::Wake(To::Member(i)) => {
                self.members[i].wake_at = u64::MAX;
                let due = self.members[i].clock.at(now);
                if self.members[i]
                    .grantor
                    .deadline()
                    .is_some_and(|at| at <= due)
                {
                    self.with_grantor(i, |grantor, now, out| grantor.expire(now, out));
                }
                self.wake_later(To::Member(i));
            }
            Event::Ask(i, ask) if self.members[i].dead_until <= now => {
                self.step_grantor(i, GrantorInput::Ask(ask))
            }
            Event::Answer(i, from, incarnation, (request, term), answer) => {
                let process = &self.processes[i];
                if process.is_running && process.stopped_until > now {
                    let until = process.stopped_until + self.prng.below(MS);
                    return self.push(until, event);
                }
                if process.is_running && process.hears_from <= now {
                    let input = HolderInput::Answer {
                        from,
                        incarnation,
                        request,
                        term,
                        answer,
                    };
                    self.with_holder(i, |holder, now, out| holder.step(now, input, out));
                }
            }
            Event::AskConfirm(by, i, term, up_to) if self.members_speak(by, i) => {
                if self.members[i].voted <= term {
                    self.members[i].voted = term;
                    self.send(Event::Confirm(i, by, term, up_to));
                }
            }
            Event::Confirm(by, i, term, up_to) if self.members_speak(by, i) => {
                self.confirm(by, i, term, up_to)
            }
            Event::Elect => self.elect(),
            Event::Die(i, until) => self.members[i].dead_until = until,
            Event::CutOff(i, until) => self.members[i].alone_until = until,
            Event::Lead(i, term) if self.members[i].voted == term => {
                let nodes: Vec<NodeId> = self.recorded.keys().copied().collect();
                nodes.into_iter().for_each(|node| self.tell_node(i, node));
                self.step_grantor(i, GrantorInput::Lead { term: Term(term) });
            }
            Event::Follow(i, term, leader) if self.members[i].voted <= term => {
                self.members[i].voted = term;
                self.step_grantor(i, GrantorInput::Follow { leader });
            }
            Event::Commit(i, term, node, incarnation) if term == self.term => {
                let newest = self.recorded.entry(node).or_default();
                *newest = incarnation.max(*newest);
                self.tell_node(i, node);
                for other in (0..self.members.len()).filter(|other| *other != i) {
                    self.push(now + 5 * MS, Event::Recorded(other, node));
                }
            }
            Event::Recorded(i, node) => self.tell_node(i, node),
            Event::Fault => self.fault(),
            Event::Restart(node) => self.start(node),
            Event::Admit(i) => self.admit(i),
            Event::Reply(i, lease) => self.reply(i, lease),
            Event::Heal => self.heal(),
            // To one who is dead or cut off, or of a term that is past.
            Event::Ask(..) | Event::AskConfirm(..) | Event::Confirm(..) => {}
            Event::Lead(..) | Event::Follow(..) | Event::Commit(..) => {}
        }
    }

    fn wake_process(&mut self, i: usize) {
        let process = &mut self.processes[i];
        process.wake_at = u64::MAX;
        if !process.is_running {
            return;
        }
        if process.stopped_until > self.now {
            let until = process.stopped_until;
            process.wake_at = until;
            return self.push(until, Event::Wake(To::Process(i)));
        }
        let now = process.clock.at(self.now);
        if process.holder.deadline().is_some_and(|at| at <= now) {
            self.with_holder(i, |holder, now, out| holder.expire(now, out));
        }
        self.wake_later(To::Process(i));
    }

    fn members_speak(&self, a: usize, b: usize) -> bool {
        let is_up = |i: usize| self.members[i].dead_until <= self.now;
        let is_together = |i: usize| self.members[i].alone_until <= self.now;
        is_up(a) && is_up(b) && (a == b || is_together(a) && is_together(b))
    }

    fn tell_node(&mut self, member: usize, node: NodeId) {
        let incarnation = self.recorded[&node];
        self.step_grantor(member, GrantorInput::Node { node, incarnation });
    }

    fn step_grantor(&mut self, i: usize, input: GrantorInput) {
        self.with_grantor(i, |grantor, now, out| grantor.step(now, input, out));
        self.wake_later(To::Member(i));
    }

    fn with_grantor(
        &mut self,
        i: usize,
        act: impl FnOnce(&mut Grantor, Time, &mut Vec<GrantorOutput>),
    ) {
        let mut out = Vec::new();
        let member = &mut self.members[i];
        act(&mut member.grantor, member.clock.at(self.now), &mut out);
        if let Err(name) = member.grantor.check() {
            self.fail(format!("grantor: {name}"));
        }
        for output in out {
            self.on_grantor_output(i, output);
        }
    }

    fn on_grantor_output(&mut self, i: usize, output: GrantorOutput) {
        match output {
            GrantorOutput::Answer {
                to,
                incarnation,
                request,
                term,
                answer,
            } => {
                for process in 0..self.processes.len() {
                    if self.processes[process].node == to && self.processes[process].is_running {
                        let from = member_id(i);
                        self.send(Event::Answer(
                            process,
                            from,
                            incarnation,
                            (request, term),
                            answer,
                        ));
                    }
                }
            }
            GrantorOutput::Confirm { term, up_to } => {
                for other in 0..self.members.len() {
                    match other == i {
                        true => self.push(self.now, Event::AskConfirm(i, i, term.0, up_to)),
                        false => self.send(Event::AskConfirm(i, other, term.0, up_to)),
                    }
                }
            }
            GrantorOutput::Record { node, incarnation } => {
                let term = self.members[i].voted;
                self.send(Event::Commit(i, term, node, incarnation));
            }
            GrantorOutput::Expired {
                node,
                incarnation,
                lease,
                why,
            } => self.on_expired(node, incarnation, lease, why),
            GrantorOutput::ClockOutOfBounds { node } => {
                self.tally.bad_clocks += 1;
                if self.knobs.bad_clock.is_none() || node != NodeId(100) {
                    self.fail(format!("the clock of node {node} is sound"));
                }
                self.bad_clock_found.get_or_insert(self.now);
            }
            GrantorOutput::OwnClockOutOfBounds => self.fail("the leader's clock is sound".into()),
            GrantorOutput::Live { .. } | GrantorOutput::ClockInBounds { .. } => {}
            GrantorOutput::Verdict(_) | GrantorOutput::Full { .. } => {}
        }
    }

    /// never-two, as the grantor speaks.
    fn on_expired(&mut self, node: NodeId, incarnation: Incarnation, lease: LeaseNumber, why: End) {
        self.tally.expired += 1;
        let known = self.expired.entry(node).or_default();
        *known = (known.0.max(incarnation), known.1.max(lease));
        for i in 0..self.processes.len() {
            let process = &self.processes[i];
            if process.node == node && process.is_running {
                self.check_belief(i, "as it was called expired");
            }
        }
        let runs = |process: &Process| process.node == node && process.is_running;
        if self.knobs.calm && why != End::Released && self.processes.iter().any(runs) {
            self.fail(format!("no-false-expiry: node {node}, {why:?}"));
        }
    }

    /// never-two: this process does not believe in what was called expired.
    fn check_belief(&mut self, i: usize, when: &str) {
        let process = &self.processes[i];
        let is_sound = self.knobs.bad_clock.is_none() || process.node != NodeId(100);
        let Some(lease) = process.holder.lease() else {
            return;
        };
        let believes = process.holder.is_valid(process.clock.at(self.now));
        let node = process.node;
        if believes && self.is_expired(i, lease) && (is_sound || self.bad_clock_found.is_some()) {
            self.fail(format!(
                "never-two: node {node} believes in {lease:?} {when}"
            ));
        }
    }

    fn is_expired(&self, i: usize, lease: LeaseNumber) -> bool {
        let process = &self.processes[i];
        let expired = self.expired.get(&process.node);
        expired.is_some_and(|(incarnation, last)| {
            process.holder.incarnation() <= *incarnation && lease <= *last
        })
    }

    fn with_holder(
        &mut self,
        i: usize,
        act: impl FnOnce(&mut Holder, Time, &mut Vec<HolderOutput>),
    ) {
        let mut out = Vec::new();
        let process = &mut self.processes[i];
        act(&mut process.holder, process.clock.at(self.now), &mut out);
        if let Err(name) = process.holder.check() {
            self.fail(format!("holder: {name}"));
        }
        for output in out {
            match output {
                HolderOutput::Send { to, ask } => {
                    let member = to.0 as usize - 1;
                    if self.processes[i].sends_from <= self.now {
                        self.send(Event::Ask(member, ask));
                    }
                }
                HolderOutput::Held { .. } => {
                    self.tally.held += 1;
                    self.check_one_start(i);
                    self.check_belief(i, "that it was granted");
                }
                HolderOutput::Extended { .. } => {
                    self.tally.extended += 1;
                    self.check_belief(i, "that was extended");
                }
                HolderOutput::Fenced { lease, why } => {
                    self.tally.fenced += 1;
                    if self.knobs.calm && why != Loss::Stopped {
                        self.fail(format!("no-false-expiry: {lease:?} fenced, {why:?}"));
                    }
                }
                HolderOutput::Stopped { .. } => self.processes[i].is_running = false,
                HolderOutput::Refused { .. } => {}
            }
        }
        self.wake_later(To::Process(i));
    }

    /// Two starts of a node never believe at once.
    fn check_one_start(&mut self, i: usize) {
        let mine = &self.processes[i];
        let believes = |other: &Process| {
            other.is_running
                && other.node == mine.node
                && other.holder.incarnation() != mine.holder.incarnation()
                && other.holder.is_valid(other.clock.at(self.now))
        };
        if self.processes.iter().any(believes) {
            self.fail(format!(
                "never-two: two starts of node {}",
                self.processes[i].node
            ));
        }
    }

    fn confirm(&mut self, by: usize, i: usize, term: u64, up_to: u64) {
        let mask = self.acks.entry((i, term, up_to)).or_default();
        let before = mask.count_ones() as usize;
        *mask |= 1 << by;
        let majority = self.members.len() / 2 + 1;
        if before < majority && mask.count_ones() as usize >= majority {
            let term = Term(term);
            self.step_grantor(i, GrantorInput::Confirmed { term, up_to });
        }
    }
}

fn member_id(i: usize) -> NodeId {
    NodeId(i as u32 + 1)
}
