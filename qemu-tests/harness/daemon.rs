//! The real daemon: started, asked, told to stop, killed.

use super::metrics::Metrics;
use super::nbd::{Connection, Replies};
use super::network::enter;
use super::{Room, Step, ensure};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a daemon may take until it serves. Far more than it needs: two cores may be busy with builds.
const START_MAX: Duration = Duration::from_secs(30);

/// Descriptors that a daemon is born with at most.
const INHERITED_MAX: usize = 256;

/// The binary under test.
pub fn binary() -> PathBuf {
    env!("CARGO_BIN_EXE_sarsen").into()
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// How a daemon is to be started; kept, so that it can be started again.
#[derive(Debug, Clone)]
pub struct Start {
    binary: PathBuf,
    arguments: Vec<String>,
    pub api: PathBuf,
    pub nbd: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    /// What it is born with, as systemd passes it.
    inherited: Vec<(String, Arc<OwnedFd>)>,
    /// The network namespace that it runs in, where that is not this process's.
    network: Option<Arc<OwnedFd>>,
}

impl Start {
    /// `sarsen dev` with everything in `room/NAME`.
    pub fn dev(room: &Room, name: &str, size: &str) -> Start {
        let data = room.path(name);
        let arguments = ["dev", "--data", &text(&data), "--size", size];
        Start {
            binary: binary(),
            arguments: arguments.map(str::to_owned).to_vec(),
            api: data.join("api.sock"),
            nbd: data.join("nbd.sock"),
            log: room.path(&format!("{name}.log")),
            environment: Vec::new(),
            inherited: Vec::new(),
            network: None,
        }
    }

    /// The same with several nodes, as these arguments name them. Its sockets are those of the first.
    pub fn dev_nodes(room: &Room, name: &str, size: &str, more: &[&str]) -> Start {
        let mut start = Start::dev(room, name, size);
        let memory = ["--memory", "64M"];
        let more = more.iter().chain(&memory).map(|&one| one.to_owned());
        start.arguments.extend(more);
        start
    }

    /// `sarsen daemon` over these disks (path and, for a file that is to be made, size), with more lines of
    /// configuration at the top.
    pub fn daemon(
        room: &Room,
        name: &str,
        disks: &[(&Path, Option<&str>)],
        more: &str,
    ) -> Step<Start> {
        let data = room.path(name);
        std::fs::create_dir_all(&data)?;
        let (api, nbd) = (data.join("api.sock"), data.join("nbd.sock"));
        let mut config = format!(
            "data_dir = {:?}\n{more}\n[api]\nsocket = {:?}\n[nbd]\nsocket = {:?}\n",
            text(&data),
            text(&api),
            text(&nbd)
        );
        for (path, size) in disks {
            config.push_str(&format!("[[disk]]\npath = {:?}\n", text(path)));
            if let Some(size) = size {
                config.push_str(&format!("size = {size:?}\n"));
            }
        }
        let file = data.join("sarsen.toml");
        std::fs::write(&file, config)?;
        let arguments = ["daemon", "--config", &text(&file)];
        Ok(Start {
            binary: binary(),
            arguments: arguments.map(str::to_owned).to_vec(),
            api,
            nbd,
            log: room.path(&format!("{name}.log")),
            environment: Vec::new(),
            inherited: Vec::new(),
            network: None,
        })
    }

    /// The same with another binary.
    pub fn with_binary(mut self, binary: PathBuf) -> Start {
        self.binary = binary;
        self
    }

    /// The same with a variable in its environment.
    pub fn with_variable(mut self, name: &str, value: &str) -> Start {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The same with a descriptor that it is born with.
    pub fn with_descriptor(mut self, name: &str, fd: Arc<OwnedFd>) -> Start {
        self.inherited.push((name.into(), fd));
        self
    }

    /// The same on a host of a [`Network`](super::network::Network).
    pub fn in_network(mut self, namespace: Arc<OwnedFd>) -> Start {
        self.network = Some(namespace);
        self
    }

    /// What all daemons of this start have logged, without colours.
    pub fn log_text(&self) -> Step<String> {
        let raw = std::fs::read(&self.log)?;
        let text = String::from_utf8_lossy(&raw);
        let mut plain = String::new();
        for (number, part) in text.split("\u{1b}[").enumerate() {
            plain.push_str(if number == 0 {
                part
            } else {
                part.split_once('m').map_or("", |(_, p)| p)
            });
        }
        Ok(plain)
    }

    /// Runs `sarsen --api SOCKET ARGUMENTS` against the daemon that was started so.
    pub fn ask(&self, arguments: &[&str]) -> Step<Said> {
        let mut command = Command::new(binary());
        let output = command
            .arg("--api")
            .arg(&self.api)
            .args(arguments)
            .output()?;
        Ok(Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn spawn(&self) -> Step<Child> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = match self.inherited.is_empty() {
            true => Command::new(&self.binary),
            false => self.with_inherited(),
        };
        command.args(&self.arguments).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(log.try_clone()?).stderr(log);
        command.env_remove("SARSEN_API").env("NO_COLOR", "1");
        if let Some(network) = self.network.clone() {
            enter(&mut command, network);
        }
        Ok(command
            .spawn()
            .map_err(|e| format!("{}: {e}", self.binary.display()))?)
    }

    /// The command that is born with descriptors from 3 on. Its number is known to nobody before it runs, so a shell
    /// says it, and then becomes the daemon.
    fn with_inherited(&self) -> Command {
        let mut command = Command::new("sh");
        let names: Vec<&str> = self
            .inherited
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        command
            .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""])
            .arg(&self.binary);
        command
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        let fds: Vec<RawFd> = self
            .inherited
            .iter()
            .map(|(_, fd)| fd.as_raw_fd())
            .collect();
        let pass = move || {
            // Out of the way first: one of them may lie where another has to be.
            let mut moved = [-1; INHERITED_MAX];
            for (fd, moved) in fds.iter().zip(&mut moved) {
                // SAFETY: duplicates a descriptor that the parent holds open.
                *moved = unsafe { libc::fcntl(*fd, libc::F_DUPFD, 3 + INHERITED_MAX as RawFd) };
            }
            for (at, moved) in moved.iter().enumerate().take(fds.len()) {
                // SAFETY: what had that number is not needed by a shell.
                if unsafe { libc::dup2(*moved, 3 + at as RawFd) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // SAFETY: it was made a moment ago, for this.
                unsafe { libc::close(*moved) };
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only.
        unsafe { command.pre_exec(pass) };
        command
    }

    /// Starts it and waits until it serves.
    pub fn run(&self) -> Step<Daemon> {
        let begun = Instant::now();
        let mut daemon = Daemon {
            child: self.spawn()?,
            // What it was born with is its own from here on: who waits for the end of a connection must see it.
            start: Start {
                inherited: Vec::new(),
                ..self.clone()
            },
            ended: false,
        };
        loop {
            if let Some(status) = daemon.child.try_wait()? {
                daemon.ended = true;
                return Err(format!("the daemon ended at its start: {status}").into());
            }
            if daemon.answers() {
                return Ok(daemon);
            }
            ensure!(
                begun.elapsed() < START_MAX,
                "the daemon does not serve after {START_MAX:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts it where it must refuse: its exit code, and what it said since.
    pub fn run_refused(&self) -> Step<(Option<i32>, String)> {
        let before = std::fs::metadata(&self.log).map_or(0, |meta| meta.len()) as usize;
        let mut child = self.spawn()?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > START_MAX {
                child.kill()?;
                child.wait()?;
                return Err("the daemon started, or hangs, where it had to refuse".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let said = std::fs::read(&self.log)?;
        Ok((
            status.code(),
            String::from_utf8_lossy(&said[before..]).into_owned(),
        ))
    }
}

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    child: Child,
    pub start: Start,
    ended: bool,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn answers(&self) -> bool {
        UnixStream::connect(&self.start.nbd).is_ok() && Metrics::ask(&self.start.api).is_ok()
    }

    /// kill -9. Returns when the process is gone, and its locks with it.
    pub fn kill(&mut self) -> Step<()> {
        self.strike()?;
        self.reap()
    }

    /// Sends SIGKILL, from which on the process does nothing more.
    pub fn strike(&mut self) -> Step<()> {
        Ok(self.child.kill()?)
    }

    /// Waits for the end of a process that was killed.
    pub fn reap(&mut self) -> Step<()> {
        let status = self.child.wait()?;
        self.ended = true;
        ensure!(
            status.signal() == Some(9),
            "killed with -9, but it had ended by itself: {status}"
        );
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) -> Step<()> {
        // SAFETY: a signal to a child that was not waited for, so the number is still its own.
        let sent = unsafe { libc::kill(self.child.id() as i32, signal) };
        ensure!(sent == 0, "the signal {signal} could not be sent");
        Ok(())
    }

    /// SIGTERM; how long the stop took, and with what it ended.
    pub fn stop(&mut self) -> Step<(Duration, ExitStatus)> {
        let begun = Instant::now();
        self.signal(libc::SIGTERM)?;
        while begun.elapsed() < Duration::from_secs(15) {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                return Ok((begun.elapsed(), status));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err("the daemon still runs 15 s after SIGTERM".into())
    }

    /// Becomes the same binary, or another one.
    pub fn upgrade(&self, binary: Option<&Path>) -> Step<String> {
        let binary = binary.map(text);
        let mut arguments = vec!["upgrade"];
        if let Some(binary) = &binary {
            arguments.extend(["--binary", binary]);
        }
        self.tell(&arguments)
    }

    /// Runs `sarsen --api SOCKET ARGUMENTS`.
    pub fn ask(&self, arguments: &[&str]) -> Step<Said> {
        self.start.ask(arguments)
    }

    /// The same where it must be done.
    pub fn tell(&self, arguments: &[&str]) -> Step<String> {
        let said = self.ask(arguments)?;
        ensure!(
            said.code == Some(0),
            "sarsen {}: {}{}",
            arguments.join(" "),
            said.out,
            said.err
        );
        Ok(said.out)
    }

    /// Attaches a volume to a guest, by a socket.
    pub fn attach(&self, volume: &str, socket: &Path, queues: u32) -> Step<()> {
        let (socket, queues) = (text(socket), queues.to_string());
        self.tell(&[
            "attach",
            volume,
            "--vhost-user",
            &socket,
            "--queues",
            &queues,
        ])?;
        Ok(())
    }

    pub fn create(&self, volume: &str, size: &str) -> Step<()> {
        self.tell(&[
            "volume",
            "create",
            volume,
            "--size",
            size,
            "--block-size",
            "512",
        ])?;
        Ok(())
    }

    pub fn connect(&self, volume: &str) -> Step<Connection> {
        Connection::open(&self.start.nbd, volume, Replies::Structured)
    }

    /// What a client is told to open.
    pub fn uri(&self, volume: &str) -> String {
        format!("nbd+unix:///{volume}?socket={}", text(&self.start.nbd))
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> Step<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .ok_or("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
        Ok(kib << 10)
    }

    /// CPU time used so far.
    pub fn cpu(&self) -> Step<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let after_name = stat.rsplit(')').next().ok_or("no stat")?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // utime and stime are fields 14 and 15 of the line, in ticks of 10 ms; two went with the name.
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself, which the case has noticed elsewhere.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A path for an argument. The folders here are made by this program and are UTF-8.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
