//! A change: it is durable with its stamp, and stands in the window until a mark passes it.

use super::{Asker, FLYING_MAX, Frame, Op, Output, Replica, refuse, say};
use crate::base::{ChunkId, Stamp};
use crate::protocol::replication::MEMBERS_MAX;
use crate::protocol::replication::message::{Answer, Asked, Change, Header, Refusal};
use crate::protocol::replication::rule::Rule;

/// A change on its way to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Storing {
    to: Asker,
    header: Header,
    pub at: ChunkId,
    pub change: Change,
    /// The same change came once more, under a higher version. That is rare, and a frame is large.
    again: Option<Box<Frame>>,
}

impl Storing {
    /// The version that it is stamped with.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Whether it changes any of these blocks.
    pub fn meets(&self, at: ChunkId, blocks: u16) -> bool {
        let mut places = self.change.places(self.at);
        places.any(|(chunk, mask)| chunk == at && mask & blocks != 0)
    }
}

impl Replica {
    pub(super) fn on_change(
        &mut self,
        frame: Frame,
        sequence: u64,
        at: ChunkId,
        change: Change,
        out: &mut Vec<Output>,
    ) {
        let Header {
            range,
            epoch,
            version,
            ..
        } = frame.header;
        let of = self.durable.range(range);
        if sequence <= of.mark && !self.off.on(Rule::R10) {
            // A late duplicate: what came after it may be forgotten already.
            return self.say_done(&frame, sequence, out);
        }
        match of.window.version_of(epoch, sequence) {
            Some(stamped) if stamped >= version || self.off.on(Rule::R3Stamps) => {
                return self.say_done(&frame, sequence, out);
            }
            _ => {}
        }
        let op = Op::Change {
            range,
            epoch,
            sequence,
        };
        if let Some(storing) = self.storing.get_mut(op) {
            // Once what is on its way is there, it is stamped anew (R3).
            storing.again = Some(Box::new(frame));
            return;
        }
        // The chunk may be being filled, or fetched for another.
        let Some(frame) = self.works.block(at, &change, frame, out) else {
            return;
        };
        let on_its_way = self.storing_chunks + self.works.entries_of(range);
        // Recovery writes what any member had, so it may need as much room as all of them took.
        let windows = if frame.header.mark == 0 {
            MEMBERS_MAX
        } else {
            1
        };
        let room = of.window.has_room(on_its_way + change.chunks(), windows);
        if !room || self.storing.len() >= FLYING_MAX || !self.note_written(at, &change) {
            return refuse(&frame, Refusal::Busy, out);
        }
        out.push(Output::Change {
            op,
            range,
            at,
            change,
            stamp: Stamp {
                version,
                epoch,
                sequence,
            },
            payload: frame.payload.clone(),
        });
        if self.off.on(Rule::Durable) {
            self.say_done(&frame, sequence, out);
        }
        let storing = Storing {
            to: frame.from,
            header: frame.header,
            at,
            change,
            again: None,
        };
        self.storing.insert(op, storing);
        self.storing_chunks += change.chunks();
    }

    fn say_done(&self, frame: &Frame, sequence: u64, out: &mut Vec<Output>) {
        let room = self.room();
        say(
            frame.from,
            frame.header,
            Answer::Done { sequence, room },
            out,
        );
    }

    pub(super) fn on_stored(&mut self, op: Op, result: Result<(), Refusal>, out: &mut Vec<Output>) {
        let Some(storing) = self.storing.remove(op) else {
            return debug_assert!(false, "a change is stored once");
        };
        let Storing {
            to,
            header,
            at,
            change,
            again,
        } = storing;
        self.storing_chunks -= change.chunks();
        let Op::Change {
            range,
            epoch,
            sequence,
        } = op
        else {
            return;
        };
        let answer = match result {
            Ok(()) => {
                let window = &mut self.durable.range(range).window;
                window.put((epoch, sequence, header.version), change.places(at));
                let room = self.room();
                Answer::Done { sequence, room }
            }
            Err(why) => {
                let what = Asked::Change { sequence };
                Answer::Refused { what, why }
            }
        };
        say(to, header, answer, out);
        if let Some(again) = again {
            // It passes the gates once more: what was right when it came may be fenced now.
            self.admit(super::gates::Waiting::Frame(*again), out);
        }
        self.start_works(out);
        self.answer_joiners(out);
        self.answer_seals(out);
        if self.session.as_ref().is_some_and(|own| !own.takes()) {
            self.begin_session(out);
        }
    }
}
