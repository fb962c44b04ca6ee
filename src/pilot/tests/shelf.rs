//! Two shards that write down what they are ordered, and answer at once, the second before the first; and their stores.

use super::super::Shards;
use crate::base::{DiskId, Epoch, PgId, Time, VolumeId};
use crate::protocol::replication::Configuration;
use crate::shard::fabric::Order;
use crate::shard::{Said, ShardNo, What};
use crate::store::{Openings, VolumeMeta};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use tokio::sync::mpsc;

const SHARDS: u16 = 2;

/// Whether something goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Works {
    Well,
    Not,
}

#[derive(Debug)]
struct Inner {
    orders: Vec<Order>,
    number: u64,
    metas: Vec<VolumeMeta>,
    openings: BTreeMap<DiskId, Openings>,
    says: Option<mpsc::Sender<Said>>,
    stores: Works,
    thread: Works,
}

#[derive(Debug)]
pub(super) struct Recorder {
    inner: Mutex<Inner>,
    goes_on: Condvar,
}

impl Recorder {
    pub fn new(openings: BTreeMap<DiskId, Openings>) -> Recorder {
        Recorder {
            inner: Mutex::new(Inner {
                orders: Vec::new(),
                number: 0,
                metas: Vec::new(),
                openings,
                says: None,
                stores: Works::Well,
                thread: Works::Well,
            }),
            goes_on: Condvar::new(),
        }
    }

    pub fn speaks(&self, says: mpsc::Sender<Said>) {
        let mut inner = self.inner.lock().unwrap();
        (inner.says, inner.number) = (Some(says), 0);
    }

    /// Whether stores keep what they are given.
    pub fn stores(&self, works: Works) {
        self.inner.lock().unwrap().stores = works;
    }

    /// Whether the pilot's thread gets on: it stands still at its next order.
    pub fn thread(&self, works: Works) {
        self.inner.lock().unwrap().thread = works;
        self.goes_on.notify_all();
    }

    /// What was ordered, but for what is said again and again.
    pub fn orders(&self) -> Vec<Order> {
        self.inner.lock().unwrap().orders.clone()
    }

    pub fn openings(&self) -> BTreeMap<DiskId, Openings> {
        self.inner.lock().unwrap().openings.clone()
    }

    /// Says something, as the first shard.
    pub async fn say(&self, what: What) {
        let (says, upto) = {
            let inner = self.inner.lock().unwrap();
            (inner.says.clone().unwrap(), inner.number)
        };
        let shard = ShardNo(0);
        says.send(Said { shard, upto, what }).await.unwrap();
    }

    /// Whether a disk may serve, and its store knows that its opening is recorded.
    pub fn serves(&self, disk: DiskId) -> bool {
        let inner = self.inner.lock().unwrap();
        let kept = inner.openings.get(&disk);
        let is_recorded = kept.is_some_and(|of| of.last > 0 && of.recorded == of.last);
        let is_disk = |order: &Order| matches!(order, Order::Disk { disk: of } if *of == disk);
        is_recorded && inner.orders.iter().any(is_disk)
    }

    /// The epoch under which a volume is open here.
    pub fn epoch(&self, volume: VolumeId) -> Option<Epoch> {
        let mut epoch = None;
        for order in self.orders() {
            match order {
                Order::Open {
                    open, epoch: of, ..
                } if open.id == volume => epoch = Some(of),
                Order::Close { volume: of } | Order::Suspend { volume: of } if of == volume => {
                    epoch = None;
                }
                _ => {}
            }
        }
        epoch
    }

    /// The newest configuration of each PG.
    pub fn configurations(&self) -> BTreeMap<PgId, Configuration> {
        let mut all = BTreeMap::new();
        for order in self.orders() {
            if let Order::Configured { pg, of } = order {
                all.insert(pg, of);
            }
        }
        all
    }

    pub fn has_kept(&self, volume: VolumeId) -> bool {
        let inner = self.inner.lock().unwrap();
        inner.metas.iter().any(|meta| meta.id == volume)
    }
}

impl Shards for Arc<Recorder> {
    fn count(&self) -> u16 {
        SHARDS
    }

    fn order(&self, number: u64, order: Order) {
        let mut inner = self.inner.lock().unwrap();
        while inner.thread == Works::Not {
            inner = self.goes_on.wait(inner).unwrap();
        }
        assert_eq!(number, inner.number + 1, "numbers rise by one");
        inner.number = number;
        if let Order::Open { open, .. } = &order {
            let is_kept = inner.metas.iter().any(|meta| meta.id == open.id);
            assert!(is_kept, "a volume is kept before it is opened");
        }
        let what = match &order {
            Order::Pause { volume } => Some(What::Drained { volume: *volume }),
            Order::Switch { volume, .. } => Some(What::Cut { volume: *volume }),
            Order::Settle { volume, .. } => Some(What::Settled { volume: *volume }),
            _ => None,
        };
        if let Some(what) = what {
            for shard in (0..SHARDS).rev().map(ShardNo) {
                let (what, upto) = (what.clone(), number);
                let says = inner.says.as_ref().unwrap();
                says.try_send(Said { shard, upto, what }).unwrap();
            }
        }
        match order {
            Order::SayAgain => {}
            // Of extensions in a row the last one.
            Order::Extended { until } if until > Time(0) => match inner.orders.last_mut() {
                Some(Order::Extended { until: before }) if *before > Time(0) => *before = until,
                _ => inner.orders.push(order),
            },
            order => inner.orders.push(order),
        }
    }

    async fn put_volume(&self, meta: VolumeMeta) -> Result<(), String> {
        let mut inner = self.inner.lock().unwrap();
        match inner.stores {
            Works::Not => Err("the disk is full".into()),
            Works::Well => {
                inner.metas.push(meta);
                Ok(())
            }
        }
    }

    async fn put_openings(&self, disk: DiskId, of: Openings) -> Result<(), String> {
        let mut inner = self.inner.lock().unwrap();
        match inner.stores {
            Works::Not => Err("the disk is full".into()),
            Works::Well => {
                inner.openings.insert(disk, of);
                Ok(())
            }
        }
    }
}
