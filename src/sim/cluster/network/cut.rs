//! How connections end and begin, and nodes with them.

use super::{
    Again, Connection, ConnectionNo, Due, Event, Fault, Flow, Network, Pair, RETRY_MIN, State,
    chance,
};
use crate::base::{NodeId, Time};
use std::time::Duration;

impl<M: Clone> Network<M> {
    /// Cuts the connection between two nodes, if there is one.
    pub fn disconnect(&mut self, now: Time, a: NodeId, b: NodeId) {
        self.cut(now, super::pair(a, b));
    }

    /// Cuts a connection: tells both ends, decides what becomes of all that is in flight, and has them connect again.
    pub(super) fn cut(&mut self, now: Time, pair: Pair) {
        let Some(connection) = self.connections.remove(&pair) else {
            return;
        };
        let Connection { number, flows } = connection;
        for (way, flow) in flows.into_iter().enumerate() {
            let (from, to) = if way == 0 { pair } else { (pair.1, pair.0) };
            let told = now + self.up_to(2 * self.links.reconnect_us);
            self.end_of(now, (from, to), (number, told), flow);
            let it = &self.nodes[&to];
            if it.state != State::Down {
                let life = it.life;
                let event = Event::ConnectionLost {
                    at: to,
                    peer: from,
                    connection: number,
                };
                self.put(told, Due::Lost { event, life });
            }
        }
        self.connect(now, pair);
    }

    /// What becomes of the messages of one way, of which the receiver is told at `told` that it is gone.
    fn end_of(
        &mut self,
        now: Time,
        (from, to): (NodeId, NodeId),
        (connection, told): (ConnectionNo, Time),
        flow: Flow<M>,
    ) {
        let receiver = &self.nodes[&to];
        let is_open = self.blocks.between(now, from, to).is_none() && !flow.is_silent;
        let may_be_late = receiver.state != State::Down && is_open;
        let may_be_again = self.nodes[&from].state != State::Down;
        let (life, sender_life) = (receiver.life, self.nodes[&from].life);
        let mut at = now;
        for frame in flow.frames {
            let is_late =
                may_be_late && !frame.is_corrupt && chance(&mut self.prng, self.links.late_one_in);
            let is_again = may_be_again && chance(&mut self.prng, self.links.again_one_in);
            if !is_late && !is_again {
                self.tally.both(Fault::Drop);
            }
            let twin = (is_late && is_again).then(|| {
                self.tally.injected(Fault::Duplicate);
                self.numbers += 1;
                self.numbers
            });
            if is_again {
                let again = self.again.entry(super::pair(from, to)).or_default();
                again.push(Again {
                    from,
                    life: sender_life,
                    message: frame.message.clone(),
                    twin,
                });
            }
            if is_late {
                self.tally.injected(Fault::Reorder);
                let left = told.since(at).as_nanos() as u64;
                at = Time(at.0 + self.prng.below(left + 1));
                let message = frame.message;
                let event = Event::Deliver {
                    from,
                    to,
                    connection,
                    message,
                };
                self.put(at, Due::Late { event, life, twin });
            }
        }
    }

    pub(super) fn on_late(&mut self, event: Event<M>, life: u64, twin: Option<u64>) {
        let Event::Deliver {
            from,
            to,
            connection,
            message,
        } = event
        else {
            return debug_assert!(false, "only messages are late");
        };
        let node = &self.nodes[&to];
        if node.life != life || node.state == State::Down {
            return self.tally.both(Fault::Drop);
        }
        let newer = self.connections.get(&super::pair(from, to));
        if newer.is_some_and(|newer| newer.number > connection) {
            self.tally.consumed(Fault::Reorder);
        }
        self.deliver(from, to, connection, message, twin);
    }

    fn up_to(&mut self, us: u64) -> Duration {
        Duration::from_nanos(1 + self.prng.below(us * 1_000 + 1))
    }

    /// Has two nodes connect in a while, unless they are about to.
    pub(super) fn connect(&mut self, now: Time, pair: Pair) {
        if self.connecting.insert(pair) {
            let later = self.up_to(self.links.reconnect_us);
            self.put(now + later, Due::Connect { pair });
        }
    }

    pub(super) fn on_connect(&mut self, now: Time, pair: Pair) {
        let is_down = |node| self.nodes[&node].state == State::Down;
        if self.connections.contains_key(&pair) || is_down(pair.0) || is_down(pair.1) {
            // Whoever starts connects to all.
            self.connecting.remove(&pair);
            return;
        }
        if self.reaches(now, pair.0, pair.1) {
            let (took, _) = self.links.draw(self.seed, pair, &mut self.prng);
            return self.put(now + took, Due::Open { pair });
        }
        let later = RETRY_MIN + self.up_to(self.links.reconnect_us);
        self.put(now + later, Due::Connect { pair });
    }

    pub(super) fn on_open(&mut self, now: Time, pair: Pair) {
        if !self.reaches(now, pair.0, pair.1) {
            return self.on_connect(now, pair);
        }
        self.connecting.remove(&pair);
        self.numbers += 1;
        let connection = ConnectionNo(self.numbers);
        let flows = [Flow::default(), Flow::default()];
        let number = connection;
        self.connections.insert(pair, Connection { number, flows });
        for (at, peer) in [pair, (pair.1, pair.0)] {
            self.hand(Event::Connected {
                at,
                peer,
                connection,
            });
        }
        for again in self.again.remove(&pair).unwrap_or_default() {
            let Again {
                from,
                life,
                message,
                twin,
            } = again;
            let to = if from == pair.0 { pair.1 } else { pair.0 };
            let is_same = self.nodes[&from].life == life;
            if !is_same || self.push(now, from, to, message, twin).is_err() {
                self.tally.both(Fault::Drop);
            }
        }
    }

    /// A node's process ends, without a word.
    pub fn crash(&mut self, now: Time, node: NodeId) {
        let it = self.node_mut(node);
        if it.state == State::Down {
            return;
        }
        it.state = State::Down;
        let held = std::mem::take(&mut it.held).len();
        self.tally.injected(Fault::Crash);
        let is_its = |pair: &Pair| pair.0 == node || pair.1 == node;
        let pairs: Vec<Pair> = self.connections.keys().copied().filter(is_its).collect();
        let mut in_flight = held;
        for pair in pairs {
            let flows = &self.connections[&pair].flows;
            in_flight += flows.iter().map(|flow| flow.frames.len()).sum::<usize>();
            self.cut(now, pair);
        }
        if in_flight > 0 {
            self.tally.consumed(Fault::Crash);
        }
        // What it was about to see is lost with it.
        self.ready.retain(|event| event.at() != node);
    }

    /// The power of all nodes is cut.
    pub fn power_loss(&mut self, now: Time) {
        self.tally.both(Fault::PowerLoss);
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.crash(now, node);
        }
    }

    /// A node's process is stopped; whether it ran.
    pub fn pause(&mut self, node: NodeId) -> bool {
        let it = self.node_mut(node);
        let runs = it.state == State::Up;
        if runs {
            it.state = State::Stopped;
            // What it has not taken yet waits with what comes.
            let (its, others) = std::mem::take(&mut self.ready)
                .into_iter()
                .partition(|event| event.at() == node);
            (self.node_mut(node).held, self.ready) = (its, others);
            self.tally.injected(Fault::Pause);
        }
        runs
    }

    /// A node that was stopped wakes, and sees what came meanwhile.
    pub fn wake(&mut self, node: NodeId) {
        let it = self.node_mut(node);
        if it.state != State::Stopped {
            return;
        }
        it.state = State::Up;
        let held = std::mem::take(&mut it.held);
        if !held.is_empty() {
            self.tally.consumed(Fault::Pause);
        }
        self.ready.extend(held);
    }
}
