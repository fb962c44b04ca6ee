//! A chain of descriptors as parts of guest memory, in a list that is used again.
//!
//! What virtio forbids and a driver could do to us: a chain that goes in circles, a table in a table, an index behind
//! the table's end, a table that is not there. Each is [`BadChain`]: whoever made such a chain cannot be answered.

use crate::io::{GuestMemory, Span};
use virtio_queue::desc::split::Descriptor;

/// Bytes of a descriptor.
pub const DESCRIPTOR: usize = size_of::<Descriptor>();
/// Parts of a chain at most: twice those of the largest request that drivers are told of.
pub const PARTS_MAX: usize = 256;

/// A chain that cannot be followed to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChain;

/// A run of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub guest: u64,
    pub len: u32,
}

/// The parts of a chain. Those that the device reads come first, as virtio has it.
#[derive(Debug, Default)]
pub struct Chain {
    pub readable: Vec<Part>,
    pub writable: Vec<Part>,
    /// In bytes.
    pub readable_len: u64,
    pub writable_len: u64,
    /// Whether a part to be read came behind one to be written.
    pub is_out_of_order: bool,
}

impl Chain {
    /// Reads the chain that begins at `head`, in place of what was here.
    pub fn follow(
        &mut self,
        table: &Span,
        head: u16,
        indirect: bool,
        memory: &GuestMemory,
    ) -> Result<(), BadChain> {
        self.readable.clear();
        self.writable.clear();
        (self.readable_len, self.writable_len) = (0, 0);
        self.is_out_of_order = false;
        let first = descriptor(table, head)?;
        if !first.refers_to_indirect_table() {
            return self.follow_in(table, first);
        }
        self.follow_indirect(first, indirect, memory)
    }

    fn follow_indirect(
        &mut self,
        first: Descriptor,
        indirect: bool,
        memory: &GuestMemory,
    ) -> Result<(), BadChain> {
        let len = first.len() as usize;
        let right = len > 0 && len.is_multiple_of(DESCRIPTOR) && !first.has_next();
        if !indirect || !right {
            return Err(BadChain);
        }
        let table = memory.span(first.addr().0, len).ok_or(BadChain)?;
        let first = descriptor(&table, 0)?;
        match first.refers_to_indirect_table() {
            true => Err(BadChain),
            false => self.follow_in(&table, first),
        }
    }

    /// Follows a chain whose descriptors all lie in one table.
    fn follow_in(&mut self, table: &Span, first: Descriptor) -> Result<(), BadChain> {
        // As many as the table has: one more has gone in a circle.
        let mut left = (table.len() / DESCRIPTOR).min(PARTS_MAX);
        let mut here = first;
        loop {
            left = left.checked_sub(1).ok_or(BadChain)?;
            if here.len() > 0 {
                self.add(&here);
            }
            if !here.has_next() {
                return Ok(());
            }
            here = descriptor(table, here.next())?;
            if here.refers_to_indirect_table() {
                // Virtio lets a table follow plain descriptors; no driver of this device does it.
                return Err(BadChain);
            }
        }
    }

    fn add(&mut self, descriptor: &Descriptor) {
        let part = Part {
            guest: descriptor.addr().0,
            len: descriptor.len(),
        };
        // At most PARTS_MAX times 4 GiB: this does not overflow.
        if descriptor.is_write_only() {
            self.writable.push(part);
            self.writable_len += u64::from(part.len);
        } else {
            self.is_out_of_order |= !self.writable.is_empty();
            self.readable.push(part);
            self.readable_len += u64::from(part.len);
        }
    }
}

fn descriptor(table: &Span, index: u16) -> Result<Descriptor, BadChain> {
    let at = usize::from(index) * DESCRIPTOR;
    match at + DESCRIPTOR <= table.len() {
        true => Ok(table.read(at)),
        false => Err(BadChain),
    }
}
