//! *atomic*: a write inside one aligned 64 KiB chunk is all or nothing, through power loss too.
//!
//! After a restart has read everything, each write that was in flight at the cut is looked at: where one part
//! of its range shows it, no other part may show a write that had ended before it began.

use super::{Checker, Failure};
use crate::sim::model::Model;
use crate::sim::register::WriteNo;

/// Judges the writes that were in flight at the last power cut, once everything was read.
pub fn judge(model: &mut Model) -> Result<(), Failure> {
    for write in std::mem::take(&mut model.unresolved) {
        if let Some(old) = torn(model, write) {
            let range = &model.write(write).range;
            let volume = model.write(write).volume;
            return Err(Failure::new(
                Checker::Atomic,
                format!(
                    "write {write} of bytes {range:?} of volume {volume} was in flight at the power cut and \
                     happened in part: elsewhere in its range is write {old}"
                ),
            ));
        }
    }
    Ok(())
}

/// A write that shows in a part of the range of `write`, while `write` shows in another and came later.
fn torn(model: &Model, write: WriteNo) -> Option<WriteNo> {
    let seen = model.seen_in(write);
    if !seen.contains(&write) {
        return None;
    }
    let began = model.write(write).began;
    let old = |other: &&WriteNo| **other != write && model.write(**other).ended < began;
    seen.iter().find(old).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::checkers::linearizable::judge_read;
    use crate::sim::model::Ending;
    use crate::sim::payload::Value;

    fn after_a_cut(new_bytes: usize) -> Result<(), Failure> {
        let mut model = Model::new();
        let volume = model.create(1 << 20);
        let write = model.write_began(volume, 0..16_384, Value(1));
        model.write_ended(write, Ending::Acknowledged);
        let write = model.write_began(volume, 4096..12_288, Value(2));
        model.power_cut(&[write]);
        let mut bytes = [0; 16_384];
        Value(1).fill(0, &mut bytes);
        Value(2).fill(4096, &mut bytes[4096..4096 + new_bytes]);
        let began = model.began();
        let ended = model.ended(began);
        judge_read(&mut model, volume, 0, &bytes, (began, ended))?;
        judge(&mut model)
    }

    #[test]
    fn a_write_is_there_as_a_whole_or_not_at_all() {
        assert_eq!(after_a_cut(0), Ok(()));
        assert_eq!(after_a_cut(8192), Ok(()));
        assert_eq!(after_a_cut(4096).unwrap_err().checker, Checker::Atomic);
    }
}
