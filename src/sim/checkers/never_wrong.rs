//! *never wrong*: whatever a disk does to the only copy, a read returns an error or the right data.
//!
//! In a run whose disks destroy data, a read that breaks the rule of `linearizable` is this promise broken. Two cases
//! are let off: a store that found its journal damaged says so and serves what it has, read-only, with an
//! alert; and a disk that lost the youngest batch and then failed cannot be found out. What is served then may
//! be old, and must still be something that was once written there.

use super::{Checker, Failure, intact::Damage};
use crate::sim::model::Model;

/// Judges a wrong read in a run whose disks destroy data.
pub fn judge(
    damage: &Damage,
    model: &Model,
    volume: usize,
    offset: u64,
    bytes: &[u8],
    failure: Failure,
) -> Result<(), Failure> {
    if damage.is_empty() && !damage.youngest_lost {
        return Err(failure);
    }
    let may_be_old = damage.journal || damage.youngest_lost;
    if may_be_old && model.was_ever(volume, offset, bytes) {
        return Ok(());
    }
    Err(Failure::new(Checker::NeverWrong, failure.what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::model::Ending;
    use crate::sim::payload::Value;

    #[test]
    fn old_data_is_let_off_only_after_the_alert_and_garbage_never() {
        let mut model = Model::new();
        let volume = model.create(1 << 20);
        for value in [1, 2] {
            let write = model.write_began(volume, 0..4096, Value(value));
            model.write_ended(write, Ending::Acknowledged);
        }
        let mut bytes = [0; 4096];
        Value(1).fill(0, &mut bytes);
        let failure = Failure::new(Checker::Durable, "old");
        let mut damage = Damage {
            metadata: true,
            ..Damage::default()
        };
        let judged = judge(&damage, &model, volume, 0, &bytes, failure.clone());
        assert_eq!(judged.unwrap_err().checker, Checker::NeverWrong);
        damage.journal = true;
        assert_eq!(
            judge(&damage, &model, volume, 0, &bytes, failure.clone()),
            Ok(())
        );
        bytes[77] ^= 1;
        assert!(judge(&damage, &model, volume, 0, &bytes, failure).is_err());
    }
}
