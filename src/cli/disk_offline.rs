//! `sarsen disk format | inspect | check`: tools for a disk that no daemon runs.

use super::Failure;
use super::output::Output;
use crate::api::model::ErrorBody;
use crate::api::size::parse;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Format {
    /// A block device, or a file
    path: PathBuf,
    /// Make a sparse file of this size
    #[arg(long, value_parser = parse)]
    size: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// A block device, or a file
    path: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// A block device, or a file
    path: PathBuf,
}

impl Format {
    pub(super) fn run(self, _output: Output) -> Result<(), Failure> {
        let _ = self.size;
        not_wired(&self.path)
    }
}

impl Inspect {
    pub(super) fn run(self, _output: Output) -> Result<(), Failure> {
        not_wired(&self.path)
    }
}

impl Check {
    pub(super) fn run(self, _output: Output) -> Result<(), Failure> {
        not_wired(&self.path)
    }
}

fn not_wired(path: &Path) -> Result<(), Failure> {
    let message = format!(
        "{}: the store room of this build has no such tool",
        path.display()
    );
    Err(ErrorBody::unavailable(message, "use a newer build").into())
}
