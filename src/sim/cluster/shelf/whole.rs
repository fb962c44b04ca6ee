//! A whole store under a replica: the shipped `store::Store` on the simulated disk of `sim/disk.rs`, behind the shelf's door.
//!
//! A value is a block of 4 KiB that says it over and over, with the checksum that it has at its place. Here a checksum is only a value's lower half, so
//! what is asked by checksum is translated at this door, by what was ever written here.
//!
//! A crash is a power cut, and the store is opened again at once, in no time, until all of its table is loaded: so who looks at what is kept looks at what is
//! durable. Its node comes back later and finds it open. The store's own simulation tries openings that are cut short, and requests that come while the
//! table is being loaded.
//!
//! Blocks rot, or cannot be read, where they lie in their slots; one that waits to be applied is spared. What it does not do: lost writes and torn tables are
//! the shelf's own; and it has room for all that a run writes.

#[cfg(test)]
mod tests;
mod values;

use super::{Damaged, Failure, Manner, OpId, Operation, Outcome};
use crate::base::{
    BLOCK, BlockNo, Breaks, BufId, BufRef, ChunkId, Epoch, FamilyId, LayerId, PgId, Prng, Slab,
    StoreId, Time, VolumeId, crc,
};
use crate::shard::operation::{self, Answer, Next};
use crate::sim::buffers::Buffers;
use crate::sim::clock::Agenda;
use crate::sim::disk::{Disk, Fate, Layout, Rates, Ticket};
use crate::sim::medium::Medium;
use crate::store::{
    self, DiskFault, DiskOp, Input, IoData, IoId, LayerMeta, Openings, Options, Outbox, Output,
    Plan, Span, Store, StoreOp, VolumeMeta,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const DISK_BYTES: u64 = 96 << 20;
const SCRATCH_BLOCKS: u32 = 128;
/// How long after a deadline that moved nothing the next one is looked at.
const LATER: Duration = Duration::from_millis(1);

/// What the disk is doing.
#[derive(Debug)]
enum Flight {
    Write(Ticket),
    Read {
        offset: u64,
        buf: Option<BufRef>,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
    },
    Meta {
        offset: u64,
        len: u32,
    },
}

/// What was asked of the store.
#[derive(Debug)]
enum Asked {
    Of {
        op: OpId,
        pg: PgId,
        operation: operation::Operation,
        buf: Option<BufId>,
    },
    /// A layer is being told to the store.
    Layer(LayerId),
    Openings,
    Scrub,
}

/// A store and its disk.
pub struct Whole {
    store: Store,
    disk: Disk,
    buffers: Buffers,
    prng: Prng,
    took_us: u64,
    pub breaks: Breaks,
    out: Outbox,
    asked: Slab<Asked>,
    agenda: Agenda,
    flights: Slab<(IoId, Flight)>,
    /// What waits until its layer is known, or until nothing else of its PG is under way, in order.
    waiting: VecDeque<u32>,
    parents: BTreeMap<LayerId, LayerId>,
    /// Layers that the store knows, and those that are on their way.
    known: BTreeSet<LayerId>,
    telling: BTreeSet<LayerId>,
    /// What was ever written, by its place and checksum; and by what stands for a checksum outside of here.
    values: BTreeMap<(LayerId, u64, u32), u64>,
    by_half: BTreeMap<u32, u64>,
    ended: VecDeque<(OpId, PgId, Outcome)>,
    /// Damage that was found, and not told yet.
    found: Vec<Damaged>,
    is_scrubbing: bool,
    /// Of the store: the turn is not over.
    is_turning: bool,
    now: Time,
    expired: Option<Time>,
    /// An earlier disk, to come back with.
    older: Option<Medium>,
}

impl std::fmt::Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a store that is asked {} things", self.asked.len())
    }
}

fn formatted(prng: &mut Prng) -> (Medium, Layout) {
    let (mut id, mut key) = ([0; 16], [0; 16]);
    prng.fill(&mut id);
    prng.fill(&mut key);
    let plan = Plan {
        store: StoreId(id),
        instance_key: key,
        disk_bytes: DISK_BYTES,
        journal_bytes: None,
        pages: None,
    };
    let formatted = store::format(&plan).expect("it is long enough");
    let mut medium = Medium::new(DISK_BYTES);
    for (offset, bytes) in formatted.writes.iter().chain(&formatted.superblocks) {
        medium.write(*offset, bytes);
    }
    let geometry = formatted.geometry;
    let layout = Layout {
        journal: geometry.journal_at..geometry.journal_at + geometry.journal_len,
        table: geometry.table_at..geometry.slots_at,
        head: 0..geometry.journal_at,
    };
    (medium, layout)
}

fn rates(manner: &Manner) -> Rates {
    Rates {
        slow: manner.slow_one_in,
        read_us: manner.took_us,
        durable_us: manner.took_us,
        cached_us: manner.took_us / 2,
        flush_us: manner.took_us,
        ..Rates::default()
    }
}

impl Whole {
    /// A store on a new disk.
    pub fn new(mut prng: Prng, manner: &Manner, breaks: Breaks) -> Whole {
        let (medium, layout) = formatted(&mut prng);
        let disk = Disk::new(medium, layout, rates(manner), prng.fork());
        let mut whole = Whole {
            store: Store::open(
                options(BufRef::default(), [0; 16], breaks),
                &mut Outbox::default(),
            ),
            disk,
            buffers: Buffers::default(),
            prng,
            took_us: manner.took_us,
            breaks,
            out: Outbox::default(),
            asked: Slab::new(super::FLYING_MAX * 2),
            agenda: Agenda::new(),
            flights: Slab::new(1 << 16),
            waiting: VecDeque::new(),
            parents: BTreeMap::new(),
            known: BTreeSet::new(),
            telling: BTreeSet::new(),
            values: BTreeMap::new(),
            by_half: BTreeMap::new(),
            ended: VecDeque::new(),
            found: Vec::new(),
            is_scrubbing: false,
            is_turning: false,
            now: Time(1),
            expired: None,
            older: None,
        };
        whole.open();
        whole
    }

    /// Another disk, with a new store, is in its place.
    pub fn replace(&mut self) {
        let (medium, layout) = formatted(&mut self.prng);
        self.put_disk(medium, layout);
        self.older = None;
    }

    fn put_disk(&mut self, medium: Medium, layout: Layout) {
        let manner = Manner {
            took_us: self.took_us,
            slow_one_in: 0,
            room: usize::MAX,
            reserve: 0,
        };
        self.disk = Disk::new(medium, layout, rates(&manner), self.prng.fork());
        self.crash();
    }

    /// Remembers what a power cut would leave now.
    pub fn remember(&mut self) {
        self.older = Some(self.disk.image(|_| Fate::Keep));
    }

    /// The disk is as it was when it was remembered.
    pub fn age(&mut self) {
        if let Some(medium) = self.older.take() {
            let layout = self.disk.layout.clone();
            self.put_disk(medium, layout);
        }
    }

    pub fn go(&mut self) {
        self.disk.go();
    }

    /// Damages blocks of a chunk where they lie; those that it did.
    pub fn damage(&mut self, at: ChunkId, blocks: u16, how: fn(&mut Disk, u64)) -> u16 {
        let mut damaged = 0;
        for place in (0..16).filter(|place| blocks & 1 << place != 0) {
            if let Some(offset) = self.store.place_of(at, place)
                && !self.disk.is_damaged_at(offset)
            {
                how(&mut self.disk, offset);
                damaged |= 1 << place;
            }
        }
        damaged
    }

    /// Whether a block is damaged where it lies.
    pub fn is_damaged(&self, at: ChunkId, place: u32) -> bool {
        let offset = self.store.place_of(at, place);
        offset.is_some_and(|offset| self.disk.is_damaged_at(offset))
    }

    pub fn take_found(&mut self) -> Vec<Damaged> {
        std::mem::take(&mut self.found)
    }

    /// The background scrub has come round.
    pub fn scrub(&mut self) {
        if !self.disk.gone && !self.is_scrubbing {
            self.is_scrubbing = true;
            let op = StoreOp(self.name(Asked::Scrub));
            self.step(Input::Scrub { op });
        }
    }

    /// The power is cut, and the store opened again if the disk is there.
    pub fn crash(&mut self) {
        assert!(self.disk.settled(), "nothing destroys what is here");
        self.disk.cut_power();
        self.buffers.forget();
        self.agenda.clear();
        self.flights = Slab::new(1 << 16);
        self.asked = Slab::new(super::FLYING_MAX * 2);
        self.out.clear();
        self.waiting.clear();
        self.ended.clear();
        self.telling.clear();
        self.known.clear();
        (self.is_turning, self.is_scrubbing) = (false, false);
        self.found.clear();
        if !self.disk.gone {
            self.open();
        }
    }

    fn open(&mut self) {
        let scratch = self.buffers.take(SCRATCH_BLOCKS);
        let id = scratch.expect("nothing is in use yet");
        let mut entropy = [0; 16];
        self.prng.fill(&mut entropy);
        let options = options(BufRef { id, block: 0 }, entropy, self.breaks);
        self.store = Store::open(options, &mut self.out);
        self.drain();
        self.hurry(|whole| whole.flights.is_empty() && whole.store.is_open());
        let volumes = self.store.volumes();
        self.known = volumes
            .flat_map(|volume| volume.layers.iter().map(|layer| layer.id))
            .collect();
    }

    /// Lets the disk end one operation after the other, in no time, until `is_done`.
    fn hurry(&mut self, is_done: impl Fn(&Whole) -> bool) {
        for _ in 0..1_000_000 {
            self.end_turn();
            if is_done(self) {
                return;
            }
            let Some(key) = self.agenda.pop(Time(u64::MAX)) else {
                break;
            };
            self.deliver(key);
        }
        let why = self.store.open_error();
        assert!(is_done(self), "a store comes to its end: {why:?}");
    }

    pub fn openings(&self) -> Openings {
        self.store.openings()
    }

    /// Makes the numbers of its opening durable at once (R19).
    pub fn put_openings(&mut self, openings: Openings) {
        if self.disk.gone {
            return;
        }
        let key = self.name(Asked::Openings);
        let op = StoreOp(key);
        self.step(Input::PutOpenings { op, openings });
        self.hurry(|whole| whole.asked.get(key).is_none());
    }

    pub fn put_layer(&mut self, layer: LayerId, parent: LayerId) {
        self.parents.insert(layer, parent);
    }

    pub fn flying(&self) -> usize {
        self.asked.len() + self.ended.len()
    }

    pub fn mark(&mut self, pg: PgId, range: VolumeId, epoch: Epoch, mark: u64) {
        if !self.disk.gone {
            self.step(Input::Mark {
                pg,
                range,
                epoch,
                mark,
            });
        }
    }

    /// When something may happen next.
    pub fn next(&self) -> Option<Time> {
        if self.is_turning || !self.ended.is_empty() {
            return Some(self.now);
        }
        let deadline = self.store.deadline().map(|at| match self.expired {
            Some(expired) => at.max(expired + LATER),
            None => at,
        });
        let deadline = deadline.filter(|_| !self.disk.gone);
        [self.agenda.next(), deadline].into_iter().flatten().min()
    }

    /// Begins an operation.
    pub fn ask(&mut self, now: Time, (op, pg): (OpId, PgId), of: &Operation) {
        self.now = self.now.max(now);
        if self.disk.gone {
            let gone = Outcome::Failed(Failure::Gone);
            return self.ended.push_back((op, pg, gone));
        }
        let (operation, buf) = self.translated(of);
        let key = self.name(Asked::Of {
            op,
            pg,
            operation,
            buf,
        });
        self.waiting.push_back(key);
        self.go_on();
    }

    /// What has ended by now.
    pub fn poll(&mut self, now: Time) -> Option<(OpId, PgId, Outcome)> {
        self.now = self.now.max(now);
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return Some(ended);
            }
            if self.is_turning {
                self.end_turn();
                continue;
            }
            if let Some(key) = self.agenda.pop(now) {
                self.deliver(key);
                continue;
            }
            let is_due = |at: Time| at <= now && self.expired != Some(now);
            if self.disk.gone || !self.store.deadline().is_some_and(is_due) {
                return None;
            }
            self.expired = Some(now);
            self.store.expire(self.now, &mut self.out);
            self.is_turning = true;
            self.drain();
        }
    }

    fn name(&mut self, asked: Asked) -> u32 {
        let key = self.asked.insert(asked);
        key.expect("replicas bound what they ask")
    }

    /// Gives what waits to the store, where it need not wait any more.
    fn go_on(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some(key) = self.waiting.pop_front() else {
                return;
            };
            match self.may_go(key) {
                true => self.give(key),
                false => self.waiting.push_back(key),
            }
        }
    }

    /// Whether an operation may be given to the store. What it waits for is asked for.
    fn may_go(&mut self, key: u32) -> bool {
        let Some(Asked::Of { pg, operation, .. }) = self.asked.get(key) else {
            return false;
        };
        let (pg, at) = (*pg, operation.at());
        if *operation == operation::Operation::Forget {
            let same = |(other, of): (u32, &Asked)| {
                other != key && matches!(of, Asked::Of { pg: of, .. } if *of == pg)
            };
            return !self.asked.iter().any(same);
        }
        let Some(at) = at.filter(|at| !self.known.contains(&at.layer)) else {
            return true;
        };
        if self.telling.insert(at.layer) {
            self.tell_layer(at.family, at.layer);
        }
        self.known.contains(&at.layer)
    }

    /// A store knows layers by the volumes that they are of: here each layer is the head of one.
    fn tell_layer(&mut self, family: FamilyId, layer: LayerId) {
        let mut chain = vec![layer];
        while let Some(parent) = self.parents.get(&chain[chain.len() - 1]) {
            chain.push(*parent);
        }
        chain.reverse();
        let meta = |n: usize| LayerMeta {
            id: chain[n],
            parent: n.checked_sub(1).map(|n| chain[n]),
            frozen: false,
        };
        let volume = VolumeMeta {
            id: VolumeId(1 << 40 | layer.0),
            family,
            name: String::new(),
            size: 1 << 30,
            layers: (0..chain.len()).map(meta).collect(),
        };
        let op = StoreOp(self.name(Asked::Layer(layer)));
        self.step(Input::PutVolume { op, volume });
    }

    fn give(&mut self, key: u32) {
        let Some(Asked::Of { pg, operation, .. }) = self.asked.get(key) else {
            return;
        };
        let (name, operation) = ((*pg, StoreOp(key)), operation.clone());
        let (store, now, out) = (&mut self.store, self.now, &mut self.out);
        let given = operation.give(name, |input| store.step(now, input, out));
        self.is_turning = true;
        self.drain();
        if let Err(outcome) = given {
            self.end(key, outcome);
        }
    }

    fn step(&mut self, input: Input<'_>) {
        self.store.step(self.now, input, &mut self.out);
        self.is_turning = true;
        self.drain();
    }

    fn end_turn(&mut self) {
        self.is_turning = false;
        self.store.step(self.now, Input::TurnEnded, &mut self.out);
        self.drain();
    }

    /// Carries out what the store wants.
    fn drain(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        let mut answers = Vec::new();
        for output in std::mem::take(&mut out.list) {
            if let Some(answer) = Answer::of(&output, &out) {
                answers.push(answer);
                continue;
            }
            match output {
                Output::Disk(op) => self.begin(op, &out),
                Output::Copy { from, to, blocks } => {
                    let bytes = self.buffers.bytes(from, blocks).map(<[u8]>::to_vec);
                    let bytes = bytes.expect("its own buffer");
                    let to = self.buffers.bytes_mut(to, blocks);
                    to.expect("its own buffer").copy_from_slice(&bytes);
                }
                Output::Fill { buf, blocks } => {
                    let bytes = self.buffers.bytes_mut(buf, blocks);
                    bytes.expect("its own buffer").fill(0);
                }
                Output::Pin { buf, blocks } => {
                    self.buffers.pin(buf, blocks).expect("its own buffer");
                }
                Output::Unpin { buf, blocks } => {
                    self.buffers.unpin(buf, blocks).expect("it is pinned");
                }
                Output::Torn(torn) => panic!("nothing tears what is here: {torn:?}"),
                Output::Damaged { pg, at, block, crc } => {
                    let key = (at.layer, at.chunk.block(block).0, crc);
                    let value = self.values.get(&key).expect("what is here was written");
                    self.found.push((pg, at, block, *value as u32));
                }
                _ => {}
            }
        }
        out.clear();
        self.out = out;
        for (op, answer) in answers {
            self.answered(op, answer);
        }
    }

    fn answered(&mut self, StoreOp(key): StoreOp, answer: Answer) {
        let Some(Asked::Of { operation, .. }) = self.asked.get_mut(key) else {
            let asked = self.asked.remove(key);
            self.is_scrubbing &= !matches!(asked, Some(Asked::Scrub));
            if let Some(Asked::Layer(layer)) = asked {
                self.telling.remove(&layer);
                if answer != Answer::Done(Ok(())) {
                    // What waits for the layer would have it told again, and each of those again what waits.
                    assert!(self.disk.gone, "layer {layer} is not told: {answer:?}");
                    return self.give_up();
                }
                // Those below came with it.
                let volumes = self.store.volumes();
                let layers = volumes.flat_map(|volume| &volume.layers);
                self.known.extend(layers.map(|layer| layer.id));
                self.go_on();
            }
            return;
        };
        let outcome = match operation.end(answer) {
            Next::Again => {
                self.waiting.push_back(key);
                return self.go_on();
            }
            Next::Ended(outcome) => outcome,
        };
        self.end(key, outcome);
        self.go_on();
    }

    /// Ends what waits: the disk is gone.
    fn give_up(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            if let Some(Asked::Of { op, pg, buf, .. }) = self.asked.remove(key) {
                if let Some(buf) = buf {
                    self.buffers.answered(buf);
                }
                let gone = Outcome::Failed(Failure::Gone);
                self.ended.push_back((op, pg, gone));
            }
        }
    }

    fn end(&mut self, key: u32, outcome: operation::Outcome) {
        let Some(Asked::Of {
            op,
            pg,
            operation,
            buf,
        }) = self.asked.remove(key)
        else {
            return;
        };
        let outcome = self.outcome(&operation, outcome, buf);
        if let Some(buf) = buf {
            self.buffers.answered(buf);
        }
        self.ended.push_back((op, pg, outcome));
    }

    fn begin(&mut self, op: DiskOp, out: &Outbox) {
        let (id, flight, latency) = match op {
            DiskOp::Write {
                id,
                offset,
                head,
                body,
                durability,
                ..
            } => {
                let mut bytes = out.arena[head.start as usize..head.end as usize].to_vec();
                for Span { buf, blocks } in &out.spans[body.start as usize..body.end as usize] {
                    let part = self.buffers.bytes(*buf, *blocks);
                    bytes.extend_from_slice(part.expect("its own buffer"));
                }
                let (ticket, latency) = self.disk.begin_write(offset, bytes, durability);
                (id, Flight::Write(ticket), latency)
            }
            DiskOp::ZeroRun { id, offset, len } => {
                let (ticket, latency) = self.disk.begin_zeroes(offset, len);
                (id, Flight::Write(ticket), latency)
            }
            DiskOp::Discard { id, offset, len } => {
                let (ticket, latency) = self.disk.begin_discard(offset, len);
                (id, Flight::Write(ticket), latency)
            }
            DiskOp::Flush { id } => {
                let (ticket, latency) = self.disk.begin_flush();
                (id, Flight::Write(ticket), latency)
            }
            DiskOp::ReadBlocks {
                id,
                offset,
                buf,
                blocks,
                layer,
                first,
            } => {
                let flight = Flight::Read {
                    offset,
                    buf: Some(buf),
                    blocks,
                    layer,
                    first,
                };
                let latency = self.disk.read_latency(u64::from(blocks) * BLOCK);
                (id, flight, latency)
            }
            DiskOp::CheckBlocks {
                id,
                offset,
                blocks,
                layer,
                first,
            } => {
                let flight = Flight::Read {
                    offset,
                    buf: None,
                    blocks,
                    layer,
                    first,
                };
                let latency = self.disk.read_latency(u64::from(blocks) * BLOCK);
                (id, flight, latency)
            }
            DiskOp::ReadMeta { id, offset, len } => {
                let latency = self.disk.read_latency(u64::from(len));
                (id, Flight::Meta { offset, len }, latency)
            }
        };
        let key = self.flights.insert((id, flight));
        let key = key.expect("a store bounds what it asks of its disk");
        self.agenda.put(self.now + latency, key);
    }

    fn deliver(&mut self, key: u32) {
        let Some((id, flight)) = self.flights.remove(key) else {
            return;
        };
        match flight {
            Flight::Write(ticket) => {
                let result = self.disk.end(ticket).map(|()| IoData::None);
                self.step(Input::DiskDone { id, result });
            }
            Flight::Read {
                offset,
                buf,
                blocks,
                layer,
                first,
            } => {
                let mut bytes = vec![0; blocks as usize * BLOCK as usize];
                let read = self.disk.read(offset, &mut bytes);
                let number = |n: usize| BlockNo(first.0 + n as u64);
                let each = bytes.chunks(BLOCK as usize).enumerate();
                let crcs: Vec<u32> = each
                    .map(|(n, block)| crc::of_block(layer, number(n), block))
                    .collect();
                if let Some(buf) = buf {
                    let into = self.buffers.bytes_mut(buf, blocks);
                    into.expect("its own buffer").copy_from_slice(&bytes);
                }
                let result: Result<_, DiskFault> = read.map(|_| IoData::Crcs(&crcs));
                self.step(Input::DiskDone { id, result });
            }
            Flight::Meta { offset, len } => {
                let mut bytes = vec![0; len as usize];
                let read = self.disk.read(offset, &mut bytes);
                let result = read.map(|_| IoData::Bytes(&bytes));
                self.step(Input::DiskDone { id, result });
            }
        }
    }
}

fn options(scratch: BufRef, entropy: [u8; 16], breaks: Breaks) -> Options {
    Options {
        disk_bytes: DISK_BYTES,
        scratch,
        scratch_blocks: SCRATCH_BLOCKS,
        overlay_bytes: 4 << 20,
        zero_ahead: false,
        discard: true,
        entropy,
        breaks,
    }
}
