//! What shards of a node of a cluster say to its control plane: reports, and that something they were ordered is done.
//!
//! All shards put it into one bounded channel. *Nothing that is needed is lost* where the control plane is slow: a report is dropped and counted, because who says it says
//! it again ([`crate::protocol::report`]); of everything else the last word on each thing is kept, and said when there is room. So what is kept is bounded by the volumes,
//! disks and nodes that there are, and never waited for. What was said twice meanwhile is said once, with the higher number: who waits for what follows an order waits for
//! a number that is no less.

use crate::base::Time;
use crate::shard::{Said, ShardNo, What};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// What may wait for the control plane, of all shards.
pub(super) const SAID: usize = 4096;
/// How soon it is tried again where there was no room.
const AGAIN: Duration = Duration::from_millis(1);

/// What all shards say.
pub type SaidReceiver = mpsc::Receiver<Said>;

/// Whether one takes the place of the other.
fn are_about_the_same(one: &What, other: &What) -> bool {
    use What::{Cut, DiskFailed, Drained, Link, Settled, Waits, Wanted};
    match (one, other) {
        (Drained { volume: a }, Drained { volume: b })
        | (Cut { volume: a }, Cut { volume: b })
        | (Settled { volume: a }, Settled { volume: b })
        | (Waits { volume: a }, Waits { volume: b })
        | (Wanted { volume: a }, Wanted { volume: b }) => a == b,
        (DiskFailed { disk: a }, DiskFailed { disk: b }) => a == b,
        (Link { node: a, .. }, Link { node: b, .. }) => a == b,
        _ => false,
    }
}

/// One shard's way to say something.
#[derive(Debug)]
pub(super) struct Saying {
    shard: ShardNo,
    to: mpsc::Sender<Said>,
    /// What there was no room for, in its order; no two are about the same.
    unsaid: VecDeque<Said>,
    dropped: u64,
}

impl Saying {
    pub fn new(shard: ShardNo, to: mpsc::Sender<Said>) -> Saying {
        Saying {
            shard,
            to,
            unsaid: VecDeque::new(),
            dropped: 0,
        }
    }

    pub fn say(&mut self, upto: u64, what: What) {
        let shard = self.shard;
        let said = Said { shard, upto, what };
        if !self.unsaid.is_empty() {
            return self.keep(said);
        }
        match self.to.try_send(said) {
            Ok(()) => self.tell_of_dropped(),
            Err(TrySendError::Full(said)) => self.keep(said),
            Err(TrySendError::Closed(_)) => {} // the node ends
        }
    }

    fn keep(&mut self, said: Said) {
        if let What::Report(_) = said.what {
            self.dropped += 1;
            return;
        }
        let is_other = |of: &Said| !are_about_the_same(&of.what, &said.what);
        self.unsaid.retain(is_other);
        self.unsaid.push_back(said);
    }

    /// Says what there was no room for.
    pub fn flush(&mut self) {
        while let Some(said) = self.unsaid.pop_front() {
            match self.to.try_send(said) {
                Ok(()) => self.tell_of_dropped(),
                Err(TrySendError::Full(said)) => return self.unsaid.push_front(said),
                Err(TrySendError::Closed(_)) => {}
            }
        }
    }

    fn tell_of_dropped(&mut self) {
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            tracing::warn!(
                shard = self.shard.0,
                dropped,
                "reports are to be said again"
            );
        }
    }

    /// When [`Saying::flush`] is to be called again.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        (!self.unsaid.is_empty()).then(|| now + AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DiskId, PgId, VolumeId};
    use crate::protocol::report::Report;

    #[test]
    fn what_has_no_room_is_said_later_and_once_with_its_last_number_and_reports_are_dropped() {
        let (to, mut heard) = mpsc::channel(1);
        let mut saying = Saying::new(ShardNo(3), to);
        let drained = |volume| What::Drained {
            volume: VolumeId(volume),
        };
        let report = || {
            What::Report(Report::Accused {
                pg: PgId(1),
                disk: DiskId(2),
                version: 3,
            })
        };
        saying.say(1, report());
        for upto in 2..100 {
            saying.say(upto, report());
            saying.say(upto, drained(upto % 2));
            saying.say(
                upto,
                What::Cut {
                    volume: VolumeId(0),
                },
            );
        }
        assert_eq!((saying.unsaid.len(), saying.dropped), (3, 98));
        assert!(saying.deadline(Time(5)) > Some(Time(5)));
        let mut all = Vec::new();
        while let Ok(said) = heard.try_recv() {
            all.push((said.upto, said.what));
            saying.flush();
        }
        let last = What::Cut {
            volume: VolumeId(0),
        };
        let expected = [
            (1, report()),
            (98, drained(0)),
            (99, drained(1)),
            (99, last),
        ];
        assert_eq!(all, expected);
        assert_eq!(saying.deadline(Time(5)), None);
    }
}
