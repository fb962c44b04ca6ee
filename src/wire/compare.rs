//! The bodies of what replicas say to one another that compare what they hold.

use super::field::{
    EPOCH_LEN, Malformed, PLACE_LEN, TOO_SHORT, epoch, flag, malformed, place, put_epoch, put_place,
};
use crate::base::bytes::{Put, Take};
use crate::base::{ChunkId, Stamp};
use crate::protocol::scrub::compare::{Below, CompareAnswer, Motion, Summary};

const CHUNK: u8 = 1;

const HELD: u8 = 1;
const NOTHING: u8 = 2;
const NOT_NOW: u8 = 3;

/// Bytes of the longest body: tag, and a place, or a stamp, two masks, a digest and two flags.
pub(super) const BODY_MAX: usize = 1 + 4 + EPOCH_LEN + 8 + 2 + 2 + 4 + 1 + 1;
const _: () = assert!(PLACE_LEN < BODY_MAX);

/// Appends what is asked.
pub(super) fn encode_ask(at: ChunkId, put: &mut Put<'_>) {
    put.u8(CHUNK);
    put_place(at, put);
}

/// Reads what is asked.
pub(super) fn decode_ask(take: &mut Take<'_>) -> Result<ChunkId, Malformed> {
    match take.u8().ok_or(TOO_SHORT)? {
        CHUNK => place(take),
        tag => malformed("question", tag),
    }
}

fn put_below(below: Below, put: &mut Put<'_>) {
    put.u8(u8::from(below == Below::Layers));
}

fn below(take: &mut Take<'_>) -> Result<Below, Malformed> {
    Ok(match flag("below", take)? {
        true => Below::Layers,
        false => Below::Nothing,
    })
}

/// Appends what is answered.
pub(super) fn encode_answer(answer: &CompareAnswer, put: &mut Put<'_>) {
    match *answer {
        CompareAnswer::Held { summary, motion } => {
            put.u8(HELD);
            put.u32(summary.stamp.version);
            put_epoch(summary.stamp.epoch, put);
            put.u64(summary.stamp.sequence);
            put.u16(summary.data);
            put.u16(summary.zeroes);
            put.u32(summary.digest);
            put.u8(u8::from(motion == Motion::Moving));
            put_below(summary.below, put);
        }
        CompareAnswer::Nothing { below, forgotten } => {
            put.u8(NOTHING);
            put.u32(forgotten);
            put_below(below, put);
        }
        CompareAnswer::NotNow => put.u8(NOT_NOW),
    }
}

/// Reads what is answered.
pub(super) fn decode_answer(take: &mut Take<'_>) -> Result<CompareAnswer, Malformed> {
    match take.u8().ok_or(TOO_SHORT)? {
        HELD => {
            let stamp = Stamp {
                version: take.u32().ok_or(TOO_SHORT)?,
                epoch: epoch(take).ok_or(TOO_SHORT)?,
                sequence: take.u64().ok_or(TOO_SHORT)?,
            };
            let mut summary = Summary {
                stamp,
                below: Below::Nothing,
                data: take.u16().ok_or(TOO_SHORT)?,
                zeroes: take.u16().ok_or(TOO_SHORT)?,
                digest: take.u32().ok_or(TOO_SHORT)?,
            };
            if summary.data & summary.zeroes != 0 {
                return malformed("zeroes", summary.zeroes);
            }
            if summary.data == 0 && summary.digest != 0 {
                return malformed("digest", summary.digest);
            }
            let motion = match flag("moving", take)? {
                true => Motion::Moving,
                false => Motion::Quiet,
            };
            summary.below = below(take)?;
            if summary.below == Below::Nothing && summary.zeroes != 0 {
                return malformed("zeroes", summary.zeroes);
            }
            Ok(CompareAnswer::Held { summary, motion })
        }
        NOTHING => Ok(CompareAnswer::Nothing {
            forgotten: take.u32().ok_or(TOO_SHORT)?,
            below: below(take)?,
        }),
        NOT_NOW => Ok(CompareAnswer::NotNow),
        tag => malformed("answer", tag),
    }
}
