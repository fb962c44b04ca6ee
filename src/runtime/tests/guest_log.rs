//! The log of dirty pages, as the front end of a live migration uses it: against a copy of the guest's memory that only the
//! log keeps up to date.
//!
//! What the driver writes goes to the copy too, byte for byte, so it hides nothing. Of what the device writes the copy
//! has only pages whose marks were taken, each copied after its mark was. In the end, with all rings stopped, the two are
//! equal, or a write was not marked. Marks are taken at any moment; meanwhile requests are in flight, logging ends
//! and begins again, the log moves to another file, rings stop and start, and the volume is away for a while.

use super::guest_driver::*;
use super::guests::Host;
use super::*;
use crate::base::Prng;
use crate::io::{GuestMemory, SharedMap, Span, full_fence};
use std::os::fd::AsFd;

const RINGS: usize = 2;
const PAGE: u64 = 4096;
const PAGES: u64 = MEMORY / PAGE;
const LOG_BYTES: u64 = PAGES / 8;
const LOG_ALL: u64 = 1 << 26;
const EVENT_IDX: u64 = 1 << 29;
/// Requests of a ring at once: three descriptors each.
const HEADS: u64 = 5;
/// Pages of a request: header and table, data, status.
const HEAD_PAGES: u64 = 20;
const DATA_PAGES: u64 = HEAD_PAGES - 2;
/// Sectors that are read and written, so few that most reads find something new.
const SECTORS: u64 = 256;
const STEPS: u64 = 400;

/// A guest, and what its front end has of it at another place.
struct Migration<'a> {
    host: &'a Host,
    guest: FrontEnd,
    features: u64,
    dice: Prng,
    copy: GuestMemory,
    log: Option<Span>,
    is_logging: bool,
    is_away: bool,
    busy: [[bool; HEADS as usize]; RINGS],
    ended: u64,
}

impl Migration<'_> {
    fn start<'a>(host: &'a Host, path: &Path, features: u64, seed: u64) -> Migration<'a> {
        let mut guest = FrontEnd::connect(path);
        guest.rings = (0..RINGS as u16).map(|n| guest.new_ring(n)).collect();
        guest.negotiate(features);
        guest.start_rings();
        let copy = Arc::new(SharedMap::create("copy", MEMORY).unwrap().0);
        let mut migration = Migration {
            host,
            guest,
            features,
            dice: Prng::new(seed),
            copy: GuestMemory::new(vec![(0, copy)]).unwrap(),
            log: None,
            is_logging: false,
            is_away: false,
            busy: Default::default(),
            ended: 0,
        };
        migration.move_log();
        migration.begin_logging();
        migration
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..55 => self.ask(),
            55..75 => self.reap(),
            75..86 => self.sync(),
            86..90 => self.move_log(),
            90..93 if self.is_logging => self.end_logging(),
            90..93 => self.begin_logging(),
            93..95 if !self.is_away => self.stop_and_start(),
            95..97 => self.go_or_come(),
            _ => std::thread::sleep(Duration::from_micros(self.dice.below(3000))),
        }
    }

    /// A write of the driver.
    fn put(&self, at: u64, bytes: &[u8]) {
        assert!(self.guest.memory.write(at, bytes) && self.copy.write(at, bytes));
    }

    fn put_index(&self, ring: usize, at: u64, value: u16) {
        self.guest.rings[ring].span.store_u16(at as usize, value);
        let guest = ring as u64 * EACH + at;
        assert!(self.copy.write(guest, &value.to_le_bytes()));
    }

    fn copy_page(&self, page: u64) {
        let mut bytes = [0; PAGE as usize];
        assert!(self.guest.memory.read(page * PAGE, &mut bytes));
        assert!(self.copy.write(page * PAGE, &bytes));
    }

    /// Takes the marks, and then copies the pages.
    fn take_marks(&self, log: &Span) {
        for byte in 0..LOG_BYTES {
            let marks = log.take_u8(byte as usize);
            full_fence();
            let marked = (0..8).filter(|bit| marks & 1 << bit != 0);
            marked.for_each(|bit| self.copy_page(byte * 8 + bit));
        }
    }

    fn sync(&self) {
        if let Some(log) = self.log.as_ref().filter(|_| self.is_logging) {
            self.take_marks(log);
        }
    }

    /// The log is another file from now on, and the marks of the old one are taken when that was answered.
    fn move_log(&mut self) {
        let offset = PAGE * self.dice.below(3);
        let (map, file) = SharedMap::create("log", offset + PAGE).unwrap();
        let place = longs(&[LOG_BYTES, offset]);
        let answer = self.guest.try_ask(6, 0, &place, &[file.as_fd()]);
        assert!(answer.is_some());
        let log = Span::of(&map).part(offset as usize, LOG_BYTES as usize);
        let before = std::mem::replace(&mut self.log, log);
        if let Some(before) = before.filter(|_| self.is_logging) {
            self.take_marks(&before);
        }
    }

    fn set_features(&mut self, logs: bool) {
        let log = if logs { LOG_ALL } else { 0 };
        self.guest.ack(2, &longs(&[self.features | log]), &[]);
        self.guest.logs = logs;
        (0..RINGS).for_each(|ring| self.guest.tell_address(ring));
        self.is_logging = logs;
    }

    fn begin_logging(&mut self) {
        self.set_features(true);
        // Whatever was written before is not in the log.
        (0..PAGES).for_each(|page| self.copy_page(page));
    }

    fn end_logging(&mut self) {
        self.set_features(false);
    }

    /// Asks for something, of all kinds, good and bad, in a table of its own or not.
    fn ask(&mut self) {
        let ring = self.dice.below(RINGS as u64) as usize;
        let head = self.dice.below(HEADS);
        if std::mem::replace(&mut self.busy[ring][head as usize], true) {
            return self.reap();
        }
        let at = DATA + (ring as u64 * HEADS + head) * HEAD_PAGES * PAGE;
        let kind = [0, 0, 0, 0, 1, 1, 1, 4, 8, 11, 13, 99][self.dice.below(12) as usize];
        let first = self.dice.below(SECTORS);
        let sector = if self.dice.one_in(20) { 1 << 40 } else { first };
        // Anywhere in its pages, over their borders.
        let place = self.dice.below(PAGE);
        let sectors = self.dice.between(1, (DATA_PAGES - 1) * 8);
        let len = match kind {
            4 => 0,
            8 => 20,
            11 | 13 => 16,
            _ if self.dice.one_in(20) => sectors * 512 - 1,
            _ => sectors * 512,
        };
        let data = at + PAGE + place;
        let into = matches!(kind, 0 | 8 | 99);
        match kind {
            1 => {
                let mut bytes = vec![0; len as usize];
                self.dice.fill(&mut bytes);
                self.put(data, &bytes);
            }
            11 | 13 => self.put(data, &[longs(&[first]), words(&[8, 0])].concat()),
            _ => {}
        }
        self.put(at, &[words(&[kind, 0]), longs(&[sector])].concat());
        let status = at + (HEAD_PAGES - 1) * PAGE + self.dice.below(PAGE);
        self.put(status, &[0xee]);
        let chain = [(at, 16, false), (data, len, into), (status, 1, true)];
        self.offer(ring, head, at + 1024, &chain);
    }

    fn offer(&mut self, ring: usize, head: u64, table: u64, chain: &[(u64, u64, bool)]) {
        let chain = chain.iter().filter(|part| part.1 > 0);
        let chain: Vec<_> = chain.collect();
        let first = head * 3;
        let descriptors = |begin: u64| -> Vec<u8> {
            let one = |(n, part): (u64, &&(u64, u64, bool))| {
                let flags = u64::from(n + 1 < chain.len() as u64) | u64::from(part.2) << 1;
                longs(&[part.0, part.1 | flags << 32 | (begin + n + 1) << 48])
            };
            (0..).zip(&chain).flat_map(one).collect()
        };
        let here = ring as u64 * EACH + 16 * first;
        if self.dice.one_in(3) {
            let inner = descriptors(0);
            self.put(table, &inner);
            self.put(here, &longs(&[table, inner.len() as u64 | 4 << 32]));
        } else {
            self.put(here, &descriptors(first));
        }
        let available = self.guest.rings[ring].available;
        let place = u64::from(available % RING);
        self.put_index(ring, 0x1004 + 2 * place, first as u16);
        self.put_index(ring, 0x1002, available.wrapping_add(1));
        self.guest.rings[ring].available = available.wrapping_add(1);
        self.guest.rings[ring].kick();
    }

    /// Takes back what has ended.
    fn reap(&mut self) {
        for ring in 0..RINGS {
            loop {
                let used = self.guest.rings[ring].used;
                self.put_index(ring, 0x1004 + 2 * u64::from(RING), used);
                full_fence();
                let span = &self.guest.rings[ring].span;
                let at = used_at(ring as u16) as usize;
                if span.load_u16(at + 2) == used {
                    break;
                }
                let first: u32 = span.read(at + 4 + 8 * usize::from(used % RING));
                self.busy[ring][first as usize / 3] = false;
                self.guest.rings[ring].used = used.wrapping_add(1);
                self.ended += 1;
            }
        }
    }

    fn stop(&mut self, ring: usize) {
        let index = u32::from(self.guest.rings[ring].index);
        let base = self.guest.ask(11, &words(&[index, 0]));
        self.reap();
        let at = self.guest.rings[ring].used;
        assert_eq!(base, words(&[index, at.into()]), "all that was taken ended");
    }

    fn stop_and_start(&mut self) {
        let ring = self.dice.below(RINGS as u64) as usize;
        self.stop(ring);
        self.guest.start_ring(ring);
        self.guest.rings[ring].kick(); // what came in between
    }

    /// The volume goes away, and its requests wait; or it comes back.
    fn go_or_come(&mut self) {
        self.is_away = !self.is_away;
        let node = &self.host.node;
        match self.is_away {
            true => wait(node.handle.control(Control::CloseVolume { volume: VOLUME })),
            false => wait(node.open_volume(VOLUME_BYTES, &[1])),
        }
        .unwrap();
        if !self.is_away {
            // Where no region keeps what is in flight, a ring that stops with heads put back cannot say which they were.
            self.drain();
        }
    }

    /// Waits until everything has ended that was asked for.
    fn drain(&mut self) {
        until("all requests end", || {
            self.reap();
            !self.busy.iter().flatten().any(|busy| *busy)
        });
    }

    /// Everything that was asked for ends, with the log on.
    fn settle(&mut self) {
        if self.is_away {
            self.go_or_come();
        }
        self.drain();
        if !self.is_logging {
            self.begin_logging();
        }
    }

    /// The guest stops, and the last marks are taken.
    fn finish(mut self) -> u64 {
        (0..RINGS).for_each(|ring| self.stop(ring));
        self.sync();
        if self.is_logging {
            let page = |memory: &GuestMemory, page| {
                let mut bytes = vec![0; PAGE as usize];
                assert!(memory.read(page * PAGE, &mut bytes));
                bytes
            };
            let differs = |&n: &u64| page(&self.guest.memory, n) != page(&self.copy, n);
            let missed: Vec<u64> = (0..PAGES).filter(differs).collect();
            assert!(
                missed.is_empty(),
                "pages were written unmarked: {missed:x?}"
            );
        }
        self.ended
    }
}

fn migrate(features: u64, seeds: std::ops::Range<u64>) {
    let host = Host::start(2);
    let mut ended = 0;
    for seed in seeds {
        let path = host.serve(seed, RINGS as u16);
        let mut migration = Migration::start(&host, &path, features, seed);
        (0..STEPS).for_each(|_| migration.step());
        migration.settle();
        // With requests in flight at the end, which the stop waits for, and few marks left that would hide one which is missing.
        for _ in 0..2 * HEADS {
            migration.ask();
            migration.sync();
        }
        ended += migration.finish();
        wait(host.node.handle.end_guest(seed, true)).unwrap();
    }
    assert!(ended > 100, "requests were carried out: {ended}");
    host.stop();
}

#[test]
fn a_copy_by_the_log_is_the_memory_with_events() {
    migrate(FEATURES, 1..5);
}

#[test]
fn a_copy_by_the_log_is_the_memory_without_events() {
    migrate(FEATURES & !EVENT_IDX, 1..5);
}
