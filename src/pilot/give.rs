//! What the node's machine orders, on its way to shards and stores.

use super::door::{Shards, lock};
use super::drive::{Done, Driver};
use super::orders::Keep;
use super::view::{Lease, View};
use crate::base::Time;
use crate::node;
use crate::shard::fabric::Order;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// Between two trials of a store that did not keep what it was given; doubled each time.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// Trials of a disk's opening, after which the disk counts as failed.
const OPENING_TRIALS: u32 = 4;

impl<S: Shards> Driver<S> {
    pub(super) fn order(&mut self, now: Time, order: Order) {
        match order {
            Order::Leased { until } => {
                self.silence.held();
                self.openings_told.clear();
                let lease = self.machine.lease();
                let since = now;
                tracing::info!(?lease, "this node holds a lease");
                lock(&self.view).lease = Lease::Held {
                    lease,
                    since,
                    until,
                };
            }
            Order::Extended { until: Time(0) } => {
                self.silence.ended();
                tracing::warn!("this node holds no lease any more");
                lock(&self.view).lease = Lease::NotHeld { since: now };
            }
            Order::Extended { until } => {
                if let Lease::Held { until: end, .. } = &mut lock(&self.view).lease {
                    *end = until;
                }
            }
            // One that the catalog does not have yet stays, and is opened when it does.
            Order::NoDisk { disk } if self.opened.remove(&disk).is_some() => {
                self.found.remove(&disk);
                self.openings_told.remove(&disk);
            }
            _ => {}
        }
        if let Some(order) = self.orders.push(order) {
            self.give(order);
        }
    }

    /// To every shard.
    pub(super) fn give(&mut self, order: Order) {
        match &order {
            Order::Leased { until } | Order::Extended { until } => {
                self.silence.told(*until);
            }
            Order::Open { open, epoch, .. } => {
                lock(&self.view).volumes.insert(open.id, Some(*epoch));
            }
            Order::Offer(open) => {
                lock(&self.view).volumes.entry(open.id).or_default();
            }
            Order::Close { volume } => {
                lock(&self.view).volumes.remove(volume);
            }
            _ => {}
        }
        let serves = match &order {
            Order::Open { open, .. } | Order::Offer(open) => Some((open.id, true)),
            Order::Close { volume } => Some((*volume, false)),
            _ => None,
        };
        let number = self.joined.ordered(&order);
        self.shards.order(number, order);
        if let Some((volume, is_served)) = serves {
            // After the order: who hears of it asks the shards behind it.
            self.served.send_if_modified(|served| match is_served {
                true => served.insert(volume),
                false => served.remove(&volume),
            });
        }
    }

    pub(super) fn begin(&mut self, keep: Keep) {
        let (shards, view) = (Arc::clone(&self.shards), Arc::clone(&self.view));
        self.tasks.spawn(async move {
            let result = keep_durably(&*shards, &keep, &view).await;
            Done::Kept { keep, result }
        });
    }

    pub(super) fn on_kept(&mut self, now: Time, keep: &Keep, result: Result<(), String>) {
        let why = match result {
            Ok(()) => {
                let order = self.orders.kept(keep);
                if let Some(order) = order {
                    self.give(order);
                }
                return;
            }
            Err(why) => why,
        };
        self.orders.not_kept(keep);
        if let Keep::Opened { disk, .. } | Keep::Recorded { disk, .. } = *keep {
            tracing::error!(%disk, why, "a disk does not keep its opening, and does not serve");
            self.step(now, node::Input::DiskFailed { disk });
        }
    }
}

/// Has the stores keep something, and does not give up; but a disk that does not keep its opening has failed.
async fn keep_durably<S: Shards>(
    shards: &S,
    keep: &Keep,
    view: &Mutex<View>,
) -> Result<(), String> {
    let mut wait = AGAIN_MIN;
    let mut trials = 0;
    loop {
        let kept = match keep {
            Keep::Volume(meta) => shards.put_volume(meta.clone()).await,
            Keep::Opened { disk, of } | Keep::Recorded { disk, of } => {
                shards.put_openings(*disk, *of).await
            }
        };
        let why = match kept {
            Ok(()) => {
                if trials > 0 {
                    lock(view).store_fails = None;
                }
                return Ok(());
            }
            Err(why) => why,
        };
        trials += 1;
        if !matches!(keep, Keep::Volume(_)) && trials == OPENING_TRIALS {
            lock(view).store_fails = None;
            return Err(why);
        }
        tracing::warn!(why, ?keep, "a store does not keep this; it is tried again");
        lock(view).store_fails = Some(why);
        sleep(wait).await;
        wait = (2 * wait).min(AGAIN_MAX);
    }
}
