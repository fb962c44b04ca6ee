//! Maps with a fixed hasher: the same keys lie in the same order in every run. They are still never
//! iterated where the order could be seen.

use super::prng::mix64;
use std::hash::{BuildHasherDefault, Hasher};

/// A hash map over small integer keys of our own making.
pub type FixedMap<K, V> = hashbrown::HashMap<K, V, BuildHasherDefault<MixHasher>>;

/// Mixes integers with the finaliser of splitmix64. Keys are ids that we gave out, so nobody
/// can choose them to collide.
#[derive(Debug, Clone, Copy, Default)]
pub struct MixHasher(u64);

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = mix64(self.0.rotate_left(5) ^ value);
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}
