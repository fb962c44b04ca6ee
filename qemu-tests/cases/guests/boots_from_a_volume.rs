//! A guest whose root file system is a volume, by vhost-user-blk, with a second volume to work on.

use super::pool::Pool;
use crate::guest::{Plan, root_image, which};
use crate::harness::daemon::text;
use crate::harness::metrics::Metrics;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::time::{Duration, Instant};

const DATA_MIB: u64 = 128;
const ROOT_MIB: u64 = 192;
/// fio takes longer than this.
const AMID: Duration = Duration::from_secs(2);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_guest_boots_from_a_volume_and_fio_verifies_another",
            |room| boots(room, Pool::of_one(room, "1G")?),
        ),
        Case::new(
            "a_guest_boots_from_a_volume_with_two_copies_and_a_node_dies_under_fio",
            |room| boots(room, Pool::replicated(room, "1G")?),
        ),
    ]
}

fn boots(room: &Room, mut pool: Pool) -> Outcome {
    let daemon = pool.here();
    let image = room.path("root.img");
    root_image(&image, ROOT_MIB, &[("fio", which("fio")?)])?;
    daemon.tell(&["volume", "import", "root", &text(&image)])?;
    daemon.create("data", &format!("{DATA_MIB}M"))?;
    let (root, data) = (room.path("root.sock"), room.path("data.sock"));
    daemon.attach("root", &root, 1)?;
    daemon.attach("data", &data, 2)?;
    let plan = Plan::new(room, "guest")
        .vhost_user(&root, 1)
        .vhost_user(&data, 2);
    let mut guest = plan.root("/dev/vda").boot()?;
    let mounted = guest.run("grep ' / ' /proc/mounts")?;
    ensure!(mounted.contains("/dev/vda / ext4"), "the root is {mounted}");
    let queues = guest.run("ls /sys/block/vdb/mq | wc -l")?;
    ensure!(queues.trim() == "2", "the second disk has {queues} queues");
    let fio = "fio --name=verify --filename=/dev/vdb --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --size=24M \
               --numjobs=2 --offset_increment=32M --iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1 \
               --verify_state_save=0 --randrepeat=1 --minimal >/tmp/fio";
    let mut fio = guest.begin(fio)?;
    std::thread::sleep(AMID);
    pool.amid()?;
    let code = guest.wait(&mut fio, Duration::from_secs(180))?;
    ensure!(code == 0, "fio in the guest: exit {code}: {}", fio.out);
    pool.mended()?;
    let daemon = pool.here();
    let used = || Step::Ok(Metrics::ask(&daemon.start.api)?.get("sarsen_disk_used_bytes"));
    let before = used()?;
    // One of three disks has two thirds of it, more or less.
    let least_freed = if pool.is_one() { 40 << 20 } else { 20 << 20 };
    guest.run("blkdiscard /dev/vdb && sync")?;
    // The record that frees a slot is durable at once; the slots follow in the background.
    let begun = Instant::now();
    let freed = loop {
        let freed = before - used()?;
        if freed >= f64::from(least_freed) {
            break freed;
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(20),
            "of 48 MiB that were discarded, {freed} bytes are free again on a disk"
        );
        std::thread::sleep(Duration::from_millis(100));
    };
    guest.nothing_failed()?;
    guest.run("sync")?;
    guest.kill()?;
    Ok(format!("the discard gave back {} MiB", freed as u64 >> 20))
}
