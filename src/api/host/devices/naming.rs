//! How a device is known again after a restart, and which kind is chosen. Pure.

use super::{DeviceError, DeviceKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a device of this node and attachment bears, in the kernel: another daemon's never has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(pub u64);

/// The beginning of every backend identifier of ours.
const OURS: &str = "sarsen:";

impl Mark {
    /// Of an attachment of the daemon whose catalog lies in `home`: FNV-1a over both. Two of them on one host would have
    /// to collide in 64 bits.
    pub fn of(home: &Path, key: u64) -> Mark {
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        // A path that begins elsewhere after a restart would be another one.
        let home = std::path::absolute(home).unwrap_or_else(|_| home.to_owned());
        let bytes = home.as_os_str().as_bytes().iter().copied();
        let all = bytes.chain([0]).chain(key.to_le_bytes());
        let mark = all.fold(BASIS, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        });
        Mark(mark)
    }

    /// What nbd keeps with the device, and shows in /sys/block/nbdN/backend.
    pub fn backend(self, volume: &str) -> String {
        format!("{OURS}{volume}:{:016x}", self.0)
    }

    /// Whether a backend identifier is of this mark, whatever the volume is called now.
    pub fn is_in(self, backend: &str) -> bool {
        let rest = backend.trim_end().strip_prefix(OURS);
        let mark = rest.and_then(|rest| rest.rsplit_once(':'));
        mark.is_some_and(|(_, mark)| mark == format!("{:016x}", self.0))
    }
}

/// ublk where it can be used, else nbd.
pub(super) fn choose(
    ublk: Result<(), DeviceError>,
    nbd: Result<(), DeviceError>,
) -> Result<DeviceKind, DeviceError> {
    match (ublk, nbd) {
        (Ok(()), _) => Ok(DeviceKind::Ublk),
        (Err(_), Ok(())) => Ok(DeviceKind::Nbd),
        (Err(rights @ DeviceError::Rights { .. }), Err(_)) => Err(rights),
        (Err(why), Err(_)) => Err(DeviceError::Neither(Box::new(why))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_one_home_and_one_attachment() {
        let mark = Mark::of(Path::new("/var/lib/sarsen"), 1);
        assert_eq!(mark, Mark::of(Path::new("/var/lib/sarsen"), 1));
        assert_ne!(mark, Mark::of(Path::new("/var/lib/sarsen"), 2));
        assert_ne!(mark, Mark::of(Path::new("/var/lib/other"), 1));
    }

    #[test]
    fn a_backend_is_known_again_by_its_mark_alone() {
        let mark = Mark(0xab);
        let backend = mark.backend("vm-1.root");
        assert_eq!(backend, "sarsen:vm-1.root:00000000000000ab");
        assert!(mark.is_in("sarsen:renamed:00000000000000ab\n"));
        assert!(!Mark(0xac).is_in(&backend));
        for other in [
            "",
            "sarsen:",
            "00000000000000ab",
            "other:x:00000000000000ab",
        ] {
            assert!(!mark.is_in(other), "{other}");
        }
    }

    #[test]
    fn ublk_is_chosen_before_nbd_and_neither_is_told() {
        let choose = |ublk, nbd| super::choose(ublk, nbd);
        assert_eq!(choose(Ok(()), Ok(())).unwrap(), DeviceKind::Ublk);
        let no_ublk = || Err(DeviceError::NoUblk);
        assert_eq!(choose(no_ublk(), Ok(())).unwrap(), DeviceKind::Nbd);
        let neither = choose(no_ublk(), Err(DeviceError::NoNbd)).unwrap_err();
        assert!(matches!(neither, DeviceError::Neither(_)));
        let what = "this";
        let rights = choose(Err(DeviceError::Rights { what }), Err(DeviceError::NoNbd));
        assert!(matches!(rights, Err(DeviceError::Rights { .. })));
    }
}
