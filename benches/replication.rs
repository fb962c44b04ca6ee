//! What a write and a read cost in the steps of replication, in nanoseconds and in allocations, without any I/O:
//! `cargo bench --no-default-features --features sim --bench replication`.
//!
//! The coordinator ([`Groups`]) is answered at once, by hand; so is the replica by its store; then the two are put together. A write is all
//! of its steps: one to ask and one for each member's answer at the coordinator, the frame and the store's answer at a replica. Rounds are short,
//! so that the least and the median of them tell little of what else the machine does; the kinds alternate within a round.

use sarsen::base::{
    BlockRun, BufId, BufRef, ChunkNo, DiskId, DiskSlot, Epoch, FamilyId, Holds, LayerId, Payload,
    PgId, Prng, Span, Time, VolumeId,
};
use sarsen::protocol::replication::replica::{self, Asker, Durable, Op};
use sarsen::protocol::replication::{
    Answer, Change, Configuration, Header, Message, Reconfigure, Replica, Room, RulesOff,
    WINDOW_MAX,
};
use sarsen::protocol::volume::groups::{Groups, Output, Patience};
use sarsen::protocol::volume::{Ask, PieceId, Target};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeSet, VecDeque};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The system's allocator, counted.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all of it is the system's allocator, which keeps the contract; a count beside it touches no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 201;
const WARM_UP: u64 = 200_000;
const WRITES_A_ROUND: u64 = 1_000;
const VOLUME: VolumeId = VolumeId(1);
const EPOCH: Epoch = Epoch {
    generation: 0,
    site: 0,
    host: 2,
};
/// Chunks that are written: 64 MiB in each PG.
const CHUNKS: u64 = 1024;

fn main() {
    let mut kinds: Vec<Kind> = Vec::new();
    for (pgs, depth) in [(1, 1), (1, 32), (1, 512), (64, 32)] {
        for members in [2, 3] {
            let by_hand = Owner::new(members, pgs, depth, false);
            kinds.push(Kind::new(
                format!("coordinator, {members} members, {pgs} PGs, depth {depth}"),
                by_hand,
            ));
        }
    }
    for (pgs, depth) in [(1, 1), (1, 32), (1, 512), (64, 32)] {
        let disk = Disk::new(pgs, depth);
        kinds.push(Kind::new(
            format!("replica, {pgs} PGs, depth {depth}"),
            disk,
        ));
    }
    for (members, depth) in [(2, 1), (2, 32), (3, 1), (3, 32)] {
        let both = Owner::new(members, 1, depth, true);
        kinds.push(Kind::new(
            format!("both, {members} members, 1 PGs, depth {depth}"),
            both,
        ));
    }
    let only = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    kinds.retain(|kind| only.as_ref().is_none_or(|only| kind.name.contains(only)));
    for kind in &mut kinds {
        kind.machine.go(true, WARM_UP);
        kind.machine.go(false, WARM_UP);
    }
    for _ in 0..ROUNDS {
        for kind in &mut kinds {
            for (of, is_write) in [true, false].into_iter().enumerate() {
                kind.rounds[of].push(round(|| kind.machine.go(is_write, WRITES_A_ROUND)));
            }
        }
    }
    println!(
        "{:44} {:>34}   {:>34}",
        "", "ns a write: least, median; allocations", "ns a read: least, median; allocations"
    );
    for kind in &mut kinds {
        let [write, read] = &mut kind.rounds;
        println!("{:44} {}   {}", kind.name, told(write), told(read));
    }
    configured();
    println!("\nns a step: median of each, without the clock's own");
    for kind in &mut kinds {
        let steps = kind.machine.steps(4_000);
        println!("{:44} {steps}", kind.name);
    }
}

/// What a new configuration of one PG costs where there are groups of many.
fn configured() {
    const PGS: u32 = 10_000;
    let mut owner = Owner::new(3, PGS, 1, false);
    owner.go(true, u64::from(PGS) * 4);
    let mut configuration = Configuration::new([0, 1, 2].map(DiskId));
    let mut took = Steps::default();
    for disk in [0, 1].map(DiskId) {
        let version = configuration.version();
        let evict = Reconfigure::Evict { disk };
        configuration.apply(version, evict, 1).expect("one is left");
        for pg in 0..1_000 {
            let (now, new) = (owner.now, configuration.clone());
            took.time(true, || {
                owner.groups.configured(now, PgId(pg), new, &mut owner.out);
            });
        }
    }
    println!(
        "\na new configuration of one PG among 10,000: {:.0} ns",
        took.median()
    );
}

/// What is measured.
struct Kind {
    name: String,
    machine: Box<dyn Machine>,
    /// Of writes, and of reads: ns, and allocations.
    rounds: [Vec<(f64, f64)>; 2],
}

trait Machine {
    /// So many writes or reads.
    fn go(&mut self, is_write: bool, count: u64);
    /// What each kind of step takes, of so many writes.
    fn steps(&mut self, count: u64) -> String;
}

impl Kind {
    fn new(name: String, machine: impl Machine + 'static) -> Kind {
        Kind {
            name,
            machine: Box::new(machine),
            rounds: [Vec::new(), Vec::new()],
        }
    }
}

fn round(work: impl FnOnce()) -> (f64, f64) {
    let before = ALLOCATIONS.load(Relaxed);
    let began = Instant::now();
    work();
    let ns = began.elapsed().as_nanos() as f64;
    let allocations = ALLOCATIONS.load(Relaxed) - before;
    let each = WRITES_A_ROUND as f64;
    (ns / each, allocations as f64 / each)
}

fn told(rounds: &mut [(f64, f64)]) -> String {
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let median = rounds[rounds.len() / 2].0;
    let allocations = rounds.iter().map(|round| round.1).fold(0.0, f64::max);
    format!("{:10.0} {median:10.0} {allocations:12.3}", rounds[0].0)
}

/// Times of single steps of one kind.
#[derive(Default)]
struct Steps(Vec<Duration>);

impl Steps {
    fn time<T>(&mut self, is_timed: bool, step: impl FnOnce() -> T) -> T {
        if !is_timed {
            return step();
        }
        let began = Instant::now();
        let result = step();
        self.0.push(began.elapsed());
        result
    }

    fn median(&mut self) -> f64 {
        let mut clock: Vec<Duration> = (0..1000).map(|_| Instant::now().elapsed()).collect();
        clock.sort();
        self.0.sort();
        let of = self.0.get(self.0.len() / 2).copied().unwrap_or_default();
        of.saturating_sub(clock[clock.len() / 2]).as_nanos() as f64
    }
}

/// Gives out places to write and read: no two in flight overlap, because it goes round.
struct Places {
    next: u64,
    prng: Prng,
}

impl Places {
    fn next(&mut self, pgs: u32) -> (PgId, ChunkNo, BlockRun) {
        self.next += 1;
        let pg = match pgs {
            1 => 0,
            _ => self.prng.below(u64::from(pgs)) as u32,
        };
        // An odd step goes through all chunks before it comes again.
        let chunk = ChunkNo(self.next.wrapping_mul(389) % CHUNKS);
        let block = (self.next / CHUNKS % 16) as u32;
        let run = BlockRun::new(block, 1).expect("a block of the chunk");
        (PgId(pg), chunk, run)
    }
}

fn buf(id: u32) -> BufRef {
    BufRef {
        id: BufId(id),
        block: 0,
    }
}

/// Payload that is counted, as a shard has it.
fn hold(holds: &Holds, id: u32) -> Payload {
    holds.hold(Span {
        buf: buf(id),
        blocks: 1,
    })
}

/// A coordinator, whose replicas are made by hand or real.
struct Owner {
    groups: Groups,
    holds: Holds,
    dropped: Vec<Span>,
    disks: Option<Vec<Disk>>,
    out: Vec<Output>,
    sent: VecDeque<(DiskId, Header, Message)>,
    answered: VecDeque<(DiskId, Header, Answer)>,
    now: Time,
    places: Places,
    pgs: u32,
    depth: u64,
    flying: u64,
    is_timed: bool,
    asking: Steps,
    answering: Steps,
}

impl Owner {
    fn new(members: u32, pgs: u32, depth: u64, real: bool) -> Owner {
        let disk = |n| {
            let mut disk = Disk::bare(n, pgs);
            disk.depth = depth;
            disk
        };
        let mut owner = Owner {
            groups: Groups::new(Patience::default(), RulesOff::NONE),
            holds: Holds::default(),
            dropped: Vec::new(),
            disks: real.then(|| (0..members).map(disk).collect()),
            out: Vec::new(),
            sent: VecDeque::new(),
            answered: VecDeque::new(),
            now: Time(1),
            places: Places {
                next: 0,
                prng: Prng::new(1),
            },
            pgs,
            depth,
            flying: 0,
            is_timed: false,
            asking: Steps::default(),
            answering: Steps::default(),
        };
        owner.groups.lease(Time(u64::MAX));
        for pg in 0..pgs {
            let configuration = Configuration::new((0..members).map(DiskId));
            let now = owner.now;
            owner
                .groups
                .configured(now, PgId(pg), configuration, &mut owner.out);
        }
        let near = BTreeSet::from([DiskId(0)]);
        owner
            .groups
            .open(owner.now, VOLUME, EPOCH, near, &mut owner.out);
        owner
    }

    fn ask(&mut self, is_write: bool) {
        let (pg, chunk, run) = self.places.next(self.pgs);
        let target = Target {
            volume: VOLUME,
            disk: DiskSlot(0),
            pg,
            family: FamilyId(1),
            layer: LayerId(1),
            chunk,
        };
        let (buf, sequence) = (buf(1), self.places.next);
        let ask = match is_write {
            true => Ask::Write {
                run,
                buf,
                crcs: [7; 16],
                sequence,
            },
            false => Ask::Read { run, buf },
        };
        let (now, piece) = (self.now, PieceId(0));
        self.asking.time(self.is_timed, || {
            let payload = is_write.then(|| hold(&self.holds, 1));
            let ask = (&ask, payload);
            self.groups.ask(now, piece, target, ask, &mut self.out);
        });
        self.dropped.clear();
        self.holds.take_dropped(&mut self.dropped);
        self.flying += 1;
        self.look_at_time();
        self.drain();
    }

    /// The next frame arrives, and is answered; or the next answer.
    fn turn(&mut self) {
        if let Some((to, header, message)) = self.sent.pop_front() {
            match &mut self.disks {
                Some(disks) => {
                    let disk = &mut disks[to.0 as usize];
                    disk.frame(header, message);
                    self.answered.extend(disk.take_answers());
                }
                None => self
                    .answered
                    .extend(answer(&message).map(|what| (to, header, what))),
            }
        }
        if let Some((from, header, answer)) = self.answered.pop_front() {
            let (now, payload) = (self.now, Some(hold(&self.holds, 2)));
            self.answering.time(self.is_timed, || {
                self.groups
                    .answered(now, from, header, answer, payload, &mut self.out);
            });
            self.look_at_time();
            self.drain();
        }
    }

    fn look_at_time(&mut self) {
        self.now = self.now + Duration::from_micros(1);
        if self.groups.deadline().is_some_and(|at| at <= self.now) {
            self.groups.expire(self.now, &mut self.out);
        }
    }

    fn drain(&mut self) {
        for output in self.out.drain(..) {
            match output {
                Output::Send {
                    to,
                    header,
                    message,
                    ..
                } => self.sent.push_back((to, header, message)),
                Output::Answered { result, .. } => {
                    assert!(black_box(result).is_ok());
                    self.flying -= 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What a replica of which nothing is known says.
fn answer(message: &Message) -> Option<Answer> {
    match *message {
        Message::Change { sequence, .. } => Some(Answer::Done {
            sequence,
            room: Room::Ample,
        }),
        Message::Read { id, .. } => Some(Answer::Value {
            id,
            newest: None,
            crcs: [7; 16],
            zeroes: 0,
        }),
        Message::Mark | Message::Fits { .. } | Message::Confirm { .. } => None,
        Message::Seal => Some(Answer::Sealed {
            window: Vec::new(),
            room: Room::Ample,
        }),
    }
}

impl Machine for Owner {
    fn go(&mut self, is_write: bool, count: u64) {
        for _ in 0..count {
            while self.flying >= self.depth {
                self.turn();
            }
            self.ask(is_write);
        }
        while !self.sent.is_empty() || !self.answered.is_empty() {
            self.turn();
        }
        assert_eq!(self.flying, 0);
    }

    fn steps(&mut self, count: u64) -> String {
        let mut both = [true, false].map(|is_write| {
            self.is_timed = true;
            self.asking.0.clear();
            self.answering.0.clear();
            self.go(is_write, count);
            self.is_timed = false;
            (self.asking.median(), self.answering.median())
        });
        let [(ask, answer), (ask_read, value)] = &mut both;
        format!(
            "write: ask {ask:4.0}, answer {answer:4.0}; read: ask {ask_read:4.0}, answer {value:4.0}"
        )
    }
}

/// The replicas of one disk, whose store answers when `depth` things are asked of it, or nothing else comes.
struct Disk {
    disk: DiskId,
    holds: Holds,
    dropped: Vec<Span>,
    replicas: Vec<Replica>,
    out: Vec<replica::Output>,
    stored: VecDeque<(PgId, Op)>,
    answers: VecDeque<(DiskId, Header, Answer)>,
    depth: u64,
    sequence: Vec<u64>,
    reads: u64,
    places: Places,
    is_timed: bool,
    framing: Steps,
    storing: Steps,
}

impl Disk {
    fn bare(disk: u32, pgs: u32) -> Disk {
        let disk = DiskId(disk);
        let replica = |pg| Replica::new((PgId(pg), disk), Durable::created(1), RulesOff::NONE);
        Disk {
            disk,
            holds: Holds::default(),
            dropped: Vec::new(),
            replicas: (0..pgs).map(replica).collect(),
            out: Vec::new(),
            stored: VecDeque::new(),
            answers: VecDeque::new(),
            depth: 1,
            sequence: vec![0; pgs as usize],
            reads: 0,
            places: Places {
                next: 0,
                prng: Prng::new(1),
            },
            is_timed: false,
            framing: Steps::default(),
            storing: Steps::default(),
        }
    }

    fn new(pgs: u32, depth: u64) -> Disk {
        let mut disk = Disk::bare(0, pgs);
        for pg in 0..pgs {
            disk.frame(header(PgId(pg), 0), Message::Seal);
        }
        while !disk.stored.is_empty() {
            disk.store();
        }
        disk.depth = depth;
        disk.answers.clear();
        disk
    }

    /// A frame comes; the store answers once it has enough to do.
    fn frame(&mut self, header: Header, message: Message) {
        let payload = matches!(message, Message::Change { .. }).then(|| hold(&self.holds, 1));
        self.dropped.clear();
        self.holds.take_dropped(&mut self.dropped);
        let input = replica::Input::Frame {
            from: Asker(1),
            header,
            message,
            payload,
        };
        let of = &mut self.replicas[header.pg.0 as usize];
        self.framing
            .time(self.is_timed, || of.step(input, &mut self.out));
        self.drain(header.pg);
        while self.stored.len() as u64 >= self.depth {
            self.store();
        }
    }

    /// The store has carried out what it was asked first.
    fn store(&mut self) {
        let Some((pg, op)) = self.stored.pop_front() else {
            return;
        };
        let input = match op {
            Op::Read { .. } => replica::Input::Loaded {
                op,
                crcs: [7; 16],
                zeroes: 0,
                payload: hold(&self.holds, 2),
            },
            _ => replica::Input::Stored { op, ok: true },
        };
        let of = &mut self.replicas[pg.0 as usize];
        self.storing
            .time(self.is_timed, || of.step(input, &mut self.out));
        self.drain(pg);
    }

    fn drain(&mut self, pg: PgId) {
        for output in self.out.drain(..) {
            match output {
                replica::Output::Fence { op, .. }
                | replica::Output::Change { op, .. }
                | replica::Output::Read { op, .. } => self.stored.push_back((pg, op)),
                replica::Output::Answer { header, answer, .. } => {
                    self.answers.push_back((self.disk, header, answer));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// What was answered; the store does what it can before.
    fn take_answers(&mut self) -> std::collections::vec_deque::Drain<'_, (DiskId, Header, Answer)> {
        if self.answers.is_empty() {
            self.store();
        }
        self.answers.drain(..)
    }
}

fn header(pg: PgId, mark: u64) -> Header {
    Header {
        range: VOLUME,
        pg,
        epoch: EPOCH,
        version: 1,
        session: 0,
        mark,
    }
}

impl Machine for Disk {
    fn go(&mut self, is_write: bool, count: u64) {
        let pgs = self.replicas.len() as u32;
        for _ in 0..count {
            let (pg, chunk, run) = self.places.next(pgs);
            let at = sarsen::base::ChunkId {
                family: FamilyId(1),
                layer: LayerId(1),
                chunk,
            };
            let sequence = &mut self.sequence[pg.0 as usize];
            *sequence += u64::from(is_write);
            // So many are on their way to the disk, and as many are not acknowledged yet, as far as there is room for them.
            let mark = sequence.saturating_sub((2 * self.depth).min(WINDOW_MAX as u64 - 8));
            let message = match is_write {
                true => Message::Change {
                    sequence: *sequence,
                    at,
                    change: Change::Write { run, crcs: [7; 16] },
                },
                false => {
                    self.reads += 1;
                    let id = self.reads;
                    Message::Read { id, at, run }
                }
            };
            self.frame(header(pg, mark), message);
            for (_, _, answer) in self.answers.drain(..) {
                assert!(!matches!(black_box(answer), Answer::Refused { .. }));
            }
        }
        while !self.stored.is_empty() {
            self.store();
        }
        self.answers.clear();
    }

    fn steps(&mut self, count: u64) -> String {
        let mut both = [true, false].map(|is_write| {
            self.is_timed = true;
            self.framing.0.clear();
            self.storing.0.clear();
            self.go(is_write, count);
            self.is_timed = false;
            (self.framing.median(), self.storing.median())
        });
        let [(frame, stored), (frame_of_read, loaded)] = &mut both;
        format!(
            "write: frame {frame:4.0}, stored {stored:4.0}; read: frame {frame_of_read:4.0}, loaded {loaded:4.0}"
        )
    }
}
