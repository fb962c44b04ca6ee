//! The runtime as a whole: a real disk file, a real ring, real sockets, and the shard.

use super::*;
use crate::base::{
    BLOCK, Breaks, BufRef, DiskId, FamilyId, IoError, LayerId, MapRun, PgId, StoreId, VolumeId,
};
use crate::io::test_dir::TestDir;
use crate::io::{Access, Disk};
use crate::observe::{Operation, Registry};
use crate::shard::{Control, ControlError};
use crate::store::{Closing, LayerMeta, Options, Plan, VolumeMeta, format};
use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod cluster;
mod guest_driver;
mod guest_log;
mod guests;
mod several_shards;

const DISK_BYTES: u64 = 256 << 20;
const VOLUME_BYTES: u64 = 64 << 20;
const VOLUME: VolumeId = VolumeId(1);

fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(future)
}

fn format_disk(path: &Path, disk_bytes: u64) {
    let disk = Disk::create(path, disk_bytes).unwrap();
    let plan = Plan {
        store: StoreId([7; 16]),
        instance_key: [9; 16],
        disk_bytes,
        journal_bytes: None,
        pages: None,
    };
    let formatted = format(&plan).unwrap();
    for (at, bytes) in &formatted.writes {
        disk.write_at(*at, bytes).unwrap();
    }
    disk.flush().unwrap();
    for (at, bytes) in &formatted.superblocks {
        disk.write_at(*at, bytes).unwrap();
    }
    disk.flush().unwrap();
}

/// A node: the runtime with one disk, one volume and an export.
struct Node {
    runtime: Runtime,
    handle: Handle,
    registry: Arc<Registry>,
    pgs: Vec<(PgId, DiskId)>,
}

/// Eight PGs a disk.
fn pgs(disks: u32) -> Vec<(PgId, DiskId)> {
    let disk = |n| DiskId(3 + n % disks);
    (0..8 * disks).map(|n| (PgId(n), disk(n))).collect()
}

fn export(size: u64, refused: Option<&str>) -> Export {
    Export {
        name: "vm".to_owned(),
        volume: VOLUME,
        size,
        block_size: 512,
        read_only: false,
        refused: refused.map(str::to_owned),
        is_away: false,
        clients: Admits::default(),
    }
}

fn meta(size: u64, layers: &[u64]) -> VolumeMeta {
    let layer = |(n, &id): (usize, &u64)| LayerMeta {
        id: LayerId(id),
        parent: n.checked_sub(1).map(|before| LayerId(layers[before])),
        frozen: n + 1 < layers.len(),
    };
    VolumeMeta {
        id: VOLUME,
        family: FamilyId(1),
        name: "vm".to_owned(),
        size,
        layers: layers.iter().enumerate().map(layer).collect(),
    }
}

impl Node {
    fn start(disk: &Path, volume_bytes: u64) -> Node {
        Node::start_with(Config::default(), &[disk], volume_bytes)
    }

    /// With disks 3 and following, over which the volume's PGs are spread.
    fn start_with(config: Config, disks: &[&Path], volume_bytes: u64) -> Node {
        let registry = Arc::new(Registry::default());
        // A ring that ends leaves its memory mapped, and all tests are one process.
        let buffer_bytes = config.buffer_bytes.min(64 << 20);
        let config = Config {
            buffer_bytes,
            ..config
        };
        let runtime = Runtime::start(config, Arc::clone(&registry)).unwrap();
        let handle = runtime.handle();
        let node = Node {
            runtime,
            handle,
            registry,
            pgs: pgs(disks.len() as u32),
        };
        for (n, path) in disks.iter().enumerate() {
            wait(node.open_disk(DiskId(3 + n as u32), path));
        }
        wait(node.open_volume(volume_bytes, &[1])).unwrap();
        wait(node.handle.set_exports(vec![export(volume_bytes, None)]));
        node
    }

    async fn open_disk(&self, id: DiskId, path: &Path) {
        // The kernel lets go of a file behind the end of a ring that had operations on it.
        let mut opened = None;
        until("the disk can be opened", || {
            opened = Disk::open(path, Access::ReadWrite).ok();
            opened.is_some()
        });
        let disk = opened.unwrap();
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
        let slot = self.handle.attach_disk(id, disk).await.unwrap();
        let open = Control::OpenDisk {
            disk: id,
            slot,
            options,
        };
        self.handle.control(open).await.unwrap();
    }

    async fn open_volume(&self, size: u64, layers: &[u64]) -> Result<(), ControlError> {
        let (meta, pgs) = (meta(size, layers), self.pgs.clone());
        self.handle.control(Control::OpenVolume { meta, pgs }).await
    }

    fn stop(self) {
        wait(self.handle.control(Control::Close {
            how: Closing::Whole,
        }))
        .unwrap();
        self.runtime.stop();
    }
}

#[test]
fn what_the_control_plane_writes_is_read_back_before_and_after_a_restart() {
    let dir = TestDir::new();
    let path = dir.path("disk");
    format_disk(&path, DISK_BYTES);
    let node = Node::start(&path, VOLUME_BYTES);
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n / 5) as u8).collect();
    wait(node.handle.write(VOLUME, 1000, data.clone())).unwrap();
    let read = |node: &Node| wait(node.handle.read(VOLUME, 1000, data.len() as u64)).unwrap();
    assert!(read(&node) == data);
    wait(node.handle.write_zeroes(VOLUME, 8 << 20, 1 << 20)).unwrap();
    let map = wait(node.handle.map(VOLUME, 0, VOLUME_BYTES)).unwrap();
    assert_eq!(map.iter().map(|run| run.len).sum::<u64>(), VOLUME_BYTES);
    let last = MapRun {
        len: 1,
        zero: true,
        hole: true,
    };
    assert_eq!(map.last().map(|run| MapRun { len: 1, ..*run }), Some(last));
    let beyond = wait(node.handle.read(VOLUME, VOLUME_BYTES, 512));
    assert_eq!(beyond, Err(IoError::OutOfRange));
    let none = wait(node.handle.read(VolumeId(9), 0, 512));
    assert_eq!(none, Err(IoError::Closed));
    assert!(node.registry.totals(VOLUME, Operation::Write).bytes == 3_000_000);
    node.stop();
    let node = Node::start(&path, VOLUME_BYTES);
    assert!(read(&node) == data);
    node.runtime.stop(); // without Close, as after a crash
    let node = Node::start(&path, VOLUME_BYTES);
    assert!(read(&node) == data);
    node.stop();
}

#[test]
fn a_bench_measures_reads_and_writes() {
    let dir = TestDir::new();
    let path = dir.path("disk");
    format_disk(&path, DISK_BYTES);
    let node = Node::start(&path, VOLUME_BYTES);
    let mut spec = BenchSpec {
        volume: VOLUME,
        span_bytes: VOLUME_BYTES,
        pattern: Pattern::RandWrite,
        block_bytes: 4096,
        depth: 8,
        time: Duration::from_millis(300),
        seed: 1,
    };
    for pattern in [
        Pattern::RandWrite,
        Pattern::RandRead,
        Pattern::Write,
        Pattern::Read,
    ] {
        spec.pattern = pattern;
        let measured = wait(node.handle.bench(spec.clone())).unwrap();
        assert!(measured.operations > 100, "{pattern:?}: {measured:?}");
        assert!(measured.p50_us <= measured.p99_us && measured.p99_us <= measured.max_us);
    }
    spec.depth = 0;
    let refused = wait(node.handle.bench(spec)).unwrap_err();
    assert_eq!(refused, BenchError::Bad { field: "depth" });
    node.stop();
}

/// The least of an NBD client: EXPORT_NAME and simple replies.
struct Client(UnixStream);

impl Client {
    fn connect(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut client = Client(stream);
        client.take(18);
        client.0.write_all(&3u32.to_be_bytes()).unwrap();
        client
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn attach(path: &Path, name: &str) -> Client {
        let mut client = Client::connect(path);
        let mut option = b"IHAVEOPT".to_vec();
        option.extend(1u32.to_be_bytes());
        option.extend((name.len() as u32).to_be_bytes());
        option.extend(name.as_bytes());
        client.0.write_all(&option).unwrap();
        client.take(10);
        client
    }

    fn ask(&mut self, flags: u16, kind: u16, cookie: u64, offset: u64, len: u32, data: &[u8]) {
        let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
        request.extend(flags.to_be_bytes());
        request.extend(kind.to_be_bytes());
        request.extend(cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(len.to_be_bytes());
        request.extend(data);
        self.0.write_all(&request).unwrap();
    }

    /// The error and the cookie of the next simple reply.
    fn reply(&mut self) -> (u32, u64) {
        let reply = self.take(16);
        assert_eq!(reply[..4], 0x6744_6698u32.to_be_bytes());
        let error = u32::from_be_bytes(reply[4..8].try_into().unwrap());
        (error, u64::from_be_bytes(reply[8..].try_into().unwrap()))
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.ask(0, 1, offset, offset, data.len() as u32, data);
        assert_eq!(self.reply(), (0, offset));
    }

    fn read(&mut self, offset: u64, len: u32) -> Vec<u8> {
        self.ask(0, 0, offset, offset, len, &[]);
        assert_eq!(self.reply(), (0, offset));
        self.take(len as usize)
    }
}

fn listen(node: &Node, dir: &TestDir) -> std::path::PathBuf {
    let path = dir.path("nbd.sock");
    let socket = crate::io::listen_unix(&path, 0o600, None).unwrap();
    wait(node.handle.listen(socket)).unwrap();
    path
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within 5 s: {what}");
}

#[test]
fn a_client_reads_what_it_wrote_small_large_and_unaligned() {
    let dir = TestDir::new();
    format_disk(&dir.path("disk"), DISK_BYTES);
    let node = Node::start(&dir.path("disk"), VOLUME_BYTES);
    let socket = listen(&node, &dir);
    let mut client = Client::attach(&socket, "vm");
    let mut model = vec![0u8; VOLUME_BYTES as usize];
    let writes = [
        (0, 4096),
        (5000, 700),
        (65536, 1 << 20),
        (99, 3 << 20),
        (4 << 20, 31 << 20),
    ];
    for (n, (offset, len)) in writes.into_iter().enumerate() {
        let data: Vec<u8> = (0..len).map(|at| (at / 512 + n * 41) as u8).collect();
        client.write(offset, &data);
        model[offset as usize..][..len].copy_from_slice(&data);
        let (around, more) = (offset.saturating_sub(100), len as u32 + 200);
        assert!(client.read(around, more) == model[around as usize..][..more as usize]);
    }
    // Zeroes, with and without a hole.
    for (flags, offset, len) in [(0, 70_000, 200_000), (2, 1_000_000, 3_000_000)] {
        client.ask(flags, 6, 1, offset, len, &[]);
        assert_eq!(client.reply(), (0, 1));
        model[offset as usize..][..len as usize].fill(0);
    }
    for at in (0..VOLUME_BYTES).step_by(8 << 20) {
        assert!(client.read(at, 8 << 20) == model[at as usize..][..8 << 20]);
    }
    node.stop();
}

#[test]
fn many_requests_in_flight_are_all_answered() {
    let dir = TestDir::new();
    format_disk(&dir.path("disk"), DISK_BYTES);
    let node = Node::start(&dir.path("disk"), VOLUME_BYTES);
    let socket = listen(&node, &dir);
    let mut clients: Vec<_> = (0..8).map(|_| Client::attach(&socket, "vm")).collect();
    until("eight clients are counted", || {
        node.handle.connections(VOLUME) == 8
    });
    // More than may be in flight, in one go, from all of them.
    for (n, client) in clients.iter_mut().enumerate() {
        let mut stream = client.0.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            let mut sender = Client(stream.try_clone().unwrap());
            for at in 0..400u64 {
                let offset = (n as u64 * 400 + at) * BLOCK;
                sender.ask(0, 1, at, offset, 4096, &[(at + n as u64) as u8; 4096]);
            }
            stream.flush().unwrap();
        });
        let mut seen = vec![false; 400];
        for _ in 0..400 {
            let (error, cookie) = client.reply();
            assert_eq!(error, 0);
            assert!(!std::mem::replace(&mut seen[cookie as usize], true));
        }
        sender.join().unwrap();
    }
    for n in 0..8u64 {
        for at in (0..400).step_by(37) {
            let block = clients[0].read((n * 400 + at) * BLOCK, 4096);
            assert!(block == [(at + n) as u8; 4096]);
        }
    }
    clients.truncate(3);
    until("three are left", || node.handle.connections(VOLUME) == 3);
    drop(clients);
    until("all are gone", || node.handle.connections(VOLUME) == 0);
    node.stop();
}

#[test]
fn a_client_that_goes_in_the_middle_harms_nobody() {
    let dir = TestDir::new();
    format_disk(&dir.path("disk"), DISK_BYTES);
    let node = Node::start(&dir.path("disk"), VOLUME_BYTES);
    let socket = listen(&node, &dir);
    for n in 0..30u64 {
        let mut client = Client::attach(&socket, "vm");
        for at in 0..20 {
            client.ask(0, 0, at, at << 20, 1 << 20, &[]);
        }
        // The server may stop listening to a client that does not read its replies.
        client
            .0
            .set_write_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let mut write = 0x2560_9513u32.to_be_bytes().to_vec();
        write.extend([
            0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0,
        ]);
        write.resize(write.len() + n as usize * 30_000, 1);
        let _ = client.0.write_all(&write);
    }
    until("all are gone", || node.handle.connections(VOLUME) == 0);
    let mut client = Client::attach(&socket, "vm");
    assert!(client.read(0, 1 << 20) == vec![0; 1 << 20]);
    node.stop();
}

#[test]
fn a_refused_export_is_not_attached_and_a_new_size_is_used_at_once() {
    let dir = TestDir::new();
    format_disk(&dir.path("disk"), DISK_BYTES);
    let node = Node::start(&dir.path("disk"), VOLUME_BYTES);
    let socket = listen(&node, &dir);
    let mut client = Client::attach(&socket, "vm");
    client.ask(0, 0, 5, VOLUME_BYTES, 4096, &[]);
    assert_eq!(client.reply(), (22, 5));
    wait(node.open_volume(2 * VOLUME_BYTES, &[1])).unwrap();
    wait(
        node.handle
            .set_exports(vec![export(2 * VOLUME_BYTES, Some("being deleted"))]),
    );
    assert!(client.read(VOLUME_BYTES, 4096) == [0; 4096]);
    assert_eq!(node.handle.connections(VOLUME), 1);
    let mut refused = Client::connect(&socket);
    refused
        .0
        .write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x02vm")
        .unwrap();
    assert_eq!(
        refused.0.read(&mut [0; 10]).unwrap(),
        0,
        "EXPORT_NAME has no refusal but the end"
    );
    assert_eq!(node.handle.connections(VOLUME), 1);
    node.stop();
}

/// Not a test: serves for fio and the like. `SARSEN_SERVE=DIR SECONDS` of a formatted disk of 8 GiB.
#[test]
#[ignore = "serves until it is killed, for measurements by hand"]
fn serve() {
    let dir = std::env::var("SARSEN_SERVE").unwrap();
    let dir = Path::new(&dir);
    let path = dir.join("disk0");
    if !path.exists() {
        format_disk(&path, 8 << 30);
    }
    let node = Node::start(&path, 4 << 30);
    let socket = crate::io::listen_unix(&dir.join("nbd.sock"), 0o600, None).unwrap();
    wait(node.handle.listen(socket)).unwrap();
    std::thread::sleep(Duration::from_secs(3600));
}
