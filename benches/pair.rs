//! A volume with two copies on two nodes: `cargo bench --bench pair [-- SECONDS [DIR]]`.
//!
//! Both nodes are runtimes of one shard in this process, joined by loopback TCP, each with a disk of its own that is a file in DIR (the folder of temporary files, where none is named).
//! The load is that of `sarsen bench`, on the node that has the volume open. Beside it the same load on one of the nodes alone, with one copy: the difference is the
//! network and the second disk. CPU is that of both nodes together.

use sarsen::base::{
    Breaks, BufRef, DiskId, DiskSlot, Epoch, FamilyId, LayerId, NodeId, PgId, StoreId, Time,
    VolumeId,
};
use sarsen::io::{Access, Disk};
use sarsen::observe::Registry;
use sarsen::protocol::membership::Incarnation;
use sarsen::protocol::replication::Configuration;
use sarsen::protocol::volume::OpenVolume;
use sarsen::runtime::links::Peer;
use sarsen::runtime::{BenchSpec, Config, Handle, Pattern, Runtime};
use sarsen::shard::fabric::Order;
use sarsen::shard::{Control, ShardNo};
use sarsen::store::{LayerMeta, Options, Plan, VolumeMeta, format};
use sarsen::wire::Version;
use std::fs;
use std::future::Future;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const DISK_BYTES: u64 = 6 << 30;
const VOLUME_BYTES: u64 = 2 << 30;
const VOLUME: VolumeId = VolumeId(1);
const FAMILY: FamilyId = FamilyId(1);
const LAYER: LayerId = LayerId(1);
const PGS: u32 = 32;
const SHARD: ShardNo = ShardNo(0);
const DISKS: [DiskId; 2] = [DiskId(1), DiskId(2)];

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let seconds = words
        .first()
        .map_or(5, |word| word.parse().expect("SECONDS is a number"));
    let time = Duration::from_secs(seconds);
    let dir = words.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("sarsen-pair-{}", std::process::id()));
    fs::create_dir(&dir).expect("a new folder");
    println!("copies  pattern    block  depth     IOPS   MB/s  mean us   p50 us   p99 us  CPU us");
    for copies in [1, 2] {
        let nodes: Vec<Node> = DISKS[..copies]
            .iter()
            .map(|&disk| Node::start(&dir.join(format!("{copies}-{}", disk.0)), disk))
            .collect();
        open(&nodes);
        measure(&nodes[0].handle, copies, time);
        for node in nodes {
            node.runtime.stop();
        }
    }
    fs::remove_dir_all(&dir).expect("the folder is ours");
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.build().expect("a runtime").block_on(future)
}

struct Node {
    runtime: Runtime,
    handle: Handle,
    disk: DiskId,
}

impl Node {
    fn start(path: &Path, id: DiskId) -> Node {
        make_disk(path);
        let config = Config {
            buffer_bytes: 256 << 20,
            link_bytes: 128 << 20,
            cluster: Some(Incarnation(1)),
            ..Config::default()
        };
        let runtime = Runtime::start(config, Arc::new(Registry::default()));
        let runtime = runtime.expect("the shards start");
        let handle = runtime.handle();
        let disk = Disk::open(path, Access::ReadWrite).expect("the disk is there");
        let options = Options {
            disk_bytes: disk.bytes(),
            scratch: BufRef::default(),
            scratch_blocks: 0,
            overlay_bytes: 64 << 20,
            zero_ahead: disk.wants_zeroes_ahead(),
            discard: disk.takes_discards(),
            entropy: [5; 16],
            breaks: Breaks::NONE,
        };
        let slot = wait(handle.attach_disk(id, disk)).expect("there is a slot");
        let open = Control::OpenDisk {
            disk: id,
            slot,
            options,
        };
        wait(handle.control(open)).expect("the disk opens");
        let meta = VolumeMeta {
            id: VOLUME,
            family: FAMILY,
            name: "pair".to_owned(),
            size: VOLUME_BYTES,
            layers: vec![LayerMeta {
                id: LAYER,
                parent: None,
                frozen: false,
            }],
        };
        wait(handle.control(Control::PutVolume { meta })).expect("the store records it");
        Node {
            runtime,
            handle,
            disk: id,
        }
    }
}

fn make_disk(path: &Path) {
    let disk = Disk::create(path, DISK_BYTES).expect("there is room");
    let plan = Plan {
        store: StoreId([7; 16]),
        instance_key: [9; 16],
        disk_bytes: DISK_BYTES,
        journal_bytes: None,
        pages: None,
    };
    let formatted = format(&plan).expect("it is large enough");
    for (at, bytes) in formatted.writes.iter().chain(&formatted.superblocks) {
        disk.write_at(*at, bytes).expect("the file takes it");
    }
    disk.flush().expect("the file takes it");
}

/// Links the nodes, and opens the volume on the first one.
fn open(nodes: &[Node]) {
    if let [one, other] = nodes {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has one");
        let ours = TcpStream::connect(address).expect("somebody listens");
        let theirs = listener.accept().expect("somebody connects").0;
        for (node, peer, socket) in [(one, other, ours), (other, one, theirs)] {
            let to = Peer {
                node: NodeId(peer.disk.0),
                shard: SHARD,
                version: Version::PRESENT,
            };
            wait(node.handle.peer_disks(to.node, vec![(peer.disk, SHARD)]));
            wait(node.handle.link(SHARD, socket.into(), None, to)).expect("there is memory");
        }
    }
    let volume = VOLUME;
    let pgs: Vec<PgId> = (0..PGS).map(PgId).collect();
    for (place, node) in nodes.iter().enumerate() {
        let mut orders = vec![
            Order::Disk { disk: node.disk },
            Order::Layers {
                volume,
                layers: vec![(LAYER, None)],
            },
        ];
        let of = Configuration::new(nodes.iter().map(|node| node.disk));
        let configured = |&pg: &PgId| Order::Configured { pg, of: of.clone() };
        orders.extend(pgs.iter().map(configured));
        let peers = nodes.iter().filter(|other| other.disk != node.disk);
        orders.push(Order::Connected {
            disks: peers.map(|peer| peer.disk).collect(),
        });
        let until = Time(u64::MAX);
        orders.push(Order::Leased { until });
        if place == 0 {
            let open = OpenVolume {
                id: VOLUME,
                family: FAMILY,
                layer: LAYER,
                size: VOLUME_BYTES,
                pgs: pgs.iter().map(|&pg| (pg, Some(DiskSlot(0)))).collect(),
            };
            let epoch = Epoch {
                host: 1,
                ..Epoch::default()
            };
            let near = [node.disk].into();
            orders.push(Order::Open { open, epoch, near });
            orders.push(Order::Release { volume });
        }
        for (number, order) in orders.into_iter().enumerate() {
            node.handle.order(number as u64 + 1, order);
        }
    }
    wait((nodes[0].handle).serve_volume(VOLUME, FAMILY, VOLUME_BYTES, pgs));
}

fn measure(handle: &Handle, copies: usize, time: Duration) {
    let loads = [
        // All of it is written before anything is read.
        (Pattern::Write, 1 << 20, 8),
        (Pattern::RandWrite, 4096, 1),
        (Pattern::RandWrite, 4096, 32),
        (Pattern::RandRead, 4096, 1),
        (Pattern::RandRead, 4096, 32),
        (Pattern::Write, 128 << 10, 8),
        (Pattern::Read, 128 << 10, 8),
    ];
    for (pattern, block_bytes, depth) in loads {
        let spec = BenchSpec {
            volume: VOLUME,
            span_bytes: VOLUME_BYTES,
            pattern,
            block_bytes,
            depth,
            time,
            seed: 1,
        };
        let found = wait(handle.bench(spec)).expect("the volume is open");
        println!(
            "{copies:>6}  {:<9}{block_bytes:>8}{depth:>7}{:>9.0}{:>7.0}{:>9.1}{:>9.1}{:>9.1}{:>8.1}",
            format!("{pattern:?}"),
            found.iops,
            found.bytes_per_second / 1e6,
            found.mean_us,
            found.p50_us,
            found.p99_us,
            found.cpu_us_per_io,
        );
    }
}
