//! Connections and listening sockets that one process hands to the next: by an upgrade, and through the service manager's
//! store. The front end here says no more than hello, and notices when it is hung up on.

use crate::harness::daemon::{Daemon, Start, binary, text};
use crate::harness::service_manager::Store;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "an_upgrade_keeps_front_ends_connected_and_refuses_no_client",
            upgraded,
        ),
        Case::new(
            "a_binary_that_cannot_take_over_is_refused_and_the_daemon_goes_on",
            refused,
        ),
        Case::new(
            "a_restart_by_a_service_manager_keeps_front_ends_connected",
            restarted,
        ),
        Case::new(
            "a_hand_over_that_is_cut_short_or_unreadable_closes_the_connections",
            cut_short,
        ),
    ]
}

/// A front end that says hello.
struct Hello(UnixStream);

impl Hello {
    fn connect(path: &Path) -> Step<Hello> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Hello(stream))
    }

    /// GET_FEATURES of vhost-user: request 1, version 1, no payload.
    fn say(&mut self) -> Step<()> {
        self.0.write_all(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])?;
        let mut answer = [0; 20];
        self.0.read_exact(&mut answer)?;
        ensure!(answer[..4] == [1, 0, 0, 0], "an odd answer: {answer:?}");
        Ok(())
    }

    /// Whether it is hung up on, within some time.
    fn is_cut_off(&mut self) -> Step<bool> {
        match self.0.read(&mut [0; 1]) {
            Ok(0) => Ok(true),
            Ok(_) => Err("it is spoken to without having asked".into()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn attached(room: &Room, start: &Start) -> Step<(Daemon, PathBuf)> {
    let socket = room.path("vm1.sock");
    let daemon = start.run()?;
    daemon.create("vm1", "16M")?;
    daemon.attach("vm1", &socket, 2)?;
    Ok((daemon, socket))
}

fn upgraded(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", "256M");
    let (daemon, socket) = attached(room, &start)?;
    let mut guest = Hello::connect(&socket)?;
    guest.say()?;
    let (done, refused) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (nbd, until, seen) = (start.nbd.clone(), Arc::clone(&done), Arc::clone(&refused));
    let knocks = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            if UnixStream::connect(&nbd).is_err() {
                seen.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut said = String::new();
    for round in 0..3 {
        said = daemon
            .upgrade(None)
            .map_err(|why| format!("round {round}: {why}"))?;
        guest.say().map_err(|why| format!("round {round}: {why}"))?;
    }
    done.store(true, Ordering::Relaxed);
    ensure!(knocks.join().is_ok(), "who knocks panicked");
    ensure!(!refused.load(Ordering::Relaxed), "a client was refused");
    let list = daemon.tell(&["attachments"])?;
    ensure!(list.contains("connected"), "{list}");
    drop(guest);
    daemon.tell(&["detach", "vm1", "--force"])?;
    ensure!(!socket.exists(), "its socket is left behind");
    Ok(said.trim().to_owned())
}

/// Which process answered.
fn instance_of(status: &str) -> String {
    let line = status.lines().find(|line| line.contains("\"instance\""));
    line.unwrap_or_default().to_owned()
}

fn refused(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", "256M");
    let (daemon, socket) = attached(room, &start)?;
    let mut guest = Hello::connect(&socket)?;
    guest.say()?;
    let other = room.path("next");
    let write = |content: &[u8], mode: u32| -> Step<()> {
        std::fs::write(&other, content)?;
        std::fs::set_permissions(&other, PermissionsExt::from_mode(mode))?;
        Ok(())
    };
    let whole = std::fs::read(binary())?;
    for (content, mode, why) in [
        (b"#!/bin/sh\nexit 3\n".as_slice(), 0o755, "exit status: 3"),
        (b"#!/bin/sh\necho hello\n", 0o755, "no daemon"),
        (&whole[..1 << 20], 0o755, "next"),
        (&whole, 0o777, "others than root"),
        (&whole, 0o644, "denied"),
    ] {
        write(content, mode)?;
        let upgrade = ["upgrade", "--binary", &text(&other)];
        for asked in [&upgrade[..], &[&upgrade[..], &["--dry-run"]].concat()] {
            let said = daemon.ask(asked)?;
            ensure!(
                said.code == Some(1) && said.err.contains(why),
                "{why:?} is not said: {} {}",
                said.out,
                said.err
            );
        }
        guest.say()?;
    }
    write(&whole, 0o755)?;
    let instance = || {
        daemon
            .tell(&["--json", "status"])
            .map(|said| instance_of(&said))
    };
    let before = instance()?;
    let would = daemon.tell(&["upgrade", "--dry-run", "--binary", &text(&other)])?;
    let is_said = would.contains("would take over") && would.contains("would be handed over");
    ensure!(is_said && instance()? == before, "{would}");
    let said = daemon.upgrade(Some(&other))?;
    guest.say()?;
    let now = std::fs::read_link(format!("/proc/{}/exe", daemon.pid()))?;
    ensure!(now == other.canonicalize()?, "it runs {}", now.display());
    Ok(said.trim().to_owned())
}

fn restarted(room: &Room) -> Outcome {
    let store = Store::new(room)?;
    let start = Start::dev(room, "store", "256M");
    let (mut daemon, socket) = attached(room, &store.start(&start))?;
    let mut guest = Hello::connect(&socket)?;
    for _ in 0..3 {
        guest.say()?;
        daemon.stop()?;
        let kept = store.names();
        ensure!(
            kept.iter().any(|name| name == "sarsen.handover"),
            "only {kept:?} are kept"
        );
        daemon = store.start(&start).run()?;
        guest.say()?;
    }
    let kept = store.names();
    ensure!(
        kept.iter().all(|name| name.starts_with("sarsen.guest.")),
        "of connections that live nothing is kept: {kept:?}"
    );
    // kill -9 hands nothing over, so the front end learns of it.
    daemon.kill()?;
    ensure!(guest.is_cut_off()?, "after kill -9 it is not hung up on");
    let daemon = store.start(&start).run()?;
    Hello::connect(&socket)?.say()?;
    drop(daemon);
    Ok(String::new())
}

fn cut_short(room: &Room) -> Outcome {
    let store = Store::new(room)?;
    let start = Start::dev(room, "store", "256M");
    let (mut daemon, socket) = attached(room, &store.start(&start))?;
    for without in ["sarsen.handover", "sarsen.handover.0"] {
        let mut guest = Hello::connect(&socket)?;
        guest.say()?;
        daemon.stop()?;
        store.lose(without);
        daemon = store.start(&start).run()?;
        ensure!(
            guest.is_cut_off()?,
            "without {without} it is not hung up on"
        );
        Hello::connect(&socket)?.say()?;
    }
    Ok(String::new())
}
