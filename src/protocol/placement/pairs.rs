//! How often two nodes, and two disks, hold replicas of the same PG: what decides who helps whom in a rebuild,
//! and where the second copies of a node's `local` volumes lie.
//!
//! Of two nodes with fair shares `a` and `b` about `a b` times a constant PGs in common are fair, so a pair's
//! count counts divided by both shares. Disks are counted too where there are few enough of them to have pairs
//! worth speaking of: ten thousand disks have fifty million pairs, and nearly none has a PG in common.
//!
//! Invariant: the table is symmetric, and each entry the number of PGs that have a replica on both. It does not
//! know domains.

use super::layout::Layout;
use super::replicas::Replicas;
use super::share::Share;

/// Up to so many disks, their pairs are counted one by one: 4 MiB.
const DISKS_COUNTED_MAX: usize = 1024;

/// Pairs of nodes, and of disks.
#[derive(Debug)]
pub(super) struct Pairs {
    nodes: Table,
    disks: Option<Table>,
    node_of: Vec<u32>,
}

impl Pairs {
    pub fn new(layout: &Layout, shares: &[Share]) -> Pairs {
        let mut of_node = vec![0.0; layout.nodes.len()];
        let of_disk = shares.iter().map(|share| share.value());
        let of_disk = of_disk.collect::<Vec<f64>>();
        for (at, share) in of_disk.iter().enumerate() {
            of_node[layout.node_of[at] as usize] += share;
        }
        let counts_disks = of_disk.len() <= DISKS_COUNTED_MAX;
        Pairs {
            nodes: Table::new(&of_node),
            disks: counts_disks.then(|| Table::new(&of_disk)),
            node_of: layout.node_of.clone(),
        }
    }

    /// Counts a replica on `disk` of a PG that has `others`.
    pub fn add(&mut self, disk: u32, others: &Replicas) {
        self.change(disk, others, |count| *count += 1);
    }

    /// Takes back what [`Pairs::add`] counted.
    pub fn remove(&mut self, disk: u32, others: &Replicas) {
        self.change(disk, others, |count| *count -= 1);
    }

    fn change(&mut self, disk: u32, others: &Replicas, change: impl Fn(&mut u32)) {
        let node = self.node_of[disk as usize];
        for other in others.iter().filter(|&other| other != disk) {
            self.nodes
                .change(node, self.node_of[other as usize], &change);
            if let Some(disks) = &mut self.disks {
                disks.change(disk, other, &change);
            }
        }
    }

    /// How crowded it would be made by a replica on `disk` of a PG that has `others`: the pairs that there are
    /// already, in fair pairs (up to a factor that is the same for all).
    pub fn crowd(&self, disk: u32, others: &Replicas) -> f64 {
        self.sum(disk, others, 0)
    }

    /// What is given back when that replica is taken away: the same, without its own pairs.
    pub fn relief(&self, disk: u32, others: &Replicas) -> f64 {
        self.sum(disk, others, 1)
    }

    fn sum(&self, disk: u32, others: &Replicas, own: u32) -> f64 {
        let node = self.node_of[disk as usize];
        let of = |other: u32| {
            let nodes = self.nodes.crowd(node, self.node_of[other as usize], own);
            let disks = self.disks.as_ref();
            nodes + disks.map_or(0.0, |disks| disks.crowd(disk, other, own))
        };
        others.iter().filter(|&other| other != disk).map(of).sum()
    }
}

/// Counts of pairs of numbers.
#[derive(Debug)]
struct Table {
    side: usize,
    counts: Vec<u32>,
    /// One by the share of each, in units of the mean share; 0 where it has none.
    inverse: Vec<f64>,
}

impl Table {
    fn new(shares: &[f64]) -> Table {
        let side = shares.len();
        let all = shares.iter().sum::<f64>();
        // A pair of mean shares is expected `all / side^2` times for each other replica of a PG: counted in
        // that, tables of nodes and of disks can be added up.
        let scale = side as f64 / all.sqrt();
        let mean = all / side as f64;
        let inverse = shares.iter().map(|&share| match share > 0.0 {
            true => scale * mean / share,
            false => 0.0,
        });
        Table {
            side,
            counts: vec![0; side * side],
            inverse: inverse.collect(),
        }
    }

    fn change(&mut self, a: u32, b: u32, change: impl Fn(&mut u32)) {
        let (a, b) = (a as usize, b as usize);
        change(&mut self.counts[a * self.side + b]);
        if a != b {
            change(&mut self.counts[b * self.side + a]);
        }
    }

    fn crowd(&self, a: u32, b: u32, own: u32) -> f64 {
        let (a, b) = (a as usize, b as usize);
        let count = f64::from(self.counts[a * self.side + b] - own);
        count * self.inverse[a] * self.inverse[b]
    }
}
