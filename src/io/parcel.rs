//! Files and bytes on their way to the next process: over exec, or through the service manager's store.

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{SFlag, fstat};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

/// The most bytes that are believed to be a parcel's: 10,000 guests with all their rings.
const BYTES_MAX: u64 = 1 << 30;

/// Files, each with a number.
#[derive(Debug, Default)]
pub struct Parcel {
    files: Vec<OwnedFd>,
    /// Memory that is in it already, by what its file is: systemd keeps one of what it has twice.
    memory: BTreeMap<(u64, u64), u32>,
}

impl Parcel {
    /// Puts a file in; its number. Of the same memory one file is enough.
    pub fn add(&mut self, file: OwnedFd) -> io::Result<u32> {
        let stat = fstat(&file)?;
        let number = self.files.len() as u32; // bounded by RLIMIT_NOFILE
        let kind = stat.st_mode & SFlag::S_IFMT.bits();
        // Eventfds and sockets are of one inode each kind, or are named once.
        if kind == SFlag::S_IFREG.bits() {
            let known = self
                .memory
                .entry((stat.st_dev, stat.st_ino))
                .or_insert(number);
            if *known != number {
                return Ok(*known);
            }
        }
        self.files.push(file);
        Ok(number)
    }

    pub fn into_files(self) -> Vec<OwnedFd> {
        self.files
    }
}

/// A file of memory that nobody else sees, to be written and read.
pub fn scratch_file(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?))
}

/// A file of memory with these bytes, which nobody can change any more.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags)?);
    file.write_all(bytes)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// The bytes of such a file.
pub fn unsealed(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(file.try_clone()?);
    if file.metadata()?.len() > BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    // Whoever wrote it left its place at the end.
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::SharedMap;
    use super::*;
    use nix::sys::eventfd::EventFd;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_sealed_is_read_again_and_cannot_be_changed() {
        let file = sealed("test", b"what was").unwrap();
        assert_eq!(unsealed(&file).unwrap(), b"what was");
        assert_eq!(unsealed(&file).unwrap(), b"what was");
        let mut same = File::from(file);
        assert!(same.write_all(b"!").is_err() && same.set_len(0).is_err());
    }

    #[test]
    fn memory_is_in_it_once_and_every_event_for_itself() {
        let mut parcel = Parcel::default();
        let (_map, file) = SharedMap::create("memory", 4096).unwrap();
        let event = || {
            EventFd::new()
                .unwrap()
                .as_fd()
                .try_clone_to_owned()
                .unwrap()
        };
        let files = [event(), file.try_clone().unwrap(), event(), file, event()];
        let numbers = files.map(|file| parcel.add(file).unwrap());
        assert_eq!(numbers, [0, 1, 2, 1, 3]);
        assert_eq!(parcel.into_files().len(), 4);
    }
}
