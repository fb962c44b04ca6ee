//! The name of a question, which is the same in the ask and in its answer: the answer has what it was asked under.

use super::Frame;
use crate::base::{DiskId, Epoch, PgId};
use crate::protocol::replication::fill::FillHeader;
use crate::protocol::replication::{Answer, Asked, Header};
use crate::protocol::scrub::MendHeader;
use crate::protocol::scrub::compare::CompareHeader;

/// What is asked, among all that is asked on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question {
    /// The one that is asked.
    pub disk: DiskId,
    pub pg: PgId,
    of: Of,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    Message {
        range: u64,
        epoch: Epoch,
        version: u32,
        session: u32,
        what: Asked,
    },
    Fill(FillHeader),
    Mend(MendHeader),
    Compare(CompareHeader),
}

fn of_message(disk: DiskId, header: &Header, what: Asked) -> Option<Question> {
    // A mark is not answered, but where it is refused.
    (what != Asked::Mark).then_some(Question {
        disk,
        pg: header.pg,
        of: Of::Message {
            range: header.range.0,
            epoch: header.epoch,
            version: header.version,
            session: header.session,
            what,
        },
    })
}

impl Frame {
    /// The question that a frame asks, or answers, where `disk` is what its head names; `None`: it is neither, or a mark.
    pub fn question(&self, disk: DiskId) -> Option<Question> {
        let (pg, of) = match *self {
            Frame::Message(ref header, ref message) => {
                return of_message(disk, header, message.asked());
            }
            Frame::Answer(ref header, ref answer) => {
                let what = match *answer {
                    Answer::Done { sequence, .. } => Asked::Change { sequence },
                    Answer::Value { id, .. } => Asked::Read { id },
                    Answer::Sealed { .. } => Asked::Seal,
                    Answer::Confirmed { id } => Asked::Confirm { id },
                    Answer::Fits { id, .. } => Asked::Fits { id },
                    Answer::Refused { what, .. } => what,
                };
                return of_message(disk, header, what);
            }
            Frame::FillAsk(header, _) | Frame::FillAnswer(header, _) => {
                (header.pg, Of::Fill(header))
            }
            Frame::MendAsk(header, _) | Frame::MendAnswer(header, _) => {
                (header.pg, Of::Mend(header))
            }
            Frame::CompareAsk(header, _) | Frame::CompareAnswer(header, _) => {
                (header.pg, Of::Compare(header))
            }
            Frame::Credit(_) => return None,
        };
        Some(Question { disk, pg, of })
    }
}
