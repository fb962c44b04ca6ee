//! *intact*: where no disk destroyed anything, nothing fails.
//!
//! The other side of *never wrong*: a store that answers every read with an error would keep all other
//! promises. The node tells what the store came across (`Damage`); an error is right only where something
//! of that explains it.

use super::{Checker, Failure};
use crate::base::{BLOCK, BlockNo, IoError, LayerId, RequestKind};
use std::collections::BTreeSet;
use std::ops::Range;

/// What the store of a node came across that explains errors.
#[derive(Debug, Clone, Default)]
pub struct Damage {
    /// Blocks whose payload was damaged when it was read.
    pub(super) blocks: BTreeSet<(LayerId, u64)>,
    /// Something that is not payload was damaged, or a disk failed: any error is explained.
    pub metadata: bool,
    /// A disk failed a write or is gone.
    pub disk_failed: bool,
    /// A store said that its journal is damaged: it serves old data and takes no writes.
    pub journal: bool,
    /// A disk lost its youngest journal batch unnoticed, as a single copy may: what was acknowledged last may be gone.
    pub youngest_lost: bool,
}

impl Damage {
    pub fn block(&mut self, layer: LayerId, block: u64) {
        self.blocks.insert((layer, block));
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && !self.metadata && !self.disk_failed && !self.journal
    }

    /// Whether a failure of a request for these bytes of a volume with these layers is explained.
    fn explains(&self, layers: &[LayerId], range: &Range<u64>) -> bool {
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        let met = |&layer: &LayerId| {
            let range = (layer, blocks.start)..(layer, blocks.end);
            self.blocks.range(range).next().is_some()
        };
        self.metadata || self.disk_failed || self.journal || layers.iter().any(met)
    }
}

/// Judges a request that failed.
pub fn judge(
    damage: &Damage,
    layers: &[LayerId],
    kind: RequestKind,
    range: &Range<u64>,
    error: IoError,
) -> Result<(), Failure> {
    let explained = match error {
        IoError::Failed => damage.explains(layers, range),
        IoError::ReadOnly => damage.journal || damage.metadata || damage.disk_failed,
        // Judged by `space`, or asked for by what the simulator did.
        IoError::NoSpace | IoError::Busy => true,
        // A snapshot that one disk failed has frozen the layer on the others.
        IoError::Closed => damage.disk_failed,
        IoError::OutOfRange => false,
    };
    match explained {
        true => Ok(()),
        false => Err(Failure::new(
            Checker::Intact,
            format!("{kind:?} of bytes {range:?} failed ({error}), and no disk is to blame"),
        )),
    }
}

/// Judges an alarm over a block. The fault may have lain in the journal, and later lives do not meet it any more: it
/// explains what becomes of this block from now on.
pub fn judge_alarm(damage: &mut Damage, layer: LayerId, block: BlockNo) -> Result<(), Failure> {
    let range = block.0 * BLOCK..(block.0 + 1) * BLOCK;
    if !damage.explains(&[layer], &range) {
        let what = format!("an alarm over {layer:?} {block:?}, and no disk is to blame for that");
        return Err(Failure::new(Checker::Intact, what));
    }
    damage.block(layer, block.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_right_only_where_the_damage_is() {
        let mut damage = Damage::default();
        let judge = |damage: &Damage, range: Range<u64>| {
            let layers = [LayerId(1), LayerId(2)];
            judge(damage, &layers, RequestKind::Read, &range, IoError::Failed)
        };
        assert!(judge(&damage, 0..4096).is_err());
        damage.block(LayerId(2), 3);
        assert!(judge(&damage, 0..4096).is_err());
        assert!(judge(&damage, 0..12_289).is_ok());
        damage.block(LayerId(3), 0);
        assert!(judge(&damage, 0..4096).is_err(), "another volume's layer");
    }

    #[test]
    fn an_alarm_over_the_neighbour_of_a_damaged_block_is_false() {
        let mut damage = Damage::default();
        damage.block(LayerId(2), 3);
        assert!(judge_alarm(&mut damage, LayerId(2), BlockNo(3)).is_ok());
        assert!(judge_alarm(&mut damage, LayerId(2), BlockNo(4)).is_err());
        damage.metadata = true;
        assert!(judge_alarm(&mut damage, LayerId(2), BlockNo(4)).is_ok());
        damage.metadata = false;
        assert!(
            judge_alarm(&mut damage, LayerId(2), BlockNo(4)).is_ok(),
            "it is known"
        );
    }
}
