//! The side that gives: a question is put to the store, and what it could read goes back. It remembers nothing of the asker.

use super::mender::{Mender, Output};
use super::message::{MendAnswer, MendAsk, MendHeader};
use crate::base::Payload;

/// Questions of others that are at the store at once.
pub const LENDS_MAX: usize = 32;

/// A question that is at the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lend {
    pub header: MendHeader,
    pub ask: MendAsk,
}

impl Mender {
    pub(super) fn on_asked(&mut self, header: MendHeader, ask: MendAsk, out: &mut Vec<Output>) {
        if !self.pgs.contains_key(&header.pg) || self.lends.len() >= LENDS_MAX {
            return answer(header, MendAnswer::NotNow, None, out);
        }
        let op = self.next_id();
        self.lends.insert(op, Lend { header, ask });
        out.push(Output::Salvage {
            op,
            pg: header.pg,
            ask,
        });
    }

    /// The store has read `found`, which is a part of what was asked for; `None`: it could not.
    pub(super) fn on_salvaged(
        &mut self,
        op: u64,
        found: Option<MendAsk>,
        payload: Option<Payload>,
        out: &mut Vec<Output>,
    ) {
        let Some(Lend { header, .. }) = self.lends.remove(&op) else {
            return debug_assert!(false, "a question is answered once");
        };
        match found {
            Some(found) => answer(header, MendAnswer::Blocks(found), payload, out),
            None => answer(header, MendAnswer::NotNow, None, out),
        }
    }
}

fn answer(header: MendHeader, answer: MendAnswer, payload: Option<Payload>, out: &mut Vec<Output>) {
    out.push(Output::Answer {
        header,
        answer,
        payload,
    });
}
