//! Lists of pieces for gathering operations. They need to live until the kernel has taken the submission, so
//! they lie in memory that does not move, which is used again after each turn.

use super::arena::{Arena, Part};
use super::message::{Message, Piece};

/// Pieces for one turn.
const LISTED: usize = 16 * 1024;
/// Messages for one turn.
const MESSAGES: usize = 1024;

const NO_PIECE: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

pub(super) struct Scratch {
    pieces: Box<[libc::iovec]>,
    used: usize,
    headers: Vec<libc::msghdr>,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch {
            pieces: vec![NO_PIECE; LISTED].into_boxed_slice(),
            used: 0,
            headers: Vec::with_capacity(MESSAGES),
        }
    }

    pub fn has_room(&self, pieces: usize) -> bool {
        self.used + pieces <= LISTED && self.headers.len() < MESSAGES
    }

    pub fn clear(&mut self) {
        self.used = 0;
        self.headers.clear();
    }

    /// A list of parts, good until [`Scratch::clear`].
    pub fn list(&mut self, parts: &[Part], arena: &Arena) -> *const libc::iovec {
        let list = &mut self.pieces[self.used..][..parts.len()];
        self.used += parts.len();
        for (piece, part) in list.iter_mut().zip(parts) {
            *piece = libc::iovec {
                iov_base: arena.address(*part).cast(),
                iov_len: part.len as usize,
            };
        }
        list.as_ptr()
    }

    /// A header for a message, good until [`Scratch::clear`].
    pub fn message(&mut self, message: &Message, arena: &Arena) -> *const libc::msghdr {
        let count = message.pieces();
        let list = &mut self.pieces[self.used..][..count];
        self.used += count;
        for (piece, from) in list.iter_mut().zip(message.list()) {
            *piece = match from {
                Piece::Bytes(bytes) => libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                },
                Piece::Payload(part) => libc::iovec {
                    iov_base: arena.address(part).cast(),
                    iov_len: part.len as usize,
                },
            };
        }
        // SAFETY: a header of zeroes and null pointers is a valid one.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = list.as_mut_ptr();
        header.msg_iovlen = count;
        debug_assert!(
            self.headers.len() < self.headers.capacity(),
            "headers do not move"
        );
        self.headers.push(header);
        &raw const self.headers[self.headers.len() - 1]
    }
}
