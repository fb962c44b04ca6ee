//! The gates that every frame passes, before what it asks is looked at.

use super::session::Session;
use super::{Asker, Frame, HELD_MAX, Op, Output, RANGES_MAX, Replica, SEALS_MAX, refuse, say};
use crate::base::{Epoch, VolumeId};
use crate::protocol::replication::configuration::Role;
use crate::protocol::replication::fill::{FillAnswer, FillAsk, FillHeader};
use crate::protocol::replication::message::{Answer, Header, Message, Refusal};
use crate::protocol::replication::rule::Rule;

/// Fences on their way to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Raise {
    pub version: u32,
    pub session: u32,
    pub fences: Vec<(VolumeId, Epoch)>,
}

/// What waits for fences to be raised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Waiting {
    Frame(Frame),
    Ask(Asker, FillHeader, FillAsk),
}

/// What a frame is to the session.
enum Pass {
    Free,
    /// The replica is in sync under the frame's version, so its session is over.
    InSync,
    /// It waits for the session to begin.
    Waits,
    Refused(Refusal),
}

impl Replica {
    /// Takes what comes from others, in its order.
    pub(super) fn admit(&mut self, what: Waiting, out: &mut Vec<Output>) {
        match (self.raising.is_some(), what) {
            (true, Waiting::Frame(frame)) if self.held.len() >= HELD_MAX => {
                refuse(&frame, Refusal::Busy, out);
            }
            (true, Waiting::Ask(to, header, _)) if self.held.len() >= HELD_MAX => {
                not_now(to, header, out);
            }
            (true, what) => self.held.push_back(what),
            (false, Waiting::Frame(frame)) => self.on_frame(frame, out),
            (false, Waiting::Ask(from, header, ask)) => self.on_fill_ask(from, header, ask, out),
        }
    }

    pub(super) fn on_frame(&mut self, frame: Frame, out: &mut Vec<Output>) {
        let Header {
            range,
            pg,
            epoch,
            version,
            session,
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
        let is_over = match self.pass_session(version, session) {
            Pass::Free => false,
            Pass::InSync => true,
            Pass::Waits => return self.hold_for_session(frame, out),
            Pass::Refused(why) => return refuse(&frame, why, out),
        };
        if epoch > fenced || version > self.durable.version || is_over {
            let known = &self.durable.ranges;
            if known.len() >= RANGES_MAX && !known.contains_key(&range) {
                return refuse(&frame, Refusal::Busy, out);
            }
            self.held.push_front(Waiting::Frame(frame));
            let fences = vec![(range, epoch.max(fenced))];
            return self.raise((version, session), fences, out);
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
            Message::Fits { id, at } => self.on_fits(frame, id, at, out),
            Message::Mark => {}
            Message::Confirm { id } => self.on_confirm(&frame, id, out),
            Message::Seal if self.sealing.len() >= SEALS_MAX => refuse(&frame, Refusal::Busy, out),
            Message::Seal => {
                self.sealing.push(frame);
                self.answer_seals(out);
            }
        }
    }

    /// Says that the frame's epoch and version are the newest that are known here (R18). Its fences say so, which are durable, and so does what
    /// the manager says: a replica that begins again with nothing has no fences to speak of.
    fn on_confirm(&self, frame: &Frame, id: u64, out: &mut Vec<Output>) {
        let known = self.known_version();
        if known > frame.header.version {
            return refuse(frame, Refusal::Version(known), out);
        }
        say(frame.from, frame.header, Answer::Confirmed { id }, out);
    }

    /// Whether it is in a session, or was when it lost power.
    pub(super) fn has_session(&self) -> bool {
        self.durable.session != 0 || self.session.is_some()
    }

    /// The highest version that it knows to be; a session has the number of the version that it began with.
    pub(super) fn known_version(&self) -> u32 {
        let configured = self.configuration.as_ref().map_or(0, |of| of.version());
        let session = self.session.as_ref().map_or(0, |own| own.number());
        configured.max(session).max(self.durable.session)
    }

    /// Whether its disk is not what it was under `version` (R19): there it may count as one that has everything, and what it has is nothing,
    /// or of long ago.
    pub(super) fn was_emptied_after(&self, version: u32) -> bool {
        let of = self.configuration.as_ref();
        let role = of.and_then(|of| of.role(self.disk));
        let has_nothing = matches!(
            role,
            Some(Role::Out { since: 0 } | Role::Joining { since: 0, .. })
        );
        has_nothing && self.known_version() > version
    }

    fn pass_session(&self, version: u32, session: u32) -> Pass {
        let known = self.known_version();
        if session == 0 && !self.has_session() {
            return match self.was_emptied_after(version) && !self.off.on(Rule::R1) {
                true => Pass::Refused(Refusal::Version(known)),
                false => Pass::Free,
            };
        }
        if known > version && !self.off.on(Rule::R1) {
            // What the sender believes of this replica is not so any more.
            return Pass::Refused(Refusal::Version(known));
        }
        if session == 0 {
            // Nobody promotes what is not filled: who says so is wrong, and this replica does not serve what it has not got.
            let lacks = self.session.as_ref().is_some_and(|own| !own.is_filled());
            return match lacks {
                true => Pass::Refused(Refusal::Session),
                false => Pass::InSync,
            };
        }
        match &self.session {
            Some(own) if own.number() == session => match own.takes() {
                true => Pass::Free,
                false => Pass::Waits,
            },
            Some(own) if own.number() > session => Pass::Refused(Refusal::Session),
            // A restart has ended it: what it had taken is known no more (R16).
            None if self.durable.session == session && !self.off.on(Rule::R16) => {
                Pass::Refused(Refusal::Session)
            }
            _ => Pass::Waits,
        }
    }

    /// Keeps a frame until the session that it names has begun.
    fn hold_for_session(&mut self, frame: Frame, out: &mut Vec<Output>) {
        let Header {
            version, session, ..
        } = frame.header;
        if self.session.as_ref().map(|own| own.number()) != Some(session) {
            let before = self.session.replace(Box::new(Session::new(session)));
            let left = before.map(|mut before| before.take_held());
            // Of an earlier session: its frames are told so.
            for frame in left.into_iter().flatten() {
                refuse(&frame, Refusal::Session, out);
            }
        }
        let known = self.configuration.as_ref().map_or(0, |of| of.version());
        if known < version {
            out.push(Output::Learn { version });
        }
        let Some(own) = &mut self.session else {
            return debug_assert!(false, "a session was made");
        };
        match own.has_room() {
            true => own.hold(frame),
            false => refuse(&frame, Refusal::Busy, out),
        }
        self.begin_session(out);
    }

    /// Takes higher fences over, durably, before anything is answered under them.
    pub(super) fn raise(
        &mut self,
        (version, session): (u32, u32),
        fences: Vec<(VolumeId, Epoch)>,
        out: &mut Vec<Output>,
    ) {
        debug_assert!(
            self.raising.is_none(),
            "fences are raised one after another"
        );
        self.raising = Some(Raise {
            version,
            session,
            fences: fences.clone(),
        });
        if self.off.on(Rule::R6) {
            // Held in memory only, and lost with it.
            return self.on_fenced(true, out);
        }
        out.push(Output::Fence {
            op: Op::Fence,
            version,
            session,
            fences,
        });
    }

    pub(super) fn on_fenced(&mut self, ok: bool, out: &mut Vec<Output>) {
        let Some(Raise {
            version,
            session,
            fences,
        }) = self.raising.take()
        else {
            return debug_assert!(false, "fences are raised once");
        };
        if !ok {
            // Its disk has failed: nothing is answered under a fence that is not durable.
            for waiting in std::mem::take(&mut self.held) {
                match waiting {
                    Waiting::Frame(frame) => refuse(&frame, Refusal::Failed, out),
                    Waiting::Ask(to, header, _) => not_now(to, header, out),
                }
            }
            return;
        }
        self.durable.take(version, session, &fences);
        self.session_fenced((version, session), out);
        self.go_on(out);
    }

    /// Takes what waited for fences, until they are raised again.
    pub(super) fn go_on(&mut self, out: &mut Vec<Output>) {
        while self.raising.is_none()
            && let Some(waiting) = self.held.pop_front()
        {
            self.admit(waiting, out);
        }
    }
}

/// A source cannot answer.
pub(super) fn not_now(to: Asker, header: FillHeader, out: &mut Vec<Output>) {
    out.push(Output::FillAnswer {
        to,
        header,
        answer: FillAnswer::NotNow,
        payload: None,
    });
}
