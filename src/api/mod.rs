//! The API: HTTP and JSON under `/v1` on a unix socket, and over TLS on TCP; and the client of it that the command line uses.
//!
//! ```text
//!   client ──unix socket────────────► server ──► routes ──► host ──► manager (what is wanted, durably)
//!          ──TLS──► who is it? ──► role ──►                     └──► runtime (the shards that carry it out)
//! ```
//!
//! [`model`] is the contract. Every refusal is an [`model::ErrorBody`] with a code, a message, the field that is
//! meant and a hint. The socket's mode is its access control: whoever may open it may do
//! everything. Over TCP a client's certificate or token says his role, and `routes::role` what that is enough for.

pub mod client;
pub mod host;
pub mod model;
mod remote;
mod routes;
mod server;
pub mod size;
mod stream_crc;

pub use remote::Remote;
pub use server::{serve, serve_tls};
pub use stream_crc::StreamCrc;

#[cfg(test)]
mod tests;
