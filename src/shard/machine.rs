//! The shard as a machine: the fabric over its stores. What the one asks of the others, and what they answer, goes to and fro here until nobody wants anything
//! more that can be had at once.

use super::asks::Asked;
use super::control::{Task, Tasks};
use super::disks::Disks;
use super::door::{Input, Outbox, Output};
use super::fabric::{self, Fabric, Order, StoreAsk, To};
use super::operation::{self, Answer, Failure, Next, Operation, Outcome};
use super::pool::Pool;
use super::remote::{Came, Whole};
use super::route::ShardNo;
use crate::base::{
    BlockRun, Breaks, CHUNK, DiskId, DiskSlot, IoError, MapRun, PgId, Slab, Span, Time,
};
use crate::protocol::membership::Incarnation;
use crate::protocol::replication::replica::Asker;
use crate::protocol::scrub::compare::Rests;
use crate::protocol::volume::PieceId;
use crate::protocol::volume::groups::Value;
use crate::store::{self, Levels, Stats, Store, StoreError, StoreOp};
#[cfg(feature = "sim")]
use crate::{base::Stamp, store::ChunkId};
use std::collections::VecDeque;
use std::time::Duration;

/// Operations asked of all stores at once.
const OPS_MAX: usize = 1 << 21;
/// How often replicas are held against one another.
const RESTS: Rests = Rests {
    between: Duration::from_secs(7 * 24 * 3600),
    after_change: Duration::from_secs(600),
};

/// Who is told when a store has answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    /// A machine of the fabric.
    Ask(u32),
    Map(PieceId),
    Task(u32),
    /// Somebody past the fabric, under a name of its own.
    #[cfg(feature = "sim")]
    Outside(u64),
}

/// What a store answered to an operation that was asked past the coordinator.
#[cfg(feature = "sim")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAnswer {
    Done(Result<(), StoreError>),
    /// What was found, and behind which chunk there may be more.
    Listed(Vec<(ChunkId, Stamp)>, Option<ChunkId>),
    Fetched(store::Holding),
    Loaded(store::Holding),
    Looked(store::Takes),
    Inspected(Option<store::Holding>),
}

/// One core as one machine.
pub struct Shard {
    me: Asker,
    pub(super) whole: Whole,
    /// See [`Shard::upto`].
    pub(super) upto: u64,
    pub(super) came: Came,
    pub(super) fabric: Fabric,
    pub(super) disks: Disks,
    pub(super) ops: Slab<Whose>,
    asks: Slab<Asked>,
    /// Asks that have no place to read to yet, and those that a store wants to be given once more.
    waiting: VecDeque<u32>,
    again: Vec<u32>,
    pool: Pool,
    pub(super) tasks: Tasks,
    /// What the fabric wants done and is not done yet; the other list is empty, and used in turn.
    wanted: Vec<fabric::Output>,
    spare: Vec<fabric::Output>,
    #[cfg(feature = "sim")]
    store_answers: Vec<(u64, StoreAnswer)>,
}

impl Shard {
    /// A shard of a node that is alone: nobody else can have what is its own.
    pub fn alone(breaks: Breaks) -> Shard {
        let mut shard = Shard::new(Asker(0), Whole::Alone, Incarnation(1), breaks);
        let until = Time(u64::MAX);
        shard.order(Time(0), Order::Leased { until });
        shard
    }

    /// A shard of a node of a cluster, by its number among so many, in this start of the node. `me` is its name for itself: no frame that comes has it.
    pub fn of_node(
        (number, shards): (ShardNo, u16),
        me: Asker,
        incarnation: Incarnation,
        breaks: Breaks,
    ) -> Shard {
        debug_assert!(number.0 < shards, "a shard is one of those of its node");
        let whole = Whole::Node { me: number, shards };
        Shard::new(me, whole, incarnation, breaks)
    }

    fn new(me: Asker, whole: Whole, incarnation: Incarnation, breaks: Breaks) -> Shard {
        let off = fabric::Off {
            breaks,
            ..fabric::Off::default()
        };
        Shard {
            me,
            whole,
            upto: 0,
            came: Came::default(),
            fabric: Fabric::new(incarnation, RESTS, off),
            disks: Disks::default(),
            ops: Slab::new(OPS_MAX),
            asks: Slab::new(OPS_MAX),
            waiting: VecDeque::new(),
            again: Vec::new(),
            pool: Pool::default(),
            tasks: Tasks::default(),
            wanted: Vec::new(),
            spare: Vec::new(),
            #[cfg(feature = "sim")]
            store_answers: Vec::new(),
        }
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox) {
        match input {
            Input::Request(request) => self.tell(now, fabric::Input::Request(request)),
            Input::Checksummed { op, crcs } => {
                let piece = PieceId(op);
                self.tell(now, fabric::Input::Checksummed { piece, crcs });
            }
            Input::Disk { disk, id, result } => {
                self.step_store(now, disk, store::Input::DiskDone { id, result }, out);
            }
            Input::Memory { buf, blocks } => self.pool.lend(buf, blocks),
            Input::Control { id, control } => self.on_control(now, id, control, out),
            Input::Order { number, order } => self.on_order(now, number, order),
            Input::Frame {
                from,
                disk,
                frame,
                payload,
            } => self.on_frame(now, (from, disk), frame, payload),
            Input::TurnEnded => {
                for slot in self.disks.slots() {
                    self.step_store(now, slot, store::Input::TurnEnded, out);
                }
                self.drain(now, out);
                self.fabric.turn_ended(&mut self.wanted);
            }
        }
        self.drain(now, out);
        self.close_if_quiet(now, out);
        self.drain(now, out);
    }

    /// When [`Shard::expire`] is to be called, if nothing else happens first.
    pub fn deadline(&self) -> Option<Time> {
        let of_stores = self.disks.deadline();
        of_stores.into_iter().chain(self.fabric.deadline()).min()
    }

    /// The deadline has come.
    pub fn expire(&mut self, now: Time, out: &mut Outbox) {
        for slot in self.disks.slots() {
            if let Some(disk) = self.disks.due(slot, now) {
                disk.store.expire(now, &mut out.store);
                self.take_store_outputs(now, slot, out);
            }
        }
        if self.fabric.deadline().is_some_and(|at| at <= now) {
            self.fabric.expire(now, &mut self.wanted);
        }
        self.drain(now, out);
        self.close_if_quiet(now, out);
        self.drain(now, out);
    }

    /// Requests that are admitted and not answered.
    pub fn in_flight(&self) -> usize {
        self.fabric.coordinator().in_flight()
    }

    /// What the store in `slot` counts and holds, with the disk's id.
    pub fn disk(&self, slot: DiskSlot) -> Option<(DiskId, Stats, Levels)> {
        let disk = self.disks.get(slot)?;
        Some((disk.id, disk.store.stats(), disk.store.levels()))
    }

    /// The store in `slot`.
    pub fn store(&self, slot: DiskSlot) -> Option<&Store> {
        self.disks.get(slot).map(|disk| &disk.store)
    }

    pub(super) fn order(&mut self, now: Time, order: Order) {
        self.tell(now, fabric::Input::Order(order));
    }

    pub(super) fn tell(&mut self, now: Time, input: fabric::Input<'_>) {
        (self.fabric).step(now, input, &self.disks, &mut self.wanted);
    }

    /// Carries out what the fabric wants, until it wants nothing more.
    pub(super) fn drain(&mut self, now: Time, out: &mut Outbox) {
        loop {
            while !self.wanted.is_empty() {
                let mut list = std::mem::replace(&mut self.wanted, std::mem::take(&mut self.spare));
                for output in list.drain(..) {
                    self.take_fabric(now, output, out);
                }
                self.spare = list;
            }
            while let Some(key) = self.again.pop() {
                self.give(now, key, out);
            }
            let before = self.waiting.len();
            while let Some(&key) = self.waiting.front() {
                if !self.has_place(key) {
                    break;
                }
                self.waiting.pop_front();
                self.give(now, key, out);
            }
            if self.wanted.is_empty() && self.again.is_empty() && self.waiting.len() == before {
                return;
            }
        }
    }

    fn take_fabric(&mut self, now: Time, output: fabric::Output, out: &mut Outbox) {
        match output {
            fabric::Output::Store { disk, pg, ask } => self.ask(now, (disk, pg), ask, out),
            fabric::Output::Send {
                to: To::Disk(to),
                disk,
                frame,
                payload,
            } if self.disks.slot_of(to).is_some() => {
                let from = self.me;
                let input = fabric::Input::Frame {
                    from,
                    disk,
                    frame,
                    payload,
                };
                self.tell(now, input);
            }
            fabric::Output::Send {
                to: To::Asker(from),
                disk,
                frame,
                payload,
            } if from == self.me => {
                let input = fabric::Input::Frame {
                    from,
                    disk,
                    frame,
                    payload,
                };
                self.tell(now, input);
            }
            fabric::Output::Checksum {
                piece,
                buf,
                blocks,
                layer,
                first,
            } => out.list.push(Output::Checksum {
                op: piece.0,
                buf,
                blocks,
                layer,
                first,
            }),
            fabric::Output::Fill { buf, blocks } => out.list.push(Output::Fill { buf, blocks }),
            fabric::Output::Merge {
                from,
                into,
                head,
                tail,
            } => out.list.push(Output::Merge {
                from,
                into,
                head,
                tail,
            }),
            fabric::Output::Pin { buf, blocks } => out.list.push(Output::Pin { buf, blocks }),
            fabric::Output::Unpin { buf, blocks } => {
                let payload = Span { buf, blocks };
                if self.came.take(buf) {
                    out.list.push(Output::Release { payload });
                } else if !self.pool.give_back(payload) {
                    out.list.push(Output::Unpin { buf, blocks });
                }
            }
            fabric::Output::Place(value) => place(&value, out),
            fabric::Output::Reply { token, result, map } => {
                let first = out.map.len() as u32;
                let runs = &self.fabric.map()[map.start as usize..map.end as usize];
                out.map.extend_from_slice(runs);
                let map = first..out.map.len() as u32;
                out.list.push(Output::Reply { token, result, map });
            }
            fabric::Output::Map {
                piece,
                disk,
                at,
                count,
            } => {
                let op = self.new_op(Whose::Map(piece));
                match (op, self.disks.slot_of(disk)) {
                    // Another shard of this node has it, which is not asked: that all of it is data is never wrong.
                    (op, None) if self.is_of_node() => {
                        op.map(|op| self.ops.remove(op.0));
                        let all = MapRun {
                            len: u64::from(count) * CHUNK,
                            zero: false,
                            hole: false,
                        };
                        let result = Ok(&[all][..]);
                        self.tell(now, fabric::Input::Mapped { piece, result });
                    }
                    (Some(op), Some(slot)) => {
                        let input = store::Input::Map { op, at, count };
                        self.step_store(now, slot, input, out);
                    }
                    (op, _) => {
                        op.map(|op| self.ops.remove(op.0));
                        let result = Err(IoError::Failed);
                        self.tell(now, fabric::Input::Mapped { piece, result });
                    }
                }
            }
            fabric::Output::Mark {
                disk,
                pg,
                range,
                epoch,
                mark,
            } => {
                if let Some(slot) = self.disks.slot_of(disk) {
                    let input = store::Input::Mark {
                        pg,
                        range,
                        epoch,
                        mark,
                    };
                    self.step_store(now, slot, input, out);
                }
            }
            fabric::Output::Drained { volume } => {
                self.hand_out(fabric::Output::Drained { volume }, out);
                self.on_drained(now, volume, out);
            }
            fabric::Output::Send { .. }
            | fabric::Output::Report(_)
            | fabric::Output::Cut { .. }
            | fabric::Output::Settled { .. }
            | fabric::Output::Waits { .. }
            | fabric::Output::Paced { .. } => self.hand_out(output, out),
        }
    }

    /// A machine of the fabric asks something of a store.
    fn ask(&mut self, now: Time, (disk, pg): (DiskId, PgId), ask: StoreAsk, out: &mut Outbox) {
        let slot = self.disks.slot_of(disk);
        let asked = Asked::new((disk, slot.unwrap_or(DiskSlot(u16::MAX)), pg), ask, now);
        match (slot, self.asks.insert(asked)) {
            (None, Ok(key)) => self.end_ask(now, key, Outcome::Failed(Failure::Gone)),
            (Some(_), Ok(key)) if self.has_place(key) => self.give(now, key, out),
            (Some(_), Ok(key)) => self.waiting.push_back(key),
            (_, Err(asked)) => self.answer(now, asked, Outcome::Failed(Failure::Busy)),
        }
    }

    /// Whether an ask can be given to its store: it reads nothing, or there is a place to read to.
    fn has_place(&mut self, key: u32) -> bool {
        let Some(asked) = self.asks.get_mut(key) else {
            return true;
        };
        let blocks = asked.needs();
        if blocks == 0 {
            return true;
        }
        let place = self.pool.take(blocks);
        let is_there = place.is_some();
        if let Some(Span { buf, .. }) = place {
            // As many as are read: so many go with an answer.
            asked.read_into(self.fabric.holds().hold(Span { buf, blocks }));
        }
        is_there
    }

    fn give(&mut self, now: Time, key: u32, out: &mut Outbox) {
        let Some(op) = self.new_op(Whose::Ask(key)) else {
            return self.end_ask(now, key, Outcome::Failed(Failure::Busy));
        };
        let Some(asked) = self.asks.get(key) else {
            return debug_assert!(false, "an ask is given before it has ended");
        };
        let slot = asked.slot;
        let Some(disk) = self
            .disks
            .get_mut(slot)
            .filter(|disk| disk.id == asked.disk)
        else {
            self.ops.remove(op.0);
            return self.end_ask(now, key, Outcome::Failed(Failure::Gone));
        };
        // A store that takes no change any more needs no fence: nothing of an older epoch can be stored there either.
        let is_settled = matches!(asked.operation, Operation::Fence { .. }) && disk.is_read_only();
        let given = match is_settled {
            true => Err(Outcome::Stored),
            false => (asked.operation).give((asked.pg, op), |input| {
                disk.store.step(now, input, &mut out.store);
            }),
        };
        match given {
            Ok(()) => self.take_store_outputs(now, slot, out),
            Err(outcome) => {
                self.ops.remove(op.0);
                self.end_ask(now, key, outcome);
            }
        }
    }

    /// A store has answered an ask.
    fn answered(&mut self, now: Time, key: u32, answer: Answer) {
        let Some(asked) = self.asks.get_mut(key) else {
            return debug_assert!(false, "a store answers an ask once");
        };
        match asked.operation.end(answer) {
            Next::Again => self.again.push(key),
            Next::Ended(outcome) => self.end_ask(now, key, outcome),
        }
    }

    fn end_ask(&mut self, now: Time, key: u32, outcome: Outcome) {
        if let Some(asked) = self.asks.remove(key) {
            self.answer(now, asked, outcome);
        }
    }

    fn answer(&mut self, now: Time, asked: Asked, outcome: Outcome) {
        let (disk, pg) = (asked.disk, asked.pg);
        if outcome == Outcome::Failed(Failure::Torn) {
            self.tell(now, fabric::Input::Torn { disk, pg });
        }
        let replica = self.store(asked.slot).and_then(|store| store.replica(pg));
        let forgotten = operation::forgotten(replica);
        let took = now.since(asked.since);
        let answer = asked.answer(outcome, forgotten);
        let input = fabric::Input::Answered {
            disk,
            pg,
            answer,
            took,
        };
        self.tell(now, input);
    }

    pub(super) fn new_op(&mut self, whose: Whose) -> Option<StoreOp> {
        self.ops.insert(whose).ok().map(StoreOp)
    }

    /// Steps one store, and takes what it wants done.
    pub(super) fn step_store(
        &mut self,
        now: Time,
        slot: DiskSlot,
        input: store::Input<'_>,
        out: &mut Outbox,
    ) {
        let Some(disk) = self.disks.get_mut(slot) else {
            return;
        };
        disk.store.step(now, input, &mut out.store);
        self.take_store_outputs(now, slot, out);
    }

    pub(super) fn take_store_outputs(&mut self, now: Time, slot: DiskSlot, out: &mut Outbox) {
        let mut list = std::mem::take(&mut out.store.list);
        for output in list.drain(..) {
            self.take_store(now, slot, output, out);
        }
        out.store.list = list;
        if let Some((disk, room)) = self.disks.room_changed(slot) {
            self.tell(now, fabric::Input::Room { disk, room });
        }
        self.look_at_opening(now, slot, out);
    }

    fn take_store(&mut self, now: Time, slot: DiskSlot, output: store::Output, out: &mut Outbox) {
        #[cfg(feature = "sim")]
        if self.take_outside(&output, &out.store) {
            return;
        }
        let Some(disk) = self.disks.get(slot).map(|disk| disk.id) else {
            return;
        };
        match output {
            store::Output::Disk(op) => out.list.push(Output::Disk { disk: slot, op }),
            store::Output::Copy { from, to, blocks } => {
                out.list.push(Output::Copy { from, to, blocks });
            }
            store::Output::Fill { buf, blocks } => out.list.push(Output::Fill { buf, blocks }),
            store::Output::Pin { buf, blocks } => {
                if !self.pool.pin(buf, blocks) {
                    out.list.push(Output::Pin { buf, blocks });
                }
            }
            store::Output::Unpin { buf, blocks } => {
                if !self.pool.unpin(buf, blocks) {
                    out.list.push(Output::Unpin { buf, blocks });
                }
            }
            store::Output::Mapped { op, ref runs } => {
                let runs: &[MapRun] = &out.store.runs[runs.start as usize..runs.end as usize];
                if let Some(Whose::Map(piece)) = self.ops.remove(op.0) {
                    let result = Ok(runs);
                    self.tell(now, fabric::Input::Mapped { piece, result });
                }
            }
            store::Output::Damaged { pg, at, block, crc } => self.tell(
                now,
                fabric::Input::Damaged {
                    disk,
                    pg,
                    at,
                    block,
                    crc,
                },
            ),
            store::Output::Torn(torn) => {
                for pg in self.disks.torn_by(slot, torn) {
                    self.tell(now, fabric::Input::Torn { disk, pg });
                }
            }
            store::Output::Note(note) => out.list.push(Output::Note { disk: slot, note }),
            store::Output::Done { .. }
            | store::Output::Listed { .. }
            | store::Output::Fetched { .. }
            | store::Output::Loaded { .. }
            | store::Output::Looked { .. }
            | store::Output::Inspected { .. }
            | store::Output::Salvaged { .. } => {
                if let Some((op, answer)) = Answer::of(&output, &out.store) {
                    self.on_answer(now, op, answer, out);
                }
            }
        }
    }

    fn on_answer(&mut self, now: Time, op: StoreOp, answer: Answer, out: &mut Outbox) {
        match (self.ops.remove(op.0), answer) {
            (Some(Whose::Ask(key)), answer) => {
                let fenced = self.asks.get(key).and_then(Asked::fences);
                self.answered(now, key, answer);
                if let Some((slot, pg, version)) = fenced.filter(|_| !self.is_of_node()) {
                    // Its only replica is in sync, for ever: nobody will ask when a chunk was discarded (R20).
                    self.step_store(now, slot, store::Input::Forget { pg, version }, out);
                }
            }
            (Some(Whose::Task(task)), Answer::Done(result)) => {
                self.on_task_answered(now, task, result, out);
            }
            (Some(Whose::Map(piece)), Answer::Done(Err(why))) => {
                let result = Err(io_error(why));
                self.tell(now, fabric::Input::Mapped { piece, result });
            }
            (of, answer) => debug_assert!(false, "{answer:?} is no answer to {of:?}"),
        }
    }

    pub(super) fn task_mut(&mut self, task: u32) -> Option<&mut Task> {
        self.tasks.list.get_mut(task)
    }
}

/// Copies what was read to where it was asked for.
fn place(value: &Value, out: &mut Outbox) {
    let (run, into) = (value.run, value.into);
    let part = |first: u32| first - run.first();
    let zeroes = value.zeroes & run.mask();
    for zero in BlockRun::runs_of(zeroes) {
        let buf = into.plus(part(zero.first()));
        let blocks = zero.count();
        out.list.push(Output::Fill { buf, blocks });
    }
    let Some(from) = &value.from else {
        return debug_assert!(zeroes == run.mask(), "what is not zeroes is somewhere");
    };
    for data in BlockRun::runs_of(run.mask() & !zeroes) {
        let n = part(data.first());
        out.list.push(Output::Copy {
            from: from.at().plus(n),
            to: into.plus(n),
            blocks: data.count(),
        });
    }
}

/// What the simulator asks of stores past the coordinator, until a shard serves replicas itself.
#[cfg(feature = "sim")]
impl Shard {
    /// A name at the stores for an operation that the caller calls `name`.
    pub fn new_outside_op(&mut self, name: u64) -> Option<StoreOp> {
        self.new_op(Whose::Outside(name))
    }

    pub fn step_store_outside(
        &mut self,
        now: Time,
        slot: DiskSlot,
        input: store::Input<'_>,
        out: &mut Outbox,
    ) {
        self.step_store(now, slot, input, out);
        self.drain(now, out);
    }

    /// Whether an output answers somebody past the fabric.
    fn take_outside(&mut self, output: &store::Output, out: &store::Outbox) -> bool {
        let holding = |at: u32| out.holdings[at as usize];
        let (op, answer) = match *output {
            store::Output::Done { op, result } => (op, StoreAnswer::Done(result)),
            store::Output::Listed { op, found } => {
                let store::Found { chunks, more } = &out.lists[found as usize];
                let chunks = &out.chunks[chunks.start as usize..chunks.end as usize];
                (op, StoreAnswer::Listed(chunks.to_vec(), *more))
            }
            store::Output::Fetched { op, holding: at } => (op, StoreAnswer::Fetched(holding(at))),
            store::Output::Loaded { op, holding: at } => (op, StoreAnswer::Loaded(holding(at))),
            store::Output::Looked { op, takes } => (op, StoreAnswer::Looked(takes)),
            store::Output::Inspected { op, holding: at } => {
                (op, StoreAnswer::Inspected(at.map(holding)))
            }
            _ => return false,
        };
        let Some(&Whose::Outside(name)) = self.ops.get(op.0) else {
            return false;
        };
        self.ops.remove(op.0);
        self.store_answers.push((name, answer));
        true
    }

    /// The answers since the last time.
    pub fn take_store_answers(&mut self) -> Vec<(u64, StoreAnswer)> {
        std::mem::take(&mut self.store_answers)
    }
}

/// What a front end is told of a store's refusal.
fn io_error(error: StoreError) -> IoError {
    match error {
        StoreError::Damaged | StoreError::Torn | StoreError::DiskFailed => IoError::Failed,
        StoreError::NoSpace => IoError::NoSpace,
        StoreError::ReadOnly => IoError::ReadOnly,
        StoreError::Busy => IoError::Busy,
        StoreError::NotOpen | StoreError::NoSuchLayer | StoreError::BadSize => IoError::Closed,
    }
}
