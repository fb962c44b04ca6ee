//! The faults of a run, planned before it begins.
//!
//! A plan is data: what strikes, whom, when, for how long. It is drawn from the knobs, and a shorter one is run as well as the whole,
//! which is what `shrink.rs` needs. Whether a stroke may strike when its time comes is for the atlas; one that may not is
//! left out, so plans need not know the state of the cluster.

use super::coverage::Fault;
use super::operators::Wish;
use super::swarm::{Knobs, Phase};
use crate::base::Prng;
use std::collections::BTreeSet;
use std::time::Duration;

/// Strokes of one plan.
pub const STROKES_MAX: usize = 2_000;

/// What strikes. Nodes are counted from 0, disks within their node; what ends again does after `lasts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    /// The connection of two nodes is cut.
    Disconnect {
        nodes: (u32, u32),
    },
    OneWay {
        nodes: (u32, u32),
        lasts: Duration,
    },
    /// The nodes whose bit is set are cut off from the others.
    Partition {
        side: u32,
        lasts: Duration,
    },
    Flap {
        nodes: (u32, u32),
        period: Duration,
        lasts: Duration,
    },
    Crash {
        node: u32,
        lasts: Duration,
    },
    Pause {
        node: u32,
        lasts: Duration,
    },
    PowerLoss {
        lasts: Duration,
    },
    ClockStop {
        node: u32,
        lasts: Duration,
    },
    /// Some chunk of a disk cannot be read; `pick` says which.
    DiskError {
        disk: (u32, u32),
        pick: u64,
    },
    Rot {
        disk: (u32, u32),
        pick: u64,
    },
    /// A write is lost when all has healed.
    LostWrite {
        disk: (u32, u32),
        pick: u64,
    },
    TornTable {
        disk: (u32, u32),
        pick: u64,
    },
    /// An empty disk is put in its place afterwards.
    DiskGone {
        disk: (u32, u32),
        lasts: Duration,
    },
    DiskOld {
        disk: (u32, u32),
    },
    /// The manager's leader loses its place.
    Depose,
    /// An operator wants something.
    Wish(Wish),
}

/// A stroke and when it is due, after the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub stroke: Stroke,
}

/// A run that can be made smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    /// Of the nodes that the knobs have, so many are there.
    pub nodes: u32,
    /// Clients stop after so many operations.
    pub operations: u64,
    /// By their time.
    pub strokes: Vec<Planned>,
}

impl Stroke {
    /// The class that it belongs to.
    pub fn fault(&self) -> Fault {
        match self {
            Stroke::Disconnect { .. } => Fault::Drop,
            Stroke::OneWay { .. } => Fault::OneWay,
            Stroke::Partition { .. } => Fault::Partition,
            Stroke::Flap { .. } => Fault::Flap,
            Stroke::Crash { .. } => Fault::Crash,
            Stroke::Pause { .. } => Fault::Pause,
            Stroke::PowerLoss { .. } => Fault::PowerLoss,
            Stroke::ClockStop { .. } => Fault::ClockStopped,
            Stroke::DiskError { .. } => Fault::DiskError,
            Stroke::Rot { .. } => Fault::Rot,
            Stroke::LostWrite { .. } => Fault::LostWrite,
            Stroke::TornTable { .. } => Fault::TornTable,
            Stroke::DiskGone { .. } => Fault::DiskGone,
            Stroke::DiskOld { .. } => Fault::DiskOld,
            Stroke::Depose => Fault::LeaderChange,
            Stroke::Wish(wish) => wish.fault(),
        }
    }

    /// When it ends again, where it does.
    pub fn lasts(&self) -> Option<Duration> {
        match *self {
            Stroke::OneWay { lasts, .. }
            | Stroke::Partition { lasts, .. }
            | Stroke::Flap { lasts, .. }
            | Stroke::Crash { lasts, .. }
            | Stroke::Pause { lasts, .. }
            | Stroke::PowerLoss { lasts }
            | Stroke::ClockStop { lasts, .. }
            | Stroke::DiskGone { lasts, .. } => Some(lasts),
            Stroke::Disconnect { .. }
            | Stroke::DiskError { .. }
            | Stroke::Rot { .. }
            | Stroke::LostWrite { .. }
            | Stroke::TornTable { .. }
            | Stroke::DiskOld { .. }
            | Stroke::Depose
            | Stroke::Wish(_) => None,
        }
    }

    /// The nodes, of so many, that it makes others believe to be lost.
    pub fn seem_lost(&self, nodes: u32) -> BTreeSet<u32> {
        match *self {
            Stroke::Partition { side, .. } => (0..nodes).filter(|at| side & 1 << at != 0).collect(),
            Stroke::Crash { node, .. }
            | Stroke::Pause { node, .. }
            | Stroke::ClockStop { node, .. } => BTreeSet::from([node]),
            _ => BTreeSet::new(),
        }
    }

    /// Whether it means something among so many nodes.
    pub fn fits(&self, nodes: u32) -> bool {
        match *self {
            Stroke::Disconnect { nodes: (a, b) }
            | Stroke::OneWay { nodes: (a, b), .. }
            | Stroke::Flap { nodes: (a, b), .. } => a.max(b) < nodes,
            Stroke::Partition { side, .. } => {
                let all = (1 << nodes) - 1;
                side & all != 0 && side & all != all
            }
            Stroke::Crash { node, .. }
            | Stroke::Pause { node, .. }
            | Stroke::ClockStop { node, .. } => node < nodes,
            Stroke::DiskError {
                disk: (node, _), ..
            }
            | Stroke::Rot {
                disk: (node, _), ..
            }
            | Stroke::LostWrite {
                disk: (node, _), ..
            }
            | Stroke::TornTable {
                disk: (node, _), ..
            }
            | Stroke::DiskGone {
                disk: (node, _), ..
            }
            | Stroke::DiskOld { disk: (node, _) } => node < nodes,
            Stroke::PowerLoss { .. } | Stroke::Depose => true,
            Stroke::Wish(wish) => wish.fits(nodes),
        }
    }
}

impl Plan {
    /// The whole plan of a seed.
    pub fn draw(seed: u64, knobs: &Knobs) -> Plan {
        let mut prng = Prng::new(seed ^ 0x706c_616e_0000);
        let mut strokes = Vec::new();
        for &(fault, every) in &knobs.every {
            let mut at = Duration::ZERO;
            loop {
                at += Duration::from_nanos(1 + prng.below(2 * every.as_nanos() as u64));
                if at >= knobs.length() || strokes.len() >= STROKES_MAX {
                    break;
                }
                if matches!(knobs.phase_at(at), Some(Phase::Storm(_) | Phase::Night(_)))
                    && let Some(stroke) = draw_stroke(fault, knobs, &mut prng)
                {
                    strokes.push(Planned { at, stroke });
                }
            }
        }
        strokes.sort_by_key(|planned| planned.at);
        Plan {
            seed,
            nodes: knobs.shape.nodes,
            operations: knobs.operations.max(2_500),
            strokes,
        }
    }

    /// The same with fewer nodes, and without the strokes that mean nothing then.
    pub fn with_nodes(&self, nodes: u32) -> Plan {
        let fits = |planned: &&Planned| planned.stroke.fits(nodes);
        Plan {
            nodes,
            strokes: self.strokes.iter().filter(fits).copied().collect(),
            ..*self
        }
    }
}

fn draw_stroke(fault: Fault, knobs: &Knobs, prng: &mut Prng) -> Option<Stroke> {
    let count = knobs.shape.nodes;
    let node = prng.below(count.into()) as u32;
    let other = (node + 1 + prng.below(u64::from(count) - 1) as u32) % count;
    let nodes = (node, other);
    let place = prng.below(knobs.shape.disks[node as usize].into()) as u32;
    let disk = (node, place);
    let lasts = Duration::from_nanos(1 + prng.below(knobs.lasts.as_nanos() as u64));
    let pick = prng.next_u64();
    Some(match fault {
        Fault::Drop => Stroke::Disconnect { nodes },
        Fault::OneWay => Stroke::OneWay { nodes, lasts },
        Fault::Partition => {
            let all = (1 << count) - 1;
            // Often one node alone.
            let side = match prng.one_in(2) {
                true => 1 << node,
                false => (1 + prng.below(all - 1)) as u32,
            };
            Stroke::Partition { side, lasts }
        }
        Fault::Flap => {
            let period = Duration::from_micros(prng.between(500, 60_000));
            Stroke::Flap {
                nodes,
                period,
                lasts,
            }
        }
        Fault::Crash => Stroke::Crash { node, lasts },
        Fault::Pause => Stroke::Pause { node, lasts },
        Fault::PowerLoss => Stroke::PowerLoss { lasts },
        Fault::ClockStopped => Stroke::ClockStop { node, lasts },
        Fault::DiskError => Stroke::DiskError { disk, pick },
        Fault::Rot => Stroke::Rot { disk, pick },
        Fault::LostWrite => Stroke::LostWrite { disk, pick },
        Fault::TornTable => Stroke::TornTable { disk, pick },
        Fault::DiskGone => Stroke::DiskGone { disk, lasts },
        Fault::DiskOld => Stroke::DiskOld { disk },
        Fault::LeaderChange => Stroke::Depose,
        // The others come by the rates of links, disks and the log.
        _ => Stroke::Wish(Wish::draw(fault, knobs, (disk, lasts), prng)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_of_its_seed_and_its_knobs() {
        let mut classes = BTreeSet::new();
        for seed in 0..200 {
            let knobs = Knobs::draw(seed);
            let plan = Plan::draw(seed, &knobs);
            assert_eq!(plan, Plan::draw(seed, &knobs));
            assert!(plan.strokes.is_sorted_by_key(|planned| planned.at));
            for planned in &plan.strokes {
                let fault = planned.stroke.fault();
                assert!(knobs.every(fault).is_some() && planned.stroke.fits(plan.nodes));
                let phase = knobs.phase_at(planned.at);
                assert!(matches!(phase, Some(Phase::Storm(_) | Phase::Night(_))));
                classes.insert(fault);
            }
        }
        assert_eq!(classes.len(), 23, "{classes:?}");
    }

    #[test]
    fn a_plan_with_fewer_nodes_has_only_what_strikes_these() {
        let plan = (0..).map(|seed| Plan::draw(seed, &Knobs::draw(seed)));
        let plan = plan
            .into_iter()
            .find(|plan| plan.nodes == 12 && plan.strokes.len() > 50);
        let plan = plan.unwrap();
        let fewer = plan.with_nodes(3);
        assert!(fewer.strokes.len() < plan.strokes.len());
        assert!(fewer.strokes.iter().all(|planned| planned.stroke.fits(3)));
    }
}
