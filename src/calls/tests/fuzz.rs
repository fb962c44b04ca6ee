//! Bytes as nobody writes them. Mostly they are whole but for a few, under checksums that are right, so that what stands behind those is really entered.
//! `SARSEN_FUZZ_ITERATIONS` and `SARSEN_FUZZ_SEED` make it run longer or elsewhere.

use super::*;
use crate::base::{Prng, crc};
use crate::calls::frame::{HEAD_LEN, Head, Kind, Why};
use crate::calls::hello::{
    Cover, HELLO_LEN, Hello, NotWelcome, Preamble, Purpose, REFUSAL_LEN, Way, Welcome,
};
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => otherwise,
    }
}

fn prng(salt: u64) -> Prng {
    Prng::new(number("SARSEN_FUZZ_SEED", 1) ^ salt)
}

fn bend(bytes: &mut [u8], prng: &mut Prng) {
    let at = prng.below(bytes.len() as u64) as usize;
    match prng.below(4) {
        0 => bytes[at] = 0,
        1 => bytes[at] = prng.below(9) as u8,
        2 => bytes[at] ^= 1 << prng.below(8),
        _ => bytes[at] = prng.next_u64() as u8,
    }
}

/// Makes the last four bytes the checksum of the others.
fn mend(bytes: &mut [u8]) {
    let (rest, sum) = bytes.split_last_chunk_mut::<4>().unwrap();
    *sum = crc::of(rest).to_le_bytes();
}

fn any_kind(prng: &mut Prng) -> Kind {
    let (service, number) = (prng.below(10) as u16, prng.below(1000));
    let whys = [
        Why::Unsupported,
        Why::Refused,
        Why::TooLarge,
        Why::TimedOut,
        Why::Failed,
    ];
    match prng.below(7) {
        0 => Kind::Ask {
            service,
            number,
            within_ms: prng.below(2000) as u32,
        },
        1 => Kind::Answer { number },
        2 => Kind::Refuse {
            number,
            why: whys[prng.below(5) as usize],
        },
        3 => Kind::Tell { service },
        4 => Kind::Cancel { number },
        5 => Kind::Beat,
        _ => Kind::Bye,
    }
}

#[test]
fn fuzz_a_head_is_one_that_is_spelled_so_or_is_refused_by_its_field() {
    let mut prng = prng(1);
    let (mut taken, mut refused) = (0, BTreeSet::new());
    for _ in 0..number("SARSEN_FUZZ_ITERATIONS", 100_000) {
        let kind = any_kind(&mut prng);
        let len = prng.below(kind.body_max().min(40) as u64 + 1) as usize;
        let mut bytes = Head::of(kind, &vec![1; len]).encode();
        assert_eq!(
            Head::decode(&bytes).map(|head| (head.kind, head.len)),
            Ok((kind, len))
        );
        for _ in 0..=prng.below(3) {
            bend(&mut bytes, &mut prng);
        }
        if !prng.one_in(10) {
            mend(&mut bytes);
        }
        match Head::decode(&bytes) {
            Ok(head) => {
                taken += 1;
                assert_eq!(head.encode(), bytes, "one spelling: {head:?}");
                assert!(head.len <= BODY_MAX);
            }
            Err(broken) => drop(refused.insert(broken.field)),
        }
    }
    let all = [
        "checksum",
        "checksum of the body",
        "kind",
        "length of the body",
        "why",
        "zero",
    ];
    assert!(taken > 1000, "{taken}");
    assert_eq!(refused.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn fuzz_a_hello_is_one_that_is_spelled_so_or_is_refused() {
    let mut prng = prng(2);
    let (mut taken, mut refused) = ([0; 4], 0);
    for _ in 0..number("SARSEN_FUZZ_ITERATIONS", 100_000) {
        let purposes = [
            Purpose::Calls(Class::Urgent),
            Purpose::Calls(Class::Bulk),
            Purpose::Link(prng.next_u64() as u16),
            Purpose::Join,
        ];
        let some = |prng: &mut Prng| (!prng.one_in(3)).then(|| NodeId(prng.next_u64() as u32));
        let lowest = 1 + prng.below(3) as u16;
        let versions = lowest..=lowest + prng.below(2) as u16;
        let hello = Hello {
            versions: versions.clone(),
            cluster: ClusterId([prng.next_u64() as u8; 16]),
            from: some(&mut prng),
            to: some(&mut prng),
            purpose: purposes[prng.below(4) as usize],
        };
        let welcome = Welcome {
            version: *versions.start(),
            versions,
            cluster: CLUSTER,
            node: ONE,
            in_progress_max: 1 + prng.below(5000) as u32,
        };
        let (mut here, mut there) = (hello.encode(), welcome.encode());
        assert_eq!(
            (Hello::decode(&here), Welcome::decode(&there)),
            (Ok(hello), Ok(welcome))
        );
        assert!(Hello::decode(&there).is_err() && Welcome::decode(&here).is_err());
        let mut preamble = Preamble {
            cover: [Cover::Plain, Cover::Tls][prng.below(2) as usize],
            way: [Way::Calls, Way::Link][prng.below(2) as usize],
        }
        .encode();
        let mut refusal = [0; REFUSAL_LEN];
        let words = "x".repeat(prng.below(1500) as usize);
        let reason = Reason::ALL[prng.below(9) as usize];
        refusal.copy_from_slice(&NotWelcome { reason, words }.encode()[..REFUSAL_LEN]);
        for bytes in [&mut here[..], &mut there, &mut preamble, &mut refusal] {
            bend(bytes, &mut prng);
        }
        mend(&mut here);
        mend(&mut there);
        match Hello::decode(&here) {
            Ok(hello) => {
                assert_eq!(hello.encode(), here, "one spelling: {hello:?}");
                taken[0] += 1;
            }
            Err(_) => refused += 1,
        }
        if let Ok(welcome) = Welcome::decode(&there) {
            assert_eq!(welcome.encode(), there, "one spelling: {welcome:?}");
            taken[1] += 1;
        }
        if let Ok(read) = Preamble::decode(&preamble) {
            assert_eq!(read.encode(), preamble);
            taken[2] += 1;
        }
        if let Ok((_, len)) = NotWelcome::decode_head(&refusal) {
            assert!(len <= 1024);
            taken[3] += 1;
        }
    }
    assert!(
        taken.iter().all(|taken| *taken > 1000) && refused > 1000,
        "{taken:?} {refused}"
    );
}

/// A stream of frames that a peer might send, and then bent.
fn stream(prng: &mut Prng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + prng.below(8) {
        let kind = match any_kind(prng) {
            // What ends it at once comes seldom, or nothing behind it is ever read.
            Kind::Answer { number } | Kind::Refuse { number, .. } if !prng.one_in(8) => Kind::Ask {
                service: number as u16 % 12,
                number,
                within_ms: 60_000,
            },
            Kind::Bye if !prng.one_in(8) => Kind::Beat,
            kind => kind,
        };
        let body = vec![3; prng.below(kind.body_max().min(200) as u64 + 1) as usize];
        let mut head = Head::of(kind, &body).encode();
        if prng.one_in(6) {
            bend(&mut head, prng);
            mend(&mut head);
        }
        bytes.extend(head);
        bytes.extend(body);
    }
    if prng.one_in(3) {
        bend(&mut bytes, prng);
    }
    if prng.one_in(4) {
        bytes.truncate(prng.below(bytes.len() as u64) as usize);
    }
    bytes
}

#[test]
fn fuzz_a_bent_stream_ends_its_own_connection_at_most() {
    run_for(30 * SOON, async {
        let mut prng = prng(3);
        let two = Node::start(plain(TWO), Limits::default()).await;
        for service in Service::ALL {
            two.echoes(*service);
        }
        let one = Node::start(plain(ONE), Limits::default()).await;
        one.knows(&two);
        let iterations = number("SARSEN_FUZZ_ITERATIONS", 600).min(20_000);
        for _ in 0..iterations {
            let mut socket = TcpStream::connect(two.address()).await.unwrap();
            let hello = Hello {
                versions: 1..=1,
                cluster: CLUSTER,
                from: Some(NodeId(3)),
                to: Some(TWO),
                purpose: Purpose::Calls(Class::Bulk),
            };
            let (cover, way) = (Cover::Plain, Way::Calls);
            let mut first = [&Preamble { cover, way }.encode()[..], &hello.encode()].concat();
            if prng.one_in(8) {
                bend(&mut first, &mut prng);
            }
            first.extend(stream(&mut prng));
            // It may be closed, or cut off, before all of it is written.
            socket.write_all(&first).await.ok();
            socket.shutdown().await.ok();
            let mut rest = Vec::new();
            timeout(SOON, socket.read_to_end(&mut rest))
                .await
                .expect("it ends")
                .ok();
            if prng.one_in(20) {
                echo(&one.calls, TWO).await.unwrap();
            }
        }
        echo(&one.calls, TWO).await.unwrap();
        let counts = two.calls.counts();
        eprintln!("{counts:?}");
        assert!(
            counts.broken > iterations / 20 && counts.calls > iterations / 2,
            "{counts:?}"
        );
    });
}

#[test]
fn fuzz_bytes_instead_of_a_handshake_under_tls_are_turned_away() {
    run_for(30 * SOON, async {
        let mut prng = prng(4);
        let site = Site::new();
        let (one, two) = pair(&site).await;
        let _links = two.calls.links();
        for _ in 0..number("SARSEN_FUZZ_ITERATIONS", 200).min(5_000) {
            let mut socket = TcpStream::connect(two.address()).await.unwrap();
            let way = [Way::Calls, Way::Link][prng.below(2) as usize];
            let mut bytes = Preamble {
                cover: Cover::Tls,
                way,
            }
            .encode()
            .to_vec();
            // A head of a record, or of none, and anything behind it.
            bytes.extend([
                0x16,
                3,
                1,
                0,
                prng.below(200) as u8,
                1,
                0,
                0,
                prng.below(190) as u8,
            ]);
            let mut rest = vec![0; prng.below(300) as usize];
            prng.fill(&mut rest);
            bytes.extend(rest);
            if prng.one_in(3) {
                bend(&mut bytes, &mut prng);
            }
            socket.write_all(&bytes).await.ok();
            socket.shutdown().await.ok();
            let mut rest = Vec::new();
            timeout(SOON, socket.read_to_end(&mut rest))
                .await
                .expect("it ends")
                .ok();
        }
        assert_eq!(echo(&one.calls, TWO).await.unwrap(), b"hello");
        assert_eq!(two.calls.counts().welcomed, 1);
    });
}

#[test]
fn fuzz_bent_records_on_a_link_end_it_and_nothing_else() {
    run_for(30 * SOON, async {
        let mut prng = prng(5);
        let site = Site::new();
        let (one, two) = pair(&site).await;
        let mut links = two.calls.links();
        let (mut opened, mut ended) = (0, 0);
        for _ in 0..number("SARSEN_FUZZ_ITERATIONS", 150).min(3_000) {
            let here = one.calls.link(TWO, 0).await.unwrap();
            let there = links.recv().await.unwrap();
            let (mut from, mut to) = match prng.one_in(2) {
                true => (here.cover, there.cover),
                false => (there.cover, here.cover),
            };
            for _ in 0..20 {
                let (mut sealed, mut out) = (Vec::new(), Vec::new());
                let plain = vec![7; prng.below(20_000) as usize];
                if from.seal(&plain, &mut sealed).is_err() {
                    break;
                }
                if prng.one_in(6) && !sealed.is_empty() {
                    bend(&mut sealed, &mut prng);
                }
                // In two pieces; between them the other side speaks too.
                let (first, second) = sealed.split_at(prng.below(sealed.len() as u64 + 1) as usize);
                let whole = to.open(first, &mut out).and_then(|()| {
                    to.seal(b"between", &mut out)?;
                    to.open(second, &mut out)
                });
                if whole.is_err() {
                    ended += 1;
                    assert!(to.open(&sealed, &mut out).is_err(), "an end is an end");
                    break;
                }
                let taken = to.take_opened();
                assert!(taken.iter().all(|byte| *byte == 7) && taken.len() <= plain.len());
                opened += usize::from(taken == plain);
            }
        }
        assert!(opened > 100 && ended > 50, "{opened} and {ended}");
    });
}

#[test]
fn a_refusal_keeps_whole_characters_of_its_words() {
    let reason = Reason::Version;
    let words = "\u{e4}".repeat(REASON_LEN);
    let bytes = NotWelcome { reason, words }.encode();
    let head = bytes.first_chunk::<REFUSAL_LEN>().unwrap();
    let (found, len) = NotWelcome::decode_head(head).unwrap();
    assert_eq!((found, bytes.len()), (reason, REFUSAL_LEN + len));
    assert!(std::str::from_utf8(&bytes[REFUSAL_LEN..]).is_ok());
    assert!(bytes.len() > HEAD_LEN && HELLO_LEN > REFUSAL_LEN);
}

const REASON_LEN: usize = 1023;
