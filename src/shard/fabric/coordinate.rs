//! The side of the clients: the coordinator of volumes, and the groups that it asks.

use super::door::{Output, To};
use super::{Fabric, Mapping};
use crate::base::{
    CHUNK, ChunkId, DiskId, Epoch, IoError, LayerId, MapRun, Payload, Request, Span, Time, VolumeId,
};
use crate::protocol::report::Report;
use crate::protocol::scrub::compare::Below;
use crate::protocol::volume::groups;
use crate::protocol::volume::{self, Ask, OpenVolume, PieceId, Target};
use crate::wire::Frame;
use std::collections::BTreeSet;

impl Fabric {
    pub(super) fn on_request(&mut self, now: Time, request: Request, out: &mut Vec<Output>) {
        let volume = request.volume;
        (self.coordinator).request(request, &mut self.of_coordinator.list);
        if self.groups.epoch(volume).is_none() {
            self.drain(now, out);
            self.say_if_waited_for(volume, out);
        }
    }

    fn say_if_waited_for(&self, volume: VolumeId, out: &mut Vec<Output>) {
        if self.coordinator.is_waited_for(volume) {
            out.push(Output::Waits { volume });
        }
    }

    pub(super) fn put_layers(&mut self, layers: Vec<(LayerId, Option<LayerId>)>) {
        for (layer, parent) in layers {
            let below = match parent {
                Some(_) => Below::Layers,
                None => Below::Nothing,
            };
            self.layers.insert(layer, below);
        }
    }

    pub(super) fn open(
        &mut self,
        now: Time,
        (open, epoch): (OpenVolume, Epoch),
        near: BTreeSet<DiskId>,
        out: &mut Vec<Output>,
    ) {
        let of_groups = &mut self.of_groups.list;
        self.groups.open(now, open.id, epoch, near, of_groups);
        self.drain(now, out);
        (self.coordinator).open_held(open, &mut self.of_coordinator.list);
    }

    /// Requests of a volume that is attached here wait for a turn.
    pub(super) fn offer(&mut self, open: OpenVolume) {
        if self.coordinator.volume(open.id).is_none() {
            (self.coordinator).open_held(open, &mut self.of_coordinator.list);
        }
    }

    pub(super) fn start_over(&mut self, volume: VolumeId) {
        self.groups.drop_asks(volume);
        self.forget_maps(volume);
        (self.coordinator).start_over(volume, &mut self.of_coordinator.list);
    }

    pub(super) fn suspend(&mut self, now: Time, volume: VolumeId, out: &mut Vec<Output>) {
        self.start_over(volume);
        self.drain(now, out);
        self.say_if_waited_for(volume, out);
    }

    pub(super) fn close(&mut self, now: Time, volume: VolumeId, out: &mut Vec<Output>) {
        (self.coordinator).close(volume, &mut self.of_coordinator.list);
        self.drain(now, out);
        self.groups.close(volume, &mut self.of_groups.list);
    }

    pub(super) fn take_coordinator(
        &mut self,
        now: Time,
        output: volume::Output,
        out: &mut Vec<Output>,
    ) {
        out.push(match output {
            volume::Output::Ask { piece, target, ask } => {
                // A layer that no disk has recorded is not asked for: its volume was opened behind it.
                if self.layers.contains_key(&target.layer) {
                    let payload = self.hold(&ask, out);
                    if let Ask::Map { count } = ask {
                        self.mapping.insert(piece, Mapping::of(&target, count));
                    }
                    let of_groups = &mut self.of_groups.list;
                    (self.groups).ask(now, piece, target, (&ask, payload), of_groups);
                }
                return;
            }
            volume::Output::Checksum {
                piece,
                buf,
                blocks,
                layer,
                first,
            } => Output::Checksum {
                piece,
                buf,
                blocks,
                layer,
                first,
            },
            volume::Output::Fill { buf, blocks } => Output::Fill { buf, blocks },
            volume::Output::Merge {
                from,
                into,
                head,
                tail,
            } => Output::Merge {
                from,
                into,
                head,
                tail,
            },
            volume::Output::Reply { token, result, map } => Output::Reply { token, result, map },
            volume::Output::Drained { volume } => Output::Drained { volume },
            volume::Output::Cut { volume } => Output::Cut { volume },
        });
    }

    /// What a client writes is kept until the last replica that was asked here, and the last frame, has let it go: perhaps after the reply.
    fn hold(&self, ask: &Ask, out: &mut Vec<Output>) -> Option<Payload> {
        let Ask::Write { run, buf, .. } = *ask else {
            return None;
        };
        let blocks = run.count();
        out.push(Output::Pin { buf, blocks });
        Some(self.holds.hold(Span { buf, blocks }))
    }

    pub(super) fn take_groups(&mut self, now: Time, output: groups::Output, out: &mut Vec<Output>) {
        match output {
            groups::Output::Send {
                to,
                header,
                message,
                payload,
            } => out.push(Output::Send {
                to: To::Disk(to),
                disk: to,
                frame: Frame::Message(header, message),
                payload,
            }),
            groups::Output::Answered { piece, result } => {
                if let Some(&mapping) = self.mapping.get(&piece) {
                    return self.may_map(now, (piece, mapping), result.map(drop), out);
                }
                let result = result.map(|value| {
                    if let Some(value) = value {
                        out.push(Output::Place(value));
                    }
                });
                let list = &mut self.of_coordinator.list;
                (self.coordinator).answered(piece, result, &[], &mut Vec::new(), list);
            }
            groups::Output::Accuse { pg, disk, version } => {
                out.push(Output::Report(Report::Accused { pg, disk, version }));
            }
            groups::Output::Settled { volume } => out.push(Output::Settled { volume }),
            // The manager tells everybody of a new configuration; who is behind hears of it. And the catalog says who owns a range: then it is closed.
            groups::Output::Learn { .. } | groups::Output::Fenced { .. } => {}
        }
    }
}

impl Mapping {
    fn of(target: &Target, count: u32) -> Mapping {
        let at = ChunkId {
            family: target.family,
            layer: target.layer,
            chunk: target.chunk,
        };
        let (volume, pg) = (target.volume, target.pg);
        Mapping {
            volume,
            pg,
            at,
            count,
        }
    }
}

// What is allocated is not asked of other nodes: one that has no replica in sync says that everything is data, which is never wrong.
impl Fabric {
    /// The group of a map serves, or it failed.
    fn may_map(
        &mut self,
        now: Time,
        (piece, mapping): (PieceId, Mapping),
        result: Result<(), IoError>,
        out: &mut Vec<Output>,
    ) {
        let Mapping {
            volume,
            pg,
            at,
            count,
        } = mapping;
        match (result, self.groups.near(now, volume, pg)) {
            (Ok(()), Some(disk)) => out.push(Output::Map {
                piece,
                disk,
                at,
                count,
            }),
            (Ok(()), None) => self.mapped(piece, Ok(&[all_data(count)])),
            (Err(why), _) => self.mapped(piece, Err(why)),
        }
    }

    /// A store has looked. The lease is checked with the answer in hand, as of a value that was read (R17).
    pub(super) fn on_mapped(
        &mut self,
        now: Time,
        piece: PieceId,
        result: Result<&[MapRun], IoError>,
    ) {
        let Some(&Mapping {
            volume, pg, count, ..
        }) = self.mapping.get(&piece)
        else {
            return; // its volume was closed, or started over
        };
        match self.groups.near(now, volume, pg) {
            Some(_) => self.mapped(piece, result),
            None => self.mapped(piece, Ok(&[all_data(count)])),
        }
    }

    fn mapped(&mut self, piece: PieceId, result: Result<&[MapRun], IoError>) {
        self.mapping.remove(&piece);
        let (result, runs) = match result {
            Ok(runs) => (Ok(()), runs),
            Err(why) => (Err(why), &[][..]),
        };
        let list = &mut self.of_coordinator.list;
        (self.coordinator).answered(piece, result, runs, &mut self.map, list);
    }

    /// What was asked of a volume gets no answer.
    fn forget_maps(&mut self, volume: VolumeId) {
        self.mapping.retain(|_, of| of.volume != volume);
    }
}

fn all_data(chunks: u32) -> MapRun {
    MapRun {
        len: u64::from(chunks) * CHUNK,
        zero: false,
        hole: false,
    }
}
