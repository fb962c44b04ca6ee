//! A group of one replica: whoever asked hears what that one could not do.

use crate::base::{
    BlockRun, BufId, BufRef, ChunkId, ChunkNo, DiskId, Epoch, FamilyId, LayerId, Payload, PgId,
    VolumeId,
};
use crate::protocol::replication::group::{Ask, Failure, Group, Input, Output, Tag};
use crate::protocol::replication::{
    Answer, Asked, Change, Configuration, Entry, Header, Message, Refusal, Room, RulesOff,
};

const ONE: DiskId = DiskId(1);
const OTHER: DiskId = DiskId(2);
const EPOCH: Epoch = Epoch {
    generation: 0,
    site: 0,
    host: 2,
};
const AT: ChunkId = ChunkId {
    family: FamilyId(1),
    layer: LayerId(1),
    chunk: ChunkNo(1),
};

fn group(disks: &[DiskId]) -> (Group, Vec<Output>) {
    let mut out = Vec::new();
    let (of, disks) = ((VolumeId(1), PgId(1)), disks.iter().copied());
    let off = RulesOff::NONE;
    let group = Group::new(of, EPOCH, Configuration::new(disks), None, off, &mut out);
    (group, out)
}

fn header() -> Header {
    Header {
        range: VolumeId(1),
        pg: PgId(1),
        epoch: EPOCH,
        version: 1,
        session: 0,
        mark: 0,
    }
}

fn answer(group: &mut Group, from: DiskId, answer: Answer) -> Vec<Output> {
    let mut out = Vec::new();
    let input = Input::Answer {
        from,
        header: header(),
        answer,
        payload: None,
    };
    group.step(input, &mut out);
    group.check();
    out
}

fn refuse(group: &mut Group, what: Asked, why: Refusal) -> Vec<Output> {
    answer(group, ONE, Answer::Refused { what, why })
}

fn seal(group: &mut Group, from: DiskId, window: Vec<Entry>) -> Vec<Output> {
    let room = Room::Ample;
    answer(group, from, Answer::Sealed { window, room })
}

fn write(group: &mut Group, tag: u64) -> Vec<Output> {
    let mut out = Vec::new();
    let (run, crcs) = (BlockRun::WHOLE, [0; 16]);
    let ask = Ask::Change {
        at: AT,
        change: Change::Write { run, crcs },
        payload: Some(Payload::kept(BufRef {
            id: BufId(1),
            block: 0,
        })),
    };
    let tag = Tag(tag);
    group.step(Input::Ask { tag, ask }, &mut out);
    group.check();
    out
}

fn failed(tag: u64, why: Failure) -> Output {
    let tag = Tag(tag);
    Output::Failed { tag, why }
}

#[test]
fn what_the_only_replica_cannot_store_fails_and_the_next_write_goes_on() {
    let (mut group, _) = group(&[ONE]);
    seal(&mut group, ONE, Vec::new());
    for (tag, refusal, why) in [
        (1, Refusal::NoSpace, Failure::NoSpace),
        (2, Refusal::Failed, Failure::Unstored),
    ] {
        write(&mut group, tag);
        let what = Asked::Change { sequence: tag };
        assert!(refuse(&mut group, what, refusal).contains(&failed(tag, why)));
        assert!(group.is_idle());
        assert_eq!(group.mark(), tag, "nobody waits for it");
        assert_eq!(refuse(&mut group, what, refusal).len(), 1, "only once");
    }
    write(&mut group, 3);
    let (sequence, room) = (3, Room::Ample);
    let done = answer(&mut group, ONE, Answer::Done { sequence, room });
    assert_eq!(done, [Output::Changed { tag: Tag(3) }]);
}

#[test]
fn with_another_replica_it_waits_for_the_manager() {
    let (mut group, _) = group(&[ONE, OTHER]);
    seal(&mut group, ONE, Vec::new());
    seal(&mut group, OTHER, Vec::new());
    write(&mut group, 1);
    let what = Asked::Change { sequence: 1 };
    let accused = Output::Accuse {
        disk: ONE,
        version: 1,
    };
    assert_eq!(refuse(&mut group, what, Refusal::NoSpace), [accused]);
    assert!(!group.is_idle());
}

#[test]
fn who_waits_for_the_only_replica_hears_that_it_cannot_be_taken_over_and_later_it_can() {
    let (mut group, _) = group(&[ONE]);
    assert_eq!(write(&mut group, 1), []);
    let out = refuse(&mut group, Asked::Seal, Refusal::Failed);
    assert!(out.contains(&failed(1, Failure::Unstored)));
    write(&mut group, 2);
    let mut out = Vec::new();
    group.step(Input::Connected { to: ONE }, &mut out);
    let is_seal = |output: &Output| matches!(output, Output::Send { message, .. } if *message == Message::Seal);
    assert!(out.iter().any(is_seal), "it is asked again");
    let out = seal(&mut group, ONE, Vec::new());
    assert!(out.contains(&Output::Serving) && group.is_serving());
}

#[test]
fn a_block_that_the_only_replica_cannot_read_does_not_stop_its_take_over() {
    let (mut group, _) = group(&[ONE]);
    let entry = Entry {
        epoch: Epoch { host: 1, ..EPOCH },
        sequence: 7,
        at: AT,
        blocks: 1,
        version: 1,
    };
    let asked = seal(&mut group, ONE, vec![entry]);
    let is_read = |output: &Output| match output {
        Output::Send {
            message: Message::Read { id, .. },
            ..
        } => Some(*id),
        _ => None,
    };
    let id = asked.iter().find_map(is_read).expect("it is read");
    let out = refuse(&mut group, Asked::Read { id }, Refusal::Failed);
    assert!(out.contains(&Output::Serving));
}
