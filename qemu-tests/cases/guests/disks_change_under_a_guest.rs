//! A guest's disks are made larger, plugged in and taken away while it works.

use super::pool::Pool;
use crate::guest::{Guest, Plan};
use crate::harness::daemon::text;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use serde_json::json;
use std::time::Duration;

const MIB: u64 = 64;
const PAUSE_MAX: Duration = Duration::from_secs(30);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_volume_grows_and_its_guest_sees_it_under_load", |room| {
            grows(room, Pool::of_one(room, "512M")?)
        }),
        Case::new("a_volume_grows_while_a_node_is_dead", |room| {
            grows(room, Pool::replicated(room, "512M")?)
        }),
        Case::new("disks_are_plugged_in_and_out_under_load", |room| {
            plugged(room, Pool::of_one(room, "512M")?)
        }),
        Case::new("disks_are_plugged_in_and_out_while_a_node_dies", |room| {
            plugged(room, Pool::replicated(room, "512M")?)
        }),
    ]
}

fn wait(guest: &mut Guest, condition: &str) -> Step<()> {
    let script =
        format!("i=0; until {condition}; do i=$((i+1)); [ $i -lt 150 ] || exit 1; sleep 0.1; done");
    let (code, said) = guest.attempt(&script, Duration::from_secs(60))?;
    ensure!(
        code == 0,
        "in the guest this does not come true: {condition} {said}"
    );
    Ok(())
}

fn grows(room: &Room, mut pool: Pool) -> Outcome {
    let daemon = pool.here();
    let socket = room.path("vm1.sock");
    daemon.create("vm1", &format!("{MIB}M"))?;
    daemon.attach("vm1", &socket, 2)?;
    let mut guest = Plan::new(room, "guest").vhost_user(&socket, 2).boot()?;
    let mut load = guest.load("/dev/vda", MIB, 9)?;
    pool.amid()?;
    pool.here().tell(&[
        "volume",
        "resize",
        "vm1",
        "--size",
        &format!("{}M", 2 * MIB),
    ])?;
    let sectors = MIB << 12;
    wait(
        &mut guest,
        &format!("[ $(cat /sys/block/vda/size) = {sectors} ]"),
    )?;
    // The last MiB is there, and is as empty as new space is.
    let last = 2 * MIB - 1;
    guest.run(&format!(
        "dd if=/dev/vda bs=1M skip={last} count=1 | cmp -n 1048576 - /dev/zero && \
         dd if=/dev/urandom of=/dev/vda bs=1M seek={last} count=1 conv=fsync"
    ))?;
    pool.amid()?;
    guest.gets_on(&mut load, PAUSE_MAX)?;
    let said = guest.enough("/dev/vda", load)?;
    guest.nothing_failed()?;
    pool.mended()?;
    guest.kill()?;
    Ok(said)
}

fn plugged(room: &Room, mut pool: Pool) -> Outcome {
    let daemon = pool.here();
    let sockets = ["vm1", "vm2"].map(|name| room.path(&format!("{name}.sock")));
    for (name, socket) in ["vm1", "vm2"].iter().zip(&sockets) {
        daemon.create(name, &format!("{MIB}M"))?;
        daemon.attach(name, socket, 2)?;
    }
    let mut guest = Plan::new(room, "guest").vhost_user(&sockets[0], 2).boot()?;
    let mut load = guest.load("/dev/vda", MIB, 10)?;
    for round in 0..3 {
        let wrong = |why: Box<dyn std::error::Error>| format!("round {round}: {why}");
        plug(&mut guest, &text(&sockets[1]), round).map_err(wrong)?;
        pool.amid().map_err(wrong)?;
        guest.gets_on(&mut load, PAUSE_MAX).map_err(wrong)?;
    }
    let said = guest.enough("/dev/vda", load)?;
    pool.mended()?;
    guest.kill()?;
    Ok(said)
}

/// Plugs the second disk in, uses it, and takes it away, at last while it is written to.
fn plug(guest: &mut Guest, socket: &str, round: u64) -> Step<()> {
    let backend = json!({"type": "socket", "data": {
        "addr": {"type": "unix", "data": {"path": socket}}, "server": false, "reconnect": 1}});
    guest
        .qmp
        .ask("chardev-add", json!({"id": "more", "backend": backend}))?;
    let device = json!({"driver": "vhost-user-blk-pci", "id": "more-dev", "chardev": "more", "num-queues": 2});
    guest.qmp.ask("device_add", device)?;
    wait(guest, "[ -b /dev/vdb ]")?;
    guest.run("dd if=/dev/urandom of=/tmp/there bs=64k count=16; dd if=/tmp/there of=/dev/vdb bs=64k oflag=direct")?;
    guest.run("dd if=/dev/vdb bs=64k count=16 iflag=direct | cmp - /tmp/there")?;
    if round == 2 {
        guest.begin("dd if=/dev/zero of=/dev/vdb bs=64k oflag=direct")?;
        // It has the disk open, or it would make a file of that name when the disk is gone.
        wait(
            guest,
            "[ $(awk '{print $7}' /sys/block/vdb/stat) -gt 4096 ]",
        )?;
    }
    guest.qmp.ask("device_del", json!({"id": "more-dev"}))?;
    let gone = |data: &serde_json::Value| data["device"] == "more-dev";
    guest
        .qmp
        .event("DEVICE_DELETED", gone, Duration::from_secs(60))?;
    guest.qmp.ask("chardev-remove", json!({"id": "more"}))?;
    wait(guest, "[ ! -e /dev/vdb ]")
}
