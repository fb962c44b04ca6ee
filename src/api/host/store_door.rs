//! What the store room says about bytes on a disk, for [`super::image`]: whether they are a store, and what
//! must be written to make an empty one.

use super::image::Content;
use crate::api::model::ErrorBody;
use crate::base::StoreId;

/// A step of formatting; steps are carried out in order.
pub(super) enum Write {
    Bytes { offset: u64, bytes: Vec<u8> },
    Zeroes { offset: u64, len: u64 },
    Flush,
}

/// What the first MiB of a disk of `disk_bytes` says that it is.
pub(super) fn identify(_head: &[u8], _disk_bytes: u64) -> Content {
    Content::Other
}

/// What makes an empty store of a disk, and the identity that it will have.
pub(super) fn plan(
    _disk_bytes: u64,
    _store: [u8; 16],
    _instance_key: [u8; 16],
) -> Result<(StoreId, Vec<Write>), ErrorBody> {
    let message = "the store room of this build cannot format";
    Err(ErrorBody::unavailable(message, "use a newer build"))
}
