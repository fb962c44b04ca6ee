//! Bytes in and out, little endian, and the seal that every structure on disk carries.
//!
//! A sealed structure begins with an 8-byte magic; its crc32c stands at byte 8 and covers all of it with those
//! four bytes as zero. Reading never trusts a length: every taking is checked against what is left.

use crate::base::StoreId;

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

/// Appends values to bytes.
pub(super) struct Put<'a>(pub &'a mut Vec<u8>);

impl Put<'_> {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
    pub fn bytes(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }
    /// Zeroes up to `len` bytes behind `start`.
    pub fn pad_to(&mut self, start: usize, len: usize) {
        debug_assert!(
            self.0.len() <= start + len,
            "a structure overflows its place"
        );
        self.0.resize(start + len, 0);
    }
}

/// Takes values from bytes; `None` where they end.
pub(super) struct Take<'a> {
    left: &'a [u8],
}

impl<'a> Take<'a> {
    pub fn new(bytes: &'a [u8]) -> Take<'a> {
        Take { left: bytes }
    }
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.left.split_at_checked(len)?;
        self.left = left;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }
    pub fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }
    pub fn id(&mut self) -> Option<StoreId> {
        Some(StoreId(self.array()?))
    }
    pub fn key(&mut self) -> Option<[u8; 16]> {
        self.array()
    }
}
