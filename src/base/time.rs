//! Time as a value: pure rooms are told what time it is.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds of CLOCK_BOOTTIME (in the simulator: of the simulated node's clock).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// How long after `earlier` this is; zero where it is not.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, later: Duration) -> Time {
        Time(self.0.saturating_add(later.as_nanos() as u64))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, earlier: Duration) -> Time {
        Time(self.0.saturating_sub(earlier.as_nanos() as u64))
    }
}
