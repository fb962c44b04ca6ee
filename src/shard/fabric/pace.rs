//! How fast the replicas of a disk rebuild: each disk has a [`Pacer`], which is told how long the disk took for guests; each replica there has its share of
//! what that allows. Where that is less than a chunk for each, those that fill others take turns; one that is filled has one chunk on its way, and
//! waits for its source.

use super::Fabric;
use super::door::{Output, Pace};
use crate::base::{DiskId, PgId, Time};
use crate::protocol::replication::limit::Limit;
use crate::protocol::replication::pace::Pacer;
use crate::protocol::replication::replica::{self, Op, Replica};
use crate::shard::copies::Filling;
use std::time::Duration;

/// The pace of a disk.
#[derive(Debug)]
pub(super) struct Paced {
    pacer: Pacer,
    /// Where there is one: what it allows, and when that is shared out next.
    pub limit: Option<Limit>,
    pub shares_out_at: Option<Time>,
    /// The PG that was last given some of it: the one behind it comes first.
    pub last: PgId,
    /// The share that its replicas were told last; nothing: none yet.
    share: Option<u32>,
    /// The PG that had the last turn, where they take turns: the one behind it is next.
    turn: PgId,
    /// Chunks that were filled here since it was put.
    filled: u64,
}

impl Paced {
    /// `limit`: in bytes a second.
    pub fn new(now: Time, limit: Option<u64>) -> Paced {
        let pacer = Pacer::new(now);
        Paced {
            pacer,
            limit: limit.map(|rate| Limit::new(now, rate)),
            shares_out_at: None,
            last: PgId(0),
            share: None,
            turn: PgId(0),
            filled: 0,
        }
    }
}

impl Fabric {
    /// A disk has answered, after so long: rebuilds go on as fast as that leaves room for.
    pub(super) fn pace(
        &mut self,
        now: Time,
        disk: DiskId,
        (op, took): (Op, Duration),
        out: &mut Vec<Output>,
    ) {
        let Some(Paced {
            pacer, share: told, ..
        }) = self.paces.get_mut(&disk)
        else {
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
        let is_new = told.replace(share) != Some(share);
        if window != before {
            let how = match window > before {
                true => Pace::Faster,
                false => Pace::Slower,
            };
            out.push(Output::Paced { disk, how });
        }
        if is_new {
            let all: Vec<_> = self.replicas.range(of_disk).map(|(of, _)| *of).collect();
            for of in all {
                self.tell_pace(of, out);
            }
        }
        self.take_turns(disk, out);
    }

    /// Where a disk's pace is less than a chunk for each replica that rebuilds: those that fill others read as many as the pace is, in turn.
    pub(super) fn take_turns(&mut self, disk: DiskId, out: &mut Vec<Output>) {
        let Some(pace) = self.paces.get(&disk) else {
            return;
        };
        if pace.share != Some(0) {
            return;
        }
        let (window, mut last) = (pace.pacer.window() as usize, pace.turn);
        let of_disk = |from, to| (disk, PgId(from))..=(disk, PgId(to));
        let all = self.replicas.range(of_disk(0, u32::MAX));
        let reading: usize = all.map(|(_, replica)| replica.fetching()).sum();
        for _ in reading..window {
            let behind = last.0.saturating_add(1);
            let mut round = (self.replicas.range(of_disk(behind, u32::MAX)))
                .chain(self.replicas.range(of_disk(0, last.0)));
            let Some((&of, _)) = round.find(|(_, replica)| replica.waits_for_turn()) else {
                break;
            };
            last = of.1;
            self.step_replica(of, replica::Input::Turn, out);
        }
        if let Some(pace) = self.paces.get_mut(&disk) {
            pace.turn = last;
        }
    }

    /// A replica hears its share, where there is one.
    pub(super) fn tell_pace(&mut self, of: (DiskId, PgId), out: &mut Vec<Output>) {
        if let Some(share) = self.paces.get(&of.0).and_then(|pace| pace.share) {
            self.step_replica(of, replica::Input::Pace(share), out);
        }
    }

    /// A chunk of a joiner is durable.
    pub(super) fn note_filled(&mut self, at: (DiskId, PgId)) {
        if let Some(pace) = self.paces.get_mut(&at.0) {
            pace.filled += 1;
        }
        let session = self.replicas.get(&at).and_then(Replica::session);
        if let Some(session) = session {
            let of = self.progress.entry(at).or_insert((session, 0));
            if of.0 != session {
                *of = (session, 0);
            }
            of.1 += 1;
        }
    }

    /// How far the sessions are that are open.
    pub fn filling(&self) -> Vec<Filling> {
        let open = self.replicas.iter().filter_map(|(&(disk, pg), replica)| {
            let session = replica.session()?;
            let of = self.progress.get(&(disk, pg));
            let chunks = of.filter(|of| of.0 == session).map_or(0, |of| of.1);
            Some(Filling { disk, pg, chunks })
        });
        open.collect()
    }

    /// How many chunks were filled on each disk, since it was put.
    pub fn chunks_filled(&self) -> impl Iterator<Item = (DiskId, u64)> + '_ {
        self.paces.iter().map(|(disk, pace)| (*disk, pace.filled))
    }
}
