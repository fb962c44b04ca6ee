//! Replies of the transmission phase as bytes, in the three framings a client may have asked for.
//!
//! A reply is one chunk, always with DONE: a read is whole or failed, so there is nothing to cut
//! up, and the flag DF holds by itself. Data of a read never passes through here: its header is
//! written, and the driver sends the data behind it.

use super::spec::{self, chunk, errno};
use crate::base::{IoError, MapRun, RequestKind};

/// How requests and replies are framed on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Framing {
    Simple,
    Structured,
    Extended,
}

/// Why a command failed, as the client is told. The text goes where the framing has a place for
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub errno: u32,
    pub text: &'static str,
}

impl Failure {
    pub fn invalid(text: &'static str) -> Failure {
        let errno = errno::EINVAL;
        Failure { errno, text }
    }

    /// What `error` is in the words of NBD, for a command of this kind.
    pub fn of(error: IoError, kind: RequestKind) -> Failure {
        let (errno, text) = match error {
            IoError::Failed => (errno::EIO, "the disk failed or the data is damaged"),
            IoError::NoSpace => (errno::ENOSPC, "no space is left"),
            IoError::OutOfRange => (past_the_end(kind), "the range leaves the volume"),
            IoError::ReadOnly => (errno::EPERM, "the volume is read-only"),
            IoError::Closed => (errno::ESHUTDOWN, "the volume is closed"),
            // NBD has no EAGAIN; ENOMEM is its word for a server that is short of something.
            IoError::Busy => (errno::ENOMEM, "too many requests are in flight"),
        };
        Failure { errno, text }
    }
}

/// "Error values": past the end, what writes gets ENOSPC and all else EINVAL.
pub fn past_the_end(kind: RequestKind) -> u32 {
    match kind {
        RequestKind::Write | RequestKind::WriteZeroes => errno::ENOSPC,
        _ => errno::EINVAL,
    }
}

/// Whom a reply is for: the cookie and offset of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub framing: Framing,
    pub cookie: u64,
    pub offset: u64,
}

impl Address {
    /// Done, with nothing to tell.
    pub fn success(self, out: &mut Vec<u8>) {
        match self.framing {
            Framing::Simple => self.simple(0, out),
            _ => self.chunk(chunk::NONE, 0, out),
        }
    }

    pub fn failure(self, failure: Failure, out: &mut Vec<u8>) {
        if self.framing == Framing::Simple {
            return self.simple(failure.errno, out);
        }
        let text = failure.text.as_bytes();
        self.chunk(chunk::ERROR, 4 + 2 + text.len() as u64, out);
        out.extend(failure.errno.to_be_bytes());
        out.extend((text.len() as u16).to_be_bytes());
        out.extend(text);
    }

    /// The header of `len` bytes of data, which the driver sends behind it.
    pub fn data(self, len: u32, out: &mut Vec<u8>) {
        if self.framing == Framing::Simple {
            return self.simple(0, out);
        }
        self.chunk(chunk::OFFSET_DATA, 8 + u64::from(len), out);
        out.extend(self.offset.to_be_bytes());
    }

    /// The allocation of the `len` bytes from the offset on, or of their beginning: at most `most`
    /// descriptors, and never past `len`. Where `map` tells nothing, the range counts as data,
    /// which is always true enough.
    pub fn status(self, len: u64, map: &[MapRun], most: usize, out: &mut Vec<u8>) {
        let count = descriptors(len, map).take(most).count() as u32;
        if self.framing == Framing::Extended {
            self.chunk(chunk::BLOCK_STATUS_EXT, 8 + 16 * u64::from(count), out);
            out.extend(spec::BASE_ALLOCATION_ID.to_be_bytes());
            out.extend(count.to_be_bytes());
            for (len, state) in descriptors(len, map).take(most) {
                out.extend(len.to_be_bytes());
                out.extend(u64::from(state).to_be_bytes());
            }
        } else {
            self.chunk(chunk::BLOCK_STATUS, 4 + 8 * u64::from(count), out);
            out.extend(spec::BASE_ALLOCATION_ID.to_be_bytes());
            for (len, state) in descriptors(len, map).take(most) {
                // Fits: no descriptor is longer than the request, whose length had 32 bits.
                out.extend((len as u32).to_be_bytes());
                out.extend(state.to_be_bytes());
            }
        }
    }

    fn simple(self, errno: u32, out: &mut Vec<u8>) {
        out.extend(spec::SIMPLE_REPLY_MAGIC.to_be_bytes());
        out.extend(errno.to_be_bytes());
        out.extend(self.cookie.to_be_bytes());
    }

    fn chunk(self, kind: u16, len: u64, out: &mut Vec<u8>) {
        let extended = self.framing == Framing::Extended;
        let magic = match extended {
            true => spec::EXTENDED_REPLY_MAGIC,
            false => spec::STRUCTURED_REPLY_MAGIC,
        };
        out.extend(magic.to_be_bytes());
        out.extend(spec::REPLY_DONE.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend(self.cookie.to_be_bytes());
        if extended {
            out.extend(self.offset.to_be_bytes());
            out.extend(len.to_be_bytes());
        } else {
            // Fits: payloads and descriptors are limited far below 4 GiB.
            out.extend((len as u32).to_be_bytes());
        }
    }
}

/// The runs as (length, state), none empty, neighbours of the same state as one, and `len` bytes
/// at most.
fn descriptors(len: u64, map: &[MapRun]) -> impl Iterator<Item = (u64, u32)> {
    let whole = [MapRun {
        len,
        zero: false,
        hole: false,
    }];
    let known = map.iter().any(|run| run.len > 0);
    let mut runs = (if known { map } else { &[] })
        .iter()
        .copied()
        .chain(whole.into_iter().filter(move |_| !known))
        .filter(|run| run.len > 0)
        .map(|run| (run.len, state(run)))
        .peekable();
    let mut left = len;
    std::iter::from_fn(move || {
        let (mut length, state) = runs.next().filter(|_| left > 0)?;
        while let Some((more, _)) = runs.next_if(|next| next.1 == state) {
            length = length.saturating_add(more);
        }
        length = length.min(left);
        left -= length;
        Some((length, state))
    })
}

fn state(run: MapRun) -> u32 {
    let hole = if run.hole { spec::STATE_HOLE } else { 0 };
    let zero = if run.zero { spec::STATE_ZERO } else { 0 };
    hole | zero
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(len: u64, zero: bool, hole: bool) -> MapRun {
        MapRun { len, zero, hole }
    }

    fn told(len: u64, map: &[MapRun]) -> Vec<(u64, u32)> {
        descriptors(len, map).collect()
    }

    #[test]
    fn runs_are_joined_and_cut_to_the_request() {
        let map = [
            run(10, false, false),
            run(5, false, false),
            run(0, true, false),
            run(5, true, true),
            run(100, false, false),
        ];
        assert_eq!(told(30, &map), [(15, 0), (5, 3), (10, 0)]);
        assert_eq!(told(15, &map), [(15, 0)]);
        assert_eq!(told(4, &map), [(4, 0)]);
        assert_eq!(told(1000, &map), [(15, 0), (5, 3), (100, 0)]);
    }

    #[test]
    fn a_map_that_tells_nothing_is_data() {
        assert_eq!(told(30, &[]), [(30, 0)]);
        assert_eq!(told(30, &[run(0, true, true)]), [(30, 0)]);
    }

    #[test]
    fn lengths_that_overflow_are_cut() {
        let map = [run(u64::MAX, true, true), run(u64::MAX, true, true)];
        assert_eq!(told(1 << 40, &map), [(1 << 40, 3)]);
    }

    #[test]
    fn every_error_has_a_number_of_the_specification() {
        let number = |error| Failure::of(error, RequestKind::Read).errno;
        assert_eq!(number(IoError::Failed), 5);
        assert_eq!(number(IoError::NoSpace), 28);
        assert_eq!(number(IoError::OutOfRange), 22);
        assert_eq!(number(IoError::ReadOnly), 1);
        assert_eq!(number(IoError::Closed), 108);
        assert_eq!(number(IoError::Busy), 12);
        let write = Failure::of(IoError::OutOfRange, RequestKind::Write);
        assert_eq!(write.errno, 28);
    }
}
