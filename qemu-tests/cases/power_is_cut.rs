//! Power goes, and the disk has only what it was told to keep, torn at 512 bytes.

use crate::harness::daemon::{Start, binary};
use crate::harness::load::{Load, Shape, verify};
use crate::harness::model::Model;
use crate::harness::power::PowerDisk;
use crate::harness::{Case, Outcome, Room, Step, ensure, tools};
use std::fs::OpenOptions;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ROUNDS: u64 = 6;
const WRITES: u64 = 1_500;
const DISK: usize = 256 << 20;
const VOLUME: u64 = 64 << 20;
/// After the cut, until the kill: what the daemon had sent arrives at a disk without power.
const LAST_BREATH: Duration = Duration::from_millis(20);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_durable_write_is_known_as_one", durability_is_seen),
        Case::new("power_is_cut_no_acknowledged_write_is_lost_or_torn", rounds),
        Case::new(
            "power_is_cut_a_build_without_durability_is_caught",
            without_durability,
        )
        .only_in_full(),
    ]
}

/// What the power disk rests on: which of its writes the kernel says are durable.
fn durability_is_seen(room: &Room) -> Outcome {
    let disk = PowerDisk::mount(&room.path("mnt"), 1 << 20, 1)?;
    let open = |flags: i32| {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT | flags)
            .open(disk.path())
    };
    let memory = vec![7u8; 8192];
    let block = &memory[memory.as_ptr().align_offset(4096)..][..4096];
    let plain = open(0)?;
    plain.write_all_at(block, 0)?;
    let first = disk.seen();
    open(libc::O_DSYNC)?.write_all_at(block, 4096)?;
    let second = disk.seen();
    write_dsync(&plain, block, 8192)?;
    let third = disk.seen();
    plain.sync_data()?;
    let fourth = disk.seen();
    ensure!(
        (first.writes, first.durable_writes) == (1, 0),
        "a plain write is seen as {first:?}"
    );
    let by = |a: crate::harness::power::Seen, b: crate::harness::power::Seen| {
        (b.durable_writes - a.durable_writes, b.flushes - a.flushes)
    };
    let (opened, flagged) = (by(first, second), by(second, third));
    ensure!(opened != (0, 0), "O_DSYNC is not seen");
    ensure!(flagged != (0, 0), "RWF_DSYNC is not seen");
    ensure!(fourth.flushes > third.flushes, "fdatasync is not seen");
    plain.write_all_at(block, 16384)?;
    disk.cut();
    disk.restore(|| Ok(()))?;
    let mut back = [0; 4096];
    // Through a buffer: this read need not be aligned, the server does not ask for it.
    OpenOptions::new()
        .read(true)
        .open(disk.path())?
        .read_exact_at(&mut back, 8192)?;
    ensure!(back == *block, "a durable write is gone after the cut");
    Ok(format!(
        "(durable writes, fsyncs) seen for O_DSYNC {opened:?}, for RWF_DSYNC {flagged:?}"
    ))
}

fn write_dsync(file: &std::fs::File, bytes: &[u8], offset: i64) -> std::io::Result<()> {
    let part = [IoSlice::new(bytes)];
    // SAFETY: IoSlice has the layout of iovec, and `bytes` outlives the call.
    let wrote = unsafe {
        libc::pwritev2(
            file.as_raw_fd(),
            part.as_ptr().cast(),
            1,
            offset,
            libc::RWF_DSYNC,
        )
    };
    match wrote {
        -1 => Err(std::io::Error::last_os_error()),
        wrote if wrote as usize == bytes.len() => Ok(()),
        _ => Err(std::io::Error::other("a short write")),
    }
}

fn rounds(room: &Room) -> Outcome {
    cut_and_verify(room, binary(), ROUNDS)
}

fn cut_and_verify(room: &Room, binary: PathBuf, rounds: u64) -> Outcome {
    let disk = PowerDisk::mount(&room.path("mnt"), DISK, 7)?;
    let disks: [(&Path, Option<&str>); 1] = [(disk.path(), None)];
    let start = Start::daemon(room, "store", &disks, "")?.with_binary(binary);
    let model = Arc::new(Mutex::new(Model::new(VOLUME)));
    let (mut acknowledged, mut volatile, mut lost, mut on_their_way, mut in_flight) =
        (0, 0, 0, 0, 0);
    for round in 0..=rounds {
        let wrong = |why: Box<dyn std::error::Error>| format!("round {round}: {why}");
        let mut daemon = start.run().map_err(wrong)?;
        match round {
            0 => daemon.create("vm1", &VOLUME.to_string())?,
            _ => in_flight += verify(&start.nbd, "vm1", &model).map_err(wrong)?.in_flight,
        }
        if round == rounds {
            break;
        }
        let shape = Shape {
            connections: 3,
            depth: 8,
        };
        let load = Load::start(&start.nbd, "vm1", &model, shape, 1000 + round)?;
        load.reach(WRITES + 700 * round, Duration::from_secs(60))
            .map_err(wrong)?;
        acknowledged += load.acknowledged();
        disk.cut();
        std::thread::sleep(LAST_BREATH);
        daemon.strike()?;
        let cut = disk.restore(|| daemon.reap()).map_err(wrong)?;
        load.after_kill().map_err(wrong)?;
        volatile += cut.volatile;
        lost += cut.lost;
        on_their_way += cut.on_their_way;
    }
    let seen = disk.seen();
    ensure!(on_their_way > 0, "no write was on its way at any cut");
    ensure!(lost > 0, "no cut lost anything: nothing was tested");
    Ok(format!(
        "{rounds} cuts, {acknowledged} writes acknowledged, {in_flight} in flight; the disk lost {lost} of {volatile} \
         volatile sectors, and {on_their_way} writes on their way; {seen:?}"
    ))
}

/// The test of the test: the same with a build that never waits for the medium must fail.
fn without_durability(room: &Room) -> Outcome {
    caught(cut_and_verify(room, build_without_durability()?, ROUNDS))
}

/// A daemon that never waits for the medium.
pub fn build_without_durability() -> Step<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/no-dsync");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let (target, manifest) = (target.to_string_lossy(), manifest.to_string_lossy());
    tools::run_within(
        1800,
        "env",
        &[
            "RUSTFLAGS=--cfg sarsen_no_dsync",
            "cargo",
            "build",
            "--bin",
            "sarsen",
            "--manifest-path",
            &manifest,
            "--target-dir",
            &target,
        ],
    )?;
    Ok(PathBuf::from(&*target).join("debug/sarsen"))
}

/// Only what a checker says of lost data counts as being caught.
pub fn caught(outcome: Outcome) -> Step<String> {
    match outcome {
        Ok(note) => Err(format!("it went well without durability: {note}").into()),
        Err(why) => {
            let why = why.to_string();
            let by_checker = why.contains("sectors are wrong") || why.contains("torn");
            let refused = why.contains("ended at its start") || why.contains("error 5");
            ensure!(by_checker || refused, "it failed for another reason: {why}");
            Ok(format!("caught: {why}"))
        }
    }
}
