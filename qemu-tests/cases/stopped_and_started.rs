//! Clean stops, and starts that must be refused.

use crate::harness::daemon::Start;
use crate::harness::load::{Load, Shape, verify};
use crate::harness::model::Model;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const VOLUME: u64 = 64 << 20;
/// "Well under 5 s", with two cores that others use too.
const STOP_MAX: Duration = Duration::from_millis(2500);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "sigterm_under_load_stops_soon_and_leaves_an_empty_journal",
            stop,
        ),
        Case::new("a_second_sigterm_ends_a_slow_stop_at_once", told_twice),
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

/// A measurement that runs on keeps the stop busy for half a second.
fn told_twice(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", "256M");
    let mut daemon = start.run()?;
    daemon.create("vm1", "64M")?;
    let mut client = daemon.connect("vm1")?;
    client
        .write(0, &[7; 4096])?
        .map_err(|e| format!("error {e}"))?;
    let (took, status) = std::thread::scope(|scope| -> Step<_> {
        let busy = scope.spawn(|| {
            let arguments = ["bench", "vm1", "--rw", "read", "--seconds", "60"];
            // Its daemon goes away under it: how it ends is all the same.
            start.ask(&arguments).map(|said| said.code).unwrap_or(None)
        });
        std::thread::sleep(Duration::from_millis(500));
        ensure!(
            !busy.is_finished(),
            "the bench has ended: {:?}",
            busy.join()
        );
        daemon.signal(libc::SIGTERM)?;
        let begun = Instant::now();
        while !start.log_text()?.contains("stopping") {
            ensure!(
                begun.elapsed() < Duration::from_secs(10),
                "no word of a stop"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        let ended = daemon.stop()?;
        Ok(ended)
    })?;
    ensure!(
        status.code() == Some(1),
        "after the second SIGTERM it ended with {status}"
    );
    ensure!(
        took < Duration::from_millis(400),
        "after the second SIGTERM it took {took:?}"
    );
    ensure!(
        start.log_text()?.contains("ending at once"),
        "it does not say why it ended"
    );
    let daemon = start.run()?;
    let read = daemon
        .connect("vm1")?
        .read(0, 4096)?
        .map_err(|e| format!("error {e}"))?;
    ensure!(read == [7; 4096], "an acknowledged write is gone");
    Ok(format!("{took:.0?} after the second"))
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
