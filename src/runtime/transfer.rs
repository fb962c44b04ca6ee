//! An operation on a disk while it is in flight: what of it is done, and what is to be done next.

use crate::base::{BlockNo, BufId, BufRef, LayerId, Time};
use crate::io::{FileNo, PIECES, Part, Ring};
use crate::observe::DiskOperation;
use crate::shard::DiskSlot;
use crate::store::{DiskFault, IoId};
use std::io;

/// Bytes submitted at once: far below what the kernel takes (2 GiB), and enough to keep a disk busy.
const AT_ONCE: u64 = 64 << 20;

/// What an operation is, and what its answer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// `flush`: a flush must follow. `flags`: of pwritev2.
    Write {
        flags: i32,
        flush: bool,
    },
    /// Blocks `first` and following of `layer`, summed when they are there.
    Blocks {
        buf: BufRef,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
    },
    Meta {
        buf: BufRef,
        len: u32,
    },
    Flush,
    Discard {
        len: u64,
    },
}

/// What is to be done after a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Submit it again, for the rest or for the flush behind it.
    Again,
    /// It has ended.
    Ended(Result<(), DiskFault>),
}

/// One operation. Kept and used again with its list, so that none is allocated on the way.
#[derive(Debug)]
pub(super) struct Transfer {
    pub slot: DiskSlot,
    pub id: IoId,
    pub what: What,
    /// What it is counted as, and when it was asked for.
    pub operation: DiskOperation,
    pub since: Time,
    /// A buffer of the driver's that is freed at the end.
    pub own: Option<BufId>,
    pub file: FileNo,
    pub offset: u64,
    /// What is not transferred yet; `next` counts those that are.
    pub parts: Vec<Part>,
    pub next: usize,
}

impl Transfer {
    /// Pushes what is to be done next.
    pub fn submit(&self, ring: &mut Ring, tag: crate::io::Tag) -> io::Result<()> {
        match self.what {
            What::Write { flags, .. } if self.next < self.parts.len() => {
                ring.write(self.file, self.offset, self.batch(), flags, tag)
            }
            What::Write { .. } | What::Flush => ring.flush(self.file, tag),
            What::Blocks { .. } | What::Meta { .. } => {
                ring.read(self.file, self.offset, self.parts[self.next], tag)
            }
            What::Discard { len } => ring.punch(self.file, self.offset, len, tag),
        }
    }

    /// The parts that go with the next submission.
    fn batch(&self) -> &[Part] {
        let left = &self.parts[self.next..];
        let mut bytes = 0;
        let count = left.iter().take(PIECES).take_while(|part| {
            bytes += u64::from(part.len);
            bytes <= AT_ONCE
        });
        // A single part is never larger than a buffer, which the kernel takes at once.
        &left[..count.count().max(1)]
    }

    /// Takes a completion's outcome in.
    pub fn completed(&mut self, outcome: io::Result<u32>) -> Next {
        let bytes = match outcome {
            Ok(bytes) => bytes,
            Err(e) => return self.failed(&e),
        };
        match self.what {
            What::Flush | What::Discard { .. } => return Next::Ended(Ok(())),
            What::Write { .. } if self.next == self.parts.len() => return Next::Ended(Ok(())),
            _ => {}
        }
        if bytes == 0 {
            // Nothing is there: past the end of a file or device that became shorter.
            return Next::Ended(Err(DiskFault::Medium));
        }
        self.advance(bytes);
        match self.what {
            _ if self.next < self.parts.len() => Next::Again,
            What::Write { flush: true, .. } => Next::Again,
            _ => Next::Ended(Ok(())),
        }
    }

    fn failed(&self, error: &io::Error) -> Next {
        let flushing = match self.what {
            What::Flush => true,
            What::Write { .. } => self.next == self.parts.len(),
            _ => false,
        };
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => Next::Again,
            // A failed flush is final: the kernel may have dropped what it could not write, and says so once.
            _ if flushing => Next::Ended(Err(DiskFault::Gone)),
            // A discard is a hint, and not every device takes it.
            Some(libc::EOPNOTSUPP) if matches!(self.what, What::Discard { .. }) => {
                Next::Ended(Ok(()))
            }
            Some(libc::ENODEV | libc::ENXIO | libc::EBADF | libc::ESHUTDOWN) => {
                Next::Ended(Err(DiskFault::Gone))
            }
            _ => Next::Ended(Err(DiskFault::Medium)),
        }
    }

    /// Marks so many bytes as transferred.
    fn advance(&mut self, bytes: u32) {
        self.offset += u64::from(bytes);
        let mut left = bytes;
        while left > 0 {
            let part = &mut self.parts[self.next];
            if left < part.len {
                part.skip += left;
                part.len -= left;
                return;
            }
            left -= part.len;
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(blocks: &[u32], flush: bool) -> Transfer {
        let part = |&n: &u32| Part::blocks(BufRef::default(), n);
        Transfer {
            slot: DiskSlot(0),
            id: IoId(1),
            what: What::Write { flags: 0, flush },
            operation: DiskOperation::Write,
            since: Time(0),
            own: None,
            file: FileNo::for_test(),
            offset: 8192,
            parts: blocks.iter().map(part).collect(),
            next: 0,
        }
    }

    fn error(code: i32) -> io::Result<u32> {
        Err(io::Error::from_raw_os_error(code))
    }

    #[test]
    fn a_short_write_goes_on_where_it_stopped() {
        let mut transfer = write(&[1, 2], false);
        assert_eq!(transfer.completed(Ok(4096 + 512)), Next::Again);
        assert_eq!((transfer.offset, transfer.next), (8192 + 4608, 1));
        let rest = transfer.batch()[0];
        assert_eq!((rest.skip, rest.len), (512, 8192 - 512));
        assert_eq!(transfer.completed(Ok(8192 - 512)), Next::Ended(Ok(())));
    }

    #[test]
    fn a_long_list_is_submitted_in_batches() {
        let mut transfer = write(&[1; 2500], false);
        assert_eq!(transfer.batch().len(), 1024);
        assert_eq!(transfer.completed(Ok(1024 * 4096)), Next::Again);
        assert_eq!(transfer.completed(Ok(1024 * 4096)), Next::Again);
        assert_eq!(transfer.batch().len(), 452);
        assert_eq!(transfer.completed(Ok(452 * 4096)), Next::Ended(Ok(())));
    }

    #[test]
    fn a_write_to_a_volatile_cache_ends_with_its_flush_whose_failure_is_final() {
        let mut transfer = write(&[1], true);
        assert_eq!(transfer.completed(Ok(4096)), Next::Again);
        assert_eq!(transfer.completed(Ok(0)), Next::Ended(Ok(())));
        let gone = Next::Ended(Err(DiskFault::Gone));
        assert_eq!(transfer.completed(error(libc::EIO)), gone);
        transfer.what = What::Flush;
        assert_eq!(transfer.completed(error(libc::EIO)), gone);
    }

    #[test]
    fn errors_are_told_apart() {
        let mut transfer = write(&[1], false);
        let ended = |fault| Next::Ended(Err(fault));
        assert_eq!(
            transfer.completed(error(libc::EIO)),
            ended(DiskFault::Medium)
        );
        assert_eq!(
            transfer.completed(error(libc::ENODEV)),
            ended(DiskFault::Gone)
        );
        assert_eq!(transfer.completed(error(libc::EINTR)), Next::Again);
        assert_eq!(transfer.completed(Ok(0)), ended(DiskFault::Medium));
        transfer.what = What::Discard { len: 65536 };
        assert_eq!(
            transfer.completed(error(libc::EOPNOTSUPP)),
            Next::Ended(Ok(()))
        );
    }
}
