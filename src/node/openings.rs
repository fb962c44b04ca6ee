//! Openings of disks: each has a number that the manager records (R19).
//!
//! A disk keeps the number that is known to be recorded, and that of an opening that may be: until that is known nothing is served, so the next opening takes
//! the same number. A disk that knows neither of what is recorded has travelled in time, or is another one.

use crate::base::DiskId;
use crate::protocol::catalog::next_opening;
use crate::protocol::membership::Incarnation;
use crate::protocol::report::Report;
use std::collections::BTreeMap;

/// What a disk's store keeps of its openings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// The last one that the manager is known to have recorded.
    pub recorded: Incarnation,
    /// The last one.
    pub last: Incarnation,
}

/// What follows from a look at a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Open(Incarnation),
    /// The opening stands in the catalog: the disk may serve.
    Recorded,
}

#[derive(Debug, Clone, Copy)]
struct Disk {
    kept: Numbers,
    /// What was recorded before, as far as the disk knew, and this opening; `None`: it is not opened yet.
    opening: Option<(Incarnation, Incarnation)>,
    is_known: bool,
    has_failed: bool,
}

/// The disks of a node.
#[derive(Debug, Default)]
pub(super) struct Openings {
    disks: BTreeMap<DiskId, Disk>,
}

impl Openings {
    /// A disk is there.
    pub fn found(&mut self, disk: DiskId, kept: Numbers) {
        let new = Disk {
            kept,
            opening: None,
            is_known: false,
            has_failed: false,
        };
        let own = self.disks.entry(disk).or_insert(new);
        if own.opening.is_none() {
            own.kept = kept;
        }
    }

    /// It is this node's no more.
    pub fn forget(&mut self, disk: DiskId) {
        self.disks.remove(&disk);
    }

    pub fn disks(&self) -> impl Iterator<Item = DiskId> + '_ {
        self.disks.keys().copied()
    }

    /// Looks at a disk whose last recorded opening is `recorded`, in this start of the node.
    pub fn look_at(
        &mut self,
        disk: DiskId,
        recorded: Incarnation,
        start: Incarnation,
    ) -> impl Iterator<Item = Step> + use<> {
        let (mut open, mut known) = (None, None);
        if let Some(own) = self.disks.get_mut(&disk) {
            if own.opening.is_none() && recorded >= own.kept.recorded {
                open = own.open(recorded, start).map(Step::Open);
            }
            // It may have been recorded before the last start had heard of it.
            if own.opening.is_some_and(|(_, now)| now == recorded) && !own.is_known {
                own.is_known = true;
                known = Some(Step::Recorded);
            }
        }
        open.into_iter().chain(known)
    }

    /// The disk has failed; whether that is news.
    pub fn failed(&mut self, disk: DiskId) -> bool {
        let own = self.disks.get_mut(&disk);
        own.is_some_and(|own| !std::mem::replace(&mut own.has_failed, true))
    }

    /// What the manager is told of those that are open.
    pub fn reports(&self, start: Incarnation) -> impl Iterator<Item = Report> + '_ {
        let open = self.disks.iter().filter(|(_, of)| !of.has_failed);
        open.filter_map(move |(&disk, of)| {
            let (before, now) = of.opening?;
            Some(Report::DiskOpened {
                disk,
                before,
                now,
                start,
            })
        })
    }
}

impl Disk {
    /// Gives the opening its number. `None`: no number is left.
    fn open(&mut self, recorded: Incarnation, start: Incarnation) -> Option<Incarnation> {
        let Numbers {
            recorded: own,
            last,
        } = self.kept;
        let knows = recorded == own || recorded == last;
        let number = match knows && last > own {
            true => last,
            false => next_opening(last.max(recorded).0, start)?,
        };
        self.opening = Some((own, number));
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: DiskId = DiskId(3);
    const START: Incarnation = Incarnation(7);

    fn numbers(recorded: u64, last: u64) -> Numbers {
        Numbers {
            recorded: Incarnation(recorded),
            last: Incarnation(last),
        }
    }

    fn found(kept: Numbers) -> Openings {
        let mut openings = Openings::default();
        openings.found(DISK, kept);
        openings
    }

    fn steps(openings: &mut Openings, recorded: Incarnation) -> Vec<Step> {
        openings.look_at(DISK, recorded, START).collect()
    }

    fn opened(steps: &[Step]) -> Incarnation {
        match steps {
            [Step::Open(number)] => *number,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disk_serves_when_the_manager_has_recorded_its_opening_and_not_before() {
        let mut openings = found(numbers(0, 0));
        let number = opened(&steps(&mut openings, Incarnation(0)));
        assert!(number > Incarnation(0));
        assert_eq!(steps(&mut openings, Incarnation(0)), []);
        assert_eq!(steps(&mut openings, number), [Step::Recorded]);
        assert_eq!(steps(&mut openings, number), [], "once");
    }

    #[test]
    fn an_opening_that_was_not_recorded_is_done_again_under_its_number() {
        let mut openings = found(numbers(0, 0));
        let number = opened(&steps(&mut openings, Incarnation(0)));
        // It loses power before it hears more.
        let kept = Numbers {
            recorded: Incarnation(0),
            last: number,
        };
        let mut again = found(kept);
        assert_eq!(opened(&steps(&mut again, Incarnation(0))), number);
        // Or it was recorded, and nobody here heard of it.
        let mut heard = found(kept);
        let both = [Step::Open(number), Step::Recorded];
        assert_eq!(steps(&mut heard, number), both);
    }

    #[test]
    fn a_disk_that_has_travelled_in_time_gets_a_number_above_all() {
        let mut openings = found(numbers(5 << 32, 5 << 32));
        let recorded = Incarnation(9 << 32 | 4);
        let number = opened(&steps(&mut openings, recorded));
        assert!(number > recorded);
        // What it was opened over is told, so that the manager sees that it is not what it recorded.
        let reports: Vec<Report> = openings.reports(START).collect();
        assert!(
            matches!(reports[..], [Report::DiskOpened { before, now, .. }] if before == Incarnation(5 << 32) && now == number),
            "{reports:?}"
        );
    }

    #[test]
    fn a_catalog_that_is_behind_the_disk_opens_nothing() {
        let mut openings = found(numbers(9 << 32, 9 << 32));
        assert_eq!(steps(&mut openings, Incarnation(8 << 32)), []);
    }

    #[test]
    fn a_failure_is_news_once_and_ends_the_reports() {
        let mut openings = found(numbers(0, 0));
        steps(&mut openings, Incarnation(0));
        assert!(openings.failed(DISK));
        assert!(!openings.failed(DISK));
        assert_eq!(openings.reports(START).count(), 0);
        assert!(!openings.failed(DiskId(4)), "nobody knows it");
    }
}
