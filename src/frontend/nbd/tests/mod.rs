//! A client that only writes down what it would send, and a driver that answers at once: what the
//! tests of this room are played with.

mod before_tls;
mod fuzz;
mod handshake;
mod transmission;

use super::door::{Event, ExportInfo, Limits, Purpose, Refusal};
use super::session::Session;
use super::spec;
use crate::base::{MapRun, RequestKind, VolumeId};

/// Small enough that a test reaches every bound.
const LIMITS: Limits = Limits {
    option_bytes: 8192,
    options: 64,
    payload_bytes: 64 << 10,
    skip_bytes: 128 << 10,
    in_flight: 4,
    descriptors: 8,
};

const SIZE: u64 = 1 << 30;

/// Bytes as people write them: hexadecimal, with blanks wherever they help.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

/// What a client sends.
#[derive(Debug, Clone, Default)]
struct Stream(Vec<u8>);

impl Stream {
    /// A client that confirms both handshake flags.
    fn new() -> Stream {
        Stream(hex("00000003"))
    }

    fn raw(mut self, text: &str) -> Stream {
        self.0.extend(hex(text));
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Stream {
        self.0.extend(bytes);
        self
    }

    fn option(mut self, option: u32, data: &[u8]) -> Stream {
        self.0.extend(spec::OPTION_MAGIC.to_be_bytes());
        self.0.extend(option.to_be_bytes());
        self.0.extend((data.len() as u32).to_be_bytes());
        self.0.extend(data);
        self
    }

    fn go(self, name: &str) -> Stream {
        self.option(spec::option::GO, &[&name_of(name)[..], &[0, 0]].concat())
    }

    fn structured(self) -> Stream {
        self.option(spec::option::STRUCTURED_REPLY, &[])
    }

    fn extended(self) -> Stream {
        self.option(spec::option::EXTENDED_HEADERS, &[])
    }

    fn contexts(self, option: u32, name: &str, queries: &[&str]) -> Stream {
        let mut data = name_of(name);
        data.extend((queries.len() as u32).to_be_bytes());
        queries.iter().for_each(|query| data.extend(name_of(query)));
        self.option(option, &data)
    }

    fn allocation_of(self, name: &str) -> Stream {
        self.contexts(spec::option::SET_META_CONTEXT, name, &["base:allocation"])
    }

    /// A request with the compact header. Its cookie is its number.
    fn ask(mut self, command: u16, flags: u16, cookie: u64, offset: u64, len: u32) -> Stream {
        self.0.extend(spec::REQUEST_MAGIC.to_be_bytes());
        self.0.extend(flags.to_be_bytes());
        self.0.extend(command.to_be_bytes());
        self.0.extend(cookie.to_be_bytes());
        self.0.extend(offset.to_be_bytes());
        self.0.extend(len.to_be_bytes());
        self
    }

    /// A request with the extended header.
    fn ask_ext(mut self, command: u16, flags: u16, cookie: u64, offset: u64, len: u64) -> Stream {
        self.0.extend(spec::EXTENDED_REQUEST_MAGIC.to_be_bytes());
        self.0.extend(flags.to_be_bytes());
        self.0.extend(command.to_be_bytes());
        self.0.extend(cookie.to_be_bytes());
        self.0.extend(offset.to_be_bytes());
        self.0.extend(len.to_be_bytes());
        self
    }
}

/// A length of 32 bits and a text.
fn name_of(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

/// What came of a stream.
#[derive(Debug)]
struct Played {
    session: Session,
    /// Without `NeedMore`, and `Payload` only where a write begins.
    events: Vec<Event>,
    /// Everything the client gets, greeting included. Data of reads is `d`.
    out: Vec<u8>,
    /// What was not taken.
    left: Vec<u8>,
}

/// The exports there are.
fn find(name: &str) -> Result<ExportInfo<'static>, Refusal<'static>> {
    let disk = ExportInfo {
        volume: VolumeId(7),
        size: SIZE,
        block_size: 512,
        read_only: false,
        description: "a disk",
    };
    match name {
        "" | "disk" => Ok(disk),
        "big" => Ok(ExportInfo {
            volume: VolumeId(8),
            block_size: 4096,
            description: "",
            ..disk
        }),
        "frozen" => Ok(ExportInfo {
            volume: VolumeId(9),
            read_only: true,
            ..disk
        }),
        "vast" => Ok(ExportInfo {
            volume: VolumeId(10),
            size: 1 << 50,
            ..disk
        }),
        "busy" => Err(Refusal::Policy("attached at node 3")),
        "broken" => Err(Refusal::Failed("the disk is gone")),
        "late" => Err(Refusal::ShuttingDown),
        _ => Err(Refusal::Unknown),
    }
}

/// Plays a stream that arrives in the given pieces; every command succeeds at once.
fn play_pieces<'a>(limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Played {
    let mut out = Vec::new();
    let session = Session::new(limits, &mut out);
    let mut played = Played {
        session,
        events: Vec::new(),
        out,
        left: Vec::new(),
    };
    for piece in pieces {
        played.left.extend(piece);
        played.go_on();
    }
    played
}

fn play(stream: &Stream) -> Played {
    play_pieces(LIMITS, [&stream.0[..]])
}

impl Played {
    /// Receives until there is nothing left to do.
    fn go_on(&mut self) {
        loop {
            let (taken, event) = self.session.receive(&self.left, &mut self.out);
            assert!(taken <= self.left.len(), "took what was not given");
            self.left.drain(..taken);
            if event == Event::NeedMore {
                assert!(self.left.is_empty(), "asks for more with input left");
                return;
            }
            let known = self.events.last() == Some(&event);
            if !(known && matches!(event, Event::Disconnect | Event::Violation(_))) {
                self.record(event);
            }
            if !self.carry_out(event) {
                return;
            }
        }
    }

    fn record(&mut self, event: Event) {
        let goes_on = |last: &Event| match (last, event) {
            (Event::Payload { slot: a, .. }, Event::Payload { slot: b, .. }) => *a == b,
            _ => false,
        };
        if !self.events.last().is_some_and(goes_on) {
            self.events.push(event);
        }
    }

    /// Whether to receive on.
    fn carry_out(&mut self, event: Event) -> bool {
        match event {
            Event::Open(purpose) => {
                let name = self.session.export_wanted().to_owned();
                assert_eq!(
                    self.session.receive(b"xyz", &mut self.out),
                    (0, Event::Waiting)
                );
                self.session.opened(find(&name), &mut self.out);
                let attached = find(&name).is_ok() && purpose == Purpose::Attach;
                assert_eq!(self.session.export().is_some(), attached);
            }
            Event::List => self.session.listed(["disk", "frozen"], &mut self.out),
            Event::Command(command) => {
                if command.kind != RequestKind::Write {
                    let half = MapRun {
                        len: command.len / 2,
                        zero: false,
                        hole: false,
                    };
                    let rest = MapRun {
                        len: command.len - half.len,
                        zero: true,
                        hole: true,
                    };
                    let map = [half, rest];
                    let len = self
                        .session
                        .reply(command.slot, Ok(()), &map, &mut self.out);
                    self.out.extend(std::iter::repeat_n(b'd', len as usize));
                }
            }
            Event::Payload { slot, left } => {
                let taken = self.left.len().min(left as usize);
                self.left.drain(..taken);
                self.session.payload_taken(taken as u32);
                if taken < left as usize {
                    return false;
                }
                assert_eq!(self.session.reply(slot, Ok(()), &[], &mut self.out), 0);
            }
            Event::Answered => {}
            Event::NeedMore | Event::Waiting | Event::Full => return false,
            Event::Disconnect | Event::Violation(_) => return false,
        }
        true
    }

    /// What the client gets after the greeting.
    fn answer(&self) -> &[u8] {
        &self.out[18..]
    }
}
