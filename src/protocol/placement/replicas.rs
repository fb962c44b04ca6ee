//! The replicas of one PG, as a small value: a hundred thousand of them lie side by side without a pointer.
//!
//! Invariants: no disk twice; at most [`REPLICAS_MAX`]. It does not know domains.

use super::cluster::REPLICAS_MAX;

/// A few disks, by their numbers in the layout.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Replicas {
    disks: [u32; REPLICAS_MAX],
    count: u8,
}

impl Replicas {
    /// `disks` are at most [`REPLICAS_MAX`], none twice.
    pub fn of(disks: &[u32]) -> Replicas {
        let mut replicas = Replicas::default();
        disks.iter().for_each(|&disk| replicas.add(disk));
        replicas
    }

    pub fn as_slice(&self) -> &[u32] {
        &self.disks[..usize::from(self.count)]
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.as_slice().iter().copied()
    }

    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub fn has(&self, disk: u32) -> bool {
        self.as_slice().contains(&disk)
    }

    pub fn add(&mut self, disk: u32) {
        debug_assert!(!self.has(disk), "no disk holds a PG twice");
        self.disks[usize::from(self.count)] = disk;
        self.count += 1;
    }

    /// Without `disk`, which need not be there.
    pub fn without(&self, disk: u32) -> Replicas {
        let mut rest = Replicas::default();
        self.iter()
            .filter(|&other| other != disk)
            .for_each(|other| rest.add(other));
        rest
    }
}
