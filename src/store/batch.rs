//! A journal batch as bytes: a header with its records, and behind it the payload of the small writes.
//!
//! The header is whole blocks, sealed; the payload is whole blocks, each covered by the crc in its record. A
//! batch is whole when both match. Headers form a chain (each carries the crc of the one before it), and
//! carry the store's instance key, so that nothing a guest writes can pass for one.

use super::codec::{Put, Take, seal, unseal};
use super::door::{ChunkId, Epoch, Stamp, VolumeMeta};
use super::root::{decode_volume, encode_volume, volume_len};
use crate::base::{
    BLOCK, BlockRun, CHUNKS_PER_EXTENT, ChunkNo, FamilyId, LayerId, PgId, StoreId, VolumeId,
};

const MAGIC: [u8; 8] = *b"SARSENJN";
const HEAD: usize = 128;
const RECORD_HEAD: usize = 80;
/// Payload blocks of one batch: 512 KiB, where a sequential write no longer gains by being longer.
pub(super) const PAYLOAD_BLOCKS_MAX: u32 = 128;
/// Bytes of one header with its records.
pub(super) const HEADER_LEN_MAX: usize = 64 * 1024;
/// Bytes of one batch.
pub(super) const BATCH_LEN_MAX: u64 = HEADER_LEN_MAX as u64 + PAYLOAD_BLOCKS_MAX as u64 * BLOCK;
/// The shortest ring: what is in flight, what a checkpoint waits for, and what goes on meanwhile.
pub(super) const JOURNAL_LEN_MIN: u64 = 8 * BATCH_LEN_MAX;

/// What a header says before its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub store: StoreId,
    pub instance_key: [u8; 16],
    pub batch: u64,
    /// Where in the ring this header lies, in bytes.
    pub offset: u64,
    /// The crc of the header of the batch before it.
    pub previous: u32,
    pub payload_blocks: u32,
    /// The oldest batch that replay would start from when this one was written.
    pub tail: u64,
    /// Every batch up to this one was durable when this one was written.
    pub durable_through: u64,
    pub incarnation: u64,
    /// The newest checkpoint when this one was written.
    pub checkpoint: u64,
}

/// One change, as it stands in a header. Payload follows the header in the order of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// Blocks whose payload is in this batch; `slot` is where they are to be applied.
    Data {
        at: ChunkId,
        run: BlockRun,
        slot: u32,
        pg: PgId,
        stamp: Stamp,
        crcs: [u32; 16],
    },
    /// A whole chunk whose payload lies in `slot` already.
    Chunk {
        at: ChunkId,
        slot: u32,
        pg: PgId,
        stamp: Stamp,
        crcs: [u32; 16],
    },
    /// Blocks that read as zeroes from now on.
    Zero {
        at: ChunkId,
        run: BlockRun,
        pg: PgId,
        stamp: Stamp,
    },
    /// `count` whole chunks of one extent that read as zeroes from now on.
    ZeroChunks {
        at: ChunkId,
        count: u32,
        pg: PgId,
        stamp: Stamp,
    },
    PutVolume(Box<VolumeMeta>),
    DropVolume(VolumeId),
}

const DATA: u8 = 1;
const CHUNK: u8 = 2;
const ZERO: u8 = 3;
const ZERO_CHUNKS: u8 = 4;
const PUT_VOLUME: u8 = 5;
const DROP_VOLUME: u8 = 6;

impl Record {
    /// The bytes that this record takes in a header.
    pub fn len(&self) -> usize {
        let body = match self {
            Record::Data { run, .. } => RECORD_HEAD + run.count() as usize * 4,
            Record::Chunk { .. } => RECORD_HEAD + 64,
            Record::Zero { .. } | Record::ZeroChunks { .. } => RECORD_HEAD,
            Record::PutVolume(volume) => 8 + volume_len(volume),
            Record::DropVolume(_) => 16,
        };
        body.next_multiple_of(8)
    }

    /// The payload blocks that follow the header for this record.
    pub fn payload_blocks(&self) -> u32 {
        match self {
            Record::Data { run, .. } => run.count(),
            _ => 0,
        }
    }

    fn encode(&self, put: &mut Put<'_>) {
        let start = put.0.len();
        let len = self.len();
        match self {
            Record::Data {
                at,
                run,
                slot,
                pg,
                stamp,
                crcs,
            } => {
                let place = (run.first() as u8, run.count() as u8);
                encode_head(put, (DATA, place.0, place.1), len, at, (*slot, *pg), stamp);
                crcs[..run.count() as usize]
                    .iter()
                    .for_each(|&crc| put.u32(crc));
            }
            Record::Chunk {
                at,
                slot,
                pg,
                stamp,
                crcs,
            } => {
                encode_head(put, (CHUNK, 0, 16), len, at, (*slot, *pg), stamp);
                crcs.iter().for_each(|&crc| put.u32(crc));
            }
            Record::Zero { at, run, pg, stamp } => {
                let place = (run.first() as u8, run.count() as u8);
                let no_slot = super::page::NO_SLOT;
                encode_head(
                    put,
                    (ZERO, place.0, place.1),
                    len,
                    at,
                    (no_slot, *pg),
                    stamp,
                );
            }
            Record::ZeroChunks {
                at,
                count,
                pg,
                stamp,
            } => {
                let no_slot = super::page::NO_SLOT;
                encode_head(
                    put,
                    (ZERO_CHUNKS, 0, *count as u8),
                    len,
                    at,
                    (no_slot, *pg),
                    stamp,
                );
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

    fn decode(take: &mut Take<'_>) -> Option<Record> {
        let (kind, first, count, _) = (take.u8()?, take.u8()?, take.u8()?, take.u8()?);
        let len = take.u32()? as usize;
        let mut take = Take::new(take.bytes(len.checked_sub(8)?)?);
        match kind {
            PUT_VOLUME => return Some(Record::PutVolume(Box::new(decode_volume(&mut take)?))),
            DROP_VOLUME => return Some(Record::DropVolume(VolumeId(take.u64()?))),
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
        let epoch = Epoch {
            generation: take.u32()?,
            site: take.u32()?,
            host: take.u32()?,
        };
        let stamp = Stamp {
            version,
            epoch,
            sequence: take.u64()?,
        };
        // Room for what replication adds: the joining session, the coordinator's mark (rules R16, R22).
        let (_session, _, _mark) = (take.u32()?, take.u32()?, take.u64()?);
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
                    stamp,
                    crcs,
                }
            }
            CHUNK => Record::Chunk {
                at,
                slot,
                pg,
                stamp,
                crcs: read_crcs(16)?,
            },
            ZERO => Record::Zero {
                at,
                run: run?,
                pg,
                stamp,
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
                    stamp,
                }
            }
            _ => return None,
        })
    }
}

/// Appends what the records of a chunk have in common: 80 bytes.
fn encode_head(
    put: &mut Put<'_>,
    (kind, first, count): (u8, u8, u8),
    len: usize,
    at: &ChunkId,
    (slot, pg): (u32, PgId),
    stamp: &Stamp,
) {
    let start = put.0.len();
    put.u8(kind);
    put.u8(first);
    put.u8(count);
    put.u8(0);
    put.u32(len as u32);
    put.u64(at.family.0);
    put.u64(at.layer.0);
    put.u64(at.chunk.0);
    put.u32(slot);
    put.u32(pg.0);
    put.u32(stamp.version);
    put.u32(stamp.epoch.generation);
    put.u32(stamp.epoch.site);
    put.u32(stamp.epoch.host);
    put.u64(stamp.sequence);
    put.pad_to(start, RECORD_HEAD);
}

/// The bytes of a header with records of `record_bytes` in all: whole blocks.
pub(super) fn header_len(record_bytes: usize) -> usize {
    (HEAD + record_bytes).next_multiple_of(BLOCK as usize)
}

/// Appends a header with its records; returns its crc.
pub(super) fn encode<'a>(
    header: &Header,
    records: impl ExactSizeIterator<Item = &'a Record>,
    out: &mut Vec<u8>,
) -> u32 {
    let start = out.len();
    let mut put = Put(out);
    put.bytes(&MAGIC);
    put.u32(0);
    put.u32(0); // the header's length, below
    put.bytes(&header.store.0);
    put.bytes(&header.instance_key);
    put.u64(header.batch);
    put.u64(header.offset);
    put.u32(header.previous);
    put.u32(header.payload_blocks);
    put.u64(header.tail);
    put.u64(header.durable_through);
    put.u64(header.incarnation);
    put.u64(header.checkpoint);
    put.u32(records.len() as u32);
    put.pad_to(start, HEAD);
    records.for_each(|record| record.encode(&mut put));
    let len = (put.0.len() - start).next_multiple_of(BLOCK as usize);
    put.pad_to(start, len);
    out[start + 12..start + 16].copy_from_slice(&(len as u32).to_le_bytes());
    seal(&mut out[start..])
}

/// How long the header that begins in `block` says it is; `None` where none begins there. Not yet checked.
pub(super) fn claimed_len(block: &[u8]) -> Option<usize> {
    let len = u32::from_le_bytes(block.get(12..16)?.try_into().ok()?) as usize;
    let plausible = len.is_multiple_of(BLOCK as usize) && (1..=HEADER_LEN_MAX).contains(&len);
    (block[..8] == MAGIC && plausible).then_some(len)
}

/// Whether `block` begins as a header does, damaged or not.
pub(super) fn begins_here(block: &[u8]) -> bool {
    block.starts_with(&MAGIC)
}

/// Reads a header that is `bytes` long: what it says, its crc, its records. `None` where it is damaged.
pub(super) fn decode(bytes: &[u8]) -> Option<(Header, u32, Vec<Record>)> {
    let crc = unseal(bytes, MAGIC)?;
    if claimed_len(bytes)? != bytes.len() {
        return None;
    }
    let mut take = Take::new(bytes.get(16..)?);
    let header = Header {
        store: take.id()?,
        instance_key: take.key()?,
        batch: take.u64()?,
        offset: take.u64()?,
        previous: take.u32()?,
        payload_blocks: take.u32()?,
        tail: take.u64()?,
        durable_through: take.u64()?,
        incarnation: take.u64()?,
        checkpoint: take.u64()?,
    };
    let count = take.u32()? as usize;
    if count > bytes.len() / 16 || header.payload_blocks > PAYLOAD_BLOCKS_MAX {
        return None;
    }
    // Nobody has written such numbers: a batch knows of earlier ones only, and another can follow it.
    if header.durable_through >= header.batch || header.batch == u64::MAX {
        return None;
    }
    let mut take = Take::new(bytes.get(HEAD..)?);
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        records.push(Record::decode(&mut take)?);
    }
    let payload: u32 = records.iter().map(Record::payload_blocks).sum();
    (payload == header.payload_blocks).then_some((header, crc, records))
}
