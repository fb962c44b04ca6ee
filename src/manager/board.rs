//! The board: the catalog as this node sees it, and everyone who watches it.
//!
//! ```text
//!   Raft's entries ─────────► own ───┐                ┌──► catalog(): who reads
//!                                    ├──► the further ├──► watchers: what a node's machines are told
//!   another member's deltas ► ahead ─┘                └──► recent: what nodes that are no members are told
//! ```
//!
//! Two sources tell a node what was committed: its own place in the Raft group, and, where it has none or hears no leader, another
//! member. Both are beginnings of one log, so the one that is further is shown, and what is shown never goes back.
//!
//! Invariants:
//! - *log-before-state*: nobody sees a change of the catalog before its command is committed.
//! - *shown-never-goes-back*: the index of what is shown only grows.
//! - *no-gap*: a watcher is told every entry after the one before, or gets a snapshot.
//! - *bounded*: a watcher keeps at most [`WATCHED_MAX`] items, and `recent` what its two limits allow.
//!
//! A catalog is changed in place where nobody holds it, and copied first where a reader or a snapshot does.

use super::watch::{Index, News};
use crate::base::NodeId;
use crate::protocol::catalog::{Catalog, Command, Event, Refusal};
use crate::protocol::membership::Term;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

/// How much a watcher may be behind before it gets a snapshot instead.
pub(super) const WATCHED_MAX: usize = 1_024;
/// How many of the latest entries are kept for nodes that are no members. One that is further behind gets a snapshot.
const RECENT_MAX: usize = 1_024;
/// And at most as many bytes of them.
const RECENT_BYTES_MAX: usize = 4 << 20;

/// Whether this node leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Leads(Term),
    Follows(Option<NodeId>),
}

/// What came of a command.
pub(super) type Verdict = Result<Vec<Event>, Refusal>;

#[derive(Debug)]
struct Kept {
    index: u64,
    catalog: Arc<Catalog>,
}

impl Kept {
    fn carry_out(&mut self, index: u64, command: Option<&Command>) -> Option<Verdict> {
        self.index = index;
        // A refused command changes nothing, so the copy that is shown may be changed in place.
        command.map(|command| Arc::make_mut(&mut self.catalog).apply(command))
    }
}

/// One of the latest entries.
#[derive(Debug, Clone)]
struct Recent {
    index: u64,
    /// Nothing where the entry was no command.
    command: Option<Arc<Command>>,
    bytes: usize,
}

#[derive(Debug)]
struct Watcher {
    items: VecDeque<News>,
    /// It was too slow, or is new: what it gets next is a snapshot.
    is_lost: bool,
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    own: Kept,
    ahead: Option<Kept>,
    /// What led to what is shown, without a gap.
    recent: VecDeque<Recent>,
    recent_bytes: usize,
    watchers: BTreeMap<u64, Watcher>,
    next_watcher: u64,
    role: Role,
    /// The snapshot that nodes which are far behind are getting.
    image: Option<Image>,
}

/// A catalog as bytes.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub index: u64,
    pub bytes: Arc<Vec<u8>>,
}

/// What a node that asks for everything after an entry is told.
#[derive(Debug)]
pub(super) enum Since {
    Entries(Vec<(u64, Option<Arc<Command>>)>),
    /// They are not kept any more.
    Gone,
}

pub(super) struct Board {
    inner: Mutex<Inner>,
    /// The index of what is shown.
    shown: watch::Sender<u64>,
}

impl Inner {
    fn shown(&self) -> &Kept {
        self.ahead.as_ref().unwrap_or(&self.own)
    }

    /// Tells everyone of the entry that has just come to be shown.
    fn publish(&mut self, index: u64, command: Option<&Command>, verdict: Option<&Verdict>) {
        let command = command.map(|command| Arc::new(command.clone()));
        let bytes = command.as_ref().map_or(32, |command| weight(command));
        if self
            .recent
            .back()
            .is_some_and(|last| last.index + 1 != index)
        {
            self.forget_recent();
        }
        self.recent_bytes += bytes;
        self.recent.push_back(Recent {
            index,
            command: command.clone(),
            bytes,
        });
        while self.recent.len() > RECENT_MAX || self.recent_bytes > RECENT_BYTES_MAX {
            let Some(first) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes -= first.bytes;
        }
        let first = self.recent.front().map_or(index, |first| first.index);
        if self
            .image
            .as_ref()
            .is_some_and(|image| image.index + 1 < first)
        {
            // Nobody can go on from it any more.
            self.image = None;
        }
        let (Some(command), Some(verdict)) = (command, verdict) else {
            return;
        };
        if self.watchers.is_empty() {
            return;
        }
        let result = Arc::new(verdict.clone());
        self.tell(|| News::Applied {
            index: Index(index),
            command: Arc::clone(&command),
            result: Arc::clone(&result),
        });
    }

    fn tell(&mut self, news: impl Fn() -> News) {
        for watcher in self.watchers.values_mut() {
            if watcher.items.len() >= WATCHED_MAX {
                watcher.items.clear();
                watcher.is_lost = true;
            }
            if !watcher.is_lost {
                watcher.items.push_back(news());
            }
            watcher.wake.notify_one();
        }
    }

    /// What is shown went on without telling how.
    fn skip(&mut self) {
        self.forget_recent();
        for watcher in self.watchers.values_mut() {
            watcher.items.clear();
            watcher.is_lost = true;
            watcher.wake.notify_one();
        }
    }

    fn forget_recent(&mut self) {
        self.recent.clear();
        self.recent_bytes = 0;
    }

    fn drop_what_is_behind(&mut self) {
        if self
            .ahead
            .as_ref()
            .is_some_and(|ahead| ahead.index <= self.own.index)
        {
            self.ahead = None;
        }
    }
}

/// What an entry takes in an answer, in bytes.
fn weight(command: &Command) -> usize {
    serde_json::to_vec(command).map_or(0, |bytes| bytes.len()) + 32
}

impl Board {
    /// Shows `catalog`, as of the entry `index`.
    pub fn new(index: u64, catalog: Catalog) -> Board {
        let catalog = Arc::new(catalog);
        Board {
            inner: Mutex::new(Inner {
                own: Kept { index, catalog },
                ahead: None,
                recent: VecDeque::new(),
                recent_bytes: 0,
                watchers: BTreeMap::new(),
                next_watcher: 0,
                role: Role::Follows(None),
                image: None,
            }),
            shown: watch::Sender::new(index),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A catalog that panicked in the middle of a command must not be read any more.
        self.inner
            .lock()
            .expect("a command contradicted the catalog's invariants")
    }

    /// The catalog as it is now.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.inner().shown().catalog)
    }

    pub fn index(&self) -> u64 {
        *self.shown.borrow()
    }

    /// What this member's own log has led to.
    pub fn own(&self) -> (u64, Arc<Catalog>) {
        let inner = self.inner();
        (inner.own.index, Arc::clone(&inner.own.catalog))
    }

    /// Wakes when something more is shown.
    pub fn watch_index(&self) -> watch::Receiver<u64> {
        self.shown.subscribe()
    }

    /// An entry of this member's own log is committed.
    pub fn apply(&self, index: u64, command: Option<&Command>) -> Option<Verdict> {
        let mut inner = self.inner();
        let before = inner.shown().index;
        let verdict = inner.own.carry_out(index, command);
        inner.drop_what_is_behind();
        if index > before {
            inner.publish(index, command, verdict.as_ref());
            self.shown.send_replace(index);
        }
        verdict
    }

    /// This member's own log goes on from a snapshot.
    pub fn install(&self, index: u64, catalog: Catalog) {
        let mut inner = self.inner();
        let before = inner.shown().index;
        let catalog = Arc::new(catalog);
        inner.own = Kept { index, catalog };
        inner.drop_what_is_behind();
        if index > before {
            inner.skip();
            self.shown.send_replace(index);
        }
    }

    /// Another member says what came after what is shown here. What is no continuation is left alone.
    pub fn apply_ahead(&self, entries: &[(u64, Option<Command>)]) {
        let mut inner = self.inner();
        for (index, command) in entries {
            if *index != inner.shown().index + 1 {
                continue;
            }
            if inner.ahead.is_none() {
                let catalog = Arc::clone(&inner.own.catalog);
                let index = inner.own.index;
                inner.ahead = Some(Kept { index, catalog });
            }
            let ahead = inner.ahead.as_mut().expect("it was just made");
            let verdict = ahead.carry_out(*index, command.as_ref());
            inner.publish(*index, command.as_ref(), verdict.as_ref());
            self.shown.send_replace(*index);
        }
    }

    /// Another member's snapshot, of use only where it is further.
    pub fn install_ahead(&self, index: u64, catalog: Catalog) {
        let mut inner = self.inner();
        if index <= inner.shown().index {
            return;
        }
        let catalog = Arc::new(catalog);
        inner.ahead = Some(Kept { index, catalog });
        inner.skip();
        self.shown.send_replace(index);
    }

    /// What came after an entry, at most `bytes` of it.
    pub fn since(&self, after: u64, bytes: usize) -> Since {
        let inner = self.inner();
        if after >= inner.shown().index {
            return Since::Entries(Vec::new());
        }
        match inner.recent.front() {
            Some(first) if first.index <= after + 1 => {}
            _ => return Since::Gone,
        }
        let mut room = bytes;
        let later = inner.recent.iter().skip_while(|one| one.index <= after);
        let fits = later.take_while(|one| {
            let fits = room >= one.bytes;
            room = room.saturating_sub(one.bytes);
            fits
        });
        Since::Entries(fits.map(|one| (one.index, one.command.clone())).collect())
    }

    /// A snapshot from which an asker can go on with what is recent: the one that others are getting, if it is still of use. Blocks while
    /// one is made.
    pub fn image(&self) -> Image {
        let (index, catalog) = {
            let inner = self.inner();
            let first = inner.recent.front().map(|one| one.index);
            let is_of_use = |image: &&Image| {
                image.index == inner.shown().index
                    || first.is_some_and(|first| image.index + 1 >= first)
            };
            if let Some(image) = inner.image.as_ref().filter(is_of_use) {
                return image.clone();
            }
            (inner.shown().index, Arc::clone(&inner.shown().catalog))
        };
        let bytes = Arc::new(catalog.snapshot());
        let image = Image { index, bytes };
        self.inner().image = Some(image.clone());
        image
    }

    /// The snapshot of this entry, if it is still kept.
    pub fn image_of(&self, index: u64) -> Option<Image> {
        let inner = self.inner();
        inner
            .image
            .as_ref()
            .filter(|image| image.index == index)
            .cloned()
    }

    pub fn role(&self) -> Role {
        self.inner().role
    }

    pub fn set_role(&self, role: Role) {
        let mut inner = self.inner();
        if inner.role != role {
            inner.role = role;
            inner.tell(|| role.into());
        }
    }

    /// Another member says who leads. Whether this node does is not for others to say.
    pub fn hear_of(&self, leader: Option<NodeId>) {
        let mut inner = self.inner();
        let role = Role::Follows(leader);
        if inner.role != role && matches!(inner.role, Role::Follows(_)) {
            inner.role = role;
            inner.tell(|| role.into());
        }
    }

    /// A watcher that gets a snapshot first.
    pub fn add_watcher(&self) -> (u64, Arc<Notify>) {
        let mut inner = self.inner();
        let wake = Arc::new(Notify::new());
        let watcher = Watcher {
            items: VecDeque::new(),
            is_lost: true,
            wake: Arc::clone(&wake),
        };
        let id = inner.next_watcher;
        inner.next_watcher += 1;
        inner.watchers.insert(id, watcher);
        (id, wake)
    }

    pub fn drop_watcher(&self, id: u64) {
        self.inner().watchers.remove(&id);
    }

    /// The next that a watcher has not been told.
    pub fn next_of(&self, id: u64) -> Option<News> {
        let mut inner = self.inner();
        if std::mem::take(&mut inner.watchers.get_mut(&id)?.is_lost) {
            let role = inner.role.into();
            let snapshot = News::Snapshot {
                index: Index(inner.shown().index),
                catalog: Arc::clone(&inner.shown().catalog),
            };
            inner.watchers.get_mut(&id)?.items.extend([snapshot, role]);
        }
        inner.watchers.get_mut(&id)?.items.pop_front()
    }
}

impl From<Role> for News {
    fn from(role: Role) -> News {
        match role {
            Role::Leads(term) => News::Leads { term },
            Role::Follows(leader) => News::Follows { leader },
        }
    }
}
