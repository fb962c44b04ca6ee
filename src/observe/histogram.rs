//! Durations by size: buckets that grow with what they hold, so that a microsecond and a second are told equally
//! well. Two of a kind: [`Histogram`] of one thread, to a few percent, for measurements; and [`AtomicHistogram`], to a
//! power of two, that one thread writes and others read, for monitoring.

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
}

/// Bounds of the buckets that monitoring gets: powers of two from 1 us to 17 s, and one bucket for all above.
const BOUND_FIRST: u32 = 10;
const BOUND_LAST: u32 = 34;
const BOUNDS: usize = (BOUND_LAST - BOUND_FIRST + 1) as usize;

/// Durations that one thread counts and others read: plain stores, no locked instruction. Told to a power of two
/// only: monitoring wants no more, and a busy volume has twelve of them a shard, of 216 bytes each.
#[derive(Debug, Default)]
pub struct AtomicHistogram {
    counts: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

impl AtomicHistogram {
    /// Counts a duration. To be called by one thread only: two would lose counts of one another.
    pub fn record(&self, time: Duration) {
        self.record_often(time, 1);
    }

    /// The same for something that was seen several times.
    pub fn record_often(&self, time: Duration, times: u32) {
        let nanos = time.as_nanos() as u64;
        let power = u64::BITS - nanos.leading_zeros(); // below 2^power
        let bucket = power.saturating_sub(BOUND_FIRST) as usize;
        super::bump(&self.counts[bucket.min(BOUNDS)], u64::from(times));
        super::bump(&self.sum, nanos.wrapping_mul(u64::from(times)));
    }

    /// Adds what was counted so far.
    pub fn add_to(&self, into: &mut Buckets) {
        for (to, from) in into.counts.iter_mut().zip(&self.counts) {
            *to += from.load(Ordering::Relaxed);
        }
        into.sum += u128::from(self.sum.load(Ordering::Relaxed));
    }
}

/// What was counted in an [`AtomicHistogram`], or in several.
#[derive(Debug, Clone, Default)]
pub struct Buckets {
    counts: [u64; BOUNDS + 1],
    sum: u128,
}

impl Buckets {
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum as f64 / 1e9
    }

    /// The upper bound of each bucket, in seconds, and how many durations fell into it; the last one has no bound.
    pub fn list(&self) -> Vec<(f64, u64)> {
        let bounds = (BOUND_FIRST..=BOUND_LAST).map(|power| (1u64 << power) as f64 / 1e9);
        let bounds = bounds.chain([f64::MAX]);
        bounds.zip(self.counts).collect()
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
        let mut all = Histogram::default();
        (1..=1000).for_each(|us| all.record(Duration::from_micros(us)));
        assert_eq!((all.count(), all.max()), (1000, Duration::from_millis(1)));
        for (part, us) in [(0.5, 500.0), (0.99, 990.0)] {
            let told = all.quantile(part).as_secs_f64() * 1e6;
            assert!((told / us - 1.0).abs() < 1.0 / 16.0, "{part}: {told}");
        }
        assert_eq!(all.mean(), Duration::from_nanos(500_500));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn every_duration_is_below_the_bound_of_its_bucket_and_not_below_the_one_before() {
        for nanos in [
            0,
            1,
            1023,
            1024,
            1025,
            4095,
            1 << 20,
            (1 << 34) - 1,
            1 << 34,
            u64::MAX,
        ] {
            let atomic = AtomicHistogram::default();
            atomic.record_often(Duration::from_nanos(nanos), 3);
            let mut all = Buckets::default();
            atomic.add_to(&mut all);
            let list = all.list();
            let place = list.iter().position(|(_, count)| *count > 0).unwrap();
            let seconds = nanos as f64 / 1e9;
            assert!(seconds < list[place].0, "{nanos}");
            assert!(place == 0 || seconds >= list[place - 1].0, "{nanos}");
            assert_eq!((all.count(), list[place].1), (3, 3));
        }
    }

    #[test]
    fn sums_are_in_seconds() {
        let atomic = AtomicHistogram::default();
        atomic.record(Duration::from_millis(500));
        atomic.record_often(Duration::from_millis(250), 2);
        let mut all = Buckets::default();
        atomic.add_to(&mut all);
        assert_eq!((all.count(), all.sum_seconds()), (3, 1.0));
    }
}
