//! The body of a replica's answer to a coordinator.

use super::field::{
    EPOCH_LEN, Malformed, PLACE_LEN, TOO_SHORT, count, epoch, flag, malformed, place, put_epoch,
    put_place, sequence as number,
};
use super::{ENTRIES_MAX, Feature, Version};
use crate::base::Epoch;
use crate::base::bytes::{Put, Take};
use crate::protocol::replication::{Answer, Asked, Entry, Refusal, Room, Takes};

const DONE: u8 = 1;
const VALUE: u8 = 2;
const SEALED: u8 = 3;
const REFUSED: u8 = 4;
const CONFIRMED: u8 = 5;
const FITS: u8 = 6;
/// The same as done and sealed, of a replica whose disk is low.
const DONE_LOW: u8 = 7;
const SEALED_LOW: u8 = 8;

/// Bytes of an entry of a window, with its place: epoch, sequence, place, blocks, version.
pub(super) const ENTRY_LEN: usize = EPOCH_LEN + 8 + PLACE_LEN + 2 + 4;

/// What can be said of a disk beside something else: a version without a word for a low one says nothing of it.
fn hint(version: Version, room: Room) -> Room {
    match version.has(Feature::Fits) {
        true => room,
        false => Room::Ample,
    }
}

/// Appends an answer that this version can say.
pub(super) fn encode(version: Version, answer: &Answer, put: &mut Put<'_>) {
    match answer {
        Answer::Done { sequence, room } => {
            put.u8(match hint(version, *room) {
                Room::Ample => DONE,
                Room::Low => DONE_LOW,
            });
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
        Answer::Sealed { window, room } => {
            put.u8(match hint(version, *room) {
                Room::Ample => SEALED,
                Room::Low => SEALED_LOW,
            });
            put.u32(sent(window).count() as u32);
            for entry in sent(window) {
                put_epoch(entry.epoch, put);
                put.u64(entry.sequence);
                put_place(entry.at, put);
                put.u16(entry.blocks);
                put.u32(entry.version);
            }
        }
        Answer::Confirmed { id } => {
            put.u8(CONFIRMED);
            put.u64(*id);
        }
        Answer::Fits { id, takes, room } => {
            put.u8(FITS);
            put.u64(*id);
            put.u8(u8::from(*takes == Takes::Space));
            put.u8(u8::from(*room == Room::Low));
        }
        Answer::Refused { what, why } => {
            put.u8(REFUSED);
            put_refused(*what, *why, put);
        }
    }
}

/// The entries that are sent. One without blocks is for its own replica only, which knows a duplicate by it.
pub(super) fn sent(window: &[Entry]) -> impl Iterator<Item = &Entry> {
    window.iter().filter(|entry| entry.blocks != 0)
}

/// Reads an answer.
pub(super) fn decode(take: &mut Take<'_>) -> Result<Answer, Malformed> {
    let tag = take.u8().ok_or(TOO_SHORT)?;
    match tag {
        DONE | DONE_LOW => Ok(Answer::Done {
            sequence: number(take)?,
            room: match tag {
                DONE => Room::Ample,
                _ => Room::Low,
            },
        }),
        VALUE => value(take),
        SEALED | SEALED_LOW => {
            let room = match tag {
                SEALED => Room::Ample,
                _ => Room::Low,
            };
            let count = count("entries", (ENTRIES_MAX, ENTRY_LEN), take)?;
            let mut window = Vec::with_capacity(count);
            for _ in 0..count {
                window.push(entry(take)?);
            }
            Ok(Answer::Sealed { window, room })
        }
        FITS => Ok(Answer::Fits {
            id: take.u64().ok_or(TOO_SHORT)?,
            takes: match flag("takes space", take)? {
                true => Takes::Space,
                false => Takes::Nothing,
            },
            room: match flag("low", take)? {
                true => Room::Low,
                false => Room::Ample,
            },
        }),
        REFUSED => refused(take),
        CONFIRMED => Ok(Answer::Confirmed {
            id: take.u64().ok_or(TOO_SHORT)?,
        }),
        _ => malformed("answer", tag),
    }
}

fn value(take: &mut Take<'_>) -> Result<Answer, Malformed> {
    let id = take.u64().ok_or(TOO_SHORT)?;
    let is_some = flag("newest", take)?;
    let found = (epoch(take).ok_or(TOO_SHORT)?, take.u64().ok_or(TOO_SHORT)?);
    let newest = match (is_some, found) {
        (false, (none, 0)) if none == Epoch::default() => None,
        (true, (_, 1..)) => Some(found),
        _ => return malformed("newest", found.1),
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

fn entry(take: &mut Take<'_>) -> Result<Entry, Malformed> {
    let epoch = epoch(take).ok_or(TOO_SHORT)?;
    let sequence = number(take)?;
    let at = place(take)?;
    let (blocks, version) = blocks_and_version(take)?;
    Ok(Entry {
        epoch,
        sequence,
        at,
        blocks,
        version,
    })
}

/// Reads the end of an entry.
pub(super) fn blocks_and_version(take: &mut Take<'_>) -> Result<(u16, u32), Malformed> {
    let (blocks, version) = (take.u16().ok_or(TOO_SHORT)?, take.u32().ok_or(TOO_SHORT)?);
    match blocks {
        0 => malformed("blocks of an entry", blocks),
        _ => Ok((blocks, version)),
    }
}

fn put_refused(what: Asked, why: Refusal, put: &mut Put<'_>) {
    let (tag, number) = match what {
        Asked::Change { sequence } => (1, sequence),
        Asked::Read { id } => (2, id),
        Asked::Mark => (3, 0),
        Asked::Seal => (4, 0),
        Asked::Confirm { id } => (5, id),
        Asked::Fits { id } => (6, id),
    };
    put.u8(tag);
    put.u64(number);
    let (tag, epoch, version) = match why {
        Refusal::Epoch(epoch) => (1, epoch, 0),
        Refusal::Version(version) => (2, Epoch::default(), version),
        Refusal::Busy => (3, Epoch::default(), 0),
        Refusal::Failed | Refusal::NoSpace => (4, Epoch::default(), 0),
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
        (1, 1..) => Asked::Change { sequence: number },
        (2, id) => Asked::Read { id },
        (3, 0) => Asked::Mark,
        (4, 0) => Asked::Seal,
        (5, id) => Asked::Confirm { id },
        (6, id) => Asked::Fits { id },
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
