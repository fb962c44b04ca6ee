//! *in-sync*: every in-sync replica of a PG has every acknowledged write.
//!
//! Writes of a block have an order, (epoch, sequence), in which replicas apply them. A replica may hold a newer write than the last
//! acknowledged one, and none that is older. What a recovery writes again (R7) keeps the place that its write had while its client waited:
//! were it given the newer number, a recovery that brings back what was overwritten would pass.
//!
//! A request that writes a part of a block writes all of it, with the rest as it was: a block that nobody else writes, as the request that put it together
//! is known. Zeroes are not told apart, whoever writes them.

use super::{Failure, Place, Promise};
use crate::base::{DiskId, Epoch, VolumeId};
use crate::sim::cluster::history::ZERO;
use crate::sim::cluster::shelf::Block;
use crate::sim::register::Tick;
use std::collections::BTreeMap;

/// What orders the writes of a block.
pub type Order = (Epoch, u64);

/// Writes of one block that are told apart; older ones that nobody may hold any more are dropped.
const WRITES_MAX: usize = 4096;

/// For whom a write is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// For the request that began then, which a client waits for.
    Waits(Tick),
    /// Nobody can say: zeroes.
    Unknown,
    /// It was answered, or is gone: only a recovery writes it again.
    Gone,
}

#[derive(Debug, Clone, Default)]
struct Writes {
    /// By their values.
    issued: BTreeMap<u64, Order>,
    /// Writes of zeroes, which have no value to be told apart by, and when they were issued.
    zeroed: BTreeMap<Order, Tick>,
    /// The orders of what clients wait for, by when they began to.
    waited: BTreeMap<Tick, Order>,
    acknowledged: Option<Order>,
}

/// The writes of all blocks.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    places: BTreeMap<Place, Writes>,
}

impl Orders {
    /// A coordinator has numbered a write of a block, which sets it to `block`.
    pub fn issued(&mut self, place: Place, block: Block, order: Order, client: Client, now: Tick) {
        let writes = self.places.entry(place).or_default();
        match block {
            Block::Data(value) => {
                let known = writes.issued.entry(value).or_insert(order);
                // A client that waits through a change of owners is served by the newest.
                if client != Client::Gone {
                    *known = order.max(*known);
                }
                if let Client::Waits(began) = client {
                    let waited = writes.waited.entry(began).or_insert(order);
                    *waited = order.max(*waited);
                }
            }
            Block::Zero | Block::Absent => {
                writes.zeroed.entry(order).or_insert(now);
            }
        }
        if writes.issued.len() + writes.zeroed.len() > WRITES_MAX {
            let acknowledged = writes.acknowledged;
            let is_newer = |order: &Order| Some(*order) >= acknowledged;
            writes.issued.retain(|_, order| is_newer(order));
            let newest = writes.zeroed.last_key_value().map(|(order, _)| *order);
            writes
                .zeroed
                .retain(|order, _| is_newer(order) || Some(*order) == newest);
        }
    }

    /// A write of a block, or of a part of it, that a client began at `began` was acknowledged.
    pub fn acknowledged(&mut self, place: Place, value: u64, began: Tick) {
        let Some(writes) = self.places.get_mut(&place) else {
            return;
        };
        let order = writes.waited.remove(&began).or_else(|| {
            // Which zeroes cannot be seen; they are none that are older than this.
            let since = writes.zeroed.iter().filter(|(_, issued)| **issued >= began);
            since
                .map(|(order, _)| *order)
                .next()
                .filter(|_| value == ZERO)
        });
        writes.acknowledged = writes.acknowledged.max(order);
    }

    /// The client that began to wait at `began` waits no longer, and was not told that anything is written.
    pub fn given_up(&mut self, place: Place, began: Tick) {
        if let Some(writes) = self.places.get_mut(&place) {
            writes.waited.remove(&began);
        }
    }

    /// The blocks of a volume that anything was written to, from this one on.
    pub fn places_of(&self, volume: VolumeId, from: u64) -> impl Iterator<Item = Place> {
        let all = (volume, from)..=(volume, u64::MAX);
        self.places.range(all).map(|(place, _)| *place)
    }

    /// Judges what an in-sync replica has of a block.
    pub fn judge(&self, place: Place, disk: DiskId, block: Block) -> Result<(), Failure> {
        let nothing = Writes::default();
        let writes = self.places.get(&place).unwrap_or(&nothing);
        let has = match block {
            Block::Data(value) => match writes.issued.get(&value) {
                Some(order) => Some(*order),
                None => {
                    let what = format!("{value} was never written, or long ago");
                    return Err(failure(place, disk, what));
                }
            },
            // By whom the zeroes are cannot be seen.
            Block::Zero | Block::Absent => writes.zeroed.last_key_value().map(|(order, _)| *order),
        };
        match has >= writes.acknowledged {
            true => Ok(()),
            false => {
                let what = format!(
                    "{block:?} of {has:?} is older than {:?}, which was acknowledged",
                    writes.acknowledged
                );
                Err(failure(place, disk, what))
            }
        }
    }
}

fn failure((volume, block): Place, disk: DiskId, what: String) -> Failure {
    let what = format!("disk {disk}, volume {volume}, block {block}: {what}");
    Failure::new(Promise::InSync, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::VolumeId;

    const AT: Place = (VolumeId(1), 5);
    const DISK: DiskId = DiskId(3);

    fn order(host: u32, sequence: u64) -> Order {
        let epoch = Epoch {
            host,
            ..Epoch::default()
        };
        (epoch, sequence)
    }

    fn orders() -> Orders {
        let mut orders = Orders::default();
        orders.issued(AT, Block::Data(1), order(1, 1), Client::Waits(1), 1);
        orders.issued(AT, Block::Data(2), order(1, 2), Client::Waits(2), 2);
        orders.issued(AT, Block::Data(3), order(2, 1), Client::Waits(3), 3);
        orders.acknowledged(AT, 2, 2);
        orders.acknowledged(AT, 1, 1);
        orders
    }

    #[test]
    fn a_replica_has_the_last_acknowledged_write_or_a_newer_one() {
        for good in [2, 3] {
            assert_eq!(orders().judge(AT, DISK, Block::Data(good)), Ok(()));
        }
        for bad in [Block::Data(1), Block::Data(9), Block::Zero, Block::Absent] {
            let failure = orders().judge(AT, DISK, bad).expect_err("it is behind");
            assert_eq!(failure.promise, Promise::InSync);
            assert!(
                failure.what.starts_with("disk 3, volume 1, block 5"),
                "{failure}"
            );
        }
    }

    #[test]
    fn a_recovery_that_brings_back_what_was_overwritten_is_found() {
        let mut orders = orders();
        orders.issued(AT, Block::Data(1), order(3, 1), Client::Gone, 4);
        assert!(orders.judge(AT, DISK, Block::Data(1)).is_err());
    }

    #[test]
    fn a_write_that_is_waited_for_through_a_change_of_owners_is_as_new_as_its_last_number() {
        let mut orders = orders();
        orders.issued(AT, Block::Data(4), order(1, 3), Client::Waits(4), 4);
        orders.acknowledged(AT, 3, 3);
        assert!(orders.judge(AT, DISK, Block::Data(4)).is_err());
        orders.issued(AT, Block::Data(4), order(3, 1), Client::Waits(4), 5);
        assert_eq!(orders.judge(AT, DISK, Block::Data(4)), Ok(()));
        // It is acknowledged as what it is now.
        orders.acknowledged(AT, 4, 4);
        assert!(orders.judge(AT, DISK, Block::Data(3)).is_err());
    }

    #[test]
    fn a_block_that_was_written_in_part_is_acknowledged_as_what_was_put_together() {
        let mixed = Block::Data(1 << 31);
        let mut orders = orders();
        orders.issued(AT, mixed, order(2, 2), Client::Waits(5), 5);
        assert_eq!(orders.judge(AT, DISK, Block::Data(3)), Ok(()));
        // The request's own value is none that the block has.
        orders.acknowledged(AT, 7, 5);
        assert!(orders.judge(AT, DISK, Block::Data(3)).is_err());
        assert_eq!(orders.judge(AT, DISK, mixed), Ok(()));
        // What is brought back stays as old as it was.
        orders.issued(AT, Block::Data(8), order(2, 3), Client::Waits(6), 6);
        orders.acknowledged(AT, 8, 6);
        orders.issued(AT, mixed, order(3, 1), Client::Gone, 7);
        assert!(orders.judge(AT, DISK, mixed).is_err());
        // With zeroes at its ends it is data as well.
        let zeroes = Block::Data((1 << 31) + 1);
        orders.issued(AT, zeroes, order(3, 2), Client::Waits(8), 8);
        orders.acknowledged(AT, ZERO, 8);
        assert!(orders.judge(AT, DISK, Block::Data(8)).is_err());
        assert_eq!(orders.judge(AT, DISK, zeroes), Ok(()));
    }

    #[test]
    fn a_write_that_nobody_waits_for_any_more_is_not_acknowledged() {
        let mut orders = orders();
        orders.issued(AT, Block::Data(4), order(2, 2), Client::Waits(4), 4);
        orders.given_up(AT, 4);
        orders.acknowledged(AT, 4, 4);
        assert_eq!(orders.judge(AT, DISK, Block::Data(3)), Ok(()));
    }

    #[test]
    fn zeroes_are_there_where_someone_wrote_them_since() {
        let mut orders = orders();
        orders.issued(AT, Block::Zero, order(2, 2), Client::Unknown, 5);
        assert_eq!(orders.judge(AT, DISK, Block::Absent), Ok(()));
        orders.acknowledged(AT, ZERO, 4);
        assert!(orders.judge(AT, DISK, Block::Data(3)).is_err());
        orders.issued(AT, Block::Data(4), order(2, 3), Client::Waits(6), 6);
        orders.acknowledged(AT, 4, 6);
        assert!(orders.judge(AT, DISK, Block::Zero).is_err());
    }

    #[test]
    fn what_was_never_written_is_empty_and_old_writes_are_forgotten() {
        let mut orders = Orders::default();
        assert_eq!(orders.judge(AT, DISK, Block::Absent), Ok(()));
        assert!(orders.judge(AT, DISK, Block::Data(1)).is_err());
        for n in 1..=2 * WRITES_MAX as u64 {
            orders.issued(AT, Block::Data(n), order(1, n), Client::Waits(n), n);
            orders.acknowledged(AT, n, n);
        }
        assert!(orders.places[&AT].issued.len() <= WRITES_MAX + 1, "bounded");
        assert_eq!(
            orders.judge(AT, DISK, Block::Data(2 * WRITES_MAX as u64)),
            Ok(())
        );
        assert!(orders.judge(AT, DISK, Block::Data(1)).is_err());
    }
}
