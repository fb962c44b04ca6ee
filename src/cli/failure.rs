//! Why a command ended badly, and how that is told.

use super::output::Output;
use crate::api::client::ClientError;
use crate::api::model::{ErrorBody, ErrorCode};
use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

/// Why a command ended badly.
#[derive(Debug)]
pub enum Failure {
    /// The daemon, a disk or the operating system said no: exit code 1.
    Refused(ErrorBody),
    /// The command cannot mean anything: exit code 2.
    Usage(ErrorBody),
    /// There is no daemon to ask: exit code 3.
    CannotReach(String),
    /// Everything was done and told already, and the result is a bad one: exit code 1.
    Told,
    /// Whoever read our output has gone: nobody is there to be told.
    OutputClosed,
}

impl Failure {
    pub fn usage(field: &str, message: impl Into<String>, hint: &str) -> Failure {
        Failure::Usage(ErrorBody::invalid(field, message, hint))
    }

    /// The operating system refused `what`.
    pub fn local(what: impl fmt::Display, error: impl fmt::Display) -> Failure {
        Failure::Refused(ErrorBody::new(
            ErrorCode::Io,
            "",
            format!("{what}: {error}"),
            "",
        ))
    }

    /// Somebody has taken back what was waited for.
    pub fn undone(field: &str, message: impl Into<String>) -> Failure {
        let hint = "say it again where it is to be emptied";
        Failure::Refused(ErrorBody::conflict(field, message, hint))
    }

    /// Writing to standard output failed.
    pub fn output(error: std::io::Error) -> Failure {
        match error.kind() {
            ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::local("standard output", error),
        }
    }

    /// Says what happened, and gives the exit code for it.
    pub fn tell(self, output: Output) -> ExitCode {
        let (body, code) = match self {
            Failure::Refused(body) => (body, 1),
            Failure::Usage(body) => (body, 2),
            Failure::CannotReach(message) => (ErrorBody::unavailable(message, ""), 3),
            Failure::Told => return ExitCode::from(1),
            Failure::OutputClosed => return ExitCode::SUCCESS,
        };
        if output.json {
            // Where standard output is closed there is no one to tell; the exit code stays.
            let _ = output.document(&serde_json::json!({ "error": body }));
        } else {
            eprintln!("sarsen: {body}");
        }
        ExitCode::from(code)
    }
}

impl From<ErrorBody> for Failure {
    fn from(error: ErrorBody) -> Failure {
        Failure::Refused(error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::Refused(body) => Failure::Refused(body),
            error @ (ClientError::CannotReach { .. } | ClientError::CannotReachRemote { .. }) => {
                Failure::CannotReach(error.to_string())
            }
            ClientError::Malformed(_) => Failure::Refused(ErrorBody::unavailable(
                error.to_string(),
                "do client and daemon have the same version?",
            )),
        }
    }
}
