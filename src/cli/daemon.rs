//! `sarsen daemon --config FILE`

use super::Failure;
use super::output::Output;
use crate::api::model::ErrorBody;
use crate::daemon::{Config, StartError};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Daemon {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/sarsen/sarsen.toml")]
    config: PathBuf,
    /// Read the configuration, say what this version is, and end
    #[arg(long)]
    check: bool,
    /// End when the process ends that started this one
    #[arg(long, hide = true)]
    end_with_parent: bool,
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
        if self.end_with_parent {
            let asked = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM);
            asked.map_err(|error| Failure::local("--end-with-parent", error))?;
        }
        crate::daemon::run(config, |_| {}).map_err(not_started)
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
