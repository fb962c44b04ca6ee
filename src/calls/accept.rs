//! The acceptor's half of a handshake: who is let in, and what is told to who is not.

use super::conduit::{Conduit, linger};
use super::hello::{
    Cover, HELLO_LEN, Hello, NOD, NotWelcome, PREAMBLE_LEN, Preamble, Purpose, Reason, Way, Welcome,
};
use super::link::Tunnel;
use super::node::Shared;
use crate::base::NodeId;
use crate::trust::explain;
use crate::wire::agree;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Who got in.
pub(super) struct Guest {
    pub conduit: Conduit,
    /// `None`: one who may join, and nothing else.
    pub node: Option<NodeId>,
    pub purpose: Purpose,
    pub version: u16,
}

/// What is left to do with somebody who did not.
enum Turned {
    /// He is told, in words.
    Told(Conduit, NotWelcome),
    /// TLS has told him, by an alert.
    Alerted(TcpStream, String),
    /// He is gone.
    Gone(io::Error),
}

/// What ended a handshake that nobody refused in words.
enum Failed {
    InTls,
    Gone,
    Slow,
}

fn no(reason: Reason, words: impl Into<String>) -> NotWelcome {
    let words = words.into();
    NotWelcome { reason, words }
}

/// Lets somebody in, as far as a hello that is right; the caller welcomes him. `None`: he was turned away, told so, and counted.
pub(super) async fn greet(shared: &Shared, socket: TcpStream, from: SocketAddr) -> Option<Guest> {
    let (why, how) = match timeout(shared.limits.handshake, shake_hands(shared, socket, from)).await
    {
        Ok(Ok(guest)) => return Some(guest),
        Ok(Err(Turned::Told(conduit, refusal))) => {
            turn_away(shared, conduit, from, refusal).await;
            return None;
        }
        Ok(Err(Turned::Alerted(socket, why))) => {
            linger(socket).await;
            (why, Failed::InTls)
        }
        Ok(Err(Turned::Gone(error))) => (explain(&error), Failed::Gone),
        Err(_) => (
            format!("no handshake within {:?}", shared.limits.handshake),
            Failed::Slow,
        ),
    };
    shared.counters.turned(from, &why, |counts| match how {
        Failed::InTls => counts.tls_failed += 1,
        Failed::Gone => counts.gone += 1,
        Failed::Slow => *counts.refused.entry(Reason::Slow).or_default() += 1,
    });
    None
}

/// Tells somebody why he is not welcome, and counts him.
pub(super) async fn turn_away(
    shared: &Shared,
    mut conduit: Conduit,
    from: SocketAddr,
    refusal: NotWelcome,
) {
    shared.counters.turned(from, &refusal.words, |counts| {
        *counts.refused.entry(refusal.reason).or_default() += 1;
    });
    let told = async {
        conduit.write_all(&refusal.encode()).await.ok();
        conduit.linger().await;
    };
    timeout(shared.limits.handshake, told).await.ok();
}

async fn shake_hands(
    shared: &Shared,
    mut socket: TcpStream,
    from: SocketAddr,
) -> Result<Guest, Turned> {
    socket.set_nodelay(true).map_err(Turned::Gone)?;
    let mut bytes = [0; PREAMBLE_LEN];
    socket.read_exact(&mut bytes).await.map_err(Turned::Gone)?;
    let way = match preamble(shared, &bytes, from) {
        Ok(way) => way,
        Err(refusal) => return Err(Turned::Told(Conduit::Plain(socket), refusal)),
    };
    socket.write_all(&NOD).await.map_err(Turned::Gone)?;
    let mut conduit = cover(shared, socket, way).await?;
    let mut bytes = [0; HELLO_LEN];
    conduit.read_exact(&mut bytes).await.map_err(Turned::Gone)?;
    match hello(shared, &bytes, way, &conduit) {
        Ok((node, purpose, version)) => Ok(Guest {
            conduit,
            node,
            purpose,
            version,
        }),
        Err(refusal) => Err(Turned::Told(conduit, refusal)),
    }
}

fn preamble(
    shared: &Shared,
    bytes: &[u8; PREAMBLE_LEN],
    from: SocketAddr,
) -> Result<Way, NotWelcome> {
    let preamble =
        Preamble::decode(bytes).map_err(|wrong| no(Reason::Malformed, wrong.to_string()))?;
    let allowed = shared.me.allows(from);
    allowed.map_err(|why| no(Reason::Security, why))?;
    match (preamble.cover, shared.me.cover()) {
        (Cover::Plain, Cover::Tls) => Err(no(
            Reason::Security,
            "this node takes connections under TLS only, and the other side's are plain; join the cluster there, or look at its configuration",
        )),
        (Cover::Tls, Cover::Plain) => Err(no(
            Reason::Security,
            "this node's connections are plain, and the other side's are under TLS; both sides' configurations have to say the same",
        )),
        _ => Ok(preamble.way),
    }
}

async fn cover(shared: &Shared, socket: TcpStream, way: Way) -> Result<Conduit, Turned> {
    match (&shared.me.tls, way) {
        (None, Way::Calls) => Ok(Conduit::Plain(socket)),
        (None, Way::Link) => Ok(Conduit::Link(Box::new(Tunnel::plain(socket)))),
        (Some(tls), Way::Calls) => {
            let accepting = TlsAcceptor::from(tls.calls.0.clone()).accept(socket);
            match accepting.into_fallible().await {
                Ok(tls) => Ok(Conduit::Tls(Box::new(tls.into()))),
                Err((error, socket)) => Err(Turned::Alerted(socket, explain(&error))),
            }
        }
        (Some(tls), Way::Link) => match Tunnel::accept(socket, tls.links.0.clone()).await {
            Ok(tunnel) => Ok(Conduit::Link(Box::new(tunnel))),
            Err((why, socket)) => Err(Turned::Alerted(socket, why)),
        },
    }
}

/// Who it is, what for, and the version that both speak.
fn hello(
    shared: &Shared,
    bytes: &[u8; HELLO_LEN],
    way: Way,
    conduit: &Conduit,
) -> Result<(Option<NodeId>, Purpose, u16), NotWelcome> {
    let me = &shared.me;
    let hello = Hello::decode(bytes).map_err(|wrong| no(Reason::Malformed, wrong.to_string()))?;
    if hello.purpose.way() != way {
        let words =
            "hello and preamble are for different things; something on the way changed one of them";
        return Err(no(Reason::Malformed, words));
    }
    let version = agree(&shared.versions, &hello.versions)
        .map_err(|_| no(Reason::Version, apart(shared, &hello)))?;
    if hello.cluster != me.cluster {
        let words = format!(
            "this node is of cluster {}, and the other side says that it is of {}",
            me.cluster, hello.cluster
        );
        return Err(no(Reason::Cluster, words));
    }
    let joins = hello.purpose == Purpose::Join;
    let node = match me.cover() {
        Cover::Tls => {
            let proven = me.node_of(conduit.certificates());
            if proven != hello.from {
                return Err(no(Reason::Identity, not_who_he_says(proven, hello.from)));
            }
            proven
        }
        Cover::Plain => hello.from,
    };
    if node.is_none() && !joins {
        let words =
            "the other side showed no certificate; it has to join the cluster first, with a token";
        return Err(no(Reason::Identity, words));
    }
    match hello.to {
        Some(meant) if meant != me.node => {
            let words = format!(
                "this is node {}, and node {meant} is meant; the address of node {meant} has changed",
                me.node
            );
            return Err(no(Reason::Node, words));
        }
        None if !joins => {
            return Err(no(
                Reason::Node,
                "the hello does not say which node is meant",
            ));
        }
        _ => {}
    }
    if let Some(node) = node {
        let admitted = shared.admits(node);
        admitted.map_err(|why| no(Reason::Removed, why))?;
    }
    Ok((node, hello.purpose, version))
}

fn not_who_he_says(proven: Option<NodeId>, says: Option<NodeId>) -> String {
    let name = |node: Option<NodeId>| match node {
        Some(node) => format!("node {node}"),
        None => "nobody".into(),
    };
    format!(
        "the certificate is of {}, and the hello of {}",
        name(proven),
        name(says)
    )
}

fn apart(shared: &Shared, hello: &Hello) -> String {
    let (mine, theirs) = (&shared.versions, &hello.versions);
    let who = match mine.end() < theirs.end() {
        true => "this node",
        false => "the other side",
    };
    format!(
        "this node speaks versions {} to {} of calls, and the other side {} to {}: {who} is more than one version behind, and is upgraded first",
        mine.start(),
        mine.end(),
        theirs.start(),
        theirs.end()
    )
}

/// The welcome for a guest.
pub(super) fn welcome(shared: &Shared, version: u16, in_progress_max: u32) -> [u8; HELLO_LEN] {
    let welcome = Welcome {
        versions: shared.versions.clone(),
        cluster: shared.me.cluster,
        version,
        node: shared.me.node,
        in_progress_max,
    };
    welcome.encode()
}
