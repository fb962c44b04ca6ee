//! A bound on how fast a disk is filled, where somebody has set one: beside the [pace](super::pace), which gives way to guests by itself.
//!
//! A bucket of credit by the clock that is given: so many bytes a second come in, and what may be asked for is taken out in whole chunks, before it is on its
//! way. What a chunk turns out to hold less than that is given back. It holds a tenth of a second at most (or 1 MiB: of chunks that hold little many are asked for at once), so that a disk that was not filled for an
//! hour is not filled at once; and what was taken beyond it, because guests' writes would have waited, is paid back for a second at most.
//!
//! Invariant: *no-more-than-that*: over any time, what is taken is at most the rate times that time, and what it holds at most, and what guests' writes asked for.

use crate::base::{CHUNK, Time};
use std::time::Duration;

/// How long credit is saved.
const SAVED: Duration = Duration::from_millis(100);
/// And how much at the least that it may be.
const SAVED_CHUNKS: i64 = 16;
/// And how much of a debt is paid back.
const OWED: Duration = Duration::from_secs(1);
/// Between two times at which it is shared out, at the least.
const EVERY: Duration = Duration::from_millis(10);

/// See the [module](self).
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    bytes_per_second: u64,
    /// In bytes; below nothing: a debt.
    credit: i64,
    /// What has come in and is no whole byte yet, in billionths of one.
    rest: u64,
    at: Time,
}

impl Limit {
    /// So many bytes a second from now on, at least one.
    pub fn new(now: Time, bytes_per_second: u64) -> Limit {
        Limit {
            bytes_per_second: bytes_per_second.max(1),
            credit: 0,
            rest: 0,
            at: now,
        }
    }

    /// Another rate from now on. What is owed is owed still.
    pub fn set(&mut self, now: Time, bytes_per_second: u64) {
        self.come_in(now);
        self.bytes_per_second = bytes_per_second.max(1);
        self.bound();
    }

    /// Credit has come in by now.
    pub fn come_in(&mut self, now: Time) {
        const BILLION: u128 = 1_000_000_000;
        let nanos = now.since(self.at).as_nanos();
        let came = nanos * u128::from(self.bytes_per_second) + u128::from(self.rest);
        self.at = self.at.max(now);
        self.rest = (came % BILLION) as u64;
        let bytes = i64::try_from(came / BILLION).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(bytes);
        self.bound();
    }

    /// Whole chunks that may be asked for.
    pub fn chunks(&self) -> u32 {
        let bytes = u64::try_from(self.credit).unwrap_or(0);
        u32::try_from(bytes / CHUNK).unwrap_or(u32::MAX)
    }

    /// So many chunks were taken; below nothing: so many come back.
    pub fn take(&mut self, chunks: i64) {
        let bytes = chunks.saturating_mul(CHUNK as i64);
        self.credit = self.credit.saturating_sub(bytes);
        self.bound();
    }

    /// A chunk that was taken held only so many bytes.
    pub fn held(&mut self, bytes: u64) {
        let less = CHUNK - bytes.min(CHUNK);
        self.credit = self.credit.saturating_add(less as i64);
        self.bound();
    }

    /// When there is credit for a chunk again, and a little later where there is some already.
    pub fn next(&self, now: Time) -> Time {
        let missing = (CHUNK as i64).saturating_sub(self.credit).max(0) as u128;
        let nanos = missing * 1_000_000_000 / u128::from(self.bytes_per_second);
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        now + wait.max(EVERY)
    }

    fn bound(&mut self) {
        let of = |time: Duration| {
            let bytes = u128::from(self.bytes_per_second) * time.as_millis() / 1000;
            i64::try_from(bytes).unwrap_or(i64::MAX)
        };
        let most = of(SAVED).max(SAVED_CHUNKS * CHUNK as i64);
        let least = -of(OWED).max(CHUNK as i64);
        self.credit = self.credit.clamp(least, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SECOND: u64 = 1_000_000_000;

    /// Takes all there is, whenever there is some, for so long; what that was.
    fn taken(limit: &mut Limit, from: Time, nanos: u64) -> u64 {
        let (mut now, mut all) = (from, 0);
        while now.0 < from.0 + nanos {
            now = limit.next(now);
            limit.come_in(now);
            let chunks = limit.chunks();
            limit.take(i64::from(chunks));
            all += u64::from(chunks) * CHUNK;
        }
        all
    }

    #[test]
    fn what_is_taken_is_what_comes_in_at_any_rate() {
        for rate in [MIB, 20 * MIB, 333 * MIB + 7, 10 << 30] {
            let mut limit = Limit::new(Time(5), rate);
            let all = taken(&mut limit, Time(5), 10 * SECOND);
            let wanted = rate * 10;
            // To the end of the last wait.
            assert!(
                all <= wanted + rate / 10 + CHUNK && all + CHUNK >= wanted - wanted / 50,
                "{all} of {wanted}"
            );
        }
    }

    #[test]
    fn a_pause_saves_a_tenth_of_a_second_and_a_debt_is_paid_back_for_a_second() {
        let mut limit = Limit::new(Time(0), 64 * MIB);
        limit.come_in(Time(3_600 * SECOND));
        assert_eq!(
            u64::from(limit.chunks()) * CHUNK,
            64 * MIB / 10 / CHUNK * CHUNK
        );
        limit.take(1 << 20);
        assert_eq!(limit.chunks(), 0);
        limit.come_in(Time(3_601 * SECOND));
        assert_eq!(limit.chunks(), 0, "it is at nothing again");
        limit.come_in(Time(3_601 * SECOND + SECOND / 64));
        assert_eq!(limit.chunks(), 16);
    }

    #[test]
    fn what_a_chunk_does_not_hold_comes_back() {
        let mut limit = Limit::new(Time(0), MIB);
        limit.come_in(Time(SECOND / 10));
        assert_eq!(limit.chunks(), 1);
        limit.take(1);
        assert_eq!(limit.chunks(), 0);
        limit.held(4096);
        limit.come_in(Time(SECOND / 10 + SECOND / 100));
        assert_eq!(limit.chunks(), 1);
    }

    #[test]
    fn another_rate_counts_from_then_on() {
        let mut limit = Limit::new(Time(0), MIB);
        limit.set(Time(0), 100 * MIB);
        assert!(limit.next(Time(0)) <= Time(0) + EVERY);
        assert!(taken(&mut limit, Time(0), SECOND) > 95 * MIB);
        limit.set(Time(SECOND), MIB);
        assert!(taken(&mut limit, Time(SECOND), 10 * SECOND) <= 10 * MIB + 2 * CHUNK);
    }
}
