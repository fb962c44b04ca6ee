//! What front ends ask of a volume, and what they are told. All dialects (NBD, vhost-user-blk, ublk)
//! are turned into one `Request` and one `Reply`.

use super::{BufRef, VolumeId};
use std::fmt;

/// The front end's own name for a request; it comes back with the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    Read,
    Write,
    /// Afterwards the range reads as zeroes.
    WriteZeroes,
    /// A hint: whole chunks inside the range are given back and read as zeroes; the rest is left alone.
    Discard,
    /// Answered when everything that was acknowledged before it is durable: at once.
    Flush,
    /// What is allocated in the range; answered with [`Reply::map`].
    Map,
}

/// One request of a front end.
///
/// The buffer covers whole blocks: for a read or write of bytes `offset .. offset + len` it holds every
/// block that the range touches, and the byte at `offset` lies `offset % 4096` bytes into it. Where an
/// end of a write is not on a block boundary, two more blocks behind those that are covered are
/// scratch space, for read-modify-write. Write-zeroes whose ends are not on block boundaries have a
/// buffer of four blocks: two for the blocks at the ends, two of scratch space. The first block of scratch is for the
/// beginning of the request, the second for its end, so parts of one request ([`Request::part`]) share them.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub token: Token,
    pub volume: VolumeId,
    pub kind: RequestKind,
    /// In bytes, any alignment.
    pub offset: u64,
    /// In bytes, any alignment; zero for a flush.
    pub len: u64,
    /// Unused where [`Request::buffer_blocks`] is zero.
    pub buf: BufRef,
    /// What [`Request::scratch_of`] says, of the whole request.
    pub scratch: BufRef,
}

impl Request {
    /// How many blocks a buffer for `len` bytes at `offset` must have: the blocks that the range touches,
    /// and scratch for the ends of a write that are not aligned.
    pub fn buffer_blocks(kind: RequestKind, offset: u64, len: u64) -> u64 {
        let blocks = (offset % super::BLOCK + len).div_ceil(super::BLOCK);
        let ragged =
            !offset.is_multiple_of(super::BLOCK) || !(offset + len).is_multiple_of(super::BLOCK);
        match kind {
            RequestKind::Write if ragged => blocks + 2,
            RequestKind::Read | RequestKind::Write => blocks,
            RequestKind::WriteZeroes if ragged => 4,
            _ => 0,
        }
    }

    /// Where the scratch space of a request with this buffer lies.
    pub fn scratch_of(kind: RequestKind, offset: u64, len: u64, buf: BufRef) -> BufRef {
        match kind {
            RequestKind::WriteZeroes => buf.plus(2),
            // A buffer is shorter than 16 TiB.
            _ => buf.plus((offset % super::BLOCK + len).div_ceil(super::BLOCK) as u32),
        }
    }

    /// The part from `offset` on, of `len` bytes, as a request of its own. A part begins and ends where the
    /// request does, or on a block boundary.
    pub fn part(&self, token: Token, offset: u64, len: u64) -> Request {
        let before = (offset / super::BLOCK - self.offset / super::BLOCK) as u32;
        let buf = match self.kind {
            RequestKind::Read | RequestKind::Write => self.buf.plus(before),
            // The blocks of zeroes are those of the ends, wherever the part lies.
            _ => self.buf,
        };
        Request {
            token,
            offset,
            len,
            buf,
            ..*self
        }
    }
}

/// A run of bytes of the same allocation state, as `base:allocation` of NBD tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapRun {
    /// In bytes.
    pub len: u64,
    /// Whether it reads as zeroes.
    pub zero: bool,
    /// Whether it takes no space.
    pub hole: bool,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Reply<'a> {
    pub token: Token,
    pub result: Result<(), IoError>,
    /// For [`RequestKind::Map`]: the runs, from the request's offset on, covering it or its beginning.
    pub map: &'a [MapRun],
}

/// Why a request failed. Front ends turn these into the error numbers of their dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoError {
    /// The disk failed, or no good copy of the data is left (EIO).
    Failed,
    /// The pool has no room for new data (ENOSPC).
    NoSpace,
    /// The range leaves the volume, or is empty where it must not be (EINVAL).
    OutOfRange,
    /// The volume or its store takes no writes (EPERM).
    ReadOnly,
    /// The volume is not open here, or was closed with the request in flight (ESHUTDOWN).
    Closed,
    /// Too many requests in flight; ask again (EAGAIN). Front ends that bound their queues never see it.
    Busy,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IoError::Failed => "the disk failed or the data is damaged",
            IoError::NoSpace => "no space is left",
            IoError::OutOfRange => "the range leaves the volume",
            IoError::ReadOnly => "the volume is read-only",
            IoError::Closed => "the volume is closed",
            IoError::Busy => "too many requests are in flight",
        })
    }
}

impl std::error::Error for IoError {}
