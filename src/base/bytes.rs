//! Values to bytes and back, little endian. Reading never trusts a length: every taking is checked against what is left.

use super::ids::StoreId;

/// Appends values to bytes.
pub struct Put<'a>(pub &'a mut Vec<u8>);

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
pub struct Take<'a> {
    left: &'a [u8],
}

impl<'a> Take<'a> {
    pub fn new(bytes: &'a [u8]) -> Take<'a> {
        Take { left: bytes }
    }
    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.left.len()
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
