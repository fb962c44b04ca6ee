//! Big-endian fields out of bytes that arrive in pieces.

/// Reads fields from the front of a message. Each answer is `None` where the message is too short.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

/// The longest message that is gathered here: an extended request header.
const LONGEST: usize = 32;

/// Keeps the beginning of a header of fixed length until the rest arrives.
#[derive(Debug, Default)]
pub struct Gather {
    bytes: [u8; LONGEST],
    held: u8,
}

impl Gather {
    /// Takes from `input` what is missing of a message of `N` bytes: how many that were, and the
    /// message where it is whole now.
    pub fn take<const N: usize>(&mut self, input: &[u8]) -> (usize, Option<[u8; N]>) {
        const { assert!(N <= LONGEST) };
        if self.held == 0
            && let Some(whole) = input.first_chunk()
        {
            return (N, Some(*whole));
        }
        let held = usize::from(self.held);
        let taken = input.len().min(N - held);
        self.bytes[held..held + taken].copy_from_slice(&input[..taken]);
        if held + taken < N {
            self.held += taken as u8;
            return (taken, None);
        }
        self.held = 0;
        (taken, self.bytes.first_chunk().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_in_pieces_is_the_same_as_a_header_in_one() {
        let message: [u8; 28] = std::array::from_fn(|n| n as u8);
        for split in 0..28 {
            let mut gather = Gather::default();
            assert_eq!(gather.take::<28>(&message[..split]), (split, None));
            let rest = gather.take::<28>(&[&message[split..], b"next"].concat());
            assert_eq!(rest, (28 - split, Some(message)));
        }
    }

    #[test]
    fn a_field_beyond_the_end_is_none_and_takes_nothing() {
        let mut fields = Fields(&[1, 2, 3]);
        assert_eq!(fields.u32(), None);
        assert_eq!(fields.u16(), Some(0x0102));
        assert_eq!(fields.bytes(2), None);
        assert_eq!(fields.bytes(1), Some(&[3u8][..]));
        assert!(fields.is_empty());
    }
}
