//! kill -9 of the daemon under load on a device of its host, by ublk and by the kernel's nbd: a pause, and nothing else.
//!
//! The host is a guest, as the kernel that tests this one has neither.

use super::host::Host;
use super::the_daemon_is_killed_under_a_guest::some_are_disordered;
use crate::harness::{Case, Outcome, Step, ensure};
use std::time::Duration;

const MIB: u64 = 64;
const PAUSE_MAX: Duration = Duration::from_secs(40);
/// The longest that no request may be answered, here where processors are emulated. What a driver waits that was told of no
/// time-out, 30 s, is more.
const SILENCE_MAX_MS: u64 = 15_000;

pub fn ublk() -> Vec<Case> {
    vec![
        Case::new("the_daemon_is_killed_under_a_ublk_device", |room| {
            rounds(Host::boot(room, &[])?, "--ublk", 3)
        }),
        Case::new("nodes_are_killed_under_a_ublk_device_its_own_too", |room| {
            rounds(Host::of_cluster(room)?, "--ublk", 3)
        }),
        Case::new(
            "the_daemon_is_killed_under_a_ublk_device_ten_times",
            |room| rounds(Host::boot(room, &[])?, "--ublk", 10),
        )
        .only_in_full(),
    ]
}

pub fn nbd() -> Vec<Case> {
    vec![
        Case::new("the_daemon_is_killed_under_a_kernel_nbd_device", |room| {
            rounds(Host::boot(room, &[])?, "--nbd-device", 3)
        }),
        Case::new(
            "nodes_are_killed_under_a_kernel_nbd_device_its_own_too",
            |room| rounds(Host::of_cluster(room)?, "--nbd-device", 3),
        )
        .only_in_full(),
        Case::new(
            "the_daemon_is_killed_under_a_kernel_nbd_device_ten_times",
            |room| rounds(Host::boot(room, &[])?, "--nbd-device", 10),
        )
        .only_in_full(),
    ]
}

fn rounds(mut host: Host, kind: &str, rounds: u64) -> Outcome {
    let device = host.attach("vm1", MIB, 512, kind)?;
    let mut load = host.guest.load(&device, MIB, 5)?;
    for round in 0..rounds {
        let wrong = |why: Box<dyn std::error::Error>| format!("round {round}: {why}");
        host.gets_on(&mut load, PAUSE_MAX).map_err(wrong)?;
        host = host.kill_and_start().map_err(wrong)?;
        host.amid().map_err(wrong)?;
        host.gets_on(&mut load, PAUSE_MAX).map_err(wrong)?;
    }
    let said = host.guest.enough(&device, load)?;
    some_are_disordered(&said, rounds)?;
    let silence = longest_pause_ms(&said)?;
    ensure!(silence < SILENCE_MAX_MS, "a pause of {silence} ms");
    host.mended()?;
    host.guest.nothing_failed()?;
    host.guest.kill()?;
    Ok(format!("{device}, {rounds} times; {said}"))
}

/// Out of the last line of a load.
fn longest_pause_ms(said: &str) -> Step<u64> {
    let number = said
        .strip_suffix(" ms")
        .and_then(|rest| rest.rsplit(' ').next());
    let number = number.ok_or_else(|| format!("no pause is told: {said}"))?;
    Ok(number.parse()?)
}
