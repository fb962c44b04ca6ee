//! Damage: what strikes, how it is found, and what the menders of a node want done about it.

use super::atlas::Strike;
use super::buffers::Buffers;
use super::coverage::Fault;
use super::message::Msg;
use super::node::{Effect, Node, Whose, crc_of};
use super::shelf::{Damaged, Gives, Operation, Outcome, Takes};
use super::world::World;
use crate::base::{BufRef, DiskId, PgId, Time};
use crate::protocol::scrub::{Input, MendAsk, Output, Rule};

/// What a mender asked of its shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mending {
    Salvage(u64, MendAsk),
    Mend(u64),
    Look(u64),
}

impl Node {
    pub(super) fn expire_menders(&mut self, now: Time, buffers: &mut Buffers) {
        for disk in self.menders.keys().copied().collect::<Vec<_>>() {
            let mut out = Vec::new();
            if let Some(mender) = self.menders.get_mut(&disk)
                && mender.deadline().is_some_and(|at| at <= now)
            {
                mender.expire(now, &mut out);
            }
            self.take_mender(disk, out, buffers);
        }
    }

    pub(super) fn step_mender(
        &mut self,
        now: Time,
        disk: DiskId,
        input: Input,
        buffers: &mut Buffers,
    ) {
        let mut out = Vec::new();
        if let Some(mender) = self.menders.get_mut(&disk) {
            mender.step(now, input, &mut out);
        }
        self.take_mender(disk, out, buffers);
    }

    fn take_mender(&mut self, disk: DiskId, out: Vec<Output>, buffers: &mut Buffers) {
        for output in out {
            match output {
                Output::Ask { to, header, ask } => {
                    if let Some(node) = self.catalog.disk(to).map(|disk| disk.node) {
                        self.send(node, Msg::MendAsk { to, header, ask });
                    }
                }
                Output::Answer {
                    header,
                    answer,
                    payload,
                } => {
                    let from = disk;
                    if let Some(node) = self.catalog.disk(header.asker).map(|disk| disk.node) {
                        let message = Msg::MendAnswer {
                            from,
                            header,
                            answer,
                            payload,
                        };
                        self.send(node, message);
                    }
                }
                Output::Mend {
                    op,
                    pg,
                    what,
                    payload,
                } => self.mend(disk, pg, op, (what, payload), buffers),
                Output::Look { op, pg, at } => {
                    let operation = Operation::Fetch { chunk: at };
                    self.ask_for_mender((disk, pg), operation, Mending::Look(op));
                }
                Output::Salvage { op, pg, ask } => {
                    let gives = match self.mends_off.on(Rule::Checksum) {
                        true => Gives::Anything,
                        false => Gives::Matching,
                    };
                    let operation = Operation::Salvage { ask, gives };
                    self.ask_for_mender((disk, pg), operation, Mending::Salvage(op, ask));
                }
            }
        }
    }

    fn mend(
        &mut self,
        disk: DiskId,
        pg: PgId,
        op: u64,
        (what, payload): (MendAsk, BufRef),
        buffers: &Buffers,
    ) {
        let value = |place: usize| match what.blocks & 1 << place {
            0 => 0,
            _ => buffers.value(payload.plus(place as u32)),
        };
        let takes = match (
            self.mends_off.on(Rule::Checksum),
            self.mends_off.on(Rule::Newer),
        ) {
            (false, false) => Takes::ByChecksum,
            _ => Takes::Blocks(what.blocks),
        };
        let operation = Operation::Mend {
            what,
            values: Box::new(std::array::from_fn(value)),
            takes,
        };
        self.ask_for_mender((disk, pg), operation, Mending::Mend(op));
    }

    fn ask_for_mender(
        &mut self,
        (disk, pg): (DiskId, PgId),
        operation: Operation,
        mending: Mending,
    ) {
        self.effects.push(Effect::Shelf {
            disk,
            pg,
            operation,
            whose: Whose::Mender(mending),
        });
    }

    /// A shelf has found damage.
    pub(super) fn on_damaged(
        &mut self,
        now: Time,
        disk: DiskId,
        found: Vec<Damaged>,
        buffers: &mut Buffers,
    ) {
        for (pg, at, block, crc) in found {
            if self.replicas.contains_key(&(disk, pg)) {
                let input = Input::Damaged { pg, at, block, crc };
                self.step_mender(now, disk, input, buffers);
            }
        }
        self.settle(now, buffers);
    }

    /// A shelf has answered a mender.
    pub(super) fn on_mending(
        &mut self,
        now: Time,
        disk: DiskId,
        mending: Mending,
        outcome: Outcome,
        buffers: &mut Buffers,
    ) {
        self.note_failed(disk, &outcome);
        let is_gone = outcome == Outcome::Failed(super::shelf::Failure::Gone);
        let input = match (mending, outcome) {
            (Mending::Mend(op), outcome) => Input::Mended {
                op,
                ok: outcome == Outcome::Stored,
            },
            (Mending::Look(op), _) => Input::Looked { op, ok: !is_gone },
            (Mending::Salvage(op, ask), Outcome::Salvaged(values)) => {
                let mut found = ask;
                found.blocks = 0;
                for (place, value) in values.iter().enumerate() {
                    if let Some(value) = value {
                        found.blocks |= 1 << place;
                        found.crcs[place] = crc_of(*value);
                    }
                }
                let blocks = values.map(Option::unwrap_or_default).to_vec();
                let payload = (found.blocks != 0).then(|| buffers.put(blocks));
                let found = Some(found.of(u16::MAX));
                Input::Salvaged { op, found, payload }
            }
            (Mending::Salvage(op, _), _) => Input::Salvaged {
                op,
                found: None,
                payload: None,
            },
        };
        self.step_mender(now, disk, input, buffers);
        self.settle(now, buffers);
    }
}

impl World {
    /// Damages what is on a disk that may be reached, where another disk that is in sync has the same, and may be reached too.
    pub(super) fn damage(&mut self, disk: DiskId, fault: Fault, pick: u64) {
        let shelf = &self.shelves[&disk];
        let Some((pg, chunk, block)) = shelf.any_data(pick) else {
            return;
        };
        let blocks = match fault {
            Fault::Rot => 1 << block,
            _ => shelf.data_of(pg, chunk),
        };
        let strike = Strike::Damage { disk, pg, chunk };
        let Some(of) = self.catalog.pg(pg) else {
            return;
        };
        let has_it = |other: &DiskId| {
            *other != disk
                && self.atlas.is_reached(pg, *other)
                && self.shelves[other].has_the_same(shelf, (pg, chunk), blocks)
        };
        // While it is away its damage is not mended, and the others may come to differ and be taken out: two failures at once.
        let is_mended_soon = self.atlas.is_reached(pg, disk);
        let is_elsewhere = of.configuration.in_sync().any(|it| has_it(&it));
        if self.atlas.may(&strike).is_err() || !is_mended_soon || !is_elsewhere {
            return;
        }
        self.atlas.struck(&strike);
        let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
        match fault {
            Fault::Rot => shelf.rot(pg, chunk, block),
            _ => shelf.fail_chunk(pg, chunk),
        };
    }

    /// What a disk has found damaged is told to its node, if that runs; and what is mended to the atlas.
    pub(super) fn look_at_damage(&mut self, disk: DiskId) {
        let shelf = self.shelves.get_mut(&disk).expect("it has a shelf");
        let found = shelf.take_found();
        for (pg, chunk) in self.atlas.damaged_on(disk) {
            if !shelf.is_damaged(pg, chunk) {
                self.atlas.mended(disk, pg, chunk);
                self.counts.mended += 1;
            }
        }
        if found.is_empty() {
            return;
        }
        let has_it = |(_, place): &(&_, &super::world::Place)| place.disks.contains(&disk);
        let Some(id) = self.places.iter().find(has_it).map(|(id, _)| *id) else {
            return;
        };
        let now = self.clocks.at(id, self.now);
        let place = self.places.get_mut(&id).expect("nodes stay");
        if let Some(node) = &mut place.node
            && !place.is_paused
        {
            node.on_damaged(now, disk, found, &mut self.buffers);
            self.take_effects(id);
        }
    }
}
