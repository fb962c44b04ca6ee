//! Operations as a store sees them, and its answers as a replica sees them.

use super::*;
use crate::base::{BufId, ChunkNo, FamilyId, LayerId};

const PG: PgId = PgId(7);
const OP: StoreOp = StoreOp(3);
const AT: ChunkId = ChunkId {
    family: FamilyId(1),
    layer: LayerId(2),
    chunk: ChunkNo(5),
};
const BUF: BufRef = BufRef {
    id: BufId(9),
    block: 0,
};

fn entry(host: u32, sequence: u64, blocks: u16) -> Entry {
    let epoch = Epoch {
        host,
        ..Epoch::default()
    };
    Entry {
        epoch,
        sequence,
        at: AT,
        blocks,
        version: 4,
    }
}

fn content(data: u16, zeroes: u16) -> Content {
    Content {
        stamp: Stamp {
            version: 3,
            ..Stamp::default()
        },
        data,
        zeroes,
        crcs: std::array::from_fn(|n| n as u32 + 1),
    }
}

fn given(operation: &Operation) -> Result<String, Outcome> {
    let mut seen = String::new();
    operation.give((PG, OP), |input| seen = format!("{input:?}"))?;
    Ok(seen)
}

#[test]
fn a_write_gives_the_checksums_of_its_run_and_without_payload_it_is_refused() {
    let run = BlockRun::new(4, 2).unwrap();
    let mut write = Operation::Change {
        range: VolumeId(8),
        at: AT,
        change: Change::Write {
            run,
            crcs: std::array::from_fn(|n| n as u32 + 1),
        },
        stamp: Stamp::default(),
        payload: Some(BUF),
    };
    let seen = given(&write).unwrap();
    assert!(seen.contains("crcs: [1, 2], pg"), "{seen}");
    assert_eq!(
        write.end(Answer::Done(Ok(()))),
        Next::Ended(Outcome::Stored)
    );
    if let Operation::Change { payload, .. } = &mut write {
        *payload = None;
    }
    assert_eq!(given(&write), Err(Outcome::Failed(Failure::Refused)));
}

#[test]
fn of_the_entries_of_a_fill_each_block_keeps_the_newest_and_no_version() {
    let mut entries: Vec<(VolumeId, Entry)> = (1..=40)
        .map(|n| (VolumeId(8), entry(1, n, 1 << (n % 16) | 1)))
        .collect();
    entries.push((VolumeId(8), entry(2, 1, 0b10)));
    let (range, window) = window_of(AT, &entries).unwrap();
    assert_eq!(range, Some(VolumeId(8)));
    assert!(window.len() <= 16, "{}", window.len());
    let all = window.iter().fold(0, |mask, of| mask | of.blocks);
    assert_eq!(all, u16::MAX);
    let sum: u32 = window.iter().map(|of| of.blocks.count_ones()).sum();
    assert_eq!(sum, 16, "each block once");
    assert!(window.iter().all(|of| of.stamp.version == 0));
    let of = |bit: u16| window.iter().find(|of| of.blocks & bit != 0).unwrap();
    assert_eq!((of(1).stamp.sequence, of(2).stamp.epoch.host), (40, 2));
    entries.push((VolumeId(9), entry(3, 1, 1)));
    assert_eq!(window_of(AT, &entries), None);
    let fill = Operation::Fill {
        at: AT,
        blocks: 3,
        content: content(1, 2),
        entries,
        payload: Some(BUF),
    };
    assert_eq!(given(&fill), Err(Outcome::Failed(Failure::Refused)));
}

#[test]
fn a_fill_without_data_needs_no_payload() {
    let filled = |blocks, data, zeroes| Operation::Fill {
        at: AT,
        blocks,
        content: content(data, zeroes),
        entries: Vec::new(),
        payload: None,
    };
    let fill = |data, zeroes| filled(3, data, zeroes);
    assert_eq!(given(&filled(0, 1, 2)), Err(Outcome::Stored));
    let seen = given(&fill(0b100, 0b10)).unwrap();
    assert!(seen.contains("blocks: 3, data: 0, zero: 2"), "{seen}");
    assert_eq!(given(&fill(1, 2)), Err(Outcome::Failed(Failure::Refused)));
}

#[test]
fn a_list_that_found_nothing_yet_goes_on_and_is_answered_with_chunks_or_its_end() {
    let mut list = Operation::List {
        since: 2,
        after: None,
        most: 5,
    };
    let nothing = |more| Answer::Listed {
        chunks: Vec::new(),
        more,
    };
    assert_eq!(list.end(nothing(Some(AT))), Next::Again);
    let seen = given(&list).unwrap();
    assert!(
        seen.contains("after: Some(") && seen.contains("max: 5"),
        "{seen}"
    );
    let (chunks, more) = (vec![AT], true);
    let answer = Answer::Listed {
        chunks: chunks.clone(),
        more: Some(AT),
    };
    let expected = Next::Ended(Outcome::Listed { chunks, more });
    assert_eq!(list.end(answer), expected);
    let (chunks, more) = (Vec::new(), false);
    let expected = Next::Ended(Outcome::Listed { chunks, more });
    assert_eq!(list.end(nothing(None)), expected);
}

#[test]
fn checksums_of_a_read_come_in_the_order_of_its_run() {
    let mut read = Operation::Read {
        at: AT,
        run: BlockRun::new(3, 3).unwrap(),
        into: BUF,
    };
    let found = Holding {
        data: 0b10_1000,
        zero: 0b01_0000,
        stamp: Stamp::default(),
        crcs: std::array::from_fn(|n| n as u32 * 10),
    };
    let mut crcs = [0; 16];
    (crcs[0], crcs[1], crcs[2]) = (30, 40, 50);
    let zeroes = 0b01_0000;
    let expected = Next::Ended(Outcome::Loaded { crcs, zeroes });
    assert_eq!(read.end(Answer::Loaded(found)), expected);
}

#[test]
fn a_tombstone_is_found_and_nothing_is_not() {
    let mut look = Operation::Inspect { at: AT };
    let none = Next::Ended(Outcome::Found(None));
    assert_eq!(look.end(Answer::Inspected(None)), none);
    let tombstone = Holding::default();
    let Next::Ended(Outcome::Found(Some(found))) = look.end(Answer::Inspected(Some(tombstone)))
    else {
        panic!("it is found");
    };
    assert_eq!(found.data | found.zeroes, 0);
}

#[test]
fn what_a_store_refuses_says_what_is_to_be_done() {
    for (why, expected) in [
        (StoreError::Damaged, Failure::Damaged),
        (StoreError::Torn, Failure::Torn),
        (StoreError::NoSpace, Failure::NoSpace),
        (StoreError::DiskFailed, Failure::Gone),
        (StoreError::NoSuchLayer, Failure::Refused),
    ] {
        let mut fence = Operation::Fence {
            version: 1,
            session: 0,
            fences: Vec::new(),
        };
        let ended = fence.end(Answer::Done(Err(why)));
        assert_eq!(ended, Next::Ended(Outcome::Failed(expected)));
    }
}
