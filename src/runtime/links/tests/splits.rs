//! The same stream in all pieces.

use super::ends::{End, place_of};
use super::frames::{at, done, fetch, mark, read, value, write};
use crate::base::BlockRun;
use crate::runtime::links::limits::Limits;
use crate::runtime::links::{Event, Why};
use std::collections::VecDeque;

/// A read of one block.
const SHORT: u64 = 0x205;

fn run(first: u32, count: u32) -> BlockRun {
    BlockRun::new(first, count).unwrap()
}

/// Of both sorts: small payload that is copied, and large one that is received where it belongs.
fn stream(is_answer_there: bool) -> VecDeque<u8> {
    let mut peer = End::new(Limits::USUAL);
    // It is granted what it needs.
    let mut grants = End::new(Limits::USUAL);
    grants.flush();
    peer.receive(&mut grants.wire, usize::MAX);
    grants.end();
    for (n, run) in [run(3, 1), run(0, 4), run(15, 1)].into_iter().enumerate() {
        peer.send(write(n as u64 + 1, at(n as u64), run)).unwrap();
        peer.send(mark()).unwrap();
    }
    peer.send(fetch(9, at(9))).unwrap();
    peer.send_with(done(77), None, None).unwrap();
    if is_answer_there {
        let (of, run) = place_of(SHORT);
        let payload = peer.pool.make(super::frames::contents(of, run).0);
        peer.send_with(value(SHORT, of, run), Some(payload), None)
            .unwrap();
    }
    peer.flush();
    let bytes = std::mem::take(&mut peer.wire);
    peer.end();
    bytes
}

/// An end that has asked for what the stream answers.
fn end() -> End {
    let mut end = End::new(Limits::USUAL);
    let mut grants = End::new(Limits::USUAL);
    grants.flush();
    // What the stream brings of credit comes again in it, so only what is asked matters: it is noted when it leaves.
    let (of, run) = place_of(SHORT);
    end.send(read(SHORT, of, run)).unwrap();
    grants.end();
    end
}

fn all_of_it(end: &mut End) -> (usize, usize) {
    let mut seen = (0, 0);
    for event in &end.events {
        match event {
            Event::Ask { payload, .. } => {
                seen.0 += 1;
                seen.1 += payload.map_or(0, |payload| payload.blocks as usize);
            }
            Event::Answer { blocks, .. } => seen.1 += *blocks as usize,
            _ => {}
        }
    }
    seen
}

#[test]
fn a_stream_is_the_same_frames_however_it_is_cut_once() {
    let stream = stream(true);
    let len = stream.len();
    for split in 0..len {
        let mut end = end();
        end.flush();
        let mut all = stream.clone();
        // Its first frame grants credit, with which the read leaves.
        let mut behind = all.split_off(split);
        while end.receive(&mut all, usize::MAX) > 0 {}
        end.flush();
        assert!(all.is_empty());
        while end.receive(&mut behind, usize::MAX) > 0 {}
        assert_eq!(end.link.why, None, "cut at {split}");
        // An answer that comes before its ask has left is dropped; its frame is told all the same.
        let (asks, blocks) = all_of_it(&mut end);
        assert_eq!(asks, 7, "cut at {split}");
        assert!(blocks == 7 || blocks == 6, "cut at {split}: {blocks}");
        end.end();
    }
}

#[test]
fn a_stream_is_the_same_frames_byte_by_byte_and_in_small_pieces() {
    let stream = stream(true);
    for piece in [1, 2, 3, 7, 71, 72, 73, 100, 4095, 4097] {
        let mut end = end();
        let mut all = stream.clone();
        while end.receive(&mut all, piece) > 0 {
            end.flush();
        }
        assert!(all.is_empty());
        assert_eq!((end.link.why, all_of_it(&mut end)), (None, (7, 7)));
        end.look();
        // The other answers nothing that was asked, and is dropped.
        assert_eq!((end.answered, end.link.unasked), (1, 1));
        end.end();
    }
}

#[test]
fn a_stream_that_ends_too_soon_is_told_apart_from_one_that_ends() {
    let stream = stream(false);
    let mut ends = 0;
    for len in 0..=stream.len() {
        let mut end = end();
        let mut all: VecDeque<u8> = stream.iter().take(len).copied().collect();
        while end.receive(&mut all, usize::MAX) > 0 {}
        end.link.ended();
        match end.link.why {
            Some(Why::Closed) => ends += 1,
            other => assert_eq!(other, Some(Why::Truncated), "after {len} bytes"),
        }
        end.end();
    }
    assert_eq!(ends, 10, "before the first frame, and behind each of nine");
}
