//! Requests: asking them, and judging their answers.

use super::checkers::space::Room;
use super::checkers::{Failure, intact, linearizable, never_wrong};
use super::fault::Fault;
use super::model::Ending;
use super::node::Machine;
use super::payload::Value;
use super::register::{Tick, WriteNo};
use super::world::{Phase, World};
use crate::base::{
    BLOCK, BufId, BufRef, CHUNK, IoError, MapRun, Request, RequestKind, Token, mix64,
};
use crate::shard::Input;
use std::ops::Range;
use std::time::Duration;

/// How many blocks one read of the verification covers.
const VERIFY_BLOCKS: u64 = 32;

/// A request that is not answered yet.
#[derive(Debug, Clone)]
pub struct Asked {
    kind: RequestKind,
    volume: usize,
    range: Range<u64>,
    buf: Option<BufId>,
    /// How full the disks were at most since it was asked: a part of it may have been refused then, and the rest of
    /// it answered long after.
    pub room: Room,
    /// When a read or map began.
    began: Tick,
    /// A write's number in the model.
    pub write: Option<WriteNo>,
}

impl Asked {
    /// How many blocks its buffer has.
    pub fn blocks(&self) -> u64 {
        Request::buffer_blocks(
            self.kind,
            self.range.start,
            self.range.end - self.range.start,
        )
    }
}

/// What a discard of these bytes zeroes: the whole chunks inside.
fn discarded(range: &Range<u64>) -> Option<Range<u64>> {
    let inside = range.start.next_multiple_of(CHUNK)..range.end / CHUNK * CHUNK;
    (inside.start < inside.end).then_some(inside)
}

impl<M: Machine> World<M> {
    /// Lists what a new life has to read before anything else.
    pub(super) fn plan_verification(&mut self) {
        self.to_verify.clear();
        for (n, volume) in self.volumes.living().filter(|(_, volume)| volume.serves()) {
            let ranges = self.model.written(volume.model, VERIFY_BLOCKS);
            self.to_verify
                .extend(ranges.into_iter().map(|range| (n, range)));
        }
        self.to_verify.reverse();
    }

    /// Asks for some requests.
    pub(super) fn ask_some(&mut self) -> Result<(), Failure> {
        let most = self
            .knobs
            .burst
            .min(self.knobs.depth - self.requests.len() as u64);
        for _ in 0..1 + self.prng.below(most) {
            if self.node.dead {
                break;
            }
            match self.phase {
                Phase::Verifying => match self.to_verify.pop() {
                    Some((volume, range)) => {
                        let bytes = self.volumes.list[volume].served;
                        let range = range.start..range.end.min(bytes);
                        self.ask(volume, RequestKind::Read, range)?;
                    }
                    None => break,
                },
                _ => self.ask_by_draw()?,
            }
        }
        Ok(())
    }

    fn ask_by_draw(&mut self) -> Result<(), Failure> {
        if self.prng.one_in(self.knobs.controls.one_in) {
            self.run_errand()?;
        }
        if self.prng.one_in(self.knobs.pause_one_in) {
            let pause = Duration::from_micros(self.prng.below(40_000));
            self.paused_until = self.node.now() + pause;
        }
        let serving = |(n, volume): (usize, &super::volumes::Volume)| {
            volume
                .serves()
                .then_some((n, volume.served, volume.writable()))
        };
        let open: Vec<_> = self.volumes.living().filter_map(serving).collect();
        if open.is_empty() {
            return Ok(());
        }
        let (volume, bytes, writable) = open[self.prng.below(open.len() as u64) as usize];
        let (kind, range) = self.workload.draw(&self.knobs, bytes, writable);
        self.counts.operations += 1;
        if self.done() {
            // Enough: this life is the last but one.
            self.close_in = Some(0);
        } else if let Some(left) = &mut self.close_in {
            *left = left.saturating_sub(1);
        }
        self.ask(volume, kind, range)
    }

    /// Asks one request.
    pub(super) fn ask(
        &mut self,
        volume: usize,
        kind: RequestKind,
        range: Range<u64>,
    ) -> Result<(), Failure> {
        let len = range.end - range.start;
        let blocks = Request::buffer_blocks(kind, range.start, len) as u32;
        let buf = match blocks {
            0 => None,
            blocks => match self.node.buffers.take(blocks) {
                Some(buf) => Some(buf),
                // All are in use: the front end waits.
                None => return Ok(()),
            },
        };
        let name = self.next_name;
        self.next_name += 1;
        self.idle_turns = 0;
        let at = BufRef {
            id: buf.unwrap_or_default(),
            block: 0,
        };
        let model = self.volumes.list[volume].model;
        let changes = match kind {
            RequestKind::Write => Some((range.clone(), Value(mix64(name)))),
            RequestKind::WriteZeroes => Some((range.clone(), Value::ZERO)),
            RequestKind::Discard => discarded(&range).map(|range| (range, Value::ZERO)),
            _ => None,
        };
        let mut asked = Asked {
            kind,
            volume,
            range: range.clone(),
            room: Room::default(),
            buf,
            began: 0,
            write: None,
        };
        match changes {
            Some((range, value)) => {
                if kind == RequestKind::Write {
                    let bytes = self
                        .node
                        .buffers
                        .bytes_mut(at, blocks)
                        .map_err(super::checkers::pins::failure)?;
                    let inside = (range.start % BLOCK) as usize;
                    value.fill(range.start, &mut bytes[inside..inside + len as usize]);
                }
                self.trimmed |= value == Value::ZERO;
                self.volumes.wrote(volume, &range);
                asked.write = Some(self.model.write_began(model, range, value));
            }
            None => asked.began = self.model.began(),
        }
        self.requests.ask(name, self.node.now(), asked);
        let request = Request {
            token: Token(name),
            volume: self.volumes.list[volume].meta.id,
            kind,
            offset: range.start,
            len,
            buf: at,
            scratch: Request::scratch_of(kind, range.start, len, at),
        };
        self.node.step(Input::Request(request))?;
        self.handle_all()
    }

    /// A request was answered.
    pub(super) fn replied(
        &mut self,
        name: u64,
        result: Result<(), IoError>,
        map: &[MapRun],
    ) -> Result<(), Failure> {
        let asked = self.requests.answer(name)?;
        let judged = match result {
            Ok(()) => self.judge_answer(&asked, map),
            Err(error) => self.judge_refusal(&asked, error),
        };
        if let Some(buf) = asked.buf {
            self.node.buffers.answered(buf);
        }
        judged.map_err(|failure| {
            self.node.trace.say(self.node.now(), || {
                format!("!!!! request {name}: {failure}")
            });
            failure
        })
    }

    fn judge_answer(&mut self, asked: &Asked, map: &[MapRun]) -> Result<(), Failure> {
        if let Some(write) = asked.write {
            self.model.write_ended(write, Ending::Acknowledged);
            return Ok(());
        }
        let ended = self.model.ended(asked.began);
        let volume = &self.volumes.list[asked.volume];
        if volume.gone {
            return Ok(());
        }
        let (model, offset) = (volume.model, asked.range.start);
        match (asked.kind, asked.buf) {
            (RequestKind::Read, Some(id)) => {
                let at = BufRef { id, block: 0 };
                let blocks = asked.blocks() as u32;
                let bytes = self.node.buffers.bytes(at, blocks);
                let bytes = bytes.map_err(super::checkers::pins::failure)?;
                let inside = (offset % BLOCK) as usize;
                let len = (asked.range.end - offset) as usize;
                let bytes = &bytes[inside..inside + len];
                let span = (asked.began, ended);
                linearizable::judge_read(&mut self.model, model, offset, bytes, span).or_else(
                    |failure| {
                        let damage = &self.node.damage;
                        never_wrong::judge(damage, &self.model, model, offset, bytes, failure)
                    },
                )
            }
            (RequestKind::Map, _) => {
                let (range, began) = (&asked.range, asked.began);
                linearizable::judge_map(&self.model, model, range, map, began)
            }
            _ => Ok(()),
        }
    }

    fn judge_refusal(&mut self, asked: &Asked, error: IoError) -> Result<(), Failure> {
        let ending = match error {
            IoError::Failed | IoError::ReadOnly => Ending::Open,
            _ => Ending::Unknown,
        };
        match asked.write {
            Some(write) => self.model.write_ended(write, ending),
            None => _ = self.model.ended(asked.began),
        }
        let volume = &self.volumes.list[asked.volume];
        if error == IoError::Closed && (volume.dropping || self.phase == Phase::Closing) {
            return Ok(());
        }
        if error == IoError::NoSpace {
            self.counts.faults.both(Fault::Full);
            return self.judge_no_space(asked.room);
        }
        let layers = volume.layers();
        intact::judge(&self.node.damage, &layers, asked.kind, &asked.range, error)
    }
}
