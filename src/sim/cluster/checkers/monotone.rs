//! *monotone*: epochs and versions only grow.
//!
//! Of a replica: the version and the epoch of each range that it is fenced with, through crashes (R1, R6). Of the manager: the
//! version of each PG, by one at a time, so that two configurations of one version are the same (R11), and the epoch of each range,
//! which is never given out twice (R4). A replica that was wiped, or whose disk came back old, begins again: the world says so.

use super::{Failure, Promise};
use crate::base::{DiskId, Epoch, PgId, VolumeId};
use std::collections::BTreeMap;

/// A replica: a disk and a PG.
pub type ReplicaId = (DiskId, PgId);

/// What was seen last.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    versions: BTreeMap<ReplicaId, u32>,
    epochs: BTreeMap<(ReplicaId, VolumeId), Epoch>,
    configurations: BTreeMap<PgId, (u32, u64)>,
    granted: BTreeMap<VolumeId, Epoch>,
}

impl Seen {
    /// A replica is fenced with this version, and this epoch of a range.
    pub fn fenced(
        &mut self,
        replica: ReplicaId,
        version: u32,
        range: VolumeId,
        epoch: Epoch,
    ) -> Result<(), Failure> {
        let seen = self.versions.entry(replica).or_default();
        let (disk, pg) = replica;
        if version < *seen {
            return failed(format!(
                "disk {disk}, PG {pg}: version {version} after {seen}"
            ));
        }
        *seen = version;
        let seen = self.epochs.entry((replica, range)).or_default();
        if epoch < *seen {
            return failed(format!(
                "disk {disk}, PG {pg}, range {range}: {epoch:?} after {seen:?}"
            ));
        }
        *seen = epoch;
        Ok(())
    }

    /// A replica begins again, empty or old.
    pub fn begins_again(&mut self, replica: ReplicaId) {
        self.versions.remove(&replica);
        self.epochs.retain(|(of, _), _| *of != replica);
    }

    /// The manager has committed a configuration of a PG; `digest` tells configurations apart.
    pub fn configured(&mut self, pg: PgId, version: u32, digest: u64) -> Result<(), Failure> {
        if let Some((seen, of)) = self.configurations.insert(pg, (version, digest)) {
            let is_same = version == seen && digest == of;
            // One command may change a PG more than once.
            if !is_same && version <= seen {
                return failed(format!(
                    "PG {pg}: version {version} was committed after {seen}"
                ));
            }
        }
        Ok(())
    }

    /// The manager has given a range to an owner under this epoch.
    pub fn granted(&mut self, range: VolumeId, epoch: Epoch) -> Result<(), Failure> {
        match self.granted.insert(range, epoch) {
            Some(seen) if epoch <= seen => failed(format!(
                "range {range}: {epoch:?} was given out after {seen:?}"
            )),
            _ => Ok(()),
        }
    }
}

fn failed(what: String) -> Result<(), Failure> {
    Err(Failure::new(Promise::Monotone, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: ReplicaId = (DiskId(1), PgId(2));
    const RANGE: VolumeId = VolumeId(1);

    fn epoch(host: u32) -> Epoch {
        Epoch {
            host,
            ..Epoch::default()
        }
    }

    #[test]
    fn fences_that_grow_pass_and_fences_that_fall_do_not() {
        let mut seen = Seen::default();
        for (version, host) in [(1, 1), (1, 2), (4, 2)] {
            assert_eq!(seen.fenced(REPLICA, version, RANGE, epoch(host)), Ok(()));
        }
        let lower = seen.clone().fenced(REPLICA, 3, RANGE, epoch(2));
        assert!(lower.unwrap_err().what.contains("version 3 after 4"));
        let lower = seen.clone().fenced(REPLICA, 4, RANGE, epoch(1));
        assert_eq!(lower.unwrap_err().promise, Promise::Monotone);
        assert_eq!(seen.fenced(REPLICA, 4, VolumeId(2), epoch(1)), Ok(()));
        seen.begins_again(REPLICA);
        assert_eq!(seen.fenced(REPLICA, 1, RANGE, epoch(1)), Ok(()));
    }

    #[test]
    fn versions_go_up_and_one_version_is_one_configuration() {
        let mut seen = Seen::default();
        let pg = PgId(1);
        for version in [3, 4, 4, 5] {
            assert_eq!(seen.configured(pg, version, u64::from(version)), Ok(()));
        }
        assert_eq!(seen.clone().configured(pg, 7, 7), Ok(()));
        for (version, digest) in [(5, 9), (4, 4)] {
            assert!(seen.clone().configured(pg, version, digest).is_err());
        }
    }

    #[test]
    fn no_epoch_is_given_out_twice() {
        let mut seen = Seen::default();
        assert_eq!(seen.granted(RANGE, epoch(1)), Ok(()));
        assert_eq!(seen.granted(RANGE, epoch(3)), Ok(()));
        assert!(seen.clone().granted(RANGE, epoch(3)).is_err());
        assert!(seen.clone().granted(RANGE, epoch(2)).is_err());
    }
}
