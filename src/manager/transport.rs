//! How a manager reaches another: one question, one answer. The daemon has it over mutual TLS; tests have it in a process.

use crate::base::NodeId;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// The longest message either way, in bytes.
pub const MESSAGE_MAX: usize = 1 << 20;
/// How much of a snapshot one message carries, in bytes: half of what it may have.
pub(super) const PART_BYTES: usize = MESSAGE_MAX / 2;
/// The largest snapshot that is taken from another node, in bytes.
pub(super) const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// No answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreachable {
    /// The question certainly did not arrive: there was no connection to send it on. It may be asked elsewhere.
    NotSent(String),
    /// Nobody knows whether it arrived.
    NoAnswer(String),
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreachable::NotSent(why) | Unreachable::NoAnswer(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for Unreachable {}

/// An answer that is on its way.
pub type Calling<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, Unreachable>> + Send + 'a>>;

/// Carries questions to other nodes' [`Manager::serve`](super::Manager::serve).
///
/// What is asked of who implements it:
/// - who asks is authenticated: `serve` is told the node whose certificate it was;
/// - bodies of up to [`MESSAGE_MAX`] go through, longer answers are cut off with an error;
/// - calls to one node may overlap, up to some tens, and a slow one (a node waits up to seconds for news) holds no other up;
/// - a call ends after `within` at the latest. To lose, delay, reorder or repeat is harmless.
pub trait Transport: Send + Sync + 'static {
    fn call(&self, to: NodeId, body: Vec<u8>, within: Duration) -> Calling<'_>;
}

/// Reaches nobody: for a node that is alone.
pub struct Nobody;

impl Transport for Nobody {
    fn call(&self, to: NodeId, _: Vec<u8>, _: Duration) -> Calling<'_> {
        Box::pin(async move {
            Err(Unreachable::NotSent(format!(
                "this node is alone, and does not reach node {to}"
            )))
        })
    }
}
