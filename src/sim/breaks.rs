//! The planted breaks: for each, the checker that is meant to find it, and a seed in which it does.
//!
//! A checker that has never found anything may be one that cannot. So faults of our own are planted in the store,
//! one at a time, and each must be found by its own checker, on a seed that passes without it. The seeds that do
//! are pinned in `regressions/pinned.txt`; one that has gone stale, because the code has changed under it, is
//! searched anew.

use super::checkers::{Checker, invariants};
use super::node::Machine;
use super::swarm::Knobs;
use super::world::{Outcome, World};
use crate::base::{Break, Breaks};

const PINNED: &str = include_str!("regressions/pinned.txt");

/// How many seeds are tried before a break counts as one that nobody finds.
const SEARCH_SEEDS: u64 = 300;

/// The checker that is meant to find a break.
pub fn checker_of(which: Break) -> Checker {
    match which {
        Break::NoDsync | Break::AckBeforeDurable | Break::AckOutOfOrder => Checker::Durable,
        Break::LoseTablePage | Break::TrimTooEarly | Break::ReplayTwice => Checker::Durable,
        Break::NoFlush | Break::ReuseSlotTooEarly | Break::RecordBeforeData => Checker::Intact,
        Break::SkipCrc | Break::TakeOldPage => Checker::NeverWrong,
        Break::OffByOneRange | Break::DiscardFallsThrough => Checker::Linearizable,
        Break::NoOverlapWait | Break::ForgetMerge | Break::ExtentEdge => Checker::Linearizable,
        Break::ApplyOffByOne => Checker::Intact,
        Break::TearWrite => Checker::Atomic,
        Break::ForgetFence | Break::LoseWindow | Break::LoseTombstone => Checker::Replicas,
        Break::KeepStamp | Break::KeepDropped => Checker::Replicas,
        Break::ForgetLetGo | Break::LookPastSlots | Break::ForgetOpening => Checker::Replicas,
    }
}

/// The pinned seed of a break.
pub fn pinned(which: Break) -> Option<u64> {
    PINNED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == which.name())
        .and_then(|(_, seed)| seed.trim().parse().ok())
}

/// One run of a seed.
pub fn run<M: Machine>(seed: u64, breaks: Breaks, print: bool) -> Outcome {
    let run = || World::<M>::new(seed, Knobs::draw(seed), breaks, print).run();
    invariants::judge(run).unwrap_or_else(Outcome::of_failure)
}

/// What became of a break.
#[derive(Debug)]
pub enum Verdict {
    /// Its checker found it on its pinned seed, which passes without it.
    Found { seed: u64 },
    /// The pinned seed is stale; this one serves.
    FoundAnew { seed: u64 },
    /// No seed was found. With what others said, if anything.
    Missed { instead: Vec<(u64, Checker)> },
}

/// Whether a seed shows a break: found by its checker with it, passed without it.
fn shows<M: Machine>(which: Break, seed: u64) -> Result<bool, Checker> {
    let Err(failure) = run::<M>(seed, Breaks::only(which), false).result else {
        return Ok(false);
    };
    match failure.checker == checker_of(which) {
        true => Ok(run::<M>(seed, Breaks::NONE, false).result.is_ok()),
        false => Err(failure.checker),
    }
}

/// Tries a break on its pinned seed, and searches another where that is stale.
pub fn judge<M: Machine>(which: Break) -> Verdict {
    if let Some(seed) = pinned(which)
        && shows::<M>(which, seed) == Ok(true)
    {
        return Verdict::Found { seed };
    }
    let mut instead = Vec::new();
    for seed in 0..SEARCH_SEEDS {
        match shows::<M>(which, seed) {
            Ok(true) => return Verdict::FoundAnew { seed },
            Ok(false) => {}
            Err(checker) => instead.push((seed, checker)),
        }
    }
    instead.truncate(5);
    Verdict::Missed { instead }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_pinned_seeds_names_a_break() {
        let lines = PINNED.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let (name, seed) = line.split_once(' ').expect("a name and a seed");
            assert!(Break::from_name(name).is_some(), "{name}");
            assert!(seed.trim().parse::<u64>().is_ok(), "{line}");
        }
    }
}
