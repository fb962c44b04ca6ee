//! *linearizable*: a volume is one linearizable register per 512 B sector (and per byte, where writes are
//! smaller). A read returns the last acknowledged write or one that was in flight at the time, never an older
//! one, and no two reads disagree about the order of two writes.
//!
//! The rule itself is in `register.rs`; here what breaks it is given its name and put into words.

use super::{Checker, Failure, durable};
use crate::base::{BLOCK, MapRun};
use crate::sim::model::{Model, Wrong};
use crate::sim::register::Tick;
use std::ops::Range;

/// Judges the answer to a read; `bytes` is what it returned for `offset` of a volume.
pub fn judge_read(
    model: &mut Model,
    volume: usize,
    offset: u64,
    bytes: &[u8],
    span: (Tick, Tick),
) -> Result<(), Failure> {
    let judged = model.read(volume, offset, bytes, span.0, span.1);
    judged.map_err(|wrong| {
        let at = wrong.block * BLOCK + u64::from(wrong.mismatch.at) - offset;
        let seen = describe(model, &wrong, &bytes[at as usize..]);
        let checker = match durable::is_to_blame(model, &wrong, span.0) {
            true => Checker::Durable,
            false => Checker::Linearizable,
        };
        Failure::new(checker, seen)
    })
}

fn describe(model: &Model, wrong: &Wrong, bytes: &[u8]) -> String {
    let offset = wrong.block * BLOCK + u64::from(wrong.mismatch.at);
    // To the end of the sector: what follows may be from another write.
    let sector = &bytes[..bytes.len().min((512 - offset % 512) as usize)];
    let origin = wrong.mismatch.seen;
    let origin = origin.or_else(|| model.origin(wrong.volume, offset, sector));
    let of = |write: u32| match write {
        0 => "the zeroes before all writes".to_string(),
        write => {
            let record = model.write(write);
            let kind = if record.value.0 == 0 {
                "zeroes"
            } else {
                "write"
            };
            let ended = match record.ended {
                Tick::MAX => "in flight".to_string(),
                ended => format!("ended at {ended}"),
            };
            let Range { start, end } = record.range;
            format!(
                "{kind} {write} of bytes {start}..{end} (began at {}, {ended})",
                record.began
            )
        }
    };
    let place = format!(
        "volume {}, block {}, byte {offset}",
        wrong.volume, wrong.block
    );
    let expected = of(wrong.mismatch.instead_of);
    match origin {
        Some(write) => format!("{place}: read {} instead of {expected}", of(write)),
        None => {
            let first = &sector[..sector.len().min(8)];
            format!("{place}: read {first:02x?}, which nobody wrote there, instead of {expected}")
        }
    }
}

/// Judges the answer to a map: what is said to be zero may be zero, and the runs lie inside the request.
pub fn judge_map(
    model: &Model,
    volume: usize,
    asked: &Range<u64>,
    runs: &[MapRun],
    began: Tick,
) -> Result<(), Failure> {
    let wrong = |what: String| Err(Failure::new(Checker::Linearizable, what));
    let mut at = asked.start;
    for run in runs {
        let range = at..at + run.len;
        if run.len == 0 || range.end > asked.end {
            return wrong(format!(
                "map of {asked:?} of volume {volume} has a run {range:?}"
            ));
        }
        if run.zero && !model.may_be_zero(volume, &range, began) {
            return wrong(format!(
                "volume {volume}: bytes {range:?} are mapped as zero and are not"
            ));
        }
        at = range.end;
    }
    match at == asked.start {
        true => wrong(format!("map of {asked:?} of volume {volume} says nothing")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::model::Ending;
    use crate::sim::payload::Value;

    #[test]
    fn a_read_of_an_overwritten_value_is_refused_with_both_writes_named() {
        let mut model = Model::new();
        let volume = model.create(1 << 20);
        for value in [1, 2] {
            let write = model.write_began(volume, 0..4096, Value(value));
            model.write_ended(write, Ending::Acknowledged);
        }
        let mut old = [0; 4096];
        Value(1).fill(0, &mut old);
        let began = model.began();
        let ended = model.ended(began);
        let failure = judge_read(&mut model, volume, 0, &old, (began, ended)).unwrap_err();
        assert_eq!(failure.checker, Checker::Linearizable);
        assert!(failure.what.contains("read write 1"), "{}", failure.what);
        assert!(
            failure.what.contains("instead of write 2"),
            "{}",
            failure.what
        );
    }

    #[test]
    fn a_map_that_calls_data_zero_is_refused() {
        let mut model = Model::new();
        let volume = model.create(1 << 20);
        let write = model.write_began(volume, 8192..8200, Value(1));
        model.write_ended(write, Ending::Acknowledged);
        let run = |len, zero| MapRun {
            len,
            zero,
            hole: zero,
        };
        let (asked, now) = (0..65_536, model.began());
        let good = [run(8192, true), run(4096, false), run(53_248, true)];
        assert!(judge_map(&model, volume, &asked, &good, now).is_ok());
        assert!(judge_map(&model, volume, &asked, &[run(65_536, true)], now).is_err());
        assert!(judge_map(&model, volume, &asked, &[run(65_537, false)], now).is_err());
        assert!(judge_map(&model, volume, &asked, &[], now).is_err());
    }
}
