//! Rings whose content is mostly right. What must hold of each:
//! - *no panic*, no access outside of the memory, and no turn without end;
//! - *sane requests*: inside their bounds, with data where the guest has memory, in a head that was free;
//! - *what is in flight is tracked*: a ring that is begun again has what was not given back, in the order it was taken.

use super::super::*;
use super::{iterations, seed};
use crate::base::{Prng, RequestKind};
use crate::io::{GuestMemory, SharedMap, Span};
use std::collections::BTreeSet;
use std::sync::Arc;

const SIZE: u16 = 16;
const MEMORY: u64 = 256 * 1024;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const DATA: u64 = 0x10000;

struct Driver {
    memory: GuestMemory,
    ring: Span,
    region: Span,
    available: u16,
    seen: BTreeSet<String>,
}

impl Driver {
    fn new() -> Driver {
        let map = SharedMap::create("fuzz", MEMORY).unwrap().0;
        let region = SharedMap::create("fuzz-inflight", Inflight::bytes(1, SIZE)).unwrap();
        let memory = GuestMemory::new(vec![(0, Arc::new(map))]).unwrap();
        Driver {
            ring: memory.span(0, 0x3000).unwrap(),
            region: Span::of(&region.0),
            memory,
            available: 0,
            seen: BTreeSet::new(),
        }
    }

    fn clear(&mut self) {
        self.memory.write(0, &[0; 0x3000]);
        (0..self.region.len()).for_each(|at| self.region.store_u8(at, 0));
        self.available = 0;
    }

    fn start(&self, prng: &mut Prng) -> Result<Vring, Broken> {
        let plan = Plan {
            size: SIZE,
            base: 0,
            descriptors: 0,
            available: AVAILABLE,
            used: USED,
            event_idx: prng.one_in(2),
            indirect: true,
            log_used: None,
        };
        let inflight = Inflight::open(&self.region, 0, 1, SIZE).unwrap();
        Vring::start(plan, Some(inflight), &self.memory)
    }

    /// Makes a request available whose descriptors begin at `head`: right, or nearly.
    fn offer(&mut self, head: u16, prng: &mut Prng) {
        let kinds = [0, 0, 0, 1, 1, 1, 4, 8, 11, 13, 13, 77];
        let kind = kinds[prng.below(kinds.len() as u64) as usize];
        let at = DATA + u64::from(head) * 8192;
        let mut header = vec![0; 16];
        header[0] = kind as u8;
        header[8] = prng.below(256) as u8;
        self.memory.write(at, &header);
        let (len, writable) = match kind {
            0 => (512 * prng.between(1, 8), true),
            1 => (512 * prng.between(1, 8), false),
            8 => (20, true),
            11 | 13 => {
                let mut range = vec![0; 32];
                (range[8], range[24], range[16]) = (8, 16, 64);
                self.memory.write(at + 1024, &range);
                (16 * prng.between(1, 2), false)
            }
            _ => (0, false),
        };
        let mut chain = vec![(at, 16, false)];
        let half = len / 2 / 512 * 512;
        if half > 0 && prng.one_in(2) {
            chain.push((at + 1024, half, writable));
            chain.push((at + 1024 + half, len - half, writable));
        } else if len > 0 {
            chain.push((at + 1024, len, writable));
        }
        chain.push((at + 64, 1, true));
        let indirect = prng.one_in(3);
        let table = match indirect {
            true => at + 256,
            false => 0,
        };
        let first = if indirect { 0 } else { head };
        for (n, (address, len, writable)) in (0u16..).zip(&chain) {
            let more = usize::from(n) + 1 < chain.len();
            let flags = u16::from(more) | u16::from(*writable) << 1;
            let next = (first + n + 1) % if indirect { 64 } else { SIZE };
            let place = table + 16 * u64::from((first + n) % if indirect { 64 } else { SIZE });
            self.descriptor(place, *address, *len as u32, flags, next);
        }
        if indirect {
            let len = 16 * chain.len() as u32;
            self.descriptor(16 * u64::from(head), table, len, 4, 0);
        }
        let place = 4 + 2 * (self.available % SIZE);
        self.ring
            .store_u16(AVAILABLE as usize + usize::from(place), head);
        self.available = self.available.wrapping_add(1);
        self.ring.store_u16(AVAILABLE as usize + 2, self.available);
    }

    fn descriptor(&self, at: u64, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory.write(at, &bytes);
    }

    fn bend(&self, prng: &mut Prng) {
        let (from, len) = match prng.below(6) {
            0 | 1 => (0, u64::from(SIZE) * 16),
            2 => (AVAILABLE, 4 + 2 * u64::from(SIZE)),
            3 => (USED, 4),
            // Headers and tables.
            _ => (DATA + 8192 * prng.below(SIZE.into()), 512),
        };
        let byte = match prng.below(4) {
            0 => 0xff,
            1 => 0,
            2 => 1 << prng.below(8),
            _ => prng.below(256) as u8,
        };
        self.memory.write(from + prng.below(len), &[byte]);
    }

    fn check(&mut self, vring: &Vring, head: u16, ask: Ask) {
        assert!(head < SIZE);
        let request = vring.request(head);
        assert!(self.memory.has(request.status, 1));
        let data: u64 = request.data.iter().map(|part| u64::from(part.len)).sum();
        assert!(
            request
                .data
                .iter()
                .all(|part| self.memory.has(part.guest, part.len as usize))
        );
        let name = match ask {
            Ask::Data { kind, offset, len } => {
                assert_eq!(data, u64::from(len));
                assert!(len > 0 && len <= PAYLOAD_MAX && len % 512 == 0 && offset % 512 == 0);
                assert!(offset.checked_add(len.into()).is_some());
                assert!(matches!(kind, RequestKind::Read | RequestKind::Write));
                format!("{kind:?}")
            }
            Ask::Ranges(kind) => {
                assert!(request.ranges.len() <= 16);
                let inside = |&(at, len): &(u64, u64)| len > 0 && at.checked_add(len).is_some();
                assert!(request.ranges.iter().all(inside));
                format!("{kind:?}")
            }
            Ask::Id(len) => {
                assert!(len <= 20 && data == u64::from(len));
                "Id".to_owned()
            }
            Ask::Flush => "Flush".to_owned(),
            Ask::Refused(status) => format!("{status:?}"),
        };
        self.seen.insert(name);
    }
}

const DISK: Disk = Disk {
    block_size: 512,
    read_only: false,
    id: [7; 20],
};

/// Plays with a ring until it breaks or enough was done; `bends` of ten rounds bend something.
fn play(driver: &mut Driver, bends: u64, prng: &mut Prng) -> Option<Broken> {
    driver.clear();
    let mut vring = driver.start(prng).expect("a ring of zeroes");
    // Heads that were taken, and heads that the driver has not got back.
    let (mut flying, mut busy): (Vec<u16>, BTreeSet<u16>) = Default::default();
    for _ in 0..40 {
        for head in [0, 4, 8, 12] {
            if prng.one_in(2) && busy.insert(head) {
                driver.offer(head, prng);
            }
        }
        if prng.below(10) < bends {
            driver.bend(prng);
        }
        for turn in 0.. {
            assert!(turn <= 2 * SIZE, "a turn ends");
            match vring.next(&DISK, &driver.memory) {
                Ok(Some((head, ask))) => {
                    assert!(!flying.contains(&head), "a head is in flight once");
                    driver.check(&vring, head, ask);
                    flying.push(head);
                }
                Ok(None) if vring.listen() => {}
                Ok(None) => break,
                Err(broken) => return Some(broken),
            }
        }
        assert_eq!(usize::from(vring.in_flight()), flying.len());
        let mut ended = Vec::new();
        while !flying.is_empty() && !prng.one_in(3) {
            let head = flying.remove(prng.below(flying.len() as u64) as usize);
            vring.complete(head, Status::Ok, prng.below(2) as u32, &driver.memory);
            ended.push(head);
        }
        // Cut short before or after what was completed is visible.
        let cut = prng.one_in(8);
        if !cut || prng.one_in(2) {
            vring.publish();
            vring.wants_call();
            ended.iter().for_each(|head| {
                busy.remove(head);
            });
            if cut && bends == 0 {
                let mut again = Inflight::open(&driver.region, 0, 1, SIZE).unwrap();
                let used = driver.ring.load_u16(USED as usize + 2);
                assert_eq!(again.recover(used), Some(flying.clone()));
            }
        }
        if cut {
            vring = match driver.start(prng) {
                Ok(vring) => vring,
                Err(broken) => return Some(broken),
            };
            flying.clear();
        }
    }
    None
}

#[test]
fn a_ring_that_is_right_never_breaks_however_often_it_is_begun_again() {
    let (mut driver, mut prng) = (Driver::new(), Prng::new(seed()));
    for _ in 0..iterations(20_000) / 100 {
        assert_eq!(play(&mut driver, 0, &mut prng), None);
    }
    let seen: Vec<_> = driver.seen.into_iter().collect();
    assert_eq!(
        seen.join(" "),
        "Discard Flush Id Read Unsupported Write WriteZeroes"
    );
}

#[test]
fn rings_that_are_bent_do_no_harm() {
    let (mut driver, mut prng) = (Driver::new(), Prng::new(seed()));
    let mut broken = BTreeSet::new();
    for _ in 0..iterations(20_000) / 10 {
        let bends = prng.below(10);
        if let Some(why) = play(&mut driver, bends, &mut prng) {
            assert!(!why.to_string().is_empty());
            broken.insert(
                format!("{why:?}")
                    .split(['(', ' '])
                    .next()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    let all: Vec<_> = broken.into_iter().collect();
    for why in ["Chain", "Head", "Index", "Twice"] {
        assert!(all.iter().any(|seen| seen == why), "{why} in {all:?}");
    }
    assert!(driver.seen.contains("Failed"));
}
