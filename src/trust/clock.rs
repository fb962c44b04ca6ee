//! Time of day, as certificates and tokens have it: seconds, of a clock that a test can set.
//!
//! Leases never use it; they count on a clock that does not step.

use rustls::pki_types::UnixTime;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use time_date::OffsetDateTime;

/// How far two nodes' clocks may be apart. A certificate counts from so much before it begins until so much after it ends, so
/// that a clock that was stepped does not cut off nodes at once.
pub const SKEW: Duration = Duration::from_secs(300);

/// Seconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct WallTime(pub u64);

impl WallTime {
    pub fn plus(self, by: Duration) -> WallTime {
        WallTime(self.0.saturating_add(by.as_secs()))
    }

    pub fn minus(self, by: Duration) -> WallTime {
        WallTime(self.0.saturating_sub(by.as_secs()))
    }

    /// How long it is from `earlier` to this; nothing where that is later.
    pub fn since(self, earlier: WallTime) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    pub(super) fn date(self) -> OffsetDateTime {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    pub(super) fn unix(self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.0))
    }
}

impl From<UnixTime> for WallTime {
    fn from(time: UnixTime) -> WallTime {
        WallTime(time.as_secs())
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.date();
        let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
        let (hour, minute, second) = (at.hour(), at.minute(), at.second());
        write!(
            f,
            "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}

/// Where the time of day comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> WallTime + Send + Sync>);

impl Clock {
    /// The system's.
    pub fn system() -> Clock {
        Clock::of(|| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            WallTime(since.unwrap_or_default().as_secs())
        })
    }

    /// One that tells what `now` says.
    pub fn of(now: impl Fn() -> WallTime + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    pub fn now(&self) -> WallTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now().unix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_as_a_date() {
        assert_eq!(WallTime(0).to_string(), "1970-01-01 00:00:00 UTC");
        assert_eq!(
            WallTime(1_795_372_269).to_string(),
            "2026-11-22 18:31:09 UTC"
        );
        assert_eq!(WallTime(5).since(WallTime(9)), Duration::ZERO);
    }
}
