//! The replicas on a node's disks: what they know when they start, and how fast they rebuild.
//!
//! Each disk has a [`Pacer`], which is told how long the disk took for guests; each replica there has its share of what that allows.

use super::buffers::Buffers;
use super::node::{Effect, Node};
use super::shelf;
use crate::base::{DiskId, PgId, Time};
use crate::protocol::replication::pace::Pacer;
use crate::protocol::replication::replica::{self, Durable, Op};
use crate::protocol::replication::{Configuration, Entry};
use std::time::Duration;

/// The pace of a disk.
#[derive(Debug)]
pub struct Pace {
    pacer: Pacer,
    /// The share that its replicas were told last; 0: none yet.
    share: u32,
}

impl Pace {
    pub fn new(now: Time) -> Pace {
        let pacer = Pacer::new(now);
        Pace { pacer, share: 0 }
    }
}

impl Node {
    /// A disk has answered, after so long: rebuilds go on as fast as that leaves room for.
    pub(super) fn pace(
        &mut self,
        now: Time,
        disk: DiskId,
        (op, took): (Op, Duration),
        buffers: &mut Buffers,
    ) {
        let Some(Pace { pacer, share: told }) = self.paces.get_mut(&disk) else {
            return;
        };
        let before = pacer.window();
        let is_guest = matches!(op, Op::Change { .. } | Op::Read { .. });
        match op {
            Op::Change { .. } | Op::Read { .. } => pacer.guest(now, took),
            Op::Fetch(_) | Op::Fill(_) => pacer.rebuilt(now),
            Op::Fence | Op::Look { .. } | Op::OwnList { .. } | Op::List(_) => return,
        }
        pacer.check();
        let window = pacer.window();
        if window == before && is_guest {
            return;
        }
        let of_disk = (disk, PgId(0))..=(disk, PgId(u32::MAX));
        let rebuilding = self.replicas.range(of_disk.clone());
        let rebuilding = rebuilding.filter(|(_, replica)| replica.is_rebuilding());
        let share = pacer.share(rebuilding.count() as u32);
        let is_new = std::mem::replace(told, share) != share;
        if window != before {
            let name = if window > before {
                "pace-up"
            } else {
                "pace-down"
            };
            self.effects.push(Effect::Paced { name });
        }
        if is_new {
            let all: Vec<_> = self.replicas.range(of_disk).map(|(of, _)| *of).collect();
            for of in all {
                self.tell_pace(of, buffers);
            }
        }
    }

    /// A replica hears its share, where there is one.
    pub(super) fn tell_pace(&mut self, of: (DiskId, PgId), buffers: &mut Buffers) {
        let share = self.paces.get(&of.0).map_or(0, |pace| pace.share);
        if share > 0 {
            self.step_replica(of, replica::Input::Pace(share), buffers);
        }
    }
}

/// What a replica knows when it starts.
pub(super) fn durable_of(
    shelf: &shelf::Shelf,
    pg: PgId,
    configuration: &Configuration,
    disk: DiskId,
) -> Durable {
    let kept = shelf.kept().pg(pg);
    if kept.version == 0 {
        let is_first = configuration.version() == 1 && configuration.role(disk).is_some();
        return Durable::created(u32::from(is_first));
    }
    let ranges = kept.ranges().map(|range| {
        let (epoch, mark) = kept.mark_of(range);
        let entries: Vec<Entry> = kept.window(range);
        (range, epoch, mark, entries)
    });
    Durable::found(kept.version, kept.session, ranges)
}
