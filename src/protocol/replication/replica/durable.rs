//! What survives a crash of a replica besides its blocks.

use crate::base::{Epoch, VolumeId};
use crate::protocol::replication::window::{Entry, Window};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Ranges that a PG can have fences of. A volume of 100 GiB has blocks in 25,600 PGs, so 100,000 such volumes over 100,000 PGs are
/// 25,600 in each.
pub const RANGES_MAX: usize = 65_536;

/// What is durable of a replica. Its store keeps it, each change of it as one with the change of blocks that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Durable {
    /// The highest version that it has answered under.
    pub(super) version: u32,
    /// The session that has begun here; 0: it was in sync, or took part in nothing.
    pub(super) session: u32,
    pub(super) ranges: BTreeMap<VolumeId, Range>,
}

/// What is durable of one range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Range {
    pub epoch: Epoch,
    /// Of `epoch`. It may be behind after a crash, and the window a superset then (R22).
    pub mark: u64,
    pub window: Window,
}

impl Durable {
    /// Of an empty replica of a PG. One that is there from the PG's beginning has version 1; one that comes later, 0.
    pub fn created(version: u32) -> Durable {
        Durable {
            version,
            session: 0,
            ranges: BTreeMap::new(),
        }
    }

    /// What a store found at its opening: version, session, and of each range the fence, its mark and the entries above it. The mark may
    /// be behind, and there may be entries that are not needed any more (R22); none may be missing. Of entries above their fence, which only a damaged
    /// or forged store has, the newest is as good as a fence: nothing older is taken any more.
    pub fn found(
        version: u32,
        session: u32,
        ranges: impl IntoIterator<Item = (VolumeId, Epoch, u64, Vec<Entry>)>,
    ) -> Durable {
        let mut durable = Durable {
            version,
            session,
            ranges: BTreeMap::new(),
        };
        for (range, fence, mark, entries) in ranges {
            let newest = entries.iter().map(|entry| entry.epoch).max();
            let epoch = newest.map_or(fence, |newest| newest.max(fence));
            // A mark is of one epoch.
            let mark = if epoch == fence { mark } else { 0 };
            let window = Window::found(entries);
            let of = Range {
                epoch,
                mark,
                window,
            };
            durable.ranges.insert(range, of);
        }
        durable
    }

    pub(super) fn epoch(&self, range: VolumeId) -> Epoch {
        self.ranges
            .get(&range)
            .map_or(Epoch::default(), |range| range.epoch)
    }

    /// What is known of the fences from the stamps of what was written alone.
    pub(super) fn forget_fences(&mut self) {
        self.version = 1;
        for of in self.ranges.values_mut() {
            let epochs = of.window.entries().map(|entry| entry.epoch);
            of.epoch = epochs.max().unwrap_or_default();
            of.mark = 0;
        }
    }

    pub(super) fn range(&mut self, range: VolumeId) -> &mut Range {
        self.ranges.entry(range).or_default()
    }

    /// Takes fences over, where they are higher.
    pub(super) fn take(&mut self, version: u32, session: u32, fences: &[(VolumeId, Epoch)]) {
        debug_assert!(version >= self.version, "fences-only-grow");
        self.version = self.version.max(version);
        self.session = session;
        for &(range, epoch) in fences {
            let of = self.range(range);
            if epoch > of.epoch {
                of.epoch = epoch;
                of.mark = 0;
            }
        }
    }

    /// The fences behind `after`, at most so many, and whether there are more.
    pub(super) fn fences(
        &self,
        after: Option<VolumeId>,
        most: usize,
    ) -> (Vec<(VolumeId, Epoch)>, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.ranges.range((from, Bound::Unbounded));
        let page = behind.by_ref().take(most);
        let page = page.map(|(&range, of)| (range, of.epoch)).collect();
        (page, behind.next().is_some())
    }
}
