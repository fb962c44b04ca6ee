//! Durations by size: buckets that grow with what they hold, so that a microsecond and a second are told to the
//! same few percent. Two of a kind: [`Histogram`] of one thread, and [`AtomicHistogram`] that one thread writes
//! and others read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets by which each power of two is cut: durations are told to within 1/16.
const PARTS_BITS: u32 = 4;
const PARTS: usize = 1 << PARTS_BITS;
/// Powers of two of nanoseconds: the last bucket holds all above 2^40 ns, 18 minutes.
const POWERS: usize = 40;
/// All buckets.
const BUCKETS: usize = (POWERS - PARTS_BITS as usize + 1) * PARTS;

/// The bucket that a duration falls in.
fn bucket_of(nanos: u64) -> usize {
    if nanos < PARTS as u64 {
        return nanos as usize;
    }
    let power = nanos.ilog2();
    let part = (nanos >> (power - PARTS_BITS)) as usize - PARTS;
    let row = (power - PARTS_BITS + 1) as usize;
    (row * PARTS + part).min(BUCKETS - 1)
}

/// The shortest duration, in nanoseconds, that falls beyond a bucket.
fn end_of(bucket: usize) -> u64 {
    let next = bucket + 1;
    if next < PARTS {
        return next as u64;
    }
    let (row, part) = (next / PARTS, next % PARTS);
    ((PARTS + part) as u64) << (row - 1)
}

/// Durations, counted by one thread.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: vec![0; BUCKETS],
            sum: 0,
            max: 0,
        }
    }
}

impl Histogram {
    pub fn record(&mut self, time: Duration) {
        let nanos = time.as_nanos() as u64;
        self.counts[bucket_of(nanos)] += 1;
        self.sum += u128::from(nanos);
        self.max = self.max.max(nanos);
    }

    /// Adds what another thread counted.
    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Zero where nothing was counted.
    pub fn mean(&self) -> Duration {
        let count = u128::from(self.count());
        Duration::from_nanos(self.sum.checked_div(count).unwrap_or(0) as u64)
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The duration that this part (0 to 1) of all does not exceed, to within 1/16; zero where nothing
    /// was counted.
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count() as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(end_of(bucket).min(self.max));
            }
        }
        Duration::ZERO
    }

    /// The upper bounds of powers of two of microseconds, in seconds, and how many were at or below each.
    pub fn by_powers(&self) -> Vec<(f64, u64)> {
        let mut below = 0;
        let mut powers = Vec::new();
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            let end = end_of(bucket);
            if end.is_power_of_two() && (1 << 10..=1 << 34).contains(&end) {
                powers.push((end as f64 / 1e9, below));
            }
        }
        powers
    }

    /// The sum of all, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum as f64 / 1e9
    }
}

/// Durations that one thread counts and others read: plain stores, no locked instruction.
#[derive(Debug)]
pub struct AtomicHistogram {
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for AtomicHistogram {
    fn default() -> AtomicHistogram {
        AtomicHistogram {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl AtomicHistogram {
    /// Counts a duration. To be called by one thread only: two would lose counts of one another.
    pub fn record(&self, time: Duration) {
        let nanos = time.as_nanos() as u64;
        super::bump(&self.counts[bucket_of(nanos)], 1);
        super::bump(&self.sum, nanos);
        if nanos > self.max.load(Ordering::Relaxed) {
            self.max.store(nanos, Ordering::Relaxed);
        }
    }

    /// Adds what was counted so far to a histogram.
    pub fn add_to(&self, into: &mut Histogram) {
        for (to, from) in into.counts.iter_mut().zip(&self.counts) {
            *to += from.load(Ordering::Relaxed);
        }
        into.sum += u128::from(self.sum.load(Ordering::Relaxed));
        into.max = into.max.max(self.max.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_the_bucket_that_ends_behind_it() {
        for power in 0..39 {
            for nanos in [
                1u64 << power,
                (1 << power) + 1,
                (1 << power) * 3 / 2,
                (2 << power) - 1,
            ] {
                let bucket = bucket_of(nanos);
                assert!(nanos < end_of(bucket), "{nanos} in {bucket}");
                assert!(
                    bucket == 0 || nanos >= end_of(bucket - 1),
                    "{nanos} in {bucket}"
                );
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_right_to_a_sixteenth() {
        let atomic = AtomicHistogram::default();
        (1..=1000).for_each(|us| atomic.record(Duration::from_micros(us)));
        let mut all = Histogram::default();
        atomic.add_to(&mut all);
        assert_eq!((all.count(), all.max()), (1000, Duration::from_millis(1)));
        for (part, us) in [(0.5, 500.0), (0.99, 990.0)] {
            let told = all.quantile(part).as_secs_f64() * 1e6;
            assert!((told / us - 1.0).abs() < 1.0 / 16.0, "{part}: {told}");
        }
        assert_eq!(all.mean(), Duration::from_nanos(500_500));
        let powers = all.by_powers();
        assert!(powers.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        assert_eq!(powers.last().unwrap().1, 1000);
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
