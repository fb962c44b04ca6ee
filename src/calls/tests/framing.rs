//! Peers that break the framing, or are slow or silent, once they are in: cut off with a reason, counted, and nobody else harmed.

use super::*;
use crate::calls::frame::{HEAD_LEN, Head, Kind, Why};
use crate::calls::hello::{
    Cover, HELLO_LEN, Hello, NOD, Preamble, Purpose, REFUSAL_LEN, Way, Welcome,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is welcome, over which a test writes what it wants.
async fn welcomed(two: &Node) -> TcpStream {
    let mut socket = TcpStream::connect(two.address()).await.unwrap();
    let (cover, way) = (Cover::Plain, Way::Calls);
    socket
        .write_all(&Preamble { cover, way }.encode())
        .await
        .unwrap();
    let mut nod = [0; REFUSAL_LEN];
    socket.read_exact(&mut nod).await.unwrap();
    let hello = Hello {
        versions: 1..=1,
        cluster: CLUSTER,
        from: Some(ONE),
        to: Some(TWO),
        purpose: Purpose::Calls(Class::Bulk),
    };
    socket.write_all(&hello.encode()).await.unwrap();
    let mut welcome = [0; HELLO_LEN];
    socket.read_exact(&mut welcome).await.unwrap();
    Welcome::decode(&welcome).unwrap();
    socket
}

async fn frame(socket: &mut TcpStream) -> (Kind, Vec<u8>) {
    let mut head = [0; HEAD_LEN];
    socket.read_exact(&mut head).await.unwrap();
    let head = Head::decode(&head).unwrap();
    let mut body = vec![0; head.len];
    socket.read_exact(&mut body).await.unwrap();
    head.fits(&body).unwrap();
    (head.kind, body)
}

/// The words of the goodbye, after whatever else.
async fn goodbye(socket: &mut TcpStream) -> String {
    loop {
        if let (Kind::Bye, words) = frame(socket).await {
            return String::from_utf8(words).unwrap();
        }
    }
}

fn ask(number: u64, body: &[u8]) -> Vec<u8> {
    let kind = Kind::Ask {
        service: Service::Report as u16,
        number,
        within_ms: 60_000,
    };
    [&Head::of(kind, body).encode()[..], body].concat()
}

/// With the checksum of the head made right.
fn bent(frame: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = frame.to_vec();
    change(&mut frame);
    let sum = crate::base::crc::of(&frame[..HEAD_LEN - 4]);
    frame[HEAD_LEN - 4..HEAD_LEN].copy_from_slice(&sum.to_le_bytes());
    frame
}

fn quick() -> Limits {
    Limits {
        beat: Duration::from_millis(100),
        silence: Duration::from_millis(600),
        stall: Duration::from_millis(300),
        ..Limits::default()
    }
}

#[test]
fn a_frame_that_is_none_cuts_its_peer_off_with_a_reason_and_nobody_else() {
    run(async {
        let two = Node::start(plain(TWO), Limits::default()).await;
        two.echoes(Service::Report);
        let one = Node::start(plain(ONE), Limits::default()).await;
        one.knows(&two);
        echo(&one.calls, TWO).await.unwrap();
        let good = ask(1, b"body");
        let answer = Head::of(Kind::Answer { number: 1 }, b"").encode().to_vec();
        let too_long = (BODY_MAX as u32 + 1).to_le_bytes();
        let wrong = [
            (
                bent(&good, |bytes| bytes[..4].copy_from_slice(&too_long)),
                "length of the body cannot be 4194305",
            ),
            (bent(&good, |bytes| bytes[4] = 9), "kind cannot be 9"),
            (bent(&good, |bytes| bytes[24] = 1), "zero cannot be 1"),
            (
                bent(&good, |bytes| bytes[HEAD_LEN] ^= 1),
                "checksum of the body",
            ),
            (
                [&good[..8], &[0xee], &good[9..]].concat(),
                "checksum cannot be",
            ),
            (answer, "an answer came where nothing was asked"),
            ([&good[..], &ask(1, b"again")].concat(), "used twice"),
        ];
        // Held open, so that a number can come twice.
        let (held, mut broken) = (Arc::new(tokio::sync::Notify::new()), 0);
        for (bytes, said) in wrong {
            if said == "used twice" {
                let holds = held.clone();
                two.calls.handle(Service::Report, move |_, body| {
                    let holds = holds.clone();
                    async move {
                        holds.notified().await;
                        Ok(body)
                    }
                });
            }
            let mut socket = welcomed(&two).await;
            socket.write_all(&bytes).await.unwrap();
            assert_says(goodbye(&mut socket).await, &[said]);
            assert_eq!(
                socket.read(&mut [0; 8]).await.unwrap_or(0),
                0,
                "and it is closed"
            );
            broken += 1;
            eventually("it was counted", || two.calls.counts().broken == broken).await;
            assert_says(two.turned(), &[said]);
        }
        two.echoes(Service::Report);
        echo(&one.calls, TWO).await.unwrap();
        assert_eq!(one.calls.counts().accepted, 0);
    });
}

#[test]
fn a_frame_that_ends_too_soon_is_a_lost_connection() {
    run(async {
        let two = Node::start(plain(TWO), Limits::default()).await;
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        two.calls.handle(Service::Report, move |_, body| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(body) }
        });
        let whole = ask(1, &[7; 5000]);
        for end in [0, 1, 31, 32, 33, 4000, whole.len() - 1] {
            let mut socket = welcomed(&two).await;
            socket.write_all(&whole[..end]).await.unwrap();
            socket.shutdown().await.unwrap();
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.unwrap();
            assert!(rest.is_empty(), "after {end} bytes: {rest:?}");
        }
        let mut socket = welcomed(&two).await;
        socket.write_all(&whole).await.unwrap();
        assert_eq!(frame(&mut socket).await.0, Kind::Answer { number: 1 });
        assert_eq!(calls.load(Ordering::Relaxed), 1, "only what was whole");
    });
}

#[test]
fn a_silent_peer_is_cut_off() {
    run(async {
        let two = Node::start(plain(TWO), quick()).await;
        let mut socket = welcomed(&two).await;
        assert_says(
            goodbye(&mut socket).await,
            &["nothing came from the other side for 600ms"],
        );
        eventually("it was counted", || two.calls.counts().silent == 1).await;
    });
}

#[test]
fn a_peer_that_is_too_slow_with_a_body_is_cut_off() {
    run(async {
        let two = Node::start(plain(TWO), quick()).await;
        let mut socket = welcomed(&two).await;
        let whole = ask(1, &[7; 5000]);
        socket.write_all(&whole[..1000]).await.unwrap();
        assert_says(goodbye(&mut socket).await, &["too slow", "did not send"]);
        eventually("it was counted", || two.calls.counts().silent == 1).await;
    });
}

#[test]
fn a_peer_that_takes_nothing_is_cut_off_and_its_answers_are_bounded() {
    run(async {
        let limits = Limits {
            silence: SOON,
            ..quick()
        };
        let two = Node::start(plain(TWO), limits).await;
        two.calls
            .handle(Service::Report, |_, _| async { Ok(vec![1; BODY_MAX]) });
        let mut socket = welcomed(&two).await;
        // 64 MiB of answers, none of which is read.
        for number in 1..=16 {
            socket.write_all(&ask(number, b"")).await.unwrap();
        }
        eventually("it was counted", || two.calls.counts().silent == 1).await;
        assert_says(two.turned(), &["too slow", "did not take"]);
    });
}

#[test]
fn a_peer_that_asks_for_more_than_it_may_is_made_to_wait() {
    run(async {
        let limits = Limits {
            in_progress_max: 3,
            ..Limits::default()
        };
        let two = Node::start(plain(TWO), limits).await;
        let (asked, go) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(tokio::sync::Semaphore::new(0)),
        );
        let (counted, goes) = (asked.clone(), go.clone());
        two.calls.handle(Service::Report, move |_, body| {
            counted.fetch_add(1, Ordering::Relaxed);
            let goes = goes.clone();
            async move {
                goes.acquire().await.unwrap().forget();
                Ok(body)
            }
        });
        let mut socket = welcomed(&two).await;
        for number in 1..=10 {
            socket.write_all(&ask(number, b"x")).await.unwrap();
        }
        eventually("three are worked on", || asked.load(Ordering::Relaxed) == 3).await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!(asked.load(Ordering::Relaxed), 3, "and no more");
        go.add_permits(10);
        for _ in 0..10 {
            assert!(matches!(frame(&mut socket).await.0, Kind::Answer { .. }));
        }
    });
}

#[test]
fn a_service_of_a_later_version_is_answered_with_unsupported() {
    run(async {
        let two = Node::start(plain(TWO), Limits::default()).await;
        let mut socket = welcomed(&two).await;
        let kind = Kind::Ask {
            service: 777,
            number: 5,
            within_ms: 1000,
        };
        socket
            .write_all(&Head::of(kind, b"").encode())
            .await
            .unwrap();
        let (number, why) = (5, Why::Unsupported);
        assert_eq!(frame(&mut socket).await.0, Kind::Refuse { number, why });
        // What is told of it is dropped, and the connection goes on.
        let told = Head::of(Kind::Tell { service: 778 }, b"");
        socket.write_all(&told.encode()).await.unwrap();
        two.echoes(Service::Report);
        socket.write_all(&ask(6, b"still")).await.unwrap();
        assert_eq!(
            frame(&mut socket).await,
            (Kind::Answer { number: 6 }, b"still".to_vec())
        );
        assert_eq!(two.calls.counts().unsupported, 2);
    });
}

/// A node that answers the handshake, and then what a test wants.
async fn pretender(limits: Limits) -> (Node, tokio::task::JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let one = Node::start(plain(ONE), limits).await;
    one.calls
        .set_addresses(TWO, &[listener.local_addr().unwrap()])
        .unwrap();
    let accepts = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.read_exact(&mut [0; 8]).await.unwrap();
        socket.write_all(&NOD).await.unwrap();
        socket.read_exact(&mut [0; HELLO_LEN]).await.unwrap();
        let welcome = Welcome {
            versions: 1..=1,
            cluster: CLUSTER,
            version: 1,
            node: TWO,
            in_progress_max: 10,
        };
        socket.write_all(&welcome.encode()).await.unwrap();
        socket
    });
    (one, accepts)
}

#[test]
fn a_server_that_breaks_the_framing_or_falls_silent_fails_its_calls_with_the_reason() {
    run(async {
        let (one, accepts) = pretender(Limits::default()).await;
        let answers = async {
            let mut socket = accepts.await.unwrap();
            frame(&mut socket).await;
            socket.write_all(&[0xaa; HEAD_LEN]).await.unwrap();
            socket
        };
        let (answer, _socket) = tokio::join!(echo(&one.calls, TWO), answers);
        assert_says(
            answer.unwrap_err(),
            &["cannot be reached", "a frame's checksum"],
        );

        let (one, accepts) = pretender(quick()).await;
        let (answer, _socket) = tokio::join!(echo(&one.calls, TWO), accepts);
        assert_says(answer.unwrap_err(), &["nothing came from the other side"]);

        let (one, accepts) = pretender(Limits::default()).await;
        let answers = async {
            let mut socket = accepts.await.unwrap();
            frame(&mut socket).await;
            socket.write_all(&ask(1, b"you")).await.unwrap();
            socket
        };
        let (answer, _socket) = tokio::join!(echo(&one.calls, TWO), answers);
        assert_says(answer.unwrap_err(), &["on a connection that only answers"]);

        // An answer to what nobody asked is one that was cancelled: it is dropped.
        let (one, accepts) = pretender(Limits::default()).await;
        let answers = async {
            let mut socket = accepts.await.unwrap();
            frame(&mut socket).await;
            for number in [99, 1] {
                let head = Head::of(Kind::Answer { number }, b"yes");
                socket.write_all(&head.encode()).await.unwrap();
                socket.write_all(b"yes").await.unwrap();
            }
            socket
        };
        let (answer, _socket) = tokio::join!(echo(&one.calls, TWO), answers);
        assert_eq!(answer, Ok(b"yes".to_vec()));
    });
}

#[test]
fn words_of_the_other_side_cannot_steer_a_terminal() {
    let words = crate::calls::frame::text(b"no\x1b[2J\r\nall is well\xff\0");
    assert_eq!(words, "no [2J  all is well\u{fffd} ");
}
