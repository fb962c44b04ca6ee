//! What an operator sees of copies that are being made, and what he can do about their speed: how long it takes, a limit on it, and what a drain would move.

use super::several_nodes::{add_disk, says, three, until};
use crate::harness::daemon::Daemon;
use crate::harness::metrics::Metrics;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const CHUNK: usize = 64 << 10;
const CHUNKS: u64 = 1_536;
/// Of each disk that is filled, a second.
const LIMIT: f64 = 4_194_304.0;
/// How long the limit is held against what is filled.
const WATCHED: Duration = Duration::from_secs(6);

pub fn cases() -> Vec<Case> {
    vec![Case::new(
        "a_rebuild_keeps_to_its_limit_and_status_says_how_long_it_takes_and_a_drain_what_it_would_move",
        limited,
    )]
}

fn asked(node: &Daemon, what: &[&str]) -> Step<Value> {
    let mut all = vec!["--json"];
    all.extend(what);
    Ok(serde_json::from_str(&node.tell(&all)?)?)
}

fn filled(node: &Daemon) -> Step<f64> {
    Ok(Metrics::ask(&node.start.api)?.get("sarsen_disk_filled_bytes_total"))
}

fn limited(room: &Room) -> Outcome {
    let [a, b, c] = three(room)?;
    for (node, name) in [(&a, "disk-a"), (&b, "disk-b")] {
        add_disk(node, &room.path(name))?;
    }
    let odd = a.ask(&["pool", "set", "default", "--rebuild-limit", "1K"])?;
    ensure!(
        odd.code == Some(1) && odd.err.contains("bytes a second"),
        "a limit of nearly nothing was taken: {odd:?}"
    );
    let dry = [
        "pool",
        "set",
        "default",
        "--rebuild-limit",
        "4M",
        "--dry-run",
    ];
    let dry = asked(&a, &dry)?;
    ensure!(
        dry["rebuild_limit_bytes_per_second"] == LIMIT as u64,
        "a dry run says how it would be: {dry}"
    );
    says(
        &a,
        &["pool", "show", "default"],
        &["as fast as guests leave"],
    )?;
    a.tell(&["pool", "set", "default", "--rebuild-limit", "4M"])?;
    says(&b, &["pool", "show", "default"], &["4 MiB/s for each disk"])?;
    a.create("v", &(CHUNKS * CHUNK as u64).to_string())?;
    let mut client = a.connect("v")?;
    for chunk in 0..CHUNKS {
        let written = client.write(chunk * CHUNK as u64, &[7; CHUNK])?;
        written.map_err(|error| format!("chunk {chunk}: error {error}"))?;
    }
    a.tell(&["pool", "set", "default", "--copies", "2"])?;
    let eta = std::cell::Cell::new(0);
    until("status says how long it takes", || {
        let status = asked(&c, &["status"])?;
        let rebuild = &status["degraded_pools"][0]["rebuild"];
        eta.set(rebuild["eta_seconds"].as_u64().unwrap_or(0));
        Ok((eta.get() == 0).then(|| status.to_string()))
    })?;
    let eta = eta.get();
    let rebuild = &asked(&c, &["pool", "show", "default"])?["rebuild"];
    let (left, rate) = (
        rebuild["left_bytes_max"].as_f64().unwrap_or(0.0),
        rebuild["bytes_per_second"].as_f64().unwrap_or(0.0),
    );
    ensure!(
        left > 0.0 && left <= (CHUNKS as usize * CHUNK) as f64 && eta <= 300,
        "of {CHUNKS} chunks that is left, and so long: {rebuild}"
    );
    ensure!(
        rate > LIMIT / 8.0 && rate < 2.0 * LIMIT * 1.5,
        "two disks are filled with {LIMIT} bytes a second each: {rebuild}"
    );
    says(&a, &["status"], &["copies are to be filled", "takes about"])?;
    until("metrics say it too", || {
        let seen = Metrics::ask(&b.start.api)?.get("sarsen_pool_rebuild_eta_seconds");
        Ok((seen == 0.0).then_some("none".into()))
    })?;
    let (begun, before) = (Instant::now(), filled(&b)?);
    std::thread::sleep(WATCHED);
    let (came, lasted) = (filled(&b)? - before, begun.elapsed().as_secs_f64());
    let keeps_to_it = came <= LIMIT * lasted * 1.1 + 2e6;
    ensure!(keeps_to_it, "{came} bytes came in {lasted} s");
    // While it goes on.
    a.tell(&["pool", "set", "default", "--rebuild-limit", "none"])?;
    super::replicated::whole(&a)?;
    let all = filled(&a)? + filled(&b)?;
    let is_all = all >= (CHUNKS as usize * CHUNK) as f64;
    ensure!(
        is_all,
        "all chunks have two copies, and {all} bytes were filled"
    );
    says(
        &c,
        &["pool", "show", "default"],
        &["nothing is to be filled"],
    )?;
    would_come(&c, &room.path("disk-c"))?;
    add_disk(&c, &room.path("disk-c"))?;
    would_move(&a, &c)?;
    Ok(format!(
        "{eta} s were said at first; {:.1} MB/s came under a limit of {:.1}",
        came / lasted / 1e6,
        LIMIT / 1e6
    ))
}

/// A dry run of an addition says what would move to the disk, by what all nodes say, and makes nothing.
fn would_come(c: &Daemon, disk: &Path) -> Step<()> {
    let path = disk.to_string_lossy();
    let add = ["disk", "add", &path, "--size", "128M", "--dry-run"];
    until("a dry run knows how much would come", || {
        let seen = asked(c, &add)?;
        let arrival = &seen["arrival"];
        let is_sound = arrival["copies"].as_u64() > Some(0)
            && arrival["bytes"].as_u64() > Some(0)
            && arrival["pool_size_bytes"] == 3 * (128 << 20);
        Ok((!is_sound).then(|| seen.to_string()))
    })?;
    let text = c.tell(&add)?;
    let is_said = text.contains("33.3 % of the pool") && text.contains("moves to it  about");
    ensure!(is_said, "{text}");
    let disks = c.tell(&["disk", "list"])?;
    let is_there = disk.exists() || disks.contains("disk-c");
    ensure!(!is_there, "a dry run adds it: {disks}");
    Ok(())
}

/// A dry run of a drain says what goes where, by what all nodes say, and changes nothing.
fn would_move(a: &Daemon, c: &Daemon) -> Step<()> {
    until("a dry run knows how much moves", || {
        let seen = asked(c, &["disk", "drain", "2", "--dry-run"])?;
        let moves = &seen["moves"];
        let to = moves["to"].as_array().cloned().unwrap_or_default();
        let copies: u64 = to.iter().filter_map(|to| to["copies"].as_u64()).sum();
        let is_sound = copies > 0
            && moves["copies"].as_u64() == Some(copies)
            && moves["bytes"].as_u64().is_some_and(|bytes| bytes > 0)
            && to
                .iter()
                .all(|to| to["disk"] != 2 && to["has_room"] == true);
        Ok((!is_sound).then(|| seen.to_string()))
    })?;
    let text = a.tell(&["node", "drain", "b", "--dry-run"])?;
    ensure!(
        text.contains("copies of placement groups would move") && text.contains("TO DISK"),
        "{text}"
    );
    let disks = a.tell(&["disk", "list"])?;
    ensure!(!disks.contains("draining"), "a dry run drains: {disks}");
    Ok(())
}
