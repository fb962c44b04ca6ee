//! A volume changes under its clients.

use crate::harness::daemon::Start;
use crate::harness::nbd::{EINVAL, ENOSPC};
use crate::harness::{Case, Outcome, Room, ensure};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_volume_grows_while_connected_and_never_shrinks", resize),
        Case::new("a_volume_is_not_deleted_while_connected", delete),
    ]
}

fn resize(room: &Room) -> Outcome {
    let daemon = Start::dev(room, "store", "256M").run()?;
    daemon.create("vm1", "16M")?;
    let mut old = daemon.connect("vm1")?;
    ensure!(old.size == 16 * MIB, "the export has {} bytes", old.size);
    let past = old.write(16 * MIB, &[1; 4096])?;
    ensure!(
        matches!(past, Err(EINVAL | ENOSPC)),
        "a write past the end is answered {past:?}"
    );
    old.write(16 * MIB - 4096, &[1; 4096])?
        .map_err(|e| format!("error {e}"))?;
    daemon.tell(&["volume", "resize", "vm1", "--size", "32M"])?;
    let mut new = daemon.connect("vm1")?;
    ensure!(
        new.size == 32 * MIB,
        "after the resize a new client sees {} bytes",
        new.size
    );
    new.write(32 * MIB - 4096, &[2; 4096])?
        .map_err(|e| format!("error {e}"))?;
    let grown = new
        .read(16 * MIB, 4096)?
        .map_err(|e| format!("error {e}"))?;
    ensure!(
        grown == vec![0; 4096],
        "what was added does not read as zeroes"
    );
    let kept = old
        .read(16 * MIB - 4096, 4096)?
        .map_err(|e| format!("error {e}"))?;
    ensure!(
        kept == vec![1; 4096],
        "what was written before the resize is gone"
    );
    let said = daemon.ask(&["volume", "resize", "vm1", "--size", "8M"])?;
    ensure!(
        said.code == Some(1),
        "a shrink ended with {:?}: {}",
        said.code,
        said.out
    );
    ensure!(
        !said.err.trim().is_empty(),
        "a shrink is refused without a word"
    );
    let size = daemon.connect("vm1")?.size;
    ensure!(
        size == 32 * MIB,
        "after the refused shrink it has {size} bytes"
    );
    Ok(said.err.lines().next().unwrap_or_default().to_owned())
}

fn delete(room: &Room) -> Outcome {
    let daemon = Start::dev(room, "store", "256M").run()?;
    daemon.create("vm1", "16M")?;
    let mut client = daemon.connect("vm1")?;
    let said = daemon.ask(&["volume", "delete", "vm1"])?;
    ensure!(
        said.code == Some(1),
        "a delete while connected ended with {:?}",
        said.code
    );
    client
        .write(0, &[1; 4096])?
        .map_err(|e| format!("the client has error {e} afterwards"))?;
    client.close()?;
    let begun = Instant::now();
    while daemon.ask(&["volume", "delete", "vm1"])?.code != Some(0) {
        let waited = begun.elapsed();
        ensure!(
            waited < Duration::from_secs(5),
            "not deletable after the client went"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(
        daemon.connect("vm1").is_err(),
        "a deleted volume is still an export"
    );
    daemon.create("vm1", "16M")?;
    let fresh = daemon
        .connect("vm1")?
        .read(0, 4096)?
        .map_err(|e| format!("error {e}"))?;
    ensure!(
        fresh == vec![0; 4096],
        "a new volume shows what an old one of its name held"
    );
    Ok(said.err.lines().next().unwrap_or_default().to_owned())
}
