//! Those who make devices of the host: the kernel's ublk and nbd, asked through their control part.

use super::Work;
use crate::api::host::{Device, DeviceKind, KernelDevices, Started};
use crate::base::VolumeId;

/// Those who make devices. Errors say what is wrong and what to do.
pub trait Devices: Send + Sync {
    /// ublk where the kernel has it, else nbd.
    fn best_kind(&self) -> Result<DeviceKind, String>;
    /// Takes back one that is there from last time.
    fn start(&self, device: Device) -> Work<'_, Result<Started, String>>;
    /// Without `force`, refused while somebody has it open.
    fn stop(&self, key: u64, force: bool) -> Work<'_, Result<(), String>>;
    fn resized(&self, volume: VolumeId) -> Work<'_, Result<(), String>>;
    /// Whether one that was started is not served any more.
    fn is_lost(&self, key: u64) -> bool;
}

impl Devices for KernelDevices {
    fn best_kind(&self) -> Result<DeviceKind, String> {
        self.best_kind().map_err(|error| error.to_string())
    }

    fn start(&self, device: Device) -> Work<'_, Result<Started, String>> {
        let started = self.start(device);
        Box::pin(async { started.await.map_err(|error| error.to_string()) })
    }

    fn stop(&self, key: u64, force: bool) -> Work<'_, Result<(), String>> {
        let stopped = self.stop(key, force);
        Box::pin(async { stopped.await.map_err(|error| error.to_string()) })
    }

    fn resized(&self, volume: VolumeId) -> Work<'_, Result<(), String>> {
        let told = self.resized(volume);
        Box::pin(async { told.await.map_err(|error| error.to_string()) })
    }

    fn is_lost(&self, key: u64) -> bool {
        self.is_lost(key)
    }
}
