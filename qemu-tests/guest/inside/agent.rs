//! The guest's end of the conversation: runs what it is told, and tells how it went. See `talk`.

use crate::guest::talk::{Answer, Ask, Asked, Said};
use crate::harness::{Step, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The name of the port, as QEMU was told.
pub const PORT: &str = "sarsen.talk";
/// The most that one answer carries.
const OUT_MAX: usize = 128 << 10;

struct Job {
    out: PathBuf,
    group: i32,
    exit: Arc<Mutex<Option<i32>>>,
}

/// Serves for ever.
pub fn serve() -> Step<()> {
    let path = port()?;
    // A port can be opened once: both directions by one descriptor.
    let opened = File::options().read(true).write(true).open(&path);
    let mut writer = opened.map_err(|e| format!("{}: {e}", path.display()))?;
    let reader = writer.try_clone()?;
    let mut lines = BufReader::new(Patient(reader));
    let mut jobs = BTreeMap::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        // What is no line of the protocol was cut off when the other side went away.
        let Ok(asked) = serde_json::from_slice::<Asked>(&line) else {
            continue;
        };
        let said =
            answer(&asked.ask, &mut jobs).unwrap_or_else(|why| Said::Refused(why.to_string()));
        let mut bytes = serde_json::to_vec(&Answer { id: asked.id, said })?;
        bytes.push(b'\n');
        writer.write_all(&bytes)?;
    }
}

fn port() -> Step<PathBuf> {
    let begun = Instant::now();
    loop {
        for entry in std::fs::read_dir("/sys/class/virtio-ports")?.flatten() {
            let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == PORT {
                return Ok(PathBuf::from("/dev").join(entry.file_name()));
            }
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(20),
            "there is no port {PORT}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port reads as ended while nobody is at the other side.
struct Patient(File);

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.0.read(into)? {
                0 => std::thread::sleep(Duration::from_millis(20)),
                read => return Ok(read),
            }
        }
    }
}

fn answer(ask: &Ask, jobs: &mut BTreeMap<u64, Job>) -> Step<Said> {
    match ask {
        Ask::Hello => Ok(Said::Done),
        Ask::Start { job, .. } if jobs.contains_key(job) => Ok(Said::Done), // asked twice
        Ask::Start { job, script } => {
            jobs.insert(*job, start(*job, script)?);
            Ok(Said::Done)
        }
        Ask::Poll { job, from, wait_ms } => {
            let job = jobs.get(job).ok_or("no such job")?;
            job.look(*from, Duration::from_millis(*wait_ms))
        }
        Ask::Signal { job, signal } => {
            let job = jobs.get(job).ok_or("no such job")?;
            // SAFETY: a signal to the group of a child of ours.
            let sent = unsafe { libc::kill(-job.group, *signal) };
            ensure!(sent == 0, "the signal {signal} could not be sent");
            Ok(Said::Done)
        }
    }
}

fn start(number: u64, script: &str) -> Step<Job> {
    let folder = PathBuf::from("/run/jobs");
    std::fs::create_dir_all(&folder)?;
    let out = folder.join(number.to_string());
    // Into a file: so everything that it said is there when it has ended, and children of its own may go on.
    let file = File::create(&out)?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()?;
    let exit = Arc::new(Mutex::new(None));
    let told = Arc::clone(&exit);
    let group = child.id() as i32;
    std::thread::spawn(move || {
        let code = match child.wait() {
            Ok(status) => status.code().or(status.signal().map(|signal| 128 + signal)),
            Err(_) => None,
        };
        *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(code.unwrap_or(-1));
    });
    Ok(Job { out, group, exit })
}

impl Job {
    /// What it said from an offset on, and its exit code; waits a little for either.
    fn look(&self, from: u64, wait: Duration) -> Step<Said> {
        let begun = Instant::now();
        loop {
            // In this order: once there is an exit code, everything was written.
            let exit = *self.exit.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bytes = vec![0; OUT_MAX];
            let read = File::open(&self.out)?.read_at(&mut bytes, from)?;
            if read > 0 || exit.is_some() || begun.elapsed() >= wait {
                return Ok(Said::State {
                    exit: exit.filter(|_| read < OUT_MAX),
                    out: String::from_utf8_lossy(&bytes[..read]).into_owned(),
                    next: from + read as u64,
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
