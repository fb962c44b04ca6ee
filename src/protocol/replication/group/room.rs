//! A change that may take new space, where the disk of a member is low: asked about first, so that it is refused on all members or on none.
//!
//! Every member is asked, and answers for its disk as it is by now. One that is in sync says whether the chunk would take space; one that joins
//! cannot tell, because it may lack what the others have. All of them in sync hold the same, so if any says *space*, and any disk is still
//! low, the change is refused before it has a number: nobody has heard of it, and it never happens. Otherwise it goes out like any other.
//!
//! What was asked does not go stale: a range has one writer, so a chunk that holds something keeps its space until that writer discards
//! it, and its caller has no two overlapping changes in flight.

use super::{Failure, Group, Output, Tag};
use crate::base::{ChunkId, DiskId, Payload};
use crate::protocol::replication::message::{Change, Message};
use crate::protocol::replication::room::{Room, Takes};
use crate::protocol::replication::rule::Rule;

/// A change that waits for its members to say whether it fits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Fitting {
    pub tag: Tag,
    at: ChunkId,
    change: Change,
    payload: Option<Payload>,
    /// Who has answered under the present version: a bit for each place in the configuration.
    heard: u8,
    /// What they have said: the most that it takes, and the lowest disk.
    takes: Takes,
    room: Room,
}

impl Fitting {
    /// Whether this member, by its bit, has not answered.
    pub fn lacks(&self, bit: u8) -> bool {
        self.heard & bit == 0
    }
}

impl Group {
    /// Whether a change has to be asked about before it is sent.
    pub(super) fn may_not_fit(&self, change: &Change) -> bool {
        !self.low.is_empty() && matches!(change, Change::Write { .. })
    }

    /// Asks every member whether a change fits.
    pub(super) fn ask_whether_it_fits(
        &mut self,
        tag: Tag,
        (at, change): (ChunkId, Change),
        payload: Option<Payload>,
        out: &mut Vec<Output>,
    ) {
        self.fits += 1;
        let id = self.fits;
        let fitting = Fitting {
            tag,
            at,
            change,
            payload,
            heard: 0,
            takes: Takes::Nothing,
            room: Room::Ample,
        };
        self.fitting.push(id, fitting);
        for to in self.writers() {
            self.send(to, Message::Fits { id, at }, None, out);
        }
    }

    /// Asks a member again what it has not answered.
    pub(super) fn ask_again_whether_they_fit(&self, to: DiskId, out: &mut Vec<Output>) {
        let bit = self.configuration.bit(to);
        for (id, fitting) in self.fitting.iter() {
            if fitting.lacks(bit) {
                let at = fitting.at;
                self.send(to, Message::Fits { id, at }, None, out);
            }
        }
    }

    /// There are other members: what the former ones said counts no more.
    pub(super) fn ask_anew_whether_they_fit(&mut self, out: &mut Vec<Output>) {
        for (_, fitting) in self.fitting.iter_mut_until(u64::MAX) {
            fitting.heard = 0;
            (fitting.takes, fitting.room) = (Takes::Nothing, Room::Ample);
        }
        for to in self.writers() {
            self.ask_again_whether_they_fit(to, out);
        }
    }

    /// Nothing is said of the disks of those who are members no more.
    pub(super) fn forget_room_of_others(&mut self) {
        let configuration = &self.configuration;
        let is_member = |disk: &DiskId| configuration.writers().any(|one| one.disk == *disk);
        self.low.retain(is_member);
    }

    /// A member has said how its disk is, or somebody who sees the disk.
    pub fn heard_of_room(&mut self, disk: DiskId, room: Room) {
        if room == Room::Ample && self.low.is_empty() {
            return;
        }
        let place = self.low.iter().position(|low| *low == disk);
        match (room, place) {
            (Room::Low, None) if self.writers().any(|member| member == disk) => {
                self.low.push(disk);
            }
            (Room::Ample, Some(place)) => drop(self.low.swap_remove(place)),
            _ => {}
        }
    }

    pub(super) fn on_fits(
        &mut self,
        from: DiskId,
        id: u64,
        (takes, room): (Takes, Room),
        out: &mut Vec<Output>,
    ) {
        let needs = self.writers_mask();
        let bit = self.configuration.bit(from);
        if bit & needs == 0 {
            return; // nobody who is asked
        }
        let Some(fitting) = self.fitting.get_mut(id) else {
            return; // it was decided before: an answer that came twice
        };
        fitting.heard |= bit;
        fitting.takes = fitting.takes.max(takes);
        // Not what else is known of its disk: a late duplicate may have told of a time before this was asked.
        fitting.room = fitting.room.max(room);
        if fitting.heard & needs != needs {
            return;
        }
        let Some(fitting) = self.fitting.remove(id) else {
            return;
        };
        let Fitting {
            tag,
            at,
            change,
            payload,
            takes,
            room,
            ..
        } = fitting;
        let takes_space = takes == Takes::Space || self.off.on(Rule::Overwrites);
        if !takes_space || room == Room::Ample {
            return self.change(Some(tag), at, change, payload, out);
        }
        if self.off.on(Rule::Unsent) {
            self.change(None, at, change, payload, out);
        }
        let why = Failure::NoSpace;
        out.push(Output::Failed { tag, why });
    }
}
