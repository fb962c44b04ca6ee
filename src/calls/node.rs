//! What the parts of one node's calls share.

use super::counts::Counters;
use super::limits::Limits;
use super::link::Link;
use super::security::Me;
use super::service::Service;
use crate::base::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Proven by a certificate, or believed where connections are plain. `None`: one who has none, and asks to join.
    pub node: Option<NodeId>,
    pub address: SocketAddr,
}

/// What a handler gives: an answer, or why there is none.
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;
pub(super) type Handler = Arc<dyn Fn(Caller, Vec<u8>) -> Answering + Send + Sync>;
type Admit = Arc<dyn Fn(NodeId) -> Result<(), String> + Send + Sync>;

pub(super) struct Shared {
    pub me: Me,
    pub limits: Limits,
    pub versions: RangeInclusive<u16>,
    pub counters: Counters,
    /// At most one a service.
    handlers: Mutex<BTreeMap<Service, Handler>>,
    links: Mutex<Option<mpsc::Sender<Link>>>,
    admit: Mutex<Option<Admit>>,
}

/// A lock whose holder panicked holds what it held: everything here is changed in one step.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(me: Me, limits: Limits, versions: RangeInclusive<u16>) -> Shared {
        Shared {
            me,
            limits,
            versions,
            counters: Counters::default(),
            handlers: Mutex::default(),
            links: Mutex::default(),
            admit: Mutex::default(),
        }
    }

    pub fn handler(&self, service: Service) -> Option<Handler> {
        lock(&self.handlers).get(&service).cloned()
    }

    pub fn handle(&self, service: Service, handler: Option<Handler>) {
        let mut handlers = lock(&self.handlers);
        match handler {
            Some(handler) => handlers.insert(service, handler),
            None => handlers.remove(&service),
        };
    }

    pub fn links(&self) -> Option<mpsc::Sender<Link>> {
        lock(&self.links).clone()
    }

    pub fn set_links(&self, links: mpsc::Sender<Link>) {
        *lock(&self.links) = Some(links);
    }

    pub fn set_admit(&self, admit: Admit) {
        *lock(&self.admit) = Some(admit);
    }

    /// Whether the owner still wants this node here.
    pub fn admits(&self, node: NodeId) -> Result<(), String> {
        let admit = lock(&self.admit).clone();
        admit.map_or(Ok(()), |admit| admit(node))
    }
}
