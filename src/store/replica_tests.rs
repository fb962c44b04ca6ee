//! Fences, marks and windows as records make them.

use super::*;
use crate::base::BlockRun;
use crate::store::record::Empty;

const PG: PgId = PgId(3);
const RANGE: VolumeId = VolumeId(5);

fn epoch(host: u32) -> Epoch {
    Epoch {
        host,
        ..Epoch::default()
    }
}

fn stamp(version: u32, host: u32, sequence: u64) -> Stamp {
    let epoch = epoch(host);
    Stamp {
        version,
        epoch,
        sequence,
    }
}

fn fence(version: u32, session: u32, host: u32) -> Record {
    Record::Fence {
        pg: PG,
        version,
        session,
        fences: vec![(RANGE, epoch(host))],
    }
}

fn zero(chunk: u64, blocks: (u32, u32), stamp: Stamp) -> Record {
    Record::Zero {
        at: ChunkId {
            family: FamilyId(1),
            layer: LayerId(1),
            chunk: ChunkNo(chunk),
        },
        run: BlockRun::new(blocks.0, blocks.1).unwrap(),
        pg: PG,
        range: Some(RANGE),
        stamp,
        empty: Empty::Tombstone,
    }
}

fn replicas(records: &[Record]) -> Replicas {
    let mut replicas = Replicas::new(BTreeMap::new(), 0, 1 << 20);
    for record in records {
        replicas.take(record);
        replicas.check();
    }
    replicas
}

fn window(replicas: &Replicas) -> Vec<(u32, u64, u64, u16)> {
    let range = replicas.get(PG).unwrap().range(RANGE).unwrap();
    let seen = |entry: WindowEntry| {
        let Stamp {
            epoch, sequence, ..
        } = entry.stamp;
        (epoch.host, sequence, entry.at.chunk.0, entry.blocks)
    };
    range.window().map(seen).collect()
}

#[test]
fn fences_only_grow() {
    let all = replicas(&[fence(4, 0, 2), fence(3, 9, 1)]);
    let replica = all.get(PG).unwrap();
    assert_eq!((replica.version, replica.session), (4, 0));
    assert_eq!(replica.range(RANGE).unwrap().epoch, epoch(2));
}

#[test]
fn a_mark_passes_its_own_epoch_and_a_new_epoch_begins_without_one() {
    let mut all = replicas(&[
        fence(1, 0, 1),
        zero(0, (0, 1), stamp(1, 1, 1)),
        zero(1, (0, 1), stamp(1, 1, 2)),
        fence(1, 0, 2),
        zero(2, (0, 1), stamp(1, 2, 1)),
    ]);
    all.mark(PG, RANGE, epoch(1), 9);
    assert_eq!(window(&all).len(), 3, "of a fenced epoch");
    all.mark(PG, RANGE, epoch(2), 1);
    assert_eq!(window(&all), [(1, 1, 0, 1), (1, 2, 1, 1)]);
    all.check();
}

#[test]
fn what_a_new_epoch_has_written_covers_what_an_old_one_left() {
    let all = replicas(&[
        fence(1, 0, 1),
        zero(0, (0, 2), stamp(1, 1, 1)),
        fence(1, 0, 2),
        zero(0, (1, 2), stamp(1, 2, 1)),
    ]);
    assert_eq!(window(&all), [(1, 1, 0, 0b01), (2, 1, 0, 0b110)]);
    let all = replicas(&[
        fence(1, 0, 1),
        zero(0, (0, 2), stamp(1, 1, 1)),
        fence(1, 0, 2),
        zero(0, (0, 16), stamp(1, 2, 1)),
    ]);
    assert_eq!(window(&all), [(2, 1, 0, u16::MAX)]);
}

#[test]
fn a_write_that_is_stamped_anew_is_in_the_window_once() {
    let all = replicas(&[
        fence(1, 0, 1),
        zero(0, (0, 2), stamp(1, 1, 1)),
        zero(0, (0, 2), stamp(2, 1, 1)),
    ]);
    let range = all.get(PG).unwrap().range(RANGE).unwrap();
    let versions: Vec<u32> = range.window().map(|entry| entry.stamp.version).collect();
    assert_eq!(versions, [2]);
}

#[test]
fn a_mark_never_passes_what_a_joiner_held_before_its_session() {
    let mut all = replicas(&[
        fence(4, 0, 1),
        zero(0, (0, 1), stamp(4, 1, 7)),
        fence(6, 6, 1),
        zero(1, (0, 1), stamp(6, 1, 8)),
    ]);
    all.mark(PG, RANGE, epoch(1), 9);
    assert_eq!(window(&all), [(1, 7, 0, 1)]);
    // It is in sync again. The record of the mark comes only now, and replay must not pass more by it.
    all.take(&fence(7, 0, 1));
    let record = all.next_mark().expect("it is in no record");
    let replayed = replicas(&[
        fence(4, 0, 1),
        zero(0, (0, 1), stamp(4, 1, 7)),
        fence(6, 6, 1),
        zero(1, (0, 1), stamp(6, 1, 8)),
        fence(7, 0, 1),
        record,
    ]);
    assert_eq!(window(&replayed), [(1, 7, 0, 1)]);
    all.mark(PG, RANGE, epoch(1), 10);
    assert_eq!(window(&all), []);
    all.check();
}

#[test]
fn a_record_at_or_below_the_mark_is_in_no_window() {
    let mark = Record::Mark {
        pg: PG,
        range: RANGE,
        epoch: epoch(1),
        mark: 5,
        session: 0,
    };
    let all = replicas(&[fence(1, 0, 1), mark, zero(0, (0, 1), stamp(1, 1, 5))]);
    assert_eq!(window(&all), []);
}

#[test]
fn a_replica_that_is_dropped_and_a_volume_that_is_leave_nothing() {
    let all = replicas(&[
        fence(4, 0, 1),
        zero(0, (0, 1), stamp(4, 1, 7)),
        Record::DropVolume(RANGE),
    ]);
    assert!(all.get(PG).unwrap().range(RANGE).is_none());
    let all = replicas(&[
        fence(4, 0, 1),
        zero(0, (0, 1), stamp(4, 1, 7)),
        Record::DropReplica(PG),
        zero(0, (0, 1), stamp(4, 1, 8)),
    ]);
    assert!(all.get(PG).is_none());
    assert_eq!(all.bytes, 0);
}

#[test]
fn what_is_full_refuses() {
    let mut all = Replicas::new(
        BTreeMap::new(),
        0,
        REPLICA_BYTES + RANGE_BYTES + ENTRY_BYTES,
    );
    assert_eq!(all.check_fences(1), Ok(()));
    assert_eq!(all.check_fences(3), Err(StoreError::NoSpace));
    all.take(&fence(1, 0, 1));
    assert!(all.has_room(PG, Some(RANGE), 1) && !all.has_room(PG, Some(RANGE), 2));
    let record = zero(0, (0, 1), stamp(1, 1, 1));
    all.reserve(all.cost(&record));
    assert!(!all.has_room(PG, Some(RANGE), 1), "one is on its way");
    assert!(all.has_room(PG, None, 1), "in no window");
    all.unreserve(all.cost(&record));
    all.take(&record);
    assert!(!all.has_room(PG, Some(RANGE), 1), "it is there");
    all.mark(PG, RANGE, epoch(1), 1);
    assert!(all.has_room(PG, Some(RANGE), 1));
}

#[test]
fn a_root_takes_and_gives_all_of_it() {
    let mut all = replicas(&[
        fence(4, 4, 2),
        zero(0, (3, 2), stamp(4, 2, 7)),
        zero(9, (0, 16), stamp(4, 2, 8)),
    ]);
    all.mark(PG, RANGE, epoch(2), 7);
    all.forget(PG, 2);
    let replica = all.get(PG).unwrap();
    let mut bytes = Vec::new();
    encode_replica(PG, replica, &mut Put(&mut bytes));
    assert_eq!(bytes.len() as u64, replica.bytes());
    let (pg, found) = decode_replica(&mut Take::new(&bytes)).unwrap();
    assert_eq!((pg, &found), (PG, replica));
    for len in 0..bytes.len() {
        assert!(decode_replica(&mut Take::new(&bytes[..len])).is_none());
    }
}
