//! Requests of the control plane: import, export, and what tests and tools read and write.

use super::desk::{Desk, Owner, Pending, Wanted};
use super::mailbox::{Answer, Ask};
use crate::base::{BLOCK, BufRef, IoError, MapRun, Request, RequestKind, Slab, Time};
use std::collections::VecDeque;

/// Questions in the machine. Each handle's permit bounds them below that.
const ASKS: usize = 4096;

pub(super) struct Asks {
    running: Slab<Ask>,
    /// Those that wait for payload memory, and since when.
    waiting: VecDeque<(Ask, Time)>,
}

impl Asks {
    pub fn new() -> Asks {
        Asks {
            running: Slab::new(ASKS),
            waiting: VecDeque::new(),
        }
    }

    /// Takes a question.
    pub fn begin(&mut self, ask: Ask, desk: &mut Desk) {
        if !self.waiting.is_empty() {
            self.waiting.push_back((ask, desk.now));
        } else if let Some(ask) = self.try_begin(ask, desk.now, desk) {
            self.waiting.push_back((ask, desk.now));
        }
    }

    /// Whether questions wait for payload memory.
    pub fn is_hungry(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Goes on with what waited for payload memory.
    pub fn feed(&mut self, desk: &mut Desk) {
        while let Some((ask, begun)) = self.waiting.pop_front() {
            if let Some(ask) = self.try_begin(ask, begun, desk) {
                return self.waiting.push_front((ask, begun));
            }
        }
    }

    /// Gives the question back where there is no memory for it now.
    fn try_begin(&mut self, ask: Ask, begun: Time, desk: &mut Desk) -> Option<Ask> {
        let blocks = Request::buffer_blocks(ask.kind, ask.offset, ask.len);
        let buf = match u32::try_from(blocks) {
            Ok(0) => None,
            Ok(blocks) if blocks <= desk.buffers.largest() => match desk.allocate(blocks) {
                None => return Some(ask),
                buf => buf,
            },
            _ => {
                answer(ask, Err(IoError::Busy));
                return None;
            }
        };
        if let (RequestKind::Write, Some(id)) = (ask.kind, buf) {
            let skip = (ask.offset % BLOCK) as usize;
            desk.buffers
                .arena()
                .copy_in(BufRef { id, block: 0 }, skip, &ask.data);
        }
        let (volume, kind, offset, len) = (ask.volume, ask.kind, ask.offset, ask.len);
        let failed = match self.running.insert(ask) {
            Err(ask) => Some((ask, IoError::Busy)),
            Ok(key) => {
                let owner = Owner::Ask(key);
                let wanted = Wanted {
                    owner,
                    volume,
                    kind,
                    offset,
                    len,
                    buf,
                    begun,
                };
                let refused = desk.submit(wanted).err();
                refused.and_then(|error| Some((self.running.remove(key)?, error)))
            }
        };
        if let Some((ask, error)) = failed {
            buf.into_iter().for_each(|buf| desk.release(buf, 1));
            answer(ask, Err(error));
        }
        None
    }

    /// The machine answered.
    pub fn reply(
        &mut self,
        key: u32,
        pending: &Pending,
        result: Result<(), IoError>,
        map: &[MapRun],
        desk: &mut Desk,
    ) {
        let ask = self.running.remove(key);
        let mut ask = ask.expect("a question is answered once");
        let mut data = std::mem::take(&mut ask.data);
        data.clear();
        if let Some(id) = pending.buf {
            if result.is_ok() && pending.kind == RequestKind::Read {
                let skip = (pending.offset % BLOCK) as usize;
                let from = BufRef { id, block: 0 };
                desk.buffers
                    .arena()
                    .copy_out(from, skip, pending.len as usize, &mut data);
            }
            desk.release(id, 1);
        }
        let map = map.to_vec();
        answer(ask, result.map(|()| Answer { data, map }));
    }
}

/// Answers; where nobody waits for it any more, that is all the same.
fn answer(ask: Ask, result: Result<Answer, IoError>) {
    let _ = ask.done.send(result);
}
