//! The body of a coordinator's message.

use super::field::{
    Malformed, TOO_SHORT, malformed, place, put_place, put_run, run, sequence as number,
};
use crate::base::CHUNKS_PER_EXTENT;
use crate::base::bytes::{Put, Take};
use crate::protocol::replication::{Change, Message};

const WRITE: u8 = 1;
const ZERO: u8 = 2;
const ZERO_CHUNKS: u8 = 3;
const READ: u8 = 4;
const MARK: u8 = 5;
const SEAL: u8 = 6;
const CONFIRM: u8 = 7;
const FITS: u8 = 8;

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
        Message::Confirm { id } => {
            put.u8(CONFIRM);
            put.u64(id);
        }
        Message::Fits { id, at } => {
            put.u8(FITS);
            put.u64(id);
            put_place(at, put);
        }
    }
}

/// Reads a message.
pub(super) fn decode(take: &mut Take<'_>) -> Result<Message, Malformed> {
    let tag = take.u8().ok_or(TOO_SHORT)?;
    match tag {
        WRITE | ZERO | ZERO_CHUNKS => change(tag, take),
        READ => Ok(Message::Read {
            id: take.u64().ok_or(TOO_SHORT)?,
            at: place(take)?,
            run: run(take)?,
        }),
        MARK => Ok(Message::Mark),
        SEAL => Ok(Message::Seal),
        CONFIRM => Ok(Message::Confirm {
            id: take.u64().ok_or(TOO_SHORT)?,
        }),
        FITS => Ok(Message::Fits {
            id: take.u64().ok_or(TOO_SHORT)?,
            at: place(take)?,
        }),
        _ => malformed("message", tag),
    }
}

fn change(tag: u8, take: &mut Take<'_>) -> Result<Message, Malformed> {
    let sequence = number(take)?;
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
