//! Requests and replies as bytes, and what is refused.

use super::super::door::{Command, Event, Limits, Slot, Violation, Zeroing};
use super::super::session::Session;
use super::super::spec::{command, command_flag as flag, option};
use super::{LIMITS, Played, SIZE, Stream, hex, play, play_pieces};
use crate::base::{IoError, MapRun, RequestKind};

/// What comes after the handshake, which ends with the acknowledgement of `GO`.
fn replies(played: &Played) -> &[u8] {
    let ack = hex("0003e889045565a9 00000007 00000001 00000000");
    let out = played.answer();
    let at = out
        .windows(ack.len())
        .position(|part| part == ack)
        .expect("attached");
    &out[at + ack.len()..]
}

fn simple() -> Stream {
    Stream::new().go("disk")
}

fn structured() -> Stream {
    Stream::new().structured().allocation_of("disk").go("disk")
}

fn extended(name: &str) -> Stream {
    Stream::new().extended().allocation_of(name).go(name)
}

/// The commands that the driver was given, without their slots.
fn commands(played: &Played) -> Vec<(RequestKind, u64, u64)> {
    let command = |event: &Event| match event {
        Event::Command(command) => Some((command.kind, command.offset, command.len)),
        _ => None,
    };
    played.events.iter().filter_map(command).collect()
}

/// The error number in the one simple reply that a request gets.
fn simple_errno(stream: Stream) -> u32 {
    let played = play(&stream);
    let reply = replies(&played);
    assert_eq!((&reply[..4], reply.len()), (&hex("67446698")[..], 16));
    assert_eq!(played.left, b"", "the connection was kept");
    assert!(!matches!(played.events.last(), Some(Event::Violation(_))));
    u32::from_be_bytes(reply[4..8].try_into().unwrap())
}

/// A driver that attached `name` and answers when the test says so.
fn attached(stream: Stream) -> (Session, Vec<u8>) {
    let played = play(&stream);
    assert!(played.session.export().is_some());
    (played.session, Vec::new())
}

#[test]
fn simple_replies_carry_cookie_and_data() {
    let stream = Stream::new()
        .go("disk")
        .raw("25609513 0000 0000 00000000000000aa 0000000000000003 00000004") // read
        .raw("25609513 0001 0001 00000000000000bb 0000000000000200 00000003 646464") // write, FUA
        .raw("25609513 0000 0003 00000000000000cc 0000000000000000 00000000") // flush
        .raw("25609513 0000 0002 00000000000000dd 0000000000000000 00000000"); // disconnect
    let played = play(&stream);
    let want = "67446698 00000000 00000000000000aa 64646464
                67446698 00000000 00000000000000bb
                67446698 00000000 00000000000000cc";
    assert_eq!(replies(&played), hex(want));
    let kinds = [RequestKind::Read, RequestKind::Write, RequestKind::Flush];
    let ranges = [(3, 4), (512, 3), (0, 0)];
    let want: Vec<_> = kinds
        .into_iter()
        .zip(ranges)
        .map(|(k, (o, l))| (k, o, l))
        .collect();
    assert_eq!(commands(&played), want);
    assert_eq!(played.events.last(), Some(&Event::Disconnect));
}

#[test]
fn structured_replies_are_one_chunk_each() {
    let stream = structured()
        .ask(command::READ, flag::DF, 0xaa, 0x1000, 2)
        .ask(command::WRITE, 0, 0xbb, 0, 1)
        .raw("64")
        .ask(command::BLOCK_STATUS, 0, 0xcc, 0, 0x2000)
        .ask(command::BLOCK_STATUS, flag::REQ_ONE, 0xdd, 0, 0x2000)
        .ask(command::READ, 0, 0xee, SIZE, 1);
    let want = "668e33ef 0001 0001 00000000000000aa 0000000a 0000000000001000 6464
                668e33ef 0001 0000 00000000000000bb 00000000
                668e33ef 0001 0005 00000000000000cc 00000014 00000001
                                    00001000 00000000 00001000 00000003
                668e33ef 0001 0005 00000000000000dd 0000000c 00000001 00001000 00000000
                668e33ef 0001 8001 00000000000000ee 00000020 00000016 001a";
    let want = [&hex(want)[..], b"past the end of the export"].concat();
    let played = play(&stream);
    assert_eq!(replies(&played).len(), want.len());
    assert_eq!(replies(&played), want);
}

#[test]
fn extended_headers_carry_64_bits() {
    let stream = extended("vast")
        .raw("21e41c71 0000 0000 00000000000000aa 0002000000000000 0000000000000002") // read
        .raw("21e41c71 0020 0001 00000000000000bb 0000000000000008 0000000000000001 64") // write
        .raw("21e41c71 0000 0007 00000000000000cc 0000000000000000 0004000000000000") // status
        .raw("21e41c71 0000 0006 00000000000000dd 0000000000000000 0004000000000000"); // zeroes
    let want = "6e8a278c 0001 0001 00000000000000aa 0002000000000000 000000000000000a
                         0002000000000000 6464
                6e8a278c 0001 0000 00000000000000bb 0000000000000008 0000000000000000
                6e8a278c 0001 0006 00000000000000cc 0000000000000000 0000000000000028
                         00000001 00000002 0002000000000000 0000000000000000
                                           0002000000000000 0000000000000003
                6e8a278c 0001 0000 00000000000000dd 0000000000000000 0000000000000000";
    let played = play(&stream);
    assert_eq!(replies(&played), hex(want));
    assert_eq!(commands(&played)[3], (RequestKind::WriteZeroes, 0, 1 << 50));
}

#[test]
fn trim_and_write_zeroes_are_passed_on_whatever_their_length() {
    let stream = simple()
        .ask(command::TRIM, flag::FUA, 1, 1, SIZE as u32 - 1)
        .ask(command::WRITE_ZEROES, flag::FAST_ZERO, 2, 0, SIZE as u32)
        .ask(command::WRITE_ZEROES, flag::NO_HOLE, 3, 0, 512);
    let events = play(&stream).events;
    let command = |kind, offset, len, zeroing| {
        Event::Command(Command {
            slot: Slot(0),
            kind,
            offset,
            len,
            zeroing,
        })
    };
    let want = [
        command(RequestKind::Discard, 1, SIZE - 1, Zeroing::MayPunch),
        command(RequestKind::WriteZeroes, 0, SIZE, Zeroing::MayPunch),
        command(RequestKind::WriteZeroes, 0, 512, Zeroing::KeepAllocated),
    ];
    assert_eq!(events[1..], want);
}

#[test]
fn what_needs_no_driver_is_answered_at_once() {
    let stream = simple()
        .ask(command::CACHE, 0, 1, 0, 1 << 20)
        .ask(command::READ, 0, 2, SIZE, 0)
        .ask(command::WRITE, flag::FUA, 3, 0, 0)
        .ask(command::TRIM, 0, 4, 0, 0)
        .ask(command::WRITE_ZEROES, 0, 5, 0, 0);
    let played = play(&stream);
    assert_eq!(commands(&played), []);
    let want: String = (1..=5)
        .map(|cookie| format!("67446698 00000000 {cookie:016x}"))
        .collect();
    assert_eq!(replies(&played), hex(&want));
}

#[test]
fn a_read_of_nothing_has_no_data_chunk() {
    let played = play(&structured().ask(command::READ, 0, 1, 0, 0));
    assert_eq!(
        replies(&played),
        hex("668e33ef 0001 0000 0000000000000001 00000000")
    );
}

#[test]
fn a_range_past_the_end_is_refused_by_kind() {
    let (invalid, no_space) = (22, 28);
    for (kind, errno) in [
        (command::READ, invalid),
        (command::TRIM, invalid),
        (command::CACHE, invalid),
        (command::WRITE_ZEROES, no_space),
    ] {
        assert_eq!(simple_errno(simple().ask(kind, 0, 1, SIZE - 1, 2)), errno);
        assert_eq!(simple_errno(simple().ask(kind, 0, 1, u64::MAX, 2)), errno);
        assert_eq!(simple_errno(simple().ask(kind, 0, 1, SIZE + 1, 0)), errno);
    }
    assert_eq!(
        simple_errno(simple().ask(command::WRITE, 0, 1, SIZE - 1, 2).raw("abcd")),
        no_space
    );
}

#[test]
fn what_is_not_known_is_invalid_and_the_connection_is_kept() {
    let invalid = 22;
    for stream in [
        simple().ask(99, 0, 1, 0, 1 << 31),
        simple().ask(command::READ, 1 << 9, 1, 0, 1),
        simple().ask(command::READ, flag::DF, 1, 0, 1), // without structured replies
        simple().ask(command::READ, flag::NO_HOLE, 1, 0, 1),
        simple().ask(command::TRIM, flag::FAST_ZERO, 1, 0, 1),
        simple().ask(command::FLUSH, 0, 1, 1, 0),
        simple().ask(command::FLUSH, 0, 1, 0, 1),
        simple().ask(command::BLOCK_STATUS, 0, 1, 0, 1), // without a context
        simple().ask(command::READ, 0, 1, 0, LIMITS.payload_bytes + 1),
        simple()
            .ask(command::WRITE, flag::PAYLOAD_LEN, 1, 0, 2)
            .raw("abcd"),
        simple()
            .ask(command::WRITE, 0, 1, 0, 65537)
            .bytes(&[0; 65537]),
    ] {
        assert_eq!(simple_errno(stream), invalid);
    }
    let not_supported = 95;
    let flags = flag::NO_HOLE | flag::FAST_ZERO;
    assert_eq!(
        simple_errno(simple().ask(command::WRITE_ZEROES, flags, 1, 0, 1)),
        not_supported
    );
}

#[test]
fn a_read_only_export_takes_no_writes() {
    let frozen = || Stream::new().go("frozen");
    let not_permitted = 1;
    assert_eq!(
        simple_errno(frozen().ask(command::WRITE, 0, 1, 0, 2).raw("abcd")),
        not_permitted
    );
    assert_eq!(
        simple_errno(frozen().ask(command::TRIM, 0, 1, 0, 2)),
        not_permitted
    );
    assert_eq!(
        simple_errno(frozen().ask(command::WRITE_ZEROES, 0, 1, 0, 2)),
        not_permitted
    );
    assert_eq!(
        commands(&play(&frozen().ask(command::READ, 0, 1, 0, 2))).len(),
        1
    );
}

#[test]
fn extended_payloads_nobody_asked_for_are_skipped() {
    let payload = flag::PAYLOAD_LEN;
    let stream = extended("disk")
        .ask_ext(command::BLOCK_STATUS, payload, 1, 0, 3)
        .raw("aabbcc")
        .ask_ext(command::READ, payload, 2, 0, 1)
        .raw("aa")
        .ask_ext(99, payload, 3, 0, 2)
        .raw("aabb")
        .ask_ext(command::WRITE, 0, 4, 0, 5) // says itself that no payload follows
        .ask_ext(command::FLUSH, 0, 5, 0, 0);
    let played = play(&stream);
    assert_eq!(commands(&played), [(RequestKind::Flush, 0, 0)]);
    let answered = |event: &&Event| **event == Event::Answered;
    assert_eq!(played.events.iter().filter(answered).count(), 1 + 4); // one to EXTENDED_HEADERS
}

#[test]
fn contexts_hold_for_the_volume_they_were_selected_for() {
    let status = |stream: Stream| {
        let played = play(&stream.ask(command::BLOCK_STATUS, 0, 1, 0, 512));
        commands(&played).len()
    };
    let begin = || Stream::new().structured();
    assert_eq!(status(begin().allocation_of("disk").go("disk")), 1);
    assert_eq!(status(begin().allocation_of("disk").go("big")), 0);
    let none = |stream: Stream| stream.contexts(option::SET_META_CONTEXT, "disk", &[]);
    assert_eq!(status(none(begin().allocation_of("disk")).go("disk")), 0);
    let failed = begin().allocation_of("disk").allocation_of("nowhere");
    assert_eq!(status(failed.go("disk")), 0);
    let too_big = begin()
        .allocation_of("disk")
        .option(option::SET_META_CONTEXT, &[0; 8193]);
    assert_eq!(status(too_big.go("disk")), 0);
    assert_eq!(status(begin().go("disk")), 0);
}

#[test]
fn a_write_too_long_to_be_skipped_is_cut_off() {
    let len = LIMITS.skip_bytes + 1;
    let played = play(&simple().ask(command::WRITE, 0, 1, 0, len as u32));
    let violation = Event::Violation(Violation::PayloadTooLong { len });
    assert_eq!(played.events.last(), Some(&violation));
    assert!(replies(&played).is_empty());
}

#[test]
fn a_wrong_magic_is_cut_off() {
    for stream in [
        simple().raw("67446698 0000 0000 00000000000000aa 0000000000000003 00000004"),
        simple().ask_ext(command::READ, 0, 1, 0, 1),
        extended("disk")
            .ask(command::READ, 0, 1, 0, 1)
            .raw("00000000"),
    ] {
        let last = play(&stream).events.pop();
        assert!(matches!(
            last,
            Some(Event::Violation(Violation::RequestMagic(_)))
        ));
    }
}

#[test]
fn a_full_session_takes_nothing_until_a_reply() {
    let (mut session, mut out) = attached(simple());
    let asked = (0..5)
        .fold(Stream::default(), |s, n| {
            s.ask(command::READ, 0, n, n * 512, 512)
        })
        .0;
    let mut at = 0;
    let mut slots = Vec::new();
    for _ in 0..LIMITS.in_flight {
        let (taken, event) = session.receive(&asked[at..], &mut out);
        at += taken;
        let Event::Command(command) = event else {
            panic!("{event:?}")
        };
        slots.push(command.slot);
    }
    assert!(session.is_full());
    assert_eq!(session.receive(&asked[at..], &mut out), (0, Event::Full));
    assert_eq!(
        session.reply(slots[2], Err(IoError::Failed), &[], &mut out),
        0
    );
    assert_eq!(out, hex("67446698 00000005 0000000000000002"));
    let (taken, event) = session.receive(&asked[at..], &mut out);
    assert_eq!(taken, 28);
    assert!(
        matches!(event, Event::Command(Command { slot, offset: 2048, .. }) if slot == slots[2])
    );
    assert_eq!(session.in_flight(), 4);
}

#[test]
fn replies_are_given_in_any_order_and_after_the_disconnect() {
    let (mut session, mut out) = attached(structured());
    let stream = Stream::default()
        .ask(command::READ, 0, 1, 0, 8)
        .ask(command::FLUSH, 0, 2, 0, 0)
        .ask(command::DISC, 0, 3, 0, 0);
    let mut at = 0;
    let mut events = Vec::new();
    for _ in 0..3 {
        let (taken, event) = session.receive(&stream.0[at..], &mut out);
        at += taken;
        events.push(event);
    }
    assert_eq!(events[2], Event::Disconnect);
    assert_eq!(session.receive(b"more", &mut out), (0, Event::Disconnect));
    assert_eq!(session.reply(Slot(1), Ok(()), &[], &mut out), 0);
    assert_eq!(session.reply(Slot(0), Ok(()), &[], &mut out), 8);
    let want = "668e33ef 0001 0000 0000000000000002 00000000
                668e33ef 0001 0001 0000000000000001 00000010 0000000000000000";
    assert_eq!(out, hex(want));
    assert_eq!(session.in_flight(), 0);
}

#[test]
fn a_write_that_fails_before_its_data_is_answered_after_it() {
    let (mut session, mut out) = attached(simple());
    let stream = Stream::default()
        .ask(command::WRITE, 0, 9, 0, 6)
        .bytes(b"abcdef");
    let (taken, event) = session.receive(&stream.0, &mut out);
    let Event::Command(command) = event else {
        panic!("{event:?}")
    };
    let rest = &stream.0[taken..];
    let announced = Event::Payload {
        slot: command.slot,
        left: 6,
    };
    assert_eq!(session.receive(rest, &mut out), (0, announced));
    session.payload_taken(2);
    session.reply(command.slot, Err(IoError::Closed), &[], &mut out);
    assert_eq!(session.receive(&rest[2..4], &mut out), (2, Event::NeedMore));
    assert!(out.is_empty());
    assert_eq!(session.receive(&rest[4..], &mut out), (2, Event::Answered));
    assert_eq!(out, hex("67446698 0000006c 0000000000000009"));
}

#[test]
fn a_resize_moves_the_end_for_the_next_request() {
    let (mut session, mut out) = attached(simple());
    let past = Stream::default().ask(command::READ, 0, 1, SIZE, 512).0;
    assert_eq!(session.receive(&past, &mut out), (28, Event::Answered));
    session.set_size(2 * SIZE);
    assert!(matches!(
        session.receive(&past, &mut out),
        (28, Event::Command(_))
    ));
}

#[test]
fn a_block_status_has_no_more_descriptors_than_the_limit() {
    let (mut session, mut out) = attached(structured());
    let asked = Stream::default()
        .ask(command::BLOCK_STATUS, 0, 1, 0, 1 << 20)
        .0;
    session.receive(&asked, &mut out);
    let run = |n: u64| MapRun {
        len: 512,
        zero: n % 2 == 1,
        hole: false,
    };
    let map: Vec<MapRun> = (0..100).map(run).collect();
    session.reply(Slot(0), Ok(()), &map, &mut out);
    assert_eq!(out.len(), 20 + 4 + 8 * usize::from(LIMITS.descriptors));
}

#[test]
fn an_idle_session_is_small() {
    // A session that nothing is in flight in owns no memory but itself, once it was told to rest.
    assert!(
        size_of::<Session>() <= 512,
        "{} bytes",
        size_of::<Session>()
    );
    let (mut session, mut out) = attached(simple());
    session.rest();
    assert_eq!((session.in_flight(), session.is_full()), (0, false));
    let asked = Stream::default().ask(command::FLUSH, 0, 1, 0, 0).0;
    assert!(matches!(
        session.receive(&asked, &mut out),
        (28, Event::Command(_))
    ));
    session.rest();
    session.reply(Slot(0), Ok(()), &[], &mut out); // resting forgets nothing that is in flight
}

#[test]
fn requests_in_pieces_are_the_same_requests() {
    let simple = simple()
        .ask(command::WRITE, 0, 1, 0, 6)
        .bytes(b"abcdef")
        .ask(command::WRITE, 0, 2, SIZE, 3)
        .bytes(b"abc")
        .ask(command::READ, 0, 3, 5, 3)
        .ask(command::DISC, 0, 4, 0, 0);
    let extended = extended("disk")
        .ask_ext(command::WRITE, flag::PAYLOAD_LEN, 1, 0, 6)
        .bytes(b"abcdef")
        .ask_ext(command::CACHE, flag::PAYLOAD_LEN, 2, 0, 3)
        .bytes(b"abc")
        .ask_ext(command::BLOCK_STATUS, 0, 3, 5, 3);
    for stream in [simple, extended] {
        let whole = play(&stream);
        for at in 0..=stream.0.len() {
            let (front, back) = stream.0.split_at(at);
            let split = play_pieces(LIMITS, [front, back]);
            assert_eq!(split.out, whole.out, "split at {at}");
            assert_eq!(commands(&split), commands(&whole), "split at {at}");
        }
        assert_eq!(play_pieces(LIMITS, stream.0.chunks(1)).out, whole.out);
    }
}

#[test]
#[should_panic(expected = "answered once")]
fn a_reply_without_a_command_is_the_drivers_fault() {
    let (mut session, mut out) = attached(simple());
    session.reply(Slot(0), Ok(()), &[], &mut out);
}

#[test]
fn the_default_limits_are_usable() {
    let mut out = Vec::new();
    Session::new(Limits::default(), &mut out);
    assert_eq!(Limits::default().payload_bytes, 32 << 20);
}
