//! Kernels without a driver, with one, and newer ones: what is there is decided at run time, and told.

use super::host::Host;
use crate::harness::{Case, Outcome, Room, ensure};
use std::time::Duration;

const PAUSE_MAX: Duration = Duration::from_secs(40);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_device_is_made_by_what_the_kernel_has", chosen),
        Case::new(
            "on_the_oldest_kernel_a_device_is_by_nbd_and_is_taken_back",
            oldest,
        )
        .only_in_full(),
        Case::new(
            "on_a_newer_kernel_a_ublk_device_grows_in_use_and_is_taken_back",
            newer,
        )
        .only_in_full(),
    ]
}

fn chosen(room: &Room) -> Outcome {
    let mut host = Host::boot_as(room, &[], |plan| plan)?;
    for volume in ["first", "second"] {
        host.tell(&format!("volume create {volume} --size 64M"))?;
    }
    let (code, out) = host.try_to_tell("attach first --device")?;
    let says_what = out.contains("modprobe ublk_drv") && out.contains("modprobe nbd");
    ensure!(code == 1 && says_what, "without a driver: {code}, {out}");
    let (code, out) = host.try_to_tell("attach first --ublk")?;
    ensure!(
        code == 1 && out.contains("modprobe ublk_drv"),
        "without ublk: {code}, {out}"
    );
    host.guest.run("modprobe nbd")?;
    let by_nbd = host.tell("attach first --device --queues 4")?;
    ensure!(
        by_nbd.contains(": nbd at /dev/nbd0"),
        "with nbd alone: {by_nbd}"
    );
    let (code, out) = host.try_to_tell("attach second --nbd-device --queues 4")?;
    ensure!(
        code == 1 && out.contains("one connection"),
        "more connections than there are: {code}, {out}"
    );
    host.guest.run("modprobe ublk_drv")?;
    let by_ublk = host.tell("attach second --device")?;
    ensure!(
        by_ublk.contains(": ublk at /dev/ublkb0"),
        "with both: {by_ublk}"
    );
    let listed = host.tell("attachments")?;
    ensure!(
        listed.contains("/dev/nbd0") && listed.contains("/dev/ublkb0"),
        "listed: {listed}"
    );
    host.detach("first")?;
    host.detach("second")?;
    host.guest.nothing_failed()?;
    host.guest.kill()?;
    Ok(format!("{}; {}", by_nbd.trim(), by_ublk.trim()))
}

/// Debian 12's own kernel is built without ublk.
fn oldest(room: &Room) -> Outcome {
    let mut host = Host::boot_as(room, &[], |plan| plan.oldest_kernel().module("nbd"))?;
    let device = host.attach("vm1", 64, 512, "--device")?;
    ensure!(device.starts_with("/dev/nbd"), "it is {device}");
    let mut load = host.guest.load(&device, 64, 42)?;
    host = host.kill_and_start()?;
    host.gets_on(&mut load, PAUSE_MAX)?;
    host = host.stop_and_start()?;
    host.gets_on(&mut load, PAUSE_MAX)?;
    let said = host.guest.enough(&device, load)?;
    let version = host.guest.run("uname -r")?;
    host.detach("vm1")?;
    host.guest.nothing_failed()?;
    host.guest.kill()?;
    Ok(format!("{}: {device}, {said}", version.trim()))
}

/// Linux 6.16 brought what a device's size is changed with; the daemon that comes after must know it of the device.
fn newer(room: &Room) -> Outcome {
    let mut host = Host::boot_as(room, &[], |plan| plan.newer_kernel().module("ublk_drv"))?;
    let device = host.attach("vm1", 64, 512, "--ublk")?;
    let mut load = host.guest.load(&device, 64, 41)?;
    for (mib, kills) in [(128, true), (192, false)] {
        host.tell(&format!("volume resize vm1 --size {mib}M"))?;
        let size = format!("$(blockdev --getsize64 {device}) = {}", mib << 20);
        let seen = format!("until [ {size} ]; do sleep 0.1; done");
        let seen = host.guest.attempt(&seen, Duration::from_secs(30));
        seen.map_err(|why| format!("{device} does not grow: {why}"))?;
        host.gets_on(&mut load, PAUSE_MAX)?;
        host = match kills {
            true => host.kill_and_start()?,
            false => host.stop_and_start()?,
        };
        host.gets_on(&mut load, PAUSE_MAX)?;
    }
    let alerts = host.tell("alerts")?;
    ensure!(!alerts.contains("attach it again"), "an alert: {alerts}");
    // The last block, which was not there before.
    host.guest.run(&format!(
        "echo grown | dd of={device} bs=4096 seek=49151 conv=sync,fsync 2>/dev/null && \
         dd if={device} bs=4096 skip=49151 count=1 2>/dev/null | grep -q grown"
    ))?;
    let said = host.guest.enough(&device, load)?;
    let version = host.guest.run("uname -r")?;
    host.detach("vm1")?;
    host.guest.nothing_failed()?;
    host.guest.kill()?;
    Ok(format!("{}: {said}", version.trim()))
}
