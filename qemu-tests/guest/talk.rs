//! The conversation with a guest, over a port of virtio-serial: a line of JSON each way.
//!
//! Every ask may be sent twice, and is by a host that got no answer: so nothing is lost where a migration or a new
//! connection cut a line off. A command is a job with a number, and its output stays in the guest until it is fetched.

use crate::harness::{Step, ensure};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// After so long without an answer, an ask is sent again.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    pub id: u64,
    pub ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    Hello,
    Start { job: u64, script: String },
    Poll { job: u64, from: u64, wait_ms: u64 },
    Signal { job: u64, signal: i32 },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub id: u64,
    pub said: Said,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    Done,
    /// The exit code comes once all output was fetched.
    State {
        exit: Option<i32>,
        out: String,
        next: u64,
    },
    Refused(String),
}

/// The host's end.
pub struct Talk {
    stream: UnixStream,
    received: Vec<u8>,
    next: u64,
}

impl Talk {
    pub fn open(socket: &Path) -> Step<Talk> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        // Ends whatever another connection left behind half-said.
        stream.write_all(b"\n")?;
        Ok(Talk {
            stream,
            received: Vec::new(),
            next: 0,
        })
    }

    /// Counts on from another conversation with the same guest, whose answers may still come.
    pub fn go_on_after(&mut self, other: &Talk) {
        self.next = self.next.max(other.next) + 1;
    }

    /// Asks; what was said.
    pub fn ask(&mut self, ask: Ask, within: Duration) -> Step<Said> {
        let begun = Instant::now();
        self.next += 1;
        let id = self.next;
        let mut line = serde_json::to_vec(&Asked { id, ask })?;
        line.push(b'\n');
        loop {
            self.stream
                .write_all(&line)
                .map_err(|e| format!("the guest is gone: {e}"))?;
            let patience = PATIENCE.min(within.saturating_sub(begun.elapsed()));
            if let Some(said) = self.answer(id, patience)? {
                return Ok(said);
            }
            ensure!(
                begun.elapsed() < within,
                "the guest does not answer within {within:?}"
            );
        }
    }

    fn answer(&mut self, id: u64, within: Duration) -> Step<Option<Said>> {
        let begun = Instant::now();
        let mut bytes = [0; 65536];
        while begun.elapsed() < within {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                match serde_json::from_slice::<Answer>(&line) {
                    Ok(answer) if answer.id == id => return Ok(Some(answer.said)),
                    _ => continue, // the second answer to an ask that was sent twice, or cut off
                }
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err("the guest is gone: QEMU has ended".into()),
                Ok(read) => self.received.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("the guest is gone: {error}").into()),
            }
        }
        Ok(None)
    }
}
