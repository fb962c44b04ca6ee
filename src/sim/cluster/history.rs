//! Whether the history of one register is linearizable, told afterwards.
//!
//! Every write has a value of its own, so a read names the write that it saw, and a write with its reads is a *cluster*. With
//! `finish` the end of the first of a cluster's operations that ended, and `start` the beginning of the last that began, its *zone*
//! is forward where `finish < start`: then the register had this value all the time between. Such a history is
//! linearizable exactly where no two forward zones overlap and none holds a backward one (Gibbons and Korach, 1997): a sort and a
//! search for each cluster, so `O(n log n)`. `sim/register.rs` decides the same while things happen, for one node and by bytes; afterwards is
//! better here, because clients at many nodes end in no order of the model's.
//!
//! Zeroes have many writers. A read of them is right where one of these fits with everything else; that refuses no history that is
//! linearizable, and lets some through that are not: two reads may not have the writers that each found alone.

use crate::sim::register::Tick;
use std::collections::BTreeMap;

/// What was written at first, and by write-zeroes and discards.
pub const ZERO: u64 = 0;

/// What an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Write,
    Read,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was answered then.
    Answered(Tick),
    /// A write that happened by then, or never will.
    Perhaps(Tick),
    /// A write that may happen at any time, or never.
    Open,
}

/// One operation on the register. A read that was not answered is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    pub kind: Kind,
    pub value: u64,
    pub began: Tick,
    pub end: End,
}

impl Op {
    fn ended(&self) -> Tick {
        match self.end {
            End::Answered(at) | End::Perhaps(at) => at,
            End::Open => Tick::MAX,
        }
    }
}

/// Why a history is not linearizable. Values stand for their writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Nobody wrote what was read.
    NeverWritten { value: u64 },
    /// It was read before its write began.
    FromTheFuture { value: u64 },
    /// Each of the two was there before and after the other, or one all the time in which the other was.
    Contradiction { value: u64, other: u64 },
    /// Two writes have one value: whoever made the history made a mistake.
    TwoWriters { value: u64 },
}

/// A write with its reads.
#[derive(Debug, Clone, Copy)]
struct Zone {
    value: u64,
    /// Of the write.
    began: Tick,
    finish: Tick,
    start: Tick,
    /// Whether it surely happened.
    is_sure: bool,
}

impl Zone {
    fn of(write: &Op) -> Zone {
        Zone {
            value: write.value,
            began: write.began,
            finish: write.ended(),
            start: write.began,
            is_sure: matches!(write.end, End::Answered(_)),
        }
    }

    fn with(self, read: &Op) -> Zone {
        Zone {
            finish: self.finish.min(read.ended()),
            start: self.start.max(read.began),
            is_sure: true,
            ..self
        }
    }

    fn is_forward(&self) -> bool {
        self.finish < self.start
    }
}

/// Forward zones that do not overlap, in their order.
struct Forward(Vec<Zone>);

impl Forward {
    fn new(mut zones: Vec<Zone>) -> Result<Forward, Wrong> {
        zones.sort_unstable_by_key(|zone| (zone.finish, zone.start));
        for pair in zones.windows(2) {
            if pair[1].finish < pair[0].start {
                return Err(contradiction(&pair[0], &pair[1]));
            }
        }
        Ok(Forward(zones))
    }

    /// The zone that a zone cannot be beside.
    fn against(&self, zone: &Zone) -> Option<&Zone> {
        let Zone { finish, start, .. } = *zone;
        // They lie in a row, so of those that begin before its start, the last ends last.
        let before = self.0.partition_point(|other| other.finish < start);
        let other = &self.0[before.checked_sub(1)?];
        (finish < other.start).then_some(other)
    }
}

fn contradiction(a: &Zone, b: &Zone) -> Wrong {
    Wrong::Contradiction {
        value: a.value,
        other: b.value,
    }
}

/// Judges the history of one register that was zero at first.
pub fn judge(ops: &[Op]) -> Result<(), Wrong> {
    let mut zones: BTreeMap<u64, Zone> = BTreeMap::new();
    let first = Op {
        kind: Kind::Write,
        value: ZERO,
        began: 0,
        end: End::Answered(0),
    };
    let mut zeroes = vec![Zone::of(&first)];
    for write in ops.iter().filter(|op| op.kind == Kind::Write) {
        match write.value {
            ZERO => zeroes.push(Zone::of(write)),
            value => {
                if zones.insert(value, Zone::of(write)).is_some() {
                    return Err(Wrong::TwoWriters { value });
                }
            }
        }
    }
    let mut reads_of_zero = Vec::new();
    for read in ops.iter().filter(|op| op.kind == Kind::Read) {
        let value = read.value;
        if value == ZERO {
            reads_of_zero.push(read);
            continue;
        }
        let zone = zones.get_mut(&value).ok_or(Wrong::NeverWritten { value })?;
        if read.ended() < zone.began {
            return Err(Wrong::FromTheFuture { value });
        }
        *zone = zone.with(read);
    }
    // With the first state alone, zeroes have one writer as everything has.
    if let [zero] = &mut zeroes[..] {
        *zero = reads_of_zero
            .drain(..)
            .fold(*zero, |zone, read| zone.with(read));
    }
    let sure = zones.values().filter(|zone| zone.is_sure);
    let (forward, backward): (Vec<Zone>, Vec<Zone>) = sure.partition(|zone| zone.is_forward());
    // The only writer of zeroes is a zone like the others; several of one value never contradict one another.
    let (zero_forward, zero_backward): (Vec<Zone>, Vec<Zone>) = zeroes
        .iter()
        .filter(|zone| zone.is_sure)
        .partition(|zone| zone.is_forward());
    let forward = Forward::new(forward.into_iter().chain(zero_forward).collect())?;
    for zone in backward.iter().chain(&zero_backward) {
        if let Some(other) = forward.against(zone) {
            return Err(contradiction(zone, other));
        }
    }
    let backward = Backward::new(backward);
    for read in reads_of_zero {
        judge_zero(read, &zeroes, &forward, &backward)?;
    }
    Ok(())
}

/// Backward zones, so that one within a span is found by a search.
struct Backward {
    /// By their start.
    zones: Vec<Zone>,
    /// Of the zones from each place on, the one that finishes first.
    first: Vec<Zone>,
}

impl Backward {
    fn new(mut zones: Vec<Zone>) -> Backward {
        zones.sort_unstable_by_key(|zone| zone.start);
        let mut first = zones.clone();
        for n in (1..first.len()).rev() {
            if first[n].finish < first[n - 1].finish {
                first[n - 1] = first[n];
            }
        }
        Backward { zones, first }
    }

    /// A zone that lies within this forward one.
    fn within(&self, zone: &Zone) -> Option<&Zone> {
        let from = self
            .zones
            .partition_point(|other| other.start <= zone.finish);
        self.first
            .get(from)
            .filter(|other| other.finish < zone.start)
    }
}

/// Whether a read of zeroes has a writer that fits with all other values.
fn judge_zero(
    read: &Op,
    zeroes: &[Zone],
    forward: &Forward,
    backward: &Backward,
) -> Result<(), Wrong> {
    let mut wrong = Wrong::FromTheFuture { value: ZERO };
    for write in zeroes.iter().filter(|write| write.start <= read.ended()) {
        let zone = write.with(read);
        let other = match forward.against(&zone) {
            Some(other) => Some(*other),
            None if zone.is_forward() => backward.within(&zone).copied(),
            None => None,
        };
        match other {
            Some(other) => wrong = contradiction(&zone, &other),
            None => return Ok(()),
        }
    }
    Err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn op(kind: Kind, value: u64, began: Tick, end: End) -> Op {
        Op {
            kind,
            value,
            began,
            end,
        }
    }

    fn write(value: u64, began: Tick, ended: Tick) -> Op {
        op(Kind::Write, value, began, End::Answered(ended))
    }

    fn read(value: u64, began: Tick, ended: Tick) -> Op {
        op(Kind::Read, value, began, End::Answered(ended))
    }

    #[test]
    fn histories_that_a_register_has_are_taken() {
        #[rustfmt::skip]
        let good: &[&[Op]] = &[
            &[],
            &[read(0, 1, 2), write(1, 3, 6), read(0, 4, 5), read(1, 7, 8)],
            &[write(1, 1, 4), write(2, 2, 3), read(1, 5, 6)],
            &[write(1, 1, 9), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)],
            &[write(1, 1, 2), op(Kind::Write, 2, 3, End::Open), read(1, 4, 5), read(2, 90, 91)],
            &[write(1, 1, 2), op(Kind::Write, 2, 3, End::Perhaps(4)), read(1, 5, 6)],
            &[write(1, 1, 2), write(0, 3, 4), read(0, 5, 6)],
        ];
        for ops in good {
            assert_eq!(judge(ops), Ok(()), "{ops:?}");
        }
    }

    #[test]
    fn histories_that_no_register_has_are_refused() {
        #[rustfmt::skip]
        let bad: &[&[Op]] = &[
            // A value that nobody wrote, or that is written later.
            &[read(7, 1, 2)],
            &[read(1, 1, 2), write(1, 3, 4)],
            // An acknowledged write is gone.
            &[write(1, 1, 2), read(0, 3, 4)],
            &[write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)],
            // New, then old.
            &[write(1, 1, 2), write(2, 3, 20), read(2, 4, 5), read(1, 6, 7)],
            // Two readers see two orders.
            &[write(1, 1, 9), write(2, 2, 9), read(1, 10, 11), read(2, 12, 13), read(1, 14, 15)],
            // What had not happened by then comes back.
            &[write(1, 1, 2), op(Kind::Write, 2, 3, End::Perhaps(4)), read(1, 5, 6), read(2, 7, 8)],
            // Zeroes that were overwritten.
            &[write(0, 1, 2), write(1, 3, 4), read(0, 5, 6)],
            &[write(1, 1, 2), read(1, 9, 10), write(0, 5, 6)],
            &[write(1, 1, 2), write(1, 3, 4)],
        ];
        for ops in bad {
            assert!(judge(ops).is_err(), "{ops:?}");
        }
    }

    /// Tries every order.
    fn is_linearizable(ops: &[Op]) -> bool {
        fn go(ops: &[Op], left: u32, value: u64, seen: &mut Vec<(u32, u64)>) -> bool {
            let must = |n: &usize| left & 1 << n != 0 && matches!(ops[*n].end, End::Answered(_));
            if !(0..ops.len()).any(|n| must(&n)) {
                return true;
            }
            if seen.contains(&(left, value)) {
                return false;
            }
            seen.push((left, value));
            (0..ops.len()).filter(|n| left & 1 << n != 0).any(|n| {
                let rest = left & !(1 << n);
                // Nothing that is left had surely ended, or could only have happened, before this began.
                let earlier =
                    |m: usize| rest & 1 << m != 0 && ops[m].ended() < ops[n].began && must(&m);
                if (0..ops.len()).any(earlier) {
                    return false;
                }
                // What could only have happened before this began will not happen any more.
                let late =
                    (0..ops.len()).filter(|m| rest & 1 << m != 0 && ops[*m].ended() < ops[n].began);
                let rest = late.fold(rest, |rest, m| rest & !(1 << m));
                match ops[n].kind {
                    Kind::Write => go(ops, rest, ops[n].value, seen),
                    Kind::Read => value == ops[n].value && go(ops, rest, value, seen),
                }
            })
        }
        go(ops, (1 << ops.len()) - 1, ZERO, &mut Vec::new())
    }

    /// A small history; in most, reads are of values that were written not long ago.
    fn draw(prng: &mut Prng, zeroes: bool) -> Vec<Op> {
        let count = prng.between(1, 7);
        let span = prng.between(4, 16);
        let mut ops: Vec<Op> = Vec::new();
        for n in 0..count {
            let began = prng.between(1, span);
            let ended = began + prng.below(span / 2 + 1);
            let end = End::Answered(ended);
            if prng.one_in(2) {
                let value = if zeroes && prng.one_in(2) {
                    ZERO
                } else {
                    n + 1
                };
                let end = match prng.below(6) {
                    0 => End::Open,
                    1 => End::Perhaps(ended),
                    _ => end,
                };
                ops.push(op(Kind::Write, value, began, end));
            } else {
                ops.push(op(Kind::Read, u64::MAX, began, end));
            }
        }
        let values: Vec<u64> = ops
            .iter()
            .filter(|op| op.kind == Kind::Write)
            .map(|op| op.value)
            .chain([ZERO])
            .collect();
        for read in ops.iter_mut().filter(|op| op.kind == Kind::Read) {
            read.value = values[prng.below(values.len() as u64) as usize];
        }
        ops
    }

    #[test]
    fn it_agrees_with_trying_every_order_on_100_000_histories() {
        let mut prng = Prng::new(11);
        let mut good = 0;
        for _ in 0..100_000 {
            let ops = draw(&mut prng, false);
            let expected = is_linearizable(&ops);
            assert_eq!(judge(&ops).is_ok(), expected, "{ops:#?}");
            good += u32::from(expected);
        }
        assert!((20_000..80_000).contains(&good), "{good} are linearizable");
    }

    #[test]
    fn with_zeroes_by_many_it_refuses_nothing_that_is_right_and_misses_little() {
        let mut prng = Prng::new(12);
        let (mut bad, mut missed) = (0, 0);
        for _ in 0..50_000 {
            let ops = draw(&mut prng, true);
            let expected = is_linearizable(&ops);
            match judge(&ops) {
                Err(wrong) => assert!(!expected, "{wrong:?} {ops:#?}"),
                Ok(()) => missed += u32::from(!expected),
            }
            bad += u32::from(!expected);
        }
        assert!(
            bad > 5_000 && missed * 20 < bad,
            "{missed} of {bad} are missed"
        );
    }

    #[test]
    fn a_long_history_is_judged_in_a_moment() {
        let mut ops = Vec::new();
        for n in 1..100_000 {
            ops.push(write(n, n * 10, n * 10 + 5));
            ops.push(read(n, n * 10 + 6, n * 10 + 9));
        }
        assert_eq!(judge(&ops), Ok(()));
        ops.push(read(500, 70_000, 70_001));
        let wrong = judge(&ops);
        assert!(
            matches!(wrong, Err(Wrong::Contradiction { .. })),
            "{wrong:?}"
        );
    }
}
