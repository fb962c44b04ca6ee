//! A frame: head, body, payload.
//!
//! The head names the disk whose replica is meant, so that one connection between two nodes carries the frames of all of their disks: the
//! driver finds the replica's shard before it has read a body. What else stands there depends on the kind, see [`Kind`].
//!
//! Writing holds itself to what reading refuses. It does not know whom a frame goes to.

use super::field::{EPOCH_LEN, Malformed, TOO_SHORT, epoch, malformed, put_epoch};
use super::{Credit, ENTRIES_MAX, Feature, Version, answer, compare, credit, fill, mend, message};
use crate::base::bytes::{Put, Take};
use crate::base::{BLOCK, BLOCKS_PER_CHUNK, CHUNK, ChunkId, DiskId, PgId, VolumeId, crc};
use crate::protocol::replication::fill::{FillAnswer, FillAsk, FillHeader, PAGE_MAX};
use crate::protocol::replication::{Answer, Change, Header, Message};
use crate::protocol::scrub::compare::{CompareAnswer, CompareHeader};
use crate::protocol::scrub::{MendAnswer, MendAsk, MendHeader};
use std::fmt;

const MAGIC: [u8; 4] = *b"SRSN";
/// Bytes of a head.
pub const HEAD_LEN: usize = 72;
/// Where the fields stand that are known last.
const BODY_LEN_AT: usize = 8;
const BODY_CRC_AT: usize = 16;
const NUMBER_AT: usize = 64;
const CRC_AT: usize = 68;
/// Bytes of a body at most: the longest window that a seal tells.
pub const BODY_MAX: usize = 64 + ENTRIES_MAX * answer::ENTRY_LEN;
const _: () = assert!(fill::BODY_MAX <= BODY_MAX && mend::BODY_MAX <= BODY_MAX);
const _: () = assert!(compare::BODY_MAX <= BODY_MAX);
/// Bytes of payload at most: a chunk.
pub const PAYLOAD_MAX: u64 = CHUNK;

const MESSAGE: u8 = 1;
const ANSWER: u8 = 2;
const FILL_ASK: u8 = 3;
const FILL_ANSWER: u8 = 4;
const MEND_ASK: u8 = 5;
const MEND_ANSWER: u8 = 6;
const COMPARE_ASK: u8 = 7;
const COMPARE_ANSWER: u8 = 8;
const CREDIT: u8 = 9;

/// What a frame is, and what its head says of it besides the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of a coordinator. The disk is the one that is asked.
    Message(Header),
    /// Of a replica to a coordinator. The disk is the one that answers.
    Answer(Header),
    /// Of a joiner. The disk is that of the source, which is asked.
    FillAsk(FillHeader),
    /// Of a source. The disk is its own; the joiner is named by the session, of which a PG has no two.
    FillAnswer(FillHeader),
    /// Of a disk that lost blocks. The disk is the one that is asked.
    MendAsk(MendHeader),
    /// Of one that was asked. The disk is its own.
    MendAnswer(MendHeader),
    /// Of a replica that compares itself. The disk is the one that is asked.
    CompareAsk(CompareHeader),
    /// Of one that was asked. The disk is its own.
    CompareAnswer(CompareHeader),
    /// Of who receives asks. It is about the connection, and no disk is meant.
    Credit,
}

/// The first bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of the replica that is asked or answers.
    pub disk: DiskId,
    pub kind: Kind,
    /// In bytes, at most [`BODY_MAX`].
    pub body_len: u32,
    /// In bytes, whole blocks, at most [`PAYLOAD_MAX`].
    pub payload_len: u32,
    /// How many frames went before it on its connection, modulo 2^32: see [`set_number`].
    pub number: u32,
    body_crc: u32,
}

/// What a frame says, besides its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Message(Header, Message),
    Answer(Header, Answer),
    FillAsk(FillHeader, FillAsk),
    FillAnswer(FillHeader, FillAnswer),
    MendAsk(MendHeader, MendAsk),
    MendAnswer(MendHeader, MendAnswer),
    CompareAsk(CompareHeader, ChunkId),
    CompareAnswer(CompareHeader, CompareAnswer),
    Credit(Credit),
}

/// More of something than a frame holds: nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    pub field: &'static str,
    pub count: usize,
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a frame does not hold {} {}", self.count, self.field)
    }
}

impl std::error::Error for TooMany {}

/// Why a frame was not written. Nothing was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritten {
    TooMany(TooMany),
    /// The peer's version has no word for it: what to do instead stands with the feature.
    Newer(Feature),
}

impl From<TooMany> for Unwritten {
    fn from(why: TooMany) -> Unwritten {
        Unwritten::TooMany(why)
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unwritten::TooMany(why) => why.fmt(f),
            Unwritten::Newer(feature) => {
                let since = feature.since().number();
                write!(
                    f,
                    "{feature:?} is of version {since}, which the peer does not speak"
                )
            }
        }
    }
}

impl std::error::Error for Unwritten {}

impl Kind {
    fn tag(&self) -> u8 {
        match self {
            Kind::Message(_) => MESSAGE,
            Kind::Answer(_) => ANSWER,
            Kind::FillAsk(_) => FILL_ASK,
            Kind::FillAnswer(_) => FILL_ANSWER,
            Kind::MendAsk(_) => MEND_ASK,
            Kind::MendAnswer(_) => MEND_ANSWER,
            Kind::CompareAsk(_) => COMPARE_ASK,
            Kind::CompareAnswer(_) => COMPARE_ANSWER,
            Kind::Credit => CREDIT,
        }
    }

    /// Writes bytes 24 to 64 of a head.
    fn encode(&self, put: &mut Put<'_>) {
        match self {
            Kind::Message(header) | Kind::Answer(header) => {
                put.u32(header.pg.0);
                put.u32(header.version);
                put.u32(header.session);
                put_epoch(header.epoch, put);
                put.u64(header.range.0);
                put.u64(header.mark);
            }
            Kind::FillAsk(header) | Kind::FillAnswer(header) => {
                put.u32(header.pg.0);
                put.u32(header.version);
                put.u32(header.session);
                put.bytes(&[0; EPOCH_LEN]);
                put.u64(header.id);
                put.u64(0);
            }
            Kind::CompareAsk(header) | Kind::CompareAnswer(header) => {
                put.u32(header.pg.0);
                put.u32(header.version);
                put.u32(0);
                put.u32(header.asker.0);
                put.bytes(&[0; EPOCH_LEN - 4]);
                put.u64(header.id);
                put.u64(header.life);
            }
            Kind::MendAsk(header) | Kind::MendAnswer(header) => {
                put.u32(header.pg.0);
                put.bytes(&[0; 8]);
                put.u32(header.asker.0);
                put.bytes(&[0; EPOCH_LEN - 4]);
                put.u64(header.id);
                put.u64(0);
            }
            Kind::Credit => put.bytes(&[0; NUMBER_AT - 24]),
        }
    }

    /// Reads bytes 24 to 64 of a head.
    fn decode(tag: u8, take: &mut Take<'_>) -> Result<Kind, Malformed> {
        let fields = || Some((PgId(take.u32()?), take.u32()?, take.u32()?, epoch(take)?));
        let (pg, version, session, epoch) = { fields }().ok_or(TOO_SHORT)?;
        let fields = || Some((take.u64()?, take.u64()?));
        let (name, mark) = { fields }().ok_or(TOO_SHORT)?;
        // A session has the number of the version that it began with.
        if session > version {
            return malformed("session", session);
        }
        let header = Header {
            range: VolumeId(name),
            pg,
            epoch,
            version,
            session,
            mark,
        };
        let fill = FillHeader {
            pg,
            version,
            session,
            id: name,
        };
        if let MEND_ASK | MEND_ANSWER = tag {
            if version != 0 || epoch.site != 0 || epoch.host != 0 || mark != 0 {
                return malformed("zero", 1u8);
            }
            let header = MendHeader {
                pg,
                // It stands where others have the first part of the epoch.
                asker: DiskId(epoch.generation),
                id: name,
            };
            return Ok(match tag {
                MEND_ASK => Kind::MendAsk(header),
                _ => Kind::MendAnswer(header),
            });
        }
        if let COMPARE_ASK | COMPARE_ANSWER = tag {
            if session != 0 || epoch.site != 0 || epoch.host != 0 {
                return malformed("zero", 1u8);
            }
            let header = CompareHeader {
                pg,
                version,
                asker: DiskId(epoch.generation),
                // It stands where others have the mark.
                life: mark,
                id: name,
            };
            return Ok(match tag {
                COMPARE_ASK => Kind::CompareAsk(header),
                _ => Kind::CompareAnswer(header),
            });
        }
        if tag == CREDIT {
            let nothing = (PgId(0), 0, 0, Default::default(), 0, 0);
            return match (pg, version, session, epoch, name, mark) == nothing {
                true => Ok(Kind::Credit),
                false => malformed("zero", 1u8),
            };
        }
        match tag {
            MESSAGE => Ok(Kind::Message(header)),
            ANSWER => Ok(Kind::Answer(header)),
            FILL_ASK | FILL_ANSWER if session == 0 => malformed("session", session),
            FILL_ASK | FILL_ANSWER if epoch != Default::default() || mark != 0 => {
                malformed("zero", 1u8)
            }
            FILL_ASK => Ok(Kind::FillAsk(fill)),
            FILL_ANSWER => Ok(Kind::FillAnswer(fill)),
            _ => malformed("kind", tag),
        }
    }
}

impl Head {
    /// Reads the head of a frame on a connection of that version.
    pub fn decode(version: Version, bytes: &[u8; HEAD_LEN]) -> Result<Head, Malformed> {
        let mut take = Take::new(bytes);
        let fields = || {
            let (magic, kind, zero) = (take.u32()?, take.u8()?, take.bytes(3)?);
            let lengths = (take.u32()?, take.u32()?);
            Some((magic, kind, zero, lengths, take.u32()?, DiskId(take.u32()?)))
        };
        let (magic, kind, zero, (body_len, payload_len), body_crc, disk) =
            { fields }().ok_or(TOO_SHORT)?;
        if magic != u32::from_le_bytes(MAGIC) {
            return malformed("magic", magic);
        }
        let (of, crc) = bytes.split_at(CRC_AT);
        let crc = Take::new(crc).u32().ok_or(TOO_SHORT)?;
        if crc != crc::of(of) {
            return malformed("crc of the head", crc);
        }
        let tag = kind;
        let kind = Kind::decode(tag, &mut take)?;
        if Feature::of_kind(&kind).is_some_and(|needs| !version.has(needs)) {
            return malformed("kind", tag);
        }
        let number = take.u32().ok_or(TOO_SHORT)?;
        let is_nowhere = kind != Kind::Credit || disk == DiskId(0);
        if zero != [0; 3] || !is_nowhere {
            return malformed("zero", 1u8);
        }
        if body_len as usize > BODY_MAX {
            return malformed("length of the body", body_len);
        }
        let payload = u64::from(payload_len);
        if payload > PAYLOAD_MAX || !payload.is_multiple_of(BLOCK) {
            return malformed("length of the payload", payload);
        }
        Ok(Head {
            disk,
            kind,
            body_len,
            payload_len,
            number,
            body_crc,
        })
    }

    /// How many blocks of payload follow the body.
    pub fn payload_blocks(&self) -> u32 {
        self.payload_len / BLOCK as u32
    }

    /// Appends a head whose crc is 0.
    fn put(&self, put: &mut Put<'_>) {
        put.bytes(&MAGIC);
        put.u8(self.kind.tag());
        put.bytes(&[0; 3]);
        put.u32(self.body_len);
        put.u32(self.payload_len);
        put.u32(self.body_crc);
        put.u32(self.disk.0);
        self.kind.encode(put);
        put.u32(self.number);
        put.bytes(&[0; HEAD_LEN - CRC_AT]);
    }
}

fn set(head: &mut [u8], at: usize, value: u32) {
    head[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Gives the frame that begins here its number on its connection, which is known when it leaves: [`Frame::encode`] has left 0. What comes out of its
/// turn, or twice, is found by that.
pub fn set_number(frame: &mut [u8], number: u32) {
    let head = &mut frame[..HEAD_LEN];
    set(head, NUMBER_AT, number);
    let crc = crc::of(&head[..CRC_AT]);
    set(head, CRC_AT, crc);
}

/// Why a peer would refuse a frame.
fn refusal(version: Version, frame: &[u8]) -> Option<Malformed> {
    let Some((head, body)) = frame.split_first_chunk() else {
        return Some(TOO_SHORT);
    };
    let read = Head::decode(version, head).and_then(|head| decode(version, &head, body));
    read.err()
}

/// Reads the body of a frame whose head is read, on a connection of that version.
pub fn decode(version: Version, head: &Head, body: &[u8]) -> Result<Frame, Malformed> {
    if body.len() != head.body_len as usize {
        return malformed("length of the body", body.len() as u64);
    }
    if crc::of(body) != head.body_crc {
        return malformed("crc of the body", head.body_crc);
    }
    let mut take = Take::new(body);
    let frame = match head.kind {
        Kind::Message(header) => Frame::Message(header, message::decode(&mut take)?),
        Kind::Answer(header) => Frame::Answer(header, answer::decode(&mut take)?),
        Kind::FillAsk(header) => Frame::FillAsk(header, fill::decode_ask(&mut take)?),
        Kind::FillAnswer(header) => Frame::FillAnswer(header, fill::decode_answer(&mut take)?),
        Kind::MendAsk(header) => Frame::MendAsk(header, mend::decode_ask(&mut take)?),
        Kind::MendAnswer(header) => Frame::MendAnswer(header, mend::decode_answer(&mut take)?),
        Kind::CompareAsk(header) => Frame::CompareAsk(header, compare::decode_ask(&mut take)?),
        Kind::CompareAnswer(header) => {
            Frame::CompareAnswer(header, compare::decode_answer(&mut take)?)
        }
        Kind::Credit => Frame::Credit(credit::decode(&mut take)?),
    };
    if take.left() != 0 {
        return malformed("length of the body", take.left() as u64);
    }
    let needs = Feature::of(&frame).or_else(|| Feature::hinted(&frame));
    if let Some(needs) = needs.filter(|needs| !version.has(*needs)) {
        return malformed("version", needs.since().number());
    }
    match frame.has_payload(head.payload_blocks()) {
        true => Ok(frame),
        false => malformed("blocks of payload", head.payload_blocks()),
    }
}

impl Frame {
    fn kind(&self) -> Kind {
        match *self {
            Frame::Message(header, _) => Kind::Message(header),
            Frame::Answer(header, _) => Kind::Answer(header),
            Frame::FillAsk(header, _) => Kind::FillAsk(header),
            Frame::FillAnswer(header, _) => Kind::FillAnswer(header),
            Frame::MendAsk(header, _) => Kind::MendAsk(header),
            Frame::MendAnswer(header, _) => Kind::MendAnswer(header),
            Frame::CompareAsk(header, _) => Kind::CompareAsk(header),
            Frame::CompareAnswer(header, _) => Kind::CompareAnswer(header),
            Frame::Credit(_) => Kind::Credit,
        }
    }

    /// Appends the head and the body, for a peer that speaks this version, without a hint that it has no word for ([`Feature::hinted`]); so many blocks of payload follow, which must be as many as belong to such a frame.
    ///
    /// # Errors
    /// [`Unwritten::TooMany`] where a window or a page is longer than a frame holds, [`Unwritten::Newer`] where that version cannot say it; `out` is as it was.
    pub fn encode(
        &self,
        version: Version,
        disk: DiskId,
        blocks: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), Unwritten> {
        assert!(self.has_payload(blocks), "payload belongs to its frame");
        if let Some(needs) = Feature::of(self).filter(|needs| !version.has(*needs)) {
            return Err(Unwritten::Newer(needs));
        }
        self.fits()?;
        let start = out.len();
        let kind = self.kind();
        let head = Head {
            disk: match kind {
                Kind::Credit => DiskId(0),
                _ => disk,
            },
            kind,
            body_len: 0,
            payload_len: blocks * BLOCK as u32,
            number: 0,
            body_crc: 0,
        };
        let mut put = Put(out);
        head.put(&mut put);
        match self {
            Frame::Message(_, message) => message::encode(message, &mut put),
            Frame::Answer(_, answer) => answer::encode(version, answer, &mut put),
            Frame::FillAsk(_, ask) => fill::encode_ask(ask, &mut put),
            Frame::FillAnswer(_, answer) => fill::encode_answer(answer, &mut put),
            Frame::MendAsk(_, ask) => mend::encode_ask(ask, &mut put),
            Frame::MendAnswer(_, answer) => mend::encode_answer(answer, &mut put),
            Frame::CompareAsk(_, at) => compare::encode_ask(*at, &mut put),
            Frame::CompareAnswer(_, answer) => compare::encode_answer(answer, &mut put),
            Frame::Credit(credit) => credit::encode(credit, &mut put),
        }
        // What is known of a body once it is written. In place: a head of its own would be an allocation a frame.
        let (head, body) = out[start..].split_at_mut(HEAD_LEN);
        set(head, BODY_LEN_AT, body.len() as u32);
        set(head, BODY_CRC_AT, crc::of(body));
        let crc = crc::of(&head[..CRC_AT]);
        set(head, CRC_AT, crc);
        debug_assert_eq!(
            refusal(version, &out[start..]),
            None,
            "what-is-written-can-be-read"
        );
        Ok(())
    }

    /// Whether a frame of this content has so many blocks of payload. Of an answer to a read only the coordinator knows how many it wants;
    /// where all of them are zeroes there may be none.
    fn has_payload(&self, blocks: u32) -> bool {
        match self {
            Frame::Message(
                _,
                Message::Change {
                    change: Change::Write { run, .. },
                    ..
                },
            ) => blocks == run.count(),
            Frame::Answer(_, Answer::Value { .. }) => blocks <= BLOCKS_PER_CHUNK,
            // A place for each block of the chunk, so that it is written as a chunk.
            Frame::FillAnswer(_, FillAnswer::Content { content, .. }) if content.data != 0 => {
                blocks == BLOCKS_PER_CHUNK
            }
            Frame::MendAnswer(_, MendAnswer::Blocks(found)) if found.blocks != 0 => {
                blocks == BLOCKS_PER_CHUNK
            }
            _ => blocks == 0,
        }
    }

    fn fits(&self) -> Result<(), TooMany> {
        let (field, count, most) = match self {
            Frame::Answer(_, Answer::Sealed { window, .. }) => {
                ("entries", answer::sent(window).count(), ENTRIES_MAX)
            }
            Frame::FillAnswer(_, FillAnswer::Content { entries, .. }) => {
                ("entries", fill::sent(entries).count(), ENTRIES_MAX)
            }
            Frame::FillAnswer(_, FillAnswer::Fences { fences, .. }) => {
                ("fences", fences.len(), PAGE_MAX)
            }
            Frame::FillAnswer(_, FillAnswer::Listed { chunks, .. }) => {
                ("chunks", chunks.len(), PAGE_MAX)
            }
            _ => return Ok(()),
        };
        match count <= most {
            true => Ok(()),
            false => Err(TooMany { field, count }),
        }
    }
}
