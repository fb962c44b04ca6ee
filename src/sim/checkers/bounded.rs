//! *bounded*: nothing leaves its bounds. A disk operation lies inside its disk and is aligned; the memory that
//! the store pins, and what it has in flight, stay under their limits.

use super::{Checker, Failure};
use crate::base::BLOCK;

/// The most operations that a store may have in flight on its disk.
pub const FLIGHTS_MAX: usize = 4096;

/// Judges where a disk operation goes.
pub fn judge_place(offset: u64, len: u64, disk_bytes: u64) -> Result<(), Failure> {
    let aligned = offset.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK) && len > 0;
    let inside = offset.checked_add(len).is_some_and(|end| end <= disk_bytes);
    match aligned && inside {
        true => Ok(()),
        false => Err(Failure::new(
            Checker::Bounded,
            format!("an operation of {len} bytes at {offset} of a disk of {disk_bytes} bytes"),
        )),
    }
}

/// Judges how much is pinned: what the journal may keep in memory on each disk, and what the requests
/// in flight have pinned besides. In blocks.
pub fn judge_pinned(pinned: u64, limit: u64) -> Result<(), Failure> {
    match pinned <= limit {
        true => Ok(()),
        false => Err(Failure::new(
            Checker::Bounded,
            format!("{pinned} blocks are pinned, {limit} are allowed"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_that_leave_the_disk_or_the_grid_are_refused() {
        assert!(judge_place(4096, 8192, 12_288).is_ok());
        assert!(judge_place(4096, 12_288, 12_288).is_err());
        assert!(judge_place(512, 4096, 12_288).is_err());
        assert!(judge_place(0, 0, 12_288).is_err());
        assert!(judge_place(u64::MAX - 4095, 4096, 12_288).is_err());
    }
}
