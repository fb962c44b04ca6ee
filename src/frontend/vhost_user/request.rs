//! A chain as a request of virtio-blk (virtio 1.2, 5.2.6): what is asked, where its data lies, where its status goes.
//!
//! How a driver cuts a request into descriptors is its own affair: the header is the first 16 bytes that can be read, the
//! status the last byte that can be written, and the data whatever lies between.

use super::chain::{Chain, Part};
use crate::base::{RequestKind, SECTOR};
use crate::io::GuestMemory;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

/// Data of a read or write at most, in bytes. What is offered to drivers stays below it.
pub const PAYLOAD_MAX: u32 = 16 << 20;
/// Ranges of one discard or write of zeroes.
pub const RANGES_MAX: u32 = 16;
/// Sectors of one such range: 256 MiB.
pub const RANGE_SECTORS_MAX: u32 = (256 << 20) / SECTOR as u32;
/// Bytes of a request's header, and of one range.
const HEAD: usize = 16;
const RANGE: usize = 16;

/// How a request ended, as its driver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    Failed,
    Unsupported,
}

impl Status {
    pub fn byte(self) -> u8 {
        (match self {
            Status::Ok => VIRTIO_BLK_S_OK,
            Status::Failed => VIRTIO_BLK_S_IOERR,
            Status::Unsupported => VIRTIO_BLK_S_UNSUPP,
        }) as u8
    }
}

/// What requests are checked against.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    /// The logical block size in bytes.
    pub block_size: u32,
    pub read_only: bool,
    /// What GET_ID answers, zeroes behind it.
    pub id: [u8; VIRTIO_BLK_ID_BYTES as usize],
}

/// What a driver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `len` bytes at `offset`, whose place in guest memory is in the request.
    Data {
        kind: RequestKind,
        offset: u64,
        len: u32,
    },
    /// The ranges that are in the request.
    Ranges(RequestKind),
    /// The name of the disk, which has been put where it is wanted; so many bytes.
    Id(u32),
    /// Nothing is left to do: what was acknowledged is durable.
    Flush,
    /// It is answered with an error.
    Refused(Status),
}

/// A request in flight: what is needed to answer it.
#[derive(Debug, Default)]
pub struct Request {
    /// Where data is to be read from or written to.
    pub data: Vec<Part>,
    /// Of discards and writes of zeroes: offset and length in bytes.
    pub ranges: Vec<(u64, u64)>,
    /// The guest's address of the status.
    pub status: u64,
}

/// A chain that has no place for a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoStatus;

impl Request {
    /// Takes the chain apart. What it was before is forgotten.
    pub fn take(
        &mut self,
        chain: &Chain,
        disk: &Disk,
        memory: &GuestMemory,
    ) -> Result<Ask, NoStatus> {
        self.data.clear();
        self.ranges.clear();
        let last = chain.writable.last().ok_or(NoStatus)?;
        let status = last.guest.checked_add(u64::from(last.len) - 1);
        self.status = status.filter(|&at| memory.has(at, 1)).ok_or(NoStatus)?;
        Ok(self
            .understand(chain, disk, memory)
            .unwrap_or_else(Ask::Refused))
    }

    fn understand(
        &mut self,
        chain: &Chain,
        disk: &Disk,
        memory: &GuestMemory,
    ) -> Result<Ask, Status> {
        let everything = chain.readable.iter().chain(&chain.writable);
        let there = |part: &Part| memory.has(part.guest, part.len as usize);
        if chain.is_out_of_order || !everything.clone().all(there) {
            return Err(Status::Failed);
        }
        let mut head = [0; HEAD];
        if !gather(&chain.readable, memory, &mut head) {
            return Err(Status::Failed);
        }
        let kind = u32::from_le_bytes([0, 1, 2, 3].map(|n| head[n]));
        let sector = u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|n| head[n]));
        // What can be read behind the header, and written before the status.
        let (out, into) = (chain.readable_len - HEAD as u64, chain.writable_len - 1);
        let changes = |only: bool| match disk.read_only || !only {
            true => Err(Status::Failed),
            false => Ok(()),
        };
        match kind {
            VIRTIO_BLK_T_IN => {
                let (offset, len) = extent(sector, into, disk)?;
                if out > 0 {
                    return Err(Status::Failed);
                }
                put_parts(&chain.writable, 0, len, &mut self.data);
                let kind = RequestKind::Read;
                Ok(Ask::Data { kind, offset, len })
            }
            VIRTIO_BLK_T_OUT => {
                changes(into == 0)?;
                let (offset, len) = extent(sector, out, disk)?;
                put_parts(&chain.readable, HEAD as u32, len, &mut self.data);
                let kind = RequestKind::Write;
                Ok(Ask::Data { kind, offset, len })
            }
            VIRTIO_BLK_T_FLUSH => Ok(Ask::Flush),
            VIRTIO_BLK_T_GET_ID => {
                let len = into.min(u64::from(VIRTIO_BLK_ID_BYTES)) as u32;
                put_parts(&chain.writable, 0, len, &mut self.data);
                let mut id = &disk.id[..len as usize];
                for part in &self.data {
                    let (here, rest) = id.split_at(part.len as usize);
                    memory.write(part.guest, here);
                    id = rest;
                }
                Ok(Ask::Id(len))
            }
            VIRTIO_BLK_T_DISCARD => {
                changes(into == 0)?;
                self.take_ranges(chain, out, 0, memory, disk)?;
                Ok(Ask::Ranges(RequestKind::Discard))
            }
            VIRTIO_BLK_T_WRITE_ZEROES => {
                changes(into == 0)?;
                // Zeroes take no space with us, whether the driver allows that or not: virtio does not promise it any.
                let unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
                self.take_ranges(chain, out, unmap, memory, disk)?;
                Ok(Ask::Ranges(RequestKind::WriteZeroes))
            }
            _ => Err(Status::Unsupported),
        }
    }

    fn take_ranges(
        &mut self,
        chain: &Chain,
        len: u64,
        flags: u32,
        memory: &GuestMemory,
        disk: &Disk,
    ) -> Result<(), Status> {
        let count = len / RANGE as u64;
        let right = len.is_multiple_of(RANGE as u64) && count > 0 && count <= u64::from(RANGES_MAX);
        if !right {
            return Err(Status::Failed);
        }
        let mut bytes = [0; HEAD + RANGE * RANGES_MAX as usize];
        let bytes = &mut bytes[..HEAD + len as usize];
        if !gather(&chain.readable, memory, bytes) {
            return Err(Status::Failed);
        }
        for range in bytes[HEAD..].chunks_exact(RANGE) {
            let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| range[at + n]));
            let sector = u64::from(word(0)) | u64::from(word(4)) << 32;
            let (sectors, has) = (word(8), word(12));
            if has & !flags != 0 {
                return Err(Status::Unsupported);
            }
            if sectors > RANGE_SECTORS_MAX {
                return Err(Status::Failed);
            }
            if sectors > 0 {
                let bytes = u64::from(sectors) * SECTOR;
                self.ranges.push((place(sector, bytes, disk)?, bytes));
            }
        }
        Ok(())
    }
}

/// The offset and length of a read or write.
fn extent(sector: u64, len: u64, disk: &Disk) -> Result<(u64, u32), Status> {
    if len == 0 || len > u64::from(PAYLOAD_MAX) {
        return Err(Status::Failed);
    }
    Ok((place(sector, len, disk)?, len as u32))
}

/// The offset of whole blocks that do not leave the numbers there are; whether they leave the volume is seen elsewhere.
fn place(sector: u64, len: u64, disk: &Disk) -> Result<u64, Status> {
    let block = u64::from(disk.block_size);
    let offset = sector.checked_mul(SECTOR).ok_or(Status::Failed)?;
    let whole = offset.is_multiple_of(block) && len.is_multiple_of(block);
    match whole && offset.checked_add(len).is_some() {
        true => Ok(offset),
        false => Err(Status::Failed),
    }
}

/// Fills `into` from the beginning of the parts. False where they are shorter.
fn gather(parts: &[Part], memory: &GuestMemory, mut into: &mut [u8]) -> bool {
    for part in parts {
        let len = into.len().min(part.len as usize);
        let (here, rest) = into.split_at_mut(len);
        if !memory.read(part.guest, here) {
            return false;
        }
        into = rest;
        if into.is_empty() {
            break;
        }
    }
    into.is_empty()
}

/// Appends the `len` bytes behind the first `skip` of some parts, which are that long.
fn put_parts(parts: &[Part], mut skip: u32, mut len: u32, into: &mut Vec<Part>) {
    for part in parts {
        let skipped = skip.min(part.len);
        skip -= skipped;
        let here = len.min(part.len - skipped);
        len -= here;
        if here > 0 {
            into.push(Part {
                guest: part.guest + u64::from(skipped),
                len: here,
            });
        }
    }
    debug_assert_eq!(len, 0, "the parts are as long as was said");
}
