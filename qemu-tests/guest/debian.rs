//! A Debian host: what debootstrap makes, with systemd as the first process, on a disk of its own.
//!
//! ```text
//!   DEBIAN-*.ext4 (kept below target/guest/, never written) ◄── overlay in the room ── /dev/vda
//!   initrd: loads virtio_blk, puts agent, agent.service and the plan's files into /run, changes to /dev/vda
//! ```
//!
//! The image knows nothing of the tests: what they bring along comes in /run, which systemd takes over as it finds it.
//! It is of the release that this machine runs, so that programs of this machine, and packages made of them, run there.

use super::initrd::Print;
use super::{Plan, cache, kernel, package};
use crate::harness::daemon::text;
use crate::harness::tools::{run, run_within};
use crate::harness::{Room, Step};
use std::path::{Path, PathBuf};

/// Beside what is in every Debian. With dbus, as a server that runs guests has it.
const PACKAGES: &str = "systemd-sysv,udev,dbus,kmod";
const IMAGE: &str = "1G";
/// Debootstrap fetches some 100 packages, and unpacks them.
const MADE_MAX: u32 = 900;

const UNIT: &str = "\
[Unit]
Description=The agent of the tests
# A shutdown that hangs is looked into while it hangs.
DefaultDependencies=no

[Service]
Environment=PATH=/run/give:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8 NO_COLOR=1
ExecStart=/run/give/agent --in-guest agent
";
const WANTED: &str = "[Unit]\nWants=agent.service\n";

/// Makes a plan one of such a host.
pub fn host(plan: Plan, room: &Room) -> Step<Plan> {
    let (image, root) = (text(&image()?), text(&room.path("root.qcow2")));
    let arguments = [
        "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &image, &root,
    ];
    run("qemu-img", &arguments)?;
    let mut plan = plan
        .memory(1024)
        .file("give/systemd/system/agent.service", UNIT.as_bytes())
        .file(
            "give/systemd/system/sysinit.target.d/agent.conf",
            WANTED.as_bytes(),
        )
        .drive(&format!("file={root},format=qcow2,cache=unsafe"))
        .root("/dev/vda");
    plan.kernel_words.push("sarsen.init=/sbin/init".into());
    Ok(plan)
}

/// The image, made where it is not there yet.
fn image() -> Step<PathBuf> {
    let kernel = kernel::get(kernel::Which::Usual)?;
    let suite = package::release()?;
    let mut print = Print::new();
    for part in [PACKAGES, IMAGE, &kernel.modules_print(), SCRIPT] {
        print.add(part.as_bytes());
    }
    let cache = cache()?;
    let image = cache.join(format!("debian-{suite}-{:016x}.ext4", print.0));
    if image.exists() {
        return Ok(image);
    }
    let aside = cache.join(format!("new-debian-{}", std::process::id()));
    let (tree, made) = (aside.join("tree"), aside.join("image"));
    std::fs::create_dir_all(&aside)?;
    let filled = fill(&suite, &tree)
        .and_then(|()| kernel.put_modules(&tree))
        .and_then(|()| make(&tree, &made))
        .and_then(|()| Ok(std::fs::rename(&made, &image)?));
    std::fs::remove_dir_all(&aside)?;
    filled.map(|()| image)
}

/// What is not needed goes; a clock that says it is the middle of the night starts nothing of its own.
const SCRIPT: &str = "\
set -e
rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/doc/* usr/share/locale/* usr/share/man/* usr/share/info/*
rm -f etc/systemd/system/timers.target.wants/*
echo guest >etc/hostname
echo '127.0.0.1 localhost guest' >etc/hosts
";

fn fill(suite: &str, tree: &Path) -> Step<()> {
    println!("making a Debian {suite} for guests, once");
    let (tree, include) = (text(tree), format!("--include={PACKAGES}"));
    let arguments = ["--variant=minbase", &include, suite, &tree];
    run_within(MADE_MAX, "debootstrap", &arguments)?;
    run("sh", &["-c", &format!("cd '{tree}' && {SCRIPT}")]).map(|_| ())
}

fn make(tree: &Path, image: &Path) -> Step<()> {
    let (tree, image) = (text(tree), text(image));
    let arguments = ["-q", "-F", "-L", "root", "-d", &tree, &image, IMAGE];
    run("mkfs.ext4", &arguments).map(|_| ())
}
