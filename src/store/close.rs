//! Closing: nothing more is taken, and the superblocks say where the journal ends.
//!
//! A *whole* close applies and checkpoints everything first, and its checkpoint's superblock says that the journal is
//! empty. A *quick* one leaves that to the next opening, which replays the journal as after a crash; but it is told where
//! the journal ends, so it has to read no more than that. Guests wait meanwhile, so a daemon that makes way
//! for another closes quickly, with a checkpoint just before, behind which the journal is short.

use super::door::{Closing, Outbox, Output, StoreError, StoreOp};
use super::engine::{Io, State, Store, done};

impl Store {
    pub(super) fn on_close(&mut self, op: StoreOp, how: Closing, out: &mut Outbox) {
        match self.state {
            State::Open => {
                self.state = State::Closing(op, how);
                self.close_batch_if_possible(out);
                self.step_loader(out);
                self.step_checkpoint(out);
                self.step_quick_close(out);
            }
            State::Closing(..) => done(op, Err(StoreError::NotOpen), out),
            State::Damaged | State::Opening(_) | State::Closed => {
                self.state = State::Closed;
                done(op, Ok(()), out);
            }
            State::Failed => done(op, Err(StoreError::DiskFailed), out),
        }
    }

    /// Whether nothing that was asked is under way any more, and everything is loaded.
    pub(super) fn is_drained(&self) -> bool {
        self.is_journaled()
            && self.loader.unloaded == 0
            // A discard or zero run that outlives the close would hit a slot that the next opening gives out.
            && self.ios.iter().all(|(_, io)| !matches!(io, Io::Discard { .. } | Io::ZeroRun { .. } | Io::Apply(_)))
    }

    /// Whether everything that was asked is in the journal, and the journal durable.
    fn is_journaled(&self) -> bool {
        self.journal.flying.is_empty()
            && self.journal.open.is_empty()
            && self.overfull.is_empty()
            && self.gathered.is_empty()
            && self.stalled.is_empty()
            && self.openings.is_idle()
            && self.ios.iter().all(|(_, io)| !matches!(io, Io::Chunks(_)))
    }

    /// Whether nothing is begun any more but what a quick close needs. A checkpoint under way goes on to its end.
    pub(super) fn is_resting(&self) -> bool {
        matches!(self.state, State::Closing(_, Closing::Quick)) && self.checkpoint.is_idle()
    }

    /// Ends a quick close where it can be ended: nothing is in flight on the disk, and everything is in the journal.
    pub(super) fn step_quick_close(&mut self, out: &mut Outbox) {
        if self.is_resting() && self.ios.is_empty() && self.is_journaled() {
            self.superblock.sequence += 1;
            self.superblock.closed = true;
            self.superblock.end = self.journal.position_next();
            self.submit_superblock(Io::Closing { copy: 0 }, 0, out);
        }
    }

    /// A copy of the last superblock was written. If it was not, the disk has failed, and who closes it was told.
    pub(super) fn on_close_written(&mut self, copy: u8, ok: bool, out: &mut Outbox) {
        let State::Closing(op, _) = self.state else {
            return;
        };
        if !ok {
            return;
        }
        if copy == 0 {
            return self.submit_superblock(Io::Closing { copy: 1 }, 1, out);
        }
        self.state = State::Closed;
        self.release_memory(out);
        done(op, Ok(()), out);
    }

    /// Lets go of all payload that is held: what is in the journal is read from there again.
    pub(super) fn release_memory(&mut self, out: &mut Outbox) {
        let journal = &mut self.journal;
        let open = std::mem::take(&mut journal.open);
        for batch in journal.flying.drain(..).chain([open]) {
            for span in &batch.spans {
                out.list.push(Output::Unpin {
                    buf: span.buf,
                    blocks: span.blocks,
                });
            }
        }
        self.overlays
            .take_memory(|buf| out.list.push(Output::Unpin { buf, blocks: 1 }));
        self.memory_blocks = 0;
    }
}
