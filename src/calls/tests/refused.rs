//! Handshakes that are refused: with which words on which side.

use super::*;
use crate::calls::hello::{Cover, REFUSAL_LEN};
use crate::calls::hello::{HELLO_LEN, Hello, NOD, NotWelcome, Preamble, Purpose, Way};
use crate::trust::NODE_LIFE;
use crate::trust::tests::{DAY, Hands};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Node 1 of one site calls node 2 of another; what each side then says.
async fn meet(one: Security, two: Security) -> (String, Node) {
    let one = Node::start(one, Limits::default()).await;
    let two = Node::start(two, Limits::default()).await;
    one.calls.set_addresses(TWO, &[two.address()]).unwrap();
    let here = echo(&one.calls, TWO).await.unwrap_err().to_string();
    eventually("it was counted", || !two.calls.counts().last.is_empty()).await;
    (here, two)
}

#[test]
fn a_node_of_another_cluster_is_refused_on_both_sides() {
    run(async {
        let (ours, theirs) = (Site::new(), Site::new());
        let security = |site: &Site, node| Security::MutualTls(site.node(node));
        let (here, two) = meet(security(&ours, 1), security(&theirs, 2)).await;
        assert_says(
            here,
            &["the certificate is of cluster", "and this is cluster"],
        );
        assert_says(two.turned(), &["it is of another cluster"]);
        assert_eq!(two.calls.counts().tls_failed, 1);

        let other = Security::PlainLoopback {
            cluster: ClusterId([9; 16]),
            node: TWO,
        };
        let (here, two) = meet(plain(ONE), other).await;
        let both = [CLUSTER.to_string(), ClusterId([9; 16]).to_string()];
        assert_says(&here, &["it refuses this node", &both[0], &both[1]]);
        assert_says(two.turned(), &[&both[0], &both[1]]);
        assert_eq!(two.calls.counts().refused.get(&Reason::Cluster), Some(&1));
    });
}

#[test]
fn a_node_whose_certificate_ran_out_is_told_so_and_why() {
    run(async {
        let site = Site::new();
        let old = site.node(1);
        site.hands.move_on(NODE_LIFE + DAY);
        let new = Security::MutualTls(site.node(2));
        let (here, two) = meet(Security::MutualTls(old), new).await;
        assert_says(
            here,
            &[
                "found this side's certificate out of its time",
                "a new token",
            ],
        );
        assert_says(two.turned(), &["the certificate ended at"]);
    });
}

#[test]
fn a_user_is_no_node() {
    run(async {
        let site = Site::new();
        let alice = site.user("alice", crate::trust::Role::Admin);
        let refused = Calls::new(Security::MutualTls(alice), Limits::default());
        assert_says(refused.err().unwrap(), &["only a node makes calls"]);
    });
}

#[test]
fn one_under_tls_and_one_that_is_plain_tell_one_another_in_words() {
    run(async {
        let site = Site::new();
        let (here, two) = meet(plain(ONE), Security::MutualTls(site.node(2))).await;
        assert_says(
            here,
            &["it refuses this node", "takes connections under TLS only"],
        );
        assert_says(two.turned(), &["takes connections under TLS only"]);
        let (here, two) = meet(Security::MutualTls(site.node(1)), plain(TWO)).await;
        assert_says(
            here,
            &["it refuses this node", "this node's connections are plain"],
        );
        assert_says(two.turned(), &["this node's connections are plain"]);
        assert_eq!(two.calls.counts().refused.get(&Reason::Security), Some(&1));
    });
}

#[test]
fn a_plain_node_dials_no_other_machine() {
    run(async {
        let one = Node::start(plain(ONE), Limits::default()).await;
        // 192.0.2.0/24 is nobody's; nothing is sent there.
        one.calls
            .set_addresses(TWO, &["192.0.2.1:7400".parse().unwrap()])
            .unwrap();
        let refused = echo(&one.calls, TWO).await.unwrap_err();
        assert_says(
            refused,
            &["192.0.2.1 is another machine", "in so many words"],
        );
    });
}

#[test]
fn versions_that_have_nothing_in_common_say_who_is_to_be_upgraded() {
    run(async {
        let site = Site::new();
        let newer = Security::MutualTls(site.node(1));
        let newer = Calls::speaking(newer, Limits::default(), 3..=4).unwrap();
        let two = Node::of(&site, 2).await;
        newer.set_addresses(TWO, &[two.address()]).unwrap();
        let here = echo(&newer, TWO).await.unwrap_err();
        let words = [
            "versions 1 to 1 of calls",
            "3 to 4",
            "this node is more than one version behind",
        ];
        assert_says(&here, &words);
        assert!(matches!(
            here,
            CallError::NotWelcome {
                reason: Reason::Version,
                ..
            }
        ));
        assert_says(two.turned(), &words);

        // One version ahead is understood.
        let next = Security::MutualTls(site.node(3));
        let next = Calls::speaking(next, Limits::default(), 1..=2).unwrap();
        next.set_addresses(TWO, &[two.address()]).unwrap();
        two.echoes(Service::Report);
        assert_eq!(echo(&next, TWO).await.unwrap(), b"hello");
    });
}

#[test]
fn another_node_than_is_meant_is_found_out_by_its_certificate_before_anything_is_said() {
    run(async {
        let site = Site::new();
        let (one, three) = (Node::of(&site, 1).await, Node::of(&site, 3).await);
        one.calls.set_addresses(TWO, &[three.address()]).unwrap();
        let here = echo(&one.calls, TWO).await.unwrap_err();
        assert_says(here, &["node 3 answers there, and node 2 is meant"]);
        let (here, two) = {
            let one = Node::start(plain(ONE), Limits::default()).await;
            let three = Node::start(plain(NodeId(3)), Limits::default()).await;
            one.calls.set_addresses(TWO, &[three.address()]).unwrap();
            (echo(&one.calls, TWO).await.unwrap_err(), three)
        };
        assert_says(here, &["this is node 3, and node 2 is meant"]);
        assert_says(two.turned(), &["node 2 is meant"]);
    });
}

#[test]
fn a_node_that_was_removed_is_refused_and_cut_off_amid_its_calls() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        echo(&one.calls, TWO).await.unwrap();
        let removed = |node| Err(format!("node {node} was removed from the cluster"));
        two.calls.admit_by(removed);
        let refused = echo(&one.calls, TWO).await.unwrap_err();
        assert_says(refused, &["node 1 was removed from the cluster"]);
        // And so is its next connection.
        let why = timeout(SOON, async {
            loop {
                let refused = echo(&one.calls, TWO).await.unwrap_err();
                if matches!(&refused, CallError::NotWelcome { reason, .. } if *reason == Reason::Removed)
                {
                    break refused;
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert_says(why.await.unwrap(), &["it refuses this node", "was removed"]);
        assert_says(two.turned(), &["node 1 was removed"]);
    });
}

/// A hello by hand; what is answered.
async fn by_hand(at: SocketAddr, preamble: &[u8], hello: Option<&Hello>) -> (Vec<u8>, TcpStream) {
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(preamble).await.unwrap();
    let mut answer = vec![0; REFUSAL_LEN];
    socket.read_exact(&mut answer).await.unwrap();
    if let Some(hello) = hello {
        assert_eq!(answer, NOD);
        socket.write_all(&hello.encode()).await.unwrap();
        answer = vec![0; REFUSAL_LEN];
        socket.read_exact(&mut answer).await.unwrap();
    }
    (answer, socket)
}

async fn words(answer: &[u8], socket: &mut TcpStream) -> (Reason, String) {
    let head = answer.first_chunk::<REFUSAL_LEN>().unwrap();
    let (reason, len) = NotWelcome::decode_head(head).expect("a refusal");
    let mut words = vec![0; len];
    socket.read_exact(&mut words).await.unwrap();
    (reason, String::from_utf8(words).unwrap())
}

#[test]
fn a_hello_that_contradicts_itself_or_the_preamble_is_refused() {
    run(async {
        let two = Node::start(plain(TWO), Limits::default()).await;
        let preamble = |way| {
            let cover = Cover::Plain;
            Preamble { cover, way }.encode()
        };
        let right = Hello {
            versions: 1..=1,
            cluster: CLUSTER,
            from: Some(ONE),
            to: Some(TWO),
            purpose: Purpose::Calls(Class::Urgent),
        };
        for (way, hello, reason, said) in [
            (
                Way::Link,
                right.clone(),
                Reason::Malformed,
                "different things",
            ),
            (
                Way::Calls,
                Hello {
                    from: None,
                    ..right.clone()
                },
                Reason::Identity,
                "no certificate",
            ),
            (
                Way::Calls,
                Hello {
                    to: None,
                    ..right.clone()
                },
                Reason::Node,
                "which node is meant",
            ),
        ] {
            let (answer, mut socket) = by_hand(two.address(), &preamble(way), Some(&hello)).await;
            let (found, text) = words(&answer, &mut socket).await;
            assert_eq!(found, reason, "{text}");
            assert_says(text, &[said]);
        }
        let link = Hello {
            purpose: Purpose::Link(3),
            ..right
        };
        let (answer, mut socket) = by_hand(two.address(), &preamble(Way::Link), Some(&link)).await;
        let (reason, text) = words(&answer, &mut socket).await;
        assert_eq!(
            (reason, &*text),
            (Reason::NotServed, "this node takes no data links")
        );
    });
}

#[test]
fn what_is_no_node_of_ours_is_turned_away_and_counted() {
    run(async {
        let site = Site::new();
        let two = Node::of(&site, 2).await;
        for first in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3],
            b"SARSEN\x07\x01",
        ] {
            let (answer, mut socket) = by_hand(two.address(), first, None).await;
            let (reason, _) = words(&answer, &mut socket).await;
            assert_eq!(reason, Reason::Malformed);
        }
        eventually("three were counted", || {
            two.calls.counts().refused.get(&Reason::Malformed) == Some(&3)
        })
        .await;
        assert_says(two.turned(), &["it is TLS at once", "preamble's security"]);
        // And what is none where we dial.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let one = Node::of(&site, 1).await;
        one.calls
            .set_addresses(TWO, &[listener.local_addr().unwrap()])
            .unwrap();
        let answers = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket
                .write_all(b"220 mail.example.org ESMTP\r\n")
                .await
                .unwrap();
            socket
        };
        let (refused, _socket) = tokio::join!(echo(&one.calls, TWO), answers);
        assert_says(refused.unwrap_err(), &["not a Sarsen node"]);
    });
}

#[test]
fn one_who_is_nobody_may_ask_to_join_and_nothing_else() {
    run(async {
        let site = Site::new();
        let two = Node::of(&site, 2).await;
        two.echoes(Service::Report);
        two.echoes(Service::Join);
        let token = site.join_token(&[two.address().to_string()], DAY);
        let dial = |from, purpose| {
            let hello = Hello {
                versions: 1..=1,
                cluster: token.cluster(),
                from,
                to: None,
                purpose,
            };
            let config = crate::trust::client_config_to_join(&token, &site.hands.clock());
            let at = two.address();
            async move {
                let protection = crate::calls::dial::Protection::Tls {
                    config,
                    node_of: None,
                };
                crate::calls::dial::dial(at, protection, &hello, SOON).await
            }
        };
        let nobody = dial(None, Purpose::Calls(Class::Bulk)).await;
        assert_says(
            nobody.err().unwrap(),
            &["showed no certificate", "join the cluster first"],
        );
        let liar = dial(Some(ONE), Purpose::Calls(Class::Bulk)).await;
        assert_says(
            liar.err().unwrap(),
            &["the certificate is of nobody, and the hello of node 1"],
        );
        let (conduit, welcome) = dial(None, Purpose::Join).await.unwrap();
        assert_eq!(welcome.in_progress_max, 1);
        let limits = Limits::default();
        let connection =
            crate::calls::connection::Connection::start(conduit, &welcome, two.address(), &limits);
        let connection = connection.unwrap();
        let refused = connection.call(Service::Report, Vec::new(), SOON).await;
        assert_says(refused.unwrap_err(), &["only a node is served"]);
        let joins = connection.call(Service::Join, vec![5], SOON).await;
        assert_eq!(joins, Ok(vec![5]));
        let long = connection.call(Service::Join, vec![5; 70_000], SOON).await;
        assert_says(
            long.unwrap_err(),
            &["70000 bytes are more than one may send who is not a node"],
        );
        // However many they are, nodes get in beside them.
        let mut strangers = Vec::new();
        let full = loop {
            match dial(None, Purpose::Join).await {
                Ok(stranger) => strangers.push(stranger),
                Err(error) => break error,
            }
        };
        assert!((15..=16).contains(&strangers.len()), "{}", strangers.len());
        assert_says(full, &["as many connections as it takes"]);
        let one = Node::of(&site, 1).await;
        one.knows(&two);
        assert_eq!(echo(&one.calls, TWO).await.unwrap(), b"hello");
    });
}

#[test]
fn handshakes_are_bounded_in_time_and_in_number() {
    run(async {
        let limits = Limits {
            handshake: Duration::from_secs(4),
            handshakes_max: 2,
            ..Limits::default()
        };
        let two = Node::start(plain(TWO), limits).await;
        two.echoes(Service::Report);
        // Two that say nothing, and one too many.
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(TcpStream::connect(two.address()).await.unwrap());
        }
        eventually("both were accepted", || two.calls.counts().accepted == 2).await;
        let mut third = TcpStream::connect(two.address()).await.unwrap();
        let mut answer = vec![0; REFUSAL_LEN];
        third.read_exact(&mut answer).await.unwrap();
        assert_eq!(words(&answer, &mut third).await.0, Reason::Busy);
        eventually("the silent ones were cut off", || {
            two.calls.counts().refused.get(&Reason::Slow) == Some(&2)
        })
        .await;
        for mut socket in silent {
            assert_eq!(socket.read(&mut [0; 8]).await.unwrap(), 0);
        }
        assert_says(two.turned(), &["no handshake within 4s"]);
        let one = Node::start(plain(ONE), Limits::default()).await;
        one.knows(&two);
        assert_eq!(
            echo(&one.calls, TWO).await.unwrap(),
            b"hello",
            "there is room again"
        );
    });
}

#[test]
fn who_hangs_up_amid_the_handshake_is_gone_and_not_slow() {
    run(async {
        let two = Node::start(plain(TWO), Limits::default()).await;
        drop(TcpStream::connect(two.address()).await.unwrap());
        eventually("it is counted", || two.calls.counts().gone == 1).await;
        assert!(two.calls.counts().refused.is_empty());
    });
}

#[test]
fn connections_are_bounded_in_number() {
    run(async {
        let limits = Limits {
            connections_max: 1,
            ..Limits::default()
        };
        let two = Node::start(plain(TWO), limits).await;
        two.echoes(Service::Report);
        let (one, three) = (
            Node::start(plain(ONE), Limits::default()).await,
            Node::start(plain(NodeId(3)), Limits::default()).await,
        );
        one.knows(&two);
        three.knows(&two);
        echo(&one.calls, TWO).await.unwrap();
        assert_says(
            echo(&three.calls, TWO).await.unwrap_err(),
            &["as many connections as it takes"],
        );
        drop(one);
        let room = timeout(SOON, async {
            while echo(&three.calls, TWO).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        room.await
            .expect("the place of one that left is given to the next");
    });
}

#[test]
fn a_silent_acceptor_is_given_up() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let limits = Limits {
            handshake: Duration::from_millis(300),
            ..Limits::default()
        };
        let hands = Hands::new();
        let one = Node::start(Security::MutualTls(Site::of(&hands).node(1)), limits).await;
        one.calls
            .set_addresses(TWO, &[listener.local_addr().unwrap()])
            .unwrap();
        let refused = echo(&one.calls, TWO).await.unwrap_err();
        assert_says(
            refused,
            &["no handshake within 300ms", "silent or very slow"],
        );
    });
}

#[test]
fn a_hello_has_one_length() {
    let hello = Hello {
        versions: 1..=2,
        cluster: CLUSTER,
        from: Some(ONE),
        to: None,
        purpose: Purpose::Link(65535),
    };
    let bytes: [u8; HELLO_LEN] = hello.encode();
    assert_eq!(Hello::decode(&bytes), Ok(hello));
}
