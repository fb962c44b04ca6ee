//! What goes over a connection after its handshake: a head of fixed size, and a body.
//!
//! | field | bytes | |
//! |---|---|---|
//! | length of the body | 4 | at most [`BODY_MAX`] |
//! | kind | 1 | 1 ask, 2 answer, 3 refuse, 4 tell, 5 cancel, 6 beat, 7 bye |
//! | why | 1 | of a refusal: 1 unsupported, 2 refused, 3 too large, 4 out of time, 5 failed |
//! | service | 2 | of ask and tell |
//! | number | 8 | of ask, and of what answers or cancels it; never used again on a connection |
//! | time | 4 | of ask: how long the asker waits, in ms |
//! | crc32c of the body | 4 | |
//! | zero | 4 | |
//! | crc32c of the head so far | 4 | |
//!
//! Little endian. TLS would not need the checksums; without it they are all there is besides TCP's own. A frame has one spelling: fields that a kind has no use for are zero.

use crate::base::bytes::{Put, Take};
use crate::base::crc;
use std::fmt;

pub(super) const HEAD_LEN: usize = 32;
/// Bytes of a request or answer: a snapshot goes in pieces.
pub const BODY_MAX: usize = 4 << 20;
/// Bytes of the words of a refusal or a bye.
pub(super) const WORDS_MAX: usize = 1024;

/// Why a request was not answered by its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Why {
    Unsupported = 1,
    Refused = 2,
    TooLarge = 3,
    TimedOut = 4,
    Failed = 5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ask {
        service: u16,
        number: u64,
        within_ms: u32,
    },
    Answer {
        number: u64,
    },
    /// The words are the body.
    Refuse {
        number: u64,
        why: Why,
    },
    /// Nothing answers it.
    Tell {
        service: u16,
    },
    /// Nobody waits for the answer any more.
    Cancel {
        number: u64,
    },
    /// Still here.
    Beat,
    /// The connection ends, for the reason that is the body.
    Bye,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    pub len: usize,
    body_crc: u32,
}

/// A head that is none: the field that is wrong, and what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken {
    pub field: &'static str,
    pub value: u64,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { field, value } = self;
        write!(f, "a frame's {field} cannot be {value}")
    }
}

impl Head {
    /// The head of a frame with this body.
    pub fn of(kind: Kind, body: &[u8]) -> Head {
        debug_assert!(body.len() <= kind.body_max());
        Head {
            kind,
            len: body.len(),
            body_crc: crc::of(body),
        }
    }

    pub fn encode(&self) -> [u8; HEAD_LEN] {
        let mut bytes = Vec::with_capacity(HEAD_LEN);
        let mut put = Put(&mut bytes);
        let (kind, why, service, number, time) = match self.kind {
            Kind::Ask {
                service,
                number,
                within_ms,
            } => (1, 0, service, number, within_ms),
            Kind::Answer { number } => (2, 0, 0, number, 0),
            Kind::Refuse { number, why } => (3, why as u8, 0, number, 0),
            Kind::Tell { service } => (4, 0, service, 0, 0),
            Kind::Cancel { number } => (5, 0, 0, number, 0),
            Kind::Beat => (6, 0, 0, 0, 0),
            Kind::Bye => (7, 0, 0, 0, 0),
        };
        put.u32(self.len as u32);
        put.u8(kind);
        put.u8(why);
        put.u16(service);
        put.u64(number);
        put.u32(time);
        put.u32(self.body_crc);
        put.u32(0);
        let sum = crc::of(&bytes);
        Put(&mut bytes).u32(sum);
        let mut head = [0; HEAD_LEN];
        head.copy_from_slice(&bytes);
        head
    }

    pub fn decode(bytes: &[u8; HEAD_LEN]) -> Result<Head, Broken> {
        let broken = |field, value| Err(Broken { field, value });
        let mut take = Take::new(bytes);
        let mut fields = || {
            Some((
                take.u32()?,
                (
                    take.u8()?,
                    take.u8()?,
                    take.u16()?,
                    take.u64()?,
                    take.u32()?,
                ),
                (take.u32()?, take.u32()?, take.u32()?),
            ))
        };
        let Some((len, (kind, why, service, number, time), (body_crc, zero, sum))) = fields()
        else {
            return broken("length", 0);
        };
        if sum != crc::of(&bytes[..HEAD_LEN - 4]) {
            return broken("checksum", sum.into());
        }
        let kind = match (kind, why, service, number, time) {
            (1, 0, service, number, within_ms) => Kind::Ask {
                service,
                number,
                within_ms,
            },
            (2, 0, 0, number, 0) => Kind::Answer { number },
            (3, why, 0, number, 0) => {
                let known = [
                    Why::Unsupported,
                    Why::Refused,
                    Why::TooLarge,
                    Why::TimedOut,
                    Why::Failed,
                ];
                let Some(why) = known.into_iter().find(|known| *known as u8 == why) else {
                    return broken("why", why.into());
                };
                Kind::Refuse { number, why }
            }
            (4, 0, service, 0, 0) => Kind::Tell { service },
            (5, 0, 0, number, 0) => Kind::Cancel { number },
            (6, 0, 0, 0, 0) => Kind::Beat,
            (7, 0, 0, 0, 0) => Kind::Bye,
            (kind, ..) => return broken("kind", kind.into()),
        };
        if zero != 0 {
            return broken("zero", zero.into());
        }
        let len = len as usize;
        if len > kind.body_max() {
            return broken("length of the body", len as u64);
        }
        if len == 0 && body_crc != crc::of(&[]) {
            return broken("checksum of the body", body_crc.into());
        }
        Ok(Head {
            kind,
            len,
            body_crc,
        })
    }

    /// Whether this is its body.
    pub fn fits(&self, body: &[u8]) -> Result<(), Broken> {
        match crc::of(body) == self.body_crc && body.len() == self.len {
            true => Ok(()),
            false => Err(Broken {
                field: "checksum of the body",
                value: self.body_crc.into(),
            }),
        }
    }
}

impl Kind {
    /// Bytes that its body has at most.
    pub fn body_max(self) -> usize {
        match self {
            Kind::Ask { .. } | Kind::Answer { .. } | Kind::Tell { .. } => BODY_MAX,
            Kind::Refuse { .. } | Kind::Bye => WORDS_MAX,
            Kind::Cancel { .. } | Kind::Beat => 0,
        }
    }
}

/// Words of the other side, fit for a log or a terminal: who is not proven to be anybody may have sent them.
pub(super) fn text(bytes: &[u8]) -> String {
    let words = String::from_utf8_lossy(bytes);
    words.replace(char::is_control, " ")
}

/// As many of the words as a frame holds.
pub(super) fn words(text: &str) -> Vec<u8> {
    let mut end = text.len().min(WORDS_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.as_bytes()[..end].to_vec()
}
