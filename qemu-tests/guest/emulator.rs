//! Which QEMU runs a guest, and how.

use super::{Plan, cache, package};
use crate::harness::tools::run;
use crate::harness::{Room, Step};
use std::fs::File;
use std::process::Command;
use std::time::Duration;

const TCG: &str = "-accel tcg,thread=single -cpu max";
const KVM: &str = "-accel kvm -cpu host";
const QEMU: &str = "qemu-system-x86_64";
/// The first major version that migrates a guest under TCG whole. Older ones clear the marks of dirty pages and leave
/// entries in the guest's TLB by which it goes on writing to those pages unmarked: what it wrote last is lost, whatever
/// disk it has (QEMU's commit 03bfc2188f; seen here with a guest that has none).
const MIGRATES: u32 = 9;

/// The beginning of QEMU's command line. A guest that is to be migrated gets one that can do it: the installed one, else that of
/// the distribution's backports, unpacked beside.
pub fn command(accelerator: &str, moves: bool) -> Step<Command> {
    let mut command = Command::new(QEMU);
    if moves && accelerator == TCG && installed()? < MIGRATES {
        let root = package::backported("qemu-system-x86")?;
        command = Command::new(root.join("usr/bin").join(QEMU));
        // Firmware is that of the installed one. Else it is looked for beside the program.
        for folder in ["qemu", "seabios"] {
            command.arg("-L").arg(format!("/usr/share/{folder}"));
        }
    }
    command.args(accelerator.split(' '));
    Ok(command)
}

/// The major version of the QEMU that is installed.
fn installed() -> Step<u32> {
    let said = run(QEMU, &["--version"])?;
    let version = said.split("version ").nth(1);
    let major = version.and_then(|version| version.split('.').next());
    Ok(major.ok_or("QEMU does not tell its version")?.parse()?)
}

/// How QEMU runs a guest here: `-accel kvm` where a Linux guest really answers under it, which is tried once a boot of
/// this machine; else TCG, which always works. On one thread: with one a processor, QEMU 7.2 now and then lets a processor
/// run into the breakpoint by which the kernel patches its own code (`Oops: int3`).
pub fn accelerator() -> Step<&'static str> {
    if File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(TCG);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let known = cache()?.join(format!("accelerator-{}", boot.trim()));
    let runs = match std::fs::read_to_string(&known) {
        Ok(text) => text == KVM,
        Err(_) => {
            let room = Room::new("accelerator")?;
            let answers = Plan::new(&room, "kvm").start(KVM, &[]);
            let answers = answers.and_then(|mut guest| guest.hello(Duration::from_secs(15)));
            std::fs::write(&known, if answers.is_ok() { KVM } else { TCG })?;
            answers.is_ok()
        }
    };
    Ok(if runs { KVM } else { TCG })
}
