//! Block devices of this host, by the kernel's ublk or its nbd: started, taken back after a restart, resized, stopped.
//!
//! ```text
//!   start ─► is it there from last time? ─ yes ─► taken back: ublk recovers, nbd gets new sockets
//!                                        └ no ──► made
//!   the daemon ends, in whatever way: the device stays, who uses it waits
//!   stop  ─► nobody has it open, or it is forced ─► taken away
//! ```
//!
//! The devices are the kernel's and outlive the daemon: nothing of them is undone when it stops. Requests go past the
//! control plane, from the kernel to the shards.
//!
//! | file | what it does |
//! |---|---|
//! | `ublk`, `nbd` | one kind of device, from the first command to the last |
//! | `ublk_driver` | what is said to the driver of ublk, and waits for it |
//! | `naming` | how a device is known again, which kind is chosen |
//! | `links` | what udev reads to make `/dev/sarsen/VOLUME` |
//! | `error` | what can be wrong, and what to do about it |

mod error;
mod links;
mod naming;
mod nbd;
mod ublk;
mod ublk_driver;

pub use error::DeviceError;

use super::attachments::{Device, DeviceKind, Devices, Started, Work};
use crate::base::VolumeId;
use crate::io::openers;
use crate::runtime::Handle;
use naming::Mark;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a removal waits for those who have a device open: programs that look at each new device do for a moment.
const OPENERS: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One that is served.
#[derive(Clone)]
enum Serving {
    Ublk(ublk::Serving),
    Nbd(nbd::Serving),
}

struct Entry {
    device: Device,
    number: u32,
    serving: Serving,
}

impl Entry {
    fn path(&self) -> PathBuf {
        path_of(self.device.kind, self.number)
    }
}

/// The devices of this node. Clones are the same ones.
#[derive(Clone)]
pub struct KernelDevices {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Handle,
    /// By this the devices of this node are told from those of others.
    home: PathBuf,
    entries: Mutex<BTreeMap<u64, Entry>>,
    /// Held over a start, a stop or a resize.
    changing: tokio::sync::Mutex<()>,
}

impl KernelDevices {
    /// `home` is the folder of the catalog: it tells the devices of this node from those of another daemon on
    /// the same host.
    pub fn new(runtime: Handle, home: &Path) -> KernelDevices {
        KernelDevices {
            inner: Arc::new(Inner {
                runtime,
                home: home.to_owned(),
                entries: Mutex::default(),
                changing: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// ublk where the kernel has it, else nbd.
    pub fn best_kind(&self) -> Result<DeviceKind, DeviceError> {
        naming::choose(ublk_driver::usable(), nbd::usable())
    }

    /// Has a device be there and served. One that is there from last time is taken back, with what it has in flight.
    pub async fn start(&self, device: Device) -> Result<Started, DeviceError> {
        let _changing = self.inner.changing.lock().await;
        if let Some(entry) = self.entries().get(&device.key)
            && !entry.serving.is_lost()
        {
            let (number, path) = (entry.number, entry.path());
            return Ok(Started { number, path });
        }
        // What was lost is begun again.
        let lost = self.entries().remove(&device.key);
        if let Some(Serving::Nbd(lost)) = lost.map(|lost| lost.serving) {
            lost.abandon();
        }
        let runtime = &self.inner.runtime;
        let export = runtime.export(device.volume);
        let export = export.ok_or(DeviceError::NoSuchVolume)?;
        let mark = Mark::of(&self.inner.home, device.key);
        let (number, serving) = match device.kind {
            DeviceKind::Ublk => {
                let (number, serving) = ublk::start(runtime, &device, &export, mark).await?;
                (number, Serving::Ublk(serving))
            }
            DeviceKind::Nbd => {
                let (number, serving) = nbd::start(runtime, &device, &export, mark).await?;
                (number, Serving::Nbd(serving))
            }
        };
        let path = path_of(device.kind, number);
        tracing::info!(volume = export.name, path = %path.display(), "device served");
        let key = device.key;
        let entry = Entry {
            device,
            number,
            serving,
        };
        self.entries().insert(key, entry);
        Ok(Started { number, path })
    }

    /// Takes a device away. Without `force` this waits a little for those who have it open, and is refused where
    /// somebody still has; with it, they get I/O errors.
    pub async fn stop(&self, key: u64, force: bool) -> Result<(), DeviceError> {
        let _changing = self.inner.changing.lock().await;
        let known = self.entries().get(&key).map(|entry| {
            let is_there = !entry.serving.is_lost();
            is_there.then(|| entry.path())
        });
        let Some(path) = known else {
            return self.clear(key).await;
        };
        if let Some(path) = path.filter(|_| !force) {
            nobody_has(path).await?;
        }
        let removed = self.entries().remove(&key);
        let Some(entry) = removed else {
            return Ok(());
        };
        let stopped = match &entry.serving {
            Serving::Ublk(serving) => serving.stop().await,
            Serving::Nbd(serving) => serving.stop().await,
        };
        match stopped {
            Ok(()) => {
                tracing::info!(path = %entry.path().display(), "device removed");
                Ok(())
            }
            Err(error) => {
                self.entries().insert(key, entry); // to be tried again
                Err(error)
            }
        }
    }

    /// Takes away what an earlier daemon has left of a device that this one could not take back.
    async fn clear(&self, key: u64) -> Result<(), DeviceError> {
        let mark = Mark::of(&self.inner.home, key);
        ublk::clear(mark).await?;
        nbd::clear(mark).await
    }

    /// Tells the devices of a volume how large it is now, as the exports say.
    pub async fn resized(&self, volume: VolumeId) -> Result<(), DeviceError> {
        let _changing = self.inner.changing.lock().await;
        let export = self.inner.runtime.export(volume);
        let export = export.ok_or(DeviceError::NoSuchVolume)?;
        let serving = {
            let entries = self.entries();
            let mut of_volume = entries.values().filter(|e| e.device.volume == volume);
            of_volume.next().map(|entry| entry.serving.clone())
        };
        match serving {
            None => Ok(()),
            Some(Serving::Ublk(serving)) => serving.resize(export.size).await,
            Some(Serving::Nbd(serving)) => serving.resize(&export).await,
        }
    }

    /// Whether a device that was started is gone, because somebody else has taken it away: to be started again.
    pub fn is_lost(&self, key: u64) -> bool {
        self.entries()
            .get(&key)
            .is_some_and(|entry| entry.serving.is_lost())
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Entry>> {
        let entries = &self.inner.entries;
        // Changed by single calls, so it is whole at all times.
        entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Devices for KernelDevices {
    fn best_kind(&self) -> Result<DeviceKind, String> {
        self.best_kind().map_err(|error| error.to_string())
    }

    fn start(&self, device: Device) -> Work<'_, Result<Started, String>> {
        Box::pin(async { self.start(device).await.map_err(|error| error.to_string()) })
    }

    fn stop(&self, key: u64, force: bool) -> Work<'_, Result<(), String>> {
        Box::pin(async move {
            let stopped = self.stop(key, force).await;
            stopped.map_err(|error| error.to_string())
        })
    }

    fn resized(&self, volume: VolumeId) -> Work<'_, Result<(), String>> {
        Box::pin(async move {
            let resized = self.resized(volume).await;
            resized.map_err(|error| error.to_string())
        })
    }

    fn is_lost(&self, key: u64) -> bool {
        self.is_lost(key)
    }
}

impl Serving {
    fn is_lost(&self) -> bool {
        match self {
            Serving::Ublk(serving) => serving.is_lost(),
            Serving::Nbd(serving) => serving.is_lost(),
        }
    }
}

fn path_of(kind: DeviceKind, number: u32) -> PathBuf {
    PathBuf::from(match kind {
        DeviceKind::Ublk => format!("/dev/ublkb{number}"),
        DeviceKind::Nbd => format!("/dev/nbd{number}"),
    })
}

/// Waits until nobody has a device open, or says who has.
async fn nobody_has(path: PathBuf) -> Result<(), DeviceError> {
    let until = tokio::time::Instant::now() + OPENERS;
    loop {
        let looked_at = path.clone();
        let found = blocking("looking for who has the device open", move || {
            openers(&looked_at)
        })
        .await?;
        let Some(first) = found.into_iter().next() else {
            return Ok(());
        };
        if tokio::time::Instant::now() >= until {
            return Err(DeviceError::Held { path, by: first });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Has a thread of its own do what waits for the kernel.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, DeviceError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)));
    done.map_err(|error| DeviceError::Kernel { what, error })
}
