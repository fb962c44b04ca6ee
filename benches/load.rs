//! How long a disk with 1 TiB in use takes to open and to load: `cargo bench --bench load [-- GIB DIR]`.
//!
//! The disk is a sparse file. The store itself fills it, through the pure machine: every write of whole chunks is
//! taken, journaled and checkpointed as always, only payload is not written, because nobody reads it. What is measured
//! then is the real runtime, which reads every page past the page cache and checks it.

use sarsen::base::{
    BlockRun, Breaks, BufRef, CHUNK, ChunkNo, DiskId, FamilyId, LayerId, PgId, StoreId, Time,
    VolumeId,
};
use sarsen::io::{Access, Disk};
use sarsen::observe::Registry;
use sarsen::runtime::{Config, Runtime};
use sarsen::shard::Control;
use sarsen::store::{
    ChunkId, Closing, DiskOp, Formatted, Input, IoData, LayerMeta, Note, Options, Outbox, Output,
    Plan, Stamp, Store, StoreOp, VolumeMeta, format,
};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Chunks that are asked for before the disk answers.
const AT_ONCE: u64 = 64;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    // The measurement has a process of its own, so that its memory is not mixed with what filled the disk.
    if let [measure, path, bytes] = &words[..]
        && measure == "measure"
    {
        return report(Path::new(path), bytes.parse().expect("BYTES is a number"));
    }
    let gib: u64 = words
        .first()
        .map_or(1024, |word| word.parse().expect("GIB is a number"));
    let dir = words.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = dir.join(format!("sarsen-load-{}", std::process::id()));
    let began = Instant::now();
    let bytes = gib << 30;
    fill(&path, bytes);
    println!("filled {gib} GiB in {:.1} s", began.elapsed().as_secs_f64());
    let this = std::env::current_exe().expect("this program has a path");
    let mut measure = Command::new(this);
    let ended = measure
        .arg("measure")
        .arg(&path)
        .arg(bytes.to_string())
        .status();
    fs::remove_file(&path).expect("the file is ours");
    assert!(
        ended.expect("it starts").success(),
        "the measurement failed"
    );
}

fn report(path: &Path, bytes: u64) {
    let before = resident();
    let (runtime, (opened, loaded, pages)) = measure(path);
    println!("opened, and serving, in {:.3} s", opened.as_secs_f64());
    println!("{pages} pages loaded in {:.3} s", loaded.as_secs_f64());
    let grown = resident().saturating_sub(before);
    let chunk = grown as f64 / (bytes / CHUNK) as f64;
    println!("{chunk:.1} bytes of memory a chunk (the runtime's own included)");
    runtime.stop();
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("Linux");
    line.split_whitespace()
        .nth(1)
        .expect("a number")
        .parse::<u64>()
        .expect("a number")
        * 1024
}

fn options(disk_bytes: u64) -> Options {
    Options {
        disk_bytes,
        scratch: BufRef::default(),
        scratch_blocks: 512,
        overlay_bytes: 32 << 20,
        zero_ahead: false,
        discard: false,
        entropy: [0; 16],
        breaks: Breaks::NONE,
    }
}

/// Makes a store with `bytes` in use on a new sparse file.
fn fill(path: &Path, bytes: u64) {
    let disk_bytes = bytes + bytes / 32 + (1 << 30);
    let plan = Plan {
        store: StoreId([1; 16]),
        instance_key: [2; 16],
        disk_bytes,
        journal_bytes: None,
        pages: None,
    };
    let formatted = format(&plan).expect("the disk is large enough");
    let mut open = OpenOptions::new();
    let file = open
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .expect("a new file");
    file.set_len(disk_bytes).expect("a sparse file");
    let Formatted {
        geometry,
        writes,
        superblocks,
        ..
    } = formatted;
    for (at, bytes) in writes.iter().chain(&superblocks) {
        file.write_all_at(bytes, *at).expect("the file takes it");
    }
    let mut out = Outbox::default();
    let store = Store::open(options(disk_bytes), &mut out);
    let mut filler = Filler {
        store,
        file,
        slots_at: geometry.slots_at,
        out,
        now: 1,
        written: 0,
    };
    filler.settle();
    assert!(filler.store.is_open(), "{:?}", filler.store.open_error());
    filler.write_all(bytes / CHUNK);
    filler.step(Input::Close {
        op: StoreOp(0),
        how: Closing::Whole,
    });
    filler.settle();
    filler.file.sync_all().expect("the file is written out");
}

struct Filler {
    store: Store,
    file: File,
    slots_at: u64,
    out: Outbox,
    now: u64,
    written: u64,
}

impl Filler {
    fn step(&mut self, input: Input<'_>) {
        self.now += 1000;
        self.store.step(Time(self.now), input, &mut self.out);
    }

    fn write_all(&mut self, chunks: u64) {
        let volume = VolumeMeta {
            id: VolumeId(1),
            family: FamilyId(1),
            name: "full".to_owned(),
            size: chunks * CHUNK,
            layers: vec![LayerMeta {
                id: LayerId(1),
                parent: None,
                frozen: false,
            }],
        };
        self.step(Input::PutVolume {
            op: StoreOp(0),
            volume,
        });
        self.settle();
        for first in (0..chunks).step_by(AT_ONCE as usize) {
            for chunk in first..chunks.min(first + AT_ONCE) {
                let at = ChunkId {
                    family: FamilyId(1),
                    layer: LayerId(1),
                    chunk: ChunkNo(chunk),
                };
                // Of no real block: any number will do.
                let crcs = [chunk as u32; 16];
                self.step(Input::Write {
                    op: StoreOp(chunk as u32),
                    at,
                    run: BlockRun::WHOLE,
                    buf: BufRef::default(),
                    crcs: &crcs,
                    pg: PgId(0),
                    stamp: Stamp::default(),
                    range: None,
                });
            }
            self.settle();
        }
        assert_eq!(self.written, chunks + 1, "all was written");
    }

    /// Ends turns until the store wants nothing more.
    fn settle(&mut self) {
        loop {
            self.step(Input::TurnEnded);
            let mut out = std::mem::take(&mut self.out);
            if out.list.is_empty() {
                return;
            }
            for output in std::mem::take(&mut out.list) {
                match output {
                    Output::Disk(op) => self.carry_out(&op, &out.arena),
                    Output::Done { result, .. } => {
                        result.expect("the store takes it");
                        self.written += 1;
                    }
                    _ => {}
                }
            }
        }
    }

    fn carry_out(&mut self, op: &DiskOp, arena: &[u8]) {
        let id = match op {
            DiskOp::Write {
                id, offset, head, ..
            } => {
                if *offset < self.slots_at {
                    let bytes = &arena[head.start as usize..head.end as usize];
                    self.file
                        .write_all_at(bytes, *offset)
                        .expect("the file takes it");
                }
                id
            }
            DiskOp::ReadMeta { id, offset, len } => {
                let mut bytes = vec![0; *len as usize];
                self.file
                    .read_exact_at(&mut bytes, *offset)
                    .expect("the file is that long");
                return self.step(Input::DiskDone {
                    id: *id,
                    result: Ok(IoData::Bytes(&bytes)),
                });
            }
            DiskOp::Flush { id } | DiskOp::Discard { id, .. } | DiskOp::ZeroRun { id, .. } => id,
            DiskOp::ReadBlocks { .. } | DiskOp::CheckBlocks { .. } => unreachable!("nobody reads"),
        };
        self.step(Input::DiskDone {
            id: *id,
            result: Ok(IoData::None),
        });
    }
}

/// Opens the disk with the real runtime: time until it serves, until all pages are loaded, and their number.
fn measure(path: &Path) -> (Runtime, (Duration, Duration, u32)) {
    let mut runtime =
        Runtime::start(Config::default(), Arc::new(Registry::default())).expect("a runtime");
    let (handle, mut notes) = (
        runtime.handle(),
        runtime.notes().expect("nobody has them yet"),
    );
    let disk = Disk::open(path, Access::ReadWrite).expect("a disk");
    let disk_bytes = disk.bytes();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let waits = builder.enable_all().build().expect("a control plane");
    let id = DiskId(1);
    let times = waits.block_on(async {
        let slot = handle
            .attach_disk(id, disk)
            .await
            .expect("the disk is attached");
        let began = Instant::now();
        let open = Control::OpenDisk {
            disk: id,
            slot,
            options: options(disk_bytes),
        };
        handle.control(open).await.expect("the disk opens");
        let opened = began.elapsed();
        loop {
            match notes.recv().await.expect("the runtime lives").1 {
                Note::TableLoaded { pages } => return (opened, began.elapsed(), pages),
                Note::Opened { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    });
    (runtime, times)
}
