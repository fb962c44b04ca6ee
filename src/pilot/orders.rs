//! Orders on their way to the shards: what the stores have to keep first is kept first, and nothing that follows it goes before.
//!
//! ```text
//!   Node ──► Order ─┐
//!            Open   ├─► queue: [Order, keep, Order, Order, keep, ...] ──► shards, in this order; a `keep` goes to the stores, and what follows waits
//!            Layers ┘
//!        ──► Extended ───────────────────────────────────────────────► shards, at once
//! ```
//!
//! Leases do not wait for disks. An extension goes at once, unless a lease that was taken anew still waits here: then that one becomes longer. The end of a
//! lease goes at once always, and what waits of that lease becomes one that has ended. A lease that was taken anew ([`Order::Leased`]) keeps its place:
//! what was opened before it is not covered by it, and the shards can see that by the order only.
//!
//! Layers of several volumes are kept at once, and those that all stores have already are not kept again: at a start they are said of every volume once a disk.
//!
//! A store that does not keep what it is given holds up everything that follows, on this node. That is on purpose: a shard that served a layer that its disk does
//! not know would read nothing where there is data.
//!
//! Invariants: *kept-first*, *in-order*. What waits is bounded by the driver, which takes no news of the catalog while [`Orders::is_full`].

use crate::base::{DiskId, Time, VolumeId};
use crate::shard::fabric::Order;
use crate::store::{Openings, VolumeMeta};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Past so many no news of the catalog is taken. A snapshot of it may bring more: an order a placement group and four a volume.
const WAITING_MAX: usize = 16_384;
/// Volumes whose layers are kept at once.
const LAYERS_MAX: usize = 16;

/// What stores are to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keep {
    /// All stores: a volume with its layers; then the shards are told.
    Volume(VolumeMeta),
    /// One store: the number of this opening.
    Opened { disk: DiskId, of: Openings },
    /// The same: that it is recorded.
    Recorded { disk: DiskId, of: Openings },
}

#[derive(Debug)]
enum Item {
    Order(Order),
    Keep(Keep),
}

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Next {
    Give(Order),
    Begin(Keep),
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Orders {
    queue: VecDeque<Item>,
    /// What stores are keeping now: one, or layers of several volumes.
    keeping: Vec<Keep>,
    /// What all stores have of volumes.
    kept: BTreeMap<VolumeId, VolumeMeta>,
    /// Disks of which an opening is not kept yet.
    opening: BTreeSet<DiskId>,
    /// Disks that did not keep what they were told: they do not serve in this start.
    failed: BTreeSet<DiskId>,
}

impl Orders {
    /// An order of the node. What it gives back goes at once.
    pub fn push(&mut self, order: Order) -> Option<Order> {
        let waiting =
            |item: &Item, of: fn(&Order) -> bool| matches!(item, Item::Order(order) if of(order));
        match order {
            Order::Extended { until } => {
                let leased = self.queue.iter_mut().rev().filter_map(|item| match item {
                    Item::Order(Order::Leased { until }) => Some(until),
                    _ => None,
                });
                let mut leased = leased.peekable();
                if until == Time(0) {
                    leased.for_each(|leased| *leased = until);
                } else if let Some(newest) = leased.peek_mut() {
                    **newest = until;
                    return None;
                }
                Some(order)
            }
            Order::SayAgain => {
                let is_there = |item: &Item| waiting(item, |of| matches!(of, Order::SayAgain));
                if !self.queue.iter().any(is_there) {
                    self.queue.push_back(Item::Order(order));
                }
                None
            }
            order => {
                self.queue.push_back(Item::Order(order));
                None
            }
        }
    }

    /// Has stores keep something before what follows.
    pub fn keep(&mut self, keep: Keep) {
        if let Keep::Opened { disk, .. } = keep {
            self.opening.insert(disk);
        }
        self.queue.push_back(Item::Keep(keep));
    }

    /// What is to be done next; `None`: nothing, until something is kept.
    pub fn next(&mut self) -> Option<Next> {
        loop {
            match self.queue.front()? {
                Item::Keep(Keep::Volume(meta)) => {
                    let only_layers =
                        |keep: &Keep| matches!(keep, Keep::Volume(of) if of.id != meta.id);
                    let may_begin = self.keeping.iter().all(only_layers);
                    if !may_begin || self.keeping.len() >= LAYERS_MAX {
                        return None;
                    }
                }
                _ if !self.keeping.is_empty() => return None,
                _ => {}
            }
            match self.queue.pop_front()? {
                Item::Order(Order::Disk { disk }) if self.failed.contains(&disk) => {}
                Item::Order(order) => return Some(Next::Give(order)),
                Item::Keep(Keep::Volume(meta)) if self.kept.get(&meta.id) == Some(&meta) => {
                    return Some(Next::Give(layers(&meta)));
                }
                Item::Keep(keep) => {
                    self.keeping.push(keep.clone());
                    return Some(Next::Begin(keep));
                }
            }
        }
    }

    /// The stores have it durably. What it gives back goes to the shards at once.
    pub fn kept(&mut self, keep: &Keep) -> Option<Order> {
        self.keeping.retain(|of| of != keep);
        match keep {
            Keep::Volume(meta) => {
                let order = layers(meta);
                self.kept.insert(meta.id, meta.clone());
                Some(order)
            }
            Keep::Opened { disk, .. } => {
                self.opening.remove(disk);
                None
            }
            Keep::Recorded { .. } => None,
        }
    }

    /// The store of a disk does not keep its opening: it does not serve in this start. What follows goes on.
    pub fn not_kept(&mut self, keep: &Keep) {
        self.keeping.retain(|of| of != keep);
        if let Keep::Opened { disk, .. } | Keep::Recorded { disk, .. } = keep {
            self.failed.insert(*disk);
        }
    }

    /// A store was not there before: it has nothing of what the others keep.
    pub fn found(&mut self) {
        self.kept.clear();
    }

    /// A volume is no more.
    pub fn forget(&mut self, volume: VolumeId) {
        self.kept.remove(&volume);
    }

    /// Whether an opening of this disk is durable, so that it may be told.
    pub fn may_tell(&self, disk: DiskId) -> bool {
        !self.opening.contains(&disk) && !self.failed.contains(&disk)
    }

    pub fn is_full(&self) -> bool {
        self.queue.len() >= WAITING_MAX
    }

    pub fn waiting(&self) -> usize {
        self.queue.len() + self.keeping.len()
    }
}

fn layers(meta: &VolumeMeta) -> Order {
    let layers = meta.layers.iter().map(|layer| (layer.id, layer.parent));
    Order::Layers {
        volume: meta.id,
        layers: layers.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{FamilyId, LayerId};
    use crate::store::LayerMeta;

    fn meta(volume: u64, layers: u64) -> VolumeMeta {
        let layer = |id| LayerMeta {
            id: LayerId(id),
            parent: (id > 1).then(|| LayerId(id - 1)),
            frozen: id < layers,
        };
        VolumeMeta {
            id: VolumeId(volume),
            family: FamilyId(volume),
            name: format!("v{volume}"),
            size: 1 << 20,
            layers: (1..=layers).map(layer).collect(),
        }
    }

    fn keep(volume: u64, layers: u64) -> Keep {
        Keep::Volume(meta(volume, layers))
    }

    fn close(volume: u64) -> Order {
        let volume = VolumeId(volume);
        Order::Close { volume }
    }

    /// All that can be done now, in words.
    fn done(orders: &mut Orders) -> String {
        let mut words = Vec::new();
        while let Some(next) = orders.next() {
            words.push(match next {
                Next::Give(order) => word(&order),
                Next::Begin(Keep::Volume(meta)) => format!("keep v{}", meta.id.0),
                Next::Begin(Keep::Opened { disk, .. }) => format!("keep opened {disk}"),
                Next::Begin(Keep::Recorded { disk, .. }) => format!("keep recorded {disk}"),
            });
        }
        words.join(", ")
    }

    fn word(order: &Order) -> String {
        match order {
            Order::Close { volume } => format!("close {}", volume.0),
            Order::Layers { volume, layers } => format!("layers {} {}", volume.0, layers.len()),
            Order::Leased { until } => format!("leased {}", until.0),
            Order::Extended { until } => format!("extended {}", until.0),
            Order::Disk { disk } => format!("disk {disk}"),
            Order::SayAgain => "again".into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_follows_waits_until_the_stores_have_what_goes_before() {
        let mut orders = Orders::default();
        orders.push(close(1));
        orders.keep(keep(1, 2));
        orders.push(close(2));
        assert_eq!(done(&mut orders), "close 1, keep v1");
        assert_eq!(done(&mut orders), "");
        let told = orders.kept(&keep(1, 2)).unwrap();
        assert_eq!(word(&told), "layers 1 2");
        assert_eq!(done(&mut orders), "close 2");
    }

    #[test]
    fn layers_are_kept_side_by_side_but_those_of_one_volume_one_after_the_other() {
        let mut orders = Orders::default();
        for of in [keep(1, 1), keep(2, 1), keep(1, 2), keep(3, 1)] {
            orders.keep(of);
        }
        assert_eq!(done(&mut orders), "keep v1, keep v2");
        orders.kept(&keep(2, 1));
        assert_eq!(done(&mut orders), "");
        orders.kept(&keep(1, 1));
        assert_eq!(done(&mut orders), "keep v1, keep v3");
        for volume in 10..100 {
            orders.keep(keep(volume, 1));
        }
        done(&mut orders);
        assert_eq!(orders.keeping.len(), LAYERS_MAX);
    }

    #[test]
    fn what_all_stores_have_is_kept_again_only_for_a_new_one() {
        let mut orders = Orders::default();
        let again = |orders: &mut Orders| {
            orders.keep(keep(1, 1));
            done(orders)
        };
        assert_eq!(again(&mut orders), "keep v1");
        orders.kept(&keep(1, 1));
        assert_eq!(again(&mut orders), "layers 1 1");
        orders.found();
        assert_eq!(again(&mut orders), "keep v1");
        orders.kept(&keep(1, 1));
        orders.forget(VolumeId(1));
        assert_eq!(again(&mut orders), "keep v1");
    }

    #[test]
    fn an_extension_waits_for_nothing_but_a_lease_that_was_taken_anew() {
        let mut orders = Orders::default();
        orders.keep(keep(1, 1));
        done(&mut orders);
        let extend = |orders: &mut Orders, until| {
            let order = orders.push(Order::Extended { until: Time(until) });
            order.as_ref().map(word)
        };
        assert_eq!(extend(&mut orders, 5).as_deref(), Some("extended 5"));
        orders.push(Order::Leased { until: Time(7) });
        orders.push(close(1));
        assert_eq!(extend(&mut orders, 8), None);
        orders.kept(&keep(1, 1));
        assert_eq!(done(&mut orders), "leased 8, close 1");
        assert_eq!(extend(&mut orders, 9).as_deref(), Some("extended 9"));
    }

    #[test]
    fn the_end_of_a_lease_goes_first_and_ends_what_still_waits_of_it() {
        let mut orders = Orders::default();
        orders.keep(keep(1, 1));
        done(&mut orders);
        orders.push(Order::Leased { until: Time(7) });
        let over = orders.push(Order::Extended { until: Time(0) });
        assert_eq!(over.as_ref().map(word).as_deref(), Some("extended 0"));
        orders.push(Order::Leased { until: Time(9) });
        orders.kept(&keep(1, 1));
        assert_eq!(done(&mut orders), "leased 0, leased 9");
    }

    #[test]
    fn a_disk_that_does_not_keep_its_opening_neither_serves_nor_holds_others_up() {
        let mut orders = Orders::default();
        let (disk, of) = (DiskId(3), Openings::default());
        let opened = Keep::Opened { disk, of };
        orders.keep(opened.clone());
        orders.push(Order::Disk { disk });
        orders.push(close(1));
        assert!(!orders.may_tell(disk));
        assert_eq!(done(&mut orders), "keep opened 3");
        orders.not_kept(&opened);
        assert_eq!(done(&mut orders), "close 1");
        assert!(!orders.may_tell(disk), "it is not told as open");
        assert!(orders.may_tell(DiskId(4)));
    }

    #[test]
    fn what_is_said_again_waits_once() {
        let mut orders = Orders::default();
        orders.keep(keep(1, 1));
        for _ in 0..100 {
            orders.push(Order::SayAgain);
        }
        assert_eq!(orders.waiting(), 2);
        assert!(!orders.is_full());
        for volume in 0..WAITING_MAX as u64 {
            orders.push(close(volume));
        }
        assert!(orders.is_full());
    }
}
