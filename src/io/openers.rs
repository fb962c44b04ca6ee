//! Who has a block device open: asked before a device is taken away.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Who holds a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opener {
    /// The kernel for itself: a mounted file system, swap, a device on top of it.
    Kernel,
    Process {
        pid: u32,
        name: String,
    },
}

impl std::fmt::Display for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Opener::Kernel => f.write_str("a mounted file system, swap, or a device on top of it"),
            Opener::Process { pid, name } => write!(f, "{name} (process {pid})"),
        }
    }
}

/// Who holds the block device at `path`. Processes of other users are seen by root only, and a process that is started
/// or opens it meanwhile may be missed: the answer is good for a warning, and no lock.
pub fn openers(path: &Path) -> io::Result<Vec<Opener>> {
    let mut found = Vec::new();
    // An exclusive open is what file systems and the like do; it fails where one of them has the device.
    let exclusive = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_EXCL | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path);
    match exclusive {
        Ok(file) => drop(file),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => found.push(Opener::Kernel),
        // The driver is connected no longer: nobody uses it.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {}
        Err(error) => return Err(error),
    }
    let device = std::fs::metadata(path)?.rdev();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Processes end, and others' files are not ours to see: what cannot be looked at is left out.
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds =
            |meta: std::fs::Metadata| meta.file_type().is_block_device() && meta.rdev() == device;
        if files
            .flatten()
            .any(|file| std::fs::metadata(file.path()).is_ok_and(holds))
        {
            let comm = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = comm.trim_end().to_owned();
            found.push(Opener::Process { pid, name });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_an_error_and_none_that_nobody_holds() {
        assert!(openers(Path::new("/dev/no-such-device")).is_err());
        let null = openers(Path::new("/dev/null")).unwrap();
        assert_eq!(null, [], "a character device is nobody's block device");
    }
}
