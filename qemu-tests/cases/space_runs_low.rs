//! Space runs low: somebody is warned before a writer meets ENOSPC, and no longer than that lasts.

use crate::harness::daemon::{Daemon, Start};
use crate::harness::{Case, Outcome, Room, Step, ensure};
use serde_json::Value;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const CHUNK: u64 = 64 << 10;
/// Space is looked at every 5 s; two cores may be busy with builds.
const TOLD: Duration = Duration::from_secs(20);

pub fn cases() -> Vec<Case> {
    vec![Case::new(
        "low_space_is_told_at_80_and_95_percent_and_no_longer_than_it_lasts",
        low,
    )]
}

/// Waits until exactly these alerts are active.
fn wait_for(daemon: &Daemon, names: &[&str]) -> Step<Vec<Value>> {
    let begun = Instant::now();
    loop {
        let said: Value = serde_json::from_str(&daemon.tell(&["--json", "alerts"])?)?;
        let alerts = said["alerts"].as_array().cloned().unwrap_or_default();
        let active: Vec<&str> = alerts.iter().filter_map(|a| a["name"].as_str()).collect();
        if active == names {
            return Ok(alerts);
        }
        ensure!(
            begun.elapsed() < TOLD,
            "{names:?} are due, and there are {active:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn low(room: &Room) -> Outcome {
    let disk = room.path("disk");
    let disks = [(disk.as_path(), Some("96M"))];
    let start = Start::daemon(room, "store", &disks, "overcommit_percent = 1000")?;
    let daemon = start.run()?;
    daemon.create("vm1", "256M")?;
    let room_for =
        crate::harness::metrics::Metrics::ask(&start.api)?.get("sarsen_disk_capacity_bytes");
    let chunks = room_for as u64 / CHUNK;
    ensure!(chunks > 1000, "there is room for {chunks} chunks");
    let mut client = daemon.connect("vm1")?;
    let chunk = vec![1; CHUNK as usize];
    let mut fill = |from: u64, to: u64| -> Step<()> {
        for number in from..to {
            client
                .write(number * CHUNK, &chunk)?
                .map_err(|e| format!("chunk {number}: error {e}"))?;
        }
        Ok(())
    };
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    fill(0, chunks * 82 / 100)?;
    let alerts = wait_for(&daemon, &["low-space"])?;
    let alert = &alerts[0];
    let has = |field: &str, text: &str| alert[field].as_str().is_some_and(|of| of.contains(text));
    ensure!(
        has("subject", "disk 1") && has("reason", "% in use") && has("cure", "disk add"),
        "the alert does not say what, why and what to do: {alert}"
    );
    ensure!(
        alert["since_unix_seconds"]
            .as_u64()
            .is_some_and(|since| since >= before),
        "the alert began before its cause: {alert}"
    );
    fill(chunks * 82 / 100, chunks * 96 / 100)?;
    wait_for(&daemon, &["low-space", "very-low-space"])?;
    let status: Value = serde_json::from_str(&daemon.tell(&["--json", "status"])?)?;
    ensure!(
        status["alerts"]
            .as_array()
            .is_some_and(|list| list.len() == 2),
        "status does not show the alerts: {status}"
    );
    let mut trim = |from: u64, to: u64| -> Step<()> {
        client
            .trim(from * CHUNK, ((to - from) * CHUNK) as u32)?
            .map_err(|e| format!("a trim: error {e}").into())
    };
    trim(0, chunks * 10 / 100)?;
    wait_for(&daemon, &["low-space"])?;
    trim(chunks * 10 / 100, chunks * 50 / 100)?;
    wait_for(&daemon, &[])?;
    Ok(format!("of {chunks} chunks"))
}
