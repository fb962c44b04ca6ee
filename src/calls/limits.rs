//! What everything is held against.

use std::time::Duration;

/// Bounds of a node's calls. The values are those that a daemon runs with; tests make them smaller.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From the accepting of a connection to its welcome, and from dialling to it.
    pub handshake: Duration,
    /// Connections that have not got that far.
    pub handshakes_max: usize,
    /// Connections that others have to this node: three of each of the 1,024 nodes that a catalog has at most (which this room does not know), and some
    /// that are lost and not given up here yet.
    pub connections_max: usize,
    /// Calls of one connection that are worked on at once; more wait at the caller. Of bulk at most as many as fit whole into `bytes_max`.
    pub in_progress_max: u32,
    /// Bytes of requests in memory, of one connection.
    pub bytes_max: usize,
    /// How often something is sent, so that the other side knows that this one is there.
    pub beat: Duration,
    /// How long nothing may come before the other side counts as gone: three beats.
    pub silence: Duration,
    /// How long a piece of 64 KiB may take that has begun.
    pub stall: Duration,
    /// How long a node is not dialled again after the first failure; doubled with each one more.
    pub back_off_min: Duration,
    pub back_off_max: Duration,
    /// The longest that a handler is given.
    pub within_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            handshake: Duration::from_secs(5),
            handshakes_max: 64,
            connections_max: 3 * 1024 + 64,
            in_progress_max: 1024,
            bytes_max: 64 << 20,
            beat: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            stall: Duration::from_secs(10),
            back_off_min: Duration::from_millis(50),
            back_off_max: Duration::from_secs(2),
            within_max: Duration::from_secs(3600),
        }
    }
}
