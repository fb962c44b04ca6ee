//! The coordinator as a machine: requests in, asks of stores and replies out.
//!
//! A piece gets its layer as it starts, when it holds all of its blocks: not before, or a write that waits would go to an old layer
//! after a later one of the same block has gone to the new one. So a change of layer needs no pause. What was started before it ends in the
//! layer below, what starts after it goes to the new one, and of two that overlap the later one still waits for the earlier, whatever
//! their layers ([`Coordinator::cut`], R21).

use super::overlap::Overlap;
use super::split::{Part, Ragged, bounds, pg_of, piece_at};
use crate::base::{
    BlockNo, BlockRun, Break, Breaks, BufRef, ChunkNo, DiskSlot, FamilyId, FixedMap, IoError,
    LayerId, MapRun, PgId, Request, RequestKind, Slab, Token, VolumeId,
};
use std::collections::VecDeque;
use std::ops::Range;

/// Requests in flight on one shard; more are answered with [`IoError::Busy`].
const REQUESTS_MAX: usize = 16 * 1024;
/// Pieces of one request in flight: 4 MiB of data, so that a huge request does not crowd out others.
const PIECES_OF_REQUEST_MAX: u32 = 64;
/// Extents that one map looks at, and runs that it answers with at the least before it stops.
const MAP_EXTENTS_MAX: u32 = 4096;
const MAP_RUNS: usize = 128;

/// A piece of a request, as the shard passes it to a store and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId(pub u32);

/// A volume as the coordinator needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenVolume {
    pub id: VolumeId,
    pub family: FamilyId,
    /// The newest layer: the one that takes writes.
    pub layer: LayerId,
    /// In bytes.
    pub size: u64,
    /// Its placement groups, in the order of their numbers, each with the disk of its replica; `None`
    /// where this shard has no such disk: what lies there answers with an error.
    pub pgs: Vec<(PgId, Option<DiskSlot>)>,
}

/// Where an ask goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub volume: VolumeId,
    pub disk: DiskSlot,
    pub pg: PgId,
    pub family: FamilyId,
    pub layer: LayerId,
    pub chunk: ChunkNo,
}

/// What a store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Read {
        run: BlockRun,
        buf: BufRef,
    },
    Write {
        run: BlockRun,
        buf: BufRef,
        crcs: [u32; 16],
        sequence: u64,
    },
    Zero {
        run: BlockRun,
        sequence: u64,
    },
    ZeroChunks {
        count: u32,
        sequence: u64,
    },
    Map {
        count: u32,
    },
}

/// What the coordinator wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Ask {
        piece: PieceId,
        target: Target,
        ask: Ask,
    },
    Fill {
        buf: BufRef,
        blocks: u32,
    },
    Merge {
        from: BufRef,
        into: BufRef,
        head: u32,
        tail: u32,
    },
    Checksum {
        piece: PieceId,
        buf: BufRef,
        blocks: u32,
        layer: LayerId,
        first: BlockNo,
    },
    /// The answer to a request; `map` is a part of the runs that were handed in.
    Reply {
        token: Token,
        result: Result<(), IoError>,
        map: Range<u32>,
    },
    /// Nothing is in flight any more on a volume that was paused or closed.
    Drained {
        volume: VolumeId,
    },
    /// Nothing is in flight any more in layers below the one that [`Coordinator::cut`] named last.
    Cut {
        volume: VolumeId,
    },
}

#[derive(Debug)]
struct Volume {
    open: OpenVolume,
    /// Requests that are admitted and not answered.
    in_flight: u32,
    /// Pieces that are started and not answered: in the newest layer, and in older ones.
    started: u32,
    older: u32,
    /// New requests wait, until [`Coordinator::resume`].
    paused: bool,
    /// New requests wait, until [`Coordinator::release`].
    held: bool,
    closing: bool,
    waiting: VecDeque<Request>,
    /// Pieces that hold their blocks and start over.
    again: Vec<u32>,
}

#[derive(Debug)]
struct Running {
    request: Request,
    /// Where the next piece begins, and where the last one ends.
    next: u64,
    end: u64,
    /// Pieces in flight.
    pieces: u32,
    error: Option<IoError>,
    map: Vec<MapRun>,
    extents: u32,
}

#[derive(Debug)]
struct Piece {
    request: u32,
    part: Part,
    target: Target,
    /// Chunks that it has entered, of those that it must.
    entered: u32,
    /// Old blocks that are still being read.
    olds: u32,
    /// It is in flight.
    is_started: bool,
    /// What it changes was asked for, and may have happened.
    is_sent: bool,
    failed: Option<IoError>,
}

/// All volumes that one shard coordinates.
#[derive(Debug)]
pub struct Coordinator {
    volumes: FixedMap<VolumeId, Volume>,
    requests: Slab<Running>,
    pieces: Slab<Piece>,
    overlap: Overlap,
    /// Pieces that end without having been started: their volume closes.
    given_up: Vec<u32>,
    sequence: u64,
    breaks: Breaks,
}

impl Coordinator {
    pub fn new(breaks: Breaks) -> Coordinator {
        Coordinator {
            volumes: FixedMap::default(),
            requests: Slab::new(REQUESTS_MAX),
            pieces: Slab::new(REQUESTS_MAX * PIECES_OF_REQUEST_MAX as usize),
            overlap: Overlap::default(),
            given_up: Vec::new(),
            sequence: 0,
            breaks,
        }
    }

    /// Whether a volume is open.
    pub fn volume(&self, id: VolumeId) -> Option<&OpenVolume> {
        self.volumes.get(&id).map(|volume| &volume.open)
    }

    /// The volumes that are open.
    pub fn volumes(&self) -> impl Iterator<Item = VolumeId> {
        self.volumes.keys().copied()
    }

    /// Requests that are admitted and not answered.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Opens a volume, or changes one that is open: it is not paused any more. A change of its layer is a cut.
    pub fn open(&mut self, open: OpenVolume, out: &mut Vec<Output>) {
        let id = open.id;
        if self.put(open, out) {
            self.let_go(id, out);
        }
    }

    /// As [`Coordinator::open`], but new requests wait until [`Coordinator::release`].
    pub fn open_held(&mut self, open: OpenVolume, out: &mut Vec<Output>) {
        let id = open.id;
        self.put(open, out);
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.held = true;
        }
    }

    /// Whether it was open before.
    fn put(&mut self, open: OpenVolume, out: &mut Vec<Output>) -> bool {
        let (id, layer) = (open.id, open.layer);
        if let Some(volume) = self.volumes.get_mut(&id) {
            debug_assert!(
                !volume.closing,
                "a volume is drained before it is opened again"
            );
            volume.paused = false;
            let before = std::mem::replace(&mut volume.open, open).layer;
            volume.open.layer = before;
            if before != layer {
                self.cut(id, layer, out);
            }
            return true;
        }
        let volume = Volume {
            open,
            in_flight: 0,
            started: 0,
            older: 0,
            paused: false,
            held: false,
            closing: false,
            waiting: VecDeque::new(),
            again: Vec::new(),
        };
        self.volumes.insert(id, volume);
        false
    }

    /// An open volume has another size, in bytes, for what is asked from now on.
    pub fn resize(&mut self, id: VolumeId, size: u64) {
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.open.size = size;
        }
    }

    /// What starts from now on goes to this layer, which lies over the one before; [`Output::Cut`] says when nothing is in flight below any more.
    pub fn cut(&mut self, id: VolumeId, layer: LayerId, out: &mut Vec<Output>) {
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.open.layer = layer;
            volume.older += std::mem::take(&mut volume.started);
            if volume.older == 0 {
                out.push(Output::Cut { volume: id });
            }
        }
    }

    /// Somebody else has the volume, or had it meanwhile: requests wait until [`Coordinator::release`], and what is in flight starts over then, from
    /// what it has to read first and in the layer that is newest by then. Whoever was asked does not answer any more.
    ///
    /// A change that was sent does not start over: whoever had the volume has recovered it perhaps, others have seen it and written over it, and it
    /// must not happen once more. Its request fails.
    pub fn start_over(&mut self, id: VolumeId, out: &mut Vec<Output>) {
        let Some(volume) = self.volumes.get_mut(&id) else {
            return;
        };
        (volume.held, volume.paused) = (true, false);
        (volume.started, volume.older) = (0, 0);
        let requests = &self.requests;
        let mut sent = Vec::new();
        for (key, piece) in self.pieces.iter_mut() {
            if piece.is_started && requests[piece.request].request.volume == id {
                piece.is_started = false;
                (piece.olds, piece.failed) = (0, None);
                match piece.is_sent {
                    true => sent.push(key),
                    false => volume.again.push(key),
                }
            }
        }
        for key in sent {
            self.end_piece(key, Err(IoError::Closed), &[], &mut Vec::new(), out);
        }
    }

    /// Whether requests of a volume wait because it is held or paused.
    pub fn is_waited_for(&self, id: VolumeId) -> bool {
        let volume = self.volumes.get(&id);
        volume.is_some_and(|volume| volume.in_flight > 0 || !volume.waiting.is_empty())
    }

    /// Lets requests of a volume go on that was opened held.
    pub fn release(&mut self, id: VolumeId, out: &mut Vec<Output>) {
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.held = false;
            self.let_go(id, out);
        }
    }

    /// What waited goes on, if nothing holds it back.
    fn let_go(&mut self, id: VolumeId, out: &mut Vec<Output>) {
        let Some(volume) = self.volumes.get_mut(&id) else {
            return;
        };
        if volume.held {
            return;
        }
        for piece in std::mem::take(&mut volume.again) {
            self.start(piece, out);
        }
        let Some(volume) = self.volumes.get_mut(&id).filter(|volume| !volume.paused) else {
            return;
        };
        for request in std::mem::take(&mut volume.waiting) {
            self.request(request, out);
        }
    }

    /// Holds new requests of a volume back; [`Output::Drained`] says when nothing is in flight.
    pub fn pause(&mut self, id: VolumeId, out: &mut Vec<Output>) {
        match self.volumes.get_mut(&id) {
            Some(volume) => {
                volume.paused = true;
                self.tell_if_drained(id, out);
            }
            None => out.push(Output::Drained { volume: id }),
        }
    }

    /// Lets a volume that was paused go on as it was.
    pub fn resume(&mut self, id: VolumeId, out: &mut Vec<Output>) {
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.paused = false;
            self.let_go(id, out);
        }
    }

    /// Stops serving a volume; [`Output::Drained`] says when nothing is in flight.
    pub fn close(&mut self, id: VolumeId, out: &mut Vec<Output>) {
        let Some(volume) = self.volumes.get_mut(&id) else {
            return out.push(Output::Drained { volume: id });
        };
        volume.closing = true;
        for request in std::mem::take(&mut volume.waiting) {
            reply(request.token, Err(IoError::Closed), out);
        }
        self.given_up.append(&mut volume.again);
        if self.given_up.is_empty() {
            return self.tell_if_drained(id, out);
        }
        // The last one of them tells, if nothing else is in flight.
        self.start_released(out);
    }

    fn tell_if_drained(&mut self, id: VolumeId, out: &mut Vec<Output>) {
        let Some(volume) = self.volumes.get(&id) else {
            return;
        };
        if volume.in_flight == 0 && (volume.paused || volume.closing) {
            if volume.closing {
                self.volumes.remove(&id);
            }
            out.push(Output::Drained { volume: id });
        }
    }

    /// Takes a request of a front end.
    pub fn request(&mut self, request: Request, out: &mut Vec<Output>) {
        let token = request.token;
        let Some(volume) = self.volumes.get_mut(&request.volume) else {
            return reply(token, Err(IoError::Closed), out);
        };
        if volume.closing {
            return reply(token, Err(IoError::Closed), out);
        }
        if request.kind == RequestKind::Flush {
            // What was acknowledged before is durable already.
            return reply(token, Ok(()), out);
        }
        let fits = request
            .offset
            .checked_add(request.len)
            .is_some_and(|e| e <= volume.open.size);
        if !fits {
            return reply(token, Err(IoError::OutOfRange), out);
        }
        if volume.paused || volume.held {
            return match volume.waiting.len() < REQUESTS_MAX {
                true => volume.waiting.push_back(request),
                false => reply(token, Err(IoError::Busy), out),
            };
        }
        let (next, end) = bounds(&request);
        if next >= end {
            return reply(token, Ok(()), out);
        }
        let running = Running {
            request,
            next,
            end,
            pieces: 0,
            error: None,
            map: Vec::new(),
            extents: 0,
        };
        match self.requests.insert(running) {
            Ok(key) => {
                volume.in_flight += 1;
                self.start_pieces(key, out);
            }
            Err(_) => reply(token, Err(IoError::Busy), out),
        }
    }

    /// Starts the next pieces of a request, as many as may be in flight.
    fn start_pieces(&mut self, key: u32, out: &mut Vec<Output>) {
        loop {
            let running = &self.requests[key];
            // A map goes extent by extent, so that its runs come in their order.
            let most = match running.request.kind {
                RequestKind::Map => 1,
                _ => PIECES_OF_REQUEST_MAX,
            };
            if running.next >= running.end || running.pieces >= most || running.error.is_some() {
                return;
            }
            let (part, next) = piece_at(&running.request, running.next);
            let volume = running.request.volume;
            let target = self
                .volumes
                .get(&volume)
                .and_then(|volume| volume.target(part.chunk()));
            let running = &mut self.requests[key];
            running.next = next;
            let Some(target) = target else {
                running.error = Some(IoError::Failed);
                return self.end_if_done(key, out);
            };
            running.pieces += 1;
            let piece = Piece {
                request: key,
                part,
                target,
                entered: 0,
                olds: 0,
                is_started: false,
                is_sent: false,
                failed: None,
            };
            let piece = self
                .pieces
                .insert(piece)
                .expect("pieces are bounded by requests");
            self.enter(piece, out);
            if self.requests.get(key).is_none() {
                return; // it ended at once
            }
        }
    }

    /// Lets a piece go on when nothing that it overlaps is in flight any more.
    fn enter(&mut self, key: u32, out: &mut Vec<Output>) {
        loop {
            let piece = &self.pieces[key];
            if piece.entered == piece.part.chunks() {
                return self.start(key, out);
            }
            let (mask, is_read) = piece.part.mask();
            let volume = self.requests[piece.request].request.volume;
            let chunk = ChunkNo(piece.part.chunk().0 + u64::from(piece.entered));
            let free = self.breaks.on(Break::NoOverlapWait)
                || mask == 0
                || self.overlap.enter((volume, chunk), mask, is_read, key);
            if !free {
                return;
            }
            self.pieces[key].entered += 1;
        }
    }

    /// Pieces that waited for an overlap go on, those of a volume that closes to their end.
    fn start_released(&mut self, out: &mut Vec<Output>) {
        loop {
            if let Some(key) = self.overlap.released() {
                self.pieces[key].entered += 1;
                self.enter(key, out);
            } else if let Some(key) = self.given_up.pop() {
                self.end_one(key, Err(IoError::Closed), &[], &mut Vec::new(), out);
            } else {
                return;
            }
        }
    }

    /// It holds its blocks: from here on it is in flight, in the layer that is newest now.
    fn start(&mut self, key: u32, out: &mut Vec<Output>) {
        let piece = &mut self.pieces[key];
        let of = self.requests[piece.request].request.volume;
        if let Some(volume) = self.volumes.get_mut(&of) {
            if volume.held {
                return match volume.closing {
                    true => self.given_up.push(key),
                    false => volume.again.push(key),
                };
            }
            volume.started += 1;
            piece.target.layer = volume.open.layer;
        }
        piece.is_started = true;
        piece.is_sent = matches!(piece.part, Part::Zero { .. } | Part::ZeroChunks { .. });
        let (target, part) = (piece.target, piece.part);
        let ask = match part {
            Part::Read { run, buf, .. } => Ask::Read { run, buf },
            Part::Zero { run, .. } => Ask::Zero {
                run,
                sequence: self.next_sequence(),
            },
            Part::ZeroChunks { chunk, count } => Ask::ZeroChunks {
                count: match self.breaks.on(Break::ExtentEdge) {
                    true if count > 1 && (chunk.0 + u64::from(count)).is_multiple_of(64) => {
                        count - 1
                    }
                    _ => count,
                },
                sequence: self.next_sequence(),
            },
            Part::Map { count, .. } => Ask::Map { count },
            Part::Write {
                run, buf, ragged, ..
            } if ragged.is_even() => {
                return self.checksum(key, run, buf, out);
            }
            Part::Write {
                run, buf, ragged, ..
            } => {
                return self.read_old(key, run, buf, ragged, out);
            }
        };
        out.push(Output::Ask {
            piece: PieceId(key),
            target,
            ask,
        });
    }

    /// Reads what the ragged ends of a write leave as it was.
    fn read_old(
        &mut self,
        key: u32,
        run: BlockRun,
        buf: BufRef,
        ragged: Ragged,
        out: &mut Vec<Output>,
    ) {
        if ragged.zeroes {
            out.push(Output::Fill { buf, blocks: 1 });
        }
        let target = self.pieces[key].target;
        let mut olds = 0;
        let mut read = |block: u32, buf: BufRef| {
            let run = BlockRun::new(block, 1).expect("a block of the chunk");
            olds += 1;
            out.push(Output::Ask {
                piece: PieceId(key),
                target,
                ask: Ask::Read { run, buf },
            });
        };
        let is_one = run.count() == 1;
        if ragged.head > 0 || (is_one && ragged.tail > 0) {
            read(run.first(), ragged.scratch);
        }
        if ragged.tail > 0 && !is_one {
            read(run.end() - 1, ragged.scratch.plus(1));
        }
        self.pieces[key].olds = olds;
    }

    /// What was there has come: the ragged ends are put together.
    fn merge(&mut self, key: u32, out: &mut Vec<Output>) {
        let Part::Write {
            run, buf, ragged, ..
        } = self.pieces[key].part
        else {
            return;
        };
        let is_one = run.count() == 1;
        let from = ragged.scratch;
        if !self.breaks.on(Break::ForgetMerge) {
            if is_one {
                let Ragged { head, tail, .. } = ragged;
                out.push(Output::Merge {
                    from,
                    into: buf,
                    head,
                    tail,
                });
            } else {
                if ragged.head > 0 {
                    out.push(Output::Merge {
                        from,
                        into: buf,
                        head: ragged.head,
                        tail: 0,
                    });
                }
                if ragged.tail > 0 {
                    let into = buf.plus(run.count() - 1);
                    let (from, tail) = (from.plus(1), ragged.tail);
                    out.push(Output::Merge {
                        from,
                        into,
                        head: 0,
                        tail,
                    });
                }
            }
        }
        self.checksum(key, run, buf, out);
    }

    fn checksum(&mut self, key: u32, run: BlockRun, buf: BufRef, out: &mut Vec<Output>) {
        let Target { layer, chunk, .. } = self.pieces[key].target;
        let (piece, first, blocks) = (PieceId(key), chunk.block(run.first()), run.count());
        out.push(Output::Checksum {
            piece,
            buf,
            blocks,
            layer,
            first,
        });
    }

    /// The checksums of a write's payload are there: the store is asked.
    pub fn checksummed(&mut self, piece: PieceId, crcs: &[u32], out: &mut Vec<Output>) {
        if self.pieces.get(piece.0).is_some_and(|of| !of.is_started) {
            return; // it starts over
        }
        let Some(Piece {
            part: Part::Write { run, buf, .. },
            target,
            ..
        }) = self.pieces.get(piece.0)
        else {
            return debug_assert!(false, "only a write that is under way has checksums");
        };
        let (run, buf, target) = (*run, *buf, *target);
        let mut all = [0; 16];
        all[..crcs.len()].copy_from_slice(crcs);
        let sequence = self.next_sequence();
        self.pieces[piece.0].is_sent = true;
        let ask = Ask::Write {
            run,
            buf,
            crcs: all,
            sequence,
        };
        out.push(Output::Ask { piece, target, ask });
    }

    /// A store has answered; `runs` is what a map found.
    pub fn answered(
        &mut self,
        id: PieceId,
        result: Result<(), IoError>,
        runs: &[MapRun],
        out_runs: &mut Vec<MapRun>,
        out: &mut Vec<Output>,
    ) {
        let Some(piece) = self.pieces.get_mut(id.0) else {
            return debug_assert!(false, "a piece is answered once");
        };
        if !piece.is_started {
            return; // it starts over
        }
        if let Err(error) = result {
            piece.failed.get_or_insert(error);
        }
        if piece.olds > 0 {
            piece.olds -= 1;
            if piece.olds > 0 {
                return;
            }
            if piece.failed.is_none() {
                return self.merge(id.0, out);
            }
        }
        self.end_piece(id.0, Ok(()), runs, out_runs, out);
    }

    /// A piece has ended, and with it perhaps its request; others go on.
    fn end_piece(
        &mut self,
        key: u32,
        result: Result<(), IoError>,
        runs: &[MapRun],
        out_runs: &mut Vec<MapRun>,
        out: &mut Vec<Output>,
    ) {
        self.end_one(key, result, runs, out_runs, out);
        self.start_released(out);
    }

    /// As [`Coordinator::end_piece`]; those that waited for it are not started yet.
    fn end_one(
        &mut self,
        key: u32,
        result: Result<(), IoError>,
        runs: &[MapRun],
        out_runs: &mut Vec<MapRun>,
        out: &mut Vec<Output>,
    ) {
        let Some(mut piece) = self.pieces.remove(key) else {
            return;
        };
        if let Err(error) = result {
            piece.failed.get_or_insert(error);
        }
        self.leave(&piece);
        self.tell_if_cut(&piece, out);
        let running = &mut self.requests[piece.request];
        running.pieces -= 1;
        if let Some(error) = piece.failed {
            running.error.get_or_insert(error);
        }
        if let Part::Map { .. } = piece.part {
            running.take_runs(runs);
        }
        self.start_pieces(piece.request, out);
        self.end_if_done_with_map(piece.request, out_runs, out);
    }

    /// A piece has ended; whether it was the last one in an older layer.
    fn tell_if_cut(&mut self, piece: &Piece, out: &mut Vec<Output>) {
        if !piece.is_started {
            return;
        }
        let id = self.requests[piece.request].request.volume;
        let Some(volume) = self.volumes.get_mut(&id) else {
            return debug_assert!(false, "a volume is there while a request is in flight");
        };
        if piece.target.layer == volume.open.layer {
            volume.started -= 1;
            return;
        }
        volume.older -= 1;
        if volume.older == 0 {
            out.push(Output::Cut { volume: id });
        }
    }

    fn leave(&mut self, piece: &Piece) {
        let (mask, is_read) = piece.part.mask();
        if is_read || mask == 0 || self.breaks.on(Break::NoOverlapWait) {
            return;
        }
        let volume = self.requests[piece.request].request.volume;
        let first = piece.part.chunk().0;
        for chunk in first..first + u64::from(piece.part.chunks()) {
            self.overlap.leave((volume, ChunkNo(chunk)), mask);
        }
    }

    fn end_if_done(&mut self, key: u32, out: &mut Vec<Output>) {
        self.end_if_done_with_map(key, &mut Vec::new(), out);
    }

    fn end_if_done_with_map(&mut self, key: u32, runs: &mut Vec<MapRun>, out: &mut Vec<Output>) {
        let Some(running) = self.requests.get(key) else {
            return;
        };
        let is_done =
            running.pieces == 0 && (running.next >= running.end || running.error.is_some());
        if !is_done {
            return;
        }
        let Some(running) = self.requests.remove(key) else {
            return;
        };
        let start = runs.len() as u32;
        runs.extend_from_slice(&running.map);
        out.push(Output::Reply {
            token: running.request.token,
            result: running.error.map_or(Ok(()), Err),
            map: start..runs.len() as u32,
        });
        let volume = running.request.volume;
        if let Some(of) = self.volumes.get_mut(&volume) {
            of.in_flight -= 1;
        }
        self.tell_if_drained(volume, out);
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

impl Ask {
    /// The number of a change; zero of what changes nothing.
    pub fn sequence(&self) -> u64 {
        match *self {
            Ask::Write { sequence, .. }
            | Ask::Zero { sequence, .. }
            | Ask::ZeroChunks { sequence, .. } => sequence,
            Ask::Read { .. } | Ask::Map { .. } => 0,
        }
    }
}

impl Volume {
    fn target(&self, chunk: ChunkNo) -> Option<Target> {
        let OpenVolume {
            id,
            family,
            layer,
            ref pgs,
            ..
        } = self.open;
        if pgs.is_empty() {
            return None;
        }
        let (pg, disk) = pgs[pg_of(family, chunk.extent(), pgs.len())];
        Some(Target {
            volume: id,
            disk: disk?,
            pg,
            family,
            layer,
            chunk,
        })
    }
}

impl Running {
    /// Appends what a map found in the next extent, cut to the request.
    fn take_runs(&mut self, runs: &[MapRun]) {
        let have: u64 = self.map.iter().map(|run| run.len).sum();
        let at = self.request.offset + have;
        // The runs begin at a chunk; the request may begin inside it.
        let mut skip = at % crate::base::CHUNK;
        let mut left = self.next - at;
        for run in runs {
            let skipped = skip.min(run.len);
            skip -= skipped;
            let len = (run.len - skipped).min(left);
            left -= len;
            match self.map.last_mut() {
                Some(last) if (last.zero, last.hole) == (run.zero, run.hole) => last.len += len,
                _ if len > 0 => self.map.push(MapRun { len, ..*run }),
                _ => {}
            }
        }
        self.extents += 1;
        if self.map.len() >= MAP_RUNS || self.extents >= MAP_EXTENTS_MAX {
            self.end = self.next; // the beginning of the range is an answer too
        }
    }
}

fn reply(token: Token, result: Result<(), IoError>, out: &mut Vec<Output>) {
    out.push(Output::Reply {
        token,
        result,
        map: 0..0,
    });
}
