//! How long a guest waits when the daemon becomes another binary: `cargo bench --bench pause -- [--gib 64] [--rounds 10] [--dir DIR]`.
//!
//! A daemon of its own, with a volume that is full, serves a driver of vhost-user-blk. In each round the driver writes
//! or reads 4 KiB blocks without a rest, and `sarsen upgrade` has the daemon start anew in the middle: the longest wait
//! for an answer is the pause. The connection is handed over, so the driver sees nothing else.

mod guest;

use guest::{BLOCK, Spec, Until, drive};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Writes, and how many at once.
const LOADS: &[(&str, bool, usize)] = &[
    ("read depth 1", false, 1),
    ("write depth 1", true, 1),
    ("write depth 32", true, 32),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str, otherwise: &str| {
        let place = words.iter().position(|word| word == name);
        place.map_or(otherwise.to_owned(), |at| words[at + 1].clone())
    };
    let number = |name, otherwise| -> u64 { option(name, otherwise).parse().expect("a number") };
    let (gib, rounds) = (number("--gib", "64"), number("--rounds", "10"));
    let dir = PathBuf::from(option("--dir", env!("CARGO_TARGET_TMPDIR")));
    let daemon = Daemon::start(&dir.join(format!("pause-{}", std::process::id())), gib);
    guest::fill(&daemon.socket(), gib << 10);
    for &(name, writes, depth) in LOADS {
        let mut pauses: Vec<f64> = (0..rounds)
            .map(|_| daemon.pause(writes, depth, gib))
            .collect();
        pauses.sort_by(f64::total_cmp);
        let (first, last) = (pauses[0], pauses[pauses.len() - 1]);
        let median = pauses[pauses.len() / 2];
        println!(
            "{name:14} {rounds} upgrades, {gib} GiB in use: {first:.0} ms to {last:.0} ms, median {median:.0} ms"
        );
    }
}

struct Daemon {
    process: Child,
    dir: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it has gone already
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir); // what is left is in the target folder
    }
}

impl Daemon {
    fn start(dir: &Path, gib: u64) -> Daemon {
        fs::create_dir_all(dir).expect("a directory");
        let process = sarsen(dir)
            .args(["dev", "--data"])
            .arg(dir)
            .args(["--size", &format!("{}G", gib * 3 / 2 + 4)])
            .stdout(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let daemon = Daemon {
            process,
            dir: dir.to_owned(),
        };
        for _ in 0..400 {
            if daemon.says(&["status"]) {
                break;
            }
            thread::sleep(Duration::from_millis(25));
        }
        let socket = daemon.socket();
        let socket = socket.to_str().expect("a path");
        assert!(daemon.says(&["volume", "create", "full", "--size", &format!("{gib}G")]));
        assert!(daemon.says(&["attach", "full", "--vhost-user", socket]));
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("full.sock")
    }

    fn says(&self, words: &[&str]) -> bool {
        let mut command = sarsen(&self.dir);
        let command = command.args(words).stdout(Stdio::null());
        let ended = command.stderr(Stdio::null()).status();
        ended.expect("the command starts").success()
    }

    /// The longest wait of a driver, in ms, while the daemon is upgraded.
    fn pause(&self, writes: bool, depth: usize, gib: u64) -> f64 {
        let spec = Spec {
            bytes: BLOCK,
            writes,
            depth,
            flushes: false,
            blocks: (gib << 30) / BLOCK as u64,
            until: Until::Time(Duration::from_secs(3)),
        };
        let socket = self.socket();
        let load = thread::spawn(move || drive(&socket, 1, spec));
        thread::sleep(Duration::from_millis(1500));
        assert!(self.says(&["upgrade"]), "the daemon is upgraded");
        let latencies = load.join().expect("the load ends");
        latencies.into_iter().max().unwrap_or(0) as f64 / 1e6
    }
}

fn sarsen(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sarsen"));
    command.env("SARSEN_API", dir.join("api.sock"));
    command
}
