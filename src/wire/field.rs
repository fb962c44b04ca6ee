//! The fields that several frames have, and the refusal of one.
//!
//! Reading takes nothing on trust: a value that its field cannot have is refused with the field's name, and a count is held
//! against the bytes that are there before room for so many is taken.

use crate::base::bytes::{Put, Take};
use crate::base::{BlockRun, CHUNKS_PER_EXTENT, ChunkId, ChunkNo, Epoch, FamilyId, LayerId};
use std::fmt;

/// Bytes that are no frame: the field that is wrong, and what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    pub field: &'static str,
    pub value: u64,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the field {} cannot be {}", self.field, self.value)
    }
}

impl std::error::Error for Malformed {}

/// The refusal of a field.
pub(super) fn malformed<T>(field: &'static str, value: impl Into<u64>) -> Result<T, Malformed> {
    let value = value.into();
    Err(Malformed { field, value })
}

/// Bytes that end too soon.
pub(super) const TOO_SHORT: Malformed = Malformed {
    field: "length of the body",
    value: 0,
};

/// Reads how many of something follow, each of `len` bytes at least: at most `most`, and all of them are there.
pub(super) fn count(
    field: &'static str,
    (most, len): (usize, usize),
    take: &mut Take<'_>,
) -> Result<usize, Malformed> {
    let count = take.u32().ok_or(TOO_SHORT)?;
    match count as usize {
        n if n <= most && n <= take.left() / len => Ok(n),
        _ => malformed(field, count),
    }
}

/// Reads a yes (1) or no (0).
pub(super) fn flag(field: &'static str, take: &mut Take<'_>) -> Result<bool, Malformed> {
    match take.u8().ok_or(TOO_SHORT)? {
        0 => Ok(false),
        1 => Ok(true),
        other => malformed(field, other),
    }
}

/// Reads the number of a change. The mark 0 says that nothing is acknowledged, so no change has that one.
pub(super) fn sequence(take: &mut Take<'_>) -> Result<u64, Malformed> {
    match take.u64().ok_or(TOO_SHORT)? {
        0 => malformed("sequence", 0u8),
        sequence => Ok(sequence),
    }
}

/// Bytes of an epoch.
pub(super) const EPOCH_LEN: usize = 12;

/// Reads an epoch.
pub(super) fn epoch(take: &mut Take<'_>) -> Option<Epoch> {
    let (generation, site, host) = (take.u32()?, take.u32()?, take.u32()?);
    Some(Epoch {
        generation,
        site,
        host,
    })
}

/// Appends an epoch.
pub(super) fn put_epoch(epoch: Epoch, put: &mut Put<'_>) {
    put.u32(epoch.generation);
    put.u32(epoch.site);
    put.u32(epoch.host);
}

/// Bytes of a chunk of a layer.
pub(super) const PLACE_LEN: usize = 24;

/// Reads a chunk of a layer.
pub(super) fn place(take: &mut Take<'_>) -> Result<ChunkId, Malformed> {
    let (family, layer, chunk) = words(take).ok_or(TOO_SHORT)?;
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

fn words(take: &mut Take<'_>) -> Option<(u64, u64, u64)> {
    Some((take.u64()?, take.u64()?, take.u64()?))
}

/// Appends a chunk of a layer.
pub(super) fn put_place(at: ChunkId, put: &mut Put<'_>) {
    put.u64(at.family.0);
    put.u64(at.layer.0);
    put.u64(at.chunk.0);
}

/// Reads a run of blocks of a chunk.
pub(super) fn run(take: &mut Take<'_>) -> Result<BlockRun, Malformed> {
    let (first, count) = (take.u8().ok_or(TOO_SHORT)?, take.u8().ok_or(TOO_SHORT)?);
    match BlockRun::new(first.into(), count.into()) {
        Some(run) => Ok(run),
        None => malformed("blocks", count),
    }
}

/// Appends a run of blocks of a chunk.
pub(super) fn put_run(run: BlockRun, put: &mut Put<'_>) {
    put.u8(run.first() as u8);
    put.u8(run.count() as u8);
}
