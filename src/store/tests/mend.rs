//! Damage that is told, what is salvaged for another replica, and mends: each through power cuts.

use super::lone::*;
use super::story::check_bytes;
use crate::base::{BlockRun, Prng};
use crate::store::{Note, StoreError};
use std::collections::BTreeMap;

const WHOLE: BlockRun = BlockRun::WHOLE;

/// A fenced store with a chunk that consists of 7, applied.
fn with_sevens() -> Lone {
    let mut lone = Lone::new();
    lone.fence(1, 0, 1);
    lone.write(chunk(1, 3), WHOLE, 7, stamp(1, 1));
    lone
}

/// Where block `block` of the sevens lies.
fn sevens_at(lone: &Lone, block: u64) -> u64 {
    lone.place_of(7).expect("it is in its slot") + block * 4096
}

#[test]
fn a_rotten_block_is_told_with_what_it_should_be_and_is_right_again_after_a_mend() {
    for by_scrub in [false, true] {
        let mut lone = with_sevens();
        lone.rot(sevens_at(&lone, 5));
        match by_scrub {
            true => lone.scrub(),
            false => assert_eq!(lone.read(chunk(1, 3), WHOLE), Err(StoreError::Damaged)),
        }
        let told: Vec<_> = lone.damaged.keys().copied().collect();
        assert_eq!(told, [(1, 3, 5)]);
        let before = lone.fetch(chunk(1, 3));
        assert_eq!(before.unwrap_err(), StoreError::Damaged);
        lone.mend(chunk(1, 3), 1 << 5, 7);
        assert_eq!(lone.read(chunk(1, 3), WHOLE), Ok(vec![7; 16]));
        let mended = |note: &Note| matches!(note, Note::Mended { blocks: 32, .. });
        assert!(lone.notes.iter().any(mended));
        // From the journal, and from the slot.
        let mut lone = lone.reopen();
        assert_eq!(lone.read(chunk(1, 3), WHOLE), Ok(vec![7; 16]));
        lone.settle();
        lone.checkpoint();
        lone.damaged.clear();
        lone.scrub();
        assert!(lone.damaged.is_empty());
        let mut lone = lone.reopen();
        let (held, fills) = lone.fetch(chunk(1, 3)).unwrap();
        assert_eq!((held.stamp, fills), (stamp(1, 1), [7; 16]));
        assert_eq!(lone.list(0, 10), Ok(vec![(chunk(1, 3), stamp(1, 1))]));
    }
}

#[test]
fn a_slot_that_cannot_be_read_is_mended_as_a_whole() {
    let mut lone = with_sevens();
    let first = sevens_at(&lone, 0) / 4096;
    lone.unreadable.extend(first..first + 16);
    assert_eq!(lone.read(chunk(1, 3), WHOLE), Err(StoreError::Damaged));
    assert_eq!(lone.damaged.len(), 16);
    lone.mend(chunk(1, 3), u16::MAX, 7);
    lone.settle();
    assert!(lone.unreadable.is_empty(), "its place was written anew");
    let mut lone = lone.reopen();
    assert_eq!(lone.read(chunk(1, 3), WHOLE), Ok(vec![7; 16]));
    assert_eq!(lone.store.stats().checksum_errors, 0);
}

#[test]
fn a_mend_with_another_checksum_than_the_tables_changes_nothing() {
    let mut lone = with_sevens();
    lone.rot(sevens_at(&lone, 5));
    lone.mend(chunk(1, 3), 1 << 5 | 1, 8);
    assert_eq!(lone.read(chunk(1, 3), run(0, 1)), Ok(vec![7]));
    assert_eq!(lone.read(chunk(1, 3), run(5, 1)), Err(StoreError::Damaged));
    // Nor where nothing is, or never was.
    lone.mend(chunk(1, 4), 1, 8);
    lone.mend(chunk(1, 400), 1, 8);
    assert_eq!(lone.read(chunk(1, 4), run(0, 1)), Ok(vec![0]));
    assert_eq!(lone.store.stats().mended_blocks, 0);
}

#[test]
fn a_write_that_comes_before_or_behind_a_mend_on_its_way_stays() {
    for zeroes in [false, true] {
        for before in [false, true] {
            let mut lone = with_sevens();
            lone.rot(sevens_at(&lone, 5));
            let at = chunk(1, 3);
            let mend = |lone: &mut Lone| lone.begin_mend(at, 0b11 << 4, 7);
            let mut ops = Vec::new();
            if !before {
                ops.push(mend(&mut lone));
            }
            match zeroes {
                true => lone.zero(at, run(5, 1), stamp(1, 2)),
                false => ops.push(lone.begin_write(at, run(5, 1), 9, stamp(1, 2))),
            }
            if before {
                ops.push(mend(&mut lone));
            }
            lone.turn();
            for op in ops {
                assert_eq!(lone.answered(op), Some(Answer::Done(Ok(()))));
            }
            let newest = if zeroes { 0 } else { 9 };
            let expected = Ok(vec![7, newest, 7]);
            assert_eq!(lone.read(at, run(4, 3)), expected);
            let mut lone = lone.reopen();
            assert_eq!(lone.read(at, run(4, 3)), expected);
            lone.settle();
            lone.checkpoint();
            assert_eq!(lone.read(at, run(4, 3)), expected);
            lone.close();
        }
    }
}

#[test]
fn a_whole_chunk_that_comes_before_or_behind_a_mend_on_its_way_stays() {
    for before in [false, true] {
        let mut lone = with_sevens();
        let at = chunk(1, 3);
        let mut ops = Vec::new();
        if before {
            ops.push(lone.begin_write(at, WHOLE, 9, stamp(1, 2)));
        }
        ops.push(lone.begin_mend(at, 0xff, 7));
        if !before {
            ops.push(lone.begin_write(at, WHOLE, 9, stamp(1, 2)));
        }
        lone.turn();
        for op in ops {
            assert_eq!(lone.answered(op), Some(Answer::Done(Ok(()))));
        }
        lone.settle();
        assert_eq!(lone.read(at, WHOLE), Ok(vec![9; 16]));
        let mut lone = lone.reopen();
        assert_eq!(lone.read(at, WHOLE), Ok(vec![9; 16]));
        lone.close();
    }
}

#[test]
fn a_block_of_a_frozen_layer_is_mended_there() {
    let mut lone = with_sevens();
    lone.put_volume(&[1, 2]);
    lone.rot(sevens_at(&lone, 5));
    // Read through the layer above.
    assert_eq!(lone.read(chunk(2, 3), WHOLE), Err(StoreError::Damaged));
    assert_eq!(lone.damaged.keys().next(), Some(&(1, 3, 5)));
    lone.mend(chunk(1, 3), 1 << 5, 7);
    let mut lone = lone.reopen();
    assert_eq!(lone.read(chunk(2, 3), WHOLE), Ok(vec![7; 16]));
    assert_eq!(lone.list(0, 10).unwrap().len(), 1);
}

#[test]
fn what_is_salvaged_matches_and_what_is_damaged_fails_no_other_block() {
    let mut lone = with_sevens();
    let at = chunk(1, 3);
    lone.rot(sevens_at(&lone, 5));
    let unreadable = sevens_at(&lone, 9) / 4096;
    lone.unreadable.insert(unreadable);
    // In memory, where the slot still has the sevens.
    lone.write(at, run(0, 1), 8, stamp(1, 2));
    assert_eq!(lone.salvage(at, u16::MAX, 7), Ok(!(1 << 5 | 1 << 9)));
    assert_eq!(lone.salvage(at, u16::MAX, 8), Ok(1));
    assert_eq!(lone.salvage(at, 0b110, 7), Ok(0b110));
    assert_eq!(lone.salvage(chunk(1, 9), u16::MAX, 7), Ok(0));
    assert_eq!(
        lone.salvage(chunk(5, 3), 1, 7),
        Err(StoreError::NoSuchLayer)
    );
    // From the journal, after replay.
    let mut lone = lone.reopen();
    assert_eq!(lone.salvage(at, 1, 8), Ok(1));
}

#[test]
fn two_replicas_with_different_damage_in_one_chunk_mend_one_another() {
    let mut pair = [with_sevens(), with_sevens()];
    let at = chunk(1, 3);
    for (n, lone) in pair.iter_mut().enumerate() {
        let place = sevens_at(lone, n as u64);
        lone.rot(place);
        assert_eq!(lone.fetch(at).unwrap_err(), StoreError::Damaged);
    }
    for n in 0..2 {
        let wanted = pair[n].damaged.keys().fold(0, |mask, of| mask | 1 << of.2);
        let got = pair[1 - n].salvage(at, wanted, 7).unwrap();
        pair[n].mend(at, got, 7);
        assert_eq!(pair[n].read(at, WHOLE), Ok(vec![7; 16]));
    }
}

/// The chunks of the random tests.
const CHUNKS: u64 = 4;

/// What each block should be; `None`: a write of it was on its way when the power was cut.
type Model = BTreeMap<(u64, u32), Option<u8>>;

/// Blocks are never anything but what was written; and nothing that is whole is called damaged.
fn judge(lone: &mut Lone, model: &Model, rotten: &BTreeMap<(u64, u32), u8>, what: u64) {
    for (&(at, block), &fill) in model {
        match (lone.read(chunk(1, at), run(block, 1)), fill) {
            (Ok(found), Some(fill)) => assert_eq!(found[0], fill, "{at} {block} {what}"),
            (Err(why), Some(_)) => {
                assert_eq!(why, StoreError::Damaged);
                assert!(rotten.contains_key(&(at, block)), "{at} {block} {what}");
            }
            _ => {}
        }
    }
}

#[test]
fn with_rot_mends_writes_and_power_cuts_at_random_no_block_is_ever_wrong_and_most_are_mended() {
    let (mut mended, mut cuts) = (0, 0);
    for seed in 0..120 {
        let mut prng = Prng::new(seed);
        let mut lone = Lone::new();
        lone.fence(1, 0, 1);
        let mut model = Model::new();
        // What was ever written where: an old mend may come at any time.
        let mut rotten: BTreeMap<(u64, u32), u8> = BTreeMap::new();
        let mut written: Vec<(u64, BlockRun, u8)> = Vec::new();
        let mut fill = 0u8;
        for sequence in 1..60u64 {
            if prng.one_in(12) {
                lone.cut_in = Some(prng.below(8));
            }
            let mut flying = Vec::new();
            for _ in 0..1 + prng.below(3) {
                let at = prng.below(CHUNKS);
                if prng.one_in(2) || written.is_empty() {
                    let first = prng.below(16) as u32;
                    let many = 1 + prng.below(16 - u64::from(first)) as u32;
                    let blocks = match prng.one_in(4) {
                        true => WHOLE,
                        false => run(first, many),
                    };
                    let overlaps = |(of, other): &(u64, BlockRun)| {
                        *of == at && other.mask() & blocks.mask() != 0
                    };
                    if flying.iter().any(overlaps) || fill == 250 {
                        continue;
                    }
                    fill += 1;
                    let now = stamp(1, sequence * 4 + flying.len() as u64);
                    lone.begin_write(chunk(1, at), blocks, fill, now);
                    flying.push((at, blocks));
                    written.push((at, blocks, fill));
                } else {
                    // Of what was written once, the newest or not.
                    let back = prng.below(written.len().min(6) as u64) as usize;
                    let (at, blocks, fill) = written[written.len() - 1 - back];
                    lone.begin_mend(chunk(1, at), blocks.mask(), fill);
                }
            }
            lone.turn();
            if prng.one_in(3) {
                lone.settle();
            }
            let dead = lone.dead;
            lone.cut_in = None;
            for (at, blocks) in flying {
                let (.., fill) = written
                    .iter()
                    .rfind(|of| of.0 == at && of.1 == blocks)
                    .unwrap();
                for block in blocks.blocks() {
                    model.insert((at, block), (!dead).then_some(*fill));
                    rotten.remove(&(at, block));
                }
            }
            if dead {
                cuts += 1;
                let report = check_bytes(&lone.image());
                assert!(report.is_sound(), "seed {seed}: {report:?}");
                lone = lone.reopen();
                // What was on its way is one or the other; from now on nobody knows better than a whole write.
                for at in 0..CHUNKS {
                    if fill < 250 {
                        fill += 1;
                        lone.write(chunk(1, at), WHOLE, fill, stamp(1, sequence * 4 + 3));
                        written.push((at, WHOLE, fill));
                        (0..16).for_each(|block| {
                            model.insert((at, block), Some(fill));
                            rotten.remove(&(at, block));
                        });
                    }
                }
            }
            // Rot, and a mend of it.
            let of = prng.below(CHUNKS);
            let place = (of, prng.below(16) as u32);
            if let Some(&Some(fill)) = model.get(&place)
                && prng.one_in(2)
            {
                lone.settle();
                lone.checkpoint();
                if let Some(offset) = lone.place_of(fill) {
                    lone.rot(offset);
                    let is_it = |(_, of): &(&(u64, u32), &Option<u8>)| **of == Some(fill);
                    let same: Vec<_> = model.iter().filter(is_it).map(|(at, _)| *at).collect();
                    rotten.extend(same.into_iter().map(|at| (at, fill)));
                }
                judge(&mut lone, &model, &rotten, seed);
                for ((at, block), fill) in std::mem::take(&mut rotten) {
                    lone.mend(chunk(1, at), 1 << block, fill);
                }
                mended += lone.store.stats().mended_blocks;
            }
            judge(&mut lone, &model, &rotten, seed);
        }
        lone.settle();
        judge(&mut lone, &model, &rotten, seed);
        lone.checkpoint();
        let report = check_bytes(&lone.image());
        assert!(report.is_sound(), "seed {seed}: {report:?}");
    }
    assert!(mended > 1000 && cuts > 100, "{mended} {cuts}");
}
