//! The scrub: every block that is applied is read and compared, extent by extent; and the sweep, which finds the
//! entries of layers that were dropped, and tombstones that nobody needs.

use super::door::{ChunkId, DiskFault, DiskOp, IoData, Note, Outbox, Output, StoreError, StoreOp};
use super::engine::{Io, State, Store, done};
use super::table::{EntryId, LeafId, LeafState, OVERLAID, TOMBSTONE};
use crate::base::{BLOCK, BlockRun, Break, CHUNKS_PER_EXTENT, PgId, Stamp};

/// Leaves that one step of the sweep looks at.
const SWEEP_LEAVES: u32 = 64;

/// A scrub under way: one operation at a time, so that guests hardly notice it.
#[derive(Debug)]
pub(super) struct Scrub {
    pub op: StoreOp,
    leaf: LeafId,
    place: usize,
    /// How many versions of the chunk are done.
    version: usize,
    blocks: u64,
    bad: u64,
}

/// How far the search for entries of dropped layers has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sweep {
    leaf: LeafId,
    /// An entry was still in use: look once more.
    again: bool,
}

/// Blocks that are being checked.
#[derive(Debug)]
pub(super) struct Checking {
    leaf: LeafId,
    entry: EntryId,
    place: usize,
    slot: u32,
    run: BlockRun,
    crcs: [u32; 16],
    again: bool,
    sequence: u64,
}

impl Store {
    pub(super) fn on_scrub(&mut self, op: StoreOp, out: &mut Outbox) {
        if !matches!(self.state, State::Open) {
            return done(op, Err(StoreError::NotOpen), out);
        }
        if self.scrub.is_some() {
            return done(op, Err(StoreError::Busy), out);
        }
        self.scrub = Some(Scrub {
            op,
            leaf: 0,
            place: 0,
            version: 0,
            blocks: 0,
            bad: 0,
        });
        self.step_scrub(out);
    }

    /// Starts the next check, or ends the scrub.
    fn step_scrub(&mut self, out: &mut Outbox) {
        if !matches!(self.state, State::Open) {
            if let Some(scrub) = self.scrub.take() {
                done(scrub.op, Err(StoreError::NotOpen), out);
            }
            return;
        }
        loop {
            let Some(scrub) = &mut self.scrub else { return };
            if scrub.leaf >= self.table.leaf_bound() {
                let Some(scrub) = self.scrub.take() else {
                    return;
                };
                let (blocks, bad) = (scrub.blocks, scrub.bad);
                out.list.push(Output::Note(Note::Scrubbed { blocks, bad }));
                return done(scrub.op, Ok(()), out);
            }
            let (leaf, place, version) = (scrub.leaf, scrub.place, scrub.version);
            let is_here =
                self.table.is_leaf(leaf) && self.table.leaf(leaf).state == LeafState::Loaded;
            let entry = is_here
                .then(|| self.table.versions(leaf, place).nth(version))
                .flatten();
            match entry {
                Some(entry) => {
                    scrub.version += 1;
                    // Slots of a layer that was dropped are nobody's, and need not match.
                    let alive = self.layers.is_alive(self.table.layer_of(entry));
                    let data = if alive {
                        self.table.entry(entry).data
                    } else {
                        0
                    };
                    let mut started = false;
                    for run in BlockRun::runs_of(data) {
                        self.check_run(leaf, place, entry, run, false, out);
                        started = true;
                    }
                    if started {
                        return;
                    }
                }
                None => {
                    scrub.version = 0;
                    scrub.place += 1;
                    if scrub.place == CHUNKS_PER_EXTENT as usize || !is_here {
                        scrub.place = 0;
                        scrub.leaf += 1;
                    }
                }
            }
        }
    }

    fn check_run(
        &mut self,
        leaf: LeafId,
        place: usize,
        entry: EntryId,
        run: BlockRun,
        again: bool,
        out: &mut Outbox,
    ) {
        let found = self.table.entry(entry);
        let (slot, crcs) = (found.slot, found.crcs);
        let layer = self.table.layer_of(entry);
        let first = self.table.leaf(leaf).extent.chunk(place).block(run.first());
        let offset = self.superblock.geometry.slot_at(slot) + u64::from(run.first()) * BLOCK;
        let sequence = self.slot_ios.begin();
        let checking = Checking {
            leaf,
            entry,
            place,
            slot,
            run,
            crcs,
            again,
            sequence,
        };
        self.submit(Io::Scrub(checking), out, |id| DiskOp::CheckBlocks {
            id,
            offset,
            blocks: run.count(),
            layer,
            first,
        });
    }

    /// Blocks were checked.
    pub(super) fn on_checked(
        &mut self,
        checking: Checking,
        result: Result<IoData<'_>, DiskFault>,
        out: &mut Outbox,
    ) {
        let Checking {
            leaf,
            entry,
            place,
            slot,
            run,
            crcs,
            again,
            sequence,
        } = checking;
        self.end_slot_io(sequence, out);
        if self.scrub.is_none() || self.is_failed() {
            return;
        }
        let mut bad = 0u16;
        for (n, block) in run.blocks().enumerate() {
            let right = match &result {
                Ok(IoData::Crcs(found)) => found[n] == crcs[block as usize],
                _ => false,
            };
            bad |= u16::from(!right) << block;
        }
        bad &= self.unchanged(leaf, place, entry, slot, &crcs);
        let first_bad = BlockRun::runs_of(bad).next();
        match first_bad {
            Some(_) if !again => return self.check_run(leaf, place, entry, run, true, out),
            Some(_) => self.report_bad(leaf, place, entry, bad, result.is_err(), out),
            None => {}
        }
        self.stats.scrubbed_blocks += u64::from(run.count());
        if let Some(scrub) = &mut self.scrub {
            scrub.blocks += u64::from(run.count());
            scrub.bad += u64::from(bad.count_ones());
        }
        if !self.ios.iter().any(|(_, io)| matches!(io, Io::Scrub(_))) {
            self.step_scrub(out);
        }
    }

    /// The blocks of an entry that are still what they were when the check began.
    fn unchanged(
        &self,
        leaf: LeafId,
        place: usize,
        entry: EntryId,
        slot: u32,
        crcs: &[u32; 16],
    ) -> u16 {
        let here = self.table.is_leaf(leaf) && self.table.versions(leaf, place).any(|e| e == entry);
        if !here || self.table.entry(entry).slot != slot {
            return 0;
        }
        // A layer that was dropped meanwhile has lost what was journaled of it, and its slots may never get that.
        if !self.layers.is_alive(self.table.layer_of(entry)) {
            return 0;
        }
        let found = self.table.entry(entry);
        // A block with newer payload may have had older payload applied that nobody settled: its slot
        // need not match its entry until the newest is there.
        let applying = self
            .overlays
            .get(entry)
            .map_or(0, |overlay| overlay.applying | overlay.pending);
        (0..16)
            .filter(|&block| found.crcs[block] == crcs[block])
            .fold(0, |mask, block| mask | 1 << block)
            & found.data
            & !applying
    }

    fn report_bad(
        &mut self,
        leaf: LeafId,
        place: usize,
        entry: EntryId,
        bad: u16,
        unreadable: bool,
        out: &mut Outbox,
    ) {
        let layer = self.table.layer_of(entry);
        let (crcs, slot) = {
            let found = self.table.entry(entry);
            (found.crcs, found.slot)
        };
        let slot_at = self.superblock.geometry.slot_at(slot);
        let (pg, chunk) = {
            let of = self.table.leaf(leaf);
            (of.pg, of.extent.chunk(place))
        };
        let family = self.table.family_of(leaf);
        for at in BlockRun::runs_of(bad).flat_map(BlockRun::blocks) {
            let crc = crcs[at as usize];
            let of = ChunkId {
                family,
                layer,
                chunk,
            };
            out.list.push(Output::Damaged {
                pg,
                at: of,
                block: at,
                crc,
            });
            let block = chunk.block(at);
            let offset = slot_at + u64::from(at) * BLOCK;
            self.stats.checksum_errors += u64::from(!unreadable);
            out.list.push(Output::Note(Note::bad_block(
                unreadable, layer, block, offset,
            )));
        }
    }

    /// Gives back what dropped layers hold, some extents at a time.
    pub(super) fn step_sweep(&mut self, out: &mut Outbox) {
        let (
            Some(Sweep {
                leaf: cursor,
                again,
            }),
            State::Open,
        ) = (self.sweep, &self.state)
        else {
            return;
        };
        let end = (cursor + SWEEP_LEAVES).min(self.table.leaf_bound());
        let mut waits = again;
        for leaf in cursor..end {
            if self.table.is_leaf(leaf) && self.table.leaf(leaf).state == LeafState::Loaded {
                waits |= self.sweep_leaf(leaf, out);
            }
        }
        self.sweep = match end < self.table.leaf_bound() {
            true => Some(Sweep {
                leaf: end,
                again: waits,
            }),
            // What was under way somewhere is looked for once more.
            false if waits => Some(Sweep::default()),
            false => None,
        };
    }

    /// A tombstone is let go: whoever asks for its chunk is told so from now on.
    pub(super) fn note_let_go(&mut self, pg: PgId, stamp: Stamp) {
        if !self.breaks().on(Break::ForgetLetGo) {
            self.replicas.let_go(pg, stamp);
        }
    }

    /// Lets go of a tombstone that no replica needs any more (R20).
    fn forget_tombstone(&mut self, leaf: LeafId, place: usize, entry: EntryId, out: &mut Outbox) {
        let may_go = self.table.entry(entry).is_tombstone() && {
            let (pg, stamp) = (self.table.leaf(leaf).pg, self.table.stamp_of(entry));
            self.replicas.may_forget(pg, stamp)
        };
        if may_go {
            let (pg, stamp) = (self.table.leaf(leaf).pg, self.table.stamp_of(entry));
            self.note_let_go(pg, stamp);
            self.table.entry_mut(entry).flags &= !TOMBSTONE;
            self.mark_dirty(leaf);
            self.drop_idle(leaf, place, entry, out);
        }
    }

    /// Takes the entries of dropped layers out of one extent; true where one is still in use.
    fn sweep_leaf(&mut self, leaf: LeafId, out: &mut Outbox) -> bool {
        let mut waits = false;
        for place in 0..CHUNKS_PER_EXTENT as usize {
            let entries: Vec<_> = self.table.versions(leaf, place).collect();
            for entry in entries {
                if self.layers.is_alive(self.table.layer_of(entry)) {
                    self.forget_tombstone(leaf, place, entry, out);
                    continue;
                }
                self.supersede(entry, u16::MAX, out);
                let overlay = self.overlays.get(entry);
                if overlay.is_some_and(|overlay| !overlay.is_idle()) {
                    waits = true;
                    continue;
                }
                let taken = overlay.map_or(super::page::NO_SLOT, |overlay| overlay.slot);
                let own = self.table.entry(entry).slot;
                let slot = if own == super::page::NO_SLOT {
                    taken
                } else {
                    own
                };
                self.overlays.remove(entry);
                self.table.entry_mut(entry).flags &= !OVERLAID;
                self.table.remove_entry(leaf, place, entry);
                if slot != super::page::NO_SLOT {
                    self.release_slot(slot, out);
                }
                self.mark_dirty(leaf);
            }
        }
        waits
    }
}
