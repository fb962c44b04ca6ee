//! *bounded*: nothing grows without bound: windows, queues, tables of leases, what waits for a fence.
//!
//! The world names what it measures, with its limit; a value above it is a failure, and the highest that was seen is kept, so
//! that a limit that was never come near is seen as well.

use super::{Failure, Promise};
use std::collections::BTreeMap;

/// The highest values that were seen, each with its limit.
#[derive(Debug, Clone, Default)]
pub struct Heights {
    highest: BTreeMap<&'static str, (u64, u64)>,
}

impl Heights {
    /// Judges one measure.
    pub fn judge(&mut self, name: &'static str, value: u64, limit: u64) -> Result<(), Failure> {
        let (highest, of) = self.highest.entry(name).or_default();
        (*highest, *of) = ((*highest).max(value), limit);
        match value <= limit {
            true => Ok(()),
            false => Err(Failure::new(
                Promise::Bounded,
                format!("{name} is {value}, and {limit} is the limit"),
            )),
        }
    }

    /// Takes the higher ones of another run.
    pub fn add(&mut self, other: &Heights) {
        for (name, (value, limit)) in &other.highest {
            let (highest, of) = self.highest.entry(name).or_default();
            (*highest, *of) = ((*highest).max(*value), *limit);
        }
    }

    /// What was measured: the name, the highest value, the limit.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        self.highest
            .iter()
            .map(|(name, (highest, limit))| (*name, *highest, *limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_its_limit_is_named_and_the_highest_is_kept() {
        let mut heights = Heights::default();
        assert_eq!(heights.judge("window", 7, 1024), Ok(()));
        assert_eq!(heights.judge("window", 1024, 1024), Ok(()));
        assert_eq!(heights.judge("window", 3, 1024), Ok(()));
        let mut all = Heights::default();
        all.add(&heights);
        all.add(&Heights::default());
        assert_eq!(all.all().collect::<Vec<_>>(), [("window", 1024, 1024)]);
        let failure = heights.judge("held", 9, 8).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "bounded: held is 9, and 8 is the limit"
        );
    }
}
