//! *room*: space is refused only where there is none, and a full disk evicts nobody.
//!
//! A client may be told that there is no space where, at some moment since it asked, the disk of a replica was low, and where a part of what it writes
//! takes space. A replica that is in sync always has room for what it is sent: what would take space was refused before, or the reserve holds it.
//!
//! That a refused write never happens is judged by *linearizable*: whoever reads it has read what nobody wrote.

use super::{Failure, Promise};
use crate::base::{ChunkNo, DiskId, PgId, VolumeId};
use crate::protocol::replication::Room;
use crate::sim::register::Tick;
use std::collections::BTreeMap;

/// What a refusal is about.
#[derive(Debug, Clone)]
pub struct Refused {
    pub volume: VolumeId,
    pub began: Tick,
    /// The disks of all replicas of the PGs that it touches.
    pub disks: Vec<DiskId>,
    pub chunks: Vec<ChunkNo>,
    /// As it was asked and as it was refused, all of its chunks had data on every in-sync replica, in the same layer.
    pub took_none: bool,
}

/// When disks were low, and when what they held may have become less. Bounded by the disks and chunks that there are.
#[derive(Debug, Clone, Default)]
pub struct Rooms {
    /// Until when each was low last; `None`: it still is.
    low: BTreeMap<DiskId, Option<Tick>>,
    /// When each came back with something else on it.
    again: BTreeMap<DiskId, Tick>,
    /// When a change to zeroes was sent last.
    zeroed: BTreeMap<(VolumeId, ChunkNo), Tick>,
}

impl Rooms {
    pub fn turned(&mut self, disk: DiskId, room: Room, now: Tick) {
        let until = match room {
            Room::Low => None,
            Room::Ample => Some(now),
        };
        self.low.insert(disk, until);
    }

    /// What is on a disk is not what was there.
    pub fn began_again(&mut self, disk: DiskId, now: Tick) {
        self.again.insert(disk, now);
    }

    pub fn zeroed(&mut self, place: (VolumeId, ChunkNo), now: Tick) {
        self.zeroed.insert(place, now);
    }

    /// Judges a refusal of space.
    pub fn judge_refusal(&self, refused: &Refused) -> Result<(), Failure> {
        let Refused { volume, began, .. } = *refused;
        let is_since = |at: Option<&Tick>| at.is_some_and(|at| *at >= began);
        let was_low = |disk: &DiskId| match self.low.get(disk) {
            None => false,
            Some(until) => until.is_none_or(|until| until >= began),
        };
        if !refused.disks.iter().any(was_low) {
            let what = format!("volume {volume} was refused space, and no disk was low");
            return Err(Failure::new(Promise::Room, what));
        }
        let may_have_gone = refused.disks.iter().any(|of| is_since(self.again.get(of)))
            || refused
                .chunks
                .iter()
                .any(|chunk| is_since(self.zeroed.get(&(volume, *chunk))));
        match refused.took_none && !may_have_gone {
            true => {
                let what = format!(
                    "volume {volume} was refused space for {:?}, which were there",
                    refused.chunks
                );
                Err(Failure::new(Promise::Room, what))
            }
            false => Ok(()),
        }
    }
}

/// Judges a change that found no room on the disk of a replica.
pub fn judge_full((disk, pg): (DiskId, PgId), is_in_sync: bool) -> Result<(), Failure> {
    match is_in_sync {
        true => {
            let what = format!("{disk} was full amid a change of {pg}, in sync there");
            Err(Failure::new(Promise::Room, what))
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: DiskId = DiskId(1);
    const CHUNK: ChunkNo = ChunkNo(7);

    fn refused(began: Tick, took_none: bool) -> Refused {
        Refused {
            volume: VolumeId(1),
            began,
            disks: vec![DISK, DiskId(2)],
            chunks: vec![CHUNK],
            took_none,
        }
    }

    #[test]
    fn space_is_refused_only_while_a_disk_is_low() {
        let mut rooms = Rooms::default();
        assert!(rooms.judge_refusal(&refused(5, false)).is_err());
        rooms.turned(DiskId(3), Room::Low, 6);
        assert!(rooms.judge_refusal(&refused(5, false)).is_err());
        rooms.turned(DISK, Room::Low, 7);
        assert!(rooms.judge_refusal(&refused(5, false)).is_ok());
        assert!(rooms.judge_refusal(&refused(9, false)).is_ok());
        rooms.turned(DISK, Room::Ample, 10);
        assert!(rooms.judge_refusal(&refused(9, false)).is_ok());
        assert!(rooms.judge_refusal(&refused(11, false)).is_err());
    }

    #[test]
    fn what_takes_no_space_is_not_refused() {
        let mut rooms = Rooms::default();
        rooms.turned(DISK, Room::Low, 1);
        assert!(rooms.judge_refusal(&refused(5, true)).is_err());
        // It may not have been there for a while.
        let mut zeroed = rooms.clone();
        zeroed.zeroed((VolumeId(1), CHUNK), 5);
        assert!(zeroed.judge_refusal(&refused(5, true)).is_ok());
        assert!(zeroed.judge_refusal(&refused(6, true)).is_err());
        rooms.began_again(DISK, 5);
        assert!(rooms.judge_refusal(&refused(5, true)).is_ok());
    }

    #[test]
    fn a_full_disk_evicts_nobody() {
        assert!(judge_full((DISK, PgId(1)), true).is_err());
        assert!(judge_full((DISK, PgId(1)), false).is_ok());
    }
}
