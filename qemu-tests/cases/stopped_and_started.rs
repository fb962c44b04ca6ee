//! Clean stops, and starts that must be refused.

use crate::harness::daemon::Start;
use crate::harness::load::{Load, Shape, verify};
use crate::harness::model::Model;
use crate::harness::{Case, Outcome, Room, ensure};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const VOLUME: u64 = 64 << 20;
/// "Well under 5 s", with two cores that others use too.
const STOP_MAX: Duration = Duration::from_millis(2500);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "sigterm_under_load_stops_soon_and_leaves_an_empty_journal",
            stop,
        ),
        Case::new("a_second_daemon_on_the_same_disk_is_refused", second),
        Case::new("the_same_disk_twice_is_refused", twice),
    ]
}

fn stop(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", "256M");
    let model = Arc::new(Mutex::new(Model::new(VOLUME)));
    let mut daemon = start.run()?;
    daemon.create("vm1", &VOLUME.to_string())?;
    let load = Load::start(
        &start.nbd,
        "vm1",
        &model,
        Shape {
            connections: 3,
            depth: 8,
        },
        5,
    )?;
    load.reach(3000, Duration::from_secs(60))?;
    let (under_load, status) = daemon.stop()?;
    ensure!(
        status.success(),
        "after SIGTERM under load it ended with {status}"
    );
    ensure!(
        under_load < STOP_MAX,
        "the stop under load took {under_load:?}"
    );
    // What the end of the daemon cut off counts as in flight. Errors on the way out do too.
    let in_flight = match load.after_kill() {
        Ok(in_flight) => in_flight.to_string(),
        Err(why) if why.to_string().contains("error 108") => "some".into(),
        Err(why) => return Err(why),
    };
    let mut daemon = start.run()?;
    let log = start.log_text()?;
    let opened = log
        .lines()
        .rfind(|line| line.contains("replayed="))
        .ok_or("no word of replay")?;
    ensure!(
        opened.contains("replayed=0"),
        "after a clean stop: {opened}"
    );
    verify(&start.nbd, "vm1", &model)?;
    let (idle, status) = daemon.stop()?;
    ensure!(
        status.success() && idle < STOP_MAX,
        "the idle stop: {status} after {idle:?}"
    );
    for socket in [&start.api, &start.nbd] {
        ensure!(!socket.exists(), "{} is left behind", socket.display());
    }
    Ok(format!(
        "{under_load:.0?} with {in_flight} writes in flight, {idle:.0?} idle"
    ))
}

fn second(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", "256M");
    let daemon = start.run()?;
    let disk = room.path("store").join("disk0");
    let other = Start::daemon(room, "other", &[(&disk, None)], "")?;
    let (code, said) = other.run_refused()?;
    let pid = daemon.pid().to_string();
    ensure!(
        code == Some(1),
        "the second daemon ended with {code:?}: {said}"
    );
    ensure!(
        said.contains("disk0") && said.contains(&pid),
        "it does not say what is in use by whom: {said}"
    );
    daemon.create("vm1", "16M")?;
    Ok(last_line(&said))
}

fn twice(room: &Room) -> Outcome {
    let disk = room.path("disk");
    let link = room.path("link");
    std::os::unix::fs::symlink(&disk, &link)?;
    let disks = [
        (disk.as_path(), Some("256M")),
        (disk.as_path(), Some("256M")),
    ];
    let (code, said) = Start::daemon(room, "plain", &disks, "")?.run_refused()?;
    ensure!(
        code == Some(1),
        "the same path twice ended with {code:?}: {said}"
    );
    ensure!(said.contains("disk"), "it does not say which: {said}");
    // A start that is refused may have made the file.
    if disk.exists() {
        std::fs::remove_file(&disk)?;
    }
    let disks = [(disk.as_path(), Some("256M")), (link.as_path(), None)];
    let (code, linked) = Start::daemon(room, "linked", &disks, "")?.run_refused()?;
    ensure!(
        code == Some(1),
        "the same disk by another name ended with {code:?}: {linked}"
    );
    ensure!(linked.contains("link"), "it does not say which: {linked}");
    Ok(last_line(&said))
}

fn last_line(said: &str) -> String {
    said.lines().last().unwrap_or_default().trim().to_owned()
}
