//! What a volume may hold: for each sector the writes of which one must be the last.
//!
//! A write is a candidate of its sectors from its submission on. When it is acknowledged, every candidate that was
//! acknowledged before it was submitted is out. So one that was never contended has one candidate, and two that
//! overlapped in flight leave both. After a crash every sector is read: it must show a candidate, which then is
//! the only one. This is a linearizable register a sector, through crashes.

use super::sector::{self, SECTOR, WriteNo, ZEROES};
use super::{Step, ensure};
use sarsen::base::CHUNK;

const NEVER: u64 = u64::MAX;
const SECTORS_PER_CHUNK: u64 = CHUNK / SECTOR as u64;

/// What a write leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Data,
    Zeroes,
    /// A trim that is not aligned: zeroes, or what was there.
    PerhapsZeroes,
}

#[derive(Debug)]
struct Write {
    first: u64,
    count: u64,
    effect: Effect,
    /// In ticks of the model's clock.
    submitted: u64,
    /// From here on it has happened or never will.
    ended: u64,
    acknowledged: bool,
}

/// What a read began with.
pub struct Reading {
    first: u64,
    candidates: Vec<Vec<WriteNo>>,
    next: WriteNo,
}

/// What a volume may hold.
pub struct Model {
    clock: u64,
    writes: Vec<Write>,
    sectors: Vec<Vec<WriteNo>>,
    /// Writes that were submitted after the last crash.
    since: usize,
}

/// What the look at a volume after a crash showed.
#[derive(Debug, Default)]
pub struct Verified {
    /// Writes that were in flight at the crash, of them seen in part or whole, and of those inside one chunk.
    pub in_flight: u64,
    pub in_flight_seen: u64,
    pub atomic_checked: u64,
}

impl Model {
    /// A volume of so many bytes that was never written.
    pub fn new(bytes: u64) -> Model {
        let never = Write {
            first: 0,
            count: bytes / SECTOR as u64,
            effect: Effect::Zeroes,
            submitted: 0,
            ended: 0,
            acknowledged: true,
        };
        Model {
            clock: 0,
            sectors: vec![vec![ZEROES]; never.count as usize],
            writes: vec![never],
            since: 1,
        }
    }

    pub fn sectors(&self) -> u64 {
        self.sectors.len() as u64
    }

    /// A write is about to be sent. Its number is what its payload is filled with.
    pub fn submit(&mut self, first: u64, count: u64, effect: Effect) -> WriteNo {
        self.clock += 1;
        let number = self.writes.len() as WriteNo;
        let submitted = self.clock;
        self.writes.push(Write {
            first,
            count,
            effect,
            submitted,
            ended: NEVER,
            acknowledged: false,
        });
        for candidates in &mut self.sectors[first as usize..(first + count) as usize] {
            candidates.push(number);
        }
        number
    }

    pub fn acknowledge(&mut self, number: WriteNo) {
        self.clock += 1;
        let write = &mut self.writes[number as usize];
        write.ended = self.clock;
        write.acknowledged = true;
        if write.effect == Effect::PerhapsZeroes {
            return;
        }
        let (first, count, submitted) = (write.first, write.count, write.submitted);
        let writes = &self.writes;
        for candidates in &mut self.sectors[first as usize..(first + count) as usize] {
            candidates.retain(|&c| c == number || writes[c as usize].ended > submitted);
        }
    }

    /// A write was answered with an error: it may have happened, and will not any more.
    pub fn refuse(&mut self, number: WriteNo) {
        self.clock += 1;
        self.writes[number as usize].ended = self.clock;
    }

    /// A read is about to be sent.
    pub fn submit_read(&self, first: u64, count: u64) -> Reading {
        Reading {
            first,
            candidates: self.sectors[first as usize..(first + count) as usize].to_vec(),
            next: self.writes.len() as WriteNo,
        }
    }

    /// What a read brought: a candidate of its beginning, or of a write that began since.
    pub fn check_read(&self, reading: &Reading, data: &[u8]) -> Result<(), String> {
        let sectors = (reading.first..)
            .zip(data.as_chunks::<SECTOR>().0)
            .zip(&reading.candidates);
        for ((address, bytes), candidates) in sectors {
            let value = sector::read(bytes, address)?;
            let newer = reading.next..self.writes.len() as WriteNo;
            let fits = |&c: &WriteNo| self.explains(c, address, value);
            if !candidates.iter().any(fits) && !newer.into_iter().any(|c| fits(&c)) {
                return Err(format!(
                    "a read of sector {address} shows {}, not {}",
                    self.describe(value),
                    self.describe_all(candidates)
                ));
            }
        }
        Ok(())
    }

    /// What a sector must show, as an error where `value` is not that.
    pub fn expect(&self, address: u64, value: WriteNo) -> Result<(), String> {
        let candidates = &self.sectors[address as usize];
        if candidates.iter().any(|&c| self.explains(c, address, value)) {
            return Ok(());
        }
        let (shows, must) = (self.describe(value), self.describe_all(candidates));
        Err(format!(
            "sector {address} shows {shows}, but must show {must}"
        ))
    }

    /// Whether a sector that shows `value` can be what write `c` left.
    fn explains(&self, c: WriteNo, address: u64, value: WriteNo) -> bool {
        let write = &self.writes[c as usize];
        let covers = (write.first..write.first + write.count).contains(&address);
        let shows = if write.effect == Effect::Data {
            c
        } else {
            ZEROES
        };
        covers && shows == value
    }

    /// After a crash: checks what every sector shows, which from now on is all that it may show.
    pub fn verify(&mut self, read: impl FnMut(u64, u64) -> Step<Vec<u8>>) -> Step<Verified> {
        let values = self.read_all(read)?;
        let mut wrong = Vec::new();
        for (address, &value) in (0u64..).zip(&values) {
            wrong.extend(self.expect(address, value).err());
        }
        let first = wrong[..wrong.len().min(5)].join("; ");
        ensure!(
            wrong.is_empty(),
            "{} sectors are wrong: {first}",
            wrong.len()
        );
        let verified = self.check_atomic(&values)?;
        self.settle(&values);
        Ok(verified)
    }

    fn read_all(&self, mut read: impl FnMut(u64, u64) -> Step<Vec<u8>>) -> Step<Vec<WriteNo>> {
        const AT_ONCE: u64 = 2048;
        let mut values = Vec::with_capacity(self.sectors.len());
        for first in (0..self.sectors()).step_by(AT_ONCE as usize) {
            let count = AT_ONCE.min(self.sectors() - first);
            let bytes = read(first, count)?;
            for (address, sector) in (first..).zip(bytes.as_chunks::<SECTOR>().0) {
                values.push(sector::read(sector, address)?);
            }
        }
        Ok(values)
    }

    /// A write inside one chunk that was in flight is there as a whole or not at all: no sector shows it (and
    /// nothing else can explain that) while another shows what was over before it began.
    fn check_atomic(&self, values: &[WriteNo]) -> Step<Verified> {
        let mut verified = Verified::default();
        for (number, write) in self.writes.iter().enumerate().skip(self.since) {
            if write.ended != NEVER {
                continue;
            }
            verified.in_flight += 1;
            let range = write.first..write.first + write.count;
            let shown = |&a: &u64| values[a as usize] == number as WriteNo;
            let seen = range.clone().find(shown);
            verified.in_flight_seen += u64::from(seen.is_some());
            let last = write.first + write.count - 1;
            let one_chunk = write.first / SECTORS_PER_CHUNK == last / SECTORS_PER_CHUNK;
            if !one_chunk || write.effect != Effect::Data {
                continue;
            }
            verified.atomic_checked += 1;
            let older = |&a: &u64| {
                let (value, candidates) = (values[a as usize], &self.sectors[a as usize]);
                let mut by = candidates.iter().filter(|&&c| self.explains(c, a, value));
                by.all(|&c| self.writes[c as usize].ended < write.submitted)
            };
            if let (Some(new), Some(old)) = (seen, range.clone().find(older)) {
                return Err(format!(
                    "write {number} of sectors {range:?} is torn: sector {new} shows it, sector {old} shows {}",
                    self.describe(values[old as usize])
                )
                .into());
            }
        }
        Ok(verified)
    }

    /// What was seen is what is there; what was in flight has happened or never will.
    fn settle(&mut self, values: &[WriteNo]) {
        let mut sectors = std::mem::take(&mut self.sectors);
        for (address, (&value, candidates)) in (0u64..).zip(values.iter().zip(&mut sectors)) {
            candidates.retain(|&c| self.explains(c, address, value));
            candidates.truncate(1);
        }
        self.sectors = sectors;
        self.clock += 1;
        for write in self.writes.iter_mut().skip(self.since) {
            write.ended = write.ended.min(self.clock);
        }
        self.since = self.writes.len();
    }

    fn describe(&self, value: WriteNo) -> String {
        match self.writes.get(value as usize) {
            _ if value == ZEROES => "zeroes".into(),
            None => format!("write {value}, which was never sent"),
            Some(write) if write.acknowledged => format!("write {value}"),
            Some(_) => format!("write {value} (not acknowledged)"),
        }
    }

    fn describe_all(&self, candidates: &[WriteNo]) -> String {
        let each = candidates
            .iter()
            .map(|&c| match self.writes[c as usize].effect {
                Effect::Data => self.describe(c),
                _ if c == ZEROES => "zeroes".into(),
                _ => format!("zeroes (write {c})"),
            });
        each.collect::<Vec<_>>().join(" or ")
    }
}
