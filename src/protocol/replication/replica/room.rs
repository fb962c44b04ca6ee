//! Whether a write would take new space here: the store says it of a replica that has everything.
//!
//! A joiner says that it takes nothing. It may lack what the others have and will be filled with it, whatever its disk says; how low its disk is
//! stands in its answer, and that decides.

use super::read::Loading;
use super::{Frame, Op, Output, Replica, say};
use crate::base::{BlockRun, ChunkId};
use crate::protocol::replication::message::{Answer, Header};
use crate::protocol::replication::room::{Room, Takes};
use crate::protocol::replication::rule::Rule;

impl Replica {
    /// What its answers say of its disk.
    pub(super) fn room(&self) -> Room {
        match self.off.on(Rule::Reserve) {
            true => Room::Ample,
            false => self.room,
        }
    }

    pub(super) fn on_fits(&mut self, frame: Frame, id: u64, at: ChunkId, out: &mut Vec<Output>) {
        let Header {
            range,
            epoch,
            version,
            ..
        } = frame.header;
        if self.session.is_some() {
            return self.say_whether_it_fits(&frame, id, Takes::Nothing, out);
        }
        let op = Op::Look {
            range,
            epoch,
            version,
            id,
        };
        let run = BlockRun::WHOLE;
        self.load(op, Loading { frame, at, run }, Output::Look { op, at }, out);
    }

    pub(super) fn on_looked(&mut self, op: Op, takes: Takes, out: &mut Vec<Output>) {
        let Some(Loading { frame, .. }) = self.loading.remove(op) else {
            return debug_assert!(false, "a chunk is looked at once");
        };
        if let Op::Look { id, .. } = op {
            self.say_whether_it_fits(&frame, id, takes, out);
        }
    }

    fn say_whether_it_fits(&self, frame: &Frame, id: u64, takes: Takes, out: &mut Vec<Output>) {
        let room = self.room();
        let answer = Answer::Fits { id, takes, room };
        say(frame.from, frame.header, answer, out);
    }
}
