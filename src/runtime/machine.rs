//! What the loop drives: `shard::Shard`, or in tests a script in its place. Costs nothing: the loop is
//! compiled for the one machine it is given.

use crate::base::{Time, VolumeId};
use crate::shard::{Copies, DiskSlot, Input, Outbox, Shard, ToFill};
use crate::store::{Levels, Openings, Stats, Store};

/// A machine of one core, as `shard::door` has it.
pub(super) trait Machine {
    fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox);
    fn deadline(&self) -> Option<Time>;
    fn expire(&mut self, now: Time, out: &mut Outbox);
    /// What the store in a slot counts and holds.
    fn disk(&self, slot: DiskSlot) -> Option<(Stats, Levels)>;
    /// What the store in a slot keeps of its openings, where it is open.
    fn openings(&self, slot: DiskSlot) -> Option<Openings>;
    /// The volumes that the store in a slot knows.
    fn volumes(&self, slot: DiskSlot) -> Vec<VolumeId>;
    /// What it knows of copies that are being made.
    fn copies(&self, asked: &[ToFill]) -> Copies;
    /// The last order that was carried out.
    fn upto(&self) -> u64;
    /// Whether it wants a turn though nothing has come.
    fn wants_turn(&self) -> bool;
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

    fn openings(&self, slot: DiskSlot) -> Option<Openings> {
        let store = Shard::store(self, slot).filter(|store| store.is_open());
        store.map(Store::openings)
    }

    fn volumes(&self, slot: DiskSlot) -> Vec<VolumeId> {
        let store = Shard::store(self, slot).filter(|store| store.is_open());
        let volumes = store.into_iter().flat_map(Store::volumes);
        volumes.map(|volume| volume.id).collect()
    }

    fn copies(&self, asked: &[ToFill]) -> Copies {
        Shard::copies(self, asked)
    }

    fn upto(&self) -> u64 {
        Shard::upto(self)
    }

    fn wants_turn(&self) -> bool {
        Shard::wants_turn(self)
    }
}
