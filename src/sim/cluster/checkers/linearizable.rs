//! *linearizable*: a volume is one linearizable register per sector, for all clients at all nodes together.
//!
//! Clients say when they ask and when they are answered; every moment has a tick of its own, so the order of what happened at
//! different nodes is the simulator's true one. The rule is in `history.rs`; here operations on runs of sectors become the histories
//! of single ones.

use super::{Failure, Place, Promise};
use crate::base::VolumeId;
use crate::sim::cluster::history::{End, Kind, Op, Wrong, ZERO, judge};
use crate::sim::register::Tick;
use std::collections::BTreeMap;
use std::ops::Range;

/// Operations of a run.
pub const OPERATIONS_MAX: usize = 1 << 20;

/// The name of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(u32);

/// There are [`OPERATIONS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

#[derive(Debug)]
struct Operation {
    kind: Kind,
    began: Tick,
    /// `None`: it is in flight, or a read that failed.
    end: Option<End>,
    sectors: Range<u64>,
    volume: VolumeId,
}

/// What all clients asked, and were answered.
#[derive(Debug, Default)]
pub struct Histories {
    tick: Tick,
    operations: Vec<Operation>,
    /// For each sector the operations that touched it, with the value that each wrote or read there.
    places: BTreeMap<Place, Vec<(OperationId, u64)>>,
}

impl Histories {
    /// A moment of its own.
    pub fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    fn begin(
        &mut self,
        kind: Kind,
        volume: VolumeId,
        sectors: Range<u64>,
    ) -> Result<OperationId, Full> {
        if self.operations.len() >= OPERATIONS_MAX {
            return Err(Full);
        }
        let began = self.tick();
        self.operations.push(Operation {
            kind,
            began,
            end: None,
            sectors,
            volume,
        });
        Ok(OperationId(self.operations.len() as u32 - 1))
    }

    /// A write is asked for: each sector gets `value`, unique to it, or [`ZERO`].
    pub fn write(
        &mut self,
        volume: VolumeId,
        sectors: Range<u64>,
        value: u64,
    ) -> Result<OperationId, Full> {
        let id = self.begin(Kind::Write, volume, sectors.clone())?;
        for sector in sectors {
            let place = self.places.entry((volume, sector)).or_default();
            place.push((id, value));
        }
        Ok(id)
    }

    /// A read is asked for.
    pub fn read(&mut self, volume: VolumeId, sectors: Range<u64>) -> Result<OperationId, Full> {
        self.begin(Kind::Read, volume, sectors)
    }

    /// A write was acknowledged.
    pub fn wrote(&mut self, id: OperationId) {
        let now = self.tick();
        self.operations[id.0 as usize].end = Some(End::Answered(now));
    }

    /// A write failed, or its client is gone: it may happen, at any time, or never.
    pub fn failed(&mut self, id: OperationId) {
        self.operations[id.0 as usize].end.get_or_insert(End::Open);
    }

    /// A write was refused, and never happens: whoever reads it has read what nobody wrote.
    pub fn never(&mut self, id: OperationId) {
        let operation = &self.operations[id.0 as usize];
        let (volume, sectors) = (operation.volume, operation.sectors.clone());
        for sector in sectors {
            if let Some(place) = self.places.get_mut(&(volume, sector)) {
                place.retain(|(of, _)| *of != id);
            }
        }
    }

    /// A read was answered, with a value for each sector.
    pub fn saw(&mut self, id: OperationId, values: &[u64]) {
        let now = self.tick();
        let operation = &mut self.operations[id.0 as usize];
        operation.end = Some(End::Answered(now));
        let (volume, sectors) = (operation.volume, operation.sectors.clone());
        debug_assert_eq!(values.len() as u64, sectors.end - sectors.start);
        for (sector, value) in sectors.zip(values) {
            let place = self.places.entry((volume, sector)).or_default();
            place.push((id, *value));
        }
    }

    /// A snapshot that was asked for at `asked` is answered now; `values` are its sectors that are not zero.
    ///
    /// It is a cut (R21) if all of it could have been read at one moment, between the two, and not before any write began that is in it: what was
    /// acknowledged before that is in it too. So it is a read of each sector, from the last of these moments on.
    pub fn snapshot(&mut self, volume: VolumeId, asked: Tick, values: &BTreeMap<u64, u64>) {
        let now = self.tick();
        let places = self.places.range((volume, 0)..=(volume, u64::MAX));
        let mut began = asked;
        let mut seen = values.clone();
        for (&(_, sector), of) in places {
            let value = *seen.entry(sector).or_insert(ZERO);
            let wrote = |id: &OperationId| self.operations[id.0 as usize].kind == Kind::Write;
            let write = of.iter().find(|(id, of)| *of == value && wrote(id));
            // Zeroes have many writers.
            if let Some((id, _)) = write.filter(|_| value != ZERO) {
                began = began.max(self.operations[id.0 as usize].began);
            }
        }
        if self.operations.len() >= OPERATIONS_MAX {
            return;
        }
        let id = OperationId(self.operations.len() as u32);
        self.operations.push(Operation {
            kind: Kind::Read,
            began,
            end: Some(End::Answered(now)),
            sectors: 0..0,
            volume,
        });
        for (sector, value) in seen {
            let place = self.places.entry((volume, sector)).or_default();
            place.push((id, value));
        }
    }

    /// The power of all was lost: what is in flight has happened, or never will, because everything that may bring it about is what
    /// the replicas have, and that is settled before anything is read.
    pub fn power_lost(&mut self) {
        let now = self.tick();
        let writes = self
            .operations
            .iter_mut()
            .filter(|of| of.kind == Kind::Write);
        for write in writes.filter(|write| matches!(write.end, None | Some(End::Open))) {
            write.end = Some(End::Perhaps(now));
        }
    }

    /// Judges everything so far.
    pub fn judge(&self) -> Result<(), Failure> {
        for (place, seen) in &self.places {
            let op = |&(id, value): &(OperationId, u64)| {
                let Operation {
                    kind, began, end, ..
                } = self.operations[id.0 as usize];
                Op {
                    kind,
                    value,
                    began,
                    end: end.unwrap_or(End::Open),
                }
            };
            let ops: Vec<Op> = seen.iter().map(op).collect();
            judge(&ops).map_err(|wrong| describe(*place, &ops, wrong))?;
        }
        Ok(())
    }

    /// How many operations there were.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.operations.len()
    }
}

fn describe((volume, sector): Place, ops: &[Op], wrong: Wrong) -> Failure {
    let of = |value| {
        let mut words = match value {
            ZERO => "zeroes".to_owned(),
            value => format!("value {value}"),
        };
        for op in ops.iter().filter(|op| op.value == value).take(8) {
            let end = match op.end {
                End::Answered(at) => format!("{at}"),
                End::Perhaps(at) => format!("{at}, perhaps"),
                End::Open => "?".to_owned(),
            };
            words += &format!(" [{:?} {}..{end}]", op.kind, op.began);
        }
        words
    };
    let what = match wrong {
        Wrong::NeverWritten { value } => format!("{} was read and never written", of(value)),
        Wrong::FromTheFuture { value } => format!("{} was read before it was written", of(value)),
        Wrong::Contradiction { value, other } => {
            format!("{} and {} cannot be in one order", of(value), of(other))
        }
        Wrong::TwoWriters { value } => format!("{} has two writers", of(value)),
    };
    let what = format!("volume {volume}, sector {sector}: {what}");
    Failure::new(Promise::Linearizable, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId(1);

    fn wrote(histories: &mut Histories, blocks: Range<u64>, value: u64) {
        let id = histories.write(VOLUME, blocks, value).unwrap();
        histories.wrote(id);
    }

    fn saw(histories: &mut Histories, from: u64, values: &[u64]) {
        let blocks = from..from + values.len() as u64;
        let id = histories.read(VOLUME, blocks).unwrap();
        histories.saw(id, values);
    }

    fn broken(histories: &Histories) -> String {
        let failure = histories.judge().expect_err("it is not linearizable");
        assert_eq!(failure.promise, Promise::Linearizable);
        failure.what
    }

    #[test]
    fn a_read_of_sectors_by_several_writes_is_judged_sector_by_sector() {
        let mut histories = Histories::default();
        wrote(&mut histories, 0..4, 1);
        wrote(&mut histories, 2..6, 2);
        saw(&mut histories, 0, &[1, 1, 2, 2, 2, 2, ZERO]);
        assert_eq!(histories.judge(), Ok(()));
        saw(&mut histories, 1, &[1, 1]);
        let what = broken(&histories);
        assert!(
            what.contains("volume 1, sector 2") && what.contains("value 1"),
            "{what}"
        );
        assert_eq!(histories.len(), 4);
    }

    #[test]
    fn two_clients_that_see_two_orders_are_found() {
        let mut histories = Histories::default();
        let one = histories.write(VOLUME, 0..1, 1).unwrap();
        let other = histories.write(VOLUME, 0..1, 2).unwrap();
        saw(&mut histories, 0, &[1]);
        saw(&mut histories, 0, &[2]);
        assert_eq!(histories.judge(), Ok(()));
        saw(&mut histories, 0, &[1]);
        histories.wrote(one);
        histories.failed(other);
        assert!(broken(&histories).contains("one order"));
    }

    #[test]
    fn a_write_that_failed_may_come_late_but_not_after_power_was_lost() {
        let mut histories = Histories::default();
        wrote(&mut histories, 0..1, 1);
        let failed = histories.write(VOLUME, 0..1, 2).unwrap();
        histories.failed(failed);
        saw(&mut histories, 0, &[1]);
        saw(&mut histories, 0, &[2]);
        assert_eq!(histories.judge(), Ok(()));
        let failed = histories.write(VOLUME, 0..1, 3).unwrap();
        histories.failed(failed);
        histories.power_lost();
        saw(&mut histories, 0, &[2]);
        assert_eq!(histories.judge(), Ok(()));
        saw(&mut histories, 0, &[3]);
        assert!(broken(&histories).contains("value 3"));
    }

    #[test]
    fn a_write_that_was_refused_is_never_read() {
        let mut histories = Histories::default();
        wrote(&mut histories, 0..1, 1);
        let refused = histories.write(VOLUME, 0..1, 2).unwrap();
        histories.never(refused);
        saw(&mut histories, 0, &[1]);
        assert_eq!(histories.judge(), Ok(()));
        saw(&mut histories, 0, &[2]);
        assert!(broken(&histories).contains("never written"));
    }

    #[test]
    fn a_snapshot_is_a_cut() {
        let of = |values: &[u64]| -> BTreeMap<u64, u64> {
            let values = values.iter().copied().enumerate();
            let values = values.map(|(block, value)| (block as u64, value));
            values.filter(|(_, value)| *value != ZERO).collect()
        };
        let judged = |values: &[u64]| {
            let mut histories = Histories::default();
            wrote(&mut histories, 0..1, 1);
            let asked = histories.tick();
            wrote(&mut histories, 1..2, 2);
            let open = histories.write(VOLUME, 3..4, 4).unwrap();
            wrote(&mut histories, 2..3, 3);
            histories.snapshot(VOLUME, asked, &of(values));
            histories.wrote(open);
            histories.judge()
        };
        for fine in [
            [1, 0, 0, 0],
            [1, 2, 0, 0],
            [1, 2, 3, 0],
            [1, 2, 3, 4],
            [1, 2, 0, 4],
        ] {
            assert_eq!(judged(&fine), Ok(()), "{fine:?}");
        }
        for wrong in [
            // What was acknowledged before it was asked for.
            [0, 0, 0, 0],
            // The second was acknowledged before the third began, and before the fourth did.
            [1, 0, 3, 0],
            [1, 0, 0, 4],
        ] {
            assert!(judged(&wrong).is_err(), "{wrong:?}");
        }
        // What began after it was answered.
        let mut histories = Histories::default();
        let asked = histories.tick();
        histories.snapshot(VOLUME, asked, &of(&[9]));
        wrote(&mut histories, 0..1, 9);
        assert!(histories.judge().is_err());
    }

    #[test]
    fn what_nobody_wrote_and_what_was_not_written_yet_is_found() {
        let mut histories = Histories::default();
        saw(&mut histories, 0, &[9]);
        assert!(broken(&histories).contains("never written"));
        wrote(&mut histories, 0..1, 9);
        assert!(broken(&histories).contains("before it was written"));
        let mut histories = Histories::default();
        wrote(&mut histories, 0..1, 9);
        wrote(&mut histories, 0..1, 9);
        assert!(broken(&histories).contains("two writers"));
    }
}
