//! *frozen*: a frozen layer is the same on every in-sync replica, and stays as it is for ever (R21).
//!
//! What is compared is one number a layer and PG, over its blocks as a reader tells them apart; damage, fills and moves of
//! replicas do not change it. The first replica that is frozen sets it.

use super::{Failure, Promise};
use crate::base::{DiskId, LayerId, PgId, mix64};
use crate::sim::cluster::shelf::{Block, Kept};
use std::collections::BTreeMap;

/// The number of a layer in a PG, on a disk that keeps it.
pub fn digest(kept: &Kept, pg: PgId, layer: LayerId) -> u64 {
    let has_parent = kept.parents.contains_key(&layer);
    let mut sum = 0;
    for (id, chunk) in kept
        .pg(pg)
        .chunks
        .iter()
        .filter(|(id, _)| id.layer == layer)
    {
        for (n, block) in chunk.content.iter().enumerate() {
            let value = match block {
                Block::Data(value) => mix64(*value) | 1,
                Block::Zero if has_parent => 2,
                Block::Zero | Block::Absent => continue,
            };
            let place = mix64(id.family.0).wrapping_add(id.chunk.0 * 16 + n as u64);
            // A sum: chunks that hold nothing to be read do not count, whatever their order.
            sum = mix64(mix64(place) ^ value).wrapping_add(sum);
        }
    }
    sum
}

/// The frozen layers.
#[derive(Debug, Clone, Default)]
pub struct Frozen {
    layers: BTreeMap<(LayerId, PgId), (DiskId, u64)>,
}

impl Frozen {
    /// Judges what an in-sync replica has of a layer that is frozen there.
    pub fn judge(
        &mut self,
        layer: LayerId,
        pg: PgId,
        disk: DiskId,
        digest: u64,
    ) -> Result<(), Failure> {
        let (first, expected) = *self.layers.entry((layer, pg)).or_insert((disk, digest));
        match digest == expected {
            true => Ok(()),
            false => {
                let what = format!(
                    "layer {layer}, PG {pg}: disk {disk} has not what disk {first} had as it was frozen"
                );
                Err(Failure::new(Promise::Frozen, what))
            }
        }
    }

    /// A layer is deleted, or merged into another.
    pub fn forget(&mut self, layer: LayerId) {
        self.layers.retain(|(of, _), _| *of != layer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ChunkId, ChunkNo, FamilyId, Stamp};
    use crate::sim::cluster::shelf::{Chunk, Pg};

    const PG: PgId = PgId(1);
    const LAYER: LayerId = LayerId(4);

    fn kept(blocks: &[(u64, u64, Block)]) -> Kept {
        let mut pg = Pg::default();
        for &(layer, chunk, block) in blocks {
            let id = ChunkId {
                family: FamilyId(1),
                layer: LayerId(layer),
                chunk: ChunkNo(chunk),
            };
            let (mut content, stamp) = ([Block::Absent; 16], Stamp::default());
            content[3] = block;
            pg.chunks.insert(id, Chunk { content, stamp });
        }
        let pgs = BTreeMap::from([(PG, pg)]);
        Kept {
            pgs,
            ..Kept::default()
        }
    }

    #[test]
    fn copies_that_are_the_same_to_a_reader_have_one_number() {
        let a = kept(&[
            (4, 0, Block::Data(1)),
            (4, 1, Block::Zero),
            (5, 0, Block::Data(9)),
        ]);
        let b = kept(&[(4, 0, Block::Data(1)), (5, 0, Block::Data(8))]);
        assert_eq!(digest(&a, PG, LAYER), digest(&b, PG, LAYER));
        let over = |mut kept: Kept| {
            kept.parents.insert(LAYER, LayerId(1));
            digest(&kept, PG, LAYER)
        };
        assert_ne!(over(a), over(b), "zero hides what lies below");
        let (here, there) = (
            kept(&[(4, 0, Block::Data(1))]),
            kept(&[(4, 1, Block::Data(1))]),
        );
        assert_ne!(digest(&here, PG, LAYER), digest(&there, PG, LAYER));
    }

    #[test]
    fn a_layer_that_differs_or_changes_after_it_was_frozen_is_found() {
        let mut frozen = Frozen::default();
        let one = digest(&kept(&[(4, 0, Block::Data(1))]), PG, LAYER);
        let other = digest(&kept(&[(4, 0, Block::Data(2))]), PG, LAYER);
        assert_eq!(frozen.judge(LAYER, PG, DiskId(1), one), Ok(()));
        assert_eq!(frozen.judge(LAYER, PG, DiskId(2), one), Ok(()));
        for disk in [1, 2] {
            let failure = frozen.judge(LAYER, PG, DiskId(disk), other).unwrap_err();
            assert_eq!(failure.promise, Promise::Frozen);
        }
        frozen.forget(LAYER);
        assert_eq!(frozen.judge(LAYER, PG, DiskId(1), other), Ok(()));
    }
}
