//! What can be wrong with a device, and what to do about it.

use crate::io::Opener;
use crate::runtime::ServeError;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a device is not there, or still there.
#[derive(Debug)]
pub enum DeviceError {
    /// The kernel has no ublk driver loaded.
    NoUblk,
    /// It has one that is too old; what it lacks.
    OldUblk(String),
    /// The kernel has no nbd driver loaded.
    NoNbd,
    /// It has neither; why not ublk.
    Neither(Box<DeviceError>),
    /// The daemon may not do it.
    Rights {
        what: &'static str,
    },
    /// Every device is in use.
    AllInUse {
        path: &'static str,
    },
    /// Another process serves the device.
    ServedElsewhere {
        path: PathBuf,
        pid: i32,
    },
    /// Somebody has it open.
    Held {
        path: PathBuf,
        by: Opener,
    },
    /// This kernel's ublk cannot give a device another size.
    CannotResize {
        path: PathBuf,
    },
    NoSuchVolume,
    Serve(ServeError),
    /// The kernel refused, in these words.
    Refused {
        what: &'static str,
        why: String,
    },
    /// A call failed.
    Kernel {
        what: &'static str,
        error: io::Error,
    },
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceError::NoUblk => f.write_str(
                "the kernel has no ublk: `modprobe ublk_drv`, or attach with --nbd-device",
            ),
            DeviceError::OldUblk(why) => write!(
                f,
                "the kernel is too old: {why}; Linux 6.5 or newer, or attach with --nbd-device"
            ),
            DeviceError::NoNbd => f.write_str("the kernel has no nbd: `modprobe nbd`"),
            DeviceError::Neither(why) => write!(
                f,
                "the kernel makes no devices: `modprobe ublk_drv` or `modprobe nbd` ({why})"
            ),
            DeviceError::Rights { what } => write!(
                f,
                "{what} is not permitted: the daemon needs CAP_SYS_ADMIN (run it as root, or see its unit)"
            ),
            DeviceError::AllInUse { path } => write!(
                f,
                "every device {path} is in use: detach one, or load the driver with more"
            ),
            DeviceError::ServedElsewhere { path, pid } => {
                let path = path.display();
                write!(f, "{path} is served by process {pid}: stop that first")
            }
            DeviceError::Held { path, by } => write!(
                f,
                "{} is in use by {by}: unmount or close it, or use --force, which gives them I/O errors",
                path.display()
            ),
            DeviceError::CannotResize { path } => write!(
                f,
                "the kernel's ublk cannot resize {} while it is there: detach and attach it again",
                path.display()
            ),
            DeviceError::NoSuchVolume => f.write_str("the volume is not open here"),
            DeviceError::Serve(error) => error.fmt(f),
            DeviceError::Refused { what, why } => write!(f, "{what}: the kernel says: {why}"),
            DeviceError::Kernel { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for DeviceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DeviceError::Kernel { error, .. } => Some(error),
            DeviceError::Serve(error) => Some(error),
            DeviceError::Neither(why) => Some(why),
            _ => None,
        }
    }
}

impl From<ServeError> for DeviceError {
    fn from(error: ServeError) -> DeviceError {
        match error {
            ServeError::NoSuchVolume => DeviceError::NoSuchVolume,
            other => DeviceError::Serve(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let held = DeviceError::Held {
            path: "/dev/nbd0".into(),
            by: Opener::Process {
                pid: 7,
                name: "dd".into(),
            },
        };
        let text = held.to_string();
        assert!(
            text.starts_with("/dev/nbd0 is in use by dd (process 7)") && text.contains("--force")
        );
        let neither = DeviceError::Neither(Box::new(DeviceError::NoUblk)).to_string();
        assert!(neither.contains("modprobe ublk_drv") && neither.contains("modprobe nbd"));
    }
}
