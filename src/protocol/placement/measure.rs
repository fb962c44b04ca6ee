//! Measuring a map: how far disks are from their fair shares, how often the domain rule is broken, who is whose
//! partner, and which nodes are short of PGs for `local` volumes. It looks at values only, so it judges any map,
//! the solver's too.
//!
//! Of two nodes `a` and `b` in different domains, `n_a (copies - 1) s_b / (S - s_D)` PGs in common are expected,
//! when `a` has `n_a` replicas, `s_b` is the fair share of `b`, `S` the sum of all shares and `s_D` that of the
//! domain of `a`: the other replicas of its PGs, dealt out fairly. Seen from `b` it may be more; the larger one
//! counts.
//!
//! It does not know how the map came about.

use super::cluster::{Cluster, Level, Refusal};
use super::count::{LOCAL_PGS_MIN, REPLICAS_MIN};
use super::layout::Layout;
use super::replicas::Replicas;
use super::share::fair_shares;
use crate::base::NodeId;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// PGs that have not as many replicas as the pool has copies, in as many domains, on disks that take
    /// replicas.
    pub broken: u32,
    pub balance: Balance,
    pub partners: Partners,
    pub local: Local,
}

/// How far disks are from their fair shares under the cap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Balance {
    /// The most that a disk is off, in replicas.
    pub replicas: f64,
    /// The same in percent of its share, over disks whose share is at least [`REPLICAS_MIN`]; of a smaller one,
    /// one replica is more than 5 %.
    pub percent: f64,
    /// The most that a node is off, in percent of its share, where that is at least [`REPLICAS_MIN`].
    pub percent_of_node: f64,
}

/// Nodes that hold replicas of the same PGs: they rebuild for one another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Partners {
    /// The most PGs that two nodes have in common.
    pub most: u32,
    /// The most that a pair has above what is expected of it, in PGs.
    pub above: f64,
    /// Of the pairs, the part that `above` is reached by: what is expected of it.
    pub expected: f64,
    /// The fewest partners of a node that holds replicas.
    pub fewest: u32,
    /// Of a lost node's PGs, the largest part that one other node has in common with it, in units of what is
    /// expected (1 is even). Over pairs of which at least [`REPLICAS_MIN`] PGs are expected; 0 if there is none.
    pub crowd: f64,
}

/// PGs that have a replica on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// The fewest that a node has which takes replicas.
    pub fewest: u32,
    /// The nodes that have fewer than [`LOCAL_PGS_MIN`].
    pub short: Vec<NodeId>,
}

/// Measures a map.
///
/// # Errors
/// As [`solve`](super::solve()).
pub fn measure(cluster: &Cluster) -> Result<Measure, Refusal> {
    let layout = Layout::new(cluster)?;
    let shares = fair_shares(&layout, layout.pgs.len());
    let shares = shares.iter().map(|share| share.value());
    let shares = shares.collect::<Vec<f64>>();
    let mut load = vec![0u32; layout.disks.len()];
    for disk in layout.present.iter().flat_map(|of| of.as_slice()) {
        load[*disk as usize] += 1;
    }
    let broken = layout.present.iter().filter(|of| is_broken(&layout, of));
    let common = common_pgs(&layout);
    Ok(Measure {
        broken: broken.count() as u32,
        balance: balance(&layout, &shares, &load),
        partners: partners(&layout, &shares, &load, &common),
        local: local(&layout, &common),
    })
}

fn is_broken(layout: &Layout, replicas: &Replicas) -> bool {
    let breaks = |disk: u32| {
        !layout.disks[disk as usize].takes() || layout.has_domain(&replicas.without(disk), disk)
    };
    replicas.len() != layout.copies() || replicas.iter().any(breaks)
}

fn balance(layout: &Layout, shares: &[f64], load: &[u32]) -> Balance {
    let load = load.iter().map(|&load| f64::from(load));
    let load = load.collect::<Vec<f64>>();
    let off = shares
        .iter()
        .zip(&load)
        .map(|(share, load)| (load - share).abs());
    Balance {
        replicas: off.fold(0.0, f64::max),
        percent: percent_off(shares, &load),
        percent_of_node: percent_off(&of_nodes(layout, shares), &of_nodes(layout, &load)),
    }
}

fn percent_off(shares: &[f64], load: &[f64]) -> f64 {
    let each = shares.iter().zip(load);
    each.filter(|&(&share, _)| share >= f64::from(REPLICAS_MIN))
        .map(|(share, load)| 100.0 * (load - share).abs() / share)
        .fold(0.0, f64::max)
}

fn of_nodes(layout: &Layout, of_disks: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; layout.nodes.len()];
    for (at, value) in of_disks.iter().enumerate() {
        sums[layout.node_of[at] as usize] += value;
    }
    sums
}

/// PGs in common of each two nodes, row by row; on the diagonal the PGs of one node.
fn common_pgs(layout: &Layout) -> Vec<u32> {
    let side = layout.nodes.len();
    let mut common = vec![0u32; side * side];
    for replicas in &layout.present {
        let nodes = replicas.iter().map(|disk| layout.node_of[disk as usize]);
        let mut nodes = nodes.collect::<Vec<u32>>();
        nodes.sort_unstable();
        nodes.dedup();
        for a in &nodes {
            for b in &nodes {
                common[*a as usize * side + *b as usize] += 1;
            }
        }
    }
    common
}

fn partners(layout: &Layout, shares: &[f64], load: &[u32], common: &[u32]) -> Partners {
    let side = layout.nodes.len();
    let load = load.iter().map(|&load| f64::from(load));
    let loads = of_nodes(layout, &load.collect::<Vec<f64>>());
    let fair = of_nodes(layout, shares);
    let domain_share = domain_shares_of_nodes(layout, shares, &fair);
    let all = shares.iter().sum::<f64>();
    let others = (layout.copies() - 1) as f64;
    let seen_from = |a: usize, b: usize| {
        let rest = all - domain_share[a];
        if rest > 0.5 {
            loads[a] * others * fair[b] / rest
        } else {
            0.0
        }
    };
    let mut found = Partners {
        most: 0,
        above: 0.0,
        expected: 0.0,
        fewest: u32::MAX,
        crowd: 0.0,
    };
    for a in 0..side {
        let row = &common[a * side..(a + 1) * side];
        let mut count = 0;
        for b in (0..side).filter(|&b| b != a && row[b] > 0) {
            let expected = seen_from(a, b).max(seen_from(b, a));
            let above = f64::from(row[b]) - expected;
            count += 1;
            found.most = found.most.max(row[b]);
            if above > found.above {
                (found.above, found.expected) = (above, expected);
            }
            if expected >= f64::from(REPLICAS_MIN) {
                found.crowd = found.crowd.max(f64::from(row[b]) / expected);
            }
        }
        if row[a] > 0 {
            found.fewest = found.fewest.min(count);
        }
    }
    found.fewest = if found.fewest == u32::MAX {
        0
    } else {
        found.fewest
    };
    found
}

/// Of each node, the share of the domains that its disks are in: what a PG of it cannot have a second replica on.
fn domain_shares_of_nodes(layout: &Layout, shares: &[f64], of_nodes: &[f64]) -> Vec<f64> {
    match layout.pool.level {
        // Of its disks only one is taken.
        Level::Disk => vec![0.0; of_nodes.len()],
        Level::Node => of_nodes.to_vec(),
        Level::Rack => {
            let mut of_racks = vec![0.0; layout.domains.len()];
            for (at, share) in shares.iter().enumerate() {
                of_racks[layout.domain_of[at] as usize] += share;
            }
            let mut all = vec![0.0; of_nodes.len()];
            for (at, &node) in layout.node_of.iter().enumerate() {
                all[node as usize] = of_racks[layout.domain_of[at] as usize];
            }
            all
        }
    }
}

fn local(layout: &Layout, common: &[u32]) -> Local {
    let side = layout.nodes.len();
    let mut takes = vec![false; side];
    for (at, disk) in layout.disks.iter().enumerate() {
        takes[layout.node_of[at] as usize] |= disk.takes();
    }
    let pgs_of = |node: usize| common[node * side + node];
    let serving = (0..side).filter(|&node| takes[node]);
    let serving = serving.collect::<Vec<usize>>();
    let short = serving.iter().filter(|&&node| pgs_of(node) < LOCAL_PGS_MIN);
    Local {
        fewest: serving.iter().map(|&node| pgs_of(node)).min().unwrap_or(0),
        short: short.map(|&node| layout.nodes[node]).collect(),
    }
}
