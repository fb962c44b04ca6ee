//! Handshakes as bytes, and what is refused in them.

use super::super::door::{Event, Limits, Purpose, Violation};
use super::super::session::Session;
use super::super::spec::{STRING_MAX, option};
use super::{LIMITS, Played, Stream, hex, name_of, play, play_pieces};
use crate::base::VolumeId;

/// The beginning of every option reply.
const REPLY: &str = "0003e889045565a9";

/// One option reply, its data in hexadecimal.
fn reply(option: u32, kind: u32, data: &str) -> String {
    format!("{REPLY}{option:08x}{kind:08x}{:08x}{data}", hex(data).len())
}

/// The kinds of the option replies that a client gets.
fn kinds(played: &Played) -> Vec<u32> {
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let (mut kinds, mut rest) = (Vec::new(), played.answer());
    while rest.starts_with(&hex(REPLY)) {
        kinds.push(word(&rest[12..16]));
        rest = &rest[20 + word(&rest[16..20]) as usize..];
    }
    assert!(rest.is_empty(), "something follows the option replies");
    kinds
}

fn text_of(played: &Played) -> String {
    String::from_utf8_lossy(played.answer()).into_owned()
}

#[test]
fn the_greeting_is_fixed_newstyle_without_padding() {
    let mut out = Vec::new();
    Session::new(Limits::default(), &mut out);
    assert_eq!(out, hex("4e42444d41474943 49484156454f5054 0003"));
}

#[test]
fn go_tells_size_flags_and_block_sizes_and_attaches() {
    // The name, and one request: for the block size.
    let go = "49484156454f5054 00000007 0000000c 00000004 6469736b 0001 0003";
    let played = play(&Stream(hex("00000003")).raw(go));
    let want = [
        reply(7, 3, "0000 0000000040000000 0d6d"),
        reply(7, 3, "0003 00000001 00001000 00010000"),
        reply(7, 1, ""),
    ];
    assert_eq!(played.answer(), hex(&want.concat()));
    assert_eq!(played.events, [Event::Open(Purpose::Attach)]);
    let export = played.session.export().unwrap();
    assert_eq!(
        (export.volume, export.size, export.read_only),
        (VolumeId(7), 1 << 30, false)
    );
}

#[test]
fn info_tells_name_and_description_where_asked_and_attaches_nothing() {
    let data = [&name_of("frozen")[..], &hex("0002 0001 0002")].concat();
    let played = play(&Stream::new().structured().option(option::INFO, &data));
    let want = [
        reply(8, 1, ""),
        reply(6, 3, "0000 0000000040000000 0def"), // read-only, and DF with structured replies
        reply(6, 3, "0001 66726f7a656e"),
        reply(6, 3, "0002 61206469736b"),
        reply(6, 3, "0003 00000001 00001000 00010000"),
        reply(6, 1, ""),
    ];
    assert_eq!(played.answer(), hex(&want.concat()));
    assert_eq!(
        played.events,
        [Event::Answered, Event::Open(Purpose::Inspect)]
    );
    assert!(played.session.export().is_none());
}

#[test]
fn a_volume_of_4_kib_sectors_asks_for_whole_blocks() {
    let played = play(&Stream::new().go("big"));
    let want = [
        reply(7, 3, "0000 0000000040000000 0d6d"),
        reply(7, 3, "0003 00001000 00001000 00010000"),
        reply(7, 1, ""),
    ];
    assert_eq!(played.answer(), hex(&want.concat()));
}

#[test]
fn export_name_is_answered_without_a_reply_header() {
    let short = play(&Stream::new().option(option::EXPORT_NAME, b"disk"));
    assert_eq!(short.answer(), hex("0000000040000000 0d6d"));
    assert!(short.session.export().is_some());
    let padded = play(&Stream(hex("00000001")).option(option::EXPORT_NAME, b""));
    let want = [hex("0000000040000000 0d6d"), vec![0; 124]].concat();
    assert_eq!(padded.answer(), want);
}

#[test]
fn an_export_name_that_is_refused_ends_the_connection() {
    for name in ["nowhere", "busy"] {
        let played = play(&Stream::new().option(option::EXPORT_NAME, name.as_bytes()));
        assert_eq!(
            played.events,
            [Event::Open(Purpose::Attach), Event::Disconnect]
        );
        assert!(played.answer().is_empty());
    }
}

#[test]
fn an_export_name_that_cannot_be_one_is_a_violation() {
    for stream in [
        Stream::new().option(option::EXPORT_NAME, b"a\0b"),
        Stream::new().option(option::EXPORT_NAME, &[0xff]),
        Stream::new().option(option::EXPORT_NAME, &vec![b'n'; STRING_MAX + 1]),
        Stream::new().option(option::EXPORT_NAME, &vec![b'n'; 8193]),
        Stream::new()
            .extended()
            .option(option::EXPORT_NAME, b"disk"),
    ] {
        let played = play(&stream);
        assert_eq!(
            played.events.last(),
            Some(&Event::Violation(Violation::ExportName))
        );
    }
}

#[test]
fn a_list_names_every_export() {
    let played = play(&Stream::new().option(option::LIST, &[]));
    let want = [
        reply(3, 2, "00000004 6469736b"),
        reply(3, 2, "00000006 66726f7a656e"),
        reply(3, 1, ""),
    ];
    assert_eq!(played.answer(), hex(&want.concat()));
    assert_eq!(played.events, [Event::List]);
}

#[test]
fn an_abort_is_acknowledged_and_nothing_is_received_after_it() {
    let played = play(&Stream::new().option(option::ABORT, &[]).raw("010203"));
    assert_eq!(played.answer(), hex(&reply(2, 1, "")));
    assert_eq!(played.events, [Event::Disconnect]);
    assert_eq!(played.left, [1, 2, 3]);
}

#[test]
fn base_allocation_is_listed_and_selected() {
    let stream = Stream::new()
        .structured()
        .contexts(option::LIST_META_CONTEXT, "disk", &[])
        .contexts(option::LIST_META_CONTEXT, "disk", &["base:"])
        .contexts(option::LIST_META_CONTEXT, "disk", &["qemu:", "nonsense"])
        .contexts(
            option::SET_META_CONTEXT,
            "disk",
            &["base:allocation", "base:allocation"],
        )
        .contexts(option::SET_META_CONTEXT, "disk", &["base:"]);
    let name = "626173653a616c6c6f636174696f6e";
    let want = [
        reply(8, 1, ""),
        reply(9, 4, &format!("00000000{name}")),
        reply(9, 1, ""),
        reply(9, 4, &format!("00000000{name}")),
        reply(9, 1, ""),
        reply(9, 1, ""),
        reply(10, 4, &format!("00000001{name}")),
        reply(10, 1, ""),
        reply(10, 1, ""),
    ];
    assert_eq!(play(&stream).answer(), hex(&want.concat()));
}

#[test]
fn contexts_without_structured_replies_are_invalid() {
    for option in [option::LIST_META_CONTEXT, option::SET_META_CONTEXT] {
        let played = play(&Stream::new().contexts(option, "disk", &["base:allocation"]));
        assert_eq!(kinds(&played), [0x8000_0003]);
    }
}

#[test]
fn a_name_is_refused_with_its_reason() {
    for (name, kind, reason) in [
        ("nowhere", 0x8000_0006, "there is no such volume"),
        ("busy", 0x8000_0002, "attached at node 3"),
        ("broken", 0x8000_0004, "the disk is gone"),
        ("late", 0x8000_0007, "the server is stopping"),
    ] {
        let played = play(&Stream::new().go(name).go("disk"));
        let text: String = reason.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(played.answer().starts_with(&hex(&reply(7, kind, &text))));
        assert!(played.session.export().is_some(), "the connection was kept");
    }
}

#[test]
fn tls_is_against_the_policy_and_what_is_not_known_is_unsupported() {
    let stream = Stream::new()
        .option(option::STARTTLS, &[])
        .option(4, &[])
        .option(77, b"with data")
        .option(u32::MAX, &[0; 100_000]);
    let unsupported = 0x8000_0001;
    let played = play(&stream);
    assert_eq!(
        kinds(&played),
        [0x8000_0002, unsupported, unsupported, unsupported]
    );
}

#[test]
fn a_framing_is_negotiated_upwards_only() {
    let played = play(
        &Stream::new()
            .structured()
            .structured()
            .extended()
            .structured(),
    );
    assert_eq!(kinds(&played), [1, 1, 1, 0x8000_000a]);
}

#[test]
fn malformed_options_are_invalid_and_the_connection_is_kept() {
    let name = name_of("disk");
    let malformed: &[(u32, Vec<u8>)] = &[
        (option::LIST, b"data".to_vec()),
        (option::STRUCTURED_REPLY, vec![0]),
        (option::EXTENDED_HEADERS, vec![0; 9]),
        (option::GO, vec![]),
        (option::GO, hex("ffffffff 6469736b 0000")),
        (option::GO, name.clone()),
        (option::GO, [&name[..], &hex("0002 0001")].concat()),
        (option::INFO, [&name[..], &hex("0000 00")].concat()),
        (option::INFO, hex("00000001 ff 0000")),
        (option::INFO, hex("00000001 00 0000")),
        (
            option::INFO,
            [name_of(&"n".repeat(STRING_MAX + 1)), hex("0000")].concat(),
        ),
        (option::LIST_META_CONTEXT, name.clone()),
        (
            option::LIST_META_CONTEXT,
            [&name[..], &hex("ffffffff")].concat(),
        ),
        (
            option::SET_META_CONTEXT,
            [&name[..], &hex("00000001 00000009 61")].concat(),
        ),
        (
            option::SET_META_CONTEXT,
            [&name[..], &hex("00000000 00")].concat(),
        ),
    ];
    for (option, data) in malformed {
        let stream = Stream::new().structured().option(*option, data).go("disk");
        let played = play(&stream);
        let found = kinds(&played);
        assert_eq!(found[1], 0x8000_0003, "{option} with {data:x?}");
        assert!(played.session.export().is_some(), "{option} with {data:x?}");
    }
}

#[test]
fn an_option_that_is_too_big_is_skipped_without_being_kept() {
    let stream = Stream::new().option(option::GO, &[0; 8193]).go("disk");
    let played = play(&stream);
    assert_eq!(kinds(&played)[0], 0x8000_0009);
    assert!(played.session.export().is_some());
}

#[test]
fn an_option_too_long_to_be_skipped_is_cut_off_by_its_header() {
    let len = LIMITS.skip_bytes as u32 + 1;
    let header = format!("49484156454f5054 00000007 {len:08x}");
    let violation = Violation::OptionTooLong {
        option: option::GO,
        len,
    };
    let played = play(&Stream::new().raw(&header).raw("00000000"));
    assert_eq!(played.events, [Event::Violation(violation)]);
}

#[test]
fn what_is_no_handshake_is_a_violation() {
    let flags = play(&Stream(hex("00000007")));
    assert_eq!(flags.events, [Event::Violation(Violation::ClientFlags(7))]);
    let http = play(&Stream::new().bytes(b"GET / HTTP/1.1\r\n"));
    assert!(matches!(
        http.events[..],
        [Event::Violation(Violation::OptionMagic(_))]
    ));
}

#[test]
fn a_handshake_that_never_ends_is_cut_off() {
    let endless = (0..LIMITS.options).fold(Stream::new(), |stream, _| stream.structured());
    let allowed = play(&endless);
    assert_eq!(allowed.events.len(), 64);
    let played = play(&endless.structured());
    assert_eq!(
        played.events.last(),
        Some(&Event::Violation(Violation::TooManyOptions))
    );
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let mut out = Vec::new();
    super::super::option::refuse(option::GO, 1, &"\u{20ac}".repeat(2000), &mut out);
    let text = std::str::from_utf8(&out[20..]).unwrap();
    assert_eq!(text.len(), 4095);
}

#[test]
fn a_handshake_in_pieces_is_the_same_handshake() {
    let stream = Stream::new()
        .extended()
        .option(99, b"what is this")
        .option(option::LIST, &[])
        .allocation_of("disk")
        .go("busy")
        .go("disk");
    let whole = play(&stream);
    assert!(text_of(&whole).contains("attached at node 3"));
    for at in 0..=stream.0.len() {
        let (front, back) = stream.0.split_at(at);
        let split = play_pieces(LIMITS, [front, back]);
        assert_eq!(
            (&split.events, &split.out),
            (&whole.events, &whole.out),
            "split at {at}"
        );
    }
    let single = play_pieces(LIMITS, stream.0.chunks(1));
    assert_eq!((single.events, single.out), (whole.events, whole.out));
}
