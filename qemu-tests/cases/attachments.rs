//! What is attached stays attached, and what cannot be attached is told why.

use crate::harness::daemon::{Daemon, Said, Start, text};
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("an_attachment_survives_a_restart_and_kill_9", survives),
        Case::new(
            "an_attachment_that_cannot_be_is_refused_with_the_reason",
            refused,
        ),
        Case::new("a_socket_that_something_took_meanwhile_is_an_alert", taken),
        Case::new("qemu_takes_the_command_line_that_attach_prints", printed),
    ]
}

/// Whether a client gets through to the socket of a guest.
fn connects(socket: &str) -> bool {
    UnixStream::connect(socket).is_ok()
}

fn attachments(daemon: &Daemon) -> Step<String> {
    daemon.tell(&["attachments", "--json"])
}

fn survives(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", "256M");
    let mut daemon = start.run()?;
    daemon.create("vm1", "16M")?;
    let socket = text(&room.path("vm1.sock"));
    daemon.tell(&["attach", "vm1", "--vhost-user", &socket, "--queues", "2"])?;
    ensure!(connects(&socket), "nobody listens at {socket}");
    let before = attachments(&daemon)?;
    let people = daemon.tell(&["attachments"])?;
    ensure!(
        people.contains("vm1") && people.contains(&socket),
        "a person sees: {people}"
    );
    for what in ["volume show", "status"] {
        let arguments: Vec<&str> = what
            .split(' ')
            .chain((what != "status").then_some("vm1"))
            .collect();
        let said = daemon.tell(&arguments)?;
        ensure!(
            said.contains("attach"),
            "sarsen {what} does not tell of it: {said}"
        );
    }

    daemon.kill()?;
    let mut daemon = start.run()?;
    ensure!(
        connects(&socket),
        "after kill -9 nobody listens at {socket}"
    );
    let after = attachments(&daemon)?;
    ensure!(before == after, "before kill -9 {before}, after it {after}");

    daemon.stop()?;
    let daemon = start.run()?;
    ensure!(
        connects(&socket),
        "after a restart nobody listens at {socket}"
    );
    let after = attachments(&daemon)?;
    ensure!(
        before == after,
        "before the restart {before}, after it {after}"
    );

    daemon.tell(&["detach", "vm1"])?;
    ensure!(
        !room.path("vm1.sock").exists(),
        "after the detach the socket is still there"
    );
    daemon.tell(&["volume", "delete", "vm1"])?;
    Ok(String::new())
}

/// It was refused (1) or not understood (2), in words that have this in them.
fn says(said: &Said, code: i32, words: &[&str]) -> Step<()> {
    ensure!(
        said.code == Some(code),
        "ended with {:?}: {}{}",
        said.code,
        said.out,
        said.err
    );
    for word in words {
        ensure!(said.err.contains(word), "{word:?} is not in: {}", said.err);
    }
    Ok(())
}

fn refused(room: &Room) -> Outcome {
    let daemon = Start::dev(room, "store", "256M").run()?;
    daemon.create("vm1", "16M")?;
    daemon.create("vm2", "16M")?;
    let (first, other) = (text(&room.path("1.sock")), text(&room.path("2.sock")));
    let attach = |name: &str, more: &[&str]| {
        let arguments = [&["attach", name], more].concat();
        daemon.ask(&arguments)
    };

    let file = room.path("precious");
    std::fs::write(&file, "precious")?;
    let exists = attach("vm1", &["--vhost-user", &text(&file)])?;
    says(
        &exists,
        1,
        &["precious", "exists and is not a socket", "name a path"],
    )?;
    ensure!(
        std::fs::read(&file)? == b"precious",
        "the file at the path was changed"
    );
    let live = text(&daemon.start.nbd);
    says(
        &attach("vm1", &["--vhost-user", &live])?,
        1,
        &["another process listens"],
    )?;
    let nowhere = text(&room.path("no/such/folder.sock"));
    says(&attach("vm1", &["--vhost-user", &nowhere])?, 1, &["folder"])?;
    says(
        &attach("vm1", &["--vhost-user", "fd:vm1"])?,
        1,
        &["inherited no sockets"],
    )?;
    let long = format!("/{}", "s".repeat(200));
    says(&attach("vm1", &["--vhost-user", &long])?, 1, &["107"])?;
    says(
        &attach("vm1", &["--vhost-user", &first, "--queues", "0"])?,
        2,
        &["--queues"],
    )?;
    says(
        &attach("vm1", &["--vhost-user", &first, "--incoming"])?,
        1,
        &["not attached"],
    )?;
    says(
        &attach("nobody", &["--vhost-user", &first])?,
        1,
        &["nobody"],
    )?;
    says(&attach("vm1", &[])?, 2, &["--vhost-user"])?;
    says(&daemon.ask(&["detach", "vm1"])?, 1, &["not attached"])?;
    let list = attachments(&daemon)?;
    ensure!(
        !list.contains("vm1"),
        "what was refused is attached: {list}"
    );
    ensure!(
        !room.path("1.sock").exists(),
        "what was refused has left a socket"
    );

    daemon.tell(&["attach", "vm1", "--vhost-user", &first])?;
    says(
        &attach("vm1", &["--vhost-user", &other])?,
        1,
        &["attached already", "--incoming"],
    )?;
    says(&attach("vm1", &["--device"])?, 1, &["attached already"])?;
    says(
        &attach("vm2", &["--vhost-user", &first])?,
        1,
        &["the socket of vm1 already"],
    )?;
    says(
        &daemon.ask(&["volume", "delete", "vm1"])?,
        1,
        &["attached", "detach it first"],
    )?;
    ensure!(
        connects(&first),
        "a refused deletion has ended the attachment"
    );
    daemon.tell(&["attach", "vm1", "--vhost-user", &other, "--incoming"])?;
    ensure!(connects(&other), "nobody listens at the incoming socket");
    daemon.tell(&["detach", "vm1", "--incoming"])?;
    daemon.tell(&["volume", "resize", "vm1", "--size", "32M"])?;
    daemon.tell(&["detach", "vm1"])?;
    Ok(exists.err.lines().next().unwrap_or_default().to_owned())
}

fn taken(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", "256M");
    let mut daemon = start.run()?;
    daemon.create("vm1", "16M")?;
    let socket = text(&room.path("vm1.sock"));
    daemon.tell(&["attach", "vm1", "--vhost-user", &socket])?;
    daemon.kill()?;
    std::fs::remove_file(&socket)?;
    std::fs::write(&socket, "in the way")?;
    let daemon = start.run()?;
    let alerts = daemon.tell(&["alerts"])?;
    ensure!(
        alerts.contains("attachment-failed"),
        "no alert says so: {alerts}"
    );
    let list = attachments(&daemon)?;
    ensure!(
        list.contains("\"failed\""),
        "it looks as if it were served: {list}"
    );
    std::fs::remove_file(&socket)?;
    let begun = std::time::Instant::now();
    while !connects(&socket) {
        let waited = begun.elapsed();
        ensure!(
            waited.as_secs() < 10,
            "it is not taken up {waited:?} after the cause went"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let alerts = daemon.tell(&["alerts"])?;
    ensure!(
        !alerts.contains("attachment-failed"),
        "the alert stays: {alerts}"
    );
    Ok(format!(
        "taken up {:.1} s after the cause went",
        begun.elapsed().as_secs_f64()
    ))
}

fn printed(room: &Room) -> Outcome {
    let daemon = Start::dev(room, "store", "256M").run()?;
    daemon.create("vm1", "16M")?;
    let socket = text(&room.path("vm 1,x.sock"));
    let attach = ["attach", "vm1", "--vhost-user", &socket, "--queues", "3"];
    let printing = [&attach[..], &["--print", "qemu", "--memory", "128M"]].concat();
    let line = daemon.tell(&printing)?;
    let mut qemu = Command::new("sh")
        .args([
            "-c",
            &format!("{} -S -display none -monitor stdio", line.trim_end()),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut monitor = qemu.stdin.take().ok_or("no monitor")?;
    monitor.write_all(b"info qtree\nquit\n")?;
    drop(monitor);
    let ended = qemu.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stdout);
    let error = String::from_utf8_lossy(&ended.stderr);
    ensure!(
        ended.status.success(),
        "qemu ended with {}: {error}\n{line}",
        ended.status
    );
    ensure!(
        said.contains("num-queues = 3"),
        "qemu has no disk with 3 queues: {said}"
    );
    daemon.tell(&["detach", "vm1", "--force"])?;
    let xml = daemon.tell(&[&attach[..], &["--print", "libvirt"]].concat())?;
    ensure!(xml.starts_with("<memoryBacking>"), "more than XML: {xml}");
    Ok(String::new())
}
