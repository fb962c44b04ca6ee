//! *single-writer*: no two nodes serve one range at a time.
//!
//! One epoch is one start of one node. And once an owner has served under an epoch, nothing that began later is
//! acknowledged or read under a lower one: it has sealed every replica before (R5), so such a write cannot have been durable, and such a read
//! was not covered by a lease (R17). What began earlier may still be answered; whether it should is for `linearizable`.

use super::{Failure, Promise};
use crate::base::{Epoch, NodeId, VolumeId};
use crate::sim::register::Tick;
use std::collections::BTreeMap;

/// Turns of one range that are remembered.
const TURNS_MAX: usize = 256;

/// One start of one node.
pub type Owner = (NodeId, u64);

#[derive(Debug, Clone, Copy)]
struct Turn {
    owner: Owner,
    /// When something was served first.
    first: Tick,
    /// When what was served began, of that which began last.
    latest: Tick,
}

/// Who has served which range, under which epoch.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    ranges: BTreeMap<VolumeId, BTreeMap<Epoch, Turn>>,
}

impl Turns {
    /// An owner acknowledges a write, or answers a read, that began at `began`.
    pub fn served(
        &mut self,
        range: VolumeId,
        epoch: Epoch,
        owner: Owner,
        (began, now): (Tick, Tick),
    ) -> Result<(), Failure> {
        let turns = self.ranges.entry(range).or_default();
        let turn = turns.entry(epoch).or_insert(Turn {
            owner,
            first: now,
            latest: began,
        });
        if turn.owner != owner {
            return Err(two(range, epoch, turn.owner, owner));
        }
        turn.latest = turn.latest.max(began);
        let first = turn.first;
        let mut lower = turns.range(..epoch);
        // The lower one may have been told first.
        if let Some((lower, turn)) = lower.find(|(_, turn)| turn.latest > first) {
            let what = format!(
                "range {range}: {owner:?} serves under {epoch:?} since {first}, and {:?} under {lower:?} what began at {}",
                turn.owner, turn.latest
            );
            return Err(Failure::new(Promise::SingleWriter, what));
        }
        let next = turns.range((std::ops::Bound::Excluded(epoch), std::ops::Bound::Unbounded));
        let over = next
            .map(|(epoch, turn)| (*epoch, *turn))
            .find(|(_, turn)| turn.first < began);
        if let Some((higher, turn)) = over {
            let what = format!(
                "range {range}: {owner:?} serves under {epoch:?} what began at {began}, and {:?} under {higher:?} since {}",
                turn.owner, turn.first
            );
            return Err(Failure::new(Promise::SingleWriter, what));
        }
        if turns.len() > TURNS_MAX {
            turns.pop_first();
        }
        Ok(())
    }

    /// An owner serves something that no lease protects: still nobody else has its epoch.
    pub fn is_of(&self, range: VolumeId, epoch: Epoch, owner: Owner) -> Result<(), Failure> {
        let turn = self.ranges.get(&range).and_then(|of| of.get(&epoch));
        match turn.map(|turn| turn.owner) {
            Some(other) if other != owner => Err(two(range, epoch, other, owner)),
            _ => Ok(()),
        }
    }
}

fn two(range: VolumeId, epoch: Epoch, one: Owner, other: Owner) -> Failure {
    let what = format!("range {range}: {epoch:?} is of {one:?}, and {other:?} serves under it");
    Failure::new(Promise::SingleWriter, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: VolumeId = VolumeId(1);

    fn epoch(host: u32) -> Epoch {
        Epoch {
            host,
            ..Epoch::default()
        }
    }

    fn owner(node: u32) -> Owner {
        (NodeId(node), 1)
    }

    #[test]
    fn one_after_another_is_good_and_a_late_answer_to_an_early_write_too() {
        let mut turns = Turns::default();
        assert_eq!(turns.served(RANGE, epoch(1), owner(1), (1, 2)), Ok(()));
        assert_eq!(turns.served(RANGE, epoch(2), owner(2), (5, 6)), Ok(()));
        assert_eq!(turns.served(RANGE, epoch(1), owner(1), (4, 7)), Ok(()));
        assert_eq!(
            turns.served(VolumeId(2), epoch(1), owner(3), (8, 9)),
            Ok(())
        );
    }

    #[test]
    fn two_owners_of_one_epoch_are_found() {
        let mut turns = Turns::default();
        turns.served(RANGE, epoch(1), owner(1), (1, 2)).unwrap();
        for other in [owner(2), (NodeId(1), 2)] {
            let failure = turns.served(RANGE, epoch(1), other, (3, 4)).unwrap_err();
            assert_eq!(failure.promise, Promise::SingleWriter);
            assert_eq!(turns.is_of(RANGE, epoch(1), other), Err(failure));
        }
    }

    #[test]
    fn what_began_under_an_old_epoch_after_the_next_had_served_is_found() {
        let mut turns = Turns::default();
        turns.served(RANGE, epoch(1), owner(1), (1, 2)).unwrap();
        turns.served(RANGE, epoch(2), owner(2), (5, 6)).unwrap();
        let failure = turns.served(RANGE, epoch(1), owner(1), (7, 8)).unwrap_err();
        assert!(failure.what.contains("what began at 7"), "{failure}");
    }

    #[test]
    fn what_no_lease_protects_may_be_late_and_is_no_turn() {
        let mut turns = Turns::default();
        assert_eq!(turns.is_of(RANGE, epoch(1), owner(1)), Ok(()));
        turns.served(RANGE, epoch(2), owner(2), (5, 6)).unwrap();
        assert_eq!(turns.is_of(RANGE, epoch(1), owner(1)), Ok(()));
        assert_eq!(turns.is_of(RANGE, epoch(2), owner(2)), Ok(()));
        assert!(turns.ranges[&RANGE].len() == 1);
    }

    #[test]
    fn old_turns_are_forgotten() {
        let mut turns = Turns::default();
        for n in 1..=2 * TURNS_MAX as u32 {
            let at = u64::from(n);
            turns.served(RANGE, epoch(n), owner(n), (at, at)).unwrap();
        }
        assert_eq!(turns.ranges[&RANGE].len(), TURNS_MAX);
    }
}
