//! One of the connections to a peer: dialled when something is to be said, dialled again after it was lost, but not at once and not ever faster.

use super::connection::{Connection, WAITING_BYTES_MAX};
use super::dial::{Protection, dial};
use super::error::CallError;
use super::hello::{Hello, Purpose};
use super::node::{Shared, lock};
use super::security::Security;
use super::serve::units;
use super::service::{Class, Service};
use crate::base::NodeId;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::time::Instant;

/// What was told while the connection was being made, and waits for it: so many, and of at most as many bytes as a connection takes at once.
const TOLD_MAX: usize = 64;

enum State {
    /// Nothing was tried, or the last trial failed: until `again`, with `why`.
    Down {
        again: Option<Instant>,
        error: Option<CallError>,
    },
    Dialling(watch::Receiver<()>),
    Up(Arc<Connection>),
}

pub(super) struct Peer {
    node: NodeId,
    class: Class,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    addresses: Vec<SocketAddr>,
    /// Failures one after the other.
    failures: u32,
    told: VecDeque<(Service, Vec<u8>)>,
}

impl Peer {
    pub fn new(node: NodeId, class: Class, addresses: Vec<SocketAddr>) -> Peer {
        Peer {
            node,
            class,
            inner: Mutex::new(Inner {
                state: State::Down {
                    again: None,
                    error: None,
                },
                addresses,
                failures: 0,
                told: VecDeque::new(),
            }),
        }
    }

    /// Where the node is now. A connection to somewhere else is cut; what was learned of the old addresses is forgotten.
    pub fn move_to(&self, addresses: &[SocketAddr]) {
        let mut inner = lock(&self.inner);
        if inner.addresses == addresses {
            return;
        }
        inner.addresses = addresses.to_vec();
        inner.failures = 0;
        match &inner.state {
            State::Up(connection) if !addresses.contains(&connection.address) => {
                connection.cut("the node has another address now");
            }
            State::Up(_) | State::Dialling(_) => return,
            State::Down { .. } => {}
        }
        inner.state = State::Down {
            again: None,
            error: None,
        };
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        lock(&self.inner).addresses.clone()
    }

    /// Ends the connection; it is not made again by itself.
    pub fn cut(&self, why: &str) {
        let mut inner = lock(&self.inner);
        if let State::Up(connection) = &inner.state {
            connection.cut(why);
        }
        inner.told.clear();
        inner.addresses.clear();
    }

    /// The connection, made if need be.
    pub async fn connection(
        self: &Arc<Peer>,
        shared: &Arc<Shared>,
    ) -> Result<Arc<Connection>, CallError> {
        loop {
            let mut dialling = match self.look(shared) {
                Look::Up(connection) => return Ok(connection),
                Look::Down(error) => return Err(error),
                Look::Dialling(dialling) => dialling,
            };
            // An error means that the sender is gone: the dialling is over.
            dialling.changed().await.ok();
        }
    }

    /// Says something, now or as soon as the connection is made.
    pub fn tell(
        self: &Arc<Peer>,
        shared: &Arc<Shared>,
        service: Service,
        body: Vec<u8>,
    ) -> Result<(), CallError> {
        loop {
            match self.look(shared) {
                Look::Up(connection) => return connection.tell(service, body),
                Look::Down(error) => return Err(error),
                Look::Dialling(_) => {}
            }
            let mut inner = lock(&self.inner);
            // The dialling may have ended since, and with it whoever says what waits.
            if matches!(inner.state, State::Dialling(_)) {
                return inner.keep(service, body);
            }
        }
    }

    fn look(self: &Arc<Peer>, shared: &Arc<Shared>) -> Look {
        let mut inner = lock(&self.inner);
        if let State::Up(connection) = &inner.state {
            let Some(why) = connection.ended() else {
                return Look::Up(connection.clone());
            };
            // One that lived is dialled again at once; one that was lost as soon as it was made counts as a failure.
            let lived = connection.since.elapsed() > shared.limits.back_off_max;
            inner.fail(shared, (!lived).then(|| CallError::unreachable(why)));
        }
        match &inner.state {
            State::Up(connection) => Look::Up(connection.clone()),
            State::Dialling(dialling) => Look::Dialling(dialling.clone()),
            State::Down {
                again: Some(again),
                error: Some(error),
            } if *again > Instant::now() => Look::Down(error.clone()),
            State::Down { .. } if inner.addresses.is_empty() => {
                Look::Down(CallError::no_address(self.node))
            }
            State::Down { .. } => {
                let (done, dialling) = watch::channel(());
                inner.state = State::Dialling(dialling.clone());
                let addresses = inner.addresses.clone();
                let (peer, shared) = (self.clone(), shared.clone());
                tokio::spawn(async move {
                    let found = peer.dial(&shared, &addresses).await;
                    peer.done(&shared, found, &addresses);
                    drop(done);
                    peer.go_on(&shared);
                });
                Look::Dialling(dialling)
            }
        }
    }

    /// Dials again where something still waits to be said: the node moved while it was dialled.
    fn go_on(self: &Arc<Peer>, shared: &Arc<Shared>) {
        if lock(&self.inner).told.is_empty() {
            return;
        }
        if let Look::Down(error) = self.look(shared) {
            tracing::info!(node = %self.node, "what was told is not said: {error}");
            lock(&self.inner).told.clear();
        }
    }

    /// Tries one address after the other.
    async fn dial(
        &self,
        shared: &Shared,
        addresses: &[SocketAddr],
    ) -> Result<Connection, CallError> {
        let purpose = Purpose::Calls(self.class);
        let mut last = CallError::no_address(self.node);
        for address in addresses {
            match dial_node(shared, self.node, *address, purpose).await {
                Ok((conduit, welcome)) => {
                    let made = Connection::start(conduit, &welcome, *address, &shared.limits);
                    return made.ok_or(last);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn done(&self, shared: &Shared, found: Result<Connection, CallError>, dialled: &[SocketAddr]) {
        let mut inner = lock(&self.inner);
        match found {
            // It moved meanwhile.
            _ if inner.addresses != dialled => {
                inner.state = State::Down {
                    again: None,
                    error: None,
                };
            }
            Ok(connection) => {
                for (service, body) in inner.told.drain(..) {
                    connection.tell(service, body).ok();
                }
                inner.state = State::Up(Arc::new(connection));
            }
            Err(error) => {
                tracing::info!(node = %self.node, class = ?self.class, "cannot connect: {error}");
                inner.told.clear();
                inner.fail(shared, Some(error));
            }
        }
    }
}

impl Inner {
    /// Keeps what was told until the connection is there.
    fn keep(&mut self, service: Service, body: Vec<u8>) -> Result<(), CallError> {
        let bytes: u32 = self.told.iter().map(|(_, body)| units(body.len())).sum();
        let has_room = bytes + units(body.len()) <= units(WAITING_BYTES_MAX);
        if self.told.len() >= TOLD_MAX || !has_room {
            let why = "too much waits for the connection to that node";
            return Err(CallError::Busy { why });
        }
        self.told.push_back((service, body));
        Ok(())
    }

    /// Waits before the next trial, where this one failed with `error`.
    fn fail(&mut self, shared: &Shared, error: Option<CallError>) {
        let (min, max) = (shared.limits.back_off_min, shared.limits.back_off_max);
        let wait = min.saturating_mul(1 << self.failures.min(16)).min(max);
        self.failures = match error {
            Some(_) => self.failures.saturating_add(1),
            None => 0,
        };
        self.state = State::Down {
            again: error.is_some().then(|| Instant::now() + wait),
            error,
        };
    }
}

enum Look {
    Up(Arc<Connection>),
    Down(CallError),
    Dialling(watch::Receiver<()>),
}

/// Dials a node of the cluster.
pub(super) async fn dial_node(
    shared: &Shared,
    node: NodeId,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<(super::conduit::Conduit, super::hello::Welcome), CallError> {
    let me = &shared.me;
    me.allows(address).map_err(CallError::unreachable)?;
    let hello = Hello {
        versions: shared.versions.clone(),
        cluster: me.cluster,
        from: Some(me.node),
        to: Some(node),
        purpose,
    };
    let node_of =
        |certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>| me.node_of(certificates);
    let protection = match (&me.tls, &me.security) {
        (Some(tls), Security::MutualTls(_)) => Protection::Tls {
            config: match purpose {
                Purpose::Link(_) => tls.links.1.clone(),
                _ => tls.calls.1.clone(),
            },
            node_of: Some(&node_of),
        },
        _ => Protection::Plain,
    };
    dial(address, protection, &hello, shared.limits.handshake).await
}
