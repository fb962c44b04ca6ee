//! *heals*: when faults stop, everything is well again within a bounded time, and stays so.
//!
//! The world says what is not well: see [`Ailment`]. Copies that differ are one too, so that the end of a run is: no ailment is left,
//! and `converge` passes. What is asked for is what the atlas left possible.

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
    /// Copies of a PG differ at rest.
    Differ(PgId),
    /// A node has not seen all that the manager has committed.
    Behind(NodeId),
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
    healed: Option<Duration>,
}

impl Healing {
    /// Faults stop at `stopped`, and all must be well `within` that.
    pub fn new(stopped: Time, within: Duration) -> Healing {
        Healing {
            stopped,
            within,
            healed: None,
        }
    }

    /// Judges what is not well at `now`.
    pub fn judge(&mut self, now: Time, ailments: &[Ailment]) -> Result<Verdict, Failure> {
        let passed = now.since(self.stopped);
        match (ailments, self.healed) {
            ([], healed) => {
                let took = healed.unwrap_or(passed);
                self.healed = Some(took);
                if took > self.within {
                    return failed(format!("all is well after {took:?} only"));
                }
                Ok(Verdict::Healed { took })
            }
            ([first, ..], Some(took)) => {
                failed(format!("all was well after {took:?}, and then {first:?}"))
            }
            ([first, ..], None) if passed > self.within => {
                let count = ailments.len();
                failed(format!("{first:?} and {} more after {passed:?}", count - 1))
            }
            (_, None) => Ok(Verdict::Waiting),
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
        Healing::new(Time(10 * SECOND), Duration::from_secs(5))
    }

    #[test]
    fn what_is_well_in_time_and_stays_so_has_healed() {
        let mut healing = healing();
        let sick = [Ailment::NoLeader, Ailment::NoLease(NodeId(1))];
        assert_eq!(
            healing.judge(Time(12 * SECOND), &sick),
            Ok(Verdict::Waiting)
        );
        let took = Duration::from_secs(3);
        assert_eq!(
            healing.judge(Time(13 * SECOND), &[]),
            Ok(Verdict::Healed { took })
        );
        assert_eq!(
            healing.judge(Time(60 * SECOND), &[]),
            Ok(Verdict::Healed { took })
        );
    }

    #[test]
    fn what_is_not_well_in_time_or_falls_ill_again_is_found() {
        let every = [
            Ailment::NotServing(VolumeId(1)),
            Ailment::NotInSync {
                pg: PgId(1),
                disk: DiskId(2),
            },
            Ailment::TooFew {
                pg: PgId(1),
                has: 1,
                wants: 2,
            },
            Ailment::Unanswered { requests: 3 },
            Ailment::Damaged {
                pg: PgId(1),
                disk: DiskId(2),
            },
            Ailment::Differ(PgId(1)),
            Ailment::Behind(NodeId(1)),
        ];
        for ailment in every {
            let late = healing().judge(Time(16 * SECOND), std::slice::from_ref(&ailment));
            assert_eq!(late.unwrap_err().promise, Promise::Heals);
            let mut healing = healing();
            healing.judge(Time(11 * SECOND), &[]).unwrap();
            let again = healing.judge(Time(12 * SECOND), &[ailment]);
            assert!(again.unwrap_err().what.contains("all was well after 1s"));
        }
        assert!(
            healing().judge(Time(16 * SECOND), &[]).is_err(),
            "well, but too late"
        );
    }
}
