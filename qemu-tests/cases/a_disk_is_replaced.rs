//! A disk is replaced by another one of its node under load, as an operator does it: cut short and said again, and with an old disk that died.

use super::replicated::whole;
use super::several_nodes::{COMES, add_disk, add_whole_disk, refuses, three, until};
use crate::harness::daemon::{Daemon, text};
use crate::harness::load::{Load, Shape, verify};
use crate::harness::model::Model;
use crate::harness::power::PowerDisk;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::sync::{Arc, Mutex};

const BYTES: u64 = 16 << 20;
const DISK: usize = 128 << 20;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_disk_is_replaced_under_load_and_what_was_cut_short_goes_on",
            replaced,
        ),
        Case::new(
            "a_disk_that_died_is_replaced_and_is_no_alert_any_more",
            died,
        ),
    ]
}

fn load(at: &Daemon, model: &Arc<Mutex<Model>>) -> Step<Load> {
    let shape = Shape {
        connections: 2,
        depth: 4,
    };
    let load = Load::start(&at.start.nbd, "v", model, shape, 11)?;
    load.reach(1_000, COMES)?;
    Ok(load)
}

fn replaced(room: &Room) -> Outcome {
    let [a, b, mut c] = three(room)?;
    for (node, name) in [(&a, "disk-a"), (&b, "disk-b"), (&c, "disk-c")] {
        add_disk(node, &room.path(name))?;
    }
    a.tell(&["pool", "set", "default", "--copies", "2"])?;
    a.create("v", &BYTES.to_string())?;
    whole(&a)?;
    let model = Arc::new(Mutex::new(Model::new(BYTES)));
    let load = load(&a, &model)?;
    let new = text(&room.path("disk-new"));
    let replace = ["disk", "replace", "3", &new, "--size", "128M"];
    let with = |last| [&replace[..], &[last]].concat();

    // Only said.
    refuses(
        &b.ask(&replace)?,
        &["disk 3 is of node c", "say it on that node"],
    )?;
    let old = text(&room.path("disk-c"));
    refuses(
        &c.ask(&["disk", "replace", "3", &old])?,
        &["is the path of disk 3 itself"],
    )?;
    let dry = c.tell(&with("--dry-run"))?;
    let is_said = ["would be drained", "% of the pool's", "TO DISK"];
    let is_said = is_said.iter().all(|one| dry.contains(one));
    ensure!(is_said, "{dry}");
    let disks = c.tell(&["disk", "list"])?;
    let is_changed = disks.contains("draining") || room.path("disk-new").exists();
    ensure!(!is_changed, "a dry run changed it: {disks}");

    // Begun, said again, and once more after a death of the daemon.
    let begun = c.tell(&replace)?;
    ensure!(begun.contains("disk 4 is at"), "{begun}");
    let again = c.tell(&replace)?;
    ensure!(again.contains("disk 4 is at"), "{again}");
    let would = c.tell(&with("--dry-run"))?;
    ensure!(would.contains("disk 4 at"), "{would}");
    c.kill()?;
    let c = c.start.run()?;
    until("c replaces it after its death", || {
        let said = c.ask(&with("--wait"))?;
        let is_done = said.code == Some(0) && said.out.contains("took its place");
        Ok((!is_done).then(|| format!("{}{}", said.out, said.err)))
    })?;
    let done = c.tell(&with("--wait"))?;
    ensure!(done.contains("nothing is left to do"), "{done}");
    let disks = a.tell(&["disk", "list"])?;
    let is_there = disks.contains("disk-new") && !disks.contains("disk-c");
    ensure!(is_there, "{disks}");
    load.reach(load.acknowledged() + 1_000, COMES)?;
    load.finish()?;
    whole(&a)?;
    verify(&a.start.nbd, "v", &model)?;
    Ok(String::new())
}

fn died(room: &Room) -> Outcome {
    let [a, b, c] = three(room)?;
    let disk = PowerDisk::mount(&room.path("mnt"), DISK, 5)?;
    add_disk(&a, &room.path("disk-a"))?;
    add_disk(&b, &room.path("disk-b"))?;
    add_whole_disk(&c, disk.path())?;
    a.tell(&["pool", "set", "default", "--copies", "2"])?;
    a.create("v", &BYTES.to_string())?;
    whole(&a)?;
    let model = Arc::new(Mutex::new(Model::new(BYTES)));
    let load = load(&a, &model)?;
    disk.die();
    let alerts = || c.tell(&["alerts"]);
    until("c says that its disk died", || {
        let said = alerts()?;
        Ok((!said.contains("disk-failed")).then_some(said))
    })?;
    let new = text(&room.path("disk-new"));
    let replace = ["disk", "replace", "3", &new, "--size", "128M", "--wait"];
    let done = c.tell(&replace)?;
    ensure!(done.contains("took its place"), "{done}");
    let said = alerts()?;
    ensure!(!said.contains("disk-failed"), "{said}");
    load.reach(load.acknowledged() + 1_000, COMES)?;
    load.finish()?;
    whole(&a)?;
    verify(&a.start.nbd, "v", &model)?;
    Ok(String::new())
}
