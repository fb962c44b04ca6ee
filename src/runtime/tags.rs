//! What a completion belongs to: a kind in the top byte of its tag, a key below.

use crate::io::Tag;

/// Whom a completion is for, with the key that it was pushed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completed {
    /// The mailbox's bell.
    Bell,
    /// A listening socket has a client.
    Accept(u32),
    Receive(u32),
    Send(u32),
    /// An operation on a disk.
    Transfer(u32),
    /// A command of a ublk queue's tag.
    Fetched(u32),
    /// The copy of data for a ublk queue's tag.
    Copied(u32),
    /// A guest kicked one of its queues.
    Kick(u32),
    /// A guest was called.
    Call(u32),
    /// A link to a peer received, or sent.
    LinkReceive(u32),
    LinkSend(u32),
}

impl Completed {
    pub fn tag(self) -> Tag {
        let (kind, key) = match self {
            Completed::Bell => (0, 0),
            Completed::Accept(key) => (1, key),
            Completed::Receive(key) => (2, key),
            Completed::Send(key) => (3, key),
            Completed::Transfer(key) => (4, key),
            Completed::Fetched(key) => (7, key),
            Completed::Copied(key) => (8, key),
            Completed::Kick(key) => (5, key),
            Completed::Call(key) => (6, key),
            Completed::LinkReceive(key) => (9, key),
            Completed::LinkSend(key) => (10, key),
        };
        Tag(kind << 56 | u64::from(key))
    }

    /// Panics where the tag is none that [`Completed::tag`] made.
    pub fn of(tag: Tag) -> Completed {
        let key = tag.0 as u32;
        match tag.0 >> 56 {
            0 => Completed::Bell,
            1 => Completed::Accept(key),
            2 => Completed::Receive(key),
            3 => Completed::Send(key),
            4 => Completed::Transfer(key),
            5 => Completed::Kick(key),
            6 => Completed::Call(key),
            7 => Completed::Fetched(key),
            8 => Completed::Copied(key),
            9 => Completed::LinkReceive(key),
            10 => Completed::LinkSend(key),
            _ => unreachable!("a tag that was never pushed: {:#x}", tag.0),
        }
    }
}
