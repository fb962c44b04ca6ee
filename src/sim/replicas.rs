//! A replica on the first disk, beside the volumes: what `protocol::replication` asks of a store, asked at random, and
//! held against `checkers::replicas`.
//!
//! It has a volume of its own that no shard serves, so it goes to the store past the coordinator. Changes of several chunks are in flight
//! together, of one chunk one at a time; fences and drops only when nothing else is. Only disks that destroy nothing have
//! one: what damage does to a replica is told by the store's own tests.

use super::checkers::answered::Outstanding;
use super::checkers::replicas::{Block, Change, Fences, Model, crcs};
use super::checkers::{Checker, Failure};
use super::node::Machine;
use super::payload::Value;
use super::workload::draw_by_weight;
use super::world::World;
use crate::base::{
    BLOCK, BlockRun, BufId, BufRef, ChunkNo, FamilyId, LayerId, PgId, Prng, VolumeId, mix64,
};
use crate::shard::{DiskSlot, StoreAnswer};
use crate::store::{
    ChunkId, Epoch, Input, LayerMeta, Openings, Stamp, StoreError, StoreOp, VolumeMeta, WindowEntry,
};
use std::collections::BTreeSet;

const SLOT: DiskSlot = DiskSlot(0);
const PG: PgId = PgId(900);
const RANGE: VolumeId = VolumeId(1 << 40);
const FAMILY: FamilyId = FamilyId(1 << 40);
const LAYERS: [LayerId; 2] = [LayerId(1 << 40), LayerId((1 << 40) + 1)];
/// Chunks in each of so many extents.
const CHUNKS: u64 = 8;
const EXTENTS: u64 = 3;
/// Operations in flight.
const DEPTH: usize = 6;

/// What was asked of the replica and is not answered.
#[derive(Debug, Clone)]
enum Asked {
    Change {
        number: usize,
        at: Vec<ChunkId>,
        buf: Option<BufId>,
    },
    Fetch {
        at: ChunkId,
        buf: BufId,
        /// It was changed meanwhile: either may be seen.
        disturbed: bool,
    },
    List {
        since: u32,
        max: u32,
        found: Vec<(ChunkId, Stamp)>,
        /// Chunks that were changed since it began.
        changing: BTreeSet<ChunkId>,
    },
    /// What the table has of a chunk, or whether data there takes a slot.
    Inspect {
        at: ChunkId,
        disturbed: bool,
    },
    Look {
        at: ChunkId,
        disturbed: bool,
    },
    Load {
        at: ChunkId,
        run: BlockRun,
        buf: BufId,
        disturbed: bool,
    },
    Openings(Openings),
    /// A fence or a drop.
    Tell,
    Volume,
}

/// What is done when nothing is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Fence,
    Drop,
    Freeze,
}

/// The replica, and what is asked of it.
#[derive(Debug, Clone)]
pub struct ReplicaLoad {
    prng: Prng,
    /// For what is only looked at, and for openings.
    looks: Prng,
    pub model: Model,
    asked: Outstanding<Asked>,
    wanted: Option<Wanted>,
    /// How many layers the volume has, as was decided; and whether this life has told the store.
    layers: usize,
    is_put: bool,
    sequence: u64,
}

impl ReplicaLoad {
    pub fn new(mut prng: Prng) -> ReplicaLoad {
        ReplicaLoad {
            looks: Prng::new(mix64(prng.next_u64())),
            prng,
            model: Model::default(),
            asked: Outstanding::default(),
            wanted: None,
            layers: 1,
            is_put: false,
            sequence: 0,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    pub fn in_flight(&self) -> u64 {
        self.asked.len() as u64
    }

    pub fn power_cut(&mut self) {
        self.asked.forget().for_each(drop);
        self.model.power_cut();
        self.wanted = None;
        self.is_put = false;
    }

    /// The same, for the image of a disk.
    pub fn on_image(&self, prng: Prng) -> ReplicaLoad {
        let mut load = self.clone();
        load.prng = prng;
        load.power_cut();
        load
    }

    fn chunk(&mut self) -> ChunkId {
        let (extent, place) = (self.prng.below(EXTENTS), self.prng.below(CHUNKS));
        ChunkId {
            family: FAMILY,
            layer: LAYERS[self.layers - 1],
            chunk: ChunkNo(extent * 64 + place),
        }
    }

    fn mask(&mut self) -> u16 {
        match self.prng.below(3) {
            0 => u16::MAX,
            1 => 1 << self.prng.below(16),
            _ => self.prng.next_u64() as u16 | 1,
        }
    }
}

impl<M: Machine> World<M> {
    /// Judges fences and windows right after the disks were opened.
    pub(super) fn judge_replica(&mut self) -> Result<(), Failure> {
        let Some(load) = &mut self.replica else {
            return Ok(());
        };
        if let Some(store) = self.node.store(SLOT) {
            load.model.judge_openings(store.openings())?;
        }
        let found = self.node.store(SLOT).and_then(|store| store.replica(PG));
        load.model.judge_opened(RANGE, found)
    }

    /// The highest version of a tombstone that is said to be missing.
    fn let_go(&self) -> u32 {
        let store = self.node.store(SLOT);
        let replica = store.and_then(|store| store.replica(PG));
        replica.map_or(0, |replica| replica.let_go)
    }

    /// Asks something of the replica, now and then.
    pub(super) fn ask_replica(&mut self) -> Result<(), Failure> {
        let Some(mut load) = self.replica.take() else {
            return Ok(());
        };
        let mut asked = match load.prng.one_in(3) {
            true => self.ask_of(&mut load),
            false => Ok(()),
        };
        if asked.is_ok() && load.looks.one_in(6) {
            asked = self.look(&mut load);
        }
        self.replica = Some(load);
        asked
    }

    fn ask_of(&mut self, load: &mut ReplicaLoad) -> Result<(), Failure> {
        let alone = |asked: &Asked| matches!(asked, Asked::Tell | Asked::Volume);
        if self.node.dead || load.asked.len() >= DEPTH || load.asked.iter().any(alone) {
            return Ok(());
        }
        if !load.is_put {
            return match load.is_idle() {
                true => self.put_replica_volume(load),
                false => Ok(()),
            };
        }
        if load.model.fences.is_none() {
            load.wanted = Some(Wanted::Fence);
        }
        if let Some(wanted) = load.wanted {
            return match load.is_idle() {
                true => self.carry_out(load, wanted),
                false => Ok(()),
            };
        }
        let weights = [40, 8, 4, 16, 20, 4, 16, 2, 1, 1, 1];
        let drawn = draw_by_weight(&mut load.prng, &weights).unwrap_or(0);
        let at = load.chunk();
        match drawn {
            0..=3 if load.model.is_busy(at) => Ok(()),
            0..=3 if !load.model.is_settled(at) => self.fetch(load, at),
            0 => self.write(load, at),
            1 => self.zero(load, at),
            2 => self.zero_chunks(load, at),
            3 => self.fill(load, at),
            4 if load.model.is_busy(at) => Ok(()),
            4 => self.fetch(load, at),
            5 => self.list(load, None),
            6 => self.mark(load),
            8 => self.forget(load),
            drawn => {
                load.wanted = match drawn {
                    7 => Some(Wanted::Fence),
                    9 if load.prng.one_in(2) => Some(Wanted::Drop),
                    10 if load.layers == 1 => Some(Wanted::Freeze),
                    _ => None,
                };
                Ok(())
            }
        }
    }

    /// Looks at something, or tells which opening this is.
    fn look(&mut self, load: &mut ReplicaLoad) -> Result<(), Failure> {
        let alone = |asked: &Asked| matches!(asked, Asked::Tell | Asked::Volume);
        let is_full = load.asked.len() >= DEPTH || load.asked.iter().any(alone);
        if self.node.dead || is_full || !load.is_put || load.model.fences.is_none() {
            return Ok(());
        }
        let drawn = load.looks.below(8);
        let place = load.looks.below(EXTENTS) * 64 + load.looks.below(CHUNKS);
        let layer = LAYERS[load.looks.below(load.layers as u64) as usize];
        let at = ChunkId {
            family: FAMILY,
            layer,
            chunk: ChunkNo(place),
        };
        let disturbed = load.model.is_busy(at);
        match drawn {
            0..3 => {
                let asked = Asked::Inspect { at, disturbed };
                self.ask_store(load, asked, |op| Input::Inspect { op, at })
            }
            3..5 => {
                let asked = Asked::Look { at, disturbed };
                self.ask_store(load, asked, |op| Input::Look { op, at })
            }
            5..7 => {
                let Some(id) = self.node.buffers.take(16) else {
                    return Ok(());
                };
                let run = run_of(&mut load.looks);
                let buf = BufRef { id, block: 0 };
                let below = ChunkId {
                    layer: LAYERS[0],
                    ..at
                };
                let disturbed = disturbed || load.model.is_busy(below);
                let asked = Asked::Load {
                    at,
                    run,
                    buf: id,
                    disturbed,
                };
                self.ask_store(load, asked, |op| Input::Load { op, at, run, buf })
            }
            _ => self.put_openings(load),
        }
    }

    fn put_openings(&mut self, load: &mut ReplicaLoad) -> Result<(), Failure> {
        if load.model.openings_maybe.is_some() {
            return Ok(());
        }
        let Openings { last, recorded } = load.model.openings;
        let openings = match recorded < last && load.looks.one_in(2) {
            true => Openings {
                last,
                recorded: last,
            },
            false => Openings {
                last: last + 1,
                recorded,
            },
        };
        load.model.openings_maybe = Some(openings);
        let asked = Asked::Openings(openings);
        self.ask_store(load, asked, |op| Input::PutOpenings { op, openings })
    }

    fn ask_store(
        &mut self,
        load: &mut ReplicaLoad,
        asked: Asked,
        make: impl FnOnce(StoreOp) -> Input<'static>,
    ) -> Result<(), Failure> {
        let name = self.next_name;
        self.next_name += 1;
        self.idle_turns = 0;
        if let Asked::Change { at, .. } = &asked {
            note_changing(load, at);
        }
        load.asked.ask(name, self.node.now(), asked);
        self.node.ask_store(SLOT, name, make)
    }

    fn put_replica_volume(&mut self, load: &mut ReplicaLoad) -> Result<(), Failure> {
        load.is_put = true;
        let count = load.layers;
        let layer = |n: usize| LayerMeta {
            id: LAYERS[n],
            parent: n.checked_sub(1).map(|n| LAYERS[n]),
            frozen: n + 1 < count,
        };
        let volume = VolumeMeta {
            id: RANGE,
            family: FAMILY,
            name: "replica".into(),
            size: EXTENTS * 64 * 65536,
            layers: (0..count).map(layer).collect(),
        };
        self.ask_store(load, Asked::Volume, |op| Input::PutVolume { op, volume })
    }

    fn carry_out(&mut self, load: &mut ReplicaLoad, wanted: Wanted) -> Result<(), Failure> {
        load.wanted = None;
        match wanted {
            Wanted::Fence => self.fence(load),
            Wanted::Freeze => {
                load.layers = 2;
                self.put_replica_volume(load)
            }
            Wanted::Drop => {
                load.model.telling(None);
                self.ask_store(load, Asked::Tell, |op| Input::DropReplica { op, pg: PG })
            }
        }
    }

    fn fence(&mut self, load: &mut ReplicaLoad) -> Result<(), Failure> {
        let before = load.model.fences.unwrap_or(Fences {
            version: 0,
            session: 0,
            epoch: Epoch::default(),
        });
        let more = load.prng.below(3) as u32;
        let version = (before.version + more.min(1)).max(1);
        let session = match load.prng.below(4) {
            0 => version,
            1 => before.session,
            _ => 0,
        };
        let host = before.epoch.host + u32::from(more == 2 || before.epoch.host == 0);
        let epoch = Epoch {
            host,
            ..before.epoch
        };
        load.model.telling(Some(Fences {
            version,
            session,
            epoch,
        }));
        let fences = vec![(RANGE, epoch)];
        self.ask_store(load, Asked::Tell, |op| Input::Fence {
            op,
            pg: PG,
            version,
            session,
            fences,
        })
    }

    /// The stamp of the next change.
    fn next_stamp(load: &mut ReplicaLoad) -> Stamp {
        load.sequence += 1;
        let fences = load.model.fences;
        Stamp {
            version: fences.map_or(0, |fences| fences.version),
            epoch: fences.map_or(Epoch::default(), |fences| fences.epoch),
            sequence: load.sequence,
        }
    }

    /// A buffer that holds a value in all blocks of a chunk, with their crcs.
    fn filled(&mut self, at: ChunkId, value: Value) -> Result<Option<(BufId, [u32; 16])>, Failure> {
        let Some(buf) = self.node.buffers.take(16) else {
            return Ok(None);
        };
        let whole = BufRef { id: buf, block: 0 };
        let bytes = self.node.buffers.bytes_mut(whole, 16);
        let bytes = bytes.map_err(super::checkers::pins::failure)?;
        let first = at.chunk.block(0);
        value.fill(first.0 * BLOCK, bytes);
        Ok(Some((buf, crcs(at.layer, first, bytes))))
    }

    fn write(&mut self, load: &mut ReplicaLoad, at: ChunkId) -> Result<(), Failure> {
        let value = Value(mix64(self.next_name));
        let Some((buf, crcs)) = self.filled(at, value)? else {
            return Ok(());
        };
        let run = match load.prng.one_in(3) {
            true => BlockRun::WHOLE,
            false => run_of(&mut load.prng),
        };
        let (mask, stamp) = (run.mask(), Self::next_stamp(load));
        let change = Change::Write { mask, value };
        let number = load.model.change_began(&[at], change, stamp, Some(mask));
        let asked = Asked::Change {
            number,
            at: vec![at],
            buf: Some(buf),
        };
        let name = self.begin(load, asked);
        let buf = BufRef {
            id: buf,
            block: run.first(),
        };
        let crcs = &crcs[run.first() as usize..run.end() as usize];
        self.node.ask_store(SLOT, name, |op| Input::Write {
            op,
            at,
            run,
            buf,
            crcs,
            pg: PG,
            range: Some(RANGE),
            stamp,
        })
    }

    /// Notes what is asked; its name.
    fn begin(&mut self, load: &mut ReplicaLoad, asked: Asked) -> u64 {
        let name = self.next_name;
        self.next_name += 1;
        self.idle_turns = 0;
        if let Asked::Change { at, .. } = &asked {
            note_changing(load, at);
        }
        load.asked.ask(name, self.node.now(), asked);
        name
    }

    fn zeroes_into(load: &ReplicaLoad, at: ChunkId) -> Block {
        match load.layers > 1 && at.layer == LAYERS[1] {
            true => Block::Zero,
            false => Block::Absent,
        }
    }

    fn zero(&mut self, load: &mut ReplicaLoad, at: ChunkId) -> Result<(), Failure> {
        let run = match load.prng.one_in(2) {
            true => BlockRun::WHOLE,
            false => run_of(&mut load.prng),
        };
        let (mask, stamp) = (run.mask(), Self::next_stamp(load));
        let into = Self::zeroes_into(load, at);
        let change = Change::Zero { mask, into };
        let number = load.model.change_began(&[at], change, stamp, Some(mask));
        let (buf, range) = (None, Some(RANGE));
        let asked = Asked::Change {
            number,
            at: vec![at],
            buf,
        };
        self.ask_store(load, asked, |op| Input::Zero {
            op,
            at,
            run,
            pg: PG,
            range,
            stamp,
        })
    }

    fn zero_chunks(&mut self, load: &mut ReplicaLoad, at: ChunkId) -> Result<(), Failure> {
        let count = 1 + load.prng.below(CHUNKS - at.chunk.0 % 64) as u32;
        let chunks: Vec<ChunkId> = (0..u64::from(count))
            .map(|n| ChunkId {
                chunk: ChunkNo(at.chunk.0 + n),
                ..at
            })
            .collect();
        if !chunks.iter().all(|&at| load.model.is_settled(at)) {
            return Ok(());
        }
        let stamp = Self::next_stamp(load);
        let (mask, into) = (u16::MAX, Self::zeroes_into(load, at));
        let change = Change::Zero { mask, into };
        let number = load.model.change_began(&chunks, change, stamp, Some(mask));
        let (buf, range) = (None, Some(RANGE));
        let asked = Asked::Change {
            number,
            at: chunks,
            buf,
        };
        self.ask_store(load, asked, |op| Input::ZeroChunks {
            op,
            at,
            count,
            pg: PG,
            range,
            stamp,
        })
    }

    fn fill(&mut self, load: &mut ReplicaLoad, at: ChunkId) -> Result<(), Failure> {
        // Layers below are filled too.
        let layer = LAYERS[load.prng.below(load.layers as u64) as usize];
        let at = ChunkId { layer, ..at };
        if !load.model.is_settled(at) {
            return Ok(());
        }
        let value = Value(mix64(self.next_name));
        let Some((buf, crcs)) = self.filled(at, value)? else {
            return Ok(());
        };
        let mask = load.mask();
        let data = match load.prng.below(3) {
            0 => 0,
            1 => mask,
            _ => mask & load.prng.next_u64() as u16,
        };
        let zero = mask & !data & load.prng.next_u64() as u16;
        let mut stamp = Self::next_stamp(load);
        // What is in the source's window is new; the rest is as old as it may be.
        let in_window = load.prng.one_in(2);
        if !in_window {
            stamp.version = 1 + load.prng.below(u64::from(stamp.version)) as u32;
            stamp.sequence = 1 + load.prng.below(stamp.sequence);
        }
        let entry = WindowEntry {
            at,
            blocks: mask,
            stamp,
        };
        let window: &[WindowEntry] = if in_window { &[entry] } else { &[] };
        let change = Change::Fill {
            mask,
            data,
            zero,
            value,
        };
        let held = in_window.then_some(mask);
        let number = load.model.change_began(&[at], change, stamp, held);
        let asked = Asked::Change {
            number,
            at: vec![at],
            buf: Some(buf),
        };
        let name = self.begin(load, asked);
        let buf = BufRef { id: buf, block: 0 };
        self.node.ask_store(SLOT, name, |op| Input::Fill {
            op,
            at,
            pg: PG,
            blocks: mask,
            data,
            zero,
            buf,
            crcs: &crcs,
            stamp,
            range: Some(RANGE),
            window,
        })
    }

    fn fetch(&mut self, load: &mut ReplicaLoad, at: ChunkId) -> Result<(), Failure> {
        let Some(id) = self.node.buffers.take(16) else {
            return Ok(());
        };
        let buf = BufRef { id, block: 0 };
        let disturbed = load.model.is_busy(at);
        let asked = Asked::Fetch {
            at,
            buf: id,
            disturbed,
        };
        self.ask_store(load, asked, |op| Input::Fetch { op, at, buf })
    }

    fn list(
        &mut self,
        load: &mut ReplicaLoad,
        on: Option<(Asked, ChunkId)>,
    ) -> Result<(), Failure> {
        let version = load.model.fences.map_or(0, |fences| fences.version);
        let (asked, after) = match on {
            Some((asked, after)) => (asked, Some(after)),
            None => {
                let busy = |at: &ChunkId| load.model.is_busy(*at);
                let asked = Asked::List {
                    since: load.prng.below(u64::from(version) + 1) as u32,
                    max: 1 + load.prng.below(20) as u32,
                    found: Vec::new(),
                    changing: all_chunks().filter(busy).collect(),
                };
                (asked, None)
            }
        };
        let (since, max) = match asked {
            Asked::List { since, max, .. } => (since, max),
            _ => (0, 1),
        };
        self.ask_store(load, asked, |op| Input::List {
            op,
            pg: PG,
            since,
            after,
            max,
        })
    }

    fn mark(&mut self, load: &mut ReplicaLoad) -> Result<(), Failure> {
        let (mark, Some(fences)) = (load.model.mark_max(), load.model.fences) else {
            return Ok(());
        };
        if mark <= load.model.mark {
            return Ok(());
        }
        load.model.marked(mark);
        let (range, epoch) = (RANGE, fences.epoch);
        self.node.tell_store(
            SLOT,
            Input::Mark {
                pg: PG,
                range,
                epoch,
                mark,
            },
        )
    }

    fn forget(&mut self, load: &mut ReplicaLoad) -> Result<(), Failure> {
        let version = load.model.fences.map_or(0, |fences| fences.version);
        load.model.forgotten = load.model.forgotten.max(version);
        self.node
            .tell_store(SLOT, Input::Forget { pg: PG, version })
    }

    /// Gives everything back: the run is at its end.
    pub(super) fn drop_replica(&mut self) -> Result<(), Failure> {
        let Some(mut load) = self.replica.take() else {
            return Ok(());
        };
        load.model.telling(None);
        let dropped = self
            .ask_store(&mut load, Asked::Tell, |op| Input::DropReplica {
                op,
                pg: PG,
            })
            .and_then(|()| {
                let volume = RANGE;
                self.ask_store(&mut load, Asked::Volume, |op| Input::DropVolume {
                    op,
                    volume,
                })
            });
        load.is_put = true;
        self.replica = Some(load);
        dropped
    }

    /// The store answered.
    pub(super) fn replica_answered(
        &mut self,
        name: u64,
        answer: StoreAnswer,
    ) -> Result<(), Failure> {
        let Some(mut load) = self.replica.take() else {
            return Ok(());
        };
        let judged = self.judge_answer_of(&mut load, name, answer);
        self.replica = Some(load);
        judged
    }

    fn judge_answer_of(
        &mut self,
        load: &mut ReplicaLoad,
        name: u64,
        answer: StoreAnswer,
    ) -> Result<(), Failure> {
        let asked = load.asked.answer(name)?;
        if let StoreAnswer::Done(Err(why)) = answer
            && !matches!(
                why,
                StoreError::NoSpace | StoreError::Busy | StoreError::NotOpen
            )
        {
            let what = format!("{asked:?} failed ({why:?}), and no disk is to blame");
            return Err(Failure::new(Checker::Intact, what));
        }
        match (asked, answer) {
            (Asked::Change { number, at, buf }, StoreAnswer::Done(result)) => {
                if let Some(buf) = buf {
                    self.node.buffers.answered(buf);
                }
                note_changing(load, &at);
                load.model.change_ended(number, result.is_ok());
                Ok(())
            }
            (Asked::Fetch { at, buf, disturbed }, answer) => {
                let whole = BufRef { id: buf, block: 0 };
                let bytes = self.node.buffers.bytes(whole, 16);
                let bytes = bytes.map_err(super::checkers::pins::failure)?;
                let judged = match answer {
                    StoreAnswer::Fetched(holding) if !disturbed => {
                        let let_go = self.let_go();
                        load.model.judge_fetched(at, &holding, bytes, let_go)
                    }
                    _ => Ok(()),
                };
                self.node.buffers.answered(buf);
                judged
            }
            (
                Asked::List {
                    since,
                    max,
                    mut found,
                    changing,
                },
                StoreAnswer::Listed(chunks, more),
            ) => {
                found.extend(chunks);
                match more {
                    Some(after) => {
                        let asked = Asked::List {
                            since,
                            max,
                            found,
                            changing,
                        };
                        self.list(load, Some((asked, after)))
                    }
                    None => load.model.judge_listed(since, &found, &changing),
                }
            }
            (Asked::Inspect { at, disturbed }, StoreAnswer::Inspected(found)) => match disturbed {
                true => Ok(()),
                false => load
                    .model
                    .judge_inspected(at, found.as_ref(), self.let_go()),
            },
            (Asked::Look { at, disturbed }, StoreAnswer::Looked(takes)) => match disturbed {
                true => Ok(()),
                false => load.model.judge_looked(at, takes),
            },
            (
                Asked::Load {
                    at,
                    run,
                    buf,
                    disturbed,
                },
                answer,
            ) => {
                let from = BufRef { id: buf, block: 0 };
                let bytes = self.node.buffers.bytes(from, run.count());
                let bytes = bytes.map_err(super::checkers::pins::failure)?;
                let below = (at.layer == LAYERS[1]).then_some(LAYERS[0]);
                let judged = match answer {
                    StoreAnswer::Loaded(found) if !disturbed => {
                        load.model.judge_loaded((at, run), below, &found, bytes)
                    }
                    _ => Ok(()),
                };
                self.node.buffers.answered(buf);
                judged
            }
            (Asked::Openings(openings), StoreAnswer::Done(result)) => {
                load.model.openings_maybe = None;
                if result.is_ok() {
                    load.model.openings = openings;
                }
                Ok(())
            }
            (Asked::Tell, StoreAnswer::Done(Ok(()))) => {
                load.model.told();
                Ok(())
            }
            (_, StoreAnswer::Done(_)) => Ok(()),
            (asked, answer) => {
                let what = format!("{asked:?} was answered with {answer:?}");
                Err(Failure::new(Checker::Answered, what))
            }
        }
    }

    pub(super) fn judge_replica_waits(&self, stuck: bool) -> Result<(), Failure> {
        match &self.replica {
            Some(load) => load.asked.judge(self.node.now(), stuck),
            None => Ok(()),
        }
    }
}

/// Lists and fetches that are under way learn of chunks that are changed meanwhile.
fn note_changing(load: &mut ReplicaLoad, at: &[ChunkId]) {
    for asked in load.asked.iter_mut() {
        match asked {
            Asked::List { changing, .. } => changing.extend(at),
            Asked::Fetch {
                at: of, disturbed, ..
            }
            | Asked::Inspect { at: of, disturbed }
            | Asked::Look { at: of, disturbed } => *disturbed |= at.contains(of),
            // The layer below shows through.
            Asked::Load {
                at: of, disturbed, ..
            } => *disturbed |= at.iter().any(|at| at.chunk == of.chunk),
            _ => {}
        }
    }
}

fn all_chunks() -> impl Iterator<Item = ChunkId> {
    let numbers = (0..EXTENTS * CHUNKS).map(|n| ChunkNo(n / CHUNKS * 64 + n % CHUNKS));
    numbers.flat_map(|chunk| {
        LAYERS.map(|layer| ChunkId {
            family: FAMILY,
            layer,
            chunk,
        })
    })
}

fn run_of(prng: &mut Prng) -> BlockRun {
    let first = prng.below(16) as u32;
    let count = prng.between(1, u64::from(16 - first)) as u32;
    BlockRun::new(first, count).unwrap_or(BlockRun::WHOLE)
}
