//! What is sent to a socket at once: bytes of our own, and payload between them.

use super::arena::{Arena, Part};
use crate::base::BufId;

/// Payloads in one message: with the bytes between them well below the 1024 pieces that the kernel gathers.
pub const PAYLOADS: usize = 256;

/// A message that is being put together, or being sent.
#[derive(Debug, Default)]
pub struct Message {
    bytes: Vec<u8>,
    /// Payload, and how many of `bytes` come before it.
    payloads: Vec<(u32, Part)>,
    payload_bytes: u64,
}

pub(super) enum Piece<'a> {
    Bytes(&'a [u8]),
    Payload(Part),
}

impl Piece<'_> {
    fn len(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Payload(part) => part.len as usize,
        }
    }
}

impl Message {
    /// Where bytes are appended. What is there must not be changed.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Puts payload behind the bytes that are there.
    pub fn put_payload(&mut self, part: Part) {
        self.payloads.push((self.bytes.len() as u32, part));
        self.payload_bytes += u64::from(part.len);
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.payloads.is_empty()
    }

    /// Whether it should be sent before more payload is put into it.
    pub fn is_full(&self) -> bool {
        self.payloads.len() >= PAYLOADS
    }

    /// All of its bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64 + self.payload_bytes
    }

    /// Takes the buffers of its payloads, and empties it.
    pub fn drain_payloads(&mut self) -> impl Iterator<Item = BufId> {
        self.bytes.clear();
        self.payload_bytes = 0;
        self.payloads.drain(..).map(|(_, part)| part.at.id)
    }

    /// Shows all of its bytes in pieces of `len`, but for the last one, as they are gathered in `scratch`.
    ///
    /// # Errors
    /// The first of `show`.
    pub fn in_pieces<E>(
        &self,
        arena: &Arena,
        len: usize,
        scratch: &mut Vec<u8>,
        mut show: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        scratch.clear();
        for piece in self.list() {
            let all = piece.len();
            let mut done = 0;
            while done < all {
                let here = (all - done).min(len - scratch.len());
                match &piece {
                    Piece::Bytes(bytes) => scratch.extend_from_slice(&bytes[done..done + here]),
                    Piece::Payload(Part { at, skip, .. }) => {
                        arena.copy_out(*at, *skip as usize + done, here, scratch);
                    }
                }
                done += here;
                if scratch.len() == len {
                    show(scratch)?;
                    scratch.clear();
                }
            }
        }
        if !scratch.is_empty() {
            show(scratch)?;
        }
        Ok(())
    }

    /// All of its bytes, with payload from wherever `payload` finds it.
    #[cfg(test)]
    pub fn gathered(&self, mut payload: impl FnMut(Part, &mut Vec<u8>)) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in self.list() {
            match piece {
                Piece::Bytes(bytes) => all.extend_from_slice(bytes),
                Piece::Payload(part) => payload(part, &mut all),
            }
        }
        all
    }

    /// An upper bound of the pieces that [`Message::list`] gives.
    pub(super) fn pieces(&self) -> usize {
        self.list().count()
    }

    /// The pieces in the order in which they are sent; none is empty.
    pub(super) fn list(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut sent = 0;
        let end = (self.bytes.len() as u32, None);
        let stops = self.payloads.iter().map(|&(at, part)| (at, Some(part)));
        stops.chain([end]).flat_map(move |(at, part)| {
            let bytes = &self.bytes[sent as usize..at as usize];
            sent = at;
            let bytes = (!bytes.is_empty()).then_some(Piece::Bytes(bytes));
            let payload = part.filter(|p| p.len > 0).map(Piece::Payload);
            [bytes, payload].into_iter().flatten()
        })
    }
}
