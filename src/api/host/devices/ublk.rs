//! Devices by ublk: added, started, recovered and deleted by control commands, while their queues are on the shards.
//!
//! ```text
//!   new:        ADD ─► SET_PARAMS ─► queues to the shards ─► START
//!   last time's:      START_RECOVERY ─► queues to the shards ─► END_RECOVERY    (requests in flight come again)
//!   another size (6.16):                            UPDATE_SIZE
//!   removal:                                        STOP ─► queues end ─► DELETE
//! ```
//!
//! START and END_RECOVERY wait until every queue has its commands with the driver, and the kernel reads the partition
//! table before START returns: both run beside the shards, never on one.

use super::naming::Mark;
use super::ublk_driver::{
    ADDING, ENODEV, Prepared, RECOVERING, STARTING, command, find, leave_a_tag_idle, prepare,
    refused,
};
use super::{Device, DeviceError, DeviceKind, blocking, links};
use crate::frontend::ublk::{DeviceInfo, Params, op, sectors};
use crate::runtime::{Ended, Export, Handle, Queue};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How long requests in flight may take to end when a device is stopped.
const ENDING: Duration = Duration::from_secs(20);

const RESIZING: &str = "resizing a ublk device";
const REMOVING: &str = "removing a ublk device";

/// A device that is served. Clones are the same one.
#[derive(Clone)]
pub(super) struct Serving {
    number: u32,
    /// In bytes.
    size: Arc<AtomicU64>,
    /// Whether the driver can give it another size.
    grows: bool,
    /// Set when the removal begins: that its queues end is no loss then.
    stopping: Arc<AtomicBool>,
    /// True once all queues have ended.
    ended: watch::Receiver<bool>,
}

/// Starts a device, or takes back the one from last time.
pub(super) async fn start(
    runtime: &Handle,
    device: &Device,
    export: &Export,
    mark: Mark,
) -> Result<(u32, Serving), DeviceError> {
    let (number, queues, size) = (device.number, device.queues, export.size);
    let params = Params {
        size,
        block_size: export.block_size,
        read_only: export.read_only,
    };
    let prepared = blocking(ADDING, move || Ok(prepare(number, queues, mark, params))).await??;
    let Prepared {
        info,
        queues,
        recovers,
    } = prepared;
    let number = info.device;
    links::told(
        "a device",
        links::write(DeviceKind::Ublk, number, &export.name),
    );
    let mut ends = Vec::new();
    for (queue, (file, descriptors)) in queues.into_iter().enumerate() {
        let queue = Queue {
            volume: device.volume,
            device: file,
            number: queue as u16, // at most QUEUES_MAX
            depth: info.depth,
            descriptors,
        };
        ends.push(runtime.serve_queue(queue).await?);
    }
    let begun = begin(number, recovers).await;
    if let Err(error) = begun {
        if !recovers {
            // Nobody has seen it. Where it stays, the next start clears it away.
            let removed = remove(number).await;
            links::told("a device", links::remove(DeviceKind::Ublk, number));
            if let Err(kept) = removed {
                tracing::warn!(number, %kept, "a ublk device that did not start is left");
            }
        }
        return Err(error);
    }
    leave_a_tag_idle(number, info.depth);
    let size = match recovers {
        // It has the size that it was started with.
        true => links::size_of(DeviceKind::Ublk, number).unwrap_or(size),
        false => size,
    };
    let (all_ended, ended) = watch::channel(false);
    let stopping = Arc::new(AtomicBool::new(false));
    let is_stopping = Arc::clone(&stopping);
    tokio::spawn(async move {
        for mut end in ends {
            Ended::wait(&mut end).await;
        }
        if !is_stopping.load(Ordering::Relaxed) {
            tracing::info!(number, "a ublk device's queues have ended");
        }
        all_ended.send_replace(true);
    });
    let serving = Serving {
        number,
        size: Arc::new(AtomicU64::new(size)),
        grows: info.grows(),
        stopping,
        ended,
    };
    Ok((number, serving))
}

async fn begin(number: u32, recovers: bool) -> Result<(), DeviceError> {
    let (what, op) = match recovers {
        true => (RECOVERING, op::END_USER_RECOVERY),
        false => (STARTING, op::START_DEV),
    };
    let pid = u64::from(std::process::id());
    let done = blocking(what, move || Ok(command(op, number, pid, &mut Vec::new())));
    done.await?.map(drop).map_err(|error| refused(what, error))
}

/// Deletes a device that is stopped. Its number is free again when the last one has closed it: a mounted file system
/// holds on to a device that was taken away by force, and nobody waits for that.
async fn remove(number: u32) -> Result<(), DeviceError> {
    let done = blocking(REMOVING, move || {
        let deleted = command(op::DEL_DEV_ASYNC, number, 0, &mut Vec::new());
        Ok(match deleted {
            // Before Linux 6.9 there is only the deletion that waits.
            Err(error) if error.raw_os_error() != Some(ENODEV) => {
                tracing::debug!(number, %error, "a ublk device is deleted by the command that waits");
                command(op::DEL_DEV, number, 0, &mut Vec::new())
            }
            deleted => deleted,
        })
    });
    match done.await? {
        Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(()), // it is gone already
        other => other.map(drop).map_err(|error| refused(REMOVING, error)),
    }
}

async fn stop(number: u32) -> Result<(), DeviceError> {
    let done = blocking(REMOVING, move || {
        Ok(command(op::STOP_DEV, number, 0, &mut Vec::new()))
    });
    match done.await? {
        Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(()),
        other => other.map(drop).map_err(|error| refused(REMOVING, error)),
    }
}

/// Removes a device from last time, where there is one.
pub(super) async fn clear(mark: Mark) -> Result<(), DeviceError> {
    let found = blocking(REMOVING, move || Ok(find(None, mark))).await?;
    let Some(DeviceInfo { device, .. }) = found else {
        return Ok(());
    };
    stop(device).await?;
    remove(device).await?;
    links::told("a device", links::remove(DeviceKind::Ublk, device));
    Ok(())
}

impl Serving {
    /// Has the device be as large as is said, or says that this kernel cannot do that.
    pub async fn resize(&self, size: u64) -> Result<(), DeviceError> {
        let number = self.number;
        if size == self.size.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.grows {
            let path = super::path_of(DeviceKind::Ublk, number);
            return Err(DeviceError::CannotResize { path });
        }
        let done = blocking(RESIZING, move || {
            let sectors = sectors(size);
            Ok(command(op::UPDATE_SIZE, number, sectors, &mut Vec::new()))
        });
        done.await?.map_err(|error| refused(RESIZING, error))?;
        self.size.store(size, Ordering::Relaxed);
        Ok(())
    }

    pub fn is_lost(&self) -> bool {
        *self.ended.borrow() && !self.stopping.load(Ordering::Relaxed)
    }

    pub async fn stop(&self) -> Result<(), DeviceError> {
        let number = self.number;
        self.stopping.store(true, Ordering::Relaxed);
        stop(number).await?;
        // The deletion waits until the character device is closed, which the shards do with the last command.
        let mut ended = self.ended.clone();
        let all_ended = ended.wait_for(|ended| *ended);
        if tokio::time::timeout(ENDING, all_ended).await.is_err() {
            let why = "requests in flight do not end".into();
            return Err(DeviceError::Refused {
                what: REMOVING,
                why,
            });
        }
        remove(number).await?;
        links::told("a device", links::remove(DeviceKind::Ublk, number));
        Ok(())
    }
}
