//! The API: HTTP and JSON under `/v1` on a unix socket, and the client of it that the command line uses.
//!
//! ```text
//!   client ──unix socket──► server ──► routes ──► host ──► manager (what is wanted, durably)
//!                                                      └──► runtime (the shards that carry it out)
//! ```
//!
//! [`model`] is the contract. Every refusal is an [`model::ErrorBody`] with a code, a message, the field that is
//! meant and a hint. The socket's mode is the access control: whoever may open it may do everything.

pub mod client;
pub mod host;
pub mod model;
mod routes;
mod server;
pub mod size;
mod stream_crc;

pub use server::serve;
pub use stream_crc::StreamCrc;

#[cfg(test)]
mod tests;
