//! Groups, whose replicas are answered by hand.

use super::{Groups, Output, Patience};
use crate::base::{
    BlockRun, BufId, BufRef, ChunkNo, DiskId, DiskSlot, Epoch, FamilyId, IoError, LayerId, PgId,
    Time, VolumeId,
};
use crate::protocol::replication::{
    Answer, Configuration, Header, Message, Reconfigure, Room, RulesOff, Takes,
};
use crate::protocol::volume::{Ask, PieceId, Target};
use std::collections::BTreeSet;
use std::time::Duration;

const EPOCH: Epoch = Epoch {
    generation: 0,
    site: 0,
    host: 1,
};

/// Three volumes over PGs of two replicas.
fn opened() -> Groups {
    let mut groups = Groups::new(Patience::default(), RulesOff::NONE);
    let mut out = Vec::new();
    for pg in [1, 2].map(PgId) {
        let configuration = Configuration::new([1, 2].map(DiskId));
        groups.configured(Time(0), pg, configuration, &mut out);
    }
    for volume in [1, 2, 3].map(VolumeId) {
        groups.open(Time(0), volume, EPOCH, BTreeSet::new(), &mut out);
    }
    groups
}

fn write(groups: &mut Groups, now: Time, (volume, pg): (u64, u32), out: &mut Vec<Output>) {
    let target = Target {
        disk: DiskSlot(0),
        pg: PgId(pg),
        family: FamilyId(volume),
        layer: LayerId(volume),
        chunk: ChunkNo(0),
    };
    let (id, block) = (BufId(1), 0);
    let ask = Ask::Write {
        run: BlockRun::WHOLE,
        buf: BufRef { id, block },
        crcs: [0; 16],
        sequence: 1,
    };
    groups.ask(now, VolumeId(volume), PieceId(7), target, &ask, out);
}

/// Which volume's frames went to which disk, and what they ask.
fn frames(out: &mut Vec<Output>) -> Vec<(u64, u32, Header, Message)> {
    let sent = out.drain(..).filter_map(|output| match output {
        Output::Send {
            to,
            header,
            message,
            ..
        } => Some((header.range.0, to.0, header, message)),
        _ => None,
    });
    sent.collect()
}

fn without_1() -> Configuration {
    let mut configuration = Configuration::new([1, 2].map(DiskId));
    let disk = DiskId(1);
    configuration
        .apply(1, Reconfigure::Evict { disk }, 1)
        .expect("one is left");
    configuration
}

#[test]
fn a_configuration_reaches_every_group_of_its_pg_and_no_other() {
    let (mut groups, mut out) = (opened(), Vec::new());
    for of in [(3, 1), (1, 1), (2, 2)] {
        write(&mut groups, Time(1), of, &mut out);
    }
    frames(&mut out);
    groups.configured(Time(2), PgId(1), without_1(), &mut out);
    let sealed: Vec<(u64, u32)> = frames(&mut out)
        .iter()
        .map(|(volume, disk, ..)| (*volume, *disk))
        .collect();
    assert_eq!(sealed, [(1, 2), (3, 2)], "in the order of their volumes");
}

#[test]
fn a_volume_that_was_closed_has_no_groups() {
    let (mut groups, mut out) = (opened(), Vec::new());
    write(&mut groups, Time(1), (1, 1), &mut out);
    assert!(!groups.is_quiet(VolumeId(1)));
    out.clear();
    groups.close(VolumeId(1), &mut out);
    let (piece, result) = (PieceId(7), Err(IoError::Closed));
    assert_eq!(out, [Output::Answered { piece, result }]);
    assert!(groups.is_quiet(VolumeId(1)));
    out.clear();
    groups.configured(Time(2), PgId(1), without_1(), &mut out);
    write(&mut groups, Time(2), (1, 1), &mut out);
    assert_eq!(frames(&mut out).len(), 0);
    // Opened again, it begins anew, and with what is known by now.
    let epoch = Epoch { host: 2, ..EPOCH };
    groups.open(Time(3), VolumeId(1), epoch, BTreeSet::new(), &mut out);
    write(&mut groups, Time(3), (1, 1), &mut out);
    let sealed = frames(&mut out);
    assert!(matches!(sealed[..], [(1, 2, header, Message::Seal)] if header.version == 2));
}

#[test]
fn who_does_not_answer_is_accused_and_who_does_is_not() {
    let (mut groups, mut out) = (opened(), Vec::new());
    let mut now = Time(1);
    write(&mut groups, now, (1, 1), &mut out);
    let mut accused = BTreeSet::new();
    for _ in 0..100 {
        now = now + Duration::from_millis(5);
        groups.expire(now, &mut out);
        let is_accused = |output: &Output| match output {
            Output::Accuse { disk, .. } => Some(*disk),
            _ => None,
        };
        accused.extend(out.iter().filter_map(is_accused));
        for (_, disk, header, message) in frames(&mut out) {
            if disk == 2 && message == Message::Seal {
                let window = Vec::new();
                let answer = Answer::Sealed {
                    window,
                    room: Room::Ample,
                };
                groups.answered(now, DiskId(2), header, answer, None, &mut out);
            }
        }
        groups.check();
    }
    assert_eq!(accused, BTreeSet::from([DiskId(1)]));
    // When it is out, the other one alone seals, and takes what waited.
    groups.configured(now, PgId(1), without_1(), &mut out);
    let mut is_written = false;
    for _ in 0..3 {
        is_written |= out
            .iter()
            .any(|output| matches!(output, Output::Answered { result: Ok(_), .. }));
        for (_, disk, header, message) in frames(&mut out) {
            let answer = match message {
                Message::Seal => Answer::Sealed {
                    window: Vec::new(),
                    room: Room::Ample,
                },
                Message::Change { sequence, .. } => Answer::Done {
                    sequence,
                    room: Room::Ample,
                },
                other => panic!("{other:?}"),
            };
            groups.answered(now, DiskId(disk), header, answer, None, &mut out);
        }
    }
    assert!(is_written);
}

/// Answers everything that was sent, as replicas whose disks are low and lack what is asked about.
fn answer_all(groups: &mut Groups, now: Time, out: &mut Vec<Output>) -> Vec<Message> {
    let mut asked = Vec::new();
    for (_, disk, header, message) in frames(out) {
        let room = Room::Low;
        let answer = match message {
            Message::Seal => Answer::Sealed {
                window: Vec::new(),
                room,
            },
            Message::Change { sequence, .. } => Answer::Done { sequence, room },
            Message::Fits { id, .. } => Answer::Fits {
                id,
                takes: Takes::Space,
                room,
            },
            other => panic!("{other:?}"),
        };
        asked.push(message);
        groups.answered(now, DiskId(disk), header, answer, None, out);
    }
    asked
}

#[test]
fn a_write_that_takes_space_on_a_low_disk_is_told_so_and_sent_to_nobody() {
    let (mut groups, mut out) = (opened(), Vec::new());
    let now = Time(1);
    write(&mut groups, now, (1, 1), &mut out);
    answer_all(&mut groups, now, &mut out);
    let asked = answer_all(&mut groups, now, &mut out);
    assert!(
        matches!(asked[..], [Message::Fits { .. }, Message::Fits { .. }]),
        "{asked:?}"
    );
    let (piece, result) = (PieceId(7), Err(IoError::NoSpace));
    assert_eq!(out, [Output::Answered { piece, result }]);
    groups.check();
}

#[test]
fn who_does_not_say_whether_a_write_fits_is_accused() {
    let (mut groups, mut out) = (opened(), Vec::new());
    let mut now = Time(1);
    write(&mut groups, now, (1, 1), &mut out);
    answer_all(&mut groups, now, &mut out);
    let mut accused = BTreeSet::new();
    for _ in 0..100 {
        now = now + Duration::from_millis(5);
        groups.expire(now, &mut out);
        accused.extend(out.iter().filter_map(|output| match output {
            Output::Accuse { disk, .. } => Some(*disk),
            _ => None,
        }));
        for (_, disk, header, message) in frames(&mut out) {
            if let (2, Message::Fits { id, .. }) = (disk, message) {
                let (takes, room) = (Takes::Space, Room::Low);
                let answer = Answer::Fits { id, takes, room };
                groups.answered(now, DiskId(2), header, answer, None, &mut out);
            }
        }
    }
    assert_eq!(accused, BTreeSet::from([DiskId(1)]));
}
