//! Who asked, as one word that goes with a frame through a node and comes back with its answer: the machine of a shard, or a link of one.
//!
//! It names a *link*, not a peer: an answer that is ready when its link is down is dropped. Who asked asks again, on the next link.

use super::links::LinkId;
use crate::protocol::replication::replica::Asker;
use crate::shard::ShardNo;

/// Bits of the place of a link among those of its shard, and of its number, whose upper bits are left out: 32,768 links of one shard have to come and go while an answer
/// is on its way for it to go to another one, which drops it.
const PLACE_BITS: u32 = 10;
const LIFE_BITS: u32 = 15;
const IS_LINK: u32 = 1 << (PLACE_BITS + LIFE_BITS);
const SHARD_AT: u32 = PLACE_BITS + LIFE_BITS + 1;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The machine of a shard of this node.
    Machine(ShardNo),
    Link(ShardNo, LinkName),
}

/// A link as far as an asker names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkName {
    pub place: u32,
    life: u32,
}

impl LinkName {
    pub fn of(link: LinkId) -> LinkName {
        let (place, life) = link.parts();
        debug_assert!(place < 1 << PLACE_BITS, "a shard has so many links");
        let life = life & ((1 << LIFE_BITS) - 1);
        LinkName { place, life }
    }
}

impl Who {
    pub fn of(asker: Asker) -> Who {
        let shard = ShardNo((asker.0 >> SHARD_AT) as u16);
        match asker.0 & IS_LINK {
            0 => Who::Machine(shard),
            _ => {
                let place = asker.0 >> LIFE_BITS & ((1 << PLACE_BITS) - 1);
                let life = asker.0 & ((1 << LIFE_BITS) - 1);
                Who::Link(shard, LinkName { place, life })
            }
        }
    }

    pub fn link(shard: ShardNo, link: LinkId) -> Who {
        Who::Link(shard, LinkName::of(link))
    }

    pub fn asker(self) -> Asker {
        let shard = |shard: ShardNo| u32::from(shard.0) << SHARD_AT;
        Asker(match self {
            Who::Machine(of) => shard(of),
            Who::Link(of, LinkName { place, life }) => {
                shard(of) | IS_LINK | place << LIFE_BITS | life
            }
        })
    }

    /// The shard that brings it an answer.
    pub fn shard(self) -> ShardNo {
        match self {
            Who::Machine(shard) | Who::Link(shard, _) => shard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_is_known_again() {
        for shard in [0, 1, 63].map(ShardNo) {
            for (place, life) in [(0, 0), (1023, 0x7fff), (5, 1), (1023, 0)] {
                let link = Who::Link(shard, LinkName { place, life });
                assert_eq!(Who::of(link.asker()), link);
                assert_ne!(link.asker(), Who::Machine(shard).asker());
            }
            let machine = Who::Machine(shard);
            assert_eq!(
                (Who::of(machine.asker()), machine.shard()),
                (machine, shard)
            );
        }
    }
}
