//! The clock of the data plane: CLOCK_BOOTTIME, which goes on while the machine sleeps, so that a lease cannot
//! outlive a suspend. Read once a turn.

use crate::base::Time;
use std::time::Duration;

/// What time it is.
pub fn now() -> Time {
    Time(read(libc::CLOCK_BOOTTIME))
}

/// CLOCK_MONOTONIC in microseconds, which is what service managers go by.
pub fn monotonic_us() -> u64 {
    read(libc::CLOCK_MONOTONIC) / 1_000
}

/// CPU time that this thread has used.
pub fn thread_cpu() -> Duration {
    Duration::from_nanos(read(libc::CLOCK_THREAD_CPUTIME_ID))
}

/// CPU time that all threads of this process have used, the kernel's workers for its rings included.
pub fn process_cpu() -> Duration {
    Duration::from_nanos(read(libc::CLOCK_PROCESS_CPUTIME_ID))
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut at = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `at` is a valid place for a timespec, and nothing else is touched.
    let failed = unsafe { libc::clock_gettime(clock, &mut at) };
    assert_eq!(failed, 0, "the clocks used here exist since Linux 2.6.39");
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let (a, b) = (now(), now());
        assert!(a <= b && a.0 > 0);
        assert!(process_cpu() >= thread_cpu());
    }
}
