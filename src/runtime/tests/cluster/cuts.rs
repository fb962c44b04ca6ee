//! Links that are cut while much is in flight.

use super::super::*;
use super::site::{Plan, Wire, alone, link_by, plan, soon, tcp};
use super::*;
use crate::base::Prng;
use crate::observe::CUTS;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn cuts(site: &Site, place: usize, why: &str) -> u64 {
    let at = CUTS.iter().position(|name| *name == why).unwrap();
    let numbers = site.nodes[place].node.registry.link_numbers();
    numbers.iter().map(|of| of.cut[at]).sum()
}

/// A relay between two sockets, which changes one byte of the first block that is full of 0xa5.
fn corrupting_relay(one: TcpStream, other: TcpStream, has_struck: Arc<AtomicBool>) {
    let pump = |mut from: TcpStream, mut to: TcpStream, strike: Option<Arc<AtomicBool>>| {
        std::thread::spawn(move || {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(len @ 1..) = from.read(&mut bytes) {
                let part = &mut bytes[..len];
                let run = part.windows(64).position(|part| part == [0xa5; 64]);
                if let (Some(at), Some(struck)) = (run, &strike)
                    && !struck.swap(true, Ordering::SeqCst)
                {
                    part[at + 7] ^= 1;
                }
                if to.write_all(part).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        })
    };
    let (back, forth) = (one.try_clone().unwrap(), other.try_clone().unwrap());
    pump(one, other, Some(has_struck));
    pump(forth, back, None);
}

#[test]
fn a_block_with_a_wrong_checksum_ends_the_link_and_nothing_else() {
    let mut site = Site::unlinked(plan(2, 1));
    let has_struck = Arc::new(AtomicBool::new(false));
    let ((one, mid), (dim, other)) = (tcp(), tcp());
    corrupting_relay(mid, dim, Arc::clone(&has_struck));
    site.link_by((0, 0), (1, 0), (one, other));
    site.connected(0, 1);
    site.open(0, 1);
    site.write(0, 0, &[1; 4096]);
    let handle = site.nodes[0].handle();
    let writer = std::thread::spawn(move || wait(handle.write(VOLUME, 65536, vec![0xa5; 131_072])));
    soon("the relay strikes", || has_struck.load(Ordering::SeqCst));
    for (a, b) in [(0, 1), (1, 0)] {
        site.hears_link(a, b, crate::shard::Reach::Gone);
    }
    assert_eq!(cuts(&site, 1, "checksum"), 1);
    site.wires.clear();
    site.join(0, 1);
    writer.join().unwrap().unwrap();
    let disks: Vec<_> = site.nodes.iter().map(|node| node.disks[0]).collect();
    let dir = site.stop();
    for disk in disks {
        alone(&dir, disk, |read| {
            assert!(read(65536, 131_072) == vec![0xa5; 131_072]);
            assert_eq!(read(0, 4096), [1; 4096]);
        });
    }
}

#[test]
fn a_link_that_is_cut_amid_large_writes_costs_nothing_but_time() {
    let mut site = Site::start(plan(2, 1));
    site.open(0, 1);
    let mut data = vec![0; 6 << 20];
    for round in 0..5u64 {
        Prng::new(round).fill(&mut data);
        let (handle, bytes) = (site.nodes[0].handle(), data.clone());
        let writer = std::thread::spawn(move || wait(handle.write(VOLUME, 12_345, bytes)));
        let received = |site: &Site| {
            let numbers = site.nodes[1].node.registry.link_numbers();
            numbers.iter().map(|of| of.bytes_received).sum::<u64>()
        };
        let before = received(&site);
        soon("some of it is there", || {
            received(&site) > before + (1 << 20)
        });
        site.cut(0, 1);
        site.join(0, 1);
        writer.join().unwrap().unwrap();
        assert!(site.read(0, 12_345, data.len() as u64) == data);
    }
    let disks: Vec<_> = site.nodes.iter().map(|node| node.disks[0]).collect();
    let dir = site.stop();
    for disk in disks {
        alone(&dir, disk, |read| {
            assert!(read(12_345, data.len() as u64) == data)
        });
    }
}

/// A client's part of the volume, and what is to be there.
struct Part {
    at: u64,
    model: Vec<u8>,
}

impl Part {
    /// Two and two share chunks, and blocks.
    fn of(client: u64) -> Part {
        let len = 1_300_001;
        let at = client / 2 * 9_000_011 + client % 2 * len;
        Part {
            at,
            model: vec![0; len as usize],
        }
    }

    /// Asks this and that, and holds what is read against what was written.
    fn work(&mut self, handle: &Handle, prng: &mut Prng, rounds: u64) {
        for round in 0..rounds {
            let most = match prng.below(8) {
                0 => 900_000,
                1..4 => 70_000,
                _ => 6_000,
            };
            let len = prng.between(1, most) as usize;
            let at = prng.below((self.model.len() - len) as u64);
            let place = at as usize..at as usize + len;
            match prng.below(8) {
                0..4 => {
                    let data = &mut self.model[place];
                    prng.fill(data);
                    wait(handle.write(VOLUME, self.at + at, data.to_vec())).unwrap();
                }
                4 => {
                    self.model[place].fill(0);
                    wait(handle.write_zeroes(VOLUME, self.at + at, len as u64)).unwrap();
                }
                _ => {
                    let read = wait(handle.read(VOLUME, self.at + at, len as u64)).unwrap();
                    assert!(read == self.model[place], "round {round}: {len} at {at}");
                }
            }
        }
    }
}

fn random(seed: u64, plan: Plan) {
    let mut site = Site::start(plan);
    site.open(0, 1);
    let left = Arc::new(AtomicU64::new(8));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (handle, left) = (site.nodes[0].handle(), Arc::clone(&left));
            std::thread::spawn(move || {
                let mut prng = Prng::new(seed * 100 + client);
                let mut part = Part::of(client);
                part.work(&handle, &mut prng, 120);
                left.fetch_sub(1, Ordering::SeqCst);
                part
            })
        })
        .collect();
    let mut prng = Prng::new(seed);
    let mut cut = 0;
    while left.load(Ordering::SeqCst) > 0 {
        std::thread::sleep(Duration::from_millis(prng.between(1, 40)));
        let which = prng.below(site.wires.len() as u64) as usize;
        let wire: Wire = site.wires.swap_remove(which);
        let [one, other] = wire.ends;
        let (place, shard, link) = match prng.one_in(2) {
            true => one,
            false => other,
        };
        wait(site.nodes[place].node.handle.give_up_link(shard, link));
        cut += 1;
        let ends = site.ends((one.0, one.1.0), (other.0, other.1.0));
        if prng.one_in(4) {
            for (a, b) in [(0, 1), (1, 0)] {
                let disks = site.nodes[b].disks.clone();
                site.nodes[a].order(crate::shard::fabric::Order::Disconnected { disks });
            }
        }
        site.wires.push(link_by(&ends, tcp()));
        site.connected(0, 1);
    }
    let parts: Vec<Part> = clients.into_iter().map(|of| of.join().unwrap()).collect();
    assert!(cut > 5, "{cut} cuts");
    let right = |part: &Part, read: &dyn Fn(u64, u64) -> Vec<u8>| {
        assert!(
            read(part.at, part.model.len() as u64) == part.model,
            "{}",
            part.at
        );
    };
    for part in &parts {
        right(part, &|at, len| site.read(0, at, len));
    }
    let disks: Vec<_> = site.nodes.iter().map(|node| node.disks[0]).collect();
    if plan.shards > 1 || plan.only.is_some() {
        // Somebody else takes it over.
        site.open(1, 2);
        for part in &parts {
            right(part, &|at, len| site.read(1, at, len));
        }
        site.stop();
        return;
    }
    let dir = site.stop();
    for disk in disks {
        alone(&dir, disk, |read| {
            parts.iter().for_each(|part| right(part, read))
        });
    }
}

#[test]
fn whatever_clients_ask_while_links_are_cut_is_as_if_none_was() {
    random(1, plan(2, 1));
}

#[test]
fn the_same_with_two_shards_a_node() {
    random(2, plan(2, 2));
}

#[test]
fn the_same_where_all_that_is_read_comes_over_the_network() {
    random(3, plan(2, 2).only(1));
}
