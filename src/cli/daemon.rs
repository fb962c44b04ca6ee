//! `sarsen daemon --config FILE`

use super::Failure;
use super::output::Output;
use crate::api::model::ErrorBody;
use crate::daemon::{Config, StartError};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Daemon {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/sarsen/sarsen.toml")]
    config: PathBuf,
    /// Read the configuration, say what this version is, and end
    #[arg(long)]
    check: bool,
    /// End, as by kill -9, with this process, which started this one
    #[arg(long, value_name = "PID", hide = true)]
    end_with: Option<u32>,
}

impl Daemon {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = Config::load(&self.config).map_err(|error| {
            let hint = "correct the file and start again";
            Failure::Refused(ErrorBody::invalid("", error.to_string(), hint))
        })?;
        if self.check {
            return check(&config);
        }
        if let Some(parent) = self.end_with {
            end_with(parent)?;
        }
        crate::daemon::run(config, |_| {}).map_err(not_started)
    }
}

/// Has the kernel kill this process when its parent ends, however that ends. What was acknowledged survives that, and a
/// daemon that nobody sees to any more should not hold its disks.
fn end_with(parent: u32) -> Result<(), Failure> {
    let failed = |error| Failure::local("--end-with", error);
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
    // Where it ended before this, nobody tells.
    match getppid().as_raw() == parent as i32 {
        true => Ok(()),
        false => Err(Failure::local("--end-with", "that process is not there")),
    }
}

/// Says whether a daemon would start with this configuration, as far as that shows without starting one.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    let checked = crate::daemon::check(config).map_err(not_started)?;
    Output { json: true }.show(&checked, |_| String::new())
}

/// A daemon that did not start, in the words of the command line.
pub(super) fn not_started(error: StartError) -> Failure {
    let body = ErrorBody::unavailable(error.reason, "");
    Failure::Refused(ErrorBody {
        field: error.step.into(),
        ..body
    })
}
