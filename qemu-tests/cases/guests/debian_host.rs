//! A Debian host under systemd, with the package on it, and what an operator does there.

use crate::guest::{Guest, Job, Plan};
use crate::harness::daemon::text;
use crate::harness::tools::run_within;
use crate::harness::{Room, Step, ensure};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A boot to the last unit, a package's installation: emulated, on a machine that does other things too.
pub const LONG: Duration = Duration::from_secs(180);
/// What a restart of any kind may take until the daemon serves again; 15 s of it are the watchdog's.
const BACK_MAX: Duration = Duration::from_secs(60);
/// Files that one round of load changes.
const STEPS: u64 = 15;

/// Builds the package of the binary that is tested, as this version.
pub fn package(room: &Room, version: &str) -> Step<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/package");
    let to = room.path(&format!("{version}.deb"));
    let arguments = [
        "--dev",
        "--quiet",
        "--deb-version",
        version,
        "--output",
        &text(&to),
    ];
    run_within(240, &text(&script), &arguments)?;
    Ok(to)
}

/// The host.
pub struct DebianHost {
    pub guest: Guest,
    plan: Plan,
}

/// Which process serves after something was done to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// It became the binary that is installed now.
    Same,
    Another,
}

/// Load on a file system.
pub struct Churn {
    folder: String,
    job: Job,
}

impl DebianHost {
    /// Boots it with an empty disk, /dev/vdb, and packages of these versions as /run/give/VERSION.deb.
    pub fn boot(room: &Room, versions: &[&str]) -> Step<DebianHost> {
        let store = room.path("store.img");
        std::fs::File::create(&store)?.set_len(4 << 30)?;
        let mut plan = Plan::new(room, "host").debian(room)?;
        for version in versions {
            let bytes = std::fs::read(package(room, version)?)?;
            plan = plan.file(&format!("give/give/{version}.deb"), &bytes);
        }
        let drive = format!(
            "file={},format=raw,cache=unsafe,discard=unmap",
            text(&store)
        );
        let plan = plan.drive(&drive);
        let mut host = DebianHost {
            guest: plan.boot()?,
            plan,
        };
        host.has_booted()?;
        Ok(host)
    }

    /// Waits until systemd has done what it had to; nothing has failed.
    fn has_booted(&mut self) -> Step<()> {
        let (_, said) = self
            .guest
            .attempt("systemctl is-system-running --wait", LONG)?;
        if said.trim() == "running" {
            return Ok(());
        }
        let failed =
            self.run("systemctl --failed; journalctl -b -p warning --no-pager | tail -n 40")?;
        Err(format!("the system is {}: {failed}", said.trim()).into())
    }

    /// Runs a command; where it fails, what the daemon logged is told too.
    pub fn run(&mut self, script: &str) -> Step<String> {
        let (code, said) = self.guest.attempt(script, LONG)?;
        if code == 0 {
            return Ok(said);
        }
        let log = "systemctl status sarsen --no-pager -n 0; journalctl -u sarsen --no-pager | tail -n 40; dmesg | tail -n 20";
        let (_, log) = self.guest.attempt(log, LONG)?;
        Err(format!("{script}: exit {code}: {said}\n{log}").into())
    }

    /// Runs a command that must be refused; what it said.
    pub fn refused(&mut self, script: &str) -> Step<String> {
        let (code, said) = self.guest.attempt(script, LONG)?;
        ensure!(code != 0, "{script}: was done: {said}");
        Ok(said)
    }

    /// Makes a volume and a device of it; the device's path, to which the link leads.
    pub fn attach(&mut self, volume: &str, size: &str, kind: &str) -> Step<String> {
        self.run(&format!("sarsen volume create {volume} --size {size}"))?;
        self.run(&format!("sarsen attach {volume} {kind}"))?;
        self.linked(volume)
    }

    /// Waits for a volume's link; the device that it leads to.
    pub fn linked(&mut self, volume: &str) -> Step<String> {
        let link = format!("/dev/sarsen/{volume}");
        let wait = format!(
            "i=0; until [ -b {link} ]; do i=$((i+1)); [ $i -lt 300 ] || exit 1; sleep 0.1; done; readlink -f {link}"
        );
        Ok(self.run(&wait)?.trim().to_owned())
    }

    /// The process of the unit, which must be active, and must run what is installed.
    pub fn pid(&mut self) -> Step<u32> {
        let pid = self.run("systemctl is-active -q sarsen && systemctl show -P MainPID sarsen")?;
        let pid = pid.trim().to_owned();
        let exe = self.run(&format!("readlink /proc/{pid}/exe"))?;
        ensure!(
            exe.trim() == "/usr/bin/sarsen",
            "process {pid} runs {}",
            exe.trim()
        );
        Ok(pid.parse()?)
    }

    /// Waits until a process serves that runs what is installed: the one from before, or another; how long that took.
    pub fn serves_again(&mut self, before: u32, process: Process) -> Step<Duration> {
        let begun = Instant::now();
        let is = match process {
            Process::Same => "=",
            Process::Another => "!=",
        };
        let wait = format!(
            "until pid=$(systemctl show -P MainPID sarsen) && [ \"$pid\" != 0 ] && [ \"$pid\" {is} {before} ] && systemctl is-active -q sarsen
            do sleep 0.1; done; sarsen status"
        );
        let (code, said) = self.guest.attempt(&wait, BACK_MAX)?;
        ensure!(code == 0, "it does not serve again: {said}");
        let now = self.pid()?;
        ensure!(
            (now == before) == (process == Process::Same),
            "process {before} was to become {process:?}, and {now} serves"
        );
        Ok(begun.elapsed())
    }

    /// Begins load on a file system: rounds of files that are written, changed, read and compared.
    pub fn churn(&mut self, folder: &str) -> Step<Churn> {
        let script = format!(
            "i=0; until [ -e {folder}/enough ]; do rm -rf {folder}/churn*
            agent --in-guest churn {folder} $i {STEPS} make && sync -f {folder} || exit 1
            echo 1 >/proc/sys/vm/drop_caches
            agent --in-guest churn {folder} $i {STEPS} verify || exit 1
            echo round; i=$((i+1)); done; echo $((i-1)) >{folder}/last"
        );
        let job = self.guest.begin(&script)?;
        let mut churn = Churn {
            folder: folder.to_owned(),
            job,
        };
        self.gets_on(&mut churn)?;
        Ok(churn)
    }

    /// Waits until a load has written and compared everything once more, from the beginning.
    pub fn gets_on(&mut self, churn: &mut Churn) -> Step<()> {
        let rounds = |churn: &Churn| {
            churn
                .job
                .out
                .lines()
                .filter(|line| *line == "round")
                .count()
        };
        self.guest.look(&mut churn.job)?;
        let (before, begun) = (rounds(churn), Instant::now());
        while rounds(churn) < before + 2 {
            ensure!(
                churn.job.exit.is_none() && begun.elapsed() < LONG,
                "the load on {} does not get on in {:?}: {}",
                churn.folder,
                begun.elapsed(),
                churn.job.out
            );
            self.guest.look(&mut churn.job)?;
        }
        Ok(())
    }

    /// Ends a load; how many rounds there were.
    pub fn enough(&mut self, mut churn: Churn) -> Step<usize> {
        self.run(&format!("touch {}/enough", churn.folder))?;
        let code = self.guest.wait(&mut churn.job, LONG)?;
        ensure!(
            code == 0,
            "the load on {}: exit {code}: {}",
            churn.folder,
            churn.job.out
        );
        Ok(churn
            .job
            .out
            .lines()
            .filter(|line| *line == "round")
            .count())
    }

    /// What the load has left on a file system is there.
    pub fn verify(&mut self, folder: &str) -> Step<()> {
        self.run(&format!(
            "agent --in-guest churn {folder} $(cat {folder}/last) {STEPS} verify"
        ))
        .map(|_| ())
    }

    /// Boots it again, in good order; how long it took to go down.
    pub fn reboot(mut self) -> Step<(DebianHost, Duration)> {
        self.guest.begin("systemctl reboot")?;
        let begun = Instant::now();
        self.guest.ended(LONG)?;
        let down = begun.elapsed();
        let mut host = DebianHost {
            guest: self.plan.boot()?,
            plan: self.plan,
        };
        host.has_booted()?;
        Ok((host, down))
    }

    /// Turns it off, in good order.
    pub fn power_off(mut self) -> Step<()> {
        self.guest.begin("systemctl poweroff")?;
        self.guest.ended(LONG)
    }
}
