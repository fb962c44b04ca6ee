//! The leases of a site: the shipped grantor, a shipped holder on each node, links that lose nothing and always take as long.
//!
//! Nothing here drifts. What the grantor says of leases and accusations is handed on; answers and rounds of confirmation are carried
//! and counted.

use crate::base::{NodeId, Time};
use crate::protocol::membership::{
    Answer, Ask, Grantor, GrantorInput, GrantorOutput, Holder, HolderInput, HolderOutput,
    Incarnation, Parameters, RulesOff, Term,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// One way between two nodes.
const LINK: Duration = Duration::from_micros(100);
/// From `Confirm` to `Confirmed`: there, a step, and back.
const ROUND: Duration = Duration::from_micros(200);
/// Members of the manager, which are the first nodes.
pub const MEMBERS: u32 = 5;
const LEADER: NodeId = NodeId(1);

/// What was said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub asks: u64,
    pub answers: u64,
    pub rounds: u64,
    /// Messages of rounds: to each follower and back.
    pub confirms: u64,
    pub accusations: u64,
    /// What the grantor was told and woken for.
    pub steps: u64,
}

impl Counts {
    pub fn messages(&self) -> u64 {
        self.asks + self.answers + self.confirms + self.accusations
    }
}

enum Due {
    /// A holder's deadline; one that is not the last that it named means nothing.
    Wake(NodeId, Time),
    ToGrantor(GrantorInput),
    ToHolder(NodeId, HolderInput),
}

/// See the [module](self).
pub struct Leases {
    now: Time,
    grantor: Grantor,
    holders: BTreeMap<NodeId, Holder>,
    /// When each holder wants to be woken.
    wakes: BTreeMap<NodeId, Time>,
    /// By when, and in the order in which they were put there.
    queue: BTreeMap<(Time, u64), Due>,
    next: u64,
    pub counts: Counts,
    clock: fn() -> Duration,
    /// The time that the grantor took.
    pub work: Duration,
    /// What it said of leases and accusations.
    pub said: Vec<(Time, GrantorOutput)>,
}

impl Leases {
    /// All nodes start within one renewal, one after the other.
    pub fn new(nodes: u32, clock: fn() -> Duration) -> Leases {
        let now = Time(1);
        let grantor = Grantor::new(now, LEADER, Parameters::DEFAULT, RulesOff::NONE);
        let mut leases = Leases {
            now,
            grantor: grantor.expect("the parameters are sound"),
            holders: BTreeMap::new(),
            wakes: BTreeMap::new(),
            queue: BTreeMap::new(),
            next: 0,
            counts: Counts::default(),
            clock,
            work: Duration::ZERO,
            said: Vec::new(),
        };
        for node in (1..=nodes).map(NodeId) {
            let incarnation = Incarnation(1);
            leases.grant(GrantorInput::Node { node, incarnation });
        }
        leases.grant(GrantorInput::Lead { term: Term(1) });
        let members: Vec<NodeId> = (1..=MEMBERS.min(nodes)).map(NodeId).collect();
        for node in 1..=nodes {
            let spread = Parameters::DEFAULT.renewal * node / nodes;
            let (began, node) = (now + spread, NodeId(node));
            let holder = Holder::new(
                began,
                node,
                Incarnation(1),
                members.clone(),
                Parameters::DEFAULT,
                RulesOff::NONE,
            );
            leases
                .holders
                .insert(node, holder.expect("the parameters are sound"));
            leases.wake_at(node, began);
        }
        leases
    }

    pub fn now(&self) -> Time {
        self.now
    }

    /// Counts from here on.
    pub fn start_over(&mut self) {
        self.counts = Counts::default();
        self.work = Duration::ZERO;
        self.said.clear();
    }

    /// A node is gone without a word.
    pub fn lose(&mut self, node: NodeId) {
        self.holders.remove(&node);
    }

    /// A node will say, at that time, that another does not answer.
    pub fn accuse(&mut self, at: Time, by: NodeId, accused: NodeId) {
        self.counts.accusations += 1;
        self.put(
            at + LINK,
            Due::ToGrantor(GrantorInput::Accuse { by, accused }),
        );
    }

    fn put(&mut self, at: Time, due: Due) {
        self.next += 1;
        self.queue.insert((at, self.next), due);
    }

    /// Lets time pass until `end`.
    pub fn run(&mut self, end: Time) {
        loop {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let next = queued.into_iter().chain(self.grantor.deadline()).min();
            let Some(at) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            if self.grantor.deadline().is_some_and(|due| due <= self.now) {
                let mut out = Vec::new();
                self.timed(|grantor, now| grantor.expire(now, &mut out));
                self.take_grantor(out);
            } else if let Some((_, due)) = self.queue.pop_first() {
                match due {
                    Due::Wake(node, at) if self.wakes.get(&node) == Some(&at) => self.wake(node),
                    Due::Wake(..) => {}
                    Due::ToGrantor(input) => self.grant(input),
                    Due::ToHolder(node, input) => self.hold(node, input),
                }
            }
        }
    }

    fn timed(&mut self, step: impl FnOnce(&mut Grantor, Time)) {
        self.counts.steps += 1;
        let began = (self.clock)();
        step(&mut self.grantor, self.now);
        self.work += (self.clock)() - began;
    }

    fn grant(&mut self, input: GrantorInput) {
        let mut out = Vec::new();
        self.timed(|grantor, now| grantor.step(now, input, &mut out));
        self.take_grantor(out);
    }

    fn take_grantor(&mut self, outputs: Vec<GrantorOutput>) {
        for output in outputs {
            match output {
                GrantorOutput::Answer {
                    to,
                    incarnation,
                    request,
                    term,
                    answer,
                } => {
                    self.counts.answers += 1;
                    let from = LEADER;
                    let input = HolderInput::Answer {
                        from,
                        incarnation,
                        request,
                        term,
                        answer,
                    };
                    self.put(self.now + LINK, Due::ToHolder(to, input));
                }
                GrantorOutput::Confirm { term, up_to } => {
                    self.counts.rounds += 1;
                    self.counts.confirms += 2 * u64::from(MEMBERS - 1);
                    let confirmed = GrantorInput::Confirmed { term, up_to };
                    self.put(self.now + ROUND, Due::ToGrantor(confirmed));
                }
                said => self.said.push((self.now, said)),
            }
        }
    }

    fn wake(&mut self, node: NodeId) {
        let mut out = Vec::new();
        self.wakes.remove(&node);
        let Some(holder) = self.holders.get_mut(&node) else {
            return;
        };
        if holder.deadline().is_some_and(|at| at <= self.now) {
            holder.expire(self.now, &mut out);
        }
        self.take_holder(node, out);
    }

    fn hold(&mut self, node: NodeId, input: HolderInput) {
        let mut out = Vec::new();
        let Some(holder) = self.holders.get_mut(&node) else {
            return;
        };
        holder.step(self.now, input, &mut out);
        self.take_holder(node, out);
    }

    fn take_holder(&mut self, node: NodeId, outputs: Vec<HolderOutput>) {
        for output in outputs {
            if let HolderOutput::Send { to, ask } = output {
                self.counts.asks += 1;
                if to != LEADER {
                    self.redirect(node, to, &ask);
                    continue;
                }
                self.put(self.now + LINK, Due::ToGrantor(GrantorInput::Ask(ask)));
            }
        }
        let deadline = self.holders.get(&node).and_then(Holder::deadline);
        if let Some(at) = deadline {
            self.wake_at(node, at.max(self.now));
        }
    }

    /// A member that follows says who leads: so it is as everybody starts, while a new leader waits.
    fn redirect(&mut self, node: NodeId, from: NodeId, ask: &Ask) {
        self.counts.answers += 1;
        let hint = Some(LEADER);
        let input = HolderInput::Answer {
            from,
            incarnation: ask.incarnation,
            request: ask.request,
            term: Term(0),
            answer: Answer::NotLeader { hint },
        };
        self.put(self.now + 2 * LINK, Due::ToHolder(node, input));
    }

    fn wake_at(&mut self, node: NodeId, at: Time) {
        if self.wakes.insert(node, at) != Some(at) {
            self.put(at, Due::Wake(node, at));
        }
    }
}
