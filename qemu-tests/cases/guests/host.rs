//! A host that is a guest, with the daemon in it, for the devices of the kernel.

use super::pool::Pool;
use crate::cases::replicated::whole;
use crate::cases::several_nodes::{join_to, node, settled, token};
use crate::guest::daemon::{self, Inside};
use crate::guest::{Guest, Job, Plan};
use crate::harness::daemon::text;
use crate::harness::network::Lan;
use crate::harness::{Room, Step, ensure};
use std::time::Duration;

/// The host, and the daemon that runs in it.
pub struct Host {
    pub guest: Guest,
    daemon: Inside,
    /// The other nodes of its cluster, outside.
    peers: Option<Pool>,
}

/// Where the host listens for other nodes, and they for it.
const PORT: u16 = 7400;

impl Host {
    /// Boots it with an empty disk for the store, with these tools, and with both drivers.
    pub fn boot(room: &Room, tools: &[&'static str]) -> Step<Host> {
        Host::boot_as(room, tools, |plan| plan.module("ublk_drv").module("nbd"))
    }

    /// The same with a plan of its own, and without the drivers.
    pub fn boot_as(
        room: &Room,
        tools: &[&'static str],
        change: impl FnOnce(Plan) -> Plan,
    ) -> Step<Host> {
        let store = room.path("store.img");
        std::fs::File::create(&store)?.set_len(1 << 30)?;
        let (config, content) = daemon::config("/root/data", &[("/dev/vda", None)]);
        let plan = Plan::new(room, "host")
            .sarsen()
            .tools(tools)?
            .udev()?
            .file(config, &content)
            .drive(&format!("file={},format=raw,cache=none", text(&store)));
        let mut guest = change(plan).boot()?;
        guest.run("mkdir -p /root/data")?;
        let daemon = Inside::start(&mut guest)?;
        Ok(Host {
            guest,
            daemon,
            peers: None,
        })
    }

    /// One with both drivers and no disk, that joins three nodes outside: they are the members, and have two copies of everything. Processors that are
    /// emulated, and shared with a load, lose leases of 400 ms: copies at such a node would be filled again and again.
    pub fn of_cluster(room: &Room) -> Step<Host> {
        let lan = Lan::new()?;
        let mut peers = Vec::new();
        for (number, name) in ["b", "c", "d"].into_iter().enumerate() {
            let listen = format!("{}:{}", Lan::OUTSIDE, PORT as usize + number);
            let start = node(room, name, &format!("[cluster]\nlisten = {listen:?}\n"))?;
            peers.push(start.in_network(lan.namespace()).run()?);
        }
        peers[0].tell(&["cluster", "init"])?;
        join_to(&peers[1], &peers[0])?;
        join_to(&peers[2], &peers[0])?;
        settled(&[&peers[0], &peers[1], &peers[2]], 3)?;
        let listen = format!("{}:{PORT}", Lan::GUEST);
        let (config, content) = daemon::node_config("/root/data", &listen);
        let plan = Plan::new(room, "host").sarsen().udev()?;
        let plan = plan.module("ublk_drv").module("nbd").at(&lan);
        let mut guest = plan.file(config, &content).boot()?;
        guest.run("mkdir -p /root/data")?;
        let daemon = Inside::start(&mut guest)?;
        let (address, token) = token(&peers[0], "1h")?;
        daemon.tell(&mut guest, &format!("join {address} --token {token}"))?;
        let is_there = "sarsen --api /run/api.sock status | grep -q '4, 3 of them members'";
        guest.run(&format!("until {is_there}; do sleep 0.2; done"))?;
        for (node, name) in peers.iter().zip(["disk-b", "disk-c", "disk-d"]) {
            let path = room.path(name);
            node.tell(&["disk", "add", &text(&path), "--size", "512M"])?;
        }
        peers[0].tell(&["pool", "set", "default", "--copies", "2"])?;
        whole(&peers[0])?;
        let peers = Some(Pool::of(peers));
        Ok(Host {
            guest,
            daemon,
            peers,
        })
    }

    /// Amid what is done at a device: a node outside is killed; the next time, it comes back.
    pub fn amid(&mut self) -> Step<()> {
        self.peers.as_mut().map_or(Ok(()), Pool::amid)
    }

    /// After it: all copies are made, also those that a node missed.
    pub fn mended(&mut self) -> Step<()> {
        self.peers.as_mut().map_or(Ok(()), Pool::mended)
    }

    /// Makes a volume and a device of it; the device's path. The link of udev leads to it.
    pub fn attach(&mut self, volume: &str, mib: u64, block: u32, kind: &str) -> Step<String> {
        self.tell(&format!(
            "volume create {volume} --size {mib}M --block-size {block}"
        ))?;
        self.tell(&format!("attach {volume} {kind}"))?;
        let link = format!("/dev/sarsen/{volume}");
        let found = self.guest.attempt(
            &format!("until [ -b {link} ]; do sleep 0.1; done; readlink -f {link}"),
            Duration::from_secs(30),
        );
        let Ok((0, device)) = found else {
            let there = self
                .guest
                .run("ls -lR /dev/sarsen; ls /dev/ublk* /dev/nbd*; true")?;
            return Err(format!("{link} does not appear: {there}").into());
        };
        let device = device.trim().to_owned();
        let size = self.guest.run(&format!("blockdev --getsize64 {device}"))?;
        ensure!(
            size.trim() == (mib << 20).to_string(),
            "{device} has {size} bytes"
        );
        Ok(device)
    }

    /// Takes the device away, and its link with it.
    pub fn detach(&mut self, volume: &str) -> Step<()> {
        self.tell(&format!("detach {volume}"))?;
        self.link_goes(volume)
    }

    /// Waits until there is no link of a volume.
    pub fn link_goes(&mut self, volume: &str) -> Step<()> {
        self.guest
            .run(&format!(
                "i=0; while [ -e /dev/sarsen/{volume} ]; do i=$((i+1)); [ $i -lt 100 ] || exit 1; sleep 0.1; done"
            ))
            .map_err(|why| format!("the link stays: {why}"))?;
        Ok(())
    }

    /// Waits until a load on a device has got on. Where it does not, the error tells what the daemon and the kernel say of it.
    pub fn gets_on(&mut self, load: &mut Job, within: Duration) -> Step<()> {
        let Err(why) = self.guest.gets_on(load, within) else {
            return Ok(());
        };
        let daemon = self.daemon.said(&mut self.guest)?;
        let status = self.try_to_tell("status");
        let status = status.map_or_else(|error| error.to_string(), |(_, said)| said);
        let kernel = self.guest.run(daemon::WHERE_IT_STANDS)?;
        Err(
            format!("{why}\n--- the daemon said\n{daemon}\n{status}\n--- the kernel\n{kernel}")
                .into(),
        )
    }

    pub fn tell(&mut self, arguments: &str) -> Step<String> {
        self.daemon.tell(&mut self.guest, arguments)
    }

    pub fn try_to_tell(&mut self, arguments: &str) -> Step<(i32, String)> {
        self.daemon.try_to_tell(&mut self.guest, arguments)
    }

    /// Sends the daemon a signal.
    pub fn signal(&mut self, signal: i32) -> Step<()> {
        self.daemon.signal(&mut self.guest, signal)
    }

    pub fn stop_and_start(mut self) -> Step<Host> {
        self.daemon = self.daemon.stop_and_start(&mut self.guest)?;
        Ok(self)
    }

    pub fn kill_and_start(mut self) -> Step<Host> {
        self.daemon = self.daemon.kill_and_start(&mut self.guest)?;
        Ok(self)
    }
}
