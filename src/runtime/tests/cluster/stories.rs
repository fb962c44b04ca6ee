//! What a volume with two copies does, told in single steps.

use super::super::*;
use super::site::{PGS, alone, plan, soon};
use super::*;
use crate::base::{EXTENT, Prng};
use crate::protocol::replication::Reconfigure;
use crate::protocol::report::Report;
use crate::shard::fabric::Order;
use crate::shard::{Reach, What};
use crate::store::Openings;
use crate::wire::Version;
use std::collections::BTreeMap;

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Prng::new(seed).fill(&mut bytes);
    bytes
}

/// Where, and how much: small, ragged, whole chunks, over extents.
const WRITES: [(u64, usize); 8] = [
    (0, 4096),
    (5 * 4096 + 512, 512),
    (70_001, 17),
    (65536 * 3, 65536),
    (65536 * 9 - 4096, 3 * 65536),
    (EXTENT - 9000, 18_001),
    (3 * EXTENT - 100_000, (2 << 20) + 123),
    (7 * EXTENT + 1, 3_000_001),
];

fn write_all(site: &Site, place: usize, model: &mut [u8], seed: u64) {
    for (n, (offset, len)) in WRITES.into_iter().enumerate() {
        let data = pattern(len, seed + n as u64);
        site.write(place, offset, &data);
        model[offset as usize..][..len].copy_from_slice(&data);
    }
}

fn is_same(site: &Site, place: usize, model: &[u8]) {
    for (offset, len) in WRITES {
        let from = (offset / 4096 * 4096).saturating_sub(8192);
        let len = len as u64 + 40_000;
        let read = site.read(place, from, len);
        assert!(
            read == model[from as usize..][..len as usize],
            "at {offset}"
        );
    }
}

#[test]
fn what_is_written_on_one_node_lies_on_the_disks_of_both_and_is_read_back() {
    let mut site = Site::start(plan(2, 1));
    site.open(0, 1);
    let mut model = vec![0; VOLUME_BYTES as usize];
    write_all(&site, 0, &mut model, 1);
    is_same(&site, 0, &model);
    assert!(site.read(0, 0, VOLUME_BYTES) == model);
    let disks: Vec<_> = site.nodes.iter().map(|node| node.disks[0]).collect();
    let dir = site.stop();
    for disk in disks {
        alone(&dir, disk, |read| {
            assert!(read(0, VOLUME_BYTES) == model, "{disk}")
        });
    }
}

#[test]
fn clients_write_read_flush_zero_and_discard_on_every_shard() {
    for shards in [1, 2] {
        let mut site = Site::start(plan(2, shards));
        site.open(0, 1);
        wait((site.nodes[0].node.handle).set_exports(vec![export(VOLUME_BYTES, None)]));
        let socket = listen(&site.nodes[0].node, &site.dir);
        let mut clients = [Client::attach(&socket, "vm"), Client::attach(&socket, "vm")];
        let mut model = vec![0; VOLUME_BYTES as usize];
        for (n, (offset, len)) in WRITES.into_iter().enumerate() {
            let data = pattern(len, n as u64);
            clients[n % 2].write(offset, &data);
            model[offset as usize..][..len].copy_from_slice(&data);
            let at = offset as usize;
            assert!(clients[(n + 1) % 2].read(offset, len as u32) == model[at..][..len]);
        }
        // Zeroes, zeroes that stay allocated, a discard of whole chunks; then a flush.
        for (n, (kind, flags, offset, len)) in [
            (6, 0, EXTENT - 8192, 16_000u32),
            (6, 2, 3 * EXTENT - 70_000, 140_001),
            (4, 0, 65536 * 8, 3 * 65536),
        ]
        .into_iter()
        .enumerate()
        {
            clients[0].ask(flags, kind, n as u64, offset, len, &[]);
            assert_eq!(clients[0].reply(), (0, n as u64));
            model[offset as usize..][..len as usize].fill(0);
        }
        for client in &mut clients {
            client.ask(0, 3, 5, 0, 0, &[]);
            assert_eq!(client.reply(), (0, 5));
        }
        is_same(&site, 0, &model);
        let map = wait(site.nodes[0].node.handle.map(VOLUME, 0, VOLUME_BYTES)).unwrap();
        assert_eq!(map.iter().map(|run| run.len).sum::<u64>(), VOLUME_BYTES);
        drop(clients);
        // The other node takes the volume over; it reads all of it, half of it from here.
        site.open(1, 2);
        assert!(site.read(1, 0, VOLUME_BYTES) == model, "{shards} shards");
        site.stop();
    }
}

#[test]
fn a_node_without_replicas_coordinates_and_reads_over_the_network_only() {
    for shards in [1, 2] {
        let mut site = Site::start(plan(2, shards).only(1));
        site.open(0, 1);
        let mut model = vec![0; VOLUME_BYTES as usize];
        write_all(&site, 0, &mut model, 7);
        is_same(&site, 0, &model);
        // As much at once as no room can hold: what waits gets its turn.
        assert!(site.read(0, 0, VOLUME_BYTES) == model);
        let handle = site.nodes[0].handle();
        let readers: Vec<_> = (0..24u64)
            .map(|n| {
                let handle = handle.clone();
                let at = n * (2 << 20);
                std::thread::spawn(move || (at, wait(handle.read(VOLUME, at, 2 << 20)).unwrap()))
            })
            .collect();
        for reader in readers {
            let (at, read) = reader.join().unwrap();
            assert!(read == model[at as usize..][..2 << 20], "at {at}");
        }
        site.stop();
    }
}

#[test]
fn links_between_the_first_shards_alone_carry_what_is_for_the_others() {
    let mut site = Site::unlinked(plan(2, 2));
    for shard in 0..2 {
        // Each shard of the one has a link to the first shard of the other only.
        site.link((0, shard), (1, 0));
        site.link((1, shard), (0, 0));
    }
    site.connected(0, 1);
    site.open(0, 1);
    let mut model = vec![0; VOLUME_BYTES as usize];
    write_all(&site, 0, &mut model, 3);
    is_same(&site, 0, &model);
    site.open(1, 2);
    assert!(site.read(1, 0, VOLUME_BYTES) == model);
    write_all(&site, 1, &mut model, 30);
    assert!(site.read(1, 0, VOLUME_BYTES) == model);
    site.stop();
}

#[test]
fn three_nodes_take_a_volume_from_one_another_and_find_everything() {
    let mut site = Site::start(plan(3, 2));
    let mut model = vec![0; VOLUME_BYTES as usize];
    for (turn, place) in [0, 1, 2, 0].into_iter().enumerate() {
        site.open(place, turn as u32 + 1);
        is_same(&site, place, &model);
        write_all(&site, place, &mut model, 100 * turn as u64);
        is_same(&site, place, &model);
    }
    site.stop();
}

#[test]
fn a_replica_that_cannot_be_reached_holds_the_write_until_it_is_out() {
    let mut site = Site::start(plan(2, 1));
    site.open(0, 1);
    site.write(0, 0, &[1; 8192]);
    site.cut(0, 1);
    let handle = site.nodes[0].handle();
    let writer = std::thread::spawn(move || wait(handle.write(VOLUME, 4096, vec![2; 8192])));
    // It is accused, again and again, and nothing is acknowledged.
    for _ in 0..3 {
        let (pg, disk) = site.nodes[0].hears("it is accused", |said| match said.what {
            What::Report(Report::Accused { pg, disk, .. }) => Some((pg, disk)),
            _ => None,
        });
        assert!(disk == site.nodes[1].disks[0] && pg.0 < PGS);
    }
    assert!(!writer.is_finished(), "one of two in sync is not enough");
    let out = site.nodes[1].disks[0];
    for pg in 0..PGS as usize {
        site.change(pg, Reconfigure::Evict { disk: out });
    }
    writer.join().unwrap().unwrap();
    assert_eq!(site.read(0, 0, 4096), [1; 4096]);
    assert_eq!(site.read(0, 4096, 8192), [2; 8192]);
    site.stop();
}

#[test]
fn a_replica_that_comes_back_is_filled_over_the_network_and_serves_by_itself() {
    for shards in [1, 2] {
        let mut site = Site::start(plan(2, shards));
        site.open(0, 1);
        let mut model = vec![0; VOLUME_BYTES as usize];
        write_all(&site, 0, &mut model, 1);
        site.cut(0, 1);
        let gone = site.nodes[1].disks.clone();
        for pg in 0..PGS as usize {
            let of = site.pgs[pg].clone();
            let disk = gone.iter().copied().find(|disk| of.role(*disk).is_some());
            let disk = disk.unwrap();
            site.change(pg, Reconfigure::Evict { disk });
        }
        write_all(&site, 0, &mut model, 50);
        site.join(0, 1);
        for pg in 0..PGS as usize {
            let of = site.pgs[pg].clone();
            let disk = gone.iter().copied().find(|disk| of.role(*disk).is_some());
            let disk = disk.unwrap();
            site.change(pg, Reconfigure::Join { disk });
        }
        let handle = site.nodes[0].handle();
        let writer =
            std::thread::spawn(move || wait(handle.write(VOLUME, 20 << 20, vec![9; 100_000])));
        model[20 << 20..][..100_000].fill(9);
        // They are told again and again, as they may be lost.
        let mut filled = BTreeMap::new();
        soon("all are filled", || {
            site.nodes[1].order(Order::SayAgain);
            for said in site.nodes[1].hears_all() {
                if let What::Report(Report::Filled { pg, disk, session }) = said.what {
                    filled.insert(pg.0 as usize, (disk, session));
                }
            }
            filled.len() == PGS as usize
        });
        writer.join().unwrap().unwrap();
        for (pg, (disk, session)) in filled {
            site.change(pg, Reconfigure::Promote { disk, session });
        }
        // Without the first node.
        site.cut(0, 1);
        for pg in 0..PGS as usize {
            let of = site.pgs[pg].clone();
            let own = site.nodes[0].disks.clone();
            let disk = own.into_iter().find(|disk| of.role(*disk).is_some());
            let disk = disk.unwrap();
            site.change(pg, Reconfigure::Evict { disk });
        }
        site.open(1, 2);
        assert!(site.read(1, 0, VOLUME_BYTES) == model, "{shards} shards");
        site.stop();
    }
}

#[test]
fn who_has_lost_a_volume_gets_no_answer_to_what_he_writes_and_changes_nothing() {
    let mut site = Site::start(plan(2, 1));
    site.open(0, 1);
    site.write(0, 0, &[1; 4096]);
    // The other one takes it over, and seals all of it.
    site.open(1, 2);
    let settle = Order::Settle {
        volume: VOLUME,
        pgs: (0..PGS).map(PgId).collect(),
    };
    let number = site.nodes[1].order(settle);
    site.nodes[1].all_say(number, What::Settled { volume: VOLUME });
    let handle = site.nodes[0].handle();
    let writer = std::thread::spawn(move || wait(handle.write(VOLUME, 0, vec![2; 4096])));
    site.write(1, 4096, &[3; 4096]);
    for _ in 0..20 {
        assert_eq!(site.read(1, 0, 4096), [1; 4096]);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!writer.is_finished(), "it is refused by the replicas");
    let volume = VOLUME;
    site.nodes[0].order(Order::Close { volume });
    assert_eq!(writer.join().unwrap(), Err(IoError::Closed));
    assert_eq!(site.read(1, 0, 4096), [1; 4096]);
    site.stop();
}

#[test]
fn what_is_ordered_is_done_in_order_and_every_shard_says_how_far_it_came() {
    let mut site = Site::start(plan(2, 2));
    site.open(0, 1);
    let volume = VOLUME;
    let pgs: Vec<PgId> = (0..PGS).map(PgId).collect();
    let number = site.nodes[0].order(Order::Settle { volume, pgs });
    site.nodes[0].all_say(number, What::Settled { volume });
    site.write(0, 0, &[1; 4096]);
    for _ in 0..3 {
        let number = site.nodes[0].order(Order::Pause { volume });
        site.nodes[0].all_say(number, What::Drained { volume });
        let handle = site.nodes[0].handle();
        let reader = std::thread::spawn(move || wait(handle.read(VOLUME, 0, 4096)));
        wait(async { assert!(site.nodes[0].node.handle.turn().await) });
        assert!(!reader.is_finished(), "it is paused");
        site.nodes[0].order(Order::Resume { volume });
        assert_eq!(reader.join().unwrap().unwrap(), [1; 4096]);
    }
    let version = Version::PRESENT;
    site.hears_link(0, 1, Reach::There(version));
    site.cut(0, 1);
    // What was not opened here is refused, whatever is routed.
    wait(site.nodes[0].node.handle.stop_serving(volume));
    let refused = wait(site.nodes[0].node.handle.read(VOLUME, 0, 4096));
    assert_eq!(refused, Err(IoError::Closed));
    let open = site.nodes[0].node.open_volume(VOLUME_BYTES, &[1]);
    // Its PGs are those of a node that is alone, and there are none.
    assert!(wait(open).is_err());
    site.stop();
}

#[test]
fn a_store_keeps_the_numbers_of_its_openings() {
    let site = Site::start(plan(1, 1).only(0));
    let disk = site.nodes[0].disks[0];
    let handle = site.nodes[0].handle();
    assert_eq!(wait(handle.openings(disk)), Some(Openings::default()));
    assert_eq!(wait(handle.openings(DiskId(99))), None);
    let openings = Openings {
        last: 7,
        recorded: 5,
    };
    wait(handle.control(Control::PutOpenings { disk, openings })).unwrap();
    assert_eq!(wait(handle.openings(disk)), Some(openings));
    let dir = site.stop();
    let site = Site::again(dir, plan(1, 1).only(0));
    assert_eq!(wait(site.nodes[0].handle().openings(disk)), Some(openings));
    site.stop();
}

#[test]
fn a_node_of_a_cluster_is_not_started_without_memory_for_links() {
    let config = Config {
        cluster: Some(crate::protocol::membership::Incarnation(1)),
        ..Config::default()
    };
    let refused = Runtime::start(config, Arc::new(Registry::default())).unwrap_err();
    assert!(refused.to_string().contains("link_bytes is 0"), "{refused}");
}
