//! Joining: the replica takes its source's fences over (R13), then what coordinators send, and fetches what it lacks behind that.
//!
//! A session lives in memory. Its number is durable from the moment that it takes anything, so that a restart knows that it was in one: which blocks
//! were written in it is lost then, so it cannot go on (R16).
//!
//! The source may change at any time. What was fetched from one that was in sync stays good: all that was acknowledged by then was
//! in it, all that is acknowledged later comes here as well, and what was neither came with its entry of the window, so that a new owner finds it.

use super::agenda::Agenda;
use super::work::{Filling, What, Work};
use super::{Frame, HELD_MAX, Op, Output, RANGES_MAX, Replica, refuse};
use crate::base::{ChunkId, DiskId, Epoch, Payload, Stamp, VolumeId};
use crate::protocol::replication::configuration::{Configuration, Role};
use crate::protocol::replication::fill::{Content, FillAnswer, FillAsk, FillHeader};
use crate::protocol::replication::message::{Change, Refusal};
use crate::protocol::replication::rule::Rule;
use crate::protocol::replication::window::Entry;
use std::collections::{BTreeMap, VecDeque};

/// Chunks on their way here at once, before the driver has measured anything: 256 KiB.
pub(super) const PACE_FIRST: u32 = 4;
/// The most: 4 MiB.
pub(super) const PACE_MAX: u32 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// The fences of a source are on their way.
    Asking,
    /// All of them have come, and are to be made durable with the session.
    Ready,
    /// It takes changes, and fetches.
    Filling,
    /// Nothing is left to fetch.
    Filled,
}

/// A question to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Asked {
    ask: FillAsk,
    to: DiskId,
    version: u32,
}

/// A chunk on its way here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Fetching {
    at: ChunkId,
    /// Blocks that were written in this session.
    written: u16,
}

/// One joining. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Session {
    number: u32,
    /// The last version under which it was in sync, as the configuration says.
    since: u32,
    phase: Phase,
    /// Frames that wait for it to begin.
    held: VecDeque<Frame>,
    fences: Vec<(VolumeId, Epoch)>,
    source: Option<DiskId>,
    /// Sources that did not answer, so that the next is another one.
    sources_lost: usize,
    /// Sources that have said *not now* since everything was asked again last.
    not_now: usize,
    /// What was asked and is not answered, by its number.
    asked: BTreeMap<u64, Asked>,
    last_id: u64,
    agenda: Agenda,
    /// Chunks that are asked for, or on their way to the disk, by the number of the question.
    fetching: BTreeMap<u64, Fetching>,
    /// Ranges that had entries in their windows as it began.
    ranges_before: Vec<VolumeId>,
}

impl Session {
    pub fn new(number: u32) -> Session {
        Session {
            number,
            since: 0,
            phase: Phase::Asking,
            held: VecDeque::new(),
            fences: Vec::new(),
            source: None,
            sources_lost: 0,
            not_now: 0,
            asked: BTreeMap::new(),
            last_id: 0,
            agenda: Agenda::new(std::iter::empty(), false),
            fetching: BTreeMap::new(),
            ranges_before: Vec::new(),
        }
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether it has begun, and takes changes.
    pub fn takes(&self) -> bool {
        matches!(self.phase, Phase::Filling | Phase::Filled)
    }

    /// Whether it lacks nothing.
    pub fn is_filled(&self) -> bool {
        self.phase == Phase::Filled
    }

    /// Whether one more frame may wait for it to begin.
    pub fn has_room(&self) -> bool {
        self.held.len() < HELD_MAX
    }

    /// Keeps a frame until it begins; there is room.
    pub fn hold(&mut self, frame: Frame) {
        self.held.push_back(frame);
    }

    pub fn take_held(&mut self) -> VecDeque<Frame> {
        std::mem::take(&mut self.held)
    }

    fn note_written(&mut self, at: ChunkId, blocks: u16) -> bool {
        let mut fetching = self.fetching.values_mut();
        match fetching.find(|fetching| fetching.at == at) {
            Some(fetching) => {
                fetching.written |= blocks;
                true
            }
            None => self.agenda.note_written(at, blocks),
        }
    }

    /// Asserts what holds in every session; `durable` is the one on disk.
    pub fn check(&self, durable: u32) {
        assert!(
            !self.takes() || durable == self.number,
            "a session takes nothing before it is durable"
        );
        assert!(self.held.len() <= HELD_MAX, "windows-are-bounded");
        assert!(
            self.phase != Phase::Filled || (self.fetching.is_empty() && self.agenda.is_empty()),
            "what is filled lacks nothing"
        );
    }
}

impl Replica {
    /// Whether a source's answer to this would be looked at.
    #[cfg(all(test, feature = "sim"))]
    pub(in crate::protocol::replication) fn waits_for(&self, header: &FillHeader) -> bool {
        let own = self.session.as_ref();
        own.is_some_and(|own| own.number == header.session && own.asked.contains_key(&header.id))
    }

    pub(super) fn on_configured(&mut self, configuration: Configuration, out: &mut Vec<Output>) {
        let known = self
            .configuration
            .as_ref()
            .map_or(0, Configuration::version);
        // What it has answered under is newer than what is told only now: it may have been promoted since.
        let raised = self.raising.as_ref().map_or(0, |raise| raise.version);
        let answered = raised.max(self.durable.version);
        if configuration.version() <= known || configuration.version() < answered {
            return;
        }
        let role = configuration.role(self.disk);
        self.configuration = Some(configuration);
        let own = self.session.as_ref().map(|own| own.number());
        match role {
            Some(Role::Joining { session, .. }) if own == Some(session) => {
                // A source answers under its version, and both must have the same.
                self.ask_under_the_version(out);
            }
            Some(Role::Joining { session, .. })
                if self.durable.session == session && !self.off.on(Rule::R16) =>
            {
                self.end_session(out);
                out.push(Output::Lost { session });
            }
            Some(Role::Joining { session, .. }) => {
                self.end_session(out);
                self.session = Some(Box::new(Session::new(session)));
            }
            Some(Role::InSync) => {}
            Some(Role::Out { .. }) | None => self.end_session(out),
        }
        self.begin_session(out);
    }

    /// The role that the newest configuration gives this replica.
    fn role(&self) -> Option<(u32, Role)> {
        let configuration = self.configuration.as_ref()?;
        Some((configuration.version(), configuration.role(self.disk)?))
    }

    /// Ends a session that came to nothing, or is over.
    fn end_session(&mut self, out: &mut Vec<Output>) {
        let Some(mut own) = self.session.take() else {
            return;
        };
        for frame in own.take_held() {
            refuse(&frame, Refusal::Session, out);
        }
    }

    /// Goes on to what the newest configuration says, as far as it can: begins a session, or ends one that was promoted.
    pub(super) fn begin_session(&mut self, out: &mut Vec<Output>) {
        if self.raising.is_some() {
            return; // and once more when the fences are raised
        }
        let Some((version, role)) = self.role() else {
            return;
        };
        if self
            .session
            .as_ref()
            .is_some_and(|own| own.number > version)
        {
            return; // a frame has named a session that is newer than what is known
        }
        match role {
            Role::InSync if self.session.as_ref().is_some_and(|own| !own.is_filled()) => {
                // As with a frame that says so.
                if let Some(own) = &self.session {
                    let session = own.number;
                    out.push(Output::Lost { session });
                }
            }
            Role::InSync if self.has_session() && version >= self.durable.version => {
                self.raise((version, 0), Vec::new(), out);
            }
            Role::Joining { session, since } => {
                let Some(own) = self.session.as_mut().filter(|own| own.number == session) else {
                    return;
                };
                own.since = since;
                match own.phase {
                    Phase::Asking if self.off.on(Rule::R13) => own.phase = Phase::Ready,
                    Phase::Asking if own.asked.is_empty() => {
                        let after = own.fences.last().map(|last| last.0);
                        self.ask(FillAsk::Fences { after }, version, out);
                        return;
                    }
                    Phase::Asking => return,
                    // What was taken before it, and what an earlier session fetched, is on the disk first.
                    Phase::Ready if !self.storing.is_empty() || self.works.are_filling() => return,
                    Phase::Ready => {}
                    Phase::Filling | Phase::Filled if version > self.durable.version => {
                        return self.raise((version, session), Vec::new(), out);
                    }
                    Phase::Filled if version == self.durable.version => {
                        return out.push(Output::Filled { session, version });
                    }
                    Phase::Filling | Phase::Filled => return self.go_on_filling(out),
                }
                let fences = own.fences.clone();
                self.raise((version.max(self.durable.version), session), fences, out);
            }
            _ => {}
        }
    }

    /// Fences are durable, and with them that this session, or none, is under way.
    pub(super) fn session_fenced(&mut self, (version, session): (u32, u32), out: &mut Vec<Output>) {
        match &mut self.session {
            // In sync under a version since it began: it was promoted.
            Some(own) if session == 0 && version >= own.number => {
                debug_assert!(own.is_filled(), "a session that is promoted lacks nothing");
                self.end_session(out);
            }
            Some(own) if own.number == session && own.phase == Phase::Ready => {
                own.phase = Phase::Filling;
                let mut before = Vec::new();
                for (&range, of) in &mut self.durable.ranges {
                    of.window.begin_session();
                    if !of.window.before().is_empty() {
                        own.ranges_before.push(range);
                        before.extend(of.window.before().iter().map(|entry| entry.at));
                    }
                }
                if self.off.on(Rule::R14Window) {
                    before.clear();
                }
                own.agenda = Agenda::new(before.into_iter(), !self.off.on(Rule::R14Own));
                own.fences.clear();
                // They came before anything that came since.
                for frame in own.take_held().into_iter().rev() {
                    self.held.push_front(super::gates::Waiting::Frame(frame));
                }
            }
            // A source answers under the present version only.
            Some(own) if own.number == session && own.takes() => return self.ask_again(out),
            _ => {}
        }
        self.begin_session(out);
    }

    /// Whether a change may be taken: in a session, what it writes has to be noted.
    pub(super) fn note_written(&mut self, at: ChunkId, change: &Change) -> bool {
        let Some(own) = &mut self.session else {
            return true;
        };
        let mut places = change.places(at);
        places.all(|(at, blocks)| own.note_written(at, blocks))
    }

    /// Asks for as much as may be on its way at once.
    pub(super) fn go_on_filling(&mut self, out: &mut Vec<Output>) {
        let version = self.durable.version;
        let known = self
            .configuration
            .as_ref()
            .map_or(0, Configuration::version);
        let Some(own) = &mut self.session else {
            return;
        };
        if own.phase != Phase::Filling {
            return;
        }
        // A source is one that is in sync under this very version.
        if known != version {
            if known < version {
                out.push(Output::Learn { version });
            }
            return;
        }
        let (since, session) = (own.since, own.number);
        let mut asks = Vec::new();
        while own.fetching.len() + asks.len() < self.pace.max(1) as usize
            && (self.allowed.is_none_or(|chunks| chunks > 0) || own.agenda.is_pressed())
            && let Some((at, written)) = own.agenda.next()
        {
            asks.push((at, written));
            self.allowed = self.allowed.map(|chunks| chunks - 1);
        }
        let page = own.agenda.theirs.wants_page();
        let own_page = own.agenda.own.wants_page();
        for (at, written) in asks {
            let id = self.ask(FillAsk::Fetch { at }, version, out);
            if let (Some(own), Some(id)) = (&mut self.session, id) {
                own.fetching.insert(id, Fetching { at, written });
            }
        }
        if let Some(after) = page {
            self.ask(FillAsk::List { since, after }, version, out);
        }
        if let Some(after) = own_page {
            let op = Op::OwnList { session };
            out.push(Output::List { op, since, after });
        }
        self.end_filling(out);
    }

    /// Tells the manager when nothing is left to fetch.
    fn end_filling(&mut self, out: &mut Vec<Output>) {
        let version = self.durable.version;
        if let Some(own) = &mut self.session
            && own.phase == Phase::Filling
            && own.agenda.is_empty()
            && (own.fetching.is_empty() || self.off.on(Rule::Filled))
        {
            own.phase = Phase::Filled;
            let session = own.number;
            out.push(Output::Filled { session, version });
        }
    }

    /// Asks the source; the number of the question.
    fn ask(&mut self, ask: FillAsk, version: u32, out: &mut Vec<Output>) -> Option<u64> {
        let to = self.source()?;
        let own = self.session.as_mut()?;
        own.last_id += 1;
        let id = own.last_id;
        self.send_ask(id, Asked { ask, to, version }, out);
        Some(id)
    }

    fn send_ask(&mut self, id: u64, asked: Asked, out: &mut Vec<Output>) {
        let Some(own) = &mut self.session else {
            return;
        };
        own.asked.insert(id, asked);
        let Asked { ask, to, version } = asked;
        let header = FillHeader {
            pg: self.pg,
            version,
            session: own.number,
            id,
        };
        out.push(Output::FillAsk { to, header, ask });
    }

    /// Whom it asks now.
    fn source(&mut self) -> Option<DiskId> {
        let configuration = self.configuration.as_ref()?;
        let own = self.session.as_mut()?;
        let count = configuration.in_sync().count();
        let is_good = |source: &DiskId| configuration.role(*source) == Some(Role::InSync);
        if own.source.filter(is_good).is_none() {
            // Each joiner begins with another one, so that a rebuild is many to many.
            let first = self.disk.0 as usize + own.sources_lost;
            own.source = configuration.in_sync().nth(first % count.max(1));
        }
        debug_assert!(
            own.source.is_some(),
            "a configuration has a replica that is in sync"
        );
        own.source
    }

    /// Everything that is not answered is asked again: of the same source under the same number, so that it knows what it has been asked already, and
    /// what it answers to the first asking counts. Else a source that is slower than the driver is patient would read for nobody.
    pub(super) fn ask_again(&mut self, out: &mut Vec<Output>) {
        let Some(own) = &mut self.session else {
            return self.begin_session(out);
        };
        let (version, known) = (
            self.durable.version,
            self.configuration
                .as_ref()
                .map_or(0, Configuration::version),
        );
        let asked = std::mem::take(&mut own.asked);
        if own.phase == Phase::Asking || known != version {
            // With the fences, or the version, that the configuration says first. What is fetched is asked for then.
            if own.phase != Phase::Asking {
                own.asked = asked;
            }
            return self.begin_session(out);
        }
        let source = self.source();
        for (id, asked) in asked {
            if asked.version == version && source == Some(asked.to) {
                self.send_ask(id, asked, out);
                continue;
            }
            let own = self.session.as_mut();
            let fetching = own.and_then(|own| own.fetching.remove(&id));
            let anew = self.ask(asked.ask, version, out);
            if let (Some(own), Some(id), Some(fetching)) = (&mut self.session, anew, fetching) {
                own.fetching.insert(id, fetching);
            }
        }
        self.begin_session(out);
    }

    /// The version has changed, and a source answers under the present one only.
    fn ask_under_the_version(&mut self, out: &mut Vec<Output>) {
        if let Some(own) = &mut self.session
            && own.phase == Phase::Asking
        {
            own.asked.clear();
            own.fences.clear();
        }
        self.begin_session(out);
    }

    pub(super) fn on_source_lost(&mut self, from: DiskId, out: &mut Vec<Output>) {
        if let Some(own) = &mut self.session
            && own.source == Some(from)
        {
            own.source = None;
            own.sources_lost += 1;
            self.ask_again(out);
        }
    }

    /// A source cannot answer, for now or for ever: each other one is asked once, and then it waits until it is told to ask again.
    fn on_not_now(&mut self, out: &mut Vec<Output>) {
        let sources = self
            .configuration
            .as_ref()
            .map_or(0, |of| of.in_sync().count());
        let Some(own) = &mut self.session else {
            return;
        };
        own.not_now += 1;
        if own.not_now < sources {
            own.source = None;
            own.sources_lost += 1;
            self.ask_again(out);
        }
    }

    /// Time has passed: everything that is not answered is asked again.
    pub(super) fn on_ask_again(&mut self, out: &mut Vec<Output>) {
        if let Some(own) = &mut self.session {
            own.not_now = 0;
        }
        self.ask_again(out);
    }

    pub(super) fn on_fill_answer(
        &mut self,
        header: FillHeader,
        answer: FillAnswer,
        payload: Option<Payload>,
        out: &mut Vec<Output>,
    ) {
        let version = self.durable.version;
        let Some(own) = self
            .session
            .as_mut()
            .filter(|own| own.number == header.session && header.pg == self.pg)
        else {
            return;
        };
        let is_equal = header.version == version || self.off.on(Rule::R15Versions);
        let Some(&Asked { ask, .. }) = own.asked.get(&header.id) else {
            return; // another one was asked since, or its answer came twice
        };
        match (ask, answer) {
            (FillAsk::Fences { .. }, FillAnswer::Fences { fences, more }) => {
                own.asked.remove(&header.id);
                let last = own.fences.last().map(|(range, _)| *range);
                let is_behind = fences.first().map(|(range, _)| Some(*range)) > Some(last);
                if own.fences.len() + fences.len() > RANGES_MAX || !(is_behind || fences.is_empty())
                {
                    return; // no source of ours says so: it is asked again
                }
                let more = more && !fences.is_empty();
                own.fences.extend(fences);
                if !more {
                    own.phase = Phase::Ready;
                }
                self.begin_session(out);
            }
            (FillAsk::List { .. }, FillAnswer::Listed { chunks, more }) if is_equal => {
                own.asked.remove(&header.id);
                let more = more && !self.off.on(Rule::Pages);
                own.agenda.theirs.take_page(&chunks, more);
                self.go_on_filling(out);
            }
            (
                FillAsk::Fetch { at },
                FillAnswer::Content {
                    at: of,
                    content,
                    entries,
                },
            ) if is_equal && at == of && (content.data == 0 || payload.is_some()) => {
                let Some(blocks) = self.blocks_to_fill(header.id) else {
                    return debug_assert!(false, "what is asked for is being fetched");
                };
                if !self.entries_fit((at, blocks), &entries) {
                    return; // it is asked again, when marks have made room
                }
                if let Some(own) = &mut self.session {
                    own.asked.remove(&header.id);
                }
                self.fill(header.id, (at, blocks), content, entries, payload, out);
            }
            (_, FillAnswer::Version(version)) => {
                // Asked again when the configuration of that version, or a later one, is known.
                out.push(Output::Learn { version });
            }
            (_, FillAnswer::NotNow) => self.on_not_now(out),
            // Under an older version than it has by now, of another chunk, or it cannot be: asked again later.
            _ => {}
        }
    }

    /// The blocks of a chunk on its way here that a source wins over: those that were not written in this session.
    fn blocks_to_fill(&self, id: u64) -> Option<u16> {
        let fetching = self.session.as_ref()?.fetching.get(&id)?;
        match self.off.on(Rule::R14Written) {
            true => Some(u16::MAX),
            false => Some(!fetching.written),
        }
    }

    /// Whether entries that come with a chunk are of ranges and epochs that this replica is fenced with, as all of its source's are (R13), and have
    /// room in their windows.
    fn entries_fit(&self, chunk: (ChunkId, u16), entries: &[(VolumeId, Entry)]) -> bool {
        let is_fenced = |(range, entry): &(VolumeId, Entry)| {
            let known = self.durable.ranges.get(range);
            known.is_some_and(|of| entry.epoch <= of.epoch)
        };
        let has_room = |of_range: &[(VolumeId, Entry)]| {
            let range = of_range[0].0;
            let on_its_way = self.storing_chunks + self.works.entries_of(range);
            let known = self.durable.ranges.get(&range);
            known.is_some_and(|of| {
                of.window
                    .has_room_for_fill(chunk, on_its_way + entries.len())
            })
        };
        entries.iter().all(is_fenced) && entries.chunk_by(|a, b| a.0 == b.0).all(has_room)
    }

    /// A chunk has come: these blocks of it are what the source says.
    fn fill(
        &mut self,
        id: u64,
        (at, blocks): (ChunkId, u16),
        content: Content,
        mut entries: Vec<(VolumeId, Entry)>,
        payload: Option<Payload>,
        out: &mut Vec<Output>,
    ) {
        for (_, entry) in &mut entries {
            entry.blocks &= blocks;
        }
        if self.off.on(Rule::R15Entries) {
            entries.clear();
        }
        let stamp = match self.off.on(Rule::R15Stamps) {
            true => Stamp::default(),
            false => content.stamp,
        };
        let content = Content { stamp, ..content };
        let filling = Filling {
            id,
            blocks,
            content,
            entries,
            payload,
        };
        self.works.add(at, What::Fill(filling));
        self.start_works(out);
    }

    pub(super) fn on_filled(&mut self, work: u64, ok: bool, out: &mut Vec<Output>) {
        let Some(work) = self.works.end(work) else {
            return debug_assert!(false, "a chunk is filled once");
        };
        let Work {
            at, what, blocked, ..
        } = work;
        let What::Fill(filling) = what else {
            return debug_assert!(false, "a fill ends a fill");
        };
        if ok {
            let before = self.session.iter().flat_map(|own| &own.ranges_before);
            for &range in before {
                let window = &mut self.durable.range(range).window;
                window.filled(at, filling.blocks);
            }
            for (range, entry) in filling.entries {
                self.durable.range(range).window.adopt(entry);
            }
        }
        if let Some(own) = &mut self.session {
            match ok {
                true => drop(own.fetching.remove(&filling.id)),
                // It stays among what is fetched, and takes one of `pace` places there, until the manager has ended this session: so nobody takes that for filled.
                false => {
                    let session = own.number;
                    out.push(Output::Lost { session });
                }
            }
        }
        self.unblock(blocked, out);
        self.answer_seals(out);
        self.begin_session(out);
    }

    pub(super) fn on_own_list(
        &mut self,
        session: u32,
        found: Option<(Vec<ChunkId>, bool)>,
        out: &mut Vec<Output>,
    ) {
        let Some(own) = self.session.as_mut().filter(|own| own.number == session) else {
            return; // of a session that has ended
        };
        match found {
            Some((chunks, more)) => own.agenda.own.take_page(&chunks, more),
            None => return out.push(Output::Lost { session }),
        }
        self.go_on_filling(out);
    }
}
