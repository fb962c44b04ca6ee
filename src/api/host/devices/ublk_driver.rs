//! What is said to ublk's driver about one device: commands that wait for the kernel, so none of it runs on a shard.

use super::DeviceError;
use super::naming::Mark;
use crate::frontend::ublk::{
    ControlCommand, DeviceInfo, Features, Params, State, descriptors_len, descriptors_position, op,
};
use crate::io::{Descriptors, control_ublk, open_ublk};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Queues of one device.
const QUEUES_MAX: u16 = 64;
/// How long the driver may take to notice that the last server has gone.
const GONE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub(super) const ADDING: &str = "adding a ublk device";
pub(super) const STARTING: &str = "starting a ublk device";
pub(super) const RECOVERING: &str = "taking back a ublk device";

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
pub(super) const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

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

/// A device whose queues can be given to the shards.
pub(super) struct Prepared {
    pub info: DeviceInfo,
    pub queues: Vec<(OwnedFd, Descriptors)>,
    /// Whether it is one from last time.
    pub recovers: bool,
}

pub(super) fn prepare(
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
pub(super) fn find(number: Option<u32>, mark: Mark) -> Option<DeviceInfo> {
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

/// Keeps the kernel from having all tags of a queue with the server at one time.
///
/// Drivers up to Linux 6.15 notice that a server was killed by the commands of idle tags being cancelled. Where a
/// queue has none, the device would never become ready for the next server.
///
/// The kernel first waits until nothing is in flight at the device, and what is may need other nodes, whose links are made by the threads that this is called from. So it has a
/// thread that nobody waits for.
pub(super) fn leave_a_tag_idle(number: u32, depth: u16) {
    let begun = std::thread::Builder::new()
        .name("ublk-depth".into())
        .spawn(move || {
            let told = set_depth(number, depth - 1);
            could_not(number, told);
        });
    could_not(number, begun.map(drop));
}

fn could_not(number: u32, set: io::Result<()>) {
    if let Err(error) = set {
        tracing::warn!(number, %error, "the depth of a ublk device's queues could not be set");
    }
}

/// A device that was taken back has it already.
fn set_depth(number: u32, depth: u16) -> io::Result<()> {
    let path = format!("/sys/block/ublkb{number}/queue/nr_requests");
    let wanted = depth.to_string();
    match std::fs::read_to_string(&path)?.trim() == wanted {
        true => Ok(()),
        false => std::fs::write(path, wanted),
    }
}

/// One control command. `buffer` is what the kernel reads or writes; may be empty.
pub(super) fn command(op: u32, device: u32, data: u64, buffer: &mut Vec<u8>) -> io::Result<i32> {
    let command = ControlCommand { device, data };
    control_ublk(op, buffer, |at, len| command.bytes(at, len))
}

pub(super) fn refused(what: &'static str, error: io::Error) -> DeviceError {
    match error.raw_os_error() {
        Some(EPERM | EACCES) => DeviceError::Rights { what },
        Some(ENOSPC) => DeviceError::AllInUse {
            path: "/dev/ublkbN",
        },
        _ => DeviceError::Kernel { what, error },
    }
}
