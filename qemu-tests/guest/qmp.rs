//! QEMU's own commands, over its QMP socket: one JSON document a line.

use crate::harness::{Step, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long QEMU may think about a command.
const ANSWER_MAX: Duration = Duration::from_secs(30);

pub struct Qmp {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Qmp {
    pub fn open(socket: &Path) -> Step<Qmp> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut qmp = Qmp {
            stream: BufReader::new(stream),
            events: Vec::new(),
        };
        qmp.line()?; // the greeting
        qmp.ask("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    fn line(&mut self) -> Step<Value> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line)?;
        ensure!(read > 0, "QEMU has ended");
        Ok(serde_json::from_str(&line)?)
    }

    /// Carries out a command; what it returned.
    pub fn ask(&mut self, command: &str, arguments: Value) -> Step<Value> {
        let ask = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream.get_mut(), "{ask}")?;
        loop {
            let mut said = self.line()?;
            if said.get("event").is_some() {
                self.events.push(said);
            } else if let Some(error) = said.get("error") {
                return Err(format!("QEMU refuses {ask}: {error}").into());
            } else {
                return Ok(said["return"].take());
            }
        }
    }

    /// Waits for an event that was not taken yet and is as wanted.
    pub fn event(
        &mut self,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
        within: Duration,
    ) -> Step<Value> {
        let begun = Instant::now();
        loop {
            let is = |event: &Value| event["event"] == name && wanted(&event["data"]);
            if let Some(at) = self.events.iter().position(is) {
                return Ok(self.events.remove(at));
            }
            ensure!(
                begun.elapsed() < within,
                "no event {name} within {within:?}"
            );
            // Each answer brings what has happened until then.
            self.ask("query-status", json!({}))?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
