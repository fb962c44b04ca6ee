//! A queue's commands and descriptors: what the driver asks under a tag, and how it is answered.

use super::MAX_IO_BYTES;
use crate::base::{IoError, RequestKind};

/// Operations on `/dev/ublkcN`, encoded as the driver's ioctls would be.
pub mod io_op {
    const fn change(number: u32) -> u32 {
        3 << 30 | 16 << 16 | (b'u' as u32) << 8 | number
    }
    /// Asks for the first request of a tag.
    pub const FETCH: u32 = change(0x20);
    /// Answers a request, and asks for the next one of its tag.
    pub const COMMIT_AND_FETCH: u32 = change(0x21);
}

/// Of `struct ublksrv_io_desc`.
pub const DESCRIPTOR_LEN: usize = 24;
/// The most tags that a queue may have; by this the places of the queues' descriptors are spaced.
const MAX_DEPTH: u64 = 4096;
/// Where data begins in the character device.
const DATA: u64 = 0x8000_0000;
const TAG_SHIFT: u32 = 25;
const QUEUE_SHIFT: u32 = 41;
const SECTOR: u64 = 512;

/// Where the descriptors of a queue are mapped from.
pub fn descriptors_position(queue: u16) -> u64 {
    u64::from(queue) * (MAX_DEPTH * DESCRIPTOR_LEN as u64).next_multiple_of(4096)
}

/// How much is mapped for them: whole pages.
pub fn descriptors_len(depth: u16) -> usize {
    (usize::from(depth) * DESCRIPTOR_LEN).next_multiple_of(4096)
}

/// Where the data of a request lies in the character device.
pub fn copy_position(queue: u16, tag: u16) -> u64 {
    DATA + (u64::from(queue) << QUEUE_SHIFT) + (u64::from(tag) << TAG_SHIFT)
}

/// `struct ublksrv_io_cmd`: what stands in a command of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoCommand {
    pub queue: u16,
    pub tag: u16,
    /// Of the request that is answered: its bytes, or the negative of an error number.
    pub result: i32,
}

impl IoCommand {
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16]; // with USER_COPY the address is none
        bytes[..2].copy_from_slice(&self.queue.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.tag.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.result.to_ne_bytes());
        bytes
    }
}

/// What the driver asks, as it stands in the mapped memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub op_flags: u32,
    pub sectors: u32,
    pub first_sector: u64,
}

/// What is to be done for a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub kind: RequestKind,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub len: u64,
}

impl Descriptor {
    /// Reads what the driver wrote.
    pub fn read(bytes: &[u8; DESCRIPTOR_LEN]) -> Descriptor {
        let u32_at = |at: usize| {
            let parts = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            u32::from_ne_bytes(parts)
        };
        let first: [u8; 8] = std::array::from_fn(|n| bytes[8 + n]);
        Descriptor {
            op_flags: u32_at(0),
            sectors: u32_at(4),
            first_sector: u64::from_ne_bytes(first),
        }
    }

    /// What it asks; the error number where it is nothing that we do. Ranges are checked against the volume by the
    /// machine, as everybody's.
    ///
    /// FUA holds by itself. NOUNMAP on zeroes is not looked at: volumes are thin, and no range keeps space.
    pub fn order(&self) -> Result<Order, i32> {
        let kind = match self.op_flags & 0xff {
            0 => RequestKind::Read,
            1 => RequestKind::Write,
            2 => RequestKind::Flush,
            3 => RequestKind::Discard,
            5 => RequestKind::WriteZeroes,
            _ => return Err(EOPNOTSUPP),
        };
        if kind == RequestKind::Flush {
            let (offset, len) = (0, 0);
            return Ok(Order { kind, offset, len });
        }
        let offset = self.first_sector.checked_mul(SECTOR).ok_or(EINVAL)?;
        let len = u64::from(self.sectors) * SECTOR;
        let moves = matches!(kind, RequestKind::Read | RequestKind::Write);
        if len == 0 || (moves && len > u64::from(MAX_IO_BYTES)) {
            return Err(EINVAL);
        }
        Ok(Order { kind, offset, len })
    }
}

impl Order {
    /// The driver's number for success: the bytes of what moves data.
    pub fn success(&self) -> i32 {
        match self.kind {
            RequestKind::Read | RequestKind::Write => self.len as i32, // at most MAX_IO_BYTES
            _ => 0,
        }
    }
}

const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;

/// What an error is in the driver's numbers.
pub fn errno_of(error: IoError) -> i32 {
    match error {
        IoError::NoSpace => ENOSPC,
        IoError::Busy => ENOMEM,
        IoError::Failed | IoError::OutOfRange | IoError::ReadOnly | IoError::Closed => EIO,
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_the_header() {
        assert_eq!(io_op::FETCH, 0xc010_7520);
        assert_eq!(io_op::COMMIT_AND_FETCH, 0xc010_7521);
    }

    #[test]
    fn queues_and_tags_have_their_places_in_the_device() {
        assert_eq!(
            (descriptors_position(0), descriptors_position(2)),
            (0, 2 * 98304)
        );
        assert_eq!((descriptors_len(128), descriptors_len(171)), (4096, 8192));
        assert_eq!(copy_position(0, 0), 0x8000_0000);
        assert_eq!(copy_position(1, 3), 0x8000_0000 + (1 << 41) + (3 << 25));
    }

    #[test]
    fn a_command_is_as_the_kernel_reads_it() {
        let command = IoCommand {
            queue: 1,
            tag: 0x102,
            result: -5,
        };
        let wanted = [1, 0, 2, 1, 0xfb, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(command.bytes(), wanted);
    }

    fn descriptor(op_flags: u32, sectors: u32, first_sector: u64) -> Descriptor {
        let mut bytes = [0xee; DESCRIPTOR_LEN]; // the address is not looked at
        bytes[..4].copy_from_slice(&op_flags.to_ne_bytes());
        bytes[4..8].copy_from_slice(&sectors.to_ne_bytes());
        bytes[8..16].copy_from_slice(&first_sector.to_ne_bytes());
        let read = Descriptor::read(&bytes);
        assert_eq!((read.sectors, read.first_sector), (sectors, first_sector));
        read
    }

    #[test]
    fn descriptors_become_orders_whatever_their_flags() {
        let order = |op, sectors| {
            descriptor(op, sectors, 8)
                .order()
                .map(|o| (o.kind, o.offset, o.len))
        };
        assert_eq!(order(0, 1), Ok((RequestKind::Read, 4096, 512)));
        assert_eq!(order(1 | 1 << 21, 8), Ok((RequestKind::Write, 4096, 4096)));
        assert_eq!(order(2, 0), Ok((RequestKind::Flush, 0, 0)));
        assert_eq!(order(3, 1 << 22), Ok((RequestKind::Discard, 4096, 1 << 31)));
        assert_eq!(
            order(5 | 1 << 23, 8),
            Ok((RequestKind::WriteZeroes, 4096, 4096))
        );
        let write = descriptor(1, 8, 0).order().unwrap();
        let zeroes = descriptor(5, 8, 0).order().unwrap();
        assert_eq!((write.success(), zeroes.success()), (4096, 0));
    }

    #[test]
    fn what_no_kernel_sends_is_refused_and_not_believed() {
        assert_eq!(descriptor(13, 1, 0).order(), Err(95));
        assert_eq!(descriptor(0, 0, 0).order(), Err(22));
        assert_eq!(descriptor(1, 2049, 0).order(), Err(22));
        assert_eq!(descriptor(0, 1, u64::MAX / 8).order(), Err(22));
    }
}
