//! Checksums: crc32c, seeded with where a block belongs.
//!
//! The crc of a block starts from crc32c(layer, block number), never from a slot or a disk, so one crc
//! serves from the coordinator to the platter, and a block that lands in another place, or comes
//! back from one, does not match. CRC is linear, so the same payload under another seed needs no read of
//! the data: see [`reseed`].
//!
//! A crc alone is blind to data that carries its own: behind any bytes and their crc32c it stands where it stands behind any
//! others of that length. So sums of the sectors, which are not linear in its sense, go into the checksum of a block as well (see
//! `docs/decisions/checksums_of_blocks`).

use super::{BLOCK, BlockNo, LayerId, mix64};

/// The grain at which a write is torn, in bytes.
const SECTOR: usize = 512;

/// The crc32c of `bytes`.
pub fn of(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// What the crc of this block starts from.
pub fn seed(layer: LayerId, block: BlockNo) -> u32 {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&layer.0.to_le_bytes());
    name[8..].copy_from_slice(&block.0.to_le_bytes());
    crc32c::crc32c(&name)
}

/// The checksum of one block's payload: of 4096 bytes.
pub fn of_block(layer: LayerId, block: BlockNo, payload: &[u8]) -> u32 {
    debug_assert_eq!(payload.len() as u64, BLOCK, "a whole block");
    crc32c::crc32c_append(seed(layer, block), payload) ^ of_sums(payload)
}

/// What the sums of a block's sectors, as words of 64 bits, add to its checksum: each is mixed with its place.
fn of_sums(payload: &[u8]) -> u32 {
    let sectors = payload.as_chunks::<SECTOR>().0;
    let mixed = (0u64..).zip(sectors).map(|(place, sector)| {
        let words = sector.as_chunks::<8>().0.iter();
        let sum = words.fold(0u64, |sum, word| {
            sum.wrapping_add(u64::from_le_bytes(*word))
        });
        mix64(sum.wrapping_add(place << 56))
    });
    let all = mixed.fold(0u64, u64::wrapping_add);
    (all ^ all >> 32) as u32
}

/// The checksum that `len` bytes have under `new` as their seed, where they have `crc` under `old`: also that of a block.
pub fn reseed(crc: u32, old: u32, new: u32, len: usize) -> u32 {
    // crc(seed, m) = shift(seed, |m|) ^ crc(0, m), with the pre- and post-inversion cancelling out of
    // the difference of two seeds.
    crc ^ crc32c::crc32c_combine(old ^ new, 0, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc32c_is_right() {
        assert_eq!(of(b"123456789"), 0xe306_9283); // RFC 3720, B.4
    }

    #[test]
    fn a_block_in_another_place_has_another_checksum() {
        let payload = [7u8; 4096];
        let here = of_block(LayerId(1), BlockNo(5), &payload);
        assert_ne!(here, of_block(LayerId(1), BlockNo(6), &payload));
        assert_ne!(here, of_block(LayerId(2), BlockNo(5), &payload));
    }

    #[test]
    fn sectors_that_carry_their_own_crc_are_told_apart() {
        let block = |first: u8| -> Vec<u8> {
            let sectors = (first..).take(8).map(|n| {
                let mut sector = vec![n; SECTOR - 4];
                sector.extend(of(&sector).to_le_bytes());
                sector
            });
            sectors.flatten().collect()
        };
        let (here, layer) = (BlockNo(5), LayerId(1));
        let (new, old) = (block(1), block(100));
        let torn = [&new[..SECTOR], &old[SECTOR..]].concat();
        let swapped = [&new[SECTOR..2 * SECTOR], &new[..SECTOR], &new[2 * SECTOR..]].concat();
        let of_new = of_block(layer, here, &new);
        for other in [&old, &torn, &swapped] {
            assert_eq!(of(other), of(&new), "crc32c does not see it");
            assert_ne!(of_block(layer, here, other), of_new);
        }
    }

    #[test]
    fn a_checksum_is_reseeded_without_its_data() {
        let payload: Vec<u8> = (0..4096u32).map(|n| (n * 31) as u8).collect();
        let (old, new) = (seed(LayerId(1), BlockNo(5)), seed(LayerId(9), BlockNo(5)));
        let crc = of_block(LayerId(1), BlockNo(5), &payload);
        assert_eq!(
            reseed(crc, old, new, 4096),
            of_block(LayerId(9), BlockNo(5), &payload)
        );
    }
}
