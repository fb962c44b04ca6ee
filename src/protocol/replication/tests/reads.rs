//! A read of several blocks, and the changes of some of them.

use crate::base::{
    BlockRun, BufId, BufRef, ChunkId, ChunkNo, DiskId, Epoch, FamilyId, LayerId, Payload, PgId,
    VolumeId,
};
use crate::protocol::replication::group::{Ask, Group, Input, Output, Tag};
use crate::protocol::replication::{
    Answer, Change, Configuration, Header, Message, Room, RulesOff,
};

const AT: ChunkId = ChunkId {
    family: FamilyId(1),
    layer: LayerId(1),
    chunk: ChunkNo(0),
};
fn buf() -> Payload {
    Payload::kept(BufRef {
        id: BufId(1),
        block: 0,
    })
}

/// A coordinator of two replicas, and the headers of what it sent last.
struct Desk {
    group: Group,
    headers: Vec<(DiskId, Header)>,
    ended: Vec<Tag>,
}

impl Desk {
    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.group.step(input, &mut out);
        for output in out {
            match output {
                Output::Send {
                    to,
                    header,
                    message,
                    ..
                } => match message {
                    Message::Seal => {
                        let answer = Answer::of_an_empty_replica(&message);
                        self.answer(to, header, answer.expect("a seal is answered"));
                    }
                    _ => self.headers.push((to, header)),
                },
                Output::Changed { tag } | Output::Value { tag, .. } => self.ended.push(tag),
                _ => {}
            }
        }
    }

    fn answer(&mut self, from: DiskId, header: Header, answer: Answer) {
        self.step(Input::Answer {
            from,
            header,
            answer,
            payload: Some(buf()),
        });
    }

    fn done(&mut self, from: u32, sequence: u64) {
        let header = self.headers.last().expect("it has sent something").1;
        self.answer(
            DiskId(from),
            header,
            Answer::Done {
                sequence,
                room: Room::Ample,
            },
        );
    }

    fn write(&mut self, tag: u64, block: u32) {
        let run = BlockRun::new(block, 1).expect("one block");
        let change = Change::Write { run, crcs: [0; 16] };
        let ask = Ask::Change {
            at: AT,
            change,
            payload: Some(buf()),
        };
        self.step(Input::Ask { tag: Tag(tag), ask });
    }
}

#[test]
fn a_read_of_two_blocks_waits_for_the_older_change_of_one_of_them_too() {
    let of = (VolumeId(1), PgId(1));
    let epoch = Epoch {
        host: 1,
        ..Epoch::default()
    };
    let configuration = Configuration::new([DiskId(1), DiskId(2)]);
    let mut out = Vec::new();
    let group = Group::new(
        of,
        epoch,
        configuration,
        Some(DiskId(1)),
        RulesOff::NONE,
        &mut out,
    );
    let (headers, ended) = (Vec::new(), Vec::new());
    let mut desk = Desk {
        group,
        headers,
        ended,
    };
    for output in out {
        if let Output::Send { to, header, .. } = output {
            let window = Vec::new();
            desk.answer(
                to,
                header,
                Answer::Sealed {
                    window,
                    room: Room::Ample,
                },
            );
        }
    }
    desk.write(1, 0);
    desk.write(2, 1);
    let run = BlockRun::new(0, 2).expect("two blocks");
    desk.step(Input::Ask {
        tag: Tag(3),
        ask: Ask::Read { at: AT, run },
    });
    // The newer change is everywhere, the older one on the disk that is read only.
    desk.done(1, 1);
    desk.done(1, 2);
    desk.done(2, 2);
    assert_eq!(desk.ended, [Tag(2)]);
    let (id, newest) = (desk.group.last_read(), Some((epoch, 2)));
    let value = Answer::Value {
        id,
        newest,
        crcs: [0; 16],
        zeroes: 0,
    };
    let header = desk.headers.last().expect("it has sent something").1;
    desk.answer(DiskId(1), header, value);
    assert_eq!(
        desk.ended,
        [Tag(2)],
        "the other replica has the old value of block 0"
    );
    desk.done(2, 1);
    assert_eq!(desk.ended, [Tag(2), Tag(1), Tag(3)]);
}
