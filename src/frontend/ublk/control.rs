//! What `/dev/ublk-control` is told (linux/ublk_cmd.h): commands with 32 bytes of arguments, and the structures
//! that they point to. All numbers are in the machine's byte order.

use super::{MAX_IO_BYTES, QUEUE_DEPTH};
use std::fmt;

/// Operations, encoded as the driver's ioctls would be.
pub mod op {
    const fn encode(direction: u32, number: u32) -> u32 {
        direction << 30 | 32 << 16 | (b'u' as u32) << 8 | number
    }
    const fn read(number: u32) -> u32 {
        encode(2, number)
    }
    const fn change(number: u32) -> u32 {
        encode(3, number)
    }
    pub const GET_DEV_INFO: u32 = read(0x02);
    pub const ADD_DEV: u32 = change(0x04);
    pub const DEL_DEV: u32 = change(0x05);
    pub const START_DEV: u32 = change(0x06);
    pub const STOP_DEV: u32 = change(0x07);
    pub const SET_PARAMS: u32 = change(0x08);
    pub const START_USER_RECOVERY: u32 = change(0x10);
    pub const END_USER_RECOVERY: u32 = change(0x11);
    pub const GET_FEATURES: u32 = read(0x13);
    /// Linux 6.9: DEL_DEV that does not wait until nobody has the device open.
    pub const DEL_DEV_ASYNC: u32 = read(0x14);
    /// With [`super::Features::UPDATE_SIZE`]; its data is the size in sectors.
    pub const UPDATE_SIZE: u32 = change(0x15);
}

/// What the kernel's driver can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    const USER_RECOVERY: u64 = 1 << 3;
    const USER_RECOVERY_REISSUE: u64 = 1 << 4;
    /// Ioctl encoding of commands; what `op` is written for.
    const CMD_IOCTL_ENCODE: u64 = 1 << 6;
    const USER_COPY: u64 = 1 << 7;
    /// Linux 6.16: a device can be given another size while it is there.
    pub const UPDATE_SIZE: u64 = 1 << 10;

    /// What every device of ours has. Decided at run time: a driver without all of it does not serve us.
    pub const NEEDED: u64 = Features::USER_RECOVERY
        | Features::USER_RECOVERY_REISSUE
        | Features::CMD_IOCTL_ENCODE
        | Features::USER_COPY;

    /// The flags of a new device: all that it must have, and what more of use the driver has.
    pub fn flags(self) -> Result<u64, Unsupported> {
        match Features::NEEDED & !self.0 {
            0 => Ok(Features::NEEDED | self.0 & Features::UPDATE_SIZE),
            missing => Err(Unsupported { missing }),
        }
    }
}

/// The driver is too old for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported {
    /// The features that it has not.
    pub missing: u64,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.missing;
        write!(f, "its ublk driver lacks features {missing:#x}")
    }
}

/// `struct ublksrv_ctrl_cmd`, but for the address of its buffer, which `io` puts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlCommand {
    /// `u32::MAX` where the driver is to choose.
    pub device: u32,
    /// Inline data: a process or a size, for those commands that name one.
    pub data: u64,
}

impl ControlCommand {
    /// As it stands behind the submission entry.
    pub fn bytes(&self, buffer: u64, len: u16) -> [u8; 80] {
        let mut bytes = [0; 80];
        bytes[..4].copy_from_slice(&self.device.to_ne_bytes());
        bytes[4..6].copy_from_slice(&u16::MAX.to_ne_bytes()); // for no queue
        bytes[6..8].copy_from_slice(&len.to_ne_bytes());
        bytes[8..16].copy_from_slice(&buffer.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.data.to_ne_bytes());
        bytes
    }
}

/// Where a device is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Added and not started, or stopped.
    Dead,
    Live,
    /// Its server has gone; requests wait for the next one.
    Quiesced,
    Other(u16),
}

impl State {
    fn of(number: u16) -> State {
        match number {
            0 => State::Dead,
            1 => State::Live,
            2 => State::Quiesced,
            other => State::Other(other),
        }
    }
}

/// `struct ublksrv_ctrl_dev_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceInfo {
    pub queues: u16,
    pub depth: u16,
    pub state: State,
    pub max_io_bytes: u32,
    pub device: u32,
    pub server_pid: i32,
    pub flags: u64,
    /// Not looked at by the driver: by this a later daemon knows that the device is its own.
    pub mark: u64,
}

impl DeviceInfo {
    pub const LEN: usize = 64;

    /// Whether it was added with what lets its size be changed.
    pub fn grows(&self) -> bool {
        self.flags & Features::UPDATE_SIZE != 0
    }

    /// A device to be added.
    pub fn wanted(device: Option<u32>, queues: u16, flags: u64, mark: u64) -> DeviceInfo {
        DeviceInfo {
            queues,
            depth: QUEUE_DEPTH,
            state: State::Dead,
            max_io_bytes: MAX_IO_BYTES,
            device: device.unwrap_or(u32::MAX),
            server_pid: 0,
            flags,
            mark,
        }
    }

    pub fn bytes(&self) -> [u8; DeviceInfo::LEN] {
        let mut bytes = [0; DeviceInfo::LEN];
        bytes[..2].copy_from_slice(&self.queues.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.depth.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.max_io_bytes.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.device.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.mark.to_ne_bytes());
        bytes
    }

    pub fn read(bytes: &[u8; DeviceInfo::LEN]) -> DeviceInfo {
        let u16_at = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| {
            let parts = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            u32::from_ne_bytes(parts)
        };
        let u64_at = |at: usize| match cfg!(target_endian = "little") {
            true => u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32,
            false => u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4)),
        };
        DeviceInfo {
            queues: u16_at(0),
            depth: u16_at(2),
            state: State::of(u16_at(4)),
            max_io_bytes: u32_at(8),
            device: u32_at(12),
            server_pid: u32_at(16).cast_signed(),
            flags: u64_at(24),
            mark: u64_at(32),
        }
    }
}

/// What a device looks like to the kernel: `struct ublk_params` with its parts BASIC and DISCARD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// In bytes.
    pub size: u64,
    /// The logical block, in bytes: 512 or 4096.
    pub block_size: u32,
    pub read_only: bool,
}

/// A size as the driver counts it.
pub fn sectors(bytes: u64) -> u64 {
    bytes / SECTOR
}

/// Of [`Params::bytes`]: up to the end of the part DISCARD.
pub const PARAMS_LEN: usize = 60;

const TYPE_BASIC: u32 = 1 << 0;
const TYPE_DISCARD: u32 = 1 << 1;
const ATTR_READ_ONLY: u32 = 1 << 0;
// VOLATILE_CACHE (1 << 2) is never set: what is acknowledged is durable, so there is no cache to flush.
const ATTR_FUA: u32 = 1 << 3;
const SECTOR: u64 = 512;
/// The unit in which space is given back, in bytes, and what I/O is best a multiple of.
const CHUNK: u32 = 64 * 1024;
/// The longest discard or write of zeroes, in sectors: whole chunks, below 4 GiB.
const MAX_UNMAP_SECTORS: u32 = u32::MAX / 512 / 128 * 128;

impl Params {
    pub fn bytes(&self) -> [u8; PARAMS_LEN] {
        let mut bytes = [0; PARAMS_LEN];
        let mut at = 0;
        let mut put = |value: &[u8]| {
            bytes[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        };
        put(&(PARAMS_LEN as u32).to_ne_bytes());
        put(&(TYPE_BASIC | TYPE_DISCARD).to_ne_bytes());
        let read_only = if self.read_only { ATTR_READ_ONLY } else { 0 };
        put(&(ATTR_FUA | read_only).to_ne_bytes());
        let shift = |bytes: u32| bytes.trailing_zeros() as u8;
        // Logical and physical block, the best I/O, the least: blocks of the store are 4 KiB whatever is logical.
        put(&[shift(self.block_size), 12, shift(CHUNK), 12]);
        put(&(MAX_IO_BYTES / SECTOR as u32).to_ne_bytes());
        put(&0_u32.to_ne_bytes()); // requests may cross chunks
        put(&sectors(self.size).to_ne_bytes());
        put(&0_u64.to_ne_bytes());
        put(&0_u32.to_ne_bytes()); // discards are aligned to the device's beginning
        put(&CHUNK.to_ne_bytes());
        put(&MAX_UNMAP_SECTORS.to_ne_bytes());
        put(&MAX_UNMAP_SECTORS.to_ne_bytes());
        put(&1_u16.to_ne_bytes()); // segments of a discard
        bytes
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_the_header() {
        assert_eq!(op::GET_FEATURES, 0x8020_7513);
        assert_eq!(op::ADD_DEV, 0xc020_7504);
        assert_eq!(op::END_USER_RECOVERY, 0xc020_7511);
        assert_eq!(op::GET_DEV_INFO, 0x8020_7502);
        assert_eq!(op::DEL_DEV_ASYNC, 0x8020_7514);
        assert_eq!(op::UPDATE_SIZE, 0xc020_7515);
    }

    #[test]
    fn a_command_is_for_a_device_and_no_queue() {
        let command = ControlCommand {
            device: 3,
            data: 0x1234,
        };
        let bytes = command.bytes(0x7fff_0000_1000, 64);
        let wanted = [
            3, 0, 0, 0, 0xff, 0xff, 64, 0, 0, 0x10, 0, 0, 0xff, 0x7f, 0, 0, 0x34, 0x12, 0, 0, 0, 0,
            0, 0,
        ];
        assert_eq!(bytes[..24], wanted);
        assert_eq!(bytes[24..], [0; 56]);
    }

    #[test]
    fn what_is_told_of_a_device_comes_back() {
        let info = DeviceInfo::wanted(None, 2, Features::NEEDED, 0x0102_0304_0506_0708);
        let mut bytes = info.bytes();
        assert_eq!(bytes[..4], [2, 0, 128, 0]);
        assert_eq!(bytes[8..16], [0, 0, 0x10, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(
            bytes[24..40],
            [0xd8, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]
        );
        assert_eq!(DeviceInfo::read(&bytes), info);
        bytes[4] = 2;
        bytes[16] = 99;
        let read = DeviceInfo::read(&bytes);
        assert_eq!((read.state, read.server_pid), (State::Quiesced, 99));
    }

    #[test]
    fn a_device_gets_what_the_driver_has_and_one_that_lacks_something_says_what() {
        assert_eq!(Features(0x3ff).flags(), Ok(0xd8));
        assert_eq!(Features(0xfff).flags(), Ok(0x4d8));
        let info = |flags| DeviceInfo::wanted(None, 1, flags, 0);
        assert!(info(0x4d8).grows() && !info(0xd8).grows());
        assert_eq!(Features(0x5f).flags(), Err(Unsupported { missing: 0x80 }));
    }

    #[test]
    fn parameters_are_as_the_kernel_reads_them() {
        let params = Params {
            size: 1 << 30,
            block_size: 512,
            read_only: false,
        };
        let wanted = [
            &[60, 0, 0, 0, 3, 0, 0, 0][..],
            &[8, 0, 0, 0, 9, 12, 16, 12], // FUA; 512, 4096, 64 KiB, 4096
            &[0, 8, 0, 0, 0, 0, 0, 0],    // 1 MiB at most
            &[0, 0, 0x20, 0, 0, 0, 0, 0], // sectors
            &[0, 0, 0, 0, 0, 0, 0, 0],    // no boundary
            &[0, 0, 0, 0, 0, 0, 1, 0],    // discard: alignment, granularity
            &[0x80, 0xff, 0x7f, 0, 0x80, 0xff, 0x7f, 0],
            &[1, 0, 0, 0],
        ];
        assert_eq!(params.bytes()[..], wanted.concat());
    }
}
