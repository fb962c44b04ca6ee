//! A journal batch as bytes: a header with its records, and behind it the payload of the small writes.
//!
//! The header is whole blocks, sealed; the payload is whole blocks, each covered by the crc in its record. A
//! batch is whole when both match. Headers form a chain (each carries the crc of the one before it), and
//! carry the store's instance key, so that nothing a guest writes can pass for one.

use super::codec::{Put, Take, seal, unseal};
use super::record::Record;
use super::superblock::COUNT_MAX;
use crate::base::{BLOCK, StoreId};

const MAGIC: [u8; 8] = *b"SARSENJN";
const HEAD: usize = 128;
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
    // Nobody has written such numbers: a batch knows of earlier ones only, and others can follow it.
    let counts = [header.batch, header.incarnation, header.checkpoint];
    if header.durable_through >= header.batch || counts.iter().any(|&count| count >= COUNT_MAX) {
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
