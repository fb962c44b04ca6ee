//! The bodies of what a joiner asks and its source answers.
//!
//! Entries of content lie in the chunk that was asked for, so their places are not sent: a source cannot name another one. A page is in
//! its order, and where it says that there is more it is not empty: the joiner goes on from behind its last one.

use super::ENTRIES_MAX;
use super::answer::blocks_and_version;
use super::field::{
    EPOCH_LEN, Malformed, PLACE_LEN, TOO_SHORT, count, epoch, flag, malformed, place, put_epoch,
    put_place, sequence as number,
};
use crate::base::bytes::{Put, Take};
use crate::base::{BlockRun, ChunkId, ChunkNo, FamilyId, LayerId, Stamp, VolumeId};
use crate::protocol::replication::Entry;
use crate::protocol::replication::fill::{Content, FillAnswer, FillAsk, PAGE_MAX, Place};

// What is asked and what is answered have the same tags.
const FENCES: u8 = 1;
const LIST: u8 = 2;
const CONTENT: u8 = 3;
const VERSION: u8 = 4;
const NOT_NOW: u8 = 5;

/// Bytes of a fence: range and epoch.
const FENCE_LEN: usize = 8 + EPOCH_LEN;
/// Bytes of an entry of content: range, epoch, sequence, blocks, version.
const ENTRY_LEN: usize = 8 + EPOCH_LEN + 8 + 2 + 4;
/// Bytes of the longest body of a source: content, with tag, place, stamp, masks, 16 crcs, and its entries; a page is shorter.
pub(super) const BODY_MAX: usize = 1 + PLACE_LEN + 24 + 4 + 64 + 4 + ENTRIES_MAX * ENTRY_LEN;
const _: () = assert!(6 + PAGE_MAX * PLACE_LEN <= BODY_MAX);

/// Appends what a joiner asks.
pub(super) fn encode_ask(ask: &FillAsk, put: &mut Put<'_>) {
    match *ask {
        FillAsk::Fences { after } => {
            put.u8(FENCES);
            put.u8(u8::from(after.is_some()));
            put.u64(after.unwrap_or_default().0);
        }
        FillAsk::List { since, after } => {
            put.u8(LIST);
            put.u32(since);
            put.u8(u8::from(after.is_some()));
            put_place(after.unwrap_or(NOWHERE), put);
        }
        FillAsk::Fetch { at } => {
            put.u8(CONTENT);
            put_place(at, put);
        }
    }
}

/// What stands in the place of a chunk where there is none.
const NOWHERE: ChunkId = ChunkId {
    family: FamilyId(0),
    layer: LayerId(0),
    chunk: ChunkNo(0),
};

/// Reads what a joiner asks.
pub(super) fn decode_ask(take: &mut Take<'_>) -> Result<FillAsk, Malformed> {
    let tag = take.u8().ok_or(TOO_SHORT)?;
    match tag {
        FENCES => {
            let is_some = flag("after", take)?;
            let after = VolumeId(take.u64().ok_or(TOO_SHORT)?);
            let after = optional(is_some, after, VolumeId(0))?;
            Ok(FillAsk::Fences { after })
        }
        LIST => {
            let since = take.u32().ok_or(TOO_SHORT)?;
            let is_some = flag("after", take)?;
            let after = optional(is_some, place(take)?, NOWHERE)?;
            Ok(FillAsk::List { since, after })
        }
        CONTENT => Ok(FillAsk::Fetch { at: place(take)? }),
        _ => malformed("question", tag),
    }
}

/// Where nothing is meant, nothing stands.
fn optional<T: PartialEq>(is_some: bool, value: T, none: T) -> Result<Option<T>, Malformed> {
    match is_some {
        true => Ok(Some(value)),
        false if value == none => Ok(None),
        false => malformed("after", 0u8),
    }
}

/// Appends what a source answers.
pub(super) fn encode_answer(answer: &FillAnswer, put: &mut Put<'_>) {
    match answer {
        FillAnswer::Fences { fences, more } => {
            put.u8(FENCES);
            put.u8(u8::from(*more));
            put.u32(fences.len() as u32);
            for (range, epoch) in fences {
                put.u64(range.0);
                put_epoch(*epoch, put);
            }
        }
        FillAnswer::Listed { chunks, more } => {
            put.u8(LIST);
            put.u8(u8::from(*more));
            put.u32(chunks.len() as u32);
            chunks.iter().for_each(|at| put_place(*at, put));
        }
        FillAnswer::Content {
            at,
            content,
            entries,
        } => {
            put.u8(CONTENT);
            put_place(*at, put);
            put_content(content, put);
            put_entries(*at, entries, put);
        }
        FillAnswer::Version(version) => {
            put.u8(VERSION);
            put.u32(*version);
        }
        FillAnswer::NotNow => put.u8(NOT_NOW),
    }
}

/// Reads what a source answers.
pub(super) fn decode_answer(take: &mut Take<'_>) -> Result<FillAnswer, Malformed> {
    let tag = take.u8().ok_or(TOO_SHORT)?;
    match tag {
        FENCES => fences(take),
        LIST => listed(take),
        CONTENT => {
            let at = place(take)?;
            Ok(FillAnswer::Content {
                at,
                content: content(take)?,
                entries: entries(at, take)?,
            })
        }
        VERSION => Ok(FillAnswer::Version(take.u32().ok_or(TOO_SHORT)?)),
        NOT_NOW => Ok(FillAnswer::NotNow),
        _ => malformed("answer", tag),
    }
}

fn fences(take: &mut Take<'_>) -> Result<FillAnswer, Malformed> {
    let more = flag("more", take)?;
    let count = count("fences", (PAGE_MAX, FENCE_LEN), take)?;
    let mut fences: Vec<(VolumeId, _)> = Vec::with_capacity(count);
    for _ in 0..count {
        let range = VolumeId(take.u64().ok_or(TOO_SHORT)?);
        if fences.last().is_some_and(|before| before.0 >= range) {
            return malformed("order of the fences", range.0);
        }
        fences.push((range, epoch(take).ok_or(TOO_SHORT)?));
    }
    match more && fences.is_empty() {
        true => malformed("more", 1u8),
        false => Ok(FillAnswer::Fences { fences, more }),
    }
}

fn listed(take: &mut Take<'_>) -> Result<FillAnswer, Malformed> {
    let more = flag("more", take)?;
    let count = count("chunks", (PAGE_MAX, PLACE_LEN), take)?;
    let mut chunks: Vec<ChunkId> = Vec::with_capacity(count);
    for _ in 0..count {
        let at = place(take)?;
        let is_behind = |before: &ChunkId| Place::from(*before) < Place::from(at);
        if !chunks.last().is_none_or(is_behind) {
            return malformed("order of the chunks", at.chunk.0);
        }
        chunks.push(at);
    }
    match more && chunks.is_empty() {
        true => malformed("more", 1u8),
        false => Ok(FillAnswer::Listed { chunks, more }),
    }
}

fn put_content(content: &Content, put: &mut Put<'_>) {
    put.u32(content.stamp.version);
    put_epoch(content.stamp.epoch, put);
    put.u64(content.stamp.sequence);
    put.u16(content.data);
    put.u16(content.zeroes);
    for block in BlockRun::runs_of(content.data).flat_map(BlockRun::blocks) {
        put.u32(content.crcs[block as usize]);
    }
}

fn content(take: &mut Take<'_>) -> Result<Content, Malformed> {
    let stamp = stamp(take).ok_or(TOO_SHORT)?;
    let (data, zeroes) = (take.u16().ok_or(TOO_SHORT)?, take.u16().ok_or(TOO_SHORT)?);
    if data & zeroes != 0 {
        return malformed("blocks that are zeroes", zeroes);
    }
    let mut crcs = [0; 16];
    for block in BlockRun::runs_of(data).flat_map(BlockRun::blocks) {
        crcs[block as usize] = take.u32().ok_or(TOO_SHORT)?;
    }
    Ok(Content {
        stamp,
        data,
        zeroes,
        crcs,
    })
}

fn stamp(take: &mut Take<'_>) -> Option<Stamp> {
    Some(Stamp {
        version: take.u32()?,
        epoch: epoch(take)?,
        sequence: take.u64()?,
    })
}

/// The entries that are sent, as of a seal.
pub(super) fn sent(entries: &[(VolumeId, Entry)]) -> impl Iterator<Item = &(VolumeId, Entry)> {
    entries.iter().filter(|(_, entry)| entry.blocks != 0)
}

fn put_entries(at: ChunkId, entries: &[(VolumeId, Entry)], put: &mut Put<'_>) {
    put.u32(sent(entries).count() as u32);
    for (range, entry) in sent(entries) {
        assert_eq!(entry.at, at, "entries of content lie in its chunk");
        put.u64(range.0);
        put_epoch(entry.epoch, put);
        put.u64(entry.sequence);
        put.u16(entry.blocks);
        put.u32(entry.version);
    }
}

fn entries(at: ChunkId, take: &mut Take<'_>) -> Result<Vec<(VolumeId, Entry)>, Malformed> {
    let count = count("entries", (ENTRIES_MAX, ENTRY_LEN), take)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let range = VolumeId(take.u64().ok_or(TOO_SHORT)?);
        let epoch = epoch(take).ok_or(TOO_SHORT)?;
        let sequence = number(take)?;
        let (blocks, version) = blocks_and_version(take)?;
        let entry = Entry {
            epoch,
            sequence,
            at,
            blocks,
            version,
        };
        entries.push((range, entry));
    }
    Ok(entries)
}
