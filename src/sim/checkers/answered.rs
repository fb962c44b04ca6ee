//! *answered*: every request and every control operation is answered exactly once, and nothing hangs.

use super::{Checker, Failure};
use crate::base::Time;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

/// Longer than any healthy request may take; slow disks take a hundred times as long as healthy ones.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What was asked and is not answered, under the asker's names.
#[derive(Debug, Clone)]
pub struct Outstanding<T> {
    asked: BTreeMap<u64, (Time, T)>,
}

impl<T> Default for Outstanding<T> {
    fn default() -> Self {
        Outstanding {
            asked: BTreeMap::new(),
        }
    }
}

impl<T: Debug> Outstanding<T> {
    pub fn ask(&mut self, name: u64, now: Time, what: T) {
        self.asked.insert(name, (now, what));
    }

    /// An answer came.
    pub fn answer(&mut self, name: u64) -> Result<T, Failure> {
        match self.asked.remove(&name) {
            Some((_, what)) => Ok(what),
            None => Err(Failure::new(
                Checker::Answered,
                format!("{name} was answered and is not outstanding: twice, or never asked"),
            )),
        }
    }

    /// Refuses what waits for too long. With `stuck`, nothing will ever happen again.
    pub fn judge(&self, now: Time, stuck: bool) -> Result<(), Failure> {
        // Names grow with time, so the first is the oldest.
        let Some((name, (asked, what))) = self.asked.first_key_value() else {
            return Ok(());
        };
        let waited = now.since(*asked);
        match stuck || waited > PATIENCE {
            true => Err(Failure::new(
                Checker::Answered,
                format!(
                    "{name} ({what:?}) waits since {waited:?}{}",
                    if stuck {
                        ", and nothing is under way"
                    } else {
                        ""
                    }
                ),
            )),
            false => Ok(()),
        }
    }

    pub fn len(&self) -> usize {
        self.asked.len()
    }

    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.asked.values().map(|(_, what)| what)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.asked.values_mut().map(|(_, what)| what)
    }

    /// The power was cut: nobody waits any more.
    pub fn forget(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.asked)
            .into_values()
            .map(|(_, what)| what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_answer_is_refused_and_so_is_none() {
        let mut outstanding = Outstanding::default();
        outstanding.ask(1, Time(0), "read");
        assert!(outstanding.judge(Time(1), false).is_ok());
        assert!(outstanding.judge(Time(1), true).is_err());
        assert!(outstanding.judge(Time(0) + PATIENCE * 2, false).is_err());
        assert_eq!(outstanding.answer(1), Ok("read"));
        assert!(outstanding.answer(1).is_err());
        assert!(outstanding.judge(Time(u64::MAX), true).is_ok());
    }
}
