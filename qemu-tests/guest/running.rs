//! A guest that runs: commands and load in it, and its end.

use super::Plan;
use super::qmp::Qmp;
use super::start::{BOOT_MAX, Qemu};
use super::talk::{Ask, Said, Talk};
use crate::harness::{Step, ensure};
use std::time::{Duration, Instant};

/// What a command may take where nothing else is said.
const COMMAND_MAX: Duration = Duration::from_secs(120);

/// The file that ends a load on a device.
fn enough(device: &str) -> String {
    format!(
        "/run/enough-{}",
        device.rsplit('/').next().unwrap_or_default()
    )
}

/// A guest that runs.
pub struct Guest {
    plan: Plan,
    qemu: Qemu,
    talk: Talk,
    pub qmp: Qmp,
    jobs: u64,
}

/// A command that runs in the guest.
pub struct Job {
    number: u64,
    fetched: u64,
    pub out: String,
    pub exit: Option<i32>,
}

impl Guest {
    pub(super) fn new(plan: Plan, qemu: Qemu, talk: Talk, qmp: Qmp) -> Guest {
        Guest {
            plan,
            qemu,
            talk,
            qmp,
            jobs: 0,
        }
    }

    /// Waits until it answers.
    pub(super) fn hello(&mut self, within: Duration) -> Step<()> {
        let said = self.talk.ask(Ask::Hello, within);
        said.map(|_| ())
            .map_err(|why| format!("guest {} did not boot: {why}", self.plan.name).into())
    }

    /// Runs a shell command that must succeed; what it printed.
    pub fn run(&mut self, script: &str) -> Step<String> {
        let (code, out) = self.attempt(script, COMMAND_MAX)?;
        ensure!(code == 0, "in the guest: {script}: exit {code}: {out}");
        Ok(out)
    }

    /// Runs a shell command: its exit code, and what it printed.
    pub fn attempt(&mut self, script: &str, within: Duration) -> Step<(i32, String)> {
        let mut job = self.begin(script)?;
        let code = self.wait(&mut job, within)?;
        Ok((code, job.out))
    }

    /// Begins a shell command.
    pub fn begin(&mut self, script: &str) -> Step<Job> {
        self.jobs += 1;
        let number = self.jobs;
        let ask = Ask::Start {
            job: number,
            script: script.to_owned(),
        };
        self.ask(ask)?;
        Ok(Job {
            number,
            fetched: 0,
            out: String::new(),
            exit: None,
        })
    }

    fn ask(&mut self, ask: Ask) -> Step<Said> {
        match self.talk.ask(ask, COMMAND_MAX)? {
            Said::Refused(why) => Err(format!("in the guest: {why}").into()),
            said => Ok(said),
        }
    }

    /// Fetches what a job has said since the last look.
    pub fn look(&mut self, job: &mut Job) -> Step<()> {
        let ask = Ask::Poll {
            job: job.number,
            from: job.fetched,
            wait_ms: 200,
        };
        if let Said::State { exit, out, next } = self.ask(ask)? {
            job.out.push_str(&out);
            job.fetched = next;
            job.exit = exit;
        }
        Ok(())
    }

    /// Waits for the end of a job; its exit code.
    pub fn wait(&mut self, job: &mut Job, within: Duration) -> Step<i32> {
        let begun = Instant::now();
        loop {
            self.look(job)?;
            if let Some(code) = job.exit {
                return Ok(code);
            }
            if begun.elapsed() > within {
                self.signal(job, libc::SIGKILL)?;
                return Err(format!(
                    "a command still runs in the guest after {within:?}: {}",
                    job.out
                )
                .into());
            }
        }
    }

    /// Sends a signal to a job and its children.
    pub fn signal(&mut self, job: &Job, signal: i32) -> Step<()> {
        let job = job.number;
        self.ask(Ask::Signal { job, signal })?;
        Ok(())
    }

    /// Waits until a job has said something.
    pub fn wait_for(&mut self, job: &mut Job, word: &str, within: Duration) -> Step<()> {
        let begun = Instant::now();
        while !job.out.contains(word) {
            self.look(job)?;
            let ended = job.exit.is_some() && !job.out.contains(word);
            let late = begun.elapsed() > within;
            ensure!(
                !ended && !late,
                "in the guest, {word:?} was not said in {within:?}: {}",
                job.out
            );
        }
        Ok(())
    }

    /// Begins the load on the first MiB of a disk that reads as zeroes, and waits until it goes.
    pub fn load(&mut self, device: &str, mib: u64, seed: u64) -> Step<Job> {
        let script = format!(
            "agent --in-guest load {device} {mib} {seed} {}",
            enough(device)
        );
        let mut load = self.begin(&script)?;
        self.wait_for(&mut load, "acknowledged", COMMAND_MAX)?;
        Ok(load)
    }

    /// Waits until a load has got on, by more than could have been on its way.
    pub fn gets_on(&mut self, load: &mut Job, within: Duration) -> Step<()> {
        let so_far = |load: &Job| -> u64 {
            let last = load
                .out
                .lines()
                .rev()
                .find_map(|l| l.strip_prefix("acknowledged "));
            last.and_then(|count| count.parse().ok()).unwrap_or(0)
        };
        self.look(load)?;
        let (before, begun) = (so_far(load), Instant::now());
        while so_far(load) < before + 50 {
            ensure!(
                load.exit.is_none() && begun.elapsed() < within,
                "the load does not get on in {:?}: {}",
                begun.elapsed(),
                load.out
            );
            self.look(load)?;
        }
        Ok(())
    }

    /// Has a unix socket in the guest be at a port of it, too.
    pub fn lead_outside(&mut self, socket: &str, port: u16) -> Step<()> {
        self.begin(&format!(
            "agent --in-guest forward 10.0.2.15:{port} {socket}"
        ))?;
        // Until it listens, as the host's end would close at once.
        let listens = format!("until netstat -ltn | grep -q :{port}; do sleep 0.05; done");
        self.run(&listens).map(drop)
    }

    /// Serves a disk of the guest as an NBD export at a unix socket in it.
    pub fn serve(&mut self, device: &str, socket: &str) -> Step<()> {
        self.begin(&format!("agent --in-guest serve {device} {socket}"))?;
        let is_there = format!("until [ -S {socket} ]; do sleep 0.05; done");
        self.run(&is_there).map(drop)
    }

    /// Ends a load, which then reads and checks everything; its last line.
    pub fn enough(&mut self, device: &str, mut load: Job) -> Step<String> {
        self.run(&format!("touch {}", enough(device)))?;
        let code = self.wait(&mut load, COMMAND_MAX)?;
        ensure!(code == 0, "the load on {device}: exit {code}: {}", load.out);
        Ok(load.out.lines().last().unwrap_or_default().to_owned())
    }

    /// Goes on with the guest that was in another QEMU, which has sent it here.
    pub fn continue_from(&mut self, other: &Guest) -> Step<()> {
        self.jobs = other.jobs;
        self.talk.go_on_after(&other.talk);
        self.hello(BOOT_MAX)
    }

    /// Nothing in the kernel's log tells of a failed request, a broken file system or a hung task.
    pub fn nothing_failed(&mut self) -> Step<()> {
        let log = self.run("dmesg")?;
        let bad = [
            "I/O error",
            "Buffer I/O",
            "EXT4-fs error",
            "EXT4-fs warning",
            "XFS: Internal error",
            "metadata I/O",
            "blocked for more than",
            "BUG:",
            "WARNING:",
        ];
        let wrong: Vec<&str> = log
            .lines()
            .filter(|line| bad.iter().any(|b| line.contains(b)))
            .collect();
        ensure!(
            wrong.is_empty(),
            "the guest's kernel says: {}",
            wrong.join(" | ")
        );
        Ok(())
    }

    /// Ends it at once: the whole host is gone.
    pub fn kill(mut self) -> Step<()> {
        self.strike()?;
        self.reap()
    }

    /// Sends SIGKILL to QEMU.
    pub fn strike(&mut self) -> Step<()> {
        self.qemu.strike()
    }

    /// Waits until the guest has turned itself off, or begun to boot again, with which QEMU ends.
    pub fn ended(mut self, within: Duration) -> Step<()> {
        self.qemu.ended(within)
    }

    /// Waits for the end of QEMU.
    pub fn reap(&mut self) -> Step<()> {
        self.qemu.reap()
    }
}
