//! The shard as a machine: routes what the coordinator asks to the stores, and their answers back.

use super::control::{Task, Tasks};
use super::door::{Input, Outbox, Output};
use crate::base::{Breaks, DiskId, DiskSlot, Epoch, IoError, MapRun, Slab, Stamp, Time};
use crate::protocol::volume::{self, Ask, Coordinator, PieceId, Target};
use crate::store::{self, ChunkId, Levels, Stats, Store, StoreError, StoreOp};

/// Operations asked of all stores at once.
const OPS_MAX: usize = 1 << 21;
/// The version of every PG until replication changes them.
const FIRST_VERSION: u32 = 1;

/// Who is told when a store has answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asker {
    Piece(PieceId),
    Task(u32),
    /// Somebody past the coordinator, under a name of its own.
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

/// A disk and its store.
pub(super) struct Disk {
    pub id: DiskId,
    pub store: Store,
}

/// One core as one machine.
pub struct Shard {
    pub(super) coordinator: Coordinator,
    /// By their slots.
    pub(super) disks: Vec<Option<Disk>>,
    pub(super) ops: Slab<Asker>,
    pub(super) tasks: Tasks,
    /// What the coordinator wants done and is not done yet.
    pub(super) wanted: Vec<volume::Output>,
    #[cfg(feature = "sim")]
    store_answers: Vec<(u64, StoreAnswer)>,
}

impl Shard {
    pub fn new(breaks: Breaks) -> Shard {
        Shard {
            coordinator: Coordinator::new(breaks),
            disks: Vec::new(),
            ops: Slab::new(OPS_MAX),
            tasks: Tasks::default(),
            wanted: Vec::new(),
            #[cfg(feature = "sim")]
            store_answers: Vec::new(),
        }
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox) {
        match input {
            Input::Request(request) => self.coordinator.request(request, &mut self.wanted),
            Input::Checksummed { op, crcs } => {
                self.coordinator
                    .checksummed(PieceId(op), crcs, &mut self.wanted);
            }
            Input::Disk { disk, id, result } => {
                self.step_store(now, disk, store::Input::DiskDone { id, result }, out);
            }
            Input::Control { id, control } => self.on_control(now, id, control, out),
            Input::TurnEnded => {
                for slot in 0..self.disks.len() {
                    let slot = DiskSlot(slot as u16);
                    self.step_store(now, slot, store::Input::TurnEnded, out);
                }
            }
        }
        self.drain(now, out);
    }

    /// When [`Shard::expire`] is to be called, if nothing else happens first.
    pub fn deadline(&self) -> Option<Time> {
        self.disks
            .iter()
            .flatten()
            .filter_map(|disk| disk.store.deadline())
            .min()
    }

    /// The deadline has come.
    pub fn expire(&mut self, now: Time, out: &mut Outbox) {
        for slot in 0..self.disks.len() {
            let is_due = |disk: &Disk| disk.store.deadline().is_some_and(|at| at <= now);
            if let Some(disk) = self.disks[slot].as_mut().filter(|disk| is_due(disk)) {
                disk.store.expire(now, &mut out.store);
                self.take_store_outputs(DiskSlot(slot as u16), out);
            }
        }
        self.drain(now, out);
    }

    /// Requests that are admitted and not answered.
    pub fn in_flight(&self) -> usize {
        self.coordinator.in_flight()
    }

    /// What the store in `slot` counts and holds, with the disk's id.
    pub fn disk(&self, slot: DiskSlot) -> Option<(DiskId, Stats, Levels)> {
        let disk = self.disks.get(usize::from(slot.0))?.as_ref()?;
        Some((disk.id, disk.store.stats(), disk.store.levels()))
    }

    /// The store in `slot`.
    pub fn store(&self, slot: DiskSlot) -> Option<&Store> {
        self.disks
            .get(usize::from(slot.0))?
            .as_ref()
            .map(|disk| &disk.store)
    }

    /// Carries out what the coordinator wants, until it wants nothing more.
    pub(super) fn drain(&mut self, now: Time, out: &mut Outbox) {
        let mut at = 0;
        while at < self.wanted.len() {
            let wanted = self.wanted[at].clone();
            at += 1;
            match wanted {
                volume::Output::Ask { piece, target, ask } => {
                    self.ask(now, piece, target, &ask, out);
                }
                volume::Output::Fill { buf, blocks } => out.list.push(Output::Fill { buf, blocks }),
                volume::Output::Merge {
                    from,
                    into,
                    head,
                    tail,
                } => {
                    out.list.push(Output::Merge {
                        from,
                        into,
                        head,
                        tail,
                    });
                }
                volume::Output::Checksum {
                    piece,
                    buf,
                    blocks,
                    layer,
                    first,
                } => {
                    out.list.push(Output::Checksum {
                        op: piece.0,
                        buf,
                        blocks,
                        layer,
                        first,
                    });
                }
                volume::Output::Reply { token, result, map } => {
                    out.list.push(Output::Reply { token, result, map });
                }
                volume::Output::Drained { volume } => self.on_drained(now, volume, out),
                // On one host the layer changes when nothing is in flight on any shard.
                volume::Output::Cut { .. } => {}
            }
        }
        self.wanted.clear();
        self.close_if_quiet(now, out);
    }

    fn ask(&mut self, now: Time, piece: PieceId, target: Target, ask: &Ask, out: &mut Outbox) {
        let Some(op) = self.new_op(Asker::Piece(piece)) else {
            return self.answer_piece(piece, Err(IoError::Busy), &[], out);
        };
        let Target {
            disk,
            pg,
            family,
            layer,
            chunk,
        } = target;
        let at = ChunkId {
            family,
            layer,
            chunk,
        };
        let stamp = self.stamp(disk, ask.sequence());
        let input = match ask {
            Ask::Read { run, buf } => store::Input::Read {
                op,
                at,
                run: *run,
                buf: *buf,
            },
            Ask::Write { run, buf, crcs, .. } => {
                let crcs = &crcs[..run.count() as usize];
                store::Input::Write {
                    op,
                    at,
                    run: *run,
                    buf: *buf,
                    crcs,
                    pg,
                    range: None,
                    stamp,
                }
            }
            Ask::Zero { run, .. } => store::Input::Zero {
                op,
                at,
                run: *run,
                pg,
                range: None,
                stamp,
            },
            Ask::ZeroChunks { count, .. } => store::Input::ZeroChunks {
                op,
                at,
                count: *count,
                pg,
                range: None,
                stamp,
            },
            Ask::Map { count } => store::Input::Map {
                op,
                at,
                count: *count,
            },
        };
        self.step_store(now, disk, input, out);
    }

    /// The stamp of a write. A store's incarnation stands in for the host epoch until attachments
    /// take epochs: it grows with every start, so no number is used twice (R4).
    fn stamp(&self, disk: DiskSlot, sequence: u64) -> Stamp {
        let host = self
            .store(disk)
            .map_or(0, |store| store.superblock().incarnation as u32);
        let epoch = Epoch {
            generation: 0,
            site: 0,
            host,
        };
        Stamp {
            version: FIRST_VERSION,
            epoch,
            sequence,
        }
    }

    pub(super) fn new_op(&mut self, asker: Asker) -> Option<StoreOp> {
        self.ops.insert(asker).ok().map(StoreOp)
    }

    /// Steps one store, and takes what it wants done.
    pub(super) fn step_store(
        &mut self,
        now: Time,
        slot: DiskSlot,
        input: store::Input<'_>,
        out: &mut Outbox,
    ) {
        let Some(disk) = self
            .disks
            .get_mut(usize::from(slot.0))
            .and_then(Option::as_mut)
        else {
            return;
        };
        disk.store.step(now, input, &mut out.store);
        self.take_store_outputs(slot, out);
    }

    pub(super) fn take_store_outputs(&mut self, slot: DiskSlot, out: &mut Outbox) {
        let mut list = std::mem::take(&mut out.store.list);
        for output in list.drain(..) {
            match output {
                store::Output::Disk(op) => out.list.push(Output::Disk { disk: slot, op }),
                store::Output::Copy { from, to, blocks } => {
                    out.list.push(Output::Copy { from, to, blocks });
                }
                store::Output::Fill { buf, blocks } => out.list.push(Output::Fill { buf, blocks }),
                store::Output::Pin { buf, blocks } => out.list.push(Output::Pin { buf, blocks }),
                store::Output::Unpin { buf, blocks } => {
                    out.list.push(Output::Unpin { buf, blocks });
                }
                store::Output::Done { op, result } => self.on_done(op, result, &[], out),
                store::Output::Mapped { op, runs } => {
                    let runs = runs.start as usize..runs.end as usize;
                    let found: Vec<MapRun> = out.store.runs[runs].to_vec();
                    self.on_done(op, Ok(()), &found, out);
                }
                #[cfg(feature = "sim")]
                store::Output::Listed { op, found } => {
                    let store::Found { chunks, more } = out.store.lists[found as usize].clone();
                    let chunks = chunks.start as usize..chunks.end as usize;
                    let found = out.store.chunks[chunks].to_vec();
                    self.answer_outside(op, StoreAnswer::Listed(found, more));
                }
                #[cfg(feature = "sim")]
                store::Output::Fetched { op, holding } => {
                    let holding = out.store.holdings[holding as usize];
                    self.answer_outside(op, StoreAnswer::Fetched(holding));
                }
                #[cfg(feature = "sim")]
                store::Output::Loaded { op, holding } => {
                    let holding = out.store.holdings[holding as usize];
                    self.answer_outside(op, StoreAnswer::Loaded(holding));
                }
                #[cfg(feature = "sim")]
                store::Output::Looked { op, takes } => {
                    self.answer_outside(op, StoreAnswer::Looked(takes));
                }
                #[cfg(feature = "sim")]
                store::Output::Inspected { op, holding } => {
                    let holding = holding.map(|at| out.store.holdings[at as usize]);
                    self.answer_outside(op, StoreAnswer::Inspected(holding));
                }
                #[cfg(not(feature = "sim"))]
                store::Output::Listed { .. }
                | store::Output::Fetched { .. }
                | store::Output::Loaded { .. }
                | store::Output::Looked { .. }
                | store::Output::Inspected { .. } => {
                    debug_assert!(false, "nobody serves a replica yet");
                }
                store::Output::Salvaged { .. } => debug_assert!(false, "nobody salvages yet"),
                // One disk has no other replica; the note beside it is what people get.
                store::Output::Damaged { .. } | store::Output::Torn(_) => {}
                store::Output::Note(note) => out.list.push(Output::Note { disk: slot, note }),
            }
        }
        out.store.list = list;
        self.look_at_opening(slot, out);
    }

    fn on_done(
        &mut self,
        op: StoreOp,
        result: Result<(), StoreError>,
        runs: &[MapRun],
        out: &mut Outbox,
    ) {
        match self.ops.remove(op.0) {
            Some(Asker::Piece(piece)) => {
                self.answer_piece(piece, result.map_err(io_error), runs, out);
            }
            Some(Asker::Task(task)) => self.on_task_answered(task, result, out),
            #[cfg(feature = "sim")]
            Some(Asker::Outside(name)) => {
                self.store_answers.push((name, StoreAnswer::Done(result)));
            }
            None => debug_assert!(false, "a store answers an operation once"),
        }
    }

    fn answer_piece(
        &mut self,
        piece: PieceId,
        result: Result<(), IoError>,
        runs: &[MapRun],
        out: &mut Outbox,
    ) {
        self.coordinator
            .answered(piece, result, runs, &mut out.map, &mut self.wanted);
    }

    pub(super) fn task_mut(&mut self, task: u32) -> Option<&mut Task> {
        self.tasks.list.get_mut(task)
    }
}

/// What the simulator asks of stores past the coordinator, until a shard serves replicas itself.
#[cfg(feature = "sim")]
impl Shard {
    /// A name at the stores for an operation that the caller calls `name`.
    pub fn new_outside_op(&mut self, name: u64) -> Option<StoreOp> {
        self.new_op(Asker::Outside(name))
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

    fn answer_outside(&mut self, op: StoreOp, answer: StoreAnswer) {
        match self.ops.remove(op.0) {
            Some(Asker::Outside(name)) => self.store_answers.push((name, answer)),
            _ => debug_assert!(false, "only who is outside lists and fetches"),
        }
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
