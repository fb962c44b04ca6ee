//! When a member stands for election: by openraft's own clock while the group is calm, and ever later while leaders follow one another.
//!
//! An election time has to be well above what a heartbeat takes (Ongaro and Ousterhout 2014, section 5.6). Where processors are scarce there is no fixed time that
//! is: members stand, a leader that is well is deposed, everybody's leases end with it, and the work of all that keeps the processors scarce. So the time gives
//! way, as any back-off does, and comes back as the group is calm.
//!
//! Invariants: *first-is-quick*: after calm, deaths of leaders are answered at openraft's own pace; so are votes that nobody wins,
//! because whoever is cut off from all others should lead soon when they are back; *bounded*: nobody waits for longer than
//! [`TIMES_MAX`] election times, twice at most; *calm-returns*: each [`CALM`] without another leader takes one step back.

use super::Types;
use crate::base::Prng;
use openraft::Raft;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// So long under one leader takes one step back.
const CALM: Duration = Duration::from_secs(3);
/// Leaders that may follow one another with no wait: they died.
const FREE: u32 = 3;
/// The wait grows to so many election times: 2 s of 250 ms.
const TIMES_MAX: u32 = 8;

/// How the group's leaders have followed one another.
#[derive(Debug, Clone, Copy)]
struct Terms {
    term: u64,
    began: Instant,
    /// Whether anybody has led in this term.
    is_led: bool,
    /// When a term began that took the lead from somebody.
    deposed: Instant,
    /// How many such followed one another soon; as of `deposed`.
    steps: u32,
}

impl Terms {
    fn new(now: Instant, term: u64) -> Terms {
        Terms {
            term,
            began: now,
            is_led: false,
            deposed: now,
            steps: 0,
        }
    }

    fn steps(&self, now: Instant) -> u32 {
        let calm = now.saturating_duration_since(self.deposed).as_secs() / CALM.as_secs();
        let calm = u32::try_from(calm).unwrap_or(u32::MAX);
        self.steps.saturating_sub(calm)
    }

    /// This term, with or without a leader, is the newest that is known.
    fn see(&mut self, now: Instant, term: u64, is_led: bool) {
        if term > self.term {
            if self.is_led {
                let steps_max = FREE + 1 + TIMES_MAX.ilog2();
                self.steps = (self.steps(now) + 1).min(steps_max);
                self.deposed = now;
            }
            (self.term, self.began, self.is_led) = (term, now, false);
        }
        self.is_led |= is_led;
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
        let (term, is_led) = {
            let seen = metrics.borrow_and_update();
            (seen.vote.leader_id().term, seen.current_leader.is_some())
        };
        terms.see(now, term, is_led);
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
    fn deaths_and_votes_that_nobody_wins_are_answered_at_once() {
        let begun = Instant::now();
        let mut terms = Terms::new(begun, 7);
        for (ms, term, is_led) in [
            (0, 7, true),
            (300, 8, true),
            (600, 9, false),
            (900, 10, true),
            (1_200, 11, false),
        ] {
            let now = begun + Duration::from_millis(ms);
            terms.see(now, term, is_led);
            assert_eq!(terms.wait(now, 1, ELECTION), None, "term {term}");
        }
        // One that is cut off from all stands and stands.
        for term in 12..100 {
            terms.see(begun, term, false);
        }
        assert_eq!(terms.wait(begun, 1, ELECTION), None);
    }

    #[test]
    fn leaders_that_follow_one_another_are_waited_for_ever_longer_and_calm_takes_it_back() {
        let begun = Instant::now();
        let mut terms = Terms::new(begun, 0);
        let mut waits = Vec::new();
        for term in 1..20 {
            terms.see(begun, term, true);
            waits.push(terms.wait(begun, 1, ELECTION));
        }
        // The first of them took the lead from nobody.
        assert!(waits[..4].iter().all(Option::is_none), "{waits:?}");
        assert!(waits[4].is_some_and(|wait| wait >= ELECTION && wait < 2 * ELECTION));
        let is_long = |wait: &Option<Duration>| wait.is_some_and(|wait| wait >= 8 * ELECTION);
        assert!(waits[7..].iter().all(is_long), "{waits:?}");
        assert!(
            waits.iter().flatten().all(|wait| *wait < 16 * ELECTION),
            "{waits:?}"
        );
        // Members do not draw the same.
        assert_ne!(
            terms.wait(begun, 1, ELECTION),
            terms.wait(begun, 2, ELECTION)
        );
        let later = begun + 4 * CALM;
        assert_eq!(terms.wait(later, 1, ELECTION), None);
    }
}
