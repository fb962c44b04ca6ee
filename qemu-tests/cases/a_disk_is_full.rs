//! A disk that is full says so to who needs new space, and to nobody else.

use crate::harness::daemon::Start;
use crate::harness::nbd::ENOSPC;
use crate::harness::sector;
use crate::harness::{Case, Outcome, Room, ensure};
use std::time::{Duration, Instant};

const CHUNK: u64 = 64 << 10;
const VOLUME: u64 = 256 << 20;

pub fn cases() -> Vec<Case> {
    vec![Case::new(
        "a_full_disk_refuses_new_space_and_serves_on",
        full,
    )]
}

fn full(room: &Room) -> Outcome {
    let disk = room.path("disk");
    let disks = [(disk.as_path(), Some("96M"))];
    let start = Start::daemon(room, "store", &disks, "overcommit_percent = 1000")?;
    let mut daemon = start.run()?;
    daemon.create("vm1", &VOLUME.to_string())?;
    let mut client = daemon.connect("vm1")?;
    let mut chunk = vec![0; CHUNK as usize];
    let mut written = 0;
    let refused = loop {
        ensure!(
            written * CHUNK < VOLUME,
            "256 MiB fit onto a disk of 96 MiB"
        );
        sector::fill(&mut chunk, written * 128, 1);
        match client.write(written * CHUNK, &chunk)? {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    ensure!(refused == ENOSPC, "a full disk answers error {refused}");
    // Small writes that need a new chunk are refused too, all of them.
    for place in 1..8 {
        let answer = client.write((written + 16 * place) * CHUNK, &[1; 4096])?;
        ensure!(
            answer == Err(ENOSPC),
            "a new chunk on a full disk is answered {answer:?}"
        );
    }
    for number in (0..written).step_by(3) {
        sector::fill(&mut chunk, number * 128, 2);
        let small = &chunk[4096..8192];
        let answer = client.write(number * CHUNK + 4096, small)?;
        ensure!(
            answer.is_ok(),
            "a small overwrite of chunk {number} is answered {answer:?}"
        );
    }
    for number in (1..written).step_by(7) {
        sector::fill(&mut chunk, number * 128, 3);
        let answer = client.write(number * CHUNK, &chunk)?;
        ensure!(
            answer.is_ok(),
            "an overwrite of chunk {number} is answered {answer:?}"
        );
    }
    for number in 0..written {
        let read = client
            .read(number * CHUNK, CHUNK as u32)?
            .map_err(|e| format!("error {e}"))?;
        for (address, bytes) in (number * 128..).zip(read.as_chunks::<512>().0) {
            let write = sector::read(bytes, address)?;
            let right = match (number % 3, number % 7) {
                (_, 1) => write == 3,
                (0, _) if (8..16).contains(&(address % 128)) => write == 2,
                _ => write == 1,
            };
            ensure!(
                right,
                "sector {address} of the full disk shows write {write}"
            );
        }
    }
    client
        .trim(0, (64 * CHUNK) as u32)?
        .map_err(|e| format!("a trim: error {e}"))?;
    // What was given back is given out again once the record of it is durable.
    let begun = Instant::now();
    while let Err(error) = client.write(written * CHUNK, &[4; 4096])? {
        ensure!(error == ENOSPC, "after a trim: error {error}");
        ensure!(
            begun.elapsed() < Duration::from_secs(5),
            "no space 5 s after a trim of 4 MiB"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    daemon.kill()?;
    let daemon = start.run()?;
    let mut client = daemon.connect("vm1")?;
    let new = client
        .read(written * CHUNK, 4096)?
        .map_err(|e| format!("error {e}"))?;
    ensure!(new == vec![4; 4096], "the write after the trim is gone");
    Ok(format!("{written} chunks of 64 KiB fit onto 96 MiB"))
}
