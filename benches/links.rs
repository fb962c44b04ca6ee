//! What a link costs: `cargo bench --bench links [-- SECONDS]`.
//!
//! Two nodes of one shard each, in one process, over loopback TCP: frames are encoded, sent, received, decoded, and the checksum of every block is checked. The floor is a
//! ping-pong of as many bytes between two bare rings, which looks at none of them; both are measured in turns, in the same run.

use io_uring::{IoUring, opcode, types};
use nix::libc;
use sarsen::base::{
    BLOCK, BlockRun, BufRef, ChunkId, ChunkNo, DiskId, Epoch, FamilyId, LayerId, NodeId, PgId,
    Span, VolumeId, crc,
};
use sarsen::observe::Registry;
use sarsen::protocol::replication::{Answer, Change, Header, Message, Room};
use sarsen::runtime::links::{Door, Event, LinkId, LinkUser, Outgoing, Peer};
use sarsen::runtime::{Config, Runtime};
use sarsen::shard::ShardNo;
use sarsen::wire::{Frame, HEAD_LEN, Version};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const DISK: DiskId = DiskId(1);
/// Turns of each side of a comparison.
const ROUNDS: usize = 5;

/// One kind of round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The payload goes there, and a short answer comes back.
    Write,
    /// A short ask goes there, and the payload comes back.
    Read,
}

#[derive(Debug, Clone, Copy)]
struct Load {
    kind: Kind,
    blocks: u32,
    depth: usize,
}

impl Load {
    fn run(self) -> BlockRun {
        BlockRun::new(0, self.blocks).expect("it lies in a chunk")
    }

    /// Bytes there, and back.
    fn bytes(self) -> (usize, usize) {
        let payload = self.blocks as usize * BLOCK as usize;
        let crcs = 4 * self.blocks as usize;
        let (write, done) = (HEAD_LEN + 35 + crcs + payload, HEAD_LEN + 9);
        let (read, value) = (HEAD_LEN + 35, HEAD_LEN + 96 + payload);
        match self.kind {
            Kind::Write => (write, done),
            Kind::Read => (read, value),
        }
    }
}

/// What was measured in one turn.
#[derive(Debug, Default, Clone)]
struct Measured {
    rate: f64,
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

fn measured(mut times: Vec<u32>, took: Duration, cpu: Duration) -> Measured {
    times.sort_unstable();
    let count = times.len().max(1);
    let at = |part: usize| f64::from(times.get(times.len() * part / 100).copied().unwrap_or(0));
    Measured {
        rate: times.len() as f64 / took.as_secs_f64(),
        mean_us: times.iter().map(|ns| f64::from(*ns)).sum::<f64>() / count as f64 / 1e3,
        p50_us: at(50) / 1e3,
        p99_us: at(99) / 1e3,
        cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
    }
}

/// CPU time of all threads of the process.
fn cpu_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("of this process it is told");
    let us = |time: nix::sys::time::TimeVal| (time.tv_sec() * 1_000_000 + time.tv_usec()) as u64;
    Duration::from_micros(us(usage.user_time()) + us(usage.system_time()))
}

fn header() -> Header {
    Header {
        range: VolumeId(1),
        pg: PgId(1),
        epoch: Epoch {
            generation: 1,
            site: 1,
            host: 1,
        },
        version: 1,
        session: 0,
        mark: 0,
    }
}

const AT: ChunkId = ChunkId {
    family: FamilyId(1),
    layer: LayerId(1),
    chunk: ChunkNo(1),
};

/// Blocks that are sent over and over, with their checksums.
struct Blocks {
    at: BufRef,
    crcs: [u32; 16],
}

impl Blocks {
    fn make(count: u32, door: &mut Door<'_>) -> Blocks {
        let at = door.allocate(count).expect("there is memory");
        let bytes: Vec<u8> = (0..count as u64 * BLOCK).map(|n| (n % 253) as u8).collect();
        door.arena().copy_in(at, 0, &bytes);
        let mut crcs = [0; 16];
        for (n, block) in bytes.chunks(BLOCK as usize).enumerate() {
            crcs[n] = crc::of_block(AT.layer, AT.chunk.block(n as u32), block);
        }
        Blocks { at, crcs }
    }

    /// One more hold of them.
    fn hold(&self, blocks: u32, door: &Door<'_>) -> Span {
        door.arena().hold(self.at.id, 1);
        Span {
            buf: self.at,
            blocks,
        }
    }
}

/// Answers every ask at once.
struct Replica {
    blocks: Option<Blocks>,
}

impl LinkUser for Replica {
    fn on_event(&mut self, event: Event, door: &mut Door<'_>) {
        let Event::Ask {
            link,
            frame,
            payload,
            ..
        } = event
        else {
            return;
        };
        let what = match frame {
            Frame::Message(header, Message::Change { sequence, .. }) => {
                let room = Room::Ample;
                let done = Frame::Answer(header, Answer::Done { sequence, room });
                Outgoing::plain(DISK, done)
            }
            Frame::Message(header, Message::Read { id, run, .. }) => {
                let blocks = self.blocks.get_or_insert_with(|| Blocks::make(16, door));
                let value = Answer::Value {
                    id,
                    newest: None,
                    crcs: blocks.crcs,
                    zeroes: 0,
                };
                Outgoing {
                    payload: Some(blocks.hold(run.count(), door)),
                    ..Outgoing::plain(DISK, Frame::Answer(header, value))
                }
            }
            other => panic!("nobody asks {other:?}"),
        };
        if let Some(payload) = payload {
            door.release(link, payload);
        }
        door.send(link, what).expect("answers are taken");
    }
}

/// What the next link is for, and how it goes.
#[derive(Debug, Default)]
struct Control {
    load: Mutex<Option<Load>>,
    is_counting: AtomicBool,
    is_over: AtomicBool,
}

/// Keeps so many asks in flight.
struct Asker {
    control: Arc<Control>,
    load: Load,
    blocks: Option<Blocks>,
    rooms: Vec<BufRef>,
    /// When the ask of each place was sent.
    since: Vec<Instant>,
    in_flight: usize,
    sequence: u64,
    times: Vec<u32>,
    done: Sender<Vec<u32>>,
}

impl Asker {
    fn ask(&mut self, link: LinkId, place: usize, door: &mut Door<'_>) {
        let depth = self.load.depth as u64;
        self.sequence += 1;
        // The place is found again by it.
        let id = self.sequence * depth + place as u64;
        let run = self.load.run();
        let what = match self.load.kind {
            Kind::Write => {
                let blocks = self.blocks.get_or_insert_with(|| Blocks::make(16, door));
                let mut crcs = [0; 16];
                crcs[..run.count() as usize].copy_from_slice(&blocks.crcs[..run.count() as usize]);
                let change = Change::Write { run, crcs };
                let message = Message::Change {
                    sequence: id,
                    at: AT,
                    change,
                };
                Outgoing {
                    payload: Some(blocks.hold(run.count(), door)),
                    ..Outgoing::plain(DISK, Frame::Message(header(), message))
                }
            }
            Kind::Read => {
                let message = Message::Read { id, at: AT, run };
                let (at, blocks) = (self.rooms[place], run.count());
                door.arena().hold(at.id, 1);
                Outgoing {
                    into: Some(Span { buf: at, blocks }),
                    ..Outgoing::plain(DISK, Frame::Message(header(), message))
                }
            }
        };
        self.since[place] = Instant::now();
        self.in_flight += 1;
        door.send(link, what).expect("asks are taken");
    }
}

impl LinkUser for Asker {
    fn on_event(&mut self, event: Event, door: &mut Door<'_>) {
        match event {
            Event::Up { link, .. } => {
                let load = *self
                    .control
                    .load
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                self.load = load.expect("the load is set before its link");
                self.since.clear();
                for place in 0..self.load.depth {
                    let room = door.allocate(self.load.blocks).expect("there is memory");
                    self.rooms.push(room);
                    self.since.push(Instant::now());
                    self.ask(link, place, door);
                }
            }
            Event::Answer {
                link, frame, into, ..
            } => {
                let id = match frame {
                    Frame::Answer(_, Answer::Done { sequence, .. }) => sequence,
                    Frame::Answer(_, Answer::Value { id, .. }) => id,
                    other => panic!("nobody asked for {other:?}"),
                };
                if let Some(into) = into {
                    door.free(into.buf);
                }
                let place = (id % self.load.depth as u64) as usize;
                self.in_flight -= 1;
                if self.control.is_counting.load(Ordering::Relaxed) {
                    self.times
                        .push(self.since[place].elapsed().as_nanos() as u32);
                }
                if !self.control.is_over.load(Ordering::Relaxed) {
                    self.ask(link, place, door);
                } else if self.in_flight == 0 {
                    for room in self.rooms.drain(..) {
                        door.free(room);
                    }
                    let times = std::mem::replace(&mut self.times, Vec::with_capacity(2 << 20));
                    let _ = self.done.send(times);
                    door.give_up(link);
                }
            }
            _ => {}
        }
    }
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let ours = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("loopback");
    let theirs = listener.accept().expect("loopback").0;
    for socket in [&ours, &theirs] {
        socket.set_nodelay(true).expect("TCP has it");
    }
    (ours, theirs)
}

/// Lets a load run, and measures it after a while.
fn window(
    time: Duration,
    is_counting: &AtomicBool,
    is_over: &AtomicBool,
    done: &Receiver<Vec<u32>>,
) -> Measured {
    thread::sleep(time / 5);
    let (began, cpu) = (Instant::now(), cpu_time());
    is_counting.store(true, Ordering::Relaxed);
    thread::sleep(time);
    is_counting.store(false, Ordering::Relaxed);
    let (took, cpu) = (began.elapsed(), cpu_time() - cpu);
    is_over.store(true, Ordering::Relaxed);
    let times = done.recv().expect("the load ends");
    measured(times, took, cpu)
}

/// Two nodes, which are there for all loads.
struct Nodes {
    near: Runtime,
    far: Runtime,
    control: Arc<Control>,
    done: Receiver<Vec<u32>>,
    tokio: tokio::runtime::Runtime,
}

impl Nodes {
    fn start() -> Nodes {
        let control: Arc<Control> = Arc::default();
        let (done_in, done) = channel();
        let config = Config {
            buffer_bytes: 64 << 20,
            link_bytes: 16 << 20,
            ..Config::default()
        };
        let mut asker = Some(Asker {
            control: Arc::clone(&control),
            load: Load {
                kind: Kind::Write,
                blocks: 1,
                depth: 1,
            },
            blocks: None,
            rooms: Vec::new(),
            since: Vec::new(),
            in_flight: 0,
            sequence: 0,
            times: Vec::with_capacity(2 << 20),
            done: done_in,
        });
        let start = |user: &mut dyn FnMut() -> Box<dyn LinkUser>| {
            let registry = Arc::new(Registry::default());
            Runtime::start_with(config.clone(), registry, |_| user()).expect("the shards start")
        };
        let near = start(&mut || Box::new(asker.take().expect("there is one shard")));
        let far = start(&mut || Box::new(Replica { blocks: None }));
        // The payload memory is made meanwhile, which takes CPU.
        loop {
            let cpu = cpu_time();
            thread::sleep(Duration::from_millis(500));
            if cpu_time() - cpu < Duration::from_millis(10) {
                break;
            }
        }
        let mut tokio = tokio::runtime::Builder::new_current_thread();
        Nodes {
            near,
            far,
            control,
            done,
            tokio: tokio.build().expect("a runtime"),
        }
    }

    fn measure(&self, load: Load, time: Duration) -> Measured {
        let control = &*self.control;
        *control.load.lock().unwrap_or_else(PoisonError::into_inner) = Some(load);
        control.is_over.store(false, Ordering::Relaxed);
        let (ours, theirs) = tcp();
        let peer = Peer {
            node: NodeId(1),
            shard: ShardNo(0),
            version: Version::PRESENT,
        };
        for (node, socket) in [(&self.far, theirs), (&self.near, ours)] {
            let handle = node.handle();
            let linked = handle.link(ShardNo(0), socket.into(), None, peer);
            self.tokio.block_on(linked).expect("there is room");
        }
        window(time, &control.is_counting, &control.is_over, &self.done)
    }
}

/// A bare ring with one receive and one send.
struct Bare {
    ring: IoUring,
    socket: TcpStream,
    into: Vec<u8>,
    from: Vec<u8>,
    is_sending: bool,
}

impl Bare {
    fn new(socket: TcpStream, largest: usize) -> Bare {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun();
        Bare {
            ring: builder.build(64).expect("a ring"),
            socket,
            into: vec![0; 64 * 1024],
            from: vec![7; largest],
            is_sending: false,
        }
    }

    fn push(&mut self, entry: io_uring::squeue::Entry) {
        // SAFETY: the memory that is named lives as long as the ring.
        unsafe { self.ring.submission().push(&entry) }.expect("there is room");
    }

    fn receive(&mut self) {
        let fd = types::Fd(self.socket.as_raw_fd());
        let (at, len) = (self.into.as_mut_ptr(), self.into.len() as u32);
        self.push(opcode::Recv::new(fd, at, len).build().user_data(1));
    }

    fn send(&mut self, len: usize) {
        let fd = types::Fd(self.socket.as_raw_fd());
        let at = self.from.as_ptr();
        let entry = opcode::Send::new(fd, at, len as u32).flags(libc::MSG_WAITALL);
        self.push(entry.build().user_data(2));
        self.is_sending = true;
    }

    /// What was received and sent in the next turn; `None`: the other end is gone.
    fn turn(&mut self) -> Option<usize> {
        self.ring.submit_and_wait(1).expect("the ring works");
        let (mut received, mut again) = (0, false);
        let done: Vec<(u64, i32)> = self
            .ring
            .completion()
            .map(|entry| (entry.user_data(), entry.result()))
            .collect();
        for (what, result) in done {
            match (what, result) {
                (1, 1..) => {
                    received += result as usize;
                    again = true;
                }
                (1, _) => return None,
                _ => self.is_sending = false,
            }
        }
        if again {
            self.receive();
        }
        Some(received)
    }
}

fn floor(load: Load, time: Duration) -> Measured {
    let (there, back) = load.bytes();
    let depth = load.depth;
    let (ours, theirs) = tcp();
    let (is_counting, is_over): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
    let (done_in, done) = channel();
    let far = thread::spawn(move || {
        let mut bare = Bare::new(theirs, back * depth);
        bare.receive();
        let (mut bytes, mut owed) = (0, 0);
        while let Some(received) = bare.turn() {
            bytes += received;
            owed += bytes / there;
            bytes %= there;
            if owed > 0 && !bare.is_sending {
                bare.send(owed * back);
                owed = 0;
            }
        }
    });
    let (counting, over) = (Arc::clone(&is_counting), Arc::clone(&is_over));
    let near = thread::spawn(move || {
        let mut bare = Bare::new(ours, there * depth);
        let mut since = std::collections::VecDeque::new();
        let mut times = Vec::with_capacity(2 << 20);
        bare.receive();
        let (mut bytes, mut owed) = (0, depth);
        loop {
            if owed > 0 && !bare.is_sending {
                bare.send(owed * there);
                since.extend(std::iter::repeat_n(Instant::now(), owed));
                owed = 0;
            }
            let received = bare.turn().expect("the other end is there");
            bytes += received;
            for _ in 0..bytes / back {
                let began = since.pop_front().expect("as many as were sent");
                if counting.load(Ordering::Relaxed) {
                    times.push(began.elapsed().as_nanos() as u32);
                }
                owed += 1;
            }
            bytes %= back;
            if over.load(Ordering::Relaxed) && since.is_empty() {
                let _ = done_in.send(times);
                return;
            }
            if over.load(Ordering::Relaxed) {
                owed = 0;
            }
        }
    });
    let measured = window(time, &is_counting, &is_over, &done);
    near.join().expect("it ends");
    far.join().expect("it ends");
    measured
}

fn median(mut all: Vec<Measured>) -> Measured {
    all.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    all.swap_remove(all.len() / 2)
}

fn main() {
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let seconds: f64 = words
        .next()
        .map_or(1.0, |word| word.parse().expect("SECONDS is a number"));
    let time = Duration::from_secs_f64(seconds);
    println!("medians of {ROUNDS} turns of {seconds} s; CPU is that of the process\n");
    let nodes = Nodes::start();
    println!(
        "| round trip | depth | | a second | mean us | p50 us | p99 us | CPU us | rate to the floor | mean to the floor |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (name, kind, blocks, depth) in [
        ("4 KiB there", Kind::Write, 1, 1),
        ("4 KiB there", Kind::Write, 1, 32),
        ("4 KiB back", Kind::Read, 1, 1),
        ("4 KiB back", Kind::Read, 1, 32),
        ("64 KiB there", Kind::Write, 16, 8),
        ("64 KiB back", Kind::Read, 16, 8),
    ] {
        let load = Load {
            kind,
            blocks,
            depth,
        };
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(floor(load, time));
            ours.push(nodes.measure(load, time));
        }
        let (bare, ours) = (median(bare), median(ours));
        let line = |what: &str, of: &Measured, ratios: &str| {
            println!(
                "| {name} | {depth} | {what} | {:.0} | {:.1} | {:.1} | {:.1} | {:.2} | {ratios} |",
                of.rate, of.mean_us, of.p50_us, of.p99_us, of.cpu_us
            );
        };
        line("floor", &bare, "|");
        let (rate, mean) = (ours.rate / bare.rate, ours.mean_us / bare.mean_us);
        line("link", &ours, &format!("{rate:.2} | {mean:.2}"));
    }
    nodes.near.stop();
    nodes.far.stop();
}
