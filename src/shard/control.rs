//! What the control plane asks of a shard: disks and volumes come and go.

use super::disks::Disk;
use super::door::{Control, ControlError, ControlId, Outbox, Output};
use super::fabric::Order;
use super::machine::{Shard, Whose};
use crate::base::{DiskId, DiskSlot, Epoch, PgId, Slab, Time, VolumeId};
use crate::protocol::replication::Configuration;
use crate::protocol::volume::{Coordinator, OpenVolume};
use crate::store::{self, Store, StoreError, VolumeMeta};

/// Control operations under way at once.
const TASKS_MAX: usize = 4096;

/// A control operation under way.
#[derive(Debug)]
pub(super) struct Task {
    id: ControlId,
    kind: Kind,
    /// Answers of stores that are still to come.
    left: u32,
    error: Option<StoreError>,
}

#[derive(Debug)]
enum Kind {
    OpenDisk(DiskSlot),
    PutVolume,
    /// The volume is put into the coordinator when every store has recorded it. Until
    /// then it may have to drain, because its layer changes.
    OpenVolume {
        meta: Box<VolumeMeta>,
        pgs: Vec<(PgId, Option<DiskSlot>)>,
        draining: bool,
    },
    HoldVolume {
        volume: VolumeId,
        draining: bool,
    },
    CloseVolume {
        volume: VolumeId,
        draining: bool,
    },
    DropVolume {
        volume: VolumeId,
        draining: bool,
    },
    Store,
    /// Waits until nothing is in flight; then the stores are closed.
    Close {
        how: store::Closing,
        closing: bool,
    },
}

#[derive(Debug)]
pub(super) struct Tasks {
    pub list: Slab<Task>,
}

impl Default for Tasks {
    fn default() -> Tasks {
        Tasks {
            list: Slab::new(TASKS_MAX),
        }
    }
}

impl Shard {
    pub(super) fn on_control(
        &mut self,
        now: Time,
        id: ControlId,
        control: Control,
        out: &mut Outbox,
    ) {
        match control {
            Control::OpenDisk {
                disk,
                slot,
                options,
            } => {
                self.open_disk(now, (id, disk, slot), options, out);
            }
            Control::PutOpenings { disk, openings } => {
                let put = |op| store::Input::PutOpenings { op, openings };
                self.ask_one(now, id, disk, put, out);
            }
            Control::PutVolume { meta } => {
                if let Some(task) = self.new_task(id, Kind::PutVolume, out) {
                    let slots = self.disks.slots();
                    // What opens later is told of all volumes then.
                    let is_open = |slot: &DiskSlot| self.store(*slot).is_some_and(Store::is_open);
                    let slots: Vec<_> = slots.filter(is_open).collect();
                    let put = |op| {
                        let volume = meta.clone();
                        Some(store::Input::PutVolume { op, volume })
                    };
                    self.ask_slots(now, task, &slots, put, out);
                }
            }
            Control::OpenVolume { .. } if self.is_of_node() => {
                let result = Err(ControlError::OfCluster);
                out.list.push(Output::ControlDone { id, result });
            }
            Control::OpenVolume { meta, pgs } => self.open_volume(now, id, meta, &pgs, out),
            Control::HoldVolume { volume } => self.hold_volume(now, id, volume, out),
            Control::ResumeVolume { volume } => {
                self.order(now, Order::Resume { volume });
                out.list.push(Output::ControlDone { id, result: Ok(()) });
            }
            Control::CloseVolume { volume } => {
                let kind = Kind::CloseVolume {
                    volume,
                    draining: true,
                };
                if self.new_task(id, kind, out).is_some() {
                    self.order(now, Order::Drain { volume });
                }
            }
            Control::DropVolume { volume } => {
                let kind = Kind::DropVolume {
                    volume,
                    draining: true,
                };
                if self.new_task(id, kind, out).is_some() {
                    self.order(now, Order::Drain { volume });
                }
            }
            Control::Grow { disk, bytes } => {
                self.ask_one(now, id, disk, |op| store::Input::Grow { op, bytes }, out);
            }
            Control::Scrub { disk } => {
                self.ask_one(now, id, disk, |op| store::Input::Scrub { op }, out);
            }
            Control::Checkpoint => {
                if let Some(task) = self.new_task(id, Kind::Store, out) {
                    self.ask_all(now, task, |op| store::Input::Checkpoint { op }, out);
                }
            }
            Control::Close { how } => {
                self.new_task(
                    id,
                    Kind::Close {
                        how,
                        closing: false,
                    },
                    out,
                );
            }
        }
    }

    fn new_task(&mut self, id: ControlId, kind: Kind, out: &mut Outbox) -> Option<u32> {
        let task = self
            .tasks
            .list
            .insert(Task {
                id,
                kind,
                left: 0,
                error: None,
            })
            .ok();
        if task.is_none() {
            let result = Err(ControlError::Store(StoreError::NotOpen));
            out.list.push(Output::ControlDone { id, result });
        }
        task
    }

    fn open_disk(
        &mut self,
        now: Time,
        (id, disk, slot): (ControlId, DiskId, DiskSlot),
        options: store::Options,
        out: &mut Outbox,
    ) {
        if self.new_task(id, Kind::OpenDisk(slot), out).is_none() {
            return;
        }
        // What is known of a disk that was here counts no more.
        if let Some(before) = self.disks.take(slot) {
            self.order(now, Order::NoDisk { disk: before.id });
        }
        let store = Store::open(options, &mut out.store);
        self.disks.put(slot, Disk::new(disk, store));
        self.take_store_outputs(now, slot, out);
    }

    /// Tells who opened a disk, once it serves or cannot be opened.
    pub(super) fn look_at_opening(&mut self, now: Time, slot: DiskSlot, out: &mut Outbox) {
        if self.tasks.list.is_empty() {
            return;
        }
        let Some(store) = self.store(slot) else {
            return;
        };
        let result = match store.open_error() {
            Some(error) => Err(ControlError::Open(error.clone())),
            None if store.is_open() => Ok(()),
            None => return,
        };
        let opens = |task: &Task| matches!(task.kind, Kind::OpenDisk(of) if of == slot);
        let found = self
            .tasks
            .list
            .iter()
            .find(|(_, task)| opens(task))
            .map(|(key, _)| key);
        let Some(task) = found.and_then(|key| self.tasks.list.remove(key)) else {
            return;
        };
        let disk = self.disks.get(slot).map(|disk| disk.id);
        match (&result, disk) {
            // In a cluster the manager records its opening first.
            (Ok(()), Some(_)) if self.is_of_node() => {}
            (Ok(()), Some(disk)) => self.order(now, Order::Disk { disk }),
            _ => drop(self.disks.take(slot)),
        }
        out.list.push(Output::ControlDone {
            id: task.id,
            result,
        });
    }

    fn open_volume(
        &mut self,
        now: Time,
        id: ControlId,
        meta: VolumeMeta,
        pgs: &[(PgId, DiskId)],
        out: &mut Outbox,
    ) {
        let pgs: Vec<_> = pgs
            .iter()
            .map(|&(pg, disk)| (pg, self.disks.slot_of(disk)))
            .collect();
        let newest = meta.layers.last().map(|layer| layer.id);
        let volume = meta.id;
        let changes = self
            .coordinator()
            .volume(volume)
            .is_some_and(|v| Some(v.layer) != newest);
        let kind = Kind::OpenVolume {
            meta: Box::new(meta),
            pgs,
            draining: changes,
        };
        let Some(task) = self.new_task(id, kind, out) else {
            return;
        };
        if changes {
            self.order(now, Order::Pause { volume });
        } else {
            self.record_volume(now, task, out);
        }
    }

    fn hold_volume(&mut self, now: Time, id: ControlId, volume: VolumeId, out: &mut Outbox) {
        if self.coordinator().volume(volume).is_none() {
            let result = Err(ControlError::NoSuchVolume);
            return out.list.push(Output::ControlDone { id, result });
        }
        let draining = true;
        let kind = Kind::HoldVolume { volume, draining };
        if self.new_task(id, kind, out).is_some() {
            self.order(now, Order::Pause { volume });
        }
    }

    fn coordinator(&self) -> &Coordinator {
        self.fabric.coordinator()
    }

    /// Nothing is in flight any more on a volume: what waited for that goes on.
    pub(super) fn on_drained(&mut self, now: Time, drained: VolumeId, out: &mut Outbox) {
        let mut ready = Vec::new();
        for (key, task) in self.tasks.list.iter_mut() {
            let draining = match &mut task.kind {
                Kind::OpenVolume { meta, draining, .. } if meta.id == drained => draining,
                Kind::HoldVolume { volume, draining } if *volume == drained => draining,
                Kind::CloseVolume { volume, draining } if *volume == drained => draining,
                Kind::DropVolume { volume, draining } if *volume == drained => draining,
                _ => continue,
            };
            if std::mem::take(draining) {
                ready.push(key);
            }
        }
        for key in ready {
            match self.tasks.list.get(key).map(|task| &task.kind) {
                Some(Kind::OpenVolume { .. }) => self.record_volume(now, key, out),
                Some(&Kind::DropVolume { volume, .. }) => {
                    self.order(now, Order::Close { volume });
                    self.ask_all(now, key, |op| store::Input::DropVolume { op, volume }, out);
                }
                Some(&Kind::CloseVolume { volume, .. }) => {
                    self.order(now, Order::Close { volume });
                    self.end_task(now, key, out);
                }
                _ => self.end_task(now, key, out),
            }
        }
    }

    /// Has every store record a volume.
    fn record_volume(&mut self, now: Time, task: u32, out: &mut Outbox) {
        let Some(Task {
            kind: Kind::OpenVolume { meta, .. },
            ..
        }) = self.tasks.list.get(task)
        else {
            return;
        };
        let meta = (**meta).clone();
        self.ask_all(
            now,
            task,
            |op| store::Input::PutVolume {
                op,
                volume: meta.clone(),
            },
            out,
        );
    }

    fn ask_one(
        &mut self,
        now: Time,
        id: ControlId,
        disk: DiskId,
        input: impl FnOnce(store::StoreOp) -> store::Input<'static>,
        out: &mut Outbox,
    ) {
        let Some(slot) = self.disks.slot_of(disk) else {
            let result = Err(ControlError::NoSuchDisk);
            return out.list.push(Output::ControlDone { id, result });
        };
        let Some(task) = self.new_task(id, Kind::Store, out) else {
            return;
        };
        let mut input = Some(input);
        let ask = |op| input.take().map(|input| input(op));
        self.ask_slots(now, task, &[slot], ask, out);
    }

    fn ask_all(
        &mut self,
        now: Time,
        task: u32,
        input: impl Fn(store::StoreOp) -> store::Input<'static>,
        out: &mut Outbox,
    ) {
        let slots = self.disks.slots();
        let slots: Vec<_> = slots
            .filter(|&slot| self.disks.get(slot).is_some())
            .collect();
        self.ask_slots(now, task, &slots, |op| Some(input(op)), out);
    }

    fn ask_slots(
        &mut self,
        now: Time,
        task: u32,
        slots: &[DiskSlot],
        mut input: impl FnMut(store::StoreOp) -> Option<store::Input<'static>>,
        out: &mut Outbox,
    ) {
        // One more than the stores, so that early answers do not end the task.
        if let Some(task) = self.task_mut(task) {
            task.left = slots.len() as u32 + 1;
        }
        for &slot in slots {
            match self.new_op(Whose::Task(task)) {
                Some(op) => {
                    if let Some(input) = input(op) {
                        self.step_store(now, slot, input, out);
                    }
                }
                None => self.on_task_answered(now, task, Err(StoreError::NotOpen), out),
            }
        }
        self.on_task_answered(now, task, Ok(()), out);
    }

    pub(super) fn on_task_answered(
        &mut self,
        now: Time,
        key: u32,
        result: Result<(), StoreError>,
        out: &mut Outbox,
    ) {
        let Some(task) = self.task_mut(key) else {
            return;
        };
        task.left -= 1;
        match result {
            // A damaged store records nothing, and its volumes are still to be seen. One whose disk failed does not
            // either, and what lies on the others, here and at other shards, is to be served with the layers that
            // they have recorded. When the disk is back it is told again.
            Err(StoreError::ReadOnly | StoreError::DiskFailed)
                if matches!(task.kind, Kind::OpenVolume { .. } | Kind::PutVolume) => {}
            Err(error) => {
                task.error.get_or_insert(error);
            }
            Ok(()) => {}
        }
        if task.left == 0 {
            self.end_task(now, key, out);
        }
    }

    fn end_task(&mut self, now: Time, key: u32, out: &mut Outbox) {
        let Some(mut task) = self.tasks.list.remove(key) else {
            return;
        };
        if let Kind::OpenVolume { meta, pgs, .. } = task.kind {
            match task.error {
                None => task.error = self.serve(now, &meta, pgs).err(),
                // What it was before, it is again.
                Some(_) => self.order(now, Order::Resume { volume: meta.id }),
            }
        }
        let result = task
            .error
            .map_or(Ok(()), |error| Err(ControlError::Store(error)));
        out.list.push(Output::ControlDone {
            id: task.id,
            result,
        });
    }

    /// A volume is recorded at the stores: it is served, or goes on with what is new of it.
    fn serve(
        &mut self,
        now: Time,
        meta: &VolumeMeta,
        pgs: Vec<(PgId, Option<DiskSlot>)>,
    ) -> Result<(), StoreError> {
        let Some(newest) = meta.layers.last() else {
            return Ok(());
        };
        let (volume, layer, size) = (meta.id, newest.id, meta.size);
        let layers = meta.layers.iter().map(|layer| (layer.id, layer.parent));
        let layers = layers.collect();
        self.order(now, Order::Layers { volume, layers });
        for &(pg, slot) in &pgs {
            // On a node that is alone each PG has one replica, for ever.
            if let Some(disk) = slot.and_then(|slot| self.disks.get(slot)) {
                let of = Configuration::new([disk.id]);
                self.order(now, Order::Configured { pg, of });
            }
        }
        match self.coordinator().volume(volume) {
            Some(open) if open.pgs == pgs => {
                if open.layer != layer {
                    self.order(now, Order::Switch { volume, layer });
                }
                self.order(now, Order::Resize { volume, size });
            }
            _ => {
                let epoch = self.next_epoch(volume, &pgs);
                let Some(epoch) = epoch.filter(|_| self.are_first(&pgs)) else {
                    return Err(StoreError::Damaged);
                };
                let slots = pgs.iter().filter_map(|(_, slot)| *slot);
                let near = slots.filter_map(|slot| Some(self.disks.get(slot)?.id));
                let near = near.collect();
                let family = meta.family;
                let open = OpenVolume {
                    id: volume,
                    family,
                    layer,
                    size,
                    pgs,
                };
                self.order(now, Order::Open { open, epoch, near });
                self.order(now, Order::Release { volume });
            }
        }
        self.order(now, Order::Resume { volume });
        Ok(())
    }

    /// Whether these PGs were never configured anew, and nothing joins them: on a node that is alone nothing else was ever written, and a store that says so
    /// would wait for a manager for ever.
    fn are_first(&self, pgs: &[(PgId, Option<DiskSlot>)]) -> bool {
        pgs.iter().all(|(pg, slot)| {
            let disk = slot.and_then(|slot| self.disks.get(slot));
            let replica = disk.and_then(|disk| disk.store.replica(*pg));
            replica.is_none_or(|of| of.version <= 1 && of.session == 0)
        })
    }

    /// An epoch that the volume has not been served under: above all that its replicas have heard of, and above the starts of the stores, which stood in
    /// for it in stamps of earlier releases. `None`: none is left, which only a forged disk says.
    fn next_epoch(&self, volume: VolumeId, pgs: &[(PgId, Option<DiskSlot>)]) -> Option<Epoch> {
        let mut last = self.fabric.groups().epoch(volume).unwrap_or_default();
        for (pg, slot) in pgs {
            let Some(disk) = slot.and_then(|slot| self.disks.get(slot)) else {
                continue;
            };
            let host = disk.store.superblock().incarnation as u32;
            let starts = Epoch {
                host,
                ..Epoch::default()
            };
            last = last.max(starts);
            if let Some(range) = disk.store.replica(*pg).and_then(|of| of.range(volume)) {
                let written = range.window().map(|entry| entry.stamp.epoch);
                last = written.fold(last.max(range.epoch), Epoch::max);
            }
        }
        last.next()
    }

    /// Closes the stores, once a close was asked for and nothing is in flight.
    pub(super) fn close_if_quiet(&mut self, now: Time, out: &mut Outbox) {
        if self.tasks.list.is_empty() || self.in_flight() > 0 {
            return;
        }
        let found = self
            .tasks
            .list
            .iter_mut()
            .find_map(|(key, task)| match &mut task.kind {
                Kind::Close { how, closing } if !*closing => {
                    *closing = true;
                    Some((key, *how))
                }
                _ => None,
            });
        let Some((key, how)) = found else { return };
        // What comes from now on hears that its volume is closed.
        let open: Vec<_> = self.coordinator().volumes().collect();
        for volume in open {
            self.order(now, Order::Drain { volume });
        }
        self.ask_all(now, key, |op| store::Input::Close { op, how }, out);
    }
}
