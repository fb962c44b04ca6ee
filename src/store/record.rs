//! The records of a batch as bytes: one change each, of blocks, of a volume, or of a replica.
//!
//! Every record of blocks has the same 80 bytes in front: where, whose, and when. From them alone a window is made again
//! (see `replica`), so they name the range and carry the full stamp, replicated or not.

use super::codec::{Put, Take};
use super::door::{ChunkId, Epoch, Stamp, VolumeMeta, WindowEntry};
use super::page::NO_SLOT;
use super::root::{decode_volume, encode_volume, volume_len};
use crate::base::{BlockRun, CHUNKS_PER_EXTENT, ChunkNo, FamilyId, LayerId, PgId, VolumeId};

const RECORD_HEAD: usize = 80;

/// One change, as it stands in a header. Payload follows the header in the order of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// Blocks whose payload is in this batch; `slot` is where they are to be applied.
    Data {
        at: ChunkId,
        run: BlockRun,
        slot: u32,
        pg: PgId,
        range: Option<VolumeId>,
        stamp: Stamp,
        crcs: [u32; 16],
    },
    /// A whole chunk whose payload lies in `slot` already.
    Chunk {
        at: ChunkId,
        slot: u32,
        pg: PgId,
        range: Option<VolumeId>,
        stamp: Stamp,
        crcs: [u32; 16],
    },
    /// Blocks that read as zeroes from now on.
    Zero {
        at: ChunkId,
        run: BlockRun,
        pg: PgId,
        range: Option<VolumeId>,
        stamp: Stamp,
        empty: Empty,
    },
    /// `count` whole chunks of one extent that read as zeroes from now on.
    ZeroChunks {
        at: ChunkId,
        count: u32,
        pg: PgId,
        range: Option<VolumeId>,
        stamp: Stamp,
        empty: Empty,
    },
    PutVolume(Box<VolumeMeta>),
    DropVolume(VolumeId),
    Fill(Box<Fill>),
    Mend(Box<Mend>),
    Fence {
        pg: PgId,
        version: u32,
        session: u32,
        fences: Vec<(VolumeId, Epoch)>,
    },
    Mark {
        pg: PgId,
        range: VolumeId,
        epoch: Epoch,
        mark: u64,
        /// The joining session in which it was said.
        session: u32,
    },
    DropReplica(PgId),
}

/// What becomes of a chunk in which nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// Its entry goes: nobody asks when it was discarded.
    Forgotten,
    /// Its entry stays, with its stamp (R20).
    Tombstone,
}

/// Where the payload of a fill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// In its batch, one block behind the other.
    Batch,
    /// All 16 blocks of it, in its slot.
    Slot,
}

/// A chunk, or blocks of it, as another replica has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fill {
    pub at: ChunkId,
    pub pg: PgId,
    pub range: Option<VolumeId>,
    pub blocks: u16,
    pub data: u16,
    pub zero: u16,
    /// [`super::page::NO_SLOT`] where no block is data.
    pub slot: u32,
    pub stamp: Stamp,
    /// By the places of the blocks; 0 for those that are not data.
    pub crcs: [u32; 16],
    pub payload: Payload,
    pub empty: Empty,
    /// Of this chunk.
    pub window: Vec<WindowEntry>,
}

/// Blocks whose bytes were damaged, as another replica has them. It says nothing of when they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mend {
    pub at: ChunkId,
    pub pg: PgId,
    pub blocks: u16,
    /// By the places of the blocks; 0 for the others.
    pub crcs: [u32; 16],
}

impl Mend {
    /// What is asked; the PG is found when it is admitted.
    pub fn new(at: ChunkId, blocks: u16, crcs: &[u32; 16]) -> Mend {
        Mend {
            at,
            pg: PgId::default(),
            blocks,
            crcs: *crcs,
        }
        .of(blocks)
    }

    /// The same of some of its blocks.
    pub fn of(mut self, blocks: u16) -> Mend {
        self.blocks &= blocks;
        for (place, crc) in self.crcs.iter_mut().enumerate() {
            *crc *= u32::from(self.blocks >> place & 1);
        }
        self
    }
}

impl Fill {
    /// What is asked; slot and what becomes of an empty chunk are decided when it is admitted.
    pub fn new(
        at: ChunkId,
        (pg, range, stamp): (PgId, Option<VolumeId>, Stamp),
        (blocks, data, zero): (u16, u16, u16),
        crcs: &[u32; 16],
        window: &[WindowEntry],
    ) -> Fill {
        let data = data & blocks;
        let is_data = |place: usize| data & (1 << place) != 0;
        let whole = blocks == u16::MAX && data == u16::MAX;
        Fill {
            at,
            pg,
            range,
            blocks,
            data,
            zero: zero & blocks & !data,
            slot: NO_SLOT,
            stamp,
            crcs: std::array::from_fn(|place| if is_data(place) { crcs[place] } else { 0 }),
            payload: if whole { Payload::Slot } else { Payload::Batch },
            empty: Empty::Forgotten,
            window: window.to_vec(),
        }
    }

    /// Whether it has blocks, and no more of a window than a record takes.
    pub fn is_sane(&self) -> bool {
        self.blocks != 0 && self.window.len() <= FILL_WINDOW_MAX
    }

    /// Whether it leaves nothing of what the chunk was, so that it takes a slot of its own.
    pub fn is_whole(&self) -> bool {
        self.blocks == u16::MAX
    }
}

const DATA: u8 = 1;
const CHUNK: u8 = 2;
const ZERO: u8 = 3;
const ZERO_CHUNKS: u8 = 4;
const PUT_VOLUME: u8 = 5;
const DROP_VOLUME: u8 = 6;
const FILL: u8 = 7;
const FENCE: u8 = 8;
const MARK: u8 = 9;
const DROP_REPLICA: u8 = 10;
const MEND: u8 = 11;
/// The bit of a record's flags that says that an empty chunk leaves a tombstone.
const TOMBSTONE: u8 = 1;
/// The bit of a fill's flags that says that its payload is in its slot.
const IN_SLOT: u8 = 2;
/// The bytes of a window's entry in a fill, and of a fence.
const WINDOW_ENTRY: usize = 32;
const FENCE_BYTES: usize = 24;
/// Fences that one record raises: 24 KiB.
pub(super) const FENCES_MAX: usize = 1024;
/// Entries of a window that one fill brings: each block has one newest write.
pub(super) const FILL_WINDOW_MAX: usize = 16;

impl Record {
    /// The bytes that this record takes in a header.
    pub fn len(&self) -> usize {
        let body = match self {
            Record::Data { run, .. } => RECORD_HEAD + run.count() as usize * 4,
            Record::Chunk { .. } => RECORD_HEAD + 64,
            Record::Zero { .. } | Record::ZeroChunks { .. } => RECORD_HEAD,
            Record::PutVolume(volume) => 8 + volume_len(volume),
            Record::DropVolume(_) | Record::DropReplica(_) => 16,
            Record::Fill(fill) => fill_len(fill.data, fill.window.len()),
            Record::Mend(mend) => fill_len(mend.blocks, 0),
            Record::Fence { fences, .. } => 24 + fences.len() * FENCE_BYTES,
            Record::Mark { .. } => MARK_LEN,
        };
        body.next_multiple_of(8)
    }

    /// The chunk that it changes, or the first of them; with its PG.
    #[inline]
    pub fn place(&self) -> Option<(ChunkId, PgId)> {
        match self {
            Record::Data { at, pg, .. }
            | Record::Chunk { at, pg, .. }
            | Record::Zero { at, pg, .. }
            | Record::ZeroChunks { at, pg, .. } => Some((*at, *pg)),
            Record::Fill(fill) => Some((fill.at, fill.pg)),
            Record::Mend(mend) => Some((mend.at, mend.pg)),
            _ => None,
        }
    }

    /// The slot that it names.
    pub fn slot(&self) -> Option<u32> {
        match self {
            Record::Data { slot, .. } | Record::Chunk { slot, .. } => Some(*slot),
            Record::Fill(fill) => (fill.data != 0).then_some(fill.slot),
            _ => None,
        }
    }

    /// The payload blocks that follow the header for this record.
    pub fn payload_blocks(&self) -> u32 {
        match self {
            Record::Data { run, .. } => run.count(),
            Record::Fill(fill) if fill.payload == Payload::Batch => fill.data.count_ones(),
            Record::Mend(mend) => mend.blocks.count_ones(),
            _ => 0,
        }
    }

    /// The blocks of its chunk whose payload follows the header, in their order, each with its crc.
    pub fn payload(&self) -> impl Iterator<Item = (u32, u32)> {
        let (mask, crcs, by_place) = match self {
            Record::Data { run, crcs, .. } => (run.mask(), Some(crcs), false),
            Record::Fill(fill) if fill.payload == Payload::Batch => {
                (fill.data, Some(&fill.crcs), true)
            }
            Record::Mend(mend) => (mend.blocks, Some(&mend.crcs), true),
            _ => (0, None, false),
        };
        let blocks = BlockRun::runs_of(mask).flat_map(BlockRun::blocks);
        (0..).zip(blocks).filter_map(move |(n, block)| {
            let at = if by_place { block } else { n };
            Some((block, crcs?[at as usize]))
        })
    }

    pub fn encode(&self, put: &mut Put<'_>) {
        let start = put.0.len();
        let len = self.len();
        match self {
            Record::Data {
                at,
                run,
                slot,
                pg,
                range,
                stamp,
                crcs,
            } => {
                let kind = (DATA, run.first() as u8, run.count() as u8, 0);
                encode_head(put, kind, len, at, (*slot, *pg, *range), stamp);
                crcs[..run.count() as usize]
                    .iter()
                    .for_each(|&crc| put.u32(crc));
            }
            Record::Chunk {
                at,
                slot,
                pg,
                range,
                stamp,
                crcs,
            } => {
                encode_head(put, (CHUNK, 0, 16, 0), len, at, (*slot, *pg, *range), stamp);
                crcs.iter().for_each(|&crc| put.u32(crc));
            }
            Record::Zero {
                at,
                run,
                pg,
                range,
                stamp,
                empty,
            } => {
                let kind = (ZERO, run.first() as u8, run.count() as u8, empty.flag());
                encode_head(put, kind, len, at, (NO_SLOT, *pg, *range), stamp);
            }
            Record::ZeroChunks {
                at,
                count,
                pg,
                range,
                stamp,
                empty,
            } => {
                let kind = (ZERO_CHUNKS, 0, *count as u8, empty.flag());
                encode_head(put, kind, len, at, (NO_SLOT, *pg, *range), stamp);
            }
            Record::Fill(fill) => encode_fill(fill, len, put),
            Record::Mend(mend) => encode_mend(mend, len, put),
            Record::Fence {
                pg,
                version,
                session,
                fences,
            } => {
                put.u32(u32::from(FENCE));
                put.u32(len as u32);
                put.u32(pg.0);
                put.u32(*version);
                put.u32(*session);
                put.u32(fences.len() as u32);
                for (range, epoch) in fences {
                    put.u64(range.0);
                    encode_epoch(epoch, put);
                    put.u32(0);
                }
            }
            Record::Mark {
                pg,
                range,
                epoch,
                mark,
                session,
            } => {
                put.u32(u32::from(MARK));
                put.u32(len as u32);
                put.u32(pg.0);
                encode_epoch(epoch, put);
                put.u64(range.0);
                put.u64(*mark);
                put.u32(*session);
            }
            Record::DropReplica(pg) => {
                put.u32(u32::from(DROP_REPLICA));
                put.u32(len as u32);
                put.u32(pg.0);
            }
            Record::PutVolume(volume) => {
                put.u8(PUT_VOLUME);
                put.bytes(&[0; 3]);
                put.u32(len as u32);
                encode_volume(volume, put);
            }
            Record::DropVolume(volume) => {
                put.u8(DROP_VOLUME);
                put.bytes(&[0; 3]);
                put.u32(len as u32);
                put.u64(volume.0);
            }
        }
        put.pad_to(start, len);
    }

    pub fn decode(take: &mut Take<'_>) -> Option<Record> {
        let (kind, first, count, flags) = (take.u8()?, take.u8()?, take.u8()?, take.u8()?);
        let len = take.u32()? as usize;
        let mut take = Take::new(take.bytes(len.checked_sub(8)?)?);
        match kind {
            PUT_VOLUME => return Some(Record::PutVolume(Box::new(decode_volume(&mut take)?))),
            DROP_VOLUME => return Some(Record::DropVolume(VolumeId(take.u64()?))),
            FENCE => return decode_fence(&mut take),
            MARK => {
                return Some(Record::Mark {
                    pg: PgId(take.u32()?),
                    epoch: decode_epoch(&mut take)?,
                    range: VolumeId(take.u64()?),
                    mark: take.u64()?,
                    session: take.u32()?,
                });
            }
            DROP_REPLICA => return Some(Record::DropReplica(PgId(take.u32()?))),
            _ => {}
        }
        let (family, layer) = (FamilyId(take.u64()?), LayerId(take.u64()?));
        let at = ChunkId {
            family,
            layer,
            chunk: ChunkNo(take.u64()?),
        };
        // Beyond this the number of its extent has no 32 bits.
        if at.chunk.0 >= u64::from(CHUNKS_PER_EXTENT) << 32 {
            return None;
        }
        let (slot, pg, version) = (take.u32()?, PgId(take.u32()?), take.u32()?);
        let stamp = Stamp {
            version,
            epoch: decode_epoch(&mut take)?,
            sequence: take.u64()?,
        };
        let range = Some(VolumeId(take.u64()?)).filter(|range| range.0 != 0);
        let empty = match flags & TOMBSTONE {
            0 => Empty::Forgotten,
            _ => Empty::Tombstone,
        };
        if kind == FILL {
            let head = (at, pg, range, slot, stamp, empty);
            return Some(Record::Fill(Box::new(decode_fill(&mut take, head, flags)?)));
        }
        if kind == MEND {
            let blocks = take.u16()?;
            take.u16()?;
            take.u32()?;
            let crcs = decode_crcs(&mut take, blocks)?;
            return (blocks != 0).then(|| {
                Record::Mend(Box::new(Mend {
                    at,
                    pg,
                    blocks,
                    crcs,
                }))
            });
        }
        take.u64()?; // nothing yet
        let mut crcs = [0; 16];
        let mut read_crcs = |count: usize| -> Option<[u32; 16]> {
            for crc in &mut crcs[..count] {
                *crc = take.u32()?;
            }
            Some(crcs)
        };
        let run = BlockRun::new(u32::from(first), u32::from(count));
        Some(match kind {
            DATA => {
                let crcs = read_crcs(usize::from(count).min(16))?;
                Record::Data {
                    at,
                    run: run?,
                    slot,
                    pg,
                    range,
                    stamp,
                    crcs,
                }
            }
            CHUNK => Record::Chunk {
                at,
                slot,
                pg,
                range,
                stamp,
                crcs: read_crcs(16)?,
            },
            ZERO => Record::Zero {
                at,
                run: run?,
                pg,
                range,
                stamp,
                empty,
            },
            ZERO_CHUNKS => {
                let count = u32::from(count);
                let room = CHUNKS_PER_EXTENT - at.chunk.in_extent() as u32;
                if count == 0 || count > room {
                    return None;
                }
                Record::ZeroChunks {
                    at,
                    count,
                    pg,
                    range,
                    stamp,
                    empty,
                }
            }
            _ => return None,
        })
    }
}

impl Empty {
    fn flag(self) -> u8 {
        match self {
            Empty::Forgotten => 0,
            Empty::Tombstone => TOMBSTONE,
        }
    }
}

/// The bytes of a fill with these data blocks and so many entries of a window, a multiple of 8.
pub(super) fn fill_len(data: u16, window: usize) -> usize {
    let crcs = (data.count_ones() as usize * 4).next_multiple_of(8);
    RECORD_HEAD + crcs + window * WINDOW_ENTRY
}

/// The bytes of a mark.
pub(super) const MARK_LEN: usize = 48;

/// Appends what the records of a chunk have in common: 72 bytes, and 8 that only a fill has a use for.
fn encode_head(
    put: &mut Put<'_>,
    (kind, first, count, flags): (u8, u8, u8, u8),
    len: usize,
    at: &ChunkId,
    (slot, pg, range): (u32, PgId, Option<VolumeId>),
    stamp: &Stamp,
) {
    let start = put.0.len();
    put.u8(kind);
    put.u8(first);
    put.u8(count);
    put.u8(flags);
    put.u32(len as u32);
    put.u64(at.family.0);
    put.u64(at.layer.0);
    put.u64(at.chunk.0);
    put.u32(slot);
    put.u32(pg.0);
    encode_stamp(stamp, put);
    put.u64(range.map_or(0, |range| range.0));
    put.pad_to(start, RECORD_HEAD);
}

pub(super) fn encode_epoch(epoch: &Epoch, put: &mut Put<'_>) {
    put.u32(epoch.generation);
    put.u32(epoch.site);
    put.u32(epoch.host);
}

pub(super) fn decode_epoch(take: &mut Take<'_>) -> Option<Epoch> {
    Some(Epoch {
        generation: take.u32()?,
        site: take.u32()?,
        host: take.u32()?,
    })
}

/// A stamp: 24 bytes.
pub(super) fn encode_stamp(stamp: &Stamp, put: &mut Put<'_>) {
    put.u32(stamp.version);
    encode_epoch(&stamp.epoch, put);
    put.u64(stamp.sequence);
}

pub(super) fn decode_stamp(take: &mut Take<'_>) -> Option<Stamp> {
    Some(Stamp {
        version: take.u32()?,
        epoch: decode_epoch(take)?,
        sequence: take.u64()?,
    })
}

fn encode_fill(fill: &Fill, len: usize, put: &mut Put<'_>) {
    let in_slot = match fill.payload {
        Payload::Batch => 0,
        Payload::Slot => IN_SLOT,
    };
    let kind = (FILL, 0, 16, fill.empty.flag() | in_slot);
    let start = put.0.len();
    encode_head(
        put,
        kind,
        len,
        &fill.at,
        (fill.slot, fill.pg, fill.range),
        &fill.stamp,
    );
    put.0.truncate(start + RECORD_HEAD - 8);
    put.u16(fill.blocks);
    put.u16(fill.data);
    put.u16(fill.zero);
    put.u16(fill.window.len() as u16);
    encode_crcs(&fill.crcs, fill.data, put);
    put.pad_to(start, fill_len(fill.data, 0));
    for entry in &fill.window {
        encode_stamp(&entry.stamp, put);
        put.u64(u64::from(entry.blocks));
    }
}

fn encode_mend(mend: &Mend, len: usize, put: &mut Put<'_>) {
    let start = put.0.len();
    let stamp = Stamp::default();
    let whose = (NO_SLOT, mend.pg, None);
    encode_head(put, (MEND, 0, 16, 0), len, &mend.at, whose, &stamp);
    put.0.truncate(start + RECORD_HEAD - 8);
    put.u16(mend.blocks);
    put.pad_to(start, RECORD_HEAD);
    encode_crcs(&mend.crcs, mend.blocks, put);
}

/// Appends the crcs of the blocks of a mask.
fn encode_crcs(crcs: &[u32; 16], blocks: u16, put: &mut Put<'_>) {
    for block in BlockRun::runs_of(blocks).flat_map(BlockRun::blocks) {
        put.u32(crcs[block as usize]);
    }
}

/// Reads the crcs of the blocks of a mask, by their places, up to the next multiple of 8.
fn decode_crcs(take: &mut Take<'_>, blocks: u16) -> Option<[u32; 16]> {
    let mut crcs = [0; 16];
    for block in BlockRun::runs_of(blocks).flat_map(BlockRun::blocks) {
        crcs[block as usize] = take.u32()?;
    }
    if !blocks.count_ones().is_multiple_of(2) {
        take.u32()?;
    }
    Some(crcs)
}

type FillHead = (ChunkId, PgId, Option<VolumeId>, u32, Stamp, Empty);

fn decode_fill(take: &mut Take<'_>, head: FillHead, flags: u8) -> Option<Fill> {
    let (at, pg, range, slot, stamp, empty) = head;
    let (blocks, data, zero) = (take.u16()?, take.u16()?, take.u16()?);
    let entries = usize::from(take.u16()?);
    let payload = match flags & IN_SLOT {
        0 => Payload::Batch,
        _ => Payload::Slot,
    };
    let fits = (data | zero) & !blocks == 0 && data & zero == 0;
    let placed = payload == Payload::Batch || data == u16::MAX;
    if !fits || !placed || blocks == 0 || entries > FILL_WINDOW_MAX {
        return None;
    }
    let crcs = decode_crcs(take, data)?;
    let mut window = Vec::with_capacity(entries);
    for _ in 0..entries {
        let (stamp, blocks) = (decode_stamp(take)?, take.u64()? as u16);
        window.push(WindowEntry { at, blocks, stamp });
    }
    Some(Fill {
        at,
        pg,
        range,
        blocks,
        data,
        zero,
        slot,
        stamp,
        crcs,
        payload,
        empty,
        window,
    })
}

fn decode_fence(take: &mut Take<'_>) -> Option<Record> {
    let (pg, version, session) = (PgId(take.u32()?), take.u32()?, take.u32()?);
    let count = take.u32()? as usize;
    if count > FENCES_MAX {
        return None;
    }
    let mut fences = Vec::with_capacity(count);
    for _ in 0..count {
        fences.push((VolumeId(take.u64()?), decode_epoch(take)?));
        take.u32()?;
    }
    Some(Record::Fence {
        pg,
        version,
        session,
        fences,
    })
}
