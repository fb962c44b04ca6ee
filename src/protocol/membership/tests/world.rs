//! A small world: members of a manager, nodes, a network that does what it likes, clocks, and the three properties.
//!
//! Raft is here only what matters to leases: a member that voted in a term confirms no leader of an earlier one, a majority
//! elects, and what a deposed leader proposes is not committed. Everything is drawn from the seed.

use super::super::*;
use crate::base::{NodeId, Prng, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000 * US;
/// When faults stop, and when the run ends.
const HEAL: u64 = 2_200 * MS;
const END: u64 = 3_200 * MS;

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    pub members: usize,
    pub holders: usize,
    pub parameters: Parameters,
    /// Of a message, one way, in nanoseconds.
    pub delay: (u64, u64),
    /// How late a machine is woken at most, in nanoseconds.
    pub lateness: u64,
    /// One in so many messages is lost, doubled, held back for long; 0: none.
    pub loss: u64,
    pub doubled: u64,
    pub held_back: u64,
    /// A fault comes every so often at most, in nanoseconds; 0: none.
    pub faults: u64,
    pub elections: bool,
    /// How long the manager is without a leader, in nanoseconds.
    pub gap: (u64, u64),
    /// Whether faults stop before the end.
    pub heals: bool,
    /// The rate of the first holder's clock, where the test sets it beyond the bound, in parts per million.
    pub bad_clock: Option<i64>,
    /// Everything arrives in time: nobody may be expired.
    pub calm: bool,
    pub rules: Rules,
}

impl Knobs {
    /// Everything that can go wrong does.
    pub fn wild(seed: u64, rules: Rules) -> Knobs {
        let mut prng = Prng::new(seed ^ 0x6d65_6d62);
        // A larger drift than real clocks have, in half of the runs: it makes what drift is about easy to see.
        let drift_ppm = [1_000, 10_000][prng.below(2) as usize];
        let renewal = Duration::from_millis(if drift_ppm > 1_000 { 90 } else { 100 });
        let delay = [
            (20 * US, 100 * US),
            (50 * US, 2 * MS),
            (MS, 15 * MS),
            (MS, 120 * MS),
        ];
        Knobs {
            members: [1, 3, 3, 3, 5][prng.below(5) as usize],
            holders: prng.between(1, 8) as usize,
            parameters: Parameters {
                drift_ppm,
                renewal,
                ..Parameters::DEFAULT
            },
            delay: delay[prng.below(4) as usize],
            lateness: [0, 50 * US, 3 * MS][prng.below(3) as usize],
            loss: [0, 0, 5, 30][prng.below(4) as usize],
            doubled: [0, 10][prng.below(2) as usize],
            held_back: [0, 20, 200][prng.below(3) as usize],
            faults: [0, 100 * MS, 400 * MS][prng.below(3) as usize],
            elections: !prng.one_in(4),
            gap: (150 * MS, 245 * MS),
            heals: true,
            bad_clock: None,
            calm: false,
            rules,
        }
    }

    /// Every round trip is in time; leaders die, and the next leads within `election`.
    pub fn calm(seed: u64, rules: Rules) -> Knobs {
        let wild = Knobs::wild(seed, rules);
        Knobs {
            // One member alone is away for as long as it is away.
            elections: wild.elections && wild.members > 1,
            delay: (20 * US, 200 * US),
            lateness: 50 * US,
            loss: 0,
            doubled: 10,
            held_back: 0,
            faults: 0,
            calm: true,
            parameters: Parameters::DEFAULT,
            ..wild
        }
    }
}

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
            let grantor = Grantor::new(
                clock.at(0),
                member_id(member),
                knobs.parameters,
                knobs.rules,
            );
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
            parameters, rules, ..
        } = self.knobs;
        let now = clock.at(self.now);
        let holder = Holder::new(now, node, incarnation, members, parameters, rules);
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

    fn elect(&mut self) {
        let count = self.members.len();
        let is_up = |i: &usize| {
            let member = &self.members[*i];
            member.dead_until <= self.now && member.alone_until <= self.now
        };
        let mut up: Vec<usize> = (0..count).filter(is_up).collect();
        if up.len() < count / 2 + 1 {
            return self.push(self.now + 20 * MS, Event::Elect);
        }
        // Who votes is any majority; who did not hears of it later.
        let winner = up.remove(self.prng.below(up.len() as u64) as usize);
        self.tally.elections += 1;
        self.term += 1;
        let term = self.term;
        let mut votes = 1;
        self.members[winner].voted = term;
        while votes < count / 2 + 1 {
            let voter = up.remove(self.prng.below(up.len() as u64) as usize);
            self.members[voter].voted = term;
            votes += 1;
            self.push(
                self.now,
                Event::Follow(voter, term, Some(member_id(winner))),
            );
        }
        let late = if self.knobs.calm { MS } else { 300 * MS };
        let is_follower = |i: &usize| *i != winner && self.members[*i].voted < term;
        for other in (0..count).filter(is_follower).collect::<Vec<_>>() {
            let at = self.now + self.prng.below(late);
            self.push(at, Event::Follow(other, term, Some(member_id(winner))));
        }
        self.push(self.now, Event::Lead(winner, term));
        if self.knobs.elections && !self.is_healed {
            let at = self.now + self.prng.between(450 * MS, 1_200 * MS);
            self.depose(winner, at);
        }
    }

    /// What becomes of a leader: it dies or is cut off, and the next is elected after a while.
    fn depose(&mut self, leader: usize, at: u64) {
        let gap = self.prng.between(self.knobs.gap.0, self.knobs.gap.1);
        let elected = at + gap;
        if elected >= HEAL {
            return;
        }
        let back = elected + self.prng.below(400 * MS);
        let event = match self.knobs.calm || self.prng.one_in(2) {
            true => Event::Die(leader, back),
            false => Event::CutOff(leader, back),
        };
        self.push(at, event);
        self.push(elected, Event::Elect);
    }

    fn fault(&mut self) {
        if self.is_healed {
            return;
        }
        let i = self.prng.below(self.processes.len() as u64) as usize;
        let until = self.now + self.prng.between(50 * MS, 900 * MS);
        let process = &mut self.processes[i];
        let node = process.node;
        match self.prng.below(6) {
            0 => process.stopped_until = until,
            1 => process.sends_from = until,
            2 => process.hears_from = until,
            3 if !process.is_old && process.is_running => {
                // Killed; or only stopped, and a later start comes beside it.
                match self.prng.one_in(2) {
                    true => process.is_running = false,
                    false => process.stopped_until = until,
                }
                self.restart_soon(node);
            }
            4 if process.is_running && process.stopped_until <= self.now && !process.is_old => {
                self.with_holder(i, |holder, now, out| {
                    holder.step(now, HolderInput::Stop, out);
                });
                self.restart_soon(node);
            }
            _ => (process.sends_from, process.hears_from) = (until, until),
        }
        let next = self.now + self.prng.between(MS, self.knobs.faults);
        self.push(next, Event::Fault);
    }

    fn restart_soon(&mut self, node: NodeId) {
        self.tally.restarts += 1;
        // So that nobody starts twice beside the one who waits.
        for process in self.processes.iter_mut().filter(|p| p.node == node) {
            process.is_old = true;
        }
        let at = self.now + self.prng.below(500 * MS);
        self.push(at, Event::Restart(node));
    }

    fn heal(&mut self) {
        if !self.knobs.heals {
            return;
        }
        self.is_healed = true;
        for process in &mut self.processes {
            (process.sends_from, process.hears_from) = (0, 0);
            process.stopped_until = process.stopped_until.min(self.now);
        }
        for i in 0..self.processes.len() {
            self.wake_later(To::Process(i));
        }
        for member in &mut self.members {
            (member.alone_until, member.dead_until) = (0, 0);
        }
        if !self.knobs.calm {
            self.elect();
        }
    }

    /// Work comes, is admitted under a lease, and takes its time.
    fn admit(&mut self, i: usize) {
        let process = &self.processes[i];
        if !process.is_running || process.holder.lease().is_none() && process.is_old {
            return;
        }
        let next = self.now + self.prng.between(5 * MS, 40 * MS);
        self.push(next, Event::Admit(i));
        let process = &self.processes[i];
        let serves = process.stopped_until <= self.now
            && process.holder.is_valid(process.clock.at(self.now));
        if let Some(lease) = process.holder.lease().filter(|_| serves) {
            let work = self.prng.between(100 * US, 30 * MS);
            self.push(self.now + work, Event::Reply(i, lease));
        }
    }

    /// The value is in hand.
    fn reply(&mut self, i: usize, lease: LeaseNumber) {
        let process = &self.processes[i];
        if !process.is_running {
            return;
        }
        if process.stopped_until > self.now {
            let until = process.stopped_until;
            return self.push(until, Event::Reply(i, lease));
        }
        let is_mine = process.holder.lease() == Some(lease);
        let may = is_mine && process.holder.is_valid(process.clock.at(self.now));
        if self.knobs.rules.keep(Rule::CheckInHand) && !may {
            return;
        }
        self.tally.replies += 1;
        if self.is_expired(i, lease) && self.knobs.bad_clock.is_none() {
            let node = process.node;
            self.fail(format!(
                "never-two: node {node} replied under {lease:?}, which had expired"
            ));
        }
    }
}

fn member_id(i: usize) -> NodeId {
    NodeId(i as u32 + 1)
}
