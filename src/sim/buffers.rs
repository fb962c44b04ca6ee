//! The driver's buffers, with their pins.
//!
//! A buffer belongs to a request until its reply, and its pinned blocks to the store until they are
//! unpinned. It is used again at once when neither holds it, and its name carries a generation, so a store
//! that uses a buffer too long is found by the name alone.

use crate::base::{BLOCK, BufId, BufRef};

const PLACE_BITS: u32 = 12;
const BLOCK_BYTES: usize = BLOCK as usize;

/// How many buffers there may be at once.
pub const BUFFERS_MAX: usize = 1 << PLACE_BITS;

#[derive(Debug, Default)]
struct Buffer {
    generation: u32,
    bytes: Vec<u8>,
    pins: Vec<u16>,
    pinned: u32,
    /// A request is not answered yet.
    held: bool,
}

/// All buffers of a node.
#[derive(Debug, Default)]
pub struct Buffers {
    places: Vec<Buffer>,
    /// Free places, by the number of blocks as a power of two.
    free: Vec<Vec<u32>>,
    in_use: usize,
    pinned: u64,
}

/// The store named a buffer that it has no right to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misuse {
    /// The buffer was given back.
    Stale(BufRef),
    /// The blocks leave the buffer.
    Outside(BufRef, u32),
    /// A block that is not pinned was unpinned.
    NotPinned(BufRef),
}

impl Buffers {
    /// A buffer of `blocks` blocks for a request; what is in it is left over. `None` where too many are in use.
    pub fn take(&mut self, blocks: u32) -> Option<BufId> {
        let class = blocks.max(1).next_power_of_two().ilog2() as usize;
        if self.free.len() <= class {
            self.free.resize(class + 1, Vec::new());
        }
        let place = match self.free[class].pop() {
            Some(place) => place,
            None if self.places.len() == BUFFERS_MAX => return None,
            None => {
                self.places.push(Buffer {
                    bytes: vec![0; BLOCK_BYTES << class],
                    pins: vec![0; 1 << class],
                    ..Buffer::default()
                });
                self.places.len() as u32 - 1
            }
        };
        self.in_use += 1;
        let buffer = &mut self.places[place as usize];
        buffer.held = true;
        Some(BufId(buffer.generation << PLACE_BITS | place))
    }

    fn place(&self, id: BufId) -> Option<usize> {
        let place = (id.0 & (BUFFERS_MAX as u32 - 1)) as usize;
        let buffer = self.places.get(place)?;
        let live = buffer.held || buffer.pinned > 0;
        (live && buffer.generation == id.0 >> PLACE_BITS).then_some(place)
    }

    fn checked(&self, at: BufRef, blocks: u32) -> Result<(usize, std::ops::Range<usize>), Misuse> {
        let place = self.place(at.id).ok_or(Misuse::Stale(at))?;
        let (first, end) = (at.block as usize, at.block as usize + blocks as usize);
        match end <= self.places[place].pins.len() {
            true => Ok((place, first..end)),
            false => Err(Misuse::Outside(at, blocks)),
        }
    }

    /// The bytes of `blocks` blocks.
    pub fn bytes(&self, at: BufRef, blocks: u32) -> Result<&[u8], Misuse> {
        let (place, run) = self.checked(at, blocks)?;
        Ok(&self.places[place].bytes[run.start * BLOCK_BYTES..run.end * BLOCK_BYTES])
    }

    pub fn bytes_mut(&mut self, at: BufRef, blocks: u32) -> Result<&mut [u8], Misuse> {
        let (place, run) = self.checked(at, blocks)?;
        Ok(&mut self.places[place].bytes[run.start * BLOCK_BYTES..run.end * BLOCK_BYTES])
    }

    pub fn pin(&mut self, at: BufRef, blocks: u32) -> Result<(), Misuse> {
        let (place, run) = self.checked(at, blocks)?;
        let buffer = &mut self.places[place];
        buffer.pins[run].iter_mut().for_each(|pins| *pins += 1);
        buffer.pinned += blocks;
        self.pinned += u64::from(blocks);
        Ok(())
    }

    pub fn unpin(&mut self, at: BufRef, blocks: u32) -> Result<(), Misuse> {
        let (place, run) = self.checked(at, blocks)?;
        let buffer = &mut self.places[place];
        for pins in &mut buffer.pins[run] {
            *pins = pins.checked_sub(1).ok_or(Misuse::NotPinned(at))?;
        }
        buffer.pinned -= blocks;
        self.pinned -= u64::from(blocks);
        self.release_unused(place);
        Ok(())
    }

    /// The request was answered: what is not pinned may be used again.
    pub fn answered(&mut self, id: BufId) {
        let place = self.place(id).expect("a request's own buffer");
        self.places[place].held = false;
        self.release_unused(place);
    }

    fn release_unused(&mut self, place: usize) {
        let buffer = &mut self.places[place];
        if buffer.held || buffer.pinned > 0 {
            return;
        }
        let generations = 1 << (32 - PLACE_BITS);
        buffer.generation = (buffer.generation + 1) % generations;
        self.in_use -= 1;
        self.free[buffer.pins.len().ilog2() as usize].push(place as u32);
    }

    /// The node lost power: all buffers are free.
    pub fn forget(&mut self) {
        for place in 0..self.places.len() {
            let buffer = &mut self.places[place];
            if buffer.held || buffer.pinned > 0 {
                buffer.held = false;
                buffer.pinned = 0;
                buffer.pins.fill(0);
                self.release_unused(place);
            }
        }
        self.pinned = 0;
    }

    /// How many pins there are, in blocks.
    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// How many buffers a request or the store still has.
    pub fn in_use(&self) -> usize {
        self.in_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_lives_until_it_is_answered_and_unpinned() {
        let mut buffers = Buffers::default();
        let at = BufRef {
            id: buffers.take(3).unwrap(),
            block: 1,
        };
        buffers.pin(at, 2).unwrap();
        buffers.answered(at.id);
        assert!(buffers.bytes(at, 2).is_ok());
        buffers.unpin(at, 2).unwrap();
        assert_eq!(buffers.bytes(at, 2), Err(Misuse::Stale(at)));
        assert_eq!((buffers.in_use(), buffers.pinned()), (0, 0));
    }

    #[test]
    fn a_pin_too_few_and_a_block_too_many_are_refused() {
        let mut buffers = Buffers::default();
        let id = buffers.take(4).unwrap();
        let at = BufRef { id, block: 0 };
        assert_eq!(buffers.unpin(at, 1), Err(Misuse::NotPinned(at)));
        assert_eq!(buffers.pin(at, 5), Err(Misuse::Outside(at, 5)));
    }

    #[test]
    fn a_place_that_is_used_again_has_another_name() {
        let mut buffers = Buffers::default();
        let first = buffers.take(1).unwrap();
        buffers.answered(first);
        assert_ne!(buffers.take(1).unwrap(), first);
    }
}
