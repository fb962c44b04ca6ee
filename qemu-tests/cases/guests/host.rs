//! A host that is a guest, with the daemon in it, for the devices of the kernel.

use crate::guest::daemon::{self, Inside};
use crate::guest::{Guest, Job, Plan};
use crate::harness::daemon::text;
use crate::harness::{Room, Step, ensure};
use std::time::Duration;

/// Prints what the kernel said last, and where in it every thread of the host waits: also its own, which serve the drivers.
const WHERE_IT_STANDS: &str = "dmesg | tail -20; for t in /proc/[0-9]*/task/*; do \
    s=$(cat $t/stack 2>/dev/null); [ -z \"$s\" ] || { echo \"$t $(cat $t/comm)\"; echo \"$s\"; }; done; true";

/// The host, and the daemon that runs in it.
pub struct Host {
    pub guest: Guest,
    daemon: Inside,
}

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
        Ok(Host { guest, daemon })
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
        let kernel = self.guest.run(WHERE_IT_STANDS)?;
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

    pub fn stop_and_start(self) -> Step<Host> {
        let Host { mut guest, daemon } = self;
        let daemon = daemon.stop_and_start(&mut guest)?;
        Ok(Host { guest, daemon })
    }

    pub fn kill_and_start(self) -> Step<Host> {
        let Host { mut guest, daemon } = self;
        let daemon = daemon.kill_and_start(&mut guest)?;
        Ok(Host { guest, daemon })
    }
}
