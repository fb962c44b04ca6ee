//! The daemon of one of several nodes, as a process: started, seen to end, started again, stopped.
//!
//! It is in a process group of its own, so that Ctrl-C reaches this command alone, which then stops all in good order: a daemon
//! that is told twice ends at once. And it ends with this command, however that ends (`--end-with`).

use super::place::Place;
use crate::api::client::Client;
use crate::api::model::ErrorBody;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a node that died stays dead: long enough that the others are seen to go on without it.
pub(super) const DEAD_FOR: Duration = Duration::from_secs(5);
/// The most of that, where it does not come to serve: each time it waits twice as long.
const DEAD_FOR_MAX: Duration = Duration::from_secs(60);
/// How long a daemon may take to answer a question before others are looked after.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// A node's daemon.
pub(super) struct Process {
    pub place: Place,
    child: Child,
    state: State,
    /// How long it stays dead the next time.
    dead_for: Duration,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Starting,
    Serving,
    /// Since when; and whether it is to be started again, and when.
    Dead(Instant, Option<Instant>),
}

impl Process {
    pub fn start(place: &Place) -> Result<Process, ErrorBody> {
        Ok(Process {
            child: spawn(place)?,
            place: place.clone(),
            state: State::Starting,
            dead_for: DEAD_FOR,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended, where it has.
    pub fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(how(status)),
            // It was waited for by nobody else, so that this does not happen.
            Err(error) => Some(format!("cannot be waited for: {error}")),
        }
    }

    /// It was seen to serve, by who started it.
    pub fn serves(&mut self) {
        self.state = State::Serving;
    }

    /// Looks after it: notices its end, starts it again when it is time to. What there is to tell.
    pub async fn look(&mut self, restart: bool) -> Option<String> {
        let now = Instant::now();
        match self.state {
            State::Dead(_, None) => None,
            State::Dead(since, Some(at)) => (now >= at).then(|| self.again(since)).flatten(),
            State::Starting | State::Serving => {
                if let Some(how) = self.ended() {
                    return Some(self.died(&how, restart));
                }
                let is_new = matches!(self.state, State::Starting) && answers(&self.place).await;
                is_new.then(|| {
                    self.serves();
                    self.dead_for = DEAD_FOR;
                    format!(
                        "{}: serves again, as process {}",
                        self.place.name,
                        self.pid()
                    )
                })
            }
        }
    }

    fn died(&mut self, how: &str, restart: bool) -> String {
        let (now, name, pid) = (Instant::now(), &self.place.name, self.pid());
        let wait = self.dead_for;
        let next = match restart {
            true => format!("it is started again in {} s", wait.as_secs()),
            false => format!(
                "it stays so, until you start it:\n  {}",
                by_hand(&self.place)
            ),
        };
        // Who was killed from outside has nothing to say about it.
        let end = match how.contains("SIGKILL") {
            true => String::new(),
            false => format!("\n{}", self.place.log_end()),
        };
        let told = format!("{name}: process {pid} {how}; {next}{end}");
        self.state = State::Dead(now, restart.then(|| now + wait));
        self.dead_for = (wait * 2).min(DEAD_FOR_MAX);
        told
    }

    fn again(&mut self, since: Instant) -> Option<String> {
        self.place.mark_log();
        match spawn(&self.place) {
            Ok(child) => {
                self.child = child;
                self.state = State::Starting;
                None
            }
            Err(error) => {
                self.state = State::Dead(since, Some(Instant::now() + self.dead_for));
                Some(format!(
                    "{error}; it is tried again in {} s",
                    self.dead_for.as_secs()
                ))
            }
        }
    }

    pub fn lives(&mut self) -> bool {
        !matches!(self.state, State::Dead(..)) && self.ended().is_none()
    }

    /// Sends it a signal, where it lives.
    pub fn signal(&mut self, signal: Signal) {
        if !self.lives() {
            return;
        }
        // It was not waited for, so the number is still its own; where it has just ended, nothing is to be done.
        let _ = kill(Pid::from_raw(self.pid() as i32), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is not harmed by it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a person starts it.
pub(super) fn by_hand(place: &Place) -> String {
    let (binary, config) = (binary(), place.config());
    format!(
        "{} daemon --config '{}'",
        binary.display(),
        config.display()
    )
}

fn spawn(place: &Place) -> Result<Child, ErrorBody> {
    let failed =
        |at: &Path, error| ErrorBody::io(format!("{}: {}: {error}", place.name, at.display()), "");
    let path = place.log();
    let log = File::options().create(true).append(true).open(&path);
    let log = log.map_err(|error| failed(&path, error))?;
    let too = log.try_clone().map_err(|error| failed(&path, error))?;
    let binary = binary();
    let mut command = Command::new(&binary);
    command
        .args([
            "daemon",
            "--end-with",
            &std::process::id().to_string(),
            "--config",
        ])
        .arg(place.config())
        .stdin(Stdio::null())
        .stdout(too)
        .stderr(log)
        // Whoever supervises this command does not supervise its daemons.
        .env_remove("NOTIFY_SOCKET")
        .process_group(0);
    command.spawn().map_err(|error| failed(&binary, error))
}

/// This binary, also where another one lies in its place by now.
fn binary() -> PathBuf {
    let named = std::env::current_exe().ok().filter(|path| path.exists());
    named.unwrap_or_else(|| "/proc/self/exe".into())
}

/// Whether a daemon serves there.
pub(super) async fn answers(place: &Place) -> bool {
    let mut client = Client::new(&place.api());
    let asked = tokio::time::timeout(ANSWER_MAX, client.status()).await;
    matches!(asked, Ok(Ok(status)) if status.nodes.iter().any(|node| node.state == "serving"))
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("was ended by signal {number} ({signal})"),
            Err(_) => format!("was ended by signal {number}"),
        },
        (None, None) => "ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_its_code_or_signal() {
        assert_eq!(how(ExitStatus::from_raw(1 << 8)), "ended with exit code 1");
        assert_eq!(
            how(ExitStatus::from_raw(9)),
            "was ended by signal 9 (SIGKILL)"
        );
    }
}
