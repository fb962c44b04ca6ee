//! Power is cut to a whole host: the daemon, its kernel, its file system with the catalog, and its disks, which keep
//! what they were told to keep, torn at 512 bytes.
//!
//! The host is a guest; its two disks are files of the power-cut server, opened by QEMU without a cache of its own. So
//! its kernel's flushes become fsyncs there. The load runs outside, and what was acknowledged is known outside.

use crate::cases::power_is_cut::{build_without_durability, caught};
use crate::guest::daemon::{self, Inside};
use crate::guest::{Guest, Plan, forward, free_port};
use crate::harness::daemon::{binary, text};
use crate::harness::load::{Load, Shape, verify};
use crate::harness::model::Model;
use crate::harness::power::PowerDisk;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ROUNDS: u64 = 3;
const ROUNDS_FULL: u64 = 12;
const WRITES: u64 = 400;
const DISK: usize = 128 << 20;
const CATALOG_DISK: usize = 32 << 20;
const VOLUME: u64 = 16 << 20;
const PORT_INSIDE: u16 = 10809;
/// After the cut, until the kill: what QEMU had sent arrives at a disk without power.
const LAST_BREATH: Duration = Duration::from_millis(20);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "the_host_loses_power_no_acknowledged_write_is_lost_or_torn",
            |room| cut_and_verify(room, binary(), ROUNDS),
        ),
        Case::new("the_host_loses_power_again_and_again", |room| {
            cut_and_verify(room, binary(), ROUNDS_FULL)
        })
        .only_in_full(),
        Case::new(
            "the_host_loses_power_a_build_without_durability_is_caught",
            |room| {
                caught(cut_and_verify(
                    room,
                    build_without_durability()?,
                    ROUNDS_FULL,
                ))
            },
        )
        .only_in_full(),
    ]
}

fn cut_and_verify(room: &Room, sarsen: PathBuf, rounds: u64) -> Outcome {
    let disk = PowerDisk::mount(&room.path("disk"), DISK, 7)?;
    let catalog = PowerDisk::mount(&room.path("catalog"), CATALOG_DISK, 8)?;
    let (port, nbd) = (free_port()?, room.path("nbd.sock"));
    forward(&nbd, port)?;
    let drive = |disk: &PowerDisk| format!("file={},format=raw,cache=none", text(disk.path()));
    let (config, content) = daemon::config("/mnt/data", &[("/dev/vda", None)]);
    let plan = Plan::new(room, "host")
        .program("sarsen", sarsen)
        .memory(1024)
        .tools(&["mkfs.ext4"])?
        .file(config, &content)
        .drive(&drive(&disk))
        .drive(&drive(&catalog))
        .network(port, PORT_INSIDE);
    let model = Arc::new(Mutex::new(Model::new(VOLUME)));
    let (mut acknowledged, mut lost, mut on_their_way, mut in_flight) = (0, 0, 0, 0);
    let mut dry = 0;
    for round in 0..=rounds {
        let wrong = |why: Box<dyn std::error::Error>| format!("round {round}: {why}");
        let mut host = boot(&plan, round == 0).map_err(wrong)?;
        if round > 0 {
            in_flight += verify(&nbd, "vm1", &model).map_err(wrong)?.in_flight;
        }
        if round == rounds {
            break;
        }
        let shape = Shape {
            connections: 3,
            depth: 8,
        };
        let before = disk.seen();
        let load = Load::start(&nbd, "vm1", &model, shape, 2000 + round)?;
        let reached = load.reach(WRITES + 150 * round, Duration::from_secs(90));
        reached.map_err(wrong)?;
        acknowledged += load.acknowledged();
        let flushed = disk.seen().flushes - before.flushes;
        // One after the other is as good as at once: what the second disk was asked after the first was cut
        // cannot follow from an answer of the first.
        disk.cut();
        catalog.cut();
        std::thread::sleep(LAST_BREATH);
        host.strike()?;
        let cut = disk
            .restore(|| catalog.restore(|| host.reap()).map(|_| ()))
            .map_err(wrong)?;
        load.after_kill().map_err(wrong)?;
        dry += u64::from(flushed == 0);
        lost += cut.lost;
        on_their_way += cut.on_their_way;
    }
    let seen = disk.seen();
    ensure!(lost > 0, "no cut lost anything: nothing was tested");
    // Last, as a build without durability is to be caught by what it loses.
    ensure!(
        dry == 0,
        "the flushes of the guest's kernel did not reach the disk in {dry} of {rounds} rounds"
    );
    Ok(format!(
        "{rounds} cuts, {acknowledged} writes acknowledged, {in_flight} in flight; the disk lost {lost} volatile sectors \
         and {on_their_way} writes on their way; {seen:?}"
    ))
}

/// The host with its daemon, and its NBD socket led outside.
fn boot(plan: &Plan, first: bool) -> Step<Guest> {
    let mut host = plan.boot()?;
    if first {
        host.run("mkfs.ext4 -q -F /dev/vdb")?;
    }
    host.run("mount -t ext4 /dev/vdb /mnt && mkdir -p /mnt/data")?;
    let daemon = Inside::start(&mut host)?;
    if first {
        daemon.tell(
            &mut host,
            &format!("volume create vm1 --size {VOLUME} --block-size 512"),
        )?;
    }
    host.lead_outside(daemon::NBD, PORT_INSIDE)?;
    Ok(host)
}
