//! Bits flip on a disk that no daemon runs. What is read afterwards is right, or an error; never wrong.
//!
//! The disk is that of a daemon that was killed in quiet, with its journal full of what recovery needs. Each round
//! copies it, flips bits in one kind of structure only, starts a daemon over it and reads every sector.

use crate::harness::daemon::{Start, text};
use crate::harness::load::{Load, Shape, verify};
use crate::harness::model::Model;
use crate::harness::nbd::{Connection, EIO, Replies};
use crate::harness::sector::{self, SECTOR};
use crate::harness::tools::{attempt, run};
use crate::harness::{Case, Outcome, Room, Step, ensure};
use sarsen::base::Prng;
use sarsen::store::{Geometry, SUPERBLOCK_AT, SUPERBLOCK_LEN, Superblock};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const VOLUME: u64 = 48 << 20;
const BLOCK: u64 = 4096;

pub fn cases() -> Vec<Case> {
    vec![Case::new(
        "bits_flip_reads_are_right_or_errors_and_check_names_the_place",
        flips,
    )]
}

/// A journal that recovery has much to read in, in bytes.
const LIVE_MIN: u64 = 256 << 10;

/// A kind of structure: where it lies, in how many rounds, and how many flips in each.
struct Target {
    name: &'static str,
    ranges: Vec<Range<u64>>,
    rounds: u32,
    flips: u32,
    /// Whether nothing reads it any more, so that damage there is none, and is not found.
    dead: bool,
}

fn targets(geometry: &Geometry, live: Vec<Range<u64>>) -> Vec<Target> {
    let roots = SUPERBLOCK_AT[1] + SUPERBLOCK_LEN;
    let target = |name, ranges, rounds, flips| Target {
        name,
        ranges,
        rounds,
        flips,
        dead: false,
    };
    let within = |name, range, rounds, flips| target(name, Vec::from([range]), rounds, flips);
    let copy = |n: usize| SUPERBLOCK_AT[n]..SUPERBLOCK_AT[n] + SUPERBLOCK_LEN;
    let ring = geometry.journal_at..geometry.journal_at + geometry.journal_len;
    // What is left of the ring: it is replayed from the tail on, which is in the first part.
    let (tail, head) = (live[0].start, live[live.len() - 1].end);
    let dead = match tail < head {
        true => vec![ring.start..tail, head..ring.end],
        false => vec![head..tail, 0..0],
    };
    vec![
        within("first superblock", copy(0), 2, 5),
        within("second superblock", copy(1), 2, 5),
        within("root", roots..geometry.manifest_at, 4, 8),
        within("manifest", geometry.manifest_at..geometry.journal_at, 4, 8),
        target("journal", live, 6, 40),
        Target {
            dead: true,
            ..target("journal that is done with", dead, 2, 40)
        },
        within("table", geometry.table_at..geometry.slots_at, 6, 40),
        within("slots", geometry.slots_at..geometry.end(), 3, 200),
    ]
}

/// The parts of the journal that the next start replays.
fn live(disk: &Path, geometry: &Geometry) -> Step<Vec<Range<u64>>> {
    let sarsen = text(&crate::harness::daemon::binary());
    let said = run(&sarsen, &["disk", "inspect", "--json", &text(disk)])?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    let field = |name: &str| {
        let value = said["journal"][name].as_u64();
        value.ok_or_else(|| format!("inspect tells no journal.{name}: {said}"))
    };
    let used = field("used_bytes")?;
    let (tail, head) = (field("tail_offset_bytes")?, field("head_offset_bytes")?);
    let start = geometry.journal_at;
    let part = |offset, end| start + offset..start + end;
    Ok(match tail < head || used == 0 {
        true => vec![part(tail, head.max(tail))],
        false => vec![part(tail, geometry.journal_len), part(0, head)],
    })
}

/// What came of the rounds over one kind of structure.
#[derive(Debug, Default)]
struct Tally {
    flips: u32,
    refused: u32,
    unreadable_sectors: u64,
    found_by_check: u32,
}

fn flips(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", "256M");
    let model = Arc::new(Mutex::new(Model::new(VOLUME)));
    let folder = room.path("store");
    let good = room.path("good");
    let disk = folder.join("disk0");
    let mut daemon = start.run()?;
    daemon.create("vm1", &VOLUME.to_string())?;
    daemon.kill()?;
    // A checkpoint may have come last, and left nothing in the journal to damage.
    let (geometry, live) = loop {
        fill(&start, &model)?;
        let geometry = geometry(&disk)?;
        let live = live(&disk, &geometry)?;
        if live.iter().map(|part| part.end - part.start).sum::<u64>() >= LIVE_MIN {
            break (geometry, live);
        }
    };
    std::fs::rename(&folder, &good)?;
    let checks = can_check(&good.join("disk0"))?;
    let model = model.lock().unwrap_or_else(PoisonError::into_inner);
    let mut dice = Prng::new(11);
    let (mut told, mut all) = (Vec::new(), 0);
    for target in targets(&geometry, live) {
        let mut tally = Tally::default();
        for round in 0..target.rounds {
            run(
                "cp",
                &["-r", "--sparse=always", &text(&good), &text(&folder)],
            )?;
            let places = flip(&folder.join("disk0"), &target, &mut dice)?;
            tally.flips += places.len() as u32;
            let wrong = |why: Box<dyn std::error::Error>| {
                format!(
                    "{} round {round}, flipped {:x?}: {why}",
                    target.name, places
                )
            };
            if checks {
                tally.found_by_check +=
                    u32::from(check_finds(&folder.join("disk0")).map_err(wrong)?);
            }
            read_all(&start, &model, &mut tally).map_err(wrong)?;
            std::fs::remove_dir_all(&folder)?;
        }
        all += tally.flips;
        let Tally {
            flips,
            refused,
            unreadable_sectors,
            found_by_check,
        } = tally;
        ensure!(
            !checks || target.dead || found_by_check == target.rounds,
            "disk check found {found_by_check} of {} damaged disks ({})",
            target.rounds,
            target.name
        );
        told.push(format!(
            "{}: {flips} flips, {refused}/{} starts refused, {unreadable_sectors} sectors unreadable",
            target.name, target.rounds
        ));
    }
    ensure!(all >= 1000, "only {all} bits were flipped");
    if !checks {
        told.push("NOT TESTED: this build has no `sarsen disk check`".into());
    }
    Ok(format!("{all} flips; {}", told.join("; ")))
}

/// A store with something in every structure: killed in quiet, after checkpoints, with a journal to replay.
fn fill(start: &Start, model: &Arc<Mutex<Model>>) -> Step<()> {
    let mut daemon = start.run()?;
    for part in 0..2 {
        let shape = Shape {
            connections: 2,
            depth: 8,
        };
        let load = Load::start(&start.nbd, "vm1", model, shape, 40 + part)?;
        load.reach(2500, Duration::from_secs(60))?;
        load.finish()?;
    }
    verify(&start.nbd, "vm1", model)?;
    // A quiet journal is closed within 10 ms: from then on no batch may be taken for a torn one.
    std::thread::sleep(Duration::from_millis(200));
    daemon.kill()
}

fn geometry(disk: &Path) -> Step<Geometry> {
    let mut bytes = vec![0; SUPERBLOCK_LEN as usize];
    File::open(disk)?.read_exact_at(&mut bytes, SUPERBLOCK_AT[0])?;
    let superblock = Superblock::decode(&bytes).map_err(|error| format!("{error:?}"))?;
    Ok(superblock.geometry)
}

/// Flips bits in blocks that hold something; where.
fn flip(disk: &Path, target: &Target, dice: &mut Prng) -> Step<Vec<u64>> {
    let file = File::options().read(true).write(true).open(disk)?;
    let mut block = vec![0; BLOCK as usize];
    let mut used = Vec::new();
    let blocks = |range: &Range<u64>| range.clone().step_by(BLOCK as usize);
    for at in target.ranges.iter().flat_map(blocks) {
        file.read_exact_at(&mut block, at)?;
        if block.iter().any(|&byte| byte != 0) {
            used.push(at);
        }
    }
    ensure!(!used.is_empty(), "there is nothing in the {}", target.name);
    let mut places = Vec::new();
    for _ in 0..target.flips {
        let at = used[dice.below(used.len() as u64) as usize] + dice.below(BLOCK);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << dice.below(8);
        file.write_all_at(&byte, at)?;
        places.push(at);
    }
    file.sync_all()?;
    Ok(places)
}

/// Reads every sector that a daemon over this disk gives, and starts it again to see that it stays so.
fn read_all(start: &Start, model: &Model, tally: &mut Tally) -> Step<()> {
    let mut daemon = match start.run() {
        Ok(daemon) => daemon,
        Err(why)
            if why
                .to_string()
                .contains("ended at its start: exit status: 1") =>
        {
            tally.refused += 1;
            return Ok(());
        }
        Err(why) => return Err(why),
    };
    let mut client = match Connection::open(&start.nbd, "vm1", Replies::Structured) {
        Ok(client) => client,
        // The volume is not served, and GO says so: nothing wrong is read.
        Err(why) if why.to_string().contains("is refused") => {
            tally.refused += 1;
            return daemon.kill();
        }
        Err(why) => return Err(why),
    };
    const AT_ONCE: u64 = 64 << 10;
    for at in (0..VOLUME).step_by(AT_ONCE as usize) {
        match client.read(at, AT_ONCE as u32)? {
            Ok(bytes) => look(model, at, &bytes)?,
            Err(EIO) => {
                for at in (at..at + AT_ONCE).step_by(BLOCK as usize) {
                    match client.read(at, BLOCK as u32)? {
                        Ok(bytes) => look(model, at, &bytes)?,
                        Err(EIO) => tally.unreadable_sectors += BLOCK / SECTOR as u64,
                        Err(error) => return Err(format!("a read has error {error}").into()),
                    }
                }
            }
            Err(error) => return Err(format!("a read has error {error}").into()),
        }
    }
    daemon.kill()
}

fn look(model: &Model, at: u64, bytes: &[u8]) -> Step<()> {
    let first = at / SECTOR as u64;
    for (address, bytes) in (first..).zip(bytes.as_chunks::<SECTOR>().0) {
        model.expect(address, sector::read(bytes, address)?)?;
    }
    Ok(())
}

/// Whether this build can check a disk; where it can, the undamaged one must be found whole.
fn can_check(disk: &Path) -> Step<bool> {
    let (code, said) = attempt(
        &text(&crate::harness::daemon::binary()),
        &["disk", "check", &text(disk)],
    )?;
    if said.contains("this build") {
        return Ok(false);
    }
    ensure!(
        code == Some(0),
        "disk check finds fault with an undamaged disk ({code:?}): {said}"
    );
    Ok(true)
}

/// Whether the check finds the damage. It says where: an offset, or the structure's name.
fn check_finds(disk: &Path) -> Step<bool> {
    let before = std::fs::metadata(disk)?.modified()?;
    let (code, said) = attempt(
        &text(&crate::harness::daemon::binary()),
        &["disk", "check", &text(disk)],
    )?;
    ensure!(
        std::fs::metadata(disk)?.modified()? == before,
        "disk check wrote to the disk"
    );
    ensure!(
        matches!(code, Some(0 | 1)),
        "disk check ended with {code:?}: {said}"
    );
    Ok(code == Some(1) && said.chars().any(|c| c.is_ascii_digit()))
}
