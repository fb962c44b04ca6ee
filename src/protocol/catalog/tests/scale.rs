//! A site at its limits: what it takes in memory and in a snapshot, and how long a command takes there.
//!
//! `cargo test --release --no-default-features --lib catalog::tests::scale -- --ignored --nocapture`

use super::*;
use crate::protocol::membership::{Incarnation, LeaseNumber};
use crate::protocol::placement::Level;
use crate::protocol::replication::Reconfigure;
use std::time::Instant;

const NODES: u32 = 1_000;
const DISKS_A_NODE: u32 = 10;
const PGS: u32 = 100_000;
const VOLUMES: u32 = 100_000;

/// What this process has in memory, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

struct Table {
    catalog: Catalog,
    memory: u64,
}

impl Table {
    /// Applies commands and prints a line about them.
    fn line(&mut self, what: &str, commands: impl Iterator<Item = Command>) {
        let commands: Vec<Command> = commands.collect();
        let before = resident();
        let began = Instant::now();
        let count = commands.len();
        let mut worst = 0;
        for command in &commands {
            let one = Instant::now();
            self.catalog.apply(command).unwrap();
            worst = worst.max(one.elapsed().as_micros());
        }
        let each = began.elapsed().as_nanos() as f64 / count as f64 / 1e3;
        let more = resident().saturating_sub(before);
        println!(
            "{what:34} {count:7} commands  {each:8.1} us each  {worst:6} us at worst  {:7.1} MiB more",
            more as f64 / f64::from(1 << 20)
        );
    }
}

#[test]
#[ignore = "takes a minute and measures"]
fn a_site_at_its_limits() {
    let mut table = Table {
        catalog: Catalog::default(),
        memory: resident(),
    };
    let pool = Command::SetPool {
        pool: DEFAULT_POOL.into(),
        copies: 3,
        min_copies: 2,
        level: Level::Node,
    };
    table.catalog.apply(&pool).unwrap();
    let node = |n| Command::AddNode {
        name: format!("host-{n:04}"),
    };
    table.line("nodes", (1..=NODES).map(node));
    let disk = |n: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        Command::AddDisk {
            node: NodeId(1 + n / DISKS_A_NODE),
            path: format!("/dev/disk/by-id/nvme-eui.{n:016x}"),
            store: StoreName(StoreId(id)),
            size: 4 << 40,
            pool: None,
            incarnation: Incarnation(1),
        }
    };
    table.line("disks", (0..NODES * DISKS_A_NODE).map(disk));
    let replicas = |n: u32| {
        let on = |node: u32, at: u32| DiskId(1 + node % NODES * DISKS_A_NODE + at);
        let (spread, at) = (1 + n / NODES, n % DISKS_A_NODE);
        vec![on(n, at), on(n + spread, at), on(n + 3 * spread + 400, at)]
    };
    let batch = 4_000;
    let create = |n: u32| Command::CreatePgs {
        pool: PoolId(1),
        first: PgId(1 + n * batch),
        replicas: (n * batch..(n + 1) * batch).map(replicas).collect(),
        batch: Batch::Last,
    };
    table.line("PGs, 4,000 a command", (0..PGS / batch).map(create));
    let percent = Command::SetOvercommit {
        pool: DEFAULT_POOL.into(),
        percent: 10_000,
    };
    table.catalog.apply(&percent).unwrap();
    let volume = |n| super::create(&format!("guest-{n:06}-disk-0"), 100 * GIB);
    table.line("volumes", (0..VOLUMES).map(volume));
    let attach = |n: u32| Command::Attach {
        volume: VolumeId(1 + u64::from(n)),
        node: NodeId(1 + n % NODES),
        front_end: FrontEnd::VhostUser {
            socket: format!("/run/sarsen/vhost/guest-{n:06}.sock"),
            queues: 4,
            incoming: false,
        },
    };
    table.line("attachments", (0..VOLUMES).map(attach));
    let take = |n: u32| Command::TakeRange {
        volume: VolumeId(1 + u64::from(n)),
        node: NodeId(1 + n % NODES),
        lease: LeaseNumber::NONE,
        after: None,
        why: TakeWhy::Free,
    };
    table.line("ranges taken", (0..VOLUMES).map(take));
    let lost = DiskId(1);
    let pgs: Vec<PgId> = table.catalog.pgs_on(lost).collect();
    let evict = |pg: PgId| Command::Reconfigure {
        pg,
        version: 1,
        change: Reconfigure::Evict { disk: lost },
    };
    table.line("evictions", pgs.iter().map(|&pg| evict(pg)));
    let open = |n: u32| Command::OpenDisk {
        disk: DiskId(1 + n),
        store: table.catalog.disk(DiskId(1 + n)).unwrap().store,
        before: Incarnation(1),
        now: Incarnation(2),
        start: Incarnation(0),
        last_copies: LastCopies::Refuse,
    };
    let opened: Vec<Command> = (0..NODES * DISKS_A_NODE).map(open).collect();
    table.line("disks opened", opened.into_iter());
    let grown = |n: u32| resize(&format!("guest-{n:06}-disk-0"), 101 * GIB);
    table.line("volumes resized", (0..VOLUMES).map(grown));
    let snapshots = |n: u32| Command::SnapshotVolume {
        name: format!("guest-{n:06}-disk-0"),
        snapshot: "daily".into(),
    };
    table.line("snapshots", (0..1_000).map(snapshots));

    let catalog = table.catalog;
    println!(
        "in memory: {:.1} MiB",
        (resident() - table.memory) as f64 / f64::from(1 << 20)
    );
    let part = |name: &str, value: serde_json::Value| {
        let bytes = value.to_string().len();
        let count = value.as_object().map_or(1, |of| of.len());
        println!(
            "in the snapshot: {name:12} {bytes:10} bytes, {:4} each",
            bytes / count.max(1)
        );
    };
    let began = Instant::now();
    let bytes = catalog.snapshot();
    println!("snapshot: {} bytes in {:?}", bytes.len(), began.elapsed());
    let began = Instant::now();
    let restored = Catalog::restore(&bytes).unwrap();
    println!("restore, with all invariants: {:?}", began.elapsed());
    assert_eq!(restored, catalog);
    drop(restored);
    let began = Instant::now();
    catalog.check().unwrap();
    println!("check of everything: {:?}", began.elapsed());
    let began = Instant::now();
    let copy = catalog.clone();
    println!(
        "a copy, as the manager makes today for each command: {:?}",
        began.elapsed()
    );
    drop(copy);
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    for name in ["nodes", "disks", "pgs", "volumes", "attachments", "ranges"] {
        part(name, value["catalog"][name].clone());
    }
}
