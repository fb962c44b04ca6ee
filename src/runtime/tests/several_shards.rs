//! A volume over two disks on two shards. Boxes hold four letters in tests, so shards whose boxes are full for one
//! another are the rule here, not the exception.

use super::*;
use crate::base::{EXTENT, Prng};
use crate::shard::{RouteChange, Router, ShardNo};

const LONG: u64 = 40 * EXTENT;

/// Two disks, formatted, and what a node of two shards is started with.
struct Site {
    dir: TestDir,
    config: Config,
}

impl Site {
    fn new() -> Site {
        let dir = TestDir::new();
        for name in ["disk0", "disk1"] {
            format_disk(&dir.path(name), DISK_BYTES);
        }
        let config = Config {
            shards: 2,
            ..Config::default()
        };
        Site { dir, config }
    }

    fn start(&self) -> Node {
        let paths = [self.dir.path("disk0"), self.dir.path("disk1")];
        let paths = [paths[0].as_path(), paths[1].as_path()];
        Node::start_with(self.config.clone(), &paths, LONG)
    }
}

/// The first extent boundary where the shard changes.
fn boundary() -> u64 {
    let mut router = Router::default();
    for (disk, shard) in [(3, 0), (4, 1)] {
        let (disk, shard) = (DiskId(disk), ShardNo(shard));
        router.apply(&RouteChange::Place { disk, shard });
    }
    let meta = meta(LONG, &[1]);
    router.apply(&RouteChange::Open {
        volume: VOLUME,
        family: meta.family,
        size: LONG,
        pgs: pgs(2),
    });
    router.volume(VOLUME).unwrap().run(0, LONG).1
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Prng::new(seed).fill(&mut bytes);
    bytes
}

#[test]
fn what_reaches_over_an_extents_end_is_read_back_through_either_shard_and_after_a_crash() {
    let site = Site::new();
    let mut node = site.start();
    let socket = listen(&node, &site.dir);
    let edge = boundary();
    // The first client is on shard 0, the second on shard 1.
    let mut clients = [Client::attach(&socket, "vm"), Client::attach(&socket, "vm")];
    let mut model = vec![0; (2 * EXTENT) as usize];
    let base = edge - EXTENT;
    let cuts = [
        (edge - 100, 300),
        (edge - 5000, 4096 + 5000),
        (edge - 512, 1024),
        (edge - (1 << 20) - 7, (2 << 20) + 9),
        (edge - EXTENT, 2 * EXTENT as usize),
        (edge - 4096, 8192),
        (edge - 1, 2),
    ];
    for (n, (offset, len)) in cuts.into_iter().enumerate() {
        let data = pattern(len, n as u64);
        clients[n % 2].write(offset, &data);
        model[(offset - base) as usize..][..len].copy_from_slice(&data);
        for client in &mut clients {
            assert!(client.read(base, 2 * EXTENT as u32) == model, "write {n}");
        }
    }
    // Zeroes with ragged ends on either side, with and without a hole; then a discard.
    for (flags, offset, len) in [(0, edge - 70_000, 200_001), (2, edge - 300_000, 500_000)] {
        clients[0].ask(flags, 6, 1, offset, len, &[]);
        assert_eq!(clients[0].reply(), (0, 1));
        model[(offset - base) as usize..][..len as usize].fill(0);
        assert!(clients[1].read(base, 2 * EXTENT as u32) == model);
    }
    clients[1].ask(0, 4, 2, edge - 65536, 131_072, &[]);
    assert_eq!(clients[1].reply(), (0, 2));
    model[(edge - 65536 - base) as usize..][..131_072].fill(0);
    assert!(clients[0].read(base, 2 * EXTENT as u32) == model);
    for client in &mut clients {
        client.ask(0, 3, 5, 0, 0, &[]);
        assert_eq!(
            client.reply(),
            (0, 5),
            "a flush is answered on either shard"
        );
    }
    let shards = node.registry.shards();
    assert!(
        shards.iter().all(|s| s.requests > 0 && s.foreign > 0),
        "{shards:?}"
    );
    drop(clients);
    for _ in 0..2 {
        node.runtime.stop(); // without Close, as after a crash
        node = site.start();
        let read = wait(node.handle.read(VOLUME, base, 2 * EXTENT));
        assert!(read.unwrap() == model);
    }
    node.stop();
}

#[test]
fn a_map_over_several_shards_is_in_order_and_a_request_past_the_end_changes_nothing() {
    let site = Site::new();
    let node = site.start();
    // Every third extent is written.
    for n in (0..40).step_by(3) {
        let data = vec![7; EXTENT as usize];
        wait(node.handle.write(VOLUME, n * EXTENT, data)).unwrap();
    }
    let map = wait(node.handle.map(VOLUME, 1000, LONG - 1000)).unwrap();
    let mut want = Vec::new();
    for n in 0..40 {
        let zero = n % 3 != 0;
        match want.last_mut() {
            Some(MapRun {
                len, zero: before, ..
            }) if *before == zero => *len += EXTENT,
            _ => want.push(MapRun {
                len: EXTENT,
                zero,
                hole: zero,
            }),
        }
    }
    want[0].len -= 1000;
    assert_eq!(map, want);
    let beyond = wait(node.handle.write_zeroes(VOLUME, 0, LONG + 512));
    assert_eq!(beyond, Err(IoError::OutOfRange));
    assert_eq!(wait(node.handle.read(VOLUME, 0, 1)).unwrap(), [7]);
    wait(node.handle.write_zeroes(VOLUME, 0, LONG)).unwrap();
    let empty = wait(node.handle.map(VOLUME, 0, LONG)).unwrap();
    assert!(empty.iter().all(|run| run.zero), "{empty:?}");
    node.stop();
}

#[test]
fn an_error_of_one_part_is_the_answer_to_the_whole() {
    let site = Site::new();
    let node = site.start();
    let edge = boundary();
    // One shard closes the volume behind the router's back: its extents are refused, never served by another.
    let gone = ShardNo(1);
    let close = || Control::CloseVolume { volume: VOLUME };
    wait(async {
        let mail = |done| super::super::mailbox::Mail::Control {
            control: Box::new(close()),
            done,
        };
        let closed = node.handle.ask_shard(gone, mail).await;
        assert!(matches!(closed, Ok(Ok(()))));
    });
    let over = wait(node.handle.write_zeroes(VOLUME, edge - 8192, 16384));
    assert_eq!(over, Err(IoError::Closed));
    let alone = (edge - 4096, edge);
    let results = [alone.0, alone.1].map(|at| wait(node.handle.read(VOLUME, at, 4096)).is_ok());
    assert!(results[0] != results[1], "one side is served: {results:?}");
    let socket = listen(&node, &site.dir);
    let mut clients = [Client::attach(&socket, "vm"), Client::attach(&socket, "vm")];
    for client in &mut clients {
        client.ask(0, 0, 9, edge - 4096, 8192, &[]);
        let (error, cookie) = client.reply();
        assert!(error != 0 && cookie == 9);
    }
    node.stop();
}

#[test]
fn a_volume_that_is_closed_is_refused_on_every_shard_and_opened_again_whole() {
    let site = Site::new();
    let node = site.start();
    let data = pattern(3 << 20, 4);
    let at = boundary() - (1 << 20);
    wait(node.handle.write(VOLUME, at, data.clone())).unwrap();
    wait(node.handle.control(Control::CloseVolume { volume: VOLUME })).unwrap();
    let closed = wait(node.handle.read(VOLUME, at, 4096));
    assert_eq!(closed, Err(IoError::Closed));
    let held = wait(node.handle.control(Control::HoldVolume { volume: VOLUME }));
    assert_eq!(held, Err(ControlError::NoSuchVolume));
    wait(node.open_volume(LONG, &[1])).unwrap();
    assert!(wait(node.handle.read(VOLUME, at, 3 << 20)).unwrap() == data);
    let unknown = vec![(PgId(0), DiskId(99))];
    let meta = meta(LONG, &[1]);
    let open = Control::OpenVolume { meta, pgs: unknown };
    let refused = wait(node.handle.control(open));
    assert_eq!(refused, Err(ControlError::NoSuchDisk));
    node.stop();
}

#[test]
fn a_volume_that_lost_a_disk_is_served_by_the_shards_of_the_others() {
    let site = Site::new();
    let mut node = site.start();
    for (_, disk) in &mut node.pgs {
        if *disk == DiskId(4) {
            *disk = DiskId(99);
        }
    }
    wait(node.open_volume(LONG, &[1])).unwrap();
    let served = |n: u64| wait(node.handle.read(VOLUME, n * EXTENT, 512)).is_ok();
    let served: Vec<bool> = (0..40).map(served).collect();
    let edge = (boundary() / EXTENT) as usize;
    assert!(served[edge - 1] != served[edge], "{served:?}");
    let over = wait(node.handle.write_zeroes(VOLUME, boundary() - 4096, 8192));
    assert!(over.is_err());
    node.stop();
}

#[test]
fn a_new_layer_is_a_cut_over_all_shards_while_clients_write() {
    let site = Site::new();
    let node = site.start();
    let socket = listen(&node, &site.dir);
    let edge = boundary();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..4u64)
        .map(|n| {
            let (stop, socket) = (Arc::clone(&stop), socket.clone());
            std::thread::spawn(move || {
                let mut client = Client::attach(&socket, "vm");
                let (at, mut round) = (edge - 8192 + n * 4096, 0u8);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    round = round.wrapping_add(1);
                    client.write(at, &[round; 4096]);
                    assert!(client.read(at, 4096) == [round; 4096]);
                }
                (at, round)
            })
        })
        .collect();
    for newest in 2..8 {
        let layers: Vec<u64> = (1..=newest).collect();
        wait(node.open_volume(LONG, &layers)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        let (at, round) = writer.join().unwrap();
        assert!(wait(node.handle.read(VOLUME, at, 4096)).unwrap() == [round; 4096]);
    }
    node.stop();
}

#[test]
fn a_bench_goes_over_all_shards_with_boxes_that_are_full_all_the_time() {
    let site = Site::new();
    let node = site.start();
    for (pattern, block_bytes) in [
        (Pattern::RandWrite, 4096),
        (Pattern::RandRead, 512),
        (Pattern::Write, 3 << 20),
        (Pattern::Read, 5 << 20),
    ] {
        let spec = BenchSpec {
            volume: VOLUME,
            span_bytes: LONG,
            pattern,
            block_bytes,
            depth: 128,
            time: Duration::from_millis(400),
            seed: 1,
        };
        let measured = wait(node.handle.bench(spec)).unwrap();
        // Slow machines do few large ones; what matters is that all are answered.
        assert!(measured.operations > 0, "{pattern:?}: {measured:?}");
    }
    let shards = node.registry.shards();
    assert!(shards.iter().all(|s| s.foreign > 100), "{shards:?}");
    node.stop();
}

#[test]
fn clients_of_all_shards_are_fed_when_payload_memory_is_short() {
    let site = Site::new();
    // 64 MiB, and three clients a shard that want 31 MiB each, and small ones between.
    let config = Config {
        buffer_bytes: 1,
        ..site.config.clone()
    };
    let site = Site { config, ..site };
    let node = site.start();
    let socket = listen(&node, &site.dir);
    let threads: Vec<_> = (0..12u64)
        .map(|n| {
            let socket = socket.clone();
            std::thread::spawn(move || {
                let mut client = Client::attach(&socket, "vm");
                for round in 0..4u64 {
                    let (at, len) = match n < 6 {
                        true => (n * 3_000_000 + 77, 31 << 20),
                        false => (n * 10 * 4096, 40_000),
                    };
                    if n < 6 {
                        client.read(at, len);
                    } else {
                        client.write(at, &pattern(len as usize, round));
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    node.stop();
}

/// Starts a load without an end, and waits until it goes between the shards.
fn endless_load(node: &Node) -> std::thread::JoinHandle<Result<Measurement, BenchError>> {
    let spec = BenchSpec {
        volume: VOLUME,
        span_bytes: LONG,
        pattern: Pattern::RandWrite,
        block_bytes: 8192,
        depth: 256,
        time: Duration::from_secs(600),
        seed: 1,
    };
    let handle = node.handle.clone();
    let load = std::thread::spawn(move || wait(handle.bench(spec)));
    until("the load goes between the shards", || {
        node.registry.shards().iter().all(|s| s.foreign > 100)
    });
    load
}

#[test]
fn the_runtime_stops_with_requests_between_its_shards() {
    let site = Site::new();
    for _ in 0..3 {
        let node = site.start();
        let load = endless_load(&node);
        node.runtime.stop();
        assert_eq!(load.join().unwrap(), Err(BenchError::Stopped));
    }
    let node = site.start();
    let load = endless_load(&node);
    // In good order: the volume is closed first, so that what is in flight ends and no more comes.
    wait(node.handle.control(Control::CloseVolume { volume: VOLUME })).unwrap();
    assert_eq!(load.join().unwrap(), Err(BenchError::Io(IoError::Closed)));
    node.stop();
}

#[test]
fn the_stores_close_under_load_and_nothing_hangs() {
    let site = Site::new();
    let node = site.start();
    let load = endless_load(&node);
    wait(node.handle.control(Control::Close {
        how: Closing::Whole,
    }))
    .unwrap();
    assert!(matches!(load.join().unwrap(), Err(BenchError::Io(_))));
    node.runtime.stop();
}

#[test]
fn clients_are_spread_over_the_shards_and_counted_on_all() {
    let site = Site::new();
    let node = site.start();
    let socket = listen(&node, &site.dir);
    let mut clients: Vec<_> = (0..6).map(|_| Client::attach(&socket, "vm")).collect();
    until("six clients are counted", || {
        node.handle.connections(VOLUME) == 6
    });
    // All in the first extent, which one shard has: half of them ask from the other one.
    for client in &mut clients {
        client.read(0, 4096);
    }
    let shards = node.registry.shards();
    assert_eq!(
        shards.iter().map(|s| s.foreign).sum::<u64>(),
        3,
        "{shards:?}"
    );
    clients.truncate(1);
    until("one is left", || node.handle.connections(VOLUME) == 1);
    drop(clients);
    node.stop();
}
