#![forbid(unsafe_code)]
//! Requests and answers between nodes: what carries Raft, leases, reports, the catalog, joins. It carries bytes, and knows nothing of what they say.
//!
//! ```text
//!   call(to, service, body, within) ──► Peer, urgent ═══ one connection ═══► listener ──► handler of the service
//!   tell(to, service, body)         └─► Peer, bulk   ═══ one connection ═══►    │
//!                                                                               │
//!   link(to, shard) ═══════════════════ one connection each ═══════════════►    └──► links(): authenticated sockets, for shards
//! ```
//!
//! A connection has one direction: who dialled asks, and who accepted answers. Between two nodes that both ask there are four, and two more for leases, which are
//! worked by a runtime of their own. They begin with a handshake
//! (`hello.rs`) that says who speaks, who is meant, what for, and in which versions, under mutual TLS unless [`Security`] says otherwise; and go on with frames (`frame.rs`).
//!
//! # Invariants
//! - *everything-ends*: a call ends with an answer, a refusal, the end of its time, or that of its connection, whichever is first; one that is dropped is forgotten on both sides.
//! - *nothing-waits-behind*: answers come in any order; what is urgent has a connection of its own.
//! - *bounded*: handshakes in number and time, connections, calls in progress, bytes of requests and of what waits to be sent, words of a refusal, and how long nothing may come
//!   ([`Limits`]). Full is an answer, or the reader waits.
//! - *said-on-both-sides*: who is turned away hears the reason in words, in the clear where TLS is what the two disagree about; the log and [`Counts`] of who turned him away have it too.
//! - *once-or-not*: what is told, or asked, reaches its handler once or not at all. After [`CallError::Unreachable`] and [`CallError::TimedOut`] nobody knows which.
//!
//! Dialling fails fast: while a node is not dialled again, after a failure, calls to it fail with the reason of that, at once.
//!
//! # In a few lines
//! ```ignore
//! // sarsen cluster init
//! let authority = Arc::new(Authority::create(&data_dir.join("trust"), Clock::system())?);
//! // sarsen cluster token
//! println!("{}", authority.token(Grant::Join, &addresses, life)?.text());
//! // sarsen join ADDR --token T
//! let joined = join(&Joining { token: &Token::read(&text)?, also: &[addr], .. }).await?;
//! // The daemon
//! let calls = Calls::new(Security::MutualTls(keeper.clone()), Limits::default())?;
//! calls.serve_joins(authority.clone(), |joiner| async move { .. });
//! calls.serve_renewals(authority);
//! let listening = calls.listen(TcpListener::bind(address).await?)?;
//! tokio::spawn(async move { calls.keep_renewed(keeper, members, look).await });
//! ```
//!
//! It does not know which nodes there are, what a service means, or how a shard uses a link.

mod accept;
#[allow(clippy::module_inception)] // The room's one type has the room's name.
mod calls;
mod conduit;
mod connection;
mod counts;
mod dial;
mod error;
mod frame;
mod hello;
mod join;
mod limits;
mod link;
mod node;
mod peer;
mod relay;
mod renew;
mod secure;
mod security;
mod serve;
mod service;
mod stream;

#[cfg(test)]
mod tests;

pub use calls::{ADDRESSES_MAX, Calls, Listening, PEERS_MAX, Sent};
pub use counts::{Counts, Turned};
pub use error::CallError;
pub use frame::BODY_MAX;
pub use hello::Reason;
pub use join::{Admitted, JoinError, Joined, Joiner, Joining, Member, join};
pub use limits::Limits;
pub use link::{End, Link, LinkCover};
pub use node::Caller;
pub use secure::Secured;
pub use security::Security;
pub use service::{Class, Service};
