//! One of several disks fails, in use or before the start: what lies on the others goes on, and everybody is told.

use crate::harness::daemon::{Daemon, Start};
use crate::harness::nbd::{Connection, EIO};
use crate::harness::power::PowerDisk;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const EXTENT: u64 = 4 << 20;
/// Enough that both disks have some, whatever the hash.
const EXTENTS: u64 = 24;
const DISK: usize = 128 << 20;
/// How long it may take until something is told: notes and alerts go at once.
const TOLD: Duration = Duration::from_secs(5);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_disk_that_dies_in_use_fails_only_what_lies_on_it", dies),
        Case::new(
            "a_disk_that_is_missing_at_the_start_fails_only_what_lies_on_it",
            missing,
        ),
    ]
}

/// Writes a block of `value` into every extent; which extents took it, the others answered EIO.
fn write(client: &mut Connection, value: u8) -> Step<Vec<bool>> {
    (0..EXTENTS)
        .map(
            |extent| match client.write(extent * EXTENT, &[value; 4096])? {
                Ok(()) => Ok(true),
                Err(EIO) => Ok(false),
                Err(error) => Err(format!("a write to extent {extent}: error {error}").into()),
            },
        )
        .collect()
}

/// Reads the block of every extent; `None` where that is an I/O error.
fn read(client: &mut Connection) -> Step<Vec<Option<u8>>> {
    (0..EXTENTS)
        .map(|extent| match client.read(extent * EXTENT, 4096)? {
            Ok(bytes) => {
                let one = bytes.iter().all(|byte| *byte == bytes[0]);
                ensure!(one, "extent {extent} reads as a mixture");
                Ok(Some(bytes[0]))
            }
            Err(EIO) => Ok(None),
            Err(error) => Err(format!("a read of extent {extent}: error {error}").into()),
        })
        .collect()
}

fn json(daemon: &Daemon, arguments: &[&str]) -> Step<Value> {
    let mut all = vec!["--json"];
    all.extend(arguments);
    Ok(serde_json::from_str(&daemon.tell(&all)?)?)
}

/// Waits until status, the volume and the alerts say that one disk of two has failed.
fn told(daemon: &Daemon) -> Step<String> {
    let begun = Instant::now();
    loop {
        let volume = json(daemon, &["volume", "show", "vm1"])?;
        let status = json(daemon, &["status"])?;
        let alerts = json(daemon, &["alerts"])?;
        let alert = alerts["alerts"]
            .as_array()
            .and_then(|list| list.iter().find(|alert| alert["name"] == "disk-failed"));
        let all = volume["state"] == "degraded"
            && volume["reason"]
                .as_str()
                .is_some_and(|why| why.contains("placement groups"))
            && status["failed_disks"] == 1
            && status["degraded_volumes"] == 1
            && alert.is_some_and(|a| a["reason"].as_str().is_some_and(|why| why.contains("vm1")));
        if all {
            return Ok(volume["reason"].as_str().unwrap_or_default().to_owned());
        }
        ensure!(
            begun.elapsed() < TOLD,
            "nobody is told: {volume} {status} {alerts}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn told_whole(daemon: &Daemon) -> Step<()> {
    let volume = json(daemon, &["volume", "show", "vm1"])?;
    ensure!(
        volume["state"] == "ready" && volume["reason"] == "",
        "with all disks it is {volume}"
    );
    let status = json(daemon, &["status"])?;
    ensure!(
        status["failed_disks"] == 0 && status["alerts"] == serde_json::json!([]),
        "with all disks: {status}"
    );
    Ok(())
}

/// A new volume would have parts on the lost disk.
fn refuses_new_volumes(daemon: &Daemon) -> Step<()> {
    let said = daemon.ask(&["volume", "create", "vm2", "--size", "64M"])?;
    ensure!(
        said.code == Some(1) && said.err.contains("cannot be whole"),
        "a new volume ended with {:?}: {}",
        said.code,
        said.err
    );
    Ok(())
}

fn expected(taken: &[bool], new: u8, old: u8) -> Vec<Option<u8>> {
    let of = |taken: &bool| Some(if *taken { new } else { old });
    taken.iter().map(of).collect()
}

fn dies(room: &Room) -> Outcome {
    let disk = PowerDisk::mount(&room.path("mnt"), DISK, 3)?;
    let other = room.path("other");
    let disks: [(&Path, Option<&str>); 2] = [(disk.path(), None), (&other, Some("128M"))];
    // A shard each, and one of them left without a disk that works.
    let start = Start::daemon(room, "store", &disks, "shards = 2")?;
    let mut daemon = start.run()?;
    daemon.create("vm1", &(EXTENTS * EXTENT).to_string())?;
    let mut client = daemon.connect("vm1")?;
    let whole = write(&mut client, 1)?;
    ensure!(
        whole.iter().all(|taken| *taken),
        "a healthy disk refuses a write"
    );
    disk.die();
    let taken = write(&mut client, 2)?;
    let lost = taken.iter().filter(|taken| !**taken).count();
    ensure!(
        lost > 0 && lost < EXTENTS as usize,
        "{lost} of {EXTENTS} extents are lost with one disk of two"
    );
    let seen = read(&mut client)?;
    let right: Vec<_> = taken.iter().map(|taken| taken.then_some(2)).collect();
    ensure!(
        seen == right,
        "after the failure the extents read as {seen:?}"
    );
    let reason = told(&daemon)?;
    let mut late = daemon.connect("vm1")?;
    ensure!(
        write(&mut late, 3)? == taken && read(&mut late)?.iter().all(|block| *block != Some(2)),
        "a client that came later sees something else"
    );
    refuses_new_volumes(&daemon)?;
    daemon.tell(&["volume", "resize", "vm1", "--size", "128M"])?;
    let (took, status) = daemon.stop()?;
    ensure!(status.success(), "with a dead disk it ended with {status}");
    disk.restore(|| Ok(()))?;
    let daemon = start.run()?;
    told_whole(&daemon)?;
    let seen = read(&mut daemon.connect("vm1")?)?;
    // What answered EIO may or may not be there; what was acknowledged is.
    for (extent, (block, taken)) in seen.iter().zip(&taken).enumerate() {
        let right = match taken {
            true => *block == Some(3),
            false => block.is_some_and(|value| (1..=3).contains(&value)),
        };
        ensure!(
            right,
            "extent {extent} reads as {block:?} when the disk is back"
        );
    }
    Ok(format!(
        "{lost} of {EXTENTS} extents lost, stopped in {took:.0?}; {reason}"
    ))
}

fn missing(room: &Room) -> Outcome {
    let (disk, other, away) = (room.path("disk"), room.path("other"), room.path("away"));
    let disks: [(&Path, Option<&str>); 2] = [(&disk, Some("128M")), (&other, Some("128M"))];
    let start = Start::daemon(room, "store", &disks, "")?;
    let mut daemon = start.run()?;
    daemon.create("vm1", &(EXTENTS * EXTENT).to_string())?;
    write(&mut daemon.connect("vm1")?, 1)?;
    daemon.kill()?;
    std::fs::rename(&other, &away)?;

    let mut daemon = start.run()?;
    let reason = told(&daemon)?;
    let mut client = daemon.connect("vm1")?;
    let seen = read(&mut client)?;
    let lost = seen.iter().filter(|block| block.is_none()).count();
    ensure!(
        lost > 0 && lost < EXTENTS as usize && seen.iter().flatten().all(|value| *value == 1),
        "without a disk the extents read as {seen:?}"
    );
    let taken = write(&mut client, 2)?;
    let reads: Vec<_> = taken.iter().map(|taken| taken.then_some(2)).collect();
    ensure!(read(&mut client)? == reads, "reads and writes do not agree");
    refuses_new_volumes(&daemon)?;
    daemon.kill()?;

    // Something else lies where the disk was: as good as nothing.
    std::fs::write(&other, vec![0x5a; DISK])?;
    let mut daemon = start.run()?;
    told(&daemon)?;
    ensure!(
        read(&mut daemon.connect("vm1")?)? == reads,
        "with another thing in the disk's place the extents read differently"
    );
    daemon.kill()?;
    let untouched = std::fs::read(&other)?.iter().all(|byte| *byte == 0x5a);
    ensure!(untouched, "what is no disk of ours was written to");

    std::fs::rename(&away, &other)?;
    let daemon = start.run()?;
    told_whole(&daemon)?;
    ensure!(
        read(&mut daemon.connect("vm1")?)? == expected(&taken, 2, 1),
        "with its disk back the volume is not what it was"
    );
    Ok(reason)
}
