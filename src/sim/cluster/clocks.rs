//! The clocks of the nodes: CLOCK_BOOTTIME of each as a function of true time.
//!
//! Clocks differ by offset and by rate, and never go back. A *sound* one keeps within the drift that `membership` assumes; in
//! some seeds one node's does not. A machine that is suspended, and a process that is stopped, need nothing here: CLOCK_BOOTTIME runs on
//! (`Network::pause`). What needs it is a virtual machine that is paused with its clock: that one stands still, which
//! no bound allows.

use super::coverage::{Fault, Tally};
use crate::base::{NodeId, Prng, Time};
use crate::protocol::membership::Parameters;
use std::collections::BTreeMap;
use std::time::Duration;

/// Parts per million of one: a clock of this much less stands still.
const MILLION: i64 = 1_000_000;
/// Changes of one clock that are remembered. True time is asked for now and for deadlines, which are near.
const PIECES_MAX: usize = 8;

/// A piece of a clock: from a true time on it runs at one rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    from: Time,
    shows: Time,
    /// How much faster than true time, in parts per million.
    ppm: i64,
}

impl Piece {
    fn at(&self, now: Time) -> Time {
        let run = i128::from(now.0.saturating_sub(self.from.0));
        let run = run * i128::from(MILLION + self.ppm) / i128::from(MILLION);
        Time(self.shows.0.saturating_add(run as u64))
    }
}

/// One clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// By the time from which each holds; never empty.
    pieces: Vec<Piece>,
}

impl Clock {
    /// A clock that shows `shows` at true time `from`, and runs `ppm` parts per million faster than that.
    pub fn new(from: Time, shows: Time, ppm: i64) -> Clock {
        assert!(ppm >= -MILLION, "a clock does not run backwards");
        let pieces = vec![Piece { from, shows, ppm }];
        Clock { pieces }
    }

    /// What it shows at true time `now`.
    pub fn at(&self, now: Time) -> Time {
        self.piece_of(now).at(now)
    }

    fn piece_of(&self, now: Time) -> &Piece {
        let later = self.pieces.partition_point(|piece| piece.from <= now);
        &self.pieces[later.saturating_sub(1)]
    }

    /// The first true time, not before `now`, at which it shows at least `shown`; `None` where it stands still for ever.
    pub fn when(&self, now: Time, shown: Time) -> Option<Time> {
        if self.at(now) >= shown {
            return Some(now);
        }
        let first = self.pieces.partition_point(|piece| piece.from <= now);
        for n in first.saturating_sub(1)..self.pieces.len() {
            let piece = &self.pieces[n];
            let end = self.pieces.get(n + 1).map(|next| next.from);
            if end.is_some_and(|end| piece.at(end) < shown) {
                continue;
            }
            let rate = i128::from(MILLION + piece.ppm);
            if rate == 0 {
                // It reaches what the next piece begins with, not by itself.
                return end;
            }
            let run = i128::from(shown.0.saturating_sub(piece.shows.0)) * i128::from(MILLION);
            // Rounded up, as what it shows is rounded down.
            let run = (run + rate - 1) / rate;
            let at = Time(piece.from.0.saturating_add(run as u64)).max(now);
            debug_assert!(self.at(at) >= shown);
            return Some(at);
        }
        None
    }

    /// From true time `now` on it runs at another rate, with no jump; what was planned for later is off.
    pub fn bend(&mut self, now: Time, ppm: i64) {
        let shows = self.at(now);
        self.pieces.retain(|piece| piece.from < now);
        self.pieces.push(Piece {
            from: now,
            shows,
            ppm,
        });
        if self.pieces.len() > PIECES_MAX {
            self.pieces.remove(0);
        }
    }

    /// It stands still from `now` for so long, and then runs as before.
    pub fn stop(&mut self, now: Time, still: Duration) {
        // One that stands still already goes on as it would have.
        let ppm = self.pieces.last().map_or(0, |last| last.ppm);
        let shows = self.at(now);
        self.bend(now, -MILLION);
        let from = now + still;
        self.pieces.push(Piece { from, shows, ppm });
    }
}

/// How good the clocks of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// All run as true time.
    None,
    /// All keep within the bound, some at its edge.
    Within,
    /// One of them runs this much faster than true time, in parts per million; the others keep within the bound.
    Beyond { ppm: i64 },
}

/// The clocks of all nodes.
#[derive(Debug, Clone)]
pub struct Clocks {
    clocks: BTreeMap<NodeId, Clock>,
    /// Whose clock is not sound, or was not since the last heal.
    unsound: BTreeMap<NodeId, Fault>,
    /// Until when that matters to what its node reads; `None`: for as long as it is not healed.
    spoiled: BTreeMap<NodeId, Option<Time>>,
    drift_ppm: i64,
    /// How long what a clock that stood still has spoiled lasts: a lease, by the slowest clock that is sound.
    lease: Duration,
    prng: Prng,
    pub tally: Tally,
}

impl Clocks {
    /// Clocks that were drawn, for leases of these parameters.
    pub fn draw(
        nodes: impl IntoIterator<Item = NodeId>,
        drift: Drift,
        parameters: &Parameters,
        mut prng: Prng,
    ) -> Clocks {
        let drift_ppm = i64::from(parameters.drift_ppm);
        // Twice the bound is more than it takes, by a part in a million.
        let lease = parameters.lease + parameters.lease * 2 * parameters.drift_ppm / MILLION as u32;
        let mut tally = Tally::default();
        let mut clocks = BTreeMap::new();
        for node in nodes {
            let ppm = match drift {
                Drift::None => 0,
                Drift::Within | Drift::Beyond { .. } => draw_ppm(drift_ppm, &mut prng, &mut tally),
            };
            let shows = Time(prng.between(1, 1 << 50));
            clocks.insert(node, Clock::new(Time(0), shows, ppm));
        }
        let mut all = Clocks {
            clocks,
            unsound: BTreeMap::new(),
            spoiled: BTreeMap::new(),
            drift_ppm,
            lease,
            prng,
            tally,
        };
        if let Drift::Beyond { ppm } = drift
            && !all.clocks.is_empty()
        {
            let nodes: Vec<NodeId> = all.clocks.keys().copied().collect();
            let node = nodes[all.prng.below(nodes.len() as u64) as usize];
            all.bend(Time(0), node, ppm);
        }
        all
    }

    /// What a node's clock shows at true time `now`.
    pub fn at(&self, node: NodeId, now: Time) -> Time {
        self.clocks[&node].at(now)
    }

    /// The first true time, not before `now`, at which a node's clock shows `shown`; `None`: never.
    pub fn when(&self, node: NodeId, now: Time, shown: Time) -> Option<Time> {
        self.clocks[&node].when(now, shown)
    }

    /// A node's clock runs at another rate from now on.
    pub fn bend(&mut self, now: Time, node: NodeId, ppm: i64) {
        if ppm.abs() > self.drift_ppm {
            self.tally.injected(Fault::ClockBeyond);
            self.unsound.insert(node, Fault::ClockBeyond);
            self.spoiled.insert(node, None);
        }
        self.clock_mut(node).bend(now, ppm);
    }

    /// A node's clock stands still for so long, with its machine. When it goes on, what its node holds lasts longer than it should; what it gets from then
    /// on is as good as any.
    pub fn stop(&mut self, now: Time, node: NodeId, still: Duration) {
        self.tally.injected(Fault::ClockStopped);
        self.unsound.insert(node, Fault::ClockStopped);
        let until = now + still + self.lease;
        let spoiled = self.spoiled.entry(node).or_insert(Some(until));
        *spoiled = spoiled.map(|before| before.max(until));
        self.clock_mut(node).stop(now, still);
    }

    /// A node's machine booted: its clock begins anew, at a rate of the same kind.
    pub fn reboot(&mut self, now: Time, node: NodeId) {
        // Of one that stands still: as it would have gone on.
        let ppm = self.clocks[&node].pieces.last().map_or(0, |last| last.ppm);
        let shows = Time(self.prng.between(1, 1_000_000_000));
        self.clocks.insert(node, Clock::new(now, shows, ppm));
    }

    /// All clocks that are not sound become sound: faults have stopped.
    pub fn heal(&mut self, now: Time) {
        for node in std::mem::take(&mut self.unsound).into_keys() {
            let ppm = draw_ppm(self.drift_ppm, &mut self.prng, &mut self.tally);
            self.clock_mut(node).bend(now, ppm);
        }
        // What they hold by now is as it was.
        for until in self.spoiled.values_mut() {
            *until = Some(now + self.lease);
        }
    }

    /// Whether a node's clock has kept within the bound for as long as matters to what began at `since`.
    pub fn is_sound(&self, node: NodeId, since: Time) -> bool {
        let spoiled = self.spoiled.get(&node);
        spoiled.is_none_or(|until| until.is_some_and(|until| until <= since))
    }

    /// The membership found a clock out of bounds, which counts where it is; whether it is.
    pub fn found(&mut self, node: NodeId) -> bool {
        let fault = self.unsound.get(&node).copied();
        if let Some(fault) = fault {
            self.tally.consumed(fault);
        }
        fault.is_some()
    }

    fn clock_mut(&mut self, node: NodeId) -> &mut Clock {
        self.clocks.get_mut(&node).expect("a node with a clock")
    }
}

fn draw_ppm(bound: i64, prng: &mut Prng, tally: &mut Tally) -> i64 {
    let ppm = match prng.below(4) {
        0 => -bound,
        1 => bound,
        _ => prng.below(2 * bound as u64 + 1) as i64 - bound,
    };
    if ppm.abs() == bound {
        tally.both(Fault::ClockAtBound);
    }
    ppm
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);

    fn clock_with(pieces: &[(u64, i64)]) -> Clock {
        let mut clock = Clock::new(Time(100), Time(7), pieces[0].1);
        for &(at, ppm) in &pieces[1..] {
            clock.bend(Time(at), ppm);
        }
        clock
    }

    #[test]
    fn a_clock_never_goes_back_and_its_deadlines_are_met_at_the_first_moment() {
        let mut prng = Prng::new(1);
        for _ in 0..300 {
            let mut clock = clock_with(&[(0, prng.below(200_000) as i64 - 100_000)]);
            let mut now = 200;
            for _ in 0..6 {
                now += prng.below(2_000);
                match prng.below(3) {
                    0 => clock.stop(Time(now), Duration::from_nanos(prng.below(1_000))),
                    _ => clock.bend(Time(now), prng.below(400_000) as i64 - 200_000),
                }
                let from = Time(now);
                let shown = Time(clock.at(from).0 + prng.below(5_000));
                let when = clock.when(from, shown).unwrap();
                assert!(clock.at(when) >= shown);
                let before = Time(when.0.saturating_sub(1));
                assert!(
                    when == from || clock.at(before) < shown,
                    "{clock:?} {shown:?} {when:?}"
                );
                let next = (now..now + 3_000).step_by(7).map(|at| clock.at(Time(at)));
                assert!(next.is_sorted(), "{clock:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_stands_still_reaches_its_deadline_afterwards_or_never() {
        let mut clock = Clock::new(Time(0), Time(0), 0);
        clock.stop(Time(100), Duration::from_nanos(50));
        assert_eq!(clock.at(Time(140)), Time(100));
        assert_eq!(clock.at(Time(151)), Time(101));
        assert_eq!(clock.when(Time(120), Time(110)), Some(Time(160)));
        clock.bend(Time(200), -MILLION);
        assert_eq!(clock.when(Time(250), Time(400)), None);
    }

    #[test]
    fn sound_clocks_stay_within_the_bound_and_one_beyond_it_is_known() {
        let nodes = || (1..=6).map(NodeId);
        let day = Time(86_400_000_000_000);
        for seed in 0..50 {
            let clocks = Clocks::draw(
                nodes(),
                Drift::Within,
                &Parameters::DEFAULT,
                Prng::new(seed),
            );
            for node in nodes() {
                let ran = clocks.at(node, day).since(clocks.at(node, Time(0)));
                let off = ran.as_nanos().abs_diff(u128::from(day.0));
                assert!(off <= u128::from(day.0) / 1_000, "{off}");
                assert!(clocks.is_sound(node, Time(0)));
            }
            let drift = Drift::Beyond { ppm: 80_000 };
            let mut clocks = Clocks::draw(nodes(), drift, &Parameters::DEFAULT, Prng::new(seed));
            let bad: Vec<NodeId> = nodes()
                .filter(|node| !clocks.is_sound(*node, day))
                .collect();
            assert_eq!(bad.len(), 1);
            assert_eq!(clocks.tally.of(Fault::ClockBeyond), (1, 0));
            assert!(clocks.found(bad[0]));
            assert_eq!(clocks.tally.of(Fault::ClockBeyond), (1, 1));
            clocks.heal(Time(5));
            assert!(!clocks.found(bad[0]));
            assert!(!clocks.is_sound(bad[0], Time(5)) && clocks.is_sound(bad[0], day));
        }
    }

    #[test]
    fn a_clock_that_stood_still_is_sound_one_lease_after_it_went_on() {
        let mut clocks = Clocks::draw([A], Drift::None, &Parameters::DEFAULT, Prng::new(4));
        let second = Duration::from_secs(1);
        let lease = Parameters::DEFAULT.lease;
        clocks.stop(Time(5), A, second);
        assert!(!clocks.is_sound(A, Time(5)) && !clocks.is_sound(A, Time(5) + second));
        assert!(!clocks.is_sound(A, Time(5) + second + lease));
        assert!(clocks.is_sound(A, Time(5) + second + lease + lease / 100));
        assert!(clocks.found(A), "it may be found later");
        // A shorter stop does not make an earlier, longer one shorter.
        clocks.stop(Time(9), A, Duration::ZERO);
        assert!(!clocks.is_sound(A, Time(5) + second));
        // What runs beyond the bound does so until it is healed.
        clocks.bend(Time(20), A, 90_000);
        clocks.stop(Time(30), A, second);
        assert!(!clocks.is_sound(A, Time(1 << 50)));
        clocks.heal(Time(40));
        assert!(!clocks.is_sound(A, Time(40)) && clocks.is_sound(A, Time(40) + second));
    }

    #[test]
    fn a_machine_that_boots_begins_its_clock_anew() {
        let mut clocks = Clocks::draw([A], Drift::None, &Parameters::DEFAULT, Prng::new(4));
        clocks.stop(Time(5), A, Duration::from_nanos(5));
        let now = Time(1 << 40);
        // Also while it stands still: it goes on as it would have.
        clocks.stop(now, A, Duration::from_secs(9));
        clocks.reboot(now, A);
        assert!(clocks.at(A, now) <= Time(1_000_000_000));
        let later = clocks.when(A, now, clocks.at(A, now) + Duration::from_secs(1));
        assert_eq!(later, Some(now + Duration::from_secs(1)));
    }
}
