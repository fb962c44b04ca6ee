//! The body of a replica's answer.
//!
//! | tag | answer | what follows |
//! |---|---|---|
//! | 1 | done | sequence 8 |
//! | 2 | value | id 8, newest: 1 if there is one 1, epoch 12, sequence 8; blocks that are zeroes 2; the crcs of 16 blocks 64 |
//! | 3 | sealed | entries 4; each: epoch 12, sequence 8, place 24, blocks 2, version 4 |
//! | 4 | refused | what 1, its number 8, why 1, epoch 12, version 4 |

use super::frame::{Malformed, TOO_SHORT, epoch, malformed, put_epoch};
use super::message::{place, put_place};
use crate::base::Epoch;
use crate::base::bytes::{Put, Take};
use crate::protocol::replication::{Answer, Asked, Entry, MEMBERS_MAX, Refusal, WINDOW_MAX};

const DONE: u8 = 1;
const VALUE: u8 = 2;
const SEALED: u8 = 3;
const REFUSED: u8 = 4;

/// Bytes of one entry of a window.
pub(super) const ENTRY_LEN: usize = 50;

/// Appends an answer.
pub(super) fn encode(answer: &Answer, put: &mut Put<'_>) {
    match answer {
        Answer::Done { sequence } => {
            put.u8(DONE);
            put.u64(*sequence);
        }
        Answer::Value {
            id,
            newest,
            crcs,
            zeroes,
        } => {
            put.u8(VALUE);
            put.u64(*id);
            put.u8(u8::from(newest.is_some()));
            let (epoch, sequence) = newest.unwrap_or_default();
            put_epoch(epoch, put);
            put.u64(sequence);
            put.u16(*zeroes);
            crcs.iter().for_each(|crc| put.u32(*crc));
        }
        Answer::Sealed { window } => {
            put.u8(SEALED);
            put.u32(window.len() as u32);
            window.iter().for_each(|entry| put_entry(entry, put));
        }
        Answer::Refused { what, why } => {
            put.u8(REFUSED);
            put_refused(*what, *why, put);
        }
    }
}

/// Reads an answer that so many blocks of payload follow.
pub(super) fn decode(take: &mut Take<'_>, blocks: u32) -> Result<Answer, Malformed> {
    let tag = take.u8().ok_or(TOO_SHORT)?;
    if tag != VALUE && blocks != 0 {
        return malformed("blocks of payload", blocks);
    }
    match tag {
        DONE => Ok(Answer::Done {
            sequence: take.u64().ok_or(TOO_SHORT)?,
        }),
        VALUE => value(take),
        SEALED => {
            let count = take.u32().ok_or(TOO_SHORT)? as usize;
            if count > MEMBERS_MAX * WINDOW_MAX {
                return malformed("entries", count as u64);
            }
            let window: Result<Vec<Entry>, Malformed> = (0..count).map(|_| entry(take)).collect();
            Ok(Answer::Sealed { window: window? })
        }
        REFUSED => refused(take),
        _ => malformed("answer", tag),
    }
}

fn value(take: &mut Take<'_>) -> Result<Answer, Malformed> {
    let id = take.u64().ok_or(TOO_SHORT)?;
    let is_some = take.u8().ok_or(TOO_SHORT)?;
    let found = (epoch(take).ok_or(TOO_SHORT)?, take.u64().ok_or(TOO_SHORT)?);
    let newest = match is_some {
        0 if found == (Epoch::default(), 0) => None,
        1 => Some(found),
        _ => return malformed("newest", is_some),
    };
    let zeroes = take.u16().ok_or(TOO_SHORT)?;
    let mut crcs = [0; 16];
    for crc in &mut crcs {
        *crc = take.u32().ok_or(TOO_SHORT)?;
    }
    Ok(Answer::Value {
        id,
        newest,
        crcs,
        zeroes,
    })
}

fn put_entry(entry: &Entry, put: &mut Put<'_>) {
    put_epoch(entry.epoch, put);
    put.u64(entry.sequence);
    put_place(entry.at, put);
    put.u16(entry.blocks);
    put.u32(entry.version);
}

fn entry(take: &mut Take<'_>) -> Result<Entry, Malformed> {
    let epoch = epoch(take).ok_or(TOO_SHORT)?;
    let sequence = take.u64().ok_or(TOO_SHORT)?;
    let at = place(take)?;
    let (blocks, version) = (take.u16().ok_or(TOO_SHORT)?, take.u32().ok_or(TOO_SHORT)?);
    if blocks == 0 {
        return malformed("blocks of an entry", blocks);
    }
    Ok(Entry {
        epoch,
        sequence,
        at,
        blocks,
        version,
    })
}

fn put_refused(what: Asked, why: Refusal, put: &mut Put<'_>) {
    let (tag, number) = match what {
        Asked::Change { sequence } => (1, sequence),
        Asked::Read { id } => (2, id),
        Asked::Mark => (3, 0),
        Asked::Seal => (4, 0),
    };
    put.u8(tag);
    put.u64(number);
    let (tag, epoch, version) = match why {
        Refusal::Epoch(epoch) => (1, epoch, 0),
        Refusal::Version(version) => (2, Epoch::default(), version),
        Refusal::Busy => (3, Epoch::default(), 0),
        Refusal::Failed => (4, Epoch::default(), 0),
        Refusal::NoReplica => (5, Epoch::default(), 0),
        Refusal::Session => (6, Epoch::default(), 0),
    };
    put.u8(tag);
    put_epoch(epoch, put);
    put.u32(version);
}

fn refused(take: &mut Take<'_>) -> Result<Answer, Malformed> {
    let tag = take.u8().ok_or(TOO_SHORT)?;
    let number = take.u64().ok_or(TOO_SHORT)?;
    let what = match (tag, number) {
        (1, sequence) => Asked::Change { sequence },
        (2, id) => Asked::Read { id },
        (3, 0) => Asked::Mark,
        (4, 0) => Asked::Seal,
        _ => return malformed("what was refused", tag),
    };
    let tag = take.u8().ok_or(TOO_SHORT)?;
    let epoch = epoch(take).ok_or(TOO_SHORT)?;
    let version = take.u32().ok_or(TOO_SHORT)?;
    let none = Epoch::default();
    let why = match tag {
        1 if version == 0 => Refusal::Epoch(epoch),
        2 if epoch == none => Refusal::Version(version),
        3 if (epoch, version) == (none, 0) => Refusal::Busy,
        4 if (epoch, version) == (none, 0) => Refusal::Failed,
        5 if (epoch, version) == (none, 0) => Refusal::NoReplica,
        6 if (epoch, version) == (none, 0) => Refusal::Session,
        _ => return malformed("why it was refused", tag),
    };
    Ok(Answer::Refused { what, why })
}
