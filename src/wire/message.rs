//! The body of a coordinator's message.
//!
//! | tag | message | what follows |
//! |---|---|---|
//! | 1 | write | sequence 8, place 24, first block 1, blocks 1, the crc of each block 4 |
//! | 2 | zero | sequence 8, place 24, first block 1, blocks 1 |
//! | 3 | zero chunks | sequence 8, place 24, chunks 4 |
//! | 4 | read | id 8, place 24, first block 1, blocks 1 |
//! | 5 | mark | |
//! | 6 | seal | |
//!
//! A place is family, layer and chunk, 8 bytes each.

use super::frame::{Malformed, TOO_SHORT, malformed};
use crate::base::bytes::{Put, Take};
use crate::base::{BlockRun, CHUNKS_PER_EXTENT, ChunkId, ChunkNo, FamilyId, LayerId};
use crate::protocol::replication::{Change, Message};

const WRITE: u8 = 1;
const ZERO: u8 = 2;
const ZERO_CHUNKS: u8 = 3;
const READ: u8 = 4;
const MARK: u8 = 5;
const SEAL: u8 = 6;

/// Appends a message.
pub(super) fn encode(message: &Message, put: &mut Put<'_>) {
    match *message {
        Message::Change {
            sequence,
            at,
            change,
        } => {
            put.u8(match change {
                Change::Write { .. } => WRITE,
                Change::Zero { .. } => ZERO,
                Change::ZeroChunks { .. } => ZERO_CHUNKS,
            });
            put.u64(sequence);
            put_place(at, put);
            match change {
                Change::Write { run, crcs } => {
                    put_run(run, put);
                    for crc in &crcs[..run.count() as usize] {
                        put.u32(*crc);
                    }
                }
                Change::Zero { run } => put_run(run, put),
                Change::ZeroChunks { count } => put.u32(count),
            }
        }
        Message::Read { id, at, run } => {
            put.u8(READ);
            put.u64(id);
            put_place(at, put);
            put_run(run, put);
        }
        Message::Mark => put.u8(MARK),
        Message::Seal => put.u8(SEAL),
    }
}

/// Reads a message that so many blocks of payload follow.
pub(super) fn decode(take: &mut Take<'_>, blocks: u32) -> Result<Message, Malformed> {
    let tag = take.u8().ok_or(TOO_SHORT)?;
    let message = match tag {
        WRITE | ZERO | ZERO_CHUNKS => change(tag, take)?,
        READ => Message::Read {
            id: take.u64().ok_or(TOO_SHORT)?,
            at: place(take)?,
            run: run(take)?,
        },
        MARK => Message::Mark,
        SEAL => Message::Seal,
        _ => return malformed("message", tag),
    };
    let wanted = match message {
        Message::Change {
            change: Change::Write { run, .. },
            ..
        } => run.count(),
        _ => 0,
    };
    match blocks == wanted {
        true => Ok(message),
        false => malformed("blocks of payload", blocks),
    }
}

fn change(tag: u8, take: &mut Take<'_>) -> Result<Message, Malformed> {
    let sequence = take.u64().ok_or(TOO_SHORT)?;
    // The mark 0 says that nothing is acknowledged, so no change has that number.
    if sequence == 0 {
        return malformed("sequence", sequence);
    }
    let at = place(take)?;
    let change = match tag {
        WRITE => {
            let run = run(take)?;
            let mut crcs = [0; 16];
            for crc in &mut crcs[..run.count() as usize] {
                *crc = take.u32().ok_or(TOO_SHORT)?;
            }
            Change::Write { run, crcs }
        }
        ZERO => Change::Zero { run: run(take)? },
        _ => {
            let count = take.u32().ok_or(TOO_SHORT)?;
            let left = CHUNKS_PER_EXTENT - at.chunk.in_extent() as u32;
            if count == 0 || count > left {
                return malformed("chunks", count);
            }
            Change::ZeroChunks { count }
        }
    };
    Ok(Message::Change {
        sequence,
        at,
        change,
    })
}

/// Appends a chunk of a layer.
pub(super) fn put_place(at: ChunkId, put: &mut Put<'_>) {
    put.u64(at.family.0);
    put.u64(at.layer.0);
    put.u64(at.chunk.0);
}

/// Reads a chunk of a layer.
pub(super) fn place(take: &mut Take<'_>) -> Result<ChunkId, Malformed> {
    let fields = || Some((take.u64()?, take.u64()?, take.u64()?));
    let (family, layer, chunk) = { fields }().ok_or(TOO_SHORT)?;
    // 32 bits of extents.
    if chunk / u64::from(CHUNKS_PER_EXTENT) > u64::from(u32::MAX) {
        return malformed("chunk", chunk);
    }
    Ok(ChunkId {
        family: FamilyId(family),
        layer: LayerId(layer),
        chunk: ChunkNo(chunk),
    })
}

fn put_run(run: BlockRun, put: &mut Put<'_>) {
    put.u8(run.first() as u8);
    put.u8(run.count() as u8);
}

fn run(take: &mut Take<'_>) -> Result<BlockRun, Malformed> {
    let (first, count) = (take.u8().ok_or(TOO_SHORT)?, take.u8().ok_or(TOO_SHORT)?);
    match BlockRun::new(first.into(), count.into()) {
        Some(run) => Ok(run),
        None => malformed("blocks", count),
    }
}
