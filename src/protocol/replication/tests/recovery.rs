//! Recovery of more than fits into one window.

use crate::base::{ChunkId, ChunkNo, DiskId, Epoch, FamilyId, LayerId, PgId, VolumeId};
use crate::protocol::replication::group::{Group, Input, Output};
use crate::protocol::replication::{
    Answer, Configuration, Entry, Message, Room, RulesOff, WINDOW_MAX,
};
use std::collections::VecDeque;

fn epoch(host: u32) -> Epoch {
    Epoch {
        host,
        ..Epoch::default()
    }
}

/// A full window, of chunks that no other replica has in its own.
fn window(disk: DiskId) -> Vec<Entry> {
    let entry = |n: usize| Entry {
        epoch: epoch(1),
        sequence: n as u64 + 1,
        at: ChunkId {
            family: FamilyId(1),
            layer: LayerId(1),
            chunk: ChunkNo((disk.0 as usize * WINDOW_MAX + n) as u64),
        },
        blocks: 0b1010,
        version: 1,
    };
    (0..WINDOW_MAX).map(entry).collect()
}

#[test]
fn what_all_members_have_in_their_windows_is_written_again_some_at_a_time() {
    let configuration = Configuration::new([1, 2, 3].map(DiskId));
    let (of, off) = ((VolumeId(1), PgId(1)), RulesOff::NONE);
    let mut out = Vec::new();
    let mut group = Group::new(of, epoch(2), configuration, None, off, &mut out);
    let mut sent: VecDeque<Output> = out.into();
    let (mut written, mut reads, mut most) = (0, 0, 0);
    while let Some(Output::Send {
        to,
        header,
        message,
        ..
    }) = sent.pop_front()
    {
        let answer = match message {
            Message::Seal => Answer::Sealed {
                window: window(to),
                room: Room::Ample,
            },
            Message::Mark => panic!("no mark before recovery is done (R8)"),
            Message::Confirm { .. } => panic!("nothing was read"),
            Message::Fits { .. } => panic!("recovery asks for no room"),
            // All that it had is zeroes.
            Message::Read { .. } | Message::Change { .. } => {
                match message {
                    Message::Read { .. } => reads += 1,
                    _ => written += 1,
                }
                Answer::of_an_empty_replica(&message).expect("both are answered")
            }
        };
        assert_eq!(header.mark, 0);
        let (from, payload) = (to, None);
        let mut out = Vec::new();
        let input = Input::Answer {
            from,
            header,
            answer,
            payload,
        };
        group.step(input, &mut out);
        group.check();
        sent.extend(out.into_iter().filter(|output| *output != Output::Serving));
        most = most.max(sent.len());
    }
    assert!(group.is_serving());
    // Two runs an entry, each read of the one that has it and written to three.
    assert_eq!((reads, written), (6 * WINDOW_MAX, 18 * WINDOW_MAX));
    assert!(most <= 3 * 64, "{most} frames at once");
}
