//! A read, with the newest write that it may have seen a part of (R9).

use super::{FLYING_MAX, Frame, Op, Output, Replica, refuse};
use crate::base::{BlockRun, ChunkId, Payload};
use crate::protocol::replication::message::{Answer, Header, Message, Refusal};
use crate::protocol::replication::rule::Rule;

/// A read on its way from the disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Loading {
    pub frame: Frame,
    pub at: ChunkId,
    pub run: BlockRun,
}

impl Replica {
    pub(super) fn on_read(
        &mut self,
        frame: Frame,
        at: ChunkId,
        run: BlockRun,
        out: &mut Vec<Output>,
    ) {
        let Message::Read { id, .. } = frame.message else {
            return debug_assert!(false, "only a read is loaded");
        };
        let Header {
            range,
            epoch,
            version,
            ..
        } = frame.header;
        if self.session.is_some() && !self.off.on(Rule::Reads) {
            // It has not got everything yet, and its coordinator knows that.
            return refuse(&frame, Refusal::Session, out);
        }
        let op = Op::Read {
            range,
            epoch,
            version,
            id,
        };
        self.load(
            op,
            Loading { frame, at, run },
            Output::Read { op, at, run },
            out,
        );
    }

    /// Asks the store; the same question again is answered once.
    pub(super) fn load(&mut self, op: Op, of: Loading, ask: Output, out: &mut Vec<Output>) {
        if self.loading.len() >= FLYING_MAX {
            return refuse(&of.frame, Refusal::Busy, out);
        }
        if self.loading.insert(op, of).is_none() {
            out.push(ask);
        }
    }

    pub(super) fn on_loaded(
        &mut self,
        op: Op,
        crcs: [u32; 16],
        zeroes: u16,
        payload: Payload,
        out: &mut Vec<Output>,
    ) {
        let Some(Loading { frame, at, run }) = self.loading.remove(op) else {
            return debug_assert!(false, "a read is loaded once");
        };
        let Op::Read { range, id, .. } = op else {
            return;
        };
        // What is on its way may be in what was read as well: the coordinator holds the answer back a little longer.
        let on_its_way = self.storing.iter().filter_map(|(op, storing)| match op {
            Op::Change {
                range: of,
                epoch,
                sequence,
            } if of == range && storing.meets(at, run.mask()) => Some((epoch, sequence)),
            _ => None,
        });
        let durable = self.durable.ranges.get(&range);
        let newest = durable.and_then(|of| of.window.newest(at, run.mask()));
        let answer = Answer::Value {
            id,
            newest: newest.into_iter().chain(on_its_way).max(),
            crcs,
            zeroes,
        };
        out.push(Output::Answer {
            to: frame.from,
            header: frame.header,
            answer,
            payload: Some(payload),
        });
    }
}
