//! What the loop drives: `shard::Shard`, or in tests a script in its place. Costs nothing: the loop is
//! compiled for the one machine it is given.

use crate::base::Time;
use crate::shard::{Input, Outbox, Shard};

/// A machine of one core, as `shard::door` has it.
pub(super) trait Machine {
    fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox);
    fn deadline(&self) -> Option<Time>;
    fn expire(&mut self, now: Time, out: &mut Outbox);
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
}
