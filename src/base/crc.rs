//! Checksums: crc32c, seeded with where a block belongs.
//!
//! The crc of a block starts from crc32c(layer, block number), never from a slot or a disk, so one crc
//! serves from the coordinator to the platter, and a block that lands in another place, or comes
//! back from one, does not match. CRC is linear, so the same payload under another seed needs no read of
//! the data: see [`reseed`].

use super::{BlockNo, LayerId};

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

/// The checksum of one block's payload.
pub fn of_block(layer: LayerId, block: BlockNo, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(seed(layer, block), payload)
}

/// The checksum that `len` bytes have under `new` as their seed, where they have `crc` under `old`.
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
