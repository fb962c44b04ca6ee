//! What a coordinator makes of what the in-sync replicas of a PG hold of one chunk, while nothing of it is in flight.
//!
//! They have to hold the same. Where they do not, one of them has lost a write without noticing (its old table and its old data agree), or missed
//! one by a mistake of ours. Two things tell which: the *stamp*, because a replica that has a newer one took a write that the others
//! should have; and *how many* hold the same. A stamp is of the chunk, not of the block: a replica that lost a write to one block and took a later one to
//! another has the newest stamp and an old block. So a value counts as right only if neither speaks against it:
//!
//! | more than half hold it | somebody with the newest stamp does | then |
//! |---|---|---|
//! | yes | yes | it is right |
//! | yes | no | nobody knows |
//! | there is no such value | all of them, and others have older stamps | it is right |
//! | there is no such value | otherwise | nobody knows |
//!
//! Where nobody knows, nothing is changed: wrong data is never made. What is right goes to all as a write of the coordinator, fenced and ordered
//! like any other; a frozen layer takes no writes, so there the replica that is wrong is taken out, and joins anew as an empty one.

use crate::base::DiskId;
use crate::protocol::replication::MEMBERS_MAX;
use crate::protocol::replication::fill::Content;

/// What lies below a layer: where nothing does, a block that is absent reads as one that is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    Nothing,
    Layers,
}

/// What became of a comparison. No block is in two masks; those in none are the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Blocks that differ, and of which is known who has them right: see [`Verdict::right`].
    pub cured: u16,
    /// Blocks that differ, and nobody knows.
    pub unknown: u16,
    right: [Option<DiskId>; 16],
}

/// The value of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Absent,
    Zero,
    Data(u32),
}

impl Verdict {
    /// Whether all hold the same.
    pub fn is_same(&self) -> bool {
        self.cured | self.unknown == 0
    }

    /// A replica that has this block right, where it differs and that is known.
    pub fn right(&self, block: u32) -> Option<DiskId> {
        self.right.get(block as usize).copied().flatten()
    }
}

/// Compares what replicas hold of a chunk; at most [`MEMBERS_MAX`] of them.
pub fn compare(held: &[(DiskId, Content)], below: Below) -> Verdict {
    debug_assert!(held.len() <= MEMBERS_MAX, "a PG has so many members");
    let mut verdict = Verdict::default();
    for block in 0..16 {
        let value = |of: &Content| value(of, block, below);
        let Some((_, first)) = held.first() else {
            return verdict;
        };
        if held.iter().all(|(_, of)| value(of) == value(first)) {
            continue;
        }
        match right(held, value) {
            Some(disk) => {
                verdict.cured |= 1 << block;
                verdict.right[block] = Some(disk);
            }
            None => verdict.unknown |= 1 << block,
        }
    }
    verdict
}

fn value(of: &Content, block: usize, below: Below) -> Block {
    let bit = 1 << block;
    match (of.data & bit != 0, of.zeroes & bit != 0) {
        (true, _) => Block::Data(of.crcs[block]),
        (false, true) => Block::Zero,
        (false, false) if below == Below::Nothing => Block::Zero,
        (false, false) => Block::Absent,
    }
}

/// Who has the right value of a block in which they differ.
fn right(held: &[(DiskId, Content)], value: impl Fn(&Content) -> Block) -> Option<DiskId> {
    let newest = held.iter().map(|(_, of)| of.stamp).max()?;
    let has_newest = |(_, of): &&(DiskId, Content)| of.stamp == newest;
    let count = |wanted: Block| held.iter().filter(|(_, of)| value(of) == wanted).count();
    let is_most = |(_, of): &&(DiskId, Content)| 2 * count(value(of)) > held.len();
    if held.iter().any(|one| is_most(&one)) {
        let both = held.iter().filter(is_most).find(has_newest)?;
        return Some(both.0);
    }
    let mut newer = held.iter().filter(has_newest);
    let (disk, first) = newer.next()?;
    let agree = newer.all(|(_, of)| value(of) == value(first));
    let some_are_older = !held.iter().all(|one| has_newest(&one));
    (agree && some_are_older).then_some(*disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Epoch, Stamp};

    /// A replica's stamp, and what its first blocks are: 0 absent, 1 zero, else data.
    fn held(all: &[(u64, &[u32])]) -> Vec<(DiskId, Content)> {
        let one = |(n, (sequence, blocks)): (usize, &(u64, &[u32]))| {
            let mut of = Content {
                stamp: Stamp {
                    version: 1,
                    epoch: Epoch::default(),
                    sequence: *sequence,
                },
                data: 0,
                zeroes: 0,
                crcs: [0; 16],
            };
            for (at, block) in blocks.iter().enumerate() {
                match block {
                    0 => {}
                    1 => of.zeroes |= 1 << at,
                    crc => {
                        of.data |= 1 << at;
                        of.crcs[at] = *crc;
                    }
                }
            }
            (DiskId(n as u32), of)
        };
        all.iter().enumerate().map(one).collect()
    }

    fn of(all: &[(u64, &[u32])]) -> (u16, u16, Vec<Option<u32>>) {
        let verdict = compare(&held(all), Below::Layers);
        let right = (0..3).map(|block| verdict.right(block).map(|disk| disk.0));
        (verdict.cured, verdict.unknown, right.collect())
    }

    #[test]
    fn replicas_that_hold_the_same_are_not_cured_whatever_their_stamps_are() {
        assert!(compare(&held(&[(1, &[7, 1, 0]), (2, &[7, 1, 0])]), Below::Layers).is_same());
        assert!(compare(&[], Below::Layers).is_same());
        assert!(compare(&held(&[(1, &[7])]), Below::Layers).is_same());
    }

    #[test]
    fn of_two_the_one_that_took_a_newer_write_is_right_and_else_nobody_knows() {
        let lost = of(&[(2, &[8, 7]), (1, &[7, 7])]);
        assert_eq!(lost, (0b01, 0, vec![Some(0), None, None]));
        assert_eq!(of(&[(2, &[8, 7]), (2, &[7, 7])]), (0, 0b01, vec![None; 3]));
    }

    #[test]
    fn of_three_with_one_stamp_the_value_of_two_is_right() {
        let lost = of(&[(2, &[7]), (2, &[8]), (2, &[8])]);
        assert_eq!(lost, (0b01, 0, vec![Some(1), None, None]));
        let all = of(&[(2, &[7]), (2, &[8]), (2, &[9])]);
        assert_eq!(all, (0, 0b01, vec![None; 3]));
    }

    #[test]
    fn a_replica_with_the_newest_stamp_and_an_old_block_is_not_believed() {
        // Disk 0 lost a write to block 0 and took the last one, to block 1; disk 1 lost that one.
        let both = of(&[(3, &[7, 9]), (2, &[8, 7]), (3, &[8, 9])]);
        assert_eq!(both, (0b11, 0, vec![Some(2), Some(0), None]));
        // Two lost what only one has: more speak against it than for it.
        let two = of(&[(3, &[9]), (2, &[7]), (2, &[7])]);
        assert_eq!(two, (0, 0b01, vec![None; 3]));
    }

    #[test]
    fn what_is_absent_is_zero_only_where_nothing_lies_below() {
        let all = held(&[(2, &[1]), (1, &[0])]);
        assert!(compare(&all, Below::Nothing).is_same());
        assert_eq!(compare(&all, Below::Layers).cured, 1);
    }
}
