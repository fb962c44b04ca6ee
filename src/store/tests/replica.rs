//! What a replica needs of its store: fences, marks, windows, lists, fetches, fills, tombstones, each through power cuts.

use super::lone::*;
use super::story::check_bytes;
use crate::base::{BlockRun, LayerId, PgId, Prng};
use crate::store::{Input, Stamp, StoreError, Torn, WindowEntry};

const WHOLE: BlockRun = BlockRun::WHOLE;

fn whole(fill: u8) -> Filling {
    Filling {
        blocks: u16::MAX,
        data: u16::MAX,
        zero: 0,
        fill,
    }
}

fn of(blocks: u16, data: u16, zero: u16, fill: u8) -> Filling {
    Filling {
        blocks,
        data,
        zero,
        fill,
    }
}

/// Fenced under version 1 and epoch 1.
fn fenced() -> Lone {
    let mut lone = Lone::new();
    lone.fence(1, 0, 1);
    lone
}

#[test]
fn a_fence_that_is_done_survives_a_power_cut_and_a_checkpoint() {
    for checkpoint in [false, true] {
        let mut lone = Lone::new();
        assert!(lone.store.replica(PG).is_none());
        lone.fence(3, 3, 2);
        if checkpoint {
            lone.checkpoint();
            assert!(
                lone.store.levels().journal_used <= 4096,
                "the empty batch that closed it"
            );
        }
        let lone = lone.reopen();
        let replica = lone.store.replica(PG).expect("it was fenced");
        assert_eq!((replica.version, replica.session), (3, 3));
        let range = replica.range(RANGE).unwrap();
        assert_eq!((range.epoch, range.mark), (epoch(2), 0));
    }
}

#[test]
fn a_window_is_rebuilt_from_journal_and_root_and_never_lacks_an_entry() {
    let mut lone = fenced();
    lone.write(chunk(1, 0), run(0, 1), 1, stamp(1, 1));
    lone.checkpoint();
    lone.write(chunk(1, 3), WHOLE, 2, stamp(1, 2));
    lone.zero(chunk(1, 5), run(4, 2), stamp(1, 3));
    let expected = [(1, 0, 1), (2, 3, u16::MAX), (3, 5, 0b11_0000)];
    assert_eq!(lone.window(), expected);
    let mut lone = lone.reopen();
    assert_eq!(lone.window(), expected);
    // A mark is in memory at once, and durable with the next batch.
    lone.mark(1, 2);
    assert_eq!(lone.window(), expected[2..]);
    let lost = Lone::on(lone.image(), 1);
    assert_eq!(lost.window(), expected, "more is safe");
    lone.write(chunk(1, 6), run(0, 1), 3, stamp(1, 4));
    let lone = lone.reopen();
    assert_eq!(lone.window(), [(3, 5, 0b11_0000), (4, 6, 1)]);
}

#[test]
fn a_window_does_not_hold_the_journal_back() {
    let mut lone = fenced();
    let mut expected = Vec::new();
    for n in 0..300 {
        lone.write(
            chunk(1, n % 40),
            run((n % 16) as u32, 1),
            n as u8,
            stamp(1, n + 1),
        );
        expected.push((n + 1, n % 40, 1 << (n % 16)));
        if n % 100 == 99 {
            lone.checkpoint();
            assert!(
                lone.store.levels().journal_used <= 4096,
                "the empty batch that closed it"
            );
        }
    }
    assert_eq!(lone.window(), expected);
    let lone = lone.reopen();
    assert_eq!(lone.window(), expected);
}

#[test]
fn a_window_that_no_root_can_hold_refuses_writes_until_a_mark_passes() {
    let mut lone = fenced();
    let mut refused = None;
    for n in 0..40_000u64 {
        let op = lone.op();
        lone.step(Input::ZeroChunks {
            op,
            at: chunk(1, 0),
            count: 64,
            pg: PG,
            range: Some(RANGE),
            stamp: stamp(1, n + 1),
        });
        match lone.end(op) {
            Ok(()) => {}
            Err(why) => {
                refused = Some((n, why));
                break;
            }
        }
    }
    let (n, why) = refused.expect("it is bounded");
    assert_eq!(why, StoreError::Busy);
    lone.checkpoint();
    lone.mark(1, n);
    lone.write(chunk(1, 0), run(0, 1), 1, stamp(1, n + 1));
    lone.checkpoint();
    let lone = lone.reopen();
    assert_eq!(lone.window(), [(n + 1, 0, 1)]);
}

#[test]
fn a_chunk_keeps_the_highest_stamp_whatever_is_durable_last() {
    let mut lone = fenced();
    let at = chunk(1, 0);
    lone.write(at, run(0, 1), 1, stamp(1, 6));
    lone.write(at, run(1, 1), 2, stamp(1, 5));
    assert_eq!(lone.fetch(at).unwrap().0.stamp, stamp(1, 6));
    lone.checkpoint();
    lone.write(at, run(2, 1), 3, stamp(2, 1));
    let mut lone = lone.reopen();
    assert_eq!(lone.fetch(at).unwrap().0.stamp, stamp(2, 1));
    lone.zero(at, run(0, 1), stamp(2, 2));
    lone.checkpoint();
    let mut lone = lone.reopen();
    assert_eq!(lone.fetch(at).unwrap().0.stamp, stamp(2, 2));
}

#[test]
fn a_list_has_what_was_changed_since_a_version_in_order_from_journal_and_table() {
    let mut lone = fenced();
    lone.write(chunk(1, 70), run(0, 1), 1, stamp(1, 1));
    lone.write(chunk(1, 3), WHOLE, 2, stamp(2, 2));
    lone.put_volume(&[1, 2]);
    lone.checkpoint();
    lone.write(chunk(2, 3), run(3, 1), 3, stamp(3, 3));
    lone.zero(chunk(2, 200), WHOLE, stamp(3, 4));
    let all = [
        (chunk(1, 3), stamp(2, 2)),
        (chunk(2, 3), stamp(3, 3)),
        (chunk(1, 70), stamp(1, 1)),
        (chunk(2, 200), stamp(3, 4)),
    ];
    let since = |version: u32| {
        let newer = |(_, stamp): &&(_, Stamp)| stamp.version > version;
        all.iter().filter(newer).copied().collect::<Vec<_>>()
    };
    for max in [1, 2, 3, 1000] {
        for version in 0..4 {
            assert_eq!(lone.list(version, max), Ok(since(version)));
        }
    }
    let mut lone = lone.reopen();
    assert_eq!(lone.list(0, 2), Ok(since(0)));
}

#[test]
fn a_list_of_another_pg_is_empty() {
    let mut lone = fenced();
    lone.write(chunk(1, 3), WHOLE, 2, stamp(2, 2));
    let op = lone.op();
    lone.step(Input::List {
        op,
        pg: PgId(8),
        since: 0,
        after: None,
        max: 10,
    });
    assert_eq!(lone.answered(op), Some(Answer::Listed(Vec::new(), None)));
}

#[test]
fn a_fetch_tells_what_the_layer_itself_holds_and_a_fill_makes_another_the_same() {
    let mut source = fenced();
    source.write(chunk(1, 0), WHOLE, 1, stamp(1, 1));
    source.put_volume(&[1, 2]);
    let at = chunk(2, 0);
    source.write(at, run(2, 3), 2, stamp(2, 2));
    source.zero(at, run(4, 4), stamp(2, 3));
    let (holding, fills) = source.fetch(at).unwrap();
    assert_eq!((holding.data, holding.zero), (0b1100, 0b1111_0000));
    assert_eq!(holding.stamp, stamp(2, 3));
    assert_eq!(fills[2..4], [2, 2]);
    let mut joiner = fenced();
    joiner.put_volume(&[1, 2]);
    joiner.write(at, run(0, 8), 9, stamp(1, 9));
    let what = of(u16::MAX, holding.data, holding.zero, 2);
    joiner.fill(at, what, holding.stamp);
    assert_eq!(joiner.fetch(at), Ok((holding, fills)));
    let mut joiner = joiner.reopen();
    assert_eq!(joiner.fetch(at), Ok((holding, fills)));
    joiner.checkpoint();
    let mut joiner = joiner.reopen();
    assert_eq!(joiner.fetch(at), Ok((holding, fills)));
    assert_eq!(joiner.read(at, run(0, 8)), Ok(vec![0, 0, 2, 2, 0, 0, 0, 0]));
    assert_eq!(joiner.fetch(chunk(2, 9)).unwrap().0.stamp, Stamp::default());
}

#[test]
fn a_fill_of_some_blocks_keeps_the_others_and_the_higher_stamp() {
    let at = chunk(1, 0);
    for whole_before in [false, true] {
        let mut lone = fenced();
        match whole_before {
            true => lone.write(at, WHOLE, 1, stamp(3, 7)),
            false => lone.write(at, run(0, 4), 1, stamp(3, 7)),
        }
        lone.fill(at, of(0b1111, 0b0011, 0b0100, 2), stamp(2, 9));
        let (holding, fills) = lone.fetch(at).unwrap();
        // Of a chunk of which all is replaced nothing is left that the old stamp would be of.
        let expected = if whole_before {
            stamp(3, 7)
        } else {
            stamp(2, 9)
        };
        assert_eq!(holding.stamp, expected);
        let kept = if whole_before { !0b1111 } else { 0 };
        assert_eq!((holding.data, holding.zero), (kept | 0b0011, 0b0100));
        assert_eq!(fills[0], 2);
        lone.fill(at, whole(3), stamp(2, 1));
        let (holding, fills) = lone.fetch(at).unwrap();
        assert_eq!((holding.data, holding.stamp), (u16::MAX, stamp(2, 1)));
        assert_eq!(fills, [3; 16]);
        lone.fill(at, of(u16::MAX, 0, 0, 0), stamp(1, 8));
        let holding = lone.fetch(at).unwrap().0;
        assert_eq!(
            (holding.data | holding.zero, holding.stamp),
            (0, stamp(1, 8))
        );
        lone.close();
    }
}

#[test]
fn a_fill_brings_its_part_of_the_window() {
    let mut lone = fenced();
    let at = chunk(1, 4);
    let entry = |sequence, blocks| WindowEntry {
        at,
        blocks,
        stamp: stamp(1, sequence),
    };
    for (n, what) in [whole(1), of(3, 1, 2, 2)].into_iter().enumerate() {
        let first = 10 * n as u64;
        let window = [entry(first + 1, 1), entry(first + 2, 0b10)];
        let op = lone.begin_fill(at, what, stamp(1, first + 2), &window);
        assert_eq!(lone.end(op), Ok(()));
    }
    let expected = [(1, 4, 1), (2, 4, 2), (11, 4, 1), (12, 4, 2)];
    assert_eq!(lone.window(), expected);
    let lone = lone.reopen();
    assert_eq!(lone.window(), expected);
}

#[test]
fn fills_are_there_as_a_whole_or_not_at_all_wherever_the_power_is_cut() {
    let at = chunk(1, 2);
    for cut in 0..60 {
        let mut lone = fenced();
        lone.write(at, run(0, 2), 1, stamp(1, 1));
        lone.settle();
        let mut states = vec![lone.fetch(at).unwrap()];
        let fills = [
            (of(0b110, 0b010, 0b100, 2), stamp(2, 2)),
            (whole(3), stamp(1, 5)),
            (of(u16::MAX, 0b1010, 0b0101, 4), stamp(1, 6)),
            (of(u16::MAX, 0, 0, 0), stamp(1, 7)),
        ];
        let mut model = Lone::on(lone.image(), 5);
        for (what, stamp) in fills {
            model.fill(at, what, stamp);
            states.push(model.fetch(at).unwrap());
        }
        lone.cut_in = Some(cut);
        let mut sure = 0;
        for (what, stamp) in fills {
            lone.fill(at, what, stamp);
            if cut % 3 == 0 {
                lone.settle();
            }
            sure += usize::from(!lone.dead);
        }
        let mut lone = lone.reopen();
        let found = lone.fetch(at).unwrap();
        let last = (sure + 1).min(states.len() - 1);
        assert!(states[sure..=last].contains(&found), "cut {cut}: {found:?}");
        let report = check_bytes(&lone.image());
        assert!(report.is_sound(), "cut {cut}: {report:?}");
    }
}

#[test]
fn what_was_discarded_leaves_a_tombstone_only_in_a_pg_that_was_fenced() {
    let at = chunk(1, 0);
    let mut alone = Lone::new();
    alone.write(at, WHOLE, 1, stamp(1, 1));
    alone.zero(at, WHOLE, stamp(1, 2));
    alone.zero(chunk(1, 1), WHOLE, stamp(1, 3));
    assert_eq!(alone.list(0, 10), Ok(Vec::new()));
    assert_eq!(alone.store.levels().entries, 0);
    let mut lone = fenced();
    lone.write(at, WHOLE, 1, stamp(1, 1));
    lone.zero(at, run(0, 8), stamp(1, 2));
    lone.zero(at, run(8, 8), stamp(1, 3));
    lone.zero(chunk(1, 1), WHOLE, stamp(1, 4));
    let expected = vec![(at, stamp(1, 3)), (chunk(1, 1), stamp(1, 4))];
    assert_eq!(lone.list(0, 10), Ok(expected.clone()));
    assert_eq!(lone.store.levels().slots_used, 0);
    lone.checkpoint();
    let mut lone = lone.reopen();
    assert_eq!(lone.list(0, 10), Ok(expected));
    // A repeated discard still stamps.
    lone.zero(at, WHOLE, stamp(2, 1));
    assert_eq!(lone.list(1, 10), Ok(vec![(at, stamp(2, 1))]));
}

#[test]
fn tombstones_go_when_all_replicas_are_in_sync_and_their_pages_with_them() {
    let mut lone = fenced();
    lone.zero(chunk(1, 0), WHOLE, stamp(1, 1));
    lone.zero(chunk(1, 100), WHOLE, stamp(2, 2));
    lone.zero(chunk(1, 200), WHOLE, stamp(3, 3));
    lone.write(chunk(1, 300), WHOLE, 1, stamp(1, 4));
    lone.checkpoint();
    assert_eq!(lone.store.levels().pages_used, 4);
    lone.step(Input::Forget { pg: PG, version: 2 });
    lone.settle();
    lone.checkpoint();
    let left = vec![(chunk(1, 200), stamp(3, 3)), (chunk(1, 300), stamp(1, 4))];
    assert_eq!(lone.list(0, 10), Ok(left.clone()));
    assert_eq!(lone.store.levels().pages_used, 2);
    let mut lone = lone.reopen();
    assert_eq!(lone.list(0, 10), Ok(left));
    // What comes later under an old version is forgotten later.
    assert_eq!(lone.store.replica(PG).unwrap().forgotten, 2);
}

#[test]
fn a_replica_that_is_dropped_comes_back_empty_loaded_or_not() {
    for (loaded, again) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut lone = fenced();
        for n in 0..6 {
            lone.write(chunk(1, n * 64), WHOLE, 1, stamp(1, n + 1));
            lone.write(chunk(1, n * 64 + 1), run(0, 1), 1, stamp(1, 100 + n));
        }
        lone.checkpoint();
        lone.write(chunk(1, 2), run(0, 1), 1, stamp(1, 50));
        if !loaded {
            lone = lone.reopen();
        }
        lone.drop_replica();
        assert!(lone.store.replica(PG).is_none());
        if again {
            lone.fence(9, 9, 1);
            lone.write(chunk(1, 64), run(3, 1), 7, stamp(9, 60));
        }
        let expected = match again {
            true => vec![(chunk(1, 64), stamp(9, 60))],
            false => Vec::new(),
        };
        let mut cut = Lone::on(lone.image(), 3);
        for lone in [&mut lone, &mut cut] {
            assert_eq!(lone.list(0, 10), Ok(expected.clone()), "{loaded} {again}");
            lone.settle();
            assert_eq!(lone.store.levels().slots_used, u64::from(again));
            let report = check_bytes(&lone.image());
            assert!(report.is_sound(), "{report:?}");
            lone.checkpoint();
        }
        let mut lone = lone.reopen();
        assert_eq!(lone.list(0, 10), Ok(expected));
        lone.settle();
        assert_eq!(lone.store.levels().pages_used, u64::from(again));
        lone.close();
    }
}

#[test]
fn rot_is_cured_by_a_fill_and_another_slot_is_taken() {
    let at = chunk(1, 0);
    let mut lone = fenced();
    lone.write(at, WHOLE, 0x77, stamp(1, 1));
    lone.settle();
    let place = lone.place_of(0x77).unwrap();
    lone.rot(place + 5 * 4096);
    assert_eq!(lone.read(at, WHOLE), Err(StoreError::Damaged));
    assert_eq!(lone.fetch(at), Err(StoreError::Damaged));
    lone.fill(at, whole(0x77), stamp(1, 1));
    assert_eq!(lone.read(at, WHOLE), Ok(vec![0x77; 16]));
    lone.settle();
    // The same for one block, in its old place.
    let place = lone.place_of(0x77).unwrap();
    lone.rot(place + 5 * 4096);
    assert_eq!(lone.read(at, run(5, 1)), Err(StoreError::Damaged));
    lone.fill(at, of(1 << 5, 1 << 5, 0, 0x77), stamp(1, 1));
    lone.checkpoint();
    let mut lone = lone.reopen();
    let (holding, fills) = lone.fetch(at).unwrap();
    assert_eq!((fills, holding.stamp), ([0x77; 16], stamp(1, 1)));
}

#[test]
fn an_extent_that_cannot_be_told_is_cured_by_dropping_the_replica() {
    let mut lone = fenced();
    lone.write(chunk(1, 0), WHOLE, 1, stamp(1, 1));
    lone.write(chunk(1, 64), WHOLE, 2, stamp(1, 2));
    lone.checkpoint();
    let geometry = lone.store.superblock().geometry;
    let homes = [0, 1].map(|home| geometry.table_at + home * geometry.pages * 8192);
    for at in homes {
        lone.rot(at + 100);
    }
    let mut lone = lone.reopen();
    lone.settle();
    assert!(lone.store.torn() == [Torn::Pg(PG)].into() && lone.store.is_whole());
    assert_eq!(lone.list(0, 10), Err(StoreError::Torn));
    lone.drop_replica();
    assert!(lone.store.torn().is_empty());
    lone.fence(2, 2, 1);
    lone.fill(chunk(1, 0), whole(1), stamp(1, 1));
    assert_eq!(lone.read(chunk(1, 0), run(0, 1)), Ok(vec![1]));
    for checkpoint in [false, true] {
        if checkpoint {
            lone.checkpoint();
        }
        lone = lone.reopen();
        lone.settle();
        assert!(lone.store.torn().is_empty());
        assert_eq!(lone.list(0, 10), Ok(vec![(chunk(1, 0), stamp(1, 1))]));
        assert_eq!(lone.store.levels().slots_used, 1);
    }
}

#[test]
fn a_lost_header_of_the_journal_says_that_the_replicas_are_to_be_made_anew() {
    let mut lone = fenced();
    for n in 0..20 {
        lone.write(chunk(1, n), run(0, 1), 1, stamp(1, n + 1));
    }
    let journal_at = lone.store.superblock().geometry.journal_at;
    lone.rot(journal_at + 200);
    let lone = lone.reopen();
    assert!(!lone.store.is_whole());
}

#[test]
fn layers_that_were_dropped_are_not_listed() {
    let mut lone = fenced();
    lone.write(chunk(1, 0), WHOLE, 1, stamp(1, 1));
    lone.put_volume(&[1, 2]);
    lone.write(chunk(2, 0), WHOLE, 1, stamp(1, 2));
    lone.put_volume(&[1]);
    let listed = lone.list(0, 10).unwrap();
    assert!(
        listed.iter().all(|(at, _)| at.layer == LayerId(1)),
        "{listed:?}"
    );
}

/// Something at random: writes, zeroes, fills, marks, drops, layers, restarts.
fn act(lone: &mut Lone, layers: &mut u64, sequence: &mut u64, prng: &mut Prng) {
    *sequence += 1;
    let (stamp, at) = (
        stamp(1, *sequence),
        chunk(*layers, prng.below(3) * 64 + prng.below(3)),
    );
    let blocks = match prng.below(2) {
        0 => u16::MAX,
        _ => prng.next_u64() as u16 | 1,
    };
    let data = match prng.below(3) {
        0 => 0,
        1 => blocks,
        _ => blocks & prng.next_u64() as u16,
    };
    let first = prng.below(16) as u32;
    let some = run(first, prng.between(1, u64::from(16 - first)) as u32);
    match prng.below(20) {
        0..6 => lone.write(at, some, 1, stamp),
        6..8 => lone.write(at, WHOLE, 2, stamp),
        8..10 => lone.zero(at, some, stamp),
        10 => lone.zero(at, WHOLE, stamp),
        11..16 => lone.fill(at, of(blocks, data, blocks & !data & 0x5555, 3), stamp),
        16 => lone.mark(1, *sequence - 1),
        17 => lone.settle(),
        18 if prng.one_in(4) => {
            lone.drop_replica();
            lone.fence(1, 0, 1);
        }
        _ if *layers == 1 && prng.one_in(8) => {
            lone.put_volume(&[1, 2]);
            *layers = 2;
        }
        _ => lone.checkpoint(),
    }
}

#[test]
fn check_finds_every_crash_sound_and_counts_the_slots_that_opening_counts() {
    let mut prng = Prng::new(11);
    for round in 0..25 {
        let (mut lone, mut layers, mut sequence) = (fenced(), 1, 0);
        for step in 0..60 {
            act(&mut lone, &mut layers, &mut sequence, &mut prng);
            if step % 5 == 0 {
                let mut other = Lone::on(lone.image(), prng.next_u64());
                let report = check_bytes(&lone.image());
                assert!(report.is_sound(), "round {round}, step {step}: {report:?}");
                other.settle();
                let used = other.store.levels().slots_used;
                assert_eq!(used, report.counts.slots_used, "round {round}, step {step}");
                assert_eq!(report.counts.replicas, 1);
                assert_eq!(
                    lone.list(0, 50),
                    other.list(0, 50),
                    "round {round}, step {step}"
                );
            }
            if prng.one_in(10) {
                lone = lone.reopen();
            }
        }
        lone.close();
    }
}
