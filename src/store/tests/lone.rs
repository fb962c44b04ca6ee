//! A store without a shard, over a disk in memory that can lose power after any operation.
//!
//! What is answered as durable is on the medium; of what is only cached a power cut keeps what a generator says. Reads see
//! both. Operations are carried out in the order in which they were asked.

use crate::base::{
    BLOCK, BlockNo, BlockRun, Breaks, BufId, BufRef, ChunkId, ChunkNo, Epoch, FamilyId, LayerId,
    PgId, Prng, Stamp, StoreId, Time, VolumeId, crc,
};
use crate::store::{
    Closing, DiskFault, DiskOp, Durability, Found, Holding, Input, IoData, LayerMeta, Note,
    Openings, Options, Outbox, Output, Plan, Span, Store, StoreError, StoreOp, Takes, Torn,
    VolumeMeta, WindowEntry, format,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub const DISK_BYTES: u64 = 12 << 20;
pub const PG: PgId = PgId(7);
pub const RANGE: VolumeId = VolumeId(1);
const SCRATCH: BufRef = BufRef {
    id: BufId(0),
    block: 0,
};

pub fn epoch(host: u32) -> Epoch {
    Epoch {
        host,
        ..Epoch::default()
    }
}

pub fn stamp(version: u32, sequence: u64) -> Stamp {
    Stamp {
        version,
        epoch: epoch(1),
        sequence,
    }
}

pub fn chunk(layer: u64, chunk: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(layer),
        chunk: ChunkNo(chunk),
    }
}

pub fn run(first: u32, count: u32) -> BlockRun {
    BlockRun::new(first, count).unwrap()
}

/// A fill: what it replaces, what of it is data and zeroes, the byte that the data consists of.
#[derive(Debug, Clone, Copy)]
pub struct Filling {
    pub blocks: u16,
    pub data: u16,
    pub zero: u16,
    pub fill: u8,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done(Result<(), StoreError>),
    Listed(Vec<(ChunkId, Stamp)>, Option<ChunkId>),
    Fetched(Holding),
    Loaded(Holding),
    Looked(Takes),
    Inspected(Option<Holding>),
    Salvaged(u16),
}

pub struct Lone {
    pub store: Store,
    /// What a power cut leaves for sure, and what is read.
    medium: Vec<u8>,
    view: Vec<u8>,
    cached: Vec<(u64, Vec<u8>)>,
    queue: VecDeque<(DiskOp, Vec<u8>)>,
    buffers: BTreeMap<u32, Vec<u8>>,
    pins: BTreeMap<u32, i64>,
    answers: BTreeMap<u32, Answer>,
    /// Places of the disk that cannot be read, by block.
    pub unreadable: BTreeSet<u64>,
    pub notes: Vec<Note>,
    /// What was told to be damaged, by layer, chunk and block: the checksum that it should have.
    pub damaged: BTreeMap<(u64, u64, u32), u32>,
    /// What was told to be torn.
    pub torn: BTreeSet<Torn>,
    next: u32,
    now: Time,
    /// Operations until the power is cut.
    pub cut_in: Option<u64>,
    pub dead: bool,
    prng: Prng,
}

impl Lone {
    /// A formatted store, open, with a volume of one layer.
    pub fn new() -> Lone {
        Lone::sized(DISK_BYTES)
    }

    /// The same on a disk of that length.
    pub fn sized(disk_bytes: u64) -> Lone {
        let plan = Plan {
            store: StoreId([7; 16]),
            instance_key: [9; 16],
            disk_bytes,
            journal_bytes: None,
            pages: Some(32),
        };
        let mut medium = vec![0; disk_bytes as usize];
        let formatted = format(&plan).unwrap();
        for (at, bytes) in formatted.writes.iter().chain(&formatted.superblocks) {
            medium[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        let mut lone = Lone::on(medium, 1);
        lone.put_volume(&[1]);
        lone
    }

    /// A store that opens on these bytes.
    pub fn on(medium: Vec<u8>, seed: u64) -> Lone {
        let options = Options {
            disk_bytes: medium.len() as u64,
            scratch: SCRATCH,
            scratch_blocks: 128,
            overlay_bytes: 1 << 20,
            zero_ahead: false,
            discard: true,
            entropy: [0; 16],
            breaks: Breaks::NONE,
        };
        let mut out = Outbox::default();
        let mut lone = Lone {
            store: Store::open(options, &mut out),
            view: medium.clone(),
            medium,
            cached: Vec::new(),
            queue: VecDeque::new(),
            buffers: [(0, vec![0; 128 * BLOCK as usize])].into(),
            pins: BTreeMap::new(),
            answers: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            notes: Vec::new(),
            damaged: BTreeMap::new(),
            torn: BTreeSet::new(),
            next: 1,
            now: Time(1),
            cut_in: None,
            dead: false,
            prng: Prng::new(seed),
        };
        lone.take(&mut out);
        lone.turn();
        lone
    }

    /// Cuts the power and opens what it leaves; of what is cached a random part is kept.
    pub fn reopen(mut self) -> Lone {
        for (at, bytes) in std::mem::take(&mut self.cached) {
            if self.prng.one_in(2) {
                self.medium[at as usize..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
        let lone = Lone::on(self.medium, self.prng.next_u64());
        assert!(lone.store.is_open(), "{:?}", lone.store.open_error());
        lone
    }

    /// What a power cut leaves of the disk for sure.
    pub fn image(&self) -> Vec<u8> {
        self.medium.clone()
    }

    /// Turns bits over in what is on the disk.
    pub fn rot(&mut self, offset: u64) {
        self.medium[offset as usize] ^= 0x55;
        self.view[offset as usize] ^= 0x55;
    }

    /// Where the first block that consists of this byte lies from the slots on, on the disk.
    pub fn place_of(&self, byte: u8) -> Option<u64> {
        let slots_at = self.store.superblock().geometry.slots_at;
        let blocks = self.view[slots_at as usize..].chunks(BLOCK as usize);
        let is_it = |block: &[u8]| block.iter().all(|found| *found == byte);
        let found = blocks.map(is_it).position(|found| found)?;
        Some(slots_at + found as u64 * BLOCK)
    }

    pub fn step(&mut self, input: Input<'_>) {
        if self.dead {
            return;
        }
        let mut out = Outbox::default();
        self.store.step(self.now, input, &mut out);
        self.take(&mut out);
    }

    fn take(&mut self, out: &mut Outbox) {
        for output in std::mem::take(&mut out.list) {
            match output {
                Output::Disk(op) => {
                    let bytes = self.gather(&op, &out.arena, &out.spans);
                    self.queue.push_back((op, bytes));
                }
                Output::Copy { from, to, blocks } => {
                    let bytes = self.blocks(from, blocks).to_vec();
                    self.blocks(to, blocks).copy_from_slice(&bytes);
                }
                Output::Fill { buf, blocks } => self.blocks(buf, blocks).fill(0),
                Output::Pin { buf, blocks } => {
                    *self.pins.entry(buf.id.0).or_default() += i64::from(blocks)
                }
                Output::Unpin { buf, blocks } => {
                    *self.pins.entry(buf.id.0).or_default() -= i64::from(blocks);
                }
                Output::Done { op, result } => self.answer(op, Answer::Done(result)),
                Output::Listed { op, found } => {
                    let Found { chunks, more } = out.lists[found as usize].clone();
                    let chunks = chunks.start as usize..chunks.end as usize;
                    self.answer(op, Answer::Listed(out.chunks[chunks].to_vec(), more));
                }
                Output::Fetched { op, holding } => {
                    self.answer(op, Answer::Fetched(out.holdings[holding as usize]));
                }
                Output::Loaded { op, holding } => {
                    self.answer(op, Answer::Loaded(out.holdings[holding as usize]));
                }
                Output::Looked { op, takes } => self.answer(op, Answer::Looked(takes)),
                Output::Inspected { op, holding } => {
                    let holding = holding.map(|at| out.holdings[at as usize]);
                    self.answer(op, Answer::Inspected(holding));
                }
                Output::Torn(torn) => {
                    self.torn.insert(torn);
                }
                Output::Mapped { .. } => {}
                Output::Salvaged { op, blocks } => self.answer(op, Answer::Salvaged(blocks)),
                Output::Damaged { pg, at, block, crc } => {
                    assert_eq!(pg, PG);
                    self.damaged.insert((at.layer.0, at.chunk.0, block), crc);
                }
                Output::Note(note) => self.notes.push(note),
            }
        }
    }

    fn answer(&mut self, op: StoreOp, answer: Answer) {
        let before = self.answers.insert(op.0, answer);
        assert!(before.is_none(), "an operation is answered once");
    }

    fn gather(&mut self, op: &DiskOp, arena: &[u8], spans: &[Span]) -> Vec<u8> {
        let DiskOp::Write { head, body, .. } = op else {
            return Vec::new();
        };
        let mut bytes = arena[head.start as usize..head.end as usize].to_vec();
        for span in &spans[body.start as usize..body.end as usize] {
            bytes.extend_from_slice(self.blocks(span.buf, span.blocks));
        }
        bytes
    }

    fn blocks(&mut self, at: BufRef, blocks: u32) -> &mut [u8] {
        let buffer = self.buffers.get_mut(&at.id.0).unwrap();
        &mut buffer[at.block as usize * 4096..][..blocks as usize * 4096]
    }

    /// Carries out what is asked of the disk until nothing more is; some time passes meanwhile.
    pub fn turn(&mut self) {
        for _ in 0..4 {
            self.step(Input::TurnEnded);
            while let Some((op, bytes)) = self.queue.pop_front() {
                if self.cut_in == Some(0) {
                    self.dead = true;
                }
                if self.dead {
                    return;
                }
                self.cut_in = self.cut_in.map(|left| left - 1);
                self.perform(op, bytes);
                self.step(Input::TurnEnded);
            }
        }
    }

    /// Turns until the journal is applied, and long enough for everything in the background.
    pub fn settle(&mut self) {
        for _ in 0..40 {
            self.turn();
            self.now = Time(self.now.0 + 1_000_000);
            if self.dead {
                return;
            }
            let mut out = Outbox::default();
            self.store.expire(self.now, &mut out);
            self.take(&mut out);
        }
    }

    /// What is cached is older than what is written durably to the same place.
    fn write_through(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        for (at, cached) in &mut self.cached {
            let from = offset.max(*at);
            let to = end.min(*at + cached.len() as u64);
            if from < to {
                let part = &bytes[(from - offset) as usize..(to - offset) as usize];
                cached[(from - *at) as usize..(to - *at) as usize].copy_from_slice(part);
            }
        }
    }

    fn is_readable(&self, offset: u64, len: u64) -> bool {
        let blocks = offset / BLOCK..(offset + len).div_ceil(BLOCK);
        self.unreadable.range(blocks).next().is_none()
    }

    fn perform(&mut self, op: DiskOp, bytes: Vec<u8>) {
        match op {
            DiskOp::Write {
                id,
                offset,
                durability,
                ..
            } => {
                self.view[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                for block in offset / BLOCK..(offset + bytes.len() as u64) / BLOCK {
                    self.unreadable.remove(&block);
                }
                match durability {
                    Durability::Durable => {
                        self.write_through(offset, &bytes);
                        self.medium[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                    }
                    Durability::Cached => self.cached.push((offset, bytes)),
                }
                let result = Ok(IoData::None);
                self.step(Input::DiskDone { id, result });
            }
            DiskOp::Flush { id } => {
                for (at, bytes) in std::mem::take(&mut self.cached) {
                    self.medium[at as usize..][..bytes.len()].copy_from_slice(&bytes);
                }
                let result = Ok(IoData::None);
                self.step(Input::DiskDone { id, result });
            }
            DiskOp::ReadMeta { id, offset, len } => {
                let bytes = self.view[offset as usize..][..len as usize].to_vec();
                let result = match self.is_readable(offset, u64::from(len)) {
                    true => Ok(IoData::Bytes(&bytes)),
                    false => Err(DiskFault::Medium),
                };
                self.step(Input::DiskDone { id, result });
            }
            DiskOp::ReadBlocks {
                id,
                offset,
                buf,
                blocks,
                layer,
                first,
            } => {
                let bytes = self.view[offset as usize..][..blocks as usize * 4096].to_vec();
                self.blocks(buf, blocks).copy_from_slice(&bytes);
                let crcs = crcs(layer, first, &bytes);
                let result = match self.is_readable(offset, u64::from(blocks) * BLOCK) {
                    true => Ok(IoData::Crcs(&crcs)),
                    false => Err(DiskFault::Medium),
                };
                self.step(Input::DiskDone { id, result });
            }
            DiskOp::CheckBlocks {
                id,
                offset,
                blocks,
                layer,
                first,
            } => {
                let bytes = &self.view[offset as usize..][..blocks as usize * 4096];
                let crcs = crcs(layer, first, bytes);
                let result = match self.is_readable(offset, u64::from(blocks) * BLOCK) {
                    true => Ok(IoData::Crcs(&crcs)),
                    false => Err(DiskFault::Medium),
                };
                self.step(Input::DiskDone { id, result });
            }
            DiskOp::Discard { id, offset, len } => {
                // A device may return anything afterwards.
                self.view[offset as usize..][..len as usize].fill(0xdd);
                self.cached.push((offset, vec![0xdd; len as usize]));
                let result = Ok(IoData::None);
                self.step(Input::DiskDone { id, result });
            }
            DiskOp::ZeroRun { id, .. } => {
                let result = Ok(IoData::None);
                self.step(Input::DiskDone { id, result });
            }
        }
    }

    /// A name for an operation.
    pub fn op(&mut self) -> StoreOp {
        self.next += 1;
        StoreOp(self.next)
    }

    /// What became of an operation, where it was answered.
    pub fn answered(&mut self, op: StoreOp) -> Option<Answer> {
        self.answers.remove(&op.0)
    }

    /// Turns, and says how an operation ended.
    pub fn end(&mut self, op: StoreOp) -> Result<(), StoreError> {
        self.turn();
        match self.answered(op) {
            Some(Answer::Done(result)) => result,
            None if self.dead => Err(StoreError::DiskFailed),
            other => panic!("{other:?}"),
        }
    }

    pub fn put_volume(&mut self, layers: &[u64]) {
        let layer = |(n, &id): (usize, &u64)| LayerMeta {
            id: LayerId(id),
            parent: n.checked_sub(1).map(|n| LayerId(layers[n])),
            frozen: n + 1 < layers.len(),
        };
        let volume = VolumeMeta {
            id: RANGE,
            family: FamilyId(1),
            name: "v".into(),
            size: 64 << 20,
            layers: layers.iter().enumerate().map(layer).collect(),
        };
        let op = self.op();
        self.step(Input::PutVolume { op, volume });
        assert_eq!(self.end(op), Ok(()));
    }

    /// A buffer of a chunk whose blocks consist of this byte.
    fn buffer(&mut self, byte: u8) -> BufRef {
        let id = self.buffers.len() as u32;
        self.buffers.insert(id, vec![byte; 16 * BLOCK as usize]);
        BufRef {
            id: BufId(id),
            block: 0,
        }
    }

    /// Begins to write; the blocks consist of `fill`.
    pub fn begin_write(&mut self, at: ChunkId, run: BlockRun, fill: u8, stamp: Stamp) -> StoreOp {
        let (op, buf) = (self.op(), self.buffer(fill));
        let crcs: Vec<u32> = run.blocks().map(|block| crc_of(at, block, fill)).collect();
        self.step(Input::Write {
            op,
            at,
            run,
            buf,
            crcs: &crcs,
            pg: PG,
            range: Some(RANGE),
            stamp,
        });
        op
    }

    pub fn write(&mut self, at: ChunkId, run: BlockRun, fill: u8, stamp: Stamp) {
        let op = self.begin_write(at, run, fill, stamp);
        let result = self.end(op);
        assert!(result.is_ok() || self.dead, "{result:?}");
    }

    pub fn zero(&mut self, at: ChunkId, run: BlockRun, stamp: Stamp) {
        let op = self.op();
        let (pg, range) = (PG, Some(RANGE));
        self.step(Input::Zero {
            op,
            at,
            run,
            pg,
            range,
            stamp,
        });
        let result = self.end(op);
        assert!(result.is_ok() || self.dead, "{result:?}");
    }

    pub fn fence(&mut self, version: u32, session: u32, host: u32) {
        let op = self.op();
        let fences = vec![(RANGE, epoch(host))];
        self.step(Input::Fence {
            op,
            pg: PG,
            version,
            session,
            fences,
        });
        let result = self.end(op);
        assert!(result.is_ok() || self.dead, "{result:?}");
    }

    pub fn mark(&mut self, host: u32, mark: u64) {
        self.step(Input::Mark {
            pg: PG,
            range: RANGE,
            epoch: epoch(host),
            mark,
        });
    }

    pub fn begin_fill(
        &mut self,
        at: ChunkId,
        what: Filling,
        stamp: Stamp,
        window: &[WindowEntry],
    ) -> StoreOp {
        let (op, buf) = (self.op(), self.buffer(what.fill));
        let crcs = std::array::from_fn(|block| crc_of(at, block as u32, what.fill));
        self.step(Input::Fill {
            op,
            at,
            pg: PG,
            blocks: what.blocks,
            data: what.data,
            zero: what.zero,
            buf,
            crcs: &crcs,
            stamp,
            range: Some(RANGE),
            window,
        });
        op
    }

    pub fn fill(&mut self, at: ChunkId, what: Filling, stamp: Stamp) {
        let op = self.begin_fill(at, what, stamp, &[]);
        let result = self.end(op);
        assert!(result.is_ok() || self.dead, "{result:?}");
    }

    /// What the layer holds, and the byte that each data block consists of.
    pub fn fetch(&mut self, at: ChunkId) -> Result<(Holding, [u8; 16]), StoreError> {
        let (op, buf) = (self.op(), self.buffer(0xee));
        self.step(Input::Fetch { op, at, buf });
        self.turn();
        match self.answered(op) {
            Some(Answer::Fetched(holding)) => {
                let bytes = self.blocks(buf, 16).to_vec();
                let mut fills = [0; 16];
                for block in (0..16).filter(|block| holding.data & (1 << block) != 0) {
                    let block_bytes = &bytes[block * 4096..][..4096];
                    fills[block] = block_bytes[0];
                    let crc = crc::of_block(at.layer, at.chunk.block(block as u32), block_bytes);
                    assert_eq!(crc, holding.crcs[block], "block {block} of {at:?}");
                }
                Ok((holding, fills))
            }
            Some(Answer::Done(Err(why))) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    /// Reads blocks as seen from the layer: the byte that each consists of.
    pub fn read(&mut self, at: ChunkId, run: BlockRun) -> Result<Vec<u8>, StoreError> {
        let (op, buf) = (self.op(), self.buffer(0xee));
        self.step(Input::Read { op, at, run, buf });
        self.end(op)?;
        let bytes = self.blocks(buf, run.count());
        Ok(bytes.chunks(4096).map(|block| block[0]).collect())
    }

    /// All chunks that were changed above `since`, asked for `max` at a time.
    pub fn list(&mut self, since: u32, max: u32) -> Result<Vec<(ChunkId, Stamp)>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let op = self.op();
            self.step(Input::List {
                op,
                pg: PG,
                since,
                after,
                max,
            });
            self.turn();
            match self.answered(op) {
                Some(Answer::Listed(chunks, more)) => {
                    assert!(chunks.len() <= max as usize);
                    all.extend(chunks);
                    if more.is_none() {
                        return Ok(all);
                    }
                    after = more;
                }
                Some(Answer::Done(Err(why))) => return Err(why),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks, and returns what was answered.
    pub fn ask(&mut self, make: impl FnOnce(StoreOp) -> Input<'static>) -> Option<Answer> {
        let op = self.op();
        self.step(make(op));
        self.turn();
        self.answered(op)
    }

    /// Whether data in a chunk would take a slot.
    pub fn look(&mut self, at: ChunkId) -> Takes {
        match self.ask(|op| Input::Look { op, at }) {
            Some(Answer::Looked(takes)) => takes,
            other => panic!("{other:?}"),
        }
    }

    /// What the table has of a chunk.
    pub fn inspect(&mut self, at: ChunkId) -> Option<Holding> {
        match self.ask(|op| Input::Inspect { op, at }) {
            Some(Answer::Inspected(holding)) => holding,
            other => panic!("{other:?}"),
        }
    }

    /// Reads blocks as another node does: the byte that each consists of, zeroes among them, and which those are. Checksums are held against the layer.
    pub fn load(&mut self, at: ChunkId, run: BlockRun) -> Result<(Vec<u8>, u16), StoreError> {
        let (op, buf) = (self.op(), self.buffer(0xee));
        self.step(Input::Load { op, at, run, buf });
        self.turn();
        match self.answered(op) {
            Some(Answer::Loaded(found)) => {
                assert_eq!(found.data | found.zero, run.mask());
                assert_eq!(found.data & found.zero, 0);
                let bytes = self.blocks(buf, run.count()).to_vec();
                for (n, block) in run.blocks().enumerate() {
                    let bytes = &bytes[n * 4096..][..4096];
                    let crc = crc::of_block(at.layer, at.chunk.block(block), bytes);
                    let is_data = found.data & (1 << block) != 0;
                    assert!(!is_data || crc == found.crcs[block as usize], "{block}");
                    assert!(is_data || bytes.iter().all(|byte| *byte == 0), "{block}");
                }
                Ok((
                    bytes.chunks(4096).map(|block| block[0]).collect(),
                    found.zero,
                ))
            }
            Some(Answer::Done(Err(why))) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    pub fn put_openings(&mut self, last: u64, recorded: u64) {
        let openings = Openings { last, recorded };
        let op = self.op();
        self.step(Input::PutOpenings { op, openings });
        let result = self.end(op);
        assert!(result.is_ok() || self.dead, "{result:?}");
    }

    /// Begins to mend blocks with bytes that consist of `fill`, and say so.
    pub fn begin_mend(&mut self, at: ChunkId, blocks: u16, fill: u8) -> StoreOp {
        let (op, buf) = (self.op(), self.buffer(fill));
        let crcs = std::array::from_fn(|block| crc_of(at, block as u32, fill));
        let crcs = &crcs;
        self.step(Input::Mend {
            op,
            at,
            blocks,
            crcs,
            buf,
        });
        op
    }

    pub fn mend(&mut self, at: ChunkId, blocks: u16, fill: u8) {
        let op = self.begin_mend(at, blocks, fill);
        let result = self.end(op);
        assert!(result.is_ok() || self.dead, "{result:?}");
    }

    /// Asks for blocks that consist of `fill`; the mask of those that came, which really do.
    pub fn salvage(&mut self, at: ChunkId, blocks: u16, fill: u8) -> Result<u16, StoreError> {
        let (op, buf) = (self.op(), self.buffer(0xee));
        let crcs = std::array::from_fn(|block| crc_of(at, block as u32, fill));
        let crcs = &crcs;
        self.step(Input::Salvage {
            op,
            at,
            blocks,
            crcs,
            buf,
        });
        self.turn();
        match self.answered(op) {
            Some(Answer::Salvaged(got)) => {
                for block in (0..16).filter(|block| got & (1 << block) != 0) {
                    let bytes = self.blocks(buf.plus(block), 1);
                    assert!(bytes.iter().all(|byte| *byte == fill), "block {block}");
                }
                Ok(got)
            }
            Some(Answer::Done(Err(why))) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    /// Reads every block that is applied.
    pub fn scrub(&mut self) {
        let op = self.op();
        self.step(Input::Scrub { op });
        self.settle();
        assert_eq!(self.answered(op), Some(Answer::Done(Ok(()))));
    }

    pub fn drop_replica(&mut self) {
        let op = self.op();
        self.step(Input::DropReplica { op, pg: PG });
        let result = self.end(op);
        assert!(result.is_ok() || self.dead, "{result:?}");
    }

    pub fn checkpoint(&mut self) {
        let op = self.op();
        self.step(Input::Checkpoint { op });
        self.settle();
        let answer = self.answered(op);
        assert!(
            answer == Some(Answer::Done(Ok(()))) || self.dead,
            "{answer:?}"
        );
    }

    pub fn close(&mut self) {
        let op = self.op();
        let how = Closing::Whole;
        self.step(Input::Close { op, how });
        self.settle();
        assert_eq!(self.answered(op), Some(Answer::Done(Ok(()))));
        assert!(self.pins.values().all(|pins| *pins == 0), "{:?}", self.pins);
    }

    /// What the window of the range holds: sequence, chunk, blocks.
    pub fn window(&self) -> Vec<(u64, u64, u16)> {
        let replica = self.store.replica(PG);
        let range = replica.and_then(|replica| replica.range(RANGE));
        let seen = |entry: WindowEntry| (entry.stamp.sequence, entry.at.chunk.0, entry.blocks);
        range
            .into_iter()
            .flat_map(|range| range.window().map(seen))
            .collect()
    }
}

fn crc_of(at: ChunkId, block: u32, fill: u8) -> u32 {
    crc::of_block(at.layer, at.chunk.block(block), &[fill; BLOCK as usize])
}

fn crcs(layer: LayerId, first: BlockNo, bytes: &[u8]) -> Vec<u32> {
    let number = |n: usize| BlockNo(first.0 + n as u64);
    let blocks = bytes.chunks(BLOCK as usize).enumerate();
    blocks
        .map(|(n, block)| crc::of_block(layer, number(n), block))
        .collect()
}
