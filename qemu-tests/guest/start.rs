//! Starts QEMU for a guest.

use super::qmp::Qmp;
use super::talk::Talk;
use super::{Guest, Plan, emulator, initrd, kernel, with_ours};
use crate::harness::daemon::text;
use crate::harness::network::enter;
use crate::harness::{Step, ensure};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// From QEMU's start to the first answer. A boot takes some seconds, unless the machine is busy.
pub const BOOT_MAX: Duration = Duration::from_secs(120);

impl Plan {
    /// Starts it and waits until it answers.
    pub fn boot(&self) -> Step<Guest> {
        let mut guest = self.start(emulator::accelerator()?, &[])?;
        guest.hello(BOOT_MAX)?;
        Ok(guest)
    }

    /// Starts QEMU to wait for the state of another one, which comes by this socket.
    pub fn boot_incoming(&self, socket: &Path) -> Step<Guest> {
        let from = format!("unix:{}", text(socket));
        self.start(emulator::accelerator()?, &["-incoming", &from])
    }

    fn path(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}.{what}", self.name))
    }

    pub(super) fn start(&self, accelerator: &str, more: &[&str]) -> Step<Guest> {
        let kernel = kernel::get(self.kernel)?;
        let initrd = self.path("initrd");
        initrd::write(&initrd, &kernel, &with_ours(&self.programs)?, &self.files)?;
        let mut command = emulator::command(accelerator, self.moves)?;
        command.arg("-kernel").arg(&kernel.image);
        command.arg("-initrd").arg(&initrd);
        self.describe(&mut command);
        command.args(more);
        if let Some(network) = &self.network {
            enter(&mut command, network.clone());
        }
        let log = self.path("qemu.log");
        let mut qemu = Qemu::spawn(&mut command, &log)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = qemu.0.try_wait()? {
                let said = std::fs::read_to_string(&log)?;
                return Err(format!("QEMU ended at its start: {status}: {said}").into());
            }
            let (talk, qmp) = (Talk::open(&self.path("talk")), Qmp::open(&self.path("qmp")));
            if let (Ok(talk), Ok(qmp)) = (talk, qmp) {
                return Ok(Guest::new(self.clone(), qemu, talk, qmp));
            }
            ensure!(
                begun.elapsed() < BOOT_MAX,
                "QEMU makes no sockets within {BOOT_MAX:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The arguments for what the guest has, and for how it is spoken to.
    fn describe(&self, command: &mut Command) {
        let words = format!(
            "console=ttyS0 quiet panic=-1 oops=panic random.trust_cpu=on no_timer_check sarsen.modules={} {}",
            self.modules.join(","),
            self.kernel_words.join(" ")
        );
        let size = format!("{}M", self.memory_mib);
        let ram = format!("memory-backend-memfd,id=ram,size={size},share=on");
        let console = format!("file:{}", text(&self.path("console.log")));
        let qmp = format!("unix:{},server=on,wait=off", text(&self.path("qmp")));
        let talk = format!(
            "socket,id=talk,path={},server=on,wait=off",
            text(&self.path("talk"))
        );
        command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
        command.args(["-display", "none", "-smp", "2"]);
        command.args(["-machine", "pc,memory-backend=ram"]);
        command.args(["-m", &size, "-object", &ram]);
        command.args(["-append", &words]);
        command.args(["-serial", &console, "-qmp", &qmp]);
        command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
        command.args(["-chardev", &talk]);
        command.args(["-device", "virtserialport,chardev=talk,name=sarsen.talk"]);
        command.args(&self.arguments);
    }
}

/// A QEMU, killed at the end.
pub struct Qemu(Child);

impl Qemu {
    fn spawn(command: &mut Command, log: &Path) -> Step<Qemu> {
        let log = File::create(log)?;
        command.stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        // SAFETY: a system call that is safe between fork and exec. QEMU ends with this process, even where that is killed.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn();
        Ok(Qemu(child.map_err(|e| format!("qemu-system-x86_64: {e}"))?))
    }

    /// Sends SIGKILL.
    pub fn strike(&mut self) -> Step<()> {
        Ok(self.0.kill()?)
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self, within: Duration) -> Step<()> {
        let begun = Instant::now();
        while self.0.try_wait()?.is_none() {
            ensure!(
                begun.elapsed() < within,
                "the guest has not ended within {within:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits for its end.
    pub fn reap(&mut self) -> Step<()> {
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
