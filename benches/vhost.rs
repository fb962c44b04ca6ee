//! Measures vhost-user-blk back ends against each other with the driver of crate `virtio-driver`: Sarsen and
//! qemu-storage-daemon, both configurations of it (io_uring, and threads of aio in an iothread).
//!
//! All serve a file of the same kind and size, prefilled, in one run, alternating: ratios hold, absolute figures
//! do not. Writes are compared at the same promise (acknowledged = durable): with a flush after each write to
//! qemu-storage-daemon, none to Sarsen, whose answer is the promise. Server and driver have a core each; the driver is a
//! thread a queue, which sleeps on its call eventfd as a guest's CPU does.
//!
//!     cargo bench --bench vhost -- [--pairs 5] [--seconds 2] [--size-mib 1024] [--dir DIR] [--only read-1,read-32]

use nix::sys::eventfd::EventFd;
use sarsen::base::{BufRef, DiskId, FamilyId, LayerId, PgId, StoreId, VolumeId};
use sarsen::io::{Access, Disk};
use sarsen::observe::Registry;
use sarsen::runtime::{Config, Export, Guest, Runtime};
use sarsen::shard::Control;
use sarsen::store::{LayerMeta, Options, Plan, VolumeMeta, format};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use virtio_driver::{VhostUser, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags};

/// Bytes of an operation, and of those that fill the volume: a chunk as a whole, which leaves nothing to be done behind.
const BLOCK: usize = 4096;
const CHUNK: usize = 65536;

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
        fill(server, mib);
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

/// Writes all blocks of a server once.
fn fill(server: &Server, mib: u64) {
    let blocks = (mib << 20) / CHUNK as u64;
    let spec = Spec {
        bytes: CHUNK,
        writes: true,
        depth: 16,
        flushes: false,
        blocks,
        until: Until::All,
    };
    drive(&server.socket, 1, spec);
}

#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    /// Each block once, in order.
    All,
}

#[derive(Clone, Copy)]
struct Spec {
    /// Of each operation.
    bytes: usize,
    writes: bool,
    depth: usize,
    flushes: bool,
    blocks: u64,
    until: Until,
}

/// Puts a load on a socket, a thread a queue: how long each operation took, in ns.
fn drive(socket: &Path, queues: usize, spec: Spec) -> Vec<u64> {
    const MQ: u64 = 1 << 12; // VIRTIO_BLK_F_MQ
    let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
    let path = socket.to_str().expect("a path");
    let transport = VhostUser::new(path, features.bits() | MQ).expect("the server answers");
    let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
    let len = queues * spec.depth * spec.bytes;
    let file = File::from(
        nix::sys::memfd::memfd_create("load", nix::sys::memfd::MFdFlags::empty()).expect("memory"),
    );
    file.set_len(len as u64).expect("its length");
    // SAFETY: a new mapping of a file of our own; used through the pointers below only.
    let memory = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(
            std::ptr::null_mut(),
            len,
            access,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    } as usize;
    transport
        .map_mem_region(memory, len, file.as_raw_fd(), 0)
        .expect("memory is shared");
    let rings = VirtioBlkQueue::<usize>::setup_queues(&mut *transport, queues, 128);
    let rings = rings.expect("the queues start");
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = rings
            .into_iter()
            .enumerate()
            .map(|(index, ring)| {
                let call = transport.get_completion_fd(index);
                let notifier = transport.get_submission_notifier(index);
                // As QEMU has its eventfds.
                // SAFETY: flags of a file that is open.
                unsafe { libc::fcntl(call.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
                let memory = memory + index * spec.depth * spec.bytes;
                let call = call.as_fd().try_clone_to_owned().expect("a file");
                scope.spawn(move || {
                    on_core(1);
                    // SAFETY: the descriptor is an eventfd of our own.
                    let call = unsafe { EventFd::from_owned_fd(call) };
                    one_queue(ring, &call, &*notifier, memory, spec, index as u64)
                })
            })
            .collect();
        for thread in threads {
            latencies.extend(thread.join().expect("the load ends"));
        }
    });
    drop(transport);
    // SAFETY: mapped above; the server has seen our connection end, and the queues are gone.
    unsafe { libc::munmap(memory as *mut _, len) };
    latencies
}

fn on_core(core: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(core).expect("a core");
    // On a machine of one core it stays where it is.
    let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
}

fn one_queue(
    mut ring: VirtioBlkQueue<'_, usize>,
    call: &EventFd,
    notifier: &dyn virtio_driver::QueueNotifier,
    memory: usize,
    spec: Spec,
    seed: u64,
) -> Vec<u64> {
    let began = Instant::now();
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed + 1);
    let (mut latencies, mut next, mut flying) = (Vec::new(), 0u64, 0usize);
    // When each place's operation began, and whether its flush is what flies.
    let mut since = vec![(began, false); spec.depth];
    let mut idle: Vec<usize> = (0..spec.depth).collect();
    ring.set_used_notif_enabled(true);
    loop {
        let over = match spec.until {
            Until::Time(time) => began.elapsed() >= time,
            Until::All => next >= spec.blocks,
        };
        if over && flying == 0 {
            return latencies;
        }
        while let Some(place) = idle.pop().filter(|_| !over) {
            let block = match spec.until {
                Until::All if next >= spec.blocks => break,
                Until::All => next,
                Until::Time(_) => {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state % spec.blocks
                }
            };
            next += 1;
            since[place] = (Instant::now(), false);
            let (at, offset) = (memory + place * spec.bytes, block * spec.bytes as u64);
            // SAFETY: each place has a block of the memory that is mapped, and one operation at a time.
            let asked = unsafe {
                match spec.writes {
                    true => ring.write_raw(offset, at as *const u8, spec.bytes, place),
                    false => ring.read_raw(offset, at as *mut u8, spec.bytes, place),
                }
            };
            asked.expect("the ring has room");
            flying += 1;
        }
        if ring.avail_notif_needed() {
            notifier.notify().expect("an eventfd");
        }
        let mut done: Vec<(usize, i32)> = ring.completions().map(|c| (c.context, c.ret)).collect();
        if done.is_empty() {
            let on = [(call.as_fd(), sarsen::io::Until::Readable)];
            let woken = sarsen::io::wait(&on, Some(Duration::from_secs(20))).expect("a poll");
            assert_ne!(woken, 0, "the server answers within 20 s");
            let _ = call.read();
            done.extend(ring.completions().map(|c| (c.context, c.ret)));
        }
        for (place, result) in done {
            assert_eq!(result, 0, "an operation failed");
            if spec.flushes && !since[place].1 {
                since[place].1 = true;
                ring.flush(place).expect("the ring has room");
                continue;
            }
            latencies.push(since[place].0.elapsed().as_nanos() as u64);
            idle.push(place);
            flying -= 1;
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
