//! The journal as it runs: the batch that gathers, those in flight, those that wait to be applied.
//!
//! Batch n is acknowledged only when every batch up to n is durable. Space in the ring is given back only when a
//! checkpoint that does not need a batch any more is durable.

use super::batch::{BATCH_LEN_MAX, HEADER_LEN_MAX, PAYLOAD_BLOCKS_MAX, header_len};
use super::door::{Span, StoreOp};
use super::record::Record;
use super::root::Position;
use super::table::EntryId;
use crate::base::{BLOCK, BlockRun, BufRef};
use std::collections::VecDeque;

/// Batches in flight at once. Several, so that the device is busy while the next one gathers; four carried up to a fifth
/// more than two, and no fewer anywhere (benches/bare.py).
pub(super) const FLYING_MAX: usize = 4;

/// What is to be done for a record once it is durable, besides what the record says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act {
    /// Who is told.
    pub op: StoreOp,
    /// The chunk's entry (writes and zeroes of one chunk).
    pub entry: EntryId,
    /// The payload (small writes), or the chunk that it is of (fills).
    pub buf: BufRef,
}

impl Act {
    /// Nobody is told.
    pub const NOBODY: Act = Act {
        op: StoreOp(u32::MAX),
        entry: u32::MAX,
        buf: BufRef {
            id: crate::base::BufId(0),
            block: 0,
        },
    };
}

/// Records that go to disk together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub number: u64,
    pub records: Vec<Record>,
    pub acts: Vec<Act>,
    pub spans: Vec<Span>,
    record_bytes: usize,
    pub payload_blocks: u32,
    pub durable: bool,
}

impl Batch {
    /// Whether a record still fits.
    pub fn fits(&self, record_len: usize, payload_blocks: u32) -> bool {
        header_len(self.record_bytes + record_len) <= HEADER_LEN_MAX
            && self.payload_blocks + payload_blocks <= PAYLOAD_BLOCKS_MAX
    }

    /// Whether a record fits into what the header takes of the ring anyway.
    pub fn has_slack(&self, record_len: usize) -> bool {
        header_len(self.record_bytes + record_len) == header_len(self.record_bytes)
    }

    pub fn push(&mut self, record: Record, act: Act) {
        self.record_bytes += record.len();
        let blocks = record.payload_blocks();
        if blocks > 0 {
            self.payload_blocks += blocks;
            match &record {
                Record::Fill(fill) => self.push_spans(fill.data, act.buf),
                Record::Mend(mend) => self.push_spans(mend.blocks, act.buf),
                _ => self.push_span(act.buf, blocks),
            }
        }
        self.records.push(record);
        self.acts.push(act);
    }

    /// The blocks of a mask, each behind `buf` in its place.
    fn push_spans(&mut self, blocks: u16, buf: BufRef) {
        BlockRun::runs_of(blocks)
            .for_each(|run| self.push_span(buf.plus(run.first()), run.count()));
    }

    fn push_span(&mut self, buf: BufRef, blocks: u32) {
        match self.spans.last_mut() {
            Some(last) if last.buf.plus(last.blocks) == buf => last.blocks += blocks,
            _ => self.spans.push(Span { buf, blocks }),
        }
    }

    /// The bytes that this batch takes in the ring.
    pub fn len(&self) -> u64 {
        header_len(self.record_bytes) as u64 + u64::from(self.payload_blocks) * BLOCK
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn reset(&mut self) {
        self.records.clear();
        self.acts.clear();
        self.spans.clear();
        self.record_bytes = 0;
        self.payload_blocks = 0;
        self.durable = false;
    }
}

/// A closed batch that replay would still need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub offset: u64,
    /// What it takes of the ring, with what was skipped before it at the ring's end.
    span: u64,
    pub crc: u32,
    /// Blocks of it that are not applied, and replayed records whose extent is not loaded.
    pub pending: u32,
}

#[derive(Debug)]
pub(super) struct Journal {
    ring_len: u64,
    /// Where the next batch goes, if it fits before the ring's end.
    head: u64,
    used: u64,
    pub open: Batch,
    pub flying: VecDeque<Batch>,
    spare: Vec<Batch>,
    /// Closed batches from `tail` on.
    kept: VecDeque<Kept>,
    /// The oldest batch that is kept.
    pub tail: u64,
    /// The crc of the newest header.
    previous: u32,
    /// The crc of the header before the oldest that is kept.
    before_tail: u32,
    /// The last batch that is durable with all before it.
    pub durable_through: u64,
    /// See [`Journal::applied_through`]: it only grows, so it is found from here on.
    applied: u64,
    /// The last batch that was closed had records: a quiet journal is still to be closed.
    pub unclosed: bool,
    /// How often the head came round.
    pub wraps: u64,
}

impl Journal {
    /// A journal that goes on at `at`.
    pub fn new(ring_len: u64, at: Position) -> Journal {
        Journal {
            ring_len,
            head: at.offset,
            used: 0,
            open: Batch {
                number: at.batch,
                ..Batch::default()
            },
            flying: VecDeque::new(),
            spare: Vec::new(),
            kept: VecDeque::new(),
            tail: at.batch,
            previous: at.previous,
            before_tail: at.previous,
            durable_through: at.batch.saturating_sub(1),
            applied: at.batch.saturating_sub(1),
            unclosed: false,
            wraps: 0,
        }
    }

    /// Whether the open batch can be sent now: there is room in flight and in the ring.
    pub fn can_close(&self) -> bool {
        self.flying.len() < FLYING_MAX && self.used + self.span_of(self.open.len()) <= self.ring_len
    }

    fn span_of(&self, len: u64) -> u64 {
        if self.head + len <= self.ring_len {
            len
        } else {
            self.ring_len - self.head + len
        }
    }

    /// Where the open batch will lie, and the crc of the header before it.
    pub fn place(&self) -> (u64, u32) {
        let fits = self.head + self.open.len() <= self.ring_len;
        (if fits { self.head } else { 0 }, self.previous)
    }

    /// Puts the open batch in flight; its header has `crc`. Another one opens.
    pub fn close(&mut self, crc: u32) {
        let len = self.open.len();
        let pending = self.open.payload_blocks;
        self.keep(len, crc, pending);
        self.unclosed = !self.open.is_empty();
        let mut next = self.spare.pop().unwrap_or_default();
        next.number = self.open.number + 1;
        self.flying
            .push_back(std::mem::replace(&mut self.open, next));
    }

    /// Notes a batch that replay found at `offset`, `len` bytes long.
    pub fn replayed(&mut self, offset: u64, len: u64, crc: u32, pending: u32) {
        if offset != self.head {
            // It was too long for the ring's end, which the writer skipped.
            self.used += self.ring_len - self.head;
            let skipped = self.ring_len - self.head;
            self.head = offset;
            self.keep(len, crc, pending);
            if let Some(kept) = self.kept.back_mut() {
                kept.span += skipped;
            }
        } else {
            self.keep(len, crc, pending);
        }
        self.durable_through = self.open.number;
        self.open.number += 1;
    }

    fn keep(&mut self, len: u64, crc: u32, pending: u32) {
        let span = self.span_of(len);
        if self.head + len > self.ring_len {
            self.head = 0;
            self.wraps += 1;
        }
        self.kept.push_back(Kept {
            offset: self.head,
            span,
            crc,
            pending,
        });
        self.head += len;
        self.used += span;
        self.previous = crc;
    }

    /// A batch whose records were carried out; its memory is used again.
    pub fn recycle(&mut self, mut batch: Batch) {
        batch.reset();
        self.spare.push(batch);
    }

    /// The closed batch `number`.
    pub fn kept_mut(&mut self, number: u64) -> &mut Kept {
        let tail = self.tail;
        self.kept
            .get_mut((number - tail) as usize)
            .expect("a batch is kept until it is applied")
    }

    /// The last batch up to which everything is durable and applied.
    pub fn applied_through(&mut self) -> u64 {
        while self.applied < self.durable_through {
            let next = self.applied + 1;
            if next >= self.tail && self.kept[(next - self.tail) as usize].pending > 0 {
                break;
            }
            self.applied = next;
        }
        self.applied
    }

    /// Where replay starts when everything up to `through` is in the table.
    pub fn position_after(&self, through: u64) -> Position {
        let at = (through + 1 - self.tail) as usize;
        let previous = at
            .checked_sub(1)
            .map_or(self.before_tail, |before| self.kept[before].crc);
        let offset = self.kept.get(at).map_or(self.head, |kept| kept.offset);
        Position {
            offset,
            batch: through + 1,
            previous,
        }
    }

    /// Where the next batch is expected, and what it must follow.
    pub fn position_next(&self) -> Position {
        Position {
            offset: self.head,
            batch: self.open.number,
            previous: self.previous,
        }
    }

    /// Gives the space of every batch up to `through` back.
    pub fn trim(&mut self, through: u64) {
        while self.tail <= through {
            let Some(kept) = self.kept.pop_front() else {
                break;
            };
            self.used -= kept.span;
            self.before_tail = kept.crc;
            self.tail += 1;
        }
    }

    pub fn used(&self) -> u64 {
        self.used
    }

    pub fn ring_len(&self) -> u64 {
        self.ring_len
    }

    /// Whether so much of the ring is used that a checkpoint should free some.
    pub fn wants_checkpoint(&self) -> bool {
        self.used > self.ring_len / 2 || self.ring_len - self.used < 2 * BATCH_LEN_MAX
    }
}
