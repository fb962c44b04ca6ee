//! A replica of one PG, at its disk: it refuses what is older than it has seen, makes changes durable, and
//! remembers what others may not have.
//!
//! A frame goes through three gates, in this order: the *fences* (R1), which may have to be raised on disk first (R6); the *mark*, which
//! passes what everybody has (R10); and what the message itself asks. While fences are being raised everything waits in
//! its order, so that no answer overtakes the fence that it was given under.
//!
//! What survives a crash is [`Durable`]; a replica is made from it again. It does not know how its store keeps it, which
//! disks the other replicas are on, or whether it is still on the PG's list: its fences are enough.

use super::MEMBERS_MAX;
use super::message::{Answer, Change, Header, Message, Refusal};
use super::rule::{Rule, RulesOff};
use super::window::Window;
use crate::base::{BlockRun, BufRef, ChunkId, Epoch, PgId, Stamp, VolumeId};
use std::collections::{BTreeMap, VecDeque};

/// Frames that wait for a fence to be durable; more are refused as [`Refusal::Busy`].
const HELD_MAX: usize = 1024;
/// Changes and reads of one replica in flight at its store.
const FLYING_MAX: usize = 1024;

/// Who asked: the driver's name for a connection, which is handed back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker(pub u32);

/// What is durable of a replica besides its blocks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Durable {
    /// The highest version that it has answered under.
    version: u32,
    ranges: BTreeMap<VolumeId, Range>,
}

/// What is durable of one range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Range {
    epoch: Epoch,
    /// Of `epoch`. It may be behind after a crash, and the window a superset then (R22).
    mark: u64,
    window: Window,
}

impl Durable {
    /// Of an empty replica of a PG that is new under `version`.
    pub fn created(version: u32) -> Durable {
        let ranges = BTreeMap::new();
        Durable { version, ranges }
    }

    fn epoch(&self, range: VolumeId) -> Epoch {
        self.ranges
            .get(&range)
            .map_or(Epoch::default(), |range| range.epoch)
    }

    /// What is known of the fences from the stamps of what was written alone.
    fn forget_fences(&mut self) {
        self.version = 1;
        for of in self.ranges.values_mut() {
            let epochs = of.window.entries().iter().map(|entry| entry.epoch);
            of.epoch = epochs.max().unwrap_or_default();
            of.mark = 0;
        }
    }

    fn range(&mut self, range: VolumeId) -> &mut Range {
        self.ranges.entry(range).or_default()
    }
}

/// What a replica is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// A frame of a coordinator; `payload` of a write.
    Frame {
        from: Asker,
        header: Header,
        message: Message,
        payload: Option<BufRef>,
    },
    /// The answer to [`Output::Fence`] and [`Output::Change`].
    Stored { op: Op, ok: bool },
    /// The answer to [`Output::Read`]: the crcs of the blocks, a bit for each block that is zeroes, and where they are.
    Loaded {
        op: Op,
        crcs: [u32; 16],
        zeroes: u16,
        payload: BufRef,
    },
    /// The other answer to [`Output::Read`].
    NotLoaded { op: Op },
}

/// The replica's name for what it asked of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    Fence {
        range: VolumeId,
    },
    Change {
        range: VolumeId,
        epoch: Epoch,
        sequence: u64,
    },
    Read {
        range: VolumeId,
        epoch: Epoch,
        version: u32,
        id: u64,
    },
}

/// What a replica wants done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Make the fences durable.
    Fence {
        op: Op,
        version: u32,
        range: VolumeId,
        epoch: Epoch,
    },
    /// Make a change durable, with its stamp, as one with its entry in the window.
    Change {
        op: Op,
        at: ChunkId,
        change: Change,
        stamp: Stamp,
        payload: Option<BufRef>,
    },
    Read {
        op: Op,
        at: ChunkId,
        run: BlockRun,
    },
    Answer {
        to: Asker,
        /// Of what was asked.
        header: Header,
        answer: Answer,
        payload: Option<BufRef>,
    },
}

/// A frame that waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Frame {
    from: Asker,
    header: Header,
    message: Message,
    payload: Option<BufRef>,
}

/// A change on its way to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Storing {
    frame: Frame,
    at: ChunkId,
    change: Change,
    /// The same change came once more, under a higher version.
    again: Option<Frame>,
}

/// A read on its way from the disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Loading {
    frame: Frame,
    at: ChunkId,
    run: BlockRun,
}

/// A replica. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replica {
    pg: PgId,
    durable: Durable,
    /// The fences that are on their way to the disk.
    raising: Option<(VolumeId, Epoch, u32)>,
    held: VecDeque<Frame>,
    storing: BTreeMap<Op, Storing>,
    loading: BTreeMap<Op, Loading>,
    /// Seals that wait until nothing of their range is on its way to the disk.
    sealing: Vec<Frame>,
    off: RulesOff,
}

impl Replica {
    /// The replica of `pg` from what is durable of it.
    pub fn new(pg: PgId, durable: Durable, off: RulesOff) -> Replica {
        Replica {
            pg,
            durable,
            raising: None,
            held: VecDeque::new(),
            storing: BTreeMap::new(),
            loading: BTreeMap::new(),
            sealing: Vec::new(),
            off,
        }
    }

    /// What a crash leaves of it, at this moment.
    pub fn durable(&self) -> Durable {
        let mut durable = self.durable.clone();
        if self.off.on(Rule::R6) {
            durable.forget_fences();
        }
        durable
    }

    /// The highest version that it has answered under.
    pub fn version(&self) -> u32 {
        self.durable.version
    }

    /// The epoch that a range is fenced with; the lowest where nobody has asked for it yet.
    pub fn epoch(&self, range: VolumeId) -> Epoch {
        self.durable.epoch(range)
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(&mut self, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Frame {
                from,
                header,
                message,
                payload,
            } => {
                let frame = Frame {
                    from,
                    header,
                    message,
                    payload,
                };
                match self.raising.is_some() {
                    true if self.held.len() >= HELD_MAX => refuse(&frame, Refusal::Busy, out),
                    true => self.held.push_back(frame),
                    false => self.on_frame(frame, out),
                }
            }
            Input::Stored { op, ok } => match op {
                Op::Fence { .. } => self.on_fenced(ok, out),
                Op::Change { .. } => self.on_stored(op, ok, out),
                Op::Read { .. } => debug_assert!(false, "a read is loaded, not stored"),
            },
            Input::Loaded {
                op,
                crcs,
                zeroes,
                payload,
            } => self.on_loaded(op, crcs, zeroes, payload, out),
            Input::NotLoaded { op } => {
                if let Some(loading) = self.loading.remove(&op) {
                    refuse(&loading.frame, Refusal::Failed, out);
                }
            }
        }
    }

    /// The gates that every frame passes.
    fn on_frame(&mut self, frame: Frame, out: &mut Vec<Output>) {
        let Header {
            range,
            pg,
            epoch,
            version,
            mark,
        } = frame.header;
        if pg != self.pg {
            return refuse(&frame, Refusal::NoReplica, out);
        }
        let fenced = self.durable.epoch(range);
        if epoch < fenced && !self.off.on(Rule::R1) {
            return refuse(&frame, Refusal::Epoch(fenced), out);
        }
        if version < self.durable.version && !self.off.on(Rule::R1) {
            return refuse(&frame, Refusal::Version(self.durable.version), out);
        }
        if epoch > fenced || version > self.durable.version {
            return self.raise(frame, out);
        }
        let of = self.durable.range(range);
        if mark > of.mark && epoch == of.epoch {
            of.mark = mark;
            of.window.pass(epoch, mark);
        }
        match frame.message {
            Message::Change {
                sequence,
                at,
                change,
            } => self.on_change(frame, sequence, at, change, out),
            Message::Read { at, run, .. } => self.on_read(frame, at, run, out),
            Message::Mark => {}
            Message::Seal => {
                self.sealing.push(frame);
                self.answer_seals(out);
            }
        }
    }

    /// Takes higher fences over, durably, before anything is answered under them.
    fn raise(&mut self, frame: Frame, out: &mut Vec<Output>) {
        let Header {
            range,
            epoch,
            version,
            ..
        } = frame.header;
        self.held.push_front(frame);
        self.raising = Some((range, epoch, version));
        if self.off.on(Rule::R6) {
            // Held in memory only, and lost with it.
            return self.on_fenced(true, out);
        }
        out.push(Output::Fence {
            op: Op::Fence { range },
            version,
            range,
            epoch,
        });
    }

    fn on_fenced(&mut self, ok: bool, out: &mut Vec<Output>) {
        let Some((range, epoch, version)) = self.raising.take() else {
            return debug_assert!(false, "fences are raised once");
        };
        if !ok {
            // Its disk has failed: nothing is answered under a fence that is not durable.
            for frame in std::mem::take(&mut self.held) {
                refuse(&frame, Refusal::Failed, out);
            }
            return;
        }
        debug_assert!(version >= self.durable.version, "fences-only-grow");
        self.durable.version = self.durable.version.max(version);
        let of = self.durable.range(range);
        if epoch > of.epoch {
            of.epoch = epoch;
            of.mark = 0;
        }
        while self.raising.is_none()
            && let Some(frame) = self.held.pop_front()
        {
            self.on_frame(frame, out);
        }
    }

    fn on_change(
        &mut self,
        frame: Frame,
        sequence: u64,
        at: ChunkId,
        change: Change,
        out: &mut Vec<Output>,
    ) {
        let Header {
            range,
            epoch,
            version,
            ..
        } = frame.header;
        let of = self.durable.range(range);
        if sequence <= of.mark && !self.off.on(Rule::R10) {
            // A late duplicate: what came after it may be forgotten already.
            return done(&frame, sequence, out);
        }
        match of.window.version_of(epoch, sequence) {
            Some(stamped) if stamped >= version || self.off.on(Rule::R3Stamps) => {
                return done(&frame, sequence, out);
            }
            _ => {}
        }
        let op = Op::Change {
            range,
            epoch,
            sequence,
        };
        if let Some(storing) = self.storing.get_mut(&op) {
            // Once what is on its way is there, it is stamped anew (R3).
            storing.again = Some(frame);
            return;
        }
        let more: usize = self
            .storing
            .values()
            .map(|storing| storing.change.places(at).count())
            .sum();
        // Recovery writes what any member had, so it may need as much room as all of them took.
        let windows = if frame.header.mark == 0 {
            MEMBERS_MAX
        } else {
            1
        };
        let room = of
            .window
            .has_room(more + change.places(at).count(), windows);
        if !room || self.storing.len() >= FLYING_MAX {
            return refuse(&frame, Refusal::Busy, out);
        }
        self.store(op, frame, at, change, out);
    }

    fn store(&mut self, op: Op, frame: Frame, at: ChunkId, change: Change, out: &mut Vec<Output>) {
        let Op::Change { sequence, .. } = op else {
            return debug_assert!(false, "only a change is stored");
        };
        let Header { epoch, version, .. } = frame.header;
        let stamp = Stamp {
            version,
            epoch,
            sequence,
        };
        out.push(Output::Change {
            op,
            at,
            change,
            stamp,
            payload: frame.payload,
        });
        let again = None;
        let storing = Storing {
            frame,
            at,
            change,
            again,
        };
        self.storing.insert(op, storing);
    }

    fn on_stored(&mut self, op: Op, ok: bool, out: &mut Vec<Output>) {
        let Some(storing) = self.storing.remove(&op) else {
            return debug_assert!(false, "a change is stored once");
        };
        let Storing {
            frame,
            at,
            change,
            again,
        } = storing;
        let Op::Change {
            range,
            epoch,
            sequence,
        } = op
        else {
            return;
        };
        if ok {
            let version = frame.header.version;
            self.durable
                .range(range)
                .window
                .put((epoch, sequence, version), change.places(at));
            done(&frame, sequence, out);
        } else {
            refuse(&frame, Refusal::Failed, out);
        }
        if let Some(again) = again {
            // It passes the gates once more: what was right when it came may be fenced now.
            self.step(
                Input::Frame {
                    from: again.from,
                    header: again.header,
                    message: again.message,
                    payload: again.payload,
                },
                out,
            );
        }
        self.answer_seals(out);
    }

    fn on_read(&mut self, frame: Frame, at: ChunkId, run: BlockRun, out: &mut Vec<Output>) {
        let Message::Read { id, .. } = frame.message else {
            return debug_assert!(false, "only a read is loaded");
        };
        let Header {
            range,
            epoch,
            version,
            ..
        } = frame.header;
        let op = Op::Read {
            range,
            epoch,
            version,
            id,
        };
        if self.loading.len() >= FLYING_MAX {
            return refuse(&frame, Refusal::Busy, out);
        }
        // The same read again is answered once.
        if self
            .loading
            .insert(op, Loading { frame, at, run })
            .is_none()
        {
            out.push(Output::Read { op, at, run });
        }
    }

    fn on_loaded(
        &mut self,
        op: Op,
        crcs: [u32; 16],
        zeroes: u16,
        payload: BufRef,
        out: &mut Vec<Output>,
    ) {
        let Some(Loading { frame, at, run }) = self.loading.remove(&op) else {
            return debug_assert!(false, "a read is loaded once");
        };
        let Op::Read { range, id, .. } = op else {
            return;
        };
        // What is on its way may be in what was read as well: the coordinator holds the answer back a little longer.
        let on_its_way = self.storing.iter().filter_map(|(op, storing)| match *op {
            Op::Change {
                range: of,
                epoch,
                sequence,
            } if of == range
                && storing
                    .change
                    .places(storing.at)
                    .any(|(chunk, mask)| chunk == at && mask & run.mask() != 0) =>
            {
                Some((epoch, sequence))
            }
            _ => None,
        });
        let durable = self.durable.ranges.get(&range);
        let newest = durable.and_then(|of| of.window.newest(at, run.mask()));
        let answer = Answer::Value {
            id,
            newest: newest.into_iter().chain(on_its_way).max(),
            crcs,
            zeroes,
        };
        out.push(Output::Answer {
            to: frame.from,
            header: frame.header,
            answer,
            payload: Some(payload),
        });
    }

    /// Answers the seals of every range of which nothing is on its way to the disk. The epoch is taken, so nothing
    /// of an older one follows.
    fn answer_seals(&mut self, out: &mut Vec<Output>) {
        let mut waiting = std::mem::take(&mut self.sealing);
        waiting.retain(|frame| {
            let range = frame.header.range;
            let is_of = |op: &Op| matches!(op, Op::Change { range: of, .. } if *of == range);
            if self.storing.keys().any(is_of) {
                return true;
            }
            let of = self.durable.range(range);
            let now = (of.epoch, self.durable.version);
            // Fenced while it waited.
            if now != (frame.header.epoch, frame.header.version) {
                let (epoch, version) = now;
                let why = match epoch > frame.header.epoch {
                    true => Refusal::Epoch(epoch),
                    false => Refusal::Version(version),
                };
                refuse(frame, why, out);
                return false;
            }
            let window = self.durable.range(range).window.entries();
            let window = window.iter().filter(|entry| entry.blocks != 0).copied();
            out.push(Output::Answer {
                to: frame.from,
                header: frame.header,
                answer: Answer::Sealed {
                    window: window.collect(),
                },
                payload: None,
            });
            false
        });
        self.sealing = waiting;
    }

    /// Asserts the named invariants.
    pub fn check(&self) {
        for of in self.durable.ranges.values() {
            let entries = of.window.entries();
            assert!(
                entries.iter().all(|entry| entry.epoch <= of.epoch),
                "fences-only-grow: nothing is in a window that is newer than its fence"
            );
            assert!(of.window.has_room(0, MEMBERS_MAX), "windows-are-bounded");
        }
        assert!(self.held.len() <= HELD_MAX + 1, "windows-are-bounded");
    }
}

fn done(frame: &Frame, sequence: u64, out: &mut Vec<Output>) {
    out.push(Output::Answer {
        to: frame.from,
        header: frame.header,
        answer: Answer::Done { sequence },
        payload: None,
    });
}

fn refuse(frame: &Frame, why: Refusal, out: &mut Vec<Output>) {
    let what = frame.message.asked();
    out.push(Output::Answer {
        to: frame.from,
        header: frame.header,
        answer: Answer::Refused { what, why },
        payload: None,
    });
}
