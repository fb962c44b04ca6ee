//! What a joiner still has to fetch (R14): the chunks that its source stamped after it was last in sync, those that it stamped itself
//! after that, and those in its own window as the session began; and which blocks were written in this session, over which a source does not win.
//!
//! The three are merged in the order of [`Place`], page by page, so that it needs memory for two pages and a place: everything up to the place is
//! fetched, or on its way. Written blocks are remembered for what lies behind it. Where they become many, their chunks are fetched ahead of their
//! turn; so both collections are bounded. So are the windows' where those are many: until they are filled they take room that writes need.

use crate::base::ChunkId;
use crate::protocol::replication::WINDOW_MAX;
use crate::protocol::replication::fill::Place;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Chunks with written blocks that are remembered; a write to one more is put off.
const WRITTEN_MAX: usize = 8 * 1024;
/// From so many on, they are fetched ahead of their turn.
const AHEAD_FROM: usize = WRITTEN_MAX / 2;
/// Chunks that were fetched ahead of their turn.
const AHEAD_MAX: usize = 64 * 1024;

/// A list that comes page by page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct List {
    page: VecDeque<Place>,
    /// The last chunk that was listed.
    last: Option<ChunkId>,
    more: bool,
    asked: bool,
}

impl List {
    /// A list of which nothing is known, or one that is known to be empty.
    fn new(more: bool) -> List {
        List {
            page: VecDeque::new(),
            last: None,
            more,
            asked: false,
        }
    }

    /// Whether the next page is wanted, and from behind which chunk on. Asked once.
    pub fn wants_page(&mut self) -> Option<Option<ChunkId>> {
        let wants = self.page.is_empty() && self.more && !self.asked;
        self.asked |= wants;
        wants.then_some(self.last)
    }

    /// The next page has come.
    pub fn take_page(&mut self, chunks: &[ChunkId], more: bool) {
        self.asked = false;
        // A page that is empty is the last one, whatever it says.
        self.more = more && !chunks.is_empty();
        self.last = chunks.last().copied().or(self.last);
        self.page.extend(chunks.iter().map(|&at| Place::from(at)));
    }

    fn is_known(&self) -> bool {
        !self.page.is_empty() || !self.more
    }

    fn pass(&mut self, place: Place) {
        while self.page.front().is_some_and(|first| *first <= place) {
            self.page.pop_front();
        }
    }
}

/// What is left to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Agenda {
    pub theirs: List,
    pub own: List,
    /// What was in windows as the session began.
    before: BTreeSet<Place>,
    /// Up to here everything was taken up.
    reached: Option<Place>,
    ahead: BTreeSet<Place>,
    /// Behind `reached`, and not ahead.
    written: BTreeMap<Place, u16>,
}

impl Agenda {
    /// `before`: what was in windows as the session began; `own`: whether its own chunks are asked for.
    pub fn new(before: impl Iterator<Item = ChunkId>, own: bool) -> Agenda {
        Agenda {
            theirs: List::new(true),
            own: List::new(own),
            before: before.map(Place::from).collect(),
            reached: None,
            ahead: BTreeSet::new(),
            written: BTreeMap::new(),
        }
    }

    /// Blocks of a chunk are written in this session. Whether that could be noted: too many are, and it is put off.
    pub fn note_written(&mut self, at: ChunkId, blocks: u16) -> bool {
        let place = Place::from(at);
        if self.was_taken_up(place) {
            return true;
        }
        if self.written.len() >= WRITTEN_MAX && !self.written.contains_key(&place) {
            return false;
        }
        *self.written.entry(place).or_default() |= blocks;
        true
    }

    /// The next chunk to fetch, and its blocks that were written; `None`: a page is missing, or there is nothing left.
    pub fn next(&mut self) -> Option<(ChunkId, u16)> {
        if self.before.len() >= WINDOW_MAX && self.ahead.len() < AHEAD_MAX {
            let place = self.before.pop_first()?;
            self.ahead.insert(place);
            return Some((place.into(), self.written.remove(&place).unwrap_or(0)));
        }
        if self.written.len() >= AHEAD_FROM && self.ahead.len() < AHEAD_MAX {
            let (place, blocks) = self.written.pop_first()?;
            self.ahead.insert(place);
            return Some((place.into(), blocks));
        }
        while self.theirs.is_known() && self.own.is_known() {
            let heads = [
                self.theirs.page.front().copied(),
                self.own.page.front().copied(),
                self.before.first().copied(),
            ];
            let place = heads.into_iter().flatten().min()?;
            self.theirs.pass(place);
            self.own.pass(place);
            self.before.remove(&place);
            self.reached = Some(place);
            let was_ahead = self.ahead.contains(&place);
            while self.ahead.first().is_some_and(|first| *first <= place) {
                self.ahead.pop_first();
            }
            while self
                .written
                .first_key_value()
                .is_some_and(|(first, _)| *first < place)
            {
                self.written.pop_first();
            }
            let blocks = self.written.remove(&place).unwrap_or(0);
            if !was_ahead {
                return Some((place.into(), blocks));
            }
        }
        None
    }

    /// Whether guests' writes would wait, or wait soon, for what is fetched next: what was noted of them becomes too much.
    pub fn is_pressed(&self) -> bool {
        self.before.len() >= WINDOW_MAX || self.written.len() >= AHEAD_FROM
    }

    /// Whether everything was taken up.
    pub fn is_empty(&self) -> bool {
        let is_out = |list: &List| list.page.is_empty() && !list.more;
        is_out(&self.theirs) && is_out(&self.own) && self.before.is_empty()
    }

    /// Whether a chunk needs no more than what is on its way.
    fn was_taken_up(&self, place: Place) -> bool {
        self.is_empty()
            || self.reached.is_some_and(|reached| place <= reached)
            || self.ahead.contains(&place)
    }
}
