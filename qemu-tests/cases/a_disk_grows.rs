//! A disk becomes longer under a running daemon, and a kill in the middle of that is healed by asking again.

use crate::harness::daemon::{Daemon, Start, binary, text};
use crate::harness::nbd::{Connection, ENOSPC};
use crate::harness::{Case, Outcome, Room, Step, ensure, sector, tools};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CHUNK: u64 = 64 << 10;
const MIB: u64 = 1 << 20;
const VOLUME: u64 = 512 * MIB;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_full_disk_grows_while_it_serves_and_takes_more", grow),
        Case::new("a_device_that_became_longer_is_taken_into_use", device),
        Case::new("a_growth_that_was_killed_is_done_by_asking_again", killed),
    ]
}

fn start(room: &Room, disk: &Path) -> Step<Start> {
    let disks = [(disk, Some("96M"))];
    Start::daemon(room, "store", &disks, "overcommit_percent = 1000")
}

/// Writes whole chunks from `first` on, until the disk is full or `last` is reached; where that ended.
fn fill(client: &mut Connection, first: u64, last: u64) -> Step<u64> {
    let mut chunk = vec![0; CHUNK as usize];
    for number in first..last {
        sector::fill(&mut chunk, number * 128, 1);
        match client.write(number * CHUNK, &chunk)? {
            Ok(()) => {}
            Err(ENOSPC) => return Ok(number),
            Err(error) => return Err(format!("chunk {number}: error {error}").into()),
        }
    }
    Ok(last)
}

fn compare(client: &mut Connection, chunks: u64) -> Step<()> {
    for number in 0..chunks {
        let read = client
            .read(number * CHUNK, CHUNK as u32)?
            .map_err(|e| format!("chunk {number}: error {e}"))?;
        for (address, bytes) in (number * 128..).zip(read.as_chunks::<512>().0) {
            let write = sector::read(bytes, address)?;
            ensure!(write == 1, "sector {address} shows write {write}");
        }
    }
    Ok(())
}

fn check_clean(disk: &Path) -> Step<()> {
    let sarsen = text(&binary());
    tools::run(&sarsen, &["disk", "check", &text(disk)])?;
    Ok(())
}

fn size_of(daemon: &Daemon) -> Step<u64> {
    let said = daemon.tell(&["--json", "disk", "list"])?;
    let (_, rest) = said
        .split_once("\"size_bytes\":")
        .ok_or("no size in the list")?;
    let digits: String = rest
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Ok(digits.parse()?)
}

fn grow(room: &Room) -> Outcome {
    let disk = room.path("disk");
    let start = start(room, &disk)?;
    let mut daemon = start.run()?;
    daemon.create("vm1", &VOLUME.to_string())?;
    let mut client = daemon.connect("vm1")?;
    let before = fill(&mut client, 0, VOLUME / CHUNK)?;
    let shrink = daemon.ask(&["disk", "grow", &text(&disk), "--size", "64M"])?;
    ensure!(
        shrink.code == Some(1) && shrink.err.contains("cannot shrink"),
        "a shrink ended with {:?}: {}",
        shrink.code,
        shrink.err
    );
    let unsaid = daemon.ask(&["disk", "grow", &text(&disk)])?;
    ensure!(
        unsaid.code == Some(1) && unsaid.err.contains("--size"),
        "a growth by nothing ended with {:?}: {}",
        unsaid.code,
        unsaid.err
    );
    let huge = daemon.ask(&["disk", "grow", &text(&disk), "--size", "100G"])?;
    ensure!(
        huge.code == Some(1) && std::fs::metadata(&disk)?.len() == 96 * MIB,
        "a growth beyond what the store can do ended with {:?}: {}, and the file has {} bytes",
        huge.code,
        huge.err,
        std::fs::metadata(&disk)?.len()
    );
    daemon.tell(&["disk", "grow", &text(&disk), "--size", "192M"])?;
    ensure!(
        size_of(&daemon)? == 192 * MIB && std::fs::metadata(&disk)?.len() == 192 * MIB,
        "the disk has not the new size"
    );
    let after = fill(&mut client, before, VOLUME / CHUNK)?;
    // 96 MiB more, without the last 1 % for overwrites.
    ensure!(
        (after - before) * CHUNK > 90 * MIB,
        "{before} chunks fit before, {after} after"
    );
    compare(&mut client, after)?;
    daemon.kill()?;
    let mut daemon = start.run()?;
    compare(&mut daemon.connect("vm1")?, after)?;
    let (_, status) = daemon.stop()?;
    ensure!(status.success(), "it ended with {status}");
    check_clean(&disk)?;
    Ok(format!(
        "{before} chunks of 64 KiB fit before, {after} after"
    ))
}

/// A loop device over a file; dropping it detaches it.
struct Loop {
    device: PathBuf,
}

impl Loop {
    fn over(file: &Path) -> Step<Loop> {
        let arguments = ["--find", "--show", "--direct-io=on", &text(file)];
        let said = tools::run("losetup", &arguments)?;
        Ok(Loop {
            device: said.trim().into(),
        })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = tools::run("losetup", &["--detach", &text(&self.device)]) {
            eprintln!("{} stays attached: {error}", self.device.display());
        }
    }
}

fn device(room: &Room) -> Outcome {
    let file = room.path("file");
    File::create_new(&file)?.set_len(96 * MIB)?;
    let disk = Loop::over(&file)?;
    let disks = [(disk.device.as_path(), None)];
    let start = Start::daemon(room, "store", &disks, "overcommit_percent = 1000")?;
    let mut daemon = start.run()?;
    daemon.create("vm1", &VOLUME.to_string())?;
    let mut client = daemon.connect("vm1")?;
    let before = fill(&mut client, 0, VOLUME / CHUNK)?;
    let name = text(&disk.device);
    for arguments in [
        &["disk", "grow", &name][..],
        &["disk", "grow", &name, "--size", "192M"],
    ] {
        let said = daemon.ask(arguments)?;
        ensure!(
            said.code == Some(1) && said.err.contains("device itself longer"),
            "a growth of a device that is as it was ended with {:?}: {}",
            said.code,
            said.err
        );
    }
    File::options()
        .write(true)
        .open(&file)?
        .set_len(192 * MIB)?;
    tools::run("losetup", &["--set-capacity", &name])?;
    daemon.tell(&["disk", "grow", &name])?;
    ensure!(
        size_of(&daemon)? == 192 * MIB,
        "the disk has not the device's new size"
    );
    let after = fill(&mut client, before, VOLUME / CHUNK)?;
    ensure!(
        (after - before) * CHUNK > 90 * MIB,
        "{before} chunks fit before, {after} after"
    );
    compare(&mut client, after)?;
    daemon.kill()?;
    let mut daemon = start.run()?;
    compare(&mut daemon.connect("vm1")?, after)?;
    let (_, status) = daemon.stop()?;
    ensure!(status.success(), "it ended with {status}");
    check_clean(&disk.device)?;
    Ok(format!(
        "{before} chunks of 64 KiB fit before, {after} after"
    ))
}

/// Kills at different times after the command was given. Whatever was done by then, asking again ends it.
fn killed(room: &Room) -> Outcome {
    let disk = room.path("disk");
    let start = start(room, &disk)?;
    let mut daemon = start.run()?;
    daemon.create("vm1", &VOLUME.to_string())?;
    let mut written = fill(&mut daemon.connect("vm1")?, 0, 700)?;
    let mut in_between = 0;
    for round in 1..=8u64 {
        let size = (96 + 16 * round) * MIB;
        let said = std::thread::scope(|scope| -> Step<_> {
            let asked = scope.spawn(|| {
                let arguments = ["disk", "grow", &text(&disk), "--size", &size.to_string()];
                // Its connection breaks with the kill, or it was quicker.
                daemon.ask(&arguments).map(|said| said.code).unwrap_or(None)
            });
            // From the moment that the file has its new length, 0 to 7 half milliseconds.
            let begun = Instant::now();
            while std::fs::metadata(&disk)?.len() < size {
                ensure!(
                    begun.elapsed() < Duration::from_secs(10),
                    "the file is not made longer"
                );
                std::hint::spin_loop();
            }
            std::thread::sleep(Duration::from_micros(500 * (round - 1)));
            daemon.signal(libc::SIGKILL)?;
            Ok(asked.join().unwrap_or(None))
        })?;
        daemon.reap()?;
        daemon = start.run()?;
        let kept = size_of(&daemon)?;
        in_between += u32::from(kept < size);
        ensure!(
            said != Some(0) || kept == size,
            "a growth that was acknowledged is not in the catalog"
        );
        daemon.tell(&["disk", "grow", &text(&disk), "--size", &size.to_string()])?;
        ensure!(
            size_of(&daemon)? == size,
            "asked again, it has not the size"
        );
        let mut client = daemon.connect("vm1")?;
        let more = fill(&mut client, written, written + 200)?;
        ensure!(more == written + 200, "no space after round {round}");
        written = more;
        compare(&mut client, written)?;
    }
    let (_, status) = daemon.stop()?;
    ensure!(status.success(), "it ended with {status}");
    check_clean(&disk)?;
    Ok(format!(
        "8 kills, {in_between} of them before the catalog knew"
    ))
}
