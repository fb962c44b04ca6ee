//! A replica of one PG, at its disk: it refuses what is older than it has seen, makes changes durable, and
//! remembers what others may not have.
//!
//! A frame goes through gates, in this order (`gates.rs`): the *fences* (R1), which may have to be raised on disk first (R6); the *session*,
//! which a joiner has to begin before it takes anything (R13); the *mark*, which passes what everybody has (R10); and what the message itself
//! asks (`change.rs`, `read.rs`, `seal.rs`). While fences are being raised everything waits in its order, so that no answer overtakes the
//! fence that it was given under.
//!
//! ```text
//!                    frame of its session           all of its fences and the session durable
//!   in sync, or out ───────────────────► asking ──────────────────────────────────────────────► filling ──► filled
//!        ▲                                 a source for its fences        takes changes, and        │      all is there
//!        │                                                                fetches what it lacks     │
//!        └────────────────────────── a frame, or a configuration, that says: in sync ◄──────────────┴────────┘
//!        a restart ends a session: what it had taken in it is known no more (R16)
//! ```
//!
//! `session.rs` is the joiner's side, `agenda.rs` what it still has to fetch, `source.rs` the other side; `work.rs` sees to it that a chunk that is
//! being filled, or fetched for another, does not change meanwhile.
//!
//! What survives a crash is [`Durable`]; a replica is made from it again. It does not know how its store keeps it, or whether it is
//! still on the PG's list: its fences are enough.

mod agenda;
mod change;
mod durable;
mod gates;
mod in_flight;
mod read;
mod room;
mod seal;
mod session;
mod source;
mod work;

pub use durable::{Durable, RANGES_MAX};

use super::MEMBERS_MAX;
use super::configuration::Configuration;
use super::fill::{Content, FillAnswer, FillAsk, FillHeader};
use super::message::{Answer, Change, Header, Message, Refusal};
use super::room::{Room, Takes};
use super::rule::{Rule, RulesOff};
use super::window::Entry;
use crate::base::{BlockRun, ChunkId, DiskId, Epoch, Payload, PgId, Stamp, VolumeId};
use change::Storing;
use gates::{Raise, Waiting};
use in_flight::InFlight;
use read::Loading;
use session::Session;
use source::Listing;
use std::collections::VecDeque;
use work::Works;

/// Frames that wait for a fence to be durable, or for a session to begin; more are refused as [`Refusal::Busy`].
const HELD_MAX: usize = 1024;
/// Changes and reads of one replica in flight at its store.
const FLYING_MAX: usize = 1024;
/// Seals that wait until nothing of their range is on its way to the disk; each is asked again until it is answered.
const SEALS_MAX: usize = 1024;

/// Who asked: the driver's name for a connection, which is handed back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker(pub u32);

/// What a replica is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// A frame of a coordinator; `payload` of a write.
    Frame {
        from: Asker,
        header: Header,
        message: Message,
        payload: Option<Payload>,
    },
    /// What the manager says of the PG. An older version than is known is ignored.
    Configured(Configuration),
    /// A joiner asks.
    FillAsk {
        from: Asker,
        header: FillHeader,
        ask: FillAsk,
    },
    /// The source answers; `payload`, of content with data, has a place for each of the chunk's 16 blocks.
    FillAnswer {
        header: FillHeader,
        answer: FillAnswer,
        payload: Option<Payload>,
    },
    /// The connection to a source was lost, or its answer is overdue.
    Unanswered { from: DiskId },
    /// What was asked of a source, and is not answered, is asked again.
    AskAgain,
    /// So many chunks may be on their way to this replica, or be read here for others, at once: what guests' latency leaves room for
    /// ([`pace`](super::pace)). 0: it takes turns with others of its disk. One that is filled has one chunk on its way then, one that fills others
    /// waits for [`Input::Turn`].
    Pace(u32),
    /// One chunk more may be read for a joiner, whatever the pace.
    Turn,
    /// So many chunks may be asked for from now on, whatever was said before; nothing: as many as the pace allows ([`limit`](super::limit)).
    Allow(Option<u32>),
    /// The answer to [`Output::Fence`], [`Output::Change`] and [`Output::Fill`].
    Stored { op: Op, ok: bool },
    /// A third answer to [`Output::Change`]: the disk has no room for it.
    NoSpace { op: Op },
    /// The answer to [`Output::Read`]: the crcs of the blocks, a bit for each block that is zeroes, and where they are.
    Loaded {
        op: Op,
        crcs: [u32; 16],
        zeroes: u16,
        payload: Payload,
    },
    /// The answer to [`Output::List`].
    Listed {
        op: Op,
        chunks: Vec<ChunkId>,
        more: bool,
    },
    /// The answer to [`Output::Fetch`].
    Fetched {
        op: Op,
        content: Content,
        payload: Option<Payload>,
    },
    /// The answer to [`Output::Look`].
    Looked { op: Op, takes: Takes },
    /// How its disk is from now on. A replica that was made new takes it for ample until it is told.
    Room(Room),
    /// The other answer to [`Output::Read`], [`Output::Look`], [`Output::List`] and [`Output::Fetch`].
    NotLoaded { op: Op },
}

/// The replica's name for what it asked of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    Fence,
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
    /// Of a chunk, whether it would take new space.
    Look {
        range: VolumeId,
        epoch: Epoch,
        version: u32,
        id: u64,
    },
    /// Its own list, as a joiner in that session.
    OwnList {
        session: u32,
    },
    /// For a joiner; all three by a number of their own.
    List(u64),
    Fetch(u64),
    Fill(u64),
}

/// What a replica wants done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Make the fences durable, as one.
    Fence {
        op: Op,
        version: u32,
        session: u32,
        fences: Vec<(VolumeId, Epoch)>,
    },
    /// Make a change durable, with its stamp, as one with its entry in the window.
    Change {
        op: Op,
        range: VolumeId,
        at: ChunkId,
        change: Change,
        stamp: Stamp,
        payload: Option<Payload>,
    },
    Read {
        op: Op,
        at: ChunkId,
        run: BlockRun,
    },
    /// Would a write to this chunk of this layer take new space?
    Look {
        op: Op,
        at: ChunkId,
    },
    /// Which chunks are stamped with a version above `since`, in the order of [`super::fill::Place`], at most
    /// [`super::fill::PAGE_MAX`] from behind `after` on.
    List {
        op: Op,
        since: u32,
        after: Option<ChunkId>,
    },
    /// What a chunk's layer holds by itself.
    Fetch {
        op: Op,
        at: ChunkId,
    },
    /// Make these blocks of a chunk durably what `content` says, as one, with the entries. The chunk's stamp becomes the one of `content`, or
    /// stays what it is where that is higher and other blocks of the chunk hold something.
    Fill {
        op: Op,
        at: ChunkId,
        blocks: u16,
        content: Content,
        entries: Vec<(VolumeId, Entry)>,
        payload: Option<Payload>,
    },
    Answer {
        to: Asker,
        /// Of what was asked.
        header: Header,
        answer: Answer,
        payload: Option<Payload>,
    },
    FillAnswer {
        to: Asker,
        header: FillHeader,
        answer: FillAnswer,
        payload: Option<Payload>,
    },
    /// Ask a source.
    FillAsk {
        to: DiskId,
        header: FillHeader,
        ask: FillAsk,
    },
    /// The manager is asked for the configuration: somebody knows this version.
    Learn {
        version: u32,
    },
    /// Everything is here: the manager may promote the session.
    Filled {
        session: u32,
        version: u32,
    },
    /// The session cannot go on here: the manager takes the replica out, and has it join anew.
    Lost {
        session: u32,
    },
}

/// A frame that waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    from: Asker,
    header: Header,
    message: Message,
    payload: Option<Payload>,
}

/// A replica. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replica {
    pg: PgId,
    disk: DiskId,
    durable: Durable,
    /// The newest that is known.
    configuration: Option<Configuration>,
    /// The fences that are on their way to the disk.
    raising: Option<Raise>,
    held: VecDeque<Waiting>,
    storing: InFlight<Storing>,
    /// The chunks that they change.
    storing_chunks: usize,
    loading: InFlight<Loading>,
    /// Seals that wait until nothing of their range is on its way to the disk.
    sealing: Vec<Frame>,
    session: Option<Box<Session>>,
    /// Lists for joiners, and questions of joiners that wait until nothing of an older version is on its way to the disk.
    listing: Vec<Listing>,
    asking: Vec<(Asker, FillHeader, FillAsk)>,
    works: Works,
    /// Chunks that joiners ask for and that wait for the pace.
    fetches: VecDeque<(Asker, FillHeader, ChunkId)>,
    /// How its disk is.
    room: Room,
    /// Chunks on their way here, and those that are read for others, at once.
    pace: u32,
    /// Chunks that may be asked for; below nothing: so many were that guests' writes would have waited for. `None`: there is no limit.
    allowed: Option<i64>,
    off: RulesOff,
}

impl Replica {
    /// The replica of `pg` on `disk`, from what is durable of it.
    pub fn new((pg, disk): (PgId, DiskId), durable: Durable, off: RulesOff) -> Replica {
        Replica {
            pg,
            disk,
            durable,
            configuration: None,
            raising: None,
            held: VecDeque::new(),
            storing: InFlight::default(),
            storing_chunks: 0,
            loading: InFlight::default(),
            sealing: Vec::new(),
            session: None,
            listing: Vec::new(),
            asking: Vec::new(),
            works: Works::default(),
            fetches: VecDeque::new(),
            room: Room::Ample,
            pace: session::PACE_FIRST,
            allowed: None,
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

    /// The session that it joins in.
    pub fn session(&self) -> Option<u32> {
        self.session.as_deref().map(Session::number)
    }

    /// The mark of a range, with the epoch that it belongs to.
    pub fn mark(&self, range: VolumeId) -> (Epoch, u64) {
        let of = self.durable.ranges.get(&range);
        of.map_or((Epoch::default(), 0), |of| (of.epoch, of.mark))
    }

    /// The epoch that a range is fenced with; the lowest where nobody has asked for it yet.
    pub fn epoch(&self, range: VolumeId) -> Epoch {
        self.durable.epoch(range)
    }

    /// What is left of what it was allowed; below nothing: what it took beyond that. Nothing where there is no limit.
    pub fn allowed(&self) -> Option<i64> {
        self.allowed
    }

    /// Whether it joins and lacks something, as far as it knows.
    pub fn is_being_filled(&self) -> bool {
        let session = self.session.as_deref();
        session.is_some_and(|own| !own.is_filled())
    }

    /// Whether it is being filled, or fills others: it has a share of its disk's pace.
    pub fn is_rebuilding(&self) -> bool {
        self.is_being_filled() || !self.works.is_empty() || !self.fetches.is_empty()
    }

    /// How many chunks are being read for joiners.
    pub fn fetching(&self) -> usize {
        self.works.fetching()
    }

    /// Whether it would read one more at its turn.
    pub fn waits_for_turn(&self) -> bool {
        !self.fetches.is_empty() && self.works.have_room()
    }

    /// Whether all that its store had of a chunk at any time before now is acknowledged: nothing of it is on its way to the disk, and no window has an
    /// entry of it. What is in no window was passed by a mark, or written again by a recovery. One that joins says so of nothing.
    pub fn is_quiet(&self, at: ChunkId) -> bool {
        let windows = self.durable.ranges.values();
        let mut entries = windows.flat_map(|of| of.window.entries());
        !self.has_session()
            && self.raising.is_none()
            && !self.storing.values().any(|of| of.meets(at, u16::MAX))
            && !entries.any(|entry| entry.at == at && entry.blocks != 0)
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
                self.admit(Waiting::Frame(frame), out);
            }
            Input::FillAsk { from, header, ask } => {
                self.admit(Waiting::Ask(from, header, ask), out);
            }
            Input::Configured(configuration) => self.on_configured(configuration, out),
            Input::FillAnswer {
                header,
                answer,
                payload,
            } => self.on_fill_answer(header, answer, payload, out),
            Input::Unanswered { from } => self.on_source_lost(from, out),
            Input::AskAgain => self.on_ask_again(out),
            Input::Pace(chunks) => {
                self.pace = chunks.min(session::PACE_MAX);
                self.go_on_filling(out);
                self.fetch(out);
            }
            Input::Turn => self.fetch_one(out),
            Input::Allow(chunks) => {
                self.allowed = chunks.map(i64::from);
                self.go_on_filling(out);
            }
            Input::Stored { op, ok } => match op {
                Op::Fence => self.on_fenced(ok, out),
                Op::Change { .. } => {
                    let result = if ok { Ok(()) } else { Err(Refusal::Failed) };
                    self.on_stored(op, result, out);
                }
                Op::Fill(work) => self.on_filled(work, ok, out),
                _ => debug_assert!(false, "what is read is not stored"),
            },
            Input::NoSpace { op } => self.on_stored(op, Err(Refusal::NoSpace), out),
            Input::Loaded {
                op,
                crcs,
                zeroes,
                payload,
            } => self.on_loaded(op, crcs, zeroes, payload, out),
            Input::Listed { op, chunks, more } => match op {
                Op::OwnList { session } => self.on_own_list(session, Some((chunks, more)), out),
                _ => self.on_listed(op, Some((chunks, more)), out),
            },
            Input::Fetched {
                op,
                content,
                payload,
            } => self.on_fetched(op, Some((content, payload)), out),
            Input::Looked { op, takes } => self.on_looked(op, takes, out),
            Input::Room(room) => self.room = room,
            Input::NotLoaded { op } => match op {
                Op::OwnList { session } => self.on_own_list(session, None, out),
                Op::List(_) => self.on_listed(op, None, out),
                Op::Fetch(_) => self.on_fetched(op, None, out),
                _ => {
                    if let Some(loading) = self.loading.remove(op) {
                        refuse(&loading.frame, Refusal::Failed, out);
                    }
                }
            },
        }
    }

    /// Asserts the named invariants.
    pub fn check(&self) {
        for of in self.durable.ranges.values() {
            assert!(
                of.window.entries().all(|entry| entry.epoch <= of.epoch),
                "fences-only-grow: nothing is in a window that is newer than its fence"
            );
            assert!(of.window.has_room(0, MEMBERS_MAX), "windows-are-bounded");
        }
        assert!(
            self.durable.ranges.len() <= RANGES_MAX,
            "windows-are-bounded"
        );
        // What waited for a session goes before what waits for fences.
        assert!(self.held.len() <= 2 * HELD_MAX + 1, "windows-are-bounded");
        assert!(self.sealing.len() <= SEALS_MAX, "windows-are-bounded");
        let chunks = self.storing.values().map(|storing| storing.change.chunks());
        assert_eq!(
            chunks.sum::<usize>(),
            self.storing_chunks,
            "chunks on their way to the disk are counted"
        );
        self.works.check();
        let fetches = self.fetches.len();
        assert!(fetches <= source::FETCHES_MAX, "windows-are-bounded");
        if let Some(session) = &self.session {
            session.check(self.durable.session);
        }
    }
}

fn refuse(frame: &Frame, why: Refusal, out: &mut Vec<Output>) {
    let what = frame.message.asked();
    let answer = Answer::Refused { what, why };
    say(frame.from, frame.header, answer, out);
}

/// Answers without payload.
fn say(to: Asker, header: Header, answer: Answer, out: &mut Vec<Output>) {
    out.push(Output::Answer {
        to,
        header,
        answer,
        payload: None,
    });
}
