//! Sockets of guests that outlive the daemon: those that it inherits, and its own, which systemd keeps.

use crate::harness::daemon::{Start, text};
use crate::harness::service_manager::Manager;
use crate::harness::{Case, Outcome, Room, ensure};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_guest_is_served_at_a_socket_that_the_daemon_inherits",
            inherits,
        ),
        Case::new("a_guest_that_connects_while_there_is_no_daemon_waits", kept),
        Case::new("systemd_hears_signs_of_life_while_the_shards_turn", alive),
    ]
}

fn inherits(room: &Room) -> Outcome {
    let path = room.path("vm1.sock");
    let listener: Arc<OwnedFd> = Arc::new(UnixListener::bind(&path)?.into());
    let file: Arc<OwnedFd> = Arc::new(std::fs::File::create(room.path("file"))?.into());
    let start = Start::dev(room, "store", "256M")
        .with_descriptor("odd", file)
        .with_descriptor("vm1", listener);
    let mut daemon = start.run()?;
    daemon.create("vm1", "16M")?;
    for (name, why) in [("vm2", "inherited only odd, vm1"), ("odd", "not a socket")] {
        let said = daemon.ask(&["attach", "vm1", "--vhost-user", &format!("fd:{name}")])?;
        ensure!(
            said.code == Some(1) && said.err.contains(why),
            "fd:{name}: {}",
            said.err
        );
    }
    daemon.tell(&["attach", "vm1", "--vhost-user", "fd:vm1"])?;
    let list = daemon.tell(&["attachments"])?;
    ensure!(list.contains(&text(&path)), "its path is not told: {list}");
    daemon.kill()?;
    let daemon = start.run()?;
    let list = daemon.tell(&["attachments"])?;
    ensure!(
        list.contains("listening"),
        "after kill -9 it is not served: {list}"
    );
    daemon.tell(&["detach", "vm1"])?;
    ensure!(path.exists(), "a socket that is not the daemon's is gone");
    Ok(String::new())
}

fn kept(room: &Room) -> Outcome {
    let (manager, notify) = Manager::new(room)?;
    let start = Start::dev(room, "store", "256M").with_variable("NOTIFY_SOCKET", &notify);
    let mut daemon = start.run()?;
    manager.waits_for("READY=1")?;
    daemon.create("vm1", "16M")?;
    let socket = text(&room.path("vm1.sock"));
    daemon.tell(&["attach", "vm1", "--vhost-user", &socket])?;
    let (told, fds) = manager.waits_for("FDSTORE=1")?;
    let name = told.lines().find_map(|line| line.strip_prefix("FDNAME="));
    let name = name.ok_or("the socket has no name")?.to_owned();
    let fd = fds.into_iter().next().ok_or("no descriptor came along")?;
    daemon.kill()?;

    let mut guest = UnixStream::connect(&socket)?;
    guest.set_read_timeout(Some(Duration::from_secs(10)))?;
    let begun = Instant::now();
    let daemon = start.with_descriptor(&name, Arc::new(fd)).run()?;
    // GET_FEATURES of vhost-user: request 1, version 1, no payload.
    std::io::Write::write_all(&mut guest, &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])?;
    let mut answer = [0; 20];
    std::io::Read::read_exact(&mut guest, &mut answer)?;
    let waited = begun.elapsed();
    ensure!(answer[..4] == [1, 0, 0, 0], "an odd answer: {answer:?}");
    drop(guest);
    daemon.tell(&["detach", "vm1", "--force"])?;
    let (told, _) = manager.waits_for("FDSTOREREMOVE=1")?;
    ensure!(
        told.contains(&name),
        "another descriptor is to be forgotten: {told}"
    );
    Ok(format!(
        "answered {} ms after the start",
        waited.as_millis()
    ))
}

fn alive(room: &Room) -> Outcome {
    let (manager, notify) = Manager::new(room)?;
    let start = Start::dev(room, "store", "256M")
        .with_variable("NOTIFY_SOCKET", &notify)
        .with_variable("WATCHDOG_USEC", "1500000");
    let mut daemon = start.run()?;
    for _ in 0..3 {
        manager.waits_for("WATCHDOG=1")?;
    }
    // A process that is stopped says nothing, and goes on saying it when it goes on.
    daemon.signal(libc::SIGSTOP)?;
    std::thread::sleep(Duration::from_millis(100));
    manager
        .socket
        .set_read_timeout(Some(Duration::from_millis(1)))?;
    while manager.hears().is_ok() {}
    manager
        .socket
        .set_read_timeout(Some(Duration::from_millis(1500)))?;
    ensure!(
        manager.hears().is_err(),
        "a process that is stopped gives signs of life"
    );
    daemon.signal(libc::SIGCONT)?;
    manager
        .socket
        .set_read_timeout(Some(Duration::from_secs(20)))?;
    manager.waits_for("WATCHDOG=1")?;
    daemon.stop()?;
    manager.waits_for("STOPPING=1")?;
    Ok(String::new())
}
