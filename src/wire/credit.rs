//! The body of a grant of credit, and what an ask takes of it.
//!
//! Who sends asks may send what was granted and no more; who receives them grants as he lets go what came before. Answers need no credit: whoever asks has the
//! room for the answer before he asks. Why so is told [here](crate::docs::decisions::credits_between_peers).

use super::field::{Malformed, TOO_SHORT, malformed};
use super::{BODY_MAX, Frame, PAYLOAD_MAX};
use crate::base::BLOCK;
use crate::base::bytes::{Put, Take};
use crate::protocol::replication::fill::FillAsk;
use crate::protocol::replication::{Change, Message};

const GRANTED: u8 = 1;

/// What a page of a source holds at most, in bytes, rounded up.
const PAGE_BYTES: u64 = 8192;

/// What may have been sent since the connection began: a sum, so that one grant says all that earlier ones said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credit {
    /// Frames that are asks.
    pub asks: u64,
    /// What they hold at the receiver, in bytes, as [`Cost`] has it.
    pub bytes: u64,
}

/// What an ask may hold at its receiver, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Its own payload, until that is let go.
    pub payload: u64,
    /// The longest answer that there can be, where that is long, until it is sent.
    pub answer: u64,
}

impl Cost {
    /// The most that one ask costs: the longest window that a seal tells, or a chunk with all its entries.
    pub const MAX: u64 = PAYLOAD_MAX + BODY_MAX as u64;

    pub fn bytes(self) -> u64 {
        self.payload + self.answer
    }
}

/// What a frame is to the credit of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It takes credit.
    Ask(Cost),
    /// It takes none.
    Answer,
    Credit,
}

impl Frame {
    /// What it is to the credit of a connection.
    pub fn class(&self) -> Class {
        let (payload, answer) = match self {
            Frame::Message(_, message) => match message {
                Message::Change {
                    change: Change::Write { run, .. },
                    ..
                } => (u64::from(run.count()) * BLOCK, 0),
                Message::Read { run, .. } => (0, u64::from(run.count()) * BLOCK),
                Message::Seal => (0, BODY_MAX as u64),
                Message::Change { .. }
                | Message::Mark
                | Message::Confirm { .. }
                | Message::Fits { .. } => (0, 0),
            },
            Frame::FillAsk(_, FillAsk::Fetch { .. }) => (0, Cost::MAX),
            Frame::FillAsk(_, FillAsk::Fences { .. } | FillAsk::List { .. }) => (0, PAGE_BYTES),
            Frame::MendAsk(..) => (0, PAYLOAD_MAX),
            Frame::CompareAsk(..) => (0, 0),
            Frame::Answer(..)
            | Frame::FillAnswer(..)
            | Frame::MendAnswer(..)
            | Frame::CompareAnswer(..) => return Class::Answer,
            Frame::Credit(_) => return Class::Credit,
        };
        Class::Ask(Cost { payload, answer })
    }
}

/// Appends a grant.
pub(super) fn encode(credit: &Credit, put: &mut Put<'_>) {
    put.u8(GRANTED);
    put.u64(credit.asks);
    put.u64(credit.bytes);
}

/// Reads a grant.
pub(super) fn decode(take: &mut Take<'_>) -> Result<Credit, Malformed> {
    match take.u8().ok_or(TOO_SHORT)? {
        GRANTED => Ok(Credit {
            asks: take.u64().ok_or(TOO_SHORT)?,
            bytes: take.u64().ok_or(TOO_SHORT)?,
        }),
        tag => malformed("credit", tag),
    }
}
