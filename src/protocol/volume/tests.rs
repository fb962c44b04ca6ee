//! A change of layer while requests are in flight.

use super::*;
use crate::base::{
    BLOCK, Breaks, BufRef, CHUNK, DiskSlot, FamilyId, LayerId, PgId, Request, RequestKind, Token,
    VolumeId,
};

const V: VolumeId = VolumeId(1);

fn open(layer: u64) -> OpenVolume {
    OpenVolume {
        id: V,
        family: FamilyId(1),
        layer: LayerId(layer),
        size: 1 << 30,
        pgs: vec![(PgId(1), Some(DiskSlot(0)))],
    }
}

fn coordinator() -> Coordinator {
    let mut coordinator = Coordinator::new(Breaks::NONE);
    coordinator.open(open(1), &mut Vec::new());
    coordinator
}

/// Asks, and answers for checksums; the layers and first blocks of the changes and reads that then go out, with their pieces.
fn ask(
    coordinator: &mut Coordinator,
    kind: RequestKind,
    offset: u64,
    len: u64,
) -> Vec<(PieceId, u64, u64)> {
    let request = Request {
        token: Token(offset),
        volume: V,
        kind,
        offset,
        len,
        buf: BufRef::default(),
        scratch: BufRef::default(),
    };
    let mut out = Vec::new();
    coordinator.request(request, &mut out);
    asks(coordinator, out)
}

fn asks(coordinator: &mut Coordinator, mut out: Vec<Output>) -> Vec<(PieceId, u64, u64)> {
    let mut asks = Vec::new();
    while !out.is_empty() {
        for output in std::mem::take(&mut out) {
            match output {
                Output::Ask {
                    piece,
                    target,
                    ask: _,
                } => asks.push((piece, target.layer.0, target.chunk.0)),
                Output::Checksum { piece, blocks, .. } => {
                    let crcs = vec![0; blocks as usize];
                    coordinator.checksummed(piece, &crcs, &mut out);
                }
                _ => {}
            }
        }
    }
    asks
}

fn answer(coordinator: &mut Coordinator, piece: PieceId) -> Vec<Output> {
    let mut out = Vec::new();
    coordinator.answered(piece, Ok(()), &[], &mut Vec::new(), &mut out);
    out
}

fn is_cut(out: &[Output]) -> bool {
    out.contains(&Output::Cut { volume: V })
}

#[test]
fn what_starts_after_a_cut_goes_to_the_new_layer_and_what_was_started_is_awaited() {
    let mut coordinator = coordinator();
    let first = ask(&mut coordinator, RequestKind::Write, 0, BLOCK);
    let read = ask(&mut coordinator, RequestKind::Read, CHUNK, BLOCK);
    assert_eq!((first[0].1, read[0].1), (1, 1));
    let mut out = Vec::new();
    coordinator.cut(V, LayerId(2), &mut out);
    assert!(!is_cut(&out));
    let second = ask(&mut coordinator, RequestKind::Write, 2 * CHUNK, BLOCK);
    assert_eq!(second[0].1, 2);
    assert!(!is_cut(&answer(&mut coordinator, second[0].0)));
    assert!(!is_cut(&answer(&mut coordinator, first[0].0)));
    let out = answer(&mut coordinator, read[0].0);
    assert!(is_cut(&out));
    coordinator.cut(V, LayerId(3), &mut Vec::new());
    let mut out = Vec::new();
    coordinator.cut(V, LayerId(4), &mut out);
    assert!(is_cut(&out), "nothing is in flight");
}

/// Else the later one would be shadowed by the earlier one: its layer lies below.
#[test]
fn a_write_that_waits_for_another_gets_its_layer_as_it_starts() {
    let mut coordinator = coordinator();
    let first = ask(&mut coordinator, RequestKind::Write, 0, BLOCK);
    assert!(ask(&mut coordinator, RequestKind::Write, 512, 512).is_empty());
    coordinator.cut(V, LayerId(2), &mut Vec::new());
    assert!(ask(&mut coordinator, RequestKind::Write, 1024, 512).is_empty());
    let out = answer(&mut coordinator, first[0].0);
    assert!(is_cut(&out), "none of the others is in flight in layer 1");
    // It reads what the first left, through the layers, and writes the block to layer 2.
    let second = asks(&mut coordinator, out);
    assert_eq!(second, [(second[0].0, 2, 0)]);
    let out = answer(&mut coordinator, second[0].0);
    let written = asks(&mut coordinator, out);
    assert_eq!(written, [(second[0].0, 2, 0)]);
    let out = answer(&mut coordinator, written[0].0);
    assert_eq!(asks(&mut coordinator, out).len(), 1, "the third");
}

#[test]
fn a_long_request_is_in_both_layers_and_no_chunk_of_it_in_two() {
    let mut coordinator = coordinator();
    let below = ask(&mut coordinator, RequestKind::Write, 0, 100 * CHUNK);
    assert!(below.iter().all(|&(_, layer, _)| layer == 1));
    coordinator.cut(V, LayerId(2), &mut Vec::new());
    let (mut todo, mut above) = (below.clone(), Vec::new());
    let mut was_cut = 0;
    while let Some((piece, ..)) = todo.pop() {
        let out = answer(&mut coordinator, piece);
        was_cut += u32::from(is_cut(&out));
        let more = asks(&mut coordinator, out);
        todo.extend(&more);
        above.extend(more);
    }
    assert!(above.iter().all(|&(_, layer, _)| layer == 2));
    assert_eq!((below.len() + above.len(), was_cut), (100, 1));
}

#[test]
fn a_volume_that_is_opened_held_begins_nothing_before_it_is_released() {
    let mut coordinator = Coordinator::new(Breaks::NONE);
    coordinator.open_held(open(1), &mut Vec::new());
    assert!(ask(&mut coordinator, RequestKind::Write, 0, BLOCK).is_empty());
    coordinator.pause(V, &mut Vec::new());
    coordinator.resume(V, &mut Vec::new());
    let mut out = Vec::new();
    coordinator.release(V, &mut out);
    assert_eq!(asks(&mut coordinator, out).len(), 1);
    coordinator.open_held(open(2), &mut Vec::new());
    assert!(ask(&mut coordinator, RequestKind::Write, CHUNK, BLOCK).is_empty());
    coordinator.pause(V, &mut Vec::new());
    let mut out = Vec::new();
    coordinator.release(V, &mut out);
    assert!(out.is_empty(), "it is paused still");
    coordinator.resume(V, &mut out);
    assert_eq!(asks(&mut coordinator, out).len(), 1);
}

/// Somebody else has had the volume: what was read for a merge may be old, and the layer may be frozen.
#[test]
fn what_starts_over_reads_again_and_goes_to_the_newest_layer() {
    let mut coordinator = coordinator();
    let old = ask(&mut coordinator, RequestKind::Write, 512, 512);
    let out = answer(&mut coordinator, old[0].0);
    let written = asks(&mut coordinator, out);
    assert_eq!(written, [(old[0].0, 1, 0)]);
    assert!(ask(&mut coordinator, RequestKind::Write, 1024, 512).is_empty());
    let failed = |one: &&Output| matches!(one, Output::Reply { result: Err(_), .. });
    let mut out = Vec::new();
    coordinator.start_over(V, &mut out);
    let told = out.iter().filter(failed).count();
    assert_eq!(
        told, 1,
        "what was sent may have happened, and must not twice"
    );
    assert!(asks(&mut coordinator, out).is_empty(), "the next one waits");
    coordinator.open_held(open(2), &mut Vec::new());
    let mut out = Vec::new();
    coordinator.release(V, &mut out);
    let read = asks(&mut coordinator, out);
    assert_eq!(read.len(), 1);
    let old = [(read[0].0, 2, 0)];
    assert_eq!(read, old);
    let out = answer(&mut coordinator, read[0].0);
    let written = asks(&mut coordinator, out);
    assert_eq!(written, [(old[0].0, 2, 0)]);
    let out = answer(&mut coordinator, written[0].0);
    assert!(
        out.iter()
            .any(|one| matches!(one, Output::Reply { result: Ok(()), .. }))
    );
    // One that waits to start over is told when the volume is closed.
    assert_eq!(ask(&mut coordinator, RequestKind::Write, 512, 512).len(), 1);
    let mut out = Vec::new();
    coordinator.start_over(V, &mut out);
    assert!(out.is_empty(), "it was not sent");
    coordinator.close(V, &mut out);
    let replies = |one: &&Output| matches!(one, Output::Reply { result: Err(_), .. });
    assert_eq!(out.iter().filter(replies).count(), 1);
    assert!(out.contains(&Output::Drained { volume: V }));
}

/// Those that waited for what waits to start over are told too, however long their row is.
#[test]
fn a_close_ends_all_that_waits_behind_what_starts_over() {
    let mut coordinator = coordinator();
    assert_eq!(ask(&mut coordinator, RequestKind::Write, 0, 512).len(), 1);
    for at in 1..10_000 {
        assert!(ask(&mut coordinator, RequestKind::Write, at % 8 * 512, 512).is_empty());
    }
    let mut out = Vec::new();
    coordinator.start_over(V, &mut out);
    assert!(out.is_empty());
    coordinator.close(V, &mut out);
    let replies = |one: &&Output| matches!(one, Output::Reply { result: Err(_), .. });
    assert_eq!(out.iter().filter(replies).count(), 10_000);
    assert_eq!(out.last(), Some(&Output::Drained { volume: V }));
    assert!(coordinator.volume(V).is_none());
}
