//! Live migration between two QEMU processes on one daemon, and between two nodes of a cluster, while the guest writes; and ones that are given up half-way.

use super::pool::Pool;
use crate::guest::{Guest, Plan};
use crate::harness::daemon::{Daemon, text};
use crate::harness::{Case, Outcome, Room, Step, ensure};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MIB: u64 = 64;
/// Behind the part of the disk that the load is on.
const READ_MIB: u64 = 16;
const MOVE_MAX: Duration = Duration::from_secs(120);
const PAUSE_MAX: Duration = Duration::from_secs(30);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("the_guest_moves_to_another_qemu_while_it_writes", |room| {
            moves(room, on(room, Pool::of_one(room, "512M")?)?)
        }),
        Case::new("the_guest_moves_to_another_node_while_it_writes", |room| {
            moves(room, on(room, Pool::replicated(room, "512M")?)?)
        }),
        // Where this one fails too, the emulator loses writes, and not our log.
        Case::new("the_guest_moves_without_a_disk_of_ours", control).only_in_full(),
        Case::new("the_guest_moves_half_way_and_stays", |room| {
            stays(room, on(room, Pool::of_one(room, "512M")?)?)
        }),
        Case::new(
            "the_guest_moves_half_way_to_another_node_and_stays",
            |room| stays(room, on(room, Pool::replicated(room, "512M")?)?),
        ),
    ]
}

struct Scene {
    pool: Pool,
    sockets: [PathBuf; 2],
    /// Where the guest's state goes.
    state: PathBuf,
}

/// A guest on a volume, under a plan that another QEMU can have, too.
fn on(room: &Room, pool: Pool) -> Step<Scene> {
    let daemon = pool.here();
    daemon.create("vm1", &format!("{}M", MIB + READ_MIB))?;
    let sockets = [room.path("here.sock"), room.path("there.sock")];
    daemon.attach("vm1", &sockets[0], 2)?;
    Ok(Scene {
        pool,
        sockets,
        state: room.path("state.sock"),
    })
}

impl Scene {
    fn plan(&self, room: &Room, side: usize) -> Plan {
        let name = ["here", "there"][side];
        Plan::new(room, name)
            .moves()
            .vhost_user(&self.sockets[side], 2)
    }

    /// What is left where the guest is not goes.
    fn detach(&self, at: &Daemon, incoming: bool) -> Step<()> {
        let mut line = vec!["detach", "vm1"];
        // At another node it is one like any other.
        line.extend((incoming && self.pool.is_one()).then_some("--incoming"));
        at.tell(&line).map(drop)
    }

    /// The second QEMU, that waits.
    fn other(&self, room: &Room) -> Step<Guest> {
        let socket = text(&self.sockets[1]);
        self.pool.there().tell(&[
            "attach",
            "vm1",
            "--vhost-user",
            &socket,
            "--queues",
            "2",
            "--incoming",
        ])?;
        self.plan(room, 1).boot_incoming(&self.state)
    }
}

/// Begins to send the guest's state, so many bytes a second at most.
fn begin(here: &mut Guest, state: &Path, bandwidth: u64) -> Step<()> {
    let limit = json!({"max-bandwidth": bandwidth});
    here.qmp.ask("migrate-set-parameters", limit)?;
    let uri = format!("unix:{}", text(state));
    here.qmp.ask("migrate", json!({ "uri": uri }))?;
    Ok(())
}

/// Waits for a state of the migration; what QEMU says of it.
fn until(guest: &mut Guest, wanted: &str) -> Step<serde_json::Value> {
    let begun = Instant::now();
    loop {
        let state = guest.qmp.ask("query-migrate", json!({}))?;
        if state["status"] == wanted {
            return Ok(state);
        }
        let failed = state["status"] == "failed" && wanted != "failed";
        let late = begun.elapsed() > MOVE_MAX;
        ensure!(!failed && !late, "the migration is not {wanted}: {state}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn moves(room: &Room, mut scene: Scene) -> Outcome {
    let mut here = scene.plan(room, 0).boot()?;
    let mut load = here.load("/dev/vda", MIB, 7)?;
    // The load soon looks at what it read, and its processor marks much of it. What these reads bring only our log marks.
    let reads = format!("agent --in-guest hold-reads /dev/vda {MIB} /run/enough-reads");
    let mut reads = here.begin(&reads)?;
    here.gets_on(&mut load, PAUSE_MAX)?;
    here.gets_on(&mut reads, PAUSE_MAX)?;
    let mut there = scene.other(room)?;
    begin(&mut here, &scene.state, 1 << 30)?;
    scene.pool.amid()?;
    let state = until(&mut here, "completed")?;
    there.continue_from(&here)?;
    here.kill()?;
    there.gets_on(&mut load, PAUSE_MAX)?;
    scene.detach(scene.pool.here(), false)?;
    there.gets_on(&mut load, PAUSE_MAX)?;
    let held = there.enough("reads", reads)?;
    let said = there.enough("/dev/vda", load)?;
    there.nothing_failed()?;
    scene.pool.mended()?;
    there.kill()?;
    let downtime = &state["downtime"];
    Ok(format!(
        "QEMU tells of {downtime} ms without the guest; {held}; {said}"
    ))
}

/// A guest whose memory a program of its own changes and checks, and no device of ours.
fn control(room: &Room) -> Outcome {
    let plan = |name| Plan::new(room, name).moves();
    let state = room.path("state.sock");
    let mut here = plan("here").boot()?;
    let mut load = here.begin(&format!("agent --in-guest memory {MIB} /run/enough-memory"))?;
    here.gets_on(&mut load, PAUSE_MAX)?;
    let mut there = plan("there").boot_incoming(&state)?;
    begin(&mut here, &state, 1 << 30)?;
    until(&mut here, "completed")?;
    there.continue_from(&here)?;
    here.kill()?;
    there.gets_on(&mut load, PAUSE_MAX)?;
    let said = there.enough("memory", load)?;
    there.nothing_failed()?;
    there.kill()?;
    Ok(said)
}

fn stays(room: &Room, mut scene: Scene) -> Outcome {
    let mut here = scene.plan(room, 0).boot()?;
    let mut load = here.load("/dev/vda", MIB, 8)?;
    here.gets_on(&mut load, PAUSE_MAX)?;
    let there = scene.other(room)?;
    // So slow that it cannot end.
    begin(&mut here, &scene.state, 1 << 20)?;
    until(&mut here, "active")?;
    scene.pool.amid()?;
    here.gets_on(&mut load, PAUSE_MAX)?;
    here.qmp.ask("migrate_cancel", json!({}))?;
    until(&mut here, "cancelled")?;
    there.kill()?;
    scene.detach(scene.pool.there(), true)?;
    here.gets_on(&mut load, PAUSE_MAX)?;
    let said = here.enough("/dev/vda", load)?;
    here.nothing_failed()?;
    scene.pool.mended()?;
    here.kill()?;
    Ok(said)
}
