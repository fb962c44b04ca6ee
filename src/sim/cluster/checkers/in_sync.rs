//! *in-sync*: every in-sync replica of a PG has every acknowledged write.
//!
//! Writes of a block have an order, (epoch, sequence), in which replicas apply them. A replica may hold a newer write than the last
//! acknowledged one, and none that is older. What a recovery writes again (R7) keeps the place of its first write here: were it
//! given the newer number, a recovery that brings back what was overwritten would pass.

use super::{Failure, Place, Promise};
use crate::base::{DiskId, Epoch};
use crate::sim::cluster::shelf::Block;
use std::collections::BTreeMap;

/// What orders the writes of a block.
pub type Order = (Epoch, u64);

/// Writes of one block that are told apart; older ones that nobody may hold any more are dropped.
const WRITES_MAX: usize = 4096;

#[derive(Debug, Clone, Default)]
struct Writes {
    /// By their values.
    issued: BTreeMap<u64, Order>,
    /// The newest write of zeroes.
    zeroed: Option<Order>,
    acknowledged: Option<Order>,
}

/// The writes of all blocks.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    places: BTreeMap<Place, Writes>,
}

impl Orders {
    /// A coordinator has numbered a write of a block, which sets it to `block`.
    pub fn issued(&mut self, place: Place, block: Block, order: Order) {
        let writes = self.places.entry(place).or_default();
        match block {
            Block::Data(value) => {
                writes.issued.entry(value).or_insert(order);
            }
            Block::Zero | Block::Absent => writes.zeroed = writes.zeroed.max(Some(order)),
        }
        if writes.issued.len() > WRITES_MAX {
            let acknowledged = writes.acknowledged;
            writes
                .issued
                .retain(|_, order| Some(*order) >= acknowledged);
        }
    }

    /// A write of a block was acknowledged.
    pub fn acknowledged(&mut self, place: Place, order: Order) {
        let writes = self.places.entry(place).or_default();
        writes.acknowledged = writes.acknowledged.max(Some(order));
    }

    /// Judges what an in-sync replica has of a block.
    pub fn judge(&self, place: Place, disk: DiskId, block: Block) -> Result<(), Failure> {
        let Some(writes) = self.places.get(&place) else {
            return match block {
                Block::Data(value) => {
                    Err(failure(place, disk, format!("{value} was never written")))
                }
                Block::Zero | Block::Absent => Ok(()),
            };
        };
        let has = match block {
            Block::Data(value) => match writes.issued.get(&value) {
                Some(order) => Some(*order),
                None => {
                    return Err(failure(
                        place,
                        disk,
                        format!("{value} was never written, or long ago"),
                    ));
                }
            },
            // By whom the zeroes are cannot be seen.
            Block::Zero | Block::Absent => writes.zeroed,
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
        orders.issued(AT, Block::Data(1), order(1, 1));
        orders.issued(AT, Block::Data(2), order(1, 2));
        orders.issued(AT, Block::Data(3), order(2, 1));
        orders.acknowledged(AT, order(1, 2));
        orders.acknowledged(AT, order(1, 1));
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
        orders.issued(AT, Block::Data(1), order(3, 1));
        assert!(orders.judge(AT, DISK, Block::Data(1)).is_err());
    }

    #[test]
    fn zeroes_are_there_where_someone_wrote_them_since() {
        let mut orders = orders();
        orders.issued(AT, Block::Zero, order(2, 2));
        assert_eq!(orders.judge(AT, DISK, Block::Absent), Ok(()));
        orders.issued(AT, Block::Data(4), order(2, 3));
        orders.acknowledged(AT, order(2, 3));
        assert!(orders.judge(AT, DISK, Block::Zero).is_err());
    }

    #[test]
    fn what_was_never_written_is_empty_and_old_writes_are_forgotten() {
        let mut orders = Orders::default();
        assert_eq!(orders.judge(AT, DISK, Block::Absent), Ok(()));
        assert!(orders.judge(AT, DISK, Block::Data(1)).is_err());
        for n in 1..=2 * WRITES_MAX as u64 {
            orders.issued(AT, Block::Data(n), order(1, n));
            orders.acknowledged(AT, order(1, n));
        }
        assert!(orders.places[&AT].issued.len() <= WRITES_MAX + 1, "bounded");
        assert_eq!(
            orders.judge(AT, DISK, Block::Data(2 * WRITES_MAX as u64)),
            Ok(())
        );
        assert!(orders.judge(AT, DISK, Block::Data(1)).is_err());
    }
}
