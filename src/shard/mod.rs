//! The shard: everything that one core of one node decides, as one deterministic value.

mod door;

pub use door::{Control, ControlError, ControlId, DiskSlot, Input, Outbox, Output};

use crate::base::{Breaks, Time};

/// One core as one machine.
pub struct Shard {}

impl Shard {
    pub fn new(_breaks: Breaks) -> Shard {
        Shard {}
    }
    pub fn step(&mut self, _now: Time, _input: Input<'_>, _out: &mut Outbox) {}
    /// When [`Shard::expire`] is to be called, if nothing else happens first.
    pub fn deadline(&self) -> Option<Time> {
        None
    }
    pub fn expire(&mut self, _now: Time, _out: &mut Outbox) {}
}
