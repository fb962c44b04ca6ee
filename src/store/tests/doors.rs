//! What the machines of a replica ask besides its chunks: whether something takes space, what the table has, what is torn, what was let go,
//! which opening this is.

use super::lone::*;
use super::story::check_bytes;
use crate::base::BlockRun;
use crate::store::{Holding, Input, Openings, StoreError, Takes, Torn};
use std::collections::BTreeSet;

const WHOLE: BlockRun = BlockRun::WHOLE;

fn fenced() -> Lone {
    let mut lone = Lone::new();
    lone.fence(1, 0, 1);
    lone
}

#[test]
fn a_look_says_whether_data_would_take_a_slot_loaded_or_not() {
    let mut lone = fenced();
    lone.write(chunk(1, 0), run(0, 1), 1, stamp(1, 1));
    lone.write(chunk(1, 1), WHOLE, 2, stamp(1, 2));
    lone.zero(chunk(1, 2), WHOLE, stamp(1, 3));
    lone.write(chunk(1, 3), WHOLE, 2, stamp(1, 4));
    lone.zero(chunk(1, 3), WHOLE, stamp(1, 5));
    lone.put_volume(&[1, 2]);
    let expected = [Takes::Nothing, Takes::Nothing, Takes::Slot, Takes::Slot];
    for checkpoint in [false, true] {
        if checkpoint {
            lone.checkpoint();
        }
        lone = lone.reopen();
        for (n, takes) in (0..).zip(expected) {
            assert_eq!(lone.look(chunk(1, n)), takes, "chunk {n}");
            // The layer above has nothing of its own.
            assert_eq!(lone.look(chunk(2, n)), Takes::Slot, "chunk {n}");
        }
        assert_eq!(lone.look(chunk(1, 900)), Takes::Slot);
    }
    let at = chunk(7, 0);
    let refused = lone.ask(|op| Input::Look { op, at });
    assert_eq!(refused, Some(Answer::Done(Err(StoreError::NoSuchLayer))));
}

#[test]
fn a_slot_that_a_write_on_its_way_has_taken_is_the_chunks_own() {
    let mut lone = fenced();
    let op = lone.begin_write(chunk(1, 0), run(0, 1), 1, stamp(1, 1));
    // It is in the open batch; nothing of it is durable, and nothing is told of it.
    let look = lone.op();
    let at = chunk(1, 0);
    lone.step(Input::Look { op: look, at });
    assert_eq!(lone.answered(look), Some(Answer::Looked(Takes::Nothing)));
    let inspect = lone.op();
    lone.step(Input::Inspect { op: inspect, at });
    assert_eq!(lone.answered(inspect), Some(Answer::Inspected(None)));
    assert_eq!(lone.end(op), Ok(()));
    assert!(lone.inspect(at).is_some());
}

#[test]
fn an_inspection_tells_a_tombstone_from_nothing_and_is_what_a_fetch_says() {
    let mut lone = fenced();
    lone.write(chunk(1, 0), run(2, 3), 1, stamp(2, 1));
    lone.zero(chunk(1, 1), WHOLE, stamp(3, 2));
    lone.put_volume(&[1, 2]);
    lone.zero(chunk(2, 0), run(0, 4), stamp(4, 3));
    for checkpoint in [false, true] {
        if checkpoint {
            lone.checkpoint();
        }
        lone = lone.reopen();
        for at in [chunk(1, 0), chunk(2, 0)] {
            assert_eq!(lone.inspect(at), Some(lone.fetch(at).unwrap().0));
        }
        let zeroed = lone.inspect(chunk(2, 0)).unwrap();
        assert_eq!((zeroed.data, zeroed.zero), (0, 0b1111));
        let tombstone = Holding {
            stamp: stamp(3, 2),
            ..Holding::default()
        };
        assert_eq!(lone.inspect(chunk(1, 1)), Some(tombstone));
        assert_eq!(lone.inspect(chunk(2, 1)), None);
        assert_eq!(lone.inspect(chunk(1, 700)), None);
    }
}

#[test]
fn a_load_tells_zeroes_and_the_checksums_of_the_layer_that_was_asked_for() {
    let mut lone = fenced();
    lone.write(chunk(1, 0), run(0, 4), 7, stamp(1, 1));
    lone.put_volume(&[1, 2]);
    lone.write(chunk(2, 0), run(2, 1), 9, stamp(1, 2));
    lone.zero(chunk(2, 0), run(3, 1), stamp(1, 3));
    let expected = (vec![7, 9, 0, 0, 0], 0b11_1000);
    for checkpoint in [false, true] {
        if checkpoint {
            lone.checkpoint();
        }
        // From memory, from the journal, from the slots.
        assert_eq!(lone.load(chunk(2, 0), run(1, 5)), Ok(expected.clone()));
        lone = lone.reopen();
        assert_eq!(lone.load(chunk(2, 0), run(1, 5)), Ok(expected.clone()));
    }
    let nothing = (vec![0; 16], u16::MAX);
    assert_eq!(lone.load(chunk(2, 900), WHOLE), Ok(nothing));
    let place = lone.place_of(7).unwrap();
    lone.rot(place + 4096);
    let rotten = lone.load(chunk(2, 0), run(1, 2));
    assert_eq!(rotten, Err(StoreError::Damaged));
    assert!(lone.damaged.contains_key(&(1, 0, 1)), "{:?}", lone.damaged);
}

#[test]
fn a_tombstone_that_is_let_go_is_remembered_through_checkpoints_and_power_cuts() {
    let mut lone = fenced();
    lone.zero(chunk(1, 0), WHOLE, stamp(2, 1));
    lone.zero(chunk(1, 1), WHOLE, stamp(5, 2));
    let let_go = |lone: &Lone| lone.store.replica(PG).unwrap().let_go;
    lone.checkpoint();
    lone.step(Input::Forget { pg: PG, version: 4 });
    assert_eq!(let_go(&lone), 0, "it may go, and is there still");
    lone.settle();
    assert_eq!(lone.inspect(chunk(1, 0)), None);
    assert_eq!(let_go(&lone), 2, "what went, not what might have gone");
    // A power cut brings back both, or neither.
    let mut before = Lone::on(lone.image(), 9);
    before.settle();
    assert!(before.inspect(chunk(1, 0)).is_some());
    assert_eq!(let_go(&before), 0);
    lone.checkpoint();
    let mut lone = lone.reopen();
    assert_eq!((lone.inspect(chunk(1, 0)), let_go(&lone)), (None, 2));
    assert!(lone.inspect(chunk(1, 1)).is_some());
    lone.drop_replica();
    lone.fence(6, 0, 1);
    assert_eq!(let_go(&lone), 0, "another replica");
}

#[test]
fn a_tombstone_that_goes_while_its_page_is_loaded_counts_as_well() {
    let mut lone = fenced();
    lone.zero(chunk(1, 0), WHOLE, stamp(2, 1));
    lone.checkpoint();
    // The root has that it may go; the page has it still.
    lone.step(Input::Forget { pg: PG, version: 3 });
    lone.write(chunk(1, 64), run(0, 1), 1, stamp(3, 2));
    let op = lone.op();
    lone.step(Input::Checkpoint { op });
    lone.turn();
    let mut lone = lone.reopen();
    lone.settle();
    assert_eq!(lone.inspect(chunk(1, 0)), None);
    assert_eq!(lone.store.replica(PG).unwrap().let_go, 2);
}

#[test]
fn a_replica_that_is_made_for_a_session_lacks_what_its_source_has_let_go() {
    let mut lone = Lone::new();
    lone.fence(7, 7, 1);
    assert_eq!(lone.store.replica(PG).unwrap().let_go, 6);
    lone.fence(8, 0, 1);
    let lone = lone.reopen();
    assert_eq!(lone.store.replica(PG).unwrap().let_go, 6);
}

#[test]
fn torn_pgs_are_told_when_they_are_found_and_asked_again_until_they_are_dropped() {
    let mut lone = fenced();
    lone.write(chunk(1, 0), WHOLE, 1, stamp(1, 1));
    lone.write(chunk(1, 64), WHOLE, 2, stamp(1, 2));
    lone.checkpoint();
    assert!(lone.torn.is_empty() && lone.store.torn().is_empty());
    let geometry = lone.store.superblock().geometry;
    for home in [0, 1] {
        lone.rot(geometry.table_at + home * geometry.pages * 8192 + 100);
    }
    let mut lone = lone.reopen();
    lone.settle();
    let torn = BTreeSet::from([Torn::Pg(PG)]);
    assert_eq!((&lone.torn, lone.store.torn()), (&torn, torn.clone()));
    let at = chunk(1, 0);
    let told = Some(Answer::Done(Err(StoreError::Torn)));
    assert_eq!(lone.ask(|op| Input::Look { op, at }), told);
    assert_eq!(lone.ask(|op| Input::Inspect { op, at }), told);
    assert_eq!(lone.load(at, WHOLE), Err(StoreError::Torn));
    assert_eq!(lone.list(0, 10), Err(StoreError::Torn));
    // The other extent is as it was.
    assert_eq!(lone.read(chunk(1, 64), run(0, 1)), Ok(vec![2]));
    // Found again at each opening, until the replica is dropped.
    let mut lone = lone.reopen();
    lone.settle();
    assert_eq!(lone.torn, torn);
    lone.drop_replica();
    assert!(lone.store.torn().is_empty());
    assert_eq!(lone.look(at), Takes::Slot);
    lone.checkpoint();
    let mut lone = lone.reopen();
    lone.settle();
    assert!(lone.torn.is_empty() && lone.store.torn().is_empty());
}

#[test]
fn a_lost_header_of_the_journal_tears_all_of_the_disk() {
    let mut lone = fenced();
    for n in 0..20 {
        lone.write(chunk(1, n), run(0, 1), 1, stamp(1, n + 1));
    }
    lone.rot(lone.store.superblock().geometry.journal_at + 200);
    let mut lone = lone.reopen();
    let all = BTreeSet::from([Torn::Disk]);
    assert_eq!((&lone.torn, lone.store.torn()), (&all, all.clone()));
    let at = chunk(1, 0);
    let told = Some(Answer::Done(Err(StoreError::Torn)));
    assert_eq!(lone.ask(|op| Input::Inspect { op, at }), told);
    let openings = Openings::default();
    let refused = lone.ask(|op| Input::PutOpenings { op, openings });
    assert_eq!(refused, Some(Answer::Done(Err(StoreError::ReadOnly))));
}

#[test]
fn the_numbers_of_an_opening_are_there_when_they_are_answered_wherever_the_power_is_cut() {
    let mut lone = fenced();
    lone.put_openings(5, 3);
    for cut in 0..12 {
        let mut cut_short = Lone::on(lone.image(), cut);
        cut_short.settle();
        assert_eq!(cut_short.store.openings().last, 5);
        cut_short.cut_in = Some(cut);
        let openings = Openings {
            last: 9,
            recorded: 5,
        };
        // A checkpoint goes on beside it, which writes the superblock as well.
        let at = chunk(1, cut % 3);
        let write = cut_short.begin_write(at, run(0, 1), 1, stamp(1, cut + 1));
        let checkpoint = cut_short.op();
        cut_short.step(Input::Checkpoint { op: checkpoint });
        let put = cut_short.op();
        cut_short.step(Input::PutOpenings { op: put, openings });
        cut_short.settle();
        let is_told = cut_short.answered(put) == Some(Answer::Done(Ok(())));
        let is_written = cut_short.answered(write) == Some(Answer::Done(Ok(())));
        let mut after = cut_short.reopen();
        let found = after.store.openings();
        let (before, told) = ((5, 3), (9, 5));
        assert!([before, told].contains(&(found.last, found.recorded)));
        assert!(!is_told || (found.last, found.recorded) == told, "{cut}");
        let has = after.inspect(at).is_some();
        assert!(has || !is_written, "{cut}");
        assert!(check_bytes(&after.image()).is_sound());
    }
}

#[test]
fn openings_survive_checkpoints_and_both_ways_to_close() {
    let mut lone = fenced();
    lone.put_openings(5, 3);
    lone.write(chunk(1, 0), WHOLE, 1, stamp(1, 1));
    lone.checkpoint();
    let expected = Openings {
        last: 5,
        recorded: 3,
    };
    let mut lone = lone.reopen();
    assert_eq!(lone.store.openings(), expected);
    lone.close();
    let lone = lone.reopen();
    assert_eq!(lone.store.openings(), expected);
    // Only a few are on their way at once.
    let mut lone = lone;
    let ops: Vec<_> = (0..8).map(|_| lone.op()).collect();
    for (n, &op) in (0..).zip(&ops) {
        let openings = Openings {
            last: 6 + n,
            recorded: 5,
        };
        lone.step(Input::PutOpenings { op, openings });
    }
    lone.settle();
    let ends: Vec<_> = ops.iter().map(|&op| lone.answered(op)).collect();
    let busy = Some(Answer::Done(Err(StoreError::Busy)));
    assert_eq!(ends.iter().filter(|end| **end == busy).count(), 3);
    let lone = lone.reopen();
    assert_eq!(lone.store.openings().last, 10, "the last that was taken");
}

/// Writes whole chunks from `first` on until none fits; how many did.
fn fill_up(lone: &mut Lone, first: u64, sequence: &mut u64, fills: bool) -> u64 {
    for n in 0.. {
        *sequence += 1;
        let (at, stamp) = (chunk(1, first + n), stamp(1, *sequence));
        let op = match fills {
            true => {
                let whole = Filling {
                    blocks: u16::MAX,
                    data: 1,
                    zero: 0,
                    fill: 3,
                };
                lone.begin_fill(at, whole, stamp, &[])
            }
            false => lone.begin_write(at, run(0, 1), 2, stamp),
        };
        match lone.end(op) {
            Ok(()) => {}
            Err(StoreError::NoSpace) => return n,
            Err(why) => panic!("{why:?}"),
        }
        if n % 64 == 63 {
            lone.mark(1, *sequence);
            lone.settle();
        }
    }
    0
}

#[test]
fn joiners_leave_two_thirds_of_the_reserve_and_replicas_in_sync_take_all_but_overwrites_go_on() {
    let mut lone = Lone::sized(40 << 20);
    lone.fence(1, 0, 1);
    lone.settle();
    let levels = lone.store.levels();
    let (slots, reserve) = (levels.slots, levels.slots_reserve);
    assert!(reserve >= 3 && levels.slots_free == slots, "{levels:?}");
    let mut sequence = 0;
    // Filled from elsewhere: only a third of the reserve is theirs.
    let filled = fill_up(&mut lone, 0, &mut sequence, true);
    let left = reserve - reserve / 3;
    lone.settle();
    assert_eq!(filled, slots - left);
    assert_eq!(lone.store.levels().slots_free, left);
    // A joiner's own changes are no better off.
    lone.fence(2, 2, 1);
    assert_eq!(fill_up(&mut lone, filled, &mut sequence, false), 0);
    // In sync it takes what it is told to the last slot.
    lone.fence(3, 0, 1);
    assert_eq!(fill_up(&mut lone, filled, &mut sequence, false), left);
    lone.settle();
    assert_eq!(lone.store.levels().slots_free, 0);
    assert_eq!(lone.look(chunk(1, 0)), Takes::Nothing);
    // Without a free slot a whole chunk goes over one that is there by way of the journal.
    sequence += 1;
    lone.write(chunk(1, 5), WHOLE, 8, stamp(3, sequence));
    assert_eq!(lone.read(chunk(1, 5), WHOLE), Ok(vec![8; 16]));
    lone.settle();
    lone.checkpoint();
    let mut lone = lone.reopen();
    // Until the table is loaded the last root says how much is free.
    assert!(lone.store.levels().slots_free <= 1);
    assert_eq!(lone.read(chunk(1, 5), WHOLE), Ok(vec![8; 16]));
    let holding = lone.inspect(chunk(1, 5)).unwrap();
    assert_eq!(holding.stamp, stamp(3, sequence));
    lone.zero(chunk(1, 6), WHOLE, stamp(3, sequence + 1));
    lone.settle();
    assert_eq!(lone.store.levels().slots_free, 1);
}

#[test]
fn a_disk_of_the_version_before_is_read_and_written_in_the_present_one() {
    let mut lone = fenced();
    lone.zero(chunk(1, 0), WHOLE, stamp(2, 1));
    lone.checkpoint();
    // As version 4 wrote it: the same but for what was zero there.
    let mut image = lone.image();
    for at in [0usize, 65536] {
        image[at + 12..at + 16].copy_from_slice(&4u32.to_le_bytes());
        image[at + 8..at + 12].fill(0);
        let crc = crc32c::crc32c(&image[at..at + 4096]);
        image[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    }
    let mut lone = Lone::on(image.clone(), 1);
    assert!(lone.store.is_open(), "{:?}", lone.store.open_error());
    assert_eq!(lone.store.openings(), Openings::default());
    assert_eq!(lone.store.replica(PG).unwrap().let_go, 0);
    assert!(lone.inspect(chunk(1, 0)).is_some());
    let version = |image: &[u8]| u32::from_le_bytes(image[12..16].try_into().unwrap());
    assert_eq!((version(&image), version(&lone.image())), (4, 5));
    image[12..16].copy_from_slice(&6u32.to_le_bytes());
    image[8..12].fill(0);
    let crc = crc32c::crc32c(&image[..4096]);
    image[8..12].copy_from_slice(&crc.to_le_bytes());
    let lone = Lone::on(image, 1);
    assert!(!lone.store.is_open(), "a version of the future");
}
