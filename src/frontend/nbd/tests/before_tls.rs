//! What is said before TLS, and that nothing of it counts afterwards.

use super::super::before_tls::{BeforeTls, Clear};
use super::super::door::{Event, Violation};
use super::super::session::Session;
use super::super::spec::{option, option_reply};
use super::{LIMITS, Stream};
use crate::base::Prng;

/// Plays a stream as a driver does that never reads more than is wanted: what it came to, how many bytes were taken, and all that was answered.
fn play(stream: &Stream) -> (Clear, usize, Vec<u8>) {
    let (mut out, mut taken) = (Vec::new(), 0);
    let mut clear = BeforeTls::new(&mut out);
    loop {
        let wants = clear.wants();
        assert!(wants > 0);
        let Some(bytes) = stream.0.get(taken..taken + wants) else {
            return (Clear::More, taken, out);
        };
        taken += wants;
        match clear.receive(&LIMITS, bytes, &mut out) {
            Clear::More => {}
            end => return (end, taken, out),
        }
    }
}

fn has(out: &[u8], option: u32, kind: u32) -> bool {
    let reply = [option.to_be_bytes(), kind.to_be_bytes()].concat();
    out.windows(8).any(|bytes| bytes == reply)
}

#[test]
fn what_comes_before_tls_is_told_that_it_is_required() {
    let stream = Stream::new()
        .structured()
        .go("disk")
        .option(option::LIST, &[])
        .option(option::INFO, b"whatever it is")
        .option(77, &[7; 100])
        .option(option::STARTTLS, b"?")
        .option(option::STARTTLS, &[]);
    let (end, taken, out) = play(&stream);
    assert_eq!((end, taken), (Clear::StartTls, stream.0.len()));
    for refused in [
        option::STRUCTURED_REPLY,
        option::GO,
        option::LIST,
        option::INFO,
        77,
    ] {
        assert!(has(&out, refused, option_reply::ERR_TLS_REQD), "{refused}");
    }
    assert!(has(&out, option::STARTTLS, option_reply::ERR_INVALID));
    assert!(
        out.ends_with(&[0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0]),
        "the last is acknowledged"
    );
}

#[test]
fn what_was_slipped_in_behind_starttls_is_not_taken() {
    let clear = Stream::new().option(option::STARTTLS, &[]);
    let with_more = clear.clone().structured().go("disk");
    let (end, taken, _) = play(&with_more);
    assert_eq!((end, taken), (Clear::StartTls, clear.0.len()));
}

#[test]
fn who_may_not_go_on_is_cut_off() {
    let magic = Stream::new().bytes(&[0; 16]);
    assert_eq!(play(&magic).0, Clear::Violation(Violation::OptionMagic(0)));
    let flags = Stream(vec![0, 0, 0, 4]);
    assert_eq!(play(&flags).0, Clear::Violation(Violation::ClientFlags(4)));
    let old = Stream::new().option(option::EXPORT_NAME, b"disk");
    assert_eq!(play(&old).0, Clear::Violation(Violation::NeedsTls));
    let mut many = Stream::new();
    for _ in 0..100 {
        many = many.structured();
    }
    assert_eq!(play(&many).0, Clear::Violation(Violation::TooManyOptions));
    let long = Stream::new().option(77, &vec![0; 9000]);
    let (option, len) = (77, 9000);
    assert_eq!(
        play(&long).0,
        Clear::Violation(Violation::OptionTooLong { option, len })
    );
    let gone = Stream::new().option(option::ABORT, &[]);
    assert_eq!(play(&gone).0, Clear::Ended);
}

#[test]
fn any_bytes_come_to_an_end_without_much_being_said() {
    for seed in 0..2_000 {
        let mut prng = Prng::new(seed);
        let mut stream = Stream::new();
        for _ in 0..prng.below(40) {
            stream = match prng.below(4) {
                0 => stream.option(prng.below(12) as u32, &vec![1; prng.below(300) as usize]),
                1 => stream.bytes(&[prng.below(256) as u8]),
                2 => stream.option(option::STARTTLS, &[0][..prng.below(2) as usize]),
                _ => stream.structured(),
            };
        }
        let (_, taken, out) = play(&stream);
        assert!(
            taken <= stream.0.len() && out.len() < 64 * 256,
            "seed {seed}"
        );
    }
}

#[test]
fn a_secured_session_begins_anew_and_has_tls_already() {
    let mut out = Vec::new();
    let mut session = Session::secured(LIMITS, true);
    let again = Stream(Vec::new()).option(option::STARTTLS, &[]);
    let (taken, event) = session.receive(&again.0, &mut out);
    assert_eq!((taken, event), (again.0.len(), Event::Answered));
    assert!(has(&out, option::STARTTLS, option_reply::ERR_INVALID));
    // Structured replies were asked for in the clear, perhaps: contexts need them anew.
    out.clear();
    let contexts = Stream(Vec::new()).allocation_of("disk");
    let (_, event) = session.receive(&contexts.0, &mut out);
    assert_eq!(event, Event::Answered);
    assert!(has(
        &out,
        option::SET_META_CONTEXT,
        option_reply::ERR_INVALID
    ));
}
