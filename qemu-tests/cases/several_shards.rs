//! A volume over two disks on two shards: requests go between the shards all the time, and the daemon is killed with -9
//! in the middle of that; and what the control plane does with such a volume.

use crate::harness::daemon::{Daemon, Start, binary, text};
use crate::harness::kills::{Moment, kill_at};
use crate::harness::load::{Load, Shape, verify};
use crate::harness::metrics::Metrics;
use crate::harness::model::Model;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use sarsen::base::Prng;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ROUNDS: usize = 5;
/// Acknowledged writes before a kill is looked for.
const WRITES: u64 = 5_000;
/// Disks whose journals are small, so that they wrap and are checkpointed all the time.
const DISK: &str = "256M";
const VOLUME: u64 = 192 << 20;
/// Requests that each shard must have had of the other one before a kill.
const FOREIGN: f64 = 500.0;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "several_shards_are_killed_under_load_and_no_acknowledged_write_is_lost_or_torn",
            rounds,
        ),
        Case::new(
            "several_shards_import_export_measure_resize_and_delete",
            control,
        ),
    ]
}

/// What the control plane does to a volume, where it lies on two shards.
fn control(room: &Room) -> Outcome {
    let disks = [room.path("disk0"), room.path("disk1")];
    let disks = [
        (disks[0].as_path(), Some(DISK)),
        (disks[1].as_path(), Some(DISK)),
    ];
    let start = Start::daemon(room, "node", &disks, "shards = 2")?;
    let mut daemon = start.run()?;
    let (image, copy) = (room.path("image"), room.path("copy"));
    let (image_text, copy_text) = (text(&image), text(&copy));
    // 40 MiB with a hole in the middle and an end that is no multiple of an extent.
    let mut bytes = vec![0; (40 << 20) + 12_800];
    let (head, tail) = (11 << 20, 29 << 20);
    let mut prng = Prng::new(7);
    prng.fill(&mut bytes[..head]);
    prng.fill(&mut bytes[tail..]);
    std::fs::write(&image, &bytes)?;
    daemon.tell(&["volume", "import", "vm1", &image_text])?;
    daemon.tell(&["volume", "resize", "vm1", "--size", "64M"])?;
    daemon.tell(&["volume", "export", "vm1", &copy_text])?;
    let exported = std::fs::read(&copy)?;
    ensure!(exported.len() == 64 << 20, "{} bytes", exported.len());
    ensure!(exported[..bytes.len()] == bytes[..], "the copy differs");
    ensure!(
        exported[bytes.len()..].iter().all(|byte| *byte == 0),
        "what was added is not zeroes"
    );
    for rw in ["randwrite", "read"] {
        let bench = ["bench", "load", "--rw", rw, "--bs", "64k", "--size", "64M"];
        let said =
            daemon.tell(&[&bench[..], &["--seconds", "1", "--overwrite", "--json"]].concat())?;
        ensure!(said.contains("\"iops\""), "bench says {said}");
    }
    daemon.kill()?;
    let mut daemon = start.run()?;
    std::fs::remove_file(&copy)?;
    daemon.tell(&["volume", "export", "vm1", &copy_text])?;
    ensure!(
        std::fs::read(&copy)? == exported,
        "the copy differs after a kill"
    );
    for disk in ["1", "2"] {
        daemon.tell(&["disk", "scrub", disk])?;
    }
    daemon.tell(&["volume", "delete", "vm1"])?;
    ensure!(
        daemon.connect("vm1").is_err(),
        "a deleted volume is still there"
    );
    let (_, status) = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    for (path, _) in disks {
        let checked = std::process::Command::new(binary())
            .args(["disk", "check", &text(path)])
            .output()?;
        ensure!(checked.status.success(), "disk check: {checked:?}");
    }
    Ok("an image went in and out, before and after a kill".into())
}

fn rounds(room: &Room) -> Outcome {
    let disks = [room.path("disk0"), room.path("disk1")];
    let disks = [
        (disks[0].as_path(), Some(DISK)),
        (disks[1].as_path(), Some(DISK)),
    ];
    let start = Start::daemon(room, "node", &disks, "shards = 2")?;
    let model = Arc::new(Mutex::new(Model::new(VOLUME)));
    let shape = Shape {
        connections: 4,
        depth: 8,
    };
    let (mut in_flight, mut foreign) = (0, 0.0);
    for round in 0..ROUNDS {
        let wrong = |why: Box<dyn std::error::Error>| format!("round {round}: {why}");
        let mut daemon = start.run().map_err(wrong)?;
        if round == 0 {
            daemon.create("vm1", &VOLUME.to_string())?;
        } else {
            verify(&start.nbd, "vm1", &model).map_err(wrong)?;
        }
        let load = Load::start(&start.nbd, "vm1", &model, shape, round as u64)?;
        load.reach(WRITES, Duration::from_secs(60)).map_err(wrong)?;
        foreign += both_work(&daemon).map_err(wrong)?;
        let moment = Moment::ALL[round % Moment::ALL.len()];
        kill_at(&mut daemon, &load, moment).map_err(wrong)?;
        let left = load.after_kill().map_err(wrong)?;
        ensure!(left > 0, "round {round}: nothing was in flight at the kill");
        in_flight += left;
    }
    let mut daemon = start.run()?;
    verify(&start.nbd, "vm1", &model)?;
    // A stop in good order, with a load that lasts over it.
    let load = Load::start(&start.nbd, "vm1", &model, shape, 99)?;
    load.reach(WRITES, Duration::from_secs(60))?;
    let (took, status) = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    ensure!(took < Duration::from_secs(5), "the stop took {took:?}");
    drop(load);
    Ok(format!(
        "{ROUNDS} kills, {in_flight} in flight at a kill, {foreign} requests went between the shards; \
         the stop under load took {took:?}"
    ))
}

/// Makes sure that status and metrics show two shards that work, for themselves and for one another. How many requests
/// went between them.
fn both_work(daemon: &Daemon) -> Step<f64> {
    let status = daemon.tell(&["status", "--json"])?;
    ensure!(status.contains("\"shards\": 2"), "status says {status}");
    let metrics = Metrics::ask(&daemon.start.api)?;
    let mut between = 0.0;
    for shard in 0..2 {
        let of =
            |name: &str| metrics.get(&format!("sarsen_shard_{name}_total{{shard=\"{shard}\"}}"));
        let (requests, foreign) = (of("requests"), of("foreign_requests"));
        ensure!(
            foreign > FOREIGN && requests > foreign,
            "shard {shard} had {requests} requests, {foreign} of them of the other shard"
        );
        between += foreign;
    }
    Ok(between)
}
