//! Many clients that do nothing, and some that mean no good.

use crate::harness::daemon::{Daemon, Start};
use crate::harness::nbd::{Connection, greeted, head, option, until_closed};
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::io::Write;
use std::time::Duration;

const IDLE: u64 = 2000;
/// What an idle connection may cost, in bytes.
const RESIDENT_MAX: u64 = 16 << 10;
/// How long their CPU time is looked at, and what part of a core they may take. The promise is 1 %; clocks of 10 ms
/// ticks and a busy machine ask for room.
const LOOK: Duration = Duration::from_secs(3);
const CPU_PERCENT_MAX: u128 = 3;
/// How long the server may take to cut off who breaks the protocol.
const CUT_MAX: Duration = Duration::from_secs(5);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("two_thousand_idle_connections_cost_next_to_nothing", idle),
        Case::new("malformed_bytes_are_cut_off_and_others_go_on", malformed),
    ]
}

fn idle(room: &Room) -> Outcome {
    let start = Start::dev(room, "store", "256M");
    // Before this process gets more descriptors: the daemon must see to its own.
    let daemon = start.run()?;
    more_descriptors()?;
    daemon.create("vm1", "64M")?;
    let mut busy = daemon.connect("vm1")?;
    for number in 0..64 {
        busy.write(number << 16, &[1; 65536])?
            .map_err(|e| format!("error {e}"))?;
    }
    std::thread::sleep(Duration::from_millis(300));
    let before = daemon.resident()?;
    let mut clients = Vec::new();
    for number in 0..IDLE {
        let client = daemon
            .connect("vm1")
            .map_err(|why| format!("client {number}: {why}"))?;
        clients.push(client);
    }
    let each = daemon.resident()?.saturating_sub(before) / IDLE;
    let cpu = daemon.cpu()?;
    std::thread::sleep(LOOK);
    let percent = (daemon.cpu()? - cpu).as_millis() * 100 / LOOK.as_millis();
    busy.write(0, &[2; 4096])?
        .map_err(|e| format!("error {e}"))?;
    let last = clients.last_mut().ok_or("no clients")?;
    let read = last.read(0, 4096)?.map_err(|e| format!("error {e}"))?;
    ensure!(read == vec![2; 4096], "an idle client reads something else");
    ensure!(
        each <= RESIDENT_MAX,
        "an idle connection costs {each} bytes"
    );
    let busy = percent > CPU_PERCENT_MAX;
    ensure!(!busy, "{IDLE} idle connections take {percent} % of a core");
    Ok(format!("{each} bytes each, {percent} % of a core"))
}

fn more_descriptors() -> Step<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls are given the one struct that they are declared with.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    ensure!(
        done && limit.rlim_cur > IDLE + 100,
        "{} descriptors are too few",
        limit.rlim_cur
    );
    Ok(())
}

fn malformed(room: &Room) -> Outcome {
    let daemon = Start::dev(room, "store", "256M").run()?;
    daemon.create("vm1", "64M")?;
    let mut good = daemon.connect("vm1")?;
    let before = daemon.resident()?;
    let mut cut = 0;
    for (what, bytes) in hostile_handshakes() {
        let mut stream = greeted(&daemon.start.nbd)?;
        // The server may have closed in the middle of it, which is right.
        let _ = stream.write_all(&bytes);
        let ended = until_closed(&mut stream, CUT_MAX);
        ensure!(ended.is_ok(), "{what}: not cut off: {ended:?}");
        still_good(&mut good, what)?;
        cut += 1;
    }
    for (what, bytes) in hostile_requests() {
        let mut client = daemon.connect("vm1")?;
        let _ = client.send_raw(&bytes);
        let ended = client.rest(CUT_MAX);
        ensure!(ended.is_ok(), "{what}: not cut off: {ended:?}");
        still_good(&mut good, what)?;
        cut += 1;
    }
    let answered = refused_requests(&daemon, &mut good)?;
    let grown = daemon.resident()?.saturating_sub(before) >> 20;
    ensure!(
        grown < 64,
        "bad clients made the daemon grow by {grown} MiB"
    );
    Ok(format!(
        "{cut} kinds cut off, {answered} answered with an error, {grown} MiB more memory"
    ))
}

fn still_good(good: &mut Connection, after: &str) -> Step<()> {
    let written = good.write(8192, &[5; 512])?;
    ensure!(
        written.is_ok(),
        "after {after} another client has {written:?}"
    );
    Ok(())
}

/// Bytes in place of a negotiation that the protocol does not let go on.
fn hostile_handshakes() -> Vec<(&'static str, Vec<u8>)> {
    let flags = 3u32.to_be_bytes().to_vec();
    let with = |more: Vec<u8>| [flags.clone(), more].concat();
    let mut long = option(7, &[]);
    long[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    vec![
        (
            "unknown client flags",
            0xffff_fff0u32.to_be_bytes().to_vec(),
        ),
        ("an option of another magic", with(vec![0x55; 16])),
        ("an option of 4 GiB", with([long, vec![0; 65536]].concat())),
        (
            "a request in place of an option",
            with(head(0, 0, 1, 0, 512).to_vec()),
        ),
        (
            "an export name that is not there",
            with(option(1, b"nobody")),
        ),
        ("an abort", with(option(2, &[]))),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ]
}

/// Bytes in place of a request after which nothing can be understood any more.
fn hostile_requests() -> Vec<(&'static str, Vec<u8>)> {
    let mut other_magic = head(0, 0, 1, 0, 512);
    other_magic[0] ^= 1;
    vec![
        ("a request of another magic", other_magic.to_vec()),
        (
            "garbage",
            (0..4096u32).map(|n| (n * 7 % 251) as u8).collect(),
        ),
        ("a write of 4 GiB", head(1, 0, 1, 0, u32::MAX).to_vec()),
    ]
}

/// Requests that are wrong and leave the connection as it is.
fn refused_requests(daemon: &Daemon, good: &mut Connection) -> Step<u32> {
    let mut client = daemon.connect("vm1")?;
    let size = client.size;
    let mut answered = 0;
    use crate::harness::nbd::Verb::{Read, Trim, Write, WriteZeroes};
    for (verb, offset, len) in [
        (Read, size, 512),
        (Read, size - 512, 1024),
        (Read, u64::MAX - 511, 512),
        (Write, size, 512),
        (Trim, size - 512, 4096),
        (WriteZeroes, u64::MAX - 511, 1024),
    ] {
        let payload = vec![0; if verb == Write { len as usize } else { 0 }];
        let answer = client.ask(verb, 0, offset, len, &payload)?;
        ensure!(
            answer.is_err(),
            "{verb:?} of {len} bytes at {offset} is answered with success"
        );
        still_good(&mut client, "a request past the end")?;
        still_good(good, "a request past the end")?;
        answered += 1;
    }
    Ok(answered)
}
