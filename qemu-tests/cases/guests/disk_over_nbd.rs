//! A guest with a virtio disk that QEMU opens as an NBD export: what the harness itself rests on.

use super::pool::Pool;
use crate::guest::Plan;
use crate::harness::daemon::text;
use crate::harness::{Case, Outcome, Room, ensure};
use std::time::{Duration, Instant};

const MIB: u64 = 64;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_guest_finds_on_its_disk_what_it_wrote_there", |room| {
            writes_and_verifies(room, Pool::of_one(room, "512M")?)
        }),
        Case::new(
            "a_guest_finds_on_its_disk_what_it_wrote_there_though_a_node_died",
            |room| writes_and_verifies(room, Pool::replicated(room, "512M")?),
        ),
    ]
}

fn writes_and_verifies(room: &Room, mut pool: Pool) -> Outcome {
    let daemon = pool.here();
    daemon.create("vm1", &format!("{MIB}M"))?;
    let drive = format!(
        "file=nbd+unix:///vm1?socket={},format=raw,cache=none,discard=unmap",
        text(&daemon.start.nbd)
    );
    let begun = Instant::now();
    let mut guest = Plan::new(room, "guest").drive(&drive).boot()?;
    let boot = begun.elapsed();
    let size = guest.run("cat /sys/block/vda/size")?;
    ensure!(
        size.trim() == (MIB << 11).to_string(),
        "the guest sees {size} sectors"
    );
    let mut load = guest.begin(&format!(
        "agent --in-guest load /dev/vda {MIB} 1 /run/enough"
    ))?;
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(2500));
        pool.amid()?;
    }
    guest.run("touch /run/enough")?;
    let code = guest.wait(&mut load, Duration::from_secs(60))?;
    ensure!(
        code == 0,
        "the load in the guest: exit {code}: {}",
        load.out
    );
    guest.nothing_failed()?;
    pool.mended()?;
    let last = load.out.lines().last().unwrap_or_default().to_owned();
    guest.kill()?;
    Ok(format!("booted in {:.1} s; {last}", boot.as_secs_f64()))
}
