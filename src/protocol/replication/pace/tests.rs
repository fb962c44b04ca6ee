//! The loop closed over a simulated disk: guests who come at random, a rebuild that has as many chunks on their way as it may, and one queue.

use super::{CEILING, FLOOR, Pacer, QUIET};
use crate::base::{Prng, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// A disk that serves so many at once, in the order in which they come; each takes its time whatever else there is (M/D/c).
#[derive(Clone, Copy)]
struct Disk {
    channels: usize,
    guest_us: u64,
    chunk_us: u64,
}

const FLASH: Disk = Disk {
    channels: 16,
    guest_us: 80,
    chunk_us: 220,
};
/// One thing at a time: every chunk is in the way of somebody.
const SERIAL: Disk = Disk {
    channels: 1,
    guest_us: 100,
    chunk_us: 250,
};

/// What a stretch of time has shown.
#[derive(Debug)]
struct Seen {
    p99_us: u64,
    /// Chunks that were rebuilt, for each that the disk had room for beside its guests.
    used: f64,
    /// Windows, round by round, and how often they were halved.
    least: u32,
    most: u32,
    halvings: u32,
}

struct Bench {
    disk: Disk,
    prng: Prng,
    pacer: Pacer,
    now: u64,
    /// When each channel is free.
    free: Vec<u64>,
    next_guest: u64,
    /// What ends when, and since when a guest waits for it; `None`: a chunk.
    ends: BTreeMap<(u64, u64), Option<u64>>,
    count: u64,
    chunks: u32,
}

impl Bench {
    fn new(disk: Disk, seed: u64) -> Bench {
        Bench {
            disk,
            prng: Prng::new(seed),
            pacer: Pacer::new(Time(0)),
            now: 0,
            free: vec![0; disk.channels],
            next_guest: u64::MAX,
            ends: BTreeMap::new(),
            count: 0,
            chunks: 0,
        }
    }

    /// In nanoseconds until the next guest; at random, as many a second as load the disk so far.
    fn gap(&mut self, load: f64) -> u64 {
        let each = self.disk.guest_us as f64 * 1_000.0 / self.disk.channels as f64 / load;
        let uniform = (self.prng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (-each * (1.0 - uniform).ln()) as u64
    }

    fn put(&mut self, took_us: u64, guest: Option<u64>) {
        let first = (0..self.free.len()).min_by_key(|&at| self.free[at]);
        let free = &mut self.free[first.expect("a disk has a channel")];
        *free = (*free).max(self.now) + took_us * 1_000;
        self.count += 1;
        self.ends.insert((*free, self.count), guest);
    }

    /// Runs for so many seconds, with guests who load the disk so far, and with a rebuild or without.
    fn run(&mut self, seconds: u64, load: f64, rebuilds: bool) -> Seen {
        let (begins, end) = (self.now, self.now + seconds * 1_000_000_000);
        self.next_guest = match load > 0.0 {
            true => self.now + self.gap(load),
            false => u64::MAX,
        };
        let (mut took, mut rebuilt) = (Vec::new(), 0u64);
        let (mut least, mut most, mut halvings) = (u32::MAX, 0, 0);
        let mut before = self.pacer.window();
        while self.now < end {
            while rebuilds && self.chunks < self.pacer.window() {
                self.chunks += 1;
                self.put(self.disk.chunk_us, None);
            }
            let next = self.ends.first_key_value().map(|((at, _), _)| *at);
            if next.is_none_or(|at| self.next_guest < at) {
                if self.next_guest == u64::MAX {
                    break;
                }
                self.now = self.next_guest;
                self.put(self.disk.guest_us, Some(self.now));
                self.next_guest = self.now + self.gap(load);
                continue;
            }
            let Some(((at, _), guest)) = self.ends.pop_first() else {
                break;
            };
            self.now = at;
            match guest {
                Some(since) => {
                    let took_ns = at - since;
                    took.push(took_ns / 1_000);
                    self.pacer.guest(Time(at), Duration::from_nanos(took_ns));
                }
                None => {
                    rebuilt += 1;
                    self.chunks -= 1;
                    self.pacer.rebuilt(Time(at));
                }
            }
            self.pacer.check();
            let window = self.pacer.window();
            halvings += u32::from(window < before);
            (least, most) = (least.min(window), most.max(window));
            before = window;
        }
        took.sort_unstable();
        let ran_us = (self.now - begins) as f64 / 1_000.0;
        let room = ran_us * self.disk.channels as f64 * (1.0 - load) / self.disk.chunk_us as f64;
        Seen {
            p99_us: took.get(took.len() * 99 / 100).copied().unwrap_or(0),
            used: rebuilt as f64 / room,
            least,
            most,
            halvings,
        }
    }
}

#[test]
fn guests_stay_within_twice_their_latency_and_rebuilding_uses_what_is_left() {
    for (load, least_used) in [(0.05, 0.5), (0.2, 0.5), (0.4, 0.4), (0.6, 0.3), (0.8, 0.05)] {
        let mut bench = Bench::new(FLASH, 1);
        let alone = bench.run(5, load, false);
        let beside = bench.run(20, load, true);
        println!("load {load}: alone {alone:?}, beside {beside:?}");
        let times = beside.p99_us as f64 / alone.p99_us as f64;
        assert!(times <= 2.2, "load {load}: {times} times");
        assert!(beside.used >= least_used, "load {load}: {beside:?}");
    }
}

#[test]
fn a_disk_that_nobody_asks_is_rebuilt_at_the_ceiling() {
    let mut bench = Bench::new(FLASH, 2);
    bench.run(3, 0.0, true);
    let seen = bench.run(1, 0.0, true);
    assert_eq!((seen.least, seen.most), (CEILING, CEILING));
    assert!(seen.used > 0.95, "{seen:?}");
}

#[test]
fn on_a_disk_that_does_one_thing_at_a_time_a_rebuild_goes_on_at_the_floor() {
    let mut bench = Bench::new(SERIAL, 3);
    let alone = bench.run(5, 0.5, false);
    let beside = bench.run(20, 0.5, true);
    // The wait for a chunk is more than guests are to bear; it is all that they bear.
    assert!(
        beside.p99_us <= 2 * alone.p99_us + 2 * SERIAL.chunk_us,
        "{alone:?} {beside:?}"
    );
    assert!(beside.used > 0.05 && beside.least >= FLOOR, "{beside:?}");
}

#[test]
fn guests_who_come_back_find_the_disk_free_in_a_few_rounds() {
    let mut bench = Bench::new(FLASH, 4);
    let alone = bench.run(5, 0.3, false);
    bench.run(5, 0.0, true);
    assert_eq!(bench.pacer.window(), CEILING);
    // 256 answers are 5 ms here.
    bench.run(1, 0.3, true);
    let seen = bench.run(5, 0.3, true);
    assert!(seen.p99_us <= alone.p99_us * 22 / 10, "{alone:?} {seen:?}");
}

#[test]
fn a_rebuild_that_began_before_anything_was_known_learns_what_guests_have_without_it() {
    let mut bench = Bench::new(FLASH, 5);
    let alone = Bench::new(FLASH, 5).run(5, 0.4, false);
    bench.run(2, 0.4, true);
    let seen = bench.run(20, 0.4, true);
    assert!(seen.p99_us <= alone.p99_us * 25 / 10, "{alone:?} {seen:?}");
    assert!(seen.used > 0.3, "{seen:?}");
}

#[test]
fn guests_who_ask_more_amid_a_long_rebuild_move_the_baseline_and_do_not_starve_it() {
    let mut bench = Bench::new(FLASH, 6);
    bench.run(5, 0.2, false);
    bench.run(5, 0.2, true);
    let before = bench.pacer.baseline();
    let beside = bench.run(60, 0.8, true);
    assert!(bench.pacer.baseline() > before);
    assert!(beside.used > 0.05, "{beside:?}");
}

#[test]
fn the_window_does_not_swing_wildly() {
    let mut bench = Bench::new(FLASH, 7);
    bench.run(5, 0.4, false);
    bench.run(5, 0.4, true);
    let seen = bench.run(20, 0.4, true);
    // A round is 3 ms: of more than 6,000 of them few end above the limit.
    println!("{seen:?}");
    assert!(seen.halvings < 900, "{seen:?}");
}

#[test]
fn a_session_has_its_share_and_where_that_is_none_they_take_turns() {
    let mut pacer = Pacer::new(Time(0));
    assert_eq!(pacer.share(1), 4);
    assert_eq!(pacer.share(3), 1);
    assert_eq!(pacer.share(100), 0);
    let mut now = Time(0);
    for _ in 0..10 {
        now = now + QUIET;
        pacer.rebuilt(now);
    }
    assert_eq!((pacer.share(0), pacer.share(3)), (CEILING, 21));
}
