//! How long the placement solver takes, and how good what it finds is:
//! `cargo bench --no-default-features --features sim --bench placement`.

use sarsen::base::{DiskId, NodeId, PgId, Prng};
use sarsen::protocol::placement::{
    Cluster, Disk, DiskState, Level, PgReplicas, Pool, RackId, apply, measure, solve,
};
use std::fs::read_to_string;

const NODES: u32 = 1_000;
const DISKS_A_NODE: u32 = 10;
const PGS: u32 = 100_000;

fn main() {
    println!("{NODES} nodes x {DISKS_A_NODE} disks, 100,000 PGs of 3 copies");
    for (level, racks, differ) in [
        (Level::Node, 40, false),
        (Level::Node, 40, true),
        (Level::Rack, 40, true),
        (Level::Rack, 4, true),
        (Level::Disk, 40, true),
    ] {
        let weights = match differ {
            true => "weights 2 to 4",
            false => "equal weights",
        };
        println!("\nlevel {level}, {racks} racks, {weights}");
        run(level, racks, differ);
    }
    few_disks();
}

/// Long lists and few domains, where nearly every move meets the domain rule.
fn few_disks() {
    println!("\n4 nodes x 2 disks, as many PGs, level node");
    let mut cluster = cluster(Level::Node, 40, true);
    cluster.disks.truncate(8);
    for (at, disk) in cluster.disks.iter_mut().enumerate() {
        disk.node = NodeId(at as u32 / 2);
    }
    step("full solve", &mut cluster);
    let full = cluster.clone();
    set(&mut cluster, DiskState::Draining, |disk| disk.id.0 == 3);
    step("drain of a disk", &mut cluster);
    set(&mut cluster, DiskState::Gone, |disk| disk.node.0 == 1);
    step("loss of its node", &mut cluster);
    cluster = full;
    cluster.disks[0].weight *= 3;
    step("a disk 3x as large", &mut cluster);
}

fn run(level: Level, racks: u32, differ: bool) {
    let mut cluster = cluster(level, racks, differ);
    step("full solve", &mut cluster);
    let full = cluster.clone();

    set(&mut cluster, DiskState::Gone, |disk| disk.node.0 == 7);
    step("loss of a node", &mut cluster);

    cluster = full.clone();
    add_node(&mut cluster);
    step("addition of a node", &mut cluster);

    cluster = full.clone();
    set(&mut cluster, DiskState::Gone, |disk| disk.rack.0 == 3);
    step("loss of a rack", &mut cluster);

    cluster = full;
    for disk in cluster.disks.iter_mut().filter(|disk| disk.rack.0 == 2) {
        disk.weight = disk.weight * 3 / 2;
    }
    step("a rack 1.5x as large", &mut cluster);
}

fn cluster(level: Level, racks: u32, differ: bool) -> Cluster {
    let mut prng = Prng::new(1);
    let disk = |id: u32| Disk {
        id: DiskId(id),
        node: NodeId(id / DISKS_A_NODE),
        rack: RackId(id / DISKS_A_NODE % racks),
        weight: if differ { prng.between(200, 400) } else { 300 },
        state: DiskState::Serving,
    };
    let new = |id: u32| PgReplicas {
        pg: PgId(id),
        disks: Vec::new(),
    };
    Cluster {
        pool: Pool { copies: 3, level },
        disks: (0..NODES * DISKS_A_NODE).map(disk).collect(),
        pgs: (0..PGS).map(new).collect(),
    }
}

fn set(cluster: &mut Cluster, state: DiskState, which: impl Fn(&Disk) -> bool) {
    let disks = cluster.disks.iter_mut().filter(|disk| which(disk));
    disks.for_each(|disk| disk.state = state);
}

fn add_node(cluster: &mut Cluster) {
    cluster.disks.extend((0..DISKS_A_NODE).map(|at| Disk {
        id: DiskId(NODES * DISKS_A_NODE + at),
        node: NodeId(NODES),
        rack: RackId(0),
        weight: 300,
        state: DiskState::Serving,
    }));
}

/// Time of this thread on a core so far, in milliseconds: on a shared machine the clock on the wall counts
/// others too.
fn cpu_ms() -> f64 {
    let text = read_to_string("/proc/thread-self/schedstat").expect("Linux counts time on a core");
    let nanoseconds = text.split(' ').next().map(str::parse::<f64>);
    nanoseconds
        .expect("the first field is there")
        .expect("it is a number")
        / 1e6
}

/// Solves, carries out and prints a line; the time is the best of three.
fn step(what: &str, cluster: &mut Cluster) {
    let mut best = f64::MAX;
    let mut plan = None;
    for _ in 0..3 {
        let begin = cpu_ms();
        plan = Some(solve(cluster).expect("the cluster can be solved"));
        best = best.min(cpu_ms() - begin);
    }
    let plan = plan.expect("solved three times");
    apply(cluster, &plan.changes);
    let found = measure(cluster).expect("the cluster can be measured");
    assert_eq!(found.broken, 0, "the domain rule holds");
    let (balance, partners) = (found.balance, found.partners);
    println!(
        "  {what:22} {best:6.0} ms of a core  placed {:6}  moved {:6} of {:6} unavoidable  off: disk {:.2} replicas, \
         {:.1} %, node {:.1} %  pairs: most {}, above {:.1} (of {:.1}), fewest partners {}, crowd {:.2}  local: fewest {}",
        plan.placed,
        plan.moved,
        plan.unavoidable,
        balance.replicas,
        balance.percent,
        balance.percent_of_node,
        partners.most,
        partners.above,
        partners.expected,
        partners.fewest,
        partners.crowd,
        found.local.fewest,
    );
}
