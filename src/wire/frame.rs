//! A frame: head, body, payload.
//!
//! | at | size | field of the head |
//! |---|---|---|
//! | 0 | 4 | magic, `SRSN` |
//! | 4 | 1 | kind: 1 a message of a coordinator, 2 an answer of a replica |
//! | 5 | 3 | zero |
//! | 8 | 4 | bytes of the body, at most [`BODY_MAX`] |
//! | 12 | 4 | bytes of the payload, whole blocks, at most [`PAYLOAD_MAX`] |
//! | 16 | 8 | range |
//! | 24 | 4 | PG |
//! | 28 | 4 | version of the PG |
//! | 32 | 12 | epoch: generation, site, host, 4 each |
//! | 44 | 4 | crc32c of the body |
//! | 48 | 8 | commit mark |
//! | 56 | 4 | session of the addressee; 0: it is in sync |
//! | 60 | 4 | crc32c of the 60 bytes before |

use super::{answer, message};
use crate::base::bytes::{Put, Take};
use crate::base::{BLOCK, CHUNK, Epoch, PgId, VolumeId, crc};
use crate::protocol::replication::{Answer, Header, MEMBERS_MAX, Message, WINDOW_MAX};
use std::fmt;

const MAGIC: [u8; 4] = *b"SRSN";
/// Bytes of a head.
pub const HEAD_LEN: usize = 64;
/// Bytes of a body at most: a window that is told whole, amid a recovery of all members' windows.
pub const BODY_MAX: usize = 64 + MEMBERS_MAX * WINDOW_MAX * answer::ENTRY_LEN;
/// Bytes of payload at most: a chunk.
pub const PAYLOAD_MAX: u64 = CHUNK;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Message,
    Answer,
}

/// The first bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    /// In bytes.
    pub body_len: u32,
    /// In bytes: whole blocks.
    pub payload_len: u32,
    pub header: Header,
    body_crc: u32,
}

/// What a frame says, besides its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Message(Header, Message),
    Answer(Header, Answer),
}

/// Bytes that are no frame: the field that is wrong, and what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    pub field: &'static str,
    pub value: u64,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the field {} cannot be {}", self.field, self.value)
    }
}

impl std::error::Error for Malformed {}

/// The refusal of a field.
pub(super) fn malformed<T>(field: &'static str, value: impl Into<u64>) -> Result<T, Malformed> {
    let value = value.into();
    Err(Malformed { field, value })
}

/// Bytes that end too soon.
pub(super) const TOO_SHORT: Malformed = Malformed {
    field: "length of the body",
    value: 0,
};

impl Head {
    /// Reads the head of a frame.
    pub fn decode(bytes: &[u8; HEAD_LEN]) -> Result<Head, Malformed> {
        let crc_of = crc::of(&bytes[..HEAD_LEN - 4]);
        let fields = || -> Option<(u8, [u8; 3], Head, u32)> {
            let mut take = Take::new(&bytes[4..]);
            let kind = take.u8()?;
            let zero: [u8; 3] = take.bytes(3)?.try_into().ok()?;
            let (body_len, payload_len) = (take.u32()?, take.u32()?);
            let (range, pg) = (VolumeId(take.u64()?), PgId(take.u32()?));
            let version = take.u32()?;
            let epoch = epoch(&mut take)?;
            let body_crc = take.u32()?;
            let mark = take.u64()?;
            let session = take.u32()?;
            let header = Header {
                range,
                pg,
                epoch,
                version,
                session,
                mark,
            };
            let head = Head {
                kind: Kind::Message,
                body_len,
                payload_len,
                header,
                body_crc,
            };
            Some((kind, zero, head, take.u32()?))
        };
        let (kind, zero, head, crc) = fields().ok_or(TOO_SHORT)?;
        if bytes[..4] != MAGIC {
            let found = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            return malformed("magic", found);
        }
        if crc != crc_of {
            return malformed("crc of the head", crc);
        }
        if zero != [0; 3] {
            return malformed("zero", zero[0].max(zero[1]).max(zero[2]));
        }
        if head.body_len as usize > BODY_MAX {
            return malformed("length of the body", head.body_len);
        }
        let payload = u64::from(head.payload_len);
        if payload > PAYLOAD_MAX || !payload.is_multiple_of(BLOCK) {
            return malformed("length of the payload", payload);
        }
        let kind = match kind {
            1 => Kind::Message,
            2 => Kind::Answer,
            _ => return malformed("kind", kind),
        };
        Ok(Head { kind, ..head })
    }

    /// How many blocks of payload follow the body.
    pub fn payload_blocks(&self) -> u32 {
        self.payload_len / BLOCK as u32
    }
}

/// Reads the body of a frame whose head is read.
pub fn decode(head: &Head, body: &[u8]) -> Result<Frame, Malformed> {
    if body.len() != head.body_len as usize {
        return malformed("length of the body", body.len() as u64);
    }
    if crc::of(body) != head.body_crc {
        return malformed("crc of the body", head.body_crc);
    }
    let mut take = Take::new(body);
    let blocks = head.payload_blocks();
    let frame = match head.kind {
        Kind::Message => Frame::Message(head.header, message::decode(&mut take, blocks)?),
        Kind::Answer => Frame::Answer(head.header, answer::decode(&mut take, blocks)?),
    };
    match take.left() {
        0 => Ok(frame),
        left => malformed("length of the body", left as u64),
    }
}

/// Appends the head and the body of a coordinator's message; so many blocks of payload follow.
pub fn encode_message(header: &Header, message: &Message, blocks: u32, out: &mut Vec<u8>) {
    encode(Kind::Message, header, blocks, out, |put| {
        message::encode(message, put);
    });
}

/// Appends the head and the body of a replica's answer; so many blocks of payload follow.
pub fn encode_answer(header: &Header, answer: &Answer, blocks: u32, out: &mut Vec<u8>) {
    encode(Kind::Answer, header, blocks, out, |put| {
        answer::encode(answer, put);
    });
}

fn encode(
    kind: Kind,
    header: &Header,
    blocks: u32,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Put<'_>),
) {
    let start = out.len();
    out.resize(start + HEAD_LEN, 0);
    body(&mut Put(out));
    let body = &out[start + HEAD_LEN..];
    let (body_len, body_crc) = (body.len() as u32, crc::of(body));
    let mut head = Vec::with_capacity(HEAD_LEN);
    let mut put = Put(&mut head);
    put.bytes(&MAGIC);
    put.u8(match kind {
        Kind::Message => 1,
        Kind::Answer => 2,
    });
    put.bytes(&[0; 3]);
    put.u32(body_len);
    put.u32(blocks * BLOCK as u32);
    put.u64(header.range.0);
    put.u32(header.pg.0);
    put.u32(header.version);
    put_epoch(header.epoch, &mut put);
    put.u32(body_crc);
    put.u64(header.mark);
    put.u32(header.session);
    let crc = crc::of(&head);
    Put(&mut head).u32(crc);
    out[start..start + HEAD_LEN].copy_from_slice(&head);
}

/// Reads an epoch.
pub(super) fn epoch(take: &mut Take<'_>) -> Option<Epoch> {
    let (generation, site, host) = (take.u32()?, take.u32()?, take.u32()?);
    Some(Epoch {
        generation,
        site,
        host,
    })
}

/// Writes an epoch.
pub(super) fn put_epoch(epoch: Epoch, put: &mut Put<'_>) {
    put.u32(epoch.generation);
    put.u32(epoch.site);
    put.u32(epoch.host);
}
