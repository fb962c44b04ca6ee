//! New disks: what `sarsen disk format` would have written, and where things lie then.

use super::disk::Layout;
use super::medium::Medium;
use super::swarm::Knobs;
use crate::base::Prng;

/// A freshly formatted medium for these knobs.
pub fn formatted(knobs: &Knobs, _prng: &mut Prng) -> (Medium, Layout) {
    (Medium::new(knobs.disk_bytes), Layout::default())
}
