//! Why a call brought no answer.

use super::frame::BODY_MAX;
use super::hello::Reason;
use super::service::Service;
use crate::base::NodeId;
use std::fmt;
use std::time::Duration;

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// There is no connection, or it was lost, or the service there broke down over it: what was asked may have been done or not.
    Unreachable { why: String },
    /// The other side does not take this node's connections, and says why. Asking again helps only when something is changed.
    NotWelcome { reason: Reason, why: String },
    /// The service there said no, or its answer is longer than a frame.
    Refused { why: String },
    /// The other node does not know the service, or does not serve it: it is older, or not a member of the manager.
    Unsupported { service: Service },
    /// No answer came in time: what was asked may have been done or not.
    TimedOut { within: Duration },
    /// The request or the answer is longer than a frame.
    TooLarge { len: usize },
    /// Too much is under way to that node.
    Busy { why: &'static str },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Unreachable { why } => write!(f, "cannot be reached: {why}"),
            CallError::NotWelcome { why, .. } => write!(f, "it refuses this node: {why}"),
            CallError::Refused { why } => write!(f, "it refused: {why}"),
            CallError::Unsupported { service } => write!(
                f,
                "it does not serve {service}: it is older, or not the node for that"
            ),
            CallError::TimedOut { within } => write!(f, "no answer within {within:?}"),
            CallError::TooLarge { len } => {
                write!(f, "{len} bytes are more than one call carries ({BODY_MAX})")
            }
            CallError::Busy { why } => f.write_str(why),
        }
    }
}

impl std::error::Error for CallError {}

impl CallError {
    pub(super) fn unreachable(why: impl Into<String>) -> CallError {
        CallError::Unreachable { why: why.into() }
    }

    pub(super) fn no_address(node: NodeId) -> CallError {
        CallError::unreachable(format!("no address of node {node} is known"))
    }
}
