//! The thread of one guest: accepts one front end after another.

use super::super::handle::Handle;
use super::connection::{Connection, Ended};
use super::table::{Entry, GuestState};
use crate::frontend::vhost_user::Handed;
use crate::io::{FdStream, Until, wait};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long no front end is accepted after one that broke the rules, or was not to be served.
const GRACE: Duration = Duration::from_millis(200);

/// Serves a guest until it is to end, first the front end that another process handed over.
pub fn live(
    handle: Handle,
    entry: Arc<Entry>,
    listener: OwnedFd,
    mut handed: Option<Handed<OwnedFd>>,
) {
    let mut said = String::new();
    while !entry.is_to_go() {
        let (stream, before) = match handed.take() {
            Some(handed) => {
                let stream = FdStream::new(handed.socket);
                (stream, Some((handed.size, handed.told)))
            }
            None => match accept(&entry, &listener) {
                Some(stream) => (stream, None),
                None => continue,
            },
        };
        let ended = match Connection::begin(&handle, &entry, stream) {
            Ok(connection) => connection.serve(before),
            Err(why) => {
                // It may have been taken for a front end that was handed over.
                handle.shared.guests.give_up(entry.volume, entry.key);
                Ended::Refused(why)
            }
        };
        entry.advance(GuestState::Listening);
        let guest = entry.key;
        match ended {
            Ended::Gone => {
                tracing::debug!(guest, "a front end has gone");
                said.clear();
                continue;
            }
            Ended::Told | Ended::HandsOver => continue,
            Ended::Violation(violation) => {
                tracing::warn!(guest, "a front end was cut off: {violation}");
            }
            Ended::System(error) => tracing::warn!(guest, %error, "a front end was cut off"),
            Ended::Refused(why) => {
                // It comes again every second.
                if why != said {
                    tracing::warn!(guest, "a front end was turned away: {why}");
                    said = why;
                }
            }
        }
        rest(&entry);
    }
}

fn accept(entry: &Entry, listener: &OwnedFd) -> Option<FdStream> {
    let on = [
        (entry.nudge().fd(), Until::Readable),
        (listener.as_fd(), Until::Readable),
    ];
    let accepted = wait(&on, None).and_then(|ready| {
        if ready & 1 != 0 {
            entry.nudge().heard();
        }
        match ready & 2 {
            0 => Ok(None),
            _ => FdStream::accept(listener),
        }
    });
    accepted.unwrap_or_else(|error| {
        tracing::warn!(guest = entry.key, %error, "a front end was not accepted");
        rest(entry);
        None
    })
}

/// Lets some time go by, or the guest's end come.
fn rest(entry: &Entry) {
    let until = Instant::now() + GRACE;
    while !entry.is_to_go() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        match wait(&[(entry.nudge().fd(), Until::Readable)], Some(left)) {
            Ok(0) => {}
            Ok(_) => entry.nudge().heard(),
            Err(_) => return std::thread::sleep(left),
        }
    }
}
