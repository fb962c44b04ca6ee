//! Splitting: a request becomes pieces, each inside one chunk, or a run of whole chunks inside one extent.

use crate::base::{
    BLOCK, BLOCKS_PER_CHUNK, BlockRun, BufRef, CHUNK, CHUNKS_PER_EXTENT, ChunkNo, EXTENT, ExtentNo,
    FamilyId, PgId, Request, RequestKind, mix64,
};
use std::collections::BTreeSet;

/// What one piece of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Read {
        chunk: ChunkNo,
        run: BlockRun,
        buf: BufRef,
    },
    Write {
        chunk: ChunkNo,
        run: BlockRun,
        buf: BufRef,
        ragged: Ragged,
    },
    Zero {
        chunk: ChunkNo,
        run: BlockRun,
    },
    ZeroChunks {
        chunk: ChunkNo,
        count: u32,
    },
    Map {
        chunk: ChunkNo,
        count: u32,
    },
}

/// What of the first and the last block of a write stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ragged {
    /// Bytes at the beginning of the first block.
    pub head: u32,
    /// Bytes at the end of the last block.
    pub tail: u32,
    /// Where the old first block is read to, and behind it the old last block.
    pub scratch: BufRef,
    /// The payload is zeroes, which the block has to be filled with first.
    pub zeroes: bool,
}

impl Ragged {
    pub fn is_even(&self) -> bool {
        self.head == 0 && self.tail == 0
    }
}

/// The piece of `request` that begins at byte `at` of the volume, and where the next one begins.
pub(super) fn piece_at(request: &Request, at: u64) -> (Part, u64) {
    let end = request.offset + request.len;
    match request.kind {
        RequestKind::Read => {
            let (chunk, run, next) = run_at(at, end);
            (
                Part::Read {
                    chunk,
                    run,
                    buf: buf_at(request, at),
                },
                next,
            )
        }
        RequestKind::Write => {
            let (chunk, run, next) = run_at(at, end);
            let ragged = Ragged {
                head: (at % BLOCK) as u32,
                tail: tail_of(next),
                // Of two pieces that have one ragged block each, the first may not have merged its old block
                // yet when the old block of the last is read.
                scratch: request
                    .scratch
                    .plus(u32::from(at.is_multiple_of(BLOCK) && run.count() == 1)),
                zeroes: false,
            };
            (
                Part::Write {
                    chunk,
                    run,
                    buf: buf_at(request, at),
                    ragged,
                },
                next,
            )
        }
        RequestKind::WriteZeroes => zeroes_at(request, at, end),
        RequestKind::Discard => chunks_at(at, end),
        RequestKind::Map => {
            let next = (at / EXTENT * EXTENT + EXTENT).min(end);
            let first = ChunkNo::of_byte(at);
            let count = (next.div_ceil(CHUNK) - first.0) as u32;
            (
                Part::Map {
                    chunk: first,
                    count,
                },
                next,
            )
        }
        RequestKind::Flush => unreachable!("a flush has no pieces"),
    }
}

/// Where the pieces of a request begin and end: a discard is rounded inward to whole chunks.
pub(super) fn bounds(request: &Request) -> (u64, u64) {
    let end = request.offset + request.len;
    match request.kind {
        RequestKind::Discard => {
            let first = request.offset.next_multiple_of(CHUNK);
            (first, (end / CHUNK * CHUNK).max(first))
        }
        _ => (request.offset, end),
    }
}

/// The blocks from byte `at` to `end`, as far as one chunk reaches.
fn run_at(at: u64, end: u64) -> (ChunkNo, BlockRun, u64) {
    let chunk = ChunkNo::of_byte(at);
    let next = end.min((chunk.0 + 1) * CHUNK);
    let first = (at % CHUNK / BLOCK) as u32;
    let last = ((next - 1) % CHUNK / BLOCK) as u32;
    let run = BlockRun::new(first, last - first + 1).expect("a piece has blocks of one chunk");
    (chunk, run, next)
}

/// Where the block at byte `at` lies in the request's buffer.
fn buf_at(request: &Request, at: u64) -> BufRef {
    request
        .buf
        .plus((at / BLOCK - request.offset / BLOCK) as u32)
}

/// Bytes from `end` to the end of its block.
fn tail_of(end: u64) -> u32 {
    (end.next_multiple_of(BLOCK) - end) as u32
}

/// Zeroes: blocks that are not whole are written, whole chunks are zeroed together.
fn zeroes_at(request: &Request, at: u64, end: u64) -> (Part, u64) {
    if at.is_multiple_of(CHUNK) && end - at >= CHUNK {
        return chunks_at(at, end / CHUNK * CHUNK);
    }
    let (chunk, run, next) = run_at(at, end);
    let (first_ragged, last_ragged) = (!at.is_multiple_of(BLOCK), tail_of(next) != 0);
    let one = |block: u32| BlockRun::new(block, 1).expect("a block of the chunk");
    if first_ragged || (last_ragged && run.count() == 1) {
        // The first block alone: the request's buffer has room for it and for what was there.
        let block_end = next.min((at / BLOCK + 1) * BLOCK);
        let which = u32::from(!first_ragged);
        let ragged = Ragged {
            head: (at % BLOCK) as u32,
            tail: tail_of(block_end),
            scratch: request.scratch.plus(which),
            zeroes: true,
        };
        let buf = request.buf.plus(which);
        return (
            Part::Write {
                chunk,
                run: one(run.first()),
                buf,
                ragged,
            },
            block_end,
        );
    }
    if last_ragged {
        let run = BlockRun::new(run.first(), run.count() - 1).expect("it has more than one block");
        return (
            Part::Zero { chunk, run },
            chunk.0 * CHUNK + u64::from(run.end()) * BLOCK,
        );
    }
    (Part::Zero { chunk, run }, next)
}

/// Whole chunks from `at` to `end`, as far as one extent reaches.
fn chunks_at(at: u64, end: u64) -> (Part, u64) {
    let chunk = ChunkNo::of_byte(at);
    let room = u64::from(CHUNKS_PER_EXTENT) - chunk.in_extent() as u64;
    let count = room.min((end - at) / CHUNK);
    (
        Part::ZeroChunks {
            chunk,
            count: count as u32,
        },
        at + count * CHUNK,
    )
}

impl Part {
    pub fn chunk(&self) -> ChunkNo {
        match *self {
            Part::Read { chunk, .. }
            | Part::Write { chunk, .. }
            | Part::Zero { chunk, .. }
            | Part::ZeroChunks { chunk, .. }
            | Part::Map { chunk, .. } => chunk,
        }
    }

    /// The blocks that it needs, and whether it only reads them.
    pub fn mask(&self) -> (u16, bool) {
        match *self {
            Part::Read { run, .. } => (run.mask(), true),
            Part::Write { run, .. } | Part::Zero { run, .. } => (run.mask(), false),
            Part::ZeroChunks { .. } => (u16::MAX, false),
            Part::Map { .. } => (0, true),
        }
    }

    /// How many chunks it has to enter.
    pub fn chunks(&self) -> u32 {
        match *self {
            Part::ZeroChunks { count, .. } => count,
            _ => 1,
        }
    }
}

/// Which of `count` placement groups an extent of a family belongs to.
pub fn pg_of(family: FamilyId, extent: ExtentNo, count: usize) -> usize {
    (mix64(mix64(family.0) ^ u64::from(extent.0)) % count as u64) as usize
}

/// Of the placement groups that a volume hashes over those that an extent of its size in bytes belongs to, in their order; all of them where it has
/// so many extents that hardly any would be left out.
pub fn pgs_with_extents(family: FamilyId, size: u64, pgs: &[PgId]) -> Vec<PgId> {
    let extents = size.div_ceil(EXTENT);
    if extents >= 8 * pgs.len() as u64 {
        return pgs.to_vec();
    }
    let places = (0..extents as u32).map(|extent| pg_of(family, ExtentNo(extent), pgs.len()));
    let places: BTreeSet<usize> = places.collect();
    places.into_iter().map(|place| pgs[place]).collect()
}

const _: () = assert!(
    BLOCKS_PER_CHUNK == 16,
    "masks have a bit for each block of a chunk"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Token, VolumeId};

    #[test]
    fn of_the_placement_groups_of_a_small_volume_those_that_have_its_extents_are_named() {
        let pgs: Vec<PgId> = (1..=1000).map(PgId).collect();
        let family = FamilyId(7);
        for extents in [0, 1, 2, 300, 7_999, 8_000] {
            let named = pgs_with_extents(family, extents * EXTENT, &pgs);
            assert!(named.is_sorted());
            for extent in 0..extents as u32 {
                let pg = pgs[pg_of(family, ExtentNo(extent), pgs.len())];
                assert!(named.contains(&pg));
            }
            assert!(named.len() as u64 <= extents);
        }
        assert_eq!(pgs_with_extents(family, EXTENT + 1, &pgs).len(), 2);
        assert_eq!(pgs_with_extents(family, EXTENT, &[]), []);
    }

    fn pieces(kind: RequestKind, offset: u64, len: u64) -> Vec<Part> {
        let (token, volume, buf) = (Token(0), VolumeId(1), BufRef::default());
        let request = Request {
            token,
            volume,
            kind,
            offset,
            len,
            buf,
            scratch: Request::scratch_of(kind, offset, len, buf),
        };
        let (mut at, end) = bounds(&request);
        let mut parts = Vec::new();
        while at < end {
            let (part, next) = piece_at(&request, at);
            assert!(next > at && next <= end, "{part:?} from {at} to {next}");
            parts.push(part);
            at = next;
        }
        parts
    }

    #[test]
    fn a_write_is_split_at_chunks_and_only_its_ends_are_ragged() {
        let parts = pieces(RequestKind::Write, CHUNK - 5000, 5000 + CHUNK + 100);
        let ragged: Vec<_> = parts
            .iter()
            .map(|part| match part {
                Part::Write { ragged, run, .. } => (ragged.head, ragged.tail, run.count()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ragged, [(8192 - 5000, 0, 2), (0, 0, 16), (0, 3996, 1)]);
    }

    #[test]
    fn zeroes_are_written_at_ragged_ends_and_zeroed_between() {
        let parts = pieces(RequestKind::WriteZeroes, 100, CHUNK * 3);
        let kinds: Vec<_> = parts
            .iter()
            .map(|part| match part {
                Part::Write { ragged, .. } => format!("write {} {}", ragged.head, ragged.tail),
                Part::Zero { run, .. } => format!("zero {}", run.count()),
                Part::ZeroChunks { count, .. } => format!("chunks {count}"),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            kinds,
            ["write 100 0", "zero 15", "chunks 2", "write 0 3996"]
        );
    }

    #[test]
    fn zeroes_inside_one_block_are_one_write() {
        let parts = pieces(RequestKind::WriteZeroes, 4096 + 512, 512);
        let [Part::Write { ragged, .. }] = parts[..] else {
            panic!("{parts:?}")
        };
        assert_eq!((ragged.head, ragged.tail), (512, 3072));
    }

    #[test]
    fn a_discard_is_rounded_inward() {
        assert_eq!(pieces(RequestKind::Discard, 1, CHUNK), []);
        let two = pieces(RequestKind::Discard, EXTENT - CHUNK - 1, 2 * CHUNK + 1);
        assert_eq!(two.len(), 2, "split at the extent: {two:?}");
    }

    #[test]
    fn extents_spread_over_placement_groups() {
        let mut seen = [0; 8];
        (0..8000).for_each(|n| seen[pg_of(FamilyId(3), ExtentNo(n), 8)] += 1);
        assert!(seen.iter().all(|n| (900..1100).contains(n)), "{seen:?}");
    }
}
