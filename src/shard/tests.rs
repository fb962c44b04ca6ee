//! The plain stories of a shard. The simulator tells the others.

use super::world::World;
use super::*;
use crate::base::{
    BufId, BufRef, DiskId, DiskSlot, IoError, Request, RequestKind, Token, VolumeId,
};
use crate::store::{Closing, Note, SUPERBLOCK_AT, SUPERBLOCK_LEN, StoreError, Superblock};

fn all(bytes: &[u8], value: u8) -> bool {
    bytes.iter().all(|byte| *byte == value)
}

#[test]
fn what_was_written_is_read_before_and_after_a_crash() {
    let mut world = World::new(64 << 20);
    world.write(0, 4096, 1);
    world.write(65536, 65536, 2);
    world.write(200_000, 300_000, 3);
    world.write(100, 17, 4);
    for round in 0..3 {
        assert!(all(&world.read(0, 100), 1), "round {round}");
        assert!(all(&world.read(100, 17), 4));
        assert!(all(&world.read(117, 4096 - 117), 1));
        assert!(all(&world.read(65536, 65536), 2));
        assert!(all(&world.read(200_000, 300_000), 3));
        assert!(all(&world.read(500_000, 4096), 0));
        if round == 1 {
            world.settle();
        }
        world.open();
    }
}

#[test]
fn the_journal_goes_round_and_nothing_is_lost() {
    let mut world = World::new(64 << 20);
    for n in 0..6000u64 {
        world.write((n * 7919 % 1000) * 4096, 4096, (n % 251) as u8);
    }
    let (_, stats, levels) = world.shard.disk(DiskSlot(0)).unwrap();
    assert!(
        levels.journal_wraps > 1 && stats.checkpoints > 2,
        "{levels:?} {stats:?}"
    );
    world.open();
    for n in 5000..6000u64 {
        assert!(
            all(&world.read((n * 7919 % 1000) * 4096, 4096), (n % 251) as u8),
            "{n}"
        );
    }
}

#[test]
fn a_snapshot_keeps_the_old_and_a_discard_does_not_fall_through() {
    let mut world = World::new(64 << 20);
    world.write(0, 131_072, 1);
    world.open_volume(&[1, 2]);
    world.write(4096, 4096, 2);
    world.request(RequestKind::Discard, 65536, &[0; 65536]);
    for _ in 0..2 {
        assert!(all(&world.read(0, 4096), 1));
        assert!(all(&world.read(4096, 4096), 2));
        assert!(all(&world.read(8192, 4096), 1));
        assert!(all(&world.read(65536, 65536), 0));
        world.open();
        world.open_volume(&[1, 2]);
    }
}

#[test]
fn a_volume_that_is_held_answers_when_it_is_opened_with_its_new_layer_or_resumed() {
    let mut world = World::new(64 << 20);
    let volume = VolumeId(1);
    for layers in [&[1][..], &[1, 2]] {
        world.control(Control::HoldVolume { volume });
        let buf = BufRef {
            id: BufId(0),
            block: 0,
        };
        world.step(Input::Request(Request {
            token: Token(0),
            volume,
            kind: RequestKind::Write,
            offset: 0,
            len: 4096,
            buf,
            scratch: buf,
        }));
        world.settle();
        assert_eq!(world.replies, [], "nothing is in flight while it is held");
        match layers {
            [_] => world.control(Control::ResumeVolume { volume }),
            _ => world.open_volume(layers),
        }
        assert_eq!(world.replies.pop(), Some(Ok(())));
    }
}

#[test]
fn zeroes_are_zeroes_and_their_space_comes_back() {
    let mut world = World::new(64 << 20);
    world.write(0, 1 << 20, 5);
    world.request(RequestKind::WriteZeroes, 1000, &[0; 500_000]);
    assert!(all(&world.read(0, 1000), 5));
    assert!(all(&world.read(1000, 500_000), 0));
    assert!(all(&world.read(501_000, 10_000), 5));
    world.request(RequestKind::Discard, 0, &[0; 1 << 20]);
    world.settle();
    let levels = world.shard.disk(DiskSlot(0)).unwrap().2;
    assert_eq!((levels.slots_used, levels.entries), (0, 0));
    // What was never written leaves nothing either: nobody will ask when it was discarded.
    world.request(RequestKind::Discard, 8 << 20, &[0; 8 << 20]);
    world.settle();
    assert_eq!(world.shard.disk(DiskSlot(0)).unwrap().2.entries, 0);
}

#[test]
fn a_flipped_byte_is_never_returned() {
    let mut world = World::new(64 << 20);
    world.write(65536, 65536, 2);
    world.control(Control::Scrub { disk: DiskId(0) });
    assert!(matches!(
        world.notes.last(),
        Some(Note::Scrubbed { blocks: 16, bad: 0 })
    ));
    let at = world.disk.windows(4096).position(|w| all(w, 2)).unwrap();
    world.disk[at + 5] ^= 1;
    let (token, volume, kind) = (Token(0), VolumeId(1), RequestKind::Read);
    let buf = BufRef {
        id: BufId(0),
        block: 0,
    };
    let request = Request {
        token,
        volume,
        kind,
        offset: 65536,
        len: 65536,
        buf,
        scratch: buf,
    };
    world.step(Input::Request(request));
    assert_eq!(world.replies.pop(), Some(Err(IoError::Failed)));
    world.control(Control::Scrub { disk: DiskId(0) });
    // What is rotten is read once more in between: somebody may want to mend it.
    let scrubbed = |note: &&Note| matches!(note, Note::Scrubbed { .. });
    let last = world.notes.iter().rfind(scrubbed);
    assert!(matches!(last, Some(Note::Scrubbed { bad: 1, .. })));
}

#[test]
fn a_journal_that_rots_after_its_replay_costs_the_rotten_block_and_not_its_neighbours() {
    let mut world = World::new(64 << 20);
    world.write(0, 4 * 4096, 0x5a);
    world.open_disk();
    let payload = world.disk.windows(4 * 4096).step_by(4096);
    let found: Vec<usize> = payload
        .enumerate()
        .filter_map(|(block, bytes)| all(bytes, 0x5a).then_some(block))
        .collect();
    assert_eq!(found.len(), 1, "it is in the journal, and not applied");
    world.disk[(found[0] + 1) * 4096 + 77] ^= 1;
    world.settle();
    world.open_volume(&[1]);
    let read = |world: &mut World, block: u64| {
        world.try_request(RequestKind::Read, block * 4096, &[0; 4096])
    };
    for round in 0..2 {
        assert!(read(&mut world, 1).is_err(), "round {round}");
        for block in [0, 2, 3] {
            assert!(
                all(&read(&mut world, block).unwrap(), 0x5a),
                "block {block}"
            );
        }
        // Also when all is applied, and the journal is not looked at any more.
        world.close();
        world.open();
    }
}

/// Whether each superblock of a disk says that it was closed.
fn closed(world: &World) -> [bool; 2] {
    SUPERBLOCK_AT.map(|at| {
        let copy = &world.disk[at as usize..(at + SUPERBLOCK_LEN) as usize];
        Superblock::decode(copy).unwrap().closed
    })
}

#[test]
fn a_closed_store_has_an_empty_journal() {
    let mut world = World::new(64 << 20);
    world.write(0, 4096, 1);
    world.close();
    assert_eq!(world.shard.disk(DiskSlot(0)).unwrap().2.journal_used, 0);
    assert_eq!(closed(&world), [true, true]);
    world.open();
    assert_eq!(closed(&world), [false, false]);
    assert!(matches!(
        world
            .notes
            .iter()
            .rev()
            .find(|n| matches!(n, Note::Opened { .. })),
        Some(Note::Opened { replayed: 0 })
    ));
    assert!(all(&world.read(0, 4096), 1));
}

#[test]
fn a_store_that_is_closed_quickly_leaves_its_journal_to_the_next_opening() {
    let mut world = World::new(64 << 20);
    world.write(0, 4096, 1);
    let used = |world: &World| world.shard.disk(DiskSlot(0)).unwrap().2.journal_used;
    let before = used(&world);
    world.control(Control::Checkpoint);
    assert!(used(&world) < before);
    for fill in 2..5 {
        world.write(u64::from(fill) * 65536, 8192, fill);
        let how = Closing::Quick;
        world.control(Control::Close { how });
        assert_eq!(closed(&world), [true, true]);
        world.open();
        assert_eq!(closed(&world), [false, false]);
        let opened = |note: &&Note| matches!(note, Note::Opened { .. });
        let opened = world.notes.iter().rfind(opened);
        assert_ne!(opened, Some(&Note::Opened { replayed: 0 }));
        assert!(all(&world.read(0, 4096), 1));
        for fill in 2..=fill {
            assert!(all(&world.read(u64::from(fill) * 65536, 8192), fill));
        }
    }
}

#[test]
fn a_second_growth_or_scrub_is_busy_while_one_is_under_way() {
    let mut world = World::new(64 << 20);
    world.write(65536, 65536, 2);
    let (disk, bytes) = (DiskId(0), 64 << 20);
    for control in [Control::Grow { disk, bytes }, Control::Scrub { disk }] {
        let mut ask = |id: u64| {
            let (id, control) = (ControlId(id), control.clone());
            let mut out = Outbox::default();
            let input = Input::Control { id, control };
            world.shard.step(world.now, input, &mut out);
            out.list.into_iter().find_map(|output| match output {
                Output::ControlDone { result, .. } => Some(result),
                _ => None,
            })
        };
        // What it wants of its disk is not carried out, so it does not end.
        assert_eq!(ask(8), None);
        assert_eq!(ask(9), Some(Err(ControlError::Store(StoreError::Busy))));
    }
}
