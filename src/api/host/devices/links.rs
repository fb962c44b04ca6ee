//! What udev reads to make `/dev/sarsen/VOLUME`: a file a device under `/run/sarsen/devices`, by the device's name, with
//! `SARSEN_VOLUME=`. The rules are in `udev/`. Where there is no udev, nobody reads them, and there are no links.

use super::DeviceKind;
use std::io;
use std::path::PathBuf;

const FOLDER: &str = "/run/sarsen/devices";

fn name(kind: DeviceKind, number: u32) -> String {
    match kind {
        DeviceKind::Ublk => format!("ublkb{number}"),
        DeviceKind::Nbd => format!("nbd{number}"),
    }
}

/// What stands in a device's file. A volume's name needs no quotes.
fn text(volume: &str) -> String {
    format!("SARSEN_VOLUME={volume}\n")
}

fn path(kind: DeviceKind, number: u32) -> PathBuf {
    PathBuf::from(FOLDER).join(name(kind, number))
}

/// Says which volume a device is, for the next event that udev gets of it.
pub(super) fn write(kind: DeviceKind, number: u32, volume: &str) -> io::Result<()> {
    std::fs::create_dir_all(FOLDER)?;
    let (path, new) = (path(kind, number), path(kind, number).with_extension("new"));
    // udev may read it at any time.
    std::fs::write(&new, text(volume))?;
    std::fs::rename(new, path)
}

/// Forgets that. For nbd, whose devices stay, an event has to follow.
pub(super) fn remove(kind: DeviceKind, number: u32) -> io::Result<()> {
    match std::fs::remove_file(path(kind, number)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Has the kernel send udev an event of the device.
pub(super) fn announce(kind: DeviceKind, number: u32) -> io::Result<()> {
    std::fs::write(
        format!("/sys/block/{}/uevent", name(kind, number)),
        "change",
    )
}

/// A link that is not right is no reason to have no device.
pub(super) fn told(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "{what}: links under /dev/sarsen may be wrong");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_file_of_its_own_name() {
        let path = path(DeviceKind::Ublk, 3);
        assert_eq!(path, PathBuf::from("/run/sarsen/devices/ublkb3"));
        assert_eq!(name(DeviceKind::Nbd, 0), "nbd0");
        assert_eq!(text("vm-1.root"), "SARSEN_VOLUME=vm-1.root\n");
    }
}
