//! The Debian package on a Debian host under systemd: installed, used, upgraded, its daemon killed and hung, the host
//! booted again, the package removed.
//!
//! The package is made of the binary that is tested, of the development profile; `scripts/package` makes the other one the same way.

use super::debian_host::{DebianHost, Process};
use crate::harness::{Case, Outcome, Room, Step, ensure};

const FIRST: &str = "1.0-1";
const SECOND: &str = "1.1-1";
const SOCKET: &str = "/run/sarsen/vhost/vm1.sock";

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("the_package_is_installed_and_upgraded_under_load", upgraded).only_in_full(),
        Case::new("the_daemon_of_the_package_is_killed_and_hangs", killed).only_in_full(),
        Case::new("the_host_of_the_package_boots_again", boots_again).only_in_full(),
    ]
}

/// Installs the package and gives it a disk, as the README says.
fn installed(room: &Room, versions: &[&str]) -> Step<DebianHost> {
    let mut host = DebianHost::boot(room, versions)?;
    host.run(&format!("dpkg -i /run/give/{FIRST}.deb"))?;
    host.pid()?;
    let enabled = host.run("systemctl is-enabled sarsen")?;
    ensure!(enabled.trim() == "enabled", "the unit is {enabled}");
    let wrong = host.run("systemd-analyze verify --man=no sarsen.service sarsen-users.service 2>&1 | grep -i sarsen; true")?;
    ensure!(wrong.is_empty(), "of the units it is said: {wrong}");
    host.run("sarsen status")?;
    host.run("sarsen disk add /dev/vdb")?;
    Ok(host)
}

/// A volume with a file system on it, mounted at /srv/NAME by hand.
fn mounted(host: &mut DebianHost, volume: &str, kind: &str) -> Step<String> {
    let device = made(host, volume, kind)?;
    host.run(&format!("mount /dev/sarsen/{volume} /srv/{volume}"))?;
    Ok(device)
}

/// The same by /etc/fstab.
fn mounted_at_boot(host: &mut DebianHost, volume: &str, kind: &str) -> Step<String> {
    let device = made(host, volume, kind)?;
    host.run(&format!(
        "echo '/dev/sarsen/{volume} /srv/{volume} ext4 nofail 0 2' >>/etc/fstab
        systemctl daemon-reload && mount /srv/{volume}"
    ))?;
    Ok(device)
}

fn made(host: &mut DebianHost, volume: &str, kind: &str) -> Step<String> {
    let device = host.attach(volume, "320M", kind)?;
    host.run(&format!(
        "mkfs.ext4 -q /dev/sarsen/{volume} && mkdir /srv/{volume}"
    ))?;
    Ok(device)
}

/// A host that uses a volume by each kind of device, and a guest's socket.
struct Used {
    host: DebianHost,
    devices: [String; 2],
    attachments: String,
    socket: String,
}

fn used(room: &Room, versions: &[&str]) -> Step<Used> {
    let mut host = installed(room, versions)?;
    let ublk = mounted_at_boot(&mut host, "fs", "--device")?;
    ensure!(ublk.starts_with("/dev/ublkb"), "--device took {ublk}");
    let nbd = mounted(&mut host, "old", "--nbd-device")?;
    ensure!(nbd.starts_with("/dev/nbd"), "--nbd-device took {nbd}");
    guest_socket(&mut host)?;
    let attachments = host.run("sarsen attachments --json")?;
    let socket = host.run(&format!("stat -c %i {SOCKET}"))?;
    Ok(Used {
        host,
        devices: [ublk, nbd],
        attachments,
        socket,
    })
}

/// Does something to the daemon under load on both devices, which goes on; nothing is detached by it.
fn under_load(used: &mut Used, events: &[(&str, &str)], process: Process) -> Outcome {
    let host = &mut used.host;
    let mut loads = [host.churn("/srv/fs")?, host.churn("/srv/old")?];
    let mut told = used.devices.join(", ");
    for (event, script) in events {
        let wrong = |why: Box<dyn std::error::Error>| format!("{event}: {why}");
        let pid = host.pid()?;
        host.run(script).map_err(wrong)?;
        let took = host.serves_again(pid, process).map_err(wrong)?;
        for load in &mut loads {
            host.gets_on(load).map_err(wrong)?;
        }
        let socket = host.run(&format!("stat -c %i {SOCKET}"))?;
        // systemd keeps it until the unit is stopped.
        ensure!(
            socket == used.socket || script.contains("stop"),
            "{event}: the guest's socket is another one"
        );
        let now = host.run("sarsen attachments --json")?;
        ensure!(
            now == used.attachments,
            "{event}: attached was {} and is {now}",
            used.attachments
        );
        told.push_str(&format!(", {event} {:.1} s", took.as_secs_f64()));
    }
    let mut rounds = 0;
    for load in loads {
        rounds += host.enough(load)?;
    }
    host.guest.nothing_failed()?;
    Ok(format!("{told}; {rounds} rounds of load"))
}

fn upgraded(room: &Room) -> Outcome {
    let mut used = used(room, &[FIRST, SECOND])?;
    let upgrade = [("upgrade", "dpkg -i /run/give/1.1-1.deb")];
    let told = under_load(&mut used, &upgrade, Process::Same)?;
    let mut host = used.host;
    let version = host.run("dpkg-query -W -f '${Version}' sarsen")?;
    ensure!(version == SECOND, "{version} is installed");
    removed(&mut host)?;
    host.power_off()?;
    Ok(told)
}

fn killed(room: &Room) -> Outcome {
    let mut used = used(room, &[FIRST])?;
    let events = [
        ("kill -9", "systemctl kill -s KILL sarsen"),
        ("hang", "systemctl kill -s STOP sarsen"),
        ("restart", "systemctl restart sarsen"),
        (
            "stop and start",
            "systemctl stop sarsen; sleep 3; systemctl start sarsen",
        ),
    ];
    let told = under_load(&mut used, &events, Process::Another)?;
    let security = used
        .host
        .run("systemd-analyze security sarsen --no-pager | tail -n 1")?;
    used.host.guest.kill()?;
    Ok(format!("{told}; {}", security.trim()))
}

/// The socket of a guest's disk is open to QEMU's group, and to no others.
fn guest_socket(host: &mut DebianHost) -> Step<()> {
    host.run("sarsen volume create vm1 --size 1G && sarsen attach vm1 --vhost-user --queues 2")?;
    let stat = host.run(&format!("stat -c '%U:%G %a %F' {SOCKET}"))?;
    ensure!(stat.trim() == "root:kvm 660 socket", "{SOCKET} is {stat}");
    host.run("useradd -G kvm qemu")?;
    host.run(&format!("runuser -u qemu -- test -w {SOCKET}"))?;
    host.refused(&format!("runuser -u nobody -- test -w {SOCKET}"))?;
    // The API is for its group alone.
    host.refused("runuser -u qemu -- sarsen status")?;
    host.run("usermod -aG sarsen qemu && runuser -u qemu -- sarsen status")
        .map(|_| ())
}

/// The package goes only where nothing is in use, and what is stored stays.
fn removed(host: &mut DebianHost) -> Step<()> {
    let said = host.refused("dpkg -r sarsen")?;
    ensure!(
        said.contains("in use"),
        "it does not say why it stays: {said}"
    );
    host.pid()?;
    host.run("umount /srv/fs /srv/old && dpkg -r sarsen")?;
    host.run("! test -e /usr/bin/sarsen && test -e /etc/sarsen/sarsen.toml")?;
    host.run("dpkg -P sarsen && ! test -e /etc/sarsen/sarsen.toml && test -s /var/lib/sarsen/catalog.redb")?;
    host.run(&format!("dpkg -i /run/give/{SECOND}.deb && sarsen status"))?;
    for volume in ["fs", "old"] {
        host.linked(volume)?;
        host.run(&format!("mount /dev/sarsen/{volume} /srv/{volume}"))?;
        host.verify(&format!("/srv/{volume}"))?;
        host.run(&format!(
            "umount /srv/{volume} && sarsen detach {volume} && sarsen volume delete {volume}"
        ))?;
    }
    host.guest.nothing_failed()
}

/// By /etc/fstab, and by hand: both are unmounted while the daemon still serves, and come back with the host.
fn boots_again(room: &Room) -> Outcome {
    let mut host = installed(room, &[FIRST])?;
    mounted_at_boot(&mut host, "fs", "--device")?;
    mounted(&mut host, "hand", "--nbd-device")?;
    for folder in ["/srv/fs", "/srv/hand"] {
        let load = host.churn(folder)?;
        host.enough(load)?;
    }
    let (mut host, down) = host.reboot()?;
    host.pid()?;
    host.run("mountpoint /srv/fs")?;
    host.linked("hand")?;
    // Of the kernel, or of the fsck that goes before an entry of /etc/fstab.
    let log = host
        .run("journalctl -b --no-pager | grep -E 'recovering journal|recovery complete'; true")?;
    ensure!(
        log.is_empty(),
        "what was mounted had to be recovered: {log}"
    );
    let state = host.run("dumpe2fs -h /dev/sarsen/hand")?;
    ensure!(
        !state.contains("needs_recovery"),
        "hand was not unmounted: {state}"
    );
    host.run("mount /dev/sarsen/hand /srv/hand")?;
    for folder in ["/srv/fs", "/srv/hand"] {
        host.verify(folder)?;
    }
    host.guest.nothing_failed()?;
    host.power_off()?;
    Ok(format!("down in {:.1} s", down.as_secs_f64()))
}
