//! The payload of simulated writes: every write has a value of its own, and every 512 B sector of it a
//! pattern of its own, so that any byte range read back tells which write it is from, and a sector that
//! comes back from another place tells that too.
//!
//! The byte at a place depends on nothing but the write's value and the place, so a piece of a
//! sector is checked without knowing the rest of it.

use crate::base::{SECTOR, mix64};

/// The value of a write; zero stands for zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(pub u64);

impl Value {
    /// What write-zeroes, discards and the beginning of all volumes leave.
    pub const ZERO: Value = Value(0);

    /// The eight bytes that fill a sector.
    fn pattern(self, sector: u64) -> u64 {
        match self {
            Value::ZERO => 0,
            // Never zero, so that no write is mistaken for zeroes.
            Value(value) => mix64(value ^ mix64(sector)) | 0x0100_0000_0000_0001,
        }
    }

    /// Writes the payload of the bytes from `offset` of a volume on.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        let mut at = offset;
        let mut left = bytes;
        while !left.is_empty() {
            let room = (SECTOR - at % SECTOR) as usize;
            let (part, rest) = left.split_at_mut(room.min(left.len()));
            let pattern = self.turned(at);
            let len = part.len() as u64;
            let (words, end) = part.as_chunks_mut::<8>();
            words.fill(pattern);
            end.copy_from_slice(&pattern[..end.len()]);
            at += len;
            left = rest;
        }
    }

    /// Whether these bytes, which were read at `offset` of a volume, are all of this write.
    pub fn is(self, offset: u64, bytes: &[u8]) -> bool {
        let mut at = offset;
        let mut left = bytes;
        while !left.is_empty() {
            let room = (SECTOR - at % SECTOR) as usize;
            let (part, rest) = left.split_at(room.min(left.len()));
            let pattern = self.turned(at);
            let number = u64::from_ne_bytes(pattern);
            let (words, end) = part.as_chunks::<8>();
            let differs = |sum: u64, word: &[u8; 8]| sum | (u64::from_ne_bytes(*word) ^ number);
            if words.iter().fold(0, differs) != 0 || *end != pattern[..end.len()] {
                return false;
            }
            at += part.len() as u64;
            left = rest;
        }
        true
    }

    /// The pattern of a sector as it goes on from the byte `at`.
    fn turned(self, at: u64) -> [u8; 8] {
        let turn = (at % 8) as u32 * 8;
        self.pattern(at / SECTOR).rotate_right(turn).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_of_a_write_is_known_by_its_place() {
        let mut bytes = [0; 2048];
        Value(77).fill(4096 + 300, &mut bytes);
        for (from, to) in [(0, 2048), (1, 2), (211, 213), (700, 1999)] {
            let at = 4096 + 300 + from as u64;
            assert!(Value(77).is(at, &bytes[from..to]));
            assert!(!Value(77).is(at + 1, &bytes[from..to]) || to - from < 3);
        }
        assert!(!Value(78).is(4096 + 300, &bytes));
        assert!(!Value(77).is(300, &bytes));
    }

    #[test]
    fn zeroes_are_no_write_and_no_write_is_zeroes() {
        assert!(Value::ZERO.is(13, &[0; 700]));
        assert!((1..1000).all(|value| !Value(value).is(0, &[0; 8])));
    }
}
