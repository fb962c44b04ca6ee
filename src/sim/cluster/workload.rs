//! What clients ask of the volumes of a cluster, and how volumes go from node to node.
//!
//! Requests go to blocks, in some seeds to parts of them, most to few hot spots, so that what several clients ask overlaps; half of the spots lie where
//! chunks or extents meet. A volume is attached at one node at a time by what is wanted; while it moves, some
//! requests still go to the node that had it, as those of a guest do that has not heard: they may be refused, and must not be wrong.
//!
//! It knows what was wanted, not what has come true: the world tells nothing back, so that the same seed asks the same whatever the
//! cluster does.

use super::contents::SECTORS;
use super::swarm::Knobs;
use crate::base::{BLOCKS_PER_CHUNK, CHUNKS_PER_EXTENT, Prng, RequestKind};
use crate::sim::workload::draw_by_weight;
use std::collections::BTreeSet;
use std::ops::Range;

const CHUNK: u64 = BLOCKS_PER_CHUNK as u64;
const EXTENT: u64 = CHUNK * CHUNKS_PER_EXTENT as u64;
/// One in so many requests goes to the node that had the volume before.
const STALE_ONE_IN: u64 = 8;

/// What is done next. Nodes, volumes and clients are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// A client asks the node at which the volume is attached, or was.
    Ask {
        client: u32,
        node: u32,
        volume: u32,
        kind: RequestKind,
        sectors: Range<u64>,
    },
    Attach {
        volume: u32,
        node: u32,
    },
    Detach {
        volume: u32,
        node: u32,
    },
    /// Attach at another node, without a detach before: what a live migration, or a guest restarted elsewhere, does.
    Move {
        volume: u32,
        from: u32,
        to: u32,
    },
    Snapshot {
        volume: u32,
    },
}

#[derive(Debug, Clone)]
struct Volume {
    blocks: u64,
    at: Option<u32>,
    before: Option<u32>,
    hot: Vec<u64>,
}

/// Draws what is asked.
#[derive(Debug, Clone)]
pub struct Workload {
    prng: Prng,
    nodes: u32,
    clients: u32,
    volumes: Vec<Volume>,
    /// Nodes that have left, or have not come yet.
    away: BTreeSet<u32>,
}

impl Workload {
    /// The workload of a run on the first `nodes` of its nodes.
    pub fn new(knobs: &Knobs, nodes: u32, mut prng: Prng) -> Workload {
        let mut volume = |blocks: &u64| {
            let mut spot = || {
                let at = prng.below(*blocks);
                match prng.below(4) {
                    0 => at / CHUNK * CHUNK,
                    1 => at / EXTENT * EXTENT,
                    _ => at,
                }
            };
            Volume {
                blocks: *blocks,
                at: None,
                before: None,
                hot: (0..knobs.hot_spots).map(|_| spot()).collect(),
            }
        };
        let volumes = knobs.volume_blocks.iter().map(&mut volume).collect();
        Workload {
            prng,
            nodes,
            clients: knobs.clients,
            volumes,
            away: BTreeSet::new(),
        }
    }

    /// A node leaves for good, or is not there yet: nothing is attached to it any more.
    pub fn leave(&mut self, node: u32) -> Vec<Act> {
        self.away.insert(node);
        self.flee_from(&BTreeSet::from([node]), 1)
    }

    /// A node has come.
    pub fn admit(&mut self, node: u32) {
        self.away.remove(&node);
    }

    /// The node that was drawn, or the next one that is there.
    fn there(&self, node: u32) -> u32 {
        let mut nodes = (node..node + self.nodes).map(|node| node % self.nodes);
        nodes.find(|node| !self.away.contains(node)).unwrap_or(node)
    }

    /// What is done next.
    pub fn draw(&mut self, knobs: &Knobs) -> Act {
        let volume = self.prng.below(self.volumes.len() as u64) as u32;
        let Some(node) = self.volumes[volume as usize].at else {
            return self.attach(volume);
        };
        if self.prng.one_in(knobs.requests.control_one_in)
            && let Some(act) = self.draw_control(knobs, volume, node)
        {
            return act;
        }
        let (kind, blocks) = self.draw_request(knobs, volume);
        let sectors = self.draw_ends(knobs, kind, blocks);
        let before = self.volumes[volume as usize].before;
        let node = match before {
            Some(before) if self.prng.one_in(STALE_ONE_IN) => before,
            _ => node,
        };
        let client = self.prng.below(self.clients.into()) as u32;
        Act::Ask {
            client,
            node,
            volume,
            kind,
            sectors,
        }
    }

    /// The sectors of a request, which may begin and end inside a block.
    fn draw_ends(&mut self, knobs: &Knobs, kind: RequestKind, blocks: Range<u64>) -> Range<u64> {
        let (mut first, mut end) = (blocks.start * SECTORS, blocks.end * SECTORS);
        let is_even = kind == RequestKind::Discard || knobs.requests.ragged_one_in == 0;
        if !is_even && self.prng.one_in(knobs.requests.ragged_one_in) {
            first += self.prng.below(SECTORS);
            end -= self.prng.below(SECTORS.min(end - first));
        }
        first..end
    }

    fn attach(&mut self, volume: u32) -> Act {
        let node = self.prng.below(self.nodes.into()) as u32;
        let node = self.there(node);
        self.volumes[volume as usize].at = Some(node);
        Act::Attach { volume, node }
    }

    /// Nodes seem lost: guests that had a volume there are started again elsewhere, or not yet.
    pub fn flee(&mut self, from: &BTreeSet<u32>) -> Vec<Act> {
        self.flee_from(from, 2)
    }

    /// One in so many volumes does.
    fn flee_from(&mut self, from: &BTreeSet<u32>, one_in: u64) -> Vec<Act> {
        let is_left = |to: &u32| !from.contains(to) && !self.away.contains(to);
        let others: Vec<u32> = (0..self.nodes).filter(is_left).collect();
        let mut acts = Vec::new();
        for (volume, it) in (0..).zip(&mut self.volumes) {
            if let Some(node) = it.at.filter(|at| from.contains(at))
                && !others.is_empty()
                && self.prng.one_in(one_in)
            {
                let to = others[self.prng.below(others.len() as u64) as usize];
                (it.at, it.before) = (Some(to), Some(node));
                acts.push(Act::Move {
                    volume,
                    from: node,
                    to,
                });
            }
        }
        acts
    }

    fn draw_control(&mut self, knobs: &Knobs, volume: u32, node: u32) -> Option<Act> {
        let requests = &knobs.requests;
        let weights = [requests.moves, requests.detach, requests.snapshot];
        match draw_by_weight(&mut self.prng, &weights)? {
            0 => {
                let step = 1 + self.prng.below(u64::from(self.nodes) - 1) as u32;
                let to = self.there((node + step) % self.nodes);
                if to == node {
                    return None;
                }
                let it = &mut self.volumes[volume as usize];
                (it.at, it.before) = (Some(to), Some(node));
                Some(Act::Move {
                    volume,
                    from: node,
                    to,
                })
            }
            1 => {
                let it = &mut self.volumes[volume as usize];
                (it.at, it.before) = (None, Some(node));
                Some(Act::Detach { volume, node })
            }
            _ => Some(Act::Snapshot { volume }),
        }
    }

    fn draw_request(&mut self, knobs: &Knobs, volume: u32) -> (RequestKind, Range<u64>) {
        let requests = &knobs.requests;
        let kinds = [
            (RequestKind::Read, requests.read),
            (RequestKind::Write, requests.write),
            (RequestKind::WriteZeroes, requests.zeroes),
            (RequestKind::Discard, requests.discard),
        ];
        let drawn = draw_by_weight(&mut self.prng, &kinds.map(|(_, weight)| weight));
        let kind = kinds[drawn.unwrap_or(0)].0;
        let it = &self.volumes[volume as usize];
        let prng = &mut self.prng;
        let spot = match prng.one_in(knobs.cold_one_in) {
            true => prng.below(it.blocks),
            false => it.hot[prng.below(it.hot.len() as u64) as usize],
        };
        let sizes = [
            requests.one,
            requests.some,
            requests.across,
            requests.chunks,
            requests.extents,
        ];
        let size = draw_by_weight(prng, &sizes);
        let more = 1 + prng.below(4);
        // Around the edge of a chunk or extent: what is asked begins before it and ends after it.
        let mut around = |edge: u64, most: u64| {
            let first = edge.saturating_sub(1 + prng.below(most));
            first..edge + 1 + prng.below(most)
        };
        let edge = |unit: u64| (spot / unit).max(1) * unit;
        let blocks = match size {
            Some(1) => around(spot, CHUNK / 2),
            Some(2) => around(edge(CHUNK), CHUNK),
            Some(3) => {
                let first = spot / CHUNK * CHUNK;
                first..first + CHUNK * more
            }
            Some(4) => around(edge(EXTENT), 3 * CHUNK),
            _ => spot..spot + 1,
        };
        (kind, inside(blocks, it.blocks, kind))
    }
}

/// The part of a request that lies in its volume, not empty; a discard of chunks keeps to whole ones where it has one.
fn inside(blocks: Range<u64>, of: u64, kind: RequestKind) -> Range<u64> {
    let first = blocks.start.min(of - 1);
    let end = blocks.end.min(of).max(first + 1);
    let (rounded, up) = (first.next_multiple_of(CHUNK), end / CHUNK * CHUNK);
    match kind {
        RequestKind::Discard if rounded < up => rounded..up,
        _ => first..end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts(seed: u64, count: usize) -> (Knobs, Vec<Act>) {
        let knobs = Knobs::draw(seed);
        let mut workload = Workload::new(&knobs, knobs.shape.nodes, Prng::new(seed));
        let acts = (0..count).map(|_| workload.draw(&knobs)).collect();
        (knobs, acts)
    }

    #[test]
    fn requests_stay_inside_their_volume_and_are_not_empty() {
        for seed in 0..200 {
            let (knobs, acts) = acts(seed, 300);
            for act in acts {
                if let Act::Ask {
                    volume,
                    sectors,
                    node,
                    client,
                    ..
                } = act
                {
                    assert!(sectors.start < sectors.end, "{sectors:?}");
                    assert!(sectors.end <= knobs.volume_blocks[volume as usize] * SECTORS);
                    assert!(node < knobs.shape.nodes && client < knobs.clients);
                }
            }
        }
    }

    #[test]
    fn a_volume_is_asked_only_where_it_is_wanted_or_was() {
        for seed in 0..100 {
            let (knobs, acts) = acts(seed, 500);
            let mut wanted: Vec<Option<u32>> = vec![None; knobs.volumes as usize];
            let mut before = wanted.clone();
            for act in acts {
                match act {
                    Act::Attach { volume, node } => {
                        assert_eq!(wanted[volume as usize].replace(node), None);
                    }
                    Act::Detach { volume, node } => {
                        assert_eq!(wanted[volume as usize].take(), Some(node));
                        before[volume as usize] = Some(node);
                    }
                    Act::Move { volume, from, to } => {
                        assert_ne!(from, to);
                        assert_eq!(wanted[volume as usize].replace(to), Some(from));
                        before[volume as usize] = Some(from);
                    }
                    Act::Ask { volume, node, .. } => {
                        let volume = volume as usize;
                        assert!(wanted[volume].is_some());
                        assert!([wanted[volume], before[volume]].contains(&Some(node)));
                    }
                    Act::Snapshot { volume } => assert!(wanted[volume as usize].is_some()),
                }
            }
        }
    }

    #[test]
    fn nothing_is_attached_to_a_node_that_is_away() {
        for seed in 0..50 {
            let knobs = Knobs::draw(seed);
            let mut workload = Workload::new(&knobs, knobs.shape.nodes, Prng::new(seed));
            assert!(workload.leave(1).is_empty());
            let mut wanted = Vec::new();
            for _ in 0..300 {
                match workload.draw(&knobs) {
                    Act::Attach { node, .. } => wanted.push(node),
                    Act::Move { to, from, .. } => {
                        assert_ne!(from, to);
                        wanted.push(to);
                    }
                    _ => {}
                }
            }
            assert!(!wanted.contains(&1));
            workload.admit(1);
            let at_2 = workload
                .volumes
                .iter()
                .filter(|it| it.at == Some(2))
                .count();
            assert_eq!(workload.leave(2).len(), at_2);
        }
    }

    #[test]
    fn all_kinds_of_requests_and_the_edges_of_chunks_and_extents_are_met() {
        let (mut kinds, mut met) = (BTreeSet::new(), BTreeSet::new());
        for seed in 0..60 {
            for act in acts(seed, 500).1 {
                match act {
                    Act::Ask { kind, sectors, .. } => {
                        kinds.insert(format!("{kind:?}"));
                        let (first, last) = (sectors.start / SECTORS, (sectors.end - 1) / SECTORS);
                        if first / CHUNK != last / CHUNK {
                            met.insert("chunks");
                        }
                        if first / EXTENT != last / EXTENT {
                            met.insert("extents");
                        }
                        if !sectors.start.is_multiple_of(SECTORS) {
                            met.insert("sectors");
                        }
                    }
                    Act::Move { .. } => drop(met.insert("move")),
                    Act::Detach { .. } => drop(met.insert("detach")),
                    Act::Snapshot { .. } => drop(met.insert("snapshot")),
                    Act::Attach { .. } => {}
                }
            }
        }
        assert_eq!(kinds.len(), 4, "{kinds:?}");
        assert_eq!(met.len(), 6, "{met:?}");
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        assert_eq!(acts(3, 400).1, acts(3, 400).1);
    }
}
