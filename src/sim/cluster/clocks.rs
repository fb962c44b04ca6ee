//! The clocks of the nodes: CLOCK_BOOTTIME of each as a function of true time.
//!
//! Clocks differ by offset and by rate, and never go back. A *sound* one keeps within the drift that `membership` assumes; in
//! some seeds one node's does not. A machine that is suspended, and a process that is stopped, need nothing here: CLOCK_BOOTTIME runs on
//! (`Network::pause`). What needs it is a virtual machine that is paused with its clock: that one stands still, which
//! no bound allows.

use super::coverage::{Fault, Tally};
use crate::base::{NodeId, Prng, Time};
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
    /// Whose clock is not sound, or was not.
    unsound: BTreeMap<NodeId, Fault>,
    drift_ppm: i64,
    prng: Prng,
    pub tally: Tally,
}

impl Clocks {
    /// Clocks that were drawn. `drift_ppm` is the bound of `membership::Parameters`.
    pub fn draw(
        nodes: impl IntoIterator<Item = NodeId>,
        drift: Drift,
        drift_ppm: u32,
        mut prng: Prng,
    ) -> Clocks {
        let drift_ppm = i64::from(drift_ppm);
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
            drift_ppm,
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
        }
        self.clock_mut(node).bend(now, ppm);
    }

    /// A node's clock stands still for so long, with its machine.
    pub fn stop(&mut self, now: Time, node: NodeId, still: Duration) {
        self.tally.injected(Fault::ClockStopped);
        self.unsound.insert(node, Fault::ClockStopped);
        self.clock_mut(node).stop(now, still);
    }

    /// A node's machine booted: its clock begins anew, at a rate of the same kind.
    pub fn reboot(&mut self, now: Time, node: NodeId) {
        let ppm = self.clocks[&node].piece_of(now).ppm;
        let shows = Time(self.prng.between(1, 1_000_000_000));
        self.clocks.insert(node, Clock::new(now, shows, ppm));
    }

    /// All clocks that are not sound become sound: faults have stopped.
    pub fn heal(&mut self, now: Time) {
        for node in std::mem::take(&mut self.unsound).into_keys() {
            let ppm = draw_ppm(self.drift_ppm, &mut self.prng, &mut self.tally);
            self.clock_mut(node).bend(now, ppm);
        }
    }

    /// Whether a node's clock has kept within the bound since the last heal.
    pub fn is_sound(&self, node: NodeId) -> bool {
        !self.unsound.contains_key(&node)
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
            let clocks = Clocks::draw(nodes(), Drift::Within, 1_000, Prng::new(seed));
            for node in nodes() {
                let ran = clocks.at(node, day).since(clocks.at(node, Time(0)));
                let off = ran.as_nanos().abs_diff(u128::from(day.0));
                assert!(off <= u128::from(day.0) / 1_000, "{off}");
                assert!(clocks.is_sound(node));
            }
            let drift = Drift::Beyond { ppm: 80_000 };
            let mut clocks = Clocks::draw(nodes(), drift, 1_000, Prng::new(seed));
            let bad: Vec<NodeId> = nodes().filter(|node| !clocks.is_sound(*node)).collect();
            assert_eq!(bad.len(), 1);
            assert_eq!(clocks.tally.of(Fault::ClockBeyond), (1, 0));
            assert!(clocks.found(bad[0]));
            assert_eq!(clocks.tally.of(Fault::ClockBeyond), (1, 1));
            clocks.heal(Time(5));
            assert!(clocks.is_sound(bad[0]) && !clocks.found(bad[0]));
        }
    }

    #[test]
    fn a_machine_that_boots_begins_its_clock_anew() {
        let mut clocks = Clocks::draw([A], Drift::None, 1_000, Prng::new(4));
        clocks.stop(Time(5), A, Duration::from_nanos(5));
        assert!(!clocks.is_sound(A));
        let now = Time(1 << 40);
        clocks.reboot(now, A);
        assert!(clocks.at(A, now) <= Time(1_000_000_000));
        let later = clocks.when(A, now, clocks.at(A, now) + Duration::from_secs(1));
        assert_eq!(later, Some(now + Duration::from_secs(1)));
    }
}
