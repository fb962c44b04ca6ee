//! What the loop drives: `shard::Shard`, or in tests a script in its place. Costs nothing: the loop is
//! compiled for the one machine it is given.

use crate::base::Time;
use crate::shard::{DiskSlot, Input, Outbox, Shard};
use crate::store::{Levels, Stats};

/// A machine of one core, as `shard::door` has it.
pub(super) trait Machine {
    fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox);
    fn deadline(&self) -> Option<Time>;
    fn expire(&mut self, now: Time, out: &mut Outbox);
    /// What the store in a slot counts and holds.
    fn disk(&self, slot: DiskSlot) -> Option<(Stats, Levels)>;
}

impl Machine for Shard {
    fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox) {
        Shard::step(self, now, input, out);
    }

    fn deadline(&self) -> Option<Time> {
        Shard::deadline(self)
    }

    fn expire(&mut self, now: Time, out: &mut Outbox) {
        Shard::expire(self, now, out);
    }

    fn disk(&self, slot: DiskSlot) -> Option<(Stats, Levels)> {
        Shard::disk(self, slot).map(|(_, stats, levels)| (stats, levels))
    }
}
