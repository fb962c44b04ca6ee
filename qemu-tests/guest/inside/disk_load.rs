//! The harness's load and model on a disk of the guest, in the guest.

use super::block;
use crate::harness::load::{Load, Shape, verify};
use crate::harness::model::Model;
use crate::harness::{Step, ensure};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest that no write may be acknowledged: more than any pause that is allowed, on a machine that emulates.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Silence that is a pause.
const PAUSE: Duration = Duration::from_millis(100);
const SHAPE: Shape = Shape {
    connections: 2,
    depth: 8,
};

/// Loads the first `mib` MiB of a disk that reads as zeroes until the file `until` is there, says every second how far
/// it is, and then reads and checks everything.
pub fn run(device: &str, mib: u64, seed: u64, until: &Path) -> Step<()> {
    let socket = PathBuf::from(format!("/run/load-{}.sock", std::process::id()));
    let (served, at) = (device.to_owned(), socket.clone());
    std::thread::spawn(move || {
        if let Err(why) = block::serve(&served, &at) {
            println!("failed: {why}");
            std::process::exit(1);
        }
    });
    let begun = Instant::now();
    while !socket.exists() {
        ensure!(begun.elapsed() < SILENCE_MAX, "{device} is not served");
        std::thread::sleep(Duration::from_millis(10));
    }
    let model = Arc::new(Mutex::new(Model::new(mib << 20)));
    let load = Load::start(&socket, "disk", &model, SHAPE, seed)?;
    let (mut last, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
    let mut told = Instant::now();
    let (mut is_pause, mut disordered) = (false, 0);
    while !until.exists() && !load.has_failed() {
        let now = load.acknowledged();
        if now > last {
            longest = longest.max(since.elapsed());
            (last, since) = (now, Instant::now());
        }
        let silent = since.elapsed();
        if (silent > PAUSE) != is_pause {
            is_pause = !is_pause;
            disordered += u64::from(is_pause && load.overtaken() > 0);
        }
        ensure!(
            silent < SILENCE_MAX,
            "no write was acknowledged for {silent:?}"
        );
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            println!("acknowledged {now}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let acknowledged = load.acknowledged();
    load.finish()?;
    verify(&socket, "disk", &model)?;
    println!(
        "verified {acknowledged} acknowledged writes, {disordered} pauses with requests answered out of order, the longest pause was {} ms",
        longest.as_millis()
    );
    Ok(())
}
