//! The seal that every structure on disk carries: it begins with an 8-byte magic, and its crc32c stands at byte 8 and
//! covers all of it with those four bytes as zero.

pub(super) use crate::base::bytes::{Put, Take};

/// Where the crc of a sealed structure stands.
const CRC_AT: std::ops::Range<usize> = 8..12;

/// The crc that a sealed structure should carry.
pub(super) fn seal_of(bytes: &[u8]) -> u32 {
    let head = crc32c::crc32c(&bytes[..CRC_AT.start]);
    let gap = crc32c::crc32c_append(head, &[0; 4]);
    crc32c::crc32c_append(gap, &bytes[CRC_AT.end..])
}

/// Writes the crc into `bytes`, and returns it.
pub(super) fn seal(bytes: &mut [u8]) -> u32 {
    let value = seal_of(bytes);
    bytes[CRC_AT].copy_from_slice(&value.to_le_bytes());
    value
}

/// The crc that `bytes` carry, where it is the right one and the magic is `magic`.
pub(super) fn unseal(bytes: &[u8], magic: [u8; 8]) -> Option<u32> {
    if bytes.len() < CRC_AT.end || bytes[..8] != magic {
        return None;
    }
    let value = seal_of(bytes);
    (bytes[CRC_AT] == value.to_le_bytes()).then_some(value)
}
