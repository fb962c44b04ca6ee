//! Groups, whose replicas are answered by hand.

use super::{Groups, Output, Patience, WithoutLease};
use crate::base::{
    BlockRun, BufId, BufRef, ChunkNo, DiskId, DiskSlot, Epoch, FamilyId, IoError, LayerId, PgId,
    Time, VolumeId,
};
use crate::protocol::replication::{
    Answer, Asked, Configuration, FLYING_MAX, Header, Message, Reconfigure, Refusal, Room,
    RulesOff, Takes, WINDOW_MAX,
};
use crate::protocol::volume::{Ask, PieceId, Target};
use std::collections::BTreeSet;
use std::time::Duration;

const EPOCH: Epoch = Epoch {
    generation: 0,
    site: 0,
    host: 1,
};

/// Three volumes over PGs of two replicas, opened under a lease that is over.
fn opened() -> Groups {
    opened_with(RulesOff::NONE)
}

fn opened_with(off: RulesOff) -> Groups {
    let mut groups = Groups::new(Patience::default(), off);
    groups.lease_anew(Time(1));
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
        volume: VolumeId(volume),
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
    groups.ask(now, PieceId(7), target, (&ask, None), out);
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
                let answer = Answer::of_an_empty_replica(&message).expect("a seal is answered");
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
            if let Some(answer) = Answer::of_an_empty_replica(&message) {
                groups.answered(now, DiskId(disk), header, answer, None, &mut out);
            }
        }
    }
    assert!(is_written);
}

fn read(groups: &mut Groups, now: Time, piece: u32, out: &mut Vec<Output>) {
    let target = Target {
        volume: VolumeId(1),
        disk: DiskSlot(0),
        pg: PgId(1),
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(0),
    };
    let (id, block) = (BufId(2), 0);
    let ask = Ask::Read {
        run: BlockRun::WHOLE,
        buf: BufRef { id, block },
    };
    groups.ask(now, PieceId(piece), target, (&ask, None), out);
}

/// Answers frames as replicas do that have taken nothing newer, except confirmations, which are handed out.
fn answer_all(groups: &mut Groups, now: Time, out: &mut Vec<Output>) -> Vec<(u32, Header, u64)> {
    let mut confirms = Vec::new();
    loop {
        let sent = frames_only(out);
        if sent.is_empty() {
            return confirms;
        }
        for (_, disk, header, message) in sent {
            if let Message::Confirm { id } = message {
                confirms.push((disk, header, id));
            } else if let Some(answer) = Answer::of_an_empty_replica(&message) {
                groups.answered(now, DiskId(disk), header, answer, None, out);
            }
        }
    }
}

/// Takes the frames out, and leaves the rest.
fn frames_only(out: &mut Vec<Output>) -> Vec<(u64, u32, Header, Message)> {
    let is_frame = |output: &Output| matches!(output, Output::Send { .. });
    let (mut sent, rest) = std::mem::take(out).into_iter().partition(is_frame);
    *out = rest;
    frames(&mut sent)
}

fn confirm(groups: &mut Groups, now: Time, of: (u32, Header, u64), out: &mut Vec<Output>) {
    let (disk, header, id) = of;
    let answer = Answer::Confirmed { id };
    groups.answered(now, DiskId(disk), header, answer, None, out);
}

fn ended(out: &[Output]) -> Vec<u32> {
    let of = |output: &Output| match output {
        Output::Answered {
            piece,
            result: Ok(_),
        } => Some(piece.0),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

#[test]
fn without_a_lease_a_write_is_acknowledged_by_all_and_a_read_waits_until_all_have_confirmed() {
    let (mut groups, mut out) = (opened(), Vec::new());
    let now = Time(1);
    write(&mut groups, now, (1, 1), &mut out);
    assert!(answer_all(&mut groups, now, &mut out).is_empty());
    assert_eq!(ended(&out), [7]);
    out.clear();
    read(&mut groups, now, 1, &mut out);
    let first = answer_all(&mut groups, now, &mut out);
    // What comes amid the round waits for the next one, and all of it for one.
    read(&mut groups, now, 2, &mut out);
    read(&mut groups, now, 3, &mut out);
    assert!(answer_all(&mut groups, now, &mut out).is_empty());
    assert!(!groups.is_quiet(VolumeId(1)));
    confirm(&mut groups, now, first[0], &mut out);
    confirm(&mut groups, now, first[0], &mut out);
    assert!(ended(&out).is_empty());
    confirm(&mut groups, now, first[1], &mut out);
    assert_eq!(ended(&out), [1]);
    out.retain(|output| matches!(output, Output::Send { .. }));
    let second = answer_all(&mut groups, now, &mut out);
    assert_eq!(second.len(), 2);
    for of in first.into_iter().chain([second[0]]) {
        confirm(&mut groups, now, of, &mut out);
    }
    assert!(ended(&out).is_empty(), "answers of the first round");
    confirm(&mut groups, now, second[1], &mut out);
    assert_eq!(ended(&out), [2, 3]);
    groups.check();
}

/// Answers everything that was sent, as replicas whose disks are low and lack what is asked about.
fn answer_all_low(groups: &mut Groups, now: Time, out: &mut Vec<Output>) -> Vec<Message> {
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
    answer_all_low(&mut groups, now, &mut out);
    let asked = answer_all_low(&mut groups, now, &mut out);
    assert!(
        matches!(asked[..], [Message::Fits { .. }, Message::Fits { .. }]),
        "{asked:?}"
    );
    let (piece, result) = (PieceId(7), Err(IoError::NoSpace));
    assert_eq!(out, [Output::Answered { piece, result }]);
    groups.check();
}

#[test]
fn where_a_peer_cannot_confirm_a_value_without_a_lease_waits_for_the_next_epoch() {
    let (mut groups, mut out) = (opened(), Vec::new());
    let now = Time(1);
    groups.without_lease(WithoutLease::Wait);
    read(&mut groups, now, 1, &mut out);
    assert!(answer_all(&mut groups, now, &mut out).is_empty());
    assert!(ended(&out).is_empty());
    groups.lease_anew(Time(1_000_000));
    let epoch = Epoch { host: 2, ..EPOCH };
    groups.open(now, VolumeId(1), epoch, BTreeSet::new(), &mut out);
    answer_all(&mut groups, now, &mut out);
    assert_eq!(ended(&out), [1]);
}

#[test]
fn a_change_of_version_amid_a_round_asks_the_members_that_are_left_anew() {
    let (mut groups, mut out) = (opened(), Vec::new());
    let now = Time(1);
    read(&mut groups, now, 1, &mut out);
    let asked = answer_all(&mut groups, now, &mut out);
    let of_2 = asked[1];
    groups.configured(now, PgId(1), without_1(), &mut out);
    let again = answer_all(&mut groups, now, &mut out);
    assert!(matches!(again[..], [(2, header, _)] if header.version == 2));
    confirm(&mut groups, now, of_2, &mut out);
    assert!(ended(&out).is_empty(), "confirmed under version 1");
    confirm(&mut groups, now, again[0], &mut out);
    assert_eq!(ended(&out), [1]);
}

#[test]
fn who_does_not_confirm_is_asked_again_and_accused() {
    let (mut groups, mut out) = (opened(), Vec::new());
    let mut now = Time(1);
    read(&mut groups, now, 1, &mut out);
    let asked = answer_all(&mut groups, now, &mut out);
    confirm(&mut groups, now, asked[0], &mut out);
    let mut again = BTreeSet::new();
    for _ in 0..40 {
        now = now + Duration::from_millis(5);
        groups.expire(now, &mut out);
        again.extend(frames_only(&mut out).into_iter().map(|frame| frame.1));
    }
    assert_eq!(again, BTreeSet::from([2]));
    let is_accused = |output: &Output| {
        matches!(
            output,
            Output::Accuse {
                disk: DiskId(2),
                ..
            }
        )
    };
    assert!(out.iter().any(is_accused));
    assert!(ended(&out).is_empty());
}

#[test]
fn what_is_not_confirmed_when_another_owner_is_heard_of_waits_for_the_next_epoch() {
    let (mut groups, mut out) = (opened(), Vec::new());
    let now = Time(1);
    read(&mut groups, now, 1, &mut out);
    let asked = answer_all(&mut groups, now, &mut out);
    let (disk, header, id) = asked[1];
    confirm(&mut groups, now, asked[0], &mut out);
    let by = Epoch { host: 2, ..EPOCH };
    let (what, why) = (Asked::Confirm { id }, Refusal::Epoch(by));
    let answer = Answer::Refused { what, why };
    groups.answered(now, DiskId(disk), header, answer, None, &mut out);
    let volume = VolumeId(1);
    assert_eq!(out, [Output::Fenced { volume, by }]);
    // It gets the range back, and a lease, and reads anew.
    out.clear();
    groups.lease_anew(Time(1_000_000));
    let epoch = Epoch { host: 3, ..EPOCH };
    groups.open(now, volume, epoch, BTreeSet::new(), &mut out);
    assert!(answer_all(&mut groups, now, &mut out).is_empty());
    assert_eq!(ended(&out), [1]);
}

/// A node whose lease had ended holds another one, and reads before it has heard whose the range is: whether the value is handed out.
fn reads_under_a_lease_that_came_later(off: RulesOff) -> bool {
    let (mut groups, mut out) = (opened_with(off), Vec::new());
    let now = Time(10);
    groups.lease(Time(0));
    groups.lease_anew(Time(1_000_000));
    read(&mut groups, now, 1, &mut out);
    let asked = answer_all(&mut groups, now, &mut out);
    let is_handed_out = !ended(&out).is_empty();
    assert_eq!(asked.len(), if is_handed_out { 0 } else { 2 });
    is_handed_out
}

#[test]
fn a_lease_that_is_held_anew_covers_nothing_that_was_opened_before_it() {
    assert!(!reads_under_a_lease_that_came_later(RulesOff::NONE));
}

#[test]
#[cfg(feature = "sim")]
fn with_the_rule_off_a_later_lease_covers_everything() {
    use crate::protocol::replication::Rule;
    let off = RulesOff::only(Rule::R17Anew);
    assert!(reads_under_a_lease_that_came_later(off));
}

/// A read is asked for under a lease, and the lease has ended when its value is in hand: whether it is handed out.
fn reads_while_the_lease_ends(off: RulesOff) -> bool {
    let (mut groups, mut out) = (opened_with(off), Vec::new());
    groups.lease(Time(100));
    read(&mut groups, Time(10), 1, &mut out);
    answer_all(&mut groups, Time(101), &mut out);
    !ended(&out).is_empty()
}

#[test]
fn a_value_that_comes_after_the_lease_has_ended_is_not_handed_out() {
    assert!(!reads_while_the_lease_ends(RulesOff::NONE));
}

#[test]
#[cfg(feature = "sim")]
fn with_the_rule_off_a_value_is_handed_out_after_the_lease_has_ended() {
    use crate::protocol::replication::Rule;
    assert!(reads_while_the_lease_ends(RulesOff::only(Rule::R17)));
}

#[test]
fn who_does_not_say_whether_a_write_fits_is_accused() {
    let (mut groups, mut out) = (opened(), Vec::new());
    let mut now = Time(1);
    write(&mut groups, now, (1, 1), &mut out);
    answer_all_low(&mut groups, now, &mut out);
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

#[test]
fn what_finds_no_room_in_its_group_waits_and_nothing_is_refused() {
    let run = BlockRun::WHOLE;
    let zero = Ask::Zero { run, sequence: 1 };
    all_are_answered(3 * FLYING_MAX as u64, 1, zero);
    // Of zeroes over whole extents, fewer: a replica has an entry for each of their chunks.
    let (count, sequence) = (64, 1);
    let zeroes = Ask::ZeroChunks { count, sequence };
    all_are_answered(100, u64::from(count), zeroes);
}

/// So many asks, each of so many chunks, of one group: no more are in flight than its replica has room for.
fn all_are_answered(asked: u64, chunks: u64, ask: Ask) {
    let mut groups = Groups::new(Patience::default(), RulesOff::NONE);
    groups.lease_anew(Time(u64::MAX));
    let (pg, disk, mut out) = (PgId(1), DiskId(1), Vec::new());
    groups.configured(Time(0), pg, Configuration::new([disk]), &mut out);
    groups.open(Time(0), VolumeId(1), EPOCH, BTreeSet::new(), &mut out);
    for number in 0..asked {
        let target = Target {
            volume: VolumeId(1),
            disk: DiskSlot(0),
            pg,
            family: FamilyId(1),
            layer: LayerId(1),
            chunk: ChunkNo(number * chunks),
        };
        let piece = PieceId(number as u32);
        groups.ask(Time(1), piece, target, (&ask, None), &mut out);
    }
    let mut ended = Vec::new();
    let mut flying = 0;
    while !out.is_empty() {
        for output in std::mem::take(&mut out) {
            match output {
                Output::Send {
                    header, message, ..
                } => {
                    flying += usize::from(message != Message::Seal);
                    assert!(flying <= FLYING_MAX, "a group bounds what is in flight");
                    assert!(
                        flying as u64 * chunks <= WINDOW_MAX as u64,
                        "and its chunks"
                    );
                    if let Some(answer) = Answer::of_an_empty_replica(&message) {
                        groups.answered(Time(2), disk, header, answer, None, &mut out);
                    }
                }
                Output::Answered { piece, result } => {
                    assert_eq!(result, Ok(None));
                    flying -= 1;
                    ended.push(piece.0);
                }
                other => panic!("{other:?}"),
            }
            groups.check();
        }
    }
    ended.sort_unstable();
    assert!(ended.into_iter().eq(0..asked as u32), "each once");
}
