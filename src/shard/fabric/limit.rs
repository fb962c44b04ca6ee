//! A limit on how fast a disk is filled, shared out among the replicas there that join.
//!
//! It is the disk's that is filled, not the node's: a disk is one shard's, so that nobody has to be asked, and what a rebuild takes from guests is the disk's queue. What
//! is filled there is one stream that all fills pay for, whatever for: a node that is back, copies made anew, a drain, balance.
//!
//! Credit is handed out every 10 ms at the most often, in whole chunks, to one replica after the other; what one has not used by then goes to the others.

use super::Fabric;
use super::door::Output;
use crate::base::{BLOCK, DiskId, PgId, Time};
use crate::protocol::replication::Role;
use crate::protocol::replication::limit::Limit;
use crate::protocol::replication::replica;

impl Fabric {
    /// A disk may be filled with so many bytes a second from now on, or without a limit.
    pub(super) fn limit(
        &mut self,
        now: Time,
        disk: DiskId,
        bytes_per_second: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        match bytes_per_second {
            Some(rate) => self.limits.insert(disk, rate),
            None => self.limits.remove(&disk),
        };
        let Some(pace) = self.paces.get_mut(&disk) else {
            return;
        };
        match (bytes_per_second, &mut pace.limit) {
            (Some(rate), Some(limit)) => limit.set(now, rate),
            (Some(rate), none) => *none = Some(Limit::new(now, rate)),
            (None, limit) => {
                *limit = None;
                pace.shares_out_at = None;
                for of in self.replicas_of(disk, |_| true) {
                    self.step_replica(of, replica::Input::Allow(None), out);
                }
                return;
            }
        }
        for of in self.replicas_of(disk, |replica| replica.allowed().is_none()) {
            self.step_replica(of, replica::Input::Allow(Some(0)), out);
        }
        self.share_out(now, disk, out);
    }

    /// The manager lists a replica in this role: one that joins at a disk with a limit is given its part.
    pub(super) fn look_at_limit(
        &mut self,
        now: Time,
        (of, role): ((DiskId, PgId), Role),
        out: &mut Vec<Output>,
    ) {
        let Some(pace) = self.paces.get_mut(&of.0) else {
            return;
        };
        if pace.limit.is_none() {
            return;
        }
        if matches!(role, Role::Joining { .. }) {
            pace.shares_out_at.get_or_insert(now);
        }
        let replica = self.replicas.get(&of);
        if replica.is_some_and(|replica| replica.allowed().is_none()) {
            self.step_replica(of, replica::Input::Allow(Some(0)), out);
        }
    }

    /// When a limit is shared out next.
    pub(super) fn shares_out_at(&self) -> Option<Time> {
        self.paces.values().filter_map(|of| of.shares_out_at).min()
    }

    pub(super) fn expire_limits(&mut self, now: Time, out: &mut Vec<Output>) {
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let due = self.paces.iter().filter(|(_, of)| is_due(of.shares_out_at));
        for disk in due.map(|(disk, _)| *disk).collect::<Vec<_>>() {
            self.share_out(now, disk, out);
        }
    }

    /// A chunk has come of which these blocks are data: the others, and what it was taken for, were not carried.
    pub(super) fn note_held(&mut self, disk: DiskId, data: u16) {
        let limit = self.paces.get_mut(&disk).and_then(|of| of.limit.as_mut());
        if let Some(limit) = limit {
            // One that brings nothing is work too.
            limit.held(u64::from(data.count_ones().max(1)) * BLOCK);
        }
    }

    /// Gives what has come in by now to the replicas that are being filled, and says when there is more.
    fn share_out(&mut self, now: Time, disk: DiskId, out: &mut Vec<Output>) {
        let of_disk = self.replicas_of(disk, |replica| replica.allowed().is_some());
        let left = of_disk.iter().filter_map(|of| self.replicas[of].allowed());
        let left: i64 = left.sum();
        let (mut joining, done): (Vec<_>, Vec<_>) =
            (of_disk.into_iter()).partition(|of| self.replicas[of].is_being_filled());
        let Some(pace) = self.paces.get_mut(&disk) else {
            return;
        };
        let Some(limit) = &mut pace.limit else {
            return;
        };
        // Before more comes in: a bucket that is full keeps nothing of what comes back.
        limit.take(-left);
        limit.come_in(now);
        let chunks = if joining.is_empty() {
            0
        } else {
            limit.chunks()
        };
        limit.take(i64::from(chunks));
        pace.shares_out_at = (!joining.is_empty()).then(|| limit.next(now));
        let first = joining.partition_point(|(_, pg)| *pg <= pace.last);
        joining.rotate_left(first);
        let count = joining.len() as u32;
        if let Some(at) = (chunks % count.max(1)).checked_sub(1) {
            pace.last = joining[at as usize].1;
        }
        for of in done {
            self.step_replica(of, replica::Input::Allow(Some(0)), out);
        }
        for (at, of) in joining.into_iter().enumerate() {
            let more = u32::from((at as u32) < chunks % count);
            let part = chunks / count + more;
            self.step_replica(of, replica::Input::Allow(Some(part)), out);
        }
    }

    /// The replicas of a disk that are so.
    fn replicas_of(
        &self,
        disk: DiskId,
        are: impl Fn(&replica::Replica) -> bool,
    ) -> Vec<(DiskId, PgId)> {
        let of_disk = (disk, PgId(0))..=(disk, PgId(u32::MAX));
        let found = self.replicas.range(of_disk);
        found
            .filter(|(_, replica)| are(replica))
            .map(|(of, _)| *of)
            .collect()
    }
}
