//! *room*: space is refused only where there is none, and a full disk evicts nobody.
//!
//! A client may be told that there is no space where, at some moment since it asked, the disk of a replica that takes writes was low, and where a part
//! of what it writes takes space: what reads, discards, or writes zeroes over whole blocks is never refused. A replica that is in sync always
//! has room for what it is sent: what would take space was refused before, or the reserve holds it.
//!
//! Whether a disk is low is counted here, from the chunks that are free, and what its store says of it is held against that.
//!
//! That a refused write never happens is judged by *linearizable*: whoever reads it has read what nobody wrote.

use super::{Failure, Promise};
use crate::base::{ChunkNo, DiskId, PgId, RequestKind, VolumeId};
use crate::protocol::replication::Room;
use crate::sim::cluster::contents::SECTORS;
use crate::sim::register::Tick;
use std::collections::BTreeMap;
use std::ops::Range;

/// Whether a request may take new space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// It brings data.
    Perhaps,
    /// Whatever is there, it takes none.
    Nothing,
}

impl Needs {
    /// What a request of these sectors needs. Zeroes that begin or end inside a block bring the rest of it along, as data.
    pub fn of(kind: RequestKind, sectors: &Range<u64>) -> Needs {
        let is_even = sectors.start.is_multiple_of(SECTORS) && sectors.end.is_multiple_of(SECTORS);
        match kind {
            RequestKind::Write => Needs::Perhaps,
            RequestKind::WriteZeroes if !is_even => Needs::Perhaps,
            _ => Needs::Nothing,
        }
    }
}

/// The marks of a disk, in chunks that are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// With fewer it is low.
    pub low_below: u64,
    /// One that was low is not any more with so many.
    pub ample_from: u64,
}

/// What a refusal is about.
#[derive(Debug, Clone)]
pub struct Refused {
    pub volume: VolumeId,
    pub began: Tick,
    pub needs: Needs,
    /// The disks of all replicas that take writes, of the PGs that it touches.
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
    /// So many chunks of a disk are free, and it says that it is `said`. Judges that.
    pub fn free(
        &mut self,
        disk: DiskId,
        (chunks, marks): (u64, Marks),
        said: Room,
        now: Tick,
    ) -> Result<(), Failure> {
        let was_low = self.low.get(&disk).is_some_and(Option::is_none);
        let is_low = chunks < marks.low_below || was_low && chunks < marks.ample_from;
        if is_low != was_low {
            self.low.insert(disk, (!is_low).then_some(now));
        }
        match is_low == (said == Room::Low) {
            true => Ok(()),
            false => {
                let what = format!("{disk} says {said:?}, {chunks} chunks are free of {marks:?}");
                Err(Failure::new(Promise::Room, what))
            }
        }
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
        let Refused {
            volume,
            began,
            needs,
            ..
        } = *refused;
        if needs == Needs::Nothing {
            let what = format!(
                "volume {volume} was refused space for {:?}, and was asked for nothing that takes any",
                refused.chunks
            );
            return Err(Failure::new(Promise::Room, what));
        }
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
            needs: Needs::Perhaps,
            disks: vec![DISK, DiskId(2)],
            chunks: vec![CHUNK],
            took_none,
        }
    }

    const MARKS: Marks = Marks {
        low_below: 10,
        ample_from: 20,
    };

    impl Rooms {
        fn turned(&mut self, disk: DiskId, room: Room, now: Tick) {
            let chunks = match room {
                Room::Low => 9,
                Room::Ample => 20,
            };
            self.free(disk, (chunks, MARKS), room, now).unwrap();
        }
    }

    #[test]
    fn what_a_disk_says_of_its_room_is_held_against_what_is_free() {
        let mut rooms = Rooms::default();
        let mut said = |chunks, said| rooms.free(DISK, (chunks, MARKS), said, 1).is_ok();
        assert!(said(20, Room::Ample) && said(10, Room::Ample));
        assert!(!said(20, Room::Low) && !said(10, Room::Low));
        assert!(said(9, Room::Low) && !said(9, Room::Ample));
        // It was low: until enough is free again.
        assert!(said(10, Room::Low) && said(19, Room::Low) && !said(19, Room::Ample));
        assert!(!said(20, Room::Low) && said(20, Room::Ample) && said(10, Room::Ample));
    }

    #[test]
    fn what_brings_no_data_is_never_refused() {
        let mut rooms = Rooms::default();
        rooms.turned(DISK, Room::Low, 1);
        let judged = |needs| {
            let refused = Refused {
                needs,
                ..refused(5, false)
            };
            rooms.judge_refusal(&refused).is_ok()
        };
        assert!(judged(Needs::Perhaps) && !judged(Needs::Nothing));
        for (kind, sectors, needs) in [
            (RequestKind::Write, 8..16, Needs::Perhaps),
            (RequestKind::WriteZeroes, 8..17, Needs::Perhaps),
            (RequestKind::WriteZeroes, 9..16, Needs::Perhaps),
            (RequestKind::WriteZeroes, 8..16, Needs::Nothing),
            (RequestKind::Discard, 0..128, Needs::Nothing),
            (RequestKind::Read, 9..17, Needs::Nothing),
        ] {
            assert_eq!(Needs::of(kind, &sectors), needs, "{kind:?} {sectors:?}");
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
