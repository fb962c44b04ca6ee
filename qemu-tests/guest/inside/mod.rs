//! What this program does in a guest, where it is `/bin/agent`: `agent --in-guest VERB ARGUMENTS`.
//!
//! So that what writes and checks is written once, a disk of the guest is served to the harness's own load as an NBD
//! export; the load and its model run in the guest, or outside over the network where the guest is to lose power.

mod agent;
mod block;
mod churn;
mod disk_load;
mod forward;
mod held_reads;
mod memory;

pub use forward::forward;

use crate::harness::{Step, ensure};
use std::process::ExitCode;

/// Carries out a verb.
pub fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match carry_out(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("failed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(words: &[&str]) -> Step<()> {
    match words {
        ["agent"] => agent::serve(),
        // Serves a disk as an NBD export.
        ["serve", device, socket] => block::serve(device, socket.as_ref()),
        // Load on so many MiB of a disk until the file is there; then everything is read and checked.
        ["load", device, mib, seed, until] => {
            disk_load::run(device, mib.parse()?, seed.parse()?, until.as_ref())
        }
        // Load on a file system, or with `verify` only the look at what the same seed must have left.
        ["churn", folder, seed, steps, how] => churn::run(
            folder.as_ref(),
            seed.parse()?,
            steps.parse()?,
            *how == "verify",
        ),
        // Reads of a disk from so many MiB on until the file is there; then what was read is checked.
        ["hold-reads", device, from_mib, until] => {
            held_reads::run(device, from_mib.parse()?, until.as_ref())
        }
        // So many MiB of memory are changed and checked until the file is there.
        ["memory", mib, until] => memory::run(mib.parse()?, until.as_ref()),
        // What comes to a TCP port goes to a unix socket.
        ["forward", address, socket] => forward::listen_tcp(address, socket.as_ref()),
        words => {
            ensure!(false, "no such verb: {words:?}");
            Ok(())
        }
    }
}
