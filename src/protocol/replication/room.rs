//! Whether a disk has room for new space: what a full disk means to a PG.
//!
//! Most writes go where something was written before and take no new space; those that take some must be refused on every member or on none,
//! before anything changes. So each answer of a replica says whether its disk is *low*. While no member of a PG is, nothing is asked. A group that
//! knows of one asks every member whether a write would take new space ([`Message::Fits`](super::Message::Fits)), and refuses those that would.
//!
//! ```text
//!   0 ──────────── low_below ──── ample_from ─────────────── all of the disk    chunks that are free
//!     the reserve      │ low until more is free again than that │ ample
//! ```
//!
//! The reserve is for what nobody asked about: what was on its way as the disk became low, what recovery writes again, what a joiner is filled
//! with. Nothing is granted ahead of its write, so there is nothing to hold, to give back, or to lose with a coordinator: see
//! `docs/decisions/a_full_disk_refuses_before.md`.
//!
//! It does not know what takes space on its disk, and counts nothing itself.

/// Whether a disk takes new data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Room {
    #[default]
    Ample,
    /// Only its reserve is left: overwrites, zeroes, discards and reads go on.
    Low,
}

/// Whether a write to a chunk would take new space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Takes {
    /// The layer has space for the chunk already.
    Nothing,
    Space,
}

/// When a disk is low, from how much of it is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gauge {
    low_below: u64,
    ample_from: u64,
    room: Room,
}

impl Gauge {
    /// Of a disk of so many chunks: the last 1 % is the reserve, and a second one must be free again before it is ample, so that a disk
    /// at the edge does not change its mind with every write. Of 1 TiB it is 163,840 chunks: as much as 320 groups may have in flight, each with
    /// [`super::FLYING_MAX`] writes that all take space.
    pub fn of(chunks: u64) -> Gauge {
        Gauge::with_marks(chunks.div_ceil(100), chunks.div_ceil(50))
    }

    /// A disk that is low below the one and ample again from the other on, in chunks that are free.
    pub fn with_marks(low_below: u64, ample_from: u64) -> Gauge {
        Gauge {
            low_below,
            ample_from: ample_from.max(low_below),
            room: Room::Ample,
        }
    }

    pub fn room(&self) -> Room {
        self.room
    }

    /// So many chunks are free now; what the disk has become, if that changes anything.
    pub fn free(&mut self, chunks: u64) -> Option<Room> {
        let now = match self.room {
            Room::Ample if chunks < self.low_below => Room::Low,
            Room::Low if chunks >= self.ample_from => Room::Ample,
            same => same,
        };
        let is_new = now != self.room;
        self.room = now;
        is_new.then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_at_the_edge_does_not_change_its_mind_with_every_write() {
        let mut gauge = Gauge::with_marks(10, 20);
        assert_eq!(gauge.free(10), None);
        assert_eq!(gauge.free(9), Some(Room::Low));
        assert_eq!(gauge.free(10), None);
        assert_eq!(gauge.free(19), None);
        assert_eq!(gauge.room(), Room::Low);
        assert_eq!(gauge.free(20), Some(Room::Ample));
        assert_eq!(gauge.free(10), None);
    }

    #[test]
    fn the_last_percent_is_the_reserve() {
        let mut gauge = Gauge::of(10_000);
        assert_eq!(gauge.free(100), None);
        assert_eq!(gauge.free(99), Some(Room::Low));
        assert_eq!(gauge.free(199), None);
        assert_eq!(gauge.free(200), Some(Room::Ample));
    }
}
