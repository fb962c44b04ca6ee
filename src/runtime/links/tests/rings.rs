//! Links on real rings: two nodes in one process, over TCP and over unix sockets, and peers that are no nodes.

use super::frames::{DISK, PEER, contents, done, value, write};
use crate::base::{BLOCK, BlockRun, BufRef, Prng, Span, Time};
use crate::observe::{CUTS, LinkNumbers, Registry};
use crate::protocol::replication::{Answer, Change, Message};
use crate::runtime::links::limits::Limits;
use crate::runtime::links::{
    Cover, Door, Event, LinkError, LinkId, LinkUser, Outgoing, Refused, Why,
};
use crate::runtime::{Config, Runtime};
use crate::shard::ShardNo;
use crate::wire::{Credit, Frame, HEAD_LEN, Head, Version, decode, set_number};
use std::future::Future;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

pub(super) const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(future)
}

/// What a user tells the test.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// So many of his asks are answered.
    Answered(u64),
    Silent,
    /// Whether as much memory is held as before the link.
    Down {
        why: Why,
        is_balanced: bool,
    },
}

/// Answers like a replica, and asks as long as there is something to be asked.
struct Player {
    told: Sender<Told>,
    prng: Prng,
    depth: u64,
    asks: u64,
    asked: u64,
    answered: u64,
    holds: u64,
}

impl Player {
    fn new(depth: u64, asks: u64, told: Sender<Told>) -> Player {
        Player {
            told,
            prng: Prng::new(depth.wrapping_mul(31).wrapping_add(asks)),
            depth,
            asks,
            asked: 0,
            answered: 0,
            holds: 0,
        }
    }

    fn tell(&self, told: Told) {
        let _ = self.told.send(told); // the test may have seen enough
    }

    fn ask_more(&mut self, link: LinkId, door: &mut Door<'_>) {
        while self.asked < self.asks && self.asked - self.answered < self.depth {
            let id = self.prng.next_u64();
            let (at, run) = super::ends::place_of(id);
            let make = |door: &mut Door<'_>| {
                let at = door.allocate(run.count()).expect("there is plenty");
                let blocks = run.count();
                Span { buf: at, blocks }
            };
            let what = match self.prng.one_in(2) {
                true => {
                    let payload = make(door);
                    door.arena().copy_in(payload.buf, 0, &contents(at, run).0);
                    Outgoing {
                        payload: Some(payload),
                        ..Outgoing::plain(DISK, write(self.asked + 1, at, run))
                    }
                }
                false => Outgoing {
                    into: Some(make(door)),
                    ..Outgoing::plain(DISK, super::frames::read(id, at, run))
                },
            };
            let given = [what.payload, what.into].into_iter().flatten().next();
            match door.send(link, what) {
                Ok(()) => self.asked += 1,
                Err(refused) => {
                    given.into_iter().for_each(|payload| door.free(payload.buf));
                    assert_eq!(refused, Refused::Down);
                    return;
                }
            }
        }
    }

    fn answer(&mut self, link: LinkId, frame: &Frame, door: &mut Door<'_>) {
        let what = match *frame {
            Frame::Message(_, Message::Change { sequence, .. }) => {
                Outgoing::plain(DISK, done(sequence))
            }
            Frame::Message(_, Message::Read { id, at, run }) => {
                let blocks = run.count();
                let to = door.allocate_to_answer(blocks);
                let to = to.expect("the asker has credit for it");
                door.arena().copy_in(to, 0, &contents(at, run).0);
                Outgoing {
                    payload: Some(Span { buf: to, blocks }),
                    ..Outgoing::plain(DISK, value(id, at, run))
                }
            }
            _ => return,
        };
        let payload = what.payload;
        if door.send(link, what).is_err() {
            payload.into_iter().for_each(|of| door.free(of.buf));
        }
    }
}

fn holds(at: BufRef, bytes: &[u8], door: &Door<'_>) {
    let is_same = door.arena().look(at, 0, bytes.len(), |of| of == bytes);
    assert!(is_same, "the blocks are those that were sent");
}

impl LinkUser for Player {
    fn on_event(&mut self, event: Event, door: &mut Door<'_>) {
        match event {
            Event::Up { link, .. } => {
                self.holds = door.arena().holds();
                (self.asked, self.answered) = (0, 0);
                self.ask_more(link, door);
            }
            Event::Ask {
                link,
                frame,
                payload,
                ..
            } => {
                if let Some(payload) = payload {
                    let Frame::Message(_, Message::Change { at, change, .. }) = &frame else {
                        panic!("only writes have payload");
                    };
                    let Change::Write { run, .. } = change else {
                        panic!("only writes have payload");
                    };
                    assert_eq!(payload.buf.block, 0);
                    holds(payload.buf, &contents(*at, *run).0, door);
                    door.release(link, payload);
                }
                self.answer(link, &frame, door);
            }
            Event::Answer {
                link,
                frame,
                into,
                blocks,
                ..
            } => {
                if let (Some(into), Frame::Answer(_, Answer::Value { id, .. })) = (into, &frame) {
                    let (at, run) = super::ends::place_of(*id);
                    assert_eq!(blocks, run.count());
                    holds(into.buf, &contents(at, run).0, door);
                }
                into.into_iter().for_each(|into| door.free(into.buf));
                self.answered += 1;
                if self.answered.is_multiple_of(100) || self.answered == self.asks {
                    self.tell(Told::Answered(self.answered));
                }
                self.ask_more(link, door);
            }
            Event::Silent { .. } => self.tell(Told::Silent),
            Event::Down { why, .. } => {
                let is_balanced = door.arena().holds() == self.holds;
                self.tell(Told::Down { why, is_balanced });
            }
        }
    }
}

/// A node of one shard, with a player.
pub(super) struct Node {
    pub(super) runtime: Runtime,
    registry: Arc<Registry>,
    told: Receiver<Told>,
}

pub(super) const SHARD: ShardNo = ShardNo(0);

/// Takes all memory of peers, asks something, and gives a link up that is silent.
struct Hoarder {
    /// Of the end of that link nothing; of the next link a deadline that is over when it comes.
    told: Sender<Option<Time>>,
    hoard: Vec<BufRef>,
    has_given_up: bool,
}

impl LinkUser for Hoarder {
    fn on_event(&mut self, event: Event, door: &mut Door<'_>) {
        match event {
            Event::Up { .. } if self.has_given_up => {
                // The links were swept in this turn.
                let now = door.now();
                let over = door.links.deadline().filter(|at| *at <= now);
                self.told.send(over).unwrap();
            }
            Event::Up { link, .. } => {
                for blocks in [16, 1] {
                    let hoard = std::iter::from_fn(|| door.allocate_to_answer(blocks));
                    self.hoard.extend(hoard);
                }
                let (of, run) = super::ends::place_of(1);
                let room = Span {
                    buf: door.allocate(run.count()).expect("there is plenty"),
                    blocks: run.count(),
                };
                let what = Outgoing {
                    into: Some(room),
                    ..Outgoing::plain(DISK, super::frames::read(1, of, run))
                };
                door.send(link, what).unwrap();
            }
            Event::Silent { link, .. } => door.give_up(link),
            Event::Ask { .. } | Event::Answer { .. } => panic!("there is no memory for it"),
            Event::Down { .. } => {
                self.has_given_up = true;
                self.hoard.drain(..).for_each(|at| door.free(at));
                // At the end of the runtime nobody hears it.
                let _ = self.told.send(None);
            }
        }
    }
}

#[test]
fn a_link_that_is_given_up_while_it_waits_for_memory_leaves_no_deadline_that_is_over() {
    let (told_in, told) = channel();
    let config = Config {
        link_bytes: 8 << 20,
        link_limits: Limits {
            silent_after: Duration::from_millis(300),
            ..Limits::USUAL
        },
        ..Config::default()
    };
    let mut hoarder = Some(Hoarder {
        told: told_in,
        hoard: Vec::new(),
        has_given_up: false,
    });
    let user = |_| -> Box<dyn LinkUser> { Box::new(hoarder.take().unwrap()) };
    let registry = Arc::new(Registry::default());
    let runtime = Runtime::start_with(config, Arc::clone(&registry), user).unwrap();
    let (mut peer, ours) = tcp();
    wait(runtime.handle().link(SHARD, ours.into(), None, PEER)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.read_exact(&mut [0; HEAD_LEN]).unwrap();
    let (at, run) = super::ends::place_of(0);
    let mut bytes = Vec::new();
    let blocks = run.count();
    write(1, at, run)
        .encode(Version::PRESENT, DISK, blocks, &mut bytes)
        .unwrap();
    peer.write_all(&bytes).unwrap();
    // The link may be given up before all of it is there.
    let sent = peer.write_all(&contents(at, run).0);
    let is_cut = |error: &std::io::Error| {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        matches!(error.kind(), BrokenPipe | ConnectionReset)
    };
    assert!(sent.as_ref().err().is_none_or(is_cut), "{sent:?}");
    assert_eq!(told.recv_timeout(PATIENCE), Ok(None));
    // Long enough for what would be looked at again.
    std::thread::sleep(Duration::from_millis(20));
    let (_other, ours) = tcp();
    wait(runtime.handle().link(SHARD, ours.into(), None, PEER)).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok(None));
    // Shown at the end of the turn in which it was told.
    let begun = std::time::Instant::now();
    while registry.link_numbers()[0].hungry == 0 {
        assert!(begun.elapsed() < PATIENCE, "it did wait");
        std::thread::sleep(Duration::from_millis(1));
    }
    runtime.stop();
}

/// Answers nothing.
struct Mute;

impl LinkUser for Mute {
    fn on_event(&mut self, event: Event, _: &mut Door<'_>) {
        if let Event::Ask { payload, .. } = event {
            assert_eq!(payload, None, "only reads are sent");
        }
    }
}

/// What the next frame grants.
fn read_credit(peer: &mut TcpStream) -> Credit {
    let mut head = [0; HEAD_LEN];
    peer.read_exact(&mut head).unwrap();
    let head = Head::decode(Version::PRESENT, &head).unwrap();
    let mut body = vec![0; head.body_len as usize];
    peer.read_exact(&mut body).unwrap();
    match decode(Version::PRESENT, &head, &body) {
        Ok(Frame::Credit(credit)) => credit,
        other => panic!("{other:?} is no grant"),
    }
}

#[test]
fn credit_of_asks_that_are_forgotten_is_told_though_nothing_else_happens() {
    let config = Config {
        link_bytes: 8 << 20,
        link_limits: Limits {
            forget_after: Duration::from_millis(200),
            ..Limits::USUAL
        },
        ..Config::default()
    };
    let mute = |_| -> Box<dyn LinkUser> { Box::new(Mute) };
    let runtime = Runtime::start_with(config, Arc::new(Registry::default()), mute).unwrap();
    let (mut peer, ours) = tcp();
    wait(runtime.handle().link(SHARD, ours.into(), None, PEER)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let first = read_credit(&mut peer);
    let mut bytes = Vec::new();
    for id in 0..first.asks / 2 {
        let (at, _) = super::ends::place_of(id);
        let start = bytes.len();
        super::frames::read(id, at, BlockRun::new(0, 1).unwrap())
            .encode(Version::PRESENT, DISK, 0, &mut bytes)
            .unwrap();
        set_number(&mut bytes[start..], id as u32);
    }
    peer.write_all(&bytes).unwrap();
    let then = read_credit(&mut peer);
    assert!(then.asks > first.asks && then.bytes > first.bytes);
    runtime.stop();
}

#[test]
fn a_peer_is_granted_half_of_the_memory_because_buffers_may_be_half_empty() {
    let config = Config {
        link_bytes: 4 << 20,
        ..Config::default()
    };
    let silent = |_| -> Box<dyn LinkUser> { Box::new(Player::new(0, 0, channel().0)) };
    let registry = Arc::new(Registry::default());
    let runtime = Runtime::start_with(config, registry, silent).unwrap();
    let (mut peer, ours) = tcp();
    wait(runtime.handle().link(SHARD, ours.into(), None, PEER)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_credit(&mut peer).bytes, 2 << 20);
    // There is nothing left for another one.
    let refused = wait(runtime.handle().link(SHARD, tcp().0.into(), None, PEER));
    assert_eq!(refused, Err(LinkError::NoMemory));
    runtime.stop();
}

impl Node {
    pub(super) fn start(depth: u64, asks: u64, limits: Limits) -> Node {
        let (told_in, told) = channel();
        let config = Config {
            buffer_bytes: 64 << 20,
            link_bytes: 32 << 20,
            link_limits: limits,
            ..Config::default()
        };
        let registry = Arc::new(Registry::default());
        let mut player = Some(Player::new(depth, asks, told_in));
        let user = |_| -> Box<dyn LinkUser> { Box::new(player.take().unwrap()) };
        let runtime = Runtime::start_with(config, Arc::clone(&registry), user).unwrap();
        Node {
            runtime,
            registry,
            told,
        }
    }

    pub(super) fn link(&self, socket: impl Into<OwnedFd>) -> LinkId {
        self.link_under(socket, None)
    }

    pub(super) fn link_under(
        &self,
        socket: impl Into<OwnedFd>,
        cover: Option<Box<dyn Cover>>,
    ) -> LinkId {
        let handle = self.runtime.handle();
        wait(handle.link(SHARD, socket.into(), cover, PEER)).unwrap()
    }

    fn hear(&self) -> Told {
        self.told
            .recv_timeout(PATIENCE)
            .expect("it is told in time")
    }

    /// Waits until so many asks are answered.
    pub(super) fn hears_answers(&self, count: u64) {
        loop {
            match self.hear() {
                Told::Answered(answered) if answered >= count => return,
                // On a machine that is busy with something else a second of silence is nothing.
                Told::Answered(_) | Told::Silent => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits for the end of a link, which leaves no memory held.
    pub(super) fn hears_the_end(&self) -> Why {
        loop {
            match self.hear() {
                Told::Down { why, is_balanced } => {
                    assert!(is_balanced, "held-once: {why}");
                    return why;
                }
                Told::Answered(_) | Told::Silent => {}
            }
        }
    }

    pub(super) fn numbers(&self) -> LinkNumbers {
        // Told at the end of the turn.
        assert!(wait(self.runtime.handle().turn()));
        assert!(wait(self.runtime.handle().turn()));
        self.registry.link_numbers()[0]
    }
}

pub(super) fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

pub(super) fn cuts(numbers: &LinkNumbers, why: &str) -> u64 {
    let place = CUTS.iter().position(|name| *name == why).unwrap();
    numbers.cut[place]
}

fn talk(one: impl Into<OwnedFd>, other: impl Into<OwnedFd>, depth: u64, limits: Limits) {
    let asks = 1_000;
    let (a, b) = (
        Node::start(depth, asks, limits),
        Node::start(depth, asks, limits),
    );
    let link = a.link(one);
    b.link(other);
    a.hears_answers(asks);
    b.hears_answers(asks);
    wait(a.runtime.handle().give_up_link(SHARD, link));
    assert_eq!(a.hears_the_end(), Why::GivenUp);
    assert_eq!(b.hears_the_end(), Why::Closed);
    let numbers = a.numbers();
    assert_eq!((numbers.links, numbers.unasked), (0, 0));
    assert_eq!(cuts(&numbers, "given_up"), 1);
    assert!(numbers.frames_sent >= 2 * asks && numbers.frames_received >= 2 * asks);
    assert!(numbers.bytes_received > asks * 4096);
    assert!(a.runtime.stop().is_empty() && b.runtime.stop().is_empty());
}

#[test]
fn two_nodes_ask_one_another_over_tcp_and_every_block_is_right() {
    let (one, other) = tcp();
    // As those of an async runtime are.
    one.set_nonblocking(true).unwrap();
    talk(one, other, 32, Limits::USUAL);
}

#[test]
fn two_nodes_ask_one_another_with_little_credit_over_a_unix_socket() {
    let limits = Limits {
        credit: Credit {
            asks: 2,
            bytes: Limits::LEAST_BYTES,
        },
        ..Limits::USUAL
    };
    let (one, other) = UnixStream::pair().unwrap();
    talk(one, other, 64, limits);
}

#[test]
fn a_connection_that_breaks_amid_everything_leaves_nothing_held_and_harms_no_other() {
    let (a, b) = (
        Node::start(64, u64::MAX, Limits::USUAL),
        Node::start(64, u64::MAX, Limits::USUAL),
    );
    for round in 1..=10 {
        let (one, other) = tcp();
        let breaker = one.try_clone().unwrap();
        a.link(one);
        b.link(other);
        a.hears_answers(100 * round);
        breaker.shutdown(Shutdown::Both).unwrap();
        for why in [a.hears_the_end(), b.hears_the_end()] {
            let is_end = matches!(why, Why::Closed | Why::Truncated | Why::Failed(_));
            assert!(is_end, "{why}");
        }
    }
    assert_eq!(a.numbers().links, 0);
}

#[test]
fn a_peer_that_sends_garbage_is_cut_off_and_the_others_are_served() {
    let (a, b) = (
        Node::start(8, 100, Limits::USUAL),
        Node::start(0, 0, Limits::USUAL),
    );
    let (mut rogue, ours) = tcp();
    b.link(ours);
    rogue.write_all(&[0x55; 4 * HEAD_LEN]).unwrap();
    assert!(matches!(b.hears_the_end(), Why::Malformed(_)));
    rogue.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    // What was sent before it was cut off may be followed by a reset: it has not read all of the garbage.
    let _ = rogue.read_to_end(&mut all);
    assert_eq!(cuts(&b.numbers(), "malformed"), 1);
    let (one, other) = tcp();
    a.link(one);
    b.link(other);
    a.hears_answers(100);
}

/// What a peer says that grants all it can, and does nothing else.
fn grant() -> Vec<u8> {
    let mut bytes = Vec::new();
    let credit = Credit {
        asks: 1 << 40,
        bytes: 1 << 50,
    };
    let frame = Frame::Credit(credit);
    frame.encode(Version::PRESENT, DISK, 0, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_peer_that_reads_nothing_is_told_of_and_then_cut_off() {
    let limits = Limits {
        silent_after: Duration::from_millis(300),
        slow_after: Duration::from_millis(1500),
        ..Limits::USUAL
    };
    // More than the kernel's buffers hold.
    let a = Node::start(1_000, u64::MAX, limits);
    let (mut rogue, ours) = tcp();
    let little = nix::sys::socket::sockopt::RcvBuf;
    nix::sys::socket::setsockopt(&rogue, little, &8192).unwrap();
    rogue.write_all(&grant()).unwrap();
    a.link(ours);
    assert_eq!(a.hear(), Told::Silent);
    assert_eq!(a.hears_the_end(), Why::Slow);
    assert_eq!(cuts(&a.numbers(), "slow"), 1);
}

#[test]
fn a_peer_that_closes_amid_a_payload_leaves_nothing_held() {
    let a = Node::start(0, 0, Limits::USUAL);
    let (at, run) = super::ends::place_of(0);
    let (payload, _) = contents(at, run);
    let mut frame = Vec::new();
    write(1, at, run)
        .encode(Version::PRESENT, DISK, 16, &mut frame)
        .unwrap();
    for sent in [0, 1, BLOCK as usize, 30_000, payload.len() - 1] {
        let (mut rogue, ours) = tcp();
        a.link(ours);
        // Credit is granted first.
        rogue.set_read_timeout(Some(PATIENCE)).unwrap();
        rogue.read_exact(&mut [0; HEAD_LEN]).unwrap();
        rogue.write_all(&frame).unwrap();
        rogue.write_all(&payload[..sent]).unwrap();
        rogue.shutdown(Shutdown::Write).unwrap();
        assert_eq!(a.hears_the_end(), Why::Truncated, "{sent}");
    }
}

#[test]
fn a_shard_without_memory_for_peers_takes_no_link_and_without_a_user_it_ends_each() {
    let registry = Arc::new(Registry::default());
    let runtime = Runtime::start(Config::default(), Arc::clone(&registry)).unwrap();
    let refused = wait(runtime.handle().link(SHARD, tcp().0.into(), None, PEER));
    assert_eq!(refused, Err(LinkError::NoMemory));
    runtime.stop();
    let config = Config {
        link_bytes: 8 << 20,
        ..Config::default()
    };
    let runtime = Runtime::start(config, registry).unwrap();
    let (mut theirs, ours) = tcp();
    wait(runtime.handle().link(SHARD, ours.into(), None, PEER)).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    theirs.read_to_end(&mut all).unwrap();
    assert!(all.len() <= 2 * HEAD_LEN);
}
