//! *converge*: at rest, all in-sync copies of a PG are the same, block by block.
//!
//! At rest means that nothing is in flight and every owner's recovery is done: what an owner did not acknowledge may differ until
//! the next one has recovered. A block that is absent and one that is zero are the same to a reader where no layer lies below, and
//! differ where one does. Stamps are not compared: a fill keeps the source's, and a joiner's own may be higher.

use super::{Failure, Promise};
use crate::base::{ChunkId, DiskId, LayerId, PgId};
use crate::sim::cluster::shelf::{Block, Content, Kept};
use std::collections::{BTreeMap, BTreeSet};

/// Judges the in-sync copies of a PG, each a disk with what it keeps.
pub fn judge<'a>(
    pg: PgId,
    copies: impl IntoIterator<Item = (DiskId, &'a Kept)>,
    parents: &BTreeMap<LayerId, LayerId>,
) -> Result<(), Failure> {
    let mut copies = copies.into_iter();
    let Some((first, kept)) = copies.next() else {
        return Ok(());
    };
    let of = kept.pg(pg);
    for (disk, kept) in copies {
        let other = kept.pg(pg);
        let chunks: BTreeSet<ChunkId> = of
            .chunks
            .keys()
            .chain(other.chunks.keys())
            .copied()
            .collect();
        for chunk in chunks {
            let has_parent = parents.contains_key(&chunk.layer);
            let content = |pg: &crate::sim::cluster::shelf::Pg| {
                let content = pg.chunks.get(&chunk).map(|chunk| chunk.content);
                as_read(content.unwrap_or_default(), has_parent)
            };
            let (a, b) = (content(of), content(other));
            if let Some(block) = (0..16).find(|block| a[*block] != b[*block]) {
                let what = format!(
                    "PG {pg}, {chunk:?}, block {block}: disk {first} has {:?}, disk {disk} has {:?}",
                    a[block], b[block]
                );
                return Err(Failure::new(Promise::Converge, what));
            }
        }
    }
    Ok(())
}

/// The blocks as a reader tells them apart.
fn as_read(content: Content, has_parent: bool) -> Content {
    content.map(|block| match block {
        Block::Absent if !has_parent => Block::Zero,
        block => block,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ChunkNo, FamilyId, Stamp};
    use crate::sim::cluster::shelf::{Chunk, Pg};

    const PG: PgId = PgId(1);

    fn kept(blocks: &[(u64, usize, Block)], stamp: u64) -> Kept {
        let mut pg = Pg::default();
        for &(chunk, block, value) in blocks {
            let id = ChunkId {
                family: FamilyId(1),
                layer: LayerId(2),
                chunk: ChunkNo(chunk),
            };
            let stamp = Stamp {
                sequence: stamp,
                ..Stamp::default()
            };
            let content = [Block::Absent; 16];
            let of = pg.chunks.entry(id).or_insert(Chunk { content, stamp });
            of.content[block] = value;
        }
        Kept {
            pgs: BTreeMap::from([(PG, pg)]),
            ..Kept::default()
        }
    }

    fn judged(copies: &[Kept], parents: &BTreeMap<LayerId, LayerId>) -> Result<(), Failure> {
        let copies = copies.iter().enumerate();
        judge(
            PG,
            copies.map(|(n, kept)| (DiskId(n as u32), kept)),
            parents,
        )
    }

    #[test]
    fn equal_copies_pass_whatever_their_stamps_are() {
        let blocks = [(0, 3, Block::Data(1)), (7, 0, Block::Zero)];
        let copies = [kept(&blocks, 1), kept(&blocks, 2), kept(&blocks, 3)];
        assert_eq!(judged(&copies, &BTreeMap::new()), Ok(()));
        assert_eq!(judged(&[], &BTreeMap::new()), Ok(()));
    }

    #[test]
    fn a_block_that_differs_is_named() {
        let copies = [
            kept(&[(0, 3, Block::Data(1))], 1),
            kept(&[(0, 3, Block::Data(1))], 1),
            kept(&[(0, 3, Block::Data(2))], 1),
        ];
        let failure = judged(&copies, &BTreeMap::new()).expect_err("they differ");
        assert_eq!(failure.promise, Promise::Converge);
        assert!(
            failure
                .what
                .contains("block 3: disk 0 has Data(1), disk 2 has Data(2)"),
            "{failure}"
        );
        let copies = [kept(&[], 1), kept(&[(9, 0, Block::Data(1))], 1)];
        assert!(
            judged(&copies, &BTreeMap::new()).is_err(),
            "one lacks a chunk"
        );
    }

    #[test]
    fn zero_and_absent_differ_over_another_layer_only() {
        let copies = [kept(&[(0, 0, Block::Zero)], 1), kept(&[], 1)];
        assert_eq!(judged(&copies, &BTreeMap::new()), Ok(()));
        let parents = BTreeMap::from([(LayerId(2), LayerId(1))]);
        assert!(judged(&copies, &parents).is_err());
    }
}
