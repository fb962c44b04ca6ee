//! Two copies of everything on three real nodes, under load, while nodes, disks and the power of all of them fail.
//!
//! Every answer goes into a model, as in `killed_under_load`: what was acknowledged must be there, on whatever node it is read.

use super::several_nodes::{COMES, add_whole_disk, three, until};
use crate::harness::daemon::{Daemon, Start};
use crate::harness::load::{Load, Shape, verify};
use crate::harness::metrics::Metrics;
use crate::harness::model::Model;
use crate::harness::nbd::{Connection, Replies};
use crate::harness::power::PowerDisk;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Rounds in the gate and in `--full`; one of each kind of fault, in turn.
const ROUNDS: usize = 5;
const ROUNDS_IN_FULL: usize = 20;
/// Acknowledged writes before each fault, and after those that I/O goes on over.
pub(super) const WRITES: u64 = 5_000;
const DISK: usize = 256 << 20;
const VOLUME: u64 = 64 << 20;
/// Longer than any lease.
const ASLEEP: Duration = Duration::from_secs(3);
/// What is on its way to a disk without power.
const LAST_BREATH: Duration = Duration::from_millis(30);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "two_copies_lose_nothing_while_nodes_disks_and_power_fail",
            |room| torture(room, ROUNDS),
        ),
        Case::new("two_copies_lose_nothing_over_many_more_faults", |room| {
            torture(room, ROUNDS_IN_FULL)
        })
        .only_in_full(),
        Case::new(
            "a_volume_comes_to_where_it_is_used_and_a_lone_nodes_goes_on_in_a_cluster",
            moves,
        ),
        Case::new(
            "a_dead_nodes_attachment_is_taken_over_when_that_is_asked_for",
            taken_over,
        ),
        Case::new(
            "a_node_that_comes_back_is_filled_with_what_changed_and_not_with_all",
            filled,
        ),
        Case::new(
            "io_that_waits_too_long_gets_an_error_where_that_is_asked_for_and_goes_on_later",
            timed_out,
        ),
        Case::new(
            "a_disk_is_drained_under_load_and_removed_and_no_more_than_can_be",
            drained,
        ),
    ]
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// kill -9 of a node that clients do not speak to.
    PeerDies,
    /// kill -9 of the node that they speak to.
    ServerDies,
    /// SIGSTOP of another node, for longer than its lease.
    PeerSleeps,
    /// The disk of another node answers with EIO.
    DiskDies,
    /// All nodes lose their power: what was not synced is lost, or torn.
    AllPower,
}

impl Fault {
    const ALL: [Fault; 5] = [
        Fault::PeerDies,
        Fault::ServerDies,
        Fault::PeerSleeps,
        Fault::DiskDies,
        Fault::AllPower,
    ];
}

/// Three nodes with a disk each that can lose its power.
pub(super) struct Site {
    nodes: Vec<Daemon>,
    disks: Vec<PowerDisk>,
    pub(super) model: Arc<Mutex<Model>>,
    /// Whom the clients speak to.
    pub(super) server: usize,
}

/// Waits until every placement group has all its copies, as a node sees it.
pub(super) fn whole(at: &Daemon) -> Step<()> {
    until("the pool is whole", || {
        let said = at.ask(&["--json", "pool", "show", "default"])?;
        let is_whole = said.code == Some(0) && said.out.contains("\"reason\": \"\"");
        Ok((!is_whole).then(|| format!("{}{}", said.out, said.err)))
    })
}

/// Waits until a node lets a client have the volume.
pub(super) fn comes_to(start: &Start, volume: &str) -> Step<()> {
    until("the volume comes", || {
        let opened = Connection::open(&start.nbd, volume, Replies::Structured);
        Ok(opened
            .and_then(Connection::close)
            .err()
            .map(|why| why.to_string()))
    })
}

impl Site {
    pub(super) fn new(room: &Room, nodes: [Daemon; 3]) -> Step<Site> {
        let nodes: Vec<Daemon> = nodes.into();
        let mut disks = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let disk = PowerDisk::mount(&room.path(&format!("mnt{number}")), DISK, number as u64)?;
            add_whole_disk(node, disk.path())?;
            disks.push(disk);
        }
        nodes[0].tell(&["pool", "set", "default", "--copies", "2"])?;
        nodes[0].create("v", &VOLUME.to_string())?;
        whole(&nodes[0])?;
        Ok(Site {
            nodes,
            disks,
            model: Arc::new(Mutex::new(Model::new(VOLUME))),
            server: 0,
        })
    }

    /// The node that the clients speak to.
    pub(super) fn at(&self) -> &Daemon {
        &self.nodes[self.server]
    }

    pub(super) fn verify(&self) -> Step<u64> {
        let start = &self.at().start;
        comes_to(start, "v")?;
        Ok(verify(&start.nbd, "v", &self.model)?.in_flight)
    }

    /// Load on the volume that runs since a while.
    pub(super) fn load(&self, shape: Shape, seed: u64) -> Step<Load> {
        let start = &self.at().start;
        comes_to(start, "v")?;
        let load = Load::start(&start.nbd, "v", &self.model, shape, seed)?;
        load.reach(WRITES, COMES)?;
        Ok(load)
    }

    fn again(&mut self, number: usize) -> Step<()> {
        let start = self.nodes[number].start.clone();
        self.nodes[number] = start.run()?;
        Ok(())
    }

    /// A node is stopped, and goes on with another binary.
    pub(super) fn becomes(&mut self, number: usize, binary: &Path) -> Step<()> {
        self.nodes[number].stop()?;
        let start = self.nodes[number].start.clone();
        self.nodes[number] = start.with_binary(binary.into()).run()?;
        Ok(())
    }

    /// Puts load on the volume, has something fail in the middle of it, and sees to it that all is there afterwards. How many writes were in flight then.
    fn round(&mut self, fault: Fault, seed: u64) -> Step<u64> {
        let shape = Shape {
            connections: 3,
            depth: 8,
        };
        let load = self.load(shape, seed)?;
        let peer = (self.server + 1 + seed as usize % 2) % 3;
        match fault {
            Fault::PeerDies => {
                self.nodes[peer].kill()?;
                load.reach(load.acknowledged() + WRITES, COMES)?;
                self.again(peer)?;
                load.reach(load.acknowledged() + WRITES, COMES)?;
                load.finish()?;
            }
            Fault::PeerSleeps => {
                self.nodes[peer].signal(libc::SIGSTOP)?;
                let begun = Instant::now();
                load.reach(load.acknowledged() + WRITES, COMES)?;
                std::thread::sleep(ASLEEP.saturating_sub(begun.elapsed()));
                self.nodes[peer].signal(libc::SIGCONT)?;
                load.reach(load.acknowledged() + WRITES, COMES)?;
                load.finish()?;
            }
            Fault::DiskDies => {
                self.disks[peer].die();
                load.reach(load.acknowledged() + WRITES, COMES)?;
                self.nodes[peer].strike()?;
                let node = &mut self.nodes[peer];
                self.disks[peer].restore(|| node.reap())?;
                self.again(peer)?;
                load.reach(load.acknowledged() + WRITES, COMES)?;
                load.finish()?;
            }
            Fault::ServerDies => {
                let server = self.server;
                self.nodes[server].kill()?;
                let left = load.after_kill()?;
                self.server = peer;
                let in_flight = self.verify()?;
                self.again(server)?;
                ensure!(left > 0, "nothing was in flight at the kill");
                whole(self.at())?;
                return Ok(in_flight);
            }
            Fault::AllPower => {
                self.disks.iter().for_each(PowerDisk::cut);
                std::thread::sleep(LAST_BREATH);
                for node in &mut self.nodes {
                    node.strike()?;
                }
                for (disk, node) in self.disks.iter().zip(&mut self.nodes) {
                    disk.restore(|| node.reap())?;
                }
                let left = load.after_kill()?;
                ensure!(left > 0, "nothing was in flight at the cut");
                (0..self.nodes.len()).try_for_each(|number| self.again(number))?;
                self.server = peer;
            }
        }
        // Another node than the one that wrote reads what there is.
        whole(self.at())?;
        let in_flight = self.verify()?;
        whole(self.at())?;
        Ok(in_flight)
    }
}

/// As many rounds as `SARSEN_ROUNDS` says, or else these.
pub(super) fn rounds_or(rounds: usize) -> Step<usize> {
    match std::env::var("SARSEN_ROUNDS") {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(rounds),
    }
}

fn torture(room: &Room, rounds: usize) -> Outcome {
    let rounds = rounds_or(rounds)?;
    let mut site = Site::new(room, three(room)?)?;
    let mut faults: BTreeMap<Fault, u32> = BTreeMap::new();
    let mut in_flight = 0;
    for round in 0..rounds {
        let fault = Fault::ALL[round % Fault::ALL.len()];
        let done = site.round(fault, round as u64);
        in_flight += done.map_err(|why| format!("round {round}, {fault:?}: {why}"))?;
        *faults.entry(fault).or_default() += 1;
        site.server = (site.server + 1) % 3;
    }
    let missing = Fault::ALL.iter().find(|fault| !faults.contains_key(fault));
    ensure!(missing.is_none(), "{missing:?} never fired: {faults:?}");
    Ok(format!(
        "{faults:?}, {in_flight} writes were in flight at an end"
    ))
}

fn moves(room: &Room) -> Outcome {
    let start = |name: &str| super::several_nodes::start(room, name);
    let a = start("a")?.run()?;
    super::several_nodes::add_disk(&a, &room.path("disk-a"))?;
    a.create("v", "16M")?;
    let pattern = |byte: u8| vec![byte; 64 << 10];
    let mut client = a.connect("v")?;
    client
        .write(1 << 20, &pattern(1))?
        .map_err(|error| format!("alone: {error}"))?;
    client.close()?;
    // Its shards become those of a node of a cluster, over the same disk.
    a.tell(&["cluster", "init"])?;
    let b = start("b")?.run()?;
    super::several_nodes::join_to(&b, &a)?;
    for (number, node) in [&b, &a, &b].into_iter().enumerate() {
        comes_to(&node.start, "v")?;
        let mut client = node.connect("v")?;
        let byte = number as u8 + 1;
        let read = client.read(1 << 20, 64 << 10)?;
        let read = read.map_err(|error| format!("read {number}: {error}"))?;
        ensure!(
            read == pattern(byte),
            "turn {number} does not see what was written before it"
        );
        let written = client.write(1 << 20, &pattern(byte + 1))?;
        written.map_err(|error| format!("write {number}: {error}"))?;
        // While it is used here nobody else has it.
        let other = if number % 2 == 0 { &a } else { &b };
        ensure!(other.connect("v").is_err(), "two nodes serve one volume");
        client.close()?;
    }
    // What is not attached by name is given up by itself, and can be deleted from anywhere.
    until("the volume is deleted", || {
        let said = a.ask(&["volume", "delete", "v"])?;
        Ok((said.code != Some(0)).then_some(said.err))
    })?;
    let left = b.tell(&["volume", "list"])?;
    ensure!(!left.contains("v "), "it is still there: {left}");
    Ok(String::new())
}

/// What a node was filled with is counted: chunks in which something was written while it was away, or a moment before.
fn filled(room: &Room) -> Outcome {
    const CHUNK: usize = 64 << 10;
    const CHUNKS: u64 = 512;
    // Of these it did not hear any more that others have them, too: its window.
    const MOMENT: usize = 16;
    let [a, mut b, _c] = three(room)?;
    for (node, name) in [(&a, "disk-a"), (&b, "disk-b")] {
        super::several_nodes::add_disk(node, &room.path(name))?;
    }
    a.tell(&["pool", "set", "default", "--copies", "2"])?;
    a.create("v", &(CHUNKS * CHUNK as u64).to_string())?;
    whole(&a)?;
    let mut client = a.connect("v")?;
    let mut write = |chunk: u64, payload: &[u8]| -> Step<()> {
        let written = client.write(chunk * CHUNK as u64, payload)?;
        Ok(written.map_err(|error| format!("chunk {chunk}: error {error}"))?)
    };
    for chunk in 0..CHUNKS {
        write(chunk, &[1; CHUNK])?;
    }
    b.kill()?;
    let changed = (0..CHUNKS).step_by(50);
    for chunk in changed.clone() {
        write(chunk, &[2; 4096])?;
    }
    b = b.start.run()?;
    whole(&a)?;
    let bytes = Metrics::ask(&b.start.api)?.get("sarsen_disk_filled_bytes_total");
    let changed = changed.count();
    ensure!(
        bytes >= (changed * 4096) as f64 && bytes <= ((changed + MOMENT) * CHUNK) as f64,
        "{changed} chunks changed, and {bytes} bytes were filled"
    );
    Ok(format!(
        "{changed} of {CHUNKS} chunks changed while it was away, {bytes} bytes were filled"
    ))
}

fn timed_out(room: &Room) -> Outcome {
    const WAITS: Duration = Duration::from_secs(3);
    let [a, mut b, _c] = three(room)?;
    for (node, name) in [(&a, "disk-a"), (&b, "disk-b")] {
        super::several_nodes::add_disk(node, &room.path(name))?;
    }
    a.tell(&[
        "pool",
        "set",
        "default",
        "--copies",
        "2",
        "--min-copies",
        "2",
    ])?;
    a.create("v", "16M")?;
    a.tell(&["volume", "set", "v", "--io-timeout", "1s"])?;
    whole(&a)?;
    let mut client = a.connect("v")?;
    let pattern = |byte: u8| vec![byte; 8192];
    client
        .write(0, &pattern(1))?
        .map_err(|error| format!("two copies: error {error}"))?;
    b.kill()?;
    let begun = Instant::now();
    let refused = client.write(4096, &pattern(2))?;
    let took = begun.elapsed();
    ensure!(
        refused == Err(libc::EIO as u32) && took >= Duration::from_secs(1),
        "one copy of two that must be there: {refused:?} after {took:?}"
    );
    // Later ones of the same blocks wait behind it, and others too.
    ensure!(
        client.write(0, &pattern(3))?.is_err(),
        "a second write went through"
    );
    ensure!(
        client.write(1 << 20, &pattern(3))?.is_err(),
        "a third write went through"
    );
    a.tell(&["volume", "set", "v", "--io-timeout", "none"])?;
    let mut patient = a.connect("v")?;
    let waits = std::thread::spawn(move || {
        let written = patient
            .write(2 << 20, &[4; 8192])
            .map_err(|why| why.to_string())?;
        written.map_err(|error| format!("error {error}"))
    });
    std::thread::sleep(WAITS);
    ensure!(
        !waits.is_finished(),
        "a write without a time-out did not wait"
    );
    b = b.start.run()?;
    waits.join().map_err(|_| "a client panicked")??;
    whole(&b)?;
    client
        .write(0, &pattern(5))?
        .map_err(|error| format!("two copies again: error {error}"))?;
    let read = client
        .read(0, 8192)?
        .map_err(|error| format!("read: error {error}"))?;
    ensure!(
        read == pattern(5),
        "what was refused came later than what was written after it"
    );
    Ok(format!("the error came after {} ms", took.as_millis()))
}

fn drained(room: &Room) -> Outcome {
    let [a, b, c] = three(room)?;
    for (node, name) in [(&a, "disk-a"), (&b, "disk-b"), (&c, "disk-c")] {
        super::several_nodes::add_disk(node, &room.path(name))?;
    }
    a.tell(&["pool", "set", "default", "--copies", "2"])?;
    const BYTES: u64 = 16 << 20;
    a.create("v", &BYTES.to_string())?;
    whole(&a)?;
    let model = Arc::new(Mutex::new(Model::new(BYTES)));
    let shape = Shape {
        connections: 2,
        depth: 4,
    };
    let load = Load::start(&a.start.nbd, "v", &model, shape, 5)?;
    load.reach(1_000, COMES)?;
    let early = b.ask(&["disk", "remove", "3"])?;
    ensure!(
        early.code == Some(1) && early.err.contains("drain it"),
        "a disk was removed that is in use: {early:?}"
    );
    let why = b.ask(&["disk", "remove", "3", "--dry-run"])?;
    ensure!(
        why.code == Some(1) && why.err.contains("placement groups have a copy on disk 3"),
        "a dry run does not say why it cannot be: {why:?}"
    );
    let dry = b.tell(&["--json", "disk", "drain", "3", "--dry-run"])?;
    ensure!(!dry.contains("draining"), "a dry run changed it: {dry}");
    // Of a disk of another node, on this one.
    b.tell(&["disk", "drain", "3", "--wait"])?;
    let can = b.tell(&["disk", "remove", "3", "--dry-run"])?;
    ensure!(can.contains("can be removed"), "{can}");
    b.tell(&["disk", "remove", "3"])?;
    let disks = c.tell(&["disk", "list"])?;
    ensure!(!disks.contains("disk-c"), "it is still there: {disks}");
    let last = b.ask(&["disk", "drain", "2"])?;
    ensure!(
        last.code == Some(1) && last.err.contains("2 copies need as many"),
        "a disk is drained whose copies have nowhere to go: {last:?}"
    );
    load.reach(load.acknowledged() + 1_000, COMES)?;
    load.finish()?;
    whole(&a)?;
    comes_to(&b.start, "v")?;
    verify(&b.start.nbd, "v", &model)?;
    Ok(String::new())
}

fn taken_over(room: &Room) -> Outcome {
    let [mut a, b, c] = three(room)?;
    for (node, name) in [(&a, "disk-a"), (&b, "disk-b"), (&c, "disk-c")] {
        super::several_nodes::add_disk(node, &room.path(name))?;
    }
    a.tell(&["pool", "set", "default", "--copies", "2"])?;
    a.create("v", "16M")?;
    whole(&a)?;
    let socket = |name: &str| room.path(name).to_string_lossy().into_owned();
    let (first, second) = (socket("s1"), socket("s2"));
    a.tell(&["attach", "v", "--vhost-user", &first])?;
    let refused = b.ask(&["attach", "v", "--vhost-user", &second, "--take-over"])?;
    ensure!(
        refused.code == Some(1) && refused.err.contains("which answers"),
        "it was taken from a node that lives: {}{}",
        refused.out,
        refused.err
    );
    a.kill()?;
    until("the node is missed", || {
        let said = b.ask(&["attach", "v", "--vhost-user", &second])?;
        let hints = said.err.contains("--take-over");
        Ok((!hints).then(|| format!("{}{}", said.out, said.err)))
    })?;
    until("it is taken over", || {
        let said = b.ask(&["attach", "v", "--vhost-user", &second, "--take-over"])?;
        Ok((said.code != Some(0)).then_some(said.err))
    })?;
    let a = a.start.run()?;
    until("the node that was dead knows", || {
        let said = a.ask(&["attachments"])?;
        let row = said.out.lines().find(|line| line.starts_with("v "));
        let is_so = row.is_some_and(|row| row.contains("another node") || row.contains(&second));
        Ok((!is_so).then_some(said.out))
    })?;
    ensure!(
        std::os::unix::net::UnixStream::connect(&first).is_err(),
        "the node that was dead still serves the volume to its guest"
    );
    Ok(String::new())
}
