//! Data links: authenticated here, and then no longer ours.

use super::*;
use std::io::{Read, Write};

/// Sends over a link, as a shard would.
fn send(link: &mut Link, bytes: &[u8]) {
    let mut out = Vec::new();
    link.cover.seal(bytes, &mut out).unwrap();
    link.socket.write_all(&out).unwrap();
}

/// Takes so many bytes, as a shard would.
fn take(link: &mut Link, len: usize) -> Vec<u8> {
    let mut taken = link.cover.take_opened();
    let mut buffer = vec![0; 20_000];
    while taken.len() < len {
        let read = link.socket.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the link ended after {} bytes", taken.len());
        let mut out = Vec::new();
        link.cover.open(&buffer[..read], &mut out).unwrap();
        link.socket.write_all(&out).unwrap();
        taken.append(&mut link.cover.take_opened());
    }
    taken
}

async fn linked(one: &Node, two: &Node, shard: u16) -> (Link, Link) {
    let mut links = two.calls.links();
    let (here, there) = tokio::join!(one.calls.link(TWO, shard), links.recv());
    (here.unwrap(), there.unwrap())
}

fn carries(mut here: Link, mut there: Link) {
    here.socket.set_nonblocking(false).unwrap();
    there.socket.set_nonblocking(false).unwrap();
    let bytes: Vec<u8> = (0..100_000).map(|at| (at / 3) as u8).collect();
    for _ in 0..3 {
        std::thread::scope(|threads| {
            let receives = threads.spawn(|| take(&mut there, bytes.len()));
            send(&mut here, &bytes);
            assert!(receives.join().unwrap() == bytes);
        });
        send(&mut there, b"done");
        assert_eq!(take(&mut here, 4), b"done");
    }
    // Bytes that were changed on the way are not opened.
    if !here.cover.is_plain() {
        let mut out = Vec::new();
        there
            .cover
            .open(
                &[
                    0x17, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
                    18, 19, 20,
                ],
                &mut out,
            )
            .unwrap_err();
    }
}

#[test]
fn a_link_is_handed_out_with_who_is_at_its_other_end_and_carries_bytes_both_ways() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        let (here, there) = linked(&one, &two, 5).await;
        assert_eq!((here.peer, here.shard, here.end), (TWO, 5, End::Dialled));
        assert_eq!(
            (there.peer, there.shard, there.end),
            (ONE, 5, End::Accepted)
        );
        carries(here, there);
        // Calls beside it work.
        echo(&one.calls, TWO).await.unwrap();
    });
}

#[test]
fn a_plain_link_is_a_bare_socket() {
    run(async {
        let one = Node::start(plain(ONE), Limits::default()).await;
        let two = Node::start(plain(TWO), Limits::default()).await;
        one.knows(&two);
        let (here, there) = linked(&one, &two, 0).await;
        carries(here, there);
    });
}

#[test]
fn what_comes_right_behind_the_handshake_is_not_lost() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        let mut links = two.calls.links();
        let mut here = one.calls.link(TWO, 1).await.unwrap();
        here.socket.set_nonblocking(false).unwrap();
        send(&mut here, &[9; 30_000]);
        let mut there = links.recv().await.unwrap();
        there.socket.set_nonblocking(false).unwrap();
        assert!(take(&mut there, 30_000) == vec![9; 30_000]);
    });
}

#[test]
fn links_are_refused_where_nobody_takes_them_or_too_many_wait() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        let refused = one.calls.link(TWO, 0).await.unwrap_err();
        assert_says(refused, &["this node takes no data links"]);
        let links = two.calls.links();
        let mut made = Vec::new();
        let full = loop {
            match one.calls.link(TWO, 0).await {
                Ok(link) => made.push(link),
                Err(error) => break error,
            }
        };
        assert_eq!(made.len(), 256);
        assert_says(full, &["too many new links"]);
        drop(links);
        let gone = one.calls.link(TWO, 0).await.unwrap_err();
        assert_says(gone, &["this node takes no data links"]);
    });
}

#[test]
fn a_link_needs_a_certificate_and_the_reason_is_told() {
    run(async {
        let (ours, theirs) = (Site::new(), Site::new());
        let (one, two) = (Node::of(&ours, 1).await, Node::of(&theirs, 2).await);
        let _links = two.calls.links();
        one.knows(&two);
        let refused = one.calls.link(TWO, 0).await.unwrap_err();
        assert_says(refused, &["the certificate is of cluster"]);
        eventually("it was counted", || two.calls.counts().tls_failed == 1).await;
        assert_says(two.turned(), &["of another cluster"]);
        // One whose time is over is known only to the acceptor; the dialler learns it by the alert.
        let old = ours.node(3);
        ours.hands
            .move_on(crate::trust::NODE_LIFE + crate::trust::tests::DAY);
        let (three, four) = (
            Node::start(Security::MutualTls(old), Limits::default()).await,
            Node::of(&ours, 2).await,
        );
        let _links = four.calls.links();
        three.knows(&four);
        let refused = three.calls.link(TWO, 0).await.unwrap_err();
        assert_says(refused, &["found this side's certificate out of its time"]);
        eventually("it was counted", || four.calls.counts().tls_failed == 1).await;
        assert_says(four.turned(), &["the certificate ended at"]);
    });
}
