//! The bodies of what is said about damaged blocks: which are asked for, by their checksums, and which are given.

use super::field::{Malformed, PLACE_LEN, TOO_SHORT, malformed, place, put_place};
use crate::base::BlockRun;
use crate::base::bytes::{Put, Take};
use crate::protocol::scrub::{MendAnswer, MendAsk};

const BLOCKS: u8 = 1;
const NOT_NOW: u8 = 2;

/// Bytes of the longest body.
pub(super) const BODY_MAX: usize = 1 + PLACE_LEN + 2 + 64;

/// Appends what is asked.
pub(super) fn encode_ask(ask: &MendAsk, put: &mut Put<'_>) {
    put.u8(BLOCKS);
    put_blocks(ask, put);
}

/// Reads what is asked: one block at least.
pub(super) fn decode_ask(take: &mut Take<'_>) -> Result<MendAsk, Malformed> {
    match take.u8().ok_or(TOO_SHORT)? {
        BLOCKS => {}
        tag => return malformed("question", tag),
    }
    let ask = blocks(take)?;
    match ask.blocks {
        0 => malformed("blocks", 0u8),
        _ => Ok(ask),
    }
}

/// Appends what is answered.
pub(super) fn encode_answer(answer: &MendAnswer, put: &mut Put<'_>) {
    match answer {
        MendAnswer::Blocks(found) => {
            put.u8(BLOCKS);
            put_blocks(found, put);
        }
        MendAnswer::NotNow => put.u8(NOT_NOW),
    }
}

/// Reads what is answered.
pub(super) fn decode_answer(take: &mut Take<'_>) -> Result<MendAnswer, Malformed> {
    match take.u8().ok_or(TOO_SHORT)? {
        BLOCKS => Ok(MendAnswer::Blocks(blocks(take)?)),
        NOT_NOW => Ok(MendAnswer::NotNow),
        tag => malformed("answer", tag),
    }
}

fn put_blocks(of: &MendAsk, put: &mut Put<'_>) {
    put_place(of.at, put);
    put.u16(of.blocks);
    for block in BlockRun::runs_of(of.blocks).flat_map(BlockRun::blocks) {
        put.u32(of.crcs[block as usize]);
    }
}

fn blocks(take: &mut Take<'_>) -> Result<MendAsk, Malformed> {
    let at = place(take)?;
    let blocks = take.u16().ok_or(TOO_SHORT)?;
    let mut crcs = [0; 16];
    for block in BlockRun::runs_of(blocks).flat_map(BlockRun::blocks) {
        crcs[block as usize] = take.u32().ok_or(TOO_SHORT)?;
    }
    Ok(MendAsk { at, blocks, crcs })
}
