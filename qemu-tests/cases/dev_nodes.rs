//! `sarsen dev --nodes 3`: three daemons as processes of one command, which are killed and come back, and end with it.

use super::several_nodes::until;
use crate::harness::daemon::{Daemon, Start};
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The command leaves a killed node dead for 5 s; a node that is not started again is still dead after this.
const DEAD: Duration = Duration::from_secs(8);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "three_nodes_of_dev_come_up_are_killed_and_come_back_and_leave_no_process",
            killed,
        ),
        Case::new(
            "the_nodes_of_dev_end_with_the_command_that_is_killed_and_are_found_again",
            orphaned,
        ),
        Case::new(
            "a_node_of_dev_that_does_not_start_is_named_with_its_log",
            refused,
        ),
    ]
}

fn dev(room: &Room) -> Start {
    Start::dev_nodes(room, "dev", "256M", &["--nodes", "3"])
}

/// The three daemons: children of the command, as the kernel knows them.
fn children(of: &Daemon) -> Step<Vec<u32>> {
    let pid = of.pid();
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let numbers = text.split_whitespace().map(str::parse);
    Ok(numbers.collect::<Result<_, _>>()?)
}

/// Waits until none of these processes is there.
fn gone(pids: &[u32]) -> Step<()> {
    until("all processes have ended", || {
        let lives = |pid: &&u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            // One that has ended is listed until its new parent looks.
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        let left: Vec<&u32> = pids.iter().filter(lives).collect();
        Ok((!left.is_empty()).then(|| format!("{left:?} run still")))
    })
}

/// Waits until the command has said something.
fn said(start: &Start, words: &str) -> Step<()> {
    until(&format!("it says {words:?}"), || {
        let text = start.log_text()?;
        Ok((!text.contains(words)).then_some(text))
    })
}

fn node(room: &Room, number: u32) -> PathBuf {
    room.path("dev").join(format!("node{number}"))
}

/// The process of a node's daemon, as it says itself.
fn pid_at(start: &Start, folder: &Path) -> Step<u32> {
    let mut at = start.clone();
    at.api = folder.join("api.sock");
    let said = at.ask(&["--json", "status"])?;
    let from = said
        .out
        .split_once("\"pid\": ")
        .ok_or(format!("no pid: {}{}", said.out, said.err))?;
    Ok(from.1.split(',').next().unwrap_or_default().parse()?)
}

fn kill(pid: u32) -> Step<()> {
    // SAFETY: a signal to a process that its parent, which lives, has seen alive a moment ago.
    let sent = unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    ensure!(sent == 0, "{pid} cannot be killed");
    Ok(())
}

/// Waits until every placement group has all its copies.
fn whole(at: &Daemon) -> Step<()> {
    until("the pool is whole", || {
        let said = at.ask(&["--json", "pool", "show", "default"])?;
        let is_whole = said.out.contains("\"copies\": 2") && said.out.contains("\"reason\": \"\"");
        Ok((!is_whole).then(|| format!("{}{}", said.out, said.err)))
    })
}

fn killed(room: &Room) -> Outcome {
    let mut dev = dev(room).run()?;
    said(&dev.start, "sarsen is ready: 3 nodes")?;
    let first = children(&dev)?;
    ensure!(first.len() == 3, "not three daemons: {first:?}");
    dev.create("v", "16M")?;
    whole(&dev)?;
    let pattern = |byte: u8| vec![byte; 64 << 10];
    let mut client = dev.connect("v")?;
    client
        .write(1 << 20, &pattern(1))?
        .map_err(|error| format!("before the kill: {error}"))?;

    // A node that the client does not speak to, and then one more: I/O goes on, and both come back.
    for (byte, number) in [(2, 2), (3, 3)] {
        let old = pid_at(&dev.start, &node(room, number))?;
        kill(old)?;
        client
            .write(1 << 20, &pattern(byte))?
            .map_err(|error| format!("while node{number} is dead: {error}"))?;
        said(
            &dev.start,
            &format!("node{number}: process {old} was ended by signal 9"),
        )?;
        said(&dev.start, &format!("node{number}: serves again"))?;
        let new = pid_at(&dev.start, &node(room, number))?;
        ensure!(new != old, "the process that was killed answers");
        whole(&dev)?;
    }
    let read = client
        .read(1 << 20, 64 << 10)?
        .map_err(|error| format!("read: {error}"))?;
    ensure!(read == pattern(3), "what was written is not there");
    client.close()?;

    // The node that the command's own sockets are of.
    kill(pid_at(&dev.start, &node(room, 1))?)?;
    said(&dev.start, "node1: serves again")?;
    until("the first node has the volume again", || {
        Ok(dev.connect("v").err().map(|why| why.to_string()))
    })?;
    let all = children(&dev)?;
    ensure!(all.len() == 3, "not three daemons: {all:?}");
    let (took, status) = dev.stop()?;
    ensure!(status.success(), "stopped with {status}");
    gone(&all)?;
    for socket in [&dev.start.api, &dev.start.nbd] {
        ensure!(
            socket.symlink_metadata().is_err(),
            "{} is left",
            socket.display()
        );
    }
    Ok(format!("stopped in {took:.1?}"))
}

fn orphaned(room: &Room) -> Outcome {
    let start = dev(room);
    let mut dev = start.run()?;
    said(&dev.start, "sarsen is ready")?;
    dev.create("v", "16M")?;
    let all = children(&dev)?;
    dev.kill()?;
    gone(&all)?;

    // Without a number: as many as there are. And one that is killed stays dead where that is wanted.
    let again = Start::dev_nodes(room, "dev", "256M", &["--no-restart"]);
    let before = again.log_text()?.len();
    let mut dev = again.run()?;
    until("it is ready again", || {
        let text = dev.start.log_text()?;
        let since = &text[before..];
        ensure!(!since.contains("joined"), "it joins anew: {since}");
        Ok((!since.contains("sarsen is ready: 3 nodes")).then(|| since.to_owned()))
    })?;
    dev.tell(&["volume", "show", "v"])?;
    let twice = Start::dev_nodes(room, "dev", "256M", &["--nodes", "3"]).run_refused()?;
    ensure!(
        twice.0 == Some(1) && twice.1.contains("another `sarsen dev` runs in"),
        "{twice:?}"
    );
    let fewer = Start::dev_nodes(room, "dev", "256M", &["--nodes", "2"]).run_refused()?;
    ensure!(
        fewer.0 == Some(2) && fewer.1.contains("has 3 nodes"),
        "{fewer:?}"
    );
    kill(pid_at(&dev.start, &node(room, 2))?)?;
    let config = node(room, 2).join("sarsen.toml");
    said(
        &dev.start,
        &format!("daemon --config '{}'", config.display()),
    )?;
    std::thread::sleep(DEAD);
    let left = children(&dev)?;
    ensure!(left.len() == 2, "it was started again: {left:?}");
    let (_, status) = dev.stop()?;
    ensure!(status.success(), "stopped with {status}");
    gone(&left)?;
    Ok(String::new())
}

fn refused(room: &Room) -> Outcome {
    let mut dev = dev(room).run()?;
    said(&dev.start, "sarsen is ready")?;
    let (_, status) = dev.stop()?;
    ensure!(status.success(), "stopped with {status}");
    // The ports that they were given, and keep.
    let kept = node(room, 2).join("data/cluster/cluster.json");
    let text = std::fs::read_to_string(&kept)?;
    let port = text
        .split("127.0.0.1:")
        .skip(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect())
        .map(|digits: String| digits.parse::<u16>())
        .collect::<Result<Vec<u16>, _>>()?;
    let taken: Vec<_> = port
        .iter()
        .filter_map(|&port| std::net::TcpListener::bind(("127.0.0.1", port)).ok())
        .collect();
    ensure!(!taken.is_empty(), "no port in {text}");
    let (code, text) = dev.start.run_refused()?;
    ensure!(code == Some(1), "exit {code:?}: {text}");
    let words = [
        "its daemon ended with exit code",
        "the end of",
        "/log:",
        "127.0.0.1:",
    ];
    let missing = words.iter().find(|word| !text.contains(**word));
    ensure!(missing.is_none(), "without {missing:?}: {text}");
    drop(taken);
    let mut dev = dev.start.run()?;
    until("it starts when the port is free", || {
        let all = children(&dev)?;
        Ok((all.len() != 3).then(|| format!("{all:?}")))
    })?;
    dev.stop()?;
    Ok(String::new())
}
