//! The clients that people use: libnbd's tools, QEMU's, fio, and a file system on a loop device over nbdfuse.

use crate::harness::daemon::{Daemon, Start, text};
use crate::harness::sector::{self, SECTOR};
use crate::harness::tools::{attempt, run};
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("nbdinfo_tells_size_list_and_map", nbdinfo),
        Case::new("nbdcopy_brings_256_mib_there_and_back", nbdcopy),
        Case::new("qemu_img_converts_maps_and_compares", qemu_img),
        Case::new("qemu_io_finds_its_patterns", qemu_io),
        Case::new("fio_verifies_what_it_wrote", fio),
        Case::new(
            "a_file_system_over_nbdfuse_and_a_loop_device_stays_whole",
            file_system,
        ),
    ]
}

fn serve(room: &Room, volume: &str, size: u64) -> Step<Daemon> {
    let daemon = Start::dev(room, "store", "1G").run()?;
    daemon.create(volume, &size.to_string())?;
    Ok(daemon)
}

/// A file of sectors that know where they belong.
fn image(path: &Path, bytes: u64) -> Step<()> {
    let mut data = vec![0; bytes as usize];
    sector::fill(&mut data, 0, 1);
    Ok(std::fs::write(path, data)?)
}

fn same(a: &Path, b: &Path) -> Step<()> {
    run("cmp", &[&text(a), &text(b)]).map(|_| ())
}

fn nbdinfo(room: &Room) -> Outcome {
    let daemon = serve(room, "vm1", 64 * MIB)?;
    daemon.create("vm2", "32M")?;
    let uri = daemon.uri("vm1");
    let size = run("nbdinfo", &["--size", &uri])?;
    ensure!(
        size.trim() == (64 * MIB).to_string(),
        "nbdinfo --size says {size:?}"
    );
    let list = run("nbdinfo", &["--list", &daemon.uri("")])?;
    ensure!(
        list.contains("vm1") && list.contains("vm2"),
        "nbdinfo --list says {list}"
    );
    let all = run("nbdinfo", &[&uri])?;
    for fact in [
        "can_multi_conn: true",
        "can_fua: true",
        "can_trim: true",
        "can_zero: true",
    ] {
        ensure!(all.contains(fact), "nbdinfo does not say {fact}: {all}");
    }
    daemon
        .connect("vm1")?
        .write(MIB, &vec![1; MIB as usize])?
        .map_err(|e| format!("error {e}"))?;
    let map = run("nbdinfo", &["--map", &uri])?;
    let rows: Vec<Vec<&str>> = map
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let row = |offset: u64, len: u64, kind: &str| {
        let (offset, len) = (offset.to_string(), len.to_string());
        rows.iter()
            .any(|row| row.starts_with(&[offset.as_str(), len.as_str(), kind]))
    };
    let right = row(0, MIB, "3") && row(MIB, MIB, "0") && row(2 * MIB, 62 * MIB, "3");
    ensure!(right, "1 MiB of data at 1 MiB is mapped as {map}");
    Ok(String::new())
}

fn nbdcopy(room: &Room) -> Outcome {
    let daemon = serve(room, "vm1", 256 * MIB)?;
    let (there, back) = (room.path("there"), room.path("back"));
    image(&there, 256 * MIB)?;
    let uri = daemon.uri("vm1");
    run("nbdcopy", &[&text(&there), &uri])?;
    run("nbdcopy", &[&uri, &text(&back)])?;
    same(&there, &back)?;
    Ok("256 MiB compared".into())
}

fn qemu_img(room: &Room) -> Outcome {
    let daemon = serve(room, "vm1", 64 * MIB)?;
    let (there, back) = (room.path("there"), room.path("back"));
    // Data, a hole, data.
    image(&there, 16 * MIB)?;
    let file = std::fs::File::options().write(true).open(&there)?;
    file.set_len(48 * MIB)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![9; MIB as usize], 47 * MIB)?;
    file.set_len(64 * MIB)?;
    let (uri, there, back_name) = (daemon.uri("vm1"), text(&there), text(&back));
    run(
        "qemu-img",
        &["convert", "-n", "-f", "raw", "-O", "raw", &there, &uri],
    )?;
    run(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", &there, &uri],
    )?;
    let map = run("qemu-img", &["map", "-f", "raw", "--output=json", &uri])?;
    let map: serde_json::Value = serde_json::from_str(&map)?;
    let data: u64 = map
        .as_array()
        .ok_or("qemu-img map gives no list")?
        .iter()
        .filter(|run| run["data"] == true)
        .filter_map(|run| run["length"].as_u64())
        .sum();
    ensure!(
        data == 17 * MIB,
        "17 MiB of data are mapped as {data} bytes: {map}"
    );
    run(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "raw", &uri, &back_name],
    )?;
    same(Path::new(&there), &back)?;
    // One byte is changed: compare must see it, or it compares nothing.
    let connection = &mut daemon.connect("vm1")?;
    connection
        .write(4096, &[3; 512])?
        .map_err(|e| format!("error {e}"))?;
    let (code, text) = attempt(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", &there, &uri],
    )?;
    ensure!(
        code == Some(1),
        "qemu-img compare does not see a difference: {text}"
    );
    Ok(String::new())
}

fn qemu_io(room: &Room) -> Outcome {
    let daemon = serve(room, "vm1", 64 * MIB)?;
    let commands = [
        "write -P 0x11 0 1M",
        "write -P 0x22 512 512",
        "write -f -P 0x33 65000 3000",
        "write -z 256k 128k",
        "write -z -u 512k 64k",
        "discard 768k 64k",
        "flush",
        "read -P 0x11 0 512",
        "read -P 0x22 512 512",
        "read -P 0x11 1024 63976",
        "read -P 0x33 65000 3000",
        "read -P 0x11 68000 1000",
        "read -P 0 256k 128k",
        "read -P 0 512k 64k",
        "read -P 0 768k 64k",
        "read -P 0x11 896k 128k",
        "read -P 0 1M 1M",
    ];
    let uri = daemon.uri("vm1");
    // Bytes that are no whole sectors are QEMU's own to round; it must end up with the same.
    let mut arguments = vec!["-f", "raw"];
    commands
        .iter()
        .for_each(|command| arguments.extend(["-c", command]));
    arguments.push(&uri);
    let said = run("qemu-io", &arguments)?;
    ensure!(!said.contains("verification failed"), "qemu-io: {said}");
    Ok(format!("{} commands", commands.len()))
}

fn fio(room: &Room) -> Outcome {
    let daemon = serve(room, "vm1", 128 * MIB)?;
    let uri = format!("--uri={}", daemon.uri("vm1"));
    let mut done = Vec::new();
    for (rw, bs) in [
        ("randwrite", "4k"),
        ("randwrite", "512"),
        ("write", "1M"),
        ("randrw", "12k"),
    ] {
        let (rw, bs) = (format!("--rw={rw}"), format!("--bs={bs}"));
        let size = if bs.ends_with("512") {
            "--size=8M"
        } else {
            "--size=64M"
        };
        let job = room.path("job.log");
        let output = format!("--output={}", text(&job));
        let mut arguments = vec![
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            &rw,
            &bs,
            size,
            "--iodepth=16",
        ];
        arguments.extend([
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            "--minimal",
            "--verify_state_save=0",
        ]);
        arguments.extend(["--randrepeat=1", &output]);
        run("fio", &arguments)?;
        done.push(format!("{} {}", &rw[5..], &bs[5..]));
    }
    Ok(done.join(", "))
}

/// A program that runs beside the case, ended with it.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        // SAFETY: a signal to a child that was not waited for.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let _ = self.0.wait();
    }
}

fn file_system(room: &Room) -> Outcome {
    let daemon = serve(room, "vm1", 256 * MIB)?;
    let (disk, tree) = (room.path("disk"), room.path("tree"));
    std::fs::write(&disk, b"")?;
    std::fs::create_dir(&tree)?;
    let log = std::fs::File::create(room.path("nbdfuse.log"))?;
    let (disk_name, tree_name) = (text(&disk), text(&tree));
    let child = Command::new("nbdfuse")
        .args([&disk_name, &daemon.uri("vm1")])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let nbdfuse = Beside(child);
    let begun = Instant::now();
    while std::fs::metadata(&disk)?.len() != 256 * MIB {
        ensure!(
            begun.elapsed() < Duration::from_secs(10),
            "nbdfuse does not serve"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let device = run("losetup", &["--find", "--show", &disk_name])?;
    let device = device.trim();
    let used = use_file_system(device, &tree_name);
    // Undone in any case, the first reason is the one to tell.
    let _ = attempt("umount", &[&tree_name]);
    let detached = run("losetup", &["--detach", device]);
    let whole = used.and_then(|()| detached.map(|_| ()));
    let _ = attempt("umount", &[&disk_name]);
    drop(nbdfuse);
    whole?;
    Ok("ext4 written, read after a new mount, checked".into())
}

fn use_file_system(device: &str, tree: &str) -> Step<()> {
    run("mkfs.ext4", &["-q", "-F", device])?;
    run("mount", &[device, tree])?;
    let mut data = vec![0; 8 * MIB as usize];
    for number in 0..8u32 {
        sector::fill(&mut data, 0, number + 1);
        std::fs::write(Path::new(tree).join(format!("file{number}")), &data)?;
    }
    run("umount", &[tree])?;
    let said = run("fsck.ext4", &["-f", "-n", device])?;
    ensure!(
        !said.contains("FIXED") && !said.contains("WARNING"),
        "fsck.ext4: {said}"
    );
    run("mount", &[device, tree])?;
    for number in 0..8u32 {
        let back = std::fs::read(Path::new(tree).join(format!("file{number}")))?;
        for (address, bytes) in (0..).zip(back.as_chunks::<SECTOR>().0) {
            let write = sector::read(bytes, address)?;
            ensure!(
                write == number + 1,
                "sector {address} of file{number} is of file {write}"
            );
        }
    }
    run("umount", &[tree])?;
    run("fsck.ext4", &["-f", "-n", device])?;
    Ok(())
}
