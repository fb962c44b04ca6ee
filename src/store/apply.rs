//! Applying: journaled payload goes into its slots, in the background.
//!
//! It waits as long as memory and the journal allow, because a block that is written again in the meantime need
//! not be applied twice. No block is applied by two operations at once, so the newest payload is the
//! last to arrive in its slot.

use super::door::{
    ChunkId, DiskFault, DiskOp, Durability, IoData, Outbox, Output, Span, WriteKind,
};
use super::engine::{Io, State, Store};
use super::overlay::Source;
use super::page::NO_SLOT;
use super::table::EntryId;
use crate::base::{BLOCK, BlockRun, Break, BufRef};

/// Operations of applying in flight where nothing presses: what a writer waits for behind them is short.
const APPLIES_MIN: u32 = 2;
/// The same where memory or the journal is about to be full.
const APPLIES_MAX: u32 = 32;
/// Blocks of memory that applying may hold beside those that the journal does: ones that were written again meanwhile.
#[cfg(feature = "sim")]
pub const APPLYING_BLOCKS_MAX: u64 = APPLIES_MAX as u64 * crate::base::BLOCKS_PER_CHUNK as u64;

/// One operation of applying: a run of blocks of one chunk.
#[derive(Debug)]
pub(super) struct Applying {
    entry: EntryId,
    run: BlockRun,
    batch: [u64; 16],
    phase: Phase,
    sequence: u64,
    /// What it writes from memory: pinned a second time, because a newer write may take the
    /// overlay's pin away while the disk still reads it.
    bufs: [BufRef; 16],
    held: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Replayed payload is being read from the journal into this piece of scratch space.
    Fetching(u8),
    Writing(Option<u8>),
}

impl Applying {
    pub fn is_fetching(&self) -> bool {
        matches!(self.phase, Phase::Fetching(_))
    }
}

/// Buffers of the store's own, in pieces of a chunk.
#[derive(Debug)]
pub(super) struct Scratch {
    at: BufRef,
    free: u32,
}

impl Scratch {
    pub fn new(at: BufRef, blocks: u32) -> Scratch {
        let pieces = (blocks / 16).min(32);
        Scratch {
            at,
            free: ((1u64 << pieces) - 1) as u32,
        }
    }

    fn take(&mut self) -> Option<u8> {
        let piece = (self.free != 0).then(|| self.free.trailing_zeros())?;
        self.free &= !(1 << piece);
        Some(piece as u8)
    }

    fn give_back(&mut self, piece: u8) {
        self.free |= 1 << piece;
    }

    fn buf(&self, piece: u8) -> BufRef {
        self.at.plus(u32::from(piece) * 16)
    }
}

impl Store {
    /// Puts a chunk into the queue, if it is not there.
    pub(super) fn queue_apply(&mut self, entry: EntryId) {
        if let Some(overlay) = self.overlays.get_mut(entry)
            && !overlay.queued
            && overlay.pending != 0
        {
            overlay.queued = true;
            self.apply_queue.push_back(entry);
        }
    }

    /// Starts what should be applied now.
    pub(super) fn step_apply(&mut self, out: &mut Outbox) {
        if !matches!(self.state, State::Open | State::Closing(..)) || self.is_resting() {
            return;
        }
        let mut left = self.apply_queue.len();
        let most = self.applies_wanted();
        while left > 0 && self.applies < most {
            left -= 1;
            let Some(entry) = self.apply_queue.pop_front() else {
                return;
            };
            let Some(overlay) = self.overlays.get_mut(entry) else {
                continue;
            };
            overlay.queued = false;
            let ready = overlay.pending & !overlay.applying;
            for run in BlockRun::runs_of(ready) {
                self.apply_run(entry, run, out);
            }
            let waits = self
                .overlays
                .get(entry)
                .is_some_and(|o| o.pending & !o.applying != 0);
            if waits {
                self.queue_apply(entry);
            }
        }
    }

    /// How many operations there should be: none without a reason to apply (a checkpoint waits, memory gets
    /// short, or nothing else is going on), and the more the nearer the bounds at which writers wait.
    fn applies_wanted(&self) -> u32 {
        if matches!(self.state, State::Closing(..)) {
            return APPLIES_MAX;
        }
        let (memory, most) = (self.memory_blocks * BLOCK, self.options.overlay_bytes);
        let checkpoint = self.checkpoint.waits_for_apply();
        if !self.idle && !checkpoint && memory <= most / 2 {
            return 0;
        }
        let ring = &self.journal;
        // From nothing at a half to all at three quarters.
        let pressure = |used: u64, of: u64| {
            let (over, span) = (used.saturating_sub(of / 2), of / 4);
            (u64::from(APPLIES_MAX) * over)
                .checked_div(span)
                .unwrap_or(0)
        };
        let presses = pressure(memory, most).max(match checkpoint {
            true => pressure(ring.used(), ring.ring_len()),
            false => 0,
        });
        (presses as u32).clamp(APPLIES_MIN, APPLIES_MAX)
    }

    /// Applies a run of blocks, split where payload in memory meets payload in the journal.
    fn apply_run(&mut self, entry: EntryId, run: BlockRun, out: &mut Outbox) {
        let Some(overlay) = self.overlays.get(entry) else {
            return;
        };
        let in_memory = |block| matches!(overlay.source(block), Source::Memory(_));
        let mut start = run.first();
        let mut parts = [(0, 0); 16];
        let mut count = 0;
        for block in run.blocks() {
            let suspect = overlay.suspect >> block & 3 != 0;
            let ends =
                block + 1 == run.end() || suspect || in_memory(block) != in_memory(block + 1) || {
                    // Replayed payload is fetched in runs that lie together in the journal.
                    match (overlay.source(block), overlay.source(block + 1)) {
                        (Source::Journal(a), Source::Journal(b)) => b != a + BLOCK,
                        _ => false,
                    }
                };
            if ends {
                parts[count] = (start, block + 1 - start);
                count += 1;
                start = block + 1;
            }
        }
        for &(first, blocks) in &parts[..count] {
            let part = BlockRun::new(first, blocks).expect("a part of a run is a run");
            self.apply_part(entry, part, out);
        }
    }

    fn apply_part(&mut self, entry: EntryId, run: BlockRun, out: &mut Outbox) {
        let Some(overlay) = self.overlays.get(entry) else {
            return;
        };
        let (layer, first, batch) = (
            overlay.layer,
            overlay.chunk.block(run.first()),
            overlay.batch,
        );
        let phase = match overlay.source(run.first()) {
            Source::Memory(_) => Phase::Writing(None),
            Source::Journal(_) => match self.scratch.take() {
                Some(piece) => Phase::Fetching(piece),
                None => return, // it stays in the queue
            },
        };
        let source = overlay.source(run.first());
        let sequence = self.slot_ios.begin();
        let applying = Applying {
            entry,
            run,
            batch,
            phase,
            sequence,
            bufs: [BufRef::default(); 16],
            held: 0,
        };
        if let Some(overlay) = self.overlays.get_mut(entry) {
            overlay.applying |= run.mask();
        }
        self.applies += 1;
        match (phase, source) {
            (Phase::Fetching(piece), Source::Journal(offset)) => {
                let (buf, blocks) = (self.scratch.buf(piece), run.count());
                self.submit(Io::Apply(applying), out, |id| DiskOp::ReadBlocks {
                    id,
                    offset,
                    buf,
                    blocks,
                    layer,
                    first,
                });
            }
            _ => self.write_applying(applying, out),
        }
    }

    fn write_applying(&mut self, mut applying: Applying, out: &mut Outbox) {
        let Some(overlay) = self.overlays.get(applying.entry) else {
            return;
        };
        let start = out.spans.len() as u32;
        match applying.phase {
            Phase::Writing(Some(piece)) | Phase::Fetching(piece) => {
                let buf = self.scratch.buf(piece);
                out.spans.push(Span {
                    buf,
                    blocks: applying.run.count(),
                });
            }
            Phase::Writing(None) => {
                for block in applying.run.blocks() {
                    if let Source::Memory(buf) = overlay.source(block) {
                        push_span(&mut out.spans, start, buf);
                        out.list.push(super::door::Output::Pin { buf, blocks: 1 });
                        applying.bufs[block as usize] = buf;
                        applying.held |= 1 << block;
                    }
                }
            }
        }
        let body = start..out.spans.len() as u32;
        assert_ne!(overlay.slot, NO_SLOT, "what is applied has a slot");
        let mut at = u64::from(applying.run.first());
        if self.breaks().on(Break::ApplyOffByOne) && applying.run.end() < 16 {
            at += 1;
        }
        let offset = self.superblock.geometry.slot_at(overlay.slot) + at * BLOCK;
        self.stats.applied_blocks += u64::from(applying.run.count());
        self.submit(Io::Apply(applying), out, |id| DiskOp::Write {
            id,
            offset,
            head: 0..0,
            body,
            durability: Durability::Cached,
            kind: WriteKind::Apply,
        });
    }

    /// Payload was fetched from the journal, or is in its slot.
    pub(super) fn on_apply_done(
        &mut self,
        applying: Applying,
        result: Result<IoData<'_>, DiskFault>,
        out: &mut Outbox,
    ) {
        match applying.phase {
            Phase::Fetching(piece) => self.on_fetched(applying, piece, result, out),
            Phase::Writing(piece) => {
                if let Some(piece) = piece {
                    self.scratch.give_back(piece);
                }
                for block in BlockRun::runs_of(applying.held).flat_map(BlockRun::blocks) {
                    let buf = applying.bufs[block as usize];
                    out.list.push(super::door::Output::Unpin { buf, blocks: 1 });
                }
                self.end_apply(&applying, result.is_ok() && !self.is_failed(), out);
            }
        }
    }

    fn on_fetched(
        &mut self,
        mut applying: Applying,
        piece: u8,
        result: Result<IoData<'_>, DiskFault>,
        out: &mut Outbox,
    ) {
        let (current, failed) = (self.current_blocks(&applying), self.is_failed());
        let overlay = self.overlays.get_mut(applying.entry);
        let (Some(overlay), true) = (overlay, current != 0 && !failed) else {
            self.scratch.give_back(piece);
            return self.end_apply(&applying, false, out);
        };
        let right = match &result {
            Ok(IoData::Crcs(crcs)) => applying
                .run
                .blocks()
                .zip(*crcs)
                .filter(|&(block, crc)| overlay.crc[block as usize] == *crc)
                .fold(0u16, |mask, (block, _)| mask | 1 << block),
            _ => 0,
        };
        if right & current != current {
            self.scratch.give_back(piece);
            if applying.run.mask() & !overlay.suspect != 0 {
                // One rotten sector must not cost its neighbours.
                overlay.suspect |= applying.run.mask();
                return self.end_apply(&applying, false, out);
            }
            // The journal rotted since it was replayed. The checksum goes into the entry over a slot that
            // does not match it, so this block answers with an error, and nothing else does.
            self.stats.checksum_errors += 1;
            self.report_rotten_journal(&applying, current & !right, out);
            return self.end_apply(&applying, true, out);
        }
        applying.phase = Phase::Writing(Some(piece));
        self.write_applying(applying, out);
    }

    fn report_rotten_journal(&self, applying: &Applying, rotten: u16, out: &mut Outbox) {
        let Some(overlay) = self.overlays.get(applying.entry) else {
            return;
        };
        let of = self.table.leaf(overlay.leaf);
        let at = ChunkId {
            family: self.table.family_of(overlay.leaf),
            layer: overlay.layer,
            chunk: overlay.chunk,
        };
        for block in BlockRun::runs_of(rotten).flat_map(BlockRun::blocks) {
            let (pg, crc) = (of.pg, overlay.crc[block as usize]);
            out.list.push(Output::Damaged { pg, at, block, crc });
        }
    }

    /// The blocks of an operation that are still the newest.
    fn current_blocks(&self, applying: &Applying) -> u16 {
        let Some(overlay) = self.overlays.get(applying.entry) else {
            return 0;
        };
        applying
            .run
            .blocks()
            .filter(|&block| {
                overlay.pending & (1 << block) != 0
                    && overlay.batch[block as usize] == applying.batch[block as usize]
            })
            .fold(0, |mask, block| mask | 1 << block)
    }

    fn end_apply(&mut self, applying: &Applying, ok: bool, out: &mut Outbox) {
        self.applies -= 1;
        let current = self.current_blocks(applying);
        let Some(overlay) = self.overlays.get_mut(applying.entry) else {
            return self.end_slot_io(applying.sequence, out);
        };
        overlay.applying &= !applying.run.mask();
        let (leaf, place) = (overlay.leaf, overlay.chunk.in_extent());
        if ok {
            for block in BlockRun::runs_of(current).flat_map(BlockRun::blocks) {
                self.settle_block(applying.entry, block, out);
            }
        }
        self.end_slot_io(applying.sequence, out);
        self.queue_apply(applying.entry);
        self.drop_idle(leaf, place, applying.entry, out);
        self.step_apply(out);
        self.step_checkpoint(out);
    }
}

/// Appends a block of payload, joined to the last span where it follows it in the same buffer.
fn push_span(spans: &mut Vec<Span>, start: u32, buf: BufRef) {
    let joins = spans.len() > start as usize;
    match spans.last_mut() {
        Some(last) if joins && last.buf.plus(last.blocks) == buf => last.blocks += 1,
        _ => spans.push(Span { buf, blocks: 1 }),
    }
}
