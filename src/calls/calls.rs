//! The door: one node's calls to others, and what others call it for.

use super::conduit::Conduit;
use super::connection::Connection;
use super::counts::Counts;
use super::error::CallError;
use super::frame::BODY_MAX;
use super::hello::{Purpose, VERSIONS};
use super::limits::Limits;
use super::link::{End, Link};
use super::node::{Answering, Caller, Shared, lock};
use super::peer::{Peer, dial_node};
use super::security::{Me, Security};
use super::serve::listen;
use super::service::{Class, Service};
use crate::base::{ClusterId, NodeId};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Nodes whose addresses are known.
pub const PEERS_MAX: usize = 1024;
/// Addresses of one node.
pub const ADDRESSES_MAX: usize = 8;
/// Links that were made and not taken.
const LINKS_MAX: usize = 256;

/// Whether a call that brought no answer was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It certainly did not arrive, or was certainly not looked at.
    Not,
    /// It may have been done or not.
    Perhaps,
}

/// One node's calls. Cheap to clone; when the last clone is gone, its connections to others end.
#[derive(Clone)]
pub struct Calls(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// Of each node, its connections by class.
    peers: Mutex<BTreeMap<NodeId, [Arc<Peer>; Class::ALL.len()]>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // One that is just being dialled refers to its peer.
        for peer in lock(&self.peers).values().flatten() {
            peer.cut("this node is shutting down");
        }
    }
}

/// A listener; dropped, it takes no more connections and ends those that it took.
#[derive(Debug)]
pub struct Listening {
    task: AbortHandle,
    address: SocketAddr,
}

impl Listening {
    /// Where it listens: with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Calls {
    /// Calls of the node that `security` says it is.
    ///
    /// # Errors
    /// Where that is a user.
    pub fn new(security: Security, limits: Limits) -> Result<Calls, String> {
        Calls::speaking(security, limits, VERSIONS)
    }

    /// As a build of other versions would.
    pub(super) fn speaking(
        security: Security,
        limits: Limits,
        versions: RangeInclusive<u16>,
    ) -> Result<Calls, String> {
        let shared = Shared::new(Me::of(security)?, limits, versions);
        Ok(Calls(Arc::new(Inner {
            shared: Arc::new(shared),
            peers: Mutex::default(),
        })))
    }

    pub fn node(&self) -> NodeId {
        self.0.shared.me.node
    }

    pub fn cluster(&self) -> ClusterId {
        self.0.shared.me.cluster
    }

    /// Whether who calls is proven.
    pub fn is_authenticated(&self) -> bool {
        matches!(self.0.shared.me.security, Security::MutualTls(_))
    }

    /// What happened at this node's door.
    pub fn counts(&self) -> Counts {
        self.0.shared.counters.now()
    }

    /// Serves `service` from now on, in place of what served it before. The future is dropped when nobody waits for it any more: what has to be
    /// finished all the same, it spawns. An error goes to the caller in its words. A handler that holds a clone of these calls keeps them alive until it is replaced.
    pub fn handle<F, A>(&self, service: Service, handler: F)
    where
        F: Fn(Caller, Vec<u8>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Vec<u8>, String>> + Send + 'static,
    {
        let boxed = move |caller, body| -> Answering { Box::pin(handler(caller, body)) };
        self.0.shared.handle(service, Some(Arc::new(boxed)));
    }

    /// No longer serves `service`: who asks is told so.
    pub fn stop_handling(&self, service: Service) {
        self.0.shared.handle(service, None);
    }

    /// Asks `admit` of each connection and each call whether that node may still call: certificates are not revoked, but nodes are removed. Its words go to the node.
    pub fn admit_by(&self, admit: impl Fn(NodeId) -> Result<(), String> + Send + Sync + 'static) {
        self.0.shared.set_admit(Arc::new(admit));
    }

    /// Takes data links from now on; they come out here, each authenticated. Where 256 wait, more are refused. Whoever called this before gets no more.
    pub fn links(&self) -> mpsc::Receiver<Link> {
        let (sender, links) = mpsc::channel(LINKS_MAX);
        self.0.shared.set_links(sender);
        links
    }

    /// Serves whoever connects.
    ///
    /// # Errors
    /// Where the listener has no address.
    pub fn listen(&self, listener: TcpListener) -> std::io::Result<Listening> {
        let address = listener.local_addr()?;
        let task = tokio::spawn(listen(self.0.shared.clone(), listener));
        Ok(Listening {
            task: task.abort_handle(),
            address,
        })
    }

    /// Where a node is reached. At most 8 addresses are kept, of at most 1024 nodes.
    ///
    /// # Errors
    /// Where there are more nodes.
    pub fn set_addresses(&self, node: NodeId, addresses: &[SocketAddr]) -> Result<(), CallError> {
        let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
        let mut peers = lock(&self.0.peers);
        if let Some(known) = peers.get(&node) {
            known.iter().for_each(|peer| peer.move_to(addresses));
            return Ok(());
        }
        if peers.len() >= PEERS_MAX {
            let why = "the addresses of as many nodes are known as there is room for";
            return Err(CallError::Busy { why });
        }
        let peer = |class| Arc::new(Peer::new(node, class, addresses.to_vec()));
        peers.insert(node, Class::ALL.map(peer));
        Ok(())
    }

    /// Forgets a node: its connections end, and calls under way fail.
    pub fn forget(&self, node: NodeId) {
        let known = lock(&self.0.peers).remove(&node);
        for peer in known.iter().flatten() {
            peer.cut("the node was forgotten");
        }
    }

    fn peer(&self, node: NodeId, class: Class) -> Result<Arc<Peer>, CallError> {
        let peers = lock(&self.0.peers);
        let known = peers
            .get(&node)
            .ok_or_else(|| CallError::no_address(node))?;
        Ok(known[class as usize].clone())
    }

    /// Makes the connection that carries `service`, where there is none, so that the first call on it does not wait for a handshake.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn connect(&self, to: NodeId, service: Service) -> Result<(), CallError> {
        if to == self.node() {
            return Ok(());
        }
        let peer = self.peer(to, service.class())?;
        peer.connection(&self.0.shared).await.map(drop)
    }

    /// Asks a node, and waits for its answer. `body` and answer have at most 4 MiB.
    ///
    /// # Errors
    /// See [`CallError`]. Where the call is dropped, the other side is told to forget it.
    pub async fn call(
        &self,
        to: NodeId,
        service: Service,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let answered = self.call_or_not(to, service, body, within).await;
        answered.map_err(|(_, error)| error)
    }

    /// The same, and says of a call that brought no answer whether it was sent at all: one that was not may be asked of another node without fear that
    /// it is done twice.
    ///
    /// # Errors
    /// As [`Calls::call`].
    pub async fn call_or_not(
        &self,
        to: NodeId,
        service: Service,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, (Sent, CallError)> {
        let perhaps = |error| (Sent::Perhaps, error);
        if to == self.node() {
            let answered = self.call_self(service, body, within).await;
            return answered.map_err(perhaps);
        }
        let not = |error| (Sent::Not, error);
        let deadline = Instant::now() + within;
        let peer = self.peer(to, service.class()).map_err(not)?;
        let connection = timeout_at(deadline, peer.connection(&self.0.shared)).await;
        let connection = connection.map_err(|_| not(CallError::TimedOut { within }))?;
        let connection = connection.map_err(not)?;
        let left = deadline.saturating_duration_since(Instant::now());
        match connection.call(service, body, left).await {
            Err(CallError::TimedOut { .. }) => Err(perhaps(CallError::TimedOut { within })),
            Err(error @ (CallError::Busy { .. } | CallError::Unsupported { .. })) => {
                Err(not(error))
            }
            answered => answered.map_err(perhaps),
        }
    }

    /// What one asks of oneself needs no connection, and is answered by the same handler.
    async fn call_self(
        &self,
        service: Service,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, CallError> {
        // Nobody is to get used to more than others take.
        let fits = |body: &[u8]| match body.len() {
            0..=BODY_MAX => Ok(()),
            len => Err(CallError::TooLarge { len }),
        };
        fits(&body)?;
        let handler = self.0.shared.handler(service);
        let handler = handler.ok_or(CallError::Unsupported { service })?;
        match timeout(within, handler(self.me(), body)).await {
            Ok(answer) => {
                let answer = answer.map_err(|why| CallError::Refused { why })?;
                fits(&answer).map(|()| answer)
            }
            Err(_) => Err(CallError::TimedOut { within }),
        }
    }

    fn me(&self) -> Caller {
        Caller {
            node: Some(self.node()),
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        }
    }

    /// Tells a node something that nobody answers. It arrives once or not at all, and this never waits. Like everything here it needs the runtime around it.
    ///
    /// # Errors
    /// Where it is known already that it will not arrive.
    pub fn tell(&self, to: NodeId, service: Service, body: Vec<u8>) -> Result<(), CallError> {
        if body.len() > BODY_MAX {
            return Err(CallError::TooLarge { len: body.len() });
        }
        if to == self.node() {
            let handler = self.0.shared.handler(service);
            let handler = handler.ok_or(CallError::Unsupported { service })?;
            let told = timeout(self.0.shared.limits.stall, handler(self.me(), body));
            tokio::spawn(told);
            return Ok(());
        }
        self.peer(to, service.class())?
            .tell(&self.0.shared, service, body)
    }

    /// Makes a data link to a shard of a node, trying its addresses one after the other.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn link(&self, to: NodeId, shard: u16) -> Result<Link, CallError> {
        let addresses = self.peer(to, Class::Bulk)?.addresses();
        let mut last = CallError::no_address(to);
        for address in addresses {
            match dial_node(&self.0.shared, to, address, Purpose::Link(shard)).await {
                Ok((Conduit::Link(tunnel), welcome)) => {
                    let link = tunnel.into_link(to, shard, welcome.version, End::Dialled, address);
                    return link.map_err(|error| CallError::unreachable(error.to_string()));
                }
                Ok(_) => return Err(CallError::unreachable("what was dialled is no link")),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// A call over a connection of its own, of one who is nobody yet.
pub(super) async fn call_once(
    conduit: Conduit,
    welcome: &super::hello::Welcome,
    address: SocketAddr,
    body: Vec<u8>,
    within: Duration,
) -> Result<Vec<u8>, CallError> {
    let limits = Limits::default();
    let connection = Connection::start(conduit, welcome, address, &limits);
    let connection = connection.ok_or_else(|| CallError::unreachable("it is a link"))?;
    connection.call(Service::Join, body, within).await
}
