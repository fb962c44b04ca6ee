//! Those who make devices of the host: the kernel's ublk and nbd, asked through their control part.

use super::Work;
use crate::base::VolumeId;
use std::path::PathBuf;

/// Which part of the kernel makes a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Ublk,
    Nbd,
}

/// A device that is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The attachment's own number.
    pub key: u64,
    pub volume: VolumeId,
    pub kind: DeviceKind,
    /// From last time, to be taken back.
    pub number: Option<u32>,
    pub queues: u16,
}

/// A device that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    pub number: u32,
    pub path: PathBuf,
}

/// Those who make devices. Errors say what is wrong and what to do.
pub trait Devices: Send + Sync {
    /// ublk where the kernel has it, else nbd.
    fn best_kind(&self) -> Result<DeviceKind, String>;
    fn start(&self, device: Device) -> Work<'_, Result<Started, String>>;
    /// Without `force`, refused while somebody has it open.
    fn stop(&self, key: u64, force: bool) -> Work<'_, Result<(), String>>;
    fn resized(&self, volume: VolumeId) -> Work<'_, Result<(), String>>;
    /// Whether one that was started has been taken away by somebody else.
    fn is_lost(&self, _key: u64) -> bool {
        false
    }
}
