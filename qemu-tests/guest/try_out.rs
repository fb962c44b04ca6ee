//! A guest by hand: boots one, runs a command in it, prints what that said, and ends it.
//!
//! `cargo test --all-features --test processes -- --boot [--newer-kernel|--oldest-kernel] [ARGUMENT OF QEMU]... [PROGRAM=PATH]... 'COMMAND'`

use super::Plan;
use crate::harness::{Room, Step};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(3600);

/// Takes what follows `--boot`: arguments for QEMU, programs of this machine to take along, and last the command.
pub fn run(arguments: &[String]) -> ExitCode {
    match boot(arguments) {
        Ok(code) => ExitCode::from(code as u8),
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn boot(arguments: &[String]) -> Step<i32> {
    let Some((command, arguments)) = arguments.split_last() else {
        return Err(
            "--boot [--newer-kernel|--oldest-kernel] [ARGUMENT OF QEMU]... [PROGRAM=PATH]... COMMAND".into(),
        );
    };
    let room = Room::new("try-out")?;
    let mut plan = Plan::new(&room, "guest")
        .sarsen()
        .module("ublk_drv")
        .module("nbd");
    for argument in arguments {
        plan = match argument.split_once('=') {
            _ if argument == "--newer-kernel" => plan.newer_kernel(),
            _ if argument == "--oldest-kernel" => plan.oldest_kernel(),
            Some((name, path)) if path.starts_with('/') && !name.contains(',') => {
                plan.program(name.to_owned().leak(), path.into())
            }
            _ => plan.argue(&[argument]),
        };
    }
    let begun = Instant::now();
    let mut guest = plan.boot().inspect_err(|_| room.tell_logs())?;
    println!("booted in {:.1} s", begun.elapsed().as_secs_f64());
    let mut job = guest.begin(command)?;
    let begun = Instant::now();
    let mut shown = 0;
    while job.exit.is_none() && begun.elapsed() < PATIENCE {
        if let Err(why) = guest.look(&mut job) {
            room.tell_logs();
            return Err(why);
        }
        print!("{}", &job.out[shown..]);
        shown = job.out.len();
    }
    let code = job.exit.unwrap_or(-1);
    println!("exit {code}");
    if code != 0 {
        room.tell_logs();
    }
    Ok(code)
}
