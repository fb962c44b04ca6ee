//! One NBD client's connection: what it is receiving, what it is sending, what of it waits.
//!
//! A quiet connection is this value and nothing else: buffers are picked by the kernel when there is something
//! to receive, and messages exist only while there is something to send.

use super::served::Visitor;
use crate::base::{BufId, BufRef, IoError, RequestKind, Time, VolumeId};
use crate::frontend::nbd::{Command, Session, Slot};
use crate::io::{FileNo, Message, SendNo};
use crate::observe::{Operation, VolumeStats};
use tokio::sync::oneshot;

/// What a connection receives into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiving {
    /// Nothing: it waits for something else, or has ended.
    No,
    /// Whatever comes.
    Anything,
    /// The data of the write that is announced, where it belongs.
    Payload,
}

/// The write whose data the client is sending.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming {
    pub command: Command,
    pub buf: BufId,
    /// Bytes that are there.
    pub filled: u32,
    /// When its head was read.
    pub begun: Time,
}

impl Incoming {
    pub fn left(&self) -> u32 {
        self.command.len as u32 - self.filled
    }

    /// Where the next byte goes, as bytes behind the buffer's start.
    pub fn skip(&self) -> u32 {
        (self.command.offset % crate::base::BLOCK) as u32 + self.filled
    }

    pub fn at(&self) -> BufRef {
        BufRef {
            id: self.buf,
            block: 0,
        }
    }
}

/// Why nothing more is taken from a client for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stall {
    /// As many commands are in flight as may be.
    Full,
    /// A command waits for payload memory; its head was read then.
    Memory(Command, Time),
    /// Much waits to be sent.
    Output,
}

/// A write of zeroes that must stay allocated, carried out in pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct ZeroJob {
    pub slot: Slot,
    pub at: u64,
    pub end: u64,
    /// When the work for the next piece began.
    pub begun: Time,
}

/// The replies in a message, for their times: how many there are of each kind, and when the machine gave them.
#[derive(Debug, Default)]
pub(super) struct Replies {
    list: Vec<(Operation, Time, u32)>,
}

impl Replies {
    pub fn add(&mut self, operation: Operation, now: Time) {
        // Those of one turn are the last ones, at most one a kind.
        let same = self.list.iter_mut().rev();
        let same = same.take_while(|(_, at, _)| *at == now);
        match same.into_iter().find(|(kind, ..)| *kind == operation) {
            Some((_, _, count)) => *count += 1,
            None => self.list.push((operation, now, 1)),
        }
    }

    /// Counts them as sent, and forgets them.
    pub fn sent(&mut self, now: Time, stats: &VolumeStats) {
        for (operation, at, count) in self.list.drain(..) {
            stats.sent(operation, now.since(at), count);
        }
    }

    pub fn forget(&mut self) {
        self.list.clear();
    }
}

/// How a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Serving,
    /// Nothing more is received; what is in flight is answered, then it is closed.
    Ending,
    /// The client is gone: nothing is sent, what is in flight comes back, then it is closed.
    Gone,
}

pub(super) struct Connection {
    pub file: FileNo,
    pub session: Session,
    pub life: Life,
    pub volume: Option<VolumeId>,
    /// When it was accepted.
    pub begun: Time,
    /// When something last happened.
    pub since: Time,
    pub receiving: Receiving,
    /// Whether the socket had more at the last receive.
    pub more_to_come: bool,
    pub incoming: Option<Incoming>,
    pub stall: Option<Stall>,
    /// What was received and cannot be taken yet.
    pub rest: Vec<u8>,
    pub gathered: Option<Message>,
    /// The replies in `gathered`, and in the message that is being sent.
    pub replies: Replies,
    pub sending_replies: Replies,
    pub sending: Option<SendNo>,
    /// Bytes of the message that is being sent.
    pub sending_bytes: u64,
    /// Requests of this connection that are in the machine.
    pub in_machine: u32,
    /// Whether it is on the list of those to look at, at the end of the turn.
    pub dirty: bool,
    /// Whether it is on the list of those that are not at rest.
    pub awake: bool,
    pub zero_jobs: Vec<Option<ZeroJob>>,
    /// Who it is, where it came under TLS.
    pub visitor: Option<Box<Visitor>>,
    /// Where the client is the kernel's nbd: dropped when the connection is closed, which tells the control plane.
    pub kernel: Option<oneshot::Sender<()>>,
}

impl Connection {
    pub fn new(file: FileNo, session: Session, since: Time) -> Connection {
        Connection {
            file,
            session,
            life: Life::Serving,
            volume: None,
            begun: since,
            since,
            receiving: Receiving::No,
            more_to_come: true,
            incoming: None,
            stall: None,
            rest: Vec::new(),
            gathered: None,
            replies: Replies::default(),
            sending_replies: Replies::default(),
            sending: None,
            sending_bytes: 0,
            in_machine: 0,
            dirty: false,
            awake: false,
            zero_jobs: Vec::new(),
            visitor: None,
            kernel: None,
        }
    }

    /// Whether the client must not be told of this error: the kernel sends again what it got no answer to, and its file
    /// systems see a pause where the node stops.
    pub fn hides(&self, error: IoError) -> bool {
        self.kernel.is_some() && matches!(error, IoError::Closed | IoError::Busy)
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> u64 {
        self.sending_bytes + self.gathered.as_ref().map_or(0, |m| m.len())
    }

    /// Whether it can be closed: nothing of it is anywhere else.
    pub fn is_over(&self) -> bool {
        let quiet = self.in_machine == 0
            && self.sending.is_none()
            && self.receiving == Receiving::No
            && self.zero_jobs.iter().all(Option::is_none);
        match self.life {
            Life::Serving => false,
            Life::Ending => quiet && self.gathered.is_none() && self.session.in_flight() == 0,
            Life::Gone => quiet,
        }
    }

    pub fn add_zero_job(&mut self, job: ZeroJob) -> u32 {
        let place = self.zero_jobs.iter().position(Option::is_none);
        let place = place.unwrap_or_else(|| {
            self.zero_jobs.push(None);
            self.zero_jobs.len() - 1
        });
        self.zero_jobs[place] = Some(job);
        place as u32
    }

    /// Gives back what only a busy connection needs.
    pub fn rest_now(&mut self) {
        self.session.rest();
        (self.replies, self.sending_replies) = Default::default();
        if self.rest.is_empty() {
            self.rest = Vec::new();
        }
        if self.zero_jobs.iter().all(Option::is_none) {
            self.zero_jobs = Vec::new();
        }
    }
}

/// Blocks of the buffer that a command needs; none for most kinds.
pub(super) fn blocks_of(command: &Command) -> u32 {
    use crate::base::Request;
    // The session refuses what is longer than a payload may be, so this fits.
    Request::buffer_blocks(command.kind, command.offset, command.len) as u32
}

/// Whether a command's data must come before it can be submitted.
pub(super) fn has_payload(command: &Command) -> bool {
    command.kind == RequestKind::Write
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::VolumeTotals;

    #[test]
    fn replies_of_one_turn_are_counted_together_and_sent_once() {
        let mut replies = Replies::default();
        let (first, second) = (Time(1_000), Time(2_000));
        replies.add(Operation::Read, first);
        replies.add(Operation::Write, first);
        replies.add(Operation::Read, first);
        replies.add(Operation::Read, second);
        assert_eq!(replies.list.len(), 3);
        let stats = VolumeStats::default();
        replies.sent(Time(1_000_000), &stats);
        replies.sent(Time(2_000_000), &stats);
        let mut totals = VolumeTotals::default();
        stats.add_to(Operation::Read, &mut totals);
        assert_eq!(totals.stages.map(|stage| stage.count()), [0, 0, 3]);
    }
}
