//! The device: what it can do, and its configuration space (virtio 1.2, 5.2.4).

use super::request::{RANGE_SECTORS_MAX, RANGES_MAX};
use crate::base::{BLOCK, CHUNK, SECTOR};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// Queues of a device at most.
pub const QUEUES_MAX: u16 = 128;
/// Bytes of the configuration space that the device has; front ends may ask for more, which are zero.
const SPACE: usize = 60;
/// The same that a front end may ask for.
const SPACE_MAX: u32 = 256;
/// Where the configuration space says whether the cache is write-back, the only byte that a driver may change.
const WRITEBACK: u32 = 32;
/// Data descriptors of a request: a ring of 128 has room for that, the header and the status.
const SEG_MAX: u32 = 126;
/// Bytes of a data descriptor. With `SEG_MAX` of them a request stays below [`super::PAYLOAD_MAX`].
const SIZE_MAX: u32 = 128 * 1024;

const _: () = assert!(SEG_MAX * SIZE_MAX <= super::PAYLOAD_MAX);

/// What a front end sees of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// In bytes.
    pub size: u64,
    /// The logical block size in bytes: 512 or 4096.
    pub block_size: u32,
    pub read_only: bool,
    pub queues: u16,
    /// Whether the driver wants to send flushes. It need not: what is acknowledged is durable.
    pub writeback: bool,
}

impl Device {
    pub fn new(size: u64, block_size: u32, read_only: bool, queues: u16) -> Device {
        Device {
            size,
            block_size,
            read_only,
            queues,
            writeback: false,
        }
    }

    /// The features of virtio and vhost that are offered.
    pub fn features(&self) -> u64 {
        let mut bits = vec![
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_CONFIG_WCE,
            VIRTIO_BLK_F_MQ,
        ];
        match self.read_only {
            true => bits.push(VIRTIO_BLK_F_RO),
            false => bits.extend([VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]),
        }
        let bits = bits.into_iter().fold(0, |all, bit| all | 1 << bit);
        let vhost = VhostUserVirtioFeatures::PROTOCOL_FEATURES | VhostUserVirtioFeatures::LOG_ALL;
        bits | vhost.bits()
    }

    /// The features of the protocol that are offered.
    pub fn protocol() -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    /// The configuration space.
    fn space(&self) -> [u8; SPACE] {
        let mut space = [0; SPACE];
        let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
        let words = |bytes: u64| (bytes / SECTOR) as u32;
        put(0, &(self.size / SECTOR).to_le_bytes());
        put(8, &SIZE_MAX.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &self.block_size.to_le_bytes());
        // 4 KiB blocks underneath, 64 KiB chunks as what is best asked for.
        let physical = BLOCK / u64::from(self.block_size);
        put(24, &[physical.trailing_zeros() as u8, 0]);
        put(26, &(physical as u16).to_le_bytes());
        put(
            28,
            &((CHUNK / u64::from(self.block_size)) as u32).to_le_bytes(),
        );
        put(WRITEBACK as usize, &[u8::from(self.writeback)]);
        put(34, &self.queues.to_le_bytes());
        if !self.read_only {
            put(36, &RANGE_SECTORS_MAX.to_le_bytes());
            put(40, &RANGES_MAX.to_le_bytes());
            put(44, &words(CHUNK).to_le_bytes());
            put(48, &RANGE_SECTORS_MAX.to_le_bytes());
            put(52, &RANGES_MAX.to_le_bytes());
            put(56, &[1]);
        }
        space
    }

    /// A part of the configuration space; nothing where there is none.
    pub fn read(&self, offset: u32, len: u32) -> Vec<u8> {
        if offset.checked_add(len).is_none_or(|end| end > SPACE_MAX) {
            return Vec::new();
        }
        let space = self.space();
        let byte = |at: u32| space.get(at as usize).copied().unwrap_or(0);
        (offset..offset + len).map(byte).collect()
    }

    /// Writes to the configuration space. False where that cannot be written.
    pub fn write(&mut self, offset: u32, bytes: &[u8]) -> bool {
        match (offset, bytes) {
            // A guest may write anything here; its front end passes it on.
            (WRITEBACK, [on]) => {
                self.writeback = *on != 0;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::virtio_blk::virtio_blk_config;

    #[test]
    fn the_space_is_that_of_virtio() {
        let device = Device::new(10 << 20, 512, false, 4);
        let space = device.read(0, 60);
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| space[at + n]));
        let at = |field: usize| word(field);
        assert_eq!(word(0), 20 * 1024);
        assert_eq!(at(std::mem::offset_of!(virtio_blk_config, seg_max)), 126);
        assert_eq!(at(std::mem::offset_of!(virtio_blk_config, blk_size)), 512);
        let exponent = std::mem::offset_of!(virtio_blk_config, physical_block_exp);
        assert_eq!(space[exponent], 3);
        let queues = std::mem::offset_of!(virtio_blk_config, num_queues);
        assert_eq!(space[queues], 4);
        let alignment = std::mem::offset_of!(virtio_blk_config, discard_sector_alignment);
        assert_eq!(at(alignment), 128);
        let unmap = std::mem::offset_of!(virtio_blk_config, write_zeroes_may_unmap);
        assert_eq!((space[unmap], unmap), (1, 56));
        let writeback = std::mem::offset_of!(virtio_blk_config, wce);
        assert_eq!((space[writeback], writeback), (0, WRITEBACK as usize));
    }

    #[test]
    fn only_the_cache_can_be_written_and_more_than_there_is_reads_as_zeroes() {
        let mut device = Device::new(1 << 20, 4096, true, 1);
        assert!(device.write(32, &[1]) && device.writeback);
        assert!(!device.write(0, &[1]) && !device.write(32, &[0, 0]));
        assert_eq!(device.read(32, 1), [1]);
        assert_eq!(device.read(60, 100), [0; 100]);
        assert!(device.read(200, 57).is_empty());
        assert!(device.read(u32::MAX, 2).is_empty());
        assert_eq!(device.features() & 1 << VIRTIO_BLK_F_DISCARD, 0);
    }
}
