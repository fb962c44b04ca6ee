//! What is asked of the volumes: kinds, places and sizes of requests, by the knobs of the run.
//!
//! Requests overlap on purpose: most go to few hot spots, jittered by less than their size, so that reads,
//! writes and discards of one place are in flight together and end on one another's edges.

use super::swarm::Knobs;
use super::tally::Weight;
use crate::base::{BLOCK, CHUNK, EXTENT, Prng, RequestKind, SECTOR};
use std::ops::Range;

/// Draws requests.
pub struct Workload {
    prng: Prng,
    /// Places that are asked for often, in bytes.
    hot: Vec<u64>,
}

/// One index of `weights`, by weight; `None` where all are zero.
pub fn draw_by_weight(prng: &mut Prng, weights: &[Weight]) -> Option<usize> {
    let sum = weights.iter().sum();
    if sum == 0 {
        return None;
    }
    let mut at = prng.below(sum);
    weights.iter().position(|&weight| {
        let here = at < weight;
        at = at.saturating_sub(weight);
        here
    })
}

impl Workload {
    pub fn new(knobs: &Knobs, mut prng: Prng) -> Workload {
        let room = knobs
            .volume_bytes
            .min(knobs.reach.saturating_mul(BLOCK))
            .max(1);
        let spot = |_| {
            let at = prng.below(room);
            // Half of the spots are where chunks or extents meet.
            match prng.below(4) {
                0 => at / CHUNK * CHUNK,
                1 => at / EXTENT * EXTENT,
                _ => at / SECTOR * SECTOR,
            }
        };
        let hot = (0..knobs.hot_spots).map(spot).collect();
        Workload { prng, hot }
    }

    /// The next request to a volume of `bytes` bytes.
    pub fn draw(&mut self, knobs: &Knobs, bytes: u64, writable: bool) -> (RequestKind, Range<u64>) {
        let requests = &knobs.requests;
        let changes = u64::from(writable);
        let weights = [
            requests.read,
            requests.write * changes,
            requests.zeroes * changes,
            requests.discard * changes,
            requests.flush,
            requests.map,
        ];
        let kinds = [
            RequestKind::Read,
            RequestKind::Write,
            RequestKind::WriteZeroes,
            RequestKind::Discard,
            RequestKind::Flush,
            RequestKind::Map,
        ];
        let drawn = draw_by_weight(&mut self.prng, &weights);
        let kind = kinds[drawn.expect("reads have a weight")];
        let range = match kind {
            RequestKind::Flush => 0..0,
            _ => self.draw_range(knobs, bytes, kind),
        };
        (kind, range)
    }

    fn draw_range(&mut self, knobs: &Knobs, bytes: u64, kind: RequestKind) -> Range<u64> {
        let sizes = &knobs.sizes;
        let weights = [
            sizes.bytes,
            sizes.sectors,
            sizes.blocks,
            sizes.chunks,
            sizes.big,
        ];
        let drawn = draw_by_weight(&mut self.prng, &weights);
        // A discard of less than a chunk does nothing: most are whole chunks.
        let discard = kind == RequestKind::Discard && !self.prng.one_in(4);
        let (unit, most) = match drawn {
            _ if discard => (CHUNK, 6 * CHUNK),
            Some(0) => (1, 3 * BLOCK),
            Some(1) => (SECTOR, 3 * BLOCK),
            Some(3) => (CHUNK, 4 * CHUNK),
            Some(4) => (1, 8 * CHUNK),
            _ => (BLOCK, CHUNK),
        };
        let len = self.draw_len(unit, most).min(bytes);
        let place = self.draw_place(knobs, bytes, len);
        let start = (place / unit * unit).min((bytes - len) / unit * unit);
        start..(start + len).min(bytes)
    }

    /// Small more often than large.
    fn draw_len(&mut self, unit: u64, most: u64) -> u64 {
        let units = most / unit;
        let bound = 1 + self.prng.below(units);
        (1 + self.prng.below(bound)) * unit
    }

    fn draw_place(&mut self, knobs: &Knobs, bytes: u64, len: u64) -> u64 {
        let room = bytes.min(knobs.reach.saturating_mul(BLOCK));
        if self.prng.one_in(knobs.cold_one_in) {
            return self.prng.below(room);
        }
        let spot = self.hot[self.prng.below(self.hot.len() as u64) as usize];
        let jitter = self.prng.below(len * 2);
        (spot + jitter).saturating_sub(len) % room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_stay_inside_their_volume_and_are_not_empty() {
        for seed in 0..200 {
            let knobs = Knobs::draw(seed);
            let mut workload = Workload::new(&knobs, Prng::new(seed));
            for _ in 0..200 {
                let bytes = knobs.volume_bytes;
                let (kind, range) = workload.draw(&knobs, bytes, true);
                assert!(range.end <= bytes, "{seed} {kind:?} {range:?} of {bytes}");
                assert!(range.start < range.end || kind == RequestKind::Flush);
            }
        }
    }

    #[test]
    fn a_read_only_volume_is_not_written() {
        let knobs = Knobs::draw(1);
        let mut workload = Workload::new(&knobs, Prng::new(1));
        for _ in 0..500 {
            let (kind, _) = workload.draw(&knobs, 1 << 20, false);
            let reads = [RequestKind::Read, RequestKind::Flush, RequestKind::Map];
            assert!(reads.contains(&kind));
        }
    }
}
