//! What blocks hold: eight sectors, each with the number of the write that it is from.
//!
//! A block is a number for everything that carries it. One whose sectors are all from one write has that write's number; one that was
//! put together, because a write began or ended inside it, has a number of its own, and the same sectors always have the same one.

use std::collections::BTreeMap;

/// Sectors of a block.
pub const SECTORS: u64 = 8;
/// From here on numbers are of blocks that were put together. Checksums are the low 32 bits of numbers.
const MIXED: u64 = 1 << 31;

/// The sectors of a block.
pub type Sectors = [u64; SECTORS as usize];

/// All blocks that were put together in a run.
#[derive(Debug, Default)]
pub struct Contents {
    mixed: Vec<Sectors>,
    numbers: BTreeMap<Sectors, u64>,
}

impl Contents {
    /// The sectors of a block.
    pub fn sectors(&self, block: u64) -> Sectors {
        match block.checked_sub(MIXED) {
            Some(at) => self.mixed[at as usize],
            None => [block; SECTORS as usize],
        }
    }

    /// The block that has these sectors.
    pub fn block(&mut self, sectors: Sectors) -> u64 {
        if sectors.iter().all(|sector| *sector == sectors[0]) {
            return sectors[0];
        }
        let next = MIXED + self.mixed.len() as u64;
        let number = *self.numbers.entry(sectors).or_insert(next);
        if number == next {
            self.mixed.push(sectors);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_one_write_has_its_number_and_others_have_one_of_their_own() {
        let mut contents = Contents::default();
        assert_eq!(contents.block([7; 8]), 7);
        let mixed = contents.block([7, 7, 9, 9, 9, 9, 9, 9]);
        assert!(mixed >= MIXED);
        assert_eq!(contents.block([7, 7, 9, 9, 9, 9, 9, 9]), mixed);
        assert_ne!(contents.block([7, 9, 9, 9, 9, 9, 9, 9]), mixed);
        assert_eq!(contents.sectors(mixed), [7, 7, 9, 9, 9, 9, 9, 9]);
        assert_eq!(contents.sectors(9), [9; 8]);
    }
}
