//! What counts as the answer of a peer that has no word for a question: the column *instead* of [`upgrade`](crate::docs::upgrade), as code.
//!
//! Who writes a frame and is refused ([`Unwritten::Newer`](super::Unwritten::Newer)) tells its own machines this, as if the peer had said it. An answer of
//! ours that the peer has no word for is dropped: it has not asked for that.

use super::Frame;
use crate::protocol::replication::{Answer, Message, Room, Takes};
use crate::protocol::scrub::MendAnswer;
use crate::protocol::scrub::compare::CompareAnswer;

/// The answer, from the disk that the frame was for. `None`: nothing is answered; whether the frame is needed stands with its
/// [`Feature`](super::Feature).
pub fn instead(frame: &Frame) -> Option<Frame> {
    match *frame {
        Frame::MendAsk(header, _) => Some(Frame::MendAnswer(header, MendAnswer::NotNow)),
        Frame::CompareAsk(header, _) => Some(Frame::CompareAnswer(header, CompareAnswer::NotNow)),
        Frame::Message(header, Message::Fits { id, .. }) => {
            let (takes, room) = (Takes::Nothing, Room::Ample);
            Some(Frame::Answer(header, Answer::Fits { id, takes, room }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::samples::all;
    use crate::wire::{Feature, Version};

    #[test]
    fn what_stands_for_an_answer_is_one_that_is_asked_for_and_only_where_there_is_no_word() {
        for (_, (frame, _)) in all() {
            let is_new = Feature::of(&frame).is_some_and(|of| !Version::One.has(of));
            match instead(&frame) {
                Some(answer) => {
                    assert!(is_new, "{frame:?} can be said");
                    assert_eq!(instead(&answer), None, "{answer:?} is no question");
                }
                None => {
                    let is_question = matches!(frame, Frame::MendAsk(..) | Frame::CompareAsk(..));
                    assert!(!is_question, "{frame:?} waits for ever");
                }
            }
        }
    }
}
