//! What was read, and is covered by no lease: the members confirm that the range is still this owner's (R18).
//!
//! ```text
//!   value in hand ──► next ──no round──► round: Confirm to every member ──all have answered──► handed out
//!                              ▲                        │
//!                              └──── next, if any ◄─────┘        a change of version asks all of them anew
//! ```
//!
//! # Why it is sound
//! A member confirms where its fences allow the frame (R1): it has taken no higher epoch of the range and no higher version of the PG, durably
//! or by what the manager told it. Let this owner have epoch e and version v, and let another one, of a higher epoch, have acknowledged a
//! write or served a read before the confirmations were asked for. It did so in some version w, and had every in-sync member of w sealed before (R5, R8).
//! If one of those is a member under v, it has the higher epoch, and refuses. If none is, each of them has joined after v, and the first that did was handed
//! its fences by a source that took over the joining version first (R13). That source was a member under v, and refuses, having a
//! version above v. So where all members under v confirm, nobody had served under a higher epoch before they were asked. The value was in hand by then: it
//! was the newest when it was read, and is returned.
//!
//! *Which members.* All in the write set, those that join too. It is not enough that the in-sync ones confirm: a joiner can be promoted, and be the only
//! one that is left in sync, while the source that filled it before hears of neither. Then the next owner seals that joiner alone, and
//! the old source would confirm what is long over. So nobody may be left out; a member that is silent is accused, and when the manager
//! has taken it out the round goes on under the new version. With no majority to take it out, the read waits.
//!
//! *When.* A confirmation that was asked for before the value was there says nothing of it: what comes amid a round waits for the next one. One
//! round serves all that wait, so reads without a lease cost one round trip more each, and one frame a member for many.
//!
//! Writes need none of this: a write is acknowledged when every member has it durable under (e, v), which says the same.
//!
//! It does not know leases: who asks does.

use super::{Failure, Group, Output, Phase, Tag};
use crate::base::DiskId;
use crate::protocol::replication::message::Message;
use crate::protocol::replication::rule::Rule;
use crate::protocol::replication::{FLYING_MAX, Role};

/// What waits to be confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Confirms {
    /// The number of the round that runs, or ran last.
    pub round: u64,
    /// A bit for each member that is asked in the round, and has not answered; 0 where no round runs.
    missing: u8,
    /// What the round serves.
    now: Vec<Tag>,
    /// What came since it began.
    next: Vec<Tag>,
}

impl Confirms {
    pub fn len(&self) -> usize {
        self.now.len() + self.next.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this member's answer is waited for.
    pub fn waits_for(&self, bit: u8) -> bool {
        self.missing & bit != 0
    }

    pub fn into_tags(self) -> impl Iterator<Item = Tag> {
        self.now.into_iter().chain(self.next)
    }

    pub fn check(&self) {
        assert_eq!(
            self.missing != 0,
            !self.now.is_empty(),
            "a round serves something"
        );
        assert!(
            !self.now.is_empty() || self.next.is_empty(),
            "nothing waits for a round that nobody began"
        );
        assert!(self.len() <= FLYING_MAX, "windows-are-bounded");
    }
}

impl Group {
    /// The value of a read is in hand.
    pub(super) fn confirm(&mut self, tag: Tag, out: &mut Vec<Output>) {
        if self.phase != Phase::Serving {
            let why = Failure::Fenced;
            return out.push(Output::Failed { tag, why });
        }
        debug_assert!(
            self.confirms.len() < FLYING_MAX,
            "a read that begins has a place here"
        );
        match self.confirms.now.is_empty() || self.off.on(Rule::R18After) {
            true => self.confirms.now.push(tag),
            false => self.confirms.next.push(tag),
        }
        if self.confirms.missing == 0 {
            self.begin_round(out);
        }
    }

    fn begin_round(&mut self, out: &mut Vec<Output>) {
        self.confirms.round += 1;
        self.confirm_again(out);
    }

    /// Asks all members under the present version, if something waits.
    pub(super) fn confirm_again(&mut self, out: &mut Vec<Output>) {
        if self.confirms.now.is_empty() {
            return;
        }
        let id = self.confirms.round;
        let is_asked = |role: Role| role == Role::InSync || !self.off.on(Rule::R18Joining);
        let members = self.configuration.writers();
        let members = members.filter(|member| is_asked(member.role));
        let members: Vec<DiskId> = members.map(|member| member.disk).collect();
        let bits = members.iter().map(|disk| self.configuration.bit(*disk));
        self.confirms.missing = bits.fold(0, |all, bit| all | bit);
        for to in members {
            self.send(to, Message::Confirm { id }, None, out);
        }
    }

    /// A member knows of nothing newer than the present epoch and version.
    pub(super) fn on_confirmed(&mut self, from: DiskId, id: u64, out: &mut Vec<Output>) {
        if id != self.confirms.round || self.confirms.missing == 0 {
            return; // of a round that is over
        }
        self.confirms.missing &= !self.configuration.bit(from);
        let left = self.confirms.missing.count_ones();
        let least = u32::from(self.off.on(Rule::R18Confirm));
        if left > least {
            return;
        }
        self.confirms.missing = 0;
        let tags = std::mem::take(&mut self.confirms.now);
        out.extend(tags.into_iter().map(|tag| Output::Confirmed { tag }));
        self.confirms.now = std::mem::take(&mut self.confirms.next);
        if !self.confirms.now.is_empty() {
            self.begin_round(out);
        }
    }
}
