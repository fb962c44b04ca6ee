//! *durable*: losing power loses no acknowledged write.
//!
//! A restart begins by reading everything that was ever written, under the same rule as any read. This file
//! tells a broken rule that power loss is to blame for from one that it is not: the write that
//! should have been seen, or that the read one contradicts, had ended before the power was cut.

use crate::sim::model::{Model, Wrong};
use crate::sim::register::Tick;

/// Whether a wrong read, begun at `began`, is a loss by power cut.
pub fn is_to_blame(model: &Model, wrong: &Wrong, began: Tick) -> bool {
    let cut = model.last_cut();
    cut > 0 && began > cut && model.write(wrong.mismatch.instead_of).ended <= cut
}

#[cfg(test)]
mod tests {
    use crate::sim::checkers::{Checker, linearizable};
    use crate::sim::model::{Ending, Model};
    use crate::sim::payload::Value;

    #[test]
    fn an_acknowledged_write_that_is_gone_after_a_power_cut_is_a_loss() {
        let mut model = Model::new();
        let volume = model.create(1 << 20);
        let write = model.write_began(volume, 0..4096, Value(1));
        model.write_ended(write, Ending::Acknowledged);
        model.power_cut(&[]);
        let began = model.began();
        let ended = model.ended(began);
        let zeroes = [0; 4096];
        let judged = linearizable::judge_read(&mut model, volume, 0, &zeroes, (began, ended));
        assert_eq!(judged.unwrap_err().checker, Checker::Durable);
    }

    #[test]
    fn a_write_in_flight_at_the_cut_may_be_there_or_not() {
        let mut model = Model::new();
        let volume = model.create(1 << 20);
        let write = model.write_began(volume, 0..4096, Value(1));
        model.power_cut(&[write]);
        let mut written = [0; 4096];
        Value(1).fill(0, &mut written);
        for bytes in [[0; 4096], written] {
            let mut model = model.clone();
            let began = model.began();
            let ended = model.ended(began);
            let judged = linearizable::judge_read(&mut model, volume, 0, &bytes, (began, ended));
            assert_eq!(judged, Ok(()));
        }
    }
}
