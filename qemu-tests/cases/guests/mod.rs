//! Guests under QEMU, and hosts that are guests, one file a disaster.

mod disk_over_nbd;

use crate::harness::Case;

/// All of them, in the order in which they run.
pub fn cases() -> Vec<Case> {
    let mut all = disk_over_nbd::cases();
    for case in &mut all {
        case.place = crate::harness::Place::Guest;
    }
    all
}
