//! The network of a cluster: one connection between any two nodes, as TCP has it, and what can become of it.
//!
//! What goes over one connection arrives in its order, once, or not at all: TCP loses nothing in the middle and doubles
//! nothing. So faults are told in these words:
//! - Where nothing passes ([`Block`]), or a connection fell silent, messages wait, and those behind them. After the patience of the links
//!   the connection is cut; if the way opens before that, they arrive.
//! - A frame with a wrong crc is not delivered, and cuts the connection.
//! - When a connection is cut, each end is told, each at its own time. What is in flight is lost, or arrives late on the old
//!   connection, or is sent again on the next, or both: a message arrives twice only so. Late means after the next
//!   connection is there, where that comes before the receiver is told that the old one is gone.
//! - Nodes connect again by themselves, with a new number, as soon as both are there and the way is open both ways.
//! - A node that crashes loses what was on its way to it; what it has sent may still arrive. One that is stopped gets everything
//!   when it wakes, as far as a socket holds it.
//!
//! Invariants: *in order*: the messages of one connection and way are delivered in the order of their sending. *of one life*: what
//! was sent to one life of a node is never delivered to the next. *bounded*: a way holds [`FLOW_MAX`] messages.
//!
//! It does not know what a message is. A node that speaks to itself does so elsewhere.

mod cut;
#[cfg(test)]
mod tests;

use super::coverage::{Fault, Tally};
use super::links::{Block, BlockId, Blocks, Links, chance};
use crate::base::{NodeId, Prng, Slab, Time};
use crate::sim::clock::Agenda;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Messages on their way from one node to another.
pub const FLOW_MAX: usize = 8192;
/// What a stopped node's sockets hold for it; what comes then waits on its way.
const HELD_MAX: usize = 1024;
/// Nodes of a network: what is due at once is bounded by their square and by what ways hold.
const NODES_MAX: usize = 64;
const DUE_MAX: usize = 1 << 20;
/// Twins of which one has arrived.
const TWINS_MAX: usize = 1024;
/// Who cannot connect tries again at least so late.
const RETRY_MIN: Duration = Duration::from_millis(5);

/// The number of a connection: a later one has a higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionNo(pub u64);

/// What a node sees of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<M> {
    /// A connection is there; what was sent before is not known to have arrived.
    Connected {
        at: NodeId,
        peer: NodeId,
        connection: ConnectionNo,
    },
    Deliver {
        from: NodeId,
        to: NodeId,
        connection: ConnectionNo,
        message: M,
    },
    /// That connection is gone. A newer one may be there already.
    ConnectionLost {
        at: NodeId,
        peer: NodeId,
        connection: ConnectionNo,
    },
}

impl<M> Event<M> {
    /// The node that sees it.
    pub fn at(&self) -> NodeId {
        match *self {
            Event::Connected { at, .. } | Event::ConnectionLost { at, .. } => at,
            Event::Deliver { to, .. } => to,
        }
    }
}

/// The way is full: the sender waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Two nodes, the lower first.
type Pair = (NodeId, NodeId);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    Up,
    /// Stopped: it hears nothing until it wakes.
    Stopped,
}

#[derive(Debug)]
struct Node<M> {
    state: State,
    life: u64,
    held: VecDeque<Event<M>>,
}

/// A message on its way.
#[derive(Debug)]
struct Frame<M> {
    message: M,
    at: Time,
    /// What made it slow.
    cause: Option<Fault>,
    is_corrupt: bool,
    /// The number that it shares with its copy on the connection before.
    twin: Option<u64>,
}

/// One way of a connection.
#[derive(Debug)]
struct Flow<M> {
    frames: VecDeque<Frame<M>>,
    /// Since when its first message cannot pass.
    stalled: Option<Time>,
    /// Since when nothing of what arrives can be acknowledged.
    unheard: Option<Time>,
    is_silent: bool,
    is_due: bool,
}

impl<M> Default for Flow<M> {
    fn default() -> Flow<M> {
        Flow {
            frames: VecDeque::new(),
            stalled: None,
            unheard: None,
            is_silent: false,
            is_due: false,
        }
    }
}

#[derive(Debug)]
struct Connection<M> {
    number: ConnectionNo,
    /// From the lower to the higher node, and back.
    flows: [Flow<M>; 2],
}

/// A message that is sent again on the next connection.
#[derive(Debug)]
struct Again<M> {
    from: NodeId,
    /// Of the sender: what it sent in another life is not sent again.
    life: u64,
    message: M,
    twin: Option<u64>,
}

/// What happens later.
#[derive(Debug)]
enum Due<M> {
    /// The first message of a way may arrive.
    Flow {
        pair: Pair,
        number: ConnectionNo,
        way: usize,
    },
    /// A message of a connection that was cut arrives.
    Late {
        event: Event<M>,
        life: u64,
        twin: Option<u64>,
    },
    /// A node is told that a connection is gone.
    Lost { event: Event<M>, life: u64 },
    /// A pair tries to connect.
    Connect { pair: Pair },
    /// It has.
    Open { pair: Pair },
}

/// The network between some nodes.
#[derive(Debug)]
pub struct Network<M> {
    seed: u64,
    prng: Prng,
    links: Links,
    blocks: Blocks,
    nodes: BTreeMap<NodeId, Node<M>>,
    connections: BTreeMap<Pair, Connection<M>>,
    /// Pairs that try to connect, each once.
    connecting: BTreeSet<Pair>,
    /// What is sent again when a pair has connected.
    again: BTreeMap<Pair, Vec<Again<M>>>,
    twins: BTreeSet<u64>,
    numbers: u64,
    agenda: Agenda,
    due: Slab<Due<M>>,
    ready: VecDeque<Event<M>>,
    pub tally: Tally,
}

fn pair(a: NodeId, b: NodeId) -> Pair {
    (a.min(b), a.max(b))
}

impl<M: Clone> Network<M> {
    /// A network of nodes that are all down.
    pub fn new(seed: u64, nodes: impl IntoIterator<Item = NodeId>, links: Links) -> Network<M> {
        let down = || Node {
            state: State::Down,
            life: 0,
            held: VecDeque::new(),
        };
        let nodes: BTreeMap<_, _> = nodes.into_iter().map(|node| (node, down())).collect();
        assert!(
            nodes.len() <= NODES_MAX,
            "a network has at most {NODES_MAX} nodes"
        );
        Network {
            seed,
            prng: Prng::new(seed ^ 0x6e65_7477_6f72_6b00),
            links,
            blocks: Blocks::default(),
            nodes,
            connections: BTreeMap::new(),
            connecting: BTreeSet::new(),
            again: BTreeMap::new(),
            twins: BTreeSet::new(),
            numbers: 0,
            agenda: Agenda::new(),
            due: Slab::new(DUE_MAX),
            ready: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    /// A node's process starts: it connects to all that are there.
    pub fn start(&mut self, now: Time, node: NodeId) {
        let it = self.node_mut(node);
        assert!(it.state == State::Down, "a node starts once");
        it.state = State::Up;
        it.life += 1;
        self.connect_to_all(now, node);
    }

    fn connect_to_all(&mut self, now: Time, node: NodeId) {
        let others = self
            .nodes
            .iter()
            .filter(|(other, it)| **other != node && it.state != State::Down);
        let others: Vec<NodeId> = others.map(|(other, _)| *other).collect();
        for other in others {
            self.connect(now, pair(node, other));
        }
    }

    /// Sends a message. Where there is no connection it is lost, which the sender is told by no more than `ConnectionLost`.
    pub fn send(&mut self, now: Time, from: NodeId, to: NodeId, message: M) -> Result<(), Full> {
        assert!(from != to, "what a node says to itself stays in it");
        if self.nodes[&from].state == State::Down || !self.connections.contains_key(&pair(from, to))
        {
            self.tally.both(Fault::Drop);
            return Ok(());
        }
        self.push(now, from, to, message, None)
    }

    fn push(
        &mut self,
        now: Time,
        from: NodeId,
        to: NodeId,
        message: M,
        twin: Option<u64>,
    ) -> Result<(), Full> {
        let pair = pair(from, to);
        let way = usize::from(from > to);
        let connection = self.connections.get_mut(&pair).expect("it was looked up");
        let number = connection.number;
        let flow = &mut connection.flows[way];
        if flow.frames.len() >= FLOW_MAX {
            return Err(Full);
        }
        let (took, cause) = self.links.draw(self.seed, (from, to), &mut self.prng);
        let is_corrupt = chance(&mut self.prng, self.links.corrupt_one_in);
        if chance(&mut self.prng, self.links.silent_one_in) {
            flow.is_silent = true;
        }
        if let Some(cause) = cause {
            self.tally.injected(cause);
        }
        if is_corrupt {
            self.tally.injected(Fault::Corrupt);
        }
        let last = flow.frames.back().map_or(now, |frame| frame.at);
        let at = (now + took).max(last);
        flow.frames.push_back(Frame {
            message,
            at,
            cause,
            is_corrupt,
            twin,
        });
        if !std::mem::replace(&mut flow.is_due, true) {
            self.put(at, Due::Flow { pair, number, way });
        }
        Ok(())
    }

    fn put(&mut self, when: Time, due: Due<M>) {
        let key = self.due.insert(due);
        let key = key.unwrap_or_else(|_| panic!("bounded: what is due at once"));
        self.agenda.put(when, key);
    }

    /// When something may happen next.
    pub fn next(&self) -> Option<Time> {
        match self.ready.is_empty() {
            true => self.agenda.next(),
            false => Some(Time(0)),
        }
    }

    /// The next thing that some node sees, by `now`.
    pub fn poll(&mut self, now: Time) -> Option<Event<M>> {
        while self.ready.is_empty() {
            let key = self.agenda.pop(now)?;
            let due = self.due.remove(key).expect("what is due was put there");
            self.on_due(now, due);
        }
        self.ready.pop_front()
    }

    fn on_due(&mut self, now: Time, due: Due<M>) {
        match due {
            Due::Flow { pair, number, way } => self.on_flow(now, pair, number, way),
            Due::Late { event, life, twin } => self.on_late(event, life, twin),
            Due::Lost { event, life } => {
                let node = &self.nodes[&event.at()];
                if node.life == life && node.state != State::Down {
                    self.hand(event);
                }
            }
            Due::Connect { pair } => self.on_connect(now, pair),
            Due::Open { pair } => self.on_open(now, pair),
        }
    }

    /// The first messages of a way arrive, as far as they are there and nothing is in their way.
    fn on_flow(&mut self, now: Time, pair: Pair, number: ConnectionNo, way: usize) {
        let (from, to) = if way == 0 { pair } else { (pair.1, pair.0) };
        let patience = Duration::from_micros(self.links.patience_us);
        let is_full = self.nodes[&to].held.len() >= HELD_MAX;
        let block = self.blocks.between(now, from, to);
        let is_unheard = self.blocks.between(now, to, from).is_some();
        let Some(connection) = self
            .connections
            .get_mut(&pair)
            .filter(|c| c.number == number)
        else {
            return; // It was cut.
        };
        let flow = &mut connection.flows[way];
        flow.is_due = false;
        if block.is_some() || flow.is_silent {
            if flow.stalled.is_none()
                && let Some(block) = block
            {
                self.tally.consumed(block);
            }
            let since = *flow.stalled.get_or_insert(now);
            return match now.since(since) >= patience {
                true => self.cut(now, pair),
                false => self.look_again(now, pair, number, way),
            };
        }
        flow.stalled = None;
        if is_full {
            return self.look_again(now, pair, number, way);
        }
        let Some(mut frame) = flow.frames.pop_front() else {
            return;
        };
        if std::mem::take(&mut frame.is_corrupt) {
            self.tally.consumed(Fault::Corrupt);
            flow.frames.push_front(frame);
            return self.cut(now, pair);
        }
        let unheard = is_unheard.then(|| *flow.unheard.get_or_insert(now));
        flow.unheard = unheard;
        if let Some(next) = flow.frames.front() {
            flow.is_due = true;
            let at = next.at.max(now);
            self.put(at, Due::Flow { pair, number, way });
        }
        if let Some(cause) = frame.cause {
            self.tally.consumed(cause);
        }
        self.deliver(from, to, number, frame.message, frame.twin);
        // What arrives cannot be acknowledged: the sender gives up.
        if unheard.is_some_and(|since| now.since(since) >= patience) {
            self.cut(now, pair);
        }
    }

    /// A message that cannot pass is tried again, as TCP does.
    fn look_again(&mut self, now: Time, pair: Pair, number: ConnectionNo, way: usize) {
        let later = Duration::from_micros(self.prng.between(1_000, 20_000));
        let connection = self.connections.get_mut(&pair).expect("it was looked up");
        connection.flows[way].is_due = true;
        self.put(now + later, Due::Flow { pair, number, way });
    }

    fn deliver(
        &mut self,
        from: NodeId,
        to: NodeId,
        connection: ConnectionNo,
        message: M,
        twin: Option<u64>,
    ) {
        if let Some(twin) = twin
            && !self.twins.insert(twin)
        {
            self.twins.remove(&twin);
            self.tally.consumed(Fault::Duplicate);
        }
        if self.twins.len() > TWINS_MAX {
            self.twins.pop_first();
        }
        self.hand(Event::Deliver {
            from,
            to,
            connection,
            message,
        });
    }

    /// Gives a node what it sees, or holds it for one that is stopped.
    fn hand(&mut self, event: Event<M>) {
        let node = self
            .nodes
            .get_mut(&event.at())
            .expect("a node of the network");
        match node.state {
            State::Up => self.ready.push_back(event),
            State::Stopped => node.held.push_back(event),
            State::Down => debug_assert!(false, "of one life: nothing is for a node that is down"),
        }
    }

    /// The messages of the way that has most of them.
    pub fn longest_flow(&self) -> usize {
        let flows = self.connections.values().flat_map(|of| &of.flows);
        flows.map(|flow| flow.frames.len()).max().unwrap_or(0)
    }

    /// Whether the two can speak to one another now.
    pub fn reaches(&self, now: Time, a: NodeId, b: NodeId) -> bool {
        let is_open = || {
            let open = |from, to| self.blocks.between(now, from, to).is_none();
            open(a, b) && open(b, a)
        };
        self.is_up(a) && self.is_up(b) && (a == b || is_open())
    }

    /// Whether a node runs: it is neither down nor stopped.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes
            .get(&node)
            .is_some_and(|node| node.state == State::Up)
    }

    /// Holds messages up, until it is lifted; `None` where there are too many blocks.
    pub fn block(&mut self, block: Block) -> Option<BlockId> {
        let fault = match block {
            Block::OneWay { .. } => Fault::OneWay,
            Block::Partition { .. } => Fault::Partition,
            Block::Flap { .. } => Fault::Flap,
        };
        let id = self.blocks.put(block)?;
        self.tally.injected(fault);
        Some(id)
    }

    /// Lets messages pass again; whether the block was there.
    pub fn lift(&mut self, id: BlockId) -> bool {
        self.blocks.lift(id)
    }

    /// From now on nothing new goes wrong, and no link is slow.
    pub fn heal(&mut self) {
        self.blocks.clear();
        self.links = Links {
            latency_us: self.links.latency_us,
            again_one_in: self.links.again_one_in,
            late_one_in: self.links.late_one_in,
            ..Links::CALM
        };
    }

    fn node_mut(&mut self, node: NodeId) -> &mut Node<M> {
        self.nodes.get_mut(&node).expect("a node of the network")
    }
}
