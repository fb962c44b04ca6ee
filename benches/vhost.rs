//! Measures vhost-user-blk back ends against each other with the driver of crate `virtio-driver`: Sarsen and
//! qemu-storage-daemon, both configurations of it (io_uring, and threads of aio in an iothread).
//!
//! All serve a file of the same kind and size, prefilled, in one run, alternating: ratios hold, absolute figures
//! do not. Writes are compared at the same promise (acknowledged = durable): with a flush after each write to
//! qemu-storage-daemon, none to Sarsen, whose answer is the promise. Server and driver have a core each; the driver is a
//! thread a queue, which sleeps on its call eventfd as a guest's CPU does.
//!
//!     cargo bench --bench vhost -- [--pairs 5] [--seconds 2] [--size-mib 1024] [--dir DIR] [--only read-1,read-32]

mod guest;

use guest::{BLOCK, Spec, Until, drive};
use sarsen::base::{BufRef, DiskId, FamilyId, LayerId, PgId, StoreId, VolumeId};
use sarsen::io::{Access, Disk};
use sarsen::observe::Registry;
use sarsen::runtime::{Config, Export, Guest, Runtime};
use sarsen::shard::Control;
use sarsen::store::{LayerMeta, Options, Plan, VolumeMeta, format};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Writes or reads, queues, depth of each.
const CASES: &[(&str, bool, usize, usize)] = &[
    ("read-1", false, 1, 1),
    ("read-32", false, 1, 32),
    ("read-2x16", false, 2, 16),
    ("write-1", true, 1, 1),
    ("write-32", true, 1, 32),
    ("write-2x16", true, 2, 16),
];

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    if let [serve, dir, mib] = &words[..]
        && serve == "serve"
    {
        return serve_sarsen(Path::new(dir), mib.parse().expect("MIB is a number"));
    }
    let option = |name: &str, otherwise: &str| {
        let place = words.iter().position(|word| word == name);
        place.map_or(otherwise.to_owned(), |at| words[at + 1].clone())
    };
    let number = |name, otherwise| -> u64 { option(name, otherwise).parse().expect("a number") };
    let (pairs, seconds) = (number("--pairs", "5"), number("--seconds", "2"));
    let mib = number("--size-mib", "1024");
    let dir = PathBuf::from(option("--dir", env!("CARGO_TARGET_TMPDIR")));
    let dir = dir.join(format!("vhost-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory for the files");
    let only = option("--only", "");
    let servers = [
        Server::sarsen(&dir, mib),
        Server::qsd("qsd-uring", &dir, mib, &["io_uring"], false),
        Server::qsd("qsd-aio", &dir, mib, &["native"], true),
    ];
    for server in &servers {
        guest::fill(&server.socket, mib);
    }
    println!(
        "{:11} {:10} {:>8} {:>8} {:>8} {:>7}   IOPS and CPU of sarsen / it",
        "case", "server", "IOPS", "p50 us", "p99 us", "CPU us"
    );
    for case in CASES
        .iter()
        .filter(|case| only.is_empty() || only.split(',').any(|o| o == case.0))
    {
        let mut runs: Vec<Vec<Run>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..pairs {
            for (server, runs) in servers.iter().zip(&mut runs) {
                runs.push(server.run(case, mib, Duration::from_secs(seconds)));
            }
        }
        for (server, its) in servers.iter().zip(&runs) {
            let pairs = || runs[0].iter().zip(its);
            let iops = median(pairs().map(|(mine, its)| mine.iops / its.iops));
            let cpu = median(pairs().map(|(mine, its)| mine.cpu_us / its.cpu_us));
            println!(
                "{:11} {:10} {:8.0} {:8.1} {:8.1} {:7.2}   {iops:.2} {cpu:.2}",
                case.0,
                server.name,
                median(its.iter().map(|run| run.iops)),
                median(its.iter().map(|run| run.p50_us)),
                median(its.iter().map(|run| run.p99_us)),
                median(its.iter().map(|run| run.cpu_us)),
            );
        }
    }
    drop(servers);
    fs::remove_dir_all(&dir).expect("the files are ours");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Server {
    name: &'static str,
    process: Child,
    socket: PathBuf,
    /// Whether a write is durable only behind a flush.
    flushes: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it has gone already
        let _ = self.process.wait();
    }
}

struct Run {
    iops: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

impl Server {
    fn start(name: &'static str, socket: PathBuf, flushes: bool, command: &mut Command) -> Server {
        let process = command
            .stdout(Stdio::null())
            .spawn()
            .expect("the server starts");
        let server = Server {
            name,
            process,
            socket,
            flushes,
        };
        for _ in 0..400 {
            if server.socket.exists() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("{name} does not listen");
    }

    fn sarsen(dir: &Path, mib: u64) -> Server {
        let this = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new("taskset");
        command
            .args(["-c", "0"])
            .arg(this)
            .arg("serve")
            .arg(dir)
            .arg(mib.to_string());
        Server::start("sarsen", dir.join("sarsen.sock"), false, &mut command)
    }

    fn qsd(name: &'static str, dir: &Path, mib: u64, aio: &[&str], thread: bool) -> Server {
        let (file, socket) = (
            dir.join(format!("{name}.raw")),
            dir.join(format!("{name}.sock")),
        );
        let raw = File::create(&file).expect("a file");
        raw.set_len(mib << 20).expect("its length");
        let mut command = Command::new("taskset");
        command.args(["-c", "0", "qemu-storage-daemon"]);
        let mut export = format!(
            "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={},writable=on,num-queues=2",
            socket.display()
        );
        if thread {
            command.args(["--object", "iothread,id=t"]);
            export.push_str(",iothread=t");
        }
        let node = format!(
            "driver=file,node-name=f,filename={},cache.direct=on,aio={}",
            file.display(),
            aio[0]
        );
        command.args(["--blockdev", &node, "--export", &export]);
        Server::start(name, socket, true, &mut command)
    }

    fn cpu(&self) -> Duration {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("it runs");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        let ticks: u64 = [11, 12]
            .iter()
            .map(|at| fields[*at].parse::<u64>().expect("ticks"))
            .sum();
        Duration::from_millis(ticks * 10)
    }

    fn run(&self, case: &(&str, bool, usize, usize), mib: u64, time: Duration) -> Run {
        let &(_, writes, queues, depth) = case;
        let before = self.cpu();
        let spec = Spec {
            bytes: BLOCK,
            writes,
            depth,
            flushes: writes && self.flushes,
            blocks: (mib << 20) / BLOCK as u64,
            until: Until::Time(time),
        };
        let began = Instant::now();
        let mut latencies = drive(&self.socket, queues, spec);
        let (took, cpu) = (began.elapsed(), self.cpu() - before);
        latencies.sort_unstable();
        let at = |part: f64| {
            let place = (latencies.len() as f64 * part) as usize;
            latencies[place.min(latencies.len() - 1)] as f64 / 1e3
        };
        Run {
            iops: latencies.len() as f64 / took.as_secs_f64(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            cpu_us: cpu.as_secs_f64() * 1e6 / latencies.len() as f64,
        }
    }
}

fn format_disk(path: &Path, disk_bytes: u64) {
    let disk = Disk::create(path, disk_bytes).expect("a disk");
    let plan = Plan {
        store: StoreId([7; 16]),
        instance_key: [9; 16],
        disk_bytes,
        journal_bytes: None,
        pages: None,
    };
    let formatted = format(&plan).expect("the disk is large enough");
    // Written, as a daemon formats a disk: a durable write into what was never written costs a commit of the file system.
    let zeroes = vec![0; 1 << 20];
    for &(offset, len) in &formatted.zeroes {
        for at in (offset..offset + len).step_by(zeroes.len()) {
            let left = (offset + len - at).min(zeroes.len() as u64) as usize;
            disk.write_at(at, &zeroes[..left])
                .expect("the disk is written");
        }
    }
    for (at, bytes) in formatted.writes.iter().chain(&formatted.superblocks) {
        disk.write_at(*at, bytes).expect("the disk is written");
    }
    disk.flush().expect("the disk is flushed");
}

/// Serves a volume at `DIR/sarsen.sock` until it is killed: the one that is there, or a new one. For a QEMU by hand, too.
fn serve_sarsen(dir: &Path, mib: u64) {
    let path = dir.join("sarsen.disk");
    let disk_bytes = (mib << 20) * 2 + (1 << 30);
    if !path.exists() {
        format_disk(&path, disk_bytes);
    }
    let disk = Disk::open(&path, Access::ReadWrite).expect("the disk is ours");
    let runtime = Runtime::start(Config::default(), Arc::new(Registry::default()));
    let handle = runtime.expect("the runtime starts").handle();
    let (id, volume) = (DiskId(1), VolumeId(1));
    let options = Options {
        disk_bytes: disk.bytes(),
        scratch: BufRef::default(),
        scratch_blocks: 0,
        overlay_bytes: 64 << 20,
        zero_ahead: disk.wants_zeroes_ahead(),
        discard: disk.takes_discards(),
        entropy: [5; 16],
        breaks: sarsen::base::Breaks::NONE,
    };
    let meta = VolumeMeta {
        id: volume,
        family: FamilyId(1),
        name: "bench".into(),
        size: mib << 20,
        layers: vec![LayerMeta {
            id: LayerId(1),
            parent: None,
            frozen: false,
        }],
    };
    let export = Export {
        name: "bench".into(),
        volume,
        size: mib << 20,
        block_size: 512,
        read_only: false,
        refused: None,
        is_away: false,
        clients: Default::default(),
    };
    let executor = tokio::runtime::Builder::new_current_thread().build();
    executor.expect("an executor").block_on(async {
        let slot = handle.attach_disk(id, disk).await.expect("a slot");
        let open = Control::OpenDisk {
            disk: id,
            slot,
            options,
        };
        handle.control(open).await.expect("the disk opens");
        let pgs = (0..8).map(|n| (PgId(n), id)).collect();
        let open = Control::OpenVolume { meta, pgs };
        handle.control(open).await.expect("the volume opens");
        handle.set_exports(vec![export]).await;
        let socket = dir.join("sarsen.sock");
        let listener = sarsen::io::listen_unix(&socket, 0o600, None).expect("a socket");
        let guest = Guest {
            key: 1,
            volume,
            listener,
            queues: 2,
            incoming: false,
            handed: None,
        };
        handle
            .serve_guest(guest)
            .await
            .expect("the guest is served");
    });
    loop {
        std::thread::park();
    }
}
