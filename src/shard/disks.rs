//! The shard's disks by their slots, each with its store and how full it is.

use super::fabric::Stores;
use super::operation::durable_of;
use crate::base::{DiskId, DiskSlot, PgId, Time};
use crate::protocol::replication::replica::Durable;
use crate::protocol::replication::{Gauge, Room};
use crate::store::{Store, Torn};

/// A disk and its store.
pub(super) struct Disk {
    pub id: DiskId,
    pub store: Store,
    gauge: Gauge,
    /// The slots that the gauge is of.
    slots: u64,
}

impl Disk {
    pub fn new(id: DiskId, store: Store) -> Disk {
        Disk {
            id,
            store,
            gauge: Gauge::of(0),
            slots: 0,
        }
    }

    /// Whether the store takes no changes any more, because what it should have recorded is damaged.
    pub fn is_read_only(&self) -> bool {
        self.store.is_open() && !self.store.is_whole()
    }

    /// What its room has become, if that is new.
    fn look(&mut self) -> Option<Room> {
        let (free, slots) = self.store.slots_left();
        if slots != self.slots {
            (self.slots, self.gauge) = (slots, Gauge::of(slots));
            self.gauge.free(free);
            return Some(self.gauge.room());
        }
        self.gauge.free(free)
    }
}

/// By their slots.
#[derive(Default)]
pub(super) struct Disks(Vec<Option<Disk>>);

impl Disks {
    pub fn put(&mut self, slot: DiskSlot, disk: Disk) {
        let at = usize::from(slot.0);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(disk);
    }

    /// The disk in a slot is no more.
    pub fn take(&mut self, slot: DiskSlot) -> Option<Disk> {
        self.0.get_mut(usize::from(slot.0))?.take()
    }

    pub fn get(&self, slot: DiskSlot) -> Option<&Disk> {
        self.0.get(usize::from(slot.0))?.as_ref()
    }

    pub fn get_mut(&mut self, slot: DiskSlot) -> Option<&mut Disk> {
        self.0.get_mut(usize::from(slot.0))?.as_mut()
    }

    /// All slots, also those without a disk.
    pub fn slots(&self) -> impl Iterator<Item = DiskSlot> + use<> {
        (0..self.0.len()).map(|slot| DiskSlot(slot as u16))
    }

    pub fn slot_of(&self, disk: DiskId) -> Option<DiskSlot> {
        let is_it = |found: &Option<Disk>| found.as_ref().is_some_and(|found| found.id == disk);
        let slot = self.0.iter().position(is_it)?;
        Some(DiskSlot(slot as u16))
    }

    fn of(&self, disk: DiskId) -> Option<&Disk> {
        self.0.iter().flatten().find(|found| found.id == disk)
    }

    pub fn deadline(&self) -> Option<Time> {
        let disks = self.0.iter().flatten();
        disks.filter_map(|disk| disk.store.deadline()).min()
    }

    /// The disk in a slot, if its deadline has come.
    pub fn due(&mut self, slot: DiskSlot, now: Time) -> Option<&mut Disk> {
        let is_due = |disk: &&mut Disk| disk.store.deadline().is_some_and(|at| at <= now);
        self.get_mut(slot).filter(is_due)
    }

    /// What the room of a disk has become, if that is new.
    pub fn room_changed(&mut self, slot: DiskSlot) -> Option<(DiskId, Room)> {
        let disk = self.get_mut(slot)?;
        disk.look().map(|room| (disk.id, room))
    }

    /// The PGs that damage was told of.
    pub fn torn_by(&self, slot: DiskSlot, torn: Torn) -> Vec<PgId> {
        match torn {
            Torn::Pg(pg) => vec![pg],
            Torn::Disk => {
                let replicas = self.get(slot).into_iter();
                let replicas = replicas.flat_map(|disk| disk.store.replicas());
                replicas.map(|(pg, _)| pg).collect()
            }
        }
    }
}

impl Stores for Disks {
    fn durable(&self, disk: DiskId, pg: PgId) -> Option<Durable> {
        durable_of(&self.of(disk)?.store, pg)
    }

    fn room(&self, disk: DiskId) -> Room {
        self.of(disk).map_or(Room::Ample, |disk| disk.gauge.room())
    }

    fn is_torn(&self, disk: DiskId, pg: PgId) -> bool {
        let of_pg = |torn: &Torn| *torn == Torn::Disk || *torn == Torn::Pg(pg);
        self.of(disk)
            .is_some_and(|disk| disk.store.torn().iter().any(of_pg))
    }
}
