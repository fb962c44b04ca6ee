//! Every buffer that goes with a frame is let go.

use super::super::*;
use super::site::{plan, soon};
use super::*;
use crate::base::Prng;

/// Waits until a node holds no more memory than it did.
fn comes_back(site: &Site, before: &[u64]) {
    for (place, node) in site.nodes.iter().enumerate() {
        // What is in the journal and not in its place yet stays in memory.
        let mut last = 0;
        soon(
            &format!("memory of node {place} comes back: {}", before[place]),
            || {
                wait(node.node.handle.control(Control::Checkpoint)).unwrap();
                last = node.node.handle.shared.arena.holds();
                last <= before[place]
            },
        );
    }
}

fn held(site: &Site) -> Vec<u64> {
    let nodes = site.nodes.iter();
    nodes
        .map(|node| node.node.handle.shared.arena.holds())
        .collect()
}

fn work(site: &Site, place: usize, seed: u64) {
    let threads: Vec<_> = (0..4)
        .map(|client| {
            let handle = site.nodes[place].handle();
            std::thread::spawn(move || {
                let mut prng = Prng::new(seed + client);
                for _ in 0..60 {
                    let at = client * 10_000_000 + prng.below(5_000_000);
                    let len = match prng.one_in(8) {
                        true => prng.between(1, 700_000),
                        false => prng.between(1, 9_000),
                    };
                    let mut data = vec![0; len as usize];
                    prng.fill(&mut data);
                    wait(handle.write(VOLUME, at, data.clone())).unwrap();
                    assert!(wait(handle.read(VOLUME, at, len)).unwrap() == data);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|of| of.join().unwrap());
}

#[test]
fn all_memory_comes_back_when_everything_is_answered_and_after_links_were_cut() {
    for shards in [1, 2] {
        let mut site = Site::start(plan(2, shards));
        site.open(0, 1);
        site.write(0, 0, &[1; 4096]);
        let before = held(&site);
        work(&site, 0, 1);
        comes_back(&site, &before);
        for round in 0..4 {
            let handle = site.nodes[0].handle();
            let writer = std::thread::spawn(move || {
                wait(handle.write(VOLUME, 1 << 20, vec![round; 5 << 20])).unwrap();
            });
            std::thread::sleep(Duration::from_millis(u64::from(round)));
            site.cut(0, 1);
            site.join(0, 1);
            writer.join().unwrap();
        }
        comes_back(&site, &before);
        // The other one reads over the network.
        site.open(1, 2);
        work(&site, 1, 9);
        comes_back(&site, &before);
        site.stop();
    }
}

#[test]
fn all_memory_of_answers_comes_back() {
    for shards in [1, 2] {
        let mut site = Site::start(plan(2, shards).only(1));
        site.open(0, 1);
        site.write(0, 0, &[1; 4096]);
        let before = held(&site);
        work(&site, 0, 5);
        comes_back(&site, &before);
        site.stop();
    }
}
