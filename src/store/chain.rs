//! The journal as it lies on disk: which batches a replay takes, and how their chain ends.
//!
//! The ring is read twice. The *survey* looks at every header, wherever it lies, and learns up to
//! which batch everything was durable once. Then the chain is *followed* from the tail. Where it
//! ends behind that point, its end is a torn write of the crash; where it ends before, an
//! acknowledged batch is damaged.
//!
//! After a clean close the superblocks name the end of the chain, and reading all of the ring would be most of an opening.
//! Then the survey only *glances* at where the first batches after the close would lie. If one lies there, whatever the
//! superblocks say, all of the ring is surveyed.
//!
//! A batch that a crash tore may be followed by another one of its number: too long for what is left of the
//! ring, it was written to the ring's start by the next life of the store, and the torn one still stands.
//! Of two such rivals the one of the later incarnation is in the chain.
//!
//! An opening writes into the superblocks where it found the end, before anything is served. All before it must be there
//! from then on, and what stands behind is left over: it may look whole to the next opening, where a sector can be
//! read that could not be read before, and counts only if that incarnation or a later one wrote it.
//!
//! Opening a store and checking an image both read the journal through this, so that they cannot
//! disagree. It asks for bytes and is given them: it knows no disk. A place that cannot be read is
//! asked for again block by block, because one bad sector must not hide the batches around it.

use super::batch::{self, BATCH_LEN_MAX, Header};
use super::record::Record;
use super::root::Position;
use super::superblock::Superblock;
use crate::base::{BLOCK, crc};
use std::ops::Range;

/// Bytes of one read.
const READ_LEN: u64 = 1024 * 1024;
/// Bytes behind that end, and at the ring's start, that a glance looks at: the first batch of a next life lies in one
/// of them, and at least one more.
const GLANCE_LEN: u64 = 2 * BATCH_LEN_MAX;

/// How much of the ring is surveyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survey {
    /// All of it.
    Whole,
    /// After a clean close only where a later life would have written first.
    AsNeeded,
}

/// What comes next. Offsets are in bytes from the start of the ring.
#[derive(Debug)]
pub(super) enum Step {
    /// These bytes are to be read and handed to [`Chain::feed`].
    Read { offset: u64, len: u64 },
    /// The next batch of the chain.
    Batch(Box<Found>),
    /// The chain has ended.
    End,
}

/// A batch that replay takes.
#[derive(Debug)]
pub(super) struct Found {
    pub header: Header,
    /// The crc that its header carries.
    pub crc: u32,
    pub records: Vec<Record>,
    pub offset: u64,
    /// Bytes of its header, behind which its payload lies.
    pub header_len: u64,
    pub len: u64,
    /// Payload blocks that do not match their checksums, counted from the first, though the batch
    /// was acknowledged.
    pub lost: Vec<u32>,
}

/// Something at the chain's end that looks like a batch and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Torn {
    pub offset: u64,
    /// Bytes that it takes, as far as that can be told.
    pub len: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Survey,
    Follow,
    End,
}

/// Reads a journal.
#[derive(Debug)]
pub(super) struct Chain {
    superblock: Superblock,
    phase: Phase,
    /// What is surveyed now, in bytes of the ring, and what after it.
    part: Range<u64>,
    parts: Vec<Range<u64>>,
    /// Where the journal ends, if only a glance was taken at what is behind.
    glanced: Option<Position>,
    /// The newest batch that some header names.
    batch_seen: u64,
    /// Every batch up to this one was durable, as some header says.
    pub durable_once: u64,
    /// What the batch after that one follows, where the header that says so is that batch's own.
    follows_durable: Option<u32>,
    /// The header at the start of the ring.
    first: Option<Header>,
    /// The newest checkpoint that some header names.
    pub checkpoint_seen: u64,
    /// The latest incarnation that some header names. It is on both superblocks before the first header has it, so a
    /// later one than theirs says that the right copy is damaged and the other one was never written.
    pub incarnation_seen: u64,
    /// Where the next batch is expected, and what it must follow.
    pub next: Position,
    /// Something like a batch stands where the chain ended.
    pub torn: Option<Torn>,
    /// The last batch that was taken is an empty one, or none was taken.
    pub closed: bool,
    /// Bytes of the ring from `at` on; those before `start` are done with.
    bytes: Vec<u8>,
    start: usize,
    at: u64,
    /// Up to here one block at a time is read, because something before it could not be.
    careful_until: u64,
    /// The ring's start is tried, because no batch follows where the last one ended.
    at_start: bool,
}

impl Chain {
    /// The journal of a store, from the tail that its root names.
    pub fn new(superblock: &Superblock, tail: Position, survey: Survey) -> Chain {
        let ring_len = superblock.geometry.journal_len;
        let glance = |from: u64| from..(from + GLANCE_LEN).min(ring_len);
        let end = superblock.end;
        let glanced = (superblock.closed && survey == Survey::AsNeeded).then_some(end);
        let (part, parts) = match glanced {
            None => (0..ring_len, Vec::new()),
            Some(end) => (glance(end.offset), vec![glance(0)]),
        };
        Chain {
            superblock: *superblock,
            phase: Phase::Survey,
            at: part.start,
            part,
            parts,
            glanced,
            batch_seen: 0,
            durable_once: end.batch - 1,
            follows_durable: Some(end.previous),
            first: None,
            checkpoint_seen: 0,
            incarnation_seen: 0,
            next: tail,
            torn: None,
            closed: true,
            bytes: Vec::new(),
            start: 0,
            careful_until: 0,
            at_start: false,
        }
    }

    /// An acknowledged batch is missing or damaged: nothing can be known to be the newest.
    pub fn is_broken(&self) -> bool {
        self.durable_once >= self.next.batch || self.is_last_wrong() || self.is_checkpoint_lost()
    }

    /// The last batch that was taken is not the one that its successor followed, which knew it to be durable.
    fn is_last_wrong(&self) -> bool {
        self.durable_once + 1 == self.next.batch
            && self
                .follows_durable
                .is_some_and(|previous| previous != self.next.previous)
    }

    /// A batch was written under a newer checkpoint than the superblock names.
    pub fn is_checkpoint_lost(&self) -> bool {
        self.checkpoint_seen > self.superblock.checkpoint
    }

    /// Whether the first pass is under way.
    pub fn is_surveying(&self) -> bool {
        self.phase == Phase::Survey
    }

    /// What is to be done next.
    pub fn step(&mut self) -> Step {
        let ring_len = self.superblock.geometry.journal_len;
        loop {
            let have = (self.bytes.len() - self.start) as u64;
            let read_to = self.at + have;
            match self.phase {
                Phase::Survey if read_to < self.part.end => {
                    return self.read(read_to, self.part.end);
                }
                Phase::Survey => match self.next_part() {
                    Some(part) => {
                        self.restart(part.start);
                        self.part = part;
                    }
                    None => {
                        self.phase = Phase::Follow;
                        self.restart(self.next.offset);
                    }
                },
                Phase::Follow if have < BATCH_LEN_MAX && read_to < ring_len => {
                    return self.read(read_to, ring_len);
                }
                Phase::Follow => {
                    if let Some(found) = self.take() {
                        return Step::Batch(Box::new(found));
                    }
                    self.torn = self.torn.or_else(|| self.torn_here());
                    if self.at_start || self.at == 0 {
                        self.phase = Phase::End;
                        self.restart(0);
                    } else {
                        // Too long for the ring's end: it may lie at the start.
                        self.at_start = true;
                        self.restart(0);
                    }
                }
                Phase::End => return Step::End,
            }
        }
    }

    /// What is to be surveyed after the part that was.
    fn next_part(&mut self) -> Option<Range<u64>> {
        self.parts.pop().or_else(|| {
            let end = self.glanced.take()?;
            let whole = 0..self.superblock.geometry.journal_len;
            (self.batch_seen >= end.batch).then_some(whole)
        })
    }

    fn read(&self, offset: u64, end: u64) -> Step {
        let left = end - offset;
        let careful = offset < self.careful_until;
        let len = left.min(if careful { BLOCK } else { READ_LEN });
        Step::Read { offset, len }
    }

    fn restart(&mut self, at: u64) {
        self.bytes = Vec::new();
        self.start = 0;
        self.at = at;
        self.careful_until = 0;
    }

    /// Takes what the last [`Step::Read`] asked for, `len` bytes; `None` where they could not be
    /// read.
    pub fn feed(&mut self, len: u64, read: Option<&[u8]>) {
        let zeroes;
        let read = match read {
            Some(read) => read,
            None if len > BLOCK => {
                let from = self.at + (self.bytes.len() - self.start) as u64;
                self.careful_until = from + len;
                return;
            }
            None => {
                // It holds no header that anything could be learnt from, and no payload that
                // matches.
                zeroes = [0; BLOCK as usize];
                &zeroes[..]
            }
        };
        if self.phase == Phase::Survey && self.bytes.is_empty() {
            let done = self.survey(read);
            self.bytes.extend_from_slice(&read[done..]);
            self.at += done as u64;
            return;
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(read);
        if self.phase == Phase::Survey {
            let bytes = std::mem::take(&mut self.bytes);
            let done = self.survey(&bytes);
            self.bytes = bytes;
            self.bytes.drain(..done);
            self.at += done as u64;
        }
    }

    /// Looks at every header that begins in `bytes`, which lie from `at` on; returns how many bytes
    /// are done.
    fn survey(&mut self, bytes: &[u8]) -> usize {
        let is_last = self.at + bytes.len() as u64 >= self.part.end;
        let mut at = 0;
        while at + BLOCK as usize <= bytes.len() {
            if let Some(len) = batch::claimed_len(&bytes[at..]) {
                if at + len > bytes.len() && !is_last {
                    break; // it goes on in the next read
                }
                let header = bytes.get(at..at + len).and_then(batch::decode);
                let counts = |h: &Header| self.is_ours(h) && !self.is_left_over(h);
                if let Some((header, ..)) = header.filter(|(h, ..)| counts(h)) {
                    self.learn(header, self.at + at as u64);
                }
            }
            at += BLOCK as usize;
        }
        at
    }

    /// What the header of a batch at `offset` tells of the whole journal.
    fn learn(&mut self, header: Header, offset: u64) {
        self.batch_seen = self.batch_seen.max(header.batch);
        if header.durable_through > self.durable_once {
            self.durable_once = header.durable_through;
            self.follows_durable = None;
        }
        if header.durable_through == self.durable_once && header.batch == self.durable_once + 1 {
            self.follows_durable = Some(header.previous);
        }
        self.checkpoint_seen = self.checkpoint_seen.max(header.checkpoint);
        self.incarnation_seen = self.incarnation_seen.max(header.incarnation);
        if offset == 0 {
            self.first = Some(header);
        }
    }

    /// Whether the batch at the start of the ring takes the place of this one.
    fn has_rival(&self, header: &Header) -> bool {
        self.first.as_ref().is_some_and(|first| {
            first.batch == header.batch
                && first.previous == header.previous
                && first.incarnation > header.incarnation
        })
    }

    /// Whether a batch stands behind where a later incarnation than its own found, or made, the end.
    fn is_left_over(&self, header: &Header) -> bool {
        let Superblock {
            incarnation,
            end,
            closed,
            ..
        } = self.superblock;
        header.batch >= end.batch && header.incarnation < incarnation + u64::from(closed)
    }

    /// Whether a header was written by this store, in this life of its disk.
    fn is_ours(&self, header: &Header) -> bool {
        header.store == self.superblock.store && header.instance_key == self.superblock.instance_key
    }

    /// Takes the batch that stands here, where it is the next of the chain.
    fn take(&mut self) -> Option<Found> {
        let bytes = &self.bytes[self.start..];
        let header_len = batch::claimed_len(bytes)?;
        let (header, crc, records) = batch::decode(bytes.get(..header_len)?)?;
        let slots = self.superblock.geometry.slots;
        let is_next = self.is_ours(&header)
            && header.batch == self.next.batch
            && header.previous == self.next.previous
            && header.offset == self.at
            && !self.is_left_over(&header)
            && !self.has_rival(&header)
            && records
                .iter()
                .filter_map(Record::slot)
                .all(|slot| u64::from(slot) < slots);
        if !is_next {
            return None;
        }
        let len = header_len + (u64::from(header.payload_blocks) * BLOCK) as usize;
        let lost = damaged_blocks(&records, bytes.get(header_len..len)?);
        if !lost.is_empty() && header.batch > self.durable_once {
            return None; // it was torn by the crash
        }
        let offset = self.at;
        self.start += len;
        self.at += len as u64;
        self.at_start = false;
        self.torn = None;
        self.closed = records.is_empty();
        self.next = Position {
            offset: self.at,
            batch: header.batch + 1,
            previous: crc,
        };
        Some(Found {
            header,
            crc,
            records,
            offset,
            header_len: header_len as u64,
            len: len as u64,
            lost,
        })
    }

    /// What stands here and looks like a batch of this store, but is not the next one.
    fn torn_here(&self) -> Option<Torn> {
        let bytes = &self.bytes[self.start..];
        let claimed = batch::claimed_len(bytes);
        let offset = self.at;
        let header = claimed.and_then(|len| batch::decode(bytes.get(..len)?));
        if let (Some(len), Some((header, ..))) = (claimed, header) {
            // An older batch stands here rightly: the ring has not come round to it.
            let is_next = self.is_ours(&header)
                && !self.is_left_over(&header)
                && header.batch >= self.next.batch;
            let len = len as u64 + u64::from(header.payload_blocks) * BLOCK;
            return is_next.then_some(Torn { offset, len });
        }
        let names_us = bytes.get(16..48).is_some_and(|b| {
            b[..16] == self.superblock.store.0 && b[16..] == self.superblock.instance_key
        });
        let len = claimed.map_or(BLOCK, |len| len as u64);
        (names_us || batch::begins_here(bytes)).then_some(Torn { offset, len })
    }
}

/// The payload blocks that do not match the checksums in their records, counted from the first.
fn damaged_blocks(records: &[Record], payload: &[u8]) -> Vec<u32> {
    let mut damaged = Vec::new();
    let mut blocks = payload.as_chunks::<{ BLOCK as usize }>().0.iter().zip(0..);
    for record in records {
        let Some((at, _)) = record.place() else {
            continue;
        };
        for ((block, crc), (bytes, n)) in record.payload().zip(&mut blocks) {
            if crc::of_block(at.layer, at.chunk.block(block), bytes) != crc {
                damaged.push(n);
            }
        }
    }
    damaged
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
