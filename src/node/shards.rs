//! What the shards of one node say, joined: the node's machines know one fabric.
//!
//! ```text
//!   Node ──Order──► ordered(): its number ──────────────► every shard
//!   Node ◄─────────  said()  ◄── Drained, upto 12 ─────── shard 0
//!        once all have      ◄── Drained, upto 12 ─────── shard 1
//! ```
//!
//! Every order goes to every shard, and has a number. A shard says with each answer which order was the last that it had carried out (`upto`). It answers
//! the order that asked only where that is at or above its number: what it said before is about an earlier pause, an earlier cut, an earlier turn.
//!
//! | asked by | answered by | asked no more after |
//! |---|---|---|
//! | `Drain`, `Pause` | `Drained` | `Resume`, `Open`, `StartOver`, `Suspend`, `Close` |
//! | `Switch`; `Open` at another layer than that where the shards are | `Cut` | `StartOver`, `Suspend`, `Close` |
//! | `Settle` | `Settled` | `Open`, `StartOver`, `Suspend`, `Close` |
//!
//! A turn that begins anew with the layer where the shards are leaves a cut that is asked for as it is: a shard that has said it does not say it again.
//!
//! Links are joined too. Where one of several shards has lost its link, what it asked of that peer gets no answer, so the peer is told to be gone; and to be
//! there again at once where others still reach it, so that everything is asked anew.
//!
//! Invariants: *all-have-said* (an answer is told once, when every shard has given it to this order or a later one); *bounded* (three questions and a
//! layer a volume that is open, a link a shard and peer). With one shard it tells what that says, when it says it. It does not know what an order does.

use crate::base::{LayerId, NodeId, VolumeId};
use crate::shard::fabric::Order;
use crate::shard::{Reach, ShardNo};
use crate::wire::Version;
use std::collections::{BTreeMap, BTreeSet};

/// What all shards answer to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Said {
    Drained { volume: VolumeId },
    Cut { volume: VolumeId },
    Settled { volume: VolumeId },
}

/// An order that wants an answer, and who has not given it.
#[derive(Debug)]
struct Asked {
    number: u64,
    missing: BTreeSet<ShardNo>,
}

/// The shards of one start of a node: what they are ordered, and what they say, joined.
#[derive(Debug)]
pub struct Shards {
    count: u16,
    /// Of the last order.
    number: u64,
    asked: BTreeMap<Said, Asked>,
    /// The newest layer of each volume that was opened or offered.
    layers: BTreeMap<VolumeId, LayerId>,
    links: BTreeMap<NodeId, BTreeMap<ShardNo, Version>>,
}

impl Shards {
    /// `count`: how many there are, at least one.
    pub fn new(count: u16) -> Shards {
        assert!(count > 0, "a node has a shard");
        Shards {
            count,
            number: 0,
            asked: BTreeMap::new(),
            layers: BTreeMap::new(),
            links: BTreeMap::new(),
        }
    }

    /// An order goes to every shard, after those before it; under this number.
    pub fn ordered(&mut self, order: &Order) -> u64 {
        self.number += 1;
        match order {
            Order::Drain { volume } | Order::Pause { volume } => {
                self.ask(Said::Drained { volume: *volume });
            }
            Order::Switch { volume, layer } => {
                self.layers.insert(*volume, *layer);
                self.ask(Said::Cut { volume: *volume });
            }
            Order::Settle { volume, .. } => self.ask(Said::Settled { volume: *volume }),
            Order::Resume { volume } => {
                self.asked.remove(&Said::Drained { volume: *volume });
            }
            Order::Open { open, .. } => {
                let volume = open.id;
                self.asked.remove(&Said::Drained { volume });
                self.asked.remove(&Said::Settled { volume });
                let before = self.layers.insert(volume, open.layer);
                if before.is_some_and(|before| before != open.layer) {
                    self.ask(Said::Cut { volume });
                }
            }
            Order::Offer(open) => {
                // Where it is open, it stays as it is.
                self.layers.entry(open.id).or_insert(open.layer);
            }
            Order::StartOver { volume } | Order::Suspend { volume } => self.forget(*volume),
            Order::Close { volume } => {
                self.forget(*volume);
                self.layers.remove(volume);
            }
            _ => {}
        }
        self.number
    }

    /// A shard says something, after it has carried out the orders up to this one. What it gives back is what the node's machines are told.
    pub fn said(&mut self, shard: ShardNo, upto: u64, said: Said) -> Option<Said> {
        assert!(shard.0 < self.count, "a shard of this node speaks");
        assert!(
            upto <= self.number,
            "an order is given before it is carried out"
        );
        let asked = self.asked.get_mut(&said)?;
        if upto < asked.number {
            return None;
        }
        asked.missing.remove(&shard);
        if !asked.missing.is_empty() {
            return None;
        }
        self.asked.remove(&said);
        Some(said)
    }

    /// A shard has a link to a node, or has none any more. What it gives back is what the node's machines are told, in this order.
    pub fn linked(
        &mut self,
        shard: ShardNo,
        peer: NodeId,
        link: Reach,
    ) -> impl Iterator<Item = Reach> + use<> {
        assert!(shard.0 < self.count, "a shard of this node speaks");
        let links = self.links.entry(peer).or_default();
        let mut again = None;
        match link {
            Reach::There(version) => {
                links.insert(shard, version);
            }
            Reach::Gone => {
                links.remove(&shard);
                // The lowest version: what one of them cannot say, the peer cannot say.
                again = links.values().min().copied().map(Reach::There);
            }
        }
        if links.is_empty() {
            self.links.remove(&peer);
        }
        [Some(link), again].into_iter().flatten()
    }

    /// The number of the last order.
    pub fn last(&self) -> u64 {
        self.number
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        for asked in self.asked.values() {
            assert!(!asked.missing.is_empty(), "all-have-said");
            assert!(asked.missing.len() <= usize::from(self.count), "bounded");
        }
    }

    fn ask(&mut self, said: Said) {
        let asked = Asked {
            number: self.number,
            missing: (0..self.count).map(ShardNo).collect(),
        };
        self.asked.insert(said, asked);
    }

    fn forget(&mut self, volume: VolumeId) {
        for said in [
            Said::Drained { volume },
            Said::Cut { volume },
            Said::Settled { volume },
        ] {
            self.asked.remove(&said);
        }
    }
}

#[cfg(test)]
mod tests;
