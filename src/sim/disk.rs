//! A simulated disk, and how it fails.
//!
//! **The fault model.** A disk has a volatile cache. A write that was asked to be durable is on the medium when
//! it is answered; any other is in the cache until a flush that was asked for after its answer has ended.
//! While the power is on, everybody sees what was written last. When the power is cut, each write that is
//! not on the medium, whether it was answered or is still in flight, meets one of three fates, each on
//! its own: it is kept, lost, or torn at 512 B (a sector is written whole or not at all; which sectors of
//! a torn write are new is either a beginning of it or any of them). Operations in flight take effect when
//! they are begun or when they end, whichever the seed says; the time each takes is drawn too, so they
//! overtake one another. A discarded range reads as it did, as zeroes or as garbage.
//!
//! Beyond that a disk misbehaves, at rates drawn from the seed: it says that a durable write is done and
//! drops it (*lost write*); it writes to another place (*misdirected*); bits turn over on the medium
//! (*rot*); a sector cannot be read until it is written again, or a write or flush fails (*EIO*); an operation
//! takes a hundred times as long (*slow*); the device is *gone*. `Marks` keeps which sectors are
//! damaged, so that an error can be told from a false one.
//!
//! One thing a single copy cannot survive, and it is kept from happening: the loss of the youngest journal
//! batch, which looks like a write that power loss tore. After a fault there, `settled` is false until the
//! journal was written once more, by a batch that knows of it, and the power stays on that long. Where a failed disk
//! takes no more writes, that never comes: `youngest_lost` says so.

use super::fault::{Fault, Marks, Tally};
use super::medium::Medium;
use crate::base::{BLOCK, Prng, SECTOR};
use crate::store::{DiskFault, Durability};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// How often a disk misbehaves: once in so many operations, never where it is zero.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    pub lost_write: u64,
    pub misdirected: u64,
    pub read_error: u64,
    pub write_error: u64,
    pub slow: u64,
    /// Latency of a read, a durable write and a flush, in microseconds; what is drawn is up to twice that.
    pub read_us: u64,
    pub durable_us: u64,
    pub cached_us: u64,
    pub flush_us: u64,
}

/// Where things lie on a disk; empty ranges where that is not known.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    pub journal: Range<u64>,
    /// The table's pages.
    pub table: Range<u64>,
    /// Superblocks, roots and manifest.
    pub head: Range<u64>,
}

impl Layout {
    /// Whether a checkpoint writes here.
    pub fn is_checkpoint(&self, offset: u64) -> bool {
        self.table.contains(&offset) || self.head.contains(&offset)
    }
}

/// The disk's name for a write or flush in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What a write writes.
#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    /// So many zeroes: most of what is written by volume, and not worth memory.
    Zeroes(u64),
}

/// A write that is not on the medium yet.
#[derive(Debug, Clone)]
pub struct Entry {
    pub offset: u64,
    content: Content,
    durable: bool,
    answered: bool,
}

impl Entry {
    /// Whether power loss must keep it: it was to be durable, and was answered.
    pub fn is_sure(&self) -> bool {
        self.durable && self.answered
    }

    pub fn sectors(&self) -> Range<u64> {
        self.offset / SECTOR..(self.offset + self.len()) / SECTOR
    }

    /// In bytes.
    fn len(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zeroes(len) => *len,
        }
    }

    /// Puts the sectors `run` of it where they belong.
    fn put(&self, medium: &mut Medium, run: Range<u64>) {
        let at = self.offset + run.start * SECTOR;
        match &self.content {
            Content::Bytes(bytes) => {
                medium.write(
                    at,
                    &bytes[(run.start * SECTOR) as usize..(run.end * SECTOR) as usize],
                );
            }
            Content::Zeroes(_) => medium.zero(at, (run.end - run.start) * SECTOR),
        }
    }

    fn pages(&self) -> Range<usize> {
        (self.offset / BLOCK) as usize..((self.offset + self.len()) / BLOCK) as usize
    }
}

/// What becomes of a write that is not on the medium when the power is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Keep,
    Lose,
    /// The first sectors are kept.
    TornAfter(u64),
    /// The sectors whose bit is set are kept (64 in turn).
    Torn(u64),
}

/// How far a fault in the journal is from being proven by a later header.
#[derive(Debug, Clone, Copy)]
enum Unsettled {
    /// Writes that began until then are still in flight.
    Beside(Ticket),
    /// A journal write that began after that will prove it.
    Below(Ticket),
}

#[derive(Debug)]
enum Flight {
    /// Has not taken effect.
    Waiting(Entry),
    /// Has taken effect: under this number in `cached`.
    Applied(u64),
    /// A flush of what had this number and those before.
    Flush(Option<u64>),
}

/// One disk.
pub struct Disk {
    prng: Prng,
    rates: Rates,
    pub layout: Layout,
    /// What is read while the power is on.
    now: Medium,
    /// What is certain to be there after power loss.
    medium: Medium,
    /// What took effect and is not on the medium, in the order of effect.
    cached: BTreeMap<u64, Entry>,
    /// How many of `cached` lie on each page.
    covered: Vec<u16>,
    flights: BTreeMap<Ticket, Flight>,
    next: u64,
    marks_now: Marks,
    marks_medium: Marks,
    unsettled: Option<Unsettled>,
    /// The youngest journal batch was lost at a power cut that could not wait until the disk was settled.
    pub youngest_lost: bool,
    pub gone: bool,
    gone_met: bool,
    pub tally: Tally,
}

impl Disk {
    /// A disk that holds `medium`.
    pub fn new(medium: Medium, layout: Layout, rates: Rates, prng: Prng) -> Disk {
        Disk {
            prng,
            rates,
            layout,
            covered: vec![0; (medium.len() / BLOCK) as usize],
            now: medium.clone(),
            medium,
            cached: BTreeMap::new(),
            flights: BTreeMap::new(),
            next: 1,
            marks_now: Marks::default(),
            marks_medium: Marks::default(),
            unsettled: None,
            youngest_lost: false,
            gone: false,
            gone_met: false,
            tally: Tally::default(),
        }
    }

    /// In bytes.
    pub fn len(&self) -> u64 {
        self.now.len()
    }

    pub fn grow(&mut self, bytes: u64) {
        self.now.grow(bytes);
        self.medium.grow(bytes);
        self.covered.resize((self.now.len() / BLOCK) as usize, 0);
    }

    /// Whether the power may be cut; see the head of the file.
    pub fn settled(&self) -> bool {
        self.unsettled.is_none()
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    fn now_and_then(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.prng.one_in(one_in)
    }

    /// How long an operation takes that usually takes `usual_us` and moves `bytes`.
    fn latency(&mut self, usual_us: u64, bytes: u64) -> Duration {
        let usual = usual_us * 1000 + bytes / 4;
        let mut nanos = usual / 4 + self.prng.below(usual * 2);
        if self.now_and_then(self.rates.slow) {
            self.tally.both(Fault::Slow);
            nanos *= 100;
        }
        Duration::from_nanos(nanos)
    }

    pub fn read_latency(&mut self, bytes: u64) -> Duration {
        self.latency(self.rates.read_us, bytes)
    }

    /// Begins a write; `end` tells how it went.
    pub fn begin_write(
        &mut self,
        offset: u64,
        bytes: Vec<u8>,
        durability: Durability,
    ) -> (Ticket, Duration) {
        self.begin(offset, Content::Bytes(bytes), durability)
    }

    /// Begins a write of zeroes.
    pub fn begin_zeroes(&mut self, offset: u64, len: u64) -> (Ticket, Duration) {
        self.begin(offset, Content::Zeroes(len), Durability::Cached)
    }

    /// Begins a discard: a cached write of what the device makes of the range.
    pub fn begin_discard(&mut self, offset: u64, len: u64) -> (Ticket, Duration) {
        let content = match self.prng.below(3) {
            0 => Content::Zeroes(len),
            1 => {
                let mut bytes = vec![0; len as usize];
                self.now.read(offset, &mut bytes);
                Content::Bytes(bytes)
            }
            _ => Content::Bytes(vec![0xd5; len as usize]),
        };
        self.begin(offset, content, Durability::Cached)
    }

    fn begin(
        &mut self,
        offset: u64,
        content: Content,
        durability: Durability,
    ) -> (Ticket, Duration) {
        let durable = durability == Durability::Durable;
        let usual = match durable {
            true => self.rates.durable_us,
            false => self.rates.cached_us,
        };
        let entry = Entry {
            offset,
            content,
            durable,
            answered: false,
        };
        let latency = self.latency(usual, entry.len());
        let ticket = self.ticket();
        let flight = match self.prng.one_in(2) {
            true => Flight::Applied(self.apply(entry)),
            false => Flight::Waiting(entry),
        };
        self.flights.insert(ticket, flight);
        (ticket, latency)
    }

    /// Begins a flush of everything that was answered before.
    pub fn begin_flush(&mut self) -> (Ticket, Duration) {
        let answered = self.cached.iter().rev().find(|(_, entry)| entry.answered);
        let upto = answered.map(|(&order, _)| order);
        let latency = self.latency(self.rates.flush_us, 0);
        let ticket = self.ticket();
        self.flights.insert(ticket, Flight::Flush(upto));
        (ticket, latency)
    }

    /// Ends a write, discard or flush.
    pub fn end(&mut self, ticket: Ticket) -> Result<(), DiskFault> {
        let flight = self
            .flights
            .remove(&ticket)
            .expect("an operation ends once");
        self.wait_for_neighbours();
        if self.gone {
            self.meet_gone();
            // It may have arrived before the device went, or not: undecided like anything in the cache.
            if let Flight::Waiting(entry) = flight {
                self.apply(entry);
            }
            return Err(DiskFault::Gone);
        }
        if self.now_and_then(self.rates.write_error) {
            self.tally.both(Fault::WriteError);
            return Err(DiskFault::Medium);
        }
        match flight {
            Flight::Flush(upto) => self.commit(upto),
            Flight::Waiting(entry) => {
                if let Some(entry) = self.misplace(entry) {
                    let order = self.apply(entry);
                    self.answer(order, ticket);
                }
            }
            Flight::Applied(order) => self.answer(order, ticket),
        }
        Ok(())
    }

    /// A write takes effect: everybody sees it from now on.
    fn apply(&mut self, entry: Entry) -> u64 {
        self.next += 1;
        self.marks_now.clear(entry.sectors(), self.next);
        entry.put(&mut self.now, 0..entry.len() / SECTOR);
        for page in entry.pages() {
            self.covered[page] += 1;
        }
        self.cached.insert(self.next, entry);
        self.next
    }

    fn answer(&mut self, order: u64, ticket: Ticket) {
        // A flush may have taken it to the medium before it was answered.
        let Some(entry) = self.cached.get_mut(&order) else {
            return self.settle(ticket, None);
        };
        entry.answered = true;
        let offset = entry.offset;
        if entry.is_sure() {
            let alone = entry.pages().all(|page| self.covered[page] == 1);
            if alone {
                self.persist(order);
            }
            self.settle(ticket, Some(offset));
            if self.now_and_then(self.rates.read_error) {
                let sector = offset / SECTOR;
                self.damage(sector, Fault::ReadError);
            }
        }
    }

    fn settle(&mut self, ticket: Ticket, offset: Option<u64>) {
        let journaled = offset.is_some_and(|offset| self.layout.journal.contains(&offset));
        if let Some(Unsettled::Below(below)) = self.unsettled
            && journaled
            && ticket > below
        {
            self.unsettled = None;
        }
    }

    /// Batches that were in flight beside the one that met the fault may hold back its acknowledgement, and no header says
    /// that it was durable before they have ended: only a write that begins after that proves it.
    fn wait_for_neighbours(&mut self) {
        if let Some(Unsettled::Beside(last)) = self.unsettled {
            let journal = &self.layout.journal;
            let is_beside = |flight: &Flight| match flight {
                Flight::Waiting(entry) => journal.contains(&entry.offset),
                Flight::Applied(_) => true,
                Flight::Flush(_) => false,
            };
            if !self
                .flights
                .range(..=last)
                .any(|(_, flight)| is_beside(flight))
            {
                self.unsettled = Some(Unsettled::Below(Ticket(self.next)));
            }
        }
    }

    fn persist(&mut self, order: u64) {
        let entry = self.cached.remove(&order).expect("an entry of the cache");
        for page in entry.pages() {
            self.covered[page] -= 1;
        }
        self.marks_medium.clear(entry.sectors(), order);
        entry.put(&mut self.medium, 0..entry.len() / SECTOR);
    }

    fn commit(&mut self, upto: Option<u64>) {
        while let (Some(upto), Some((&order, _))) = (upto, self.cached.first_key_value()) {
            if order > upto {
                break;
            }
            self.persist(order);
        }
    }

    /// Loses a write or sends it elsewhere, where the seed says so; else gives it back.
    fn misplace(&mut self, entry: Entry) -> Option<Entry> {
        // Table pages are written seldom, and a page that stays old is hard to tell from a right one.
        let often = if self.layout.table.contains(&entry.offset) {
            20
        } else {
            1
        };
        let lost = self.now_and_then(self.rates.lost_write.div_ceil(often));
        if !lost && !self.now_and_then(self.rates.misdirected) {
            return Some(entry);
        }
        let fault = [Fault::Misdirected, Fault::LostWrite][usize::from(lost)];
        self.tally.injected(fault);
        self.mark_changed(&entry, fault);
        self.unsettle(entry.offset);
        if !lost {
            let room = (self.len() - entry.len()) / BLOCK;
            let elsewhere = Entry {
                offset: self.prng.below(room + 1) * BLOCK,
                ..entry
            };
            self.mark_changed(&elsewhere, fault);
            let all = 0..elsewhere.len() / SECTOR;
            elsewhere.put(&mut self.now, all.clone());
            elsewhere.put(&mut self.medium, all);
            self.unsettle(elsewhere.offset);
        }
        None
    }

    fn unsettle(&mut self, offset: u64) {
        if self.layout.journal.contains(&offset) {
            self.unsettled = Some(Unsettled::Beside(Ticket(self.next)));
            self.wait_for_neighbours();
        }
    }

    /// Marks the sectors that would be others if this write were there.
    fn mark_changed(&mut self, entry: &Entry, fault: Fault) {
        const ZEROES: &[u8] = &[0; SECTOR as usize];
        // The first sector stands for all of them, so that a fault counts once.
        let mut counted = false;
        for (n, sector) in entry.sectors().enumerate() {
            let part = match &entry.content {
                Content::Bytes(bytes) => &bytes[n * SECTOR as usize..][..SECTOR as usize],
                Content::Zeroes(_) => ZEROES,
            };
            if self.now.sector(sector) != part {
                self.marks_now.set_part(sector, fault, self.next, counted);
                self.marks_medium
                    .set_part(sector, fault, self.next, counted);
                counted = true;
            }
        }
    }

    fn damage(&mut self, sector: u64, fault: Fault) {
        self.tally.injected(fault);
        self.marks_now.set(sector, fault, self.next);
        self.marks_medium.set(sector, fault, self.next);
        self.unsettle(sector * SECTOR);
    }

    /// Turns a bit over somewhere where something was written.
    pub fn rot(&mut self) {
        let pages = self.len() / BLOCK;
        let from = self.prng.below(pages);
        let written = (0..pages).map(|n| (from + n) % pages);
        let mut written = written.filter(|&n| self.now.is_written(n as usize));
        if let Some(page) = written.next() {
            let offset = page * BLOCK + self.prng.below(BLOCK);
            let mask = 1 << self.prng.below(8);
            self.now.flip(offset, mask);
            self.medium.flip(offset, mask);
            self.damage(offset / SECTOR, Fault::Rot);
        }
    }

    /// Turns a bit over here.
    pub fn rot_at(&mut self, offset: u64) {
        self.now.flip(offset, 1);
        self.medium.flip(offset, 1);
        self.damage(offset / SECTOR, Fault::Rot);
    }

    /// A sector here cannot be read until it is written again.
    pub fn fail_at(&mut self, offset: u64) {
        self.damage(offset / SECTOR, Fault::ReadError);
    }

    /// Whether a block is damaged in one of these two ways.
    pub fn is_damaged_at(&self, offset: u64) -> bool {
        let sectors = offset / SECTOR..(offset + BLOCK) / SECTOR;
        self.marks_now.any(sectors.clone(), Fault::Rot)
            || self.marks_now.any(sectors, Fault::ReadError)
    }

    /// Reads whole blocks as they are now. On success, tells whether some of it was damaged.
    pub fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<Option<Fault>, DiskFault> {
        if self.gone {
            self.meet_gone();
            return Err(DiskFault::Gone);
        }
        let sectors = offset / SECTOR..(offset + into.len() as u64) / SECTOR;
        let worst = self.marks_now.read(sectors.clone(), &mut self.tally);
        // It counts once, also where the next power cut brings it back.
        self.marks_medium
            .read(sectors.clone(), &mut Tally::default());
        if self.marks_now.any(sectors, Fault::ReadError) {
            return Err(DiskFault::Medium);
        }
        self.now.read(offset, into);
        Ok(worst)
    }

    fn meet_gone(&mut self) {
        if !std::mem::replace(&mut self.gone_met, true) {
            self.tally.consumed(Fault::Gone);
        }
    }

    /// The device goes; nothing is answered but that.
    pub fn go(&mut self) {
        self.gone = true;
        self.gone_met = false;
        self.tally.injected(Fault::Gone);
    }

    /// The writes that are not certain to be on the medium, in the order of effect; those in flight that had
    /// none yet come last.
    pub fn undecided(&self) -> impl Iterator<Item = &Entry> {
        self.undecided_in_order().map(|(_, entry)| entry)
    }

    fn undecided_in_order(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let waiting = self.flights.values().filter_map(|flight| match flight {
            Flight::Waiting(entry) => Some((u64::MAX, entry)),
            _ => None,
        });
        self.cached
            .iter()
            .map(|(&order, entry)| (order, entry))
            .chain(waiting)
    }

    /// What is on the medium after a power loss in which each undecided write met the fate that `decide`
    /// says. It is asked only about those that power loss need not keep.
    pub fn image(&self, mut decide: impl FnMut(&Entry) -> Fate) -> Medium {
        let mut image = self.medium.clone();
        for entry in self.undecided() {
            let fate = match entry.is_sure() {
                true => Fate::Keep,
                false => decide(entry),
            };
            keep_part(entry, &fate, |run| entry.put(&mut image, run));
        }
        image
    }

    /// Cuts the power. What is left is what a restart finds.
    pub fn cut_power(&mut self) {
        let (mut prng, mood) = (self.prng.fork(), self.prng.below(4));
        let mut marks = std::mem::take(&mut self.marks_medium);
        let mut left = self.medium.clone();
        let mut tally = self.tally;
        for (order, entry) in self.undecided_in_order() {
            let fate = match entry.is_sure() {
                true => Fate::Keep,
                false => draw_fate(&mut prng, entry, mood),
            };
            let first = entry.sectors().start;
            keep_part(entry, &fate, |run| {
                marks.clear(first + run.start..first + run.end, order);
                entry.put(&mut left, run);
            });
            let fault = match fate {
                Fate::Keep => continue,
                Fate::Lose => Fault::Dropped,
                _ => Fault::Torn,
            };
            tally.injected(fault);
            // One sector stands for the write: it counts once.
            marks.set_unless_damaged(first, fault);
        }
        self.tally = tally;
        self.medium = left;
        self.marks_medium = marks;
        self.now = self.medium.clone();
        self.marks_now = self.marks_medium.clone();
        self.cached.clear();
        self.flights.clear();
        self.covered.fill(0);
        self.youngest_lost |= self.unsettled.take().is_some();
    }
}

/// What a power cut makes of a write. The mood of the cut: 0 everything is lost, 1 everything is kept, else each
/// on its own.
fn draw_fate(prng: &mut Prng, entry: &Entry, mood: u64) -> Fate {
    match (mood, prng.below(4)) {
        (0, _) | (2.., 0) => Fate::Lose,
        (1, _) | (2.., 1) => Fate::Keep,
        (_, 2) => Fate::TornAfter(prng.below(entry.len() / SECTOR)),
        _ => Fate::Torn(prng.next_u64()),
    }
}

/// Gives `put` the runs of sectors of a write, counted from its first, that its fate keeps.
fn keep_part(entry: &Entry, fate: &Fate, mut put: impl FnMut(Range<u64>)) {
    let sectors = entry.len() / SECTOR;
    match fate {
        Fate::Keep => put(0..sectors),
        Fate::Lose => {}
        Fate::TornAfter(kept) => put(0..sectors.min(*kept)),
        Fate::Torn(mask) => {
            let kept = (0..sectors).filter(|n| mask >> (n % 64) & 1 == 1);
            kept.for_each(|n| put(n..n + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Durability::{Cached, Durable};

    fn disk(seed: u64) -> Disk {
        let rates = Rates {
            read_us: 10,
            durable_us: 10,
            cached_us: 5,
            flush_us: 20,
            ..Rates::default()
        };
        let medium = Medium::new(64 * BLOCK);
        Disk::new(medium, Layout::default(), rates, Prng::new(seed))
    }

    fn write(disk: &mut Disk, block: u64, byte: u8, durability: Durability) {
        let (ticket, _) = disk.begin_write(block * BLOCK, vec![byte; 4096], durability);
        disk.end(ticket).unwrap();
    }

    fn read(disk: &mut Disk, block: u64) -> [u8; 4096] {
        let mut bytes = [0; 4096];
        disk.read(block * BLOCK, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_answered_as_durable_survives_every_power_cut() {
        for seed in 0..200 {
            let mut disk = disk(seed);
            write(&mut disk, 3, 1, Cached);
            write(&mut disk, 3, 2, Durable);
            write(&mut disk, 4, 3, Durable);
            disk.cut_power();
            assert_eq!(read(&mut disk, 3), [2; 4096]);
            assert_eq!(read(&mut disk, 4), [3; 4096]);
        }
    }

    #[test]
    fn what_was_cached_is_kept_lost_or_torn_until_it_is_flushed() {
        let mut seen = [0; 3];
        for seed in 0..200 {
            let mut disk = disk(seed);
            write(&mut disk, 3, 1, Cached);
            assert_eq!(read(&mut disk, 3), [1; 4096], "seen while the power is on");
            disk.cut_power();
            let page = read(&mut disk, 3);
            let new = page.chunks(512).filter(|sector| sector[0] == 1).count();
            assert!(page.chunks(512).all(|s| s.iter().all(|&b| b == s[0])));
            seen[(new > 0) as usize + (new == 8) as usize] += 1;

            write(&mut disk, 5, 7, Cached);
            let (flush, _) = disk.begin_flush();
            disk.end(flush).unwrap();
            disk.cut_power();
            assert_eq!(read(&mut disk, 5), [7; 4096]);
        }
        assert!(seen.iter().all(|&n| n > 20), "{seen:?}");
    }

    #[test]
    fn a_flush_covers_only_what_was_answered_before_it() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut disk = disk(seed);
            let (flush, _) = disk.begin_flush();
            write(&mut disk, 5, 7, Cached);
            disk.end(flush).unwrap();
            disk.cut_power();
            lost += u32::from(read(&mut disk, 5) != [7; 4096]);
        }
        assert!(lost > 20);
    }

    #[test]
    fn a_write_in_flight_may_be_there_after_a_power_cut_or_not() {
        let mut there = 0;
        for seed in 0..200 {
            let mut disk = disk(seed);
            disk.begin_write(0, vec![9; 4096], Durable);
            disk.cut_power();
            there += u32::from(read(&mut disk, 0) == [9; 4096]);
        }
        assert!((40..160).contains(&there), "{there}");
    }

    #[test]
    fn a_lost_write_is_known_to_the_oracle_and_forgotten_when_written_again() {
        let mut disk = disk(1);
        disk.rates.lost_write = 1;
        let mut misplaced = false;
        for _ in 0..20 {
            write(&mut disk, 3, 1, Durable);
            let mut bytes = [0; 4096];
            let damaged = disk.read(3 * BLOCK, &mut bytes).unwrap();
            if bytes == [0; 4096] {
                assert_eq!(damaged, Some(Fault::LostWrite));
                misplaced = true;
            }
            disk.rates.lost_write = 1 - disk.rates.lost_write;
        }
        assert!(misplaced);
        disk.rates.lost_write = 0;
        write(&mut disk, 3, 2, Durable);
        assert_eq!(disk.read(3 * BLOCK, &mut [0; 4096]), Ok(None));
    }

    #[test]
    fn rot_survives_a_power_cut_that_loses_what_hid_it() {
        for seed in 0..50 {
            let mut disk = disk(seed);
            write(&mut disk, 3, 1, Durable);
            disk.rot();
            write(&mut disk, 3, 2, Cached);
            disk.cut_power();
            let mut bytes = [0; 4096];
            let damaged = disk.read(3 * BLOCK, &mut bytes).unwrap();
            let right = bytes.chunks(512).all(|s| s == [1; 512] || s == [2; 512]);
            assert!(right || damaged == Some(Fault::Rot));
        }
    }
}
