//! A volume over two disks on two shards: requests go between the shards all the time, and the daemon is killed with -9
//! in the middle of that.

use crate::harness::daemon::{Daemon, Start};
use crate::harness::kills::{Moment, kill_at};
use crate::harness::load::{Load, Shape, verify};
use crate::harness::metrics::Metrics;
use crate::harness::model::Model;
use crate::harness::{Case, Outcome, Room, Step, ensure};
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
    vec![Case::new(
        "several_shards_are_killed_under_load_and_no_acknowledged_write_is_lost_or_torn",
        rounds,
    )]
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
