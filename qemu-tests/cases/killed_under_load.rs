//! kill -9 under load, again and again, on one store that lives through all of it.

use crate::harness::daemon::Start;
use crate::harness::kills::{Moment, kill_at};
use crate::harness::load::{Load, Shape, verify};
use crate::harness::model::Model;
use crate::harness::{Case, Outcome, Room, ensure};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Six at each moment; three must be shown.
const ROUNDS: usize = 30;
/// Acknowledged writes before a kill is looked for.
const WRITES: u64 = 5_000;
/// A disk whose journal is 16 MiB, so that it wraps and is checkpointed all the time.
const DISK: &str = "256M";
const VOLUME: u64 = 128 << 20;

pub fn cases() -> Vec<Case> {
    vec![Case::new(
        "killed_under_load_no_acknowledged_write_is_lost_or_torn",
        rounds,
    )]
}

fn rounds(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", DISK);
    let model = Arc::new(Mutex::new(Model::new(VOLUME)));
    let mut moments: BTreeMap<Moment, u32> = BTreeMap::new();
    let (mut acknowledged, mut in_flight, mut seen, mut atomic) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        let wrong = |why: Box<dyn std::error::Error>| format!("round {round}: {why}");
        let mut daemon = start.run().map_err(wrong)?;
        if round == 0 {
            daemon.create("vm1", &VOLUME.to_string())?;
        } else {
            let verified = verify(&start.nbd, "vm1", &model).map_err(wrong)?;
            seen += verified.in_flight_seen;
            atomic += verified.atomic_checked;
        }
        let shape = Shape {
            connections: 4,
            depth: 8,
        };
        let load = Load::start(&start.nbd, "vm1", &model, shape, round as u64)?;
        load.reach(WRITES, Duration::from_secs(60)).map_err(wrong)?;
        let moment = Moment::ALL[round % Moment::ALL.len()];
        let counts = Arc::clone(&load.counts);
        let shown = kill_at(&mut daemon, &load, moment).map_err(wrong)?;
        let left = load.after_kill().map_err(wrong)?;
        ensure!(left > 0, "round {round}: nothing was in flight at the kill");
        acknowledged += counts
            .acknowledged
            .load(std::sync::atomic::Ordering::Relaxed);
        in_flight += left;
        *moments.entry(moment).or_default() += u32::from(shown);
    }
    let _last = start.run()?;
    verify(&start.nbd, "vm1", &model)?;
    for moment in Moment::ALL {
        let shown = moments.get(&moment).copied().unwrap_or_default();
        ensure!(
            shown >= 3,
            "nothing was lost, but the counters show too few kills at {moment:?}: {moments:?}"
        );
    }
    Ok(format!(
        "{ROUNDS} kills {moments:?}, {acknowledged} writes acknowledged, {in_flight} in flight at a kill, \
         {seen} of them there afterwards, {atomic} looked at for tears"
    ))
}
