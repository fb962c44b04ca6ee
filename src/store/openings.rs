//! The numbers of a store's openings, as a manager counts them (R19), kept in the superblocks.
//!
//! A disk that comes back with an older state, or another disk in its place, knows neither the opening that the manager has recorded nor the one
//! before: so whoever opens a disk tells its store both numbers before it serves anything, and asks for them at the next opening. They stand in the superblock and
//! not in the journal, because a node waits for them, and a record would wait for the replay of all that is before it.
//!
//! Both copies are written durably, one after the other. A checkpoint writes the superblock too, and what it holds of it in memory may name a root that is
//! not durable yet. So this one writes what the disk's superblocks say already, with other numbers, and never at the same time: *one-superblock-at-a-time*.
//!
//! It does not know what a number means, nor whether it may be lower than the one before.

use super::door::{Openings, Outbox, StoreError, StoreOp};
use super::engine::{Io, State, Store, done};
use super::superblock::Superblock;
use crate::base::Break;

/// Told and not durable yet, at once.
const PUTS_MAX: usize = 4;

/// Numbers on their way into the superblocks.
#[derive(Debug)]
pub(super) struct OpeningsPut {
    /// What the superblocks on the disk say; while one is being written, what they will say.
    pub named: Superblock,
    asked: Vec<(StoreOp, Openings)>,
    /// Who is told when both copies are written.
    writing: Vec<StoreOp>,
}

impl Default for OpeningsPut {
    fn default() -> OpeningsPut {
        OpeningsPut {
            named: Superblock::EMPTY,
            asked: Vec::new(),
            writing: Vec::new(),
        }
    }
}

impl OpeningsPut {
    pub fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    pub fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.writing.is_empty()
    }

    /// Who waits; nobody will answer it otherwise.
    pub fn take_waiting(&mut self) -> Vec<StoreOp> {
        let asked = self.asked.drain(..).map(|(op, _)| op);
        asked.chain(self.writing.drain(..)).collect()
    }
}

impl Store {
    /// The numbers of its openings that are durable.
    pub fn openings(&self) -> Openings {
        self.superblock.openings
    }

    pub(super) fn on_put_openings(&mut self, op: StoreOp, of: Openings, out: &mut Outbox) {
        // A superblock that says otherwise is never read again.
        assert!(of.recorded <= of.last, "what is recorded was begun: {of:?}");
        match self.state {
            State::Open if self.openings.asked.len() < PUTS_MAX => {
                self.openings.asked.push((op, of));
                self.step_openings(out);
            }
            State::Open => done(op, Err(StoreError::Busy), out),
            State::Damaged => done(op, Err(StoreError::ReadOnly), out),
            State::Failed => done(op, Err(StoreError::DiskFailed), out),
            State::Opening(_) | State::Closing(..) | State::Closed => {
                done(op, Err(StoreError::NotOpen), out);
            }
        }
    }

    /// Writes the numbers that were told last, if no superblock is being written.
    pub(super) fn step_openings(&mut self, out: &mut Outbox) {
        let takes_part = matches!(self.state, State::Open | State::Closing(..));
        if !takes_part || self.openings.is_writing() || self.checkpoint.is_naming() {
            return;
        }
        let Some(&(_, openings)) = self.openings.asked.last() else {
            return;
        };
        let asked = self.openings.asked.drain(..).map(|(op, _)| op);
        self.openings.writing = asked.collect();
        self.superblock.sequence += 1;
        self.openings.named.sequence = self.superblock.sequence;
        self.openings.named.openings = openings;
        if self.breaks().on(Break::ForgetOpening) {
            let told = &self.openings.writing;
            told.iter().for_each(|&op| done(op, Ok(()), out));
        }
        self.submit_named(0, out);
    }

    fn submit_named(&mut self, copy: u8, out: &mut Outbox) {
        let named = self.openings.named;
        self.submit_copy(&named, Io::Openings { copy }, copy, out);
    }

    /// A copy was written. If it was not, the disk has failed, and who waits was told.
    pub(super) fn on_openings_written(&mut self, copy: u8, ok: bool, out: &mut Outbox) {
        if !ok || self.is_failed() {
            return;
        }
        if copy == 0 {
            return self.submit_named(1, out);
        }
        self.superblock.openings = self.openings.named.openings;
        let told_already = self.breaks().on(Break::ForgetOpening);
        for op in std::mem::take(&mut self.openings.writing) {
            if !told_already {
                done(op, Ok(()), out);
            }
        }
        self.name_checkpoint(out);
        self.step_openings(out);
        self.step_checkpoint(out);
        self.step_quick_close(out);
    }
}
