//! *durable*: when the power of all nodes was lost at once, everything that had been acknowledged is there.
//!
//! `linearizable` finds such a loss too, once somebody reads. Here it is looked for where it happens: as soon as the first owner
//! serves again, what it would return of each sector that was ever written is held against what was acknowledged, so a loss is found
//! though the next write would hide it, and is told from wrong reads of other causes.

use super::{Failure, Place, Promise};
use crate::sim::cluster::history::ZERO;
use crate::sim::register::Tick;
use std::collections::BTreeMap;

/// A write of one sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Write {
    value: u64,
    began: Tick,
    /// `None`: it was not acknowledged.
    ended: Option<Tick>,
}

/// The writes of each sector that its next reader may still see.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    places: BTreeMap<Place, Vec<Write>>,
}

impl Ledger {
    /// A write of a sector began; its value is unique to it, or zero.
    pub fn began(&mut self, place: Place, value: u64, began: Tick) {
        let ended = None;
        let write = Write {
            value,
            began,
            ended,
        };
        self.places.entry(place).or_default().push(write);
    }

    /// The write of a sector that began at `began` was acknowledged: what had ended before that can be seen no more.
    pub fn acknowledged(&mut self, place: Place, began: Tick, ended: Tick) {
        let Some(writes) = self.places.get_mut(&place) else {
            return;
        };
        let mut is_it = writes.iter_mut().filter(|write| write.began == began);
        if let Some(write) = is_it.next() {
            write.ended = Some(ended);
            writes.retain(|write| write.ended.is_none_or(|ended| ended >= began));
        }
    }

    /// Judges what is there of a sector after the power of all was lost, and takes it as what is there from then on: it
    /// cannot be anything else any more.
    pub fn judge(&mut self, place: Place, found: u64) -> Result<(), Failure> {
        let writes = self.places.entry(place).or_default();
        let acknowledged = writes.iter().any(|write| write.ended.is_some());
        let mut may = writes.iter().filter(|write| write.value == found);
        match may.next().copied() {
            Some(write) => *writes = vec![write],
            None if found == ZERO && !acknowledged => writes.clear(),
            None => {
                let (volume, sector) = place;
                let newest = writes.iter().filter(|write| write.ended.is_some());
                let newest: Vec<u64> = newest.map(|write| write.value).collect();
                let what = format!(
                    "volume {volume}, sector {sector}: {found} is there, and {newest:?} was acknowledged"
                );
                return Err(Failure::new(Promise::Durable, what));
            }
        }
        // Whatever is there is settled.
        for write in writes {
            write.ended.get_or_insert(write.began);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::VolumeId;

    const AT: Place = (VolumeId(1), 5);

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.began(AT, 1, 10);
        ledger.acknowledged(AT, 10, 11);
        ledger.began(AT, 2, 12);
        ledger.acknowledged(AT, 12, 13);
        ledger.began(AT, 3, 14);
        ledger
    }

    #[test]
    fn the_last_acknowledged_write_or_one_in_flight_is_there() {
        for found in [2, 3] {
            assert_eq!(ledger().judge(AT, found), Ok(()));
        }
        for lost in [1, ZERO, 9] {
            let failure = ledger().judge(AT, lost).expect_err("it is lost");
            assert_eq!(failure.promise, Promise::Durable);
            assert!(failure.what.contains("[2] was acknowledged"), "{failure}");
        }
    }

    #[test]
    fn what_was_found_once_is_found_the_next_time() {
        let mut ledger = ledger();
        assert_eq!(ledger.judge(AT, 2), Ok(()));
        assert!(
            ledger.clone().judge(AT, 3).is_err(),
            "it comes back from nowhere"
        );
        assert_eq!(ledger.judge(AT, 2), Ok(()));
    }

    #[test]
    fn a_block_that_was_not_acknowledged_may_be_zero_and_then_stays_so() {
        let mut ledger = Ledger::default();
        ledger.began(AT, 1, 1);
        let mut other = ledger.clone();
        assert_eq!(ledger.judge(AT, ZERO), Ok(()));
        assert!(ledger.judge(AT, 1).is_err());
        assert_eq!(other.judge(AT, 1), Ok(()));
        assert!(other.judge(AT, ZERO).is_err());
    }

    #[test]
    fn writes_that_were_in_flight_together_may_be_there_in_either_order() {
        let mut ledger = Ledger::default();
        ledger.began(AT, 1, 1);
        ledger.began(AT, 2, 2);
        ledger.acknowledged(AT, 1, 3);
        ledger.acknowledged(AT, 2, 4);
        for found in [1, 2] {
            assert_eq!(ledger.clone().judge(AT, found), Ok(()));
        }
    }
}
