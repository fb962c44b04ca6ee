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
use super::{Device, DeviceError, DeviceKind, blocking, links};
use crate::frontend::ublk::{
    ControlCommand, DeviceInfo, Features, Params, State, descriptors_len, descriptors_position, op,
    sectors,
};
use crate::io::{Descriptors, control_ublk, open_ublk};
use crate::runtime::{Ended, Export, Handle, Queue};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Queues of one device.
const QUEUES_MAX: u16 = 64;
/// How long the driver may take to notice that the last server has gone.
const GONE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

const ADDING: &str = "adding a ublk device";
const STARTING: &str = "starting a ublk device";
const RECOVERING: &str = "taking back a ublk device";
const RESIZING: &str = "resizing a ublk device";
const REMOVING: &str = "removing a ublk device";

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

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

/// Whether the kernel has ublk with all that is needed, and lets us.
pub(super) fn usable() -> Result<(), DeviceError> {
    features().and_then(|features| flags(features).map(drop))
}

fn features() -> Result<Features, DeviceError> {
    let mut bytes = vec![0; 8];
    match command(op::GET_FEATURES, u32::MAX, 0, &mut bytes) {
        Ok(_) => {
            let bytes = bytes.try_into().unwrap_or_default();
            Ok(Features(u64::from_ne_bytes(bytes)))
        }
        Err(error) => Err(match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::NotFound, _) => DeviceError::NoUblk,
            (_, Some(EPERM | EACCES)) => DeviceError::Rights {
                what: "opening /dev/ublk-control",
            },
            // The operation itself came with the features that we need.
            _ => DeviceError::OldUblk(format!("its ublk driver tells no features ({error})")),
        }),
    }
}

fn flags(features: Features) -> Result<u64, DeviceError> {
    let flags = features.flags();
    flags.map_err(|unsupported| DeviceError::OldUblk(unsupported.to_string()))
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

/// A device whose queues can be given to the shards.
struct Prepared {
    info: DeviceInfo,
    queues: Vec<(OwnedFd, Descriptors)>,
    /// Whether it is one from last time.
    recovers: bool,
}

fn prepare(
    number: Option<u32>,
    queues: u16,
    mark: Mark,
    params: Params,
) -> Result<Prepared, DeviceError> {
    let flags = flags(features()?)?;
    let (info, recovers) = match find(number, mark) {
        Some(info) => (recover(info)?, true),
        None => {
            let queues = queues.clamp(1, QUEUES_MAX);
            (add(number, queues, flags, mark, params)?, false)
        }
    };
    let opened = open_queues(&info);
    let queues = opened.map_err(|error| refused(STARTING, error))?;
    Ok(Prepared {
        info,
        queues,
        recovers,
    })
}

/// Looks for a device with this mark, first under the number that it had. One that was added and never started, by a
/// daemon that died in between, is cleared away.
fn find(number: Option<u32>, mark: Mark) -> Option<DeviceInfo> {
    let all = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| {
        entry
            .file_name()
            .to_str()?
            .strip_prefix("ublkc")?
            .parse()
            .ok()
    });
    let known = number.into_iter().chain(all).filter_map(info_of);
    let ours = known.filter(|info| info.mark == mark.0);
    let mut kept = ours.filter(|info| {
        let dead = info.state == State::Dead;
        if dead && let Err(error) = command(op::DEL_DEV, info.device, 0, &mut Vec::new()) {
            tracing::warn!(number = info.device, %error, "a dead ublk device is left");
        }
        !dead
    });
    kept.next()
}

fn info_of(number: u32) -> Option<DeviceInfo> {
    let mut bytes = vec![0; DeviceInfo::LEN];
    command(op::GET_DEV_INFO, number, 0, &mut bytes).ok()?;
    Some(DeviceInfo::read(&bytes.try_into().ok()?))
}

fn add(
    number: Option<u32>,
    queues: u16,
    flags: u64,
    mark: Mark,
    params: Params,
) -> Result<DeviceInfo, DeviceError> {
    // The number from last time where it is free, then any.
    let mut choices = number.map(Some).into_iter().chain([None]).peekable();
    loop {
        let choice = choices.next().flatten();
        let mut bytes = DeviceInfo::wanted(choice, queues, flags, mark.0)
            .bytes()
            .to_vec();
        match command(op::ADD_DEV, choice.unwrap_or(u32::MAX), 0, &mut bytes) {
            Ok(_) => {
                let bytes = bytes.try_into().unwrap_or([0; DeviceInfo::LEN]);
                let info = DeviceInfo::read(&bytes);
                let mut params = params.bytes().to_vec();
                let set = command(op::SET_PARAMS, info.device, 0, &mut params);
                set.map_err(|error| refused("describing a ublk device", error))?;
                return Ok(info);
            }
            Err(error) if choice.is_some() && error.raw_os_error() == Some(EEXIST) => {}
            Err(error) => return Err(refused(ADDING, error)),
        }
    }
}

/// Begins to take a device back, as soon as the driver has seen that its last server is gone.
fn recover(info: DeviceInfo) -> Result<DeviceInfo, DeviceError> {
    let until = Instant::now() + GONE;
    loop {
        match command(op::START_USER_RECOVERY, info.device, 0, &mut Vec::new()) {
            Ok(_) => return Ok(info),
            Err(error) if error.raw_os_error() == Some(EBUSY) => {
                let pid = info.server_pid;
                if Instant::now() < until {
                    std::thread::sleep(LOOK_AGAIN);
                } else if Path::new(&format!("/proc/{pid}")).exists() {
                    let path = PathBuf::from(format!("/dev/ublkb{}", info.device));
                    return Err(DeviceError::ServedElsewhere { path, pid });
                } else {
                    return Err(refused(RECOVERING, error));
                }
            }
            // A daemon that was killed while it took the device back has begun this already, and got no further.
            Err(error) if error.raw_os_error() == Some(EINVAL) && is_quiesced(info.device) => {
                return Ok(info);
            }
            Err(error) => return Err(refused(RECOVERING, error)),
        }
    }
}

fn is_quiesced(number: u32) -> bool {
    info_of(number).is_some_and(|info| info.state == State::Quiesced)
}

fn open_queues(info: &DeviceInfo) -> io::Result<Vec<(OwnedFd, Descriptors)>> {
    let device = open_ublk(info.device)?;
    let queue = |queue| {
        let (position, len) = (descriptors_position(queue), descriptors_len(info.depth));
        let descriptors = Descriptors::map(device.as_fd(), position, len)?;
        Ok((device.try_clone()?, descriptors))
    };
    (0..info.queues).map(queue).collect()
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

/// Keeps the kernel from having all tags of a queue with the server at one time.
///
/// Drivers up to Linux 6.15 notice that a server was killed by the commands of idle tags being cancelled. Where a
/// queue has none, the device would never become ready for the next server.
fn leave_a_tag_idle(number: u32, depth: u16) {
    let path = format!("/sys/block/ublkb{number}/queue/nr_requests");
    if let Err(error) = std::fs::write(path, (depth - 1).to_string()) {
        tracing::warn!(number, %error, "the depth of a ublk device's queues could not be set");
    }
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
        if tokio::time::timeout(GONE, all_ended).await.is_err() {
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

/// One control command. `buffer` is what the kernel reads or writes; may be empty.
fn command(op: u32, device: u32, data: u64, buffer: &mut Vec<u8>) -> io::Result<i32> {
    let command = ControlCommand { device, data };
    control_ublk(op, buffer, |at, len| command.bytes(at, len))
}

fn refused(what: &'static str, error: io::Error) -> DeviceError {
    match error.raw_os_error() {
        Some(EPERM | EACCES) => DeviceError::Rights { what },
        Some(ENOSPC) => DeviceError::AllInUse {
            path: "/dev/ublkbN",
        },
        _ => DeviceError::Kernel { what, error },
    }
}
