//! What one manager says to another, as bytes.
//!
//! | question | | answer | |
//! |---|---|---|---|
//! | byte 0 | version (1) | byte 0 | version (1) |
//! | byte 1 | kind | byte 1 | 0: the answer follows; as text: 1: why nothing was done; 2: why what was done is not said |
//! | from 2 on | what the kind says | from 2 on | |
//!
//! | kind | question | answer |
//! |---|---|---|
//! | 1, 2, 3 | a letter of the consensus: append, vote, snapshot | its own |
//! | 4 | [`Propose`] as JSON | [`Proposed`] as JSON |
//! | 5 | [`Follow`] as JSON | [`Followed`] as JSON |
//! | 6 | [`Part`] as JSON | the bytes |
//! | 7 | [`SetVoters`] as JSON | [`VotersSet`] as JSON |
//! | 8 | nothing: is somebody there? | nothing |
//!
//! Commands are JSON because the log has them as JSON; an answer with entries is at most some hundred KiB. What is malformed, of another
//! version or too long is answered with what is wrong with it. Version 1 was the first.

use super::board::Verdict;
use super::consensus::{Letter, Outcome};
use super::transport::MESSAGE_MAX;
use super::watch::Index;
use crate::base::NodeId;
use crate::protocol::catalog::Command;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

const VERSION: u8 = 1;
/// The longest reason that is given, in characters.
const TEXT_MAX: usize = 4 << 10;

/// Names one asking of one life of a node, so that a repeated message is not a repeated change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub life: u64,
    pub number: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Propose {
    pub ticket: Ticket,
    pub command: Command,
}

/// What came of it at the node that was asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Proposed {
    Committed {
        index: Index,
        result: Verdict,
    },
    Lost {
        why: String,
    },
    Unknown {
        why: String,
    },
    /// Nothing was done with it here.
    NotLeader {
        leader: Option<NodeId>,
    },
}

impl From<Outcome> for Proposed {
    fn from(outcome: Outcome) -> Proposed {
        match outcome {
            Outcome::Committed { index, result } => Proposed::Committed { index, result },
            Outcome::Lost { why } => Proposed::Lost { why },
            Outcome::Unknown { why } => Proposed::Unknown { why },
        }
    }
}

/// Asks for everything after an entry, and waits for some.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Follow {
    pub after: u64,
    pub wait_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Followed {
    pub leader: Option<NodeId>,
    /// Whether who answers is in touch with the leader; if not, it may know nothing new for ever.
    pub is_current: bool,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// The entry that says so.
    pub members_at: u64,
    pub news: Further,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Further {
    /// Entries in their order; those without a command changed nothing.
    Entries(Vec<(u64, Option<Command>)>),
    /// They are gone. There is a snapshot of this entry, of so many bytes.
    Snapshot { index: u64, bytes: u64 },
}

/// Asks for a part of the snapshot of an entry.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub index: u64,
    pub offset: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SetVoters {
    pub ticket: Ticket,
    pub voters: BTreeSet<NodeId>,
    /// Where they are said, these have to be the members before; older builds do not say them.
    #[serde(default)]
    pub instead_of: Option<BTreeSet<NodeId>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum VotersSet {
    Done,
    Refused { why: String },
    Interrupted { why: String },
    NotLeader { leader: Option<NodeId> },
}

/// A question, as it arrives.
#[derive(Debug)]
pub(super) enum Question<'a> {
    Letter(Letter, &'a [u8]),
    Propose(Box<Propose>),
    Follow(Follow),
    Part(Part),
    SetVoters(SetVoters),
    Ping,
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[VERSION, kind], body].concat()
}

pub(super) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs are JSON")
}

pub(super) fn letter(letter: Letter, body: &[u8]) -> Vec<u8> {
    let kind = match letter {
        Letter::Append => 1,
        Letter::Vote => 2,
        Letter::Snapshot => 3,
    };
    message(kind, body)
}

pub(super) fn propose(body: &Propose) -> Vec<u8> {
    message(4, &json(body))
}

pub(super) fn follow(body: &Follow) -> Vec<u8> {
    message(5, &json(body))
}

pub(super) fn part(body: &Part) -> Vec<u8> {
    message(6, &json(body))
}

pub(super) fn set_voters(body: &SetVoters) -> Vec<u8> {
    message(7, &json(body))
}

pub(super) fn ping() -> Vec<u8> {
    message(8, &[])
}

/// What of a node's connections a question is for: it is sent on one where nothing that may take long stands in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// What elections wait for.
    Urgent,
    /// A part of the log as a snapshot.
    Snapshot,
    /// Everything else.
    Usual,
}

/// Of a question as [`Transport::call`](super::Transport::call) is given it.
pub fn weight(question: &[u8]) -> Weight {
    match question.get(1) {
        Some(1 | 2 | 8) => Weight::Urgent,
        Some(3) => Weight::Snapshot,
        _ => Weight::Usual,
    }
}

/// What is asked; or what is wrong with it.
pub(super) fn read_question(bytes: &[u8]) -> Result<Question<'_>, String> {
    let (kind, body) = opened(bytes, "question")?;
    Ok(match kind {
        1 => Question::Letter(Letter::Append, body),
        2 => Question::Letter(Letter::Vote, body),
        3 => Question::Letter(Letter::Snapshot, body),
        4 => Question::Propose(Box::new(plain(body, "a proposal")?)),
        5 => Question::Follow(plain(body, "a question for news")?),
        6 => Question::Part(plain(body, "a question for a part of a snapshot")?),
        7 => Question::SetVoters(plain(body, "a change of members")?),
        8 => Question::Ping,
        other => return Err(format!("a question of the kind {other} is not known")),
    })
}

fn opened<'a>(bytes: &'a [u8], what: &str) -> Result<(u8, &'a [u8]), String> {
    if bytes.len() > MESSAGE_MAX {
        return Err(format!(
            "a {what} of {} bytes is longer than {MESSAGE_MAX}",
            bytes.len()
        ));
    }
    match bytes {
        [VERSION, kind, body @ ..] => Ok((*kind, body)),
        [version, _, ..] => Err(format!(
            "a {what} has version {version}, this build speaks {VERSION}"
        )),
        _ => Err(format!("a {what} of {} bytes is cut off", bytes.len())),
    }
}

fn plain<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("{what} cannot be read: {error}"))
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It was not understood, and nothing was done.
    NotTaken(String),
    /// Something may have been done.
    Unclear(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unanswered::NotTaken(why) | Unanswered::Unclear(why) => why.fmt(f),
        }
    }
}

/// An answer with these bytes, or with why nothing was done.
pub(super) fn reply(answer: Result<Vec<u8>, String>) -> Vec<u8> {
    match answer {
        Ok(body) if body.len() + 2 > MESSAGE_MAX => {
            let why = format!("the answer has {} bytes, which is too long", body.len());
            message(2, why.as_bytes())
        }
        Ok(body) => message(0, &body),
        Err(why) => {
            let why: String = why.chars().take(TEXT_MAX).collect();
            message(1, why.as_bytes())
        }
    }
}

pub(super) fn reply_json<T: Serialize>(answer: Result<T, String>) -> Vec<u8> {
    reply(answer.map(|answer| json(&answer)))
}

/// The answer in these bytes; or why there is none.
pub(super) fn read_reply(bytes: &[u8]) -> Result<&[u8], Unanswered> {
    let text = |why: &[u8]| String::from_utf8_lossy(why).into_owned();
    match opened(bytes, "answer").map_err(Unanswered::Unclear)? {
        (0, body) => Ok(body),
        (1, why) => Err(Unanswered::NotTaken(text(why))),
        (2, why) => Err(Unanswered::Unclear(text(why))),
        (other, _) => Err(Unanswered::Unclear(format!(
            "an answer of the kind {other} is not known"
        ))),
    }
}

pub(super) fn read_reply_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unanswered> {
    plain(read_reply(bytes)?, "an answer").map_err(Unanswered::Unclear)
}
