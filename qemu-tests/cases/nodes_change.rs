//! Nodes that are emptied, removed, given up and worked at, as an operator does it, while a volume is used.

use super::several_nodes::{COMES, add_disk, refuses, says, three, until};
use crate::harness::daemon::Daemon;
use crate::harness::load::{Load, Shape, verify};
use crate::harness::model::Model;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::sync::{Arc, Mutex};

const BYTES: u64 = 16 << 20;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_node_is_drained_and_removed_under_load_and_another_one_is_worked_at",
            drained_and_worked_at,
        ),
        Case::new(
            "a_node_that_is_dead_for_good_is_given_up_and_refused_when_it_comes_back",
            given_up,
        ),
    ]
}

/// Waits until an alert is over.
fn is_over(node: &Daemon, alert: &str) -> Step<()> {
    until(&format!("{alert} is over"), || {
        let said = node.tell(&["alerts"])?;
        Ok(said.contains(alert).then_some(said))
    })
}

/// Waits until every placement group has all its copies.
fn whole(at: &Daemon) -> Step<()> {
    until("the pool is whole", || {
        let said = at.ask(&["--json", "pool", "show", "default"])?;
        let is_whole = said.code == Some(0) && said.out.contains("\"reason\": \"\"");
        Ok((!is_whole).then(|| format!("{}{}", said.out, said.err)))
    })
}

/// Three nodes with a disk each, two copies, a volume `v`; the first is the only member of the manager.
fn site(room: &Room) -> Step<[Daemon; 3]> {
    let nodes = three(room)?;
    for (node, name) in nodes.iter().zip(["disk-a", "disk-b", "disk-c"]) {
        add_disk(node, &room.path(name))?;
    }
    let [a, _, c] = &nodes;
    a.tell(&["pool", "set", "default", "--copies", "2"])?;
    a.create("v", &BYTES.to_string())?;
    whole(a)?;
    refuses(
        &a.ask(&["node", "remove", "c"])?,
        &["c is a member of the manager", "cluster members set"],
    )?;
    a.tell(&["cluster", "members", "set", "a"])?;
    says(c, &["node", "show", "c"], &["follower"])?;
    says(a, &["node", "show", "c"], &["follower"])?;
    Ok(nodes)
}

/// A node that was removed says so itself, also after a start, and its peer says whom it refuses.
fn is_refused(mut removed: Daemon, by: &Daemon) -> Step<()> {
    says(&removed, &["alerts"], &["node-removed", "was removed"])?;
    removed.stop()?;
    let again = removed.start.run()?;
    says(&again, &["alerts"], &["node-removed", "was removed"])?;
    until("its peer says that it is refused", || {
        let text = by.start.log_text()?;
        let is_said = text.contains("node 3 was removed from the cluster");
        Ok((!is_said).then_some(text))
    })?;
    let refused = again.connect("v");
    ensure!(refused.is_err(), "a node that was removed serves a volume");
    Ok(())
}

fn drained_and_worked_at(room: &Room) -> Outcome {
    let [a, mut b, c] = site(room)?;
    let model = Arc::new(Mutex::new(Model::new(BYTES)));
    let shape = Shape {
        connections: 2,
        depth: 4,
    };
    let load = Load::start(&a.start.nbd, "v", &model, shape, 7)?;
    load.reach(1_000, COMES)?;

    // Emptied, on another node than itself, and removed.
    refuses(
        &b.ask(&["node", "remove", "c"])?,
        &["copies of placement groups", "sarsen node drain"],
    )?;
    let dry = b.tell(&["node", "drain", "c", "--dry-run"])?;
    ensure!(!dry.contains("leaving"), "a dry run changed it: {dry}");
    b.tell(&["node", "drain", "c"])?;
    b.tell(&["node", "drain", "c", "--undo"])?;
    says(&a, &["disk", "show", "3"], &["elsewhere"])?;
    let drained = b.tell(&["node", "drain", "c", "--wait"])?;
    ensure!(drained.contains("left"), "{drained}");
    refuses(
        &b.ask(&["node", "drain", "b"])?,
        &["the disks of node b", "2 copies need as many"],
    )?;
    let dry = b.tell(&["node", "remove", "c", "--dry-run"])?;
    ensure!(dry.contains("can be removed"), "{dry}");
    b.tell(&["node", "remove", "c"])?;
    let nodes = a.tell(&["node", "list"])?;
    ensure!(!nodes.contains("unreachable"), "{nodes}");
    refuses(&b.ask(&["node", "remove", "c"])?, &["no node \"c\""])?;
    is_refused(c, &a)?;
    load.reach(load.acknowledged() + 1_000, COMES)?;

    // Worked at: stopped, and started again, with nothing made anew and no error.
    refuses(
        &b.ask(&["node", "maintenance", "a", "on"])?,
        &["no majority"],
    )?;
    whole(&a)?;
    let waits = a.ask(&["upgrade", "--dry-run"])?;
    refuses(
        &waits,
        &["would take over", "I/O WOULD WAIT", "no majority"],
    )?;
    let none = b.tell(&["upgrade", "--dry-run"])?;
    ensure!(none.contains("no I/O would wait"), "{none}");
    b.tell(&["node", "maintenance", "b", "on", "--dry-run"])?;
    let none = a.tell(&["node", "show", "b"])?;
    ensure!(none.contains("off"), "a dry run changed it: {none}");
    b.tell(&["node", "maintenance", "b", "on", "--for", "10m"])?;
    says(&a, &["status"], &["b (on for another"])?;
    says(&a, &["alerts"], &["node-maintenance", "node b", "UTC"])?;
    refuses(
        &a.ask(&["node", "drain", "b"])?,
        &["somebody works at node b"],
    )?;
    b.stop()?;
    says(
        &a,
        &["pool", "show", "default"],
        &["nothing is made anew elsewhere during maintenance of b"],
    )?;
    load.reach(load.acknowledged() + 1_000, COMES)?;
    let b = b.start.run()?;
    whole(&a)?;
    load.reach(load.acknowledged() + 1_000, COMES)?;
    load.finish()?;
    a.tell(&["node", "maintenance", "b", "off"])?;
    is_over(&a, "node-maintenance")?;
    // It ends by itself, also where it was prolonged.
    a.tell(&["node", "maintenance", "b", "on"])?;
    a.tell(&["node", "maintenance", "b", "on", "--for", "2s"])?;
    says(&b, &["node", "show", "b"], &["maintenance  off"])?;
    until("b lets a client have the volume", || {
        Ok(b.connect("v").err().map(|why| why.to_string()))
    })?;
    verify(&b.start.nbd, "v", &model)?;
    Ok(String::new())
}

fn given_up(room: &Room) -> Outcome {
    let [a, b, mut c] = site(room)?;
    let pattern = vec![7; 64 << 10];
    let mut client = a.connect("v")?;
    client
        .write(1 << 20, &pattern)?
        .map_err(|error| format!("before: {error}"))?;
    client.close()?;
    let socket = room.path("c.sock").to_string_lossy().into_owned();
    c.tell(&["attach", "v", "--vhost-user", &socket])?;
    refuses(
        &a.ask(&["node", "remove", "c", "--force"])?,
        &["answers", "without --force"],
    )?;
    c.kill()?;
    says(&a, &["node", "show", "c"], &["unreachable", "v"])?;
    refuses(&a.ask(&["node", "remove", "c"])?, &["--force"])?;
    a.tell(&["node", "remove", "c", "--force", "--dry-run"])?;
    says(&a, &["node", "show", "c"], &["unreachable", "v"])?;
    a.tell(&["node", "remove", "c", "--force", "--wait"])?;
    let nodes = b.tell(&["node", "list"])?;
    ensure!(!nodes.contains("unreachable"), "{nodes}");
    whole(&a)?;
    is_refused(c.start.run()?, &a)?;
    until("b lets a client have the volume", || {
        Ok(b.connect("v").err().map(|why| why.to_string()))
    })?;
    let read = b
        .connect("v")?
        .read(1 << 20, 64 << 10)?
        .map_err(|error| format!("after: {error}"))?;
    ensure!(read == pattern, "what was written is not there");
    Ok(String::new())
}
