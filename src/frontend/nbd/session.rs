//! One connection, from greeting to goodbye: handshake, then transmission, then nothing.

use super::door::{Event, Export, ExportInfo, Limits, Refusal, Slot};
use super::negotiation::{Negotiation, Outcome};
use super::reply::Framing;
use super::transmission::Transmission;
use crate::base::{IoError, MapRun};

/// The protocol half of one connection. See [`super`] for what the driver owes it.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    stage: Stage,
    /// Set once the stream has ended for us: nothing is received any more, but what is in flight
    /// is answered.
    ended: Option<Event>,
}

#[derive(Debug)]
enum Stage {
    /// Boxed, and gone after the handshake: a connection spends its life in the other stage.
    Handshake(Box<Negotiation>),
    Transmission(Transmission),
}

impl Session {
    /// A session for a client that just connected; the greeting is appended to `out`.
    ///
    /// Panics where the limits contradict themselves, which the daemon checks in its configuration.
    pub fn new(limits: Limits, out: &mut Vec<u8>) -> Session {
        check(&limits);
        Negotiation::greet(out);
        Session {
            limits,
            stage: Stage::Handshake(Box::new(Negotiation::new())),
            ended: None,
        }
    }

    /// A session that begins under TLS, behind what [`BeforeTls`](super::BeforeTls) has heard in the clear.
    pub fn secured(limits: Limits, no_zeroes: bool) -> Session {
        check(&limits);
        Session {
            limits,
            stage: Stage::Handshake(Box::new(Negotiation::secured(no_zeroes))),
            ended: None,
        }
    }

    /// A session that begins after the handshake, with simple replies: what the kernel's nbd driver speaks, which has
    /// been told everything else over netlink.
    pub fn connected(limits: Limits, export: Export) -> Session {
        check(&limits);
        Session {
            limits,
            stage: Stage::Transmission(Transmission::new(&limits, export, Framing::Simple, false)),
            ended: None,
        }
    }

    /// Takes bytes of the client's stream: how many of them, and what is to be done next. Answers
    /// that need no driver are appended to `out`. The bytes that were not taken are given again.
    pub fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Event) {
        if let Some(event) = self.ended {
            return (0, event);
        }
        let (taken, event) = match &mut self.stage {
            Stage::Handshake(handshake) => handshake.receive(&self.limits, input, out),
            Stage::Transmission(phase) => phase.receive(&self.limits, input, out),
        };
        if matches!(event, Event::Disconnect | Event::Violation(_)) {
            self.ended = Some(event);
        }
        (taken, event)
    }

    /// The name of the export that [`Event::Open`] asks for; may be empty, for whatever is the
    /// default.
    pub fn export_wanted(&self) -> &str {
        match &self.stage {
            Stage::Handshake(handshake) => handshake.export_wanted(),
            Stage::Transmission(_) => panic!("no export is looked up"),
        }
    }

    /// The answer to [`Event::Open`].
    pub fn opened(&mut self, result: Result<ExportInfo<'_>, Refusal<'_>>, out: &mut Vec<u8>) {
        let Stage::Handshake(handshake) = &mut self.stage else {
            panic!("no export is looked up");
        };
        match handshake.opened(&self.limits, result, out) {
            Outcome::GoesOn => {}
            Outcome::Attached(phase) => self.stage = Stage::Transmission(phase),
            Outcome::Ended => self.ended = Some(Event::Disconnect),
        }
    }

    /// The answer to [`Event::List`]: the name of every export.
    pub fn listed<'n>(&mut self, names: impl IntoIterator<Item = &'n str>, out: &mut Vec<u8>) {
        match &mut self.stage {
            Stage::Handshake(handshake) => handshake.listed(names, out),
            Stage::Transmission(_) => panic!("no list was asked for"),
        }
    }

    /// Says that `bytes` of what [`Event::Payload`] announced were taken from the stream.
    pub fn payload_taken(&mut self, bytes: u32) {
        self.transmission().payload_taken(bytes);
    }

    /// The answer to [`Event::Command`]. Appends the reply to `out`, and says how many bytes of
    /// data belong behind it: for a read that succeeded all that were asked for, else none. `map`
    /// is for [`RequestKind::Map`](crate::base::RequestKind::Map) and may be empty for all others.
    ///
    /// A write may be failed before its payload was taken: the rest of the payload is then skipped
    /// here.
    pub fn reply(
        &mut self,
        slot: Slot,
        result: Result<(), IoError>,
        map: &[MapRun],
        out: &mut Vec<u8>,
    ) -> u32 {
        let limits = self.limits;
        self.transmission().reply(&limits, slot, result, map, out)
    }

    /// What the connection is attached to; `None` during the handshake.
    pub fn export(&self) -> Option<Export> {
        match &self.stage {
            Stage::Handshake(_) => None,
            Stage::Transmission(phase) => Some(phase.export()),
        }
    }

    /// The volume was resized. Clients are not told, NBD having no message for it, but may use it
    /// at once.
    pub fn set_size(&mut self, bytes: u64) {
        if let Stage::Transmission(phase) = &mut self.stage {
            phase.set_size(bytes);
        }
    }

    /// How many commands are not answered yet.
    pub fn in_flight(&self) -> usize {
        match &self.stage {
            Stage::Handshake(_) => 0,
            Stage::Transmission(phase) => phase.in_flight(),
        }
    }

    /// Whether as many commands are in flight as may be, so that there is no use in receiving.
    pub fn is_full(&self) -> bool {
        match &self.stage {
            Stage::Handshake(_) => false,
            Stage::Transmission(phase) => phase.is_full(),
        }
    }

    /// Gives memory back that only a busy connection needs. For connections that have been quiet
    /// for a while.
    pub fn rest(&mut self) {
        if let Stage::Transmission(phase) = &mut self.stage {
            phase.rest(&self.limits);
        }
    }

    fn transmission(&mut self) -> &mut Transmission {
        match &mut self.stage {
            Stage::Transmission(phase) => phase,
            Stage::Handshake(_) => panic!("there are no commands during the handshake"),
        }
    }
}

fn check(limits: &Limits) {
    let payload = (4096..=1 << 30).contains(&limits.payload_bytes);
    assert!(payload, "the largest payload");
    let counts = limits.in_flight > 0 && limits.descriptors > 0;
    assert!(counts, "at least one of each");
}
