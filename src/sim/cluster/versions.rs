//! Versions of the wire in one site: a run in four has starts of nodes that speak the one before. When all is to heal they are upgraded.

use super::message::Msg;
use super::world::World;
use crate::base::{BLOCKS_PER_CHUNK, BufRef, DiskId, NodeId, Prng, mix64};
use crate::protocol::replication::fill::FillAnswer;
use crate::protocol::replication::{Answer, Change, Message};
use crate::protocol::scrub::MendAnswer;
use crate::wire::{Feature, Frame, HEAD_LEN, Head, Unwritten, Version, decode, instead};

const ONE_IN: u64 = 4;

/// What starts of nodes speak.
#[derive(Debug)]
pub struct Versions {
    /// Of its own, so that other draws are the same whether it is asked or not. `None`: all speak the present version.
    prng: Option<Prng>,
}

impl Versions {
    pub fn new(seed: u64) -> Versions {
        let mixed = mix64(seed ^ 0x7665_7273_696f_6e73);
        let prng = mixed.is_multiple_of(ONE_IN).then(|| Prng::new(mixed));
        Versions { prng }
    }

    /// Whether nodes of this run may speak the older one.
    pub fn are_mixed(&self) -> bool {
        self.prng.is_some()
    }

    /// Of a start of a node, while things go wrong or not.
    pub fn draw(&mut self, is_struck: bool) -> Version {
        let prng = self.prng.as_mut().filter(|_| is_struck);
        match prng.is_some_and(|prng| prng.one_in(2)) {
            true => Version::One,
            false => Version::PRESENT,
        }
    }
}

impl World {
    /// The version that two nodes speak.
    pub(super) fn spoken(&self, one: NodeId, other: NodeId) -> Version {
        self.places[&one].version.min(self.places[&other].version)
    }

    /// What arrives of a message: frames are bytes on their way. What the other one has no word for does not leave, and something counts as its answer.
    pub(super) fn said(&mut self, from: NodeId, to: NodeId, message: Msg) -> Option<Msg> {
        let Msg::Frame {
            disk,
            frame,
            payload,
        } = message
        else {
            return Some(message);
        };
        match carry(self.spoken(from, to), disk, &frame, payload) {
            Ok(frame) => Some(Msg::Frame {
                disk,
                frame,
                payload,
            }),
            Err(feature) => {
                self.counts.met.branch(branch(feature));
                let frame = instead(&frame)?;
                let payload = None;
                let message = Msg::Frame {
                    disk,
                    frame,
                    payload,
                };
                let now = self.clocks.at(from, self.now);
                let place = self.places.get_mut(&from).expect("nodes stay");
                if let Some(node) = &mut place.node {
                    node.on_message(now, (to, message), &self.shelves, &mut self.buffers);
                }
                None
            }
        }
    }
}

/// The frame as it arrives at a peer of this version.
fn carry(
    version: Version,
    disk: DiskId,
    frame: &Frame,
    payload: Option<BufRef>,
) -> Result<Frame, Feature> {
    let blocks = blocks_of(frame, payload);
    assert_eq!(blocks > 0, payload.is_some(), "payload of {frame:?}");
    let mut bytes = Vec::new();
    match frame.encode(version, disk, blocks, &mut bytes) {
        Ok(()) => {}
        Err(Unwritten::Newer(feature)) => return Err(feature),
        Err(too_many) => panic!("{too_many}: {frame:?}"),
    }
    let (head, body) = bytes
        .split_first_chunk::<HEAD_LEN>()
        .expect("it has a head");
    let head = Head::decode(version, head).expect("what is written can be read");
    assert_eq!((head.disk, head.payload_blocks()), (disk, blocks));
    Ok(decode(version, &head, body).expect("what is written can be read"))
}

/// Blocks of payload. How many an answer to a read has only its coordinator knows: here one stands for all.
fn blocks_of(frame: &Frame, payload: Option<BufRef>) -> u32 {
    match frame {
        Frame::Message(
            _,
            Message::Change {
                change: Change::Write { run, .. },
                ..
            },
        ) => run.count(),
        Frame::Answer(_, Answer::Value { .. }) => u32::from(payload.is_some()),
        Frame::FillAnswer(_, FillAnswer::Content { content, .. }) if content.data != 0 => {
            BLOCKS_PER_CHUNK
        }
        Frame::MendAnswer(_, MendAnswer::Blocks(found)) if found.blocks != 0 => BLOCKS_PER_CHUNK,
        _ => 0,
    }
}

/// The branch that was taken where a peer had no word for something.
fn branch(feature: Feature) -> &'static str {
    match feature {
        Feature::Mend => "older-cannot-mend",
        Feature::Compare => "older-cannot-compare",
        Feature::Confirm => "older-cannot-confirm",
        Feature::Fits => "older-cannot-fit",
    }
}
