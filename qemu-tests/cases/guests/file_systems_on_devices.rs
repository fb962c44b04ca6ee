//! ext4 and XFS on a device of the host: made, mounted, churned, unmounted, checked; and the device grows.

use super::host::Host;
use crate::harness::{Case, Outcome, Room, ensure};
use std::time::Duration;

/// XFS takes nothing smaller than 300 MB.
const MIB: u64 = 320;
const STEPS: u64 = 250;
const WORK_MAX: Duration = Duration::from_secs(180);

pub fn ublk() -> Vec<Case> {
    vec![
        Case::new("file_systems_on_a_ublk_device_stay_whole", |room| {
            both(room, "--ublk")
        }),
        Case::new(
            "a_ublk_device_that_cannot_grow_says_so_and_grows_when_it_is_attached_again",
            grows_later,
        ),
    ]
}

pub fn nbd() -> Vec<Case> {
    vec![
        Case::new("file_systems_on_a_kernel_nbd_device_stay_whole", |room| {
            both(room, "--nbd-device")
        }),
        Case::new("a_kernel_nbd_device_grows_in_use", |room| {
            grows(room, "--nbd-device")
        }),
    ]
}

fn both(room: &Room, kind: &str) -> Outcome {
    let tools = ["mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair"];
    let mut host = Host::boot(room, &tools)?;
    host.guest.run("modprobe xfs")?;
    let mut said = String::new();
    for (file_system, make, check) in [
        ("ext4", "mkfs.ext4 -q -F", "e2fsck -f -n"),
        ("xfs", "mkfs.xfs -q -f", "xfs_repair -n"),
    ] {
        let volume = format!("on-{file_system}");
        let device = host.attach(&volume, MIB, 4096, kind)?;
        let link = format!("/dev/sarsen/{volume}");
        let steps: &[&str] = &[
            &format!("{make} {link}"),
            &format!("mount -t {file_system} {link} /mnt"),
            &format!("agent --in-guest churn /mnt 11 {STEPS} make"),
            "umount /mnt",
            &format!("{check} {link}"),
            &format!("mount -t {file_system} -o discard {link} /mnt"),
            &format!("agent --in-guest churn /mnt 11 {STEPS} verify"),
            "fstrim /mnt",
            "umount /mnt",
            &format!("{check} {link}"),
        ];
        for step in steps {
            let (code, out) = host.guest.attempt(step, WORK_MAX)?;
            ensure!(code == 0, "{step}: exit {code}: {out}");
        }
        host.detach(&volume)?;
        said.push_str(&format!("{file_system} on {device}; "));
    }
    host.guest.nothing_failed()?;
    host.guest.kill()?;
    Ok(said)
}

/// The guest's kernel, 6.12, cannot resize a ublk device that is there (UPDATE_SIZE came with 6.16).
fn grows_later(room: &Room) -> Outcome {
    let mut host = Host::boot(room, &[])?;
    let device = host.attach("vm1", 64, 512, "--ublk")?;
    let load = host.guest.load(&device, 64, 12)?;
    host.tell("volume resize vm1 --size 128M")?;
    let alerts = host.tell("alerts")?;
    ensure!(
        alerts.contains("detach and attach it again"),
        "no alert says what to do: {alerts}"
    );
    let said = host.guest.enough(&device, load)?;
    host.detach("vm1")?;
    host.tell("attach vm1 --ublk")?;
    let size = host.guest.run(
        "until [ -b /dev/sarsen/vm1 ]; do sleep 0.1; done; blockdev --getsize64 /dev/sarsen/vm1",
    )?;
    ensure!(
        size.trim() == (128 << 20).to_string(),
        "it has {size} bytes"
    );
    let alerts = host.tell("alerts")?;
    ensure!(
        !alerts.contains("attach it again"),
        "the alert stays: {alerts}"
    );
    host.guest.nothing_failed()?;
    host.guest.kill()?;
    Ok(said)
}

fn grows(room: &Room, kind: &str) -> Outcome {
    let mut host = Host::boot(room, &[])?;
    let device = host.attach("vm1", 64, 512, kind)?;
    let mut load = host.guest.load(&device, 64, 12)?;
    host.tell("volume resize vm1 --size 128M")?;
    let name = device.trim_start_matches("/dev/");
    let seen = format!("until [ $(cat /sys/block/{name}/size) = 262144 ]; do sleep 0.1; done");
    let seen = host.guest.attempt(&seen, Duration::from_secs(30));
    seen.map_err(|why| format!("{device} does not grow: {why}"))?;
    host.gets_on(&mut load, WORK_MAX)?;
    let said = host.guest.enough(&device, load)?;
    host.guest.nothing_failed()?;
    host.detach("vm1")?;
    host.guest.kill()?;
    Ok(said)
}
