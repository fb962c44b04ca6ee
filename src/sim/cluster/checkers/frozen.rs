//! *frozen*: a frozen layer is the same on every in-sync replica, and stays as it is for ever (R21).
//!
//! What is compared is one number a layer and PG, over what a reader of the layer sees, through those below it too: a recovery that writes a block again
//! may bring it up from below, and changes nothing that way. Nor do damage, fills and moves of replicas. The first replica that is
//! judged sets it. It is judged as the layer freezes, at every 65,536th step of a run, and at rest.

use super::{Failure, Promise};
use crate::base::{BLOCKS_PER_CHUNK, DiskId, FamilyId, LayerId, PgId, mix64};
use crate::sim::cluster::shelf::{Block, Kept};
use std::collections::BTreeMap;

/// What a reader of a chain of layers sees in a PG, on a disk that keeps it: of each block that is not zero, by its family and number, the
/// value. The chain is the catalog's, from the oldest layer on: a disk may not have heard of all of it.
pub fn view(kept: &Kept, pg: PgId, chain: &[LayerId]) -> BTreeMap<(FamilyId, u64), u64> {
    let mut seen = BTreeMap::new();
    for layer in chain {
        let chunks = kept.pg(pg).chunks.iter();
        for (id, chunk) in chunks.filter(|(id, _)| id.layer == *layer) {
            for (n, block) in chunk.content.iter().enumerate() {
                let at = id.chunk.0 * u64::from(BLOCKS_PER_CHUNK) + n as u64;
                let place = (id.family, at);
                match block {
                    Block::Data(value) => drop(seen.insert(place, *value)),
                    Block::Zero => drop(seen.remove(&place)),
                    Block::Absent => {}
                }
            }
        }
    }
    seen
}

/// The number of a chain of layers in a PG, on a disk that keeps it.
pub fn digest(kept: &Kept, pg: PgId, chain: &[LayerId]) -> u64 {
    let seen = view(kept, pg, chain).into_iter();
    seen.fold(0, |sum, ((family, block), value)| {
        mix64(mix64(mix64(sum ^ family.0) ^ block) ^ value)
    })
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
        assert_eq!(digest(&a, PG, &[LAYER]), digest(&b, PG, &[LAYER]));
        let below = [
            (1, 1, Block::Data(7)),
            (4, 0, Block::Data(1)),
            (4, 1, Block::Zero),
        ];
        let over = |blocks: &[(u64, u64, Block)]| digest(&kept(blocks), PG, &[LayerId(1), LAYER]);
        assert_ne!(
            over(&below),
            over(&below[..2]),
            "zero hides what lies below"
        );
        let brought_up = [below[0], below[1], (4, 1, Block::Data(7))];
        assert_eq!(over(&below[..2]), over(&brought_up));
        let (here, there) = (
            kept(&[(4, 0, Block::Data(1))]),
            kept(&[(4, 1, Block::Data(1))]),
        );
        assert_ne!(digest(&here, PG, &[LAYER]), digest(&there, PG, &[LAYER]));
    }

    #[test]
    fn a_layer_that_differs_or_changes_after_it_was_frozen_is_found() {
        let mut frozen = Frozen::default();
        let one = digest(&kept(&[(4, 0, Block::Data(1))]), PG, &[LAYER]);
        let other = digest(&kept(&[(4, 0, Block::Data(2))]), PG, &[LAYER]);
        assert_eq!(frozen.judge(LAYER, PG, DiskId(1), one), Ok(()));
        assert_eq!(frozen.judge(LAYER, PG, DiskId(2), one), Ok(()));
        for disk in [1, 2] {
            let failure = frozen.judge(LAYER, PG, DiskId(disk), other).unwrap_err();
            assert_eq!(failure.promise, Promise::Frozen);
        }
    }
}
