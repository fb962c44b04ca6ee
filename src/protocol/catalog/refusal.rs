//! Why a command was not accepted, in a form that a person can act on.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of wrong it is; the API turns it into a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A value that is never right.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// There is such a thing already.
    Exists,
    /// Not while it is in this state, or in use.
    Conflict,
    /// A limit is reached: space that may be promised, or a number of things.
    Exhausted,
}

/// A refused command: which field, why, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: Code,
    /// The field of the command that was refused, as the command spells it.
    pub field: String,
    pub reason: String,
    pub hint: String,
}

impl Refusal {
    pub fn new(code: Code, field: &str, reason: impl Into<String>, hint: &str) -> Refusal {
        Refusal {
            code,
            field: field.into(),
            reason: reason.into(),
            hint: hint.into(),
        }
    }

    /// A value that is never right.
    pub fn invalid(field: &str, reason: impl Into<String>, hint: &str) -> Refusal {
        Refusal::new(Code::Invalid, field, reason, hint)
    }

    /// There is no such thing.
    pub fn not_found(field: &str, reason: impl Into<String>, hint: &str) -> Refusal {
        Refusal::new(Code::NotFound, field, reason, hint)
    }

    /// Not while it is in this state, or in use.
    pub fn conflict(field: &str, reason: impl Into<String>, hint: &str) -> Refusal {
        Refusal::new(Code::Conflict, field, reason, hint)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.field, self.reason, self.hint)
    }
}

impl std::error::Error for Refusal {}
