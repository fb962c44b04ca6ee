//! Carries out what the machine says, in its order.

use super::core_loop::Core;
use super::desk::{Owner, Pending};
use super::disks::Source;
use super::machine::Machine;
use super::post::{Letter, PartOf};
use crate::base::{DiskId, IoError, MapRun, Token};
use crate::observe::Operation;
use crate::shard::{ControlError, ControlId, DiskSlot, Input, Output, What};
use crate::store::Note;
use std::ops::Range;

impl<M: Machine> Core<M> {
    /// Carries out all outputs of the last step, those of the answers that it wants at once included.
    pub fn perform(&mut self) {
        let mut at = 0;
        while at < self.out.list.len() {
            let output = self.out.list[at].clone();
            at += 1;
            self.carry_out(output);
        }
        if !self.out.fabric.is_empty() {
            self.hand_out();
        }
        self.out.clear();
    }

    fn carry_out(&mut self, output: Output) {
        let memory = self.desk.buffers.arena();
        match output {
            Output::Disk { disk, op } => {
                let from = Source {
                    arena: &self.out.store.arena,
                    spans: &self.out.store.spans,
                };
                let now = self.desk.now;
                self.disks.start(disk, &op, from, now, &mut self.desk.ring);
            }
            Output::Checksum {
                op,
                buf,
                blocks,
                layer,
                first,
            } => {
                self.crcs.clear();
                memory.checksums(buf, blocks, layer, first, &mut self.crcs);
                let crcs = &self.crcs;
                let input = Input::Checksummed { op, crcs };
                // Its outputs come behind those that are there.
                self.machine.step(self.desk.now, input, &mut self.out);
            }
            Output::Merge {
                from,
                into,
                head,
                tail,
            } => memory.merge(from, into, head, tail),
            Output::Copy { from, to, blocks } => memory.copy_blocks(from, to, blocks),
            Output::Fill { buf, blocks } => memory.zero_blocks(buf, blocks),
            Output::Pin { buf, blocks } => memory.hold(buf.id, blocks),
            Output::Unpin { buf, blocks } => self.desk.release(buf.id, blocks),
            Output::Release { payload } => {
                (self.peers).released(payload, &mut self.links, &mut self.desk);
            }
            Output::Reply { token, result, map } => self.reply(token, result, map),
            Output::ControlDone { id, result } => self.control_done(id, result),
            Output::Note { disk, note } => self.note(disk, note),
        }
    }

    fn reply(&mut self, token: Token, result: Result<(), IoError>, map: Range<u32>) {
        let pending = self.desk.answered(token);
        // Whoever gets the answer steps no machine, so nothing is put behind these runs meanwhile.
        let runs = std::mem::take(&mut self.out.map);
        self.answer(
            &pending,
            result,
            &runs[map.start as usize..map.end as usize],
        );
        self.out.map = runs;
    }

    /// Gives an answer to whom it is for.
    pub fn answer(&mut self, pending: &Pending, result: Result<(), IoError>, map: &[MapRun]) {
        match pending.owner {
            Owner::Part(part) => return self.answer_part(part, result, map.to_vec()),
            Owner::Nobody => {
                let hold = pending.buf.into_iter();
                return hold.for_each(|buf| self.desk.release(buf, 1));
            }
            _ => {}
        }
        self.count(pending, result.is_err());
        let desk = &mut self.desk;
        match pending.owner {
            Owner::Client { connection, slot } => {
                self.clients
                    .reply(connection, slot, pending, result, map, desk);
            }
            Owner::Zeroing { connection, job } => {
                self.clients.zeroed(connection, job, pending, result, desk);
            }
            Owner::Device { queue, tag } => {
                self.devices.reply(queue, tag, pending, result, desk);
            }
            Owner::Guest { queue, head } => {
                self.guests.reply(queue, head, pending, result, desk);
            }
            Owner::Ask(key) => self.asks.reply(key, pending, result, map, desk),
            Owner::Load(place) => {
                let load = self.load.as_mut().expect("a load waits for its replies");
                if load.reply(place, pending, result, desk)
                    && let Some(load) = self.load.take()
                {
                    load.finish(desk);
                }
            }
            Owner::Part(_) | Owner::Nobody => unreachable!("these are answered above"),
        }
    }

    /// Gives the answer to a part to the shard that has the request; where it was the last one, the request is answered.
    pub fn answer_part(&mut self, part: PartOf, result: Result<(), IoError>, map: Vec<MapRun>) {
        if part.origin != self.desk.me {
            let letter = Letter::Answer { part, result, map };
            return self.desk.trays.put(part.origin, letter);
        }
        if let Some((whole, result, map)) = self.desk.part_answered(part, result, map) {
            self.answer(&whole, result, &map);
        }
    }

    fn count(&mut self, pending: &Pending, failed: bool) {
        let Some(operation) = Operation::of(pending.kind) else {
            return;
        };
        let store = self.desk.now.since(pending.since);
        let front = pending.since.since(pending.begun);
        let stats = self.desk.stats_of(pending.volume);
        match failed {
            true => stats.failed(operation),
            false => stats.succeeded(operation, pending.len, front, store),
        }
    }

    fn control_done(&mut self, id: ControlId, result: Result<(), ControlError>) {
        let done = self.controls.remove(id.0 as u32);
        let done = done.expect("a control operation is answered once");
        let _ = done.send(result); // nobody waits any more: nothing to be done
    }

    fn note(&mut self, disk: DiskSlot, note: Note) {
        let known = self.known.iter().find(|known| known.slot == disk);
        let id = known.map_or(DiskId::default(), |known| known.id);
        if note == Note::DiskFailed {
            self.say(What::DiskFailed { disk: id });
        }
        if self.notes.try_send((id, note)).is_err() {
            // The control plane does not keep up, or has gone. Said with the next one that gets through.
            self.notes_dropped += 1;
        } else if self.notes_dropped > 0 {
            let dropped = std::mem::take(&mut self.notes_dropped);
            tracing::warn!(dropped, "notes of the stores were lost");
        }
    }
}
