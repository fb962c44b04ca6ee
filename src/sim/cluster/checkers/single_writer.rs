//! *single-writer*: no two nodes serve one range at a time.
//!
//! One epoch is one start of one node. And once an owner has served from a PG under an epoch, nothing that began later is
//! acknowledged or read there under a lower one: it has sealed every replica of the PG before (R5), so such a write cannot have been durable, and such a read
//! was neither covered by a lease (R17) nor confirmed (R18). What began earlier may still be answered; whether it should is for `linearizable`.
//!
//! It is by PG, because PGs are sealed as they are first asked for. An owner whose lease has ended, and that has heard of nothing, goes on in a PG that the next one has not
//! asked for yet: a write that all replicas have needs no lease (R18). To the next owner that PG is what it is when it seals it, with all that was acknowledged, so
//! what it finds in all of them together is what a crash of the earlier owner at the last of those moments would have left.

use super::{Failure, Promise};
use crate::base::{Epoch, NodeId, PgId, VolumeId};
use crate::sim::register::Tick;
use std::collections::BTreeMap;

/// Turns of one range that are remembered.
const TURNS_MAX: usize = 256;

/// One start of one node.
pub type Owner = (NodeId, u64);

#[derive(Debug, Clone, Copy)]
struct Turn {
    owner: Owner,
    /// When something was served there first.
    first: Tick,
    /// When what was served began, of that which began last.
    latest: Tick,
}

/// Who has served which range, under which epoch.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    owners: BTreeMap<VolumeId, BTreeMap<Epoch, Owner>>,
    places: BTreeMap<(VolumeId, PgId), BTreeMap<Epoch, Turn>>,
}

impl Turns {
    /// An owner acknowledges a write, or answers a read, that began at `began`.
    pub fn served(
        &mut self,
        (range, pg): (VolumeId, PgId),
        epoch: Epoch,
        owner: Owner,
        (began, now): (Tick, Tick),
    ) -> Result<(), Failure> {
        let owners = self.owners.entry(range).or_default();
        let known = *owners.entry(epoch).or_insert(owner);
        if known != owner {
            let what =
                format!("range {range}: {epoch:?} is of {known:?}, and {owner:?} serves under it");
            return Err(Failure::new(Promise::SingleWriter, what));
        }
        if owners.len() > TURNS_MAX {
            owners.pop_first();
        }
        let turns = self.places.entry((range, pg)).or_default();
        let turn = turns.entry(epoch).or_insert(Turn {
            owner,
            first: now,
            latest: began,
        });
        turn.latest = turn.latest.max(began);
        let first = turn.first;
        let mut lower = turns.range(..epoch);
        // The lower one may have been told first.
        if let Some((lower, turn)) = lower.find(|(_, turn)| turn.latest > first) {
            let what = format!(
                "range {range}, PG {pg}: {owner:?} serves under {epoch:?} since {first}, and {:?} under {lower:?} what began at {}",
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
                "range {range}, PG {pg}: {owner:?} serves under {epoch:?} what began at {began}, and {:?} under {higher:?} since {}",
                turn.owner, turn.first
            );
            return Err(Failure::new(Promise::SingleWriter, what));
        }
        if turns.len() > TURNS_MAX {
            turns.pop_first();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: (VolumeId, PgId) = (VolumeId(1), PgId(1));

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
            turns.served((VolumeId(2), PgId(1)), epoch(1), owner(3), (8, 9)),
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
    fn in_a_pg_that_the_next_owner_has_not_asked_for_the_one_before_goes_on() {
        let mut turns = Turns::default();
        turns.served(RANGE, epoch(2), owner(2), (5, 6)).unwrap();
        let other = (RANGE.0, PgId(2));
        assert_eq!(turns.served(other, epoch(1), owner(1), (7, 8)), Ok(()));
        assert!(turns.served(other, epoch(1), owner(2), (9, 10)).is_err());
    }

    #[test]
    fn old_turns_are_forgotten() {
        let mut turns = Turns::default();
        for n in 1..=2 * TURNS_MAX as u32 {
            let at = u64::from(n);
            turns.served(RANGE, epoch(n), owner(n), (at, at)).unwrap();
        }
        assert_eq!(turns.places[&RANGE].len(), TURNS_MAX);
        assert_eq!(turns.owners[&RANGE.0].len(), TURNS_MAX);
    }
}
