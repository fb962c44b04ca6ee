//! *space*: what is given back can be used again, and a writer is refused only where there is no space.

use super::{Checker, Failure};

/// Slots of all disks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slots {
    pub total: u64,
    pub free: u64,
}

/// Judges a refusal: `used_max` is the most slots that the volumes can have in use, for all the model knows.
/// The last percent serves overwrites only, and each operation in flight may hold slots for itself.
pub fn judge_refusal(slots: Slots, used_max: u64, in_flight: u64) -> Result<(), Failure> {
    let reserve = slots.total.div_ceil(100) + 1;
    match used_max + in_flight + reserve >= slots.total {
        true => Ok(()),
        false => Err(Failure::new(
            Checker::Space,
            format!(
                "space was refused with at most {used_max} of {} slots used and {in_flight} in flight",
                slots.total
            ),
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
        assert!(judge_refusal(formatted, 980, 10).is_ok());
        assert!(judge_refusal(formatted, 900, 10).is_err());
        let leaked = Slots {
            free: 999,
            ..formatted
        };
        assert!(judge_empty(formatted, formatted).is_ok());
        assert!(judge_empty(leaked, formatted).is_err());
    }
}
