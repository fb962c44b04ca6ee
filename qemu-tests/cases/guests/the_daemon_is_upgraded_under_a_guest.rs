//! The daemon becomes another process under a guest's load, and hands the guest's connection over: by `sarsen upgrade`, and
//! by SIGTERM where a service manager keeps descriptors. The guest sees a pause, how long it is is printed, and nothing else.

use super::pool::Pool;
use super::the_daemon_is_killed_under_a_guest::under_load;
use crate::harness::daemon::{Daemon, Start, text};
use crate::harness::service_manager::Store;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// By so much later than the time before a daemon is killed after it was told to become another.
const KILL_STEP: Duration = Duration::from_millis(25);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "the_daemon_is_upgraded_under_a_guest_which_sees_a_pause",
            |room| upgraded(room, Pool::of_one(room, "512M")?, 3),
        ),
        Case::new(
            "the_daemon_is_upgraded_under_a_guest_ten_times_in_one_boot",
            |room| upgraded(room, Pool::of_one(room, "512M")?, 10),
        )
        .only_in_full(),
        Case::new(
            "the_daemon_is_upgraded_under_a_guest_while_another_node_is_killed",
            |room| upgraded(room, Pool::replicated(room, "512M")?, 3),
        ),
        Case::new(
            "the_daemon_is_restarted_under_a_guest_whose_connection_is_kept",
            restarted,
        ),
        Case::new(
            "the_daemon_is_killed_in_the_middle_of_an_upgrade_under_a_guest",
            |room| killed_meanwhile(room, 12),
        )
        .only_in_full(),
    ]
}

fn upgraded(room: &Room, pool: Pool, rounds: u64) -> Outcome {
    let broken = room.path("broken");
    std::fs::write(&broken, "#!/bin/sh\nexit 1\n")?;
    std::fs::set_permissions(&broken, PermissionsExt::from_mode(0o755))?;
    let step = |daemon: Daemon| -> Step<Daemon> {
        let said = daemon.ask(&["upgrade", "--binary", &text(&broken)])?;
        ensure!(
            said.code == Some(1),
            "a broken binary is not refused: {}",
            said.out
        );
        daemon.upgrade(None)?;
        Ok(daemon)
    };
    connected(room, pool, step, rounds)
}

fn restarted(room: &Room) -> Outcome {
    let (store, start) = (Store::new(room)?, Start::dev(room, "store", "512M"));
    let step = |mut daemon: Daemon| -> Step<Daemon> {
        daemon.stop()?;
        store.start(&start).run()
    };
    let pool = Pool::of(vec![store.start(&start).run()?]);
    connected(room, pool, step, 3)
}

/// At any moment of it: before the guest's rings rest, while the process is neither, and while the next one opens its store. Where
/// the connection does not survive, QEMU connects again.
fn killed_meanwhile(room: &Room, rounds: u32) -> Outcome {
    let start = Start::dev(room, "store", "512M");
    let (round, amid) = (Cell::new(0), Cell::new(0));
    let step = |mut daemon: Daemon| {
        round.set(round.get() + 1);
        let told = daemon.start.clone();
        // How it ends is told by the log.
        let upgrade = std::thread::spawn(move || drop(told.ask(&["upgrade"])));
        std::thread::sleep(KILL_STEP * round.get());
        daemon.kill()?;
        let log = start.log_text()?;
        let begun = log.rfind("becoming another binary");
        amid.set(amid.get() + u32::from(begun > log.rfind("serving api=")));
        // The guest waits: whoever asked for the upgrade may hear of it later.
        let daemon = start.run()?;
        upgrade.join().map_err(|_| "the upgrade panicked")?;
        Ok(daemon)
    };
    let pool = Pool::of(vec![start.run()?]);
    let said = under_load(room, pool, step, rounds.into())?;
    let amid = amid.get();
    ensure!(amid > 0, "no kill of {rounds} came in the middle; {said}");
    Ok(format!(
        "{amid} of {rounds} kills came in the middle; {said}"
    ))
}

/// The same, over one connection.
fn connected(
    room: &Room,
    pool: Pool,
    step: impl Fn(Daemon) -> Step<Daemon>,
    rounds: u64,
) -> Outcome {
    let start = pool.here().start.clone();
    let before = handed_over(&start)?;
    let said = under_load(room, pool, step, rounds)?;
    // Nobody had to connect again: it was the same connection all the time.
    let log = start.log_text()?;
    let taken = handed_over(&start)? - before;
    ensure!(
        taken == rounds,
        "{taken} of {rounds} times something was handed over"
    );
    let missing = [
        "was not taken over",
        "nothing is taken over",
        "was cut short",
        "was cut off",
    ];
    let wrong: Vec<&str> = log
        .lines()
        .filter(|l| missing.iter().any(|m| l.contains(m)))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(said)
}

/// How many times a daemon said that it handed over.
fn handed_over(start: &Start) -> Step<u64> {
    let log = start.log_text()?;
    Ok(log.matches("connections were handed over").count() as u64)
}
