//! `sarsen detach` of devices that are in use: refused where somebody stays, waiting where somebody is about to go, and
//! forced under a mounted file system, which then has errors while the daemon and other devices have none.

use super::host::Host;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::time::{Duration, Instant};

const MIB: u64 = 64;
const PAUSE_MAX: Duration = Duration::from_secs(40);
/// Emulated, and with what waits for openers.
const DETACH_MAX: Duration = Duration::from_secs(20);

pub fn cases() -> Vec<Case> {
    vec![Case::new("devices_in_use_are_taken_away", taken_away)]
}

fn taken_away(room: &Room) -> Outcome {
    let mut host = Host::boot(room, &["mkfs.ext4"])?;
    let other = host.attach("other", MIB, 512, "--ublk")?;
    let mut load = host.guest.load(&other, MIB, 31)?;
    let mut said = String::new();
    for (volume, kind) in [("by-ublk", "--ublk"), ("by-nbd", "--nbd-device")] {
        let device = host.attach(volume, MIB, 4096, kind)?;
        let took = forced(&mut host, volume)?;
        host.gets_on(&mut load, PAUSE_MAX)?;
        said.push_str(&format!("{device} forced in {} ms; ", took.as_millis()));
        // Nothing of it is left in the way of the next one.
        let device = again(&mut host, volume, kind)?;
        if kind == "--ublk" {
            waits_for_openers(&mut host, volume)?; // as the other kind does
        } else {
            host.detach(volume)?;
        }
        said.push_str(&format!("then {device}; "));
    }
    said.push_str(&host.guest.enough(&other, load)?);
    host.guest.kill()?;
    Ok(said)
}

fn waits_for_openers(host: &mut Host, volume: &str) -> Step<()> {
    let hold = |seconds| format!("sleep {seconds} </dev/sarsen/{volume} >/dev/null 2>&1 & echo $!");
    let holder = host.guest.run(&hold(600))?;
    let (code, out) = host.try_to_tell(&format!("detach {volume}"))?;
    let wanted = format!("(process {})", holder.trim());
    ensure!(
        code == 1 && out.contains(&wanted),
        "a device that is open was detached, or not told why not: {code}, {out}"
    );
    host.guest.run(&format!(
        "kill {}; [ -b /dev/sarsen/{volume} ]",
        holder.trim()
    ))?;
    let begun = Instant::now();
    host.guest.run(&hold(2))?;
    host.detach(volume)?;
    ensure!(
        begun.elapsed() > Duration::from_secs(1),
        "it did not wait for who had it open: {:?}",
        begun.elapsed()
    );
    Ok(())
}

fn forced(host: &mut Host, volume: &str) -> Step<Duration> {
    let link = format!("/dev/sarsen/{volume}");
    host.guest.run(&format!(
        "mkfs.ext4 -q -F {link} && mount {link} /mnt && echo before >/mnt/file && sync"
    ))?;
    let (code, out) = host.try_to_tell(&format!("detach {volume}"))?;
    ensure!(
        code == 1 && out.contains("a mounted file system"),
        "a mounted device was detached, or not told why not: {code}, {out}"
    );
    host.guest.run("echo after >/mnt/other")?; // not on the disk yet
    let begun = Instant::now();
    let (code, out) = host.try_to_tell(&format!("detach {volume} --force"))?;
    let took = begun.elapsed();
    ensure!(
        code == 0 && took < DETACH_MAX,
        "detach --force: {code} after {took:?}, {out}"
    );
    host.link_goes(volume)?;
    let listed = host.tell("attachments")?;
    ensure!(!listed.contains(volume), "it is still listed: {listed}");
    // Whether the kernel still takes the write or refuses it, it answers.
    let wrote = host
        .guest
        .attempt("echo late >/mnt/late && sync; true", DETACH_MAX);
    wrote.map_err(|why| format!("who uses {volume} hangs: {why}"))?;
    let left = host.guest.attempt("umount /mnt", DETACH_MAX);
    let left = left.map_err(|why| format!("the mount of {volume} hangs: {why}"))?;
    ensure!(left.0 == 0, "umount of {volume}: {left:?}");
    host.tell("status")?;
    Ok(took)
}

/// What was on the disk before the force is there, and the device can be made again.
fn again(host: &mut Host, volume: &str, kind: &str) -> Step<String> {
    host.tell(&format!("attach {volume} {kind}"))?;
    let link = format!("/dev/sarsen/{volume}");
    let found = host.guest.run(&format!(
        "until [ -b {link} ]; do sleep 0.1; done; mount {link} /mnt && cat /mnt/file && umount /mnt && readlink -f {link}"
    ))?;
    ensure!(found.starts_with("before"), "{volume} has {found}");
    Ok(found.lines().last().unwrap_or_default().to_owned())
}
