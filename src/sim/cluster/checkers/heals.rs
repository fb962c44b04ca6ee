//! *heals*: when faults stop, everything is well again within a bounded time, and stays so.
//!
//! The world says what is not well: see [`Ailment`]. What a fault did a moment before it stopped may show a moment later, so all is well
//! only once it has been so for a while. The end of a run is: no ailment is left, and `converge` passes. What is asked for is what the atlas left possible.

use super::{Failure, Promise};
use crate::base::{DiskId, NodeId, PgId, Time, VolumeId};
use std::time::Duration;

/// What is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ailment {
    /// Nobody leads the manager.
    NoLeader,
    /// A node that runs holds no lease.
    NoLease(NodeId),
    /// A volume that is attached does not serve.
    NotServing(VolumeId),
    /// A replica on a disk that is there is not in sync.
    NotInSync { pg: PgId, disk: DiskId },
    /// A PG has fewer in-sync copies than it could have.
    TooFew { pg: PgId, has: usize, wants: usize },
    /// Requests are not answered.
    Unanswered { requests: usize },
    /// A damaged block is not mended.
    Damaged { pg: PgId, disk: DiskId },
    /// A replica does not have what it should have, and that is not mended.
    Lacks { pg: PgId, disk: DiskId },
    /// A snapshot that was asked for is not taken.
    Cutting(VolumeId),
    /// A node has not seen all that the manager has committed.
    Behind(NodeId),
    /// What an operator wants is not so.
    Unfulfilled(String),
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Waiting,
    /// Everything is well, since so long after faults stopped.
    Healed {
        took: Duration,
    },
}

/// One healing: from the end of faults to the end of the run.
#[derive(Debug, Clone)]
pub struct Healing {
    stopped: Time,
    within: Duration,
    settles: Duration,
    /// Since when all is well.
    well: Option<Time>,
}

impl Healing {
    /// Faults stop at `stopped`; all must be well `within` that, and for as long as `settles` before it counts.
    pub fn new(stopped: Time, within: Duration, settles: Duration) -> Healing {
        Healing {
            stopped,
            within,
            settles,
            well: None,
        }
    }

    /// Judges what is not well at `now`.
    pub fn judge(&mut self, now: Time, ailments: &[Ailment]) -> Result<Verdict, Failure> {
        let passed = now.since(self.stopped);
        let Some(first) = ailments.first() else {
            let since = *self.well.get_or_insert(now);
            let took = since.since(self.stopped);
            return match now.since(since) >= self.settles {
                _ if took > self.within => failed(format!("all is well after {took:?} only")),
                true => Ok(Verdict::Healed { took }),
                false => Ok(Verdict::Waiting),
            };
        };
        if let Some(since) = self.well.take()
            && now.since(since) >= self.settles
        {
            let took = since.since(self.stopped);
            return failed(format!("all was well after {took:?}, and then {first:?}"));
        }
        match passed > self.within {
            true => failed(format!(
                "{first:?} and {} more after {passed:?}",
                ailments.len() - 1
            )),
            false => Ok(Verdict::Waiting),
        }
    }
}

fn failed(what: String) -> Result<Verdict, Failure> {
    Err(Failure::new(Promise::Heals, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn healing() -> Healing {
        let seconds = Duration::from_secs;
        Healing::new(Time(10 * SECOND), seconds(5), seconds(1))
    }

    fn judge(healing: &mut Healing, second: u64, sick: &[Ailment]) -> Result<Verdict, Failure> {
        healing.judge(Time(second * SECOND), sick)
    }

    #[test]
    fn what_is_well_in_time_and_stays_so_has_healed() {
        let mut healing = healing();
        let sick = [Ailment::NoLeader, Ailment::NoLease(NodeId(1))];
        assert_eq!(judge(&mut healing, 12, &sick), Ok(Verdict::Waiting));
        assert_eq!(judge(&mut healing, 13, &[]), Ok(Verdict::Waiting));
        let took = Duration::from_secs(3);
        assert_eq!(judge(&mut healing, 14, &[]), Ok(Verdict::Healed { took }));
        assert_eq!(judge(&mut healing, 60, &[]), Ok(Verdict::Healed { took }));
    }

    #[test]
    fn what_was_well_for_a_moment_has_not_healed_yet() {
        let mut healing = Healing::new(Time(0), Duration::from_secs(5), Duration::from_secs(2));
        assert_eq!(judge(&mut healing, 1, &[]), Ok(Verdict::Waiting));
        assert_eq!(
            judge(&mut healing, 2, &[Ailment::NoLeader]),
            Ok(Verdict::Waiting)
        );
        assert_eq!(judge(&mut healing, 3, &[]), Ok(Verdict::Waiting));
        let took = Duration::from_secs(3);
        assert_eq!(judge(&mut healing, 5, &[]), Ok(Verdict::Healed { took }));
    }

    #[test]
    fn what_is_not_well_in_time_or_falls_ill_again_is_found() {
        let (pg, disk) = (PgId(1), DiskId(2));
        let every = [
            Ailment::NotServing(VolumeId(1)),
            Ailment::NotInSync { pg, disk },
            Ailment::TooFew {
                pg,
                has: 1,
                wants: 2,
            },
            Ailment::Unanswered { requests: 3 },
            Ailment::Damaged { pg, disk },
            Ailment::Behind(NodeId(1)),
        ];
        for ailment in every {
            let late = judge(&mut healing(), 16, std::slice::from_ref(&ailment));
            assert_eq!(late.unwrap_err().promise, Promise::Heals);
            let mut healing = healing();
            judge(&mut healing, 11, &[]).unwrap();
            judge(&mut healing, 12, &[]).unwrap();
            let again = judge(&mut healing, 13, &[ailment]);
            assert!(again.unwrap_err().what.contains("all was well after 1s"));
        }
        let late = judge(&mut healing(), 16, &[]);
        assert!(late.is_err(), "well, but too late");
    }
}
