//! What the store room says about bytes on a disk, for [`super::image`]: whether they are a store, and what
//! must be written to make an empty one.

use super::image::Content;
use crate::api::model::{ErrorBody, ErrorCode};
use crate::base::StoreId;
use crate::store::{OpenError, Plan, SUPERBLOCK_AT, SUPERBLOCK_LEN, Superblock, format};

/// A step of formatting; steps are carried out in order.
pub(super) enum Write {
    Bytes { offset: u64, bytes: Vec<u8> },
    Zeroes { offset: u64, len: u64 },
    Flush,
}

/// What the first MiB of a disk of `disk_bytes` says that it is.
pub(super) fn identify(head: &[u8], disk_bytes: u64) -> Content {
    let copy = |at: u64| match head.get(at as usize..(at + SUPERBLOCK_LEN) as usize) {
        Some(bytes) => Superblock::decode(bytes),
        None => Err(OpenError::NotASarsenDisk),
    };
    let [a, b] = SUPERBLOCK_AT.map(copy);
    match Superblock::choose(a, b, disk_bytes) {
        // Every opening raises the incarnation.
        Ok(found) => Content::Store { id: found.store, fresh: found.incarnation == 0 },
        Err(OpenError::NotASarsenDisk) => Content::Other,
        Err(error) => Content::Damaged(error.to_string()),
    }
}

/// What makes an empty store of a disk, and the identity that it will have.
pub(super) fn plan(
    disk_bytes: u64,
    store: [u8; 16],
    instance_key: [u8; 16],
) -> Result<(StoreId, Vec<Write>), ErrorBody> {
    let store = StoreId(store);
    let plan = Plan { store, instance_key, disk_bytes, journal_bytes: None, pages: None };
    let formatted = format(&plan).map_err(|small| {
        ErrorBody::new(ErrorCode::Invalid, "size_bytes", small.to_string(), "use a larger disk")
    })?;
    let zeroes = formatted.zeroes.iter().map(|&(offset, len)| Write::Zeroes { offset, len });
    let bytes = |(offset, bytes)| Write::Bytes { offset, bytes };
    let steps = zeroes
        .chain(formatted.writes.into_iter().map(bytes))
        .chain([Write::Flush])
        .chain(formatted.superblocks.into_iter().map(bytes))
        .chain([Write::Flush]);
    Ok((store, steps.collect()))
}
