//! What is measured is what happened: every stage of an operation, and every kind of work of a disk.

use crate::harness::daemon::Start;
use crate::harness::metrics::Metrics;
use crate::harness::{Case, Outcome, Room, ensure};
use std::time::{Duration, Instant};

const VOLUME: &str = "sarsen_volume_latency_seconds_count";
const DISK: &str = "sarsen_disk_latency_seconds_count";

pub fn cases() -> Vec<Case> {
    vec![Case::new("each_stage_of_an_operation_is_measured", stages)]
}

fn stages(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", "256M");
    let daemon = start.run()?;
    daemon.create("vm1", "64M")?;
    let mut client = daemon.connect("vm1")?;
    for number in 0..50 {
        client
            .write(number * 4096, &[1; 4096])?
            .map_err(|e| format!("error {e}"))?;
    }
    for number in 0..30 {
        client
            .read(number * 4096, 4096)?
            .map_err(|e| format!("error {e}"))?;
    }
    client
        .write(32 << 20, &[2; 1 << 20])?
        .map_err(|e| format!("error {e}"))?;
    // The journal is applied when it is quiet, or at a checkpoint; a scrub reads what was applied.
    daemon.tell(&["disk", "scrub"])?;
    let begun = Instant::now();
    loop {
        let seen = Metrics::ask(&start.api)?;
        let count = |operation: &str, stage: &str| {
            let label = format!("operation=\"{operation}\",stage=\"{stage}\"");
            seen.with(VOLUME, &label) as u64
        };
        let volume =
            ["front", "store", "send"].map(|stage| (count("write", stage), count("read", stage)));
        let disk = |operation: &str| seen.with(DISK, &format!("operation=\"{operation}\"")) as u64;
        let right = volume == [(51, 30); 3]
            && disk("journal") > 0
            && disk("write") > 0
            && disk("scrub") > 0
            && disk("load") > 0
            && seen.get("sarsen_disk_scrubbed_bytes_total") >= (1 << 20) as f64
            && seen.get("sarsen_disk_scrub_running") == 0.0
            && seen.get("sarsen_disk_checkpoint_running") == 0.0;
        if right {
            let store = seen.with(
                "sarsen_volume_latency_seconds_sum",
                "operation=\"write\",stage=\"store\"",
            );
            ensure!(store > 0.0 && store < 51.0, "51 writes took {store} s");
            return Ok(format!(
                "51 writes, {:.0} us each in the store",
                store / 51.0 * 1e6
            ));
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(5),
            "(writes, reads) by stage: {volume:?}; journal {}, write {}, scrub {}, load {}, scrubbed {}",
            disk("journal"),
            disk("write"),
            disk("scrub"),
            disk("load"),
            seen.get("sarsen_disk_scrubbed_bytes_total")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
