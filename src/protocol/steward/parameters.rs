//! How long the steward waits, and how much it does at once.

use std::time::Duration;

/// Who makes the PGs of a pool with several copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewPgs {
    /// The steward, as many as placement wants for the disks that there are.
    AsWanted,
    /// A person, or nobody.
    Never,
}

/// See each field; what is shipped is [`Parameters::DEFAULT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// How long a node or disk may be away before what it held is made anew elsewhere. A restart or a short repair
    /// must not move a disk's worth of data.
    pub out_after: Duration,
    /// How long a replica whose node or disk is gone stays in sync while nobody waits for it. A daemon's restart is over by then, and what nobody wrote to
    /// is not taken out, let join and filled for it.
    pub grace: Duration,
    /// From a change of disks to the question where replicas belong: several that come together are one question.
    pub settle: Duration,
    /// How long a word against a replica counts that is not repeated. As in the membership's parameters.
    pub accusation_age: Duration,
    /// Until a replica that failed to join, or was accused, joins again; doubled each time.
    pub back_off: Duration,
    /// The most that it is doubled to.
    pub back_off_max: Duration,
    /// Commands that are proposed and not answered. One group commit carries as many.
    pub proposals_max: usize,
    /// Replicas that join at one disk at once.
    pub joins_a_disk: usize,
    /// Replicas that move to or from one disk at once.
    pub moves_a_disk: usize,
    /// Replicas that move at once, in all.
    pub moves_max: usize,
    pub new_pgs: NewPgs,
}

/// A parameter that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsound {
    /// The field of [`Parameters`].
    pub field: &'static str,
    pub must: &'static str,
}

impl Parameters {
    /// What Sarsen uses.
    pub const DEFAULT: Parameters = Parameters {
        out_after: Duration::from_secs(600),
        grace: Duration::from_secs(2),
        settle: Duration::from_secs(2),
        accusation_age: Duration::from_secs(2),
        back_off: Duration::from_secs(1),
        back_off_max: Duration::from_secs(60),
        proposals_max: 64,
        joins_a_disk: 32,
        moves_a_disk: 2,
        moves_max: 512,
        new_pgs: NewPgs::AsWanted,
    };

    /// Whether the parameters fit together.
    pub const fn check(&self) -> Result<(), Unsound> {
        if self.settle.is_zero() {
            return unsound("settle", "be more than nothing");
        }
        if self.out_after.as_nanos() < self.settle.as_nanos() {
            return unsound("out_after", "be at least `settle`");
        }
        if self.grace.as_nanos() > self.out_after.as_nanos() {
            return unsound("grace", "be at most `out_after`");
        }
        if self.accusation_age.is_zero() {
            return unsound("accusation_age", "be more than nothing");
        }
        if self.back_off.is_zero() || self.back_off.as_nanos() > self.back_off_max.as_nanos() {
            return unsound(
                "back_off",
                "be more than nothing, and at most `back_off_max`",
            );
        }
        if self.proposals_max == 0 || self.proposals_max > 4_096 {
            return unsound("proposals_max", "be from 1 to 4,096");
        }
        if self.joins_a_disk == 0 {
            return unsound("joins_a_disk", "be at least 1");
        }
        if self.moves_a_disk == 0 {
            return unsound("moves_a_disk", "be at least 1");
        }
        if self.moves_max == 0 || self.moves_max > 65_536 {
            return unsound("moves_max", "be from 1 to 65,536");
        }
        Ok(())
    }
}

const fn unsound(field: &'static str, must: &'static str) -> Result<(), Unsound> {
    Err(Unsound { field, must })
}

// What is shipped fits, or it does not compile.
const _: () = assert!(Parameters::DEFAULT.check().is_ok());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_does_not_fit_is_named() {
        const GOOD: Parameters = Parameters::DEFAULT;
        let none = Duration::ZERO;
        #[rustfmt::skip]
        let cases = [
            ("settle", Parameters { settle: none, ..GOOD }),
            ("out_after", Parameters { out_after: none, ..GOOD }),
            ("grace", Parameters { grace: GOOD.out_after + GOOD.grace, ..GOOD }),
            ("accusation_age", Parameters { accusation_age: none, ..GOOD }),
            ("back_off", Parameters { back_off: none, ..GOOD }),
            ("back_off", Parameters { back_off_max: none, ..GOOD }),
            ("proposals_max", Parameters { proposals_max: 0, ..GOOD }),
            ("joins_a_disk", Parameters { joins_a_disk: 0, ..GOOD }),
            ("moves_a_disk", Parameters { moves_a_disk: 0, ..GOOD }),
            ("moves_max", Parameters { moves_max: 65_537, ..GOOD }),
        ];
        for (name, parameters) in cases {
            assert_eq!(parameters.check().unwrap_err().field, name);
        }
    }
}
