//! `cargo sim`: hands the command line to the simulator.

use sarsen::sim;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Time since the first call: for the rate that is printed at the end, and for nothing that decides.
#[allow(clippy::disallowed_methods)]
fn clock() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

fn main() -> ExitCode {
    match sim::run(std::env::args().skip(1), clock) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(misunderstood) => {
            eprintln!("{misunderstood}");
            ExitCode::from(2)
        }
    }
}
