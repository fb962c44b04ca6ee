//! Blocks that several clients read and write at once, as registers: whether what they saw can have happened in one order.
//!
//! Each write has a value of its own, so that it is decided in time that grows with n log n: P. Gibbons, E. Korach, "Testing shared memories", SIAM J. Comput. 26 (1997),
//! section 5. A write and the reads of its value are one cluster; its zone goes from the first answer to the last question in it. There is an order if
//! nothing was read before it was asked to be written, no two zones with the answer first overlap, and none with the question first lies within one of those.

use super::{Step, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

/// A value that nobody else writes; 0 is what was there at first.
pub type Value = u64;

/// What one client did with a register, and when: since the same moment for all.
#[derive(Debug, Clone, Copy)]
pub struct Act {
    pub value: Value,
    pub is_write: bool,
    pub asked: Duration,
    /// Nothing: it was never answered, and may or may not have happened.
    pub answered: Option<Duration>,
}

struct Zone {
    value: Value,
    written: Duration,
    first_answer: Duration,
    last_ask: Duration,
}

/// Checks what was done with one register.
pub fn check(acts: &[Act]) -> Step<()> {
    let at_first = Zone {
        value: 0,
        written: Duration::ZERO,
        first_answer: Duration::ZERO,
        last_ask: Duration::ZERO,
    };
    let mut zones = BTreeMap::from([(0, at_first)]);
    for write in acts.iter().filter(|act| act.is_write) {
        let zone = Zone {
            value: write.value,
            written: write.asked,
            first_answer: write.answered.unwrap_or(Duration::MAX),
            last_ask: write.asked,
        };
        let double = zones.insert(write.value, zone);
        ensure!(double.is_none(), "{} was written twice", write.value);
    }
    for read in acts.iter().filter(|act| !act.is_write) {
        let Some(answered) = read.answered else {
            continue;
        };
        let zone = zones.get_mut(&read.value);
        let zone = zone.ok_or(format!("{} was read and never written", read.value))?;
        ensure!(
            answered >= zone.written,
            "{} was read before it was written",
            read.value
        );
        zone.first_answer = zone.first_answer.min(answered);
        zone.last_ask = zone.last_ask.max(read.asked);
    }
    // What was neither answered nor read need not have happened.
    zones.retain(|_, zone| zone.first_answer != Duration::MAX);
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) = zones
        .into_values()
        .partition(|zone| zone.first_answer < zone.last_ask);
    forward.sort_by_key(|zone| zone.first_answer);
    for pair in forward.windows(2) {
        ensure!(
            pair[0].last_ask < pair[1].first_answer,
            "{} and {} were both there before and after one another",
            pair[0].value,
            pair[1].value
        );
    }
    for zone in backward {
        // The forward zone that begins last before it.
        let at = forward.partition_point(|other| other.first_answer < zone.last_ask);
        let around = at.checked_sub(1).map(|at| &forward[at]);
        if let Some(around) = around.filter(|around| zone.first_answer < around.last_ask) {
            return Err(format!(
                "{} came and went while {} was there",
                zone.value, around.value
            )
            .into());
        }
    }
    Ok(())
}

/// That the check can fail: histories that have no order, and some that have one.
pub fn checks_itself() -> Step<()> {
    let at = Duration::from_millis;
    let act = |is_write, value, asked, answered: Option<u64>| Act {
        value,
        is_write,
        asked: at(asked),
        answered: answered.map(at),
    };
    let write = |value, asked, answered| act(true, value, asked, Some(answered));
    let read = |value, asked, answered| act(false, value, asked, Some(answered));
    let good = [
        vec![read(0, 1, 2), write(1, 3, 4), read(1, 5, 6)],
        vec![
            write(1, 1, 10),
            read(1, 2, 3),
            write(2, 4, 5),
            read(2, 6, 7),
        ],
        vec![
            write(1, 1, 2),
            act(true, 2, 3, None),
            read(1, 4, 5),
            read(2, 6, 7),
        ],
        vec![
            write(1, 1, 9),
            write(2, 2, 8),
            read(1, 10, 11),
            read(1, 12, 13),
        ],
    ];
    for (number, acts) in good.iter().enumerate() {
        check(acts).map_err(|why| format!("history {number} has an order: {why}"))?;
    }
    let bad = [
        // A lost write, an old value, one that comes back, and one that came too early.
        vec![write(1, 1, 2), read(0, 3, 4)],
        vec![write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)],
        vec![
            write(1, 1, 9),
            write(2, 2, 8),
            read(1, 10, 11),
            read(2, 12, 13),
            read(1, 14, 15),
        ],
        vec![read(1, 1, 2), write(1, 3, 4)],
        vec![read(7, 1, 2)],
    ];
    for (number, acts) in bad.iter().enumerate() {
        ensure!(check(acts).is_err(), "history {number} has no order");
    }
    Ok(())
}
