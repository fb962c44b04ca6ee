//! The daemon in a guest.

use super::{Guest, Job};
use crate::harness::{Step, ensure};
use std::time::Duration;

/// How long it may take until it serves, on a processor that is emulated.
const START_MAX: Duration = Duration::from_secs(60);
const CONFIG: &str = "/etc/sarsen.toml";
pub const API: &str = "/run/api.sock";
pub const NBD: &str = "/run/nbd.sock";

/// A daemon that runs in a guest.
pub struct Inside(Job);

/// Prints what the kernel said last, and where in it every thread of the guest waits: also its own, which serve the drivers.
pub const WHERE_IT_STANDS: &str = "dmesg | tail -20; for t in /proc/[0-9]*/task/*; do \
    s=$(cat $t/stack 2>/dev/null); [ -z \"$s\" ] || { echo \"$t $(cat $t/comm)\"; echo \"$s\"; }; done; true";

/// What `Plan::file` puts where the daemon looks: the catalog's folder, and disks with a size where they are files.
pub fn config(data: &str, disks: &[(&str, Option<&str>)]) -> (&'static str, Vec<u8>) {
    let mut more = String::new();
    for (path, size) in disks {
        more.push_str(&format!("[[disk]]\npath = {path:?}\n"));
        if let Some(size) = size {
            more.push_str(&format!("size = {size:?}\n"));
        }
    }
    config_with(data, &more)
}

/// The same of one that is to be a node of a cluster, at this address.
pub fn node_config(data: &str, listen: &str) -> (&'static str, Vec<u8>) {
    config_with(data, &format!("[cluster]\nlisten = {listen:?}\n"))
}

fn config_with(data: &str, more: &str) -> (&'static str, Vec<u8>) {
    let config = format!(
        "data_dir = {data:?}\nmemory = \"64M\"\n[api]\nsocket = {API:?}\n[nbd]\nsocket = {NBD:?}\n{more}"
    );
    (CONFIG, config.into_bytes())
}

impl Inside {
    /// Starts it by the file that `config` made, and waits until it serves.
    pub fn start(guest: &mut Guest) -> Step<Inside> {
        let script = format!("NO_COLOR=1 exec sarsen daemon --config {CONFIG}");
        let mut job = guest.begin(&script)?;
        let wait = format!("until sarsen --api {API} status; do sleep 0.1; done >/dev/null 2>&1");
        let mut wait = guest.begin(&wait)?;
        let served = guest.wait(&mut wait, START_MAX);
        guest.look(&mut job)?;
        ensure!(
            job.exit.is_none(),
            "the daemon ended at its start in the guest: {}",
            job.out
        );
        if served.is_err() {
            let kernel = guest.run(WHERE_IT_STANDS)?;
            let said = job.out;
            return Err(format!(
                "the daemon does not serve in the guest: {said}\n--- the kernel\n{kernel}"
            )
            .into());
        }
        Ok(Inside(job))
    }

    /// kill -9, and another one started.
    pub fn kill_and_start(self, guest: &mut Guest) -> Step<Inside> {
        self.kill(guest)?;
        Inside::start(guest)
    }

    /// SIGTERM, and another one started once it has ended.
    pub fn stop_and_start(mut self, guest: &mut Guest) -> Step<Inside> {
        guest.signal(&self.0, libc::SIGTERM)?;
        let code = guest.wait(&mut self.0, Duration::from_secs(30))?;
        ensure!(
            code == 0,
            "told to end, it ended with {code}: {}",
            self.0.out
        );
        Inside::start(guest)
    }

    /// All that it has printed.
    pub fn said(&mut self, guest: &mut Guest) -> Step<String> {
        guest.look(&mut self.0)?;
        Ok(self.0.out.clone())
    }

    /// Sends it a signal.
    pub fn signal(&self, guest: &mut Guest, signal: i32) -> Step<()> {
        guest.signal(&self.0, signal)
    }

    pub fn kill(mut self, guest: &mut Guest) -> Step<()> {
        guest.signal(&self.0, libc::SIGKILL)?;
        let code = guest.wait(&mut self.0, Duration::from_secs(30))?;
        ensure!(
            code == 128 + libc::SIGKILL,
            "killed with -9, but it had ended by itself with {code}: {}",
            self.0.out
        );
        Ok(())
    }

    /// Runs `sarsen ARGUMENTS` in the guest: its exit code, and what it printed.
    pub fn try_to_tell(&self, guest: &mut Guest, arguments: &str) -> Step<(i32, String)> {
        guest.attempt(&format!("sarsen --api {API} {arguments}"), START_MAX)
    }

    /// Runs `sarsen ARGUMENTS` in the guest, which must be done.
    pub fn tell(&self, guest: &mut Guest, arguments: &str) -> Step<String> {
        guest.run(&format!("sarsen --api {API} {arguments}"))
    }
}
