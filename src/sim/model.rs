//! What every volume may hold, for all that was acknowledged, refused, read and lost so far.
//!
//! The model knows nothing of chunks on disks, journals or shards. It keeps a register for each block of each
//! volume and the list of all writes; the checkers ask it.

use super::payload::Value;
use super::register::{Mismatch, Observation, Register, Tick, WriteNo};
use crate::base::{BLOCK, CHUNK};
use std::collections::BTreeSet;
use std::ops::Range;

/// One write, write-zeroes or discard.
#[derive(Debug, Clone)]
pub struct Write {
    pub volume: usize,
    /// In bytes of the volume.
    pub range: Range<u64>,
    pub value: Value,
    pub began: Tick,
    /// When it ended for its caller; `Tick::MAX` while it is in flight.
    pub ended: Tick,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Acknowledged,
    /// Refused, or cut off: it happened in whole or part before now, or never will.
    Unknown,
    /// Failed: what of it happens is decided by the next power cut.
    Open,
}

/// What a read returned of one block, and should not have.
#[derive(Debug, Clone, Copy)]
pub struct Wrong {
    pub volume: usize,
    pub block: u64,
    pub mismatch: Mismatch,
}

#[derive(Debug, Clone, Default)]
struct Volume {
    blocks: Vec<Option<Box<Register>>>,
    /// The volume that this one was a copy of at first.
    source: Option<usize>,
}

/// The model of all volumes of a run.
#[derive(Debug, Clone)]
pub struct Model {
    tick: Tick,
    writes: Vec<Write>,
    volumes: Vec<Volume>,
    /// When the operations in flight began.
    flying: BTreeSet<Tick>,
    /// Writes that failed and are not decided.
    open: Vec<WriteNo>,
    last_cut: Tick,
    /// Writes inside one chunk that were in flight at a power cut and have not been looked at since.
    pub unresolved: Vec<WriteNo>,
}

impl Default for Model {
    fn default() -> Model {
        Model::new()
    }
}

impl Model {
    pub fn new() -> Model {
        let before_all = Write {
            volume: usize::MAX,
            range: 0..u64::MAX,
            value: Value::ZERO,
            began: 0,
            ended: 0,
        };
        Model {
            tick: 1,
            writes: vec![before_all],
            volumes: Vec::new(),
            flying: BTreeSet::new(),
            open: Vec::new(),
            last_cut: 0,
            unresolved: Vec::new(),
        }
    }

    pub fn last_cut(&self) -> Tick {
        self.last_cut
    }

    pub fn write(&self, write: WriteNo) -> &Write {
        &self.writes[write as usize]
    }

    /// A new volume, as zeroes. Its number is its name here.
    pub fn create(&mut self, bytes: u64) -> usize {
        self.volumes.push(Volume::default());
        self.resize(self.volumes.len() - 1, bytes);
        self.volumes.len() - 1
    }

    pub fn resize(&mut self, volume: usize, bytes: u64) {
        let blocks = bytes.div_ceil(BLOCK) as usize;
        self.volumes[volume].blocks.resize_with(blocks, || None);
    }

    /// A new volume that holds what `source` held at some time since `since`.
    pub fn copy(&mut self, source: usize, since: Tick) -> usize {
        self.tick += 1;
        let now = self.tick;
        let copied = |register: &Option<Box<Register>>| {
            let register = register.as_ref()?;
            Some(Box::new(register.copied(since, now)))
        };
        let blocks = self.volumes[source].blocks.iter().map(copied).collect();
        self.volumes.push(Volume {
            blocks,
            source: Some(source),
        });
        self.volumes.len() - 1
    }

    /// Forgets what a volume held.
    pub fn drop_volume(&mut self, volume: usize) {
        self.volumes[volume].blocks.clear();
        self.unresolved
            .retain(|&n| self.writes[n as usize].volume != volume);
    }

    /// An operation began: until it ends, what may be read now stays known.
    pub fn began(&mut self) -> Tick {
        self.tick += 1;
        self.flying.insert(self.tick);
        self.tick
    }

    /// An operation ended that began at `began`.
    pub fn ended(&mut self, began: Tick) -> Tick {
        self.flying.remove(&began);
        self.tick += 1;
        self.tick
    }

    fn low_water(&self) -> Tick {
        self.flying.first().copied().unwrap_or(self.tick)
    }

    pub fn write_began(&mut self, volume: usize, range: Range<u64>, value: Value) -> WriteNo {
        let began = self.began();
        let write = self.writes.len() as WriteNo;
        let low_water = self.low_water();
        for (block, lo, hi) in blocks_of(&range) {
            let register = self.volumes[volume].blocks[block as usize].get_or_insert_default();
            register.write_began(lo, hi, write, began, low_water);
        }
        self.writes.push(Write {
            volume,
            range,
            value,
            began,
            ended: Tick::MAX,
        });
        write
    }

    pub fn write_ended(&mut self, write: WriteNo, ending: Ending) {
        let began = self.writes[write as usize].began;
        let now = self.ended(began);
        self.writes[write as usize].ended = now;
        match ending {
            Ending::Open => self.open.push(write),
            _ => self.settle(write, now, ending == Ending::Acknowledged),
        }
    }

    fn settle(&mut self, write: WriteNo, now: Tick, sure: bool) {
        let Write { volume, range, .. } = &self.writes[write as usize];
        let blocks = &mut self.volumes[*volume].blocks;
        for (block, lo, hi) in blocks_of(range) {
            if let Some(Some(register)) = blocks.get_mut(block as usize) {
                register.write_ended(lo, hi, write, now, sure);
            }
        }
    }

    /// The power was cut: `in_flight` are the writes that were not answered.
    pub fn power_cut(&mut self, in_flight: &[WriteNo]) {
        self.tick += 1;
        let now = self.tick;
        self.last_cut = now;
        self.flying.clear();
        let open = std::mem::take(&mut self.open);
        for &write in in_flight.iter().chain(&open) {
            self.settle(write, now, false);
            let record = &mut self.writes[write as usize];
            record.ended = record.ended.min(now);
            let chunks = record.range.start / CHUNK == (record.range.end - 1) / CHUNK;
            if chunks && record.value != Value::ZERO {
                self.unresolved.push(write);
            }
        }
    }

    /// Takes what a read returned.
    pub fn read(
        &mut self,
        volume: usize,
        offset: u64,
        bytes: &[u8],
        began: Tick,
        ended: Tick,
    ) -> Result<(), Wrong> {
        let range = offset..offset + bytes.len() as u64;
        for (block, lo, hi) in blocks_of(&range) {
            let from = (block * BLOCK + u64::from(lo) - offset) as usize;
            let bytes = &bytes[from..from + usize::from(hi - lo)];
            let wrong = |mismatch| Wrong {
                volume,
                block,
                mismatch,
            };
            let writes = &self.writes;
            let is = |write: WriteNo, at: u16, bytes: &[u8]| {
                let value = writes[write as usize].value;
                value.is(block * BLOCK + u64::from(at), bytes)
            };
            match &mut self.volumes[volume].blocks[block as usize] {
                Some(register) => register
                    .observe(
                        &Observation {
                            lo,
                            bytes,
                            began,
                            ended,
                        },
                        is,
                    )
                    .map_err(wrong)?,
                None if is(0, lo, bytes) => {}
                None => {
                    return Err(wrong(Mismatch {
                        at: lo,
                        seen: None,
                        instead_of: 0,
                    }));
                }
            }
        }
        Ok(())
    }

    /// Whether a read of a range that began at `began` may return zeroes.
    pub fn may_be_zero(&self, volume: usize, range: &Range<u64>, began: Tick) -> bool {
        blocks_of(range).all(|(block, lo, hi)| {
            let register = self.volumes[volume].blocks.get(block as usize);
            register.is_some_and(|register| match register {
                Some(register) => register.may_be(lo, hi, began, |write| {
                    self.writes[write as usize].value == Value::ZERO
                }),
                None => true,
            })
        })
    }

    /// The writes that reads since the last power cut found in the range of `write`.
    pub fn seen_in(&self, write: WriteNo) -> Vec<WriteNo> {
        let Write { volume, range, .. } = self.write(write);
        let mut seen = Vec::new();
        for (block, lo, hi) in blocks_of(range) {
            if let Some(Some(register)) = self.volumes[*volume].blocks.get(block as usize) {
                seen.extend(register.seen(lo, hi, self.last_cut));
            }
        }
        seen
    }

    /// The ranges of a volume that were ever written, in whole blocks, at most `blocks_max` at a time.
    pub fn written(&self, volume: usize, blocks_max: u64) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let blocks = self.volumes[volume].blocks.iter().enumerate();
        for (n, _) in blocks.filter(|(_, register)| register.is_some()) {
            let at = n as u64 * BLOCK;
            match ranges.last_mut() {
                Some(last) if last.end == at && last.end - last.start < blocks_max * BLOCK => {
                    last.end += BLOCK;
                }
                _ => ranges.push(at..at + BLOCK),
            }
        }
        ranges
    }

    /// The volume and those that it was a copy of, at first or by way of others.
    fn lineage(&self, volume: usize) -> Vec<usize> {
        std::iter::successors(Some(volume), |&volume| self.volumes[volume].source).collect()
    }

    /// Which write these bytes are from, of all there ever were in this place.
    pub fn origin(&self, volume: usize, offset: u64, bytes: &[u8]) -> Option<WriteNo> {
        let lineage = self.lineage(volume);
        let fits = |write: &Write| {
            (write.volume == usize::MAX || lineage.contains(&write.volume))
                && write.range.contains(&offset)
                && write.value.is(offset, bytes)
        };
        Some(self.writes.iter().rposition(fits)? as WriteNo)
    }

    /// Whether each of these bytes was once written there: between the ends of writes all are from one of them.
    pub fn was_ever(&self, volume: usize, offset: u64, bytes: &[u8]) -> bool {
        let lineage = self.lineage(volume);
        let range = offset..offset + bytes.len() as u64;
        let there = |write: &&Write| lineage.contains(&write.volume);
        let ends = self.writes.iter().filter(there);
        let mut cuts: BTreeSet<u64> = ends
            .flat_map(|write| [write.range.start, write.range.end])
            .filter(|at| range.contains(at))
            .collect();
        cuts.extend([range.start, range.end]);
        let cuts: Vec<u64> = cuts.into_iter().collect();
        cuts.windows(2).all(|piece| {
            let part = (piece[0] - offset) as usize..(piece[1] - offset) as usize;
            self.origin(volume, piece[0], &bytes[part]).is_some()
        })
    }
}

/// The blocks of a byte range: number, first byte and one past the last byte in it.
pub fn blocks_of(range: &Range<u64>) -> impl Iterator<Item = (u64, u16, u16)> + use<> {
    let (start, end) = (range.start, range.end);
    (start / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let at = block * BLOCK;
        let lo = start.saturating_sub(at) as u16;
        (block, lo, (end - at).min(BLOCK) as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(model: &mut Model, volume: usize, range: Range<u64>, value: u64) {
        let write = model.write_began(volume, range, Value(value));
        model.write_ended(write, Ending::Acknowledged);
    }

    fn payload(value: u64, range: &Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        Value(value).fill(range.start, &mut bytes);
        bytes
    }

    fn read(model: &mut Model, volume: usize, at: u64, bytes: &[u8]) -> Result<(), Wrong> {
        let began = model.began();
        let ended = model.ended(began);
        model.read(volume, at, bytes, began, ended)
    }

    #[test]
    fn bytes_are_read_back_as_they_were_written_at_any_alignment() {
        let mut model = Model::new();
        let volume = model.create(1 << 20);
        let (wide, narrow) = (1000..30_000, 8191..8195);
        acknowledged(&mut model, volume, wide.clone(), 7);
        acknowledged(&mut model, volume, narrow.clone(), 8);
        let mut right = payload(7, &wide);
        assert!(read(&mut model, volume, 1000, &right).is_err());
        right[7191..7195].copy_from_slice(&payload(8, &narrow));
        assert!(read(&mut model, volume, 1000, &right).is_ok());
        right[28_999] ^= 1;
        let wrong = read(&mut model, volume, 1000, &right).unwrap_err();
        assert_eq!((wrong.block, wrong.mismatch.seen), (7, None));
    }

    #[test]
    fn a_copy_holds_what_the_source_held_and_no_later_write() {
        let mut model = Model::new();
        let volume = model.create(1 << 20);
        acknowledged(&mut model, volume, 0..4096, 1);
        let since = model.began();
        model.ended(since);
        let copy = model.copy(volume, since);
        acknowledged(&mut model, volume, 0..4096, 2);
        assert!(read(&mut model, copy, 0, &payload(1, &(0..4096))).is_ok());
        assert!(read(&mut model, copy, 0, &payload(2, &(0..4096))).is_err());
        assert!(read(&mut model, volume, 0, &payload(1, &(0..4096))).is_err());
    }

    #[test]
    fn a_write_during_the_making_of_a_copy_may_be_in_it_or_not() {
        let mut model = Model::new();
        let volume = model.create(1 << 20);
        acknowledged(&mut model, volume, 0..4096, 1);
        let since = model.began();
        acknowledged(&mut model, volume, 0..4096, 2);
        let copy = model.copy(volume, since);
        model.ended(since);
        for value in [1, 2] {
            let mut model = model.clone();
            assert!(read(&mut model, copy, 0, &payload(value, &(0..4096))).is_ok());
            let other = payload(3 - value, &(0..4096));
            assert!(read(&mut model, copy, 0, &other).is_err());
        }
    }

    #[test]
    fn where_bytes_come_from_is_known() {
        let mut model = Model::new();
        let volume = model.create(1 << 20);
        acknowledged(&mut model, volume, 0..4096, 5);
        acknowledged(&mut model, volume, 0..4096, 6);
        let old = payload(5, &(0..4096));
        assert_eq!(model.origin(volume, 0, &old[..512]), Some(1));
        assert_eq!(model.origin(volume, 512, &old[..512]), None);
    }

    #[test]
    fn what_was_ever_there_may_be_of_several_writes_and_of_the_source_of_a_copy() {
        let mut model = Model::new();
        let source = model.create(1 << 20);
        acknowledged(&mut model, source, 0..1000, 5);
        acknowledged(&mut model, source, 0..1000, 6);
        let since = model.began();
        model.ended(since);
        let copy = model.copy(source, since);
        acknowledged(&mut model, copy, 300..4096, 7);
        let mut bytes = payload(5, &(0..300));
        bytes.extend(payload(7, &(300..1000)));
        bytes.extend([0; 3096]);
        assert!(model.was_ever(copy, 0, &bytes));
        assert!(!model.was_ever(source, 0, &bytes));
        bytes[299] ^= 1;
        assert!(!model.was_ever(copy, 0, &bytes));
    }
}
