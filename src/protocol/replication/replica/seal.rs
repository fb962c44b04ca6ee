//! A seal: nothing of an older epoch follows, and everything that may not be everywhere is told (R5).

use super::Output;
use super::{Op, Replica, refuse, say};
use crate::protocol::replication::message::{Answer, Refusal};
use crate::protocol::replication::window::{Entry, TOLD_MAX};

impl Replica {
    /// Answers the seals of every range of which nothing is on its way to the disk. The epoch is taken, so nothing
    /// of an older one follows. What is being filled may bring entries of a source that is no member any more, so that is waited for too.
    pub(super) fn answer_seals(&mut self, out: &mut Vec<Output>) {
        if self.sealing.is_empty() || self.works.are_filling() {
            return;
        }
        let room = self.room();
        let mut waiting = std::mem::take(&mut self.sealing);
        waiting.retain(|frame| {
            let range = frame.header.range;
            let is_of =
                |(op, _): (Op, _)| matches!(op, Op::Change { range: of, .. } if of == range);
            if self.storing.iter().any(is_of) {
                return true;
            }
            let of = self.durable.range(range);
            let epoch = of.epoch;
            let version = self.durable.version;
            // Fenced while it waited.
            if (epoch, version) != (frame.header.epoch, frame.header.version) {
                let why = match epoch > frame.header.epoch {
                    true => Refusal::Epoch(epoch),
                    false => Refusal::Version(version),
                };
                refuse(frame, why, out);
                return false;
            }
            let window = self.durable.range(range).window.entries();
            let told = window.filter(|entry| entry.blocks != 0).copied();
            let window: Vec<Entry> = told.collect();
            if window.len() > TOLD_MAX {
                // Only a store that kept marks far too lazily finds so many. A part of them must not be told: what is left out would not be
                // written again.
                refuse(frame, Refusal::Failed, out);
                return false;
            }
            say(
                frame.from,
                frame.header,
                Answer::Sealed { window, room },
                out,
            );
            false
        });
        self.sealing = waiting;
    }
}
