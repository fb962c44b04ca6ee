//! The comparers of the shard's disks: what one replica has is held against what the others have.

use super::Fabric;
use super::door::{Inspected, Output, StoreAsk, To, Unread};
use crate::base::{ChunkId, DiskId, PgId, Time};
use crate::protocol::report::Report;
use crate::protocol::scrub;
use crate::protocol::scrub::compare::{Found, Input, Motion, Output as Wanted};
use crate::wire::Frame;

impl Fabric {
    pub(super) fn expire_comparers(&mut self, now: Time, out: &mut Vec<Output>) {
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let due = self.comparers.iter();
        let due = due.filter(|(_, comparer)| is_due(comparer.deadline()));
        for disk in due.map(|(disk, _)| *disk).collect::<Vec<_>>() {
            let mut list = Vec::new();
            if let Some(comparer) = self.comparers.get_mut(&disk) {
                comparer.expire(now, &mut list);
            }
            self.take_comparer(now, disk, list, out);
        }
    }

    pub(super) fn step_comparer(
        &mut self,
        now: Time,
        disk: DiskId,
        input: Input,
        out: &mut Vec<Output>,
    ) {
        if let Some(comparer) = self.comparers.get_mut(&disk) {
            let mut list = Vec::new();
            comparer.step(now, input, &mut list);
            self.take_comparer(now, disk, list, out);
        }
    }

    fn take_comparer(&mut self, now: Time, own: DiskId, list: Vec<Wanted>, out: &mut Vec<Output>) {
        for output in list {
            out.push(match output {
                Wanted::List { pg, .. } | Wanted::Look { pg, .. } => Output::Store {
                    disk: own,
                    pg,
                    ask: StoreAsk::Comparer(output),
                },
                Wanted::Ask { to, header, at } => Output::Send {
                    to: To::Disk(to),
                    disk: to,
                    frame: Frame::CompareAsk(header, at),
                    payload: None,
                },
                Wanted::Answer { header, answer } => Output::Send {
                    to: To::Disk(header.asker),
                    disk: own,
                    frame: Frame::CompareAnswer(header, answer),
                    payload: None,
                },
                Wanted::Report {
                    pg,
                    disk,
                    version,
                    why,
                } => Output::Report(Report::Wrong {
                    pg,
                    disk,
                    version,
                    why,
                }),
                Wanted::Forget { pg } => {
                    self.forget(now, (own, pg), out);
                    continue;
                }
            });
        }
    }

    /// A store has looked into its table.
    pub(super) fn on_inspected(
        &mut self,
        now: Time,
        of: (DiskId, PgId),
        (op, at): (u64, ChunkId),
        found: Result<Inspected, Unread>,
        out: &mut Vec<Output>,
    ) {
        let found = found.ok().and_then(|found| self.found(of, at, found));
        self.step_comparer(now, of.0, Input::Looked { op, found }, out);
    }

    /// What is told of a look: nothing of a layer that is not known here. Whether the chunk is quiet is asked only now.
    fn found(&self, of: (DiskId, PgId), at: ChunkId, found: Inspected) -> Option<Found> {
        let replica = self.replicas.get(&of)?;
        let below = *self.layers.get(&at.layer)?;
        let motion = match replica.is_quiet(at) {
            true => Motion::Quiet,
            false => Motion::Moving,
        };
        Some(Found {
            content: found.content,
            below,
            motion,
            version: replica.version(),
            forgotten: found.forgotten,
        })
    }

    /// A store has found a table damaged. It is told with the highest version that the replica has answered under: what the comparer knows may be older.
    pub(super) fn on_torn(&mut self, now: Time, of: (DiskId, PgId), out: &mut Vec<Output>) {
        let replica = self.replicas.get(&of);
        let version = replica.map_or(0, |replica| replica.version());
        let (disk, pg) = of;
        self.step_comparer(now, disk, Input::Torn { pg, version }, out);
    }

    /// A replica is no more: what is left of it at its store is forgotten.
    pub(super) fn forget(&mut self, now: Time, of: (DiskId, PgId), out: &mut Vec<Output>) {
        if self.replicas.remove(&of).is_none() {
            return;
        }
        let (disk, pg) = of;
        self.forgetting.insert(of);
        self.filled.remove(&of);
        self.lost.remove(&of);
        let ask = StoreAsk::Forget;
        out.push(Output::Store { disk, pg, ask });
        self.step_mender(now, disk, scrub::Input::Dropped { pg }, out);
        self.step_comparer(now, disk, Input::Dropped { pg }, out);
    }
}
