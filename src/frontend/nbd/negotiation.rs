//! The handshake: fixed newstyle, and nothing older.
//!
//! Invariants:
//! - *checked before it is kept*: nothing of an option is stored before its length was found
//!   within bounds, and then only what arrived; options whose data has no meaning to us are
//!   skipped without being stored;
//! - *one answer an option*: the client may not send the next before, so while the driver looks up
//!   an export nothing is received;
//! - metadata contexts hold for the volume they were selected for, and no other.

use super::door::{Event, Export, ExportInfo, Limits, Refusal, Violation};
use super::fields::{Fields, Gather};
use super::option::{self as options, Asked, Wanted};
use super::reply::Framing;
use super::spec::{self, option, option_reply};
use super::transmission::Transmission;
use crate::base::VolumeId;

/// The first half of a connection's life.
#[derive(Debug)]
pub struct Negotiation {
    next: Next,
    gather: Gather,
    data: Vec<u8>,
    /// Whether all of this is said under TLS.
    secured: bool,
    /// Options so far.
    seen: u32,
    no_zeroes: bool,
    framing: Framing,
    /// For which volume `base:allocation` was selected.
    allocation_of: Option<VolumeId>,
}

/// What the next byte of the stream is.
#[derive(Debug)]
enum Next {
    ClientFlags,
    OptionHeader,
    /// Data of an option that names an export.
    Data {
        option: u32,
        len: u32,
    },
    /// Data that nobody wants; afterwards the option is refused.
    Skip {
        option: u32,
        left: u32,
        answer: u32,
        text: &'static str,
    },
    /// Nothing: the driver is to answer first.
    List,
    Open(Wanted),
}

/// What the driver's answer made of the handshake.
#[derive(Debug)]
pub enum Outcome {
    GoesOn,
    Attached(Transmission),
    /// `EXPORT_NAME` cannot be told no.
    Ended,
}

impl Negotiation {
    pub fn new() -> Negotiation {
        Negotiation {
            next: Next::ClientFlags,
            gather: Gather::default(),
            data: Vec::new(),
            secured: false,
            seen: 0,
            no_zeroes: false,
            framing: Framing::Simple,
            allocation_of: None,
        }
    }

    /// Behind STARTTLS: nothing that was said before counts but the client's flags.
    pub fn secured(no_zeroes: bool) -> Negotiation {
        Negotiation {
            next: Next::OptionHeader,
            secured: true,
            no_zeroes,
            ..Negotiation::new()
        }
    }

    /// What the server says first.
    pub fn greet(out: &mut Vec<u8>) {
        out.extend(spec::INIT_MAGIC.to_be_bytes());
        out.extend(spec::OPTION_MAGIC.to_be_bytes());
        out.extend((spec::FLAG_FIXED_NEWSTYLE | spec::FLAG_NO_ZEROES).to_be_bytes());
    }

    pub fn export_wanted(&self) -> &str {
        match &self.next {
            Next::Open(wanted) => &wanted.name,
            _ => panic!("no export is looked up"),
        }
    }

    pub fn receive(&mut self, limits: &Limits, input: &[u8], out: &mut Vec<u8>) -> (usize, Event) {
        let mut taken = 0;
        loop {
            let (more, event) = self.step(limits, &input[taken..], out);
            taken += more;
            match event {
                Some(event) => return (taken, event),
                None if taken == input.len() && !self.is_whole() => {
                    return (taken, Event::NeedMore);
                }
                None => {}
            }
        }
    }

    /// Whether the next step needs no further input.
    fn is_whole(&self) -> bool {
        match &self.next {
            Next::Data { len, .. } => self.data.len() == *len as usize,
            Next::Skip { left, .. } => *left == 0,
            _ => false,
        }
    }

    fn step(&mut self, limits: &Limits, input: &[u8], out: &mut Vec<u8>) -> (usize, Option<Event>) {
        match &mut self.next {
            Next::ClientFlags => {
                let (taken, flags) = self.gather.take(input);
                (
                    taken,
                    flags.and_then(|bytes| self.on_client_flags(u32::from_be_bytes(bytes))),
                )
            }
            Next::OptionHeader => {
                let (taken, header) = self.gather.take(input);
                (
                    taken,
                    header.and_then(|bytes| self.on_option_header(limits, &bytes, out)),
                )
            }
            Next::Data { option, len } => {
                let (option, len) = (*option, *len as usize);
                let taken = input.len().min(len - self.data.len());
                self.data.extend_from_slice(&input[..taken]);
                let whole = self.data.len() == len;
                (taken, whole.then(|| self.on_option_data(option, out)))
            }
            Next::Skip {
                option,
                left,
                answer,
                text,
            } => {
                let taken = input.len().min(*left as usize);
                *left -= taken as u32;
                if *left > 0 {
                    return (taken, None);
                }
                options::refuse(*option, *answer, text, out);
                self.next = Next::OptionHeader;
                (taken, Some(Event::Answered))
            }
            Next::List | Next::Open(_) => (0, Some(Event::Waiting)),
        }
    }

    fn on_client_flags(&mut self, flags: u32) -> Option<Event> {
        let known = u32::from(spec::FLAG_FIXED_NEWSTYLE | spec::FLAG_NO_ZEROES);
        if flags & !known != 0 {
            return Some(Event::Violation(Violation::ClientFlags(flags)));
        }
        self.no_zeroes = flags & u32::from(spec::FLAG_NO_ZEROES) != 0;
        self.next = Next::OptionHeader;
        None
    }

    /// Which option this is and how long, where it may go on at all.
    fn check_header(&mut self, limits: &Limits, bytes: &[u8; 16]) -> Result<(u32, u32), Violation> {
        let mut fields = Fields(bytes);
        let mut read = || Some((fields.u64()?, fields.u32()?, fields.u32()?));
        let (magic, option, len) = read().expect("an option header of full length");
        if magic != spec::OPTION_MAGIC {
            return Err(Violation::OptionMagic(magic));
        }
        self.seen += 1;
        if self.seen > limits.options {
            return Err(Violation::TooManyOptions);
        }
        if u64::from(len) > limits.skip_bytes {
            return Err(Violation::OptionTooLong { option, len });
        }
        if option == option::EXPORT_NAME && len > limits.option_bytes {
            return Err(Violation::ExportName);
        }
        Ok((option, len))
    }

    fn on_option_header(
        &mut self,
        limits: &Limits,
        bytes: &[u8; 16],
        out: &mut Vec<u8>,
    ) -> Option<Event> {
        let (option, len) = match self.check_header(limits, bytes) {
            Ok(header) => header,
            Err(violation) => return Some(Event::Violation(violation)),
        };
        if option == option::SET_META_CONTEXT {
            self.allocation_of = None; // whatever comes of it, it replaces what was selected before
        }
        let mut skip = |answer, text| {
            self.next = Next::Skip {
                option,
                left: len,
                answer,
                text,
            };
            None
        };
        let (too_big, invalid) = (option_reply::ERR_TOO_BIG, option_reply::ERR_INVALID);
        match option {
            _ if options::names_an_export(option) => {
                if len > limits.option_bytes {
                    return skip(too_big, "the option has too much data");
                }
                self.data.clear();
                self.next = Next::Data { option, len };
                None
            }
            // The client goes whatever it is told, so data behind this one is no matter.
            option::ABORT => {
                options::ack(option, out);
                Some(Event::Disconnect)
            }
            option::LIST | option::STRUCTURED_REPLY | option::EXTENDED_HEADERS if len > 0 => {
                skip(invalid, "the option has no data")
            }
            option::LIST => {
                self.next = Next::List;
                Some(Event::List)
            }
            option::STRUCTURED_REPLY | option::EXTENDED_HEADERS => {
                self.on_framing(option, out);
                Some(Event::Answered)
            }
            option::STARTTLS if self.secured => skip(invalid, "TLS is there already"),
            option::STARTTLS => skip(option_reply::ERR_POLICY, "TLS is not set up here"),
            _ => skip(option_reply::ERR_UNSUP, "the option is not known"),
        }
    }

    fn on_framing(&mut self, option: u32, out: &mut Vec<u8>) {
        match (option, self.framing) {
            (option::EXTENDED_HEADERS, _) => self.framing = Framing::Extended,
            (_, Framing::Extended) => {
                let text = "extended headers were negotiated before";
                return options::refuse(option, option_reply::ERR_EXT_HEADER_REQD, text, out);
            }
            _ => self.framing = Framing::Structured,
        }
        options::ack(option, out);
    }

    /// The data of an option that names an export is whole.
    fn on_option_data(&mut self, option: u32, out: &mut Vec<u8>) -> Event {
        let wanted = Wanted::read(option, &self.data);
        self.data = Vec::new();
        self.next = Next::OptionHeader;
        if option == option::EXPORT_NAME && (wanted.is_err() || self.framing == Framing::Extended) {
            return Event::Violation(Violation::ExportName);
        }
        let about_contexts = [option::LIST_META_CONTEXT, option::SET_META_CONTEXT];
        let text = match wanted {
            Ok(_) if about_contexts.contains(&option) && self.framing == Framing::Simple => {
                "metadata contexts need structured replies"
            }
            Ok(wanted) => {
                let purpose = wanted.asked.purpose();
                self.next = Next::Open(wanted);
                return Event::Open(purpose);
            }
            Err(text) => text,
        };
        options::refuse(option, option_reply::ERR_INVALID, text, out);
        Event::Answered
    }

    pub fn listed<'n>(&mut self, names: impl IntoIterator<Item = &'n str>, out: &mut Vec<u8>) {
        assert!(matches!(self.next, Next::List), "no list was asked for");
        names
            .into_iter()
            .for_each(|name| options::server(name, out));
        options::ack(option::LIST, out);
        self.next = Next::OptionHeader;
    }

    pub fn opened(
        &mut self,
        limits: &Limits,
        result: Result<ExportInfo<'_>, Refusal<'_>>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Next::Open(wanted) = std::mem::replace(&mut self.next, Next::OptionHeader) else {
            panic!("no export is looked up");
        };
        match result {
            Ok(found) => self.on_found(limits, &wanted, &found, out),
            Err(_) if wanted.asked == Asked::ExportName => Outcome::Ended,
            Err(refusal) => {
                let (kind, text) = match refusal {
                    Refusal::Unknown => (option_reply::ERR_UNKNOWN, "there is no such volume"),
                    Refusal::Policy(text) => (option_reply::ERR_POLICY, text),
                    Refusal::Failed(text) => (option_reply::ERR_PLATFORM, text),
                    Refusal::ShuttingDown => (option_reply::ERR_SHUTDOWN, "the server is stopping"),
                };
                options::refuse(wanted.asked.option(), kind, text, out);
                Outcome::GoesOn
            }
        }
    }

    fn on_found(
        &mut self,
        limits: &Limits,
        wanted: &Wanted,
        found: &ExportInfo<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let option = wanted.asked.option();
        match wanted.asked {
            Asked::ExportName => {
                out.extend(found.size.to_be_bytes());
                let flags = options::transmission_flags(found.read_only, self.framing);
                out.extend(flags.to_be_bytes());
                if !self.no_zeroes {
                    out.extend([0; spec::EXPORT_NAME_PADDING]);
                }
                return self.attach(limits, found);
            }
            Asked::Info(infos) | Asked::Go(infos) => {
                options::export(wanted, infos, found, self.framing, limits, out);
            }
            Asked::ListContexts(true) => options::context(option, 0, out),
            Asked::SetContexts(true) => {
                self.allocation_of = Some(found.volume);
                options::context(option, spec::BASE_ALLOCATION_ID, out);
            }
            Asked::ListContexts(false) | Asked::SetContexts(false) => {}
        }
        options::ack(option, out);
        match wanted.asked {
            Asked::Go(_) => self.attach(limits, found),
            _ => Outcome::GoesOn,
        }
    }

    fn attach(&self, limits: &Limits, found: &ExportInfo<'_>) -> Outcome {
        let ExportInfo {
            volume,
            size,
            read_only,
            ..
        } = *found;
        let export = Export {
            volume,
            size,
            read_only,
        };
        let allocation = self.allocation_of == Some(volume);
        Outcome::Attached(Transmission::new(limits, export, self.framing, allocation))
    }
}
