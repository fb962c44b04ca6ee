//! What happened at the door, for status and metrics, and the last refusals in their words.

use super::hello::Reason;
use super::node::lock;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;

/// Refusals that are kept in words.
const LAST_MAX: usize = 32;

/// Somebody who was not let in, or was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turned {
    pub from: SocketAddr,
    pub why: String,
}

/// Since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted, before anything was said.
    pub accepted: u64,
    /// Those that got through the handshake.
    pub welcomed: u64,
    /// Those that did not, by what was told them.
    pub refused: BTreeMap<Reason, u64>,
    /// Those that hung up, or broke, amid their handshake.
    pub gone: u64,
    /// Those whose handshake failed in TLS.
    pub tls_failed: u64,
    /// Those that were cut off later, because they broke the framing.
    pub broken: u64,
    /// Likewise, because nothing came, or what came or went took too long.
    pub silent: u64,
    /// Calls that a handler was given.
    pub calls: u64,
    /// Calls for what is not served.
    pub unsupported: u64,
    /// The last that were turned away, the oldest first.
    pub last: VecDeque<Turned>,
}

/// The counters of one node.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<Counts>);

impl Counters {
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.0));
    }

    pub fn turned(&self, from: SocketAddr, why: &str, change: impl FnOnce(&mut Counts)) {
        tracing::warn!(%from, "a connection is turned away: {why}");
        self.count(|counts| {
            change(counts);
            if counts.last.len() == LAST_MAX {
                counts.last.pop_front();
            }
            let why = why.to_owned();
            counts.last.push_back(Turned { from, why });
        });
    }

    pub fn now(&self) -> Counts {
        lock(&self.0).clone()
    }
}
