//! The words between a [`Session`](super::Session) and its driver.

use crate::base::{RequestKind, VolumeId};
use std::fmt;

/// What one connection may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Data of one option, in bytes. A name may have 4096, so 4096 more are left for what is asked
    /// about it.
    pub option_bytes: u32,
    /// Options in one handshake. `qemu-nbd --list` asks two of every export over one connection,
    /// so this also bounds how many exports it can list.
    pub options: u32,
    /// Data of one read or write, in bytes; told to the client. From 4096 to 1 GiB.
    pub payload_bytes: u32,
    /// Data of a refused write or option that is read and dropped so that the connection can be
    /// kept, in bytes. A client that announces more is cut off.
    pub skip_bytes: u64,
    /// Commands in flight.
    pub in_flight: u16,
    /// Runs in one block status reply, 8 or 16 bytes each. At least 1.
    pub descriptors: u16,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            option_bytes: 8192,
            options: 16 * 1024,
            payload_bytes: 32 << 20,
            skip_bytes: 64 << 20,
            in_flight: 128,
            descriptors: 4096, // at most 64 KiB of reply
        }
    }
}

/// What the driver is to do next. One at a time: see the driver's duties in [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// All of the input was taken; receive more.
    NeedMore,
    /// The session answered something by itself: the output has grown.
    Answered,
    /// Look up [`Session::export_wanted`](super::Session::export_wanted) and answer with
    /// [`Session::opened`](super::Session::opened).
    Open(Purpose),
    /// Answer with [`Session::listed`](super::Session::listed).
    List,
    /// [`Event::Open`] or [`Event::List`] is not answered yet; nothing was taken.
    Waiting,
    /// Carry this out and answer with [`Session::reply`](super::Session::reply).
    Command(Command),
    /// The next `left` bytes of the stream are the data of the write in `slot`. Take as many of
    /// them as are there and say so with
    /// [`Session::payload_taken`](super::Session::payload_taken).
    Payload { slot: Slot, left: u32 },
    /// As many commands are in flight as may be; nothing was taken. Go on after the next reply.
    Full,
    /// The client is done, or was refused in a way that ends the connection. Finish what is in
    /// flight, send all output, close.
    Disconnect,
    /// The client broke the protocol so that the rest of its stream has no meaning. Send the
    /// output, close.
    Violation(Violation),
}

/// Why an export is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Only to tell about it: nothing is attached, and that it is attached elsewhere is no reason
    /// to refuse.
    Inspect,
    /// To attach it. Where [`Session::opened`](super::Session::opened) is given an export, the
    /// attachment lasts until the connection ends.
    Attach,
}

/// A command in flight. Used again after its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A command that passed every check: inside the export, within the limits, allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    pub slot: Slot,
    pub kind: RequestKind,
    /// In bytes, any alignment.
    pub offset: u64,
    /// In bytes, any alignment. Above zero, except for a flush, where it is zero. Reads and writes
    /// have at most [`Limits::payload_bytes`]; the others reach up to the whole export.
    pub len: u64,
    pub zeroing: Zeroing,
}

/// What may become of the space under [`RequestKind::WriteZeroes`]. Other kinds have `MayPunch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeroing {
    /// It may be given back.
    MayPunch,
    /// `NO_HOLE`: the client wants it to stay allocated, so zeroes are to be written.
    KeepAllocated,
}

/// What the driver found under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportInfo<'a> {
    pub volume: VolumeId,
    /// In bytes.
    pub size: u64,
    /// The logical block, 512 or 4096 bytes.
    pub block_size: u32,
    pub read_only: bool,
    /// For people; may be empty.
    pub description: &'a str,
}

/// Why the driver does not give an export. The texts are shown to the client's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// There is no such volume.
    Unknown,
    /// There is, but this client may not have it now: it is attached elsewhere, or being imported.
    Policy(&'a str),
    /// Something failed here.
    Failed(&'a str),
    /// The daemon is going away.
    ShuttingDown,
}

/// What a connection is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export {
    pub volume: VolumeId,
    /// In bytes.
    pub size: u64,
    pub read_only: bool,
}

/// How a client broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Handshake flags that are not known, which the specification has us cut off.
    ClientFlags(u32),
    OptionMagic(u64),
    /// More options than [`Limits::options`].
    TooManyOptions,
    /// An option whose data is too long even to be skipped.
    OptionTooLong {
        option: u32,
        len: u32,
    },
    /// `EXPORT_NAME`, which knows no error reply, with a name that is no name or where it must not
    /// be used.
    ExportName,
    /// `EXPORT_NAME`, which knows no error reply, where TLS has to come first.
    NeedsTls,
    RequestMagic(u32),
    /// A request whose data is too long even to be skipped.
    PayloadTooLong {
        len: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::ClientFlags(flags) => write!(f, "unknown client flags {flags:#x}"),
            Violation::OptionMagic(magic) => write!(f, "an option began with {magic:#018x}"),
            Violation::TooManyOptions => f.write_str("too many options in one handshake"),
            Violation::OptionTooLong { option, len } => {
                write!(f, "option {option} has {len} bytes of data")
            }
            Violation::NeedsTls => {
                f.write_str("an export was asked for in the clear, where TLS is required")
            }
            Violation::ExportName => f.write_str("EXPORT_NAME was misused"),
            Violation::RequestMagic(magic) => write!(f, "a request began with {magic:#010x}"),
            Violation::PayloadTooLong { len } => write!(f, "a request has {len} bytes of data"),
        }
    }
}

impl std::error::Error for Violation {}
