//! What nodes say to one another.

use crate::base::{BufRef, DiskId, Epoch, VolumeId};
use crate::protocol::catalog::Owner;
use crate::protocol::membership::{Answer as LeaseAnswer, Ask as LeaseAsk, Incarnation, Term};
use crate::protocol::replication::fill::{FillAnswer, FillAsk};
use crate::protocol::replication::{Answer, Asked, Message, Refusal, Takes};
use crate::protocol::report::Report;
use crate::protocol::scrub::MendAnswer;
use crate::protocol::scrub::compare::CompareAnswer;
use crate::wire::Frame;

/// What nodes say to one another.
#[derive(Debug, Clone)]
pub enum Msg {
    Lease(LeaseAsk),
    LeaseAnswer {
        incarnation: Incarnation,
        request: u64,
        term: Term,
        answer: LeaseAnswer,
    },
    /// The payload is in the buffers of all.
    Frame {
        /// Of its head.
        disk: DiskId,
        frame: Frame,
        payload: Option<BufRef>,
    },
    /// To the owner of a shared volume: a node waits for its turn.
    Want {
        volume: VolumeId,
        epoch: Epoch,
        by: Owner,
        missed: u32,
    },
    /// To the members of the manager; who leads takes it.
    Report(Report),
}

/// What a run of many seeds has to have come through: see [`Msg::branch`], and [`Effect::Paced`](super::node::Effect::Paced). Not demanded: that a window is full
/// (so much is never in flight here), and what a joiner and a reader are told of a chunk that cannot be read.
pub const BRANCHES: &[&str] = &[
    "seal",
    "window-of-a-seal",
    "refused-epoch",
    "refused-version",
    "refused-session",
    "read-held",
    "confirm-asked",
    "confirmed",
    "confirm-refused",
    "room-asked",
    "takes-space",
    "fences-asked",
    "list-asked",
    "fetch-asked",
    "fill-other-version",
    "fill-with-entries",
    "mend-asked",
    "mend-given",
    "compare-held",
    "compare-nothing",
    "compare-not-now",
    "wrong",
    "emptied",
    "accused",
    "disk-failed",
    "filled",
    "session-lost",
    "range-wanted",
    "range-given",
    "layer-frozen",
    "range-handed",
    "older-cannot-compare",
    "pace-up",
    "pace-down",
];

impl Msg {
    /// The branch of the protocols that a message stands for, where it is one that not every run takes.
    pub fn branch(&self) -> Option<&'static str> {
        match self {
            Msg::Frame { frame, .. } => branch_of(frame),
            Msg::Report(report) => Some(match report {
                Report::Wrong { .. } => "wrong",
                Report::Accused { .. } => "accused",
                Report::DiskOpened { .. } => "disk-opened",
                Report::DiskFailed { .. } => "disk-failed",
                Report::Filled { .. } => "filled",
                Report::SessionLost { .. } => "session-lost",
                Report::Take { .. } => "range-wanted",
                Report::Give { .. } => "range-given",
                Report::Frozen { .. } => "layer-frozen",
                Report::Hand { .. } => "range-handed",
            }),
            Msg::Lease(_) | Msg::LeaseAnswer { .. } | Msg::Want { .. } => None,
        }
    }
}

fn branch_of(frame: &Frame) -> Option<&'static str> {
    match frame {
        Frame::Message(_, message) => match message {
            Message::Seal => Some("seal"),
            Message::Confirm { .. } => Some("confirm-asked"),
            Message::Fits { .. } => Some("room-asked"),
            Message::Change { .. } | Message::Read { .. } | Message::Mark => None,
        },
        Frame::Answer(_, answer) => match answer {
            Answer::Sealed { window, .. } if !window.is_empty() => Some("window-of-a-seal"),
            Answer::Value {
                newest: Some(_), ..
            } => Some("read-held"),
            Answer::Confirmed { .. } => Some("confirmed"),
            Answer::Refused {
                what: Asked::Confirm { .. },
                ..
            } => Some("confirm-refused"),
            Answer::Fits {
                takes: Takes::Space,
                ..
            } => Some("takes-space"),
            Answer::Fits { .. } => None,
            Answer::Done { .. } | Answer::Value { .. } | Answer::Sealed { .. } => None,
            Answer::Refused { why, .. } => Some(match why {
                Refusal::Epoch(_) => "refused-epoch",
                Refusal::Version(_) => "refused-version",
                Refusal::Session => "refused-session",
                Refusal::Busy => "refused-busy",
                Refusal::Failed | Refusal::NoSpace => "refused-failed",
                Refusal::NoReplica => "refused-no-replica",
            }),
        },
        Frame::FillAsk(_, ask) => Some(match ask {
            FillAsk::Fences { .. } => "fences-asked",
            FillAsk::List { .. } => "list-asked",
            FillAsk::Fetch { .. } => "fetch-asked",
        }),
        Frame::FillAnswer(_, answer) => match answer {
            FillAnswer::NotNow => Some("fill-not-now"),
            FillAnswer::Version(_) => Some("fill-other-version"),
            FillAnswer::Content { entries, .. } if !entries.is_empty() => Some("fill-with-entries"),
            _ => None,
        },
        Frame::MendAsk(..) => Some("mend-asked"),
        Frame::MendAnswer(_, answer) => Some(match answer {
            MendAnswer::Blocks(found) if found.blocks != 0 => "mend-given",
            MendAnswer::Blocks(_) => "mend-not-here",
            MendAnswer::NotNow => "mend-not-now",
        }),
        Frame::CompareAsk(..) | Frame::Credit(_) => None,
        Frame::CompareAnswer(_, answer) => Some(match answer {
            CompareAnswer::Held { .. } => "compare-held",
            CompareAnswer::Nothing { .. } => "compare-nothing",
            CompareAnswer::NotNow => "compare-not-now",
        }),
    }
}
