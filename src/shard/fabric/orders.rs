//! What the node's control plane orders, each brought to who carries it out.

use super::Fabric;
use super::door::{Order, Output, Stores};
use crate::base::Time;

impl Fabric {
    pub(super) fn on_order(
        &mut self,
        now: Time,
        order: Order,
        stores: &dyn Stores,
        out: &mut Vec<Output>,
    ) {
        match order {
            Order::Disk { disk } => self.put_disk(now, disk),
            Order::FillLimit {
                disk,
                bytes_per_second,
            } => self.limit(now, disk, bytes_per_second, out),
            Order::NoDisk { disk } => self.drop_disk(disk),
            Order::Configured { pg, of } => self.configured(now, (pg, of), stores, out),
            Order::Layers { layers, .. } => {
                self.put_layers(layers);
                self.take_early(now, out);
            }
            Order::Connected { disks } => {
                let disks = disks.into_iter();
                disks.for_each(|disk| self.on_connected(now, disk, out));
            }
            Order::Disconnected { disks } => {
                let disks = disks.into_iter();
                disks.for_each(|disk| self.on_disconnected(now, disk, out));
            }
            Order::Leased { until } => self.groups.lease_anew(until),
            Order::Extended { until } => self.groups.lease(until),
            Order::WithoutLease(what) => self.groups.without_lease(what),
            Order::Open { open, epoch, near } => self.open(now, (open, epoch), near, out),
            Order::Offer(open) => self.offer(open),
            Order::StartOver { volume } => self.start_over(volume),
            Order::Suspend { volume } => self.suspend(now, volume, out),
            Order::Close { volume } => self.close(now, volume, out),
            Order::SayAgain => self.say_again(out),
            Order::Resize { volume, size } => self.coordinator.resize(volume, size),
            Order::Drain { volume } => {
                (self.coordinator).close(volume, &mut self.of_coordinator.list);
            }
            Order::Pause { volume } => {
                (self.coordinator).pause(volume, &mut self.of_coordinator.list);
            }
            Order::Resume { volume } => {
                (self.coordinator).resume(volume, &mut self.of_coordinator.list);
            }
            Order::Release { volume } => {
                (self.coordinator).release(volume, &mut self.of_coordinator.list);
            }
            Order::Switch { volume, layer } => {
                (self.coordinator).cut(volume, layer, &mut self.of_coordinator.list);
            }
            Order::Settle { volume, pgs } => {
                (self.groups).settle(now, volume, pgs, &mut self.of_groups.list);
            }
        }
    }
}
