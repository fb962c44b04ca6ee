//! *space*: what is given back can be used again, and a writer is refused only where there was no space at some moment
//! since it asked.

use super::{Checker, Failure};

/// Slots of all disks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slots {
    pub total: u64,
    pub free: u64,
}

/// How full the disks of a node were at most over some time, for all the model knows.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// The fewest slots that a writer must have found free; negative where there need not have been any.
    least: i64,
    /// It was not known what is free at some moment.
    unclear: bool,
}

impl Default for Room {
    /// Over no time at all.
    fn default() -> Room {
        Room {
            least: i64::MAX,
            unclear: false,
        }
    }
}

impl Room {
    /// At a moment when the volumes had at most `used_max` of `total` slots, and operations in flight held at most
    /// `in_flight` for themselves. The last percent serves overwrites only.
    pub fn at(total: u64, used_max: u64, in_flight: u64) -> Room {
        let reserve = total.div_ceil(100) + 1;
        Room {
            least: total as i64 - (used_max + in_flight + reserve) as i64,
            unclear: total == 0,
        }
    }

    /// At a moment when nobody could tell.
    pub fn unclear() -> Room {
        Room {
            unclear: true,
            ..Room::default()
        }
    }

    /// Over the time of both.
    pub fn and(self, other: Room) -> Room {
        Room {
            least: self.least.min(other.least),
            unclear: self.unclear || other.unclear,
        }
    }
}

/// Judges a refusal of space: there must have been a moment without.
pub fn judge_refusal(room: Room) -> Result<(), Failure> {
    match room.unclear || room.least <= 0 {
        true => Ok(()),
        false => Err(Failure::new(
            Checker::Space,
            format!("space was refused with {} slots free at least", room.least),
        )),
    }
}

/// Judges a node without volumes: its disks are as empty as after they were formatted.
pub fn judge_empty(now: Slots, formatted: Slots) -> Result<(), Failure> {
    match now == formatted {
        true => Ok(()),
        false => Err(Failure::new(
            Checker::Space,
            format!("without volumes there is {now:?}, after formatting there was {formatted:?}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_with_space_left_and_a_leak_are_found() {
        let formatted = Slots {
            total: 1000,
            free: 1000,
        };
        let (full, empty) = (Room::at(1000, 980, 10), Room::at(1000, 900, 10));
        assert!(judge_refusal(full).is_ok());
        assert!(judge_refusal(empty).is_err());
        assert!(judge_refusal(empty.and(full).and(empty)).is_ok());
        assert!(judge_refusal(empty.and(Room::unclear())).is_ok());
        let leaked = Slots {
            free: 999,
            ..formatted
        };
        assert!(judge_empty(formatted, formatted).is_ok());
        assert!(judge_empty(leaked, formatted).is_err());
    }
}
