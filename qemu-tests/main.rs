//! The real `sarsen` process against real clients, real signals and a disk that loses power.
//!
//! `cargo test --all-features --test processes [-- FILTER...] [--host|--guests] [--full]`
//!
//! Each case is one disaster, or one client, named by what happens; each file in `cases/` holds one kind. A case
//! gets a folder of its own and prints one line. Where it fails, the end of every log in its folder follows.
//! Needs root, /dev/fuse, loop devices, and the tools that `cases::clients` names.
//!
//! The cases of `cases/guests/` boot a guest under QEMU; `--guests` runs these only, `--host` all others. `--boot COMMAND` tries a
//! command in a guest by hand (`guest::try_out`).

mod cases;
mod guest;
mod harness;

use harness::{Case, Place, Room};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--in-guest") => return guest::run_inside(&arguments[1..]),
        Some("--boot") => return guest::try_out::run(&arguments[1..]),
        _ => {}
    }
    let mut filters = Vec::new();
    let mut full = false;
    let mut place = None;
    for argument in arguments {
        match argument.as_str() {
            "--full" => full = true,
            "--host" => place = Some(Place::Host),
            "--guests" => place = Some(Place::Guest),
            // What cargo and nextest pass along, and what means nothing here.
            flag if flag.starts_with('-') => {}
            filter => filters.push(filter.to_owned()),
        }
    }
    let wanted = |case: &&Case| {
        (full || !case.full_only)
            && place.is_none_or(|place| case.place == place)
            && (filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter)))
    };
    let all = cases::all();
    let (mut passed, mut failed) = (0, 0);
    for case in all.iter().filter(wanted) {
        match run(case) {
            true => passed += 1,
            false => failed += 1,
        }
    }
    println!("{passed} passed, {failed} failed");
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Runs one case and tells how it went.
fn run(case: &Case) -> bool {
    let begun = Instant::now();
    let room = match Room::new(case.name) {
        Ok(room) => room,
        Err(error) => {
            println!("FAILED {}: no folder for it: {error}", case.name);
            return false;
        }
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| (case.run)(&room)));
    let seconds = begun.elapsed().as_secs_f64();
    let why = match outcome {
        Ok(Ok(note)) => {
            let note = if note.is_empty() {
                note
            } else {
                format!(": {note}")
            };
            println!("ok     {} ({seconds:.1} s){note}", case.name);
            return true;
        }
        Ok(Err(failure)) => failure.to_string(),
        Err(_) => "it panicked; see above".into(),
    };
    println!("FAILED {} ({seconds:.1} s): {why}", case.name);
    room.tell_logs();
    false
}
