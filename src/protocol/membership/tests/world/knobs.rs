//! What a run is made of, drawn from its seed.

use super::super::super::*;
use super::{MS, US};
use crate::base::Prng;
use std::time::Duration;

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    pub members: usize,
    pub holders: usize,
    pub parameters: Parameters,
    /// Of a message, one way, in nanoseconds.
    pub delay: (u64, u64),
    /// How late a machine is woken at most, in nanoseconds.
    pub lateness: u64,
    /// One in so many messages is lost, doubled, held back for long; 0: none.
    pub loss: u64,
    pub doubled: u64,
    pub held_back: u64,
    /// A fault comes every so often at most, in nanoseconds; 0: none.
    pub faults: u64,
    pub elections: bool,
    /// How long the manager is without a leader, in nanoseconds.
    pub gap: (u64, u64),
    /// Whether faults stop before the end.
    pub heals: bool,
    /// The rate of the first holder's clock, where the test sets it beyond the bound, in parts per million.
    pub bad_clock: Option<i64>,
    /// Everything arrives in time: nobody may be expired.
    pub calm: bool,
    pub off: RulesOff,
}

impl Knobs {
    /// Everything that can go wrong does.
    pub fn wild(seed: u64, off: RulesOff) -> Knobs {
        let mut prng = Prng::new(seed ^ 0x6d65_6d62);
        // A larger drift than real clocks have, in half of the runs: it makes what drift is about easy to see.
        let drift_ppm = [1_000, 10_000][prng.below(2) as usize];
        let renewal = Duration::from_millis(if drift_ppm > 1_000 { 90 } else { 100 });
        let delay = [
            (20 * US, 100 * US),
            (50 * US, 2 * MS),
            (MS, 15 * MS),
            (MS, 120 * MS),
        ];
        Knobs {
            members: [1, 3, 3, 3, 5][prng.below(5) as usize],
            holders: prng.between(1, 8) as usize,
            parameters: Parameters {
                drift_ppm,
                renewal,
                ..Parameters::DEFAULT
            },
            delay: delay[prng.below(4) as usize],
            lateness: [0, 50 * US, 3 * MS][prng.below(3) as usize],
            loss: [0, 0, 5, 30][prng.below(4) as usize],
            doubled: [0, 10][prng.below(2) as usize],
            held_back: [0, 20, 200][prng.below(3) as usize],
            faults: [0, 100 * MS, 400 * MS][prng.below(3) as usize],
            elections: !prng.one_in(4),
            gap: (150 * MS, 245 * MS),
            heals: true,
            bad_clock: None,
            calm: false,
            off,
        }
    }

    /// Every round trip is in time; leaders die, and the next leads within `election`.
    pub fn calm(seed: u64, off: RulesOff) -> Knobs {
        let wild = Knobs::wild(seed, off);
        Knobs {
            // One member alone is away for as long as it is away.
            elections: wild.elections && wild.members > 1,
            delay: (20 * US, 200 * US),
            lateness: 50 * US,
            loss: 0,
            doubled: 10,
            held_back: 0,
            faults: 0,
            calm: true,
            parameters: Parameters::DEFAULT,
            ..wild
        }
    }
}
