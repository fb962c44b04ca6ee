//! A fuzzer with a seed: streams that are mostly valid, so that the parsers are really entered,
//! and then bent.
//!
//! `SARSEN_FUZZ_ITERATIONS` and `SARSEN_FUZZ_SEED` make it run longer or elsewhere. A stream that
//! fails is printed; kept as a file in `corpus/` it is tried first ever after, as it is and as the
//! origin of others.
//!
//! What must hold of every stream, however it is cut up, and however late the driver answers:
//! - *no panic*, and never more taken than was given;
//! - *bounded output*: what one call appends stays below what the driver's duty 8 promises;
//! - *progress*: a call that takes nothing says why;
//! - *sane commands*: inside the export, allowed, within the limits, in a slot that was free;
//! - *an end is an end*: nothing is taken afterwards;
//! - *cuts do not matter*: the same stream in other pieces has the same commands and the same
//!   answers.

use super::super::door::{Command, Event, Limits, Slot};
use super::super::session::Session;
use super::super::spec::{self, command, command_flag, option};
use super::{LIMITS, Stream, find, play, play_pieces};
use crate::base::{IoError, MapRun, Prng, RequestKind};
use std::collections::BTreeSet;

const ITERATIONS: u64 = 20_000;

#[test]
fn streams_that_are_bent_do_no_harm() {
    let number = |name: &str, otherwise| match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => otherwise,
    };
    let iterations = number("SARSEN_FUZZ_ITERATIONS", ITERATIONS);
    fuzz(number("SARSEN_FUZZ_SEED", 1), iterations);
}

#[test]
fn the_fuzzer_enters_every_part() {
    let mut prng = Prng::new(5);
    let mut seen = BTreeSet::new();
    for _ in 0..5000 {
        let stream = invent(&mut prng);
        for event in play_pieces(LIMITS, [&stream[..]]).events {
            seen.insert(
                format!("{event:?}")
                    .split([' ', '(', '{'])
                    .next()
                    .unwrap()
                    .to_owned(),
            );
            if let Event::Command(command) = event {
                seen.insert(format!("{:?}", command.kind));
            }
        }
    }
    let all = "Answered Command Discard Disconnect Flush List Map Open Payload Read Violation \
               Write WriteZeroes";
    assert_eq!(seen.into_iter().collect::<Vec<_>>().join(" "), all);
}

/// Tries the corpus, then `iterations` streams that come of `seed`.
fn fuzz(seed: u64, iterations: u64) {
    let corpus = corpus();
    assert!(!corpus.is_empty(), "the corpus is missing");
    let mut prng = Prng::new(seed);
    for stream in &corpus {
        examine(stream, &mut prng);
    }
    for _ in 0..iterations {
        let mut stream = match prng.one_in(2) {
            true => corpus[prng.below(corpus.len() as u64) as usize].clone(),
            false => invent(&mut prng),
        };
        for _ in 0..prng.below(5) {
            bend(&mut stream, &mut prng);
        }
        examine(&stream, &mut prng);
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/frontend/nbd/corpus");
    let entries = std::fs::read_dir(folder).expect("the corpus");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a stream"))
        .collect()
}

/// Prints the stream that is examined where that ends in a panic.
struct Culprit<'a>(&'a [u8]);

impl Drop for Culprit<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("this stream failed (keep it in corpus/): {digits}");
        }
    }
}

fn examine(stream: &[u8], prng: &mut Prng) {
    let _culprit = Culprit(stream);
    let whole = play(&Stream(stream.to_vec()));
    let cut = play_pieces(LIMITS, pieces(stream, prng));
    assert_eq!(cut.out, whole.out, "other answers in other pieces");
    let commands = |events: &[Event]| -> Vec<Event> {
        events
            .iter()
            .copied()
            .filter(|event| matches!(event, Event::Command(_)))
            .collect()
    };
    assert_eq!(
        commands(&cut.events),
        commands(&whole.events),
        "other commands in other pieces"
    );
    Late::new().drive(stream, prng);
}

fn pieces<'a>(stream: &'a [u8], prng: &mut Prng) -> Vec<&'a [u8]> {
    let (mut pieces, mut rest) = (Vec::new(), stream);
    let longest = 1 + prng.below(80);
    while !rest.is_empty() {
        let len = (1 + prng.below(longest)).min(rest.len() as u64) as usize;
        pieces.push(&rest[..len]);
        rest = &rest[len..];
    }
    pieces
}

/// A driver that answers late, in any order, and not always well.
struct Late {
    session: Session,
    out: Vec<u8>,
    /// Commands without an answer, and of writes whether their data is still on its way.
    pending: Vec<Command>,
    receiving: Option<Slot>,
}

impl Late {
    fn new() -> Late {
        let mut out = Vec::new();
        let session = Session::new(LIMITS, &mut out);
        Late {
            session,
            out,
            pending: Vec::new(),
            receiving: None,
        }
    }

    fn drive(&mut self, stream: &[u8], prng: &mut Prng) {
        let mut input = Vec::new();
        for piece in pieces(stream, prng) {
            input.extend_from_slice(piece);
            loop {
                self.out.clear();
                let (taken, event) = self.session.receive(&input, &mut self.out);
                assert!(
                    self.out.len() < 256,
                    "one call appended {} bytes",
                    self.out.len()
                );
                input.drain(..taken);
                if !self.carry_out(event, taken, &mut input, prng) {
                    break;
                }
                assert_eq!(self.session.in_flight(), self.pending.len());
            }
        }
        while !self.pending.is_empty() {
            self.answer_one(prng);
        }
        assert_eq!(self.session.in_flight(), 0, "every command was answered");
    }

    /// Whether to receive on before more input has come.
    fn carry_out(
        &mut self,
        event: Event,
        taken: usize,
        input: &mut Vec<u8>,
        prng: &mut Prng,
    ) -> bool {
        match event {
            Event::NeedMore => {
                assert!(input.is_empty(), "asks for more with input left");
                return false;
            }
            Event::Answered => assert!(taken > 0, "answered nothing"),
            Event::Open(_) => {
                assert!(taken > 0, "asked twice");
                let name = self.session.export_wanted().to_owned();
                self.session.opened(find(&name), &mut self.out);
                assert!(self.out.len() < 10 << 10);
            }
            Event::List => self.session.listed(["disk"], &mut self.out),
            Event::Waiting => panic!("nothing is waited for"),
            Event::Command(command) => {
                assert!(taken > 0, "a command out of nothing");
                self.on_command(command);
            }
            Event::Payload { slot, left } => {
                assert_eq!((taken, Some(slot)), (0, self.receiving));
                return self.on_payload(slot, left, input, prng);
            }
            Event::Full => {
                assert_eq!(
                    (taken, self.pending.len()),
                    (0, usize::from(LIMITS.in_flight))
                );
                self.answer_one(prng);
            }
            Event::Disconnect | Event::Violation(_) => {
                assert_eq!(self.session.receive(input, &mut self.out), (0, event));
                input.clear();
                return false;
            }
        }
        if prng.one_in(8) && !self.pending.is_empty() {
            self.answer_one(prng);
        }
        true
    }

    fn on_command(&mut self, command: Command) {
        let export = self.session.export().expect("attached");
        assert!(
            command
                .offset
                .checked_add(command.len)
                .is_some_and(|end| end <= export.size)
        );
        assert!(
            self.pending.iter().all(|other| other.slot != command.slot),
            "a slot used twice"
        );
        assert_eq!(command.len == 0, command.kind == RequestKind::Flush);
        if matches!(command.kind, RequestKind::Read | RequestKind::Write) {
            assert!(command.len <= u64::from(LIMITS.payload_bytes));
        }
        if export.read_only {
            assert!(matches!(
                command.kind,
                RequestKind::Read | RequestKind::Flush | RequestKind::Map
            ));
        }
        if command.kind == RequestKind::Write {
            self.receiving = Some(command.slot);
        }
        self.pending.push(command);
    }

    fn on_payload(&mut self, slot: Slot, left: u32, input: &mut Vec<u8>, prng: &mut Prng) -> bool {
        if prng.one_in(10) {
            let at = self
                .pending
                .iter()
                .position(|c| c.slot == slot)
                .expect("announced");
            self.pending.remove(at);
            self.receiving = None;
            assert_eq!(
                self.session
                    .reply(slot, Err(IoError::Busy), &[], &mut self.out),
                0
            );
            return true;
        }
        let taken = input.len().min(left as usize);
        if taken == 0 {
            return false;
        }
        input.drain(..taken);
        self.session.payload_taken(taken as u32);
        if taken == left as usize {
            self.receiving = None;
        }
        true
    }

    fn answer_one(&mut self, prng: &mut Prng) {
        let at = prng.below(self.pending.len() as u64) as usize;
        let command = self.pending.swap_remove(at);
        let mut result = match prng.below(8) {
            0 => Err(IoError::Failed),
            1 => Err(IoError::NoSpace),
            2 => Err(IoError::OutOfRange),
            _ => Ok(()),
        };
        if self.receiving == Some(command.slot) {
            self.receiving = None;
            result = Err(IoError::Closed);
        }
        let runs = prng.below(20) as usize;
        let map: Vec<MapRun> = (0..runs)
            .map(|_| MapRun {
                len: prng.next_u64() >> prng.below(64),
                zero: prng.one_in(2),
                hole: prng.one_in(2),
            })
            .collect();
        self.out.clear();
        let data = self
            .session
            .reply(command.slot, result, &map, &mut self.out);
        let has_data = command.kind == RequestKind::Read && result.is_ok();
        assert_eq!(u64::from(data), if has_data { command.len } else { 0 });
        assert!(self.out.len() <= 40 + 16 * usize::from(LIMITS.descriptors).max(4));
    }
}

/// A stream that is valid nearly everywhere.
fn invent(prng: &mut Prng) -> Vec<u8> {
    let mut stream = Stream::new();
    let extended = prng.one_in(3);
    let name = ["disk", "disk", "frozen", "big", "vast", "busy"][prng.below(6) as usize];
    if extended {
        stream = stream.extended();
    } else if prng.one_in(2) {
        stream = stream.structured();
    }
    for _ in 0..prng.below(3) {
        stream = match prng.below(6) {
            0 => stream.option(option::LIST, &[]),
            1 => stream.option(option::STARTTLS, &[]),
            2 => stream.contexts(option::LIST_META_CONTEXT, name, &["base:"]),
            3 => stream.option(prng.below(20) as u32, b"anything"),
            4 => stream.go("busy"),
            _ => stream.allocation_of(name),
        };
    }
    stream = match prng.below(8) {
        0 if !extended => stream.option(option::EXPORT_NAME, name.as_bytes()),
        1 => stream.option(option::ABORT, &[]),
        _ => stream.allocation_of(name).go(name),
    };
    for cookie in 0..prng.below(12) {
        stream = ask(stream, extended, cookie, prng);
    }
    stream.0
}

fn ask(stream: Stream, extended: bool, cookie: u64, prng: &mut Prng) -> Stream {
    let kind = match prng.one_in(20) {
        true => prng.below(12) as u16,
        false => [0, 0, 1, 1, 1, 3, 4, 5, 6, 7][prng.below(10) as usize],
    };
    let mut flags = match prng.below(4) {
        0 => 1 << prng.below(7),
        _ => 0,
    };
    if extended && kind == command::WRITE {
        flags |= command_flag::PAYLOAD_LEN;
    }
    let (offset, len) = match kind {
        command::FLUSH => (0, 0),
        _ if prng.one_in(10) => (prng.next_u64() >> prng.below(64), prng.below(300)),
        _ => (prng.below(1 << 20), prng.below(300)),
    };
    let stream = match extended {
        true => stream.ask_ext(kind, flags, cookie, offset, len),
        false => stream.ask(kind, flags, cookie, offset, len as u32),
    };
    match kind == command::WRITE || (extended && flags & command_flag::PAYLOAD_LEN != 0) {
        true => stream.bytes(&vec![b'p'; len as usize]),
        false => stream,
    }
}

/// Changes a stream in one place.
fn bend(stream: &mut Vec<u8>, prng: &mut Prng) {
    if stream.is_empty() {
        return;
    }
    let at = prng.below(stream.len() as u64) as usize;
    let len = (prng.below(40) as usize).min(stream.len() - at);
    match prng.below(7) {
        0 => stream[at] ^= 1 << prng.below(8),
        1 => stream[at] = prng.next_u64() as u8,
        2 => overwrite(stream, at, prng),
        3 => drop(stream.drain(at..at + len)),
        4 => {
            let copy = stream[at..at + len].to_vec();
            stream.splice(at..at, copy);
        }
        5 => {
            let mut noise = vec![0; len];
            prng.fill(&mut noise);
            stream.splice(at..at, noise);
        }
        _ => stream.truncate(at),
    }
}

/// Puts a number that is a bound of something over 2, 4 or 8 bytes.
fn overwrite(stream: &mut [u8], at: usize, prng: &mut Prng) {
    let Limits {
        option_bytes,
        payload_bytes,
        skip_bytes,
        ..
    } = LIMITS;
    let bounds = [
        0,
        1,
        u64::MAX,
        i64::MAX as u64,
        u64::from(u32::MAX),
        spec::STRING_MAX as u64,
        u64::from(option_bytes),
        u64::from(payload_bytes),
        skip_bytes,
        super::SIZE,
        spec::OPTION_MAGIC,
    ];
    let bound = bounds[prng.below(bounds.len() as u64) as usize];
    let number = bound
        .wrapping_add(prng.below(3))
        .wrapping_sub(1)
        .to_be_bytes();
    let width = [2, 4, 8][prng.below(3) as usize].min(stream.len() - at);
    stream[at..at + width].copy_from_slice(&number[8 - width..]);
}
