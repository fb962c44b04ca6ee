//! The checksum of a long stream with holes, without reading the holes.
//!
//! Import needs it at both ends: the client over the source as it reads it, the daemon over the pieces as they
//! were acknowledged. That the two agree is what "checksummed end to end" means; and a source that is taken up
//! again after an interruption is known by it to be the same one.

use crate::base::crc;

/// The crc32c of the first `len` bytes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamCrc {
    len: u64,
    crc: u32,
}

impl StreamCrc {
    /// Goes on from a stream of `len` bytes with the checksum `crc`.
    pub fn resume(len: u64, crc: u32) -> StreamCrc {
        StreamCrc { len, crc }
    }

    /// How many bytes were taken in.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Takes in `bytes` whose checksum is known to be `sum`.
    pub fn push_summed(&mut self, sum: u32, bytes: u64) {
        self.crc = combine(self.crc, sum, bytes);
        self.len += bytes;
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.push_summed(crc::of(bytes), bytes.len() as u64);
    }

    pub fn push_zeroes(&mut self, count: u64) {
        // The crc of 2^k zeroes is that of 2^(k-1) zeroes combined with itself: one step a bit of `count`.
        let (mut power, mut of_power) = (1u64, crc::of(&[0]));
        let mut left = count;
        while left > 0 {
            if left & 1 == 1 {
                self.push_summed(of_power, power);
            }
            left >>= 1;
            if left > 0 {
                of_power = combine(of_power, of_power, power);
                power *= 2;
            }
        }
    }
}

fn combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    // usize has 64 bits wherever this runs: x86-64 and arm64 are the targets.
    crc32c::crc32c_combine(first, second, second_bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_with_holes_has_the_checksum_of_its_bytes() {
        let whole = [
            vec![1u8; 5000],
            vec![0; 70_001],
            b"end".to_vec(),
            vec![0; 4096],
        ]
        .concat();
        let mut stream = StreamCrc::default();
        stream.push(&whole[..5000]);
        stream.push_zeroes(70_001);
        stream.push(b"end");
        stream.push_zeroes(4096);
        assert_eq!(
            (stream.len(), stream.crc()),
            (whole.len() as u64, crc::of(&whole))
        );
        let mut resumed = StreamCrc::resume(5000, crc::of(&whole[..5000]));
        resumed.push(&whole[5000..]);
        assert_eq!(resumed, stream);
    }

    #[test]
    fn zeroes_beyond_any_memory_are_summed_at_once() {
        let mut stream = StreamCrc::default();
        stream.push_zeroes(16 << 50);
        let mut halves = StreamCrc::default();
        halves.push_zeroes(7 << 50);
        halves.push_zeroes(9 << 50);
        assert_eq!(stream, halves);
    }
}
