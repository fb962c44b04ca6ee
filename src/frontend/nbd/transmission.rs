//! The transmission phase: request headers in, commands and replies out.
//!
//! Invariants:
//! - *every request is answered once*: it is answered here at once, or sits in a slot until the
//!   driver answers;
//! - *data never enters*: where a write was announced, nothing is received until the driver took
//!   its data;
//! - *a refused write is answered after its data*: a client that is still sending does not expect
//!   a reply;
//! - nothing is allocated for a request, once the slots it may use have been used before.

use super::door::{Command, Event, Export, Limits, Slot, Violation};
use super::fields::Gather;
use super::reply::{Address, Failure, Framing};
use super::request::{Header, Terms, Verdict};
use super::spec::{self, command_flag};
use crate::base::{IoError, MapRun, RequestKind, Slab};

/// The second half of a connection's life.
#[derive(Debug)]
pub struct Transmission {
    export: Export,
    framing: Framing,
    allocation: bool,
    next: Next,
    gather: Gather,
    slots: Slab<InFlight>,
}

/// What the next byte of the stream is.
#[derive(Debug)]
enum Next {
    Header,
    /// The data of the write in `slot`, for the driver.
    Payload {
        slot: Slot,
        left: u32,
    },
    /// Data that nobody wants, and what is said to its sender afterwards.
    Skip {
        left: u64,
        answer: Answer,
    },
}

/// A reply that waits for the end of the data it answers.
#[derive(Debug, Clone, Copy)]
struct Answer {
    to: Address,
    result: Result<(), Failure>,
}

impl Answer {
    fn write(self, out: &mut Vec<u8>) {
        match self.result {
            Ok(()) => self.to.success(out),
            Err(failure) => self.to.failure(failure, out),
        }
    }
}

#[derive(Debug)]
struct InFlight {
    cookie: u64,
    offset: u64,
    len: u64,
    kind: RequestKind,
    /// Of a block status, whether one descriptor is all that is wanted.
    only_one: bool,
}

impl Transmission {
    pub fn new(limits: &Limits, export: Export, framing: Framing, allocation: bool) -> Self {
        Transmission {
            export,
            framing,
            allocation,
            next: Next::Header,
            gather: Gather::default(),
            slots: Slab::new(usize::from(limits.in_flight)),
        }
    }

    pub fn export(&self) -> Export {
        self.export
    }

    pub fn set_size(&mut self, bytes: u64) {
        self.export.size = bytes;
    }

    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    pub fn is_full(&self) -> bool {
        self.slots.is_full()
    }

    /// Gives back the memory of slots that a burst needed.
    pub fn rest(&mut self, limits: &Limits) {
        if self.slots.is_empty() {
            self.slots = Slab::new(usize::from(limits.in_flight));
        }
    }

    pub fn receive(&mut self, limits: &Limits, input: &[u8], out: &mut Vec<u8>) -> (usize, Event) {
        match self.next {
            Next::Payload { slot, left } => (0, Event::Payload { slot, left }),
            Next::Skip { .. } => self.skip(input, out),
            // Before the header is looked at, because afterwards there would be no place for it.
            Next::Header if self.slots.is_full() => (0, Event::Full),
            Next::Header => self.receive_header(limits, input, out),
        }
    }

    fn receive_header(
        &mut self,
        limits: &Limits,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> (usize, Event) {
        let (taken, header) = match self.framing {
            Framing::Extended => {
                let (taken, whole) = self.gather.take::<{ spec::EXTENDED_REQUEST_HEADER }>(input);
                (taken, whole.map(|bytes| Header::read(self.framing, &bytes)))
            }
            _ => {
                let (taken, whole) = self.gather.take::<{ spec::REQUEST_HEADER }>(input);
                (taken, whole.map(|bytes| Header::read(self.framing, &bytes)))
            }
        };
        let event = match header {
            None => Event::NeedMore,
            Some(Err(magic)) => Event::Violation(Violation::RequestMagic(magic)),
            Some(Ok(header)) => self.begin(limits, &header, out),
        };
        if !matches!(self.next, Next::Skip { .. }) || event != Event::NeedMore {
            return (taken, event);
        }
        let (skipped, event) = self.skip(&input[taken..], out);
        (taken + skipped, event)
    }

    /// Does what a request asks, or starts to. `NeedMore` where data is to be skipped.
    fn begin(&mut self, limits: &Limits, header: &Header, out: &mut Vec<u8>) -> Event {
        let terms = Terms {
            framing: self.framing,
            size: self.export.size,
            read_only: self.export.read_only,
            allocation: self.allocation,
            payload_bytes: limits.payload_bytes,
        };
        let result = match terms.judge(header) {
            Verdict::Disconnect => return Event::Disconnect,
            Verdict::Run(kind, zeroing) => {
                let slot = self.occupy(header, kind);
                if kind == RequestKind::Write {
                    let left = header.len as u32; // judged to be within a payload
                    self.next = Next::Payload { slot, left };
                }
                let (offset, len) = (header.offset, header.len);
                return Event::Command(Command {
                    slot,
                    kind,
                    offset,
                    len,
                    zeroing,
                });
            }
            Verdict::Done => Ok(()),
            Verdict::Refuse(failure) => Err(failure),
        };
        let to = self.address(header.cookie, header.offset);
        let (answer, left) = (Answer { to, result }, header.payload(self.framing));
        if left > limits.skip_bytes {
            return Event::Violation(Violation::PayloadTooLong { len: left });
        }
        if left > 0 {
            self.next = Next::Skip { left, answer };
            return Event::NeedMore;
        }
        answer.write(out);
        Event::Answered
    }

    fn skip(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Event) {
        let Next::Skip { left, answer } = &mut self.next else {
            unreachable!("only called while skipping")
        };
        let taken = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
        *left -= taken as u64;
        if *left > 0 {
            return (taken, Event::NeedMore);
        }
        answer.write(out);
        self.next = Next::Header;
        (taken, Event::Answered)
    }

    fn occupy(&mut self, header: &Header, kind: RequestKind) -> Slot {
        let command = InFlight {
            cookie: header.cookie,
            offset: header.offset,
            len: header.len,
            kind,
            only_one: header.flags & command_flag::REQ_ONE != 0,
        };
        let key = self.slots.insert(command);
        Slot(key.expect("a header is not read while the slots are full"))
    }

    /// The driver took `bytes` of the data of the write that was announced last.
    pub fn payload_taken(&mut self, bytes: u32) {
        let Next::Payload { left, .. } = &mut self.next else {
            panic!("payload was taken where none was announced");
        };
        assert!(bytes <= *left, "more payload was taken than announced");
        *left -= bytes;
        if *left == 0 {
            self.next = Next::Header;
        }
    }

    /// Writes the reply to a command, or all of it but the data, whose length is the answer.
    pub fn reply(
        &mut self,
        limits: &Limits,
        slot: Slot,
        result: Result<(), IoError>,
        map: &[MapRun],
        out: &mut Vec<u8>,
    ) -> u32 {
        let command = self.slots.remove(slot.0);
        let command = command.expect("a slot is answered once, and only while it is in flight");
        let to = self.address(command.cookie, command.offset);
        let result = result.map_err(|error| Failure::of(error, command.kind));
        match self.next {
            Next::Payload {
                slot: receiving,
                left,
            } if receiving == slot => {
                assert!(
                    result.is_err(),
                    "a write was acknowledged before its data was taken"
                );
                let (left, answer) = (u64::from(left), Answer { to, result });
                self.next = Next::Skip { left, answer };
                return 0;
            }
            _ => {}
        }
        match (result, command.kind) {
            (Err(failure), _) => to.failure(failure, out),
            (Ok(()), RequestKind::Read) => {
                let len = command.len as u32; // judged to be within a payload
                to.data(len, out);
                return len;
            }
            (Ok(()), RequestKind::Map) => {
                let most = if command.only_one {
                    1
                } else {
                    usize::from(limits.descriptors)
                };
                to.status(command.len, map, most, out);
            }
            (Ok(()), _) => to.success(out),
        }
        0
    }

    fn address(&self, cookie: u64, offset: u64) -> Address {
        Address {
            framing: self.framing,
            cookie,
            offset,
        }
    }
}
