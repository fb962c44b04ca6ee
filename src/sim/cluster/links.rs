//! The ways between nodes: how long a message takes, and which way nothing passes.
//!
//! A latency is drawn for each message around what its link has, and a link's own is a function of the seed and of its two ends,
//! so that a node that is far away stays there. A [`Block`] is what an operator would call a broken network; it holds messages up and
//! loses none by itself. What a connection makes of it is told in `network.rs`.

use super::coverage::Fault;
use crate::base::{NodeId, Prng, Time, mix64};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Blocks at once.
pub const BLOCKS_MAX: usize = 64;

/// How the links of a run are. A rate is one in so many; zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// One way, in microseconds, of a link that is not slow; a message takes up to twice as long.
    pub latency_us: u64,
    /// One in so many links is slow, and takes so many times as long.
    pub slow_one_in: u64,
    pub slow_times: u64,
    /// One in so many messages takes up to so many microseconds longer.
    pub spike_one_in: u64,
    pub spike_us: u64,
    /// From one in so many messages on, its connection is silent that way.
    pub silent_one_in: u64,
    /// One in so many frames has a wrong crc.
    pub corrupt_one_in: u64,
    /// What is in flight when a connection is cut: one in so many is sent again on the next, and one in so many arrives
    /// late on the old one; both may be.
    pub again_one_in: u64,
    pub late_one_in: u64,
    /// How long a connection may be silent until it is given up, in microseconds.
    pub patience_us: u64,
    /// From a cut to the next attempt to connect, at most, in microseconds.
    pub reconnect_us: u64,
}

impl Links {
    /// Quick, and without faults.
    pub const CALM: Links = Links {
        latency_us: 50,
        slow_one_in: 0,
        slow_times: 1,
        spike_one_in: 0,
        spike_us: 0,
        silent_one_in: 0,
        corrupt_one_in: 0,
        again_one_in: 0,
        late_one_in: 0,
        patience_us: 200_000,
        reconnect_us: 2_000,
    };

    /// How long a message takes from one node to another, and what made it slow.
    pub fn draw(
        &self,
        seed: u64,
        (from, to): (NodeId, NodeId),
        prng: &mut Prng,
    ) -> (Duration, Option<Fault>) {
        let mut us = self.latency_us + prng.below(self.latency_us.max(1));
        let mut cause = None;
        let link = mix64(seed ^ mix64(u64::from(from.0) << 32 | u64::from(to.0)));
        if self.slow_one_in > 0 && link.is_multiple_of(self.slow_one_in) {
            us *= self.slow_times.max(1);
            cause = Some(Fault::SlowLink);
        }
        if chance(prng, self.spike_one_in) {
            us += prng.between(self.spike_us / 2, self.spike_us.max(1));
            cause = Some(Fault::Spike);
        }
        (Duration::from_micros(us.max(1)), cause)
    }
}

/// True once in `one_in` times, and never where that is zero.
pub fn chance(prng: &mut Prng, one_in: u64) -> bool {
    one_in > 0 && prng.one_in(one_in)
}

/// What holds messages up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Nothing passes from the one to the other; the other way is open.
    OneWay { from: NodeId, to: NodeId },
    /// Nothing passes between these nodes and all others.
    Partition { side: BTreeSet<NodeId> },
    /// Nothing passes between two nodes in every second period.
    Flap {
        between: (NodeId, NodeId),
        since: Time,
        period: Duration,
    },
}

impl Block {
    fn holds_up(&self, now: Time, from: NodeId, to: NodeId) -> Option<Fault> {
        match self {
            Block::OneWay { from: a, to: b } => ((*a, *b) == (from, to)).then_some(Fault::OneWay),
            Block::Partition { side } => {
                (side.contains(&from) != side.contains(&to)).then_some(Fault::Partition)
            }
            Block::Flap {
                between: (a, b),
                since,
                period,
            } => {
                let is_it = (*a, *b) == (from, to) || (*a, *b) == (to, from);
                let periods = now.since(*since).as_nanos() / period.as_nanos().max(1);
                (is_it && periods.is_multiple_of(2)).then_some(Fault::Flap)
            }
        }
    }
}

/// The name of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockId(u64);

/// All blocks of now.
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    blocks: BTreeMap<BlockId, Block>,
    last: u64,
}

impl Blocks {
    /// Puts a block up; `None` where there are [`BLOCKS_MAX`].
    pub fn put(&mut self, block: Block) -> Option<BlockId> {
        if self.blocks.len() >= BLOCKS_MAX {
            return None;
        }
        self.last += 1;
        let id = BlockId(self.last);
        self.blocks.insert(id, block);
        Some(id)
    }

    /// Takes a block away; whether it was there.
    pub fn lift(&mut self, id: BlockId) -> bool {
        self.blocks.remove(&id).is_some()
    }

    pub fn clear(&mut self) {
        self.blocks.clear();
    }

    /// What holds a message up that way, if anything does.
    pub fn between(&self, now: Time, from: NodeId, to: NodeId) -> Option<Fault> {
        let mut blocks = self.blocks.values();
        blocks.find_map(|block| block.holds_up(now, from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    #[test]
    fn a_block_holds_up_what_it_says_and_nothing_else() {
        let mut blocks = Blocks::default();
        let now = Time(0);
        let one_way = blocks.put(Block::OneWay { from: A, to: B }).unwrap();
        assert_eq!(blocks.between(now, A, B), Some(Fault::OneWay));
        assert_eq!(blocks.between(now, B, A), None);
        assert!(blocks.lift(one_way) && !blocks.lift(one_way));
        let side = BTreeSet::from([A, B]);
        blocks.put(Block::Partition { side }).unwrap();
        assert_eq!(blocks.between(now, A, B), None);
        assert_eq!(blocks.between(now, C, B), Some(Fault::Partition));
        blocks.clear();
        assert_eq!(blocks.between(now, C, B), None);
    }

    #[test]
    fn a_link_that_flaps_is_closed_in_every_second_period() {
        let mut blocks = Blocks::default();
        let period = Duration::from_nanos(10);
        let (between, since) = ((A, B), Time(100));
        blocks
            .put(Block::Flap {
                between,
                since,
                period,
            })
            .unwrap();
        let closed = |at| blocks.between(Time(at), B, A) == Some(Fault::Flap);
        assert!(closed(105) && !closed(115) && closed(125));
    }

    #[test]
    fn there_are_only_so_many_blocks() {
        let mut blocks = Blocks::default();
        let block = Block::OneWay { from: A, to: B };
        assert!((0..BLOCKS_MAX).all(|_| blocks.put(block.clone()).is_some()));
        assert_eq!(blocks.put(block), None);
    }

    #[test]
    fn some_links_are_always_slow_and_some_messages_are_by_chance() {
        let links = Links {
            slow_one_in: 4,
            slow_times: 50,
            spike_one_in: 10,
            spike_us: 100_000,
            ..Links::CALM
        };
        let mut prng = Prng::new(3);
        let (mut slow, mut spikes) = (0, 0);
        for to in 2..102 {
            let mut of_link = (0, 0);
            for _ in 0..20 {
                let (took, cause) = links.draw(9, (A, NodeId(to)), &mut prng);
                assert!(took > Duration::ZERO);
                of_link.0 += u32::from(cause == Some(Fault::SlowLink));
                of_link.1 += u32::from(cause == Some(Fault::Spike));
                assert_eq!(cause.is_some(), took > Duration::from_micros(100));
            }
            assert!(of_link.0 == 0 || of_link.0 + of_link.1 == 20);
            slow += u32::from(of_link.0 > 0);
            spikes += of_link.1;
        }
        assert!((10..45).contains(&slow), "{slow} of 100 links are slow");
        assert!((100..350).contains(&spikes), "{spikes} of 2000 are spikes");
    }
}
