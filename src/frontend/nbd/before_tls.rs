//! The handshake in the clear where only TLS is served: the specification's mode FORCEDTLS.
//!
//! Every option but STARTTLS and ABORT is told that TLS is required, and nothing about exports, not even whether there are any.
//!
//! # Nothing is carried over
//! What a stranger may have slipped in front of the handshake must not count as said by the client who then proves who he is. So the driver reads exactly what
//! [`BeforeTls::wants`] says, and not a byte more: what came behind STARTTLS before TLS began is left in the socket, where TLS finds it and fails. And the session that
//! follows ([`Session::secured`](super::Session::secured)) begins anew: of what was negotiated in the clear only the client's flags count, which the specification has said once.

use super::door::{Limits, Violation};
use super::fields::Fields;
use super::option as options;
use super::spec::{self, option, option_reply};

/// Bytes of an option's data that are read at once, to be dropped.
const PIECE: u32 = 4096;
/// Options in the clear: some clients ask for structured replies before TLS, and hear that it is required.
const OPTIONS_MAX: u32 = 32;

/// A connection until TLS begins.
#[derive(Debug)]
pub struct BeforeTls {
    next: Next,
    seen: u32,
    no_zeroes: bool,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    ClientFlags,
    OptionHeader,
    /// Data of an option, of which so much is left.
    Skip {
        option: u32,
        left: u32,
    },
}

/// How it goes on, when what was put out has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clear {
    More,
    /// The next byte of both sides is TLS's.
    StartTls,
    /// The client goes.
    Ended,
    Violation(Violation),
}

impl BeforeTls {
    /// For a client that just connected; the greeting is appended to `out`.
    pub fn new(out: &mut Vec<u8>) -> BeforeTls {
        super::negotiation::Negotiation::greet(out);
        BeforeTls {
            next: Next::ClientFlags,
            seen: 0,
            no_zeroes: false,
        }
    }

    /// How many bytes are to be read next: not more, and not fewer. At least one.
    pub fn wants(&self) -> usize {
        match self.next {
            Next::ClientFlags => 4,
            Next::OptionHeader => 16,
            Next::Skip { left, .. } => left.min(PIECE) as usize,
        }
    }

    /// Whether the client has waived the padding behind the answer to `EXPORT_NAME`.
    pub fn no_zeroes(&self) -> bool {
        self.no_zeroes
    }

    /// Takes as many bytes as were wanted.
    pub fn receive(&mut self, limits: &Limits, bytes: &[u8], out: &mut Vec<u8>) -> Clear {
        assert_eq!(bytes.len(), self.wants(), "as many as were wanted");
        let mut fields = Fields(bytes);
        match self.next {
            Next::ClientFlags => {
                let flags = fields.u32().unwrap_or(u32::MAX);
                if flags & !u32::from(spec::FLAG_FIXED_NEWSTYLE | spec::FLAG_NO_ZEROES) != 0 {
                    return Clear::Violation(Violation::ClientFlags(flags));
                }
                self.no_zeroes = flags & u32::from(spec::FLAG_NO_ZEROES) != 0;
                self.next = Next::OptionHeader;
                Clear::More
            }
            Next::OptionHeader => {
                let mut read = || Some((fields.u64()?, fields.u32()?, fields.u32()?));
                let (magic, option, len) = read().unwrap_or_default();
                self.on_option(limits, (magic, option, len), out)
            }
            Next::Skip { option, left } => {
                let left = left - bytes.len() as u32;
                self.next = Next::Skip { option, left };
                if left == 0 {
                    self.refuse(option, out);
                }
                Clear::More
            }
        }
    }

    fn on_option(
        &mut self,
        limits: &Limits,
        (magic, option, len): (u64, u32, u32),
        out: &mut Vec<u8>,
    ) -> Clear {
        if magic != spec::OPTION_MAGIC {
            return Clear::Violation(Violation::OptionMagic(magic));
        }
        self.seen += 1;
        if self.seen > OPTIONS_MAX.min(limits.options) {
            return Clear::Violation(Violation::TooManyOptions);
        }
        match (option, len) {
            (option::STARTTLS, 0) => {
                options::ack(option, out);
                Clear::StartTls
            }
            // The client goes whatever it is told, so data behind this one is no matter.
            (option::ABORT, _) => {
                options::ack(option, out);
                Clear::Ended
            }
            // It knows no error reply.
            (option::EXPORT_NAME, _) => Clear::Violation(Violation::NeedsTls),
            (_, 0) => {
                self.refuse(option, out);
                Clear::More
            }
            _ if len > limits.option_bytes => {
                Clear::Violation(Violation::OptionTooLong { option, len })
            }
            _ => {
                self.next = Next::Skip { option, left: len };
                Clear::More
            }
        }
    }

    fn refuse(&mut self, option: u32, out: &mut Vec<u8>) {
        let (kind, text) = match option {
            option::STARTTLS => (option_reply::ERR_INVALID, "the option has no data"),
            _ => (
                option_reply::ERR_TLS_REQD,
                "this server is spoken to under TLS only, with a certificate of its cluster",
            ),
        };
        options::refuse(option, kind, text, out);
        self.next = Next::OptionHeader;
    }
}
