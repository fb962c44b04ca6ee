//! One node: a shard and its disks, and the duties of the driver between them.
//!
//! The node does what `shard::door` and `store::door` number as the driver's duties, and decides nothing: outputs are
//! carried out in their order, completions come back in the order of the latencies that the disks drew.
//! The power can be cut between any two outputs. What leaves for whoever drives the node
//! is kept in `happened`, in order.

use super::buffers::{Buffers, Misuse};
use super::checkers::intact::Damage;
use super::checkers::{Checker, Failure, bounded, pins};
use super::clock::Agenda;
use super::disk::{Disk, Ticket};
use super::trace::Trace;
use crate::base::{
    BLOCK, BlockNo, Breaks, BufRef, IoError, LayerId, MapRun, Slab, Time, Token, crc,
};
use crate::shard::{ControlError, ControlId, DiskSlot, Input, Outbox, Output, Shard, StoreAnswer};
use crate::store::{self, DiskFault, DiskOp, IoData, IoId, Levels, Note, Span, Store, StoreOp};
use std::collections::VecDeque;
use std::time::Duration;

/// What a node drives: the shard, or a toy in the simulator's own tests.
pub trait Machine {
    fn born(breaks: Breaks) -> Self;
    fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox);
    fn deadline(&self) -> Option<Time>;
    fn expire(&mut self, now: Time, out: &mut Outbox);
    /// What the store of a disk holds, where it says that.
    fn levels(&self, _disk: DiskSlot) -> Option<Levels> {
        None
    }
    /// The store of a disk.
    fn store(&self, _disk: DiskSlot) -> Option<&Store> {
        None
    }
    /// A name at the stores for an operation that is asked past the coordinator; answered with `name`.
    fn new_store_op(&mut self, _name: u64) -> Option<StoreOp> {
        None
    }
    /// Steps the store of a disk past the coordinator.
    fn step_store(&mut self, _: Time, _: DiskSlot, _: store::Input<'_>, _: &mut Outbox) {}
    /// What the stores have answered to such operations.
    fn take_store_answers(&mut self) -> Vec<(u64, StoreAnswer)> {
        Vec::new()
    }
}

impl Machine for Shard {
    fn born(breaks: Breaks) -> Shard {
        Shard::alone(breaks)
    }
    fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox) {
        Shard::step(self, now, input, out);
    }
    fn deadline(&self) -> Option<Time> {
        Shard::deadline(self)
    }
    fn expire(&mut self, now: Time, out: &mut Outbox) {
        Shard::expire(self, now, out);
    }
    fn levels(&self, disk: DiskSlot) -> Option<Levels> {
        self.disk(disk).map(|(_, _, levels)| levels)
    }
    fn store(&self, disk: DiskSlot) -> Option<&Store> {
        Shard::store(self, disk)
    }
    fn new_store_op(&mut self, name: u64) -> Option<StoreOp> {
        self.new_outside_op(name)
    }
    fn step_store(&mut self, now: Time, disk: DiskSlot, input: store::Input<'_>, out: &mut Outbox) {
        self.step_store_outside(now, disk, input, out);
    }
    fn take_store_answers(&mut self) -> Vec<(u64, StoreAnswer)> {
        Shard::take_store_answers(self)
    }
}

/// What left the shard for its users.
#[derive(Debug)]
pub enum Happened {
    Replied {
        token: Token,
        result: Result<(), IoError>,
        map: Vec<MapRun>,
    },
    Controlled {
        id: ControlId,
        result: Result<(), ControlError>,
    },
    Noted(Note),
    /// Of an operation that was asked of a store past the coordinator.
    Answered {
        name: u64,
        answer: StoreAnswer,
    },
}

/// Payload that is being read: where from, where to (nowhere, where it is only checked), and what it should be.
#[derive(Debug, Clone, Copy)]
struct Payload {
    offset: u64,
    buf: Option<BufRef>,
    blocks: u32,
    layer: LayerId,
    first: BlockNo,
}

/// Memory of the shard's own: so little that requests wait for it.
const LENT_BLOCKS: u32 = 256;

type Crcs = Result<Vec<u32>, DiskFault>;

#[derive(Debug)]
enum Flight {
    /// A write with the payload that must stay as it is, a discard or a flush.
    Write(Ticket, Vec<Span>),
    /// A read, with its outcome where it took effect when it began.
    Read(Payload, Option<Crcs>),
    Meta {
        offset: u64,
        len: u32,
    },
}

#[derive(Debug)]
struct InFlight {
    disk: DiskSlot,
    id: IoId,
    flight: Flight,
}

/// One node.
pub struct Node<M> {
    shard: M,
    pub disks: Vec<Disk>,
    pub buffers: Buffers,
    pub damage: Damage,
    pub trace: Trace,
    pub happened: Vec<Happened>,
    /// After so many outputs the power is cut.
    pub cut_in: Option<u64>,
    /// The power was cut: nothing that the shard says is carried out any more.
    pub dead: bool,
    /// How often the shard was stepped.
    pub steps: u64,
    now: Time,
    agenda: Agenda,
    flights: Slab<InFlight>,
    out: Outbox,
    /// Answers to `Output::Checksum` that have not been given.
    checksums: VecDeque<(u32, Vec<u32>)>,
    idle_expiries: u32,
    /// Space for metadata that is read.
    metadata: Vec<u8>,
}

impl<M: Machine> Node<M> {
    pub fn new(disks: Vec<Disk>, breaks: Breaks, trace: Trace) -> Node<M> {
        let mut node = Node {
            shard: M::born(breaks),
            disks,
            buffers: Buffers::default(),
            damage: Damage::default(),
            trace,
            happened: Vec::new(),
            cut_in: None,
            dead: false,
            steps: 0,
            now: Time(1_000_000),
            agenda: Agenda::new(),
            flights: Slab::new(bounded::FLIGHTS_MAX),
            out: Outbox::default(),
            checksums: VecDeque::new(),
            idle_expiries: 0,
            metadata: Vec::new(),
        };
        node.lend();
        node
    }

    /// Lends a new shard its memory.
    fn lend(&mut self) {
        let id = self.buffers.take(LENT_BLOCKS);
        let id = id.expect("nothing else has any buffer");
        let buf = BufRef { id, block: 0 };
        let input = Input::Memory {
            buf,
            blocks: LENT_BLOCKS,
        };
        self.shard.step(self.now, input, &mut self.out);
    }

    pub fn now(&self) -> Time {
        self.now
    }

    /// How many operations the disks carry out.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// What the stores hold, where they say it.
    pub fn levels(&self) -> impl Iterator<Item = Levels> {
        let slots = (0..self.disks.len()).map(|n| DiskSlot(n as u16));
        slots.filter_map(|slot| self.shard.levels(slot))
    }

    /// When something happens next, if nothing is asked.
    pub fn next(&self) -> Option<Time> {
        let due = [self.agenda.next(), self.shard.deadline()];
        due.into_iter().flatten().min()
    }

    /// Goes forward in time and delivers what has ended by then.
    pub fn advance(&mut self, to: Time) -> Result<(), Failure> {
        self.now = self.now.max(to);
        while !self.dead
            && let Some(key) = self.agenda.pop(self.now)
        {
            let ended = self.flights.remove(key).expect("an event has its flight");
            self.deliver(ended)?;
        }
        Ok(())
    }

    /// Ends a turn: tells the shard, and that its deadline has come where it has.
    pub fn end_turn(&mut self) -> Result<(), Failure> {
        self.step(Input::TurnEnded)?;
        let due = |at: &Time| *at <= self.now;
        if self.dead || self.shard.deadline().filter(due).is_none() {
            self.idle_expiries = 0;
            return Ok(());
        }
        self.idle_expiries += 1;
        if self.idle_expiries > 1_000_000 {
            let what = "the deadline has passed, and expiring does not move it";
            return Err(Failure::new(Checker::Answered, what));
        }
        self.steps += 1;
        self.trace
            .event(self.now, [1, 0, 0, 0], || "expire".to_string());
        self.shard.expire(self.now, &mut self.out);
        self.drain()
    }

    /// Steps the shard and carries out what it says.
    pub fn step(&mut self, input: Input<'_>) -> Result<(), Failure> {
        if self.dead {
            return Ok(());
        }
        self.record_input(&input);
        self.shard.step(self.now, input, &mut self.out);
        self.steps += 1;
        self.drain()?;
        while let Some((op, crcs)) = self.checksums.pop_front() {
            if self.dead {
                break;
            }
            let input = Input::Checksummed { op, crcs: &crcs };
            self.shard.step(self.now, input, &mut self.out);
            self.steps += 1;
            self.drain()?;
        }
        Ok(())
    }

    /// Asks a store past the coordinator; answered with `name`.
    pub fn ask_store<'a>(
        &mut self,
        disk: DiskSlot,
        name: u64,
        make: impl FnOnce(StoreOp) -> store::Input<'a>,
    ) -> Result<(), Failure> {
        if self.dead {
            return Ok(());
        }
        let op = self.shard.new_store_op(name);
        self.tell_store(disk, make(op.expect("a store takes so many operations")))
    }

    /// Tells a store past the coordinator what it does not answer.
    pub fn tell_store(&mut self, disk: DiskSlot, input: store::Input<'_>) -> Result<(), Failure> {
        if self.dead {
            return Ok(());
        }
        self.trace
            .event(self.now, [40, u64::from(disk.0), 0, 0], || {
                format!("{input:?}")
            });
        self.shard.step_store(self.now, disk, input, &mut self.out);
        self.steps += 1;
        self.drain()
    }

    /// The store of a disk.
    pub fn store(&self, disk: DiskSlot) -> Option<&Store> {
        self.shard.store(disk)
    }

    /// Cuts the power: the shard and its buffers are gone, the disks keep what they keep, and a new
    /// shard is born. `quiet` cuts with nothing to lose are meant to lose nothing.
    pub fn cut_power(&mut self, breaks: Breaks) {
        self.shard = M::born(breaks);
        self.disks.iter_mut().for_each(Disk::cut_power);
        self.buffers.forget();
        self.agenda.clear();
        self.flights = Slab::new(bounded::FLIGHTS_MAX);
        self.out.clear();
        self.checksums.clear();
        self.damage.metadata = false;
        self.damage.disk_failed = false;
        self.damage.journal = false;
        // What it has lost stays lost.
        self.damage.youngest_lost |= self.disks.iter().any(|disk| disk.youngest_lost);
        self.dead = false;
        self.cut_in = None;
        self.idle_expiries = 0;
        self.lend();
        self.trace
            .event(self.now, [2, 0, 0, 0], || "---- power cut".to_string());
    }

    fn record_input(&mut self, input: &Input<'_>) {
        let numbers = match input {
            Input::Request(request) => [3, request.token.0, request.offset, request.len],
            Input::Checksummed { op, .. } => [4, u64::from(*op), 0, 0],
            Input::Disk { disk, id, result } => {
                [5, id.0, u64::from(disk.0), u64::from(result.is_ok())]
            }
            Input::Control { id, .. } => [6, id.0, 0, 0],
            Input::TurnEnded => [7, 0, 0, 0],
            Input::Memory { blocks, .. } => [8, u64::from(*blocks), 0, 0],
            Input::Order { number, .. } => [31, *number, 0, 0],
            Input::Frame { disk, .. } => [32, u64::from(disk.0), 0, 0],
        };
        self.trace.event(self.now, numbers, || match input {
            Input::Disk { disk, id, result } => match result {
                Ok(_) => format!("disk {} {id:?} ended", disk.0),
                Err(fault) => format!("disk {} {id:?} failed: {fault:?}", disk.0),
            },
            Input::TurnEnded => "turn ended".to_string(),
            other => format!("{other:?}"),
        });
    }

    fn drain(&mut self) -> Result<(), Failure> {
        let mut out = std::mem::take(&mut self.out);
        let mut drained = Ok(());
        for output in out.list.drain(..) {
            drained = self.perform(output, &out.store, &out.map);
            if drained.is_err() || self.power_is_cut() {
                break;
            }
        }
        out.clear();
        self.out = out;
        // What goes with an answer (a copy, say) may not have been carried out when the power went.
        if !self.dead {
            for (name, answer) in self.shard.take_store_answers() {
                let now = self.now;
                self.trace
                    .event(now, [41, name, 0, 0], || format!("    {name}: {answer:?}"));
                self.happened.push(Happened::Answered { name, answer });
            }
        }
        drained
    }

    fn power_is_cut(&mut self) -> bool {
        match &mut self.cut_in {
            Some(0) if self.disks.iter().all(Disk::settled) => self.dead = true,
            Some(0) | None => {}
            Some(left) => *left -= 1,
        }
        self.dead
    }

    fn perform(
        &mut self,
        output: Output,
        store: &crate::store::Outbox,
        map: &[MapRun],
    ) -> Result<(), Failure> {
        self.record_output(&output);
        match output {
            Output::Disk { disk, op } => return self.begin(disk, op, store),
            Output::Merge {
                from,
                into,
                head,
                tail,
            } => self.merge(from, into, head as usize, tail as usize),
            Output::Checksum {
                op,
                buf,
                blocks,
                layer,
                first,
            } => self.buffers.bytes(buf, blocks).map(|bytes| {
                self.checksums
                    .push_back((op, checksums(bytes, layer, first)));
            }),
            Output::Copy { from, to, blocks } => self.copy(from, to, blocks),
            Output::Fill { buf, blocks } => self
                .buffers
                .bytes_mut(buf, blocks)
                .map(|bytes| bytes.fill(0)),
            Output::Pin { buf, blocks } => self.buffers.pin(buf, blocks),
            Output::Unpin { buf, blocks } => self.buffers.unpin(buf, blocks),
            Output::Release { .. } => unreachable!("no frame comes to a node that is alone"),
            Output::Reply {
                token,
                result,
                map: runs,
            } => {
                let map = map[runs.start as usize..runs.end as usize].to_vec();
                self.happened.push(Happened::Replied { token, result, map });
                Ok(())
            }
            Output::ControlDone { id, result } => {
                self.happened.push(Happened::Controlled { id, result });
                Ok(())
            }
            Output::Note { note, .. } => {
                self.happened.push(Happened::Noted(note));
                Ok(())
            }
        }
        .map_err(pins::failure)
    }

    fn record_output(&mut self, output: &Output) {
        let numbers = match output {
            Output::Disk { disk, op } => {
                let (kind, id, place) = match op {
                    DiskOp::Write { id, offset, .. } => (0, id, offset),
                    DiskOp::ReadBlocks { id, offset, .. } => (1, id, offset),
                    DiskOp::CheckBlocks { id, offset, .. } => (2, id, offset),
                    DiskOp::ReadMeta { id, offset, .. } => (3, id, offset),
                    DiskOp::Flush { id } => (4, id, &0),
                    DiskOp::Discard { id, offset, .. } => (5, id, offset),
                    DiskOp::ZeroRun { id, offset, .. } => (6, id, offset),
                };
                [8 + kind, u64::from(disk.0), id.0, *place]
            }
            Output::Reply { token, result, map } => {
                [20, token.0, u64::from(result.is_ok()), u64::from(map.end)]
            }
            Output::ControlDone { id, result } => [21, id.0, u64::from(result.is_ok()), 0],
            Output::Note { disk, .. } => [22, u64::from(disk.0), 0, 0],
            Output::Pin { buf, blocks } => [23, u64::from(buf.id.0), u64::from(*blocks), 0],
            Output::Unpin { buf, blocks } => [24, u64::from(buf.id.0), u64::from(*blocks), 0],
            Output::Release { payload } => [30, u64::from(payload.buf.id.0), 0, 0],
            Output::Merge { from, into, .. } => {
                [25, u64::from(from.block), u64::from(into.block), 0]
            }
            Output::Checksum { op, blocks, .. } => [26, u64::from(*op), u64::from(*blocks), 0],
            Output::Copy { from, to, blocks } => [
                27,
                u64::from(from.id.0),
                u64::from(to.id.0),
                u64::from(*blocks),
            ],
            Output::Fill { buf, blocks } => [28, u64::from(buf.id.0), u64::from(*blocks), 0],
        };
        self.trace
            .event(self.now, numbers, || format!("    {output:?}"));
    }

    fn merge(
        &mut self,
        from: BufRef,
        into: BufRef,
        head: usize,
        tail: usize,
    ) -> Result<(), Misuse> {
        let old = self.buffers.bytes(from, 1)?.to_vec();
        let new = self.buffers.bytes_mut(into, 1)?;
        new[..head].copy_from_slice(&old[..head]);
        let tail = old.len() - tail;
        new[tail..].copy_from_slice(&old[tail..]);
        Ok(())
    }

    fn copy(&mut self, from: BufRef, to: BufRef, blocks: u32) -> Result<(), Misuse> {
        let bytes = self.buffers.bytes(from, blocks)?.to_vec();
        self.buffers.bytes_mut(to, blocks)?.copy_from_slice(&bytes);
        Ok(())
    }

    /// Begins an operation of a disk.
    fn begin(
        &mut self,
        slot: DiskSlot,
        op: DiskOp,
        store: &crate::store::Outbox,
    ) -> Result<(), Failure> {
        let bytes = self.disks[slot.0 as usize].len();
        let disk = &mut self.disks[slot.0 as usize];
        let (id, flight, latency) = match op {
            DiskOp::Write {
                id,
                offset,
                head,
                body,
                durability,
                ..
            } => {
                let mut payload = store.arena[head.start as usize..head.end as usize].to_vec();
                let spans = store.spans[body.start as usize..body.end as usize].to_vec();
                for span in &spans {
                    let part = self
                        .buffers
                        .bytes(span.buf, span.blocks)
                        .map_err(pins::failure)?;
                    payload.extend_from_slice(part);
                }
                bounded::judge_place(offset, payload.len() as u64, bytes)?;
                let (ticket, latency) = disk.begin_write(offset, payload, durability);
                (id, Flight::Write(ticket, spans), latency)
            }
            DiskOp::ZeroRun { id, offset, len } => {
                bounded::judge_place(offset, len, bytes)?;
                let (ticket, latency) = disk.begin_zeroes(offset, len);
                (id, Flight::Write(ticket, Vec::new()), latency)
            }
            DiskOp::Discard { id, offset, len } => {
                bounded::judge_place(offset, len, bytes)?;
                let (ticket, latency) = disk.begin_discard(offset, len);
                (id, Flight::Write(ticket, Vec::new()), latency)
            }
            DiskOp::Flush { id } => {
                let (ticket, latency) = disk.begin_flush();
                (id, Flight::Write(ticket, Vec::new()), latency)
            }
            DiskOp::ReadBlocks {
                id,
                offset,
                buf,
                blocks,
                layer,
                first,
            } => {
                let buf = Some(buf);
                let payload = Payload {
                    offset,
                    buf,
                    blocks,
                    layer,
                    first,
                };
                return self.begin_read(slot, id, payload);
            }
            DiskOp::CheckBlocks {
                id,
                offset,
                blocks,
                layer,
                first,
            } => {
                let payload = Payload {
                    offset,
                    buf: None,
                    blocks,
                    layer,
                    first,
                };
                return self.begin_read(slot, id, payload);
            }
            DiskOp::ReadMeta { id, offset, len } => {
                bounded::judge_place(offset, u64::from(len), bytes)?;
                let latency = disk.read_latency(u64::from(len));
                (id, Flight::Meta { offset, len }, latency)
            }
        };
        self.fly(slot, id, flight, latency)
    }

    fn begin_read(&mut self, slot: DiskSlot, id: IoId, payload: Payload) -> Result<(), Failure> {
        let disk = &mut self.disks[slot.0 as usize];
        let len = u64::from(payload.blocks) * BLOCK;
        bounded::judge_place(payload.offset, len, disk.len())?;
        let latency = disk.read_latency(len);
        // As with writes: some take effect when they are begun.
        let early = latency.as_nanos().is_multiple_of(4);
        let crcs = match early {
            true => Some(self.read_payload(slot, &payload)?),
            false => None,
        };
        self.fly(slot, id, Flight::Read(payload, crcs), latency)
    }

    fn fly(
        &mut self,
        disk: DiskSlot,
        id: IoId,
        flight: Flight,
        latency: Duration,
    ) -> Result<(), Failure> {
        let key = self.flights.insert(InFlight { disk, id, flight });
        let key = key.map_err(|_| {
            let what = "more operations are in flight on the disks than a store may have";
            Failure::new(Checker::Bounded, what)
        })?;
        self.agenda.put(self.now + latency, key);
        Ok(())
    }

    fn deliver(&mut self, ended: InFlight) -> Result<(), Failure> {
        let InFlight { disk, id, flight } = ended;
        match flight {
            Flight::Write(ticket, spans) => {
                for span in &spans {
                    self.buffers
                        .bytes(span.buf, span.blocks)
                        .map_err(pins::failure)?;
                }
                let result = self.disks[disk.0 as usize]
                    .end(ticket)
                    .map(|()| IoData::None);
                self.damage.disk_failed |= result.is_err();
                self.step(Input::Disk { disk, id, result })
            }
            Flight::Read(payload, crcs) => {
                let crcs = match crcs {
                    Some(crcs) => crcs,
                    None => self.read_payload(disk, &payload)?,
                };
                let result = crcs.as_deref().map(IoData::Crcs).map_err(|fault| *fault);
                self.step(Input::Disk { disk, id, result })
            }
            Flight::Meta { offset, len } => {
                let mut bytes = std::mem::take(&mut self.metadata);
                bytes.resize(len as usize, 0);
                let read = self.disks[disk.0 as usize].read(offset, &mut bytes);
                self.damage.metadata |= !matches!(read, Ok(None));
                let result = read.map(|_| IoData::Bytes(&bytes));
                let stepped = self.step(Input::Disk { disk, id, result });
                self.metadata = bytes;
                stepped
            }
        }
    }

    /// Reads payload as it is on the disk now; what is damaged is noted.
    fn read_payload(&mut self, slot: DiskSlot, payload: &Payload) -> Result<Crcs, Failure> {
        let Payload {
            offset,
            buf,
            blocks,
            layer,
            first,
        } = *payload;
        let mut own = Vec::new();
        let bytes = match buf {
            Some(buf) => self.buffers.bytes_mut(buf, blocks).map_err(pins::failure)?,
            None => {
                own.resize(blocks as usize * BLOCK as usize, 0);
                &mut own
            }
        };
        let disk = &mut self.disks[slot.0 as usize];
        let read = disk.read(offset, bytes);
        if matches!(read, Ok(None)) {
            return Ok(Ok(checksums(bytes, layer, first)));
        }
        // Damage is noted block by block, so that it explains no error of a neighbour; a read that failed says
        // nothing of any of its blocks.
        for (n, block) in bytes.chunks_mut(BLOCK as usize).enumerate() {
            let alone = disk.read(offset + n as u64 * BLOCK, block);
            if read.is_err() || !matches!(alone, Ok(None)) {
                self.damage.block(layer, first.0 + n as u64);
            }
        }
        self.damage.disk_failed |= read == Err(DiskFault::Gone);
        Ok(read.map(|_| checksums(bytes, layer, first)))
    }
}

fn checksums(bytes: &[u8], layer: LayerId, first: BlockNo) -> Vec<u32> {
    let blocks = bytes.chunks(BLOCK as usize).enumerate();
    let crc = |(n, block): (usize, &[u8])| crc::of_block(layer, BlockNo(first.0 + n as u64), block);
    blocks.map(crc).collect()
}
