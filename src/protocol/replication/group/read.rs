//! A read: of one replica that is in sync, of the next where that one cannot, and held while a change that it may have seen is in flight (R9).

use super::write::flies;
use super::{Failure, Group, Output, Phase, Tag};
use crate::base::{BlockRun, ChunkId, DiskId, Epoch, Payload};
use crate::protocol::replication::message::Message;
use crate::protocol::replication::rule::Rule;

/// A read that is not answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    pub tag: Tag,
    pub at: ChunkId,
    pub run: BlockRun,
    pub from: DiskId,
    /// It was slow, so this one was asked too; who answers first counts.
    pub hedge: Option<DiskId>,
    /// Replicas that could not read it.
    pub failed: Vec<DiskId>,
    /// What was read, held until this change is acknowledged (R9).
    pub held: Option<Held>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub until: u64,
    pub crcs: [u32; 16],
    pub zeroes: u16,
    pub payload: Option<Payload>,
}

impl Reading {
    /// Whether this replica's answer is waited for.
    pub fn is_of(&self, disk: DiskId) -> bool {
        self.from == disk || self.hedge == Some(disk)
    }
}

impl Group {
    /// The number of the last read that was begun.
    pub fn last_read(&self) -> u64 {
        self.reads
    }

    /// Asks another replica too for each read that was begun before this one, at the latest, and is not answered: one slow disk
    /// is not to set the latency of all (Dean and Barroso, The Tail at Scale, 2013).
    pub(super) fn hedge(&mut self, until: u64, out: &mut Vec<Output>) {
        let mut also = Vec::new();
        for (id, reading) in self.reading.iter_mut_until(until) {
            if reading.held.is_some() || reading.hedge.is_some() {
                continue;
            }
            let can = |disk: &DiskId| *disk != reading.from && !reading.failed.contains(disk);
            if let Some(other) = self.configuration.in_sync().find(can) {
                reading.hedge = Some(other);
                also.push((other, id, reading.at, reading.run));
            }
        }
        for (to, id, at, run) in also {
            self.send(to, Message::Read { id, at, run }, None, out);
        }
    }

    /// A replica cannot read it: another is asked, unless one is already.
    pub(super) fn read_failed(&mut self, id: u64, from: DiskId, out: &mut Vec<Output>) {
        let Some(reading) = self.reading.get_mut(id) else {
            return;
        };
        reading.failed.push(from);
        match reading.hedge.take() {
            Some(other) if reading.from == from => reading.from = other,
            Some(_) => {}
            None => self.read_again(id, out),
        }
    }

    /// Sends a read to a replica that may serve it and has not failed to.
    pub(super) fn read_again(&mut self, id: u64, out: &mut Vec<Output>) {
        let Some(reading) = self.reading.get(id) else {
            return;
        };
        let can = |disk: &DiskId| !reading.failed.contains(disk);
        let near = self.near().filter(can);
        let joining = self.writers().filter(|_| self.off.on(Rule::Reads)).last();
        let from = near.or_else(|| self.configuration.in_sync().find(can));
        let from = joining.filter(can).or(from);
        let (tag, at, run) = (reading.tag, reading.at, reading.run);
        let Some(from) = from else {
            if let Some(Reading { held: Some(_), .. }) = self.reading.remove(id) {
                self.held -= 1;
            }
            let why = Failure::Unreadable;
            return out.push(Output::Failed { tag, why });
        };
        if let Some(reading) = self.reading.get_mut(id) {
            reading.from = from;
            reading.hedge = None;
            self.held -= usize::from(reading.held.take().is_some());
        }
        self.send(from, Message::Read { id, at, run }, None, out);
    }

    pub(super) fn on_value(
        &mut self,
        from: DiskId,
        id: u64,
        newest: Option<(Epoch, u64)>,
        value: Held,
        out: &mut Vec<Output>,
    ) {
        let has_payload =
            |run: BlockRun| value.payload.is_some() || value.zeroes & run.mask() == run.mask();
        if let Phase::Recovering(recovery) = &mut self.phase
            && let Some((at, run)) = recovery.value(from, id)
        {
            return match has_payload(run) {
                true => self.write_again(at, run, &value, out),
                // What it says is not to be relied on: the manager takes it out, and recovery starts over.
                false => self.accuse(from, out),
            };
        }
        let Some(reading) = self.reading.get_mut(id) else {
            return;
        };
        if !reading.is_of(from) || reading.held.is_some() {
            return; // it was asked of another one since
        }
        if !has_payload(reading.run) {
            return self.read_failed(id, from, out);
        }
        let until = match newest {
            Some((epoch, sequence)) if epoch == self.epoch => sequence,
            _ => 0,
        };
        let (at, run) = (reading.at, reading.run);
        if flies(&self.flying, until, at, run) && !self.off.on(Rule::R9) {
            self.held += 1;
            if let Some(reading) = self.reading.get_mut(id) {
                reading.held = Some(Held { until, ..value });
            }
        } else if let Some(Reading { tag, .. }) = self.reading.remove(id) {
            hand_out(tag, value, out);
        }
    }

    /// Hands out what was read and holds nothing of a change that is still in flight (R9).
    pub(super) fn let_reads_go(&mut self, out: &mut Vec<Output>) {
        if self.held == 0 {
            return;
        }
        let flying = &self.flying;
        let is_free = |reading: &Reading| {
            let held = reading.held.as_ref();
            held.is_some_and(|held| !flies(flying, held.until, reading.at, reading.run))
        };
        let held = &mut self.held;
        self.reading.take_where(is_free, |reading| {
            if let Some(value) = reading.held {
                *held -= 1;
                hand_out(reading.tag, value, out);
            }
        });
    }
}

fn hand_out(tag: Tag, held: Held, out: &mut Vec<Output>) {
    out.push(Output::Value {
        tag,
        crcs: held.crcs,
        zeroes: held.zeroes,
        payload: held.payload,
    });
}
