//! A change: it is durable with its stamp, and stands in the window until a mark passes it.

use super::{FLYING_MAX, Frame, Op, Output, Replica, done, refuse};
use crate::base::{ChunkId, Stamp};
use crate::protocol::replication::MEMBERS_MAX;
use crate::protocol::replication::message::{Change, Header, Refusal};
use crate::protocol::replication::rule::Rule;

/// A change on its way to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Storing {
    frame: Frame,
    pub at: ChunkId,
    pub change: Change,
    /// The same change came once more, under a higher version.
    again: Option<Frame>,
}

impl Storing {
    /// The version that it is stamped with.
    pub fn version(&self) -> u32 {
        self.frame.header.version
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
            return done(&frame, sequence, out);
        }
        match of.window.version_of(epoch, sequence) {
            Some(stamped) if stamped >= version || self.off.on(Rule::R3Stamps) => {
                return done(&frame, sequence, out);
            }
            _ => {}
        }
        let op = Op::Change {
            range,
            epoch,
            sequence,
        };
        if let Some(storing) = self.storing.get_mut(&op) {
            // Once what is on its way is there, it is stamped anew (R3).
            storing.again = Some(frame);
            return;
        }
        if let Some(work) = self.works.on(at, &change) {
            // The chunk is being filled, or fetched for another.
            return match work.has_room() {
                true => work.blocked.push_back(frame),
                false => refuse(&frame, Refusal::Busy, out),
            };
        }
        let flying = self.storing.values();
        let more: usize = flying.map(|storing| storing.change.chunks()).sum();
        // Recovery writes what any member had, so it may need as much room as all of them took.
        let windows = if frame.header.mark == 0 {
            MEMBERS_MAX
        } else {
            1
        };
        let room = of.window.has_room(more + change.chunks(), windows);
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
            payload: frame.payload,
        });
        let again = None;
        let storing = Storing {
            frame,
            at,
            change,
            again,
        };
        self.storing.insert(op, storing);
    }

    pub(super) fn on_stored(&mut self, op: Op, ok: bool, out: &mut Vec<Output>) {
        let Some(storing) = self.storing.remove(&op) else {
            return debug_assert!(false, "a change is stored once");
        };
        let Storing {
            frame,
            at,
            change,
            again,
        } = storing;
        let Op::Change {
            range,
            epoch,
            sequence,
        } = op
        else {
            return;
        };
        if ok {
            let version = frame.header.version;
            self.durable
                .range(range)
                .window
                .put((epoch, sequence, version), change.places(at));
            done(&frame, sequence, out);
        } else {
            refuse(&frame, Refusal::Failed, out);
        }
        if let Some(again) = again {
            // It passes the gates once more: what was right when it came may be fenced now.
            self.admit(super::gates::Waiting::Frame(again), out);
        }
        self.start_works(out);
        self.answer_joiners(out);
        self.answer_seals(out);
        if self.session.as_ref().is_some_and(|own| !own.takes()) {
            self.begin_session(out);
        }
    }
}
