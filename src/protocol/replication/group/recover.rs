//! Taking over: every member is sealed, and what any of them has in its window is written again to all, before anything is served.

use super::read::Held;
use super::recovery::Recovery;
use super::write::Flying;
use super::{Group, Output, Phase};
use crate::base::{BlockRun, ChunkId, DiskId};
use crate::protocol::replication::message::{Change, Message};
use crate::protocol::replication::rule::Rule;

impl Group {
    pub(super) fn start_recovery(&mut self, out: &mut Vec<Output>) {
        // What recovery wrote under an older version is in windows now, or nowhere.
        self.flying.retain(|flying| flying.tag.is_some());
        self.flying_chunks = self.flying.iter().map(Flying::chunks).sum();
        let mut members: Vec<DiskId> = self.writers().collect();
        if self.off.on(Rule::R5) {
            members.truncate(1);
        }
        for &disk in &members {
            self.send(disk, Message::Seal, None, out);
        }
        self.phase = Phase::Recovering(Recovery::new(members));
    }

    /// Writes what recovery read to all members, under this epoch and version (R7).
    pub(super) fn write_again(
        &mut self,
        at: ChunkId,
        run: BlockRun,
        value: &Held,
        out: &mut Vec<Output>,
    ) {
        let zeroes = value.zeroes & run.mask();
        for run in BlockRun::runs_of(zeroes) {
            self.change(None, at, Change::Zero { run }, None, out);
        }
        for part in BlockRun::runs_of(run.mask() & !zeroes) {
            let from = (part.first() - run.first()) as usize;
            let mut crcs = [0; 16];
            let count = part.count() as usize;
            crcs[..count].copy_from_slice(&value.crcs[from..from + count]);
            let payload = value
                .payload
                .as_ref()
                .map(|payload| payload.plus(part.first() - run.first()));
            self.change(None, at, Change::Write { run: part, crcs }, payload, out);
        }
    }

    /// Goes on with recovery: reads what is lost somewhere, some of it at a time, and serves when all of it is written again.
    pub(super) fn step_recovery(&mut self, out: &mut Vec<Output>) {
        let Phase::Recovering(recovery) = &mut self.phase else {
            return;
        };
        let own = |flying: &&Flying| flying.tag.is_none() && !flying.ended;
        let writing = self.flying.iter().filter(own).count();
        if !recovery.is_sealed() {
            return;
        }
        if self.off.on(Rule::R7) {
            return self.serve(out);
        }
        let Some(in_sync) = self.configuration.in_sync().next() else {
            return debug_assert!(false, "a configuration has a replica that is in sync");
        };
        let reads = recovery.next_reads(writing, in_sync, &mut self.reads);
        let is_done = recovery.is_read() && writing == 0;
        for (from, id, at, run) in reads {
            self.send(from, Message::Read { id, at, run }, None, out);
        }
        if is_done {
            self.serve(out);
        }
    }

    fn serve(&mut self, out: &mut Vec<Output>) {
        self.phase = Phase::Serving;
        out.push(Output::Serving);
        for (tag, ask) in std::mem::take(&mut self.waiting) {
            self.begin(tag, ask, out);
        }
    }
}
