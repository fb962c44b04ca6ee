//! The side of a replica that is in sync and fills another one. It remembers nothing of the joiner.
//!
//! It reads as many chunks at once as its disk's [pace](crate::protocol::replication::pace) allows, or one when it is its turn among those of the disk; more wait here,
//! where no write waits for them. So a joiner, which has its own number on the way, goes as slowly as the slower of the two disks.

use super::change::Storing;
use super::gates::{Waiting, not_now};
use super::work::{What, Work};
use super::{Asker, Op, Output, Replica};
use crate::base::{ChunkId, Payload};
use crate::protocol::replication::fill::{Content, FillAnswer, FillAsk, FillHeader, PAGE_MAX};
use crate::protocol::replication::rule::Rule;
use crate::protocol::replication::window::Entry;

/// Chunks that wait to be read; a joiner that asks for more is told to ask again.
pub(super) const FETCHES_MAX: usize = 256;
/// Lists that are asked of the store at once.
const LISTS_MAX: usize = 64;

/// A list on its way from the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Listing {
    pub id: u64,
    pub to: Asker,
    pub header: FillHeader,
}

impl Replica {
    pub(super) fn on_fill_ask(
        &mut self,
        from: Asker,
        header: FillHeader,
        ask: FillAsk,
        out: &mut Vec<Output>,
    ) {
        let version = self.durable.version;
        if header.pg != self.pg {
            return not_now(from, header, out);
        }
        if header.version < version && !self.off.on(Rule::R15Versions) {
            return answer(from, header, FillAnswer::Version(version), out);
        }
        let (is_over, known) = (self.has_session(), self.known_version());
        let is_older =
            (is_over && known > header.version) || self.was_emptied_after(header.version);
        if is_older && !self.off.on(Rule::R15Versions) {
            return answer(from, header, FillAnswer::Version(known), out);
        }
        // The joiner knows the configuration of that version, in which this replica is in sync.
        let takes_over = !(self.off.on(Rule::R13) || self.off.on(Rule::R15Versions));
        if (header.version > version && takes_over) || is_over {
            self.held.push_front(Waiting::Ask(from, header, ask));
            return self.raise((header.version.max(version), 0), Vec::new(), out);
        }
        // It is asked again as long as it is not answered.
        let is_again = self.asking.contains(&(from, header, ask))
            || self
                .listing
                .iter()
                .any(|of| (of.to, of.header) == (from, header))
            || self.works.are_fetching(from, &header);
        if is_again {
            return;
        }
        match ask {
            FillAsk::Fences { .. } if self.has_older_on_its_way(header.version) => {
                match self.asking.len() < LISTS_MAX {
                    true => self.asking.push((from, header, ask)),
                    false => not_now(from, header, out),
                }
            }
            FillAsk::Fences { after } => {
                let (fences, more) = self.durable.fences(after, PAGE_MAX);
                answer(from, header, FillAnswer::Fences { fences, more }, out);
            }
            FillAsk::List { since, after } => {
                if self.listing.len() >= LISTS_MAX {
                    return not_now(from, header, out);
                }
                let id = self.listing.last().map_or(1, |last| last.id + 1);
                let to = from;
                self.listing.push(Listing { id, to, header });
                let op = Op::List(id);
                out.push(Output::List { op, since, after });
            }
            FillAsk::Fetch { at } => {
                if self.fetches.len() >= FETCHES_MAX {
                    return not_now(from, header, out);
                }
                if !self.fetches.contains(&(from, header, at)) {
                    self.fetches.push_back((from, header, at));
                }
                self.fetch(out);
            }
        }
    }

    /// Reads the next chunks for joiners, as many as the pace allows.
    pub(super) fn fetch(&mut self, out: &mut Vec<Output>) {
        while self.works.fetching() < self.pace as usize && self.begin_fetch(out) {}
        self.start_works(out);
    }

    /// Reads one more, whatever the pace: it is this replica's turn.
    pub(super) fn fetch_one(&mut self, out: &mut Vec<Output>) {
        self.begin_fetch(out);
        self.start_works(out);
    }

    /// Whether one more was found to be read. Those that may not be answered any more are told so on the way.
    fn begin_fetch(&mut self, out: &mut Vec<Output>) -> bool {
        while self.works.have_room()
            && let Some((to, header, at)) = self.fetches.pop_front()
        {
            if self.is_at(&header) {
                self.works.add(at, What::Fetch { to, header });
                return true;
            }
            let version = self.durable.version;
            answer(to, header, FillAnswer::Version(version), out);
        }
        false
    }

    /// Whether a change that was admitted under an older version is not on the disk yet. Its coordinator may count it under that version, for
    /// which the joiner is not needed, so it must be among what is listed.
    fn has_older_on_its_way(&self, version: u32) -> bool {
        let is_older = |storing: &Storing| storing.version() < version;
        self.storing.values().any(is_older) && !self.off.on(Rule::R13Settled)
    }

    /// A change is on the disk: answers the joiners that waited for it.
    pub(super) fn answer_joiners(&mut self, out: &mut Vec<Output>) {
        for (from, header, ask) in std::mem::take(&mut self.asking) {
            self.admit(Waiting::Ask(from, header, ask), out);
        }
    }

    pub(super) fn on_listed(
        &mut self,
        op: Op,
        found: Option<(Vec<ChunkId>, bool)>,
        out: &mut Vec<Output>,
    ) {
        let is_it = |listing: &Listing| op == Op::List(listing.id);
        let Some(place) = self.listing.iter().position(is_it) else {
            return debug_assert!(false, "a list is read once");
        };
        let Listing { to, header, .. } = self.listing.remove(place);
        match found {
            _ if !self.is_at(&header) => {
                let version = self.durable.version;
                answer(to, header, FillAnswer::Version(version), out);
            }
            Some((chunks, more)) => answer(to, header, FillAnswer::Listed { chunks, more }, out),
            None => not_now(to, header, out),
        }
    }

    pub(super) fn on_fetched(
        &mut self,
        op: Op,
        found: Option<(Content, Option<Payload>)>,
        out: &mut Vec<Output>,
    ) {
        let Op::Fetch(id) = op else {
            return debug_assert!(false, "only a fetch is fetched");
        };
        let Some(work) = self.works.end(id) else {
            return debug_assert!(false, "a chunk is fetched once");
        };
        let Work {
            at, what, blocked, ..
        } = work;
        let What::Fetch { to, header } = what else {
            return debug_assert!(false, "a fetch ends a fetch");
        };
        match found {
            _ if !self.is_at(&header) => {
                let version = self.durable.version;
                answer(to, header, FillAnswer::Version(version), out);
            }
            Some((content, payload)) => {
                let ranges = self.durable.ranges.iter();
                let entries = ranges.flat_map(|(&range, of)| {
                    let is_of_chunk = |entry: &&Entry| entry.at == at && entry.blocks != 0;
                    let of_chunk = of.window.entries().filter(is_of_chunk);
                    of_chunk.map(move |entry| (range, *entry))
                });
                let entries = entries.collect();
                out.push(Output::FillAnswer {
                    to,
                    header,
                    answer: FillAnswer::Content {
                        at,
                        content,
                        entries,
                    },
                    payload,
                });
            }
            None => not_now(to, header, out),
        }
        self.fetch(out);
        self.unblock(blocked, out);
    }

    /// Whether what was asked under this header may be answered: both have that version (R15).
    fn is_at(&self, header: &FillHeader) -> bool {
        header.version == self.durable.version || self.off.on(Rule::R15Versions)
    }
}

fn answer(to: Asker, header: FillHeader, answer: FillAnswer, out: &mut Vec<Output>) {
    out.push(Output::FillAnswer {
        to,
        header,
        answer,
        payload: None,
    });
}
