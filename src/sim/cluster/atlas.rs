//! Which faults may strike now, so that recovery always stays possible, and can be demanded. After the atlas of
//! TigerBeetle's simulator.
//!
//! A cluster promises nothing once the last copy of a block is gone. So the atlas knows, for each PG, which disks hold the in-sync
//! copies by the configuration that is committed, and lets a fault through that destroys one (a disk is lost or comes back old, a
//! block rots) only where enough others are left that are whole. What destroys nothing (crash, power loss, partition, pause) it lets
//! through, but for one case, which is its second task:
//!
//! While a disk is lost and the manager has not taken it out yet, the others of its PG are the last, and the manager does not
//! know which of two silent replicas will never come back. Were one of the others silent for long now, it could be taken out first;
//! then the one that is lost is the last in sync, nothing may take it out (R11), and nobody can say that the other has
//! everything. So as long as that is open, [`Strike::Silence`] is refused for the others; and a loss is refused while another
//! replica of the PG is silent.
//!
//! Invariant, *a whole copy*: of every place of every PG, at least `least` in-sync copies are undamaged, on disks that are there.
//!
//! It does not know the catalog: configurations come in as plain [`Group`]s, in the order in which they are committed.

#[cfg(test)]
mod tests;

use super::coverage::Fault;
use crate::base::{ChunkId, DiskId, PgId};
use std::collections::{BTreeMap, BTreeSet};

/// Damaged chunks that are not mended; more damage is refused.
pub const DAMAGED_MAX: usize = 1024;

/// What a disk is to a PG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    InSync,
    Joining,
    Out,
}

/// A PG as it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub pg: PgId,
    /// In-sync copies that the manager must not go below: `max(1, min_copies)`.
    pub least: usize,
    /// Copies that are wanted of it: what is in sync beyond that may be taken away at any time, and nobody asks whether it was the sound one.
    pub wants: usize,
    pub disks: Vec<(DiskId, Standing)>,
}

/// What is to strike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strike {
    /// A disk is gone, with all that is on it.
    Lose { disk: DiskId },
    /// A disk comes back with an older state, which counts as empty (R19).
    Age { disk: DiskId },
    /// What a disk has of one PG is not what it should be: its table is damaged, or it has lost a write.
    Tear { disk: DiskId, pg: PgId },
    /// A chunk of a replica cannot be read, or reads wrong, until it is written anew.
    Damage {
        disk: DiskId,
        pg: PgId,
        chunk: ChunkId,
    },
    /// Disks do not answer for longer than it takes to be taken out, and come back as they were.
    Silence { disks: Vec<DiskId> },
}

/// Why something may not strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Too few whole copies of this PG would be left.
    LastCopies(PgId),
    /// A disk of this PG is lost and not taken out yet: this would strike one of the others.
    OpenLoss(PgId),
    /// So much is damaged and not mended.
    TooMuch,
}

#[derive(Debug, Clone, Default)]
struct Pg {
    least: usize,
    wants: usize,
    in_sync: BTreeSet<DiskId>,
    listed: BTreeSet<DiskId>,
    joining: BTreeSet<DiskId>,
    /// In sync by the configuration, and surely not so: lost, or aged. One that joins may have been found filled, and be promoted yet.
    lost: BTreeSet<DiskId>,
}

/// What is known of all copies.
#[derive(Debug, Clone, Default)]
pub struct Atlas {
    pgs: BTreeMap<PgId, Pg>,
    /// Disks that are not there.
    gone: BTreeSet<DiskId>,
    /// Disks that do not answer, each with how many strokes keep it silent.
    silent: BTreeMap<DiskId, u32>,
    damaged: BTreeSet<(PgId, ChunkId, DiskId)>,
}

impl Pg {
    fn is_open(&self) -> bool {
        self.in_sync.iter().any(|disk| self.lost.contains(disk))
    }

    /// Copies in sync that may be taken away at any time, if this one is in sync, or may be soon.
    fn surplus(&self, with: DiskId) -> usize {
        let joins = !self.in_sync.contains(&with);
        (self.in_sync.len() + usize::from(joins)).saturating_sub(self.wants)
    }

    /// Whoever was taken out is empty anyway, and filled before it counts, if it is there.
    fn forget_those_out(&mut self, gone: &BTreeSet<DiskId>) {
        let (in_sync, joining) = (&self.in_sync, &self.joining);
        self.lost
            .retain(|disk| in_sync.contains(disk) || joining.contains(disk) || gone.contains(disk));
    }
}

impl Atlas {
    /// A configuration was committed.
    pub fn configure(&mut self, group: &Group) {
        let gone = &self.gone;
        let pg = self.pgs.entry(group.pg).or_default();
        let those = |of: Standing| {
            let disks = group.disks.iter();
            disks
                .filter(move |(_, standing)| *standing == of)
                .map(|(disk, _)| *disk)
        };
        (pg.least, pg.wants) = (group.least.max(1), group.wants);
        pg.listed = group.disks.iter().map(|(disk, _)| *disk).collect();
        pg.in_sync = those(Standing::InSync).collect();
        pg.joining = those(Standing::Joining).collect();
        pg.forget_those_out(gone);
        let listed = &pg.listed;
        self.damaged
            .retain(|(of, _, disk)| *of != group.pg || listed.contains(disk));
    }

    /// Whether this may strike now.
    pub fn may(&self, strike: &Strike) -> Result<(), Refused> {
        match strike {
            Strike::Lose { disk } | Strike::Age { disk } => {
                let mut pgs = self.pgs.keys();
                pgs.try_for_each(|pg| self.may_lose(*pg, *disk, self.pgs[pg].least))
            }
            // It is taken out whatever `min_copies` says.
            Strike::Tear { disk, pg } => self.may_lose(*pg, *disk, 1),
            Strike::Damage { disk, pg, chunk } => self.may_damage(*disk, *pg, *chunk),
            Strike::Silence { disks } => {
                let touches = |pg: &Pg| {
                    let is_other =
                        |disk: &DiskId| pg.in_sync.contains(disk) && !pg.lost.contains(disk);
                    pg.is_open() && disks.iter().any(is_other)
                };
                let open = self.pgs.iter().find(|(_, pg)| touches(pg));
                open.map_or(Ok(()), |(pg, _)| Err(Refused::OpenLoss(*pg)))?;
                let mut damaged = self.damaged.iter();
                damaged.try_for_each(|of| self.may_silence(*of, disks))
            }
        }
    }

    /// What is damaged can be mended by somebody who is there: were the others taken out first, what is damaged would be the last copy.
    fn may_silence(
        &self,
        (of, chunk, disk): (PgId, ChunkId, DiskId),
        silenced: &[DiskId],
    ) -> Result<(), Refused> {
        let is_left = |other: &DiskId| {
            *other != disk
                && !silenced.contains(other)
                && self.is_reached(of, *other)
                && !self.damaged.contains(&(of, chunk, *other))
        };
        match self.pgs.get(&of) {
            Some(pg) if !pg.in_sync.iter().any(is_left) => Err(Refused::LastCopies(of)),
            _ => Ok(()),
        }
    }

    /// Whether all that is in sync is what it was.
    pub fn is_unharmed(&self) -> bool {
        self.damaged.is_empty() && !self.pgs.values().any(Pg::is_open)
    }

    /// Whether a disk's copy of a PG is what it was, and nothing keeps the disk silent.
    pub fn is_reached(&self, pg: PgId, disk: DiskId) -> bool {
        self.is_there(pg, disk) && !self.silent.contains_key(&disk)
    }

    /// The chunks on a disk that are damaged.
    pub fn damaged_on(&self, disk: DiskId) -> Vec<(PgId, ChunkId)> {
        let damaged = self.damaged.iter().filter(|(.., at)| *at == disk);
        damaged.map(|(pg, chunk, _)| (*pg, *chunk)).collect()
    }

    fn may_lose(&self, of: PgId, disk: DiskId, least: usize) -> Result<(), Refused> {
        let pg = &self.pgs[&of];
        // One that is silent may be taken out at any time now.
        let is_left = |other: &&DiskId| {
            **other != disk && !self.silent.contains_key(other) && self.is_whole(of, **other)
        };
        let left = || pg.in_sync.iter().filter(is_left).count();
        if !pg.in_sync.contains(&disk) {
            let mut damaged = self.damaged.iter();
            let is_last = |(in_pg, chunk, at): &(PgId, ChunkId, DiskId)| {
                *in_pg == of && pg.in_sync.contains(at) && !self.has_sound_copy(pg, of, *chunk)
            };
            // What was taken out may have what is damaged in the one that is left. And who joins may take the place of the only one that has it.
            let is_last = pg.listed.contains(&disk) && damaged.any(is_last);
            let takes_place = pg.joining.contains(&disk) && left() <= pg.surplus(disk);
            return match is_last || takes_place {
                true => Err(Refused::LastCopies(of)),
                false => Ok(()),
            };
        }
        if pg.lost.contains(&disk) {
            return Ok(());
        }
        if pg.is_open() {
            return Err(Refused::OpenLoss(of));
        }
        match left() >= least + pg.surplus(disk) {
            true => Ok(()),
            false => Err(Refused::LastCopies(of)),
        }
    }

    /// Whether a chunk is whole in a copy in sync.
    fn has_sound_copy(&self, pg: &Pg, of: PgId, chunk: ChunkId) -> bool {
        let is_sound =
            |disk: &DiskId| self.is_there(of, *disk) && !self.damaged.contains(&(of, chunk, *disk));
        pg.in_sync.iter().any(is_sound)
    }

    /// Whether a disk's copy of a PG is what it was.
    pub fn is_there(&self, pg: PgId, disk: DiskId) -> bool {
        !self.pgs[&pg].lost.contains(&disk) && !self.gone.contains(&disk)
    }

    /// And nothing in it is damaged.
    fn is_whole(&self, pg: PgId, disk: DiskId) -> bool {
        let mut damaged = self.damaged.iter();
        self.is_there(pg, disk) && !damaged.any(|(of, _, at)| (*of, *at) == (pg, disk))
    }

    fn may_damage(&self, disk: DiskId, of: PgId, chunk: ChunkId) -> Result<(), Refused> {
        if self.damaged.len() >= DAMAGED_MAX {
            return Err(Refused::TooMuch);
        }
        let Some(pg) = self.pgs.get(&of) else {
            return Ok(());
        };
        // A replica that is being filled reads from the others, and they must not be struck where it needs them.
        let has_it = |other: &&DiskId| {
            let is_there = !pg.lost.contains(other) && !self.gone.contains(other);
            **other != disk && is_there && !self.damaged.contains(&(of, chunk, **other))
        };
        match pg.in_sync.iter().filter(has_it).count() > pg.surplus(disk) {
            true if pg.is_open() => Err(Refused::OpenLoss(of)),
            true => Ok(()),
            false => Err(Refused::LastCopies(of)),
        }
    }

    /// It has struck. What may not is a mistake of who asked.
    pub fn struck(&mut self, strike: &Strike) {
        assert_eq!(
            self.may(strike),
            Ok(()),
            "a whole copy: {strike:?} must not strike"
        );
        match strike {
            Strike::Lose { disk } => {
                self.gone.insert(*disk);
                self.lose(*disk);
            }
            Strike::Age { disk } => self.lose(*disk),
            Strike::Tear { disk, pg: of } => {
                if let Some(pg) = self.pgs.get_mut(of) {
                    pg.lost.insert(*disk);
                    pg.forget_those_out(&self.gone);
                }
                self.damaged.retain(|(pg, _, at)| (pg, at) != (of, disk));
            }
            Strike::Damage { disk, pg, chunk } => {
                self.damaged.insert((*pg, *chunk, *disk));
            }
            Strike::Silence { disks } => {
                for disk in disks {
                    *self.silent.entry(*disk).or_default() += 1;
                }
            }
        }
    }

    fn lose(&mut self, disk: DiskId) {
        for pg in self.pgs.values_mut().filter(|pg| pg.listed.contains(&disk)) {
            pg.lost.insert(disk);
            pg.forget_those_out(&self.gone);
        }
        self.damaged.retain(|(.., at)| *at != disk);
    }

    /// What kept a disk silent is over: unless something else does, it answers again, as it was.
    pub fn speaks(&mut self, disk: DiskId) {
        if let Some(count) = self.silent.get_mut(&disk) {
            *count -= 1;
            if *count == 0 {
                self.silent.remove(&disk);
            }
        }
    }

    /// In the place of a disk that was lost there is an empty one of the same name.
    pub fn replaced(&mut self, disk: DiskId) {
        self.gone.remove(&disk);
        for pg in self.pgs.values_mut() {
            pg.forget_those_out(&self.gone);
        }
    }

    /// A damaged chunk was written anew.
    pub fn mended(&mut self, disk: DiskId, pg: PgId, chunk: ChunkId) {
        self.damaged.remove(&(pg, chunk, disk));
    }

    /// What a fault strikes, if it may destroy anything or keep disks silent; `None`: it may always strike.
    pub fn asks_for(fault: Fault, disks: &[DiskId], at: Option<(PgId, ChunkId)>) -> Option<Strike> {
        let disk = *disks.first()?;
        match (fault, at) {
            (Fault::DiskGone, _) => Some(Strike::Lose { disk }),
            (Fault::DiskOld, _) => Some(Strike::Age { disk }),
            (Fault::Rot | Fault::DiskError, Some((pg, chunk))) => {
                Some(Strike::Damage { disk, pg, chunk })
            }
            (
                Fault::Crash
                | Fault::Pause
                | Fault::Partition
                | Fault::OneWay
                | Fault::Flap
                | Fault::DiskSlow
                | Fault::ClockBeyond
                | Fault::ClockStopped,
                _,
            ) => Some(Strike::Silence {
                disks: disks.to_vec(),
            }),
            // Power loss of all strikes everybody alike, and ends for all.
            _ => None,
        }
    }
}
