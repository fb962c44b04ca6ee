//! The classes of faults that the simulator injects, the count of each, and where on a disk one lies.
//!
//! A fault counts only when it was *consumed*: the store came across it (it read the damaged sector, or was
//! given the error). What lies on a medium and is never read again has tested nothing.

use super::tally::{self, named};
use std::collections::BTreeMap;
use std::ops::Range;

named! {
    /// A class of faults.
    Fault:
    /// A write that power loss cut at a sector.
    Torn = "torn",
    /// A write that was not yet durable, and that power loss took.
    Dropped = "dropped",
    /// A write that the device said was durable, and that never reached the medium.
    LostWrite = "lost-write",
    /// A write that went to another place.
    Misdirected = "misdirected",
    /// Bits that turned over on the medium.
    Rot = "rot",
    /// A sector that cannot be read until it is written again.
    ReadError = "read-error",
    /// A write or flush that the device failed.
    WriteError = "write-error",
    /// An operation that took a hundred times as long.
    Slow = "slow",
    /// A device that answers nothing but that it is gone.
    Gone = "gone",
    /// A request refused because no space is left.
    Full = "full",
    /// The power was cut while requests were served.
    Crash = "crash",
    /// The power was cut while a store was being opened.
    CrashInRecovery = "crash-in-recovery",
}

impl Fault {
    /// Whether it may destroy what was acknowledged, where there is one copy.
    pub fn destroys(self) -> bool {
        matches!(
            self,
            Fault::LostWrite | Fault::Misdirected | Fault::Rot | Fault::ReadError
        )
    }
}

/// How many faults of each class there were.
pub type Tally = tally::Tally<Fault, { Fault::ALL.len() }>;

#[derive(Debug, Clone, Copy)]
struct Mark {
    fault: Fault,
    consumed: bool,
    since: u64,
}

/// Which sectors of a disk are damaged, by what, and since when (in the disk's own order of events).
#[derive(Debug, Clone, Default)]
pub struct Marks {
    sectors: BTreeMap<u64, Mark>,
}

impl Marks {
    pub fn set(&mut self, sector: u64, fault: Fault, since: u64) {
        self.set_part(sector, fault, since, false);
    }

    /// One more sector of a fault that counts elsewhere already, where `consumed` says so.
    pub fn set_part(&mut self, sector: u64, fault: Fault, since: u64, consumed: bool) {
        let mark = Mark {
            fault,
            consumed,
            since,
        };
        self.sectors.insert(sector, mark);
    }

    /// What power loss left, where nothing worse is there.
    pub fn set_unless_damaged(&mut self, sector: u64, fault: Fault) {
        let found = self.sectors.get(&sector);
        if !found.is_some_and(|mark| mark.fault.destroys()) {
            self.set(sector, fault, 0);
        }
    }

    /// A write of these sectors that took effect as event `order` is there: what was damaged before is not any more.
    pub fn clear(&mut self, sectors: Range<u64>, order: u64) {
        // Most disks have no mark most of the time, and this runs at each write.
        if self.sectors.is_empty() {
            return;
        }
        let older = |(&sector, mark): (&u64, &Mark)| (mark.since <= order).then_some(sector);
        let gone: Vec<u64> = self.sectors.range(sectors).filter_map(older).collect();
        for sector in gone {
            self.sectors.remove(&sector);
        }
    }

    /// The store reads these sectors: counts what it has not come across before, and tells the first fault
    /// that destroys data, if there is one.
    pub fn read(&mut self, sectors: Range<u64>, tally: &mut Tally) -> Option<Fault> {
        if self.sectors.is_empty() {
            return None;
        }
        let mut worst = None;
        let mut passed = Vec::new();
        for (&sector, mark) in self.sectors.range_mut(sectors) {
            if !std::mem::replace(&mut mark.consumed, true) {
                tally.consumed(mark.fault);
            }
            match mark.fault.destroys() {
                true => worst = worst.or(Some(mark.fault)),
                // What power loss left is met once; it is no damage.
                false => passed.push(sector),
            }
        }
        for sector in passed {
            self.sectors.remove(&sector);
        }
        worst
    }

    /// Whether one of these sectors has this fault.
    pub fn any(&self, sectors: Range<u64>, fault: Fault) -> bool {
        !self.sectors.is_empty()
            && self
                .sectors
                .range(sectors)
                .any(|(_, mark)| mark.fault == fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_counts_once_and_only_when_it_is_read() {
        let (mut marks, mut tally) = (Marks::default(), Tally::default());
        marks.set(7, Fault::Rot, 5);
        assert_eq!(marks.read(0..7, &mut tally), None);
        assert_eq!(tally.all_consumed(), 0);
        assert_eq!(marks.read(7..8, &mut tally), Some(Fault::Rot));
        assert_eq!(marks.read(0..9, &mut tally), Some(Fault::Rot));
        assert_eq!(tally.of(Fault::Rot).1, 1);
        marks.clear(0..100, 4);
        assert!(
            marks.read(0..9, &mut tally).is_some(),
            "an older write hides nothing"
        );
        marks.clear(0..100, 6);
        assert_eq!(marks.read(0..9, &mut tally), None);
    }

    #[test]
    fn what_power_loss_tore_is_consumed_and_is_no_damage() {
        let (mut marks, mut tally) = (Marks::default(), Tally::default());
        marks.set(3, Fault::Torn, 0);
        assert_eq!(marks.read(0..8, &mut tally), None);
        assert_eq!(tally.of(Fault::Torn).1, 1);
    }
}
