//! What the steps of the data path cost, in nanoseconds, without any I/O: `cargo bench --bench steps`.

use divan::{Bencher, counter::ItemsCount};
use sarsen::base::{
    BlockNo, Breaks, BufId, BufRef, DiskId, DiskSlot, FamilyId, LayerId, PgId, Request,
    RequestKind, StoreId, Time, Token, VolumeId, crc,
};
use sarsen::frontend::nbd::{Event, ExportInfo, Limits, Session};
use sarsen::shard::{Control, ControlId, Input, Outbox, Output, Shard};
use sarsen::store::{DiskOp, IoData, LayerMeta, Options, Plan, VolumeMeta, format};
use std::collections::BTreeMap;

fn main() {
    divan::main();
}

/// A shard whose disk answers at once and keeps metadata only: payload is not looked at.
struct Bare {
    shard: Shard,
    /// 4 KiB blocks of metadata that were written, by their offset.
    meta: BTreeMap<u64, Vec<u8>>,
    out: Outbox,
    now: u64,
    replies: u64,
    /// Answers that the next turn brings.
    answers: Vec<(DiskSlot, DiskOp)>,
}

const VOLUME: u64 = 4 << 30;
/// Memory that the shard is lent.
const LENT: BufRef = BufRef {
    id: BufId(u32::MAX),
    block: 0,
};

impl Bare {
    fn new() -> Bare {
        let disk_bytes = 8 << 30;
        let (store, instance_key) = (StoreId([1; 16]), [2; 16]);
        let plan = Plan {
            store,
            instance_key,
            disk_bytes,
            journal_bytes: None,
            pages: None,
        };
        let formatted = format(&plan).expect("the disk is large enough");
        let mut bare = Bare {
            shard: Shard::alone(Breaks::NONE),
            meta: BTreeMap::new(),
            out: Outbox::default(),
            now: 1,
            replies: 0,
            answers: Vec::new(),
        };
        for (at, bytes) in formatted.writes.iter().chain(&formatted.superblocks) {
            bare.keep(*at, bytes);
        }
        let (buf, blocks) = (LENT, 2048);
        bare.step(Input::Memory { buf, blocks });
        let options = Options {
            disk_bytes,
            scratch: BufRef::default(),
            scratch_blocks: 128,
            overlay_bytes: 64 << 20,
            zero_ahead: false,
            discard: false,
            entropy: [0; 16],
            breaks: Breaks::NONE,
        };
        let (disk, slot) = (DiskId(0), DiskSlot(0));
        bare.control(Control::OpenDisk {
            disk,
            slot,
            options,
        });
        let meta = VolumeMeta {
            id: VolumeId(1),
            family: FamilyId(1),
            name: "bench".into(),
            size: VOLUME,
            layers: vec![LayerMeta {
                id: LayerId(1),
                parent: None,
                frozen: false,
            }],
        };
        bare.control(Control::OpenVolume {
            meta,
            pgs: vec![(PgId(0), DiskId(0))],
        });
        bare
    }

    fn keep(&mut self, at: u64, bytes: &[u8]) {
        for (n, block) in bytes.chunks(4096).enumerate() {
            self.meta.insert(at + n as u64 * 4096, block.to_vec());
        }
    }

    fn control(&mut self, control: Control) {
        self.step(Input::Control {
            id: ControlId(0),
            control,
        });
        for _ in 0..2000 {
            self.turn();
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let mut out = std::mem::take(&mut self.out);
        self.shard.step(Time(self.now), input, &mut out);
        let mut list = std::mem::take(&mut out.list);
        for output in list.drain(..) {
            match output {
                Output::Disk { disk, op } => {
                    // Pages and roots have to come back as they were; batches and payload do not.
                    if let DiskOp::Write {
                        offset,
                        ref head,
                        ref body,
                        ..
                    } = op
                        && body.is_empty()
                    {
                        let bytes =
                            out.store.arena[head.start as usize..head.end as usize].to_vec();
                        self.keep(offset, &bytes);
                    }
                    self.answers.push((disk, op));
                }
                Output::Checksum { op, blocks, .. } => {
                    let crcs = [0; 16];
                    let mut inner = Outbox::default();
                    std::mem::swap(&mut inner.store, &mut out.store);
                    self.out = inner;
                    self.step(Input::Checksummed {
                        op,
                        crcs: &crcs[..blocks as usize],
                    });
                    std::mem::swap(&mut self.out.store, &mut out.store);
                }
                Output::Reply { result, .. } => {
                    assert_eq!(result, Ok(()));
                    self.replies += 1;
                }
                Output::ControlDone { result, .. } => assert_eq!(result, Ok(())),
                _ => {}
            }
        }
        out.list = list;
        out.clear();
        self.out = out;
    }

    /// Answers what was asked of the disk, and ends the turn.
    fn turn(&mut self) {
        for (disk, op) in std::mem::take(&mut self.answers) {
            match op {
                DiskOp::ReadMeta { id, offset, len } => {
                    let blank = vec![0; 4096];
                    let bytes: Vec<u8> = (0..u64::from(len) / 4096)
                        .flat_map(|n| {
                            self.meta
                                .get(&(offset + n * 4096))
                                .unwrap_or(&blank)
                                .clone()
                        })
                        .collect();
                    self.step(Input::Disk {
                        disk,
                        id,
                        result: Ok(IoData::Bytes(&bytes)),
                    });
                }
                DiskOp::ReadBlocks { id, blocks, .. } | DiskOp::CheckBlocks { id, blocks, .. } => {
                    let crcs = [0; 16];
                    let crcs = IoData::Crcs(&crcs[..blocks as usize]);
                    self.step(Input::Disk {
                        disk,
                        id,
                        result: Ok(crcs),
                    });
                }
                DiskOp::Write { id, .. }
                | DiskOp::Flush { id }
                | DiskOp::Discard { id, .. }
                | DiskOp::ZeroRun { id, .. } => {
                    self.step(Input::Disk {
                        disk,
                        id,
                        result: Ok(IoData::None),
                    });
                }
            }
        }
        self.step(Input::TurnEnded);
        self.now += 20_000;
    }

    fn request(&mut self, kind: RequestKind, offset: u64, len: u64) {
        let buf = BufRef {
            id: BufId((offset / 4096) as u32 % 1000),
            block: 0,
        };
        let (token, volume) = (Token(0), VolumeId(1));
        self.step(Input::Request(Request {
            token,
            volume,
            kind,
            offset,
            len,
            buf,
            scratch: Request::scratch_of(kind, offset, len, buf),
        }));
    }

    /// 32 requests of 4 KiB at scattered places, and turns until all are answered.
    fn burst(&mut self, kind: RequestKind, seed: u64) {
        let want = self.replies + 32;
        for n in 0..32u64 {
            let block = sarsen::base::mix64(seed * 32 + n) % (VOLUME / 4096);
            self.request(kind, block * 4096, 4096);
        }
        while self.replies < want {
            self.turn();
        }
    }
}

#[divan::bench(sample_count = 50, sample_size = 200)]
fn random_writes_of_4_kib(bencher: Bencher) {
    let mut bare = Bare::new();
    let mut seed = 0;
    bencher.counter(ItemsCount::new(32u32)).bench_local(|| {
        seed += 1;
        bare.burst(RequestKind::Write, seed);
    });
}

#[divan::bench(sample_count = 50, sample_size = 200)]
fn random_reads_of_4_kib(bencher: Bencher) {
    let mut bare = Bare::new();
    for seed in 0..2000 {
        bare.burst(RequestKind::Write, seed);
    }
    (0..1000).for_each(|_| bare.turn());
    let mut seed = 0;
    bencher.counter(ItemsCount::new(32u32)).bench_local(|| {
        seed += 1;
        bare.burst(RequestKind::Read, seed % 2000);
    });
}

/// The journal alone: writes side by side into few chunks, so that finding their entries costs next to nothing.
#[divan::bench(sample_count = 50, sample_size = 200)]
fn journal_appends_of_4_kib(bencher: Bencher) {
    let mut bare = Bare::new();
    bencher.counter(ItemsCount::new(32u32)).bench_local(|| {
        let want = bare.replies + 32;
        (0..32).for_each(|n| bare.request(RequestKind::Write, n * 4096, 4096));
        while bare.replies < want {
            bare.turn();
        }
    });
}

/// The coordinator's part and the search in the table: a map reads nothing.
#[divan::bench(sample_count = 50, sample_size = 200)]
fn table_lookups(bencher: Bencher) {
    let mut bare = Bare::new();
    for seed in 0..2000 {
        bare.burst(RequestKind::Write, seed);
    }
    let mut seed = 0;
    bencher.counter(ItemsCount::new(32u32)).bench_local(|| {
        seed += 1;
        bare.burst(RequestKind::Map, seed % 2000);
    });
}

/// A session whose client has attached an export.
fn attached() -> Session {
    let (mut out, name) = (Vec::new(), b"bench");
    let mut session = Session::new(Limits::default(), &mut out);
    let mut hello = 3u32.to_be_bytes().to_vec(); // fixed newstyle, no zeroes
    hello.extend(b"IHAVEOPT");
    hello.extend(7u32.to_be_bytes()); // GO
    hello.extend((6 + name.len() as u32).to_be_bytes());
    hello.extend((name.len() as u32).to_be_bytes());
    hello.extend(name);
    hello.extend([0; 2]);
    let mut taken = 0;
    while session.export().is_none() {
        let (more, event) = session.receive(&hello[taken..], &mut out);
        taken += more;
        match event {
            Event::Open(_) => {
                let info = ExportInfo {
                    volume: VolumeId(1),
                    size: VOLUME,
                    block_size: 4096,
                    read_only: false,
                    description: "",
                };
                session.opened(Ok(info), &mut out);
            }
            Event::Answered => {}
            other => panic!("{other:?}"),
        }
    }
    session
}

#[divan::bench]
fn nbd_request_parsed_and_answered(bencher: Bencher) {
    let (mut session, mut out) = (attached(), Vec::new());
    let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
    request.extend([0, 0, 0, 0]); // no flags, READ
    request.extend(9u64.to_be_bytes());
    request.extend(4096u64.to_be_bytes());
    request.extend(4096u32.to_be_bytes());
    bencher.bench_local(|| {
        out.clear();
        let (_, event) = session.receive(divan::black_box(&request), &mut out);
        let Event::Command(command) = event else {
            panic!("{event:?}");
        };
        session.reply(command.slot, Ok(()), &[], &mut out)
    });
}

#[divan::bench]
fn checksum_of_a_block(bencher: Bencher) {
    let block = vec![7u8; 4096];
    bencher.bench(|| crc::of_block(LayerId(1), BlockNo(9), divan::black_box(&block)));
}
