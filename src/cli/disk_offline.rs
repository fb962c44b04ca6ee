//! `sarsen disk format | inspect | check`: tools for a disk that no daemon runs.

use super::Failure;
use super::output::Output;
use crate::api::host::image;
use crate::api::model::{ErrorBody, ErrorCode};
use crate::api::size::parse;
use crate::io::{Access, Disk};
use crate::store::{self, DiskFault};
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
    pub(super) fn run(self, output: Output) -> Result<(), Failure> {
        let (disk, made) = image::open_or_create(&self.path, self.size)?;
        let formatted = image::look(&disk).and_then(|found| image::format_empty(&disk, found));
        if let (Err(_), Some(made)) = (&formatted, made) {
            made.unmake();
        }
        let store = formatted?;
        let formatted = serde_json::json!({
            "path": self.path,
            "store": store.to_string(),
            "size_bytes": disk.bytes(),
        });
        output.show(&formatted, |_| {
            format!("{} carries the store {store} now", self.path.display())
        })
    }
}

impl Inspect {
    pub(super) fn run(self, output: Output) -> Result<(), Failure> {
        let disk = open(&self.path)?;
        let found = store::inspect(&mut reader(&disk), disk.bytes()).map_err(|why| {
            let message = format!("{}: {why}", self.path.display());
            ErrorBody::new(
                ErrorCode::Io,
                "path",
                message,
                "sarsen disk check says what is wrong",
            )
        })?;
        output.show(&found, |found| {
            let size = |bytes: u64| format!("{bytes} bytes");
            let mut lines = vec![
                format!("store          {}", found.store),
                format!("format         version {}", found.format_version),
                format!("opened         {} times", found.incarnation),
                format!("checkpoint     {}", found.checkpoint),
                format!(
                    "journal        {} of {}, {} batches to replay{}",
                    size(found.journal.used_bytes),
                    size(found.geometry.journal_len_bytes),
                    found.journal.batches,
                    if found.journal.damaged {
                        ", DAMAGED"
                    } else {
                        ""
                    },
                ),
                format!(
                    "slots          {} of {} used",
                    found.space.slots_used, found.space.slots
                ),
                format!("damaged        {} structures", found.damaged_structures),
            ];
            lines.extend(found.volumes.iter().map(|volume| {
                let (name, layers) = (&volume.name, volume.layers.len());
                format!(
                    "volume {:7} {name}, {}, {layers} layers",
                    volume.id.0,
                    size(volume.size_bytes)
                )
            }));
            lines.extend(found.replicas.iter().map(|replica| {
                format!(
                    "replica of PG {:3} version {}, {} ranges, {} writes above the marks",
                    replica.pg.0, replica.version, replica.ranges, replica.window_entries
                )
            }));
            lines.join("\n")
        })
    }
}

impl Check {
    pub(super) fn run(self, output: Output) -> Result<(), Failure> {
        let disk = open(&self.path)?;
        let report = store::check(&mut reader(&disk), disk.bytes());
        output.show(&report, |report| {
            let mut lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
            let counts = &report.counts;
            lines.push(format!(
                "checked: {} blocks in slots and {} in the journal, {} pages, {} batches, {} volumes; \
                 {} of {} slots used",
                counts.blocks_checked,
                counts.journal_blocks_checked,
                counts.pages,
                counts.batches,
                counts.volumes,
                counts.slots_used,
                counts.slots_used + counts.slots_free,
            ));
            lines.join("\n")
        })?;
        if report.is_sound() {
            return Ok(());
        }
        let why = match &report.refused {
            Some(why) => why.to_string(),
            None => format!(
                "{} things are wrong",
                report.findings.len() as u64 + report.findings_dropped
            ),
        };
        let message = format!("{}: {why}", self.path.display());
        let hint = "nothing was changed; restore what it names from a replica or a backup";
        Err(ErrorBody::new(ErrorCode::Io, "path", message, hint).into())
    }
}

fn open(path: &Path) -> Result<Disk, Failure> {
    Disk::open(path, Access::ReadOnly).map_err(|error| {
        let hint = "stop the daemon that uses it, or name another disk";
        ErrorBody::new(ErrorCode::Io, "path", error.to_string(), hint).into()
    })
}

/// Reads for the pure tools; they are told only that a place cannot be read.
fn reader(disk: &Disk) -> impl FnMut(u64, &mut [u8]) -> Result<(), DiskFault> {
    |offset, bytes| disk.read_at(offset, bytes).map_err(|_| DiskFault::Medium)
}
