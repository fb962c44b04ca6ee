//! The daemon is ended in good order under load on devices of its host, and started again; and it stands still for
//! seconds: pauses, and nothing else.

use super::host::Host;
use crate::harness::{Case, Outcome, Room};
use std::time::Duration;

const MIB: u64 = 64;
const PAUSE_MAX: Duration = Duration::from_secs(40);
/// Longer than the kernel's nbd waits before it sends a request again.
const STANDSTILL: Duration = Duration::from_secs(4);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("the_daemon_is_restarted_under_devices", |room| {
            restarted(room, 1)
        }),
        Case::new("the_daemon_is_restarted_under_devices_five_times", |room| {
            restarted(room, 5)
        })
        .only_in_full(),
        Case::new(
            "a_daemon_that_stands_still_under_a_kernel_nbd_device_goes_on",
            stands_still,
        ),
    ]
}

fn restarted(room: &Room, rounds: u64) -> Outcome {
    let mut host = Host::boot(room, &[])?;
    let mut loads = Vec::new();
    for (volume, kind, seed) in [("by-ublk", "--ublk", 21), ("by-nbd", "--nbd-device", 22)] {
        let device = host.attach(volume, MIB, 512, kind)?;
        let load = host.guest.load(&device, MIB, seed)?;
        loads.push((device, load));
    }
    for round in 0..rounds {
        let wrong = |why: Box<dyn std::error::Error>| format!("round {round}: {why}");
        host = host.stop_and_start().map_err(wrong)?;
        for (_, load) in &mut loads {
            host.gets_on(load, PAUSE_MAX).map_err(wrong)?;
        }
    }
    let mut said = String::new();
    for (device, load) in loads {
        let verified = host.guest.enough(&device, load)?;
        said.push_str(&format!("{device}: {verified}; "));
    }
    host.guest.nothing_failed()?;
    host.guest.kill()?;
    Ok(said)
}

/// The driver gives the connection up and sends its requests again, while the first copies wait to be read by the daemon.
/// Were a copy carried out late, it would undo what was written after it.
fn stands_still(room: &Room) -> Outcome {
    let mut host = Host::boot(room, &[])?;
    let device = host.attach("vm1", MIB, 512, "--nbd-device")?;
    let mut load = host.guest.load(&device, MIB, 23)?;
    for _ in 0..2 {
        host.signal(libc::SIGSTOP)?;
        std::thread::sleep(STANDSTILL);
        host.signal(libc::SIGCONT)?;
        host.gets_on(&mut load, PAUSE_MAX)?;
    }
    let told = host.guest.run("dmesg")?;
    let said = host.guest.enough(&device, load)?;
    let times = told.matches("Connection timed out").count();
    crate::harness::ensure!(times > 0, "the driver did not give up: {told}");
    host.guest.nothing_failed()?;
    host.guest.kill()?;
    Ok(format!("given up {times} times; {said}"))
}
