//! Calls over 127.0.0.1: what works, and what is refused with which words on which side.

mod framing;
mod fuzz;
mod joining;
mod layout;
mod links;
mod refused;
mod renewal;
mod talk;

use super::*;
use crate::base::{ClusterId, NodeId};
use crate::trust::tests::Site;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// How long anything may take that has to happen.
const SOON: Duration = Duration::from_secs(60);

/// Runs a test on a runtime as the daemon has it: of one thread.
fn run<T>(test: impl Future<Output = T>) -> T {
    run_for(2 * SOON, test)
}

fn run_for<T>(time: Duration, test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { timeout(time, test).await.expect("the test does not end") })
}

/// Waits for something that has to come about.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let came = timeout(SOON, waited).await;
    assert!(came.is_ok(), "it never came about that {what}");
}

/// A node that listens.
struct Node {
    calls: Calls,
    listening: Listening,
}

impl Node {
    async fn start(security: Security, limits: Limits) -> Node {
        let calls = Calls::new(security, limits).unwrap();
        Node::listen(calls, "127.0.0.1:0".parse().unwrap()).await
    }

    async fn listen(calls: Calls, at: SocketAddr) -> Node {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(at).unwrap();
        let listening = calls.listen(socket.listen(64).unwrap()).unwrap();
        Node { calls, listening }
    }

    /// Of a cluster, under TLS.
    async fn of(site: &Site, node: u32) -> Node {
        Node::start(Security::MutualTls(site.node(node)), Limits::default()).await
    }

    fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    fn knows(&self, other: &Node) {
        self.calls
            .set_addresses(other.calls.node(), &[other.address()])
            .unwrap();
    }

    /// Answers with what it is sent.
    fn echoes(&self, service: Service) {
        self.calls
            .handle(service, |_, body| async move { Ok(body) });
    }

    /// The last that were turned away, in one text.
    fn turned(&self) -> String {
        let last = self.calls.counts().last;
        last.iter()
            .map(|turned| format!("{}\n", turned.why))
            .collect()
    }
}

async fn echo(from: &Calls, to: NodeId) -> Result<Vec<u8>, CallError> {
    from.call(to, Service::Report, b"hello".to_vec(), SOON)
        .await
}

/// Two nodes that know one another; the second echoes reports.
async fn pair(site: &Site) -> (Node, Node) {
    let (one, two) = (Node::of(site, 1).await, Node::of(site, 2).await);
    one.knows(&two);
    two.knows(&one);
    two.echoes(Service::Report);
    (one, two)
}

fn assert_says(text: impl std::fmt::Display, words: &[&str]) {
    let text = text.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

const CLUSTER: ClusterId = ClusterId([7; 16]);
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

fn plain(node: NodeId) -> Security {
    Security::PlainLoopback {
        cluster: CLUSTER,
        node,
    }
}
