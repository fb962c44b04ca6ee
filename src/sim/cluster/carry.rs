//! What the machines of a node want, carried out: one machine's output is another one's input, a message, or something for the world.

use super::buffers::Buffers;
use super::message::{Msg, Report};
use super::node::{Effect, Node, Whose, crc_of};
use super::shelf::{Block, Operation, What};
use crate::base::{DiskId, LayerId, NodeId, PgId, Time, VolumeId};
use crate::protocol::catalog::Volume;
use crate::protocol::cuts;
use crate::protocol::membership::HolderOutput;
use crate::protocol::replication::replica;
use crate::protocol::replication::{Change, Message};
use crate::protocol::scrub;
use crate::protocol::scrub::compare;
use crate::protocol::turns;
use crate::protocol::volume::{self, groups, pgs_with_extents};
use std::collections::VecDeque;

/// Chunks that a store lists at once: few, so that lists have many pages.
const PAGE: usize = 5;

impl Node {
    /// What the manager may have missed is told again, and what sources may have missed is asked again.
    pub(super) fn tell_again(&mut self, buffers: &mut Buffers) {
        let start = self.incarnation;
        let openings: Vec<Report> = self
            .disks
            .iter()
            .filter(|(_, disk)| !disk.has_failed)
            .filter_map(|(&disk, of)| {
                let (before, now) = of.opening?;
                Some(Report::DiskOpened {
                    disk,
                    before,
                    now,
                    start,
                })
            })
            .collect();
        openings.into_iter().for_each(|report| self.report(report));
        let filled: Vec<_> = self.filled.clone().into_iter().collect();
        for ((disk, pg), session) in filled {
            self.report(Report::Filled { pg, disk, session });
        }
        let lost: Vec<_> = self.lost.clone().into_iter().collect();
        for ((disk, pg), session) in lost {
            self.report(Report::SessionLost { pg, disk, session });
        }
        let all: Vec<_> = self.replicas.keys().copied().collect();
        for of in all {
            self.step_replica(of, replica::Input::AskAgain, buffers);
        }
        let disks = self.disks.keys().copied();
        let scrubs = disks.map(|disk| Effect::Scrub { disk });
        self.effects.extend(scrubs);
    }

    /// A connection to a node is new, or gone.
    pub fn on_link(&mut self, now: Time, peer: NodeId, is_there: bool, buffers: &mut Buffers) {
        if !self.has_catalog {
            return;
        }
        let disks: Vec<DiskId> = self.catalog.disks_of(peer).map(|disk| disk.id).collect();
        for disk in disks {
            let input = match is_there {
                true => scrub::Input::Connected { to: disk },
                false => scrub::Input::Unanswered { from: disk },
            };
            for own in self.menders.keys().copied().collect::<Vec<_>>() {
                self.step_mender(now, own, input.clone(), buffers);
                if !is_there {
                    let input = compare::Input::Unanswered { from: disk };
                    self.step_comparer(now, own, input);
                }
            }
            if is_there {
                let mut out = Vec::new();
                self.groups.connected(now, disk, &mut out);
                self.take_groups(now, out, buffers);
            } else {
                let all: Vec<_> = self.replicas.keys().copied().collect();
                for of in all {
                    let input = replica::Input::Unanswered { from: disk };
                    self.step_replica(of, input, buffers);
                }
            }
        }
        self.settle(now, buffers);
    }

    /// Tells the disks which layer lies over which.
    pub(super) fn tell_layers(&mut self, volume: VolumeId) {
        let Some(of) = self.catalog.volume(volume) else {
            return;
        };
        for layer in &of.layers {
            let Some(parent) = layer.parent else {
                continue;
            };
            let layer = layer.id;
            self.effects
                .extend(self.disks.keys().map(|&disk| Effect::Layer {
                    disk,
                    layer,
                    parent,
                }));
        }
    }

    pub(super) fn take_lease(
        &mut self,
        now: Time,
        outputs: Vec<HolderOutput>,
        buffers: &mut Buffers,
    ) {
        for output in outputs {
            let mut out = Vec::new();
            match output {
                HolderOutput::Send { to, ask } => self.send(to, Msg::Lease(ask)),
                HolderOutput::Held { lease, until } => {
                    self.groups.lease_anew(until);
                    self.turns.step(now, turns::Input::Leased(lease), &mut out);
                    self.again_at = now;
                }
                HolderOutput::Extended { until } => self.groups.lease(until),
                HolderOutput::Fenced { .. } => {
                    self.groups.lease(Time(0));
                    self.turns.step(now, turns::Input::Unleased, &mut out);
                }
                HolderOutput::Refused { .. } | HolderOutput::Stopped { .. } => {}
            }
            self.take_turns(now, out, buffers);
        }
    }

    pub(super) fn take_turns(
        &mut self,
        now: Time,
        outputs: Vec<turns::Output>,
        buffers: &mut Buffers,
    ) {
        for output in outputs {
            match output {
                turns::Output::Take {
                    volume,
                    lease,
                    after,
                } => self.report(Report::Take {
                    volume,
                    lease,
                    after,
                }),
                turns::Output::Give {
                    volume,
                    epoch,
                    left,
                } => self.report(Report::Give {
                    volume,
                    epoch,
                    left,
                }),
                turns::Output::Want {
                    volume,
                    owner,
                    epoch,
                    by,
                    missed,
                } => {
                    let wanted = Msg::Want {
                        volume,
                        epoch,
                        by,
                        missed,
                    };
                    self.send(owner, wanted);
                }
                turns::Output::Hand {
                    volume,
                    epoch,
                    to,
                    left,
                } => self.report(Report::Hand {
                    volume,
                    epoch,
                    to,
                    left,
                }),
                turns::Output::Suspend { volume } => {
                    let closed = cuts::Input::Closed { volume };
                    self.cuts.step(now, closed, &mut Vec::new());
                    self.groups.drop_asks(volume);
                    let mut out = Vec::new();
                    self.coordinator.start_over(volume, &mut out);
                    self.take_coordinator(now, out, buffers);
                    if self.coordinator.is_waited_for(volume) {
                        let mut out = Vec::new();
                        let asked = turns::Input::Asked { volume };
                        self.turns.step(now, asked, &mut out);
                        self.take_turns(now, out, buffers);
                    }
                }
                turns::Output::Open { volume, epoch } => self.open(now, volume, epoch, buffers),
                turns::Output::Drain { volume } => {
                    let mut out = Vec::new();
                    self.coordinator.pause(volume, &mut out);
                    self.take_coordinator(now, out, buffers);
                }
                turns::Output::Resume { volume } => {
                    let mut out = Vec::new();
                    self.coordinator.resume(volume, &mut out);
                    self.take_coordinator(now, out, buffers);
                }
                turns::Output::Close { volume } => {
                    // Before what is in flight is given up: that is not drained.
                    let closed = cuts::Input::Closed { volume };
                    self.cuts.step(now, closed, &mut Vec::new());
                    let mut out = Vec::new();
                    self.coordinator.close(volume, &mut out);
                    self.take_coordinator(now, out, buffers);
                    let mut out = Vec::new();
                    self.groups.close(volume, &mut out);
                    self.take_groups(now, out, buffers);
                }
            }
        }
    }

    pub(super) fn take_cuts(
        &mut self,
        now: Time,
        outputs: Vec<cuts::Output>,
        buffers: &mut Buffers,
    ) {
        for output in outputs {
            let mut out = Vec::new();
            match output {
                cuts::Output::Go { volume } => self.coordinator.release(volume, &mut out),
                cuts::Output::Switch { volume, layer } => {
                    self.coordinator.cut(volume, layer, &mut out);
                }
                cuts::Output::Settle { volume } => {
                    let Some(of) = self.catalog.volume(volume) else {
                        continue;
                    };
                    // Where no copy is left there is nothing to seal, and the rest must not wait for it.
                    let pgs = self.catalog.pgs_of_volume(of);
                    let mut pgs = pgs_with_extents(of.family, of.size, pgs);
                    pgs.retain(|&pg| self.catalog.has_copies(pg));
                    let mut out = Vec::new();
                    self.groups.settle(now, volume, pgs, &mut out);
                    self.take_groups(now, out, buffers);
                }
                cuts::Output::Freeze {
                    volume,
                    layer,
                    epoch,
                } => self.report(Report::Frozen {
                    volume,
                    layer,
                    epoch,
                }),
            }
            self.take_coordinator(now, out, buffers);
        }
    }

    fn cut(&mut self, now: Time, input: cuts::Input, buffers: &mut Buffers) {
        let mut out = Vec::new();
        self.cuts.step(now, input, &mut out);
        self.take_cuts(now, out, buffers);
    }

    pub(super) fn take_coordinator(
        &mut self,
        now: Time,
        outputs: Vec<volume::Output>,
        buffers: &mut Buffers,
    ) {
        let mut outputs: VecDeque<volume::Output> = outputs.into();
        while let Some(output) = outputs.pop_front() {
            let mut more = Vec::new();
            match output {
                volume::Output::Ask { piece, target, ask } => {
                    let Some(volume) = self.volume_of(target.layer) else {
                        continue;
                    };
                    let mut out = Vec::new();
                    self.groups.ask(now, volume, piece, target, &ask, &mut out);
                    self.take_groups(now, out, buffers);
                }
                volume::Output::Checksum {
                    piece, buf, blocks, ..
                } => {
                    let crcs: Vec<u32> = buffers.values(buf, blocks).map(crc_of).collect();
                    self.coordinator.checksummed(piece, &crcs, &mut more);
                }
                volume::Output::Fill { buf, blocks } => buffers.zero(buf, blocks),
                volume::Output::Merge {
                    from,
                    into,
                    head,
                    tail,
                } => buffers.merge(from, into, head, tail),
                volume::Output::Reply { token, result, .. } => {
                    let volume = self.volumes_of.remove(&token).unwrap_or_default();
                    let epoch = self.groups.epoch(volume);
                    self.effects.push(Effect::Reply {
                        token,
                        result,
                        volume,
                        epoch,
                    });
                }
                volume::Output::Drained { volume } => {
                    let mut out = Vec::new();
                    let left = self.cuts.left(volume);
                    let input = turns::Input::Drained { volume, left };
                    self.turns.step(now, input, &mut out);
                    self.take_turns(now, out, buffers);
                }
                volume::Output::Cut { volume } => {
                    self.cut(now, cuts::Input::Drained { volume }, buffers);
                }
            }
            for output in more.into_iter().rev() {
                outputs.push_front(output);
            }
        }
    }

    pub(super) fn volume_of(&self, layer: LayerId) -> Option<VolumeId> {
        let has = |volume: &&Volume| volume.layers.iter().any(|of| of.id == layer);
        self.catalog.volumes().find(has).map(|volume| volume.id)
    }

    pub(super) fn take_groups(
        &mut self,
        now: Time,
        outputs: Vec<groups::Output>,
        buffers: &mut Buffers,
    ) {
        for output in outputs {
            match output {
                groups::Output::Send {
                    to,
                    header,
                    message,
                    payload,
                } => {
                    let Some(node) = self.catalog.disk(to).map(|disk| disk.node) else {
                        continue;
                    };
                    if let Message::Change { .. } = message {
                        self.effects.push(Effect::Issued {
                            header,
                            message,
                            payload,
                        });
                    }
                    let message = Msg::ToReplica {
                        disk: to,
                        header,
                        message,
                        payload,
                    };
                    self.send(node, message);
                }
                groups::Output::Answered { piece, result } => {
                    if let Ok(Some(value)) = &result {
                        buffers.place(value);
                    }
                    let mut out = Vec::new();
                    self.coordinator.answered(
                        piece,
                        result.map(|_| ()),
                        &[],
                        &mut Vec::new(),
                        &mut out,
                    );
                    self.take_coordinator(now, out, buffers);
                }
                groups::Output::Accuse { pg, disk, version } => {
                    self.report(Report::Accused { pg, disk, version });
                }
                // The manager tells everybody; who is behind hears of it.
                groups::Output::Learn { .. } => {}
                groups::Output::Settled { volume } => {
                    self.cut(now, cuts::Input::Settled { volume }, buffers);
                }
                // The catalog says so as well, and then it is closed.
                groups::Output::Fenced { .. } => {}
            }
        }
    }

    pub(super) fn take_replica(
        &mut self,
        (disk, pg): (DiskId, PgId),
        output: replica::Output,
        buffers: &mut Buffers,
    ) {
        let mut shelf = |op, operation| {
            self.effects.push(Effect::Shelf {
                disk,
                pg,
                operation,
                whose: Whose::Replica(op),
            });
        };
        match output {
            replica::Output::Fence {
                op,
                version,
                session,
                fences,
            } => shelf(
                op,
                Operation::Fence {
                    version,
                    session,
                    fences,
                },
            ),
            replica::Output::Change {
                op,
                range,
                at,
                change,
                stamp,
                payload,
            } => {
                let what = match change {
                    Change::Write { run, .. } => {
                        let payload = payload.expect("a write has payload");
                        let values = buffers.in_place(run, payload);
                        What::Data { run, values }
                    }
                    Change::Zero { run } => What::Zero { run },
                    Change::ZeroChunks { count } => What::ZeroChunks { count },
                };
                shelf(
                    op,
                    Operation::Change {
                        range,
                        at,
                        what,
                        stamp,
                    },
                );
            }
            replica::Output::Read { op, at, run } => {
                shelf(op, Operation::Read { at, run });
                self.reading.insert((disk, pg, op), run);
            }
            replica::Output::List { op, since, after } => {
                let most = PAGE;
                shelf(op, Operation::List { since, after, most });
            }
            replica::Output::Fetch { op, at } => shelf(op, Operation::Fetch { chunk: at }),
            replica::Output::Look { op, at } => shelf(op, Operation::Look { chunk: at }),
            replica::Output::Fill {
                op,
                at,
                blocks,
                content,
                entries,
                payload,
            } => {
                let mut held = [Block::Absent; 16];
                for (place, block) in held.iter_mut().enumerate() {
                    if content.zeroes & 1 << place != 0 {
                        *block = Block::Zero;
                    }
                    if content.data & 1 << place != 0 {
                        let payload = payload.expect("data has payload");
                        *block = Block::Data(buffers.value(payload.plus(place as u32)));
                    }
                }
                shelf(
                    op,
                    Operation::Fill {
                        chunk: at,
                        blocks,
                        content: Box::new(held),
                        stamp: content.stamp,
                        entries,
                    },
                );
            }
            replica::Output::Answer {
                to,
                header,
                answer,
                payload,
            } => self.send(
                NodeId(to.0),
                Msg::FromReplica {
                    disk,
                    header,
                    answer,
                    payload,
                },
            ),
            replica::Output::FillAnswer {
                to,
                header,
                answer,
                payload,
            } => {
                let joiner = DiskId(to.0);
                if let Some(node) = self.catalog.disk(joiner).map(|disk| disk.node) {
                    let message = Msg::FillAnswer {
                        to: joiner,
                        header,
                        answer,
                        payload,
                    };
                    self.send(node, message);
                }
            }
            replica::Output::FillAsk { to, header, ask } => {
                if let Some(node) = self.catalog.disk(to).map(|disk| disk.node) {
                    let message = Msg::FillAsk {
                        from: disk,
                        to,
                        header,
                        ask,
                    };
                    self.send(node, message);
                }
            }
            replica::Output::Learn { .. } => {} // the manager tells everybody
            replica::Output::Filled { session, .. } => {
                self.filled.insert((disk, pg), session);
                self.report(Report::Filled { pg, disk, session });
            }
            replica::Output::Lost { session } => {
                self.lost.insert((disk, pg), session);
                self.report(Report::SessionLost { pg, disk, session });
            }
        }
    }
}

/// The layer that a frame is about.
pub(super) fn layer_of(message: &Message) -> Option<LayerId> {
    match message {
        Message::Change { at, .. } | Message::Read { at, .. } | Message::Fits { at, .. } => {
            Some(at.layer)
        }
        Message::Mark | Message::Seal | Message::Confirm { .. } => None,
    }
}
