//! The NBD server, without its sockets.
//!
//! # What it is
//!
//! [`Session`] is the protocol half of one client's connection: bytes go in, [`Event`]s and bytes
//! come out. It knows no socket, no clock and no volume; the driver (the runtime, or a test) has
//! those.
//!
//! ```text
//!          receive(input)                  base::Request
//!  client ────────────────> Session ─ Event ─> driver ────────> shard
//!         <─ out, payload ─         <─ reply ─        <──────── base::Reply
//!
//!  session        one connection            door      limits, events, refusals
//!  negotiation    the handshake             option    what is asked and told in it
//!  transmission   requests, slots           request   headers and what becomes of them
//!  reply          replies as bytes          fields    bytes that come in pieces
//!  before_tls     what is said in the clear spec      the numbers of the protocol
//! ```
//!
//! # What is spoken
//!
//! Fixed newstyle only. Structured replies and extended headers (64-bit lengths) where the client
//! asks, simple replies where it does not. One metadata context, `base:allocation`. STARTTLS is
//! refused by policy, but where only TLS is served: there [`BeforeTls`] is the handshake until it, and the session begins behind it. A client may ask for any offset and length inside the export; only a volume
//! with 4 KiB sectors says that it likes whole blocks better.
//!
//! FUA is accepted with everything and never looked at: what is acknowledged is durable. That is
//! also why `CAN_MULTI_CONN` is true: a flush on one connection has nothing left to do for the
//! others. `CACHE` is checked and answered at once. `NO_HOLE` together with `FAST_ZERO` is refused
//! with ENOTSUP.
//!
//! # What becomes of nonsense
//!
//! A command or option that is not known, has wrong flags, a wrong length or a wrong range is
//! answered with the protocol's error and the connection is kept; data that came with it is
//! skipped up to [`Limits::skip_bytes`]. Only what makes the rest of the stream unreadable, or may
//! not be answered, ends the connection: [`Violation`]. Nothing is stored or allocated by a length
//! that was not checked.
//!
//! # The driver's duties
//!
//! 1. Send what [`Session::new`] put out. From then on send everything any call appends to `out`,
//!    in the order in which it was appended, and nothing in between except the data of reads (6).
//! 2. Give received bytes to [`Session::receive`] and do what the event says, one at a time, until
//!    it says [`Event::NeedMore`]. Give the bytes that were not taken again, after what the event
//!    asks for was done.
//! 3. Answer [`Event::Open`] and [`Event::List`] once each, whenever the answer is there, and call
//!    `receive` again afterwards even where no input is left: only so it is learned that a refusal
//!    ended the connection. For [`Purpose::Attach`] take the attachment first, and give it back
//!    when the connection ends.
//! 4. After the [`Event::Command`] of a write the stream goes on with its data. `receive` says
//!    [`Event::Payload`], and takes nothing, until all of it was taken by the driver, who says so
//!    with [`Session::payload_taken`]; in pieces or as a whole, out of the input or straight from
//!    the socket. Other replies may be given meanwhile. The write is submitted when its data is
//!    complete.
//! 5. Answer every [`Event::Command`] once with [`Session::reply`], in any order, after
//!    [`Event::Disconnect`] too. Where the connection is gone, do not: drop the session when the
//!    last request has come back.
//! 6. Where [`Session::reply`] gives a length, send that many bytes of the read directly behind
//!    what was appended, before anything that is appended later: `writev` of header and buffer.
//!    The data starts `offset % 4096` bytes into the request's buffer.
//! 7. On [`Event::Full`] stop receiving from the client until a reply was given.
//! 8. Do not call `receive` while much output waits to be sent: a client that sends but does not
//!    read must not grow it. One `receive` appends less than 256 bytes, [`Session::opened`] less
//!    than 10 KiB, a block status what [`Limits::descriptors`] allows, [`Session::listed`] what it
//!    is given.
//! 9. Cut off a client that does not get through its handshake in good time, and bound how many
//!    may try. Call [`Session::rest`] where a connection has been quiet for a while.
//! 10. Carry out [`Zeroing::KeepAllocated`] as writes of zeroes.
//! 11. Say [`Session::set_size`] to every session of a volume when it was resized.
//!
//! A driver that breaks 3, 4 or 5 is in error, and the session panics; no client can bring that
//! about.

#![forbid(unsafe_code)]

mod before_tls;
mod door;
mod fields;
mod negotiation;
mod option;
mod reply;
mod request;
mod session;
mod spec;
mod transmission;

#[cfg(test)]
mod tests;

pub use before_tls::{BeforeTls, Clear};
pub use door::{
    Command, Event, Export, ExportInfo, Limits, Purpose, Refusal, Slot, Violation, Zeroing,
};
pub use session::Session;
