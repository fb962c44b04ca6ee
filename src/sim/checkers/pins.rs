//! *pins*: the store uses a buffer only while it has a right to, and lets everything go at rest.

use super::{Checker, Failure};
use crate::sim::buffers::{Buffers, Misuse};

/// Puts a misuse into words.
pub fn failure(misuse: Misuse) -> Failure {
    let what = match misuse {
        Misuse::Stale(at) => format!("{at:?} is used and was given back"),
        Misuse::Outside(at, blocks) => format!("{blocks} blocks from {at:?} leave the buffer"),
        Misuse::NotPinned(at) => format!("{at:?} is unpinned more often than pinned"),
    };
    Failure::new(Checker::Pins, what)
}

/// Judges a node that has closed its disks: nothing is held any more but the `own` buffers of the stores and the shard.
pub fn judge_at_rest(buffers: &Buffers, own: usize) -> Result<(), Failure> {
    match (buffers.pinned(), buffers.in_use()) {
        (0, in_use) if in_use == own => Ok(()),
        (blocks, in_use) => Err(Failure::new(
            Checker::Pins,
            format!(
                "at rest {in_use} buffers are in use, {own} of them rightly, and {blocks} blocks pinned"
            ),
        )),
    }
}

/// Judges disks that were closed: whoever opens them next must not meet an operation that was left behind.
pub fn judge_let_go(in_flight: usize) -> Result<(), Failure> {
    match in_flight {
        0 => Ok(()),
        n => Err(Failure::new(
            Checker::Pins,
            format!("the disks were closed with {n} operations in flight"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BufRef;

    #[test]
    fn a_pin_that_is_left_at_rest_is_found() {
        let mut buffers = Buffers::default();
        let at = BufRef {
            id: buffers.take(2).unwrap(),
            block: 0,
        };
        buffers.pin(at, 1).unwrap();
        buffers.answered(at.id);
        assert!(judge_at_rest(&buffers, 0).is_err());
        buffers.unpin(at, 1).unwrap();
        assert!(judge_at_rest(&buffers, 0).is_ok());
    }
}
