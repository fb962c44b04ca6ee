//! How the API says no.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of wrong it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A value that is never right.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// There is such a thing already.
    Exists,
    /// Not while it is in this state, or in use.
    Conflict,
    /// A limit is reached: space, or a number of things.
    Exhausted,
    /// A body does not match its checksum.
    Checksum,
    /// A body is larger than allowed.
    TooLarge,
    /// A disk failed, or data on it is damaged.
    Io,
    /// The daemon cannot do this now.
    Unavailable,
    /// Nothing that was shown says who asks.
    Unauthenticated,
    /// Who asks may not do this.
    Forbidden,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub code: ErrorCode,
    pub message: String,
    /// Which field, parameter or header is meant; empty where it is none of them.
    pub field: String,
    /// What to do instead; empty where there is nothing.
    pub hint: String,
}

impl ErrorBody {
    pub fn new(code: ErrorCode, field: &str, message: impl Into<String>, hint: &str) -> ErrorBody {
        ErrorBody {
            code,
            message: message.into(),
            field: field.into(),
            hint: hint.into(),
        }
    }

    /// A value that is never right.
    pub fn invalid(field: &str, message: impl Into<String>, hint: &str) -> ErrorBody {
        ErrorBody::new(ErrorCode::Invalid, field, message, hint)
    }

    /// Not while it is in this state, or in use.
    pub fn conflict(field: &str, message: impl Into<String>, hint: &str) -> ErrorBody {
        ErrorBody::new(ErrorCode::Conflict, field, message, hint)
    }

    /// A disk failed, or data on it is damaged.
    pub fn io(message: impl Into<String>, hint: &str) -> ErrorBody {
        ErrorBody::new(ErrorCode::Io, "", message, hint)
    }

    /// The daemon cannot do this now.
    pub fn unavailable(message: impl Into<String>, hint: &str) -> ErrorBody {
        ErrorBody::new(ErrorCode::Unavailable, "", message, hint)
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\n  {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for ErrorBody {}
