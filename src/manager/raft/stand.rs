//! When a member stands for election: by openraft's own clock while the group is calm, and ever later while terms follow one another.
//!
//! An election time has to be well above what a heartbeat takes (Ongaro and Ousterhout 2014, section 5.6). Where processors are scarce there is no fixed time that
//! is: members stand, a leader that is well is deposed, everybody's leases end with it, and the work of all that keeps the processors scarce. So the time gives
//! way, as any back-off does, and comes back as the group is calm.
//!
//! Invariants: *first-is-quick*: after calm, a death and a split vote are answered at openraft's own pace; *bounded*: nobody waits for longer than
//! [`TIMES_MAX`] election times, twice at most; *calm-returns*: each [`CALM`] without a new term takes one step back.

use super::Types;
use crate::base::Prng;
use openraft::Raft;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// So long without a new term takes one step back.
const CALM: Duration = Duration::from_secs(5);
/// Terms that may follow one another with no wait: a leader dies, and the vote is split.
const FREE: u32 = 2;
/// The wait grows to so many election times: 4 s of 250 ms.
const TIMES_MAX: u32 = 16;

/// How the group's terms have followed one another.
#[derive(Debug, Clone, Copy)]
struct Terms {
    term: u64,
    began: Instant,
    /// How many followed the one before soon; as of `began`.
    steps: u32,
}

impl Terms {
    fn new(now: Instant, term: u64) -> Terms {
        let (began, steps) = (now, 0);
        Terms { term, began, steps }
    }

    fn steps(&self, now: Instant) -> u32 {
        let calm = now.saturating_duration_since(self.began).as_secs() / CALM.as_secs();
        let calm = u32::try_from(calm).unwrap_or(u32::MAX);
        self.steps.saturating_sub(calm)
    }

    fn see(&mut self, now: Instant, term: u64) {
        if term > self.term {
            let steps_max = FREE + 1 + TIMES_MAX.ilog2();
            let steps = (self.steps(now) + 1).min(steps_max);
            (self.term, self.began, self.steps) = (term, now, steps);
        }
    }

    /// How long it is silent before it stands, drawn anew for each term; nothing: openraft's clock alone decides.
    fn wait(&self, now: Instant, me: u64, election: Duration) -> Option<Duration> {
        let over = self.steps(now).checked_sub(FREE + 1)?;
        let wait = election * (1 << over).min(TIMES_MAX);
        let drawn = Prng::new(me << 32 ^ self.term).below(wait.as_nanos() as u64);
        Some(wait + Duration::from_nanos(drawn))
    }
}

/// Has a member stand when it should. `heard` is when a leader spoke last, `stands` whether it is to stand at all.
pub(super) async fn stand(
    core: Raft<Types>,
    (me, election): (u64, Duration),
    heard: Arc<Mutex<Option<Instant>>>,
    stands: Arc<AtomicBool>,
) {
    let mut metrics = core.server_metrics();
    let term = metrics.borrow().vote.leader_id().term;
    let mut terms = Terms::new(Instant::now(), term);
    loop {
        let now = Instant::now();
        let term = metrics.borrow_and_update().vote.leader_id().term;
        terms.see(now, term);
        let heard = *heard.lock().expect("no holder panics");
        let silent_since = heard.map_or(terms.began, |heard| heard.max(terms.began));
        let due = terms
            .wait(now, me, election)
            .map(|wait| silent_since + wait);
        let may = due.is_none_or(|due| due <= now);
        core.runtime_config()
            .elect(may && stands.load(Ordering::Relaxed));
        // What was due is looked at again where nothing comes of it: steps are taken back.
        let next = due.map(|due| match may {
            true => CALM,
            false => due - now,
        });
        let has_ended = match next {
            None => metrics.changed().await.is_err(),
            Some(next) => tokio::select! {
                changed = metrics.changed() => changed.is_err(),
                () = sleep(next) => false,
            },
        };
        if has_ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: Duration = Duration::from_millis(250);

    #[test]
    fn a_death_and_a_split_vote_are_answered_at_once() {
        let begun = Instant::now();
        let mut terms = Terms::new(begun, 7);
        for (ms, term) in [(0, 7), (100, 8), (300, 9)] {
            let now = begun + Duration::from_millis(ms);
            terms.see(now, term);
            assert_eq!(terms.wait(now, 1, ELECTION), None, "term {term}");
        }
    }

    #[test]
    fn terms_that_follow_one_another_wait_ever_longer_and_calm_takes_it_back() {
        let begun = Instant::now();
        let mut terms = Terms::new(begun, 0);
        let mut waits = Vec::new();
        for term in 1..20 {
            terms.see(begun, term);
            waits.push(terms.wait(begun, 1, ELECTION));
        }
        let least = |at: usize| waits[at].map(|wait| (wait >= ELECTION, wait >= 16 * ELECTION));
        assert_eq!((least(1), least(2)), (None, Some((true, false))));
        assert!(
            waits[6..]
                .iter()
                .all(|wait| wait.is_some_and(|wait| wait >= 16 * ELECTION))
        );
        assert!(
            waits.iter().flatten().all(|wait| *wait < 32 * ELECTION),
            "{waits:?}"
        );
        // Members do not draw the same.
        assert_ne!(
            terms.wait(begun, 1, ELECTION),
            terms.wait(begun, 2, ELECTION)
        );
        let later = begun + 5 * CALM;
        assert_eq!(terms.wait(later, 1, ELECTION), None);
    }
}
